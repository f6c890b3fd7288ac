//! Validation of the important built-in kinds.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::meta::{is_dns_label, is_label_value, is_qualified, labels};
use crate::kube::{
    registry::{ResourceType, custom_types},
    selectors::LabelSelector,
    status::Cause,
    value::{self, at, items, text},
};

/// All violations of one object.
pub(super) fn object(t: &ResourceType, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let c = &mut causes;
    let spec = &object["spec"];
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "pods") => pod_spec(spec, "spec", c),
        ("", "configmaps") => data_keys(object, &["data", "binaryData"], c),
        ("", "secrets") => secret(object, c),
        ("", "services") => service(spec, c),
        ("", "nodes") => {
            for (i, taint) in items(spec, &["taints"]).iter().enumerate() {
                if !is_qualified(text(taint, &["key"])) || !is_label_value(text(taint, &["value"])) {
                    c.push(Cause::invalid(
                        format!("spec.taints[{i}]"),
                        taint,
                        "key and value must be label-like",
                    ));
                }
                one_of(
                    taint,
                    "effect",
                    &format!("spec.taints[{i}].effect"),
                    &["NoSchedule", "PreferNoSchedule", "NoExecute"],
                    c,
                );
            }
        }
        ("", "persistentvolumeclaims") => {
            if items(spec, &["accessModes"]).is_empty() {
                c.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if at(spec, &["resources", "requests", "storage"]).is_null() {
                c.push(Cause::required("spec.resources[storage]", ""));
            }
        }
        ("apps", plural) if plural != "controllerrevisions" => workload(plural, spec, c),
        ("batch", "jobs") => {
            let policy = text(spec, &["template", "spec", "restartPolicy"]);
            if !matches!(policy, "Never" | "OnFailure") {
                let field = "spec.template.spec.restartPolicy";
                c.push(Cause::unsupported(field, &json!(policy), &["OnFailure", "Never"]));
            }
            pod_spec(at(spec, &["template", "spec"]), "spec.template.spec", c);
        }
        ("batch", "cronjobs") => {
            if text(spec, &["schedule"]).split_whitespace().count() != 5
                && !text(spec, &["schedule"]).starts_with('@')
            {
                let why = "expected exactly 5 fields, found a different number";
                c.push(Cause::invalid("spec.schedule", &spec["schedule"], why));
            }
            pod_spec(
                at(spec, &["jobTemplate", "spec", "template", "spec"]),
                "spec.jobTemplate.spec.template.spec",
                c,
            );
        }
        ("storage.k8s.io", "storageclasses") => {
            required(object, "provisioner", "provisioner", c);
            one_of(object, "reclaimPolicy", "reclaimPolicy", &["Delete", "Retain"], c);
            one_of(
                object,
                "volumeBindingMode",
                "volumeBindingMode",
                &["Immediate", "WaitForFirstConsumer"],
                c,
            );
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            let kinds: &[&str] = if t.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
            one_of(&object["roleRef"], "kind", "roleRef.kind", kinds, c);
            required(&object["roleRef"], "name", "roleRef.name", c);
            for (i, subject) in items(object, &["subjects"]).iter().enumerate() {
                let field = format!("subjects[{i}]");
                one_of(subject, "kind", &format!("{field}.kind"), &["ServiceAccount", "User", "Group"], c);
                required(subject, "name", &format!("{field}.name"), c);
                if subject["kind"] == "ServiceAccount" && t.plural == "clusterrolebindings" {
                    required(subject, "namespace", &format!("{field}.namespace"), c);
                }
            }
        }
        ("rbac.authorization.k8s.io", _) => {
            for (i, rule) in items(object, &["rules"]).iter().enumerate() {
                if items(rule, &["verbs"]).is_empty() {
                    c.push(Cause::required(
                        format!("rules[{i}].verbs"),
                        "verbs must contain at least one value",
                    ));
                }
            }
        }
        ("networking.k8s.io", "ingresses") => ingress(spec, c),
        ("policy", "poddisruptionbudgets")
            if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() =>
        {
            c.push(Cause::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
        }
        ("coordination.k8s.io", "leases") => {
            for field in ["leaseDurationSeconds", "leaseTransitions"] {
                let least = i64::from(field == "leaseDurationSeconds");
                if spec[field].as_i64().is_some_and(|n| n < least) {
                    c.push(Cause::invalid(format!("spec.{field}"), &spec[field], "must be greater than 0"));
                }
            }
        }
        ("apiextensions.k8s.io", _) => crd(object, c),
        _ => {}
    }
    causes
}

