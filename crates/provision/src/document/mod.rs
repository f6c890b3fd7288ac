//! The document: one YAML file that says what a cluster shall be.
//!
//! [`load`] finds every mistake at once, each with line, column, path and a suggestion. A [`Document`] that came out of
//! it is sound: names are unique, references exist, networks do not overlap. Nothing here reads files or the
//! environment.

mod check;
mod diagnostic;
mod model;
pub(crate) mod registries;
mod shape;
mod source;

pub use diagnostic::{Diagnostic, Severity};
pub use model::{
    Board, BoardCredentials, Distribution, Document, FirstBoot, HostKeys, Image, Node, SecretSource, Ssh,
    StaticAddress, Timeouts,
};
use turingpi_cluster::SlotRef;
use url::Url;

/// A document that cannot be used, and everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document has {} mistake(s)", .0.iter().filter(|d| d.severity == Severity::Error).count())]
pub struct Mistakes(pub Vec<Diagnostic>);

/// Reads a document. On success the list holds warnings only.
///
/// # Errors
/// [`Mistakes`] with at least one error, in the order of the text.
///
/// ```
/// let text = "name: homelab\nversion: v1.35.5+k3s1\nnodes:\n  - { name: node1, role: contol-plane, address: 10.0.0.1 }\n";
/// let mistakes = turingpi_provision::document::load(text).unwrap_err();
/// assert_eq!(
///     mistakes.0[0].to_string(),
///     "line 4 column 26: `nodes[0].role`: expected `control-plane` or `worker`, found `contol-plane` \
///      (did you mean `control-plane`?)"
/// );
/// ```
pub fn load(text: &str) -> Result<(Document, Vec<Diagnostic>), Mistakes> {
    let source = source::Source::parse(text)
        .map_err(|e| Mistakes(vec![Diagnostic::error("", e.message).at(e.place)]))?;
    if source.value.is_null() {
        return Err(Mistakes(vec![
            Diagnostic::error("", "the document is empty").help("`turingpi init` writes one to start from"),
        ]));
    }
    let mut found = shape::check(&source, &schema());
    let document = if found.is_empty() {
        match serde_path_to_error::deserialize::<_, Document>(&source.value) {
            Ok(document) => Some(document),
            Err(error) => {
                let path = error.path().to_string();
                let path = if path == "." { String::new() } else { path };
                let place = source.place(&path);
                found.push(Diagnostic::error(path, error.into_inner().to_string()).at(place));
                None
            }
        }
    } else {
        None
    };
    if let Some(document) = &document {
        found.extend(check::check(document).into_iter().map(|d| {
            let place = source.place(&d.path);
            d.at(place)
        }));
    }
    found.sort_by_key(|d| (d.line, d.column));
    match document {
        Some(document) if found.iter().all(|d| d.severity == Severity::Warning) => Ok((document, found)),
        _ => Err(Mistakes(found)),
    }
}

/// The JSON Schema of the document, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "turingpi cluster".into());
    }
    schema
}

impl Document {
    /// The document as YAML.
    ///
    /// # Errors
    /// When a value has no YAML form, which no loaded document has.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(self)
    }
}

impl Board {
    /// The BMC's base URL.
    ///
    /// # Errors
    /// A sentence about what is wrong with `bmc`.
    pub fn url(&self) -> Result<Url, String> {
        let text = self.bmc.trim();
        let bracketed = text.parse::<std::net::Ipv6Addr>().map(|a| format!("[{a}]"));
        let full = match (text.contains("://"), bracketed) {
            (true, _) => text.to_owned(),
            (false, Ok(v6)) => format!("https://{v6}"),
            (false, Err(_)) => format!("https://{text}"),
        };
        let url = Url::parse(&full).map_err(|_| format!("`{text}` is not the address of a BMC"))?;
        if url.scheme() != "https" {
            return Err(format!("`{text}` is not encrypted: the BMC is reached over https only"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials do not stand in the URL".to_owned());
        }
        if url.host_str().is_none_or(|h| h.is_empty() || h.contains(' ')) {
            return Err(format!("`{text}` is not the address of a BMC"));
        }
        Ok(url)
    }
}

impl Node {
    /// The slot, parsed.
    ///
    /// # Errors
    /// A sentence about what is wrong with `slot`.
    pub fn slot_ref(&self) -> Result<Option<SlotRef>, String> {
        let Some(text) = &self.slot else { return Ok(None) };
        let (board, number) = text.split_once('/').ok_or_else(|| format!("`{text}` is not a slot"))?;
        let slot = number.parse().map_err(|e: turingpi_bmc::InvalidSlot| e.to_string())?;
        Ok(Some(SlotRef { board: board.to_owned(), slot }))
    }
}
