//! The conversation with a serial console, up to a root shell: pure, text in, lines out.
//!
//! It answers getty and PAM (also the change of an expired password), Armbian's first-login wizard, and sudo. It never
//! sends control characters: the BMC cannot (bmc-api sheet 3.5), so the wizard's user step is answered, not interrupted,
//! and the user it made is removed afterwards.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Credentials, screen};

/// More text than this is never needed to recognise a question.
const KEEP: usize = 8 * 1024;
/// A login may fail because the console swallowed a character; the third time it is wrong.
const TRIES: usize = 2;
/// How often one question may come again before it is hopeless.
const REPEATS: usize = 4;
/// The user that the wizard insists on. Letters only, or the wizard refuses it.
pub(super) const WIZARD_USER: &str = "turingpisetup";

/// A line to type.
#[derive(Clone)]
pub enum Line {
    /// May be shown.
    Plain(String),
    /// Must not be shown.
    Secret(SecretString),
}

impl Line {
    /// The text, without line end.
    pub fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(text) => text.expose_secret(),
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.debug_tuple("Plain").field(text).finish(),
            Self::Secret(_) => f.write_str("Secret"),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Type this, then feed what comes.
    Send(Line),
    /// Nothing to answer yet. The text says what is on the screen.
    Wait(String),
    /// A root shell answers.
    Shell,
    /// It cannot go on.
    Failed(Stuck),
}

/// Why the conversation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// None of the logins is right.
    #[error("the console refused every login (tried: {})", .tried.join(", "))]
    LoginRefused {
        /// The user names that were tried.
        tried: Vec<String>,
    },
    /// The login works, but does not lead to root.
    #[error("`{user}` may not become root")]
    NotRoot {
        /// The login user.
        user: String,
    },
    /// The console keeps asking the same.
    #[error("the console keeps asking `{question}`")]
    Repeats {
        /// The question.
        question: String,
    },
}

/// What the console asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Login,
    Password,
    CurrentPassword,
    NewPassword,
    RepeatNewPassword,
    WizardPassword,
    WizardRepeat,
    WizardShell,
    WizardUser,
    WizardUserPassword,
    WizardUserRepeat,
    RealName,
    Decline,
    LocaleChoice,
    Prompt,
}

/// The conversation.
pub struct Dialogue {
    credentials: Vec<Credentials>,
    new_password: SecretString,
    nonce: String,
    pending: String,
    at: usize,
    tries: usize,
    changed: bool,
    root_changed: bool,
    doubled: bool,
    became_root: bool,
    wizard_user: bool,
    asked: Option<(Question, usize)>,
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").field("at", &self.at).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Dialogue {
    /// A conversation that logs in with one of `credentials`, in order, and gives `new_password` wherever a new one is
    /// asked for. `nonce` (letters and digits) makes our own output recognisable.
    pub fn new(credentials: Vec<Credentials>, new_password: SecretString, nonce: impl Into<String>) -> Self {
        Self {
            credentials,
            new_password,
            nonce: nonce.into(),
            pending: String::new(),
            at: 0,
            tries: 0,
            changed: false,
            root_changed: false,
            doubled: false,
            became_root: false,
            wizard_user: false,
            asked: None,
        }
    }

    /// Whether a password was changed to the new one on the way.
    pub fn password_changed(&self) -> bool {
        self.changed
    }

    /// Whether root's password is the new one already.
    pub fn root_password_set(&self) -> bool {
        self.root_changed
    }

