//! Which resources the server knows: the built-in ones and those that CRDs add.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use super::{
    schema::Schema,
    value::{at, items, text},
};

/// A resource's coordinates in the API: group (empty for core), version, plural name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// `apps`; empty for the core group.
    pub group: Cow<'static, str>,
    /// `v1`.
    pub version: Cow<'static, str>,
    /// `deployments`.
    pub plural: Cow<'static, str>,
}

impl Gvr {
    /// Any resource.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), plural: plural.into() }
    }
    /// A resource with names known at compile time.
    pub const fn fixed(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), plural: Cow::Borrowed(plural) }
    }
    /// Nodes.
    pub const NODES: Self = Self::fixed("", "v1", "nodes");
    /// Pods.
    pub const PODS: Self = Self::fixed("", "v1", "pods");
    /// Namespaces.
    pub const NAMESPACES: Self = Self::fixed("", "v1", "namespaces");
    /// Secrets.
    pub const SECRETS: Self = Self::fixed("", "v1", "secrets");
    /// ConfigMaps.
    pub const CONFIG_MAPS: Self = Self::fixed("", "v1", "configmaps");
    /// Services.
    pub const SERVICES: Self = Self::fixed("", "v1", "services");
    /// ServiceAccounts.
    pub const SERVICE_ACCOUNTS: Self = Self::fixed("", "v1", "serviceaccounts");
    /// Events (core).
    pub const EVENTS: Self = Self::fixed("", "v1", "events");
    /// PersistentVolumes.
    pub const PERSISTENT_VOLUMES: Self = Self::fixed("", "v1", "persistentvolumes");
    /// PersistentVolumeClaims.
    pub const PERSISTENT_VOLUME_CLAIMS: Self = Self::fixed("", "v1", "persistentvolumeclaims");
    /// Deployments.
    pub const DEPLOYMENTS: Self = Self::fixed("apps", "v1", "deployments");
    /// ReplicaSets.
    pub const REPLICA_SETS: Self = Self::fixed("apps", "v1", "replicasets");
    /// StatefulSets.
    pub const STATEFUL_SETS: Self = Self::fixed("apps", "v1", "statefulsets");
    /// DaemonSets.
    pub const DAEMON_SETS: Self = Self::fixed("apps", "v1", "daemonsets");
    /// Jobs.
    pub const JOBS: Self = Self::fixed("batch", "v1", "jobs");
    /// Leases.
    pub const LEASES: Self = Self::fixed("coordination.k8s.io", "v1", "leases");
    /// StorageClasses.
    pub const STORAGE_CLASSES: Self = Self::fixed("storage.k8s.io", "v1", "storageclasses");
    /// CustomResourceDefinitions.
    pub const CRDS: Self = Self::fixed("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    /// PodDisruptionBudgets.
    pub const POD_DISRUPTION_BUDGETS: Self = Self::fixed("policy", "v1", "poddisruptionbudgets");

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits `apps/v1` into group and version.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A column of a CRD's `additionalPrinterColumns`.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) priority: i64,
}

/// One served version of one resource.
#[derive(Debug, Clone)]
pub(crate) struct ResourceType {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// `status`, `scale`, `eviction`…
    pub(crate) subresources: Vec<String>,
    /// Review kinds, which are only ever created and never stored.
    pub(crate) create_only: bool,
    /// Set for custom resources.
    pub(crate) custom: Option<Arc<Custom>>,
    /// Under which name all versions are stored: `group/plural`.
    pub(crate) storage: Arc<str>,
}

/// What a CRD version says about its objects.
#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) schema: Option<Schema>,
    pub(crate) columns: Vec<PrinterColumn>,
    /// `spec.replicas`-like paths of the scale subresource: spec, status, selector.
    pub(crate) scale: Option<(String, String, String)>,
    pub(crate) selectable: Vec<String>,
}

impl ResourceType {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
    pub(crate) fn gvr(&self) -> Gvr {
        Gvr::new(self.group.clone(), self.version.clone(), self.plural.clone())
    }
    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|s| s == subresource)
    }
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
    /// `metadata.generation` counts changes of `spec`.
    pub(crate) fn has_generation(&self) -> bool {
        self.custom.is_some()
            || matches!(
                (self.group.as_str(), self.plural.as_str()),
                ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
                    | ("batch", _)
                    | ("policy", _)
                    | ("networking.k8s.io", _)
                    | ("apiextensions.k8s.io", _)
                    | ("admissionregistration.k8s.io", _)
                    | ("scheduling.k8s.io", _)
                    | ("", "pods" | "replicationcontrollers")
            )
    }
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.create_only {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }
}

