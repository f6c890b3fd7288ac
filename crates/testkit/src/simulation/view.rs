//! Looking at nodes and clusters from outside, past all doors.

use std::{net::IpAddr, sync::Arc};

use crate::{
    ApiServer, ClusterPki, ExecRecord, OsImage, Store,
    door::sshd,
    node::{Node, users, vfs::Body},
    world::cluster::Cluster,
};

/// A node as the world sees it.
#[derive(Clone)]
pub struct NodeView {
    node: Arc<Node>,
}

/// A file on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    /// Permission bits.
    pub mode: u32,
    /// `user:group`.
    pub owner: String,
    /// The content; a link's is its target.
    pub bytes: Vec<u8>,
}

/// A systemd unit on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitView {
    /// `active`, `activating`, `inactive`, `failed`, `deactivating`.
    pub active: String,
    /// `running`, `start`, `auto-restart`, `dead`, …
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `masked`; empty without a unit file.
    pub enabled: String,
    /// How often it was restarted automatically.
    pub restarts: u32,
}

impl NodeView {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
    /// Its name in the plan.
    pub fn name(&self) -> &str {
        &self.node.name
    }
    /// Whether it really has power.
    pub fn powered(&self) -> bool {
        crate::Module::powered(&crate::node::module::Slotted(Arc::clone(&self.node)))
    }
    /// The boot id of the system that runs; `None` while it is off or boots.
    pub fn boot_id(&self) -> Option<String> {
        self.node.os(|os| os.running.as_ref().map(|running| running.boot_id.clone())).flatten()
    }
    /// Whether its sshd answers.
    pub fn running(&self) -> bool {
        self.node.sshd_up()
    }
    /// The image that was written to its eMMC, and the SHA-256 (hex) of its raw bytes.
    pub fn image(&self) -> Option<(OsImage, String)> {
        self.node.image()
    }
    /// How often its eMMC was written from the beginning.
    pub fn flash_count(&self) -> u32 {
        self.node.flash_count()
    }
    /// How often its power was switched on.
    pub fn power_on_count(&self) -> u32 {
        self.node.power_on_count()
    }
    /// A file; `None` when it is not there. Files of a node that is off are those on its disk.
    pub fn file(&self, path: &str) -> Option<FileView> {
        self.node
            .os(|os| {
                let inode = os.vfs.stat(path).ok()?;
                let bytes = match &inode.body {
                    Body::File(bytes) => bytes.to_vec(),
                    Body::Link(target) => target.clone().into_bytes(),
                    _ => Vec::new(),
                };
                let user = users::name_of(&os.vfs, inode.uid).unwrap_or_else(|| inode.uid.to_string());
                let group = users::groups(&os.vfs)
                    .into_iter()
                    .find(|g| g.1 == inode.gid)
                    .map_or_else(|| inode.gid.to_string(), |g| g.0);
                Some(FileView { mode: inode.mode, owner: format!("{user}:{group}"), bytes })
            })
            .flatten()
    }
    /// A file's text; `None` when it is not there.
    pub fn text(&self, path: &str) -> Option<String> {
        self.file(path).map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
    }
    /// Writes a file as root (0644), making its folders: something a person did on the node.
    pub fn put_file(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.node.os(|os| os.vfs.put(path, bytes));
    }
    /// Removes a file or folder: something a person did on the node.
    pub fn remove_file(&self, path: &str) {
        self.node.os(|os| os.vfs.remove(path, true).ok());
    }
    /// Every path below a folder, in order.
    pub fn files(&self, folder: &str) -> Vec<String> {
        fn walk(path: &str, body: &Body, found: &mut Vec<String>) {
            if let Body::Dir(entries) = body {
                for (name, inode) in entries {
                    let path = format!("{path}/{name}");
                    found.push(path.clone());
                    walk(&path, &inode.body, found);
                }
            }
        }
        let mut found = Vec::new();
        self.node.os(|os| {
            if let Ok(inode) = os.vfs.stat(folder) {
                walk(folder.trim_end_matches('/'), &inode.body, &mut found);
            }
        });
        found
    }
    /// A unit; `None` when systemd does not know it.
    pub fn unit(&self, name: &str) -> Option<UnitView> {
        self.node.unit_view(name).map(|(active, sub, enabled, restarts)| UnitView {
            active,
            sub,
            enabled,
            restarts,
        })
    }
    /// The journal's lines, of one unit or of all.
    pub fn journal(&self, unit: Option<&str>) -> Vec<String> {
        self.node
            .os(|os| {
                let entries =
                    os.running.as_ref().map(|running| running.journal.as_slice()).unwrap_or_default();
                let wanted = entries.iter().filter(|entry| unit.is_none_or(|unit| entry.unit == unit));
                wanted.map(|entry| format!("{}[{}]: {}", entry.ident, entry.pid, entry.message)).collect()
            })
            .unwrap_or_default()
    }
    /// Whether a password lets a user in at the console: it is right and has not expired.
    pub fn accepts_password(&self, user: &str, password: &str) -> bool {
        self.node.os(|os| users::check(&os.vfs, user, password)) == Some(users::Login::Accepted)
    }
    /// Its host name.
    pub fn hostname(&self) -> Option<String> {
        self.node.os(|os| os.hostname())
    }
    /// Its machine id; empty before the first boot.
    pub fn machine_id(&self) -> Option<String> {
        self.node.os(|os| os.machine_id())
    }
    /// The address it has inside the world at the moment.
    pub fn address(&self) -> Option<IpAddr> {
        self.node.present_address()
    }
    /// `SHA256:…` of its present ed25519 host key.
    pub fn host_key(&self) -> Option<String> {
        self.node.os(|os| sshd::host_key(&os.vfs)).flatten()
    }
    /// Names and versions of installed packages.
    pub fn packages(&self) -> Vec<(String, String)> {
        self.node
            .os(|os| {
                crate::node::packages::installed(&os.vfs).into_iter().map(|p| (p.name, p.version)).collect()
            })
            .unwrap_or_default()
    }
    /// What SSH clients asked it to run: command lines, and scripts that came on standard input apart from them.
    pub fn exec_log(&self) -> Vec<ExecRecord> {
        self.node.exec_log()
    }
    /// Whether a text stands in any command line, where every user of the node could have read it.
    pub fn argv_contains(&self, text: &str) -> bool {
        self.node.exec_log().iter().any(|record| record.argv.contains(text))
    }
    /// What is on its serial line's ring buffer.
    pub fn uart_text(&self) -> String {
        String::from_utf8_lossy(&self.node.uart.peek()).into_owned()
    }
    /// Runs a command line as root on the node, past sshd; its exit status, standard output and standard error.
    /// A node that does not run answers with 255.
    pub async fn run(&self, line: &str) -> (i32, String, String) {
        self.node.run_as_root(line).await
    }
    /// Reboots it at once.
    pub fn reboot(&self) {
        self.node.restart();
    }
}

impl std::fmt::Debug for NodeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeView").field("name", &self.node.name).finish_non_exhaustive()
    }
}

/// A cluster as the world sees it.
#[derive(Clone)]
pub struct KubeView {
    cluster: Arc<Cluster>,
}

impl KubeView {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
    /// The API server all servers of the cluster share.
    pub fn api(&self) -> &Arc<ApiServer> {
        &self.cluster.api
    }
    /// Its objects.
    pub fn store(&self) -> &Store {
        self.cluster.api.store()
    }
    /// Its certificates.
    pub fn pki(&self) -> &ClusterPki {
        &self.cluster.pki
    }
    /// The servers that are members of its datastore, and whether each votes. SQLite has one, which votes.
    pub fn members(&self) -> Vec<(String, bool)> {
        self.cluster.members()
    }
    /// An admin kubeconfig for one of the endpoints' sockets.
    ///
    /// # Errors
    /// The certificate could not be issued.
    pub fn kubeconfig(&self, server: &str) -> Result<String, crate::PkiError> {
        self.cluster.pki.admin_kubeconfig(server)
    }
}

impl std::fmt::Debug for KubeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeView").field("id", &self.cluster.id).finish_non_exhaustive()
    }
}
