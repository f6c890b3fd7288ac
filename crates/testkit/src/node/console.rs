//! The serial console: login, Armbian's first-login wizard, Ubuntu's forced password change, and a shell.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Node, lock,
    script::Shell,
    session::{Session, Sink, Stdin},
    users::{self, Account, Login},
};
use crate::OsKind;

/// Where typed lines go.
#[derive(Default)]
pub(crate) struct State {
    typed: Option<mpsc::UnboundedSender<Bytes>>,
}

/// Ends lines the way a terminal does.
pub(crate) fn cooked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' && (at == 0 || bytes.get(at - 1) != Some(&b'\r')) {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

impl Node {
    /// A line the BMC types. Nobody reads it while the system does not run.
    pub(crate) fn type_line(&self, line: &str) {
        if let Some(typed) = &lock(&self.console).typed {
            let _ = typed.send(Bytes::from(format!("{line}\n")));
        }
    }
    pub(crate) fn console_off(&self) {
        lock(&self.console).typed = None;
    }
    /// getty starts on the serial line.
    pub(crate) fn console_up(self: &Arc<Self>) {
        let (to, from) = mpsc::unbounded_channel();
        lock(&self.console).typed = Some(to);
        let node = Arc::clone(self);
        let token = self.running_token();
        tokio::spawn(async move {
            let stdin = Stdin::new(from);
            tokio::select! {
                () = node.getty(&stdin) => {}
                () = token.cancelled() => {}
            }
        });
    }

    async fn getty(self: &Arc<Self>, stdin: &Stdin) {
        loop {
            let Some((hostname, autologin, wizard, os, pretty)) = self.os(|os| {
                let autologin = os
                    .vfs
                    .text("/etc/systemd/system/serial-getty@.service.d/override.conf")
                    .contains("--autologin root");
                let pretty = os.setting("/etc/os-release", "PRETTY_NAME").unwrap_or_default();
                (os.hostname(), autologin, os.vfs.exists("/root/.not_logged_in_yet"), os.image.os, pretty)
            }) else {
                return;
            };
            self.say(&format!("\n{pretty} {hostname} ttyS0\n\n{hostname} login: "));
            if os == OsKind::Armbian && autologin && wizard {
                self.say("root (automatic login)\n");
                if self.wizard(stdin).await.is_none() {
                    return;
                }
                self.console_shell(Account::root(), stdin).await;
                continue;
            }
            let Some(name) = stdin.line().await else { return };
            self.say(&format!("{name}\n"));
            if name.trim().is_empty() {
                continue;
            }
            self.say("Password: ");
            let Some(password) = stdin.line().await else { return };
            self.say("\n");
            let found = self
                .os(|os| (users::check(&os.vfs, name.trim(), &password), users::find(&os.vfs, name.trim())));
            match found {
                Some((Login::Accepted, Some(account))) => self.welcome(account, stdin).await,
                Some((Login::Expired, Some(account))) => {
                    self.say(
                        "You are required to change your password immediately (administrator enforced).\n",
                    );
                    let node = Arc::clone(self);
                    if change(self, &account.name, stdin, &|text| node.say(text)).await {
                        self.welcome(account, stdin).await;
                    }
                }
                _ => {
                    self.pause(std::time::Duration::from_secs(2)).await;
                    self.say("\nLogin incorrect\n");
                }
            }
        }
    }

    async fn welcome(self: &Arc<Self>, account: Account, stdin: &Stdin) {
        let wizard =
            account.uid == 0 && self.os(|os| os.vfs.exists("/root/.not_logged_in_yet")).unwrap_or(false);
        if wizard && self.wizard(stdin).await.is_none() {
            return;
        }
        let kernel = self.os(|os| os.image.kernel.clone()).unwrap_or_default();
        self.say(&format!("Linux {kernel} aarch64\n\n"));
        self.console_shell(account, stdin).await;
    }

    fn say(&self, text: &str) {
        self.uart.write(&cooked(text.as_bytes()));
    }

