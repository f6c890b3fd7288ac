//! Compares a document's tree with the JSON Schema and finds every mistake of shape at once.
//!
//! serde stops at the first mistake and does not know where it stands, so the schema that editors use is walked here
//! first. It covers the keywords that `schemars` writes for our types.

use serde_json::{Map, Value};

use super::{
    diagnostic::{Diagnostic, did_you_mean, one_of},
    source::{Source, join},
};

/// All mistakes of shape, in the order of the text.
pub(crate) fn check(source: &Source, schema: &Value) -> Vec<Diagnostic> {
    let mut walk = Walk { source, root: schema, found: Vec::new() };
    walk.value("", &source.value, schema);
    walk.found
}

struct Walk<'a> {
    source: &'a Source,
    root: &'a Value,
    found: Vec<Diagnostic>,
}

impl<'a> Walk<'a> {
    fn report(&mut self, diagnostic: Diagnostic) {
        let place = self.source.place(&diagnostic.path);
        self.found.push(diagnostic.at(place));
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        while let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            match self.root.pointer(name.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => return schema,
            }
        }
        schema
    }

    fn value(&mut self, path: &str, value: &Value, schema: &'a Value) {
        let schema = self.resolve(schema);
        if let Some(branches) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array)
        {
            return self.choice(path, value, branches);
        }
        if let Some(expected) = schema.get("type")
            && !type_matches(value, expected)
        {
            let message = format!("expected {}, found {}", type_names(expected), shown(value));
            let mut diagnostic = Diagnostic::error(path, message);
            if let Some(help) = quoting_help(value, expected) {
                diagnostic = diagnostic.help(help);
            }
            return self.report(diagnostic);
        }
        if let Some(allowed) = words(schema)
            && !allowed.contains(&value)
        {
            return self.not_one_of(path, value, allowed.iter().filter_map(|w| w.as_str()).collect());
        }
        match value {
            Value::Object(map) => self.object(path, map, schema),
            Value::Array(items) => {
                let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                if (items.len() as u64) < least {
                    self.report(Diagnostic::error(path, format!("needs at least {least} entry")));
                }
                if let Some(item) = schema.get("items") {
                    for (i, entry) in items.iter().enumerate() {
                        self.value(&format!("{path}[{i}]"), entry, item);
                    }
                }
            }
            Value::Number(number) => self.range(path, number.as_f64().unwrap_or(0.0), schema),
            _ => {}
        }
    }

    fn object(&mut self, path: &str, map: &Map<String, Value>, schema: &'a Value) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        let open = schema.get("additionalProperties").filter(|s| s.is_object());
        let mut meant: Vec<String> = Vec::new();
        for (key, value) in map {
            let at = join(path, key);
            if let Some(property) = self.resolve(schema).get("properties").and_then(|p| p.get(key)) {
                self.value(&at, value, property);
            } else if let Some(open) = open {
                self.value(&at, value, open);
            } else if closed {
                let known: Vec<&str> =
                    properties.keys().map(String::as_str).filter(|k| !map.contains_key(*k)).collect();
                let close = did_you_mean(key, known);
                meant.extend(close.clone());
                let help = close.unwrap_or_else(|| {
                    format!("known here: {}", one_of(properties.keys().map(String::as_str)))
                });
                let place = self.source.key_place(&at);
                self.found.push(Diagnostic::error(at, format!("unknown key `{key}`")).help(help).at(place));
            }
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(key) = key.as_str() else { continue };
            // A key that was misspelt is not missing as well.
            let misspelt = meant.iter().any(|m| *m == format!("did you mean `{key}`?"));
            if !map.contains_key(key) && !misspelt {
                let meaning = properties
                    .get(key)
                    .and_then(|p| p.get("description"))
                    .and_then(Value::as_str)
                    .and_then(|d| d.lines().next());
                let mut diagnostic = Diagnostic::error(path, format!("missing key `{key}`"));
                if let Some(meaning) = meaning {
                    diagnostic = diagnostic.help(meaning.trim_end_matches('.'));
                }
                self.report(diagnostic);
            }
        }
    }

    fn range(&mut self, path: &str, number: f64, schema: &Value) {
        let least = schema.get("minimum").and_then(Value::as_f64);
        let most = schema.get("maximum").and_then(Value::as_f64);
        if least.is_some_and(|l| number < l) || most.is_some_and(|m| number > m) {
            let bounds = match (least, most) {
                (Some(l), Some(m)) => format!("between {l} and {m}"),
                (Some(l), None) => format!("at least {l}"),
                (None, Some(m)) => format!("at most {m}"),
                (None, None) => return,
            };
            self.report(Diagnostic::error(path, format!("{number} is out of range: it must be {bounds}")));
        }
    }

    /// One of several shapes: an enum, or something that may be null.
    fn choice(&mut self, path: &str, value: &Value, branches: &'a [Value]) {
        let branches: Vec<&'a Value> = branches.iter().map(|b| self.resolve(b)).collect();
        let mut closest: Option<Vec<Diagnostic>> = None;
        for branch in &branches {
            let mut walk = Walk { source: self.source, root: self.root, found: Vec::new() };
            walk.value(path, value, branch);
            if walk.found.is_empty() {
                return;
            }
            // A branch is the one meant when it has the value's first key, or is the only one of the value's type.
            let meant = match value {
                Value::Object(map) => branch
                    .get("properties")
                    .and_then(Value::as_object)
                    .is_some_and(|p| map.keys().any(|k| p.contains_key(k))),
                Value::Array(_) => branch.get("type").is_some_and(|t| type_matches(value, t)),
                _ => words(branch).is_none() && branch.get("type").is_some_and(|t| type_matches(value, t)),
            };
            if meant {
                closest = Some(walk.found);
            }
        }
        let not_null: Vec<&&Value> =
            branches.iter().filter(|b| b.get("type") != Some(&"null".into())).collect();
        if let (None, [only]) = (&closest, not_null.as_slice()) {
            return self.value(path, value, only);
        }
        if let Some(found) = closest {
            self.found.extend(found);
            return;
        }
        let mut shapes: Vec<String> = Vec::new();
        for branch in not_null {
            if let Some(words) = words(branch) {
                shapes.extend(words.iter().filter_map(|w| w.as_str()).map(str::to_owned));
            } else if let Some(properties) = branch.get("properties").and_then(Value::as_object) {
                shapes.extend(properties.keys().map(|k| format!("{k}: …")));
            }
        }
        self.not_one_of(path, value, shapes.iter().map(String::as_str).collect());
    }

    fn not_one_of(&mut self, path: &str, value: &Value, allowed: Vec<&str>) {
        let secret = path.ends_with("password") || path.ends_with("passphrase");
        let diagnostic = if secret && value.is_string() {
            // The text is most likely the secret itself, so it is not repeated.
            Diagnostic::error(path, "a secret does not stand in the document")
                .help("write `{ env: NAME }`, `{ file: PATH }` or `prompt`")
        } else {
            let diagnostic = Diagnostic::error(
                path,
                format!("expected {}, found {}", one_of(allowed.iter().copied()), shown(value)),
            );
            match value.as_str().and_then(|v| did_you_mean(v, allowed.iter().copied())) {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            }
        };
        self.report(diagnostic);
    }
}

