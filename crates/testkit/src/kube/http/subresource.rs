//! Subresources: status, scale, eviction, binding, token, finalize, and those that need a kubelet.

use std::sync::Arc;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Response};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{
    Call, formatted, negotiate,
    resource::{answer, delete_options_from, options, shown, success},
    target::Target,
};
use crate::kube::{
    patch::{self, Patch},
    reactor::budget,
    registry::ResourceType,
    selectors::LabelSelector,
    server::ApiServer,
    status::{Cause, Result, StatusError},
    store::{Part, WriteOptions, timestamp},
    value::{self, at, set, text},
};

pub(super) fn handle(
    server: &Arc<ApiServer>,
    call: &Call,
    t: &Arc<ResourceType>,
    target: &Target,
    sub: &str,
) -> Result<Response<Body>> {
    let first = sub.split('/').next().unwrap_or_default();
    let name = target.name.as_deref().unwrap_or_default();
    if !t.has(first) {
        return Err(StatusError::no_such_path());
    }
    match (first, &call.method) {
        ("status", _) => status(server, call, t, target, Part::Status),
        ("finalize" | "approval", _) => status(server, call, t, target, Part::All),
        ("scale", _) => scale(server, call, t, target),
        ("eviction", &Method::POST) => evict(server, call, target),
        ("binding", &Method::POST) => {
            let body = negotiate::body(call)?;
            let node = text(&body, &["target", "name"]).to_owned();
            let write = WriteOptions::by("kube-scheduler").part(Part::All);
            server.store.modify_with(&t.gvr(), target.namespace.as_deref(), name, &write, |live| {
                let bound = text(live, &["spec", "nodeName"]);
                if !bound.is_empty() {
                    let why = format!("pod {name} is already assigned to node {bound:?}");
                    return Err(StatusError::conflict("", "pods/binding", name, &why));
                }
                let mut new = live.clone();
                set(&mut new, &["spec", "nodeName"], node);
                Ok(new)
            })?;
            Ok(success(201))
        }
        ("token", &Method::POST) => token(server, call, target),
        ("log" | "exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers", _) => {
            server.store.get(&t.gvr(), target.namespace.as_deref(), name)?;
            let why = format!("the simulated kubelet does not offer {first:?} of {} {name:?}", t.plural);
            Err(StatusError::method_not_allowed(why))
        }
        _ => Err(StatusError::method_not_allowed(
            "the server does not allow this method on the requested resource",
        )),
    }
}

