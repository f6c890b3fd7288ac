//! A small BMC on a real socket: TLS 1.2 only, a self-signed expired certificate without names, one request at a time.
//! It answers what the test scripts, and what a real daemon of bmcd 2.3.4 would where nothing is scripted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use secrecy::SecretString;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use turingpi_bmc::{BmcTimeouts, Fingerprint, HttpBmcClient, Trust};
use url::Url;

pub const PASSWORD: &str = "not-the-factory-password";
pub const ABOUT_2_3_4: &str = r#"{"response":[{"result":{"api":"1.1","board_model":"Turing Pi 2","board_revision":"2.5.1","build_version":"2024.05.1","buildroot":"Buildroot 2024.05.1","buildtime":"2025-01-17 17:12:52-00:00","hostname":"turingpi","version":"2.3.4"}}]}"#;
pub const ABOUT_2_0_5: &str = r#"{"response":[{"result":{"api":"1.1","build_version":"2023.08","buildroot":"Buildroot 2023.08","buildtime":"2023-11-28 14:01:07-00:00","version":"2.0.5"}}]}"#;
pub const ABOUT_COMMUNITY: &str = r#"{"response":[{"result":{"api":"1.1","bmcd_version":"2.37.0","board_model":"TuringPi2\u0000\u0000","board_revision":"v2.5.2","hostname":"turingpi","version":"local"}}]}"#;
pub const OK: &str = r#"{"response":[{"result":"ok"}]}"#;
pub const HANDLE: u64 = 218_651_785;

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Status, content type, body.
    Reply(u16, Option<&'static str>, String),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// The connection ends without an answer, as when a handler panics.
    Close,
    /// Never an answer.
    Hang,
    /// An answer after this long.
    Late(Duration, Box<Answer>),
}

impl Answer {
    pub fn json(body: &str) -> Self {
        Self::Reply(200, Some("application/json"), body.to_owned())
    }
    pub fn plain(status: u16, body: &str) -> Self {
        Self::Reply(status, Some("text/plain; charset=utf-8"), body.to_owned())
    }
}

