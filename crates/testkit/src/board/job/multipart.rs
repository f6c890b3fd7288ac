//! The first part of a `multipart/form-data` body, piece by piece.

use bytes::{Bytes, BytesMut};

/// Longest preamble and part header that is looked at.
const HEAD_LIMIT: usize = 16 * 1024;

/// A parser that is fed the body and hands out the first part's data.
#[derive(Debug)]
pub(super) struct FirstPart {
    /// `\r\n--boundary`.
    delimiter: Vec<u8>,
    pending: BytesMut,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary; the body is looked at as if a line end stood before it.
    Preamble,
    /// In the part's header.
    Head,
    Data,
    /// The part is over, or the body never had one.
    Over,
}

/// The body is not multipart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The boundary that a `Content-Type` names, if it is multipart.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (media, parameters) = content_type.split_once(';')?;
    if !media.trim().to_ascii_lowercase().starts_with("multipart/") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then(|| value.to_owned())
    })
}

impl FirstPart {
    pub(super) fn new(boundary: &str) -> Self {
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            pending: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
        }
    }
    /// Whether the part's data has begun.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.state, State::Data | State::Over)
    }
    /// Whether the part is over; what follows is not looked at.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }
    /// Takes the next piece of the body; returns the data of the part in it, possibly empty.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Bytes, Malformed> {
        self.pending.extend_from_slice(piece);
        if self.state == State::Preamble {
            match find(&self.pending, &self.delimiter) {
                Some(at) => {
                    let _preamble = self.pending.split_to(at + self.delimiter.len());
                    self.state = State::Head;
                }
                None if self.pending.len() > HEAD_LIMIT => return Err(Malformed),
                None => return Ok(Bytes::new()),
            }
        }
        if self.state == State::Head {
            // `--boundary--` right away is a form without parts.
            if self.pending.starts_with(b"--") {
                return Err(Malformed);
            }
            match find(&self.pending, b"\r\n\r\n") {
                Some(at) => {
                    let _head = self.pending.split_to(at + 4);
                    self.state = State::Data;
                    // An empty part's delimiter begins with the line end that closed the header.
                    let mut again = BytesMut::from(&b"\r\n"[..]);
                    again.extend_from_slice(&self.pending);
                    if again.starts_with(&self.delimiter) {
                        self.state = State::Over;
                    }
                }
                None if self.pending.len() > HEAD_LIMIT => return Err(Malformed),
                None => return Ok(Bytes::new()),
            }
        }
        if self.state != State::Data {
            return Ok(Bytes::new());
        }
        if let Some(at) = find(&self.pending, &self.delimiter) {
            self.state = State::Over;
            return Ok(self.pending.split_to(at).freeze());
        }
        // The tail may be the beginning of a delimiter.
        let safe = self.pending.len().saturating_sub(self.delimiter.len());
        Ok(self.pending.split_to(safe).freeze())
    }
    /// The body ended: what was held back in the belief that a delimiter might begin there.
    pub(super) fn finish(&mut self) -> Bytes {
        if self.state == State::Data { self.pending.split().freeze() } else { Bytes::new() }
    }
}

/// Where `needle` first stands in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(found) = haystack.get(from..)?.iter().position(|byte| *byte == first) {
        let at = from + found;
        if haystack.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(body: &[u8], step: usize) -> Result<Vec<u8>, Malformed> {
        let mut part = FirstPart::new("B");
        let mut data = Vec::new();
        for piece in body.chunks(step) {
            data.extend_from_slice(&part.feed(piece)?);
        }
        data.extend_from_slice(&part.finish());
        if part.has_begun() { Ok(data) } else { Err(Malformed) }
    }

    #[test]
    fn the_first_part_comes_out_whatever_the_pieces() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nab\r\n-\r\n--X\r\n--B\r\n\r\nsecond\r\n--B--\r\n";
        for step in 1..body.len() {
            assert_eq!(data_of(body, step).unwrap(), b"ab\r\n-\r\n--X", "pieces of {step}");
        }
    }

    #[test]
    fn a_body_without_parts_is_malformed() {
        assert_eq!(data_of(b"just bytes", 3), Err(Malformed));
        assert_eq!(data_of(b"--B--\r\n", 7), Err(Malformed));
        assert_eq!(data_of(b"", 1), Err(Malformed));
    }

    #[test]
    fn a_part_that_breaks_off_gives_what_there_was() {
        assert_eq!(data_of(b"--B\r\n\r\nabc", 4).unwrap(), b"abc");
        assert_eq!(data_of(b"--B\r\n\r\n\r\n--B--", 100).unwrap(), b"");
    }

    #[test]
    fn the_boundary_is_found_quoted_or_not() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("application/json"), None);
        assert_eq!(boundary("multipart/form-data"), None);
    }
}
