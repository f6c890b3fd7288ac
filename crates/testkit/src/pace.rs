//! How fast simulated time passes.

use std::time::Duration;

/// Scales every simulated duration by one factor.
///
/// `1.0` is about as slow as a real board, the demo runs at a fraction of it, tests at (almost) nothing. Durations are
/// the nominal ones of [`Durations`]; doors and nodes never sleep without going through [`Pace::sleep`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace(f64);

impl Pace {
    /// About as slow as a real board.
    pub const REAL: Self = Self(1.0);
    /// Real progress to look at, a whole board in well under a minute.
    pub const DEMO: Self = Self(0.08);
    /// For tests: milliseconds.
    pub const INSTANT: Self = Self(0.0005);

    /// Any factor from 0 (no waiting at all) on.
    pub fn scaled(factor: f64) -> Self {
        Self(factor.max(0.0))
    }
    /// `nominal` as it passes here.
    pub fn scale(self, nominal: Duration) -> Duration {
        nominal.mul_f64(self.0)
    }
    /// Sleeps for `nominal`, scaled.
    pub async fn sleep(self, nominal: Duration) {
        let real = self.scale(nominal);
        if !real.is_zero() {
            tokio::time::sleep(real).await;
        }
    }
}

/// Nominal durations of the simulated hardware and software.
///
/// Sources: figures of the reference sheets where there are any, rounded; the rest are plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// Power-on until the module's USB loader answers the BMC.
    pub flash_boot: Duration,
    /// Writing one whole image to eMMC.
    pub flash_write: Duration,
    /// Reading it back.
    pub flash_verify: Duration,
    /// Power-on until sshd answers.
    pub boot: Duration,
    /// Installing a set of packages with apt.
    pub apt: Duration,
    /// `systemctl start k3s` until the API answers.
    pub k3s_server: Duration,
    /// `systemctl start k3s-agent` until the kubelet registered.
    pub k3s_agent: Duration,
    /// A registered node until it is Ready.
    pub node_ready: Duration,
    /// A server that joins until it is a voting etcd member.
    pub etcd_voter: Duration,
    /// Power loss until the node object is NotReady.
    pub node_lost: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            flash_boot: s(6),
            flash_write: s(60),
            flash_verify: s(20),
            boot: s(45),
            apt: s(30),
            k3s_server: s(45),
            k3s_agent: s(20),
            node_ready: s(15),
            etcd_voter: s(20),
            node_lost: s(40),
        }
    }
}