/// What to do with an upload.
#[derive(Debug, Clone)]
pub enum Upload {
    /// Takes all of it; checks the multipart form and the length as the daemon does.
    Take,
    /// Takes all of it, and answers so.
    TakeAnd(Answer),
    /// Answers after this many bytes without reading the rest, and closes.
    Reject(usize, Answer),
    /// Resets the connection after this many bytes.
    Reset(usize),
    /// Reads no further after this many bytes.
    Stall(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logins {
    Open,
    /// 403 with this text.
    Refused(String),
    /// 200 with the web page: the daemon's loopback has no login.
    Absent,
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    /// Empty for an upload.
    pub body: Vec<u8>,
}

pub struct State {
    pub logins: Logins,
    pub tokens: Vec<String>,
    pub issued: usize,
    pub about: String,
    /// First match on a part of `METHOD path?query` wins; the count goes down, 0 is over.
    pub script: Vec<(String, Answer, usize)>,
    /// Answers of the transfer's state in turn; the last one stays.
    pub transfer: VecDeque<Answer>,
    pub upload: Upload,
    /// What the transfer's state becomes when an upload has been taken.
    pub after_upload: VecDeque<Answer>,
    pub written: Option<Vec<u8>>,
    pub expected: usize,
    pub seen: Vec<Seen>,
    pub connections: usize,
    /// Uploads whose connection ended before the body did.
    pub aborted: usize,
    /// What the next websocket is connected to.
    pub socket: Option<Socket>,
}

/// The far end of a websocket: what it says, and what it hears. It ends when nothing more can be said.
pub struct Socket {
    pub say: tokio::sync::mpsc::UnboundedReceiver<Message>,
    pub hear: tokio::sync::mpsc::UnboundedSender<Message>,
}

pub type Shared = Arc<Mutex<State>>;

pub struct Server {
    pub url: Url,
    pub fingerprint: Fingerprint,
    pub certificate_pem: String,
    pub state: Shared,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(true, Vec::new()).await
    }
    /// Plain HTTP, as firmware 1.x.
    pub async fn plain() -> Self {
        Self::with(false, Vec::new()).await
    }
    /// With a certificate for a name, as an owner may install.
    pub async fn named(name: &str) -> Self {
        Self::with(true, vec![name.to_owned()]).await
    }

    async fn with(encrypted: bool, names: Vec<String>) -> Self {
        let stock = names.is_empty();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Turing-Pi self signed");
        if stock {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2024, 1, 31);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS12])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private)
                .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            logins: Logins::Open,
            tokens: Vec::new(),
            issued: 0,
            about: ABOUT_2_3_4.to_owned(),
            script: Vec::new(),
            transfer: VecDeque::from([Answer::plain(200, "\"Ready\"")]),
            upload: Upload::Take,
            after_upload: VecDeque::new(),
            written: None,
            expected: 0,
            seen: Vec::new(),
            connections: 0,
            aborted: 0,
            socket: None,
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (state, acceptor) = (shared.clone(), acceptor.clone());
                connections.spawn(async move {
                    let reset = linger_handle(&socket);
                    if !encrypted {
                        state.lock().unwrap().connections += 1;
                        return serve(socket, reset, state).await;
                    }
                    if let Ok(stream) = acceptor.accept(socket).await {
                        state.lock().unwrap().connections += 1;
                        serve(stream, reset, state).await;
                    }
                });
            }
        });
        let scheme = if encrypted { "https" } else { "http" };
        Self {
            url: Url::parse(&format!("{scheme}://127.0.0.1:{port}")).unwrap(),
            fingerprint: Fingerprint::of_der(certificate.der()),
            certificate_pem: certificate.pem(),
            state,
            task,
        }
    }

    pub fn client(&self) -> HttpBmcClient {
        self.client_with(timeouts(), PASSWORD)
    }
    pub fn client_with(&self, timeouts: BmcTimeouts, password: &str) -> HttpBmcClient {
        HttpBmcClient::builder(self.url.clone())
            .credentials("root", SecretString::from(password))
            .trust(Trust::Pin(self.fingerprint))
            .timeouts(timeouts)
            .build()
            .unwrap()
    }
    /// Answers so to a request whose `METHOD path?query` contains `part`, `times` times.
    pub fn script(&self, part: &str, answer: Answer, times: usize) {
        self.state.lock().unwrap().script.push((part.to_owned(), answer, times));
    }
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
    /// How many requests contained `part`.
    pub fn count(&self, part: &str) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|seen| seen.line.contains(part)).count()
    }
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

/// Short enough for tests, long enough for a busy machine.
pub fn timeouts() -> BmcTimeouts {
    BmcTimeouts {
        connect: Duration::from_secs(60),
        call: Duration::from_secs(60),
        slow_call: Duration::from_secs(60),
        console_poll: Duration::from_millis(2),
        upload_stall: Duration::from_secs(60),
        poll: Duration::from_millis(2),
        poll_failures: 3,
        write_stall: Duration::from_secs(60),
    }
}

