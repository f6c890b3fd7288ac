//! Random plans with random mishaps: what must hold of every run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proptest::prelude::*;
use tokio::{runtime, time::sleep};
use turingpi_engine::{
    Event, EventKind, Failure, FailureClass, Gate, Lane, Outcome, Plan, Risk, Step, StepDescription, Subject,
    report::{After, Timeline},
};

use crate::support::{Bench, Plans, describe, stage, step};

const ATTEMPTS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Works,
    FailsFirst(u32),
    Fails,
    Panics,
}

#[derive(Debug, Clone)]
struct StepSpec {
    deed: Deed,
    risk: Risk,
    locks: Vec<u8>,
    needs: Vec<prop::sample::Index>,
    reaches: bool,
    millis: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    Soft(u64),
    Hard(u64),
    Drop(u64),
}

#[derive(Debug, Clone)]
struct Spec {
    /// Stages of lanes of steps.
    stages: Vec<Vec<Vec<StepSpec>>>,
}

fn step_spec(calm: bool) -> impl Strategy<Value = StepSpec> {
    let deed = prop_oneof![
        12 => Just(Deed::Works),
        3 => (1..=ATTEMPTS).prop_map(Deed::FailsFirst),
        1 => Just(Deed::Fails),
        1 => Just(Deed::Panics),
    ];
    let risk = prop_oneof![Just(Risk::Safe), Just(Risk::Disruptive), Just(Risk::Destructive)];
    let locks = prop::collection::vec(0_u8..3, 0..3);
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..2);
    (deed, risk, locks, needs, any::<bool>(), 0_u64..50).prop_map(
        move |(deed, risk, locks, needs, reaches, millis)| {
            let deed = if calm { Deed::Works } else { deed };
            StepSpec { deed, risk, locks, needs, reaches, millis }
        },
    )
}

fn spec() -> impl Strategy<Value = Spec> {
    any::<bool>().prop_flat_map(|calm| {
        let lane = prop::collection::vec(step_spec(calm), 0..5);
        let stage = prop::collection::vec(lane, 1..5);
        prop::collection::vec(stage, 1..4).prop_map(|stages| Spec { stages })
    })
}

/// What steps see of each other, noted by themselves.
#[derive(Default)]
struct Ledger {
    holders: BTreeMap<String, String>,
    reached: BTreeSet<String>,
    offences: Vec<String>,
}

type Shared = Arc<Mutex<Ledger>>;

struct Holding(Shared, Vec<String>);

impl Drop for Holding {
    fn drop(&mut self) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for lock in &self.1 {
            ledger.holders.remove(lock);
        }
    }
}

fn hold(shared: &Shared, description: &StepDescription, provided: &BTreeSet<String>) -> Holding {
    let mut ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let locks: BTreeSet<_> = description.locks.iter().cloned().collect();
    for lock in &locks {
        if let Some(other) = ledger.holders.insert(lock.clone(), description.id.clone()) {
            ledger.offences.push(format!("{} and {other} hold {lock}", description.id));
        }
    }
    for need in description.needs.iter().filter(|n| provided.contains(*n)) {
        if !ledger.reached.contains(need) {
            ledger.offences.push(format!("{} began without {need}", description.id));
        }
    }
    drop(ledger);
    Holding(Arc::clone(shared), locks.into_iter().collect())
}

/// The descriptions, stage by stage and lane by lane. A step needs only what comes before it when all lanes go on in
/// step, so that there is an order in which everything can be done.
fn descriptions(spec: &Spec) -> Vec<Vec<Vec<StepDescription>>> {
    let mut all: Vec<Vec<Vec<StepDescription>>> =
        spec.stages.iter().map(|lanes| lanes.iter().map(|_| Vec::new()).collect()).collect();
    let mut provided: Vec<String> = vec!["given".to_owned()];
    for (s, lanes) in spec.stages.iter().enumerate() {
        let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
        for position in 0..longest {
            for (l, lane) in lanes.iter().enumerate() {
                let Some(spec) = lane.get(position) else { continue };
                let id = format!("s{s}/n{l}/{position}");
                let mut description = describe(&id).risk(spec.risk);
                for lock in &spec.locks {
                    description = description.lock(format!("lock{lock}"));
                }
                for need in &spec.needs {
                    description = description.needs(provided[need.index(provided.len())].clone());
                }
                if spec.reaches {
                    description = description.reaches(format!("after {id}"));
                    provided.push(format!("after {id}"));
                }
                all[s][l].push(description);
            }
        }
    }
    all
}

