//! A simulated node through a real SSH client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use russh::{
    ChannelMsg,
    client::{self, Handle},
    keys::{
        HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, ssh_key::private::Ed25519Keypair,
    },
};
use sha2::{Digest as _, Sha256};
use turingpi_testkit::{Action, Fault, NodePlan, OsImage, Simulation, Site};

struct Client(Arc<std::sync::Mutex<String>>);

impl client::Handler for Client {
    type Error = russh::Error;
    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            *self.0.lock().unwrap() = key.fingerprint(HashAlg::Sha256).to_string();
        }
        Ok(true)
    }
}

struct Output {
    code: Option<u32>,
    signal: bool,
    out: Vec<u8>,
    err: String,
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

async fn connect(address: SocketAddr) -> (Handle<Client>, Arc<std::sync::Mutex<String>>) {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    (client::connect(config, address, Client(Arc::clone(&seen))).await.unwrap(), seen)
}

async fn login(simulation: &Simulation, node: &str, user: &str, password: &str) -> Handle<Client> {
    let (mut handle, _) = connect(simulation.endpoints().nodes[node].ssh).await;
    assert!(handle.authenticate_password(user, password).await.unwrap().success(), "{user} cannot log in");
    handle
}

async fn exec(handle: &Handle<Client>, command: &str, stdin: &[u8]) -> Output {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    channel.data(stdin).await.unwrap();
    channel.eof().await.unwrap();
    let mut output = Output { code: None, signal: false, out: Vec::new(), err: String::new() };
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => output.err.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExitStatus { exit_status } => output.code = Some(exit_status),
            ChannelMsg::ExitSignal { .. } => output.signal = true,
            _ => {}
        }
    }
    output
}

async fn debian() -> Simulation {
    let plan =
        NodePlan::new("node5").address("10.10.88.77".parse().unwrap()).installed(OsImage::debian()).running();
    Simulation::builder().node(plan.user("root", "secret").user("debian", "pw")).start().await.unwrap()
}

#[tokio::test]
async fn a_script_on_standard_input_runs_with_its_arguments_and_its_exit_status() {
    let simulation = debian().await;
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let script = b"set -eu; umask 077\nfor a in \"$@\"; do printf '%s;' \"$a\"; done\ncat > /root/made <<'EOF'\n$HOME stays\nEOF\nhostname; id -u; uname -m\nnot-a-command || echo \"status $?\"\nexit 7\n";
    let output = exec(&ssh, "sh -s -- 'one two' three", script).await;
    assert_eq!(output.text(), "one two;three;node5\n0\naarch64\nstatus 127\n");
    assert_eq!(output.code, Some(7), "{}", output.err);
    let file = simulation.node("node5").file("/root/made").unwrap();
    assert_eq!(
        (file.mode, file.owner.as_str(), file.bytes.as_slice()),
        (0o600, "root:root", b"$HOME stays\n".as_slice())
    );
    let log = simulation.node("node5").exec_log();
    assert!(log.iter().any(|record| record.script.contains("$HOME stays")));
    assert!(!simulation.node("node5").argv_contains("$HOME stays"));
}

#[tokio::test]
async fn binary_uploads_of_many_megabytes_arrive_unchanged() {
    let simulation = debian().await;
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..24 << 20)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            u8::try_from(state >> 56).unwrap()
        })
        .collect();
    let output = exec(&ssh, "cat > /root/big", &bytes).await;
    assert_eq!(output.code, Some(0), "{}", output.err);
    let sum = exec(&ssh, "sha256sum /root/big", b"").await;
    assert_eq!(sum.text(), format!("{}  /root/big\n", hex::encode(Sha256::digest(&bytes))));
    let part = exec(
        &ssh,
        "sh -c 'umask 077; cat > \"$1\" && stat -c \"%a %s\" \"$1\"' x /root/part",
        &bytes[..100_000],
    )
    .await;
    assert_eq!(part.text(), "600 100000\n", "{}", part.err);
    let back = exec(&ssh, "cat /root/part", b"").await;
    assert_eq!(back.out, &bytes[..100_000]);
}

#[tokio::test]
async fn sudo_asks_for_the_password_on_standard_input_and_the_root_shell_reads_the_rest() {
    let simulation = debian().await;
    let ssh = login(&simulation, "node5", "debian", "pw").await;
    let refused = exec(&ssh, "sudo -n true", b"").await;
    assert_eq!((refused.code, refused.err.as_str()), (Some(1), "sudo: a password is required\n"));
    let denied = exec(&ssh, "sh -c 'echo x > /etc/motd'", b"").await;
    assert_ne!(denied.code, Some(0));
    assert!(denied.err.contains("Permission denied"), "{}", denied.err);
    // The client waits for the prompt, then for a sign of the root shell, and only then sends the script.
    let mut channel = ssh.channel_open_session().await.unwrap();
    channel
        .exec(true, "sudo -S -k -p 'MARK' -- /bin/sh -c 'echo READY; exec /bin/sh -s -- \"$@\"' sh arg")
        .await
        .unwrap();
    let (mut err, mut out, mut code) = (String::new(), String::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::ExtendedData { data, .. } => {
                err.push_str(&String::from_utf8_lossy(&data));
                if err == "MARK" {
                    channel.data(&b"pw\n"[..]).await.unwrap();
                }
            }
            ChannelMsg::Data { data } => {
                out.push_str(&String::from_utf8_lossy(&data));
                if out == "READY\n" {
                    channel.data(&b"id -un; echo \"$1\"; exit 3\n"[..]).await.unwrap();
                    channel.eof().await.unwrap();
                }
            }
            ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
            _ => {}
        }
    }
    assert_eq!((out.as_str(), code), ("READY\nroot\narg\n", Some(3)), "{err}");
    let wrong = exec(&ssh, "sudo -S -k -p '' true", b"no\nno\nno\n").await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("3 incorrect password attempts"), "{}", wrong.err);
}

