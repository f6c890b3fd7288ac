//! Starts OpenSSH's server: one `sshd -i` per accepted connection, so that no port has to be guessed.

use std::{
    fs,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use tempfile::TempDir;
use turingpi_ssh::{
    AuthMethod, HostKey, RusshConnector, RusshConnectorBuilder, SshClient, SshConnector, SshTarget,
};

/// A server with its own configuration, keys and folder.
pub(crate) struct Sshd {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
    accepting: Option<JoinHandle<()>>,
}

/// The server's program; says loudly when there is none.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("sshd")).collect();
    places.push("/usr/sbin/sshd".into());
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() || !tool("ssh-keygen") {
        eprintln!(
            "SKIPPED: no OpenSSH server (`sshd`, `ssh-keygen`) on this machine; this test proved nothing"
        );
        return None;
    }
    found
}

/// A folder in memory where there is such a thing: uploads end with a flush to the disk, and a busy disk takes seconds.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn tool(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(name).is_file())
}

pub(crate) fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn user() -> String {
    output_of("id", &["-un"]).trim().to_owned()
}

pub(crate) fn is_root() -> bool {
    output_of("id", &["-u"]).trim() == "0"
}

/// Makes a key pair; `extra` goes to ssh-keygen.
pub(crate) fn keygen(path: &Path, kind: &str, passphrase: &str, extra: &[&str]) {
    let path = path.to_str().unwrap();
    // One round of key derivation: these keys protect nothing, and unoptimised rounds are slow.
    let mut args = vec!["-q", "-t", kind, "-f", path, "-N", passphrase, "-C", "test", "-a", "1"];
    args.extend(extra);
    output_of("ssh-keygen", &args);
}

impl Sshd {
    /// Starts a server that lets the current user in with the key `client`. `None` when there is no sshd here.
    pub(crate) fn start() -> Option<Self> {
        Self::with("")
    }

    /// As `start`, with more lines for its configuration. The first value of an option counts. `FOLDER` is replaced.
    pub(crate) fn with(config: &str) -> Option<Self> {
        let program = program()?;
        if is_root() {
            // Debian's sshd insists on this folder, which its service unit would make.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = scratch();
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host_ed25519"), "ed25519", "", &[]);
        keygen(&at("client"), "ed25519", "", &[]);
        fs::copy(at("client.pub"), at("authorized_keys")).unwrap();
        let shown = folder.path().display();
        // The level keeps bash from reading start files, which are slow for some people.
        let text = format!(
            "{}\nHostKey {shown}/host_ed25519\nAuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\nLogLevel DEBUG\nSetEnv SHLVL=9\n",
            config.replace("FOLDER", &shown.to_string())
        );
        fs::write(at("sshd_config"), text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, children) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, kept, config, log) = (stop.clone(), children.clone(), at("sshd_config"), at("log"));
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let descriptor = OwnedFd::from(socket);
                let child = Command::new(&program)
                    .args(["-i".as_ref(), "-f".as_ref(), config.as_os_str(), "-E".as_ref(), log.as_os_str()])
                    .stdin(Stdio::from(descriptor.try_clone().unwrap()))
                    .stdout(Stdio::from(descriptor))
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                kept.lock().unwrap().push(child);
            }
        });
        Some(Self { folder, port, stop, children, accepting: Some(accepting) })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn host_key(&self, kind: &str) -> HostKey {
        HostKey::from_openssh(&fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap()).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A known-hosts file that knows this server's ed25519 key.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        let path = self.path("known_hosts");
        if !path.exists() {
            fs::write(&path, format!("[127.0.0.1]:{} {}\n", self.port, self.host_key("ed25519"))).unwrap();
        }
        path
    }

    pub(crate) fn connector(&self) -> RusshConnectorBuilder {
        RusshConnector::builder().known_hosts(self.known_hosts())
    }

    pub(crate) fn bare_target(&self) -> SshTarget {
        SshTarget::new("127.0.0.1").port(self.port).user(user())
    }

    pub(crate) fn key(&self, name: &str) -> AuthMethod {
        AuthMethod::KeyFile { path: self.path(name), passphrase: None }
    }

    pub(crate) fn target(&self) -> SshTarget {
        self.bare_target().auth(self.key("client"))
    }

    pub(crate) async fn client(&self) -> Arc<dyn SshClient> {
        match self.connector().build().connect(&self.target()).await {
            Ok(client) => client,
            Err(error) => panic!("{error:?}\n{}", self.log()),
        }
    }

    /// Cuts every connection without a goodbye.
    pub(crate) fn cut(&self) {
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }
}
