# Hosts: a root file system, three copies of it booted with systemd, a hub that they and the tool are connected to.

work=$PWD/target/ci/real-hosts
base=$PWD/target/ci/debian
# Lies in no network of this machine; it is used inside our namespaces only.
net=10.250.0
hub=tpi-hub-$$
nodes=(node1 node2 node3)
version=v1.35.5+k3s1
began=$SECONDS
background=()
saved_settings=()

said() { printf '\n-- %s (%s s)\n' "$*" "$((SECONDS - began))"; }
address() { echo "$net.1${1#node}"; }
namespace() { echo "tpi-$1-$$"; }
root_of() { echo "$work/$1/root"; }

build_programs() {
  local target=${CARGO_TARGET_DIR:-$PWD/target}
  if [ -z "${TURINGPI:-}" ] || [ -z "${STAND_IN:-}" ]; then
    # As `cargo test --workspace` builds them, so that nothing is built twice.
    cargo build --quiet --locked --workspace --bin turingpi --example k3s_stand_in
  fi
  turingpi=${TURINGPI:-$target/debug/turingpi}
  stand_in=${STAND_IN:-$target/debug/examples/k3s_stand_in}
  mkdir -p "$work"
  # One build gives every release: the program reads its version from its own end.
  strip -o "$work/stand-in" "$stand_in" 2>/dev/null || cp "$stand_in" "$work/stand-in"
  local release=$work/mirror/download/$version
  rm -rf "$work/mirror"
  mkdir -p "$release"
  for suffix in "" -arm64; do
    cp "$work/stand-in" "$release/k3s$suffix"
    printf '\nk3s-stand-in %s\n' "$version" >>"$release/k3s$suffix"
    chmod 755 "$release/k3s$suffix"
  done
  (cd "$release" && sha256sum k3s >sha256sum-amd64.txt && sha256sum k3s-arm64 >sha256sum-arm64.txt)
  rm "$work/stand-in"
}

# sudo-rs, for the host that asks for a password: Debian's release here may not have it.
build_sudo_rs() {
  sudo_rs=${SUDO_RS:-$PWD/target/ci/sudo-rs/bin/sudo}
  [ -x "$sudo_rs" ] && return
  if [ ! -e /usr/include/security/pam_appl.h ]; then
    apt-get install -y -qq --no-install-recommends libpam0g-dev >/dev/null 2>&1 || true
  fi
  if ! cargo install --quiet --locked sudo-rs --version 0.2.15 --root "$PWD/target/ci/sudo-rs" 2>"$work/sudo-rs.log"; then
    tail -n 3 "$work/sudo-rs.log"
    sudo_rs=
  fi
}

# The same release as this machine's, so that programs built here run there. Everything that host preparation installs
# is in it: the hosts reach no package mirror.
build_root() {
  local packages="systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,iproute2,kmod,procps,iputils-ping"
  packages+=",systemd-timesyncd,ca-certificates,cryptsetup,curl,iptables,nfs-common,open-iscsi"
  local suite id
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  id=$(. /etc/os-release && echo "$ID")
  [ -n "$suite" ] || skip "this system does not say its release"
  local components=main
  [ "$id" = ubuntu ] && components=main,universe
  if [ "$(cat "$base/etc/real-hosts" 2>/dev/null)" = "$suite $packages" ]; then
    echo "kept from an earlier run"
    return
  fi
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
  [ -n "$mirror" ] || skip "apt knows no mirror"
  rm -rf "$base" "$base.part"
  if ! debootstrap --variant=minbase --components="$components" --include="$packages" "$suite" "$base.part" "$mirror" \
    >"$work/debootstrap.log" 2>&1; then
    tail -n 5 "$work/debootstrap.log"
    rm -rf "$base.part"
    skip "debootstrap failed"
  fi
  rm -rf "$base.part"/var/cache/apt/archives/*.deb "$base.part"/etc/ssh/ssh_host_*
  echo "$suite $packages" >"$base.part/etc/real-hosts"
  mv "$base.part" "$base"
}

# What a container is refused by the kernel or by its manager, and a host of one's own is not.
allow() {
  local root=$1 unit
  unit() { mkdir -p "$root/etc/systemd/system/$1.d" && cat >"$root/etc/systemd/system/$1.d/container.conf"; }
  # systemd-nspawn mounts /proc/sys read-only.
  cat >"$root/etc/systemd/system/writable-proc-sys.service" <<'UNIT'
[Unit]
Description=Kernel settings can be changed, as outside of a container
DefaultDependencies=no
Before=systemd-sysctl.service sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -o remount,bind,rw /proc/sys
Restart=on-failure
RestartSec=1
UNIT
  mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
  ln -sf ../writable-proc-sys.service "$root/etc/systemd/system/sysinit.target.wants/"
  # Settings of the whole kernel that a boot would write stay as this machine has them.
  local file
  for file in "$root"/usr/lib/sysctl.d/*.conf; do
    [ -e "$file" ] && ln -sf /dev/null "$root/etc/sysctl.d/${file##*/}"
  done
  # It runs, but must not and cannot touch the clock that it shares with this machine.
  unit systemd-timesyncd.service <<'UNIT'
