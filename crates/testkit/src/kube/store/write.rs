//! Creating and changing objects.

use serde_json::Value;

use super::{
    State, Store,
    pipeline::{change, check_identity, create},
    scope,
};
use crate::kube::{
    convert,
    patch::{self, Patch},
    registry::{Gvr, ResourceType},
    status::{Result, StatusError},
    value::{self, set, text},
};

/// Which part of an object a write may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Part {
    /// Everything but the status: the resource itself.
    #[default]
    Main,
    /// Only the status: the `status` subresource.
    Status,
    /// Both: controllers inside the server.
    All,
}

/// How a write is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The field manager whose name stands in `managedFields`.
    pub manager: String,
    /// Server-side apply takes over fields of other managers.
    pub force: bool,
    /// Everything is checked, nothing is written.
    pub dry_run: bool,
    /// Unknown fields are refused where the schema is known (`fieldValidation=Strict`).
    pub strict: bool,
    pub(crate) part: Part,
    /// The scale subresource leaves its name in `managedFields`.
    pub(crate) subresource: &'static str,
}

impl WriteOptions {
    /// A write by this field manager.
    pub fn by(manager: impl Into<String>) -> Self {
        Self { manager: manager.into(), ..Self::default() }
    }
    /// Takes over fields of other managers.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
    /// Checks only.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
    /// Writes the status instead of the rest.
    #[must_use]
    pub fn status(mut self) -> Self {
        self.part = Part::Status;
        self.subresource = "status";
        self
    }
    pub(crate) fn part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }
}

/// Who writes when the simulation itself does.
const SIMULATION: &str = "k3s";

impl Store {
    /// Creates an object; `metadata.generateName` is honoured.
    ///
    /// # Errors
    /// As the real server: 404 namespace, 409 AlreadyExists, 422 Invalid, 403 in a terminating namespace.
    pub fn create(&self, gvr: &Gvr, namespace: Option<&str>, object: Value) -> Result<Value> {
        self.create_with(gvr, namespace, object, &WriteOptions::by(SIMULATION).part(Part::All))
    }

    /// Replaces an object (not its status); a stale `resourceVersion` is a conflict.
    ///
    /// # Errors
    /// As the real server: 404, 409 Conflict, 422 Invalid.
    pub fn update(&self, gvr: &Gvr, namespace: Option<&str>, object: Value) -> Result<Value> {
        self.update_with(gvr, namespace, object, &WriteOptions::by(SIMULATION))
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update_status(&self, gvr: &Gvr, namespace: Option<&str>, object: Value) -> Result<Value> {
        self.update_with(gvr, namespace, object, &WriteOptions::by(SIMULATION).status())
    }

    /// Patches an object; server-side apply creates it when it does not exist.
    ///
    /// # Errors
    /// As the real server: 404, 409 Conflict, 415 for a strategic patch of a custom resource, 422 Invalid.
    pub fn patch(&self, gvr: &Gvr, namespace: Option<&str>, name: &str, patch: &Patch) -> Result<Value> {
        self.patch_with(gvr, namespace, name, patch, &WriteOptions::by(SIMULATION).part(Part::All))
    }

    /// Reads an object, lets `change` edit all of it (status too), and writes it, with nobody in between.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn modify(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value> {
        self.modify_with(gvr, namespace, name, &WriteOptions::by(SIMULATION).part(Part::All), |live| {
            let mut new = live.clone();
            change(&mut new);
            Ok(new)
        })
    }

    /// Applies a manifest by its own `apiVersion` and `kind` as this field manager, taking over conflicting fields.
    ///
    /// # Errors
    /// 404 for a kind the server does not know, else as [`Store::patch`].
    pub fn apply(&self, manager: &str, manifest: &Value) -> Result<Value> {
        let (api_version, kind) = (text(manifest, &["apiVersion"]), text(manifest, &["kind"]));
        let t = self.registry().by_kind(api_version, kind).ok_or_else(|| {
            StatusError::new(
                404,
                "NotFound",
                format!("no matches for kind {kind:?} in version {api_version:?}"),
            )
        })?;
        let options = WriteOptions::by(manager).force().part(Part::All);
        let patch = Patch::Apply(manifest.clone());
        let namespace = Some(value::namespace(manifest)).filter(|n| !n.is_empty());
        self.patch_with(&t.gvr(), namespace, value::name(manifest), &patch, &options)
    }

