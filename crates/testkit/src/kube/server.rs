//! The door: TLS, HTTP/1.1 and HTTP/2 on real sockets.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use ipnet::Ipv4Net;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateSec1KeyDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{auth::Accounts, bootstrap, http, network::Network, reactor, store::Store};
use crate::{Action, ClusterPki, Faults, Pace, Site};

/// How a simulated API server is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiServerOptions {
    /// What `/version` says: `v1.35.5+k3s1`.
    pub version: String,
    /// Its certificates.
    pub pki: ClusterPki,
    /// What goes wrong ([`Site::Kube`]).
    pub faults: Faults,
    /// How fast pods start.
    pub pace: Pace,
    /// Where pods get their addresses.
    pub pods: Ipv4Net,
    /// Where Services get theirs.
    pub services: Ipv4Net,
    /// Whether callers without credentials are `system:anonymous` (403) instead of refused (401, as k3s does it).
    pub anonymous: bool,
    /// Answers everything below `/v1-k3s/`, where k3s serves its agents on the API's own port. Callers are not
    /// authenticated before.
    pub supervisor: Option<axum::Router>,
}

impl ApiServerOptions {
    /// k3s's defaults: pods in 10.42.0.0/16, Services in 10.43.0.0/16, instant pace, no faults, no anonymous callers.
    pub fn new(version: impl Into<String>, pki: ClusterPki) -> Self {
        Self {
            version: version.into(),
            pki,
            faults: Faults::default(),
            pace: Pace::INSTANT,
            pods: range([10, 42, 0, 0]),
            services: range([10, 43, 0, 0]),
            anonymous: false,
            supervisor: None,
        }
    }
    /// With these faults.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }
    /// At this pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }
    /// With these address ranges for pods and Services.
    #[must_use]
    pub fn networks(mut self, pods: Ipv4Net, services: Ipv4Net) -> Self {
        (self.pods, self.services) = (pods.trunc(), services.trunc());
        self
    }
    /// With these answers below `/v1-k3s/`.
    #[must_use]
    pub fn supervisor(mut self, router: axum::Router) -> Self {
        self.supervisor = Some(router);
        self
    }
    /// Callers without credentials are `system:anonymous`, as kubeadm and Talos set it.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }
}

fn range(address: [u8; 4]) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(address), 16)
}

