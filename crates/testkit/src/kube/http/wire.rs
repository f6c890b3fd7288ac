//! Reading Kubernetes' protobuf: since 1.32 `kubectl`'s typed commands (`create`, `drain`, `auth can-i`) send it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::kube::{
    registry::split_api_version,
    shapes::{self, Kind},
};

const MAGIC: &[u8] = b"k8s\0";

/// The object in a protobuf body, as JSON would have it; nothing when it is malformed or of a kind nobody knows.
pub(super) fn decode(body: &[u8]) -> Option<Value> {
    let mut reader = Reader(body.strip_prefix(MAGIC)?);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[] as &[u8]);
    while let Some((number, item)) = reader.next()? {
        match (number, item) {
            (1, Item::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, item)) = meta.next()? {
                    let Item::Bytes(text) = item else { return None };
                    let text = String::from_utf8(text.to_vec()).ok()?;
                    if number == 1 { api_version = text } else { kind = text }
                }
            }
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = split_api_version(&api_version);
    let root = match kind.as_str() {
        "DeleteOptions" => "meta/v1.DeleteOptions",
        // The kind that two groups share by its group, everything else by its own.
        _ => shapes::type_name(group, version, &kind)?,
    };
    let Value::Object(fields) = message(root, raw, 0)? else { return None };
    let mut out = Map::new();
    out.insert("apiVersion".into(), api_version.into());
    out.insert("kind".into(), kind.into());
    out.extend(fields);
    Some(Value::Object(out))
}

enum Item<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        if n > self.0.len() {
            return None;
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(head)
    }
    /// The next field: `Some(None)` at the end, `None` when malformed.
    #[expect(clippy::option_option, reason = "an end and an error are different things")]
    fn next(&mut self) -> Option<Option<(u64, Item<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let item = match tag & 7 {
            0 => Item::Number(self.varint()?),
            1 => Item::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Item::Bytes(self.take(n)?)
            }
            5 => Item::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some(Some((tag >> 3, item)))
    }
}

/// Deeper than any real object.
const DEEPEST: usize = 64;

fn message(name: &str, bytes: &[u8], depth: usize) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    let mut reader = Reader(bytes);
    let mut out = Map::new();
    while let Some((number, item)) = reader.next()? {
        let Some(field) = shapes::of(name).iter().find(|f| f.number == number) else { continue };
        match &field.kind {
            Kind::List(inner) => {
                let value = one(inner, &item, depth)?;
                match out.entry(field.name.clone()).or_insert_with(|| json!([])) {
                    Value::Array(list) => list.push(value),
                    _ => return None,
                }
            }
            Kind::Map(inner) => {
                let Item::Bytes(entry) = item else { return None };
                let (key, value) = entry_of(inner, entry, depth)?;
                match out.entry(field.name.clone()).or_insert_with(|| json!({})) {
                    Value::Object(map) => map.insert(key, value),
                    _ => return None,
                };
            }
            kind => {
                let value = one(kind, &item, depth)?;
                if field.inlined() {
                    out.extend(value.as_object().cloned()?);
                } else if !value.is_null() && (!field.drops_zero || !is_zero(&value)) {
                    out.insert(field.name.clone(), value);
                }
            }
        }
    }
    Some(Value::Object(out))
}

fn entry_of(kind: &Kind, bytes: &[u8], depth: usize) -> Option<(String, Value)> {
    let mut reader = Reader(bytes);
    let (mut key, mut value) = (String::new(), Value::Null);
    while let Some((number, item)) = reader.next()? {
        match (number, &item) {
            (1, Item::Bytes(text)) => key = String::from_utf8(text.to_vec()).ok()?,
            (2, item) => value = one(kind, item, depth)?,
            _ => {}
        }
    }
    if value.is_null() && *kind == Kind::Text {
        value = json!("");
    }
    Some((key, value))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Object(m) => m.is_empty(),
        Value::Array(l) => l.is_empty(),
        Value::Bool(true) => false,
    }
}

fn one(kind: &Kind, item: &Item<'_>, depth: usize) -> Option<Value> {
    match (kind, item) {
        (Kind::Integer, Item::Number(n)) => Some(json!(n.cast_signed())),
        (Kind::Bool, Item::Number(n)) => Some(json!(*n != 0)),
        (Kind::Float, Item::Number(n)) => Some(json!(f64::from_bits(*n))),
        (Kind::Text, Item::Bytes(b)) => Some(json!(std::str::from_utf8(b).ok()?)),
        (Kind::Bytes, Item::Bytes(b)) => Some(json!(STANDARD.encode(b))),
        (Kind::Type(name), Item::Bytes(b)) => message(name, b, depth + 1),
        (Kind::List(inner), Item::Bytes(b)) => {
            // A list inside a map: a message whose first field repeats.
            let mut reader = Reader(b);
            let mut out = Vec::new();
            while let Some((_, item)) = reader.next()? {
                out.push(one(inner, &item, depth + 1)?);
            }
            Some(Value::Array(out))
        }
        (_, Item::Bytes(b)) => special(kind, b),
        _ => None,
    }
}

/// The types with a JSON form of their own.
fn special(kind: &Kind, bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader(bytes);
    let (mut numbers, mut texts) = ([0u64; 4], [&[] as &[u8]; 4]);
    while let Some((number, item)) = reader.next()? {
        let i = usize::try_from(number).ok().filter(|i| *i < 4)?;
        match item {
            Item::Number(n) => *numbers.get_mut(i)? = n,
            Item::Bytes(b) => *texts.get_mut(i)? = b,
        }
    }
    let [_, first, second, _] = numbers;
    let [_, first_text, _, third_text] = texts;
    match kind {
        Kind::Time | Kind::MicroTime if bytes.is_empty() => Some(Value::Null),
        Kind::Time | Kind::MicroTime => {
            let seconds = OffsetDateTime::from_unix_timestamp(first.cast_signed()).ok()?;
            let at = seconds + time::Duration::nanoseconds(second.cast_signed());
            let text = at.format(&time::format_description::well_known::Rfc3339).ok()?;
            Some(json!(text))
        }
        Kind::Quantity => Some(json!(std::str::from_utf8(first_text).ok()?)),
        Kind::IntOrText if first == 0 => Some(json!(second.cast_signed())),
        Kind::IntOrText => Some(json!(std::str::from_utf8(third_text).ok()?)),
        Kind::Raw if first_text.is_empty() => Some(Value::Null),
        Kind::Raw => serde_json::from_slice(first_text).ok(),
        Kind::Duration => Some(json!(format!("{}ns", first.cast_signed()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_reads_as_its_json() {
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let raw = [field(1, &field(1, b"settings")), field(2, &entry)].concat();
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"},
        });
        assert_eq!(decode(&envelope("v1", "ConfigMap", &raw)), Some(expected));
    }

    #[test]
    fn malformed_bodies_are_refused_and_never_panic() {
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(decode(&envelope("v1", "Nothing", b"")), None);
        assert_eq!(decode(&envelope("v1", "ConfigMap", b"\x0a\x7f")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(&envelope("v1", "Pod", &bytes[..bytes.len().min(120)]));
            let _ = decode(&[MAGIC, &bytes].concat());
        }
    }
}
