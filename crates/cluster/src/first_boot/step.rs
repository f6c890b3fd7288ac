//! The step that makes a freshly flashed system ours.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use turingpi_engine::{
    Change, Failure, FailureClass, Probe, Risk, Step, StepContext, StepDescription, Verdict,
};
use turingpi_ssh::{SshClient, SshTarget};

use super::{
    Credentials, Dialogue,
    console::Console,
    evidence::{Evidence, NVME_HINT, Origin, judge},
    job::{self, Job, Place},
    network,
    spec::{generate_password, nonce, root_password_key},
    way_in::{Door, WayIn, unknown_host},
};
use crate::{
    Host, NodeSpec, SlotRef,
    imaging::{FirstBootState, ImagingContext, SlotRecord, UartLog, sshd_answers},
};

/// What a network needs to come up with a new address.
const SETTLE: Duration = Duration::from_secs(60);

pub(crate) struct FirstBootStep {
    node: String,
    place: SlotRef,
    address: IpAddr,
    target: SshTarget,
    log: Arc<UartLog>,
    cx: ImagingContext,
}

impl FirstBootStep {
    pub(crate) fn new(node: &NodeSpec, place: &SlotRef, log: Arc<UartLog>, cx: ImagingContext) -> Self {
        let (name, place, target) = (node.name.clone(), place.clone(), node.ssh.clone());
        Self { node: name, place, address: node.address, target, log, cx }
    }

    async fn record(&self, cx: &StepContext) -> Result<SlotRecord, Failure> {
        SlotRecord::read(&cx.state().await?, &self.place)?
            .filter(|record| record.node == self.node)
            .ok_or_else(|| {
                Failure::new(
                    FailureClass::Unexpected,
                    format!("slot {} has no record of a flash for {}", self.place, self.node),
                )
                .hint("Run this again: the next plan looks anew.")
            })
    }

    /// The root password of this system: made once, stored before anybody uses it.
    async fn password(&self, cx: &StepContext) -> Result<SecretString, Failure> {
        let key = root_password_key(&self.node);
        cx.update_state(|state| {
            if let Some(password) = state.secret(&key) {
                return Ok(password.clone());
            }
            let password = generate_password();
            state.put_secret(key, password.clone());
            Ok(password)
        })
        .await
    }

    /// Refuses an older system: it would be taken for the one just written, and the plan would build on the wrong disk.
    async fn check_origin(&self, evidence: &Evidence, record: &SlotRecord) -> Result<Origin, Failure> {
        let known = self.cx.host_keys.recognises(&self.target, &evidence.host_keys).await?;
        match judge(evidence, &record.flash, known) {
            Origin::Old(why) => Err(Failure::new(
                FailureClass::Refused,
                format!(
                    "{} runs an older system, not the image just written to slot {}",
                    self.node, self.place
                ),
            )
            .hint(NVME_HINT)
            .source(why)),
            origin => Ok(origin),
        }
    }

    async fn over_ssh(
        &self,
        client: Arc<dyn SshClient>,
        record: &SlotRecord,
        password: &SecretString,
        cx: &StepContext,
    ) -> Result<(), Failure> {
        let host = Host::new(&self.node, client);
        let mut evidence = self.look(&host).await?;
        let origin = self.check_origin(&evidence, record).await?;
        if evidence.pending.is_some() {
            evidence = self.first_run_over(&host, cx).await?;
        }
        if origin == Origin::Fresh {
            let job = job::take_over(
                &self.cx.first_boot,
                &self.target.user,
                &record.flash,
                None,
                Place::Ssh,
                Some(password),
            );
            host.output("take the fresh system over", &job.command()).await?;
        }
        if let Some(job) = self.network(cx, &evidence) {
            host.output("set up the address", &job.command()).await?;
        }
        Ok(())
    }

