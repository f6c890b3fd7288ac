//! What every command needs: the document, the environment around it, and the stop signals.

use std::{
    env,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use etcetera::BaseStrategy as _;
use secrecy::SecretString;
use turingpi_provision::{
    Environment, Intent, Provision, Proxy, SecretProvider,
    document::{self, Diagnostic, Document, Severity},
    engine::{Cancellation, Failure, FailureClass, Timing},
};

use crate::render::out::talk;
use crate::{
    args::{Global, Output, Simulated},
    exit::{self, Exit},
    render::style::{BAD, BOLD, DIM, WARN, paint},
};

/// A document that was read, and where it stands.
pub(crate) struct Loaded {
    pub(crate) document: Document,
    pub(crate) base: PathBuf,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Reads a document, or says everything that is wrong with it and ends with the code for it.
pub(crate) fn load(path: &Path, output: Output) -> Result<Loaded, Exit> {
    let text = read(path)?;
    match document::load(&text) {
        Ok((document, warnings)) => {
            if output == Output::Text {
                for warning in &warnings {
                    talk!("{}", diagnostic(path, &text, warning));
                }
            }
            let base =
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
            Ok(Loaded { document, base, warnings })
        }
        Err(mistakes) => {
            let errors = mistakes.0.iter().filter(|d| d.severity == Severity::Error).count();
            let count = format!("{} in {}", crate::render::words::count(errors, "mistake"), path.display());
            if output == Output::Text {
                for mistake in &mistakes.0 {
                    talk!("{}", diagnostic(path, &text, mistake));
                }
                talk!("{count}");
            }
            let report = Failure::new(FailureClass::Config, count).report();
            Err(Exit { code: exit::DOCUMENT, report: Some(report), findings: mistakes.0 })
        }
    }
}

/// The text of a document.
pub(crate) fn read(path: &Path) -> Result<String, Exit> {
    std::fs::read_to_string(path).map_err(|e| {
        let failure =
            Failure::new(FailureClass::Config, format!("cannot read the document `{}`", path.display()));
        let failure = if e.kind() == std::io::ErrorKind::NotFound {
            failure.hint("`turingpi init` writes one to start from; or name yours: `turingpi plan PATH`.")
        } else {
            failure
        };
        failure.source(e).into()
    })
}

/// A finding with the line it is about, and a mark under the place.
pub(crate) fn diagnostic(path: &Path, text: &str, finding: &Diagnostic) -> String {
    let (word, style) = match finding.severity {
        Severity::Error => ("error", BAD),
        Severity::Warning => ("warning", WARN),
    };
    let mut out = format!("{} {}", paint(style, format!("{word}:")), finding.message);
    let place = match finding.line {
        0 => path.display().to_string(),
        line => format!("{}:{line}:{}", path.display(), finding.column),
    };
    let at = if finding.path.is_empty() { String::new() } else { format!("  `{}`", finding.path) };
    out.push_str(&format!("\n  {} {place}{at}", paint(DIM, "-->")));
    if let Some(line) =
        usize::try_from(finding.line).ok().filter(|l| *l > 0).and_then(|l| text.lines().nth(l - 1))
    {
        let number = finding.line.to_string();
        let shown: String = line.chars().take(96).collect();
        let column = usize::try_from(finding.column).unwrap_or(1).clamp(1, 96);
        out.push_str(&format!("\n  {} {shown}", paint(DIM, format!("{number} |"))));
        out.push_str(&format!("\n  {}{}", " ".repeat(number.len() + 2 + column), paint(style, "^")));
    }
    if let Some(help) = &finding.help {
        out.push_str(&format!("\n  {} {help}", paint(BOLD, "help:")));
    }
    out
}

/// The environment of a real run.
pub(crate) fn environment(global: &Global, loaded: &Loaded) -> Result<Environment, Exit> {
    let usual = loaded.base.join(".turingpi").join(&loaded.document.name);
    Ok(Environment { base: loaded.base.clone(), ..bare_environment(global, usual)? })
}

/// The environment without a document; `usual` is the state folder when none is named.
pub(crate) fn bare_environment(global: &Global, usual: PathBuf) -> Result<Environment, Exit> {
    let state_dir = global.state_dir.clone().unwrap_or(usual);
    let cache_dir = cache_dir(global)?;
    Ok(Environment {
        base: PathBuf::from("."),
        home: home(),
        state_dir,
        cache_dir,
        proxy: proxy(None),
        ssh_agent: env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()).map(PathBuf::from),
        secrets: Arc::new(Terminal),
        timing: Timing::default(),
        owner: owner(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The proxy for downloads: the given one, or that of the process environment.
pub(crate) fn proxy(given: Option<String>) -> Proxy {
    let first = |names: [&str; 2]| {
        names.into_iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let address =
        given.or_else(|| first(["HTTPS_PROXY", "https_proxy"])).or_else(|| first(["ALL_PROXY", "all_proxy"]));
    Proxy { address, except: first(["NO_PROXY", "no_proxy"]).unwrap_or_default() }
}

/// The folder for downloads, shared by all clusters.
pub(crate) fn cache_dir(global: &Global) -> Result<PathBuf, Exit> {
    match &global.cache_dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(etcetera::choose_base_strategy()
            .map(|b| b.cache_dir().join("turingpi"))
            .map_err(|e| Failure::new(FailureClass::Config, "cannot find the cache folder").source(e))?),
    }
}

/// The home folder.
pub(crate) fn home() -> Option<PathBuf> {
    etcetera::home_dir().ok()
}

fn owner() -> String {
    let user = env::var("USER").or_else(|_| env::var("USERNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

/// Secrets from the process environment and from the terminal.
struct Terminal;

#[async_trait]
impl SecretProvider for Terminal {
    async fn env(&self, name: &str) -> Option<SecretString> {
        env::var(name).ok().filter(|v| !v.is_empty()).map(SecretString::from)
    }

    async fn prompt(&self, what: &str) -> Option<SecretString> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let question = format!("The {what}");
        tokio::task::spawn_blocking(move || {
            dialoguer::Password::new().with_prompt(question).allow_empty_password(false).interact().ok()
        })
        .await
        .ok()
        .flatten()
        .map(SecretString::from)
    }
}

/// Ties Ctrl-C to a run: the first lets the running steps end, the second stops at once.
#[must_use = "signals are heard as long as this lives"]
pub(crate) fn stop_on_signals(cancellation: &Cancellation) -> Ears {
    let cancellation = cancellation.clone();
    let mut signals = Signals::hear();
    Ears(tokio::spawn(async move {
        let mut asked = 0;
        loop {
            signals.next().await;
            asked += 1;
            if asked == 1 {
                cancellation.stop();
                talk!(
                    "{} the running steps end first. Press Ctrl-C again to stop at once.",
                    paint(WARN, "stopping:")
                );
            } else {
                cancellation.stop_now();
                talk!("{} at once.", paint(WARN, "stopping:"));
                if asked > 2 {
                    // Somebody who asks three times does not want to hear about cleaning up.
                    #[allow(clippy::exit, reason = "the third Ctrl-C")]
                    std::process::exit(i32::from(exit::STOPPED));
                }
            }
        }
    }))
}

/// Hears Ctrl-C for a run, until it is dropped.
pub(crate) struct Ears(tokio::task::JoinHandle<()>);

impl Drop for Ears {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What `work` gives, unless somebody asks to stop before it is there. For all that changes nothing.
pub(crate) async fn until_stopped<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    tokio::select! {
        result = work => Ok(result),
        () = signal() => Err(stopped()),
    }
}

/// Asks on the terminal, beside the event loop.
pub(crate) async fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<T, Exit> {
    let asked = tokio::task::spawn_blocking(question);
    tokio::select! {
        answer = asked => answer.map_err(|_| stopped()),
        () = signal() => {
            // The cursor stands behind the question.
            talk!("");
            Err(stopped())
        }
    }
}

fn stopped() -> Exit {
    Failure::new(FailureClass::Cancelled, "stopped, and nothing was changed").into()
}

/// Ctrl-C and the request to end, heard from the moment this is made: none that comes later kills the program or is lost.
pub(crate) struct Signals {
    #[cfg(unix)]
    kinds: Vec<tokio::signal::unix::Signal>,
}

impl Signals {
    pub(crate) fn hear() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
            Self { kinds: kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if !self.kinds.is_empty() {
            let kinds = &mut self.kinds;
            return std::future::poll_fn(|cx| {
                match kinds.iter_mut().any(|kind| kind.poll_recv(cx).is_ready()) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
        }
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// The next signal.
pub(crate) async fn signal() {
    Signals::hear().next().await;
}

/// A document with everything opened around it: clients, state, and the simulated board if there is one.
pub(crate) struct Opened {
    pub(crate) provision: Provision,
    pub(crate) simulated: bool,
    pub(crate) state_dir: PathBuf,
    #[cfg(feature = "simulate")]
    pub(crate) simulation: Option<crate::simulate::Running>,
}

impl Opened {
    /// Opens a document for real, or against a simulated board made from it.
    pub(crate) async fn new(global: &Global, loaded: Loaded, simulated: &Simulated) -> Result<Self, Exit> {
        if simulated.simulate {
            return Self::simulated(global, loaded, simulated.pace).await;
        }
        let environment = environment(global, &loaded)?;
        let state_dir = environment.state_dir.clone();
        let provision = Provision::open(loaded.document, environment).await?;
        Ok(Self {
            provision,
            simulated: false,
            state_dir,
            #[cfg(feature = "simulate")]
            simulation: None,
        })
    }

    #[cfg(feature = "simulate")]
    async fn simulated(global: &Global, loaded: Loaded, pace: f64) -> Result<Self, Exit> {
        let running =
            crate::simulate::Running::start(&loaded.document, pace, &Default::default(), None).await?;
        let base = running.folder().to_owned();
        let document = running.document().clone();
        let mut environment = environment(
            global,
            &Loaded { document: document.clone(), base: base.clone(), warnings: Vec::new() },
        )?;
        // Nothing of a simulated run may mix with the state, the cache or the keys of a real one.
        environment.state_dir = base.join("state");
        environment.cache_dir = base.join("cache");
        environment.ssh_agent = None;
        environment.proxy = Proxy::default();
        environment.timing = running.timing();
        let state_dir = environment.state_dir.clone();
        let provision = Provision::open(document, environment).await?;
        Ok(Self { provision, simulated: true, state_dir, simulation: Some(running) })
    }

    #[cfg(not(feature = "simulate"))]
    async fn simulated(_: &Global, _: Loaded, _: f64) -> Result<Self, Exit> {
        Err(crate::command::no_simulation())
    }

    /// Ends connections and the simulated board.
    pub(crate) async fn close(self) {
        self.provision.close().await;
        #[cfg(feature = "simulate")]
        if let Some(simulation) = self.simulation {
            simulation.stop().await;
        }
    }
}

/// The nodes to flash again, checked against the document.
pub(crate) fn intent(provision: &Provision, reflash: &[String]) -> Result<Intent, Exit> {
    for name in reflash {
        known_node(provision, name)?;
    }
    Ok(Intent { reflash: reflash.iter().cloned().collect() })
}

/// Refuses a name that no node has.
pub(crate) fn known_node(provision: &Provision, name: &str) -> Result<(), Exit> {
    let names: Vec<&str> = provision.document().nodes.iter().map(|n| n.name.as_str()).collect();
    if names.contains(&name) {
        return Ok(());
    }
    Err(Failure::new(FailureClass::Usage, format!("there is no node `{name}` in the document"))
        .hint(format!("Its nodes are {}.", names.join(", ")))
        .into())
}
