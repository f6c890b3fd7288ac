# Read-only. $1 is a random marker; the rest are switches that say what the following words are.
set +eu
mark=$1
shift
section() { printf '\n%s %s\n' "$mark" "$1"; }
kernel=$(uname -r)
section arch; uname -m
#== in general
section os; cat /etc/os-release 2>/dev/null
section armbian; cat /etc/armbian-release 2>/dev/null
section kernel; uname -r
section boot-id; cat /proc/sys/kernel/random/boot_id 2>/dev/null
section hostname; cat /proc/sys/kernel/hostname 2>/dev/null || hostname
section static-hostname; cat /etc/hostname 2>/dev/null
section machine-id; cat /etc/machine-id 2>/dev/null
section user; id -u; printf '%s\n' "${SUDO_USER:-}"
section addresses; ip -o addr show scope global 2>/dev/null
section route; ip -o route show default 2>/dev/null
section macs
for link in /sys/class/net/*; do
  if [ -r "$link/address" ]; then printf '%s %s\n' "${link##*/}" "$(cat "$link/address")"; fi
done
section memory; grep '^MemTotal:' /proc/meminfo 2>/dev/null
section cores; nproc 2>/dev/null || grep -c '^processor' /proc/cpuinfo
section swaps; cat /proc/swaps 2>/dev/null
section cgroup; stat -fc %T /sys/fs/cgroup 2>/dev/null
section cgroup-controllers; cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null
section cgroup-subtree; cat /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
section cgroup-v1; cat /proc/cgroups 2>/dev/null
section time; date +%s
section timedate; timedatectl show -p NTPSynchronized -p Timezone 2>/dev/null
section localtime; readlink -f /etc/localtime 2>/dev/null
section mounts; cat /proc/mounts 2>/dev/null
section space
for dir in / /var/log /var/lib /var/lib/rancher /var/lib/longhorn; do
  if [ -d "$dir" ]; then printf '%s ' "$dir"; df -Pk "$dir" 2>/dev/null | tail -n 1; fi
done
section iptables; iptables --version 2>/dev/null
section first-boot
if [ -e /root/.not_logged_in_yet ]; then echo wizard; fi
if [ "$(systemctl is-enabled armbian-firstrun 2>/dev/null)" = enabled ]; then echo armbian-firstrun; fi
section reboot
if [ -e /var/run/reboot-required ]; then echo packages; fi
if [ -d /lib/modules ] && [ ! -d "/lib/modules/$kernel" ]; then echo kernel; fi
section ufw
if grep -q '^ENABLED=yes' /etc/ufw/ufw.conf 2>/dev/null; then echo active; ufw show added 2>/dev/null; fi
section firewalld
if [ "$(systemctl is-active firewalld 2>/dev/null)" = active ]; then
  echo active
  firewall-cmd --permanent --zone=trusted --list-sources 2>/dev/null
  firewall-cmd --permanent --list-ports 2>/dev/null
fi

#== in particular
mode=
packages=
for word in "$@"; do
  case $word in
    --file | --text | --path | --unit | --package | --module | --sysctl) mode=$word ;;
    *)
      case $mode in
        --file)
          if [ -f "$word" ]; then
            section "file:$word"
            sha256sum "$word" | cut -d ' ' -f 1
            stat -c '%a %U:%G %s' "$word"
          fi
          ;;
        --text) if [ -f "$word" ]; then section "text:$word"; cat "$word"; fi ;;
        --path) if [ -e "$word" ]; then section "path:$word"; fi ;;
        --unit) section "unit:$word"; systemctl show -p @UNIT@ "$word" 2>/dev/null ;;
        --package) packages="$packages $word" ;;
        --module)
          if [ -d "/sys/module/$word" ] || grep -q "^$word " /proc/modules 2>/dev/null; then
            section "module:$word"
          elif tr - _ <"/lib/modules/$kernel/modules.builtin" 2>/dev/null | grep -q "/$word\.ko"; then
            section "module:$word"
          fi
          ;;
        --sysctl)
          key=$(printf '%s' "$word" | tr . /)
          if [ -r "/proc/sys/$key" ]; then section "sysctl:$word"; cat "/proc/sys/$key"; fi
          ;;
      esac
      ;;
  esac
done
section packages
if [ -n "$packages" ]; then
  dpkg-query -W -f='${Package} ${db:Status-Status} ${Version}\n' $packages 2>/dev/null
fi
