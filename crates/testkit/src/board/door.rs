//! The doors: TCP, TLS, faults, the login and the global lock in front of the handlers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedMutexGuard,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Addresses, c_daemon,
    daemon::{Daemon, REBOOT, RELOAD},
    legacy, request_line,
    wire::{self, Answer, AnswerBody, Hangup, RequestBody, bare, typed, with},
};
use crate::{Action, Site};

/// The web UI's page, which unknown paths get.
const INDEX: &str =
    "<!doctype html><html lang=\"en\"><head><title>Turing Pi</title></head><body></body></html>";
/// A login is small; what is longer is not read on.
const LOGIN_LIMIT: usize = 64 * 1024;

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Port 443, or the only door of the C daemon.
    Api,
    /// Port 80 of bmcd.
    Redirect,
}

/// One request on its way to a handler.
pub(crate) struct Call {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) head: Parts,
    pub(crate) body: RequestBody,
    /// Break the connection off after so many bytes of the request's body.
    pub(crate) cut: Option<u64>,
    /// The caller's address.
    peer: IpAddr,
}

impl Call {
    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }
    /// The query as it stands in the request.
    pub(crate) fn raw_query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }
}

/// Opens the doors on ephemeral ports.
pub(crate) async fn open(daemon: &Arc<Daemon>) -> io::Result<(Addresses, Vec<JoinHandle<()>>)> {
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let api_address = api.local_addr()?;
    let mut doors = vec![tokio::spawn(accept(daemon.clone(), api, Door::Api))];
    let mut redirect_address = api_address;
    if !daemon.profile().is_c_daemon() {
        let redirect = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        redirect_address = redirect.local_addr()?;
        doors.push(tokio::spawn(accept(daemon.clone(), redirect, Door::Redirect)));
    }
    Ok((Addresses { api: api_address, redirect: redirect_address }, doors))
}

async fn accept(daemon: Arc<Daemon>, listener: TcpListener, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        // A closed daemon's port stays bound, so that no other process gets it; who calls is sent away.
        if let Ok((stream, peer)) = accepted
            && daemon.is_up()
        {
            connections.spawn(connection(daemon.clone(), stream, peer, door));
        }
    }
}

async fn connection(daemon: Arc<Daemon>, stream: TcpStream, peer: SocketAddr, door: Door) {
    let network = daemon.network();
    let secure = door == Door::Api && !daemon.profile().is_c_daemon();
    let acceptor = secure.then(|| TlsAcceptor::from(daemon.identity().config));
    let handler = move |request| handle(daemon.clone(), peer, door, request);
    let served = async {
        match acceptor {
            None => wire::serve(stream, handler).await,
            Some(acceptor) => {
                if let Ok(stream) = acceptor.accept(stream).await {
                    wire::serve(stream, handler).await;
                }
            }
        }
    };
    network.run_until_cancelled(served).await;
}

async fn handle(daemon: Arc<Daemon>, peer: SocketAddr, door: Door, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let entry = daemon.journal().begin(&head, daemon.clock().now());
    let body = RequestBody::new(body, entry.body_bytes());
    let call = Call { daemon, head, body, cut: None, peer: peer.ip().to_canonical() };
    let answer = with_fault(call, door).await;
    if let Ok(response) = &answer {
        entry.answered(response.status());
    }
    answer
}

/// Lets a fault strike before, instead of or after the handler.
async fn with_fault(mut call: Call, door: Door) -> Answer {
    let line = request_line(call.head.method.as_str(), call.path(), call.raw_query());
    let here = Site::Bmc { board: Some(call.daemon.plan().name.clone()), request: line };
    let daemon = call.daemon.clone();
    let Some(action) = daemon.surroundings().faults.strike(&here) else {
        return route(call, door).await;
    };
    match action {
        Action::Delay(time) => tokio::time::sleep(time).await,
        Action::Status(status, text) => return Ok(foreign(status, text)),
        Action::Fail(_, text) => return Ok(foreign(500, text)),
        Action::ExpireToken => daemon.auth().forget_token(&call.head.headers),
        Action::Ban(time) => daemon.ban(&call.peer.to_string(), time),
        Action::Restart | Action::Reboot => {
            let reboot = action == Action::Reboot;
            daemon.restart(std::time::Duration::ZERO, if reboot { REBOOT } else { RELOAD }, reboot);
            return Err(Hangup);
        }
        Action::Replace => daemon.ghost_start(0),
        Action::Hang => std::future::pending().await,
        Action::CutAfter(bytes) if call.head.method == Method::POST => call.cut = Some(bytes),
        Action::CutAfter(bytes) => return Ok(wire::cut_after(route(call, door).await?, bytes)),
        Action::Corrupt => return Ok(corrupt_answer(route(call, door).await?)),
        _ => return Err(Hangup),
    }
    route(call, door).await
}

