use proptest::prelude::*;

use super::*;

/// A console as an operating system plays it: lines in, text out. Written from what the programs print (agetty, login,
/// PAM, Armbian's `armbian-firstlogin`), not from what the dialogue expects.
struct Terminal {
    os: Os,
    state: State,
    /// The terminal makes two line ends of the BMC's CR LF.
    doubling: bool,
    /// Kernel messages between everything.
    chatty: bool,
    passwords: Vec<(&'static str, String)>,
    user: String,
    typed_user: String,
    first: String,
    wizard_users: Vec<String>,
    failed_logins: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Os {
    Armbian { autologin: bool },
    Ubuntu,
    Debian,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Login,
    Password,
    Current,
    New,
    Retype,
    CreateRoot,
    RepeatRoot,
    Shell,
    UserName,
    CreateUser,
    RepeatUser,
    RealName,
    Language,
    Locale,
    Prompt,
    Sudo,
}

impl Terminal {
    fn new(os: Os) -> (Self, String) {
        let passwords = match os {
            Os::Armbian { .. } => vec![("root", "1234".to_owned())],
            Os::Ubuntu => vec![("ubuntu", "ubuntu".to_owned())],
            Os::Debian => vec![("root", "custom".to_owned())],
        };
        let mut terminal = Self {
            os,
            state: State::Login,
            doubling: false,
            chatty: false,
            passwords,
            user: String::new(),
            typed_user: String::new(),
            first: String::new(),
            wizard_users: vec![],
            failed_logins: 0,
        };
        let boot = "[    0.000000] Booting Linux on physical CPU 0x0\r\nStarting kernel ...\r\n\r\n";
        let text = match os {
            Os::Armbian { autologin: true } => {
                terminal.user = "root".into();
                terminal.state = State::CreateRoot;
                format!(
                    "{boot}turing-rk1 login: root (automatic login)\r\n\r\n\u{1b}[2J\u{1b}[HWaiting for system to finish booting ...\r\nCreate root password: "
                )
            }
            _ => format!("{boot}Armbian 26.2 turing-rk1 ttyS9 \r\n\r\nturing-rk1 login: "),
        };
        (terminal, text)
    }

    fn password_of(&mut self, user: &str) -> Option<&mut String> {
        self.passwords.iter_mut().find(|(name, _)| *name == user).map(|(_, password)| password)
    }

    /// What the BMC sends: the line and CR LF.
    fn send(&mut self, line: &str) -> String {
        let mut out = String::new();
        let bytes = format!("{line}\r");
        let mut current = String::new();
        for c in bytes.chars() {
            if c == '\r' {
                out.push_str(&self.line(&std::mem::take(&mut current)));
            } else {
                current.push(c);
            }
        }
        // The LF: a line end of its own, or swallowed. `login` flushes its input before it asks for a password.
        if self.doubling
            && ![State::Password, State::Current, State::New, State::Retype].contains(&self.state)
        {
            out.push_str(&self.line(""));
        }
        if self.chatty {
            out = format!(
                "\r\n[   31.4159] rk_gmac-dwmac fe1c0000.ethernet end0: Link is Up - 1Gbps/Full\r\n{out}"
            );
        }
        out
    }

    fn line(&mut self, line: &str) -> String {
        use State as S;
        let stars = "*".repeat(line.len());
        let (next, text): (S, String) = match self.state {
            S::Login if line.is_empty() => (S::Login, "\r\nturing-rk1 login: ".into()),
            S::Login => {
                self.typed_user = line.to_owned();
                (S::Password, format!("{line}\r\nPassword: "))
            }
            S::Password => {
                let user = self.typed_user.clone();
                if self.password_of(&user).is_none_or(|password| password != line) {
                    self.failed_logins += 1;
                    (S::Login, "\r\n\r\nLogin incorrect\r\nturing-rk1 login: ".into())
                } else {
                    self.user = user;
                    match self.os {
                        Os::Ubuntu if line == "ubuntu" => (
                            S::Current,
                            "\r\nYou are required to change your password immediately (administrator enforced).\r\nChanging password for ubuntu.\r\nCurrent password: ".into(),
                        ),
                        Os::Armbian { .. } => (S::CreateRoot, "\r\nLast login: Mon Jan  1 00:00:00 UTC 2024 on ttyS9\r\n\r\nCreate root password: ".into()),
                        _ => (S::Prompt, self.prompt()),
                    }
                }
            }
            S::Current if line == "ubuntu" => (S::New, "\r\nNew password: ".into()),
            S::Current => (S::Login, "\r\nAuthentication token manipulation error\r\nturing-rk1 login: ".into()),
            S::New => {
                self.first = line.to_owned();
                (S::Retype, "\r\nRetype new password: ".into())
            }
            S::Retype if line == self.first => {
                let user = self.user.clone();
                *self.password_of(&user).unwrap() = line.to_owned();
                (S::Prompt, format!("\r\npasswd: password updated successfully\r\nWelcome to Ubuntu\r\n{}", self.prompt()))
            }
            S::Retype => (S::New, "\r\nSorry, passwords do not match.\r\nNew password: ".into()),
            S::CreateRoot => {
                self.first = line.to_owned();
                (S::RepeatRoot, format!("{stars}\r\nRepeat root password: "))
            }
            S::RepeatRoot if line == self.first && line.len() >= 8 => {
                *self.password_of("root").unwrap() = line.to_owned();
                (S::Shell, format!("{stars}\r\n\r\nSupport status: \u{1b}[0;31mcommunity support\u{1b}[0m\r\n\r\nChoose default system command shell:\r\n\r\n1) bash\r\n2) zsh\r\n"))
            }
            S::RepeatRoot if line.is_empty() => (S::CreateRoot, format!("{stars}\r\nCreate root password: ")),
            S::RepeatRoot => (S::CreateRoot, format!("{stars}\r\nRejected - \u{1b}[0;31mpasswords do not match.\u{1b}[0m Try again [3].\r\nCreate root password: ")),
            S::Shell => (S::UserName, "\r\nShell: \u{1b}[92mBASH\u{1b}[0m\r\n\r\nCreating a new user account. Press <Ctrl-C> to abort\r\n\r\nPlease provide a username (eg. your first name): ".into()),
            S::UserName if line.is_empty() || !line.chars().all(|c| c.is_ascii_alphabetic()) => {
                (S::UserName, "\r\n\r\nCreating a new user account. Press <Ctrl-C> to abort\r\n\r\nPlease provide a username (eg. your first name): ".into())
            }
            S::UserName => {
                self.typed_user = line.to_owned();
                (S::CreateUser, format!("{line}\r\nCreate user ({line}) password: "))
            }
            S::CreateUser => {
                self.first = line.to_owned();
                (S::RepeatUser, format!("{stars}\r\nRepeat user ({}) password: ", self.typed_user))
            }
            S::RepeatUser if line == self.first && !line.is_empty() => {
                self.wizard_users.push(self.typed_user.clone());
                (S::RealName, format!("{stars}\r\n\r\nPlease provide your real name: Turingpisetup"))
            }
            S::RepeatUser => (S::CreateUser, format!("{stars}\r\nRejected - passwords do not match. Try again [3].\r\nCreate user ({}) password: ", self.typed_user)),
            S::RealName => (S::Language, "\r\nDear \u{1b}[0;92mx\u{1b}[0m, your account has been created and is sudo enabled.\r\n\r\nDetected timezone: \u{1b}[92mEurope/Vienna\u{1b}[0m\r\n\r\nSet user language based on your location? [Y/n] ".into()),
            S::Language if line.starts_with(['n', 'y']) => (S::Locale, "\r\n\r\nAt your location, more locales are possible:\r\n\r\n1) aa_DJ.UTF-8\t 3) Skip generating locales\r\n2) af_ZA.UTF-8\r\nPlease enter your choice:".into()),
            S::Language => (S::Language, "\r\nSet user language based on your location? [Y/n] ".into()),
            S::Locale if line == "3" => (S::Prompt, self.prompt()),
            S::Locale => (S::Locale, "1) aa_DJ.UTF-8\t 3) Skip generating locales\r\n2) af_ZA.UTF-8\r\nPlease enter your choice:".into()),
            S::Prompt if line == "exec sudo -i" => {
                self.user = "root".into();
                (S::Sudo, format!("{line}\r\n[sudo] password for ubuntu: "))
            }
            S::Sudo => (S::Prompt, self.prompt()),
            S::Prompt => {
                let uid = if self.user == "root" { 0 } else { 1000 };
                // The shell joins the two quoted halves.
                let out = line.strip_prefix("echo ").map_or(String::new(), |text| {
                    format!("{}\r\n", text.replace('"', "").replace("$(id -u)", &uid.to_string()))
                });
                (S::Prompt, format!("{line}\r\n{out}{}", self.prompt()))
            }
        };
        self.state = next;
        text
    }

    fn prompt(&self) -> String {
        let (sign, place) = if self.user == "root" { ('#', '~') } else { ('$', '~') };
        format!("\r\n\u{1b}[01;32m{}@turing-rk1\u{1b}[00m:{place}{sign} ", self.user)
    }
}

const NEW: &str = "nEw7pAssw0rdNobodyKnows";

fn dialogue() -> Dialogue {
    let credentials =
        vec![Credentials::new("root", "1234".to_owned()), Credentials::new("ubuntu", "ubuntu".to_owned())];
    Dialogue::new(credentials, NEW.to_owned().into(), "abc")
}

/// Plays until the end; the console's text arrives in pieces of `piece` characters.
fn play(
    mut terminal: Terminal,
    opening: &str,
    piece: usize,
) -> (Result<Dialogue, Stuck>, Terminal, Vec<String>) {
    let mut dialogue = dialogue();
    let mut queue: Vec<char> = opening.chars().collect();
    let mut said = Vec::new();
    let mut idle = 0;
    for _ in 0..4000 {
        let now: String = queue.drain(..piece.min(queue.len())).collect();
        dialogue.feed(&now);
        // With two line ends for one, a question may be past before all of it was read: the console's driver answers
        // only a screen that stands still.
        if terminal.doubling && !queue.is_empty() {
            continue;
        }
        let line = match dialogue.turn() {
            Turn::Shell => return (Ok(dialogue), terminal, said),
            Turn::Failed(stuck) => return (Err(stuck), terminal, said),
            Turn::Send(line) => line,
            Turn::Wait(_) if !queue.is_empty() => continue,
            Turn::Wait(_) => {
                idle += 1;
                assert!(idle < 20, "stuck at {:?}, {said:?}", terminal.state);
                dialogue.nudge()
            }
        };
        said.push(line.text().to_owned());
        queue.extend(terminal.send(line.text()).chars());
    }
    panic!("no end: {:?} {said:?}", terminal.state)
}

#[rstest::rstest]
fn armbians_wizard_is_answered_to_its_end(
    #[values(true, false)] autologin: bool,
    #[values(true, false)] doubling: bool,
    #[values(true, false)] chatty: bool,
    #[values(10_000, 7)] piece: usize,
) {
    let (mut terminal, opening) = Terminal::new(Os::Armbian { autologin });
    (terminal.doubling, terminal.chatty) = (doubling, chatty);
    let (end, terminal, said) = play(terminal, &opening, piece);
    let dialogue = end.unwrap_or_else(|stuck| panic!("{stuck}: {said:?}"));
    assert_eq!(terminal.passwords, [("root", NEW.to_owned())]);
    assert_eq!(terminal.wizard_users, [WIZARD_USER]);
    assert_eq!(dialogue.wizard_user(), Some(WIZARD_USER));
    assert!(dialogue.password_changed());
    assert_eq!(terminal.failed_logins, 0);
}

#[rstest::rstest]
fn ubuntus_forced_change_is_answered_and_sudo_leads_to_root(#[values(10_000, 5)] piece: usize) {
    let (terminal, opening) = Terminal::new(Os::Ubuntu);
    let (end, terminal, said) = play(terminal, &opening, piece);
    let dialogue = end.unwrap_or_else(|stuck| panic!("{stuck}: {said:?}"));
    assert_eq!(terminal.passwords, [("ubuntu", NEW.to_owned())]);
    assert_eq!(terminal.user, "root");
    assert_eq!(dialogue.wizard_user(), None);
    assert_eq!(terminal.failed_logins, 2, "root/1234 was tried, twice at most");
}

#[test]
fn a_plain_login_leads_to_the_shell_and_changes_nothing() {
    let (mut terminal, opening) = Terminal::new(Os::Debian);
    terminal.passwords = vec![("root", "1234".to_owned())];
    let (end, terminal, said) = play(terminal, &opening, 10_000);
    assert!(!end.unwrap().password_changed());
    assert_eq!(terminal.passwords, [("root", "1234".to_owned())]);
    assert_eq!(said, ["root", "1234", "echo \"TPI\"\"abc:$(id -u):\""]);
}

#[test]
fn a_refused_login_ends_after_few_tries_and_names_the_users() {
    let (terminal, opening) = Terminal::new(Os::Debian);
    let (end, terminal, _) = play(terminal, &opening, 10_000);
    assert_eq!(end.unwrap_err(), Stuck::LoginRefused { tried: vec!["root".into(), "ubuntu".into()] });
    assert_eq!(terminal.failed_logins, 4);
}

#[test]
fn a_silent_console_and_a_question_that_scrolled_away_are_asked_again() {
    let (mut terminal, _) = Terminal::new(Os::Debian);
    terminal.passwords = vec![("root", "1234".to_owned())];
    let (end, _, said) = play(terminal, "turing-rk1 login: [   25.1] end0: Link is Up\r\n", 10_000);
    end.unwrap();
    assert_eq!(said[0], "", "Enter makes it ask again");
}

#[test]
fn a_question_that_never_ends_is_given_up() {
    let mut dialogue = dialogue();
    let mut answers = 0;
    let stuck = loop {
        dialogue.feed("\r\nNew password: ");
        match dialogue.turn() {
            Turn::Send(_) => answers += 1,
            Turn::Failed(stuck) => break stuck,
            other => panic!("{other:?}"),
        }
        assert!(answers < 10);
    };
    assert!(matches!(stuck, Stuck::Repeats { question } if question.contains("New password")));
}

#[test]
fn our_own_echo_is_not_taken_for_its_output() {
    let mut dialogue = dialogue();
    dialogue.feed("root@turing-rk1:~# ");
    let Turn::Send(probe) = dialogue.turn() else { panic!("no probe") };
    dialogue.feed(probe.text());
    dialogue.feed("\r\n");
    assert!(matches!(dialogue.turn(), Turn::Wait(_)));
    dialogue.feed("TPIabc:0:\r\n");
    assert!(matches!(dialogue.turn(), Turn::Shell));
}

#[test]
fn ordinary_boot_text_is_not_answered() {
    for text in [
        "",
        "Starting kernel ...\r\n",
        "[    1.0] random: crng init done\r\n[ OK ] Reached target Login Prompts.\r\n",
        "Last login: ",
        "Hit any key to stop autoboot:  2 ",
        "Loading Environment from MMC... OK\r\nProgress: 50%",
        "total cost: 5$",
        "password of the day\r\n",
    ] {
        let mut dialogue = dialogue();
        dialogue.feed(text);
        assert!(matches!(dialogue.turn(), Turn::Wait(_)), "{text:?}");
    }
}

#[test]
fn no_secret_is_in_any_debug_output() {
    let mut dialogue = dialogue();
    dialogue.feed("New password: ");
    let turn = dialogue.turn();
    dialogue.feed("Password: ");
    let other = dialogue.turn();
    let shown = format!("{turn:?} {other:?} {dialogue:?} {:?}", dialogue.credentials);
    assert!(!shown.contains(NEW) && !shown.contains("1234"), "{shown}");
}

proptest! {
    #[test]
    fn arbitrary_console_text_never_panics_and_never_grows_without_end(
        pieces in prop::collection::vec(prop_oneof![
            any::<String>(),
            Just("login: ".to_owned()), Just("Password: ".to_owned()), Just("\u{1b}[".to_owned()), Just("\r".to_owned()),
            Just("root@x:~# ".to_owned()), Just("TPIabc:".to_owned()), Just(") Skip generating locales\nenter your choice".to_owned()),
            Just("ä\u{8}\u{8}\u{8}".to_owned()), Just("Create root password:".to_owned()),
            "[\\x00-\\x7f]{0,40}",
        ], 0..40),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut dialogue = dialogue();
        for piece in pieces.iter().map(String::as_str).chain([String::from_utf8_lossy(&bytes).as_ref()]) {
            dialogue.feed(piece);
            let _ = dialogue.turn();
            prop_assert!(dialogue.pending.len() <= KEEP);
        }
    }

    #[test]
    fn long_console_output_is_kept_short(text in "[a-zä\n]{0,200}") {
        let mut dialogue = dialogue();
        for _ in 0..200 {
            dialogue.feed(&text);
        }
        prop_assert!(dialogue.pending.len() <= KEEP);
        let _ = dialogue.turn();
    }
}