fn words(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("enum").and_then(Value::as_array), schema.get("const")) {
        (Some(words), _) => Some(words.iter().collect()),
        (None, Some(word)) => Some(vec![word]),
        (None, None) => None,
    }
}

fn type_matches(value: &Value, expected: &Value) -> bool {
    match expected {
        Value::Array(any) => any.iter().any(|e| type_matches(value, e)),
        Value::String(name) => match name.as_str() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => true,
        },
        _ => true,
    }
}

fn type_names(expected: &Value) -> String {
    let name = |n: &str| match n {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "string" => "a text".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "a mapping".to_owned(),
        other => other.to_owned(),
    };
    match expected {
        Value::Array(any) => any
            .iter()
            .filter_map(Value::as_str)
            .filter(|n| *n != "null")
            .map(name)
            .collect::<Vec<_>>()
            .join(" or "),
        other => name(other.as_str().unwrap_or_default()),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) => {
            let short: String = text.chars().take(40).collect();
            if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
        }
        other => format!("`{other}`"),
    }
}

fn quoting_help(value: &Value, expected: &Value) -> Option<String> {
    let wants_text = type_matches(&Value::String(String::new()), expected);
    (wants_text && (value.is_number() || value.is_boolean()))
        .then(|| format!("write it in quotes: \"{value}\""))
}