    /// The user that the wizard made us create; it has to be removed.
    pub fn wizard_user(&self) -> Option<&'static str> {
        self.wizard_user.then_some(WIZARD_USER)
    }

    /// Takes in what the console wrote.
    pub fn feed(&mut self, text: &str) {
        self.pending.push_str(text);
        if self.pending.len() > KEEP {
            let cut = self.pending.len() - KEEP;
            let cut = (cut..self.pending.len()).find(|at| self.pending.is_char_boundary(*at)).unwrap_or(0);
            self.pending.drain(..cut);
        }
    }

    /// What to do about what was fed so far. After a `Send` the text before it counts as answered.
    pub fn turn(&mut self) -> Turn {
        let screen = screen::plain(&self.pending);
        if let Some(user) = screen::between(&screen, &format!("TPI{}:", self.nonce), ":") {
            return self.at_prompt(user.trim() == "0");
        }
        if let Some(after) = screen.rfind("Login incorrect").and_then(|at| screen.get(at..)) {
            // The next login question belongs to the next try; without it there is nothing to answer yet.
            if !asks_login(last_line(after)) {
                return Turn::Wait("Login incorrect".to_owned());
            }
        }
        let rejected = screen.contains("Rejected") || screen.contains("BAD PASSWORD");
        match recognise(&screen) {
            Some(question) => self.answer(question, &screen, rejected),
            None => Turn::Wait(screen::last_words(&screen)),
        }
    }

    /// Nothing was written for a while: what to type to make the console ask again. The same as pressing Enter, which
    /// no question takes amiss.
    pub fn nudge(&mut self) -> Line {
        Line::Plain(String::new())
    }

    fn answer(&mut self, question: Question, screen: &str, rejected: bool) -> Turn {
        let repeats = match self.asked {
            Some((same, count)) if same == question => count + 1,
            _ => 1,
        };
        if question == Question::Login {
            return self.log_in();
        }
        if repeats > REPEATS {
            return Turn::Failed(Stuck::Repeats { question: screen::last_words(screen) });
        }
        let before = self.asked.map(|(question, _)| question);
        // A question of the wizard that comes again without a rejection: the terminal makes two Enters of the BMC's CR LF,
        // so the answer that followed was empty.
        let answered = [question, repetition(question)].map(Some).contains(&before);
        if repetition(question) != question && answered && (!rejected || repeats > 2) {
            self.doubled = true;
        }
        self.asked = Some((question, repeats));
        let line = match question {
            Question::Login | Question::RealName => Line::Plain(String::new()),
            Question::Password | Question::CurrentPassword => self.current_password(),
            Question::NewPassword | Question::RepeatNewPassword => {
                self.changed = true;
                self.root_changed |= self.credentials.get(self.at).is_some_and(|login| login.user == "root");
                Line::Secret(self.new_password.clone())
            }
            Question::WizardPassword | Question::WizardUserPassword => {
                self.changed |= question == Question::WizardPassword;
                self.root_changed |= question == Question::WizardPassword;
                self.wizard_password(if self.doubled { 2 } else { 1 })
            }
            Question::WizardRepeat | Question::WizardUserRepeat => {
                self.changed |= question == Question::WizardRepeat;
                self.root_changed |= question == Question::WizardRepeat;
                let in_step =
                    before.is_some_and(|before| before != question && repetition(before) == question);
                // Out of step, a stray Enter has answered the first question: this one gets a wrong answer, and the next
                // two are answered along with it.
                self.wizard_password(if in_step { 1 } else { 3 })
            }
            Question::WizardShell => Line::Plain("1".to_owned()),
            Question::WizardUser => {
                self.wizard_user = true;
                Line::Plain(WIZARD_USER.to_owned())
            }
            Question::Decline => Line::Plain("n".to_owned()),
            Question::LocaleChoice => Line::Plain(skip_choice(screen).unwrap_or_else(|| "1".to_owned())),
            Question::Prompt => self.probe(),
        };
        self.send(line)
    }

    fn log_in(&mut self) -> Turn {
        if self.tries >= TRIES {
            self.at += 1;
            self.tries = 0;
        }
        let Some(credentials) = self.credentials.get(self.at) else {
            let tried = self.credentials.iter().map(|c| c.user.clone()).collect();
            return Turn::Failed(Stuck::LoginRefused { tried });
        };
        self.tries += 1;
        self.asked = None;
        let user = credentials.user.clone();
        self.send(Line::Plain(user))
    }

    fn at_prompt(&mut self, root: bool) -> Turn {
        if root {
            self.pending.clear();
            return Turn::Shell;
        }
        if self.became_root {
            let user = self.credentials.get(self.at).map_or_else(String::new, |c| c.user.clone());
            return Turn::Failed(Stuck::NotRoot { user });
        }
        self.became_root = true;
        self.asked = None;
        self.send(Line::Plain("exec sudo -i".to_owned()))
    }

    /// Prints the nonce and the user id. The quotes keep the echo of this line from looking like its output.
    fn probe(&self) -> Line {
        Line::Plain(format!("echo \"TPI\"\"{}:$(id -u):\"", self.nonce))
    }

    fn current_password(&self) -> Line {
        match self.credentials.get(self.at).filter(|_| !self.changed) {
            Some(credentials) => Line::Secret(credentials.password.clone()),
            None => Line::Secret(self.new_password.clone()),
        }
    }

    /// The new password as the answer to so many questions in a row.
    fn wizard_password(&self, questions: usize) -> Line {
        let password = self.new_password.expose_secret();
        let answers: Vec<&str> = match questions {
            1 => vec![password],
            2 => vec![password; 2],
            _ => vec!["-", password, password],
        };
        Line::Secret(answers.join("\r").into())
    }

    fn send(&mut self, line: Line) -> Turn {
        self.pending.clear();
        Turn::Send(line)
    }
}