fn status(
    server: &ApiServer,
    call: &Call,
    t: &ResourceType,
    target: &Target,
    part: Part,
) -> Result<Response<Body>> {
    let (format, view) = negotiate::wanted(call)?;
    let (gvr, namespace) = (t.gvr(), target.namespace.as_deref());
    let name = target.name.as_deref().unwrap_or_default();
    let mut write = options(call)?.part(part);
    write.subresource = if part == Part::Status { "status" } else { "" };
    let made = match call.method {
        Method::GET => server.store.get(&gvr, namespace, name)?,
        Method::PUT => {
            let mut object = negotiate::body(call)?;
            set(&mut object, &["metadata", "name"], name);
            server.store.update_with(&gvr, namespace, object, &write)?
        }
        Method::PATCH => server.store.patch_with(&gvr, namespace, name, &negotiate::patch(call)?, &write)?,
        _ => {
            return Err(StatusError::method_not_allowed(
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    Ok(formatted(200, &shown(made, t, &view, call), format))
}

/// Where a resource keeps its number of replicas: in its spec, in its status, and its selector.
fn scale_paths(t: &ResourceType) -> Result<(String, String, String)> {
    match &t.custom {
        Some(custom) => custom.scale.clone().ok_or_else(StatusError::no_such_path),
        None => Ok(("spec.replicas".into(), "status.replicas".into(), String::new())),
    }
}

fn scale_of(object: &Value, t: &ResourceType) -> Result<Value> {
    let (spec, status, selector) = scale_paths(t)?;
    let number = |path: &str| at(object, &path.split('.').collect::<Vec<_>>()).as_i64().unwrap_or(0);
    let selector = match (&t.custom, t.group.as_str()) {
        (None, "") => LabelSelector::of_map(&object["spec"]["selector"]).to_text(),
        (None, _) => LabelSelector::of_object(&object["spec"]["selector"]).to_text(),
        (Some(_), _) => text(object, &selector.split('.').collect::<Vec<_>>()).to_owned(),
    };
    let meta = &object["metadata"];
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let meta: serde_json::Map<String, Value> =
        kept.iter().filter_map(|k| Some(((*k).to_owned(), meta.get(*k)?.clone()))).collect();
    let mut out = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {"replicas": number(&spec)}, "status": {"replicas": number(&status)},
    });
    if !selector.is_empty() {
        set(&mut out, &["status", "selector"], selector);
    }
    Ok(out)
}

fn scale(server: &ApiServer, call: &Call, t: &ResourceType, target: &Target) -> Result<Response<Body>> {
    let (gvr, namespace) = (t.gvr(), target.namespace.as_deref());
    let name = target.name.as_deref().unwrap_or_default();
    let change: Option<Patch> = match call.method {
        Method::GET => None,
        Method::PUT => Some(Patch::Merge(negotiate::body(call)?)),
        Method::PATCH => Some(negotiate::patch(call)?),
        _ => {
            return Err(StatusError::method_not_allowed(
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    let Some(change) = change else {
        return answer(200, &scale_of(&server.store.get(&gvr, namespace, name)?, t)?, call);
    };
    let mut write = options(call)?;
    write.subresource = "scale";
    let path = scale_paths(t)?.0;
    let path: Vec<&str> = path.split('.').collect();
    let made = server.store.modify_with(&gvr, namespace, name, &write, |live| {
        let before = scale_of(live, t)?;
        let keys = patch::ListKeys::BuiltIn("Scale");
        let after = patch::patched(&before, &change, &keys)?;
        let replicas = after["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let cause =
                Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(StatusError::invalid("autoscaling", "Scale", name, &[cause]));
        }
        let mut new = live.clone();
        set(&mut new, &path, replicas);
        set(&mut new, &["metadata", "resourceVersion"], text(&after, &["metadata", "resourceVersion"]));
        Ok(new)
    })?;
    answer(200, &scale_of(&made, t)?, call)
}

fn evict(server: &ApiServer, call: &Call, target: &Target) -> Result<Response<Body>> {
    let body = negotiate::optional_body(call)?;
    let namespace = target.namespace.as_deref();
    let name = target.name.as_deref().unwrap_or_default();
    let given = value::name(&body);
    if !given.is_empty() && given != name {
        return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = delete_options_from(&body["deleteOptions"], call)?;
    let gvr = crate::kube::Gvr::PODS;
    let pod = server.store.get(&gvr, namespace, name)?;
    let running = !matches!(text(&pod, &["status", "phase"]), "Pending" | "Succeeded" | "Failed");
    if running && !value::deleting(&pod) {
        let objects = server.store.snapshot();
        let budgets: Vec<_> = budget::covering(&objects, &pod);
        if budgets.len() > 1 {
            return Err(StatusError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        if let Some(budget) = budgets.first() {
            let numbers = budget::numbers(&objects, budget);
            let unhealthy = value::condition(&pod, "Ready") != "True";
            if numbers.allowed < 1 && !(unhealthy && numbers.healthy >= numbers.desired) {
                let why = format!(
                    "The disruption budget {} needs {} healthy pods and has {} currently",
                    value::name(budget),
                    numbers.desired,
                    numbers.healthy
                );
                let cause = json!([{"reason": "DisruptionBudget", "message": why}]);
                let message = "Cannot evict pod as it would violate the pod's disruption budget.";
                return Err(StatusError::new(429, "TooManyRequests", message).detail("causes", cause));
            }
        }
    }
    server.store.delete_with(&gvr, namespace, name, &options)?;
    Ok(success(201))
}

fn token(server: &ApiServer, call: &Call, target: &Target) -> Result<Response<Body>> {
    let mut body = negotiate::body(call)?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref().unwrap_or_default();
    let account = server.store.get(&crate::kube::Gvr::SERVICE_ACCOUNTS, Some(namespace), name)?;
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    if seconds < 600 {
        let cause = Cause::invalid(
            "spec.expirationSeconds",
            &json!(seconds),
            "may not specify a duration less than 10 minutes",
        );
        return Err(StatusError::invalid("authentication.k8s.io", "TokenRequest", name, &[cause]));
    }
    let now = OffsetDateTime::now_utc();
    let until = now + Duration::seconds(seconds);
    // Three parts that read as a token does; nothing verifies the signature, the server remembers the whole.
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let claims = json!({
        "aud": ["https://kubernetes.default.svc.cluster.local", "k3s"],
        "exp": until.unix_timestamp(), "iat": now.unix_timestamp(), "nbf": now.unix_timestamp(),
        "iss": "https://kubernetes.default.svc.cluster.local",
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": value::uid(&account)}},
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    let signature = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let token =
        format!("{}.{}.{signature}", part(&json!({"alg": "ES256", "kid": "simulated"})), part(&claims));
    server.accounts.add_service_account(&token, namespace, name, until);
    set(&mut body, &["apiVersion"], "authentication.k8s.io/v1");
    set(&mut body, &["kind"], "TokenRequest");
    set(
        &mut body,
        &["metadata"],
        json!({"name": name, "namespace": namespace, "creationTimestamp": timestamp(now)}),
    );
    set(&mut body, &["status"], json!({"token": token, "expirationTimestamp": timestamp(until)}));
    answer(201, &body, call)
}
