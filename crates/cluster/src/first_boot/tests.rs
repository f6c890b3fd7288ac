//! The scripts in a real shell, on a file tree of their own.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use secrecy::SecretString;
use tempfile::TempDir;

use super::{
    FirstBootSpec, StaticAddress,
    dialogue::WIZARD_USER,
    evidence::{Evidence, Origin, judge},
    job::{self, Job, Place},
    network, screen,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me@desk";

/// A root file system in a folder; absolute paths of the scripts lead there.
struct Node(TempDir);

impl Node {
    fn armbian() -> Self {
        let node = Self(TempDir::new().unwrap());
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\n".to_owned()),
            ("etc/hostname", "turing-rk1\n".to_owned()),
            ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1   turing-rk1\n".to_owned()),
            ("root/.not_logged_in_yet", String::new()),
            ("root/.ssh/authorized_keys", "ssh-rsa OLD somebody".to_owned()),
            (
                "etc/systemd/system/serial-getty@.service.d/override.conf",
                "ExecStart=-/sbin/agetty --autologin root\n".to_owned(),
            ),
            ("etc/systemd/system/getty@.service.d/override.conf", "Environment=MINE=1\n".to_owned()),
            ("etc/ssh/ssh_host_ed25519_key.pub", KEY.to_owned()),
            (
                "etc/netplan/10-dhcp-all-interfaces.yaml",
                "network:\n  ethernets:\n    all: {match: {name: \"e*\"}, dhcp4: yes}\n".to_owned(),
            ),
            ("proc/mounts", "proc /proc proc rw 0 0\n/dev/mmcblk0p1 / ext4 rw 0 0\n".to_owned()),
        ] {
            node.put(path, &text);
        }
        for (name, body) in [
            ("chpasswd", "cat >>$ROOT/chpasswd.log"),
            ("hostnamectl", "echo \"$2\" >$ROOT/etc/hostname"),
            (
                "systemctl",
                "echo \"$*\" >>$ROOT/systemctl.log; case \"$*\" in is-enabled*) cat $ROOT/enabled 2>/dev/null; exit 1;; is-active*) exit 3;; esac",
            ),
            ("userdel", "echo \"$*\" >>$ROOT/userdel.log"),
            ("ip", "cat $ROOT/ip.txt 2>/dev/null"),
            ("systemd-run", "echo \"$*\" >>$ROOT/run.log"),
            ("netplan", "true"),
            ("findmnt", "exit 1"),
        ] {
            node.put(&format!("bin/{name}"), &format!("#!/bin/sh\n{body}\n"));
            fs::set_permissions(node.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755))
                .unwrap();
        }
        node
    }
    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }
    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }
    fn shell(&self) -> Command {
        let mut shell = Command::new("sh");
        let path = format!("{}/bin:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        shell.env_clear().env("PATH", path).env("ROOT", self.0.path());
        shell
    }
    fn moved(&self, script: &str) -> String {
        let root = self.0.path().display().to_string();
        ["etc", "root", "var", "proc", "sys"].iter().fold(script.to_owned(), |script, folder| {
            let script = script.replace(&format!(" /{folder}/"), &format!(" {root}/{folder}/"));
            script
                .replace(&format!("/{folder}/"), &format!("{root}/{folder}/"))
                .replace(&format!("{root}{root}"), &root)
        })
    }
    fn run(&self, job: &Job) -> Output {
        // As the SSH side runs it: strict, secrets as variables that are not in the environment.
        let secret = job.password.as_ref().map_or("", |_| "ROOT_PASSWORD='pa ss$(x)'\n");
        let script = self
            .moved(&format!("set -eu\numask 077\n{secret}{}", job.script).replace(":-/root}", ":-/root/}"));
        self.shell().arg("-c").arg(script).arg("sh").args(&job.arguments).output().unwrap()
    }
    fn done(&self, job: &Job) -> String {
        let output = self.run(job);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn take_over(login: &str, place: Place, remove: Option<&str>) -> Job {
    let spec = FirstBootSpec::new("node1", vec![KEY.to_owned()]);
    job::take_over(&spec, login, "f1", remove, place, Some(&SecretString::from("pa ss$(x)")))
}

/// Everything in the tree but the logs.
fn snapshot(node: &Node) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => walk(&entry, found),
                false if entry.extension().is_some_and(|e| e == "log") => {}
                false => found.push((entry.display().to_string(), fs::read_to_string(&entry).unwrap())),
            }
        }
    }
    let mut found = Vec::new();
    walk(node.0.path(), &mut found);
    found.sort();
    found
}

