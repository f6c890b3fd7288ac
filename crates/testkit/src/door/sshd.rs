//! A node's sshd on a real socket.

use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use russh::{
    Channel, ChannelId, MethodKind, MethodSet, Sig,
    keys::{HashAlg, PrivateKey, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, Session as Wire, VerifiedPublicKey},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    Action, Site,
    node::{
        Node, console, launch, rootfs,
        session::{Session, Sink, Stdin, Stream},
        users::{self, Account, Login},
        vfs::Vfs,
    },
};

/// Serves a node's sshd for the life of the simulation; while sshd is down connections are closed at once.
pub(crate) async fn serve(node: Arc<Node>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        tokio::spawn(connection(Arc::clone(&node), stream));
    }
}

async fn connection(node: Arc<Node>, stream: TcpStream) {
    let Some(world) = node.world() else { return };
    let mut wrong_key = false;
    if !node.sshd_up() {
        return;
    }
    match world.faults.strike(&Site::SshConnect { node: Some(node.name.clone()) }) {
        Some(Action::Delay(real)) => tokio::time::sleep(real).await,
        Some(Action::Hang) => {
            node.running_token().cancelled().await;
            return;
        }
        Some(Action::WrongHostKey) => wrong_key = true,
        Some(Action::Reboot) => {
            node.restart();
            return;
        }
        Some(_) => return,
        None => {}
    }
    let pace = world.pace;
    drop(world);
    let keys = if wrong_key {
        vec![rootfs::new_host_key()]
    } else {
        node.os(|os| host_keys(&os.vfs)).unwrap_or_default()
    };
    if keys.is_empty() {
        return;
    }
    let settings = node.os(|os| Settings::read(&os.vfs)).unwrap_or_default();
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    if settings.passwords {
        methods.push(MethodKind::Password);
    }
    let config = russh::server::Config {
        keys,
        methods,
        auth_rejection_time: pace.scale(Duration::from_secs(2)),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        inactivity_timeout: None,
        nodelay: true,
        ..russh::server::Config::default()
    };
    // A second handle of the socket cuts it when power goes.
    let Ok(stream) = stream.into_std() else { return };
    let Ok(knife) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let _ = stream.set_nodelay(true);
    let power = node.running_token();
    let handler = Door {
        node,
        settings,
        account: None,
        expired: false,
        channels: HashMap::new(),
        knife: Arc::new(knife),
    };
    let knife = Arc::clone(&handler.knife);
    let session = async {
        if let Ok(running) = russh::server::run_stream(Arc::new(config), stream, handler).await {
            let _ = running.await;
        }
    };
    tokio::select! {
        () = session => {}
        () = power.cancelled() => {}
    }
    let _ = knife.shutdown(Shutdown::Both);
}

/// What `sshd_config` says.
#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    passwords: bool,
    root_password: bool,
    root: bool,
}

impl Settings {
    fn read(vfs: &Vfs) -> Self {
        let mut texts = Vec::new();
        for name in vfs.names_ending("/etc/ssh/sshd_config.d", ".conf") {
            texts.push(vfs.text(&format!("/etc/ssh/sshd_config.d/{name}")));
        }
        texts.push(vfs.text("/etc/ssh/sshd_config"));
        // The first value found counts.
        let value = |key: &str| {
            texts.iter().flat_map(|text| text.lines()).find_map(|line| {
                let (name, value) = line.trim().split_once(char::is_whitespace)?;
                name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
            })
        };
        let root = value("PermitRootLogin").unwrap_or_else(|| "prohibit-password".to_owned());
        Self {
            passwords: value("PasswordAuthentication").as_deref() != Some("no"),
            root_password: root == "yes",
            root: root != "no",
        }
    }
}

/// The host keys in `/etc/ssh`.
fn host_keys(vfs: &Vfs) -> Vec<PrivateKey> {
    let names = vfs.names_ending("/etc/ssh", "_key");
    let read = |name: &String| PrivateKey::from_openssh(vfs.text(&format!("/etc/ssh/{name}"))).ok();
    names.iter().filter(|name| name.starts_with("ssh_host_")).filter_map(read).collect()
}

/// `SHA256:…` of a node's ed25519 host key.
pub(crate) fn host_key(vfs: &Vfs) -> Option<String> {
    let key = PrivateKey::from_openssh(vfs.text("/etc/ssh/ssh_host_ed25519_key")).ok()?;
    Some(key.public_key().fingerprint(HashAlg::Sha256).to_string())
}

