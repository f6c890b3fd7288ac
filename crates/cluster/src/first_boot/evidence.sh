# Read-only: whose system is this, and has it finished its own first start?
root=$(findmnt -n -o SOURCE / 2>/dev/null || true)
if [ -z "$root" ] && [ -r /proc/mounts ]; then
  root=$(sed -n 's/^\([^ ]*\) \/ .*/\1/p' /proc/mounts | tail -n 1)
fi
printf 'root=%s\n' "$root"
if [ -e /root/.not_logged_in_yet ]; then echo wizard=yes; fi
if [ -r /var/lib/turingpi/flash ]; then printf 'flash=%s\n' "$(cat /var/lib/turingpi/flash)"; fi
for file in /etc/ssh/ssh_host_*_key.pub; do
  if [ -r "$file" ]; then printf 'hostkey=%s\n' "$(cat "$file")"; fi
done
pending=
for unit in armbian-firstrun armbian-resize-filesystem; do
  if [ "$(systemctl is-enabled "$unit" 2>/dev/null || true)" = enabled ]; then pending="$pending $unit"; fi
done
# armbian-resize-filesystem may stay enabled to go on after a reboot: only a running one is waited for.
if [ "$pending" = " armbian-resize-filesystem" ]; then
  state=$(systemctl is-active armbian-resize-filesystem 2>/dev/null || true)
  if [ "$state" != activating ]; then pending=; fi
fi
if [ -z "$pending" ] && command -v cloud-init >/dev/null 2>&1; then
  case $(cloud-init status 2>/dev/null || true) in *running*) pending=" cloud-init" ;; esac
fi
if [ -n "$pending" ]; then printf 'pending=%s\n' "${pending# }"; fi
ip -o addr show scope global 2>/dev/null | while read -r _ interface _ address _; do
  printf 'address=%s %s\n' "$interface" "$address"
done
