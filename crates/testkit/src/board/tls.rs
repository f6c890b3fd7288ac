//! The board's certificate: self-signed, a CA, no host name, and TLS 1.2 only.

use std::{io, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::plan::CertificateKey;

/// A certificate with its key, ready to serve.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
}

impl Identity {
    /// Makes one as the firmware does on its first start: valid for 30 days, of which `age` have passed.
    pub(crate) fn generate(key: CertificateKey, age: Duration) -> io::Result<Self> {
        let pair = match key {
            CertificateKey::Ecdsa => KeyPair::generate(),
            CertificateKey::Rsa => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
        }
        .map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Turing-Pi self signed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = time::OffsetDateTime::now_utc() - age - time::Duration::minutes(5);
        params.not_after = params.not_before + time::Duration::days(30);
        let certificate = params.self_signed(&pair).map_err(io::Error::other)?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::try_from(pair.serialize_der()).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), der: certificate.der().to_vec(), pem: certificate.pem() })
    }
    /// What the daemon's TLS side offers: HTTP/2 first, or HTTP/1.1 alone.
    pub(crate) fn speaking(&self, http2: bool) -> Arc<ServerConfig> {
        if http2 {
            return self.config.clone();
        }
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
    /// SHA-256 of the DER form, 64 lower-case hex digits.
    pub(crate) fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.der))
    }
}
