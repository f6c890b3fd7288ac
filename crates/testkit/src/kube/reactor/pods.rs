//! The kubelets: pods on ready nodes start, run, end.

use std::time::Duration;

use serde_json::{Value, json};

use super::Pass;
use crate::kube::{
    network::nth,
    registry::Gvr,
    store::{DeleteOptions, now},
    value::{self, at, condition, deleting, items, namespace, set, text},
};

const MANAGER: &str = "kubelet";
/// Pulling images and starting containers.
const START: Duration = Duration::from_secs(6);
/// What a program that ends by itself takes.
const RUN: Duration = Duration::from_secs(5);
/// Ending after SIGTERM; a pod that asks for less time gets less.
const END: Duration = Duration::from_secs(2);

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    for pod in pass.all("", "pods") {
        let on = text(&pod, &["spec", "nodeName"]);
        let Some(node) = pass.objects.get("", "nodes", "", on).cloned() else { continue };
        if condition(&node, "Ready") != "True" {
            continue;
        }
        if deleting(&pod) {
            let grace = value::int(&pod, &["metadata", "deletionGracePeriodSeconds"])
                .unwrap_or(0)
                .try_into()
                .unwrap_or(0);
            if pass.passed(&pod, "end", END.min(Duration::from_secs(grace))) {
                pass.delete(&Gvr::PODS, &pod, DeleteOptions::now());
            }
            continue;
        }
        match text(&pod, &["status", "phase"]) {
            "Pending" => start(pass, &pod, &node),
            "Running" => run(pass, &pod),
            _ => {}
        }
    }
}

/// What keeps a pod from starting: the reason in its status, and what to say about it.
fn obstacle(pass: &Pass<'_>, pod: &Value) -> Option<(&'static str, &'static str, String)> {
    let space = namespace(pod);
    let exists = |plural: &str, name: &str| pass.objects.get("", plural, space, name).is_some();
    for volume in items(pod, &["spec", "volumes"]) {
        for (source, key, plural) in
            [("configMap", "name", "configmaps"), ("secret", "secretName", "secrets")]
        {
            let wanted = text(volume, &[source, key]);
            if !wanted.is_empty() && volume[source]["optional"] != true && !exists(plural, wanted) {
                let what = plural.trim_end_matches('s');
                let why = format!(
                    "MountVolume.SetUp failed for volume {:?} : {what} {wanted:?} not found",
                    text(volume, &["name"])
                );
                return Some(("ContainerCreating", "FailedMount", why));
            }
        }
    }
    for claim in super::scheduler::claims(pod) {
        let bound = pass
            .objects
            .get("", "persistentvolumeclaims", space, claim)
            .is_some_and(|c| text(c, &["status", "phase"]) == "Bound");
        if !bound {
            return Some((
                "ContainerCreating",
                "FailedMount",
                format!("persistentvolumeclaim {claim:?} is not bound"),
            ));
        }
    }
    for container in ["initContainers", "containers"].iter().flat_map(|l| items(pod, &["spec", l])) {
        let image = text(container, &["image"]);
        if image.contains("nonexistent") {
            let why = format!("Failed to pull image {image:?}: failed to pull and unpack image: not found");
            return Some(("ImagePullBackOff", "Failed", why));
        }
        for env in items(container, &["env"]) {
            for (source, plural) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
                let reference = at(env, &["valueFrom", source]);
                let wanted = text(reference, &["name"]);
                if !wanted.is_empty() && reference["optional"] != true && !exists(plural, wanted) {
                    let why = format!("Error: {} {wanted:?} not found", plural.trim_end_matches('s'));
                    return Some(("CreateContainerConfigError", "Failed", why));
                }
            }
        }
    }
    None
}

