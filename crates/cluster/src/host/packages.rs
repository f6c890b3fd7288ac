//! Debian packages, installed without asking and without stepping on another package manager.

use std::time::Duration;

use turingpi_engine::{Failure, Probe, StepContext};
use turingpi_ssh::Command;

use crate::Host;

/// Prints the names of package managers that run now. unattended-upgrades keeps an idle process for ever, so it is not
/// looked for: apt's own lock timeout covers it.
const BUSY: &str = r#"
for comm in /proc/[0-9]*/comm; do
  name=
  if [ -r "$comm" ]; then name=$(cat "$comm" 2>/dev/null || true); fi
  case $name in apt | apt-get | aptitude | dpkg) printf '%s\n' "$name" ;; esac
done
"#;

const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a NEEDRESTART_SUSPEND=1
# A cloud-init that never ends must not keep us: after ten minutes apt's own lock decides.
if command -v cloud-init >/dev/null 2>&1; then timeout 600 cloud-init status --wait >/dev/null 2>&1 || true; fi
dpkg --configure -a
apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq update
apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq -y --no-install-recommends install "$@"
"#;

impl Host {
    /// Installs Debian packages; waits while another package manager runs.
    ///
    /// # Errors
    /// `Timeout` when another package manager does not end; `Refused`, retryable, when apt fails.
    pub async fn install_packages(&self, packages: &[String], cx: &StepContext) -> Result<(), Failure> {
        let condition = format!("no other package manager runs on {}", self.name());
        self.wait(cx, &condition, Duration::from_secs(600), || async {
            let names = self.script("look for package managers", BUSY, &[]).await?;
            let names: Vec<&str> = names.split_whitespace().collect();
            Ok(if names.is_empty() {
                Probe::Ready(())
            } else {
                Probe::NotYet(format!("{} runs", names.join(", ")))
            })
        })
        .await?;
        let what = format!("install {}", packages.join(", "));
        let command = packages.iter().fold(Command::script(INSTALL).as_root(), Command::arg);
        let output = self.run(&what, &command.limit(Duration::from_secs(1800))).await?;
        if output.success() {
            return Ok(());
        }
        // apt has one exit code (100) for a mirror that is away, a lock and a package that does not exist.
        Err(self
            .refused(&what, &output)
            .retryable()
            .hint("Check that the node reaches its package mirrors (network, DNS, clock) and that every package in `host.packages` exists for its release."))
    }
}