    /// A question whose answer is echoed.
    async fn ask(&self, stdin: &Stdin, question: &str) -> Option<String> {
        self.say(question);
        let answer = stdin.line().await?;
        self.say(&format!("{answer}\n"));
        Some(answer.trim_end_matches('\r').to_owned())
    }
    /// A question whose answer is not.
    async fn ask_secret(&self, stdin: &Stdin, question: &str) -> Option<String> {
        self.say(question);
        let answer = stdin.line().await?;
        self.say("\n");
        Some(answer.trim_end_matches('\r').to_owned())
    }

    /// Armbian's first-login wizard. Values preset in the marker file are not asked for. `None` when the line ended.
    async fn wizard(self: &Arc<Self>, stdin: &Stdin) -> Option<()> {
        let preset = |name: &str| {
            self.os(|os| os.setting("/root/.not_logged_in_yet", name))
                .flatten()
                .filter(|value| !value.is_empty())
        };
        self.say("\nWaiting for system to finish booting ...\n\nWelcome to Armbian!\n\nDocumentation: https://docs.armbian.com | Community: https://forum.armbian.com\n\n");
        let password = match preset("PRESET_ROOT_PASSWORD") {
            Some(password) => password,
            None => loop {
                let first = self.ask_secret(stdin, "Create root password: ").await?;
                if first.len() < 4 {
                    self.say("Rejected - password is too weak. Try again [2/3].\n");
                    continue;
                }
                let second = self.ask_secret(stdin, "Repeat root password: ").await?;
                if first == second {
                    break first;
                }
                self.say("Rejected - passwords do not match. Try again [2/3].\n");
            },
        };
        self.os(|os| users::set_password(&mut os.vfs, "root", &password));
        if preset("PRESET_USER_SHELL").is_none() {
            self.ask(stdin, "\nChoose default system command shell:\n\n1) bash\n2) zsh\n\n").await?;
            self.say("Shell: BASH\n\n");
        }
        let user = match preset("PRESET_USER_NAME") {
            Some(user) => user,
            None => self.ask(stdin, "Creating a new user account. Press <Ctrl-C> to abort\n\nPlease provide a username (eg. your first name): ").await?,
        };
        if !user.is_empty() {
            let password = match preset("PRESET_USER_PASSWORD") {
                Some(password) => password,
                None => loop {
                    let first = self.ask_secret(stdin, &format!("Create user ({user}) password: ")).await?;
                    let second = self.ask_secret(stdin, &format!("Repeat user ({user}) password: ")).await?;
                    if first == second && !first.is_empty() {
                        break first;
                    }
                    self.say("Rejected - passwords do not match.\n");
                },
            };
            if preset("PRESET_DEFAULT_REALNAME").is_none() {
                self.ask(stdin, "Please provide your real name: ").await?;
            }
            self.os(|os| {
                users::add(&mut os.vfs, &user, None, None, "/bin/bash", true);
                users::set_password(&mut os.vfs, &user, &password);
                users::join(&mut os.vfs, "sudo", &user);
            });
            self.say(&format!("\nDear {user}, your account {user} has been created and is sudo enabled.\nPlease use this account for your daily work from now on.\n\n"));
        }
        if preset("SET_LANG_BASED_ON_LOCATION").is_none() && preset("PRESET_LOCALE").is_none() {
            self.ask(stdin, "Set user language based on your location? [Y/n] ").await?;
        }
        self.os(|os| {
            let _ = os.vfs.remove("/root/.not_logged_in_yet", false);
            for unit in ["getty@.service.d", "serial-getty@.service.d"] {
                let _ = os.vfs.remove(&format!("/etc/systemd/system/{unit}"), true);
            }
        });
        Some(())
    }

