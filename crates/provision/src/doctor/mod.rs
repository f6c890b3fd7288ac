//! Looks for everything that would get in the way: symptom, cause, remedy.
//!
//! The judgement is pure and stands in `hosts`; here things are looked at, side by side, and nothing is changed.

mod finding;
mod hosts;

use futures::future::join_all;
use serde::Serialize;
use turingpi_bmc::{About, Capability, Transfer};
use turingpi_cluster::{Activity, FactsRequest, HostFacts, NodeNeeds, imaging::BoardFacts, prepare_request};
use turingpi_engine::{Failure, FailureClass, FailureReport, Subject};

pub use finding::{Finding, Weight};

use crate::Provision;

/// What the doctor found.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// What was looked at, one line each.
    pub looked_at: Vec<String>,
    /// Findings, the worst first.
    pub findings: Vec<Finding>,
}

impl Provision {
    /// Looks at every board and host and compares them. Changes nothing.
    ///
    /// # Errors
    /// Never because something is wrong with a board or host: that is a finding.
    pub async fn doctor(&self) -> Result<Diagnosis, Failure> {
        let mut looked_at = Vec::new();
        let mut findings = Vec::new();
        let (boards, facts) = futures::join!(
            self.boards.observe(),
            join_all(self.nodes.iter().map(|node| async move { (node, self.look(&node.name).await) }))
        );
        self.newcomers.remember(&self.context()).await?;
        for (name, board) in &boards {
            match board {
                Ok(facts) => {
                    looked_at.push(format!("board {name}: {}", board_in_words(&facts.about)));
                    self.board(name, facts, &mut findings);
                }
                Err(failure) => findings.push(unreachable(Subject::board(name), &failure.report())),
            }
        }
        let mut seen = Vec::new();
        for (node, facts) in &facts {
            match facts {
                Ok(facts) => {
                    looked_at.push(format!(
                        "node {}: {}, {} {}",
                        node.name, facts.os.pretty, facts.arch, facts.kernel
                    ));
                    let runs_k3s = ["k3s.service", "k3s-agent.service"]
                        .iter()
                        .any(|u| facts.unit(u).activity() == Activity::Active);
                    seen.push(hosts::Seen { node, facts, runs_k3s });
                }
                Err(failure) => {
                    let report = failure.report();
                    let waits = report.class == FailureClass::Unreachable && node.image.is_some();
                    findings.push(if waits {
                        Finding::new(
                            "not-flashed",
                            Weight::Note,
                            Subject::node(&node.name),
                            format!("does not answer at {}", node.address),
                        )
                        .cause("it has no system yet, or is off")
                        .remedy("`turingpi plan` shows whether it would be switched on or flashed.")
                    } else {
                        unreachable(Subject::node(&node.name), &report)
                    });
                }
            }
        }
        findings.extend(seen.iter().flat_map(hosts::one));
        findings.extend(hosts::together(&seen));
        self.images(&mut findings);
        findings.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.subject.cmp(&b.subject)));
        Ok(Diagnosis { looked_at, findings })
    }

    async fn look(&self, node: &str) -> Result<HostFacts, Failure> {
        let request = prepare_request(&self.document.host, &NodeNeeds::kubernetes())
            .and(FactsRequest::new().units(["k3s.service", "k3s-agent.service", "multipathd.service"]));
        let request = [hosts::PORTS, hosts::DNS, hosts::MODULES]
            .into_iter()
            .fold(request, |request, (name, script)| request.extra(name, script));
        self.hosts.host(node).await?.facts(&request).await
    }

    fn board(&self, name: &str, facts: &BoardFacts, findings: &mut Vec<Finding>) {
        let subject = || Subject::board(name);
        if matches!(facts.transfer, Transfer::Moving { .. }) {
            findings.push(
                Finding::new("transfer", Weight::Problem, subject(), "is busy with a transfer")
                    .cause("the board writes one image at a time, and a second one would replace it")
                    .remedy("Wait until it has ended, or find who started it."),
            );
        }
        if !facts.about.has(Capability::ImageUpload) {
            findings.push(
                Finding::new(
                    "firmware",
                    Weight::Problem,
                    subject(),
                    format!("runs {}", facts.about.firmware_name()),
                )
                .cause("this firmware cannot be given an image over the network")
                .remedy(
                    "Update the BMC's firmware from an SD card; there is no way over the network from 1.x.",
                ),
            );
        }
    }

    /// Image files that are not there are better known before a board is touched.
    fn images(&self, findings: &mut Vec<Finding>) {
        for (name, image) in &self.images {
            if let turingpi_cluster::fetch::Source::Path(path) = &image.source
                && !path.is_file()
            {
                findings.push(
                    Finding::new(
                        "image",
                        Weight::Problem,
                        Subject::cluster(&self.document.name),
                        format!("there is no file `{}`", path.display()),
                    )
                    .cause(format!("image `{name}` is read from there when a node is flashed"))
                    .remedy("Download it, or correct `source` under `images`."),
                );
            }
        }
    }
}

/// A board in one line: model, revision, firmware.
pub(crate) fn board_in_words(about: &About) -> String {
    let model = about.board_model.as_deref().unwrap_or("Turing Pi 2");
    let revision = about.board_revision.as_deref().map(|r| format!(" v{r}")).unwrap_or_default();
    format!("{model}{revision}, {}", about.firmware_name())
}

fn unreachable(subject: Subject, report: &FailureReport) -> Finding {
    let id = match report.class {
        FailureClass::Auth => "login",
        _ => "unreachable",
    };
    Finding::new(id, Weight::Problem, subject, report.message.clone())
        .cause(report.causes.first().cloned().unwrap_or_else(|| "no answer".to_owned()))
        .remedy(report.hint.clone().unwrap_or_else(|| "Check power, cable and address.".to_owned()))
}
