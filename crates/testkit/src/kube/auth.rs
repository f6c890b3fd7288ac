//! Who calls: client certificates, bearer tokens, nobody.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use time::OffsetDateTime;

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
}

impl Caller {
    fn authenticated(user: String, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".into());
        Self { user, groups }
    }
    pub(crate) fn anonymous() -> Self {
        Self { user: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

struct Account {
    caller: Caller,
    until: Option<OffsetDateTime>,
}

/// Bearer tokens.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<BTreeMap<String, Account>>);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    pub(crate) fn add(&self, token: &str, user: &str, groups: &[&str]) {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        self.insert(token, Caller::authenticated(user.to_owned(), groups), None);
    }
    pub(crate) fn add_service_account(
        &self,
        token: &str,
        namespace: &str,
        name: &str,
        until: OffsetDateTime,
    ) {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        self.insert(token, Caller::authenticated(user, groups), Some(until));
    }
    fn insert(&self, token: &str, caller: Caller, until: Option<OffsetDateTime>) {
        let account = Account { caller, until };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), account);
    }
    pub(crate) fn find(&self, token: &str) -> Option<Caller> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.get(token)?;
        let fresh = account.until.is_none_or(|until| OffsetDateTime::now_utc() < until);
        fresh.then(|| account.caller.clone())
    }
}

/// The caller a client certificate stands for, if the cluster's client CA signed it.
pub(crate) fn by_certificate(
    chain: &[CertificateDer<'static>],
    verifier: &dyn ClientCertVerifier,
) -> Option<Caller> {
    let (leaf, rest) = chain.split_first()?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().ok()?));
    verifier.verify_client_cert(leaf, rest, now).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf.as_ref()).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some(Caller::authenticated(user, groups))
}