fn start(pass: &mut Pass<'_>, pod: &Value, node: &Value) {
    if !pass.passed(pod, "start", START) {
        if items(pod, &["status", "containerStatuses"]).is_empty() {
            wait(pass, pod, node, "ContainerCreating", "");
        }
        return;
    }
    if let Some((reason, event, why)) = obstacle(pass, pod) {
        wait(pass, pod, node, reason, &why);
        pass.event(pod, "kubelet", "Warning", event, &why);
        return;
    }
    let address =
        if pod["spec"]["hostNetwork"] == true { node_address(node) } else { pod_address(pass, node) };
    pass.edit(MANAGER, &Gvr::PODS, pod, |pod| {
        set(pod, &["status", "phase"], "Running");
        value::default(pod, &["status", "startTime"], now());
        set(pod, &["status", "hostIP"], node_address(node));
        set(pod, &["status", "hostIPs"], json!([{"ip": node_address(node)}]));
        set(pod, &["status", "podIP"], address.clone());
        set(pod, &["status", "podIPs"], json!([{"ip": address}]));
        let statuses: Vec<Value> = items(pod, &["spec", "containers"])
            .iter()
            .map(|c| status_of(c, &json!({"running": {"startedAt": now()}}), true))
            .collect();
        set(pod, &["status", "containerStatuses"], statuses);
        let init: Vec<Value> = items(pod, &["spec", "initContainers"])
            .iter()
            .map(|c| {
                let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}});
                status_of(c, &done, true)
            })
            .collect();
        if !init.is_empty() {
            set(pod, &["status", "initContainerStatuses"], init);
        }
        for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
            super::set_condition(pod, kind, "True", "", "");
        }
    });
    let image = items(pod, &["spec", "containers"]).first().map_or("", |c| text(c, &["image"]));
    pass.event(
        pod,
        "kubelet",
        "Normal",
        "Pulled",
        &format!("Container image {image:?} already present on machine"),
    );
    pass.event(pod, "kubelet", "Normal", "Started", "Started container");
}

fn wait(pass: &Pass<'_>, pod: &Value, node: &Value, reason: &str, message: &str) {
    pass.edit(MANAGER, &Gvr::PODS, pod, |pod| {
        value::default(pod, &["status", "startTime"], now());
        set(pod, &["status", "hostIP"], node_address(node));
        let mut waiting = json!({ "reason": reason });
        if !message.is_empty() {
            set(&mut waiting, &["message"], message);
        }
        let statuses: Vec<Value> = items(pod, &["spec", "containers"])
            .iter()
            .map(|c| status_of(c, &json!({ "waiting": waiting }), false))
            .collect();
        set(pod, &["status", "containerStatuses"], statuses);
        super::set_condition(pod, "PodScheduled", "True", "", "");
        super::set_condition(pod, "Initialized", "True", "", "");
        let names: Vec<&str> =
            items(pod, &["spec", "containers"]).iter().map(|c| text(c, &["name"])).collect();
        let unready = format!("containers with unready status: [{}]", names.join(" "));
        super::set_condition(pod, "Ready", "False", "ContainersNotReady", &unready);
        super::set_condition(pod, "ContainersReady", "False", "ContainersNotReady", &unready);
    });
}

fn status_of(container: &Value, state: &Value, ready: bool) -> Value {
    let image = text(container, &["image"]);
    json!({
        "name": text(container, &["name"]), "image": image, "imageID": if ready { format!("{image}@sha256:simulated") } else { String::new() },
        "containerID": if ready { "containerd://simulated" } else { "" },
        "ready": ready, "started": ready, "restartCount": 0, "state": state, "lastState": {},
    })
}

/// With which code a container's program ends by itself; nothing for one that keeps running.
///
/// A program under `restartPolicy: Always` is a server unless its command says otherwise; everything else ends well
/// unless it says otherwise.
fn ends(pod: &Value, container: &Value) -> Option<i64> {
    let words = ["command", "args"].iter().flat_map(|k| items(container, &[k])).filter_map(Value::as_str);
    let line = words.collect::<Vec<_>>().join(" ");
    let code = line.split("exit ").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok()
    });
    if line == "false" || line.ends_with("/false") {
        return Some(1);
    }
    if code.is_some_and(|c| c != 0) {
        return code;
    }
    let endless = ["sleep infinity", "sleep inf", "tail -f", "while true"].iter().any(|w| line.contains(w));
    (text(pod, &["spec", "restartPolicy"]) != "Always" && !endless).then_some(0)
}

