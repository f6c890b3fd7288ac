//! One request, as data.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;

/// The two methods the API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// A request below the API's path. No `Debug`: the query may hold a line typed on a console, the body a password.
#[derive(Clone)]
pub(crate) struct Call {
    action: Cow<'static, str>,
    method: Method,
    target: String,
    body: Option<Bytes>,
}

impl Call {
    fn query(action: impl Into<Cow<'static, str>>, direction: &str, kind: &str) -> Self {
        Self {
            action: action.into(),
            method: Method::Get,
            target: format!("?opt={direction}&type={kind}"),
            body: None,
        }
    }
    /// `opt=get` of a type. `action` is a verb phrase for error messages.
    pub(crate) fn get(action: impl Into<Cow<'static, str>>, kind: &str) -> Self {
        Self::query(action, "get", kind)
    }
    /// `opt=set` of a type: a GET too.
    pub(crate) fn set(action: impl Into<Cow<'static, str>>, kind: &str) -> Self {
        Self::query(action, "set", kind)
    }
    /// A path below the API's, such as `/authenticate`.
    pub(crate) fn path(action: impl Into<Cow<'static, str>>, method: Method, path: &str) -> Self {
        Self { action: action.into(), method, target: path.to_owned(), body: None }
    }
    /// With another key of the query.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.target.push('&');
        encode(&mut self.target, key);
        self.target.push('=');
        encode(&mut self.target, value);
        self
    }
    /// With the first key of the query, for a path.
    #[must_use]
    pub(crate) fn first(mut self, key: &str, value: &str) -> Self {
        self.target.push('?');
        encode(&mut self.target, key);
        self.target.push('=');
        encode(&mut self.target, value);
        self
    }
    /// With a key that counts by its presence.
    #[must_use]
    pub(crate) fn flag(mut self, key: &str) -> Self {
        self.target.push('&');
        encode(&mut self.target, key);
        self
    }
    /// As a POST with a JSON body.
    #[must_use]
    pub(crate) fn posting(mut self, value: &serde_json::Value) -> Self {
        self.method = Method::Post;
        self.json(value)
    }
    /// With a JSON body.
    #[must_use]
    pub(crate) fn json(mut self, value: &serde_json::Value) -> Self {
        self.body = Some(Bytes::from(value.to_string()));
        self
    }

    pub(crate) fn action(&self) -> Cow<'static, str> {
        self.action.clone()
    }
    pub(crate) fn method(&self) -> Method {
        self.method
    }
    pub(crate) fn target(&self) -> &str {
        &self.target
    }
    pub(crate) fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }
}

/// Percent-encodes everything but the unreserved characters. Not `+` for a space: firmware 1.x does not decode it.
fn encode(target: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                target.push(char::from(byte))
            }
            other => {
                // Writing to a String cannot fail.
                let _ = write!(target, "%{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_encoded() {
        let call = Call::set("type a line", "uart").with("node", "0").with("cmd", "echo a+b & c=\"ü\"");
        assert_eq!(call.target(), "?opt=set&type=uart&node=0&cmd=echo%20a%2Bb%20%26%20c%3D%22%C3%BC%22");
    }
}
