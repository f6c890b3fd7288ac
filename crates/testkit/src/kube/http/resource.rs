//! The verbs on a resource itself.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, header};
use serde_json::{Value, json};

use super::{
    Call, as_json, formatted,
    negotiate::{self, Format, View},
    target::Target,
    watch,
};
use crate::kube::{
    registry::ResourceType,
    selectors::{FieldSelector, LabelSelector},
    server::ApiServer,
    status::{Result, StatusError},
    store::{DeleteOptions, ListOptions, Propagation, WriteOptions, check_identity},
    table,
    value::{self, set, text},
};

pub(super) fn handle(
    server: &Arc<ApiServer>,
    call: &Call,
    t: &Arc<ResourceType>,
    target: &Target,
    verb: &str,
) -> Result<Response<Body>> {
    let store = &server.store;
    let namespace = target.namespace.as_deref();
    let name = target.name.as_deref().unwrap_or_default();
    let gvr = t.gvr();
    if t.namespaced && namespace.is_none() && !matches!(verb, "list" | "watch" | "deletecollection") {
        return Err(StatusError::method_not_allowed(
            "the server does not allow this method on the requested resource",
        ));
    }
    match verb {
        "get" => {
            let (format, view) = negotiate::wanted(call)?;
            let found = store.get(&gvr, namespace, name)?;
            Ok(formatted(200, &shown(found, t, &view, call), format))
        }
        "list" => list(server, call, t, target),
        "watch" => watch::handle(server, call, t, target),
        "create" => {
            if target.name.is_some() {
                return Err(StatusError::method_not_allowed(
                    "the server does not allow this method on the requested resource",
                ));
            }
            let (format, view) = negotiate::wanted(call)?;
            let object = negotiate::body(call)?;
            let made = store.create_with(&gvr, namespace, object, &options(call)?)?;
            Ok(formatted(201, &shown(made, t, &view, call), format))
        }
        "update" => {
            let (format, view) = negotiate::wanted(call)?;
            let mut object = negotiate::body(call)?;
            check_identity(&object, t, namespace.unwrap_or_default(), name)?;
            set(&mut object, &["metadata", "name"], name);
            let existed = store.find(&gvr, namespace, name).is_some();
            let made = store.update_with(&gvr, namespace, object, &options(call)?)?;
            Ok(formatted(if existed { 200 } else { 201 }, &shown(made, t, &view, call), format))
        }
        "patch" => {
            let (format, view) = negotiate::wanted(call)?;
            let patch = negotiate::patch(call)?;
            let existed = store.find(&gvr, namespace, name).is_some();
            let made = store.patch_with(&gvr, namespace, name, &patch, &options(call)?)?;
            Ok(formatted(if existed { 200 } else { 201 }, &shown(made, t, &view, call), format))
        }
        "delete" => {
            let (format, _) = negotiate::wanted(call)?;
            let options = delete_options(call)?;
            match store.delete_with(&gvr, namespace, name, &options)? {
                crate::kube::store::Deleted::Gone(object) => Ok(formatted(200, &deleted(t, &object), format)),
                crate::kube::store::Deleted::Marked(object) => {
                    // A pod that ends by itself is still 200; what waits for someone is 202 only when asked to.
                    Ok(formatted(200, &object, format))
                }
            }
        }
        _ => {
            let (format, _) = negotiate::wanted(call)?;
            let gone =
                store.delete_collection(&gvr, &list_options(call, t, target)?, &delete_options(call)?)?;
            let version = store.version();
            Ok(formatted(200, &whole_list(t, gone, &json!({"resourceVersion": version.to_string()})), format))
        }
    }
}

