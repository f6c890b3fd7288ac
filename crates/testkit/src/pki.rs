//! The certificates of a simulated cluster, shaped as k3s writes them.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// Names every API server certificate carries, whatever the configuration says.
const BUILT_IN_SANS: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The certificates could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot issue the {what} certificate of the simulated cluster")]
pub struct PkiError {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> PkiError {
    move |source| PkiError { what, source: source.into() }
}

/// A leaf certificate with its key.
#[derive(Clone)]
pub struct Identity {
    certificate_pem: String,
    chain_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key_sec1: Vec<u8>,
}

impl Identity {
    /// The leaf alone, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
    /// The leaf followed by its CA, PEM: what k3s embeds in a kubeconfig.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }
    /// The key as `EC PRIVATE KEY` (SEC1), PEM: what k3s writes.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
    pub(crate) fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }
    pub(crate) fn key_sec1_der(&self) -> &[u8] {
        &self.key_sec1
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate_pem.len()).finish_non_exhaustive()
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
}

struct Inner {
    server_ca: Authority,
    client_ca: Authority,
    server: RwLock<(Vec<String>, Arc<Identity>)>,
}

/// A cluster's two authorities, the API server's certificate, and whatever client certificates are asked for.
///
/// ECDSA P-256 throughout, authorities for ten years, leaves for one, names as k3s chooses them
/// (`k3s-server-ca@<unix time>`, `system:admin` in `system:masters`). Clones share the same keys.
#[derive(Clone)]
pub struct ClusterPki(Arc<Inner>);

impl fmt::Debug for ClusterPki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPki").field("ca_hash", &self.ca_hash()).finish_non_exhaustive()
    }
}

impl ClusterPki {
    /// New authorities and an API server certificate for `sans` (names or addresses) besides the built-in ones.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn generate<I, S>(sans: I) -> Result<Self, PkiError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let server_ca = authority("server")?;
        let client_ca = authority("client")?;
        let mut names: Vec<String> = BUILT_IN_SANS.iter().map(|s| (*s).to_owned()).collect();
        add_new(&mut names, sans);
        let server = serving(&server_ca, &names)?;
        Ok(Self(Arc::new(Inner { server_ca, client_ca, server: RwLock::new((names, Arc::new(server))) })))
    }

    /// The authorities whose certificates and keys are given as PEM (as [`Self::server_ca_pem`] and its neighbours show
    /// them), with a fresh API server certificate: a cluster that starts again.
    ///
    /// # Errors
    /// Text that is not such a certificate or key, or a name that cannot stand in a certificate.
    pub fn restore<I, S>(server_ca: (&str, &str), client_ca: (&str, &str), sans: I) -> Result<Self, PkiError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let server_ca = known_authority("server", server_ca)?;
        let client_ca = known_authority("client", client_ca)?;
        let mut names: Vec<String> = BUILT_IN_SANS.iter().map(|s| (*s).to_owned()).collect();
        add_new(&mut names, sans);
        let server = serving(&server_ca, &names)?;
        Ok(Self(Arc::new(Inner { server_ca, client_ca, server: RwLock::new((names, Arc::new(server))) })))
    }

    /// Adds names or addresses to the API server's certificate; connections from now on see the new one.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate; the old certificate stays.
    pub fn add_sans<I, S>(&self, sans: I) -> Result<(), PkiError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut names = self.server_sans();
        let before = names.len();
        add_new(&mut names, sans);
        if names.len() > before {
            let identity = Arc::new(serving(&self.0.server_ca, &names)?);
            *self.0.server.write().unwrap_or_else(PoisonError::into_inner) = (names, identity);
        }
        Ok(())
    }

    /// The names and addresses of the API server's certificate.
    pub fn server_sans(&self) -> Vec<String> {
        self.0.server.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The API server's certificate and key as of now.
    pub fn server(&self) -> Arc<Identity> {
        Arc::clone(&self.0.server.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// A client certificate for user `cn` in the groups `orgs`.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn issue_client(&self, cn: &str, orgs: &[&str]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for org in orgs {
            params.distinguished_name.push(DnType::OrganizationName, *org);
        }
        params.distinguished_name.push(DnType::CommonName, cn);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf(params, &self.0.client_ca, "client")
    }

    /// A kubeconfig for `system:admin` as `/etc/rancher/k3s/k3s.yaml`: cluster, user and context are all `default`.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn admin_kubeconfig(&self, server: &str) -> Result<String, PkiError> {
        Ok(self.kubeconfig(server, &self.issue_client("system:admin", &["system:masters"])?))
    }

    /// A kubeconfig in k3s's shape for any client certificate.
    pub fn kubeconfig(&self, server: &str, client: &Identity) -> String {
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  \
             name: default\ncontexts:\n- context:\n    cluster: default\n    user: default\n  name: default\n\
             current-context: default\nkind: Config\nusers:\n- name: default\n  user:\n    \
             client-certificate-data: {certificate}\n    client-key-data: {key}\n",
            ca = STANDARD.encode(self.server_ca_pem()),
            certificate = STANDARD.encode(client.chain_pem()),
            key = STANDARD.encode(client.key_pem()),
        )
    }

    /// The CA of the API server's certificate, PEM: what `/cacerts` answers.
    pub fn server_ca_pem(&self) -> &str {
        &self.0.server_ca.pem
    }
    /// The key of the server CA, SEC1 PEM.
    pub fn server_ca_key_pem(&self) -> &str {
        &self.0.server_ca.key_pem
    }
    /// The CA of client certificates, PEM.
    pub fn client_ca_pem(&self) -> &str {
        &self.0.client_ca.pem
    }
    /// The key of the client CA, SEC1 PEM.
    pub fn client_ca_key_pem(&self) -> &str {
        &self.0.client_ca.key_pem
    }
    /// SHA-256, 64 hex digits, of the server CA's PEM bytes: the part of a `K10` token that pins the cluster.
    pub fn ca_hash(&self) -> String {
        hex::encode(Sha256::digest(self.server_ca_pem().as_bytes()))
    }
    pub(crate) fn client_ca_der(&self) -> CertificateDer<'static> {
        self.0.client_ca.der.clone()
    }
}

