//! One file, served whole or in part.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header, request::Parts};
use sha2::{Digest as _, Sha256};

use crate::board::wire::{AnswerBody, bare, typed, with};

/// Bytes with their hash.
#[derive(Debug, Clone)]
pub(super) struct File {
    bytes: Bytes,
    sha256: String,
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// First byte, and the one after the last.
    Part(usize, usize),
    Impossible,
}

impl File {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { sha256: hex::encode(Sha256::digest(&bytes)), bytes }
    }
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }
    fn etag(&self) -> String {
        format!("\"{}\"", self.sha256.get(..32).unwrap_or(&self.sha256))
    }
    /// Answers GET and HEAD, with `Range`, `If-Range` and `If-None-Match`.
    pub(super) fn answer(&self, head: &Parts) -> Response<AnswerBody> {
        let total = self.bytes.len();
        let etag = self.etag();
        if text(&head.headers, header::IF_NONE_MATCH) == Some(etag.as_str()) {
            return with(bare(StatusCode::NOT_MODIFIED, Bytes::new()), header::ETAG, etag);
        }
        let current = text(&head.headers, header::IF_RANGE).is_none_or(|known| known == etag);
        let wanted = match text(&head.headers, header::RANGE) {
            Some(range) if current && head.method == Method::GET => wanted(range, total),
            _ => Wanted::Whole,
        };
        let (answer, length) = match wanted {
            Wanted::Impossible => {
                let answer = bare(StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new());
                return with(answer, header::CONTENT_RANGE, format!("bytes */{total}"));
            }
            Wanted::Whole => (typed(StatusCode::OK, "application/octet-stream", self.bytes.clone()), total),
            Wanted::Part(from, to) => {
                let part = self.bytes.slice(from..to);
                let answer = typed(StatusCode::PARTIAL_CONTENT, "application/octet-stream", part);
                let range = format!("bytes {from}-{}/{total}", to - 1);
                (with(answer, header::CONTENT_RANGE, range), to - from)
            }
        };
        let answer = with(answer, header::ACCEPT_RANGES, "bytes");
        let answer = with(answer, header::ETAG, etag);
        with(answer, header::CONTENT_LENGTH, length.to_string())
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// One range of bytes; what is not understood, several ranges included, means the whole.
fn wanted(range: &str, total: usize) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    let part = match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if last >= first => (first, last.saturating_add(1).min(total)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, total),
        (Err(_), Ok(count)) if first.trim().is_empty() => (total.saturating_sub(count), total),
        _ => return Wanted::Whole,
    };
    if part.0 < part.1 { Wanted::Part(part.0, part.1) } else { Wanted::Impossible }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_servers_read_them() {
        assert_eq!(wanted("bytes=0-9", 100), Wanted::Part(0, 10));
        assert_eq!(wanted("bytes=90-", 100), Wanted::Part(90, 100));
        assert_eq!(wanted("bytes=-10", 100), Wanted::Part(90, 100));
        assert_eq!(wanted("bytes=50-1000", 100), Wanted::Part(50, 100));
        assert_eq!(wanted("bytes=100-", 100), Wanted::Impossible);
        assert_eq!(wanted("bytes=0-1,4-5", 100), Wanted::Whole);
        assert_eq!(wanted("items=0-1", 100), Wanted::Whole);
        assert_eq!(wanted("bytes=9-1", 100), Wanted::Whole);
    }
}