/// A simulated API server: one store, any number of doors.
///
/// Every server node of a cluster opens a door of its own with [`ApiServer::serve`]. The controllers run while at least
/// one door is open.
#[derive(Debug)]
pub struct ApiServer {
    pub(crate) options: ApiServerOptions,
    pub(crate) version: RwLock<String>,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) verifier: Option<Arc<dyn ClientCertVerifier>>,
    tls: Option<Arc<ServerConfig>>,
    open_doors: watch::Sender<usize>,
    service_lb: Arc<AtomicBool>,
    reactors: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl ApiServer {
    /// A server whose store holds what every cluster has from its first second: the system namespaces, the `kubernetes`
    /// Service, the bootstrap roles, the priority classes.
    pub fn new(options: ApiServerOptions) -> Arc<Self> {
        let store = Store::new(Network { pods: options.pods, services: options.services });
        bootstrap::fill(&store);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = client_verifier(&options.pki, &provider);
        let tls = verifier.clone().and_then(|v| server_config(&options.pki, v, provider));
        Arc::new(Self {
            version: RwLock::new(options.version.clone()),
            store,
            accounts: Accounts::default(),
            verifier,
            tls,
            open_doors: watch::Sender::new(0),
            service_lb: Arc::default(),
            reactors: Mutex::new(None),
            options,
        })
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its certificates.
    pub fn pki(&self) -> &ClusterPki {
        &self.options.pki
    }

    /// What `/version` says now.
    pub fn version(&self) -> String {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server was upgraded.
    pub fn set_version(&self, version: impl Into<String>) {
        *self.version.write().unwrap_or_else(PoisonError::into_inner) = version.into();
    }

    /// Switches k3s's servicelb on or off: whether Services of type LoadBalancer get the nodes' addresses. Off at first;
    /// a MetalLB address pool in the store is honoured either way.
    pub fn set_service_lb(&self, on: bool) {
        self.service_lb.store(on, Ordering::Relaxed);
    }

    /// Accepts a bearer token for this user and these groups.
    pub fn add_token(&self, token: &str, user: &str, groups: &[&str]) {
        self.accounts.add(token, user, groups);
    }

    /// Serves on `listener` until the task is dropped. While `enabled` is false connections are accepted and closed,
    /// and those that were open are cut, as when the process behind the port is not there.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, enabled: watch::Receiver<bool>) {
        self.start_reactors();
        let _door = Door::open(&self, enabled.clone());
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if !*enabled.borrow() {
                continue;
            }
            let server = Arc::clone(&self);
            let mut enabled = enabled.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = server.connection(stream) => {}
                    // A sender that is gone leaves the door as it was.
                    Ok(_) = enabled.wait_for(|on| !on) => {}
                }
            });
        }
    }

    fn start_reactors(self: &Arc<Self>) {
        let mut task = self.reactors.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let context = reactor::Context {
                store: self.store.clone(),
                pace: self.options.pace,
                root_ca: self.options.pki.server_ca_pem().to_owned(),
                service_lb: Arc::clone(&self.service_lb),
            };
            *task = Some(tokio::spawn(reactor::run(context, self.open_doors.subscribe())));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else { return };
        // Answers are small and waited for.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stream = match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake with a caller of the simulated API server failed");
                return;
            }
        };
        let certificates: Arc<[CertificateDer<'static>]> = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|c| c.iter().map(|c| c.clone().into_owned()).collect())
            .unwrap_or_default();
        let service = hyper::service::service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
            let server = Arc::clone(&self);
            let certificates = Arc::clone(&certificates);
            async move { server.answer(request.map(Body::new), &certificates).await }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(error = %error, "a connection to the simulated API server ended");
        }
    }

    /// One request: faults first, then the real thing. An error closes the connection.
    async fn answer(
        self: Arc<Self>,
        request: ::http::Request<Body>,
        certificates: &[CertificateDer<'static>],
    ) -> Result<::http::Response<Body>, Dropped> {
        let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let here = Site::Kube { request: format!("{} {target}", request.method()) };
        match self.options.faults.strike(&here) {
            Some(Action::Drop | Action::Reboot | Action::Restart) => return Err(Dropped),
            Some(Action::Hang) => std::future::pending::<()>().await,
            Some(Action::Delay(time)) => tokio::time::sleep(time).await,
            Some(Action::Status(code, text)) => return Ok(http::fault(code, &text)),
            Some(Action::ExpireToken) => return Ok(http::fault(401, "Unauthorized")),
            Some(Action::Fail(_, text)) => return Ok(http::fault(500, &text)),
            Some(Action::CutAfter(bytes)) => {
                return Ok(http::cut(http::handle(&self, request, certificates).await, bytes));
            }
            _ => {}
        }
        Ok(http::handle(&self, request, certificates).await)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(task) = self.reactors.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was dropped on purpose")]
struct Dropped;

/// Counts a door as open while its server runs.
struct Door {
    task: tokio::task::JoinHandle<()>,
    doors: watch::Sender<usize>,
    counted: Arc<Mutex<bool>>,
}

impl Door {
    fn open(server: &Arc<ApiServer>, mut enabled: watch::Receiver<bool>) -> Self {
        let doors = server.open_doors.clone();
        let counted = Arc::new(Mutex::new(false));
        let (sender, mark) = (doors.clone(), Arc::clone(&counted));
        let task = tokio::spawn(async move {
            loop {
                let on = *enabled.borrow_and_update();
                count(&sender, &mark, on);
                if enabled.changed().await.is_err() {
                    // Nobody can switch it any more; it stays as it is.
                    std::future::pending::<()>().await;
                }
            }
        });
        Self { task, doors, counted }
    }
}

fn count(doors: &watch::Sender<usize>, mark: &Mutex<bool>, on: bool) {
    let mut counted = mark.lock().unwrap_or_else(PoisonError::into_inner);
    if *counted != on {
        *counted = on;
        doors.send_modify(|n| *n = if on { *n + 1 } else { n.saturating_sub(1) });
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
        count(&self.doors, &self.counted, false);
    }
}

fn client_verifier(pki: &ClusterPki, provider: &Arc<CryptoProvider>) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.client_ca_der()).ok()?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.allow_unauthenticated().build().ok()
}

fn server_config(
    pki: &ClusterPki,
    verifier: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
) -> Option<Arc<ServerConfig>> {
    let resolver = Arc::new(Certificates { pki: pki.clone(), provider: Arc::clone(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_client_cert_verifier(Arc::new(AnyCertificate(verifier)))
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

/// Hands out the certificate as it is now: names can be added while the server runs.
#[derive(Debug)]
struct Certificates {
    pki: ClusterPki,
    provider: Arc<CryptoProvider>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.pki.server();
        let key = PrivateSec1KeyDer::from(identity.key_sec1_der().to_vec());
        let key = self.provider.key_provider.load_private_key(key.into()).ok()?;
        Some(Arc::new(CertifiedKey::new(identity.chain_der(), key)))
    }
}

/// Lets every client certificate through the handshake, as the real server does: whether it is trusted is a matter of
/// authentication (401), not of TLS.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