    /// A shell on the console until it exits or the line ends.
    async fn console_shell(self: &Arc<Self>, account: Account, stdin: &Stdin) {
        let node = Arc::clone(self);
        let sink: Sink = Arc::new(move |_, bytes| node.uart.write(&cooked(bytes)));
        let mut session = Session::new(self, account, stdin.clone(), sink);
        session.tty = true;
        let session = Arc::new(session);
        let mut shell = Shell::new(&session);
        loop {
            let sign = if session.root() { '#' } else { '$' };
            let hostname = self.os(|os| os.hostname()).unwrap_or_default();
            self.say(&format!("{}@{hostname}:~{sign} ", session.account.name));
            let Some(line) = stdin.line().await else { return };
            let line = line.trim_end_matches('\r').to_owned();
            self.say(&format!("{line}\n"));
            if matches!(line.trim(), "exit" | "logout") {
                self.say("logout\n");
                return;
            }
            let mut text = line + "\n";
            while !super::script::complete(&text) && text.trim_end().ends_with(['\\', '|', '{']) {
                self.say("> ");
                let Some(more) = stdin.line().await else { return };
                text.push_str(&more);
                text.push('\n');
            }
            // sudo talks with the terminal while it runs.
            if let Some(argv) = super::launch::words(&text)
                && let Some(program) = argv.iter().find(|word| *word != "exec")
                && program == "sudo"
            {
                let replaced = argv.first().is_some_and(|word| word == "exec");
                super::launch::run(Arc::clone(&session), argv).await;
                if replaced {
                    return;
                }
                continue;
            }
            let text = super::tools::terminal::mark_shell(&text);
            Box::pin(shell.exec(&text, "-bash", Vec::new(), None)).await;
        }
    }
}

/// The dialogue of passwd(1) for an expired password; `true` when it was changed.
async fn change(node: &Arc<Node>, name: &str, stdin: &Stdin, say: &(dyn Fn(&str) + Send + Sync)) -> bool {
    say(&format!("Changing password for {name}.\nCurrent password: "));
    let Some(current) = stdin.line().await else { return false };
    say("\n");
    let known =
        node.os(|os| users::check(&os.vfs, name, current.trim_end_matches('\r'))).unwrap_or(Login::Refused);
    if known == Login::Refused {
        say("passwd: Authentication token manipulation error\npasswd: password unchanged\n");
        return false;
    }
    for _ in 0..3 {
        say("New password: ");
        let Some(first) = stdin.line().await else { return false };
        let first = first.trim_end_matches('\r').to_owned();
        say("\n");
        if first.len() < 8 {
            say("BAD PASSWORD: The password is shorter than 8 characters\n");
            continue;
        }
        if first == current.trim_end_matches('\r') {
            say("The password has not been changed.\n");
            continue;
        }
        say("Retype new password: ");
        let Some(second) = stdin.line().await else { return false };
        say("\n");
        if second.trim_end_matches('\r') == first {
            node.os(|os| users::set_password(&mut os.vfs, name, &first));
            return true;
        }
        say("Sorry, passwords do not match.\n");
    }
    say("passwd: Have exhausted maximum number of retries for service\npasswd: password unchanged\n");
    false
}

/// What sshd starts on a terminal when the password is expired.
pub(crate) async fn change_expired(session: &Arc<Session>) -> i32 {
    session.out("WARNING: Your password has expired.\nYou must change your password now and login again!\n");
    let speaker = Arc::clone(session);
    let changed =
        change(&session.node, &session.account.name, &session.stdin, &|text| speaker.out(text)).await;
    if changed {
        session.out("passwd: password updated successfully\n");
    }
    i32::from(!changed)
}

/// A login shell through SSH: with a terminal it prompts, without it reads commands.
pub(crate) async fn interactive(session: Arc<Session>) -> i32 {
    if !session.tty {
        return super::launch::run(session, vec!["bash".to_owned(), "-s".to_owned()]).await;
    }
    let mut shell = Shell::new(&session);
    let mut code = 0;
    loop {
        let sign = if session.root() { '#' } else { '$' };
        let hostname = session.node.os(|os| os.hostname()).unwrap_or_default();
        session.out(&format!("{}@{hostname}:~{sign} ", session.account.name));
        let line = tokio::select! {
            line = session.stdin.line() => line,
            () = session.cancel.cancelled() => return -1,
        };
        let Some(line) = line else { return code };
        session.out(&format!("{line}\n"));
        if let Some(rest) = line.trim().strip_prefix("exit") {
            return rest.trim().parse().unwrap_or(code);
        }
        let text = super::tools::terminal::mark_shell(&line) + "\n";
        code = Box::pin(shell.exec(&text, "-bash", Vec::new(), None)).await;
    }
}
