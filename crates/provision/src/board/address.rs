//! Which board is meant: a name of the document, an address or a URL.

use std::net::Ipv6Addr;

use turingpi_engine::{Failure, FailureClass};
use url::Url;

use crate::document::Document;

/// A board's address as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) url: Url,
    /// Neither scheme nor port was given: firmware 1.x may be looked for on port 80.
    pub(super) open: bool,
}

impl Address {
    /// Reads `10.10.88.70`, `turingpi.local`, `bmc:8443`, `[fd00::7]`, `https://bmc:8443/proxy` and `http://10.10.88.70`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        let wrong = |why: String| {
            Failure::new(FailureClass::Usage, why)
                .hint("Write an address, a host name or a URL: `10.10.88.70`, `turingpi.local`, `https://bmc:8443`.")
        };
        let nonsense = || wrong(format!("`{text}` is not the address of a board"));
        let has_scheme = text.contains("://");
        let full = match (has_scheme, text.parse::<Ipv6Addr>()) {
            (true, _) => text.to_owned(),
            (false, Ok(v6)) => format!("https://[{v6}]"),
            (false, Err(_)) => format!("https://{text}"),
        };
        let url = Url::parse(&full).map_err(|_| nonsense())?;
        if !["https", "http"].contains(&url.scheme()) {
            return Err(wrong(format!("`{text}` is neither an http nor an https address")));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("credentials do not stand in the address".to_owned()).hint(
                "Use `--user`, and `TPI_PASSWORD`, `--password-file` or the prompt for the password.",
            ));
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || host.contains([' ', '%']) || url.query().is_some() || url.fragment().is_some() {
            return Err(nonsense());
        }
        let open = !has_scheme && url.port().is_none();
        Ok(Self { url, open })
    }

    /// The name that a board without a document goes by: its host, with the port where that is unusual.
    pub(super) fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// What `wanted` names in the document: a board's name, or the address of one that stands there.
pub(super) fn in_document(document: &Document, wanted: &str) -> Option<String> {
    if document.boards.contains_key(wanted) {
        return Some(wanted.to_owned());
    }
    let address = Address::parse(wanted).ok()?;
    let same = |url: &Url| {
        url.host_str() == address.url.host_str()
            && url.port_or_known_default() == address.url.port_or_known_default()
    };
    document
        .boards
        .iter()
        .find(|(_, board)| board.url().is_ok_and(|url| same(&url)))
        .map(|(name, _)| name.clone())
}

/// Whether the boards asked for are those of `document`; without a wish its only board is meant.
///
/// # Errors
/// `Usage` when some are and others are not, when there is no board to choose, or more than one.
pub fn of_document(document: &Document, wanted: &[String]) -> Result<bool, Failure> {
    if wanted.is_empty() {
        let names: Vec<&str> = document.boards.keys().map(String::as_str).collect();
        return match names.as_slice() {
            [_] => Ok(true),
            [] => Err(no_board(&format!("the document of `{}` has no board", document.name))),
            names => {
                Err(Failure::new(FailureClass::Usage, "the document has several boards, and none is named")
                    .hint(format!("Name one with `--board`: {}.", names.join(", "))))
            }
        };
    }
    let known = wanted.iter().filter(|name| in_document(document, name).is_some()).count();
    if known == wanted.len() {
        return Ok(true);
    }
    if known > 0 {
        return Err(Failure::new(
            FailureClass::Usage,
            "some of these boards are the document's and others are not",
        )
        .hint("Work on them in two runs: each has a state of its own."));
    }
    // A word without a dot is a mistyped name more often than a host.
    if let Some(word) = wanted.iter().find(|w| !w.contains(['.', ':', '/']))
        && !document.boards.is_empty()
    {
        let names: Vec<&str> = document.boards.keys().map(String::as_str).collect();
        return Err(Failure::new(FailureClass::Usage, format!("there is no board `{word}` in the document"))
            .hint(format!(
                "Its boards are {}. For a host of that name write `https://{word}`.",
                names.join(", ")
            )));
    }
    Ok(false)
}

/// Nobody said which board.
pub(super) fn no_board(why: &str) -> Failure {
    Failure::new(FailureClass::Usage, format!("{why}, so it is not clear which board is meant")).hint(
        "Name it: `--board 10.10.88.70`, or a board of a document with `--board NAME`. `turingpi board discover` looks for one.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_urls_are_read_and_the_rest_is_refused_with_a_next_step() {
        let read = |text: &str| Address::parse(text).map(|a| (a.url.to_string(), a.open, a.name())).unwrap();
        assert_eq!(read("10.10.88.70"), ("https://10.10.88.70/".into(), true, "10.10.88.70".into()));
        assert_eq!(read("bmc:8443"), ("https://bmc:8443/".into(), false, "bmc:8443".into()));
        assert_eq!(read("fd00::7"), ("https://[fd00::7]/".into(), true, "[fd00::7]".into()));
        assert!(!read("http://10.0.0.2").1);
        for wrong in ["", "ftp://bmc", "root:pw@bmc", "https://root:pw@bmc", "a b", "bmc?x=1"] {
            let failure = Address::parse(wrong).unwrap_err();
            assert_eq!(failure.class(), FailureClass::Usage, "{wrong}");
            assert!(
                failure.hint_text().is_some() && !failure.to_string().contains("pw"),
                "{wrong}: {failure}"
            );
        }
    }
}
