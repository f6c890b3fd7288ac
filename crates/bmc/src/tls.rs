//! Whom to believe: the fingerprint pin for the BMC's self-signed certificate.
//!
//! The stock certificate is self-signed by openssl's defaults: no subject alternative name, a certificate authority used as
//! end entity, expired after 30 days. The web's rules cannot accept it; a pin can, and is stronger.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{Attempt, BmcError, client::BmcTimeouts, wire::Place};

/// SHA-256 of a certificate in DER form. Shown as openssl does: `AB:CD:…`, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// Text that is no SHA-256 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256 fingerprint: 64 hexadecimal digits, colons between bytes allowed")]
pub struct InvalidFingerprint(String);

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of_der(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;
    /// Reads hexadecimal digits of either case, with or without colons and a leading `SHA256:` or `sha256 Fingerprint=`.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let invalid = || InvalidFingerprint(text.chars().take(100).collect());
        let trimmed = text.trim();
        let digits = match trimmed.rsplit_once('=') {
            Some((_, digits)) => digits,
            None => match trimmed.get(..7) {
                Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => {
                    trimmed.get(7..).unwrap_or_default()
                }
                _ => trimmed,
            },
        };
        let digits: String = digits.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}
impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;
    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        text.parse()
    }
}
impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Decides about a fingerprint that is seen for the first time. Runs after the handshake and before anything is sent: it
/// should answer at once and not ask a person; [`probe_fingerprint`] is for that.
pub type FirstUse = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// How the BMC proves that it is the right one. There is no "anything".
#[derive(Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Its certificate has this fingerprint.
    Pin(Fingerprint),
    /// The first certificate that the observer accepts; it is pinned for the life of the client.
    FirstUse(FirstUse),
    /// Its certificate was replaced by one that this authority (PEM, one or more certificates) signed for its host name.
    Authority(String),
}

impl Trust {
    /// [`Trust::FirstUse`] from a closure.
    pub fn first_use(observer: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static) -> Self {
        Self::FirstUse(Arc::new(observer))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin(fingerprint) => f.debug_tuple("Pin").field(fingerprint).finish(),
            Self::FirstUse(_) => f.write_str("FirstUse(..)"),
            Self::Authority(_) => f.write_str("Authority(..)"),
        }
    }
}

/// Returns the fingerprint of the certificate a BMC shows, by a TLS handshake and nothing more: no request and no
/// credentials are sent. The handshake's signature is checked, so the peer really holds that certificate's key.
///
/// # Errors
/// [`BmcError::Unreachable`], [`BmcError::Tls`], or [`BmcError::Setup`] for a URL that is not `https`.
pub async fn probe_fingerprint(url: &Url) -> Result<Fingerprint, BmcError> {
    let place = Place::new(url)?;
    if !place.encrypted() {
        return Err(BmcError::Setup { problem: format!("`{url}` has no certificate: it is not https") });
    }
    let gate = Arc::new(Gate::curious());
    let attempt = Attempt::new("read the certificate", place.name());
    let timeouts = BmcTimeouts::default();
    crate::wire::handshake(&place, Some((client_config(&gate)?, &gate)), timeouts.connect)
        .await
        .map_err(|e| e.into_error(attempt.clone()))?;
    gate.found().ok_or(BmcError::Tls { attempt, expected: None, found: None, source: None })
}

enum Policy {
    Pin(Fingerprint),
    FirstUse(FirstUse),
    Authority(Arc<WebPkiServerVerifier>),
    Probe,
}

/// The certificate check of one client: compares the pin, and remembers what it saw.
pub(crate) struct Gate {
    policy: Mutex<Policy>,
    found: Mutex<Option<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl Gate {
    fn new(policy: Policy) -> Self {
        Self {
            policy: Mutex::new(policy),
            found: Mutex::new(None),
            provider: Arc::new(aws_lc_rs::default_provider()),
        }
    }

    pub(crate) fn trusting(trust: Trust) -> Result<Self, BmcError> {
        Ok(Self::new(match trust {
            Trust::Pin(fingerprint) => Policy::Pin(fingerprint),
            Trust::FirstUse(observer) => Policy::FirstUse(observer),
            Trust::Authority(pem) => Policy::Authority(authority(&pem)?),
        }))
    }

    /// Believes everybody and remembers the certificate: for questions that tell nothing.
    pub(crate) fn curious() -> Self {
        Self::new(Policy::Probe)
    }

    /// The fingerprint of the last certificate seen.
    pub(crate) fn found(&self) -> Option<Fingerprint> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after a handshake, before anything is sent: lets the observer of a first use decide, and pins.
    pub(crate) fn confirm(&self) -> bool {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let Policy::FirstUse(observer) = &*policy else { return true };
        let Some(shown) = self.found() else { return false };
        if !observer(&shown) {
            return false;
        }
        *policy = Policy::Pin(shown);
        true
    }

    /// The fingerprint that is pinned by now.
    pub(crate) fn pinned(&self) -> Option<Fingerprint> {
        match *self.policy.lock().unwrap_or_else(PoisonError::into_inner) {
            Policy::Pin(fingerprint) => Some(fingerprint),
            _ => None,
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("found", &self.found()).finish_non_exhaustive()
    }
}

fn authority(pem: &str) -> Result<Arc<WebPkiServerVerifier>, BmcError> {
    let setup = |problem: String| BmcError::Setup { problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| setup(format!("the authority is not PEM: {e}")))?;
        roots.add(certificate).map_err(|e| setup(format!("the authority cannot be used: {e}")))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
        .build()
        .map_err(|e| setup(format!("the authority cannot be used: {e}")))
}

impl ServerCertVerifier for Gate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of_der(end_entity);
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        let refused = || rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        match &*self.policy.lock().unwrap_or_else(PoisonError::into_inner) {
            // First use is decided in `confirm`, once the handshake has proved that the peer holds the key.
            Policy::Probe | Policy::FirstUse(_) => {}
            Policy::Pin(pin) if *pin == shown => {}
            Policy::Pin(_) => return Err(refused()),
            Policy::Authority(verifier) => {
                return verifier.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is what every stock BMC speaks; 1.3 is offered for those behind a proxy. HTTP/1.1 only: an upload wants one
/// plain stream.
pub(crate) fn client_config(gate: &Arc<Gate>) -> Result<Arc<ClientConfig>, BmcError> {
    let mut config = ClientConfig::builder_with_provider(gate.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| BmcError::Setup { problem: format!("TLS is not available: {e}") })?
        .dangerous()
        .with_custom_certificate_verifier(gate.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