/// Whether an account's `authorized_keys` holds a key. Files that others may write are not looked at.
fn authorized(vfs: &Vfs, account: &Account, key: &PublicKey) -> bool {
    let folder = format!("{}/.ssh", account.home);
    let path = format!("{folder}/authorized_keys");
    let safe = |path: &str| {
        vfs.stat(path)
            .is_ok_and(|inode| inode.mode & 0o022 == 0 && (inode.uid == account.uid || inode.uid == 0))
    };
    if !safe(&account.home) || !safe(&folder) || !safe(&path) {
        return false;
    }
    let Ok(wanted) = key.to_openssh() else { return false };
    let Some(wanted) = wanted.split_whitespace().nth(1) else { return false };
    let text = vfs.text(&path);
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split_whitespace().any(|word| word == wanted))
}

/// A session channel.
#[derive(Default)]
struct Open {
    stdin: Option<mpsc::UnboundedSender<Bytes>>,
    early: Option<mpsc::UnboundedReceiver<Bytes>>,
    env: Vec<(String, String)>,
    tty: bool,
    cancel: Option<tokio_util::sync::CancellationToken>,
    program: Option<Arc<Session>>,
    /// Its program has ended: the channel counts no more.
    ended: Arc<std::sync::atomic::AtomicBool>,
}

/// One connection.
struct Door {
    node: Arc<Node>,
    settings: Settings,
    account: Option<Account>,
    expired: bool,
    channels: HashMap<ChannelId, Open>,
    knife: Arc<std::net::TcpStream>,
}

enum Piece {
    Data(Stream, Bytes),
    End(i32),
}

impl Door {
    fn start(&mut self, id: ChannelId, line: Option<String>, wire: &mut Wire) -> Result<(), russh::Error> {
        let Some(account) = self.account.clone() else { return wire.channel_failure(id) };
        let Some(open) = self.channels.get_mut(&id) else { return wire.channel_failure(id) };
        let Some(from) = open.early.take() else { return wire.channel_failure(id) };
        let (to, pieces) = mpsc::unbounded_channel();
        let feed = to.clone();
        let tty = open.tty;
        let sink: Sink = Arc::new(move |stream, bytes| {
            if !bytes.is_empty() {
                // A terminal has one stream, and its lines end with CR LF.
                let (stream, bytes) = if tty {
                    (Stream::Out, Bytes::from(console::cooked(bytes)))
                } else {
                    (stream, Bytes::copy_from_slice(bytes))
                };
                let _ = feed.send(Piece::Data(stream, bytes));
            }
        });
        let mut session = Session::new(&self.node, account, Stdin::new(from), sink);
        session.tty = tty;
        session.remote.store(true, Ordering::Relaxed);
        for (name, value) in &open.env {
            session.set_env(name, value);
        }
        let session = Arc::new(session);
        open.cancel = Some(session.cancel.clone());
        open.program = Some(Arc::clone(&session));
        wire.channel_success(id)?;
        let expired = self.expired;
        let ended = Arc::clone(&open.ended);
        tokio::spawn(async move {
            let code = match line {
                _ if expired && !tty => {
                    session.err("WARNING: Your password has expired.\nPassword change required but no TTY available.\n");
                    1
                }
                _ if expired => console::change_expired(&session).await,
                Some(line) => launch::command_line(session, line).await,
                None => console::interactive(session).await,
            };
            ended.store(true, Ordering::Relaxed);
            let _ = to.send(Piece::End(code));
        });
        tokio::spawn(deliver(wire.handle(), id, pieces, Arc::clone(&self.knife)));
        Ok(())
    }
}

