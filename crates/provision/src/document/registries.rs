//! Logins in `k3s.registries`: they never stand in the document, only where they come from.

use serde_json::Value;
use turingpi_engine::Failure;
use turingpi_k3s::Registries;

use super::{
    diagnostic::Diagnostic,
    model::{Document, SecretSource},
};
use crate::environment::Secrets;

/// What of an `auth` is no secret.
const OPEN: &str = "username";

/// A secret below `k3s.registries`.
struct Login<'a> {
    /// `configs.reg.lan.auth.password`
    place: String,
    registry: &'a str,
    key: &'a str,
    value: &'a mut Value,
}

/// Every secret of a registry's login: all of `configs.<registry>.auth` but the user name. `auths` is how containerd
/// once called it; k3s still hands that on.
fn logins(registries: &mut Registries) -> Vec<Login<'_>> {
    let mut found = Vec::new();
    for (section, hosts) in &mut registries.0 {
        let Value::Object(hosts) = hosts else { continue };
        for (registry, config) in hosts {
            let (place, auth) = match section.as_str() {
                "configs" => (format!("configs.{registry}.auth"), config.get_mut("auth")),
                "auths" => (format!("auths.{registry}"), Some(config)),
                _ => continue,
            };
            let Some(Value::Object(auth)) = auth else { continue };
            found.extend(auth.iter_mut().filter(|(key, _)| key.as_str() != OPEN).map(|(key, value)| Login {
                place: format!("{place}.{key}"),
                registry,
                key,
                value,
            }));
        }
    }
    found
}

/// Where a secret comes from; `None` for everything else, above all the secret itself.
fn source(value: &Value) -> Option<SecretSource> {
    match value {
        Value::String(word) if word != "prompt" => None,
        value => serde_json::from_value(value.clone()).ok(),
    }
}

/// Secrets that stand in the document, also inside an address. None of them is repeated.
pub(super) fn check(document: &Document, found: &mut Vec<Diagnostic>) {
    let Some(mut registries) = document.k3s.registries.clone() else { return };
    for login in logins(&mut registries) {
        if source(login.value).is_none() {
            let path = format!("k3s.registries.{}", login.place);
            let text = format!("the {} of `{}` must not stand in the document", login.key, login.registry);
            found.push(
                Diagnostic::error(path, text)
                    .help(format!("`{}: {{ env: NAME }}`, `{{ file: PATH }}` or `prompt`", login.key)),
            );
        }
    }
    let mirrors = registries.0.get("mirrors").and_then(Value::as_object);
    for (name, mirror) in mirrors.into_iter().flatten() {
        let endpoints = mirror.get("endpoint").and_then(Value::as_array);
        for (i, endpoint) in endpoints.into_iter().flatten().enumerate() {
            let url = endpoint.as_str().and_then(|text| text.parse::<url::Url>().ok());
            if url.is_some_and(|url| url.password().is_some()) {
                let path = format!("k3s.registries.mirrors.{name}.endpoint[{i}]");
                let text = format!("the address of the mirror of `{name}` holds a password");
                let help = "name the login under `k3s.registries.configs.<host>.auth`, with `password: { env: NAME }`";
                found.push(Diagnostic::error(path, text).help(help));
            }
        }
    }
}

/// The registries with their secrets in place, for the nodes only.
///
/// # Errors
/// `Config` when a secret is missing.
pub(crate) async fn resolved(mut registries: Registries, secrets: &Secrets) -> Result<Registries, Failure> {
    for login in logins(&mut registries) {
        let Some(source) = source(login.value) else { continue };
        let what = format!("{} of the registry {}", login.key, login.registry);
        let secret = secrets.resolve(&source, &what).await?;
        *login.value = Value::String(secrecy::ExposeSecret::expose_secret(&secret).to_owned());
    }
    Ok(registries)
}
