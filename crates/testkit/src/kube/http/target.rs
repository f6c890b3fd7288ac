//! Which resource a path names.

use http::Method;

use super::Call;
use crate::kube::status::{Result, StatusError};

/// A resource path, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    /// With what follows it: `log`, `proxy/metrics`.
    pub(crate) subresource: Option<String>,
    /// The old `/watch/` prefix.
    watch: bool,
}

impl Target {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/').peekable();
        let (group, version) = match parts.next()? {
            "api" => (String::new(), parts.next()?),
            "apis" => (parts.next()?.to_owned(), parts.next()?),
            _ => return None,
        };
        let mut target = Self { group, version: version.to_owned(), ..Self::default() };
        if parts.peek() == Some(&"watch") {
            parts.next();
            target.watch = true;
        }
        let rest: Vec<&str> = parts.collect();
        let rest = match rest.as_slice() {
            // Everything under a namespace, except the namespace itself and its own two subresources.
            ["namespaces", ns, plural, tail @ ..]
                if !matches!(*plural, "status" | "finalize") || !tail.is_empty() =>
            {
                target.namespace = Some((*ns).to_owned());
                target.plural = (*plural).to_owned();
                tail
            }
            [plural, tail @ ..] if !plural.is_empty() => {
                target.plural = (*plural).to_owned();
                tail
            }
            _ => return None,
        };
        if let [name, tail @ ..] = rest {
            target.name = Some((*name).to_owned());
            target.subresource = (!tail.is_empty()).then(|| tail.join("/"));
        }
        Some(target)
    }

    /// The verb as authorisation knows it.
    ///
    /// # Errors
    /// 405 for a method that means nothing here.
    pub(crate) fn verb(&self, call: &Call) -> Result<&'static str> {
        let named = self.name.is_some();
        let watch = self.watch || call.flag("watch");
        Ok(match call.method {
            Method::GET if watch => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT if named => "update",
            Method::PATCH if named => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => {
                return Err(StatusError::method_not_allowed(
                    "the server does not allow this method on the requested resource",
                ));
            }
        })
    }
}

/// A path without percent signs.
pub(super) fn decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(b) = bytes.next() {
        let escaped = (b == b'%')
            .then(|| {
                let mut two = bytes.clone();
                let digits = [two.next()?, two.next()?];
                let value = u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
                bytes = two;
                Some(value)
            })
            .flatten();
        out.push(escaped.unwrap_or(b));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("/api/v1/nodes", "", None, "nodes", None, None)]
    #[case("/api/v1/namespaces/kube-system", "", None, "namespaces", Some("kube-system"), None)]
    #[case("/api/v1/namespaces/a/finalize", "", None, "namespaces", Some("a"), Some("finalize"))]
    #[case("/api/v1/namespaces/a/pods/p/log", "", Some("a"), "pods", Some("p"), Some("log"))]
    #[case(
        "/apis/apps/v1/namespaces/a/deployments/d/scale",
        "apps",
        Some("a"),
        "deployments",
        Some("d"),
        Some("scale")
    )]
    #[case("/apis/apps/v1/deployments", "apps", None, "deployments", None, None)]
    fn paths_name_resources(
        #[case] path: &str,
        #[case] group: &str,
        #[case] namespace: Option<&str>,
        #[case] plural: &str,
        #[case] name: Option<&str>,
        #[case] sub: Option<&str>,
    ) {
        let target = Target::parse(path).unwrap();
        assert_eq!(target.group, group);
        assert_eq!(target.namespace.as_deref(), namespace);
        assert_eq!(target.plural, plural);
        assert_eq!(target.name.as_deref(), name);
        assert_eq!(target.subresource.as_deref(), sub);
    }

    #[test]
    fn other_paths_name_none() {
        for path in ["/version", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", ""] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
        assert_eq!(decoded("/a%3Ab%2"), "/a:b%2");
    }
}