/// Carries a program's output to the client, in order, and its exit status at the end.
async fn deliver(
    handle: russh::server::Handle,
    id: ChannelId,
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    knife: Arc<std::net::TcpStream>,
) {
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Data(Stream::Out, bytes) => {
                let _ = handle.data(id, bytes).await;
            }
            Piece::Data(Stream::Err, bytes) => {
                let _ = handle.extended_data(id, 1, bytes).await;
            }
            Piece::End(launch::CUT) => {
                let _ = knife.shutdown(Shutdown::Both);
                return;
            }
            Piece::End(code) => {
                match u32::try_from(code) {
                    Ok(code) => {
                        let _ = handle.exit_status_request(id, code).await;
                    }
                    Err(_) => {
                        let signal = match code {
                            -9 => Sig::KILL,
                            -2 => Sig::INT,
                            -1 => Sig::HUP,
                            _ => Sig::TERM,
                        };
                        let _ =
                            handle.exit_signal_request(id, signal, false, String::new(), String::new()).await;
                    }
                }
                let _ = handle.eof(id).await;
                let _ = handle.close(id).await;
                return;
            }
        }
    }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        if !self.settings.passwords || (user == "root" && !self.settings.root_password) {
            return Ok(Auth::reject());
        }
        let (login, account) = self
            .node
            .os(|os| (users::check(&os.vfs, user, password), users::find(&os.vfs, user)))
            .unwrap_or((Login::Refused, None));
        self.node.os(|os| {
            let verdict = if login == Login::Refused { "Failed" } else { "Accepted" };
            os.log(
                "ssh.service",
                "sshd",
                700,
                format!("{verdict} password for {user} from 10.10.88.2 port 40000 ssh2"),
            );
        });
        match (login, account) {
            (Login::Accepted | Login::Expired, Some(account)) => {
                self.expired = login == Login::Expired;
                self.account = Some(account);
                Ok(Auth::Accept)
            }
            _ => Ok(Auth::reject()),
        }
    }
    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if user == "root" && !self.settings.root {
            return Ok(Auth::reject());
        }
        let found = self
            .node
            .os(|os| {
                let account = users::find(&os.vfs, user)?;
                authorized(&os.vfs, &account, key.public_key)
                    .then(|| (users::expired(&os.vfs, user), account))
            })
            .flatten();
        let Some((expired, account)) = found else { return Ok(Auth::reject()) };
        self.expired = expired;
        self.account = Some(account);
        Ok(Auth::Accept)
    }
    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.node.os(|os| {
            users::find(&os.vfs, user).is_some_and(|account| authorized(&os.vfs, &account, offer.public_key))
        });
        Ok(if known == Some(true) { Auth::Accept } else { Auth::reject() })
    }
    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Wire,
    ) -> Result<(), Self::Error> {
        self.channels.retain(|_, open| !open.ended.load(Ordering::Relaxed));
        // MaxSessions of OpenSSH.
        if self.channels.len() >= 10 {
            reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        let (to, from) = mpsc::unbounded_channel();
        self.channels.insert(channel.id(), Open { stdin: Some(to), early: Some(from), ..Open::default() });
        // The channel itself is dropped: a kept one that nobody drains stalls the whole connection.
        reply.accept().await;
        Ok(())
    }
    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Wire) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get_mut(&channel)
            && let Some(stdin) = &open.stdin
        {
            if open.tty {
                // The terminal ends lines with LF, and ends input with control-D.
                let ends = data.contains(&4);
                let cooked: Vec<u8> =
                    data.iter().filter(|b| **b != 4).map(|b| if *b == b'\r' { b'\n' } else { *b }).collect();
                let _ = stdin.send(Bytes::from(cooked));
                if ends {
                    open.stdin = None;
                }
            } else {
                let _ = stdin.send(Bytes::copy_from_slice(data));
            }
        }
        Ok(())
    }
    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Wire) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get_mut(&channel) {
            open.stdin = None;
        }
        Ok(())
    }
    async fn channel_close(&mut self, channel: ChannelId, _: &mut Wire) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.remove(&channel)
            && open.tty
            && let Some(cancel) = open.cancel
        {
            // Only a terminal hangs up its programs; others run on.
            cancel.cancel();
        }
        Ok(())
    }
    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Wire,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&channel) {
            Some(open) if name == "LANG" || name.starts_with("LC_") => {
                open.env.push((name.to_owned(), value.to_owned()));
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Wire,
    ) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get_mut(&channel) {
            open.tty = true;
        }
        session.channel_success(channel)
    }
    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Wire,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8_lossy(data).into_owned();
        self.start(channel, Some(line), session)
    }
    async fn shell_request(&mut self, channel: ChannelId, session: &mut Wire) -> Result<(), Self::Error> {
        self.start(channel, None, session)
    }
    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Wire,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Wire) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get(&channel)
            && let Some(cancel) = &open.cancel
            && matches!(signal, Sig::KILL | Sig::TERM | Sig::INT | Sig::HUP | Sig::QUIT)
            // sshd signals only programs of the user who logged in: not what sudo started.
            && open.program.as_ref().is_some_and(|program| !program.elevated.load(Ordering::Relaxed))
        {
            cancel.cancel();
        }
        Ok(())
    }
}

/// Starts the door on an ephemeral port.
pub(crate) async fn open(node: &Arc<Node>) -> std::io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    Ok((address, tokio::spawn(serve(Arc::clone(node), listener))))
}