fn add_new<S: Into<String>>(names: &mut Vec<String>, more: impl IntoIterator<Item = S>) {
    for name in more {
        let name = name.into();
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

fn authority(role: &'static str) -> Result<Authority, PkiError> {
    let key = KeyPair::generate().map_err(failed(role))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let now = OffsetDateTime::now_utc();
    params.distinguished_name.push(DnType::CommonName, format!("k3s-{role}-ca@{}", now.unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(3650);
    let certificate = params.self_signed(&key).map_err(failed(role))?;
    let key_pem = sec1_pem(&sec1(&key).map_err(failed(role))?);
    Ok(Authority {
        pem: certificate.pem().replace("\r\n", "\n"),
        der: certificate.der().clone(),
        key_pem,
        issuer: Issuer::new(params, key),
    })
}

fn known_authority(role: &'static str, (pem, key_pem): (&str, &str)) -> Result<Authority, PkiError> {
    let key = KeyPair::from_pem(key_pem).map_err(failed(role))?;
    let der = pem::parse(pem).map_err(failed(role))?;
    Ok(Authority {
        issuer: Issuer::from_ca_cert_pem(pem, key).map_err(failed(role))?,
        pem: pem.to_owned(),
        key_pem: key_pem.to_owned(),
        der: CertificateDer::from(der.into_contents()),
    })
}

fn serving(ca: &Authority, names: &[String]) -> Result<Identity, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "k3s");
    params.distinguished_name.push(DnType::CommonName, "k3s");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        let san = match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed("server"))?),
        };
        params.subject_alt_names.push(san);
    }
    leaf(params, ca, "server")
}

fn leaf(mut params: CertificateParams, ca: &Authority, what: &'static str) -> Result<Identity, PkiError> {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(365);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate().map_err(failed(what))?;
    let certificate = params.signed_by(&key, &ca.issuer).map_err(failed(what))?;
    let key_sec1 = sec1(&key).map_err(failed(what))?;
    let certificate_pem = certificate.pem().replace("\r\n", "\n");
    Ok(Identity {
        chain_pem: format!("{certificate_pem}{}", ca.pem),
        certificate_pem,
        key_pem: sec1_pem(&key_sec1),
        chain: vec![certificate.der().clone(), ca.der.clone()],
        key_sec1,
    })
}