#[test]
fn taking_over_changes_what_it_should_and_a_second_run_changes_nothing() {
    let node = Node::armbian();
    // /etc/passwd names the home in the folder.
    node.put("etc/passwd", &format!("root:x:0:0:root:{}:/bin/bash\n", node.path("root").display()));
    node.done(&take_over("root", Place::Ssh, None));
    assert_eq!(node.read("root/.ssh/authorized_keys"), format!("ssh-rsa OLD somebody\n{KEY}\n"));
    assert_eq!(node.read("chpasswd.log"), "root:pa ss$(x)\n", "ubuntu is no user here");
    assert_eq!(node.read("etc/hostname"), "node1\n");
    assert_eq!(node.read("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 node1\n");
    assert!(!node.path("root/.not_logged_in_yet").exists());
    assert!(!node.path("etc/systemd/system/serial-getty@.service.d/override.conf").exists());
    assert!(
        node.path("etc/systemd/system/getty@.service.d/override.conf").exists(),
        "somebody's own override stays"
    );
    assert!(
        node.read("systemctl.log").contains("daemon-reload")
            && node.read("systemctl.log").contains("try-restart")
    );
    assert_eq!(node.read("var/lib/turingpi/flash"), "f1\n");
    let mode = |path: &str| fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("root/.ssh"), mode("root/.ssh/authorized_keys")), (0o700, 0o600));
    let before = snapshot(&node);
    node.done(&take_over("root", Place::Ssh, None));
    assert_eq!(snapshot(&node), before);
}

#[test]
fn on_the_console_the_wizards_user_goes_and_the_console_stays() {
    let node = Node::armbian();
    let home = node.path("root").display().to_string();
    node.put(
        "etc/passwd",
        &format!("root:x:0:0:root:{home}:/bin/bash\n{WIZARD_USER}:x:1000:1000::/home/x:/bin/bash\n"),
    );
    node.done(&take_over("root", Place::Console, Some(WIZARD_USER)));
    assert_eq!(node.read("userdel.log"), format!("-r {WIZARD_USER}\n"));
    assert!(!node.read("systemctl.log").contains("try-restart"));
}

#[test]
fn a_login_user_that_the_image_does_not_have_is_an_error_and_not_a_locked_node() {
    let node = Node::armbian();
    let home = node.path("root").display().to_string();
    node.put("etc/passwd", &format!("root:x:0:0:root:{home}:/bin/bash\n"));
    let output = node.run(&take_over("debian", Place::Ssh, None));
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("debian"));
    assert!(!node.path("var/lib/turingpi/flash").exists(), "it does not count as taken over");
}

#[test]
fn the_look_at_a_fresh_and_at_a_taken_over_system_is_told_apart() {
    let node = Node::armbian();
    node.put("enabled", "enabled\n");
    node.put("ip.txt", "2: end0    inet 10.10.88.155/24 brd 10.10.88.255 scope global dynamic end0\n");
    let fresh = Evidence::parse(&node.done(&job::look()));
    assert_eq!(fresh.root_device, "/dev/mmcblk0p1");
    assert!(fresh.wizard);
    assert_eq!(fresh.pending.as_deref(), Some("armbian-firstrun armbian-resize-filesystem"));
    assert_eq!(fresh.addresses, ["end0 10.10.88.155/24"]);
    assert_eq!(fresh.host_keys.len(), 1);
    assert_eq!(judge(&fresh, "f1", Some(false)), Origin::Fresh);
    node.put("enabled", "disabled\n");
    node.put("var/lib/turingpi/flash", "f1\n");
    let ours = Evidence::parse(&node.done(&job::look()));
    assert_eq!((judge(&ours, "f1", Some(true)), ours.pending), (Origin::Ours, None));
}