pub fn moving(id: u64, bytes: u64, size: u64) -> Answer {
    Answer::plain(
        200,
        &format!(
            r#"{{"Transferring":{{"id":{id},"process_name":"Node 2 os install service","size":{size},"cancelled":false,"bytes_written":{bytes}}}}}"#
        ),
    )
}
pub fn done(size: u64) -> Answer {
    Answer::plain(200, &format!(r#"{{"Done":[{{"secs":5,"nanos":555987358}},{size}]}}"#))
}
pub fn failed(text: &str) -> Answer {
    Answer::plain(200, &format!(r#"{{"Error":"{text}"}}"#))
}

/// Ends a connection by a reset instead of an orderly end.
fn linger_handle(socket: &TcpStream) -> impl FnOnce() + Send + 'static {
    use std::os::fd::AsFd;
    let copy = socket.as_fd().try_clone_to_owned().unwrap();
    move || {
        let socket = std::net::TcpStream::from(copy);
        let socket = TcpStream::from_std(socket).unwrap();
        socket.set_zero_linger().unwrap();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reset: impl FnOnce() + Send, state: Shared) {
    let mut buffer = Vec::new();
    loop {
        let Some(end) = head(&mut stream, &mut buffer).await else { return };
        let text = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let length: usize = header("content-length").map_or(0, |v| v.parse().unwrap());
        let upload = (first.contains("/upload/") && !first.contains("/cancel"))
            .then(|| state.lock().unwrap().upload.clone());
        let limit = match &upload {
            Some(Upload::Reject(bytes, _) | Upload::Reset(bytes) | Upload::Stall(bytes)) => {
                length.min(*bytes)
            }
            _ => length,
        };
        while buffer.len() < limit {
            let mut piece = vec![0; 16 * 1024];
            match stream.read(&mut piece).await {
                Ok(read) if read > 0 => buffer.extend_from_slice(&piece[..read]),
                _ => {
                    state.lock().unwrap().aborted += 1;
                    return;
                }
            }
        }
        let body: Vec<u8> = buffer.drain(..limit).collect();
        let socket = if first.contains("/serial/ws?") { state.lock().unwrap().socket.take() } else { None };
        if let Some(socket) = socket {
            let key = header("sec-websocket-key").unwrap();
            state.lock().unwrap().seen.push(Seen { line: first, headers: headers.clone(), body });
            return talk(stream, &key, socket).await;
        }
        let answer = decide(&state, &first, &headers, &body, upload.as_ref());
        let body = if upload.is_some() { Vec::new() } else { body };
        state.lock().unwrap().seen.push(Seen { line: first, headers: headers.clone(), body });
        match upload {
            Some(Upload::Reset(_)) => return reset(),
            Some(Upload::Stall(_)) => std::future::pending().await,
            _ => {}
        }
        let last = matches!(upload, Some(Upload::Reject(..)));
        if !write(&mut stream, answer).await || last {
            return;
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, key: &str, mut socket: Socket) {
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut stream = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        tokio::select! {
            said = socket.say.recv() => match said {
                Some(message) => stream.send(message).await.unwrap(),
                None => return,
            },
            heard = stream.next() => match heard {
                Some(Ok(message)) => {
                    let _ = socket.hear.send(message);
                }
                _ => return,
            },
        }
    }
}

async fn head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            return Some(at + 4);
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.ok()?;
        if read == 0 {
            return None;
        }
        buffer.extend_from_slice(&piece[..read]);
    }
}

/// Whether the connection goes on.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, answer: Answer) -> bool {
    match answer {
        Answer::Reply(status, kind, body) => {
            let kind = kind.map(|k| format!("content-type: {k}\r\n")).unwrap_or_default();
            let text = format!("HTTP/1.1 {status} X\r\n{kind}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok()
        }
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Answer::Close => false,
        Answer::Hang => std::future::pending().await,
        Answer::Late(wait, answer) => {
            tokio::time::sleep(wait).await;
            Box::pin(write(stream, *answer)).await
        }
    }
}

fn decide(
    state: &Shared,
    line: &str,
    headers: &[(String, String)],
    body: &[u8],
    upload: Option<&Upload>,
) -> Answer {
    let mut state = state.lock().unwrap();
    if line.contains("/authenticate") {
        return login(&mut state, body);
    }
    let encrypted = state.issued > 0 || state.logins != Logins::Absent;
    let token = headers.iter().find(|(name, _)| name == "authorization").map(|(_, v)| v.clone());
    if let Some(scripted) =
        state.script.iter_mut().find(|(part, _, left)| *left > 0 && line.contains(part.as_str()))
    {
        scripted.2 -= 1;
        return scripted.1.clone();
    }
    if encrypted {
        match token.as_deref().and_then(|t| t.strip_prefix("Bearer ")) {
            None => return Answer::Reply(401, None, "no authorization header provided".to_owned()),
            Some(token) if !state.tokens.iter().any(|t| t == token) => {
                return Answer::Reply(401, None, format!("token {token} is not registered"));
            }
            Some(_) => {}
        }
    }
    if let Some(upload) = upload {
        return match upload {
            Upload::TakeAnd(answer) | Upload::Reject(_, answer) => answer.clone(),
            Upload::Reset(_) | Upload::Stall(_) => Answer::Close,
            Upload::Take => take(&mut state, headers, body),
        };
    }
    if line.contains("opt=get&type=about") {
        let about = state.about.clone();
        Answer::json(&about)
    } else if line.contains("opt=get&type=flash") {
        if state.transfer.len() > 1 { state.transfer.pop_front().unwrap() } else { state.transfer[0].clone() }
    } else if line.contains("opt=set&type=flash") || line.contains("opt=set&type=firmware") {
        match line.split("length=").nth(1) {
            Some(rest) => state.expected = rest.split('&').next().unwrap().parse().unwrap(),
            // A job of its own: nobody uploads anything.
            None => state.transfer = std::mem::take(&mut state.after_upload),
        }
        Answer::plain(200, &format!(r#"{{"handle":{HANDLE}}}"#))
    } else if line.contains("/cancel") {
        Answer::Reply(200, None, String::new())
    } else if line.contains("opt=set") {
        Answer::json(OK)
    } else {
        Answer::Reply(200, Some("text/html"), "<!doctype html><html><head></head></html>".to_owned())
    }
}

fn login(state: &mut State, body: &[u8]) -> Answer {
    match &state.logins {
        Logins::Absent => return Answer::Reply(200, Some("text/html"), "<!doctype html>".to_owned()),
        Logins::Refused(text) => return Answer::Reply(403, None, text.clone()),
        Logins::Open => {}
    }
    let given: serde_json::Value = serde_json::from_slice(body).unwrap();
    if given["username"] != "root" || given["password"] != PASSWORD {
        return Answer::Reply(403, None, "credentials incorrect".to_owned());
    }
    state.issued += 1;
    let token = format!("{:0>64}", format!("TOKEN{}", state.issued));
    state.tokens.push(token.clone());
    Answer::Reply(
        200,
        None,
        format!(r#"{{"id":"{token}","name":"User Session","description":"User Session","username":"root"}}"#),
    )
}

/// The upload as the daemon reads it: the first part of the form is the data.
fn take(state: &mut State, headers: &[(String, String)], body: &[u8]) -> Answer {
    let kind = headers.iter().find(|(n, _)| n == "content-type").map(|(_, v)| v.clone()).unwrap_or_default();
    let Some((_, boundary)) = kind.split_once("multipart/form-data; boundary=") else {
        state.transfer = VecDeque::from([done(state.expected as u64)]);
        return Answer::plain(500, "Multipart form invalid");
    };
    let find = |needle: &[u8]| body.windows(needle.len()).position(|w| w == needle);
    let start = find(b"\r\n\r\n").unwrap() + 4;
    let end = body.len() - format!("\r\n--{boundary}--\r\n").len();
    assert!(body.starts_with(format!("--{boundary}\r\n").as_bytes()));
    assert!(body.ends_with(format!("\r\n--{boundary}--\r\n").as_bytes()));
    let data = body[start..end].to_vec();
    if data.len() != state.expected {
        state.transfer = VecDeque::from([failed("cancelled by user")]);
        return Answer::plain(500, "missing 1 kB bytes");
    }
    state.written = Some(data);
    if !state.after_upload.is_empty() {
        state.transfer = std::mem::take(&mut state.after_upload);
    }
    Answer::Reply(200, None, String::new())
}
