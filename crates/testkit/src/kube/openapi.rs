//! OpenAPI documents: enough for `kubectl` to see that the server validates fields itself, and for `kubectl explain`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    registry::{Registry, ResourceType},
    shapes::{self, Kind},
};

/// `/openapi/v3`: one document a group and version.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = path(group, version);
            let served: String = registry.of_version(group, version).map(|t| format!("{t:?}")).collect();
            let hash = hex::encode_upper(Sha256::digest(served.as_bytes()));
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
    }
    json!({ "paths": paths })
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub(crate) fn group_version(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    registry.of_version(group, version).next()?;
    Some(document(registry, group, version))
}

fn schema_name(t: &ResourceType) -> String {
    let group = if t.group.is_empty() { "core" } else { t.group.split('.').next().unwrap_or_default() };
    format!("io.k8s.api.{group}.{}.{}", t.version, t.kind)
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for t in registry.of_version(group, version) {
        let base = if t.namespaced {
            format!("/{}/namespaces/{{namespace}}/{}/{{name}}", path(group, version), t.plural)
        } else {
            format!("/{}/{}/{{name}}", path(group, version), t.plural)
        };
        let gvk = json!({"group": t.group, "version": t.version, "kind": t.kind});
        let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect();
        let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(t))});
        let responses =
            json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}});
        let get = json!({"x-kubernetes-action": "get", "x-kubernetes-group-version-kind": gvk, "responses": responses});
        let mut item = json!({ "get": get });
        if !t.create_only
            && let Some(item) = item.as_object_mut()
        {
            let patch = json!({
                "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
                "responses": responses,
            });
            item.insert("patch".into(), patch);
        }
        paths.insert(base, item);
        schemas.insert(schema_name(t), schema(t, &gvk));
    }
    let mut todo: Vec<&str> = registry.of_version(group, version).filter_map(|t| shapes::root(t)).collect();
    todo.push("meta/v1.ObjectMeta");
    let mut seen = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if seen.insert(name) {
            let fields = shapes::flat(name);
            todo.extend(fields.iter().filter_map(|f| shapes::element_type(&f.kind)));
            schemas
                .insert(component(name), object(fields.into_iter().map(|f| (f.name.clone(), kind(&f.kind)))));
        }
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "simulated"}, "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn schema(t: &ResourceType, gvk: &Value) -> Value {
    let mut out = match t.custom.as_ref().and_then(|c| c.schema.as_ref()) {
        Some(schema) => schema.0.clone(),
        None => {
            let fields = shapes::root(t).map(shapes::flat).unwrap_or_default();
            object(fields.into_iter().map(|f| (f.name.clone(), kind(&f.kind))))
        }
    };
    for (name, of) in [
        ("apiVersion", json!({"type": "string"})),
        ("kind", json!({"type": "string"})),
        ("metadata", kind(&Kind::Type("meta/v1.ObjectMeta".into()))),
    ] {
        super::value::default(&mut out, &["properties", name], of);
    }
    super::value::set(&mut out, &["x-kubernetes-group-version-kind"], json!([gvk]));
    super::value::default(&mut out, &["description"], format!("{} of {}.", t.kind, t.api_version()));
    out
}

/// The name of a type's schema.
fn component(name: &str) -> String {
    format!("io.k8s.{}", name.replace('/', "."))
}

fn object(properties: impl Iterator<Item = (String, Value)>) -> Value {
    let properties: Map<String, Value> = properties.collect();
    json!({"type": "object", "properties": properties})
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::Duration => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::Time | Kind::MicroTime => json!({"type": "string", "format": "date-time"}),
        Kind::Integer => json!({"type": "integer"}),
        Kind::Float => json!({"type": "number"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Quantity | Kind::IntOrText => json!({"x-kubernetes-int-or-string": true}),
        Kind::Raw => json!({"type": "object"}),
        Kind::List(inner) => json!({"type": "array", "items": self::kind(inner)}),
        Kind::Map(inner) => json!({"type": "object", "additionalProperties": self::kind(inner)}),
        Kind::Type(name) => json!({"allOf": [{"$ref": format!("#/components/schemas/{}", component(name))}]}),
    }
}

/// `/openapi/v2`: the kinds, without their fields.
pub(crate) fn v2(registry: &Registry, version: &str) -> Value {
    let mut definitions = Map::new();
    for t in registry.all() {
        let gvk = json!([{"group": t.group, "version": t.version, "kind": t.kind}]);
        definitions.insert(schema_name(t), json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": {}, "definitions": definitions,
    })
}
