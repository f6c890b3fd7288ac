data=/var/lib/rancher/k3s
config=/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml
hash() { sha256sum | cut -d ' ' -f 1; }
if [ -x /usr/local/bin/k3s ]; then
  printf 'version %s\n' "$(/usr/local/bin/k3s --version 2>/dev/null | head -n 1)"
fi
if [ -d "$data/server" ]; then echo server-data; fi
if [ -d "$data/agent" ]; then echo agent-data; fi
if [ -d "$data/server/db/etcd" ]; then
  echo 'datastore etcd'
elif [ -f "$data/server/db/state.db" ]; then
  echo 'datastore sqlite'
fi
for ca in "$data/server/tls/server-ca.crt" "$data/agent/server-ca.crt"; do
  if [ -s "$ca" ]; then printf 'ca %s\n' "$(hash <"$ca")"; fi
done
if [ -s "$data/server/token" ]; then
  password=$(sed 's/^K10[0-9a-fA-F]*::server://' "$data/server/token")
  printf 'token %s\n' "$(printf '%s%s' '@SALT@' "$password" | hash)"
fi
if [ -f "$config" ]; then
  echo config
  if grep -q '^cluster-init: true' "$config"; then echo cluster-init; fi
  sed -n 's/^server: */server /p' "$config"
fi
if [ -f /etc/rancher/k3s/registries.yaml ]; then
  printf 'registries %s\n' "$(head -n 1 /etc/rancher/k3s/registries.yaml)"
fi
for name in k3s k3s-agent; do
  unit=/etc/systemd/system/$name.service
  if [ -f "$unit" ]; then
    printf 'unit-%s %s\n' "$name" "$(head -n 1 "$unit")"
    sed -n '/^ExecStart=/,$p' "$unit" | sed 's/^ExecStart=//' | while read -r line; do
      printf 'exec-%s %s\n' "$name" "$line"
    done
  fi
done
for unit in /etc/systemd/system/k3s*.service; do
  if [ -f "$unit" ]; then printf 'unit-file %s\n' "${unit##*/}"; fi
done
if [ -s /var/lib/turingpi/k3s-cluster ]; then printf 'cluster %s\n' "$(head -n 1 /var/lib/turingpi/k3s-cluster)"; fi
if [ -f /etc/hosts ]; then sed -n 's/^# BEGIN turingpi /hosts-block /p' /etc/hosts; fi
if [ -s /var/lib/turingpi/k3s-applied ]; then printf 'applied %s\n' "$(cat /var/lib/turingpi/k3s-applied)"; fi
for path in /usr/local/bin/k3s /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service \
  /etc/rancher/k3s /etc/rancher/node /run/k3s /run/flannel /var/lib/kubelet /var/lib/cni \
  /var/lib/turingpi/k3s-applied; do
  if [ -e "$path" ]; then printf 'left %s\n' "$path"; fi
done
if [ -n "$(ls -A "$data" 2>/dev/null)" ]; then printf 'left %s\n' "$data"; fi
for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do
  if [ -e "/sys/class/net/$link" ]; then printf 'left interface %s\n' "$link"; fi
done
if grep -q -e ' /run/k3s' -e ' /var/lib/kubelet/' -e ' /run/netns/cni-' /proc/mounts 2>/dev/null; then
  echo 'left mounts'
fi
for comm in /proc/[0-9]*/comm; do
  if [ -r "$comm" ] && grep -q '^containerd-shim' "$comm" 2>/dev/null; then echo 'left containers'; break; fi
done
