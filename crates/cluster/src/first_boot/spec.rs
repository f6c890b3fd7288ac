//! What a freshly flashed system shall become.

use std::{fmt, net::IpAddr};

use rand::RngExt;
use secrecy::SecretString;

/// A login that an image is delivered with.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretString,
}

impl Credentials {
    /// A login.
    pub fn new(user: impl Into<String>, password: impl Into<SecretString>) -> Self {
        Self { user: user.into(), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the first boot of a node ends in: our keys in, the delivered password out, its name set.
#[derive(Debug, Clone)]
pub struct FirstBootSpec {
    /// The node's host name.
    pub hostname: String,
    /// Public keys in OpenSSH form, for root and for the login user.
    pub authorized_keys: Vec<String>,
    /// Logins of the image, in the order they are tried.
    pub credentials: Vec<Credentials>,
    /// A fixed address to set up on the node; `None` leaves it to DHCP.
    pub static_address: Option<StaticAddress>,
}

impl FirstBootSpec {
    /// For `hostname`, with the logins that Armbian (`root`/`1234`) and Ubuntu (`ubuntu`/`ubuntu`) images have.
    pub fn new(hostname: impl Into<String>, authorized_keys: Vec<String>) -> Self {
        Self {
            hostname: hostname.into(),
            authorized_keys,
            credentials: vec![
                Credentials::new("root", "1234".to_owned()),
                Credentials::new("ubuntu", "ubuntu".to_owned()),
            ],
            static_address: None,
        }
    }
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    /// The address with the length of its network: `10.10.88.73/24`.
    pub address: ipnet::IpNet,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// The interface; `None` takes the one with the default route, or else the first wired one.
    pub interface: Option<String>,
}

/// The key of a node's root password among the state's secrets.
pub fn root_password_key(node: &str) -> String {
    format!("node/{node}/root-password")
}

/// A password that any of these consoles takes: 24 letters and digits with at least one of each kind, no look-alikes,
/// nothing that a keyboard layout moves.
pub(super) fn generate_password() -> SecretString {
    const KINDS: [&[u8]; 3] = [b"abcdefghijkmnpqrstuvwx", b"ABCDEFGHJKLMNPQRSTUVWX", b"23456789"];
    let mut rng = rand::rng();
    let mut pick = |kind: &[u8]| kind.get(rng.random_range(0..kind.len())).copied().unwrap_or(b'x');
    let mut password: Vec<u8> = KINDS.iter().map(|kind| pick(kind)).collect();
    while password.len() < 24 {
        let all = KINDS.concat();
        password.push(pick(&all));
    }
    // The first three are of known kinds, which costs a few bits of about 135: no need to shuffle.
    SecretString::from(String::from_utf8(password).unwrap_or_default())
}

/// Letters and digits that make one conversation's output recognisable. No secret.
pub(crate) fn nonce() -> String {
    let mut rng = rand::rng();
    (0..12).map(|_| char::from(b'a' + rng.random_range(0..26u8))).collect()
}
