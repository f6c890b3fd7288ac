//! The channel server: which version a channel such as `stable` offers.

use serde::Deserialize;
use turingpi_engine::{Failure, FailureClass};

use crate::K3sVersion;

#[derive(Deserialize)]
struct Collection {
    data: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    name: String,
    #[serde(default)]
    latest: Option<String>,
}

/// The version `channel` offers, from the channel server's list (`GET …/v1-release/channels`, JSON).
///
/// Only `data[].name` and `data[].latest` are read. Source: rancher/channelserver `pkg/model`.
///
/// # Errors
/// `Unexpected` when the text is not such a list; `Config` when it has no such channel, naming those there are.
pub fn channel_version(json: &str, channel: &str) -> Result<K3sVersion, Failure> {
    let list: Collection = serde_json::from_str(json).map_err(|e| {
        Failure::new(FailureClass::Unexpected, "cannot read the list of k3s channels")
            .source(e)
            .hint("Check `k3s.channels-url`, or set `version` in the document.")
    })?;
    let Some(found) = list.data.iter().find(|c| c.name == channel) else {
        let names: Vec<&str> = list.data.iter().map(|c| c.name.as_str()).collect();
        return Err(Failure::new(FailureClass::Config, format!("there is no k3s channel named `{channel}`"))
            .hint(format!("Use one of: {}.", names.join(", "))));
    };
    let latest = found.latest.as_deref().unwrap_or("");
    latest.parse().map_err(|e: crate::BadVersion| {
        Failure::new(FailureClass::Unexpected, format!("the k3s channel `{channel}` offers no version"))
            .source(e)
            .hint("Set `version` in the document.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"type":"collection","links":{"self":"https://x/v1-release/channels"},"data":[
        {"id":"stable","type":"channel","links":{},"name":"stable","latest":"v1.35.5+k3s1"},
        {"id":"v1.34","name":"v1.34","latest":"v1.34.9+k3s1","latestRegexp":"v1\\.34\\..*","excludeRegexp":"^[^+]+-"},
        {"id":"empty","name":"empty"}]}"#;

    #[test]
    fn a_channel_offers_its_latest_version() {
        assert_eq!(channel_version(LIST, "stable").unwrap().to_string(), "v1.35.5+k3s1");
        assert_eq!(channel_version(LIST, "v1.34").unwrap().to_string(), "v1.34.9+k3s1");
    }

    #[test]
    fn an_unknown_channel_names_those_there_are() {
        let failure = channel_version(LIST, "stabel").unwrap_err();
        assert_eq!(failure.class(), FailureClass::Config);
        assert_eq!(failure.hint_text(), Some("Use one of: stable, v1.34, empty."));
    }

    #[test]
    fn a_channel_without_a_version_and_a_page_that_is_no_list_are_unexpected() {
        assert_eq!(channel_version(LIST, "empty").unwrap_err().class(), FailureClass::Unexpected);
        assert_eq!(channel_version("<html>", "stable").unwrap_err().class(), FailureClass::Unexpected);
    }
}
