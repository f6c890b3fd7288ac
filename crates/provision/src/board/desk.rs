//! Boards that were chosen, what is remembered of them, and the way to log in.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use turingpi_bmc::{
    About, AuthReason, BmcClient, BmcError, BmcTimeouts, Fingerprint, Generation, HttpBmcClient, Slot, Trust,
};
use turingpi_cluster::{SlotRef, imaging::bmc_failure};
use turingpi_engine::{
    Cancellation, Event, EventSink, Failure, FailureClass, FileLock, FileLockGuard, FileStateStore,
    LockOwner, State, StateStore, StepContext,
};
use url::Url;

use super::{
    address::{Address, in_document, no_board},
    tokens::{TokenFile, make},
};
use crate::{
    document::{Document, SecretSource},
    environment::{Environment, Secrets},
};

/// Which boards, and how to log in to them.
#[derive(Debug, Clone, Default)]
pub struct BoardChoice {
    /// The document whose boards these are; `None` for boards by address. [`of_document`](super::of_document) decides.
    pub document: Option<Document>,
    /// Names of the document, addresses or URLs. Empty: the document's only board.
    pub boards: Vec<String>,
    /// The user name, instead of the document's or `root`.
    pub username: Option<String>,
    /// Where the password comes from, instead of the document's source or `TPI_PASSWORD`. Asked for where that has none.
    pub password: Option<SecretSource>,
}

/// One chosen board, not called yet.
#[derive(Debug, Clone)]
struct Target {
    name: String,
    address: Address,
    username: String,
    password: SecretSource,
    /// The fingerprint that the document gives.
    fingerprint: Option<String>,
}

/// The chosen boards with everything remembered of them: certificates, tokens, flashes.
pub struct BoardDesk {
    pub(super) environment: Environment,
    pub(super) document: Option<Document>,
    pub(super) store: Arc<FileStateStore>,
    folder: PathBuf,
    secrets: Secrets,
    tokens: TokenFile,
    targets: Vec<Target>,
}

/// What is known of a board's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The fingerprint that is trusted, if there is one.
    pub pinned: Option<Fingerprint>,
    /// Whether it stands in the document: then only the document changes it.
    pub from_document: bool,
    /// The fingerprint that the BMC shows now; `None` where it has no TLS (firmware 1.x).
    pub shown: Option<Fingerprint>,
}

/// A board that answers and lets us in.
#[derive(Clone)]
pub struct OpenBoard {
    name: String,
    url: Url,
    username: String,
    client: Arc<HttpBmcClient>,
    about: About,
    notes: Vec<String>,
    /// The document's nodes that sit here, by slot.
    nodes: BTreeMap<u8, String>,
}

impl std::fmt::Debug for OpenBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenBoard").field("name", &self.name).finish_non_exhaustive()
    }
}

fn fingerprint_key(board: &str) -> String {
    format!("board/{board}/fingerprint")
}

impl BoardDesk {
    /// Sorts out which boards are meant. Connects to nothing.
    ///
    /// With a document `environment.state_dir` is the cluster's state folder; without one it is the person's, and what is
    /// remembered of boards goes into its folder `boards`.
    ///
    /// # Errors
    /// `Usage` when it is not clear which board is meant; `Config` for a state that cannot be used.
    pub async fn open(choice: BoardChoice, environment: Environment) -> Result<Self, Failure> {
        let targets = targets(&choice)?;
        let folder = environment.state_dir.join("boards");
        make(&folder).map_err(|e| {
            Failure::new(FailureClass::Config, format!("cannot make the folder `{}`", folder.display()))
                .hint("Make it possible, or name another folder with `--state-dir`.")
                .source(e)
        })?;
        let state = match &choice.document {
            Some(_) => environment.state_dir.clone(),
            None => folder.clone(),
        };
        Ok(Self {
            secrets: Secrets::new(environment.clone()),
            store: Arc::new(FileStateStore::new(state.join("state.json"))),
            tokens: TokenFile::new(&folder),
            folder: state,
            document: choice.document,
            environment,
            targets,
        })
    }