/// The question that repeats one of the wizard's; others repeat as themselves.
fn repetition(question: Question) -> Question {
    match question {
        Question::WizardPassword => Question::WizardRepeat,
        Question::WizardUserPassword => Question::WizardUserRepeat,
        other => other,
    }
}

fn last_line(screen: &str) -> &str {
    screen.rsplit('\n').next().unwrap_or_default()
}

fn asks_login(line: &str) -> bool {
    let line = line.trim().to_lowercase();
    // `Last login: Mon …` may arrive in two pieces.
    line.ends_with("login:") && !line.starts_with("last login")
}

/// The number of "Skip generating locales" in the wizard's list.
fn skip_choice(screen: &str) -> Option<String> {
    let line = screen.lines().rev().find(|line| line.contains("Skip generating locales"))?;
    let before = line.split("Skip generating locales").next()?.trim_end().strip_suffix(')')?;
    let digits: String = before.chars().rev().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| digits.chars().rev().collect())
}

/// A question is what stands unfinished in the last line; an answered one has a line end after it.
fn recognise(screen: &str) -> Option<Question> {
    let line = last_line(screen).trim_end();
    let lower = line.to_lowercase();
    let has = |word: &str| lower.contains(word);
    if line.is_empty() {
        // The wizard's shell choice reads one key and shows no prompt behind its list.
        let list = screen.rsplit("Choose default system command shell").next().filter(|_| {
            screen.contains("Choose default system command shell") && !screen.contains("Shell: ")
        })?;
        let numbered =
            list.trim_end().lines().last().is_some_and(|last| last.trim_start().starts_with(['1', '2', '3']));
        return numbered.then_some(Question::WizardShell);
    }
    if lower.ends_with(['*']) {
        // The wizard echoes stars; it is still being answered.
        return None;
    }
    if asks_login(line) {
        return Some(Question::Login);
    }
    if lower.ends_with(':') && has("password") {
        return Some(match () {
            () if has("repeat user") => Question::WizardUserRepeat,
            () if has("create user") => Question::WizardUserPassword,
            () if has("create root") || has("new root") => Question::WizardPassword,
            () if has("repeat") => Question::WizardRepeat,
            () if has("create") => Question::WizardUserPassword,
            () if has("current") => Question::CurrentPassword,
            () if has("retype") || has("reenter") || has("again") => Question::RepeatNewPassword,
            () if has("new") => Question::NewPassword,
            () => Question::Password,
        });
    }
    if has("provide a username") {
        return Some(Question::WizardUser);
    }
    if has("real name") {
        return Some(Question::RealName);
    }
    if has("[y/n]") || has("(y/n)") {
        return Some(Question::Decline);
    }
    if has("enter your choice") && lower.ends_with(':') {
        return Some(Question::LocaleChoice);
    }
    if has("system command shell") {
        return Some(Question::WizardShell);
    }
    // `root@turing-rk1:~# `, `ubuntu@ubuntu:~$ `, `# `. A kernel message may end in anything, but not in these and a host name.
    let prompt = line.strip_suffix(['#', '$']).is_some_and(|before| {
        before.is_empty() || before.contains('@') || before.ends_with(['~', '/', ' ', ']', ')'])
    });
    (prompt && line.len() < 120).then_some(Question::Prompt)
}

#[cfg(test)]
mod tests;