    /// Whether sshd answers within the grace: it is restarted during a first start.
    async fn ssh_answers(&self, cx: &StepContext) -> Result<bool, Failure> {
        let target = unknown_host(&self.target);
        let condition = format!("{} to answer over SSH", self.node);
        let answered = cx
            .wait(&condition, self.cx.limits.grace, || async {
                Ok(match sshd_answers(&self.cx, &target).await? {
                    true => Probe::Ready(()),
                    false => Probe::NotYet(format!("nothing at {}", self.target.host)),
                })
            })
            .await;
        match answered {
            Ok(()) => Ok(true),
            Err(failure) if failure.class() == FailureClass::Timeout => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Waits until the image's own first start has ended: it makes new host keys and restarts sshd.
    async fn first_run_over(&self, host: &Host, cx: &StepContext) -> Result<Evidence, Failure> {
        let condition = format!("the first-run services of {} to end", self.node);
        host.wait(cx, &condition, self.cx.limits.first_run, || async {
            let evidence = self.look(host).await?;
            Ok(match evidence.pending.clone() {
                None => Probe::Ready(evidence),
                Some(pending) => Probe::NotYet(format!("{pending} runs")),
            })
        })
        .await
    }

    async fn look(&self, host: &Host) -> Result<Evidence, Failure> {
        let text = host.output("look at the fresh system", &job::look().command()).await?;
        Ok(Evidence::parse(&text))
    }

    async fn over_console(
        &self,
        record: &SlotRecord,
        password: &SecretString,
        cx: &StepContext,
    ) -> Result<Vec<String>, Failure> {
        let bmc = Arc::clone(self.cx.boards.client(&self.place.board)?);
        let console = Console {
            bmc: bmc.as_ref(),
            place: &self.place,
            log: Arc::clone(&self.log),
            limits: self.cx.limits,
            cx,
        };
        let mut credentials = self.cx.first_boot.credentials.clone();
        // Ours last on a fresh system, where it is right only if an earlier run came this far.
        credentials.push(Credentials::new("root", password.clone()));
        let dialogue = Dialogue::new(credentials, password.clone(), nonce());
        let dialogue = console.open(&self.node, dialogue).await?;
        let condition = format!("the first-run services of {} to end", self.node);
        let evidence = cx
            .wait(&condition, self.cx.limits.first_run, || async {
                let text = console.run(&self.node, "look at the fresh system", &job::look()).await?;
                let evidence = Evidence::parse(&text);
                Ok(match &evidence.pending {
                    Some(pending) => Probe::NotYet(format!("{pending} runs")),
                    None => Probe::Ready(evidence),
                })
            })
            .await?;
        self.check_origin(&evidence, record).await?;
        cx.note(match evidence.addresses.is_empty() {
            true => format!("{} has no address on any interface", self.node),
            false => format!("{} has the addresses {}", self.node, evidence.addresses.join(", ")),
        });
        let user = &self.target.user;
        // Typed as seldom as possible: the wizard may have taken it already.
        let unset = (!dialogue.root_password_set()).then_some(password);
        let job = job::take_over(
            &self.cx.first_boot,
            user,
            &record.flash,
            dialogue.wizard_user(),
            Place::Console,
            unset,
        );
        console.run(&self.node, "take the fresh system over", &job).await?;
        if let Some(job) = self.network(cx, &evidence) {
            console.run(&self.node, "set up the address", &job).await?;
        }
        // Nobody shall find a root shell on the console.
        let _ = bmc.uart_send(self.place.slot, "exit").await;
        Ok(evidence.addresses)
    }

    /// What sets the fixed address up, if one is wanted.
    fn network(&self, cx: &StepContext, evidence: &Evidence) -> Option<Job> {
        let address = self.cx.first_boot.static_address.as_ref()?;
        let now = evidence.addresses.join(", ");
        cx.note(format!("{} gets the fixed address {} (now: {now})", self.node, address.address));
        Some(network::set_up(address))
    }

    /// Our key opens it, and it is the right system: its host key is pinned, and the pool uses it from now on.
    async fn pin(&self, record: &SlotRecord, addresses: &[String], cx: &StepContext) -> Result<(), Failure> {
        let condition = format!("{} to let our key in at {}", self.node, self.target.host);
        let target = unknown_host(&self.target);
        // After the console it is known to be up: either its address is right, or waiting does not make it so.
        let limit = if addresses.is_empty() { self.cx.limits.boot } else { self.cx.limits.grace.max(SETTLE) };
        let waited = cx
            .wait(&condition, limit, || async {
                let client = match self.cx.newcomer.connect(&target).await {
                    Ok(client) => client,
                    Err(error) => return Err(crate::ssh_failure(&self.node, "log in with our key", error)),
                };
                let evidence = self.look(&Host::new(&self.node, Arc::clone(&client))).await?;
                client.close().await;
                match evidence.pending {
                    Some(pending) => Ok(Probe::NotYet(format!("{pending} runs"))),
                    None => Ok(Probe::Ready(evidence)),
                }
            })
            .await;
        let evidence = match waited {
            Ok(evidence) => evidence,
            Err(failure) => return Err(self.unreachable(failure, addresses)),
        };
        match self.check_origin(&evidence, record).await? {
            Origin::Ours => {}
            _ => {
                return Err(Failure::new(
                    FailureClass::Refused,
                    format!(
                        "what answers at {} is not {}: it lacks the mark of its flash",
                        self.target.host, self.node
                    ),
                )
                .hint("Another machine may have this address: check the network's addresses."));
            }
        }
        self.check_address(&evidence)?;
        if !evidence.host_keys.is_empty() {
            self.cx.host_keys.replace(&self.target, &evidence.host_keys).await?;
        }
        self.cx.hosts.forget(&self.node).await;
        self.cx.hosts.client(&self.node).await?;
        let key = SlotRecord::key(&self.place);
        let done = SlotRecord { first_boot: FirstBootState::Done, ..record.clone() };
        cx.update_state(|state| state.put_record(key, &done)).await
    }

    /// SSH may lead here by another way than the node's address; the cluster cannot.
    fn check_address(&self, evidence: &Evidence) -> Result<(), Failure> {
        let has = |seen: &String| {
            let text = seen.split_whitespace().last().unwrap_or_default();
            text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok()) == Some(self.address)
        };
        if evidence.addresses.is_empty() || evidence.addresses.iter().any(has) {
            return Ok(());
        }
        Err(self.misplaced(&evidence.addresses, &self.address.to_string()))
    }

    fn misplaced(&self, addresses: &[String], wanted: &str) -> Failure {
        Failure::new(
            FailureClass::Unreachable,
            format!("{} is ready and has the addresses {}, not {wanted}", self.node, addresses.join(", ")),
        )
        .hint(format!(
            "Reserve {wanted} for it in the DHCP server, or give the node a fixed address in the document; then run this again."
        ))
    }

    fn unreachable(&self, failure: Failure, addresses: &[String]) -> Failure {
        if addresses.is_empty() || failure.class() != FailureClass::Timeout {
            return failure;
        }
        self.misplaced(addresses, &self.target.host).source(failure)
    }
}

#[async_trait]
impl Step for FirstBootStep {
    fn describe(&self) -> StepDescription {
        let spec = &self.cx.first_boot;
        let mut description =
            StepDescription::new(format!("{}/first-boot", self.node), "Take the fresh system over", "boot")
                .risk(Risk::Safe)
                .change(Change::set("host name", &spec.hostname))
                .change(Change::set("root's password", "generated, kept in the state"))
                .change(Change::set("authorized keys", format!("{} added", spec.authorized_keys.len())))
                .change(Change::set("host key", "pinned"))
                .expected_seconds(60);
        if let Some(address) = &spec.static_address {
            description = description.change(Change::set("address", address.address.to_string()));
        }
        description
    }

