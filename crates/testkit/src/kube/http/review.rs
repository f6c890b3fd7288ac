//! Reviews: kinds that are only asked, never stored.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Response};
use serde_json::{Value, json};

use super::{Call, negotiate, resource::answer};
use crate::kube::{
    auth::Caller,
    rbac::{self, Attempt},
    registry::ResourceType,
    server::ApiServer,
    status::{Result, StatusError},
    value::{items, set, text},
};

pub(super) fn handle(server: &Arc<ApiServer>, call: &Call, t: &ResourceType) -> Result<Response<Body>> {
    if call.method != Method::POST {
        return Err(StatusError::method_not_allowed(
            "the server does not allow this method on the requested resource",
        ));
    }
    let mut body = negotiate::body(call)?;
    set(&mut body, &["apiVersion"], t.api_version());
    set(&mut body, &["kind"], t.kind.clone());
    if !body["metadata"].is_object() {
        set(&mut body, &["metadata"], json!({"creationTimestamp": null}));
    }
    let objects = server.store.snapshot();
    let status = match t.kind.as_str() {
        "SelfSubjectAccessReview" => access(rbac::allowed(&objects, &call.caller, &attempt(&body["spec"]))),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let spec = &body["spec"];
            let groups =
                items(spec, &["groups"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let caller = Caller { user: text(spec, &["user"]).to_owned(), groups };
            access(rbac::allowed(&objects, &caller, &attempt(spec)))
        }
        "SelfSubjectRulesReview" => {
            let rules = rbac::rules(&objects, &call.caller, text(&body, &["spec", "namespace"]));
            let (other, resource): (Vec<Value>, Vec<Value>) =
                rules.into_iter().partition(|r| r["nonResourceURLs"].is_array());
            json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": false})
        }
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": call.caller.user, "groups": call.caller.groups}})
        }
        "TokenReview" => match server.accounts.find(text(&body, &["spec", "token"])) {
            Some(caller) => {
                json!({"authenticated": true, "user": {"username": caller.user, "groups": caller.groups}})
            }
            None => json!({"user": {}, "error": "invalid bearer token"}),
        },
        _ => return Err(StatusError::no_such_path()),
    };
    set(&mut body, &["status"], status);
    answer(201, &body, call)
}

fn access(allowed: bool) -> Value {
    if allowed {
        json!({"allowed": true})
    } else {
        json!({"allowed": false, "reason": "no RBAC policy matched"})
    }
}

fn attempt(spec: &Value) -> Attempt {
    let resource = &spec["resourceAttributes"];
    if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        let verb = text(spec, &["nonResourceAttributes", "verb"]).to_owned();
        return Attempt { verb, path: path.to_owned(), ..Attempt::default() };
    }
    let word = |key: &str| text(resource, &[key]).to_owned();
    let sub = word("subresource");
    Attempt {
        verb: word("verb"),
        group: word("group"),
        resource: if sub.is_empty() { word("resource") } else { format!("{}/{sub}", word("resource")) },
        name: word("name"),
        namespace: word("namespace"),
        path: String::new(),
    }
}
