//! A k3s cluster: its certificates, its token, its members, its API.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{ApiServer, ClusterPki, Snapshot};

/// What keeps the cluster's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datastore {
    Sqlite,
    Etcd,
}

/// A server that belongs to the datastore.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) voter: bool,
    pub(crate) running: bool,
    pub(crate) address: IpAddr,
    /// Which machine it is: its data has this mark.
    pub(crate) mark: String,
    /// Which simulated node it is.
    pub(crate) host: String,
}

#[derive(Default)]
struct State {
    members: BTreeMap<String, Member>,
    doors: BTreeMap<String, watch::Sender<bool>>,
    critical: BTreeMap<String, String>,
    datastore: Option<Datastore>,
    snapshots: BTreeMap<String, Snapshot>,
    /// Node objects by the simulated node that registered them, while its kubelet runs.
    kubelets: BTreeMap<String, String>,
    /// As `kubelets`, kept when they end.
    last: BTreeMap<String, String>,
    registered: std::collections::BTreeSet<String>,
}

/// One cluster.
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) pki: ClusterPki,
    pub(crate) api: Arc<ApiServer>,
    /// The password of the server token.
    pub(crate) token: String,
    /// The password of the agent token, when it differs.
    pub(crate) agent_token: Option<String>,
    state: Mutex<State>,
}

impl Cluster {
    pub(crate) fn new(
        pki: ClusterPki,
        api: Arc<ApiServer>,
        token: String,
        agent_token: Option<String>,
    ) -> Self {
        Self { id: crate::node::disk::uuid(), pki, api, token, agent_token, state: Mutex::default() }
    }
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// `K10<hash>::server:<password>`.
    pub(crate) fn full_token(&self) -> String {
        format!("K10{}::server:{}", self.pki.ca_hash(), self.token)
    }
    pub(crate) fn datastore(&self) -> Datastore {
        self.lock().datastore.unwrap_or(Datastore::Sqlite)
    }
    pub(crate) fn set_datastore(&self, datastore: Datastore) {
        self.lock().datastore = Some(datastore);
    }
    pub(crate) fn members(&self) -> Vec<(String, bool)> {
        self.lock().members.iter().map(|(name, member)| (name.clone(), member.voter)).collect()
    }
    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        self.lock().members.get(name).cloned()
    }
    pub(crate) fn put_member(&self, name: &str, member: Member) {
        self.lock().members.insert(name.to_owned(), member);
        self.settle();
    }
    pub(crate) fn remove_member(&self, name: &str) {
        {
            let mut state = self.lock();
            state.members.remove(name);
            state.registered.remove(name);
        }
        self.settle();
    }
    /// Leaves only one member (`--cluster-reset`).
    pub(crate) fn reset_to(&self, name: &str) {
        let mut state = self.lock();
        state.members.retain(|other, _| other == name);
        if let Some(member) = state.members.get_mut(name) {
            member.voter = true;
        }
    }
    pub(crate) fn has_learner(&self) -> bool {
        self.lock().members.values().any(|member| !member.voter)
    }
    pub(crate) fn promote(&self, name: &str) {
        if let Some(member) = self.lock().members.get_mut(name) {
            member.voter = true;
        }
        self.settle();
    }
    /// A server's process came or went.
    pub(crate) fn set_running(&self, name: &str, running: bool) {
        if let Some(member) = self.lock().members.get_mut(name) {
            member.running = running;
        }
        self.settle();
    }
    /// Whether a majority of the voters runs.
    pub(crate) fn quorum(&self) -> bool {
        let state = self.lock();
        let voters: Vec<&Member> = state.members.values().filter(|member| member.voter).collect();
        let up = voters.iter().filter(|member| member.running).count();
        up * 2 > voters.len()
    }
    /// Opens the doors of running servers while there is a quorum, and closes the others.
    fn settle(&self) {
        let quorum = self.quorum();
        let state = self.lock();
        for (name, door) in &state.doors {
            let open = quorum && state.members.get(name).is_some_and(|member| member.running);
            door.send_if_modified(|now| std::mem::replace(now, open) != open);
        }
    }
    /// The switch of a server's door.
    pub(crate) fn door(&self, name: &str) -> watch::Receiver<bool> {
        let receiver = {
            let mut state = self.lock();
            state.doors.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(false)).subscribe()
        };
        self.settle();
        receiver
    }
    /// Whether the API answers at a server.
    pub(crate) fn answers_at(&self, address: IpAddr) -> bool {
        self.quorum()
            && self.lock().members.values().any(|member| member.running && member.address == address)
    }
    /// Whether the API answers anywhere.
    pub(crate) fn answers(&self) -> bool {
        self.quorum()
    }
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.lock().members.values().map(|member| member.address).collect()
    }
    pub(crate) fn critical(&self) -> BTreeMap<String, String> {
        self.lock().critical.clone()
    }
    pub(crate) fn set_critical(&self, critical: BTreeMap<String, String>) {
        self.lock().critical = critical;
    }
    pub(crate) fn save_snapshot(&self, name: &str) {
        let snapshot = self.api.store().snapshot();
        self.lock().snapshots.insert(name.to_owned(), snapshot);
    }
    /// Puts a snapshot's objects back; `false` when the file is none of this cluster's.
    pub(crate) fn restore_snapshot(&self, name: &str) -> bool {
        let state = self.lock();
        match state.snapshots.get(name) {
            Some(snapshot) => {
                self.api.store().restore(snapshot);
                true
            }
            None => false,
        }
    }
    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.lock().snapshots.keys().cloned().collect()
    }
    /// Whether a member's Node was ever registered: one that is about to register is not a removed one.
    pub(crate) fn seen(&self, name: &str) -> bool {
        self.lock().registered.contains(name)
    }
    /// A kubelet began or ended: the simulated node and the Node object's name.
    pub(crate) fn set_kubelet(&self, host: &str, name: Option<&str>) {
        let mut state = self.lock();
        if let Some(name) = name {
            state.registered.insert(name.to_owned());
            state.last.insert(host.to_owned(), name.to_owned());
        }
        match name {
            Some(name) => state.kubelets.insert(host.to_owned(), name.to_owned()),
            None => state.kubelets.remove(host),
        };
    }
    /// The Node a simulated node registered last.
    pub(crate) fn last_kubelet(&self, host: &str) -> Option<String> {
        self.lock().last.get(host).cloned()
    }
    pub(crate) fn kubelet(&self, host: &str) -> Option<String> {
        self.lock().kubelets.get(host).cloned()
    }
}
