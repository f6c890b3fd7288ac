//! The simulated board: a BMC's state machine behind its real doors.
//!
//! [`Board::start`] opens an HTTPS door (TLS 1.2 only, self-signed certificate without a host name) and a plain HTTP door
//! that redirects to it, as ports 443 and 80 of a real board do; firmware 1.1.0 has only the plain one. What the doors
//! answer, byte for byte, depends on the [`Firmware`] of the [`BoardPlan`]. The compute modules behind the board are
//! [`Module`](crate::Module)s: the board switches their power, writes their eMMC and reads their serial lines, and knows
//! nothing else about them.

mod auth;
mod c_daemon;
mod clock;
mod daemon;
mod door;
mod humantime;
mod job;
mod journal;
mod legacy;
mod plan;
mod power;
mod profile;
mod query;
mod serial;
mod state;
mod strike;
mod tls;
mod view;
pub(crate) mod wire;

use std::{io, net::SocketAddr, sync::Arc};

pub(crate) use journal::{Journal, request_line};
pub(crate) use query::decode as query_decode;

pub use clock::Clock;
pub use journal::RequestRecord;
pub use plan::{BoardPlan, BoardRevision, CertificateKey, Firmware, SdCard};
pub use view::{BoardView, FlashRecord, HeldLock};

use crate::{Durations, Faults, Module, Pace};
use daemon::Daemon;

/// What a board shares with the rest of a simulation.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// How fast simulated durations pass.
    pub pace: Pace,
    /// The nominal durations.
    pub durations: Durations,
    /// The faults.
    pub faults: Faults,
}

impl Default for Surroundings {
    /// [`Pace::INSTANT`], nominal durations, no faults.
    fn default() -> Self {
        Self { pace: Pace::INSTANT, durations: Durations::default(), faults: Faults::default() }
    }
}

/// A running board. Dropping it closes its doors.
#[derive(Debug)]
pub struct Board {
    view: BoardView,
    doors: Vec<tokio::task::JoinHandle<()>>,
}

impl Board {
    /// Opens the doors on ephemeral ports of 127.0.0.1. `modules` are the slots 1 to 4; `None` is an empty slot.
    ///
    /// The stored power state begins as the modules are: one that has power already was switched on through this board.
    /// For modules that get power later by other means there is [`BoardView::adopt_power`].
    ///
    /// # Errors
    /// No port can be had, or no certificate can be made.
    pub async fn start(
        plan: BoardPlan,
        modules: [Option<Arc<dyn Module>>; 4],
        surroundings: Surroundings,
    ) -> io::Result<Self> {
        let daemon = Daemon::new(plan, modules, surroundings)?;
        let doors = door::open(&daemon).await?;
        daemon.adopt_power();
        Ok(Self { view: BoardView::new(daemon), doors })
    }
    /// A handle for looking at it and for making things happen to it.
    pub fn view(&self) -> BoardView {
        self.view.clone()
    }
    /// Closes the doors and breaks off what runs. The modules keep the power they have.
    pub async fn shutdown(mut self) {
        self.view.daemon().end();
        for door in self.doors.drain(..) {
            door.abort();
            // An aborted door answers with a cancellation, which is what was asked for.
            let _aborted = door.await;
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.view.daemon().end();
        self.doors.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Where a board's doors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// HTTPS; plain HTTP for firmware 1.1.0.
    pub(crate) api: SocketAddr,
    /// Plain HTTP.
    pub(crate) redirect: SocketAddr,
}

impl Addresses {
    /// Before the doors are open.
    const NOWHERE: Self = {
        let nowhere = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
        Self { api: nowhere, redirect: nowhere }
    };
}