fn build(spec: &Spec, ledger: &Shared) -> Plan {
    let described = descriptions(spec);
    let provided: Arc<BTreeSet<String>> =
        Arc::new(described.iter().flatten().flatten().filter_map(|d| d.reaches.clone()).collect());
    let scripted = |spec: &StepSpec, description: &StepDescription| {
        let (ledger, provided, described) = (Arc::clone(ledger), Arc::clone(&provided), description.clone());
        let (deed, millis) = (spec.deed, spec.millis);
        let tries = Arc::new(Mutex::new(0));
        let (done, reaches) = (Arc::clone(&ledger), description.reaches.clone());
        let scripted = step(description.clone())
            .apply(move |_| {
                let (ledger, provided, described) =
                    (Arc::clone(&ledger), Arc::clone(&provided), described.clone());
                let attempt = {
                    let mut tries = tries.lock().unwrap();
                    *tries += 1;
                    *tries
                };
                async move {
                    let _holding = hold(&ledger, &described, &provided);
                    if millis == 0 {
                        tokio::task::yield_now().await;
                    } else {
                        sleep(Duration::from_millis(millis)).await;
                    }
                    match deed {
                        Deed::FailsFirst(times) if attempt <= times => {
                            Err(Failure::new(FailureClass::Unreachable, "not now").retryable())
                        }
                        Deed::Fails => Err(Failure::new(FailureClass::Refused, "no")),
                        Deed::Panics => panic!("on purpose"),
                        Deed::Works | Deed::FailsFirst(_) => Ok(()),
                    }
                }
            })
            .verify(move |_| {
                done.lock().unwrap_or_else(PoisonError::into_inner).reached.extend(reaches.clone());
                async { Ok(turingpi_engine::Verdict::Converged) }
            });
        Arc::new(scripted) as Arc<dyn Step>
    };
    let stages = spec.stages.iter().zip(&described).enumerate().map(|(s, (lanes, described))| {
        let lanes = lanes.iter().zip(described).enumerate().map(|(l, (lane, described))| Lane {
            subject: Subject::node(format!("n{l}")),
            steps: lane.iter().zip(described).map(|(s, d)| scripted(s, d)).collect(),
        });
        stage(&format!("stage {s}"), lanes.collect())
    });
    Plan { stages: stages.collect() }
}

/// What must come of every step, worked out without running anything. Steps of stages that never start are left out.
fn expected(spec: &Spec) -> BTreeMap<String, Outcome> {
    let described = descriptions(spec);
    let provided: BTreeSet<_> =
        described.iter().flatten().flatten().filter_map(|d| d.reaches.as_ref()).collect();
    let mut reached = BTreeSet::new();
    let mut ends = BTreeMap::new();
    for (lanes, described) in spec.stages.iter().zip(&described) {
        let mut next = vec![0; lanes.len()];
        let mut stopped = vec![false; lanes.len()];
        loop {
            let mut moved = false;
            for (l, lane) in lanes.iter().enumerate() {
                while !stopped[l] && next[l] < lane.len() {
                    let (step, description) = (&lane[next[l]], &described[l][next[l]]);
                    if !description.needs.iter().all(|n| !provided.contains(n) || reached.contains(n)) {
                        break;
                    }
                    moved = true;
                    next[l] += 1;
                    let works = match step.deed {
                        Deed::Works => true,
                        Deed::FailsFirst(times) => times < ATTEMPTS,
                        Deed::Fails | Deed::Panics => false,
                    };
                    ends.insert(description.id.clone(), if works { Outcome::Done } else { Outcome::Failed });
                    stopped[l] = !works;
                    if works {
                        reached.extend(description.reaches.as_ref());
                    }
                }
            }
            if !moved {
                break;
            }
        }
        let mut all_done = true;
        for (l, lane) in described.iter().enumerate() {
            for description in &lane[next[l]..] {
                ends.insert(description.id.clone(), Outcome::Blocked);
            }
            all_done &= !stopped[l] && next[l] == lane.len();
        }
        if !all_done {
            break;
        }
    }
    ends
}

struct Ran {
    events: Vec<Event>,
    /// How many events there were when the stop was asked for.
    at_stop: Option<usize>,
    outcomes: BTreeMap<String, Outcome>,
    offences: Vec<String>,
    marks: BTreeSet<String>,
}