[Unit]
ConditionVirtualization=
ConditionCapability=
[Service]
AmbientCapabilities=
CapabilityBoundingSet=
UNIT
  # iSCSI in the kernel is not there for containers.
  unit iscsid.service <<'UNIT'
[Service]
Type=simple
PIDFile=
ExecStartPre=
ExecStart=
ExecStart=/bin/sleep infinity
UNIT
  # Modules count as built in: this machine's kernel serves, and loading is its own business.
  local modules=$root/lib/modules/$(uname -r) module
  mkdir -p "$modules"
  : >"$modules/modules.order"
  for module in br_netfilter overlay iscsi_tcp dm_crypt vxlan; do
    echo "kernel/net/$module.ko"
  done >"$modules/modules.builtin"
  depmod -b "$root" "$(uname -r)" 2>/dev/null
}

make_root() {
  local node=$1 root
  root=$(root_of "$node")
  mkdir -p "$root" "$work/$node/upper" "$work/$node/work"
  if ! mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/$node/upper,workdir=$work/$node/work" "$root" 2>/dev/null; then
    cp -a "$base/." "$root/"
  fi
  allow "$root"
  # Cloned disks, as people make them: the same machine id and iSCSI name on all, the image's host name. Host keys differ.
  echo debian >"$root/etc/hostname"
  printf '127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n' >"$root/etc/hosts"
  # Nobody answers: names that are not in /etc/hosts fail at once.
  echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
  ssh-keygen -A -f "$root" >/dev/null
  printf 'LABEL=swap none swap sw 0 0\n' >>"$root/etc/fstab"
}

# Three ways to become root: root itself, sudo without a password, sudo with one (and a login with one).
make_users() {
  local root
  root=$(root_of node1)
  mkdir -p -m 700 "$root/root/.ssh"
  cp "$work/key.pub" "$root/root/.ssh/authorized_keys"
  root=$(root_of node2)
  chroot "$root" useradd -m -s /bin/bash ops
  mkdir -m 700 "$root/home/ops/.ssh"
  cp "$work/key.pub" "$root/home/ops/.ssh/authorized_keys"
  chroot "$root" chown -R ops: /home/ops/.ssh
  echo 'ops ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/ops"
  chmod 440 "$root/etc/sudoers.d/ops"
  root=$(root_of node3)
  chroot "$root" useradd -m -s /bin/bash -G sudo admin
  echo "admin:$password" | chroot "$root" chpasswd
}

