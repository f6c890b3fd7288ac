//! A small SSH server in this process, for what OpenSSH cannot be made to do without changing the machine: passwords,
//! dialogues, and a login that is not root and has a `sudo` of our own.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};

use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, MethodKind, MethodSet,
    keys::{Algorithm, PrivateKey, PublicKeyBase64},
    server::{self, Auth, Msg, Session},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use turingpi_ssh::{Fingerprint, HostKeyPolicy, SshTarget};

/// How the server behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// Methods offered.
    pub(crate) methods: Vec<MethodKind>,
    /// The right password, for `password` and as the last answer of a dialogue.
    pub(crate) password: String,
    /// Prompts of each round of the dialogue, with whether they echo.
    pub(crate) rounds: Vec<Vec<(String, bool)>>,
    /// Put in front of PATH for what is run.
    pub(crate) programs: Option<PathBuf>,
    /// Closes channels without saying how the program ended.
    pub(crate) no_status: bool,
    /// Ends the connection without a word when a login is tried, as a host that shuts down does.
    pub(crate) hangs_up: bool,
    /// How many sessions in a row it refuses after each that it gave: the place of the last one is not free yet.
    pub(crate) buries_slowly: usize,
}

pub(crate) struct SmallServer {
    pub(crate) port: u16,
    pub(crate) fingerprint: Fingerprint,
    /// Each login that was tried, with what was given.
    pub(crate) logins: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl SmallServer {
    pub(crate) async fn start(manners: Manners) -> Self {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
        let fingerprint = Fingerprint::of_blob(&key.public_key().public_key_bytes());
        let config = Arc::new(server::Config {
            keys: vec![key],
            methods: MethodSet::from(manners.methods.as_slice()),
            auth_rejection_time: std::time::Duration::ZERO,
            ..Default::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(Mutex::new(Vec::new()));
        let log = logins.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let visitor = Visitor {
                    manners: manners.clone(),
                    log: log.clone(),
                    round: 0,
                    refusals: 0,
                    channels: HashMap::new(),
                };
                let config = config.clone();
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, socket, visitor).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { port, fingerprint, logins, accepting }
    }

    pub(crate) fn target(&self) -> SshTarget {
        let policy = HostKeyPolicy::Pinned(vec![self.fingerprint]);
        SshTarget::new("127.0.0.1").port(self.port).user("admin").host_key(policy)
    }

    pub(crate) fn tried(&self) -> Vec<String> {
        self.logins.lock().unwrap().clone()
    }
}

impl Drop for SmallServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Visitor {
    manners: Manners,
    log: Arc<Mutex<Vec<String>>>,
    round: usize,
    refusals: usize,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl server::Handler for Visitor {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(if self.manners.methods.contains(&MethodKind::None) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, Self::Error> {
        self.log.lock().unwrap().push(format!("password {password}"));
        if self.manners.hangs_up {
            return Err(russh::Error::HUP);
        }
        Ok(if password == self.manners.password { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _key: server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        if self.manners.hangs_up { Err(russh::Error::HUP) } else { Ok(Auth::reject()) }
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<server::Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let mut last = String::new();
        if let Some(response) = response {
            let answers: Vec<String> =
                response.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
            self.log.lock().unwrap().push(format!("dialogue {}", answers.join(",")));
            last = answers.last().cloned().unwrap_or_default();
        } else {
            self.round = 0;
        }
        let Some(prompts) = self.manners.rounds.get(self.round).cloned() else {
            return Ok(if last == self.manners.password { Auth::Accept } else { Auth::reject() });
        };
        self.round += 1;
        Ok(Auth::Partial {
            name: "".into(),
            instructions: "".into(),
            prompts: prompts.into_iter().map(|(prompt, echo)| (prompt.into(), echo)).collect(),
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.refusals > 0 {
            self.refusals -= 1;
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        self.refusals = self.manners.buries_slowly;
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        let Some(channel) = self.channels.remove(&id) else { return Ok(()) };
        let (command, manners) = (String::from_utf8_lossy(data).into_owned(), self.manners.clone());
        tokio::spawn(serve(channel, command, manners));
        Ok(())
    }
}

/// Runs a command as sshd does: in a process session of its own, by the login shell.
async fn serve(channel: Channel<Msg>, command: String, manners: Manners) {
    let mut path = std::env::var("PATH").unwrap();
    if let Some(programs) = &manners.programs {
        path = format!("{}:{path}", programs.display());
    }
    let mut child = tokio::process::Command::new("setsid")
        .args(["-w", "/bin/sh", "-c", &command])
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut read, write) = channel.split();
    let write = Arc::new(write);
    let out = tokio::spawn(copy(stdout, write.clone(), None));
    let err = tokio::spawn(copy(stderr, write.clone(), Some(1)));
    let feed = tokio::spawn(async move {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    if let Some(to) = &mut stdin
                        && to.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                ChannelMsg::Eof => stdin = None,
                _ => {}
            }
        }
    });
    let status = child.wait().await.unwrap();
    let _ = tokio::join!(out, err);
    if !manners.no_status {
        let _ = write.exit_status(status.code().unwrap_or(255) as u32).await;
    }
    let _ = write.eof().await;
    let _ = write.close().await;
    feed.abort();
}

async fn copy(mut from: impl AsyncRead + Unpin, to: Arc<russh::ChannelWriteHalf<Msg>>, ext: Option<u32>) {
    let mut block = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        let data = bytes::Bytes::copy_from_slice(&block[..count]);
        let sent = match ext {
            None => to.data_bytes(data).await,
            Some(ext) => to.extended_data_bytes(ext, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
