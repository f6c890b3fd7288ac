//! Who may do what: roles and bindings, as they lie in the store.

use serde_json::{Value, json};

use super::{
    auth::Caller,
    status::StatusError,
    store::Snapshot,
    value::{self, items, text},
};

/// What a caller wants to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With its subresource: `pods/eviction`.
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Set for what is no resource: `/version`.
    pub(crate) path: String,
}

/// Whether roles bound to the caller allow the attempt.
pub(crate) fn allowed(objects: &Snapshot, caller: &Caller, attempt: &Attempt) -> bool {
    caller.is_in("system:masters")
        || rules(objects, caller, &attempt.namespace).iter().any(|rule| covers(rule, attempt))
}

/// The rules that apply to a caller in a namespace (and in the whole cluster).
pub(crate) fn rules(objects: &Snapshot, caller: &Caller, namespace: &str) -> Vec<Value> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if caller.is_in("system:masters") {
        return vec![
            json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
            json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
        ];
    }
    let mut out = Vec::new();
    let cluster = objects.of(GROUP, "clusterrolebindings");
    let local = objects
        .of(GROUP, "rolebindings")
        .filter(|b| value::namespace(b) == namespace && !namespace.is_empty());
    for binding in cluster.chain(local) {
        if !items(binding, &["subjects"]).iter().any(|s| is_subject(caller, s, binding)) {
            continue;
        }
        let name = text(binding, &["roleRef", "name"]);
        let role = match text(binding, &["roleRef", "kind"]) {
            "ClusterRole" => objects.get(GROUP, "clusterroles", "", name),
            _ => objects.get(GROUP, "roles", value::namespace(binding), name),
        };
        out.extend(role.into_iter().flat_map(|r| items(r, &["rules"])).cloned());
    }
    out
}

fn is_subject(caller: &Caller, subject: &Value, binding: &Value) -> bool {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => caller.user == name,
        "Group" => caller.is_in(name),
        _ => {
            let given = text(subject, &["namespace"]);
            let namespace = if given.is_empty() { value::namespace(binding) } else { given };
            caller.user == format!("system:serviceaccount:{namespace}:{name}")
        }
    }
}

fn covers(rule: &Value, attempt: &Attempt) -> bool {
    let has = |key: &str, wanted: &str| items(rule, &[key]).iter().any(|v| v == "*" || v == wanted);
    if !has("verbs", &attempt.verb) {
        return false;
    }
    if !attempt.path.is_empty() {
        return items(rule, &["nonResourceURLs"]).iter().filter_map(Value::as_str).any(|p| {
            p == "*"
                || p == attempt.path
                || p.strip_suffix('*').is_some_and(|prefix| attempt.path.starts_with(prefix))
        });
    }
    let any_sub =
        attempt.resource.split_once('/').is_some_and(|(_, sub)| has("resources", &format!("*/{sub}")));
    let names = items(rule, &["resourceNames"]);
    has("apiGroups", &attempt.group)
        && (has("resources", &attempt.resource) || any_sub)
        && (names.is_empty() || names.iter().any(|n| n == attempt.name.as_str()))
}

/// The refusal, as the real server words it.
pub(crate) fn forbidden(caller: &Caller, attempt: &Attempt) -> StatusError {
    if !attempt.path.is_empty() {
        let why =
            format!("forbidden: User {:?} cannot {} path {:?}", caller.user, attempt.verb, attempt.path);
        return StatusError::new(403, "Forbidden", why);
    }
    let place = if attempt.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", attempt.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {place}",
        caller.user, attempt.verb, attempt.resource, attempt.group
    );
    let plural = attempt.resource.split('/').next().unwrap_or_default();
    StatusError::forbidden(&attempt.group, plural, &attempt.name, &why)
}
