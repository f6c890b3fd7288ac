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
    sync::{OwnedMutexGuard, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Addresses, c_daemon,
    daemon::Daemon,
    legacy, serial, strike,
    wire::{self, Answer, AnswerBody, Hangup, RequestBody, bare, typed, with},
};
use crate::{Action, Site, fault::Strike};

/// The web UI's page, which unknown paths get.
const INDEX: &str =
    "<!doctype html><html lang=\"en\"><head><title>Turing Pi</title></head><body></body></html>";
/// A login is small; what is longer is not read on.
const LOGIN_LIMIT: usize = 64 * 1024;

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
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
    /// What befalls the request's body.
    pub(crate) trouble: Option<Strike>,
    /// The caller's address.
    peer: IpAddr,
}

impl Call {
    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }
    /// The query as it stands in the request.
    pub(crate) fn raw_query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }
}

/// Opens the doors on ephemeral ports.
pub(crate) async fn open(daemon: &Arc<Daemon>) -> io::Result<Vec<JoinHandle<()>>> {
    let kinds: &[Door] =
        if daemon.profile().is_c_daemon() { &[Door::Api] } else { &[Door::Api, Door::Redirect] };
    let (mut tasks, mut senders, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for door in kinds {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        addresses.push(listener.local_addr()?);
        let (sender, moves) = mpsc::unbounded_channel();
        senders.push(sender);
        tasks.push(tokio::spawn(accept(daemon.clone(), listener, moves, *door)));
    }
    daemon.set_doors(addresses_of(&addresses), senders);
    Ok(tasks)
}

/// Opens the doors again, on other ports. A door for which there is none stays where it is.
pub(super) async fn reopen(daemon: &Daemon, doors: &[mpsc::UnboundedSender<TcpListener>]) {
    let before = daemon.addresses();
    let mut addresses = Vec::new();
    for (door, old) in doors.iter().zip([before.api, before.redirect]) {
        let fresh = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let fresh = fresh.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let moved = fresh.ok().and_then(|(address, listener)| door.send(listener).is_ok().then_some(address));
        addresses.push(moved.unwrap_or(old));
    }
    daemon.set_doors(addresses_of(&addresses), doors.to_vec());
}

fn addresses_of(bound: &[SocketAddr]) -> Addresses {
    let api = bound.first().copied().unwrap_or(Addresses::NOWHERE.api);
    Addresses { api, redirect: bound.get(1).copied().unwrap_or(api) }
}

async fn accept(
    daemon: Arc<Daemon>,
    mut listener: TcpListener,
    mut moves: mpsc::UnboundedReceiver<TcpListener>,
    door: Door,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(moved) = moves.recv() => {
                listener = moved;
                continue;
            }
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        // A closed daemon's port stays bound, so that no other process gets it; who calls is sent away. So is who calls
        // at an address that the board has just left.
        let Addresses { api, redirect } = daemon.addresses();
        let at_home = listener.local_addr().is_ok_and(|here| here == api || here == redirect);
        if let Ok((stream, peer)) = accepted
            && at_home
            && daemon.is_up()
        {
            connections.spawn(connection(daemon.clone(), stream, peer, door));
        }
    }
}

async fn connection(daemon: Arc<Daemon>, stream: TcpStream, peer: SocketAddr, door: Door) {
    let network = daemon.network();
    let profile = daemon.profile();
    let mut identity = daemon.identity();
    if door == Door::Api {
        let here = Site::BmcConnect { board: Some(daemon.plan().name.clone()) };
        match daemon.surroundings().faults.strike(&here) {
            None => {}
            Some(Action::Delay(time)) => tokio::time::sleep(time).await,
            Some(Action::Hang) => return network.cancelled().await,
            Some(Action::WrongHostKey) => match daemon.other_identity() {
                Ok(other) => identity = other,
                Err(_) => return,
            },
            Some(_) => return,
        }
    }
    let secure = door == Door::Api && !profile.is_c_daemon();
    let acceptor = secure.then(|| TlsAcceptor::from(identity.speaking(profile.offers_http2())));
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
    let call = Call { daemon, head, body, trouble: None, peer: peer.ip().to_canonical() };
    let answer = strike::answer(call, door).await;
    if let Ok(response) = &answer {
        entry.answered(response.status());
    }
    answer
}

pub(super) async fn route(call: Call, door: Door) -> Answer {
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
    let token = serial::bearer_of(&call);
    let refusal = daemon.auth().refuse(&peer, &call.head.headers, token.as_deref(), now);
    if let Some(refusal) = refusal {
        return Ok(refusal);
    }
    if profile.is_fork()
        && let Some(refusal) = legacy::refuse_factory_password(&call)
    {
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
    if call.path() == open && call.head.method == Method::GET && !profile.is_fork() {
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
            serial::socket(call, guard).await
        }
        (Method::GET, ["api", "bmc", "upload", _, "cancel"]) if profile.since(2, 0, 3) => {
            call.daemon.jobs().cancel();
            Ok(bare(StatusCode::OK, Bytes::new()))
        }
        (Method::POST, ["api", "bmc", "upload", handle]) => legacy::upload(call, handle, guard).await,
        _ if profile.is_fork() => legacy::fork_paths(call).await,
        _ if profile.is_modern() => Ok(index()),
        _ => Ok(bare(StatusCode::NOT_FOUND, Bytes::new())),
    }
}

/// JSON that is typed as text, as the job routes answer.
pub(crate) fn plain(text: String) -> Response<AnswerBody> {
    typed(StatusCode::OK, "text/plain; charset=utf-8", text)
}