    pub(crate) fn create_with(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        let mut state = self.lock();
        let t = state.resolve(gvr)?;
        let made = create(&mut state, &t, scope(&t, namespace), object, options, false)?;
        self.finish(state, &t, &made)
    }

    pub(crate) fn update_with(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        let name = value::name(&object).to_owned();
        let mut state = self.lock();
        let t = state.resolve(gvr)?;
        let ns = scope(&t, namespace);
        // The few kinds whose real strategy creates what an update does not find.
        let creates = matches!(t.plural.as_str(), "leases" | "endpoints" | "endpointslices" | "events");
        if creates
            && state.find(&t, ns, &name).is_none()
            && text(&object, &["metadata", "resourceVersion"]).is_empty()
        {
            let made = create(&mut state, &t, ns, object, options, false)?;
            return self.finish(state, &t, &made);
        }
        let made = change(&mut state, &t, ns, &name, options, |_| Ok(convert::stored(object, &t)), false)?;
        self.finish(state, &t, &made)
    }

    pub(crate) fn modify_with(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        options: &WriteOptions,
        edit: impl FnOnce(&Value) -> Result<Value>,
    ) -> Result<Value> {
        let mut state = self.lock();
        let t = state.resolve(gvr)?;
        let made = change(&mut state, &t, scope(&t, namespace), name, options, edit, false)?;
        self.finish(state, &t, &made)
    }

    pub(crate) fn patch_with(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        name: &str,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Value> {
        let mut state = self.lock();
        let t = state.resolve(gvr)?;
        let ns = scope(&t, namespace);
        let keys = patch::ListKeys::of(&t);
        let made = match patch {
            Patch::Apply(config) => {
                check_identity(config, &t, ns, name)?;
                let uid = value::uid(config);
                if !uid.is_empty() && state.find(&t, ns, name).is_none() {
                    return Err(StatusError::conflict(
                        &t.group,
                        &t.plural,
                        name,
                        "uid mismatch: the provided object specified uid and the object does not exist",
                    ));
                }
                let request = patch::apply::Request {
                    manager: &options.manager,
                    force: options.force,
                    api_version: &t.api_version(),
                    subresource: options.subresource,
                    part: options.part,
                    has_status: t.has("status"),
                };
                match state.find(&t, ns, name).cloned() {
                    None if options.part == Part::Status => {
                        return Err(StatusError::not_found(&t.group, &t.plural, name));
                    }
                    None => {
                        let mut object = patch::apply::apply(None, config, &request, &keys)?;
                        set(&mut object, &["metadata", "name"], name);
                        create(&mut state, &t, ns, object, options, true)?
                    }
                    Some(live) => {
                        let live = convert::shown(&live, &t);
                        let object = patch::apply::apply(Some(&live), config, &request, &keys)?;
                        change(&mut state, &t, ns, name, options, |_| Ok(object), true)?
                    }
                }
            }
            other => {
                if matches!(other, Patch::Strategic(_)) && t.custom.is_some() {
                    return Err(StatusError::unsupported_media(
                        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                    ));
                }
                let edit = |live: &Value| {
                    let shown = convert::shown(live, &t);
                    Ok(convert::stored(patch::patched(&shown, other, &keys)?, &t))
                };
                change(&mut state, &t, ns, name, options, edit, false)?
            }
        };
        self.finish(state, &t, &made)
    }

    fn finish(
        &self,
        state: std::sync::MutexGuard<'_, State>,
        t: &ResourceType,
        made: &Value,
    ) -> Result<Value> {
        let version = state.version;
        drop(state);
        self.wake(version);
        Ok(convert::shown(made, t))
    }
}
