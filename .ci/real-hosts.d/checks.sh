# The checks, in the order of a cluster's life. Each says what holds; the first that does not ends the run.

passed=0
checking=
cluster=$work/cluster
state=$cluster/.turingpi/realhosts
out=$cluster/out
document=$cluster/cluster.yaml

ok() {
  passed=$((passed + 1))
  printf '   ok %s\n' "$checking"
  checking=
}

# must SENTENCE COMMAND...
must() {
  checking=$1
  shift
  "$@" || exit 1
  ok
}

# The tool, as its user runs it. The password is in its environment only.
tool() { ADMIN_PASSWORD=${given:-$password} HOME=$cluster TURINGPI_CACHE_DIR=$cluster/cache ip netns exec "$hub" "$turingpi" "$@"; }

# expect CODE SENTENCE WORDS...: runs the tool and compares its exit code.
expect() {
  local want=$1 code=0
  checking=$2
  shift 2
  tool "$@" >"$out" 2>&1 </dev/null || code=$?
  cat "$out" >>"$cluster/everything"
  if [ "$code" != "$want" ]; then
    printf 'turingpi %s: exit %s, not %s:\n' "$*" "$code" "$want"
    tail -n 60 "$out"
    exit 1
  fi
  ok
}

# says TEXT...: what the tool said last has each of these in it.
says() {
  local text
  for text in "$@"; do
    checking="it says \`$text\`"
    grep -qF -- "$text" "$out" || { tail -n 60 "$out"; exit 1; }
  done
  checking=
}

# eventually SECONDS COMMAND...
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.3
  done
}

evidence() {
  local node
  for node in "${nodes[@]}"; do
    printf '\n-- %s\n' "$node"
    tail -n 3 "$work/$node/console"
    on "$node" journalctl -b --no-pager -n 15 -u 'k3s*' -u ssh 2>/dev/null
  done
}

write_document() {
  mkdir -p "$cluster"
  : >"$cluster/everything"
  cat >"$document" <<DOC
name: realhosts
version: $version
ssh: { identity: $work/key, agent: false }
nodes:
  - { name: node1, role: control-plane, address: $(address node1) }
  - { name: node2, role: worker, address: $(address node2), ssh: { user: ops }, labels: { disk: ssd } }
  - name: node3
    role: worker
    address: $(address node3)
    ssh: { user: admin, password: { env: ADMIN_PASSWORD }, sudo-password: { env: ADMIN_PASSWORD } }
k3s: { releases-url: "http://$net.1:8080" }
DOC
  # Its swap would count as the hosts' own: there is one kernel.
  if [ "$(wc -l </proc/swaps)" -gt 1 ]; then
    echo "SKIPPED: this machine swaps, so turning swap off is not checked"
    echo 'host: { swap: keep }' >>"$document"
    swap=keep
  else
    swap=off
  fi
}

# What runs on this machine and on its hosts, with its arguments.
sample() {
  while :; do
    ps -eo args --no-headers >>"$cluster/ps"
    sleep 0.1
  done
}

# watch_for PATTERN: waits until the events of a run in the background have it.
watch_for() {
  local try
  for try in $(seq 600); do
    grep -q -- "$1" "$cluster/events" && return 0
    kill -0 "$run" 2>/dev/null || return 1
    sleep 0.05
  done
  return 1
}

begin_apply() {
  : >"$cluster/events"
  ADMIN_PASSWORD=$password HOME=$cluster TURINGPI_CACHE_DIR=$cluster/cache \
    ip netns exec "$hub" "$turingpi" apply --yes --output json "$document" >"$cluster/events" 2>"$cluster/talk" </dev/null &
  run=$!
}

started() { printf '"step":"%s","event":"step-started"' "$1"; }