/// What a deletion answers when the object is gone.
fn deleted(t: &ResourceType, object: &Value) -> Value {
    let mut details = json!({"name": value::name(object), "kind": t.plural, "uid": value::uid(object)});
    if !t.group.is_empty() {
        set(&mut details, &["group"], t.group.clone());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// One object in the wanted form.
pub(super) fn shown(object: Value, t: &ResourceType, view: &View, call: &Call) -> Value {
    match view {
        View::Whole => object,
        View::Metadata => partial(object),
        View::Table(version) => {
            let meta = json!({"resourceVersion": text(&object, &["metadata", "resourceVersion"])});
            table::render(t, &[object], &meta, version, include(call), true)
        }
    }
}

pub(super) fn include(call: &Call) -> &str {
    call.param("includeObject").unwrap_or("Metadata")
}

pub(crate) fn partial(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn whole_list(t: &ResourceType, items: Vec<Value>, meta: &Value) -> Value {
    let kind = format!("{}List", t.kind);
    // Items of a built-in list carry no kind of their own, those of custom resources do.
    let items: Vec<Value> = items
        .into_iter()
        .map(|mut item| {
            if t.custom.is_none() {
                value::remove(&mut item, &["kind"]);
                value::remove(&mut item, &["apiVersion"]);
            }
            item
        })
        .collect();
    json!({"kind": kind, "apiVersion": t.api_version(), "metadata": meta, "items": items})
}

fn list(server: &ApiServer, call: &Call, t: &ResourceType, target: &Target) -> Result<Response<Body>> {
    let (format, view) = negotiate::wanted(call)?;
    let mut options = list_options(call, t, target)?;
    options.limit = call.param("limit").and_then(|l| l.parse().ok()).unwrap_or(0);
    options.continue_token = call.param("continue").filter(|c| !c.is_empty()).map(str::to_owned);
    let asked = call.param("resourceVersion").filter(|v| !v.is_empty() && *v != "0");
    let asked: Option<u64> = asked
        .map(|v| {
            v.parse().map_err(|_| {
                StatusError::bad_request(format!("Invalid value: {v:?}: invalid resource version"))
            })
        })
        .transpose()?;
    match (call.param("resourceVersionMatch"), asked) {
        (Some("Exact"), Some(version)) => options.exact = Some(version),
        // "Not older than" a version that is still to come is a time-out.
        (_, Some(version)) if version > server.store.version() => options.exact = Some(version),
        _ => {}
    }
    let page = server.store.list_page(&t.gvr(), &options)?;
    let mut meta = json!({"resourceVersion": page.version.to_string()});
    if let Some(token) = page.continue_token {
        set(&mut meta, &["continue"], token);
    }
    if let Some(rest) = page.remaining {
        set(&mut meta, &["remainingItemCount"], rest);
    }
    let answer = match view {
        View::Whole => whole_list(t, page.items, &meta),
        View::Metadata => {
            let items: Vec<Value> = page.items.into_iter().map(partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
        }
        View::Table(version) => table::render(t, &page.items, &meta, &version, include(call), true),
    };
    Ok(formatted(200, &answer, format))
}

pub(super) fn list_options(call: &Call, t: &ResourceType, target: &Target) -> Result<ListOptions> {
    let mut fields = call.param("fieldSelector").unwrap_or_default().to_owned();
    if let Some(name) = &target.name {
        fields = format!("metadata.name={name},{fields}");
    }
    let options = ListOptions {
        namespace: target.namespace.clone(),
        labels: LabelSelector::parse(call.param("labelSelector").unwrap_or_default())?,
        fields: FieldSelector::parse(&fields)?,
        ..ListOptions::default()
    };
    options.fields.check(t)?;
    Ok(options)
}

/// Who writes, and how, as the query says.
pub(super) fn options(call: &Call) -> Result<WriteOptions> {
    let manager = match call.param("fieldManager") {
        Some(m) if !m.is_empty() => m.to_owned(),
        _ if call.header(header::CONTENT_TYPE).starts_with("application/apply-patch") => String::new(),
        // As the real one: the program's name from the user agent.
        _ => call.header(header::USER_AGENT).split('/').next().unwrap_or_default().to_owned(),
    };
    let mut options = WriteOptions::by(
        if manager.is_empty() && !call.header(header::CONTENT_TYPE).starts_with("application/apply-patch") {
            "unknown".to_owned()
        } else {
            manager
        },
    );
    options.force = call.flag("force");
    options.dry_run = dry_run(call.param("dryRun"))?;
    options.strict = match call.param("fieldValidation") {
        None | Some("" | "Ignore" | "Warn") => false,
        Some("Strict") => true,
        Some(other) => {
            let why = format!(
                "fieldValidation parameter {other:?} unsupported; must be one of Ignore, Warn, Strict"
            );
            return Err(StatusError::bad_request(why));
        }
    };
    Ok(options)
}

fn dry_run(value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(StatusError::bad_request(format!(
            "dryRun: Unsupported value: {other:?}: supported values: \"All\""
        ))),
    }
}

/// Options of a deletion, from its body and its query.
pub(super) fn delete_options(call: &Call) -> Result<DeleteOptions> {
    let body = negotiate::optional_body(call)?;
    delete_options_from(&body, call)
}

pub(super) fn delete_options_from(body: &Value, call: &Call) -> Result<DeleteOptions> {
    let word = |key: &str| body[key].as_str().or_else(|| call.param(key));
    let propagation = match word("propagationPolicy") {
        None | Some("" | "Background") => match body["orphanDependents"].as_bool() {
            Some(true) => Propagation::Orphan,
            _ if call.flag("orphanDependents") => Propagation::Orphan,
            _ => Propagation::Background,
        },
        Some("Foreground") => Propagation::Foreground,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            return Err(StatusError::bad_request(format!("propagationPolicy: Unsupported value: {other:?}")));
        }
    };
    let query_grace = call.param("gracePeriodSeconds").and_then(|g| g.parse().ok());
    let precondition = |key: &str| body["preconditions"][key].as_str().map(str::to_owned);
    Ok(DeleteOptions {
        propagation,
        grace_seconds: body["gracePeriodSeconds"].as_i64().or(query_grace),
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        dry_run: dry_run(body["dryRun"][0].as_str().or_else(|| call.param("dryRun")))?,
    })
}

/// A `Status` that says yes.
pub(super) fn success(code: u16) -> Response<Body> {
    as_json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}),
    )
}

/// Answers with an object in the caller's format.
pub(super) fn answer(code: u16, value: &Value, call: &Call) -> Result<Response<Body>> {
    let format: Format = negotiate::wanted(call)?.0;
    Ok(formatted(code, value, format))
}
