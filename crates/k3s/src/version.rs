//! Versions of k3s: the Kubernetes version, and a revision of k3s for it.

use std::{borrow::Cow, cmp::Ordering, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version of k3s: `v1.35.5+k3s1`, `v1.36.0-rc2+k3s1`.
///
/// Ordered by major, minor, patch, then a pre-release before its release, then the k3s revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct K3sVersion {
    kubernetes: semver::Version,
    revision: u64,
}

/// Why a text is not a [`K3sVersion`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a k3s version such as v1.35.5+k3s1")]
pub struct BadVersion {
    text: String,
}

impl K3sVersion {
    /// The Kubernetes version with its pre-release, without the revision of k3s.
    pub fn kubernetes(&self) -> &semver::Version {
        &self.kubernetes
    }
    /// The revision of k3s, counted from 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Major and minor.
    pub fn line(&self) -> (u64, u64) {
        (self.kubernetes.major, self.kubernetes.minor)
    }

    /// Reads the first line of `k3s --version`: `k3s version v1.31.4+k3s1 (a562d090)`.
    pub fn from_program(output: &str) -> Option<Self> {
        let mut words = output.lines().next()?.split_whitespace();
        let word = words.find(|w| *w == "version").and_then(|_| words.next())?;
        word.parse().ok()
    }
}

impl FromStr for K3sVersion {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion { text: text.to_owned() };
        let (version, build) = text.strip_prefix('v').and_then(|t| t.split_once('+')).ok_or_else(bad)?;
        let digits = build.strip_prefix("k3s").ok_or_else(bad)?;
        // `k3s01` would print as another tag than it was read from.
        let revision = digits.parse::<u64>().ok().filter(|r| r.to_string() == digits).ok_or_else(bad)?;
        let kubernetes = semver::Version::parse(version).map_err(|_| bad())?;
        Ok(Self { kubernetes, revision })
    }
}

impl fmt::Display for K3sVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}+k3s{}", self.kubernetes, self.revision)
    }
}

impl Ord for K3sVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kubernetes.cmp(&other.kubernetes).then(self.revision.cmp(&other.revision))
    }
}

impl PartialOrd for K3sVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for K3sVersion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for K3sVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for K3sVersion {
    fn schema_name() -> Cow<'static, str> {
        "K3sVersion".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A version of k3s, such as v1.35.5+k3s1",
            "pattern": r"^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?\+k3s\d+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn v(text: &str) -> K3sVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_release_pre_release_and_revision() {
        let sorted = [
            "v1.9.9+k3s9",
            "v1.33.7+k3s1",
            "v1.33.7+k3s3",
            "v1.33.7+k3s10",
            "v1.33.13+k3s1",
            "v1.34.0-alpha1+k3s1",
            "v1.34.0-rc1+k3s1",
            "v1.34.0-rc1+k3s2",
            "v1.34.0+k3s1",
            "v2.0.0+k3s1",
        ];
        let mut versions: Vec<K3sVersion> = sorted.iter().rev().map(|t| v(t)).collect();
        versions.sort();
        assert_eq!(versions.iter().map(ToString::to_string).collect::<Vec<_>>(), sorted);
    }

    #[rstest]
    #[case("1.35.5+k3s1")]
    #[case("v1.35.5")]
    #[case("v1.35+k3s1")]
    #[case("v1.35.5+rke2r1")]
    #[case("v1.35.5+k3s")]
    #[case("v1.35.5+k3s01")]
    #[case("v1.35.5+k3s+1")]
    #[case("v1.35.5-k3s1")]
    #[case("")]
    fn what_is_not_a_version_of_k3s_is_refused(#[case] text: &str) {
        assert!(text.parse::<K3sVersion>().is_err(), "{text}");
    }

    #[test]
    fn the_program_says_its_version_on_the_first_line() {
        let output = "k3s version v1.31.4+k3s1 (a562d090)\ngo version go1.22.9\n";
        assert_eq!(K3sVersion::from_program(output), Some(v("v1.31.4+k3s1")));
        assert_eq!(K3sVersion::from_program("go version go1.22.9"), None);
        assert_eq!(K3sVersion::from_program(""), None);
    }

    proptest! {
        #[test]
        fn any_version_that_reads_prints_as_it_was(text in "v[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}(-rc[0-9])?\\+k3s[0-9]{1,3}") {
            if let Ok(version) = text.parse::<K3sVersion>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