    /// The chosen boards' names, in the order of the choice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|target| target.name.as_str())
    }

    /// Logs in to the only board that was chosen.
    ///
    /// # Errors
    /// `Usage` when several were chosen; otherwise as [`BoardDesk::connect`].
    pub async fn only(&self) -> Result<OpenBoard, Failure> {
        self.connect(self.sole()?).await
    }

    /// The name of the only board that was chosen.
    ///
    /// # Errors
    /// `Usage` when several were chosen.
    pub fn sole(&self) -> Result<&str, Failure> {
        match self.targets.as_slice() {
            [target] => Ok(&target.name),
            _ => Err(Failure::new(FailureClass::Usage, "this works on one board at a time")
                .hint("Name one board with `--board`.")),
        }
    }

    fn target(&self, name: &str) -> Result<&Target, Failure> {
        self.targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| Failure::new(FailureClass::Usage, format!("board `{name}` was not chosen")))
    }

    /// Logs in to a board: with a kept token where there is a fresh one, with the password otherwise. Its certificate is
    /// compared with the pinned one, or pinned when it is the first.
    ///
    /// # Errors
    /// `Auth` for another certificate, a refused login (which is not repeated) and a block, saying how long it lasts;
    /// `Unreachable` when nothing answers.
    pub async fn connect(&self, name: &str) -> Result<OpenBoard, Failure> {
        let target = self.target(name)?;
        match self.connect_to(target, &target.address.url).await {
            Err(failure) if target.address.open && failure.class() == FailureClass::Unreachable => {
                // Firmware 1.x has nothing on port 443. Nothing secret is sent over http.
                let mut plain = target.address.url.clone();
                let _ = plain.set_scheme("http");
                match self.connect_to(target, &plain).await {
                    Ok(board) if board.about.generation == Generation::Legacy => Ok(board),
                    _ => Err(failure),
                }
            }
            result => result,
        }
    }

    /// Logs in to all chosen boards, side by side.
    ///
    /// # Errors
    /// The first failure.
    pub async fn connect_all(&self) -> Result<Vec<OpenBoard>, Failure> {
        futures::future::try_join_all(self.targets.iter().map(|target| self.connect(&target.name))).await
    }

    async fn connect_to(&self, target: &Target, url: &Url) -> Result<OpenBoard, Failure> {
        let newcomer = Arc::new(Mutex::new(None));
        let encrypted = url.scheme() == "https";
        let saved = if encrypted { self.tokens.find(url, &target.username)? } else { None };
        let password = match (&saved, encrypted) {
            (_, false) => None,
            // Nobody is asked for a password that may not be needed.
            (Some(_), true) => self.quiet_password(target).await,
            (None, true) => Some(self.password(target).await?),
        };
        let asked = password.is_some();
        let mut client = self.client(target, url, password, saved, &newcomer).await?;
        let mut about = client.about().await;
        if !asked && matches!(about, Err(BmcError::Auth { reason: AuthReason::Missing, .. })) && encrypted {
            // The kept token is not known any more: the BMC restarted.
            self.tokens.forget(url, &target.username)?;
            client = self.client(target, url, Some(self.password(target).await?), None, &newcomer).await?;
            about = client.about().await;
        }
        let about = match about {
            Ok(about) => about,
            Err(error) => {
                if matches!(error, BmcError::Auth { .. }) {
                    self.tokens.forget(url, &target.username)?;
                }
                return Err(refused(&target.name, error));
            }
        };
        let mut notes = Vec::new();
        let seen = newcomer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fingerprint) = seen {
            notes.push(self.remember(&target.name, &fingerprint).await?);
        }
        if !encrypted {
            notes.push(format!(
                "{}: firmware {} has neither encryption nor a login",
                target.name, about.version
            ));
        }
        let board = OpenBoard {
            name: target.name.clone(),
            url: url.clone(),
            username: target.username.clone(),
            client: Arc::new(client),
            about,
            notes,
            nodes: self.nodes_on(&target.name),
        };
        self.keep_login(&board)?;
        Ok(board)
    }

    async fn client(
        &self,
        target: &Target,
        url: &Url,
        password: Option<SecretString>,
        saved: Option<turingpi_bmc::SavedToken>,
        newcomer: &Arc<Mutex<Option<Fingerprint>>>,
    ) -> Result<HttpBmcClient, Failure> {
        let trust = match self.pinned(target).await? {
            Some(fingerprint) => Trust::Pin(fingerprint),
            None => {
                let newcomer = Arc::clone(newcomer);
                Trust::first_use(move |fingerprint| {
                    *newcomer.lock().unwrap_or_else(PoisonError::into_inner) = Some(*fingerprint);
                    true
                })
            }
        };
        let connect = self.document.as_ref().map_or(10, |document| document.timeouts.connect_seconds);
        let timeouts = BmcTimeouts {
            connect: Duration::from_secs(connect),
            poll: self.environment.timing.poll / 2,
            ..BmcTimeouts::default()
        };
        let mut builder = HttpBmcClient::builder(url.clone()).trust(trust).timeouts(timeouts);
        if let Some(password) = password {
            builder = builder.credentials(target.username.clone(), password);
        }
        if let Some(saved) = saved {
            builder = builder.saved_token(saved);
        }
        builder.build().map_err(|e| bmc_failure(&target.name, e))
    }

    /// The password from its source, or from the person where the source has none.
    async fn password(&self, target: &Target) -> Result<SecretString, Failure> {
        let what = format!("BMC password of {}", target.name);
        match (self.secrets.resolve(&target.password, &what).await, &target.password) {
            (Err(failure), SecretSource::Env(_)) => {
                match self.secrets.resolve(&SecretSource::Prompt, &what).await {
                    Ok(password) => Ok(password),
                    Err(_) => {
                        Err(failure.hint("Run `export TPI_PASSWORD=…`, or use `--password-file FILE`."))
                    }
                }
            }
            (result, _) => result,
        }
    }

    /// The password, if it can be had without asking.
    async fn quiet_password(&self, target: &Target) -> Option<SecretString> {
        match &target.password {
            SecretSource::Prompt => None,
            source => self.secrets.resolve(source, "BMC password").await.ok(),
        }
    }

    async fn pinned(&self, target: &Target) -> Result<Option<Fingerprint>, Failure> {
        let text = match &target.fingerprint {
            Some(text) => Some(text.clone()),
            None => self.store.load().await?.0.record::<String>(&fingerprint_key(&target.name))?,
        };
        text.map(|text| {
            text.parse().map_err(|e| {
                let what = format!("the fingerprint of board `{}` cannot be read", target.name);
                Failure::new(FailureClass::Config, what).source(e)
            })
        })
        .transpose()
    }

    /// Pins a certificate that was seen for the first time.
    async fn remember(&self, name: &str, fingerprint: &Fingerprint) -> Result<String, Failure> {
        let kept =
            self.update(|state| state.put_record(fingerprint_key(name), &fingerprint.to_string())).await;
        match kept {
            Ok(()) => Ok(format!("{name}: the BMC's certificate {fingerprint} is pinned from now on")),
            // A run that works on the cluster pins what it sees itself, and its state must not change under it.
            Err(failure) if failure.class() == FailureClass::Locked => Ok(format!(
                "{name}: the BMC's certificate is {fingerprint}; it is not pinned, because another run is at work"
            )),
            Err(failure) => Err(failure),
        }
    }

    /// Changes the state under the lock that keeps runs apart.
    pub(super) async fn update(
        &self,
        change: impl FnOnce(&mut State) -> Result<(), Failure> + Send,
    ) -> Result<(), Failure> {
        let _lock = self.lock("board")?;
        let (mut state, generation) = self.store.load().await?;
        change(&mut state)?;
        self.store.save(&state, generation).await.map(|_| ())
    }

    pub(super) fn lock(&self, verb: &str) -> Result<FileLockGuard, Failure> {
        FileLock::acquire(self.folder.join("lock"), &LockOwner::new(&self.environment.owner, verb))
    }

    /// A context for waits outside of a run, with a voice.
    pub fn context(&self, sink: Arc<dyn EventSink>, cancellation: &Cancellation) -> StepContext {
        let store: Arc<dyn StateStore> = self.store.clone();
        StepContext::detached(store, sink, self.environment.timing.clone(), cancellation.clone())
    }

    pub(super) fn silent_context(&self) -> StepContext {
        self.context(Arc::new(|_: &Event| {}), &Cancellation::new())
    }

    /// Where the state and the runs' logs are kept.
    pub fn state_folder(&self) -> &std::path::Path {
        &self.folder
    }

    fn nodes_on(&self, board: &str) -> BTreeMap<u8, String> {
        let Some(document) = &self.document else { return BTreeMap::new() };
        let place = |node: &crate::document::Node| match node.slot_ref() {
            Ok(Some(place)) if place.board == board => Some((place.slot.number(), node.name.clone())),
            _ => None,
        };
        document.nodes.iter().filter_map(place).collect()
    }

    /// Keeps the login of a board for the next command. Also after a failed one: the token's time of last use counts.
    ///
    /// # Errors
    /// `Config` when the file cannot be written.
    pub fn keep_login(&self, board: &OpenBoard) -> Result<(), Failure> {
        if board.url.scheme() != "https" {
            return Ok(());
        }
        match board.client.saved_token() {
            Some(token) => self.tokens.keep(&token),
            // Forgotten by the client, because the BMC restarts.
            None => self.tokens.forget(&board.url, &board.username).map(|_| ()),
        }
    }

    /// Forgets the kept login of a board; false when there was none. The BMC itself has no way to log out: it forgets a
    /// token three hours after its last use.
    ///
    /// # Errors
    /// `Config` when the file cannot be written.
    pub fn forget_login(&self, name: &str) -> Result<bool, Failure> {
        let target = self.target(name)?;
        self.tokens.forget(&target.address.url, &target.username)
    }

    /// What is pinned, and what the BMC shows now. Sends no credentials.
    ///
    /// # Errors
    /// `Unreachable` when nothing answers.
    pub async fn certificate(&self, name: &str) -> Result<Certificate, Failure> {
        let target = self.target(name)?;
        let shown = match target.address.url.scheme() {
            "https" => Some(
                turingpi_bmc::probe_fingerprint(&target.address.url)
                    .await
                    .map_err(|e| bmc_failure(name, e))?,
            ),
            _ => None,
        };
        let from_document = target.fingerprint.is_some();
        Ok(Certificate { pinned: self.pinned(target).await?, from_document, shown })
    }

    /// Pins another certificate.
    ///
    /// # Errors
    /// `Config` when the document gives the fingerprint; `Locked` while another run works.
    pub async fn trust(&self, name: &str, fingerprint: Option<Fingerprint>) -> Result<(), Failure> {
        let target = self.target(name)?;
        if target.fingerprint.is_some() {
            return Err(Failure::new(
                FailureClass::Config,
                format!("the certificate of board `{name}` is pinned by the document"),
            )
            .hint(format!("Change or remove `boards.{name}.fingerprint` there.")));
        }
        self.update(|state| match fingerprint {
            Some(fingerprint) => state.put_record(fingerprint_key(name), &fingerprint.to_string()),
            None => {
                state.remove_record(&fingerprint_key(name));
                Ok(())
            }
        })
        .await?;
        // Whoever showed the other certificate must not be offered the token of this one.
        self.tokens.forget(&target.address.url, &target.username).map(|_| ())
    }
}

