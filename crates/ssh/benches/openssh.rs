//! This client beside OpenSSH's, against the same OpenSSH server on loopback: warm command latency, an upload, a stream.
//!
//! `cargo bench -p turingpi-ssh --bench openssh`. Prints a table. Needs ssh, sshd, sftp and ssh-keygen.
// A table on standard output is what this program is for.
#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    fs,
    io::Write,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use turingpi_ssh::{
    AuthMethod, Command, HostKey, KnownHosts, RemoteFile, RusshConnector, SshConnector, SshTarget,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const MIB: usize = 512;
const COMMANDS: u32 = 200;

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn done(command: &mut Process) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn keygen(path: &Path) -> Outcome {
    done(Process::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path)).map(drop)
}

fn serve(folder: &Path, sshd: PathBuf) -> Outcome<u16> {
    for name in ["host", "client"] {
        keygen(&folder.join(name))?;
    }
    let shown = folder.display();
    let config = folder.join("sshd_config");
    fs::write(
        &config,
        format!(
            "HostKey {shown}/host\nAuthorizedKeysFile {shown}/client.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nSetEnv SHLVL=9\n"
        ),
    )?;
    // Debian's sshd insists on this folder when root starts it.
    let _ = fs::create_dir_all("/run/sshd");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let mut children = Vec::new();
        while let Ok((socket, _)) = listener.accept() {
            let socket = OwnedFd::from(socket);
            let Ok(copy) = socket.try_clone() else { return };
            let mut command = Process::new(&sshd);
            command
                .arg("-i")
                .arg("-f")
                .arg(&config)
                .stdin(Stdio::from(copy))
                .stdout(Stdio::from(socket))
                .stderr(Stdio::null());
            children.extend(command.spawn());
        }
    });
    Ok(port)
}

/// OpenSSH's client with a connection that stays open.
struct OpenSsh {
    options: Vec<String>,
}

impl OpenSsh {
    fn new(folder: &Path, port: u16) -> Outcome<Self> {
        let shown = folder.display();
        let options = [
            "-F".into(),
            "none".into(),
            format!("-oPort={port}"),
            format!("-oIdentityFile={shown}/client"),
            format!("-oUserKnownHostsFile={shown}/known_hosts"),
            format!("-oControlPath={shown}/control"),
            "-oIdentitiesOnly=yes".into(),
            "-oBatchMode=yes".into(),
        ];
        let client = Self { options: options.to_vec() };
        done(client.program("ssh").args([
            "-oControlMaster=yes",
            "-oControlPersist=yes",
            "-fN",
            "127.0.0.1",
        ]))?;
        Ok(client)
    }
    fn program(&self, name: &str) -> Process {
        let mut command = Process::new(name);
        command.args(&self.options);
        command
    }
}

fn rate(time: Duration) -> String {
    format!("{:7.0} MiB/s", MIB as f64 / time.as_secs_f64())
}

/// The middle one of several measurements, so that one disturbance does not decide.
fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn row(what: &str, ours: String, theirs: String) {
    println!("{what:<46} {ours:>16} {theirs:>16}");
}