fn required(object: &Value, key: &str, field: &str, causes: &mut Vec<Cause>) {
    if text(object, &[key]).is_empty() {
        causes.push(Cause::required(field, ""));
    }
}

fn one_of(object: &Value, key: &str, field: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    let given = text(object, &[key]);
    if !allowed.contains(&given) {
        causes.push(Cause::unsupported(field, &json!(given), allowed));
    }
}

fn data_keys(object: &Value, maps: &[&str], causes: &mut Vec<Cause>) {
    let mut size = 0;
    for map in maps {
        for (key, v) in at(object, &[map]).as_object().into_iter().flatten() {
            size += v.as_str().map_or(0, str::len);
            let fine = !key.is_empty()
                && key.len() <= 253
                && !matches!(key.as_str(), "." | "..")
                && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !fine {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{map}[{key}]"), &json!(key), why));
            }
        }
    }
    if size > 1024 * 1024 {
        let message = "Too long: may not be more than 1048576 bytes".to_owned();
        causes.push(Cause { reason: "FieldValueTooLong", message, field: String::new() });
    }
}

fn secret(object: &Value, causes: &mut Vec<Cause>) {
    data_keys(object, &["data"], causes);
    for (key, v) in at(object, &["data"]).as_object().into_iter().flatten() {
        if v.as_str().is_none_or(|s| STANDARD.decode(s).is_err()) {
            causes.push(Cause::invalid(format!("data[{key}]"), &json!("<hidden>"), "illegal base64 data"));
        }
    }
    let needs: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs {
        if at(object, &["data", key]).is_null() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
}

fn service(spec: &Value, causes: &mut Vec<Cause>) {
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec, "type", "spec.type", &kinds, causes);
    let ports = items(spec, &["ports"]);
    let external = spec["type"] == "ExternalName";
    if external {
        required(spec, "externalName", "spec.externalName", causes);
    } else if ports.is_empty() && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let why = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("spec.ports[{i}].port"), &json!(number), why));
        }
        one_of(port, "protocol", &format!("spec.ports[{i}].protocol"), &["SCTP", "TCP", "UDP"], causes);
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("spec.ports[{i}].name"), ""));
        } else if !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(format!("spec.ports[{i}].name"), &json!(name)));
        }
    }
    labels(&spec["selector"], "spec.selector", causes);
}

fn workload(plural: &str, spec: &Value, causes: &mut Vec<Cause>) {
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let template = &spec["template"];
    let template_labels = at(template, &["metadata", "labels"]);
    if spec["selector"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let selector = LabelSelector::of_object(&spec["selector"]);
    if selector.is_empty() && !spec["selector"].is_null() {
        let why = format!("empty selector is invalid for {plural}");
        causes.push(Cause::invalid("spec.selector", &spec["selector"], &why));
    } else if !selector.matches_labels(template_labels) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", template_labels, why));
    }
    labels(template_labels, "spec.template.metadata.labels", causes);
    let policy = text(template, &["spec", "restartPolicy"]);
    if policy != "Always" {
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", &json!(policy), &["Always"]));
    }
    let mut pod = template["spec"].clone();
    // A claim template is a volume of its name.
    for claim in items(spec, &["volumeClaimTemplates"]) {
        value::list(&mut pod, &["volumes"]).push(json!({"name": value::name(claim)}));
    }
    pod_spec(&pod, "spec.template.spec", causes);
}

