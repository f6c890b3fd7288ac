# Sets up a fixed address with whatever manages the network. $1 interface or empty, $2 address/length,
# $3 netplan file, $4 NetworkManager file, $5 systemd-networkd file; `@INTERFACE@` stands for the interface in them.
interface=$1 address=$2 netplan=$3 manager=$4 networkd=$5
if [ -z "$interface" ]; then
  interface=$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
fi
if [ -z "$interface" ]; then
  for path in /sys/class/net/e*; do
    if [ -z "$interface" ] && [ -e "$path" ]; then interface=${path##*/}; fi
  done
fi
if [ -z "$interface" ]; then
  echo "no network interface was found" >&2
  exit 65
fi

# write FILE CONTENT: 0600, sets `changed` when it was not so.
changed=
write() {
  wanted=$(printf '%s\n' "$2" | sed "s/@INTERFACE@/$interface/g")
  if [ "$(cat "$1" 2>/dev/null || true)" != "$wanted" ]; then
    mkdir -p "${1%/*}"
    printf '%s\n' "$wanted" >"$1.turingpi-new"
    chmod 600 "$1.turingpi-new"
    mv -f "$1.turingpi-new" "$1"
    changed=yes
  fi
}
active() { [ "$(systemctl is-active "$1" 2>/dev/null || true)" = active ]; }

if command -v netplan >/dev/null 2>&1 && [ -d /etc/netplan ]; then
  if active NetworkManager; then
    netplan=$(printf '%s\n' "$netplan" | sed 's/^  version: 2$/  version: 2\n  renderer: NetworkManager/')
  fi
  write /etc/netplan/90-turingpi.yaml "$netplan"
  # Two definitions may match one interface, and the first in alphabetical order wins: the DHCP ones go.
  for file in /etc/netplan/*.yaml; do
    if [ "$file" != /etc/netplan/90-turingpi.yaml ] && grep -Eq 'dhcp4: *(true|yes)' "$file"; then
      mv -f "$file" "$file.turingpi-off"
      changed=yes
    fi
  done
  if [ -d /etc/cloud/cloud.cfg.d ]; then
    write /etc/cloud/cloud.cfg.d/99-turingpi-network.cfg 'network: {config: disabled}'
  fi
  apply='netplan apply'
elif active NetworkManager; then
  write "/etc/NetworkManager/system-connections/turingpi-$interface.nmconnection" "$manager"
  apply="nmcli connection reload; nmcli connection up turingpi-$interface"
elif active systemd-networkd; then
  write /etc/systemd/network/05-turingpi.network "$networkd"
  # networkd runs as its own user and holds no secret here.
  chmod 644 /etc/systemd/network/05-turingpi.network
  apply="networkctl reload; networkctl reconfigure $interface"
else
  echo "neither netplan, NetworkManager nor systemd-networkd manages the network" >&2
  exit 66
fi

printf 'interface=%s\n' "$interface"
if ip -o addr show dev "$interface" 2>/dev/null | grep -qF " $address "; then
  # It has the address already, from DHCP perhaps: the file counts from the next start on, nothing is interrupted.
  echo applied=already
else
  # Later and detached: it may cut the very connection that this runs on.
  systemd-run --collect --on-active=2 /bin/sh -c "$apply" >/dev/null 2>&1 ||
    nohup /bin/sh -c "sleep 2; $apply" </dev/null >/dev/null 2>&1 &
  echo applied=later
fi