fn run(spec: &Spec, stop: Option<Stop>, threads: bool) -> Ran {
    let runtime = if threads {
        runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()
    } else {
        runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
    };
    runtime.unwrap().block_on(async {
        let (bench, ledger) = (Bench::new(), Shared::default());
        let plans = Plans::new([build(spec, &ledger)]);
        let mut at_stop = None;
        let work = tokio::time::timeout(Duration::from_secs(86_400), bench.run(&plans));
        match stop {
            None => drop(work.await.expect("the run hangs")),
            Some(Stop::Drop(after)) => {
                tokio::select! {
                    _ = work => {}
                    () = sleep(Duration::from_millis(after)) => at_stop = Some(bench.sink.events().len()),
                }
                // Whatever is left of the run gets every chance to say something.
                sleep(Duration::from_secs(1)).await;
            }
            Some(Stop::Soft(after) | Stop::Hard(after)) => {
                let ask = async {
                    sleep(Duration::from_millis(after)).await;
                    at_stop = Some(bench.sink.events().len());
                    if matches!(stop, Some(Stop::Soft(_))) {
                        bench.cancel.stop()
                    } else {
                        bench.cancel.stop_now()
                    }
                };
                let (result, ()) = tokio::join!(work, ask);
                drop(result.expect("the run hangs"));
            }
        }
        let offences = std::mem::take(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner).offences);
        let marks = bench.store.snapshot().in_doubt.into_keys().collect();
        Ran {
            events: bench.sink.events(),
            at_stop,
            outcomes: bench.sink.outcomes().into_iter().collect(),
            offences,
            marks,
        }
    })
}

fn check_stream(events: &[Event], cut_off: bool) -> Result<(), TestCaseError> {
    if cut_off && events.is_empty() {
        return Ok(());
    }
    prop_assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64), "numbers without gaps");
    prop_assert!(events.is_sorted_by_key(|e| e.at), "time goes forward");
    prop_assert!(events.iter().all(|e| e.run == events[0].run));
    let begins = matches!(events[0].kind, EventKind::RunStarted { .. });
    prop_assert!(begins);
    let ends = |e: &&Event| matches!(e.kind, EventKind::RunFinished { .. });
    prop_assert_eq!(events.iter().filter(ends).count(), usize::from(!cut_off));
    prop_assert!(cut_off || ends(&&events[events.len() - 1]));

    let mut planned = BTreeMap::new();
    let mut running: BTreeMap<&str, u32> = BTreeMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    let mut held: BTreeMap<String, &str> = BTreeMap::new();
    let mut stages = 0;
    for event in events {
        let id = event.step.as_deref().unwrap_or_default();
        match &event.kind {
            EventKind::Observed { preview, .. } => {
                planned.extend(preview.steps().map(|(_, s)| (s.id.clone(), s.clone())));
            }
            EventKind::StageStarted { .. } => {
                prop_assert!(running.is_empty(), "a barrier stands before a stage");
                stages += 1;
            }
            EventKind::StageFinished { .. } => {
                prop_assert!(running.is_empty(), "a stage ends after its steps");
                stages -= 1;
            }
            EventKind::StepStarted { attempt, .. } => {
                prop_assert_eq!(stages, 1);
                prop_assert!(!ended.contains(id), "{} starts after its end", id);
                let before = running.insert(id, *attempt);
                prop_assert_eq!(before.unwrap_or(0) + 1, *attempt);
                let step = &planned[id];
                for lock in &step.locks {
                    let holder = *held.entry(lock.clone()).or_insert(id);
                    prop_assert_eq!(holder, id, "{} is held twice", lock);
                }
                let provided = |n: &String| planned.values().any(|s| s.reaches.as_ref() == Some(n));
                for need in step.needs.iter().filter(|n| provided(n)) {
                    let by = |e: &&str| planned[*e].reaches.as_ref() == Some(need);
                    prop_assert!(ended.iter().any(by), "{} began without {}", id, need);
                }
            }
            EventKind::StepFinished { .. } => {
                prop_assert!(ended.insert(id), "{} ends twice", id);
                running.remove(id);
                held.retain(|_, holder| *holder != id);
            }
            _ => {}
        }
    }
    prop_assert!(cut_off || running.is_empty(), "every step that started ended: {:?}", running);
    Ok(())
}