kubectl_works() { command -v kubectl >/dev/null && kubectl version --client >/dev/null 2>&1; }
kube() { in_hub kubectl --kubeconfig "$state/kubeconfig" --cache-dir "$cluster/kube-cache" "$@"; }
three_ready() { [ "$(kube get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = 3 ]; }
different() { [ "$(for node in "${nodes[@]}"; do cat "$(root_of "$node")$1"; done | grep -v '^#' | sort -u | wc -l)" = 3 ]; }
unit_of() { [ "$1" = node1 ] && echo k3s.service || echo k3s-agent.service; }
mode_of() { stat -c %a "$(root_of "$1")$2"; }
healthy() { tool status "$document" >"$out" 2>&1 </dev/null; }

first_contact() {
  expect 0 "the document is valid" validate "$document"
  expect 0 "the doctor finds nothing that would stop it" doctor "$document"
  says machine-id-twins hostname-twins
  local node
  for node in "${nodes[@]}"; do
    must "the host key of $node was pinned as it is" \
      grep -qF "$(cut -d ' ' -f 2 "$(root_of "$node")/etc/ssh/ssh_host_ed25519_key.pub")" "$state/known_hosts"
  done
  expect 2 "the plan of empty hosts has changes" plan --output json "$document"
  says node1/k3s-binary "$version" node2/reboot node3/reboot node1/iscsi "node2 label disk"
}

killed_apply() {
  local node
  : >"$cluster/ps"
  sample &
  sampler=$!
  background+=("$sampler")
  begin_apply
  must "a first apply gets to the start of the server" watch_for "$(started node1/k3s-start)"
  kill -9 "$run"
  wait "$run" 2>/dev/null || true
  cat "$cluster/talk" >>"$cluster/everything"
  # It has rebooted hosts by then: whoever asks in that moment is told that they cannot be reached (5). A reboot that was
  # asked for takes a moment to begin, so the hosts have to answer twice.
  local answers=0 code tries
  for tries in $(seq 40); do
    sleep 2
    for node in "${nodes[@]}"; do wait_ssh "$node"; done
    code=0
    tool plan "$document" >"$out" 2>&1 </dev/null || code=$?
    if [ "$code" = 5 ]; then answers=0; else answers=$((answers + 1)); fi
    [ "$answers" -lt 2 ] || break
  done
  [ "$answers" = 2 ] || { echo "the hosts did not come back in $tries looks" >&2; exit 1; }
  expect 0 "killed in the middle and run again, apply converges" apply --yes --report "$cluster/report.html" "$document"
  kill "$sampler"
  wait "$sampler" 2>/dev/null || true
}

converged() {
  expect 0 "status is ready" status "$document"
  says realhosts "$version"
  expect 0 "a second plan has nothing to change" plan "$document"
  if kubectl_works; then
    must "kubectl sees three Ready nodes" three_ready
    must "the label is there" test "$(kube get node node2 -o 'jsonpath={.metadata.labels.disk}')" = ssd
  else
    echo "SKIPPED: no kubectl"
  fi
}

# Looked at from outside of the hosts, not through the tool.
prepared() {
  local node root
  for node in "${nodes[@]}"; do
    root=$(root_of "$node")
    must "$node has its name" test "$(on "$node" hostname) $(cat "$root/etc/hostname")" = "$node $node"
    must "$node forwards packets" test "$(on "$node" cat /proc/sys/net/ipv4/ip_forward)" = 1
    must "$node runs $(unit_of "$node"), also at boot" on "$node" systemctl is-active --quiet "$(unit_of "$node")"
    must "$node runs it at boot" on "$node" systemctl is-enabled --quiet "$(unit_of "$node")"
    must "$node keeps its k3s settings to root" test "$(mode_of "$node" /etc/rancher/k3s/config.yaml.d/50-turingpi.yaml)" = 600
    [ "$swap" = keep ] || must "$node swaps no more at boot" test "$(grep -c '^LABEL=swap' "$root/etc/fstab")" = 0
  done
  must "no two hosts have one machine id" different /etc/machine-id
  must "no two hosts have one iSCSI name" different /etc/iscsi/initiatorname.iscsi
}

# Whether any secret of the run is in this text.
leaks() { grep -qF -f "$cluster/secrets" -- "$1"; }

secrets_kept() {
  local node token
  token=$(cat "$(root_of node1)/var/lib/rancher/k3s/server/token")
  {
    echo "$password"
    echo "${token##*:}"
    grep 'client-key-data' "$(root_of node1)/etc/rancher/k3s/k3s.yaml" | sed 's/.*: //'
  } >"$cluster/secrets"
  chmod 600 "$cluster/secrets"
  must "the search for secrets finds one where it is" leaks "$(root_of node2)/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml"
  must "no secret was in the arguments of a process" eval '! leaks "$cluster/ps"'
  must "no secret is in what the tool said" eval '! leaks "$cluster/everything"'
  must "no secret is in the log of the run or the report" eval '! leaks "$state/runs/last.jsonl" && ! leaks "$cluster/report.html"'
  must "the state is only for its owner" test "$(stat -c %a "$state/state.json")" = 600
  must "the kubeconfig is only for its owner" test "$(stat -c %a "$state/kubeconfig")" = 600
  for node in "${nodes[@]}"; do
    on "$node" journalctl --no-pager >"$cluster/journal"
    must "no secret is in the journal of $node" eval '! leaks "$cluster/journal"'
    must "no secret is in the unit of $node" eval '! leaks "$(root_of "$node")/etc/systemd/system/$(unit_of "$node")"'
  done
}

drift() {
  local node1 node2 node3
  node1=$(root_of node1) node2=$(root_of node2) node3=$(root_of node3)
  echo 'debug: true' >>"$node1/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml"
  on node2 systemctl stop k3s-agent.service
  [ "$swap" = keep ] || echo 'LABEL=again none swap sw 0 0' >>"$node2/etc/fstab"
  rm "$node3/etc/sysctl.d/90-turingpi.conf"
  on node3 sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'
  on node3 sh -c 'cp /usr/local/bin/k3s /tmp/k3s && echo >>/tmp/k3s && mv /tmp/k3s /usr/local/bin/k3s'
  expect 2 "what somebody changed by hand is found" plan --output json "$document"
  says 50-turingpi.yaml k3s-agent.service net.ipv4.ip_forward 90-turingpi.conf /usr/local/bin/k3s
  [ "$swap" = keep ] || says LABEL=again
  # At once: Kubernetes itself waits a while before it gives a node up.
  expect 11 "a node whose agent was stopped makes the cluster degraded" status "$document"
  says node2 k3s-agent.service
  expect 0 "and it is repaired" apply --yes "$document"
  must "the settings of the server are ours again" eval '! grep -q debug "$(root_of node1)/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml"'
  must "the agent runs again" on node2 systemctl is-active --quiet k3s-agent.service
  must "packets are forwarded again" test "$(on node3 cat /proc/sys/net/ipv4/ip_forward)" = 1
  must "the binary is the release's again" cmp -s "$node3/usr/local/bin/k3s" "$node1/usr/local/bin/k3s"
  converged
}

# new_keys NODE: the host shows other keys, as a machine in its place would.
new_keys() {
  local root
  root=$(root_of "$1")
  mkdir -p "$work/$1/keys"
  mv "$root"/etc/ssh/ssh_host_* "$work/$1/keys/"
  ssh-keygen -A -f "$root" >/dev/null
  on "$1" systemctl restart ssh.service
  wait_ssh "$1"
}

strangers() {
  local logins since
  new_keys node3
  since=$(date +%s)
  expect 6 "a host with another key is refused" plan "$document"
  says "host key" "$(address node3)"
  logins=$(on node3 journalctl -b --no-pager -u ssh --since "@$since" | grep -c -e Accepted -e 'Failed password' || true)
  must "and it was not given a password" test "$logins" = 0
  expect 6 "apply refuses it too" apply --yes "$document"
  cp -p "$work/node3/keys"/* "$(root_of node3)/etc/ssh/"
  on node3 systemctl restart ssh.service
  wait_ssh node3
  given=wrong-password expect 6 "a wrong password ends the run" plan "$document"
  says node3
  expect 0 "with the old key and the right password all is well" plan "$document"
}

# The other sudo in the place of the one that was there.
other_sudo() {
  local root
  root=$(root_of node3)
  [ -n "$sudo_rs" ] || { echo "SKIPPED: no sudo-rs"; return; }
  install -m 4755 "$sudo_rs" "$root/usr/bin/sudo"
  printf 'root ALL=(ALL:ALL) ALL\n%%sudo ALL=(ALL:ALL) ALL\n' >"$root/etc/sudoers-rs"
  chmod 440 "$root/etc/sudoers-rs"
  must "node3 has sudo-rs" on node3 sh -c 'sudo --version | grep -q sudo-rs'
  rm "$root/etc/sysctl.d/90-turingpi.conf"
  on node3 sh -c 'cp /usr/local/bin/k3s /tmp/k3s && echo >>/tmp/k3s && mv /tmp/k3s /usr/local/bin/k3s'
  expect 0 "with a password for sudo-rs a file and the binary are repaired" apply --yes "$document"
  must "the file is root's" test "$(stat -c %U "$root/etc/sysctl.d/90-turingpi.conf")" = root
  must "the binary is the release's" cmp -s "$root/usr/local/bin/k3s" "$(root_of node1)/usr/local/bin/k3s"
  expect 0 "and nothing is left to change" plan "$document"
}

# Nothing of k3s is on a host any more.
clean() {
  local node=$1 root path found
  root=$(root_of "$node")
  found=$(
    for path in /usr/local/bin/k3s /usr/local/bin/kubectl /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service \
      /etc/systemd/system/multi-user.target.wants/k3s.service /etc/systemd/system/multi-user.target.wants/k3s-agent.service \
      /etc/rancher/k3s /etc/rancher/node /var/lib/rancher/k3s /var/lib/kubelet /var/lib/cni; do
      if [ -e "$root$path" ] || [ -L "$root$path" ]; then echo "$path"; fi
    done
    on "$node" sh -c 'ls -d /run/k3s /run/flannel /run/netns/cni-* 2>/dev/null'
    ip -n "$(namespace "$node")" -o link | grep -o -e ' cni0' -e ' flannel.1'
    grep -e /run/k3s -e /var/lib/kubelet -e /run/netns/cni "/proc/$(leader "$node")/mounts"
    on "$node" systemctl list-units --all --plain --no-legend 'k3s*'
    on "$node" ps -eo args --no-headers | grep -e '[k]3s' -e '[c]ontainerd'
    on "$node" iptables-save 2>/dev/null | grep -e KUBE- -e CNI- -e flannel
  ) || true
  [ -z "$found" ] || { printf 'left on %s:\n%s\n' "$node" "$found"; return 1; }
}

taken_down() {
  local node
  must "before it is taken down there is something to find" eval '! clean node1 >/dev/null'
  expect 3 "destroy without the right name is refused" destroy --confirm another "$document"
  expect 0 "the cluster is taken down" destroy --confirm realhosts "$document"
  for node in "${nodes[@]}"; do
    must "nothing of k3s is left on $node" clean "$node"
  done
  must "the token is forgotten" eval '! leaks "$state/state.json"'
  expect 2 "a plan would bring it up again" plan "$document"
}

# A host reboots on its own while the tool works on it.
rebooted_apply() {
  local code=0
  begin_apply
  must "after destroy, apply gets to the start of an agent" watch_for "$(started node3/k3s-start)"
  on node3 systemctl --no-block reboot
  wait "$run" || code=$?
  cat "$cluster/talk" "$cluster/events" >>"$cluster/everything"
  echo "      (the host rebooted under it; apply ended with $code)"
  wait_ssh node3
  expect 0 "a host that reboots in the middle is no obstacle" apply --yes "$document"
  converged
}

boots() {
  local node boot=()
  for node in "${nodes[@]}"; do
    boot+=("$(on "$node" cat /proc/sys/kernel/random/boot_id)")
    on "$node" systemctl --no-block reboot
  done
  rebooted() {
    local at=0
    for node in "${nodes[@]}"; do
      [ "$(on "$node" cat /proc/sys/kernel/random/boot_id)" != "${boot[at]}" ] || return 1
      at=$((at + 1))
    done
  }
  must "all hosts reboot" eventually 60 rebooted
  must "the cluster comes back by itself" eventually 60 healthy
  expect 0 "and nothing was lost by the reboot" plan "$document"
}

kept_data() {
  local before
  before=$(sha256sum <"$(root_of node1)/var/lib/rancher/k3s/server/tls/server-ca.crt")
  expect 0 "the cluster is taken down without its data" destroy --keep-data --confirm realhosts "$document"
  expect 0 "apply brings it back" apply --yes "$document"
  must "it is the same cluster" test "$before" = "$(sha256sum <"$(root_of node1)/var/lib/rancher/k3s/server/tls/server-ca.crt")"
  converged
}

all_checks() {
  write_document
  first_contact
  killed_apply
  converged
  prepared
  secrets_kept
  said "drift"
  drift
  said "strangers"
  strangers
  other_sudo
  said "destroy"
  taken_down
  said "again, with a host that reboots"
  rebooted_apply
  boots
  kept_data
}
