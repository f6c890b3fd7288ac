//! Listing: selectors, pages, and lists of an earlier version.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Store, of};
use crate::kube::{
    convert,
    registry::Gvr,
    selectors::{FieldSelector, LabelSelector},
    status::{Result, StatusError},
    value::text,
};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Only objects with these labels.
    pub labels: LabelSelector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
    /// At most this many; 0 for all.
    pub limit: usize,
    /// Where the last page ended.
    pub continue_token: Option<String>,
    /// Exactly as of this version instead of now.
    pub exact: Option<u64>,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The objects.
    pub items: Vec<Value>,
    /// The version the list shows.
    pub version: u64,
    /// Where the next page starts, if there is one.
    pub continue_token: Option<String>,
    /// How many objects follow, when no selector makes that unknown.
    pub remaining: Option<usize>,
}

impl Store {
    /// Lists with selectors and pages.
    ///
    /// # Errors
    /// 404 unknown resource, 400 malformed token or field, 410 when the version is too old.
    pub fn list_page(&self, gvr: &Gvr, options: &ListOptions) -> Result<ListPage> {
        let state = self.lock();
        let t = state.resolve(gvr)?;
        options.fields.check(&t)?;
        let start = options.continue_token.as_deref().map(decode).transpose()?;
        let version = start.as_ref().map(|s| s.0).or(options.exact).unwrap_or(state.version);
        if version > state.version {
            let why = format!("Too large resource version: {version}, current: {}", state.version);
            let cause =
                json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
            return Err(StatusError::new(504, "Timeout", why)
                .detail("causes", cause)
                .detail("retryAfterSeconds", 1));
        }
        let objects = state.as_of(version)?;
        drop(state);
        let mut matching = of(&objects, &t.storage)
            .filter(|(k, _)| match &options.namespace {
                Some(ns) if t.namespaced => &*k.namespace == ns.as_str(),
                _ => true,
            })
            .filter(|(k, _)| match &start {
                Some((_, ns, name)) => (&*k.namespace, &*k.name) > (ns.as_str(), name.as_str()),
                None => true,
            })
            .map(|(_, o)| convert::shown(o, &t))
            .filter(|o| options.labels.matches(o) && options.fields.matches(o));
        if options.limit == 0 {
            return Ok(ListPage {
                items: matching.collect(),
                version,
                continue_token: None,
                remaining: None,
            });
        }
        let items: Vec<Value> = matching.by_ref().take(options.limit).collect();
        let rest = matching.count();
        let token = items.last().filter(|_| rest > 0).map(|last| {
            let ns = text(last, &["metadata", "namespace"]);
            URL_SAFE_NO_PAD.encode(
                json!({"v": "meta.k8s.io/v1", "rv": version, "start": [ns, crate::kube::value::name(last)]})
                    .to_string(),
            )
        });
        let unfiltered = options.labels.is_empty() && options.fields == FieldSelector::default();
        Ok(ListPage {
            items,
            version,
            remaining: (token.is_some() && unfiltered).then_some(rest),
            continue_token: token,
        })
    }
}

fn decode(token: &str) -> Result<(u64, String, String)> {
    let bad = || StatusError::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let word = |i: usize| value["start"][i].as_str().map(str::to_owned).ok_or_else(bad);
    Ok((value["rv"].as_u64().ok_or_else(bad)?, word(0)?, word(1)?))
}
