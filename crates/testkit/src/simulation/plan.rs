//! What a simulation consists of: the plan a test or a demo writes down.

use std::net::IpAddr;

use crate::{ModuleKind, OsImage};

/// A node: a compute module in a board's slot, or a host without a board.
#[derive(Debug, Clone)]
pub struct NodePlan {
    pub(crate) name: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) leased: Option<IpAddr>,
    pub(crate) slot: Option<(String, u8)>,
    pub(crate) kind: ModuleKind,
    pub(crate) installed: Option<OsImage>,
    pub(crate) running: bool,
    pub(crate) users: Vec<(String, String)>,
    pub(crate) authorized: Vec<String>,
    pub(crate) memory: u64,
    pub(crate) cores: u32,
    pub(crate) emmc: u64,
    pub(crate) nvme: u64,
    pub(crate) nvme_system: Option<OsImage>,
    pub(crate) memory_cgroup: bool,
    pub(crate) boot_apt: bool,
    pub(crate) gateway: bool,
    pub(crate) passwordless_sudo: bool,
}

impl NodePlan {
    /// An RK1 with 8 GiB of memory and 32 GB of empty eMMC, without power, in no slot.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: None,
            leased: None,
            slot: None,
            kind: ModuleKind::Rk1,
            installed: None,
            running: false,
            users: Vec::new(),
            authorized: Vec::new(),
            memory: 8 << 30,
            cores: 8,
            emmc: 31_268_536_320,
            nvme: 0,
            nvme_system: None,
            memory_cgroup: true,
            boot_apt: false,
            gateway: true,
            passwordless_sudo: false,
        }
    }
    /// The address the document gives it. It exists only inside the world; clients outside use the endpoints.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }
    /// The address a freshly installed system gets from DHCP, when it is not the planned one: nothing answers at the
    /// planned address until somebody configures it on the node.
    #[must_use]
    pub fn leased_address(mut self, address: IpAddr) -> Self {
        self.leased = Some(address);
        self
    }
    /// Puts it in a slot, 1 to 4, of a board.
    #[must_use]
    pub fn slot(mut self, board: impl Into<String>, slot: u8) -> Self {
        self.slot = Some((board.into(), slot));
        self
    }
    /// What module it is.
    #[must_use]
    pub fn kind(mut self, kind: ModuleKind) -> Self {
        self.kind = kind;
        self
    }
    /// An operating system is already on its eMMC, its first boot done.
    #[must_use]
    pub fn installed(mut self, image: OsImage) -> Self {
        self.installed = Some(image);
        self
    }
    /// It has power and has booted when the simulation starts.
    #[must_use]
    pub fn running(mut self) -> Self {
        self.running = true;
        self
    }
    /// Adds a user with a password to an installed system; `root` sets root's password. Others may use sudo with it.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }
    /// Users of an installed system need no password for sudo.
    #[must_use]
    pub fn passwordless_sudo(mut self) -> Self {
        self.passwordless_sudo = true;
        self
    }
    /// Adds a public key (an `authorized_keys` line) for root and every user of an installed system.
    #[must_use]
    pub fn authorized_key(mut self, line: impl Into<String>) -> Self {
        self.authorized.push(line.into());
        self
    }
    /// A host of its own: in no slot, always powered unless the world cuts its power.
    #[must_use]
    pub fn host_without_board(mut self) -> Self {
        self.slot = None;
        self
    }
    /// Memory in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }
    /// Number of cores.
    #[must_use]
    pub fn cores(mut self, cores: u32) -> Self {
        self.cores = cores.max(1);
        self
    }
    /// Puts an empty NVMe disk of this many bytes in it.
    #[must_use]
    pub fn nvme(mut self, bytes: u64) -> Self {
        self.nvme = bytes;
        self
    }
    /// A bootable system is on its NVMe disk, its first boot not done. U-Boot prefers it to whatever is on the eMMC until
    /// the disk is wiped.
    #[must_use]
    pub fn system_on_nvme(mut self, image: OsImage) -> Self {
        self.nvme = self.nvme.max(500 << 30);
        self.nvme_system = Some(image);
        self
    }
    /// The kernel starts without the memory cgroup unless the boot arguments switch it on.
    #[must_use]
    pub fn without_memory_cgroup(mut self) -> Self {
        self.memory_cgroup = false;
        self
    }
    /// A boot-time `apt-get` holds the dpkg lock for a while after each boot.
    #[must_use]
    pub fn apt_at_boot(mut self) -> Self {
        self.boot_apt = true;
        self
    }
    /// Its network has no default route.
    #[must_use]
    pub fn without_default_route(mut self) -> Self {
        self.gateway = false;
        self
    }
}
