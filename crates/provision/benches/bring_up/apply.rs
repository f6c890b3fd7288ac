//! One bring-up, in a process of its own.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use turingpi_provision::{
    Environment, Intent, Provision, SecretProvider, document,
    engine::{Approval, Cancellation, Event, Timing, report::Timeline},
};

use crate::{Outcome, process};

/// What the process tells about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// From the call of `apply` to its return.
    pub(crate) wall: Duration,
    pub(crate) processor: Duration,
    pub(crate) peak_mib: f64,
    pub(crate) steps: usize,
    pub(crate) retries: u32,
    pub(crate) rounds: u32,
}

/// Polls and retries as fast as the simulated time passes: what is a second for a real board is `pace` seconds here.
fn timing(pace: f64) -> Timing {
    let real = Timing::default();
    let scaled = |d: Duration| d.mul_f64(pace).max(Duration::from_millis(10));
    Timing {
        poll: scaled(real.poll),
        retry_base: scaled(real.retry_base),
        retry_cap: scaled(real.retry_cap),
        ..real
    }
}

struct Nobody;

#[async_trait]
impl SecretProvider for Nobody {
    async fn env(&self, _: &str) -> Option<SecretString> {
        None
    }
    async fn prompt(&self, _: &str) -> Option<SecretString> {
        None
    }
}

/// Applies `cluster.yaml` of `folder` and prints a [`Measured`] as JSON; the run's events go to `events.jsonl`.
pub(crate) async fn run(folder: &Path, pace: f64) -> Outcome {
    let (document, _) = document::load(&fs::read_to_string(folder.join("cluster.yaml"))?)?;
    let environment = Environment {
        base: folder.to_owned(),
        home: None,
        state_dir: folder.join("state"),
        cache_dir: folder.join("cache"),
        proxy: turingpi_provision::Proxy::default(),
        ssh_agent: None,
        secrets: Arc::new(Nobody),
        timing: timing(pace),
        owner: "bench".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let events = Arc::new(Mutex::new(Vec::<Event>::new()));
    let sink = {
        let events = Arc::clone(&events);
        Arc::new(move |event: &Event| {
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone())
        })
    };
    let provision = Provision::open(document, environment).await?;
    let started = Instant::now();
    let result =
        provision.apply(&Intent::default(), &Approval::everything(), sink, &Cancellation::new()).await;
    let wall = started.elapsed();
    provision.close().await;
    let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
    let mut lines = String::new();
    for event in &events {
        lines.push_str(&serde_json::to_string(event)?);
        lines.push('\n');
    }
    fs::write(folder.join("events.jsonl"), lines)?;
    let summary = result?;
    let own = std::process::id();
    let measured = Measured {
        wall,
        processor: process::processor_time(own).unwrap_or_default(),
        peak_mib: process::peak_mib(own).unwrap_or_default(),
        steps: summary.steps_done,
        retries: summary.retries,
        rounds: summary.rounds,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// The critical path of the run whose events stand in `folder`, for people who look for what costs time.
pub(crate) fn critical_path(folder: &Path, pace: f64) -> Outcome<String> {
    let events = fs::read_to_string(folder.join("events.jsonl"))?;
    let events: Vec<Event> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let timeline = Timeline::from_events(&events);
    let mut text =
        format!("{:<34} {:>8} {:>8} {:>8} {:>9}  after\n", "step", "idle ms", "start", "ms", "nominal s");
    for part in &timeline.critical_path {
        let took = part.end_ms.unwrap_or(part.start_ms) - part.start_ms;
        let nominal = took as f64 / 1000.0 / pace;
        text += &format!(
            "{:<34} {:>8} {:>8} {took:>8} {nominal:>9.1}  {:?}\n",
            part.step, part.idle_ms, part.start_ms, part.after
        );
    }
    for round in &timeline.rounds {
        text += &format!(
            "round {}: looked from {} to {} ms, {} steps\n",
            round.round, round.start_ms, round.end_ms, round.steps
        );
    }
    Ok(text)
}
