//! A request's query: percent-decoded, and of a key that stands twice the last one wins.

use std::collections::HashMap;

/// The query's keys and values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }
    /// Takes the other's keys that are not here.
    pub(crate) fn add(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.add_one(key, value.clone());
        }
    }
    /// Takes a key that is not here.
    pub(crate) fn add_one(&mut self, key: &str, value: String) {
        self.0.entry(key.to_owned()).or_insert(value);
    }
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
    /// Whether the key is there, whatever its value: `skip_crc=false` skips the check too.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// `+` is a space, `%41` is `A`; what is not valid stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = text.as_bytes().iter();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let rest = bytes.as_slice();
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    Some(value) => {
                        decoded.push(value);
                        bytes.nth(1);
                    }
                    None => decoded.push(b'%'),
                }
            }
            other => decoded.push(other),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_duplicated_key_wins_and_presence_counts() {
        let query = Query::parse("node=1&node=2&skip_crc&file=a%20b+c%zz");
        assert_eq!(query.get("node"), Some("2"));
        assert!(query.has("skip_crc"));
        assert_eq!(query.get("file"), Some("a b c%zz"));
        assert_eq!(query.get("length"), None);
    }
}
