//! The YAML text as a tree that remembers where each value stands.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A place in the text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: u64,
    /// The column, in characters.
    pub(crate) column: u64,
}

/// The tree: plain values, and where every path of it stands.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) value: Value,
    values: HashMap<String, Place>,
    keys: HashMap<String, Place>,
}

/// Why a text is not a tree.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) place: Option<Place>,
    pub(crate) message: String,
}

impl Source {
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            with_snippet: false,
        };
        let root: Spanned<Tree> =
            serde_saphyr::from_str_with_options(text, options).map_err(|e| SyntaxError {
                place: e.location().map(|l| Place { line: l.line(), column: l.column() }),
                message: plain(&e),
            })?;
        let mut source = Self { value: Value::Null, values: HashMap::new(), keys: HashMap::new() };
        source.value = source.take(String::new(), root);
        Ok(source)
    }

    /// Where the value at `path` stands, or the nearest thing around it.
    pub(crate) fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.values.get(path) {
                return Some(*place);
            }
            path = match path.rfind(['.', '[']) {
                Some(end) => &path[..end],
                None if path.is_empty() => return None,
                None => "",
            };
        }
    }

    /// Where the key of the entry at `path` stands.
    pub(crate) fn key_place(&self, path: &str) -> Option<Place> {
        self.keys.get(path).copied().or_else(|| self.place(path))
    }

    fn take(&mut self, path: String, tree: Spanned<Tree>) -> Value {
        self.values.insert(path.clone(), place(&tree.referenced));
        match tree.value {
            Tree::Leaf(value) => value,
            Tree::Sequence(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| self.take(format!("{path}[{i}]"), item))
                .collect(),
            Tree::Mapping(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    let at = join(&path, &key.value);
                    self.keys.insert(at.clone(), place(&key.referenced));
                    let value = self.take(at, value);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }
}

/// The path of `key` below `path`: `nodes[1].slot`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn place(location: &serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// The message without the place, which stands beside it.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).trim_start_matches("error: ").to_owned()
}

enum Tree {
    Leaf(Value),
    Sequence(Vec<Spanned<Tree>>),
    Mapping(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Tree::Sequence(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            all.push(entry);
        }
        Ok(Tree::Mapping(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_knows_its_line_and_column() {
        let source =
            Source::parse("name: home\nnodes:\n  - { name: a, slot: b/1 }\n  - name: 0755\n").unwrap();
        assert_eq!(source.place("name"), Some(Place { line: 1, column: 7 }));
        assert_eq!(source.key_place("nodes[0].slot"), Some(Place { line: 3, column: 16 }));
        assert_eq!(source.place("nodes[1].name"), Some(Place { line: 4, column: 11 }));
        assert_eq!(source.value["nodes"][1]["name"], "0755");
    }

    #[test]
    fn syntax_errors_know_their_line() {
        for text in ["name: [1, 2", "a: 1\na: 2\n", "a: 'x\n"] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.place.is_some(), "{text:?}: {}", error.message);
        }
    }
}