fn targets(choice: &BoardChoice) -> Result<Vec<Target>, Failure> {
    let default_password = || SecretSource::Env("TPI_PASSWORD".to_owned());
    let wanted: Vec<String> = match (&choice.document, choice.boards.is_empty()) {
        (Some(document), true) => document.boards.keys().cloned().collect(),
        (None, true) => return Err(no_board("no board is named, and there is no document")),
        (_, false) => choice.boards.clone(),
    };
    let mut targets: Vec<Target> = Vec::new();
    for text in &wanted {
        let named = choice.document.as_ref().and_then(|d| Some((d, in_document(d, text)?)));
        let target = match named.and_then(|(d, name)| Some((d.boards.get(&name)?, name))) {
            Some((board, name)) => Target {
                address: Address {
                    url: board
                        .url()
                        .map_err(|e| Failure::new(FailureClass::Config, format!("board `{name}`: {e}")))?,
                    open: false,
                },
                name,
                username: choice.username.clone().unwrap_or_else(|| board.credentials.username.clone()),
                password: choice.password.clone().unwrap_or_else(|| board.credentials.password.clone()),
                fingerprint: board.fingerprint.clone(),
            },
            None => {
                let address = Address::parse(text)?;
                Target {
                    name: address.name(),
                    address,
                    username: choice.username.clone().unwrap_or_else(|| "root".to_owned()),
                    password: choice.password.clone().unwrap_or_else(default_password),
                    fingerprint: None,
                }
            }
        };
        if !targets.iter().any(|other| other.name == target.name) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// A login or a certificate that was refused, with the command that comes next.
fn refused(board: &str, error: BmcError) -> Failure {
    let wait = error.retry_after();
    let changed = matches!(&error, BmcError::Tls { expected: Some(_), found: Some(_), .. });
    let failure = bmc_failure(board, error);
    match wait {
        Some(wait) => failure.hint(format!(
            "Wait {} s, and try once with the right password then: every further failure doubles the block. Other machines \
             behind the same address share it.",
            wait.as_secs().max(1)
        )),
        None if changed => failure.hint(format!(
            "If the BMC was reinstalled, compare the new fingerprint on the board itself (`openssl x509 -in \
             /etc/ssl/certs/bmcd_cert.pem -noout -fingerprint -sha256`), then run `turingpi board trust --board {board} \
             --pin FINGERPRINT`. Otherwise somebody stands in between."
        )),
        None => failure,
    }
}

impl OpenBoard {
    /// Its name in the document, or its host.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.url
    }
    /// The user that is logged in.
    pub fn username(&self) -> &str {
        &self.username
    }
    /// Its BMC.
    pub fn client(&self) -> Arc<dyn BmcClient> {
        self.client.clone()
    }
    /// The same, with what only the real client has.
    pub fn http(&self) -> &HttpBmcClient {
        &self.client
    }
    /// The firmware and the board, as seen when it was opened.
    pub fn about(&self) -> &About {
        &self.about
    }
    /// What a person should know of the way in: a certificate that was pinned, a missing encryption.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
    /// A slot of it.
    pub fn place(&self, slot: Slot) -> SlotRef {
        SlotRef { board: self.name.clone(), slot }
    }
    /// The document's node in a slot.
    pub fn node(&self, slot: Slot) -> Option<&str> {
        self.nodes.get(&slot.number()).map(String::as_str)
    }
    /// How a slot is called: its node's name in the document, or `board/slot`.
    pub fn occupant(&self, slot: Slot) -> String {
        self.node(slot).map_or_else(|| self.place(slot).to_string(), str::to_owned)
    }
    /// A BMC's error as a failure, with the next step for this board.
    pub fn failure(&self, error: BmcError) -> Failure {
        refused(&self.name, error)
    }
}
