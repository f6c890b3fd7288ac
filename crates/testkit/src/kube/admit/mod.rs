//! What happens to an object on its way in: defaults, allocation, validation.

mod defaults;
mod fields;
mod immutable;
mod meta;
mod pods;
mod validate;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    network,
    registry::ResourceType,
    status::{Result, StatusError},
    store::{Part, State, WriteOptions},
    value::{self, set, text},
};

/// Completes `new` and refuses what the real server would refuse. What comes back is the object as its writer owns it:
/// with defaults, without what admission added.
///
/// # Errors
/// 400 for values of a wrong type, 403 from admission, 422 with one cause a field.
pub(crate) fn prepare(
    state: &State,
    t: &Arc<ResourceType>,
    live: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
) -> Result<Value> {
    let name = value::name(new).to_owned();
    let invalid = |causes: &[_]| StatusError::invalid(&t.group, &t.kind, &name, causes);
    meta::types(t, new)?;
    fields::check(t, new, options.strict)?;
    defaults::fill(t, live, new);
    let mut causes = meta::validate(t, live, new);
    if let Some(schema) = t.custom.as_ref().and_then(|c| c.schema.as_ref()) {
        let unknown = schema.prune(new);
        if options.strict && !unknown.is_empty() {
            let list = unknown.iter().map(|f| format!("unknown field {f:?}")).collect::<Vec<_>>().join(", ");
            return Err(StatusError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {list}",
                t.kind, t.version, t.kind
            )));
        }
        schema.fill(new);
        causes.extend(schema.validate(new));
    }
    // What admission adds from here on is nobody's.
    let written = new.clone();
    if t.is("", "pods") && live.is_none() {
        pods::admit(state, new)?;
    }
    if t.is("", "persistentvolumeclaims") && live.is_none() {
        default_class(state, new);
    }
    if t.is("", "nodes") {
        node_network(state, new);
    }
    causes.extend(validate::object(t, new));
    if let Some(live) = live
        && options.part != Part::All
    {
        causes.extend(immutable::check(t, live, new));
    }
    if !causes.is_empty() {
        return Err(invalid(&causes));
    }
    if t.is("", "services") {
        network::allocate_service(state, new).map_err(|cause| invalid(&[cause]))?;
    }
    Ok(written)
}

/// A claim without a class gets the default one (`storageClassName: ""` asks for none).
fn default_class(state: &State, claim: &mut Value) {
    if claim["spec"]["storageClassName"].is_string() {
        return;
    }
    let default = state
        .of("storage.k8s.io/storageclasses")
        .find(|c| value::annotation(c, "storageclass.kubernetes.io/is-default-class") == Some("true"));
    if let Some(class) = default {
        set(claim, &["spec", "storageClassName"], value::name(class));
    }
}

/// A node gets its part of the pod range, as the controller manager allocates it.
fn node_network(state: &State, node: &mut Value) {
    if !text(node, &["spec", "podCIDR"]).is_empty() {
        return;
    }
    let taken: Vec<&str> = state.of("/nodes").map(|n| text(n, &["spec", "podCIDR"])).collect();
    let free = state.network.pods.subnets(24.max(state.network.pods.prefix_len()));
    let free =
        free.into_iter().flatten().map(|net| net.to_string()).find(|net| !taken.contains(&net.as_str()));
    if let Some(net) = free {
        set(node, &["spec", "podCIDR"], net.clone());
        set(node, &["spec", "podCIDRs"], json!([net]));
    }
}

/// The account that every namespace has from the start.
pub(crate) fn fill_namespace(
    _namespace: &str,
    mut create: impl FnMut(&str, Value) -> Result<()>,
) -> Result<()> {
    create("serviceaccounts", json!({"metadata": {"name": "default"}}))
}