/// An answer that something in front of the daemon gives.
fn foreign(status: u16, text: String) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = if text.starts_with('<') { "text/html" } else { "text/plain; charset=utf-8" };
    typed(status, media, text)
}

/// The answer, cut in the middle and presented as whole.
fn corrupt_answer(response: Response<AnswerBody>) -> Response<AnswerBody> {
    let (head, body) = response.into_parts();
    let body = match body {
        AnswerBody::Whole(Some(body)) => AnswerBody::Whole(Some(body.slice(..body.len() / 2))),
        other => other,
    };
    Response::from_parts(head, body)
}

async fn route(call: Call, door: Door) -> Answer {
    let profile = call.daemon.profile();
    if profile.is_c_daemon() {
        return c_daemon::answer(call).await;
    }
    if door == Door::Redirect {
        return Ok(redirect(&call));
    }
    let below_api = call.path() == "/api/bmc" || call.path().starts_with("/api/bmc/");
    if !below_api && profile.is_modern() {
        return Ok(index());
    }
    if !call.daemon.plan().loopback_is_remote && call.peer.is_loopback() {
        return dispatch(call, None).await;
    }
    let daemon = call.daemon.clone();
    // The daemon takes its lock for whoever calls, a caller without a header included.
    let guard = daemon.hold_lock().await;
    if call.path() == "/api/bmc/authenticate" {
        return login(call).await;
    }
    let (peer, now) = (call.peer.to_string(), daemon.clock().now());
    if let Some(refusal) = daemon.auth().refuse(&peer, &call.head.headers, now) {
        return Ok(refusal);
    }
    dispatch(call, profile.has_lock().then_some(guard)).await
}

async fn login(mut call: Call) -> Answer {
    let body = call.body.collect(LOGIN_LIMIT).await.map_err(|_| Hangup)?;
    let now = call.daemon.clock().now();
    Ok(call.daemon.auth().login(&call.peer.to_string(), &body, now))
}

/// Port 80: a redirect, and one route that needs no login.
fn redirect(call: &Call) -> Response<AnswerBody> {
    let profile = call.daemon.profile();
    let open = if profile.is_modern() { "/info" } else { "/api/bmc/info" };
    if call.path() == open && call.head.method == Method::GET {
        return legacy::other(&call.daemon).into_response();
    }
    let host = call.head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = if profile.since(2, 0, 2) { ":443" } else { "" };
    let rest = call.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let answer = bare(StatusCode::PERMANENT_REDIRECT, Bytes::new());
    with(answer, header::LOCATION, format!("https://{host}{port}{rest}"))
}

/// Unknown paths get the web UI.
pub(crate) fn index() -> Response<AnswerBody> {
    typed(StatusCode::OK, "text/html", INDEX)
}

/// Finds the handler. The guard is the daemon's global lock, held until the answer is there.
async fn dispatch(call: Call, guard: Option<OwnedMutexGuard<()>>) -> Answer {
    let profile = call.daemon.profile();
    let path = call.path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let method = call.head.method.clone();
    match (method, segments.as_slice()) {
        (_, ["api", "bmc"]) => legacy::entry(call).await,
        (Method::GET, ["api", "bmc", "backup"]) if profile.since(2, 0, 2) => Ok(legacy::backup()),
        (Method::POST, ["api", "bmc", "serial", "status"]) if profile.is_modern() => {
            Ok(plain(r#"["Running","Running","Running","Running"]"#.to_owned()))
        }
        (Method::GET, ["api", "bmc", "serial", "ws"]) if profile.is_modern() => {
            call.daemon.surroundings().pace.sleep(std::time::Duration::from_secs(30)).await;
            Err(Hangup)
        }
        (Method::GET, ["api", "bmc", "upload", _, "cancel"]) if profile.since(2, 0, 3) => {
            call.daemon.jobs().cancel();
            Ok(bare(StatusCode::OK, Bytes::new()))
        }
        (Method::POST, ["api", "bmc", "upload", handle]) => legacy::upload(call, handle, guard).await,
        _ if profile.is_modern() => Ok(index()),
        _ => Ok(bare(StatusCode::NOT_FOUND, Bytes::new())),
    }
}

/// JSON that is typed as text, as the job routes answer.
pub(crate) fn plain(text: String) -> Response<AnswerBody> {
    typed(StatusCode::OK, "text/plain; charset=utf-8", text)
}