    async fn apply(&self, cx: &StepContext) -> Result<(), Failure> {
        let record = self.record(cx).await?;
        if record.is_proven() && self.cx.hosts.client(&self.node).await.is_ok() {
            return Ok(());
        }
        let stored = cx.state().await?.secret(&root_password_key(&self.node)).cloned();
        let password = self.password(cx).await?;
        debug_assert!(!password.expose_secret().is_empty());
        let door = Door {
            node: &self.node,
            target: &self.target,
            connector: self.cx.newcomer.as_ref(),
            spec: &self.cx.first_boot,
        };
        let way = match self.ssh_answers(cx).await? {
            true => door.open(stored.as_ref(), cx).await?,
            false => WayIn::Silent,
        };
        let addresses = match way {
            WayIn::Ssh(client) => {
                self.over_ssh(client, &record, &password, cx).await?;
                Vec::new()
            }
            WayIn::PasswordExpired => {
                cx.note(format!(
                    "the delivered password of {} has expired: changing it on the serial console",
                    self.node
                ));
                self.over_console(&record, &password, cx).await?
            }
            WayIn::Silent => self.over_console(&record, &password, cx).await?,
        };
        self.pin(&record, &addresses, cx).await
    }

    async fn verify(&self, cx: &StepContext) -> Result<Verdict, Failure> {
        Ok(match self.record(cx).await?.is_proven() {
            true => Verdict::Converged,
            false => Verdict::NotYet("its first boot is not complete".to_owned()),
        })
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(10)
    }
}
