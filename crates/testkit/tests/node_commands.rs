//! The commands that our scripts, k3s's installer and people's own scripts expect on any Debian are there, and do what
//! they say; what is not there is 127, as on a host.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

use turingpi_testkit::{NodePlan, NodeView, OsImage, Simulation};

async fn node() -> (Simulation, NodeView) {
    let plan = NodePlan::new("node1")
        .address("10.10.88.73".parse().unwrap())
        .installed(OsImage::debian().with_size(64 * 1024))
        .running();
    let simulation = Simulation::builder().node(plan).start().await.unwrap();
    let node = simulation.node("node1");
    (simulation, node)
}

/// What of a Debian with priority `standard` a script may use without asking first.
const COMMANDS: &str = "awk base64 basename blkid cat chmod chown chpasswd cmp command cp cut date dd df dirname dmesg \
    dpkg du env expr false find findmnt fold free getent grep groups gzip head hostname hostnamectl id install ip join \
    journalctl kill ln logger ls lsblk lsmod md5sum mkdir mkfifo mktemp modprobe mount mv nohup nproc od \
    passwd paste pgrep pidof ping pkill printf ps pwd readlink realpath rm rmdir sed seq sha256sum sha512sum sleep sort \
    split ss stat stty su sync sysctl systemctl systemd-run tac tail tar tee test timeout touch tr true truncate tty \
    umount uname uniq useradd userdel wc which whoami xargs";

#[tokio::test]
async fn common_commands_are_there_and_unknown_ones_are_not() {
    let (_simulation, node) = node().await;
    let script = format!("for c in {COMMANDS}; do command -v \"$c\" >/dev/null || echo \"$c\"; done");
    let (code, missing, err) = node.run(&script).await;
    assert_eq!((code, missing.as_str()), (0, ""), "{err}");
    for unknown in ["no-such-command", "kubectl", "helm"] {
        let (code, _, err) = node.run(unknown).await;
        assert_eq!(code, 127, "{unknown}: {err}");
    }
}

#[tokio::test]
async fn they_do_what_scripts_use_them_for() {
    let (_simulation, node) = node().await;
    for (script, wanted) in [
        ("printf 'a\\nb\\n' | tee /tmp/one /tmp/two; cat /tmp/two", "a\nb\na\nb\n"),
        ("printf c | tee -a /tmp/one >/dev/null; cat /tmp/one", "a\nb\nc"),
        (
            "d=$(mktemp -d); [ -d \"$d\" ] && f=$(mktemp \"$d/x.XXXXXX\") && [ -f \"$f\" ] && stat -c %a \"$d\" \"$f\"",
            "700\n600\n",
        ),
        ("timeout 5 echo in time; timeout 5 sh -c 'exit 3'; echo $?", "in time\n3\n"),
        (
            "useradd -m ops; su ops -c whoami; su - ops -c 'id -u'; su nobody-here -c true; echo $?",
            "ops\n1000\n1\n",
        ),
        ("logger -t mine hello there; journalctl -o cat --no-pager | tail -n 1", "hello there\n"),
        ("echo piped | logger -t mine; journalctl -o cat --no-pager | tail -n 1", "piped\n"),
        ("stty -echo 2>&1; echo $?", "stty: 'standard input': Inappropriate ioctl for device\n1\n"),
        ("touch /tmp/f && chmod 600 /tmp/f && install -m 755 /tmp/f /tmp/g && stat -c %a /tmp/g", "755\n"),
        ("echo a:b | { IFS=: read -r x y; echo \"$y $x\"; }", "b a\n"),
        ("getent passwd root | cut -d: -f7; id -u; whoami; hostname", "/bin/bash\n0\nroot\nnode1\n"),
        ("printf '3\\n1\\n2\\n' | sort -n | head -n 2 | paste -sd,", "1,2\n"),
        ("uname -m; nproc; dd if=/dev/zero bs=1 count=3 2>/dev/null | wc -c", "aarch64\n8\n3\n"),
        ("rm -f /tmp/none; mkdir -p /tmp/a/b && ln -sfn b /tmp/a/c && readlink -f /tmp/a/c", "/tmp/a/b\n"),
        ("ps -eo args --no-headers | grep -c '[s]shd'; pgrep -x sshd >/dev/null; echo $?", "1\n0\n"),
        ("trap 'echo bye' EXIT; command -v stty >/dev/null && echo there", "there\nbye\n"),
    ] {
        let (_, out, err) = node.run(script).await;
        assert_eq!(out, wanted, "{script}\n{err}");
    }
}
