//! Deployments and what else runs pods.

use serde_json::{Value, json};

use super::{Layout, age, containers, human, layout, name, number, or, since};
use crate::kube::{
    registry::ResourceType,
    selectors::LabelSelector,
    store::parse_time,
    value::{at, condition, int, text},
};

pub(super) fn layout_of(t: &ResourceType) -> Layout {
    match t.plural.as_str() {
        "deployments" => {
            layout("Name, Ready, #Up-to-date, #Available, Age | Containers, Images, Selector", |o| {
                let mut row = vec![
                    name(o),
                    ready(o, "readyReplicas"),
                    number(o, &["status", "updatedReplicas"]),
                    number(o, &["status", "availableReplicas"]),
                    age(o),
                ];
                wide(o, &mut row);
                row
            })
        }
        "replicasets" => {
            layout("Name, #Desired, #Current, #Ready, Age | Containers, Images, Selector", |o| {
                let mut row = vec![
                    name(o),
                    number(o, &["spec", "replicas"]),
                    number(o, &["status", "replicas"]),
                    number(o, &["status", "readyReplicas"]),
                    age(o),
                ];
                wide(o, &mut row);
                row
            })
        }
        "statefulsets" => layout("Name, Ready, Age | Containers, Images", |o| {
            let mut row = vec![name(o), ready(o, "readyReplicas"), age(o)];
            row.extend(containers(at(o, &["spec", "template", "spec"])));
            row
        }),
        "daemonsets" => layout(
            "Name, #Desired, #Current, #Ready, #Up-to-date, #Available, Node Selector, Age | Containers, Images, Selector",
            |o| {
                let status = |key: &str| number(o, &["status", key]);
                let selector =
                    LabelSelector::of_map(at(o, &["spec", "template", "spec", "nodeSelector"])).to_text();
                let mut row = vec![
                    name(o),
                    status("desiredNumberScheduled"),
                    status("currentNumberScheduled"),
                    status("numberReady"),
                    status("updatedNumberScheduled"),
                    status("numberAvailable"),
                    json!(if selector.is_empty() { "<none>" } else { &selector }),
                    age(o),
                ];
                wide(o, &mut row);
                row
            },
        ),
        "jobs" => layout("Name, Status, Completions, Duration, Age | Containers, Images, Selector", |o| {
            let wanted = int(o, &["spec", "completions"]).unwrap_or(1);
            let done = int(o, &["status", "succeeded"]).unwrap_or(0);
            let mut row =
                vec![name(o), json!(job_status(o)), json!(format!("{done}/{wanted}")), duration(o), age(o)];
            wide(o, &mut row);
            row
        }),
        "cronjobs" => layout(
            "Name, Schedule, Timezone, Suspend, #Active, Last Schedule, Age | Containers, Images, Selector",
            |o| {
                let last = text(o, &["status", "lastScheduleTime"]);
                let mut row = vec![
                    name(o),
                    or(o, &["spec", "schedule"], ""),
                    or(o, &["spec", "timeZone"], "<none>"),
                    json!(if o["spec"]["suspend"] == true { "True" } else { "False" }),
                    json!(o["status"]["active"].as_array().map_or(0, Vec::len)),
                    if last.is_empty() { json!("<none>") } else { since(last) },
                    age(o),
                ];
                row.extend(containers(at(o, &["spec", "jobTemplate", "spec", "template", "spec"])));
                row.push(json!("<none>"));
                row
            },
        ),
        "poddisruptionbudgets" => {
            layout("Name, Min Available, Max Unavailable, #Allowed Disruptions, Age", |o| {
                let either = |key: &str| match &o["spec"][key] {
                    Value::Null => json!("N/A"),
                    Value::String(s) => json!(s),
                    other => json!(other.to_string()),
                };
                vec![
                    name(o),
                    either("minAvailable"),
                    either("maxUnavailable"),
                    number(o, &["status", "disruptionsAllowed"]),
                    age(o),
                ]
            })
        }
        "horizontalpodautoscalers" => {
            layout("Name, Reference, Targets, Minpods, Maxpods, #Replicas, Age", |o| {
                let target = &o["spec"]["scaleTargetRef"];
                vec![
                    name(o),
                    json!(format!("{}/{}", text(target, &["kind"]), text(target, &["name"]))),
                    json!("<unknown>"),
                    json!(o["spec"]["minReplicas"].to_string()),
                    json!(o["spec"]["maxReplicas"].to_string()),
                    number(o, &["status", "currentReplicas"]),
                    age(o),
                ]
            })
        }
        _ => layout("Name, Age", |o| vec![name(o), age(o)]),
    }
}

fn ready(o: &Value, key: &str) -> Value {
    let wanted = int(o, &["spec", "replicas"]).unwrap_or(1);
    json!(format!("{}/{wanted}", int(o, &["status", key]).unwrap_or(0)))
}

fn wide(o: &Value, row: &mut Vec<Value>) {
    row.extend(containers(at(o, &["spec", "template", "spec"])));
    row.push(json!(LabelSelector::of_object(&o["spec"]["selector"]).to_text()));
}

fn job_status(o: &Value) -> &'static str {
    if condition(o, "Complete") == "True" {
        "Complete"
    } else if condition(o, "Failed") == "True" {
        "Failed"
    } else if o["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if condition(o, "Suspended") == "True" {
        "Suspended"
    } else {
        "Running"
    }
}

fn duration(o: &Value) -> Value {
    let Some(start) = parse_time(text(o, &["status", "startTime"])) else { return json!("") };
    let end =
        parse_time(text(o, &["status", "completionTime"])).unwrap_or_else(time::OffsetDateTime::now_utc);
    json!(human((end - start).whole_seconds()))
}
