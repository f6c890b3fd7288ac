//! HTTP: from a request to a verb on a resource, and back.

mod negotiate;
mod resource;
mod review;
mod subresource;
mod target;
mod watch;
mod wire;

pub(crate) use self::resource::partial;

use std::sync::Arc;

use axum::{body::Body, extract::Query};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use self::{negotiate::Format, target::Target};
use super::{
    auth::{Caller, by_certificate},
    discovery, openapi,
    rbac::{self, Attempt},
    server::ApiServer,
    status::{Result, StatusError},
};

/// The real server's limit of a request body.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// A request, taken apart.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) caller: Caller,
}

impl Call {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "1" | ""))
    }
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Answers one request. Refusals are answers too.
pub(crate) async fn handle(
    server: &Arc<ApiServer>,
    request: Request<Body>,
    certificates: &[CertificateDer<'static>],
) -> Response<Body> {
    if let Some(router) = &server.options.supervisor
        && request.uri().path().starts_with("/v1-k3s/")
    {
        return supervised(router.clone(), request).await;
    }
    let (parts, body) = request.into_parts();
    // k3s serves these two without credentials.
    match parts.uri.path() {
        "/cacerts" => return text(200, server.pki().server_ca_pem()),
        "/ping" => return text(200, "pong"),
        _ => {}
    }
    let Some(caller) = caller(server, &parts.headers, certificates) else {
        return refusal(&StatusError::unauthorized(), Format::default());
    };
    let too_large = || {
        StatusError::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {BODY_LIMIT}"),
        )
    };
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return refusal(&too_large(), Format::default());
    };
    let call = Call {
        path: target::decoded(parts.uri.path()),
        query: query(&parts.uri),
        method: parts.method,
        headers: parts.headers,
        body,
        caller,
    };
    let format = negotiate::errors_as(&call);
    match dispatch(server, &call).await {
        Ok(response) => response,
        Err(error) => refusal(&error, format),
    }
}

async fn supervised(mut router: axum::Router, request: Request<Body>) -> Response<Body> {
    match tower::Service::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn query(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri).map(|q| q.0).unwrap_or_default()
}

fn caller(
    server: &ApiServer,
    headers: &HeaderMap,
    certificates: &[CertificateDer<'static>],
) -> Option<Caller> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let by_cert = || server.verifier.as_deref().and_then(|v| by_certificate(certificates, v));
    let found = match header("authorization").map(|h| h.split_once(' ')) {
        Some(Some((scheme, token))) if scheme.eq_ignore_ascii_case("bearer") => {
            by_cert().or_else(|| server.accounts.find(token.trim()))
        }
        _ if certificates.is_empty() => server.options.anonymous.then(Caller::anonymous),
        _ => by_cert(),
    }?;
    match header("impersonate-user") {
        Some(user) if found.is_in("system:masters") => {
            let mut groups: Vec<String> = headers
                .get_all("impersonate-group")
                .iter()
                .filter_map(|v| v.to_str().ok())
                .map(str::to_owned)
                .collect();
            groups.push("system:authenticated".into());
            Some(Caller { user: user.to_owned(), groups })
        }
        _ => Some(found),
    }
}

async fn dispatch(server: &Arc<ApiServer>, call: &Call) -> Result<Response<Body>> {
    let path = call.path.trim_end_matches('/');
    let Some(target) = Target::parse(path) else {
        let verb =
            if call.method == Method::GET { "get".to_owned() } else { call.method.as_str().to_lowercase() };
        let attempt = Attempt {
            verb,
            path: if path.is_empty() { "/".into() } else { path.into() },
            ..Attempt::default()
        };
        permit(server, &call.caller, &attempt)?;
        return Box::pin(plain(server, call, path)).await;
    };
    let verb = target.verb(call)?;
    let attempt = Attempt {
        verb: verb.to_owned(),
        group: target.group.clone(),
        resource: match &target.subresource {
            Some(sub) => format!("{}/{sub}", target.plural),
            None => target.plural.clone(),
        },
        name: target.name.clone().unwrap_or_default(),
        namespace: target.namespace.clone().unwrap_or_default(),
        path: String::new(),
    };
    permit(server, &call.caller, &attempt)?;
    let t = server
        .store
        .registry()
        .get(&target.group, &target.version, &target.plural)
        .filter(|t| t.namespaced || target.namespace.is_none())
        .ok_or_else(|| not_served(call))?;
    if t.create_only {
        return review::handle(server, call, &t);
    }
    match &target.subresource {
        Some(sub) => subresource::handle(server, call, &t, &target, sub),
        None => resource::handle(server, call, &t, &target, verb),
    }
}

