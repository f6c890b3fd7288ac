//! systemd units of k3s: ours, and how those of others are told apart.

use serde::{Deserialize, Serialize};
use turingpi_cluster::Role;

/// The first line of every file we write.
pub(crate) const MARK: &str = "# Written by turingpi.";

/// The unit of a role.
pub(crate) fn unit_name(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "k3s.service",
        Role::Worker => "k3s-agent.service",
    }
}

/// The file of a role's unit.
pub(crate) fn unit_path(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "/etc/systemd/system/k3s.service",
        Role::Worker => "/etc/systemd/system/k3s-agent.service",
    }
}

/// The other role.
pub(crate) fn other(role: Role) -> Role {
    match role {
        Role::ControlPlane => Role::Worker,
        Role::Worker => Role::ControlPlane,
    }
}

/// The text of a role's unit. Holds no setting and no secret: those are in k3s's config files.
///
/// `notify` without a start limit means that `systemctl start` waits until the service is ready, for an agent without
/// a server for ever: start it with `--no-block`.
pub fn render_unit(role: Role) -> String {
    let (command, what) = match role {
        Role::ControlPlane => ("server", "server"),
        Role::Worker => ("agent", "agent"),
    };
    format!(
        "{MARK} Settings are in /etc/rancher/k3s, not here.
[Unit]
Description=Lightweight Kubernetes ({what})
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target
# Without its disk it would start on an empty folder, as a new cluster.
RequiresMountsFor=/var/lib/rancher/k3s

[Install]
WantedBy=multi-user.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
# Left by k3s's installer on a host that was taken over: proxies. What our config says counts more than what it says.
EnvironmentFile=-/etc/systemd/system/%N.service.env
KillMode=process
Delegate=yes
User=root
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s {command}
"
    )
}

/// Whose unit file it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitOwner {
    /// There is none.
    #[default]
    Nobody,
    /// We wrote it, this version of the tool or an older one.
    Ours,
    /// k3s's installer wrote it and all settings are in config files: we may take it over.
    Installer,
    /// It starts k3s with settings of its own, which we would lose.
    Foreign,
}

impl UnitOwner {
    /// From the first line and the command of a unit file. The command may hold a token: it is looked at and dropped.
    pub(crate) fn of(first_line: &str, command: &str, role: Role) -> Self {
        if first_line.starts_with(MARK) {
            return Self::Ours;
        }
        let mut words =
            command.split_whitespace().filter(|w| *w != "\\").map(|w| w.trim_matches(['\'', '"']));
        let program = words.next().is_some_and(|w| w.ends_with("/k3s"));
        let wanted = match role {
            Role::ControlPlane => "server",
            Role::Worker => "agent",
        };
        if program && words.next() == Some(wanted) && words.next().is_none() {
            Self::Installer
        } else {
            Self::Foreign
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_unit_of_ours_is_known_by_its_first_line() {
        for role in [Role::ControlPlane, Role::Worker] {
            let text = render_unit(role);
            assert_eq!(UnitOwner::of(text.lines().next().unwrap(), "", role), UnitOwner::Ours);
            assert!(!text.to_lowercase().contains("token"));
        }
        assert!(render_unit(Role::Worker).ends_with("ExecStart=/usr/local/bin/k3s agent\n"));
    }

    #[rstest]
    #[case("/usr/local/bin/k3s \\\n    server \\\n", Role::ControlPlane, UnitOwner::Installer)]
    #[case("/usr/local/bin/k3s 'agent'", Role::Worker, UnitOwner::Installer)]
    #[case("/usr/local/bin/k3s agent", Role::ControlPlane, UnitOwner::Foreign)]
    #[case("/usr/local/bin/k3s server '--disable' 'traefik'", Role::ControlPlane, UnitOwner::Foreign)]
    #[case("/opt/other server", Role::ControlPlane, UnitOwner::Foreign)]
    #[case("", Role::ControlPlane, UnitOwner::Foreign)]
    fn an_installers_unit_is_taken_over_only_when_it_has_no_settings(
        #[case] command: &str,
        #[case] role: Role,
        #[case] expected: UnitOwner,
    ) {
        assert_eq!(UnitOwner::of("[Unit]", command, role), expected);
    }
}
