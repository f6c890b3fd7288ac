//! A firewall that is on lets the cluster through: everything between its nodes, pods and services, and a few ports.

use std::collections::BTreeSet;

use async_trait::async_trait;
use turingpi_engine::{Change, Failure, StepContext};

use super::{Firewalling, Preparation, Work};
use crate::{FactsRequest, Host, HostFacts, HostTask, host::Firewall};

pub(super) fn firewall(with: &Preparation<'_>) -> Option<Work> {
    // A fresh image has no firewall on, so nothing is forecast for a node without facts.
    let facts = with.facts()?;
    if with.spec.firewall == Firewalling::Leave {
        return None;
    }
    let others = with.nodes.iter().filter(|n| n.name != with.node.name).map(|n| n.address.to_string());
    let networks = with.needs.trusted_networks.iter().map(|n| n.trunc().to_string());
    let task = Rules { sources: others.chain(networks).collect(), ports: with.needs.open_ports.clone() };
    let missing = task.missing(&facts.firewall);
    if missing.is_empty() {
        return None;
    }
    Some(Work::new(missing.iter().map(|rule| Change::set(rule.tool(), rule.to_string())).collect(), task))
}

struct Rules {
    /// Addresses and networks that may reach everything.
    sources: BTreeSet<String>,
    /// TCP ports open to everybody.
    ports: BTreeSet<u16>,
}

/// One rule that is missing.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    UfwFrom(String),
    UfwPort(u16),
    FirewalldSource(String),
    FirewalldPort(u16),
}

impl Rule {
    fn tool(&self) -> &'static str {
        match self {
            Self::UfwFrom(_) | Self::UfwPort(_) => "ufw",
            Self::FirewalldSource(_) | Self::FirewalldPort(_) => "firewalld",
        }
    }

    /// The commands that add it.
    fn script(&self) -> (&'static str, String) {
        match self {
            Self::UfwFrom(source) => ("ufw allow from \"$1\" >/dev/null", source.clone()),
            Self::UfwPort(port) => ("ufw allow \"$1\" >/dev/null", format!("{port}/tcp")),
            Self::FirewalldSource(source) => (
                "firewall-cmd --quiet --permanent --zone=trusted --add-source=\"$1\"; firewall-cmd --quiet --zone=trusted --add-source=\"$1\"",
                source.clone(),
            ),
            Self::FirewalldPort(port) => (
                "firewall-cmd --quiet --permanent --add-port=\"$1\"; firewall-cmd --quiet --add-port=\"$1\"",
                format!("{port}/tcp"),
            ),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UfwFrom(source) | Self::FirewalldSource(source) => write!(f, "allow from {source}"),
            Self::UfwPort(port) | Self::FirewalldPort(port) => write!(f, "allow {port}/tcp"),
        }
    }
}

impl Rules {
    fn missing(&self, seen: &Firewall) -> Vec<Rule> {
        let mut missing = Vec::new();
        if let Some(lines) = &seen.ufw {
            // `ufw show added` prints the commands that would make its rules, and drops the prefix of a single host.
            let has = |line: &str| lines.contains(&format!("ufw allow {line}"));
            let sources = self.sources.iter().filter(|s| !has(&format!("from {s}")));
            missing.extend(sources.map(|s| Rule::UfwFrom(s.clone())));
            missing
                .extend(self.ports.iter().filter(|p| !has(&format!("{p}/tcp"))).map(|p| Rule::UfwPort(*p)));
        }
        if let Some(words) = &seen.firewalld {
            let sources = self.sources.iter().filter(|s| !words.contains(*s));
            missing.extend(sources.map(|s| Rule::FirewalldSource(s.clone())));
            let ports = self.ports.iter().filter(|p| !words.contains(&format!("{p}/tcp")));
            missing.extend(ports.map(|p| Rule::FirewalldPort(*p)));
        }
        missing
    }

    async fn look(&self, host: &Host) -> Result<Vec<Rule>, Failure> {
        let facts: HostFacts = host.facts(&FactsRequest::new()).await?;
        Ok(self.missing(&facts.firewall))
    }
}

#[async_trait]
impl HostTask for Rules {
    async fn differs(&self, host: &Host) -> Result<Option<String>, Failure> {
        Ok(self.look(host).await?.first().map(|rule| format!("{} has no rule `{rule}`", rule.tool())))
    }

    async fn make(&self, host: &Host, _cx: &StepContext) -> Result<(), Failure> {
        for rule in self.look(host).await? {
            let (script, argument) = rule.script();
            host.script(&format!("add the {} rule `{rule}`", rule.tool()), script, &[&argument]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_are_missing_are_added() {
        let rules = Rules {
            sources: ["10.0.0.2".to_owned(), "10.244.0.0/16".to_owned()].into(),
            ports: [6443].into(),
        };
        let mut seen = Firewall { ufw: Some(["ufw allow from 10.0.0.2".to_owned()].into()), firewalld: None };
        assert_eq!(rules.missing(&seen), [Rule::UfwFrom("10.244.0.0/16".to_owned()), Rule::UfwPort(6443)]);
        seen.ufw = Some(
            ["ufw allow from 10.0.0.2", "ufw allow from 10.244.0.0/16", "ufw allow 6443/tcp"]
                .map(str::to_owned)
                .into(),
        );
        assert!(rules.missing(&seen).is_empty());
        assert!(rules.missing(&Firewall::default()).is_empty());
    }
}
