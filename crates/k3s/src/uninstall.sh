# Takes k3s off a host, whole or half installed. $1 is `wipe` or `keep` (the data).
# The order matters: services, then containers, mounts, networks, then files.
set +e
data=/var/lib/rancher/k3s
for unit in k3s k3s-agent; do
  if systemctl cat "$unit.service" >/dev/null 2>&1; then
    systemctl stop "$unit.service"
    systemctl disable --quiet "$unit.service"
    systemctl reset-failed "$unit.service" 2>/dev/null
  fi
done

# Pods survive a stop of the service: their shims are ended one by one, never by a broad name.
for comm in /proc/[0-9]*/comm; do
  if [ -r "$comm" ] && grep -q '^containerd-shim' "$comm" 2>/dev/null; then
    pid=${comm#/proc/}
    pid=${pid%/comm}
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "/k3s/"; then
      for child in $(cat /proc/"$pid"/task/*/children 2>/dev/null); do kill -9 "$child" 2>/dev/null; done
      kill -9 "$pid" 2>/dev/null
    fi
  fi
done

# The deepest mounts first. /proc/mounts writes a space as \040.
for root in /run/k3s /var/lib/kubelet/pods /var/lib/kubelet/plugins /run/netns/cni-; do
  cut -d ' ' -f 2 /proc/mounts 2>/dev/null | grep "^$root" | sort -r | while read -r mount; do
    mount=$(printf '%b' "$mount")
    umount -f "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null
    case $mount in /run/netns/cni-*) rm -f "$mount" ;; esac
  done
done
# A volume that is still mounted would be emptied with the folder it is mounted in, wherever its data really is.
still=$(cut -d ' ' -f 2 /proc/mounts 2>/dev/null | grep -e '^/run/k3s/' -e '^/var/lib/kubelet/')
if [ -n "$still" ]; then
  printf 'still mounted, so nothing was removed:\n%s\n' "$still" >&2
  exit 1
fi
rm -rf /run/k3s /run/flannel

for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do
  if [ -e "/sys/class/net/$link" ]; then ip link delete "$link" 2>/dev/null; fi
done
for tool in iptables ip6tables; do
  if command -v "$tool-save" >/dev/null 2>&1 && command -v "$tool-restore" >/dev/null 2>&1; then
    "$tool-save" 2>/dev/null | grep -v -e KUBE- -e CNI- -e flannel | "$tool-restore" 2>/dev/null
  fi
done

rm -f /etc/systemd/system/k3s.service /etc/systemd/system/k3s.service.env
rm -f /etc/systemd/system/k3s-agent.service /etc/systemd/system/k3s-agent.service.env
systemctl daemon-reload
for link in kubectl crictl ctr; do
  if [ -L "/usr/local/bin/$link" ] && [ "$(readlink "/usr/local/bin/$link")" = k3s ]; then
    rm -f "/usr/local/bin/$link"
  fi
done
rm -f /usr/local/bin/k3s /usr/local/bin/k3s-killall.sh
rm -f /usr/local/bin/k3s-uninstall.sh /usr/local/bin/k3s-agent-uninstall.sh
rm -f /var/lib/turingpi/k3s-applied
rm -f /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml /etc/rancher/k3s/k3s.yaml
rm -rf /var/lib/cni /var/lib/kubelet
if [ "$1" = wipe ]; then
  rm -rf /etc/rancher/k3s /etc/rancher/node
  rm -f /var/lib/turingpi/k3s-cluster
  # The folder itself may be a mount point or lie behind a link: it is emptied, then removed if it can be.
  if [ -d "$data" ]; then
    rm -rf "$data"/* "$data"/.[!.]* 2>/dev/null
    rmdir "$data" 2>/dev/null
  fi
fi
exit 0
