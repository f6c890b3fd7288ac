//! A kubeconfig as a tree: what we do not know in it stays as it is.

mod document;
mod merge;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{SecretSlice, SecretString};
use serde_json::Value;
use time::OffsetDateTime;
use turingpi_engine::{Failure, FailureClass};

use document::Section;
pub use merge::{MergeOptions, Merged, choose_kubeconfig_file};

/// A kubeconfig. Holds admin credentials: its debug output shows names and servers only.
#[derive(Clone)]
pub struct Kubeconfig {
    tree: Value,
}

/// How long the client certificate of a kubeconfig is good for.
///
/// k3s issues them for 365 days and renews only the file on the server, so a copy dies within a year
/// (k3s docs, `cli/certificate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// Good from, UTC.
    pub not_before: OffsetDateTime,
    /// Good until, UTC.
    pub not_after: OffsetDateTime,
}

impl CertificateExpiry {
    /// Whole days left at `now`; negative when it has expired.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_days()
    }
}

/// What is needed to talk to the API that a kubeconfig's current context names.
pub(super) struct Endpoint {
    pub(super) server: String,
    pub(super) tls_server_name: Option<String>,
    pub(super) authority_pem: Option<Vec<u8>>,
    pub(super) client_certificate_pem: Option<Vec<u8>>,
    pub(super) client_key_pem: Option<SecretSlice<u8>>,
    pub(super) token: Option<SecretString>,
}

