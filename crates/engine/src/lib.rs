//! Plans of stages, lanes and steps, and the executor that runs, resumes and reports them.
//!
//! A [`Reconcile`] looks at the world and plans what is left to do; the [`Executor`] asks for an [`Approval`], runs the
//! plan, looks again, and ends when a plan is empty. A [`Plan`] is stages one after the other; a stage is lanes side by
//! side, one a subject; a lane is [`Step`]s in order. Lanes share locks by name (earlier lanes are served first) and wait
//! for each other's milestones. Everything that happens is one stream of [`Event`]s; [`report`] draws it.
//!
//! This crate knows nothing of boards, nodes or clusters, opens no connection and prints nothing. It is not a graph
//! framework: what stages, lanes, locks and milestones cannot say does not belong into one run.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
//! use turingpi_engine::*;
//!
//! #[derive(Clone, Default)]
//! struct Lamp(Arc<AtomicBool>);
//!
//! #[async_trait::async_trait]
//! impl Step for Lamp {
//!     fn describe(&self) -> StepDescription {
//!         StepDescription::new("lamp/on", "Turn the lamp on", "light").change(Change::replace("lamp", "off", "on"))
//!     }
//!     async fn apply(&self, _: &StepContext) -> Result<(), Failure> {
//!         self.0.store(true, Ordering::SeqCst);
//!         Ok(())
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl Reconcile for Lamp {
//!     type Observed = bool;
//!     async fn observe(&self, _: &StepContext) -> Result<bool, Failure> {
//!         Ok(self.0.load(Ordering::SeqCst))
//!     }
//!     fn plan(&self, on: &bool, _: &State) -> Result<Plan, Failure> {
//!         let steps: Vec<Arc<dyn Step>> = if *on { vec![] } else { vec![Arc::new(self.clone())] };
//!         let lanes = vec![Lane { subject: Subject::node("lamp"), steps }];
//!         Ok(Plan { stages: vec![Stage { title: "Light".to_owned(), lanes }] })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Failure> {
//! let sink = Arc::new(|event: &Event| println!("{} {:?}", event.seq, event.kind));
//! let executor = Executor::builder(Arc::new(MemoryStateStore::new()), sink).verb("apply").build();
//! let lamp = Lamp::default();
//! assert_eq!(executor.converge(&lamp, &Approval::safe_only()).await?.steps_done, 1);
//! assert_eq!(executor.converge(&lamp, &Approval::safe_only()).await?.steps_done, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - Nothing is changed before the whole plan is approved, and a later round only does what was announced, what is safe,
//!   or what the approval covers.
//! - A destructive step is marked in doubt in the saved state before it begins and unmarked after it is verified. It is
//!   never done twice in one run.
//! - This is the only layer that retries, and only what says of itself that it may pass ([`Failure::retryable`]).
//! - A run converges or says why not. One that is dropped, killed or stopped goes on where it was when it is run again.
//! - Events are numbered in the order in which the sink sees them; `RunFinished` is the last one of every run that was
//!   not cut off.
//! - Stored secrets of eight characters or more do not get into events, whatever a step puts into a text.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod approval;
mod cancel;
mod context;
mod converge;
mod emit;
mod event;
mod executor;
mod failure;
mod handle;
mod lane;
mod lane_locks;
mod lock;
mod memory;
mod milestones;
mod plan;
mod redact;
pub mod report;
mod round;
mod stage;
mod state;
mod step;
mod store;
mod timing;

pub use approval::Approval;
pub use cancel::Cancellation;
pub use context::{Probe, StepContext};
pub use event::{Event, EventKind, EventSink, Gate, Outcome, StepFailure, Summary, Unit};
pub use executor::{Executor, ExecutorBuilder, Reconcile};
pub use failure::{Failure, FailureClass, FailureReport};
pub use lock::{FileLock, FileLockGuard, LockOwner};
pub use memory::MemoryStateStore;
pub use plan::{
    Change, Lane, LanePreview, Plan, Preview, Risk, Stage, StagePreview, StepDescription, Subject,
    SubjectKind,
};
pub use state::{Generation, InDoubt, RunRecord, STATE_VERSION, State, StateStore};
pub use step::{Step, Verdict};
pub use store::FileStateStore;
pub use timing::Timing;
