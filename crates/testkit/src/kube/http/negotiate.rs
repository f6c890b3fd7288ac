//! Content negotiation: what the caller sent, and what it wants back.

use http::header;
use serde_json::Value;

use super::{Call, wire};
use crate::kube::{
    patch::Patch,
    status::{Result, StatusError},
};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Json,
    Yaml,
}

/// What form of the object is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum View {
    #[default]
    Whole,
    /// `meta.k8s.io` Table of this version.
    Table(String),
    /// Metadata only, one object or a list.
    Metadata,
}

/// The first form in `Accept` that the server has.
///
/// # Errors
/// 406 when there is none: protobuf or CBOR alone.
pub(crate) fn wanted(call: &Call) -> Result<(Format, View)> {
    let accept = call.header(header::ACCEPT);
    if accept.trim().is_empty() {
        return Ok((Format::Json, View::Whole));
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => continue,
        };
        let params: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let param = |name: &str| params.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v);
        let version = param("v");
        let known = param("g") == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
        match param("as") {
            "" if param("g").is_empty() => return Ok((format, View::Whole)),
            "Table" if known => return Ok((format, View::Table(version.to_owned()))),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if known => {
                return Ok((format, View::Metadata));
            }
            _ => {}
        }
    }
    let why = "only the following media types are accepted: application/json, application/yaml";
    Err(StatusError::new(406, "NotAcceptable", why))
}

/// How refusals are written.
pub(crate) fn errors_as(call: &Call) -> Format {
    wanted(call).map(|(format, _)| format).unwrap_or_default()
}

/// Whether the caller understands aggregated discovery v2.
pub(crate) fn aggregated(call: &Call) -> bool {
    call.header(header::ACCEPT).split(',').any(|range| {
        let words: Vec<&str> = range.split(';').map(str::trim).collect();
        ["application/json", "g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|w| words.contains(w))
    })
}

pub(crate) fn json_allowed(call: &Call) -> bool {
    let accept = call.header(header::ACCEPT);
    accept.is_empty()
        || accept.split(',').any(|r| {
            matches!(r.split(';').next().map(str::trim), Some("application/json" | "*/*" | "application/*"))
        })
}

fn content_type(call: &Call) -> &str {
    call.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
}

/// The object in the body.
///
/// # Errors
/// 415 for protobuf and other formats, 400 for a body that is not what it says.
pub(crate) fn body(call: &Call) -> Result<Value> {
    match content_type(call) {
        "" | "application/json" | "*/*" => parse_json(&call.body),
        "application/yaml" => parse_yaml(&call.body),
        "application/vnd.kubernetes.protobuf" => wire::decode(&call.body).ok_or_else(|| {
            StatusError::bad_request(
                "the protobuf body is malformed, or of a kind that is not served in protobuf",
            )
        }),
        _ => Err(StatusError::unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
        )),
    }
}

/// The object in the body, if there is a body.
///
/// # Errors
/// As [`body`].
pub(crate) fn optional_body(call: &Call) -> Result<Value> {
    if call.body.is_empty() { Ok(Value::Null) } else { body(call) }
}

/// The patch in the body.
///
/// # Errors
/// 415 for an unknown kind of patch, 400 for a malformed one.
pub(crate) fn patch(call: &Call) -> Result<Patch> {
    match content_type(call) {
        "application/json-patch+json" => Ok(Patch::Json(parse_json(&call.body)?)),
        "application/merge-patch+json" => Ok(Patch::Merge(parse_json(&call.body)?)),
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(parse_json(&call.body)?)),
        // kube-rs and kubectl send JSON under this name, which is YAML too.
        "application/apply-patch+yaml" => {
            let parsed = serde_json::from_slice(&call.body).or_else(|_| parse_yaml(&call.body))?;
            Ok(Patch::Apply(parsed))
        }
        _ => Err(StatusError::unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

fn parse_json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body)
        .map_err(|e| StatusError::bad_request(format!("error decoding the body: {e}")))
}

fn parse_yaml(body: &[u8]) -> Result<Value> {
    let bad = |e: String| StatusError::bad_request(format!("error decoding the body: {e}"));
    let text = std::str::from_utf8(body).map_err(|e| bad(e.to_string()))?;
    serde_saphyr::from_str(text).map_err(|e| bad(e.to_string()))
}