make_network() {
  local node ns number
  ip netns add "$hub"
  ip -n "$hub" link set lo up
  ip -n "$hub" link add br0 type bridge
  ip -n "$hub" addr add "$net.1/24" dev br0
  ip -n "$hub" link set br0 up
  for node in "${nodes[@]}"; do
    number=${node#node}
    ns=$(namespace "$node")
    ip netns add "$ns"
    ip -n "$hub" link add "port$number" type veth peer name eth0 netns "$ns"
    ip -n "$hub" link set "port$number" master br0 up
    ip -n "$ns" link set lo up
    ip -n "$ns" addr add "$(address "$node")/24" dev eth0
    ip -n "$ns" link set eth0 up
    # Leads nowhere; k3s wants to see one.
    ip -n "$ns" route add default via "$net.1"
  done
}

# Runs a host; again each time it reboots, for which systemd-nspawn ends with 133.
boot() {
  local node=$1
  (
    trap - EXIT INT TERM
    code=133
    while [ "$code" = 133 ]; do
      # Not --network-namespace-path: that leaves this machine's interfaces in the container's /sys.
      nsenter --net="/run/netns/$(namespace "$node")" systemd-nspawn -q -D "$(root_of "$node")" --boot \
        --machine="$node-$$" --hostname=debian --capability=all --register=no --keep-unit --link-journal=no \
        --resolv-conf=off --timezone=off --console=pipe </dev/null >>"$work/$node/console" 2>&1 &
      echo $! >"$work/$node/pid"
      code=0
      wait $! || code=$?
    done
  ) 2>/dev/null &
}

# The container's first process; another one after each reboot.
leader() {
  local pid
  pid=$(cat "$work/$1/pid")
  cut -d ' ' -f 1 "/proc/$pid/task/$pid/children"
}

# Runs a command on a host, from outside: not over SSH, not through the tool.
on() {
  local node=$1
  shift
  nsenter -t "$(leader "$node")" -m -u -i -n -p -- "$@"
}

# Runs a command where the tool runs.
in_hub() { ip netns exec "$hub" "$@"; }

wait_ssh() {
  local node=$1 try
  for try in $(seq 300); do
    if in_hub bash -c "exec 3<>/dev/tcp/$(address "$node")/22 && read -r -t 2 line <&3 && [[ \$line == SSH-* ]]" 2>/dev/null; then
      # sshd is up before anybody but root is let in, and before the kernel's settings can be changed.
      on "$node" test ! -e /run/nologin -a -w /proc/sys/net/ipv4/ip_forward && return 0
    fi
    kill -0 "$(cat "$work/$node/pid")" 2>/dev/null || break
    sleep 0.2
  done
  echo "$node does not answer over SSH; its console said:"
  tail -n 20 "$work/$node/console"
  return 1
}

keep_setting() {
  [ -r "/proc/sys/$1" ] && saved_settings+=("$1=$(cat "/proc/sys/$1")") || true
}

make_hosts() {
  local node
  rm -rf "$work"/node? "$work/cluster"
  # The kernel is shared: settings that are not per namespace are put back at the end.
  for setting in fs/inotify/max_user_instances fs/inotify/max_user_watches vm/max_map_count; do keep_setting "$setting"; done
  modprobe -a br_netfilter vxlan overlay 2>/dev/null || true
  rm -f "$work/key" "$work/key.pub"
  ssh-keygen -q -t ed25519 -N '' -C real-hosts -f "$work/key"
  password=$(od -An -N 9 -tx1 /dev/urandom | tr -d ' \n')
  for node in "${nodes[@]}"; do make_root "$node"; done
  make_users
  make_network
  for node in "${nodes[@]}"; do boot "$node"; done
  ip netns exec "$hub" python3 -m http.server --bind "$net.1" --directory "$work/mirror" 8080 >"$work/mirror.log" 2>&1 &
  background+=($!)
  # A machine that does not boot containers says nothing about us.
  for node in "${nodes[@]}"; do wait_ssh "$node" || skip "$node did not boot as a container"; done
}

stop_pid() {
  local pid=$1 try
  kill "$pid" 2>/dev/null || return 0
  for try in $(seq 50); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

# Takes everything back. Runs on every way out.
finish() {
  local code=$1 node pid setting
  trap '' INT TERM
  set +e
  if [ "$code" != 0 ]; then
    printf '\nFAILED%s\n' "${checking:+ at: $checking}"
    evidence
  fi
  if [ "${HOLD:-}" = 1 ]; then
    printf 'held: leaders %s, hub %s, folder %s; press Enter to take it down\n' \
      "$(for node in "${nodes[@]}"; do leader "$node"; done | tr '\n' ' ')" "$hub" "$work"
    read -r _
  fi
  for pid in "${background[@]}"; do stop_pid "$pid"; done
  for node in "${nodes[@]}"; do
    [ -f "$work/$node/pid" ] && stop_pid "$(cat "$work/$node/pid")" &
  done
  wait 2>/dev/null
  # Whoever is left in a namespace of ours is ours.
  for node in "$hub" "${nodes[@]/#/tpi-}"; do
    [ "$node" = "$hub" ] || node=$node-$$
    for pid in $(ip netns pids "$node" 2>/dev/null); do kill -9 "$pid"; done
  done
  for node in "${nodes[@]}"; do
    ip netns del "$(namespace "$node")" 2>/dev/null
    mountpoint -q "$(root_of "$node")" && umount -l "$(root_of "$node")"
    rm -rf "$work/$node"
    rmdir "/run/systemd/nspawn/propagate/$node-$$" 2>/dev/null
  done
  ip netns del "$hub" 2>/dev/null
  for setting in "${saved_settings[@]}"; do echo "${setting#*=}" >"/proc/sys/${setting%%=*}"; done
  # What a failed run knew stays to be looked at.
  [ "$code" != 0 ] || rm -rf "$cluster" "$work/mirror" "$work/key" "$work/key.pub"
  exit "$code"
}