fn sec1_pem(der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new("EC PRIVATE KEY", der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

/// The SEC1 form of a P-256 key that rcgen holds as PKCS #8: `SEQUENCE { 1, secret, [0] prime256v1, [1] public }`.
fn sec1(key: &KeyPair) -> Result<Vec<u8>, &'static str> {
    // ECPrivateKey inside the PKCS #8 wrapper starts with version 1 and a 32-byte octet string.
    const START: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    const CURVE: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let pkcs8 = key.serialized_der();
    let at = pkcs8.windows(START.len()).position(|w| w == START).ok_or("the key is not an EC key")?;
    let secret = pkcs8.get(at + START.len()..at + START.len() + 32).ok_or("the key is cut short")?;
    let public = key.public_key_raw();
    if public.len() != 65 {
        return Err("the key is not on P-256");
    }
    let mut der = vec![0x30, 0x77];
    der.extend(START);
    der.extend(secret);
    der.extend(CURVE);
    der.extend([0xa1, 0x44, 0x03, 0x42, 0x00]);
    der.extend(public);
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_hash_is_the_digest_of_the_pem_that_cacerts_serves() {
        let pki = ClusterPki::generate(["10.10.88.73"]).unwrap();
        assert_eq!(pki.ca_hash(), hex::encode(Sha256::digest(pki.server_ca_pem())));
        assert_eq!(pki.ca_hash().len(), 64);
        assert!(!pki.server_ca_pem().contains('\r'));
    }

    #[test]
    fn keys_are_sec1_and_load_again() {
        let pki = ClusterPki::generate(["node1"]).unwrap();
        let admin = pki.issue_client("system:admin", &["system:masters"]).unwrap();
        assert!(admin.key_pem().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
        let der = rustls::pki_types::PrivateSec1KeyDer::from(admin.key_sec1_der().to_vec());
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&der.into()).unwrap();
        assert_eq!(admin.chain_pem().matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn names_added_later_are_in_the_next_certificate_and_the_ca_stays() {
        let pki = ClusterPki::generate(Vec::<String>::new()).unwrap();
        let (hash, before) = (pki.ca_hash(), pki.server());
        pki.add_sans(["10.10.88.74", "localhost"]).unwrap();
        assert_eq!(pki.ca_hash(), hash);
        assert_ne!(pki.server().certificate_pem(), before.certificate_pem());
        let (_, parsed) = x509_parser::parse_x509_certificate(pki.server().chain[0].as_ref())
            .map(|(r, c)| (r.len(), c.subject_alternative_name().unwrap().unwrap().value.general_names.len()))
            .unwrap();
        assert_eq!(parsed, BUILT_IN_SANS.len() + 1);
        assert!(pki.add_sans(["not\u{00e9}ascii"]).is_err());
    }

    #[test]
    fn restored_authorities_sign_what_the_old_ones_are_trusted_for() {
        let old = ClusterPki::generate(["node1"]).unwrap();
        let new = ClusterPki::restore(
            (old.server_ca_pem(), old.server_ca_key_pem()),
            (old.client_ca_pem(), old.client_ca_key_pem()),
            ["node2"],
        )
        .unwrap();
        assert_eq!(new.ca_hash(), old.ca_hash());
        let signed_by = |leaf: &Identity, ca: &str| {
            let ca = pem::parse(ca).unwrap();
            let (_, ca) = x509_parser::parse_x509_certificate(ca.contents()).unwrap();
            let (_, leaf) = x509_parser::parse_x509_certificate(leaf.chain[0].as_ref()).unwrap();
            leaf.verify_signature(Some(ca.public_key())).is_ok() && leaf.issuer() == ca.subject()
        };
        assert!(signed_by(&new.server(), old.server_ca_pem()));
        let client = new.issue_client("system:admin", &["system:masters"]).unwrap();
        assert!(signed_by(&client, old.client_ca_pem()));
        assert!(ClusterPki::restore(("no", "pem"), ("at", "all"), ["a"]).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let pki = ClusterPki::generate(["a"]).unwrap();
        let admin = pki.issue_client("x", &[]).unwrap();
        let shown = format!("{pki:?} {admin:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn the_kubeconfig_has_the_shape_of_k3s() {
        let pki = ClusterPki::generate(["a"]).unwrap();
        let text = pki.admin_kubeconfig("https://127.0.0.1:6443").unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        for (list, name) in [("clusters", "default"), ("contexts", "default"), ("users", "default")] {
            assert_eq!(value[list][0]["name"], name);
        }
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(value["current-context"], "default");
    }
}
