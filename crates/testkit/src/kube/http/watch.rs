//! A watch as a response that stays open.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Call, negotiate,
    negotiate::View,
    resource::{include, list_options, partial},
    respond,
    target::Target,
};
use crate::kube::{
    registry::ResourceType,
    server::ApiServer,
    status::{Result, StatusError},
    store::{WatchOptions, Watcher},
    table,
    value::{set, text},
};

/// About how often the real server sends a bookmark.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a watch lasts that says nothing about it.
const LONGEST: Duration = Duration::from_secs(30 * 60);

struct Open {
    watcher: Watcher,
    t: Arc<ResourceType>,
    view: View,
    include: String,
    bookmarks: bool,
    /// The bookmark after the objects that existed at the start is still to come.
    initial_end: bool,
    next_bookmark: Instant,
    interval: Duration,
    end: Instant,
    first_row: bool,
    over: bool,
}

pub(super) fn handle(
    server: &Arc<ApiServer>,
    call: &Call,
    t: &Arc<ResourceType>,
    target: &Target,
) -> Result<Response<Body>> {
    let (_, view) = negotiate::wanted(call)?;
    let options = list_options(call, t, target)?;
    let version = call.param("resourceVersion").filter(|v| !v.is_empty() && *v != "0");
    let version: Option<u64> = version
        .map(|v| {
            v.parse().map_err(|_| {
                StatusError::bad_request(format!("Invalid value: {v:?}: invalid resource version"))
            })
        })
        .transpose()?;
    let initial = call.param("sendInitialEvents");
    if initial.is_some() && call.param("resourceVersionMatch") != Some("NotOlderThan") {
        let why = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(StatusError::new(
            422,
            "Invalid",
            format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"),
        ));
    }
    let from = match initial {
        Some("true") => None,
        Some(_) => Some(version.unwrap_or_else(|| server.store.version())),
        None => version,
    };
    let watch =
        WatchOptions { namespace: options.namespace, labels: options.labels, fields: options.fields, from };
    let watcher = match server.store.watch(&t.gvr(), watch) {
        Ok(watcher) => watcher,
        // The real one says so inside the stream.
        Err(error) if error.code == 410 => {
            let line = event_line("ERROR", &error.to_value());
            return Ok(respond(200, "application/json", Body::from(line)));
        }
        Err(error) => return Err(error),
    };
    let seconds = call.param("timeoutSeconds").and_then(|s| s.parse::<u64>().ok()).filter(|s| *s > 0);
    let now = Instant::now();
    let interval = server.options.pace.scale(BOOKMARK_INTERVAL).max(Duration::from_secs(1));
    let open = Open {
        watcher,
        t: Arc::clone(t),
        include: include(call).to_owned(),
        view,
        bookmarks: call.flag("allowWatchBookmarks"),
        initial_end: initial == Some("true"),
        next_bookmark: now + interval,
        interval,
        end: now + seconds.map_or(LONGEST, Duration::from_secs),
        first_row: true,
        over: false,
    };
    let stream = futures::stream::unfold(open, |mut open| async move {
        let line = open.next().await?;
        Some((Ok::<Bytes, Infallible>(line), open))
    });
    Ok(respond(200, "application/json", Body::from_stream(stream)))
}

impl Open {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if self.initial_end {
            match self.watcher.try_next() {
                Ok(Some(event)) => return Some(self.line(event.kind.as_str(), event.object)),
                Ok(None) => {
                    self.initial_end = false;
                    return Some(event_line("BOOKMARK", &self.watcher.bookmark(true)));
                }
                Err(error) => return Some(self.last(&error)),
            }
        }
        tokio::select! {
            biased;
            event = self.watcher.next() => Some(match event {
                Ok(event) => self.line(event.kind.as_str(), event.object),
                Err(error) => self.last(&error),
            }),
            () = tokio::time::sleep_until(self.end) => {
                self.over = true;
                self.bookmarks.then(|| event_line("BOOKMARK", &self.watcher.bookmark(false)))
            }
            () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + self.interval;
                Some(event_line("BOOKMARK", &self.watcher.bookmark(false)))
            }
        }
    }

    fn last(&mut self, error: &StatusError) -> Bytes {
        self.over = true;
        event_line("ERROR", &error.to_value())
    }

    fn line(&mut self, kind: &str, object: Value) -> Bytes {
        let object = match &self.view {
            View::Whole => object,
            View::Metadata => partial(object),
            View::Table(version) => {
                let mut meta = json!({});
                set(&mut meta, &["resourceVersion"], text(&object, &["metadata", "resourceVersion"]));
                // Only the first event says what the columns are.
                let columns = std::mem::take(&mut self.first_row);
                table::render(&self.t, &[object], &meta, version, &self.include, columns)
            }
        };
        event_line(kind, &object)
    }
}

fn event_line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}
