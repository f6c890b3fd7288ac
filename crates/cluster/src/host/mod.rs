//! Typed operations on one node: the only place where shell words are put together.

mod facts;
mod files;
mod packages;
mod parse;
mod reboot;
mod request;
mod run;
mod step;
#[cfg(test)]
mod tests;
mod units;

pub use facts::{
    Arch, Cgroup, DiskSpace, FileFact, Firewall, HostFacts, HostTime, InterfaceAddress, Mount, Os, OsFamily,
    Route, Swap,
};
pub use parse::FactsError;
pub use request::FactsRequest;
pub use run::{Host, RemoteExit};
pub use step::{HostStep, HostTask, unless_same};
pub use units::{Activity, UnitState};

pub(crate) use files::{FileContent, assignment, set_assignment};
pub(crate) use reboot::PENDING_PATH;
