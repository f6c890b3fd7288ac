//! Files and folders k3s writes, and the few facts it reads of its host.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
};

pub(crate) const DATA: &str = "/var/lib/rancher/k3s";

fn wrong(what: &str, path: &str, error: &io::Error) -> String {
    format!("{what} {path}: {error}")
}

pub(crate) fn folder(path: &str, mode: u32) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| wrong("mkdir", path, &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| wrong("chmod", path, &e))
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &str, content: &[u8], mode: u32) -> Result<(), String> {
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent).map_err(|e| wrong("mkdir", path, &e))?;
    }
    let part = format!("{path}.part");
    let done = || -> io::Result<()> {
        match fs::remove_file(&part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    done().map_err(|e| wrong("write", path, &e))
}

/// A file's text without the white space around it; `None` when it is missing or empty.
pub(crate) fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

pub(crate) fn random() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// k3s does not start without a default route.
pub(crate) fn require_default_route() -> Result<(), String> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = |line: &str| line.split_whitespace().nth(1) == Some("00000000");
    if routes.lines().skip(1).any(default) {
        return Ok(());
    }
    Err("no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"".to_owned())
}

pub(crate) fn node_name(config: &crate::config::Config) -> String {
    let host = || text("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned());
    config.text("node-name").unwrap_or_else(host).to_lowercase()
}

pub(crate) fn node_ip(config: &crate::config::Config) -> Result<IpAddr, String> {
    let text = config.text("node-ip").ok_or("the stand-in needs node-ip")?;
    text.parse().map_err(|e| format!("invalid node-ip {text}: {e}"))
}

/// This node's password, made at its first start.
pub(crate) fn node_password() -> Result<String, String> {
    let path = "/etc/rancher/node/password";
    if let Some(password) = text(path) {
        return Ok(password);
    }
    folder("/etc/rancher/node", 0o755)?;
    let password = random();
    write(path, format!("{password}\n").as_bytes(), 0o600)?;
    Ok(password)
}

/// Tells systemd that the service is up.
pub(crate) fn notify_ready() -> Result<(), String> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let path = path.to_string_lossy().into_owned();
    let send = || -> io::Result<()> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address).map(drop)
    };
    send().map_err(|e| wrong("notify", &path, &e))
}
