//! Label and field selectors.

use serde_json::Value;

use super::{
    registry::ResourceType,
    status::{Result, StatusError},
    value::{at, pairs, text},
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A label selector: `app=web,tier!=db,zone in (a,b),!legacy`. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses the text form that `kubectl -l` takes.
    ///
    /// # Errors
    /// 400 with what could not be understood.
    pub fn parse(text: &str) -> Result<Self> {
        let mut out = Vec::new();
        for part in split_top(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            out.push(requirement(part)?);
        }
        Ok(Self(out))
    }

    /// The selector of a `LabelSelector` object (`matchLabels`, `matchExpressions`).
    pub(crate) fn of_object(selector: &Value) -> Self {
        let mut out: Vec<Requirement> =
            pairs(selector, &["matchLabels"]).map(|(k, v)| Requirement::Is(k.into(), v.into())).collect();
        for e in super::value::items(selector, &["matchExpressions"]) {
            let key = text(e, &["key"]).to_owned();
            let values = || {
                super::value::items(e, &["values"])
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            out.push(match text(e, &["operator"]) {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "DoesNotExist" => Requirement::Absent(key),
                _ => Requirement::Exists(key),
            });
        }
        Self(out)
    }

    /// The selector of a plain map, as Services and nodeSelector use it.
    pub(crate) fn of_map(map: &Value) -> Self {
        Self(pairs(map, &[]).map(|(k, v)| Requirement::Is(k.into(), v.into())).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels match.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(at(object, &["metadata", "labels"]))
    }

    pub(crate) fn matches_labels(&self, labels: &Value) -> bool {
        let get = |k: &str| labels.get(k).and_then(Value::as_str);
        self.0.iter().all(|r| match r {
            Requirement::Is(k, v) => get(k) == Some(v),
            Requirement::IsNot(k, v) => get(k) != Some(v),
            Requirement::In(k, vs) => get(k).is_some_and(|v| vs.iter().any(|x| x == v)),
            Requirement::NotIn(k, vs) => get(k).is_none_or(|v| vs.iter().all(|x| x != v)),
            Requirement::Exists(k) => get(k).is_some(),
            Requirement::Absent(k) => get(k).is_none(),
            Requirement::Greater(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::Less(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }

    /// `a=b,c in (d,e)`: the form that `status.selector` of a scale carries.
    pub(crate) fn to_text(&self) -> String {
        let parts = self.0.iter().map(|r| match r {
            Requirement::Is(k, v) => format!("{k}={v}"),
            Requirement::IsNot(k, v) => format!("{k}!={v}"),
            Requirement::In(k, vs) => format!("{k} in ({})", vs.join(",")),
            Requirement::NotIn(k, vs) => format!("{k} notin ({})", vs.join(",")),
            Requirement::Exists(k) => k.clone(),
            Requirement::Absent(k) => format!("!{k}"),
            Requirement::Greater(k, n) => format!("{k}>{n}"),
            Requirement::Less(k, n) => format!("{k}<{n}"),
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

/// Splits at commas that are not inside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0usize, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn requirement(part: &str) -> Result<Requirement> {
    let bad = || StatusError::bad_request(format!("unable to parse requirement: {part:?}"));
    let key = |k: &str| -> Result<String> {
        let k = k.trim();
        let fine = !k.is_empty() && k.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if fine { Ok(k.to_owned()) } else { Err(bad()) }
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(key(rest)?));
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(bad)?;
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words.as_slice() {
            [k, "in"] => Ok(Requirement::In(key(k)?, values)),
            [k, "notin"] => Ok(Requirement::NotIn(key(k)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((k, v)) = part.split_once("!=") {
        return Ok(Requirement::IsNot(key(k)?, v.trim().into()));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::Is(key(k)?, v.trim().into()));
    }
    for (mark, make) in [
        ('>', Requirement::Greater as fn(String, i64) -> Requirement),
        ('<', Requirement::Less as fn(String, i64) -> Requirement),
    ] {
        if let Some((k, v)) = part.split_once(mark) {
            return Ok(make(key(k)?, v.trim().parse().map_err(|_| bad())?));
        }
    }
    Ok(Requirement::Exists(key(part)?))
}

/// A field selector: `metadata.name=a,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Parses the text form that `kubectl --field-selector` takes.
    ///
    /// # Errors
    /// 400 with what could not be understood.
    pub fn parse(text: &str) -> Result<Self> {
        let mut out = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, equal, value) = if let Some((k, v)) = part.split_once("!=") {
                (k, false, v)
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (k, true, v)
            } else {
                let why = format!("invalid selector: {text:?}; can't understand {part:?}");
                return Err(StatusError::bad_request(why));
            };
            out.push((key.trim().to_owned(), equal, value.trim().to_owned()));
        }
        Ok(Self(out))
    }

    /// Refuses fields that this resource cannot be selected by, as the real server does.
    pub(crate) fn check(&self, t: &ResourceType) -> Result<()> {
        for (field, _, _) in &self.0 {
            if !supported(t, field) {
                return Err(StatusError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(())
    }

    /// Whether an object's fields match.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, want)| (field_text(object, field) == *want) == *equal)
    }
}

fn field_text(object: &Value, field: &str) -> String {
    // The one selectable field that is not where its name says.
    if field == "source" && object["kind"] == "Event" {
        return text(object, &["source", "component"]).to_owned();
    }
    let path: Vec<&str> = field.split('.').collect();
    match at(object, &path) {
        Value::String(s) => s.clone(),
        Value::Null if field.ends_with("unschedulable") || field.ends_with("hostNetwork") => "false".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn supported(t: &ResourceType, field: &str) -> bool {
    if field == "metadata.name" || (t.namespaced && field == "metadata.namespace") {
        return true;
    }
    if let Some(custom) = &t.custom {
        return custom.selectable.iter().any(|f| f == field);
    }
    match (t.group.as_str(), t.plural.as_str()) {
        ("", "pods") => matches!(
            field,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        ("" | "events.k8s.io", "events") => {
            field.starts_with("involvedObject.")
                || field.starts_with("regarding.")
                || matches!(
                    field,
                    "reason" | "reportingComponent" | "reportingController" | "source" | "type"
                )
        }
        ("", "secrets") => field == "type",
        ("", "nodes") => field == "spec.unschedulable",
        ("", "namespaces") => field == "status.phase",
        ("", "services") => matches!(field, "spec.clusterIP" | "spec.type"),
        ("", "replicationcontrollers") | ("apps", "replicasets") => field == "status.replicas",
        ("batch", "jobs") => field == "status.successful",
        ("certificates.k8s.io", _) => field == "spec.signerName",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[rstest::rstest]
    #[case("app=web", true)]
    #[case("app==web,tier!=db", true)]
    #[case("app in (api, web),!legacy", true)]
    #[case("app notin (web)", false)]
    #[case("app", true)]
    #[case("!app", false)]
    #[case("weight>3", true)]
    #[case("weight<3", false)]
    #[case("", true)]
    #[case("absent!=x", true)]
    fn label_selectors_match(#[case] selector: &str, #[case] expected: bool) {
        let object = json!({"metadata": {"labels": {"app": "web", "weight": "5"}}});
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(parsed.matches(&object), expected);
        assert_eq!(LabelSelector::parse(&parsed.to_text()).unwrap(), parsed);
    }

    #[rstest::rstest]
    #[case("a in b")]
    #[case("=x")]
    #[case("a b c")]
    #[case("w>heavy")]
    fn a_malformed_label_selector_is_a_bad_request(#[case] selector: &str) {
        assert_eq!(LabelSelector::parse(selector).unwrap_err().code, 400);
    }

    #[test]
    fn field_selectors_match_and_unknown_fields_are_refused() {
        let registry = super::super::registry::Registry::built_in();
        let pods = registry.get("", "v1", "pods").unwrap();
        let s = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        s.check(&pods).unwrap();
        assert!(s.matches(&json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}})));
        assert!(!s.matches(&json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Failed"}})));
        assert_eq!(FieldSelector::parse("spec.colour=red").unwrap().check(&pods).unwrap_err().code, 400);
        assert_eq!(FieldSelector::parse("nonsense").unwrap_err().code, 400);
    }
}
