//! `kubectl get pods`.

use serde_json::{Value, json};

use super::{Layout, age, layout, name, or};
use crate::kube::value::{deleting, int, items, text};

pub(super) fn pods() -> Layout {
    layout("Name, Ready, Status, Restarts, Age | IP, Node, Nominated Node, Readiness Gates", |pod| {
        let statuses = items(pod, &["status", "containerStatuses"]);
        let ready = statuses.iter().filter(|s| s["ready"] == true).count();
        let restarts: i64 = statuses.iter().filter_map(|s| int(s, &["restartCount"])).sum();
        vec![
            name(pod),
            json!(format!("{ready}/{}", items(pod, &["spec", "containers"]).len())),
            json!(status(pod)),
            json!(restarts.to_string()),
            age(pod),
            or(pod, &["status", "podIP"], "<none>"),
            or(pod, &["spec", "nodeName"], "<none>"),
            or(pod, &["status", "nominatedNodeName"], "<none>"),
            json!("<none>"),
        ]
    })
}

/// The word in the STATUS column: the phase, or the reason that says more.
fn status(pod: &Value) -> String {
    if deleting(pod) {
        let lost = text(pod, &["status", "reason"]) == "NodeLost";
        return if lost { "Unknown" } else { "Terminating" }.to_owned();
    }
    let statuses = items(pod, &["status", "containerStatuses"]);
    let why = statuses.iter().rev().find_map(|s| {
        let state = |kind: &str| text(s, &["state", kind, "reason"]);
        [state("waiting"), state("terminated")].into_iter().find(|r| !r.is_empty())
    });
    let own = text(pod, &["status", "reason"]);
    match why {
        Some(why) => why.to_owned(),
        None if !own.is_empty() => own.to_owned(),
        None => text(pod, &["status", "phase"]).to_owned(),
    }
}