#[test]
fn a_fixed_address_replaces_dhcp_in_netplan_and_is_applied_once() {
    let node = Node::armbian();
    node.put("ip.txt", "default via 10.10.88.1 dev end0 proto dhcp\n");
    let address = StaticAddress {
        address: "10.10.88.73/24".parse().unwrap(),
        gateway: Some("10.10.88.1".parse().unwrap()),
        dns: vec!["1.1.1.1".parse().unwrap()],
        interface: None,
    };
    let said = node.done(&network::set_up(&address));
    assert!(said.contains("interface=end0") && said.contains("applied=later"), "{said}");
    let file = node.read("etc/netplan/90-turingpi.yaml");
    assert!(file.contains("    end0:\n") && file.contains("10.10.88.73/24") && !file.contains('@'), "{file}");
    assert_eq!(
        fs::metadata(node.path("etc/netplan/90-turingpi.yaml")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!node.path("etc/netplan/10-dhcp-all-interfaces.yaml").exists(), "its DHCP would win");
    assert!(node.path("etc/netplan/10-dhcp-all-interfaces.yaml.turingpi-off").exists());
    // The address is there now: nothing is interrupted any more.
    node.put("ip.txt", "2: end0    inet 10.10.88.73/24 brd x scope global dev end0\n");
    let fixed = StaticAddress { interface: Some("end0".into()), ..address };
    assert!(node.done(&network::set_up(&fixed)).contains("applied=already"));
}

#[test]
fn a_script_typed_line_by_line_arrives_whole_and_its_password_is_asked_for() {
    let node = Node::armbian();
    let job = Job {
        script: "printf 'got=%s|%s|%s\\n' \"$1\" \"$2\" \"$ROOT_PASSWORD\"\nexit 3\n",
        arguments: vec!["it's $HOME".into(), "x".repeat(900)],
        password: Some("pa$(ss)'w".to_owned().into()),
    };
    let lines = job.lines("abc").unwrap();
    assert!(lines.len() > 3 && lines.iter().all(|line| line.len() < 700 && !line.contains("pa$")));
    // A shell that reads lines, as on a console; no terminal, so `stty` is a stand-in.
    node.put("bin/stty", "#!/bin/sh\n");
    fs::set_permissions(node.path("bin/stty"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut shell = node.shell().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
    for line in &lines {
        writeln!(input, "{}", node.moved(line)).unwrap();
    }
    // The password follows when it is asked for, as on the console; the shell would read ahead otherwise.
    let mut output = BufReader::new(output);
    let mut heard = String::new();
    while !heard.contains("TPQabc:\n") && output.read_line(&mut heard).unwrap() > 0 {}
    input.write_all(b"pa$(ss)'w\n").unwrap();
    drop(input);
    output.read_to_string(&mut heard).unwrap();
    shell.wait().unwrap();
    let output = heard;
    for number in 0..lines.len() - 1 {
        assert!(output.contains(&format!("TPAabc{number}:")), "{output}");
    }
    assert!(output.contains("TPQabc:\n"), "{output}");
    assert!(output.contains(&format!("got=it's $HOME|{}|pa$(ss)'w\n", "x".repeat(900))), "{output}");
    assert_eq!(screen::between(&output, "TPZabc:", ":"), Some("3"));
    assert!(
        lines.iter().all(|line| !line.contains("TPAabc") && !line.contains("TPZabc")),
        "the echo is no output"
    );
    assert_eq!(
        fs::read_dir(node.path("root"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".turingpi"))
            .count(),
        0
    );
}

#[test]
fn passwords_are_long_different_and_hold_every_kind() {
    use secrecy::ExposeSecret;
    let made: std::collections::BTreeSet<String> =
        (0..50).map(|_| super::spec::generate_password().expose_secret().to_owned()).collect();
    assert_eq!(made.len(), 50);
    for password in made {
        assert_eq!(password.len(), 24);
        for kind in [char::is_lowercase, char::is_uppercase, char::is_numeric] {
            assert!(password.contains(kind), "{password}");
        }
    }
}
