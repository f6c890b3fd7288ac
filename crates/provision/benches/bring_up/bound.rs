//! The least time a bring-up can take, from the hardware's durations alone. Nothing in here knows our engine.
//!
//! With `m` modules on a board and nominal durations `d`, the only constraints are:
//!
//! - a board transfers one image at a time, so module `i` of a board (counted from 1, servers first) is written at
//!   `flash(i) = i · (d.flash_boot + d.flash_write + d.flash_verify)`;
//! - a node can carry k3s after its first boot, its packages, and the reboot that takes Armbian's log disk out of
//!   memory: `host(i) = flash(i) + d.boot + d.apt + d.boot`;
//! - the server's API serves at `api = host(server) + d.k3s_server`;
//! - an agent is registered at `max(host(i), api) + d.k3s_agent`, and every node is Ready `d.node_ready` after that.
//!
//! The bound is the maximum over all nodes, times the pace. Boards do not wait for each other.
//!
//! That bound leaves out what the simulated world also takes, and no client can avoid (constants of testkit): the
//! second that the boot pin is held and two power switches for each flash, a switch at power-on, `apt-get update` (a
//! fifth of `apt`), the first-run service (a tenth of `boot`), half a second to shut down. [`Bound::world`] has them in.

use std::time::Duration;

use turingpi_testkit::Durations;

/// Both bounds, nominal: to be multiplied by the pace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// From [`Durations`] alone.
    pub(crate) strict: Duration,
    /// With the unnamed delays of the simulated world.
    pub(crate) world: Duration,
}

/// The nominal durations of one node's parts.
struct Parts {
    flash: Duration,
    host: Duration,
}

impl Bound {
    /// Of one server and otherwise agents on boards with `modules` modules each.
    pub(crate) fn of(d: &Durations, modules: u32) -> Self {
        let strict =
            Parts { flash: d.flash_boot + d.flash_write + d.flash_verify, host: d.boot + d.apt + d.boot };
        let millis = Duration::from_millis;
        let world = Parts {
            flash: strict.flash + millis(1_000 + 2 * 100),
            host: strict.host + millis(100) + d.apt / 5 + d.boot / 10 + millis(500),
        };
        Self { strict: end(d, modules, &strict), world: end(d, modules, &world) }
    }
}

fn end(d: &Durations, modules: u32, parts: &Parts) -> Duration {
    let host = |position: u32| parts.flash * position + parts.host;
    let api = host(1) + d.k3s_server;
    let agent = |position: u32| host(position).max(api) + d.k3s_agent + d.node_ready;
    (2..=modules).map(agent).fold(api + d.node_ready, Duration::max)
}
