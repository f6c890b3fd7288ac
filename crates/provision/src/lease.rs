//! The lock that others can see: a Lease in the cluster, beside the lock file that only this machine sees.
//!
//! Two people with two checkouts of one document have two lock files. As soon as a cluster has an API, a run holds the
//! Lease `kube-system/turingpi` and renews it; another run refuses to start while it is fresh.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinHandle;
use turingpi_cluster::kube::{ClusterApi, ObjectRef};
use turingpi_engine::{Failure, FailureClass};

const DURATION: Duration = Duration::from_secs(60);
const RENEW: Duration = Duration::from_secs(20);
const MANAGER: &str = "turingpi-lock";

/// A held Lease. Renewed until released; when its holder is killed it runs out by itself.
pub(crate) struct Lease {
    api: Arc<dyn ClusterApi>,
    renewal: JoinHandle<()>,
}

fn object() -> ObjectRef {
    ObjectRef::namespaced("coordination.k8s.io/v1", "Lease", "kube-system", "turingpi")
}

/// Kubernetes' MicroTime.
fn micro_time(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(at.microsecond() * 1000).unwrap_or(at);
    let text = at.format(&Rfc3339).unwrap_or_default();
    match text.split_once('.') {
        Some((seconds, rest)) => {
            format!("{seconds}.{:0<6}Z", rest.trim_end_matches('Z').chars().take(6).collect::<String>())
        }
        None => format!("{}.000000Z", text.trim_end_matches('Z')),
    }
}

fn spec(holder: &str) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": DURATION.as_secs(),
        "renewTime": micro_time(OffsetDateTime::now_utc()),
    })
}

/// Who holds a Lease that has not run out; `None` when it is free.
fn held_by(lease: &Value, now: OffsetDateTime) -> Option<&str> {
    let spec = lease.get("spec")?;
    let holder = spec.get("holderIdentity")?.as_str().filter(|h| !h.is_empty())?;
    let renewed = OffsetDateTime::parse(spec.get("renewTime")?.as_str()?, &Rfc3339).ok()?;
    let seconds = spec.get("leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(DURATION.as_secs());
    (now < renewed + Duration::from_secs(seconds)).then_some(holder)
}

impl Lease {
    /// Takes the Lease as `holder`, also from a run of the same holder that was killed.
    ///
    /// # Errors
    /// `Locked`, naming the holder, while somebody else renews it.
    pub(crate) async fn acquire(api: Arc<dyn ClusterApi>, holder: &str) -> Result<Self, Failure> {
        let locked = |who: &str| {
            Failure::new(FailureClass::Locked, format!("{who} is working on this cluster"))
                .hint("Wait until that run has ended. If it was killed, its lock runs out within a minute.")
        };
        match api.get(&object()).await? {
            Some(lease) => {
                if let Some(other) = held_by(&lease, OffsetDateTime::now_utc()).filter(|h| *h != holder) {
                    return Err(locked(other));
                }
                // With the version that was read: whoever else takes it in between makes this a conflict.
                let version = lease.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec(holder) });
                api.merge_patch(&object(), &patch).await.map_err(|e| locked("somebody else").source(e))?;
            }
            None => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": { "name": "turingpi", "namespace": "kube-system" },
                    "spec": spec(holder),
                });
                api.apply(&lease, MANAGER).await?;
                let now = api.get(&object()).await?.unwrap_or_default();
                if let Some(other) = held_by(&now, OffsetDateTime::now_utc()).filter(|h| *h != holder) {
                    return Err(locked(other));
                }
            }
        }
        let renewal = tokio::spawn(renew(Arc::clone(&api), holder.to_owned()));
        Ok(Self { api, renewal })
    }

    /// Gives the Lease back. A cluster that was taken down meanwhile has none to give back.
    pub(crate) async fn release(self) {
        self.renewal.abort();
        let patch = json!({ "spec": { "holderIdentity": null, "renewTime": null } });
        let _ = tokio::time::timeout(Duration::from_secs(5), self.api.merge_patch(&object(), &patch)).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Keeps the Lease fresh. A renewal that fails (a restart of the only server) is made up for by the next one.
async fn renew(api: Arc<dyn ClusterApi>, holder: String) {
    loop {
        tokio::time::sleep(RENEW).await;
        let _ = api.merge_patch(&object(), &json!({ "spec": spec(&holder) })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_while_it_is_fresh_and_has_a_holder() {
        let now = OffsetDateTime::now_utc();
        let lease = |holder: &str, age: i64| {
            let renewed = micro_time(now - time::Duration::seconds(age));
            json!({ "spec": { "holderIdentity": holder, "leaseDurationSeconds": 60, "renewTime": renewed } })
        };
        assert_eq!(held_by(&lease("ann@desk", 10), now), Some("ann@desk"));
        assert_eq!(held_by(&lease("ann@desk", 70), now), None);
        assert_eq!(held_by(&lease("", 10), now), None);
        assert_eq!(held_by(&json!({ "spec": {} }), now), None);
    }

    #[test]
    fn times_have_six_digits_behind_the_second() {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(micro_time(at), "2023-11-14T22:13:20.000000Z");
        assert_eq!(micro_time(at + Duration::from_micros(1500)), "2023-11-14T22:13:20.001500Z");
    }
}