fn pod_spec(spec: &Value, field: &str, causes: &mut Vec<Cause>) {
    one_of(
        spec,
        "restartPolicy",
        &format!("{field}.restartPolicy"),
        &["Always", "OnFailure", "Never"],
        causes,
    );
    if items(spec, &["containers"]).is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let volumes: BTreeSet<&str> = items(spec, &["volumes"]).iter().map(|v| text(v, &["name"])).collect();
    if volumes.len() < items(spec, &["volumes"]).len() {
        causes.push(Cause::duplicate(format!("{field}.volumes"), &json!("name")));
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in items(spec, &[list]).iter().enumerate() {
            let field = format!("{field}.{list}[{i}]");
            let name = text(container, &["name"]);
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.name"), ""));
            } else if !is_dns_label(name) {
                let why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
                causes.push(Cause::invalid(format!("{field}.name"), &json!(name), why));
            } else if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &json!(name)));
            }
            required(container, "image", &format!("{field}.image"), causes);
            for (j, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
                let name = text(mount, &["name"]);
                if !volumes.contains(name) {
                    let message = format!("Not found: {name:?}");
                    let field = format!("{field}.volumeMounts[{j}].name");
                    causes.push(Cause { reason: "FieldValueNotFound", message, field });
                }
                required(mount, "mountPath", &format!("{field}.volumeMounts[{j}].mountPath"), causes);
            }
            for (j, env) in items(container, &["env"]).iter().enumerate() {
                required(env, "name", &format!("{field}.env[{j}].name"), causes);
            }
            for (j, port) in items(container, &["ports"]).iter().enumerate() {
                if !port["containerPort"].as_i64().is_some_and(|p| (1..=65535).contains(&p)) {
                    let field = format!("{field}.ports[{j}].containerPort");
                    causes.push(Cause::invalid(
                        field,
                        &port["containerPort"],
                        "must be between 1 and 65535, inclusive",
                    ));
                }
            }
        }
    }
    for (i, t) in items(spec, &["tolerations"]).iter().enumerate() {
        if text(t, &["key"]).is_empty() && text(t, &["operator"]) != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.push(Cause::invalid(format!("{field}.tolerations[{i}].operator"), &t["operator"], why));
        }
    }
}

fn ingress(spec: &Value, causes: &mut Vec<Cause>) {
    if items(spec, &["rules"]).is_empty() && spec["defaultBackend"].is_null() {
        causes.push(Cause::invalid(
            "spec",
            &json!({}),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (i, rule) in items(spec, &["rules"]).iter().enumerate() {
        for (j, path) in items(rule, &["http", "paths"]).iter().enumerate() {
            let field = format!("spec.rules[{i}].http.paths[{j}]");
            if path["pathType"].is_null() {
                causes.push(Cause::required(format!("{field}.pathType"), "pathType must be specified"));
            } else {
                let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
                one_of(path, "pathType", &format!("{field}.pathType"), &kinds, causes);
            }
            if text(path, &["backend", "service", "name"]).is_empty() && path["backend"]["resource"].is_null()
            {
                causes.push(Cause::required(
                    format!("{field}.backend"),
                    "either service or resource must be specified",
                ));
            }
        }
    }
}

fn crd(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let group = text(spec, &["group"]);
    let plural = text(spec, &["names", "plural"]);
    let wanted = format!("{plural}.{group}");
    if value::name(object) != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(value::name(object)), why));
    }
    required(spec, "group", "spec.group", causes);
    required(&spec["names"], "plural", "spec.names.plural", causes);
    required(&spec["names"], "kind", "spec.names.kind", causes);
    one_of(spec, "scope", "spec.scope", &["Cluster", "Namespaced"], causes);
    let versions = items(spec, &["versions"]);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (i, version) in versions.iter().enumerate() {
        if !version.pointer("/schema/openAPIV3Schema").is_some_and(Value::is_object) {
            let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, "schemas are required"));
        }
    }
    if causes.is_empty() && custom_types(object).is_empty() {
        let why = "must have at least one served version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
}
