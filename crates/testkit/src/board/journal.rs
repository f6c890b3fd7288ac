//! What was asked of a board: every request, in order of arrival.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

/// One request that reached a door.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, undecoded, without `?`; empty when there is none.
    pub query: String,
    /// Header names (lower case) and values; of `authorization` only the scheme word.
    pub headers: Vec<(String, String)>,
    /// The status that was answered; `None` while it runs, or when the connection was closed without an answer.
    pub status: Option<u16>,
    /// Bytes of the body that were read.
    pub body_bytes: u64,
    /// When it arrived, on the board's clock.
    pub at: Duration,
}

impl RequestRecord {
    /// `METHOD path?query`.
    pub fn line(&self) -> String {
        request_line(&self.method, &self.path, &self.query)
    }
}

/// `METHOD path?query`, the form that fault matchers look at.
pub(crate) fn request_line(method: &str, path: &str, query: &str) -> String {
    if query.is_empty() { format!("{method} {path}") } else { format!("{method} {path}?{query}") }
}

/// All requests of one door. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    record: RequestRecord,
    body: Arc<AtomicU64>,
}

/// Where the outcome of one request is noted.
#[derive(Debug, Clone)]
pub(crate) struct JournalEntry {
    journal: Journal,
    index: usize,
    body: Arc<AtomicU64>,
}

impl Journal {
    pub(crate) fn begin(&self, head: &http::request::Parts, at: Duration) -> JournalEntry {
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let value = if name == http::header::AUTHORIZATION {
                value.split(' ').next().unwrap_or_default().to_owned()
            } else {
                value
            };
            (name.as_str().to_owned(), value)
        });
        let record = RequestRecord {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: headers.collect(),
            status: None,
            body_bytes: 0,
            at,
        };
        let body = Arc::new(AtomicU64::new(0));
        let mut entries = self.lock();
        entries.push(Entry { record, body: body.clone() });
        JournalEntry { journal: self.clone(), index: entries.len() - 1, body }
    }
    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        let counted = |entry: &Entry| RequestRecord {
            body_bytes: entry.body.load(std::sync::atomic::Ordering::Relaxed),
            ..entry.record.clone()
        };
        self.lock().iter().map(counted).collect()
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalEntry {
    pub(crate) fn answered(&self, status: http::StatusCode) {
        if let Some(entry) = self.journal.lock().get_mut(self.index) {
            entry.record.status = Some(status.as_u16());
        }
    }
    /// The counter of body bytes read.
    pub(crate) fn body_bytes(&self) -> Arc<AtomicU64> {
        self.body.clone()
    }
}
