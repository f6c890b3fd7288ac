# Makes the system ours. Each part looks first; a second run changes nothing.
# $1 host name, $2 login user, $3 id of the flash, $4 user to remove, $5 users whose password becomes ours,
# $6 `console` when this runs on the console itself; further arguments: public keys. ROOT_PASSWORD is a shell variable.
name=$1 login=$2 flash=$3 remove=$4 users=$5 where=$6
shift 6

install_keys() {
  owner=$1 home=$2
  shift 2
  mkdir -p "$home/.ssh"
  file=$home/.ssh/authorized_keys
  touch "$file"
  # A last line without an end would swallow ours.
  if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then echo >>"$file"; fi
  for key in "$@"; do
    if ! grep -qxF -- "$key" "$file"; then printf '%s\n' "$key" >>"$file"; fi
  done
  chmod 700 "$home/.ssh"
  chmod 600 "$file"
  if [ "$owner" != root ]; then chown -R "$owner" "$home/.ssh"; fi
}

home_of() {
  while IFS=: read -r user _ _ _ _ home _; do
    if [ "$user" = "$1" ]; then printf '%s\n' "$home"; fi
  done </etc/passwd
}

install_keys root "$(h=$(home_of root); printf '%s' "${h:-/root}")" "$@"
if [ "$login" != root ]; then
  home=$(home_of "$login")
  if [ -z "$home" ]; then
    echo "there is no user $login on this system" >&2
    exit 64
  fi
  install_keys "$login" "$home" "$@"
fi

for user in $users; do
  if [ "$user" = root ] || [ -n "$(home_of "$user")" ]; then
    printf '%s:%s\n' "$user" "$ROOT_PASSWORD" | chpasswd
  fi
done

if [ "$(cat /etc/hostname 2>/dev/null || true)" != "$name" ]; then
  hostnamectl set-hostname "$name" 2>/dev/null || { printf '%s\n' "$name" >/etc/hostname; hostname "$name" 2>/dev/null || true; }
fi
if grep -q '^127\.0\.1\.1[[:space:]]' /etc/hosts 2>/dev/null; then
  if ! grep -q "^127\.0\.1\.1[[:space:]]*$name\$" /etc/hosts; then
    sed -i "s/^127\.0\.1\.1[[:space:]].*/127.0.1.1 $name/" /etc/hosts
  fi
else
  printf '127.0.1.1 %s\n' "$name" >>/etc/hosts
fi

# Armbian: without these an interactive root login starts the wizard, which kills other root shells.
rm -f /root/.not_logged_in_yet
reload=
for unit in getty@ serial-getty@; do
  file=/etc/systemd/system/$unit.service.d/override.conf
  if [ -e "$file" ] && grep -q autologin "$file"; then
    rm -f "$file"
    reload=yes
  fi
done
if [ -n "$reload" ]; then
  systemctl daemon-reload
  # Ends the root shell that autologin opened; on the console that would be this one.
  if [ "$where" != console ]; then systemctl try-restart 'serial-getty@*.service' 'getty@*.service' || true; fi
fi

if [ -n "$remove" ] && [ -n "$(home_of "$remove")" ]; then userdel -r "$remove" 2>/dev/null || userdel "$remove"; fi

mkdir -p /var/lib/turingpi
printf '%s\n' "$flash" >/var/lib/turingpi/flash
chmod 755 /var/lib/turingpi
chmod 644 /var/lib/turingpi/flash
sync
