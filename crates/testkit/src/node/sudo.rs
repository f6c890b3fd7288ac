//! sudo, the classic one: rules, prompt, password from standard input.

use std::sync::Arc;

use super::{
    launch,
    session::{Session, Sink, Stdin, Stream},
    users::{self, Account, Login, Sudo},
};

/// What the options ask for.
#[derive(Debug, Default)]
struct Options {
    never_ask: bool,
    from_stdin: bool,
    prompt: Option<String>,
    user: Option<String>,
    login: bool,
    keep_env: bool,
    only_check: bool,
    only_forget: bool,
    list: bool,
    assignments: Vec<(String, String)>,
    command: Vec<String>,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            options.command = rest.cloned().collect();
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
            match name {
                "non-interactive" => options.never_ask = true,
                "stdin" => options.from_stdin = true,
                "reset-timestamp" => options.only_forget = true,
                "validate" => options.only_check = true,
                "prompt" => options.prompt = value,
                "user" => options.user = value,
                "login" => options.login = true,
                "preserve-env" => options.keep_env = true,
                "set-home" => {}
                _ => return Err(format!("sudo: unrecognized option '{arg}'\n")),
            }
            continue;
        }
        let Some(flags) = arg.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            if let Some((name, value)) = arg.split_once('=')
                && options.command.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                options.assignments.push((name.to_owned(), value.to_owned()));
                continue;
            }
            options.command = std::iter::once(arg.clone()).chain(rest.cloned()).collect();
            break;
        };
        for (at, letter) in flags.char_indices() {
            match letter {
                'n' => options.never_ask = true,
                'S' => options.from_stdin = true,
                'k' | 'K' => options.only_forget = true,
                'v' => options.only_check = true,
                'i' | 's' => options.login = true,
                'E' => options.keep_env = true,
                'l' => options.list = true,
                'H' | 'b' | 'A' => {}
                'p' | 'u' | 'g' | 'C' | 'h' => {
                    let inline = flags.get(at + 1..).unwrap_or_default();
                    let value =
                        if inline.is_empty() { rest.next().cloned() } else { Some(inline.to_owned()) };
                    match letter {
                        'p' => options.prompt = value,
                        'u' => options.user = value,
                        _ => {}
                    }
                    break;
                }
                other => return Err(format!("sudo: invalid option -- '{other}'\n")),
            }
        }
    }
    Ok(options)
}

/// Runs sudo. `stdin` and `sink` are those of the program that it starts.
pub(crate) async fn run(session: Arc<Session>, args: Vec<String>, stdin: Stdin, sink: Sink) -> i32 {
    let say = |text: &str| sink(Stream::Err, text.as_bytes());
    let options = match parse(&args) {
        Ok(options) => options,
        Err(message) => {
            say(&message);
            return 1;
        }
    };
    let me = session.account.clone();
    let (rule, hostname) = session
        .node
        .os(|os| (users::sudo_rule(&os.vfs, &me), os.hostname()))
        .unwrap_or((Sudo::No, String::new()));
    if options.only_forget && options.command.is_empty() && !options.login {
        return 0;
    }
    if rule != Sudo::Free {
        if options.never_ask {
            say("sudo: a password is required\n");
            return 1;
        }
        if !options.from_stdin && !session.tty {
            say(
                "sudo: a terminal is required to read the password; either use the -S option to read from standard input or configure an askpass helper\nsudo: a password is required\n",
            );
            return 1;
        }
        let prompt = options.prompt.clone().unwrap_or_else(|| format!("[sudo] password for {}: ", me.name));
        let prompt = prompt
            .replace("%u", &me.name)
            .replace("%p", &me.name)
            .replace("%h", &hostname)
            .replace("%%", "%");
        let mut tries = 0;
        loop {
            say(&prompt);
            let line = tokio::select! {
                line = stdin.line() => line,
                () = session.cancel.cancelled() => return -15,
            };
            let Some(password) = line else {
                let plural = if tries == 1 { "" } else { "s" };
                say(&if tries == 0 {
                    "\nsudo: no password was provided\nsudo: a password is required\n".to_owned()
                } else {
                    format!(
                        "\nsudo: no password was provided\nsudo: {tries} incorrect password attempt{plural}\n"
                    )
                });
                return 1;
            };
            if session.tty {
                say("\n");
            }
            let login = session
                .node
                .os(|os| users::check(&os.vfs, &me.name, password.trim_end_matches('\r')))
                .unwrap_or(Login::Refused);
            if login == Login::Accepted {
                break;
            }
            // PAM answers a wrong password slowly.
            session.node.pause(std::time::Duration::from_secs(2)).await;
            tries += 1;
            if tries == 3 {
                say("sudo: 3 incorrect password attempts\n");
                return 1;
            }
            say("Sorry, try again.\n");
        }
    }
    if rule == Sudo::No {
        say(&format!("{} is not in the sudoers file.\n", me.name));
        return 1;
    }
    if options.list {
        sink(
            Stream::Out,
            format!("User {} may run the following commands on {hostname}:\n    (ALL : ALL) ALL\n", me.name)
                .as_bytes(),
        );
        return 0;
    }
    if options.only_check {
        return 0;
    }
    let target = options.user.as_deref().unwrap_or("root");
    let found = if target == "root" {
        Some(Account::root())
    } else {
        session.node.os(|os| users::find(&os.vfs, target.trim_start_matches('#'))).flatten()
    };
    let Some(account) = found else {
        say(&format!("sudo: unknown user {target}\nsudo: error initializing audit plugin sudoers_audit\n"));
        return 1;
    };
    let on_terminal = options.command.is_empty() && options.login && session.tty;
    let command = if options.command.is_empty() {
        if !options.login {
            say(
                "usage: sudo -h | -K | -k | -V\nusage: sudo [-ABbEHnPS] [-u user] [VAR=value] [-i | -s] [command [arg ...]]\n",
            );
            return 1;
        }
        vec!["bash".to_owned()]
    } else {
        options.command
    };
    let home = account.home.clone();
    let mut child = session.child(account, stdin, Arc::clone(&sink));
    child.sudo_user = Some(me.name.clone());
    if options.keep_env {
        let mut env = session.env();
        env.extend(child.env());
        child.env = std::sync::Mutex::new(env);
    }
    child.set_env("SUDO_USER", &me.name);
    child.set_env("SUDO_UID", &me.uid.to_string());
    for (name, value) in &options.assignments {
        child.set_env(name, value);
    }
    if options.login {
        child.cwd = std::sync::Mutex::new(home);
    }
    let child = Arc::new(child);
    session.elevated.store(me.uid != 0, std::sync::atomic::Ordering::Relaxed);
    let code = match on_terminal {
        true => super::console::interactive(Arc::clone(&child)).await,
        false => launch::run(Arc::clone(&child), command).await,
    };
    session.elevated.store(false, std::sync::atomic::Ordering::Relaxed);
    for (from, to) in [(&child.cut_after, &session.cut_after), (&child.reboot_after, &session.reboot_after)] {
        to.fetch_or(from.load(std::sync::atomic::Ordering::Relaxed), std::sync::atomic::Ordering::Relaxed);
    }
    code
}