impl Kubeconfig {
    /// Reads a kubeconfig. Empty text is an empty kubeconfig.
    ///
    /// # Errors
    /// `Config` when the text is not YAML, or its `clusters`, `users` or `contexts` are not lists of named entries.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        document::parse(text, "the kubeconfig").map(|tree| Self { tree })
    }

    /// The kubeconfig as YAML, credentials included.
    ///
    /// # Errors
    /// `Unexpected` when the tree cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<SecretString, Failure> {
        document::write(&self.tree).map(SecretString::from)
    }

    /// The names of its contexts, in order.
    pub fn contexts(&self) -> Vec<&str> {
        document::names(&self.tree, Section::Contexts)
    }

    /// The name of the current context; the only context when none is named.
    pub fn current_context(&self) -> Option<&str> {
        match self.tree.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => Some(name),
            None => match self.contexts().as_slice() {
                [only] => Some(only),
                _ => None,
            },
        }
    }

    /// The API address of the current context.
    pub fn server(&self) -> Option<&str> {
        self.current_entry(Section::Clusters)?.get("server")?.as_str()
    }

    /// The name under which the API's certificate is checked, where it differs from the address.
    pub fn tls_server_name(&self) -> Option<&str> {
        self.current_entry(Section::Clusters)?.get("tls-server-name")?.as_str()
    }

    /// The certificate authority of the current context, PEM.
    pub fn authority_pem(&self) -> Option<Vec<u8>> {
        decoded(self.current_entry(Section::Clusters)?, "certificate-authority-data").ok().flatten()
    }

    /// Only the current context with its cluster and user, all three called `name`.
    ///
    /// k3s calls all three `default`; a text replacement of that word would corrupt the file.
    ///
    /// # Errors
    /// `Config` when the current context, its cluster or its user is missing.
    pub fn renamed(&self, name: &str) -> Result<Self, Failure> {
        let (context, cluster, user) = self.current_parts()?;
        let mut context = context.clone();
        document::set(&mut context, "cluster", Value::from(name));
        document::set(&mut context, "user", Value::from(name));
        let mut tree = self.tree.clone();
        for (section, body) in [
            (Section::Clusters, cluster.clone()),
            (Section::Contexts, context),
            (Section::Users, user.clone()),
        ] {
            document::set(&mut tree, section.key(), Value::Array(vec![document::entry(section, name, body)]));
        }
        document::set(&mut tree, "current-context", Value::from(name));
        Ok(Self { tree })
    }

    /// The same with another API address in the current context's cluster.
    ///
    /// # Errors
    /// `Config` when `url` is not an `https` URL, or there is no current context with a cluster.
    pub fn with_server(mut self, url: &str) -> Result<Self, Failure> {
        let parsed = url::Url::parse(url).map_err(|e| {
            Failure::new(FailureClass::Config, format!("`{url}` is not the address of a Kubernetes API"))
                .source(e)
        })?;
        if parsed.scheme() != "https" || parsed.host_str().is_none() {
            return Err(Failure::new(
                FailureClass::Config,
                format!("`{url}` is not the address of a Kubernetes API"),
            )
            .hint("Give it as `https://host:6443`."));
        }
        self.edit_cluster(|cluster| document::set(cluster, "server", Value::from(url)))?;
        Ok(self)
    }

    /// The same with the name that the API's certificate is checked against; `None` checks the address.
    ///
    /// # Errors
    /// `Config` when there is no current context with a cluster.
    pub fn with_tls_server_name(mut self, name: Option<&str>) -> Result<Self, Failure> {
        self.edit_cluster(|cluster| match name {
            Some(name) => document::set(cluster, "tls-server-name", Value::from(name)),
            None => document::unset(cluster, "tls-server-name"),
        })?;
        Ok(self)
    }

    /// How long the current user's client certificate is good for; `None` when it has none embedded.
    ///
    /// # Errors
    /// `Config` when the certificate is not base64, PEM or X.509.
    pub fn client_certificate_expiry(&self) -> Result<Option<CertificateExpiry>, Failure> {
        let Some(pem) = self
            .current_entry(Section::Users)
            .map(|user| decoded(user, "client-certificate-data"))
            .transpose()?
            .flatten()
        else {
            return Ok(None);
        };
        let wrong = |text: &str| {
            Failure::new(
                FailureClass::Config,
                format!("cannot read the kubeconfig's client certificate: {text}"),
            )
        };
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| wrong("it is not PEM"))?;
        let certificate = pem.parse_x509().map_err(|_| wrong("it is not X.509"))?;
        let validity = certificate.validity();
        Ok(Some(CertificateExpiry {
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        }))
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let (_, cluster, user) = self.current_parts()?;
        let wrong =
            |text: &str| Failure::new(FailureClass::Config, format!("cannot use the kubeconfig: {text}"));
        if cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool) == Some(true) {
            return Err(wrong("it asks to skip the check of the API's certificate")
                .hint("Put the cluster's CA into `certificate-authority-data` instead."));
        }
        for key in ["exec", "auth-provider", "tokenFile", "client-certificate", "client-key", "username"] {
            if user.get(key).is_some_and(|v| !v.is_null()) {
                return Err(wrong(&format!("its user logs in with `{key}`, which is not supported"))
                    .hint("Use a kubeconfig with an embedded client certificate or a token."));
            }
        }
        if cluster.get("certificate-authority").is_some_and(|v| !v.is_null()) {
            return Err(
                wrong("its cluster names a CA file").hint("Embed it: `kubectl config view --raw --flatten`.")
            );
        }
        Ok(Endpoint {
            server: cluster
                .get("server")
                .and_then(Value::as_str)
                .ok_or_else(|| wrong("its cluster has no `server`"))?
                .to_owned(),
            tls_server_name: cluster.get("tls-server-name").and_then(Value::as_str).map(str::to_owned),
            authority_pem: decoded(cluster, "certificate-authority-data")?,
            client_certificate_pem: decoded(user, "client-certificate-data")?,
            client_key_pem: decoded(user, "client-key-data")?.map(SecretSlice::from),
            token: user.get("token").and_then(Value::as_str).map(|t| SecretString::from(t.to_owned())),
        })
    }

    fn current_parts(&self) -> Result<(&Value, &Value, &Value), Failure> {
        let missing =
            |what: &str| Failure::new(FailureClass::Config, format!("the kubeconfig has no {what}"));
        let name = self.current_context().ok_or_else(|| missing("current context"))?;
        let context = document::body(&self.tree, Section::Contexts, name)
            .ok_or_else(|| missing(&format!("context `{name}`")))?;
        let part = |key: &str, section: Section| {
            let name = context
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| missing(&format!("{key} in its context")))?;
            document::body(&self.tree, section, name).ok_or_else(|| missing(&format!("{key} `{name}`")))
        };
        Ok((context, part("cluster", Section::Clusters)?, part("user", Section::Users)?))
    }

    fn current_entry(&self, section: Section) -> Option<&Value> {
        let (_, cluster, user) = self.current_parts().ok()?;
        Some(if section == Section::Clusters { cluster } else { user })
    }

    fn edit_cluster(&mut self, change: impl FnOnce(&mut Value)) -> Result<(), Failure> {
        let (context, _, _) = self.current_parts()?;
        let name = context.get("cluster").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(cluster) = document::body_mut(&mut self.tree, Section::Clusters, &name) {
            change(cluster);
        }
        Ok(())
    }
}

fn decoded(body: &Value, key: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(text) = body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let clean: String = text.split_whitespace().collect();
    STANDARD
        .decode(clean)
        .map(Some)
        .map_err(|_| Failure::new(FailureClass::Config, format!("the kubeconfig's `{key}` is not base64")))
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("contexts", &self.contexts())
            .field("current_context", &self.current_context())
            .field("server", &self.server())
            .finish_non_exhaustive()
    }
}