/// group, version, kind, plural, namespaced, short names, categories, subresources.
type Row =
    (&'static str, &'static str, &'static str, &'static str, bool, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const BUILT_IN: &[Row] = &[
    ("", "v1", "Binding", "bindings", true, "", "", "!"),
    ("", "v1", "ComponentStatus", "componentstatuses", false, "cs", "", ""),
    ("", "v1", "ConfigMap", "configmaps", true, "cm", "", ""),
    ("", "v1", "Endpoints", "endpoints", true, "ep", "", ""),
    ("", "v1", "Event", "events", true, "ev", "", ""),
    ("", "v1", "LimitRange", "limitranges", true, "limits", "", ""),
    ("", "v1", "Namespace", "namespaces", false, "ns", "", "finalize status"),
    ("", "v1", "Node", "nodes", false, "no", "", "proxy status"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, "pvc", "", "status"),
    ("", "v1", "PersistentVolume", "persistentvolumes", false, "pv", "", "status"),
    ("", "v1", "Pod", "pods", true, "po", "all", "attach binding ephemeralcontainers eviction exec log portforward proxy status"),
    ("", "v1", "PodTemplate", "podtemplates", true, "", "", ""),
    ("", "v1", "ReplicationController", "replicationcontrollers", true, "rc", "all", "scale status"),
    ("", "v1", "ResourceQuota", "resourcequotas", true, "quota", "", "status"),
    ("", "v1", "Secret", "secrets", true, "", "", ""),
    ("", "v1", "ServiceAccount", "serviceaccounts", true, "sa", "", "token"),
    ("", "v1", "Service", "services", true, "svc", "all", "proxy status"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false, "", "api-extensions", ""),
    ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false, "", "api-extensions", "status"),
    ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false, "", "api-extensions", ""),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false, "", "api-extensions", ""),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false, "crd crds", "api-extensions", "status"),
    ("apiregistration.k8s.io", "v1", "APIService", "apiservices", false, "", "api-extensions", "status"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", true, "", "", ""),
    ("apps", "v1", "DaemonSet", "daemonsets", true, "ds", "all", "status"),
    ("apps", "v1", "Deployment", "deployments", true, "deploy", "all", "scale status"),
    ("apps", "v1", "ReplicaSet", "replicasets", true, "rs", "all", "scale status"),
    ("apps", "v1", "StatefulSet", "statefulsets", true, "sts", "all", "scale status"),
    ("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", false, "", "", "!"),
    ("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false, "", "", "!"),
    ("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true, "", "", "!"),
    ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false, "", "", "!"),
    ("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", false, "", "", "!"),
    ("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", false, "", "", "!"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, "hpa", "all", "status"),
    ("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, "hpa", "all", "status"),
    ("batch", "v1", "CronJob", "cronjobs", true, "cj", "all", "status"),
    ("batch", "v1", "Job", "jobs", true, "", "all", "status"),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", false, "csr", "", "approval status"),
    ("coordination.k8s.io", "v1", "Lease", "leases", true, "", "", ""),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, "", "", ""),
    ("events.k8s.io", "v1", "Event", "events", true, "ev", "", ""),
    ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", false, "", "", "status"),
    ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", false, "", "", "status"),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false, "", "", ""),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", true, "ing", "", "status"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, "netpol", "", ""),
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false, "", "", ""),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, "pdb", "", "status"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false, "", "", ""),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false, "", "", ""),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true, "", "", ""),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", true, "", "", ""),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false, "pc", "", ""),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", false, "", "", ""),
    ("storage.k8s.io", "v1", "CSINode", "csinodes", false, "", "", ""),
    ("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", true, "", "", ""),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", false, "sc", "", ""),
    ("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", false, "", "", "status"),
];

/// Every resource that is served right now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    types: BTreeMap<(String, String, String), Arc<ResourceType>>,
    /// Groups in the order in which discovery lists them, with their versions, preferred first.
    groups: Vec<(String, Vec<String>)>,
}

impl Registry {
    pub(crate) fn built_in() -> Self {
        let mut registry = Self::default();
        let words = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (group, version, kind, plural, namespaced, short, categories, subresources) in BUILT_IN {
            // The two event APIs show the same objects.
            let storage_group = if *plural == "events" { "" } else { group };
            registry.insert(ResourceType {
                group: (*group).into(),
                version: (*version).into(),
                plural: (*plural).into(),
                singular: kind.to_lowercase(),
                kind: (*kind).into(),
                namespaced: *namespaced,
                short_names: words(short),
                categories: words(categories),
                create_only: *subresources == "!",
                subresources: if *subresources == "!" { Vec::new() } else { words(subresources) },
                custom: None,
                storage: format!("{storage_group}/{plural}").into(),
            });
        }
        registry
    }

