//! What cannot be looked up: secrets, marks, records. Everything else is observed again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::{Failure, FailureClass, Summary};

/// The version this release writes. Every older one still loads.
pub const STATE_VERSION: u32 = 1;

/// The remembered part of a cluster. The only type that writes secrets, and only into a 0600 file.
#[derive(Clone, Serialize, Deserialize)]
pub struct State {
    /// The format.
    pub version: u32,
    #[serde(default, serialize_with = "expose")]
    secrets: BTreeMap<String, SecretString>,
    #[serde(default)]
    records: BTreeMap<String, serde_json::Value>,
    /// Destructive steps that were begun and not yet verified, by step id.
    #[serde(default)]
    pub in_doubt: BTreeMap<String, InDoubt>,
    /// The last runs, newest last.
    #[serde(default)]
    pub runs: Vec<RunRecord>,
}

/// A destructive step that was begun; its subject's content is unknown until it is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubt {
    /// The run that began it.
    pub run: String,
    /// When, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The step's title.
    pub title: String,
}

/// One run, for `status` and for people who ask what happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's id.
    pub run: String,
    /// `apply`, `destroy`, …
    pub verb: String,
    /// When it began, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    /// How it ended; `None` while it runs or when it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

fn expose<S: Serializer>(secrets: &BTreeMap<String, SecretString>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(secrets.iter().map(|(k, v)| (k, v.expose_secret())))
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: STATE_VERSION,
            secrets: BTreeMap::new(),
            records: BTreeMap::new(),
            in_doubt: BTreeMap::new(),
            runs: Vec::new(),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("version", &self.version)
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .field("records", &self.records.keys().collect::<Vec<_>>())
            .field("in_doubt", &self.in_doubt)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Every stored secret, for those who keep them out of texts.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.secrets.values()
    }
    /// A stored secret.
    pub fn secret(&self, key: &str) -> Option<&SecretString> {
        self.secrets.get(key)
    }
    /// Stores a secret. Save the state before the secret is used.
    pub fn put_secret(&mut self, key: impl Into<String>, value: SecretString) {
        self.secrets.insert(key.into(), value);
    }
    /// Forgets a secret.
    pub fn remove_secret(&mut self, key: &str) {
        self.secrets.remove(key);
    }
    /// A record, as the type that wrote it.
    ///
    /// # Errors
    /// `Config` when the stored record has another shape.
    pub fn record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        self.records.get(key).map(|v| serde_json::from_value(v.clone())).transpose().map_err(|e| {
            Failure::new(FailureClass::Config, format!("cannot read the record `{key}` of the state"))
                .source(e)
        })
    }
    /// Stores a record. Never put a secret in one.
    ///
    /// # Errors
    /// `Unexpected` when the value cannot be written as JSON.
    pub fn put_record<T: Serialize>(&mut self, key: impl Into<String>, value: &T) -> Result<(), Failure> {
        let key = key.into();
        let value = serde_json::to_value(value).map_err(|e| {
            Failure::new(FailureClass::Unexpected, format!("cannot write the record `{key}` of the state"))
                .source(e)
        })?;
        self.records.insert(key, value);
        Ok(())
    }
    /// Forgets a record.
    pub fn remove_record(&mut self, key: &str) {
        self.records.remove(key);
    }
    /// The keys of all records that begin with `prefix`.
    pub fn record_keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.records.keys().map(String::as_str).filter(move |k| k.starts_with(prefix))
    }
}

/// Counts the saves of a state, so that a save over somebody else's is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Where a state is kept.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// Reads the state; the default one with generation 0 where there is none yet.
    async fn load(&self) -> Result<(State, Generation), Failure>;
    /// Writes the state durably. Fails with `Locked` if somebody saved since `seen`.
    async fn save(&self, state: &State, seen: Generation) -> Result<Generation, Failure>;
}