#[tokio::test]
async fn a_shell_that_stays_open_answers_command_by_command() {
    let simulation = debian().await;
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let mut channel = ssh.channel_open_session().await.unwrap();
    channel.exec(true, "exec sh -s").await.unwrap();
    let mut asked = 0;
    let mut out = String::new();
    channel.data(&b"x=1; echo first\n"[..]).await.unwrap();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            out.push_str(&String::from_utf8_lossy(&data));
            if asked == 0 {
                asked = 1;
                channel.data(&b"echo \"second $x\"\n"[..]).await.unwrap();
                channel.eof().await.unwrap();
            }
        }
    }
    assert_eq!(out, "first\nsecond 1\n");
}

#[tokio::test]
async fn a_key_in_authorized_keys_lets_in_and_its_absence_does_not() {
    let simulation = debian().await;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[9; 32]));
    let offer = || PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    let address = simulation.endpoints().nodes["node5"].ssh;
    let (mut stranger, _) = connect(address).await;
    assert!(!stranger.authenticate_publickey("root", offer()).await.unwrap().success());
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let line = key.public_key().to_openssh().unwrap();
    let script =
        format!("install -d -m 700 ~/.ssh && umask 077 && printf '%s\\n' '{line}' >> ~/.ssh/authorized_keys");
    assert_eq!(exec(&ssh, "sh -s", script.as_bytes()).await.code, Some(0));
    let (mut known, _) = connect(address).await;
    assert!(known.authenticate_publickey("root", offer()).await.unwrap().success());
    // Files that others may write are not looked at.
    exec(&ssh, "chmod 666 /root/.ssh/authorized_keys", b"").await;
    let (mut unsafe_file, _) = connect(address).await;
    assert!(!unsafe_file.authenticate_publickey("root", offer()).await.unwrap().success());
}

#[tokio::test]
async fn an_expired_password_runs_nothing_without_a_terminal() {
    let plan = NodePlan::new("u").installed(OsImage::ubuntu()).running().user("ubuntu", "ubuntu");
    let simulation = Simulation::builder().node(plan).start().await.unwrap();
    simulation.node("u").run("chage -d 0 ubuntu").await;
    let ssh = login(&simulation, "u", "ubuntu", "ubuntu").await;
    let output = exec(&ssh, "true", b"").await;
    assert_eq!(output.code, Some(1));
    assert!(output.err.contains("Password change required but no TTY available."), "{}", output.err);
}

#[tokio::test]
async fn a_power_cut_ends_connections_and_a_reboot_gives_a_new_boot_id() {
    let simulation = debian().await;
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let before = exec(&ssh, "cat /proc/sys/kernel/random/boot_id", b"").await.text();
    let waiting = exec(&ssh, "sleep 100000", b"");
    let cut = async {
        let runs = || simulation.node("node5").exec_log().iter().any(|r| r.argv.contains("sleep 100000"));
        while !runs() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        simulation.power_cut("node5").await;
    };
    let (output, ()) = tokio::join!(waiting, cut);
    assert_eq!(output.code, None);
    assert!(!simulation.node("node5").running());
    let config = Arc::new(client::Config::default());
    let refused =
        client::connect(config, simulation.endpoints().nodes["node5"].ssh, Client(Arc::default())).await;
    assert!(refused.is_err());
    simulation.power_restore("node5").await;
    up(&simulation, "node5").await;
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let after = exec(&ssh, "cat /proc/sys/kernel/random/boot_id", b"").await.text();
    assert_ne!(before, after);
}

async fn up(simulation: &Simulation, node: &str) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !simulation.node(node).running() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the node comes up");
}

#[tokio::test]
async fn faults_strike_connections_and_scripts() {
    let simulation = debian().await;
    let real = simulation.node("node5").host_key().unwrap();
    simulation.faults().add(Fault::at(Site::SshConnect { node: None }, Action::WrongHostKey));
    let (_, shown) = connect(simulation.endpoints().nodes["node5"].ssh).await;
    assert_ne!(*shown.lock().unwrap(), real);
    let (_, shown) = connect(simulation.endpoints().nodes["node5"].ssh).await;
    assert_eq!(*shown.lock().unwrap(), real);
    let ssh = login(&simulation, "node5", "root", "secret").await;
    let site = |script: &str| Site::SshExec { node: Some("node5".into()), script: script.into() };
    simulation.faults().add(Fault::at(site("marker-1"), Action::Fail(42, "broken on purpose".into())));
    let failed = exec(&ssh, "sh -s", b"echo marker-1\n").await;
    assert_eq!((failed.code, failed.err.as_str()), (Some(42), "broken on purpose\n"));
    assert_eq!(exec(&ssh, "sh -s", b"echo marker-1\n").await.text(), "marker-1\n");
    simulation.faults().add(Fault::at(site("marker-2"), Action::DiskFull));
    let full = exec(&ssh, "sh -s", b"echo marker-2 > /root/x\n").await;
    assert_ne!(full.code, Some(0));
    assert!(full.err.contains("No space left on device"), "{}", full.err);
    simulation.faults().add(Fault::at(site("marker-3"), Action::Drop));
    let dropped = exec(&ssh, "sh -s", b"echo marker-3\n").await;
    assert_eq!((dropped.code, dropped.signal), (None, false));
}