fn run(pass: &mut Pass<'_>, pod: &Value) {
    let containers = items(pod, &["spec", "containers"]);
    let codes: Vec<Option<i64>> = containers.iter().map(|c| ends(pod, c)).collect();
    let over = codes.iter().all(Option::is_some) || codes.iter().flatten().any(|c| *c != 0);
    if over && !pass.passed(pod, "run", RUN) {
        return;
    }
    if !over {
        // After its node came back.
        if condition(pod, "Ready") != "True" {
            pass.edit(MANAGER, &Gvr::PODS, pod, |pod| super::set_condition(pod, "Ready", "True", "", ""));
        }
        return;
    }
    let failed = codes.iter().flatten().copied().find(|c| *c != 0);
    let restarts = match text(pod, &["spec", "restartPolicy"]) {
        "Always" => true,
        "OnFailure" => failed.is_some(),
        _ => false,
    };
    pass.edit(MANAGER, &Gvr::PODS, pod, |pod| {
        let statuses: Vec<Value> = items(pod, &["spec", "containers"])
            .iter()
            .zip(&codes)
            .map(|(c, code)| {
                let code = code.unwrap_or(0);
                let reason = if code == 0 { "Completed" } else { "Error" };
                let ended = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}});
                if restarts {
                    let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
                    let mut status = status_of(c, &back_off, false);
                    set(&mut status, &["lastState"], ended);
                    set(&mut status, &["restartCount"], 1);
                    status
                } else {
                    let mut status = status_of(c, &ended, true);
                    set(&mut status, &["ready"], false);
                    set(&mut status, &["started"], false);
                    status
                }
            })
            .collect();
        // A loop that has been reported stays as it is: its times are not news.
        let looping = restarts
            && items(pod, &["status", "containerStatuses"]).iter().any(|s| text(s, &["state", "waiting", "reason"]) == "CrashLoopBackOff");
        if !looping {
            set(pod, &["status", "containerStatuses"], statuses);
        }
        if !restarts {
            set(pod, &["status", "phase"], if failed.is_some() { "Failed" } else { "Succeeded" });
        }
        let why = if restarts { "ContainersNotReady" } else { "PodCompleted" };
        super::set_condition(pod, "Ready", "False", why, "");
        super::set_condition(pod, "ContainersReady", "False", why, "");
    });
}

fn node_address(node: &Value) -> String {
    let addresses = items(node, &["status", "addresses"]);
    let internal =
        addresses.iter().find(|a| text(a, &["type"]) == "InternalIP").map(|a| text(a, &["address"]));
    internal.unwrap_or("127.0.0.1").to_owned()
}

/// The first free address of the node's pod range.
fn pod_address(pass: &Pass<'_>, node: &Value) -> String {
    let Ok(net) = text(node, &["spec", "podCIDR"]).parse::<ipnet::Ipv4Net>() else {
        return node_address(node);
    };
    // Not the snapshot: pods that started in this pass have theirs already.
    let state = pass.store.lock();
    let taken: std::collections::BTreeSet<&str> =
        state.of("/pods").map(|p| text(p, &["status", "podIP"])).collect();
    let free = (2..250).map(|n| nth(net, n).to_string()).find(|ip| !taken.contains(ip.as_str()));
    free.unwrap_or_else(|| nth(net, 250).to_string())
}

/// Whether a pod counts as ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True" && !deleting(pod)
}

/// Whether a pod counts for its controller: not ended, not on its way out.
pub(super) fn is_active(pod: &Value) -> bool {
    !deleting(pod) && !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}