/// The answer to a path that leads nowhere: plain text, as the real one has it.
fn not_served(_: &Call) -> StatusError {
    let mut error = StatusError::no_such_path();
    error.details.clear();
    error
}

fn permit(server: &ApiServer, caller: &Caller, attempt: &Attempt) -> Result<()> {
    if rbac::allowed(&server.store.snapshot(), caller, attempt) {
        Ok(())
    } else {
        Err(rbac::forbidden(caller, attempt))
    }
}

/// Everything that is not a resource.
async fn plain(server: &Arc<ApiServer>, call: &Call, path: &str) -> Result<Response<Body>> {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(StatusError::method_not_allowed(
            "the server does not allow this method on the requested resource",
        ));
    }
    let registry = server.store.registry();
    let as_discovery = negotiate::aggregated(call);
    match path {
        "" => Ok(as_json(200, &json!({"paths": discovery::paths(&registry)}))),
        "/version" => Ok(as_json(200, &discovery::version(&server.version()))),
        "/api" if as_discovery => Ok(discovered(&discovery::aggregated(&registry, true))),
        "/apis" if as_discovery => Ok(discovered(&discovery::aggregated(&registry, false))),
        "/api" => Ok(as_json(200, &discovery::legacy_versions())),
        "/apis" => Ok(as_json(200, &discovery::groups(&registry))),
        "/openapi/v3" => Ok(as_json(200, &openapi::index(&registry))),
        "/openapi/v2" if negotiate::json_allowed(call) => {
            Ok(as_json(200, &openapi::v2(&registry, &server.version())))
        }
        "/openapi/v2" => Err(StatusError::new(406, "NotAcceptable", "only JSON is served here")),
        _ => {
            if let Some(check) = health(path) {
                return Ok(text(200, &health_text(check, call)));
            }
            if let Some(rest) = path.strip_prefix("/openapi/v3/") {
                return openapi::group_version(&registry, rest)
                    .map(|v| as_json(200, &v))
                    .ok_or_else(|| not_served(call));
            }
            let found = match path.split('/').collect::<Vec<_>>().as_slice() {
                ["", "api", "v1"] => discovery::resources(&registry, "", "v1"),
                ["", "apis", group] => discovery::group(&registry, group),
                ["", "apis", group, version] => discovery::resources(&registry, group, version),
                _ => None,
            };
            found.map(|v| as_json(200, &v)).ok_or_else(|| not_served(call))
        }
    }
}

fn health(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    let (kind, check) = rest.split_once('/').unwrap_or((rest, ""));
    (matches!(kind, "healthz" | "livez" | "readyz") && (check.is_empty() || CHECKS.contains(&check)))
        .then_some(kind)
}

const CHECKS: [&str; 12] = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "shutdown",
];

fn health_text(kind: &str, call: &Call) -> String {
    if call.param("verbose").is_none() {
        return "ok".into();
    }
    let lines =
        CHECKS.iter().filter(|c| kind == "readyz" || **c != "shutdown").map(|c| format!("[+]{c} ok\n"));
    format!("{}{kind} check passed\n", lines.collect::<String>())
}

pub(super) fn as_json(code: u16, value: &Value) -> Response<Body> {
    respond(code, "application/json", value.to_string())
}

fn discovered(value: &Value) -> Response<Body> {
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    respond(200, kind, value.to_string())
}

fn text(code: u16, text: &str) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", text.to_owned())
}

pub(super) fn respond(code: u16, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

/// A value in the caller's format.
pub(super) fn formatted(code: u16, value: &Value, format: Format) -> Response<Body> {
    match format {
        Format::Json => as_json(code, value),
        Format::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => respond(code, "application/yaml", text),
            Err(_) => as_json(code, value),
        },
    }
}

fn refusal(error: &StatusError, format: Format) -> Response<Body> {
    let mut response = formatted(error.code, &error.to_value(), format);
    let wait = error.details.get("retryAfterSeconds").and_then(Value::as_u64);
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer of a fault.
pub(crate) fn fault(code: u16, text: &str) -> Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    refusal(&StatusError::new(code, reason, text), Format::Json)
}

/// The same answer, cut after this many bytes of its body.
pub(crate) fn cut(response: Response<Body>, bytes: u64) -> Response<Body> {
    response.map(|body| {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let stream = body.into_data_stream().flat_map(move |chunk| {
            let parts = match chunk {
                Ok(chunk) if chunk.len() <= left => {
                    left -= chunk.len();
                    vec![Ok(chunk)]
                }
                Ok(chunk) => {
                    let part = chunk.slice(..left);
                    left = 0;
                    vec![Ok(part), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]
                }
                Err(error) => vec![Err(std::io::Error::other(error))],
            };
            futures::stream::iter(parts)
        });
        Body::from_stream(stream)
    })
}