/// `exact`: the clock was simulated, so every step began in the very moment in which what it waited for ended.
fn check_timeline(events: &[Event], exact: bool) -> Result<(), TestCaseError> {
    let timeline = Timeline::from_events(events);
    let text = serde_json::to_string(&timeline).unwrap();
    prop_assert_eq!(&serde_json::from_str::<Timeline>(&text).unwrap(), &timeline);
    let started: Vec<_> = timeline.steps().filter(|(_, s)| s.start_ms.is_some()).collect();
    let path = &timeline.critical_path;
    prop_assert_eq!(path.is_empty(), started.is_empty());
    let Some(last) = path.last() else { return Ok(()) };
    let latest = started.iter().map(|(_, s)| s.end_ms.unwrap_or(u64::MAX)).max().unwrap();
    prop_assert_eq!(last.end_ms.unwrap_or(u64::MAX), latest);
    prop_assert_eq!(&path[0].after, &After::Observed);
    let mut at = 0;
    for part in path {
        prop_assert_eq!(part.start_ms - part.idle_ms, at, "{:?}", path);
        at = part.end_ms.unwrap_or(timeline.millis);
        prop_assert!(at >= part.start_ms);
        prop_assert!(!exact || part.idle_ms == 0, "a gap nobody explains: {:?}", path);
    }
    for pair in path.windows(2) {
        let find = |id: &str| started.iter().find(|(_, s)| s.id == id).unwrap();
        let ((lane, before), (own_lane, own)) = (find(&pair[0].step), find(&pair[1].step));
        match &pair[1].after {
            After::Lane => prop_assert_eq!((lane, before.stage), (own_lane, own.stage)),
            After::Stage => prop_assert!(before.stage < own.stage),
            After::Lock { .. } => prop_assert!(own.waits.iter().any(|w| w.gate == Gate::Lock)),
            After::Milestone { name } => prop_assert_eq!(name, &format!("after {}", before.id)),
            other => prop_assert!(false, "{:?} inside a round", other),
        }
    }
    Ok(())
}

fn check_run(spec: &Spec, threads: bool) -> Result<(), TestCaseError> {
    let ran = run(spec, None, threads);
    prop_assert!(ran.offences.is_empty(), "{:?}", ran.offences);
    check_stream(&ran.events, false)?;
    check_timeline(&ran.events, !threads)?;
    let expected = expected(spec);
    prop_assert_eq!(&ran.outcomes, &expected);
    let destructive = descriptions(spec)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|d| d.risk == Risk::Destructive)
        .map(|d| d.id);
    let doubtful: BTreeSet<_> = destructive.filter(|id| expected.get(id) == Some(&Outcome::Failed)).collect();
    prop_assert_eq!(ran.marks, doubtful);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_each_step_as_it_must_and_tells_it_in_order(spec in spec()) {
        check_run(&spec, false)?;
    }

    #[test]
    fn a_stop_at_any_moment_leaves_an_orderly_stream(
        spec in spec(),
        stop in (0_u64..150).prop_flat_map(|t| prop_oneof![Just(Stop::Soft(t)), Just(Stop::Hard(t)), Just(Stop::Drop(t))]),
    ) {
        let ran = run(&spec, Some(stop), false);
        prop_assert!(ran.offences.is_empty(), "{:?}", ran.offences);
        let cut_off = matches!(stop, Stop::Drop(_)) && ran.at_stop.is_some();
        check_stream(&ran.events, cut_off)?;
        check_timeline(&ran.events, false)?;
        if let Some(at_stop) = ran.at_stop {
            let later = &ran.events[at_stop.min(ran.events.len())..];
            let starts = later.iter().any(|e| matches!(e.kind, EventKind::StepStarted { .. }));
            prop_assert!(!starts);
            prop_assert!(!cut_off || later.is_empty(), "a run that was dropped says {:?}", later);
        }
    }

    #[test]
    fn a_plan_that_waits_for_itself_is_refused_before_anything_is_done(
        circle in prop::collection::vec(0_usize..3, 2..5),
    ) {
        // Step i needs what step i+1 reaches, the last one what the first one reaches.
        let count = circle.len();
        let lanes: Vec<Lane> = circle.iter().enumerate().map(|(i, extra)| {
            let mut steps: Vec<_> = (0..*extra).map(|e| step(describe(&format!("{i}/{e}")))).collect();
            let closing = describe(&format!("{i}/closing")).needs(format!("m{}", (i + 1) % count)).reaches(format!("m{i}"));
            steps.push(step(closing));
            crate::support::lane(&format!("n{i}"), steps)
        }).collect();
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let bench = Bench::new();
        let failure = runtime.block_on(bench.run(&Plans::one_stage(lanes))).unwrap_err();
        prop_assert_eq!(failure.class(), FailureClass::Unexpected);
        prop_assert!(bench.sink.outcomes().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_same_holds_when_lanes_run_on_several_threads(mut spec in spec()) {
        // Real time passes here: most steps only let the others go first.
        spec.stages.iter_mut().flatten().flatten().for_each(|s| s.millis = s.millis.saturating_sub(47));
        check_run(&spec, true)?;
    }
}
