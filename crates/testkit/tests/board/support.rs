//! A module to put into slots, and a raw HTTP client.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use turingpi_testkit::{
    Board, BoardPlan, BoardView, Faults, Module, ModuleKind, OsImage, Surroundings, Uart,
};

/// A module with nothing but an eMMC, a power pin and a serial line.
pub(crate) struct FakeModule {
    kind: ModuleKind,
    capacity: u64,
    emmc: Mutex<Vec<u8>>,
    powered: Mutex<bool>,
    pub(crate) loader: Mutex<bool>,
    pub(crate) power_ons: AtomicU32,
    pub(crate) typed: Mutex<Vec<String>>,
    uart: Uart,
}

impl FakeModule {
    pub(crate) fn new(kind: ModuleKind) -> Arc<Self> {
        Self::with_emmc(kind, 32 * 1024 * 1024)
    }
    pub(crate) fn with_emmc(kind: ModuleKind, capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            kind,
            capacity,
            emmc: Mutex::default(),
            powered: Mutex::new(false),
            loader: Mutex::new(false),
            power_ons: AtomicU32::new(0),
            typed: Mutex::default(),
            uart: Uart::new(16 * 1024),
        })
    }
    pub(crate) fn installed(kind: ModuleKind, image: &OsImage) -> Arc<Self> {
        let module = Self::new(kind);
        *module.emmc.lock().unwrap() = image.raw();
        module
    }
    pub(crate) fn emmc(&self) -> Vec<u8> {
        self.emmc.lock().unwrap().clone()
    }
}

#[async_trait]
impl Module for FakeModule {
    fn kind(&self) -> ModuleKind {
        self.kind
    }
    fn emmc_bytes(&self) -> u64 {
        self.capacity
    }
    fn bootable(&self) -> bool {
        OsImage::parse(&self.emmc.lock().unwrap()).is_some()
    }
    async fn set_power(&self, on: bool, loader: bool) {
        *self.powered.lock().unwrap() = on;
        *self.loader.lock().unwrap() = loader;
        if on {
            self.power_ons.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn powered(&self) -> bool {
        *self.powered.lock().unwrap()
    }
    async fn write_emmc(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut emmc = self.emmc.lock().unwrap();
        emmc.truncate(offset.try_into().unwrap());
        emmc.extend_from_slice(bytes);
        Ok(())
    }
    async fn read_emmc(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let offset = usize::try_from(offset).unwrap();
        Ok(self.emmc.lock().unwrap().iter().skip(offset).take(length).copied().collect())
    }
    fn uart(&self) -> &Uart {
        &self.uart
    }
    async fn type_line(&self, line: &str) {
        self.typed.lock().unwrap().push(line.to_owned());
    }
}

/// A board with modules, its faults, and a client that is logged in.
pub(crate) struct Bench {
    pub(crate) board: Board,
    pub(crate) view: BoardView,
    pub(crate) modules: [Option<Arc<FakeModule>>; 4],
    pub(crate) faults: Faults,
    pub(crate) http: reqwest::Client,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

/// A client that takes any certificate, follows no redirect and keeps to HTTP/1.1.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .no_proxy()
        .build()
        .unwrap()
}

impl Bench {
    pub(crate) async fn start(plan: BoardPlan) -> Self {
        Self::with(plan, [Some(FakeModule::new(ModuleKind::Rk1)), None, None, None]).await
    }
    pub(crate) async fn with(plan: BoardPlan, modules: [Option<Arc<FakeModule>>; 4]) -> Self {
        let faults = Faults::default();
        let surroundings = Surroundings { faults: faults.clone(), ..Surroundings::default() };
        Self::within(plan, modules, surroundings).await
    }
    pub(crate) async fn within(
        plan: BoardPlan,
        modules: [Option<Arc<FakeModule>>; 4],
        surroundings: Surroundings,
    ) -> Self {
        let slots = modules.clone().map(|module| module.map(|module| module as Arc<dyn Module>));
        let faults = surroundings.faults.clone();
        let board = Board::start(plan, slots, surroundings).await.unwrap();
        let view = board.view();
        Self { board, view, modules, faults, http: client() }
    }
    pub(crate) fn url(&self, target: &str) -> String {
        format!("{}{target}", self.view.url())
    }
    pub(crate) fn module(&self, slot: usize) -> &FakeModule {
        self.modules[slot - 1].as_ref().unwrap()
    }
    pub(crate) async fn login(&self) -> String {
        let body =
            format!(r#"{{"username":"{}","password":"{}"}}"#, self.view.username(), self.view.password());
        let answer = self.http.post(self.url("/api/bmc/authenticate")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        let session: serde_json::Value = serde_json::from_str(&text).unwrap();
        session["id"].as_str().unwrap().to_owned()
    }
    /// GET with a Basic login: no token to keep.
    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.try_get(target).await.unwrap()
    }
    pub(crate) async fn try_get(&self, target: &str) -> reqwest::Result<Reply> {
        let request = self
            .http
            .get(self.url(target))
            .basic_auth(self.view.username(), Some(self.view.password()))
            .send();
        reply(request.await?).await
    }
    /// The job's state, past the API: it does not wait for the lock.
    pub(crate) fn job(&self) -> serde_json::Value {
        self.view.job()
    }
    /// Waits until the job's state answers `wanted`; `Transferring`, `Done` and so on.
    pub(crate) async fn job_is(&self, wanted: &str) -> serde_json::Value {
        let found = async {
            loop {
                let job = self.job();
                if job.get(wanted).is_some() || job == wanted {
                    return job;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(60), found).await {
            Ok(job) => job,
            Err(_) => panic!("waited for {wanted}, but the job is {}", self.job()),
        }
    }
    /// Starts a job; the handle.
    pub(crate) async fn start_job(&self, query: &str) -> u32 {
        let reply = self.get(&format!("/api/bmc?opt=set&{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let answer: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        answer["handle"].as_u64().unwrap().try_into().unwrap()
    }
    /// Uploads bytes as tpi does.
    pub(crate) async fn upload(&self, handle: u32, bytes: Vec<u8>) -> Reply {
        self.try_upload(handle, bytes).await.unwrap()
    }
    pub(crate) async fn try_upload(&self, handle: u32, bytes: Vec<u8>) -> reqwest::Result<Reply> {
        let part = reqwest::multipart::Part::bytes(bytes).file_name("image");
        let part = part.mime_str("application/octet-stream").unwrap();
        let request = self
            .http
            .post(self.url(&format!("/api/bmc/upload/{handle}")))
            .basic_auth(self.view.username(), Some(self.view.password()))
            .multipart(reqwest::multipart::Form::new().part("file", part));
        reply(request.send().await?).await
    }
    /// Waits for a condition of the world.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        assert!(
            tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.is_ok(),
            "waited for {what}"
        );
    }
}

pub(crate) async fn reply(answer: reqwest::Response) -> reqwest::Result<Reply> {
    let content_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    Ok(Reply { status: answer.status().as_u16(), content_type, body: answer.text().await? })
}

impl FakeModule {
    /// What the golden files expect on the serial line.
    pub(crate) fn uart_line(&self) {
        self.uart.write(b"turing-rk1 login: ");
    }
}

/// A TLS connection of any certificate, as an old client would open it.
pub(crate) async fn tls(url: &str) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    tls_with(url, &rustls::version::TLS12, &[b"http/1.1"]).await.unwrap()
}

pub(crate) async fn tls_with(
    url: &str,
    version: &'static rustls::SupportedProtocolVersion,
    protocols: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(url.replace("https://", "")).await?;
    let name = rustls::pki_types::ServerName::try_from("turingpi.local").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