    fn insert(&mut self, t: ResourceType) {
        let at = self.groups.iter().position(|(g, _)| *g == t.group);
        let versions = match at.and_then(|i| self.groups.get_mut(i)) {
            Some((_, versions)) => versions,
            None => {
                self.groups.push((t.group.clone(), Vec::new()));
                match self.groups.last_mut() {
                    Some((_, versions)) => versions,
                    None => return,
                }
            }
        };
        if !versions.contains(&t.version) {
            versions.push(t.version.clone());
            if t.custom.is_some() {
                versions.sort_by_key(|v| version_priority(v));
            }
        }
        self.types.insert((t.group.clone(), t.version.clone(), t.plural.clone()), Arc::new(t));
    }

    /// The built-in resources and those of `crds` that are established.
    pub(crate) fn with_crds<'a>(crds: impl Iterator<Item = &'a Value>) -> Self {
        let mut registry = Self::built_in();
        for crd in crds.filter(|c| super::value::condition(c, "Established") == "True") {
            for t in custom_types(crd) {
                registry.insert(t);
            }
        }
        registry
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceType>> {
        self.types.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }
    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<ResourceType>> {
        let (group, version) = split_api_version(api_version);
        self.types.values().find(|t| t.group == group && t.version == version && t.kind == kind).cloned()
    }
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        self.types.values()
    }
    /// One entry a storage name: what garbage collection and namespace deletion walk over.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        let mut seen = std::collections::BTreeSet::new();
        self.types.values().filter(move |t| !t.create_only && seen.insert(Arc::clone(&t.storage)))
    }
    pub(crate) fn groups(&self) -> &[(String, Vec<String>)] {
        &self.groups
    }
    pub(crate) fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ResourceType>> {
        self.types.values().filter(move |t| t.group == group && t.version == version)
    }
}

/// The resource types of one CRD, one for each served version.
pub(crate) fn custom_types(crd: &Value) -> Vec<ResourceType> {
    let spec = &crd["spec"];
    let group = text(spec, &["group"]);
    let names = &spec["names"];
    let plural = text(names, &["plural"]);
    let kind = text(names, &["kind"]);
    let strings = |v: &Value, key: &str| -> Vec<String> {
        items(v, &[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    items(spec, &["versions"])
        .iter()
        .filter(|v| v["served"] == true)
        .map(|version| {
            let subs = &version["subresources"];
            let scale = &subs["scale"];
            let columns = items(version, &["additionalPrinterColumns"]).iter().map(|c| PrinterColumn {
                name: text(c, &["name"]).into(),
                kind: text(c, &["type"]).into(),
                path: text(c, &["jsonPath"]).into(),
                priority: c["priority"].as_i64().unwrap_or(0),
            });
            let custom = Custom {
                schema: Schema::of_crd_version(version),
                columns: columns.collect(),
                scale: scale.is_object().then(|| {
                    let path = |k: &str| text(scale, &[k]).trim_start_matches('.').to_owned();
                    (path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))
                }),
                selectable: items(version, &["selectableFields"])
                    .iter()
                    .map(|f| text(f, &["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
            };
            let mut subresources = Vec::new();
            if scale.is_object() {
                subresources.push("scale".to_owned());
            }
            if at(subs, &["status"]).is_object() {
                subresources.push("status".to_owned());
            }
            ResourceType {
                group: group.into(),
                version: text(version, &["name"]).into(),
                plural: plural.into(),
                singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
                kind: kind.into(),
                namespaced: spec["scope"] == "Namespaced",
                short_names: strings(names, "shortNames"),
                categories: strings(names, "categories"),
                subresources,
                create_only: false,
                custom: Some(Arc::new(custom)),
                storage: format!("{group}/{plural}").into(),
            }
        })
        .collect()
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then the rest by name.
fn version_priority(version: &str) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<u64>, String) {
    use std::cmp::Reverse;
    let parse = || -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, tail) = rest.split_at(end);
        let major = major.parse().ok()?;
        let stage = |word: &str, rank: u8| {
            tail.strip_prefix(word).and_then(|n| n.parse().ok()).map(|n| (rank, major, n))
        };
        if tail.is_empty() { Some((0, major, 0)) } else { stage("beta", 1).or_else(|| stage("alpha", 2)) }
    };
    match parse() {
        Some((rank, major, minor)) => (rank, Reverse(major), Reverse(minor), String::new()),
        None => (3, Reverse(0), Reverse(0), version.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["foo1", "v1alpha1", "v1", "v1beta1", "v2", "v1beta2", "v10"];
        versions.sort_by_key(|v| version_priority(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo1"]);
    }

    #[test]
    fn every_built_in_kind_is_found_by_kind_and_by_plural() {
        let registry = Registry::built_in();
        for t in registry.all() {
            assert_eq!(registry.by_kind(&t.api_version(), &t.kind).unwrap().plural, t.plural);
        }
        assert_eq!(registry.all().count(), BUILT_IN.len());
    }
}