async fn compare(folder: &Path, port: u16, user: &str) -> Outcome {
    let host_key = HostKey::from_openssh(&fs::read_to_string(folder.join("host.pub"))?).ok_or("host key")?;
    KnownHosts::append(&folder.join("known_hosts"), "127.0.0.1", port, &host_key)?;
    let theirs = OpenSsh::new(folder, port)?;
    let auth = AuthMethod::KeyFile { path: folder.join("client"), passphrase: None };
    let target = SshTarget::new("127.0.0.1").port(port).user(user).auth(auth);
    let connector = RusshConnector::builder().known_hosts(folder.join("known_hosts")).build();
    let ours = connector.connect(&target).await?;

    row("", "turingpi-ssh".into(), "OpenSSH".into());
    let started = Instant::now();
    for _ in 0..COMMANDS {
        ours.run(&Command::script(":")).await?;
    }
    let own = started.elapsed() / COMMANDS;
    let started = Instant::now();
    for _ in 0..COMMANDS {
        done(theirs.program("ssh").args(["127.0.0.1", ":"]))?;
    }
    let other = started.elapsed() / COMMANDS;
    row("command on an open connection", format!("{own:.2?}"), format!("{other:.2?}"));

    let local = folder.join("local");
    let mut file = fs::File::create(&local)?;
    let mut seed = 1_u64;
    for _ in 0..MIB {
        let block: Vec<u8> = (0..(1 << 20) / 8)
            .flat_map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_le_bytes()
            })
            .collect();
        file.write_all(&block)?;
    }
    drop(file);
    let digest =
        done(Process::new("sha256sum").arg(&local))?.split(' ').next().unwrap_or_default().to_owned();
    let (mine, other) = (folder.join("mine"), folder.join("theirs"));
    let (mut own_times, mut other_times, mut checked_times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut own_streams, mut other_streams, mut own_inputs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let _ = fs::remove_file(&mine);
        let _ = fs::remove_file(&other);
        let upload = RemoteFile::local(mine.to_string_lossy(), &local, Some(digest.clone())).as_login_user();
        let started = Instant::now();
        ours.write(&upload, &mut |_, _| {}).await?;
        own_times.push(started.elapsed());

        let batch = folder.join("batch");
        fs::write(&batch, format!("put {} {}\n", local.display(), other.display()))?;
        let started = Instant::now();
        done(theirs.program("sftp").arg("-q").arg("-b").arg(&batch).arg("127.0.0.1"))?;
        other_times.push(started.elapsed());
        // What the upload above also does: flush, and compare digests on the node.
        done(
            theirs.program("ssh").arg("127.0.0.1").arg(format!("sync {0}; sha256sum {0}", other.display())),
        )?;
        checked_times.push(started.elapsed());

        let script = Command::script("cat >\"$1\"").arg(folder.join("streamed").to_string_lossy());
        let started = Instant::now();
        let input = Box::new(tokio::fs::File::open(&local).await?);
        ours.run_with_input(&script, input, &mut |_| {}).await?;
        own_inputs.push(started.elapsed());

        let started = Instant::now();
        let stream = format!("cat > {}", folder.join("streamed").display());
        let status =
            theirs.program("ssh").args(["127.0.0.1", &stream]).stdin(fs::File::open(&local)?).status()?;
        other_streams.push(started.elapsed());
        if !status.success() {
            return Err("stream".into());
        }
        let started = Instant::now();
        let mut received = 0_usize;
        let script = Command::script("cat \"$1\"").arg(local.to_string_lossy());
        ours.run_streaming(&script, &mut |chunk| {
            if let turingpi_ssh::Chunk::Stdout(data) = chunk {
                received += data.len();
            }
        })
        .await?;
        own_streams.push(started.elapsed());
        if received != MIB << 20 {
            return Err("streamed output is short".into());
        }
    }
    let (own, other, checked) = (middle(own_times), middle(other_times), middle(checked_times));
    row("upload 512 MiB, flushed and compared (sftp+ssh)", rate(own), rate(checked));
    row("upload 512 MiB (sftp put: neither)", rate(own), rate(other));
    row(
        "stream 512 MiB to a program's input (ssh cat)",
        rate(middle(own_inputs)),
        rate(middle(other_streams)),
    );
    let started = Instant::now();
    let mut command = theirs.program("ssh");
    command
        .arg("127.0.0.1")
        .arg(format!("cat {}", local.display()))
        .stdin(Stdio::null())
        .stdout(fs::File::create("/dev/null")?);
    command.status()?;
    row("512 MiB of output", rate(middle(own_streams)), rate(started.elapsed()));
    ours.close().await;
    let _ = theirs.program("ssh").args(["-O", "exit", "127.0.0.1"]).stderr(Stdio::null()).status();
    Ok(())
}

fn main() -> Outcome {
    let missing: Vec<&str> = ["ssh", "sshd", "sftp", "ssh-keygen", "sha256sum"]
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    let (Some(sshd), true) = (find("sshd"), missing.is_empty()) else {
        println!("SKIPPED: this machine has no {}; nothing was measured", missing.join(", "));
        return Ok(());
    };
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let port = serve(folder.path(), sshd)?;
    let user = done(Process::new("id").arg("-un"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(compare(folder.path(), port, user.trim()))
}
