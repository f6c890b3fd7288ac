//! What is wanted of hosts: the document's `host:` section, and needs of the cluster as data.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use turingpi_engine::{Failure, FailureClass};

/// How hosts shall be. The document's `host:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HostSpec {
    /// The time zone, as in `America/Chicago`; left as it is when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Time servers; those of the operating system when empty.
    pub ntp: Vec<String>,
    /// Packages beside those the cluster needs.
    pub packages: Vec<String>,
    /// What to do with swap.
    pub swap: Swapping,
    /// What to do with a firewall that is on.
    pub firewall: Firewalling,
    /// Kernel parameters beside, or in place of, those the cluster needs.
    pub sysctl: BTreeMap<String, String>,
    /// Kernel modules beside those the cluster needs.
    pub modules: BTreeSet<String>,
    /// Whether `/etc/hosts` gets a block with all nodes.
    pub hosts_file: HostsFile,
    /// What to do with Armbian's log disk in memory.
    pub log_disk: LogDisk,
}

/// What to do with swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Swapping {
    /// Turn it off now and at every boot, swap in compressed memory too.
    #[default]
    Off,
    /// Leave it as it is.
    Keep,
}

/// What to do with ufw or firewalld when one is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firewalling {
    /// Let the nodes, pods and services of the cluster through.
    #[default]
    Manage,
    /// Leave it as it is.
    Leave,
}

/// What to do with `/etc/hosts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostsFile {
    /// Keep a block with all nodes in it.
    #[default]
    Manage,
    /// Leave it as it is.
    Leave,
}

/// What to do with Armbian's 50 MB log disk in memory, which pod logs fill up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogDisk {
    /// Turn it off; needs a reboot.
    #[default]
    Disable,
    /// Leave it as it is.
    Keep,
}

impl HostSpec {
    /// Checks names and values that would otherwise end in a shell word or a file.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<(), Failure> {
        let bad = |key: &str, value: &str, hint: &str| {
            Err(Failure::new(FailureClass::Config, format!("host.{key}: `{value}` cannot be used"))
                .hint(hint))
        };
        if let Some(zone) = &self.timezone
            && !is_made_of(zone, "/_+-")
        {
            return bad(
                "timezone",
                zone,
                "Use a name from `timedatectl list-timezones`, such as Europe/Berlin.",
            );
        }
        if let Some(server) = self.ntp.iter().find(|s| !is_made_of(s, ".-:")) {
            return bad("ntp", server, "Use host names or addresses.");
        }
        if let Some(package) = self.packages.iter().find(|p| p.starts_with('-') || !is_made_of(p, "+-.:=~")) {
            return bad("packages", package, "Use names of Debian packages.");
        }
        if let Some(module) = self.modules.iter().find(|m| !is_made_of(m, "_")) {
            return bad("modules", module, "Use names of kernel modules, with underscores.");
        }
        for (key, value) in &self.sysctl {
            if !is_made_of(key, "._-/")
                || value.contains(['\n', '\0'])
                || value.trim() != value
                || value.is_empty()
            {
                return bad(
                    "sysctl",
                    &format!("{key}={value}"),
                    "Use a key such as vm.max_map_count and one line of value.",
                );
            }
        }
        Ok(())
    }
}

fn is_made_of(text: &str, extra: &str) -> bool {
    !text.is_empty()
        && !text.contains("..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

/// What the cluster and its add-ons need of a node. Data, so that an add-on never asks which operating system it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct NodeNeeds {
    /// Debian packages.
    pub packages: BTreeSet<String>,
    /// Kernel modules, with underscores.
    pub modules: BTreeSet<String>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Networks whose traffic to the node a firewall must let in: pods, services.
    pub trusted_networks: BTreeSet<IpNet>,
    /// TCP ports a firewall must open to everybody.
    pub open_ports: BTreeSet<u16>,
}

impl NodeNeeds {
    /// What every Kubernetes node of ours needs.
    pub fn kubernetes() -> Self {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        let sysctl = [
            ("net.ipv4.ip_forward", "1"),
            ("net.bridge.bridge-nf-call-iptables", "1"),
            ("net.bridge.bridge-nf-call-ip6tables", "1"),
            ("fs.inotify.max_user_instances", "1024"),
            ("fs.inotify.max_user_watches", "524288"),
        ];
        Self {
            packages: words(&[
                "ca-certificates",
                "cryptsetup",
                "curl",
                "iptables",
                "nfs-common",
                "open-iscsi",
            ]),
            modules: words(&["br_netfilter", "overlay", "iscsi_tcp", "dm_crypt"]),
            sysctl: sysctl.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Self::default()
        }
    }

    /// Everything both need; where both set a kernel parameter, `other` wins.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.packages.extend(other.packages);
        self.modules.extend(other.modules);
        self.sysctl.extend(other.sysctl);
        self.trusted_networks.extend(other.trusted_networks);
        self.open_ports.extend(other.open_ports);
        self
    }
}
