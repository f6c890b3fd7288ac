//! How far a node's boot is, by what its console shows.

use serde::Serialize;

/// The last thing that a console's text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BootStage {
    /// The boot loader runs: DDR training, U-Boot, UEFI, GRUB.
    Loader,
    /// The kernel starts.
    Kernel,
    /// The system's services start.
    System,
    /// The first login waits for answers: a password to be set, a user to be made.
    Setup,
    /// It asks for a login.
    Login,
    /// Somebody is logged in: a shell asks for a command.
    Shell,
    /// It goes down.
    Stopping,
    /// It has halted; the power may still be on.
    Halted,
    /// The boot ended in a rescue shell.
    Rescue,
    /// The kernel panicked.
    Panic,
}

impl BootStage {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Kernel => "kernel",
            Self::System => "starting",
            Self::Setup => "first login",
            Self::Login => "login",
            Self::Shell => "logged in",
            Self::Stopping => "stopping",
            Self::Halted => "halted",
            Self::Rescue => "rescue shell",
            Self::Panic => "kernel panic",
        }
    }
}

/// A kernel that has run for this many seconds does not boot any more: what it prints is news, not progress.
const BOOTED: u64 = 180;

/// The stage that a console's plain text ends in; `None` when nothing in it tells. A pure function of the text, which may
/// begin anywhere.
///
/// ```
/// use turingpi_provision::board::{BootStage, boot_stage};
///
/// assert_eq!(boot_stage("U-Boot 2024.10\nStarting kernel ...\n"), Some(BootStage::Kernel));
/// assert_eq!(boot_stage("[  OK  ] Started OpenSSH.\n\nnode1 login: "), Some(BootStage::Login));
/// assert_eq!(boot_stage("nothing known"), None);
/// ```
pub fn boot_stage(text: &str) -> Option<BootStage> {
    let mut stage = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // A prompt is a line that has not ended.
        let open = lines.peek().is_none() && !text.ends_with('\n');
        stage = after(stage, line.trim_end(), open);
    }
    stage
}

fn after(before: Option<BootStage>, line: &str, open: bool) -> Option<BootStage> {
    use BootStage as S;
    let uptime = kernel_time(line);
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    let begins = |words: &[&str]| words.iter().any(|word| line.trim_start().starts_with(word));
    let now = if has(&["Kernel panic - not syncing", "end Kernel panic"]) {
        Some(S::Panic)
    } else if has(&["reboot: Restarting system", "reboot: machine restart"]) {
        Some(S::Stopping)
    } else if has(&["reboot: Power down", "reboot: System halted", "System Power Off", "System halted."]) {
        Some(S::Halted)
    } else if before == Some(S::Panic) && uptime.is_some() {
        // The rest of the panic's report.
        before
    } else if has(&["Booting Linux on physical CPU", "Linux version "])
        || begins(&["Starting kernel ...", "EFI stub: "])
    {
        Some(S::Kernel)
    } else if has(&[
        "Give root password for maintenance",
        "You are in emergency mode",
        "You are in rescue mode",
    ]) || begins(&["(initramfs)"])
        || has(&["dropping to a shell", "Dropping to a shell"])
    {
        Some(S::Rescue)
    } else if has(&[
        "reboot.target",
        "poweroff.target",
        "shutdown.target",
        "halt.target",
        "The system will reboot",
        "The system is going down",
    ]) {
        Some(S::Stopping)
    } else if let Some(seconds) = uptime {
        return Some(by_kernel(before, seconds, line));
    } else if begins(&[
        "U-Boot ",
        "U-Boot SPL",
        "DDR ",
        "BL31:",
        "NOTICE:  BL",
        "Trying to boot from",
        "Hit any key to stop autoboot",
        "GNU GRUB",
        "UEFI firmware",
        "EDK II",
        "Jetson UEFI",
        "[0000.",
    ]) || (open && line == "=>")
    {
        Some(S::Loader)
    } else if begins(&[
        "[  OK  ]",
        "[FAILED]",
        "[DEPEND]",
        "systemd[1]:",
        "[talos]",
        "Waiting for system to finish booting",
    ]) || (begins(&["Welcome to "]) && line.ends_with('!') && before < Some(S::Setup))
    {
        // A service that starts later does not log anybody out.
        match before {
            Some(S::Setup | S::Login | S::Shell) => before,
            _ => Some(S::System),
        }
    } else if has(&[
        "Create root password",
        "Repeat root password",
        "provide a username",
        "You are required to change your password",
    ]) || begins(&["New password:", "Current password:", "Retype new password:"])
    {
        Some(S::Setup)
    } else if is_login(line, open) {
        Some(S::Login)
    } else if is_shell(line) {
        Some(S::Shell)
    } else {
        None
    };
    now.or(before)
}

/// What a kernel's line tells, by the seconds since it started.
fn by_kernel(before: Option<BootStage>, seconds: u64, line: &str) -> BootStage {
    use BootStage as S;
    match before {
        Some(S::System | S::Setup | S::Login | S::Shell | S::Stopping | S::Halted | S::Rescue)
            if seconds > 5 =>
        {
            before.unwrap_or(S::System)
        }
        // systemd talks through the kernel's log until its own is up.
        _ if seconds >= BOOTED || line.contains("systemd[1]:") || line.contains("[talos]") => S::System,
        _ => S::Kernel,
    }
}

/// The seconds of `[   12.345678] text`.
fn kernel_time(line: &str) -> Option<u64> {
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = time.trim_start().split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(seconds) && micros.len() == 6 && digits(micros)).then(|| seconds.parse().ok())?
}

/// `node1 login: `, also with the name that was typed there.
fn is_login(line: &str, open: bool) -> bool {
    let Some((host, rest)) = line.split_once(" login:") else {
        return line == "login:" || (open && line == "Password:");
    };
    // `Last login: …` comes after a login.
    let host = host.trim_start();
    let typed = rest.trim_end_matches("(automatic login)");
    host != "Last" && !host.is_empty() && !host.contains(' ') && typed.split_whitespace().count() <= 1
}

/// `root@node1:~# `, with or without a command behind it.
fn is_shell(line: &str) -> bool {
    let Some((user, rest)) = line.split_once('@') else { return false };
    let name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let Some((host, path)) = rest.split_once(':') else { return false };
    let end = path.find(['#', '$']).unwrap_or(path.len());
    let (path, sign) = path.split_at(end);
    name(user) && name(host) && path.starts_with(['~', '/']) && !path.contains(' ') && {
        matches!(sign, "#" | "$") || sign.starts_with("# ") || sign.starts_with("$ ")
    }
}

#[cfg(test)]
mod tests {
    use BootStage as S;

    use super::*;

    /// A boot as the board sees it, line by line.
    const BOOT: &[(&str, Option<BootStage>)] = &[
        ("\n", None),
        ("DDR 2400MHz\n", Some(S::Loader)),
        ("U-Boot SPL 2017.09 (turing-rk1)\n", Some(S::Loader)),
        ("Hit any key to stop autoboot:  0\n", Some(S::Loader)),
        ("Retrieving file: /boot/extlinux.conf\n", Some(S::Loader)),
        ("Starting kernel ...\n", Some(S::Kernel)),
        ("[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x412fd050]\n", Some(S::Kernel)),
        ("[    1.204431] mmc0: new HS400 MMC card\n", Some(S::Kernel)),
        ("[    3.014222] systemd[1]: Detected architecture arm64.\n", Some(S::System)),
        ("\nWelcome to Armbian 26.2 trixie!\n", Some(S::System)),
        ("[  OK  ] Reached target multi-user.target - Multi-User System.\n", Some(S::System)),
        ("[    9.700000] rk_gmac-dwmac end0: Link is Up\n", Some(S::System)),
        ("\nArmbian 26.2 node1 ttyS0\n\n", Some(S::System)),
        ("node1 login: ", Some(S::Login)),
        ("root", Some(S::Login)),
        ("\nPassword: ", Some(S::Login)),
        ("\n\nLast login: Mon Nov 23 10:00:00 UTC 2026 on ttyS0\n", Some(S::Login)),
        ("root@node1:~# ", Some(S::Shell)),
        ("systemctl reboot\n", Some(S::Shell)),
        ("[  OK  ] Reached target shutdown.target - System Shutdown.\n", Some(S::Stopping)),
        ("[  412.000001] reboot: Restarting system\n", Some(S::Stopping)),
        ("\nDDR 2400MHz\nU-Boot 2024.10\n", Some(S::Loader)),
        ("[    0.000000] Linux version 6.1.115\n", Some(S::Kernel)),
        ("[    2.104431] Kernel panic - not syncing: VFS: Unable to mount root fs\n", Some(S::Panic)),
        ("[    2.110000] CPU: 3 PID: 1 Comm: swapper/0\n", Some(S::Panic)),
    ];

    #[test]
    fn a_boot_is_followed_from_the_first_byte_to_a_panic() {
        let mut text = String::new();
        for (piece, stage) in BOOT {
            text.push_str(piece);
            assert_eq!(boot_stage(&text), *stage, "after {piece:?}");
        }
    }

    #[test]
    fn single_screens_are_told_apart() {
        for (screen, stage) in [
            ("turing-rk1 login: root (automatic login)", S::Login),
            ("Create root password: ", S::Setup),
            (
                "You are required to change your password immediately (administrator enforced).\nChanging password for ubuntu.\nCurrent password: ",
                S::Setup,
            ),
            ("[ 8123.100000] eth0: link becomes ready\n", S::System),
            ("node1 login: \n[   43.123456] IPv6: ADDRCONF(NETDEV_CHANGE): eth0\n", S::Login),
            ("You are in emergency mode. After logging in, type", S::Rescue),
            ("BusyBox v1.36\n\n(initramfs) ", S::Rescue),
            (
                "[  OK  ] Reached target poweroff.target - System Power Off.\n[  99.000000] reboot: Power down\n",
                S::Halted,
            ),
            ("U-Boot 2024.10\n=> ", S::Loader),
            ("[   12.000001] [talos] task startAllServices (1/1)", S::System),
            ("pi@cm4:/etc/network$ ", S::Shell),
        ] {
            assert_eq!(boot_stage(screen), Some(stage), "{screen:?}");
        }
    }

    #[test]
    fn words_that_only_look_like_a_sign_are_none() {
        for screen in [
            "",
            "the login: page says so\n",
            "mail from root@example.net: hello\n",
            "copy U-Boot to the disk\n",
            "[12.5] not a kernel line\n",
            "Last login: Mon Nov 23\n",
        ] {
            assert_eq!(boot_stage(screen), None, "{screen:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_stumble(text in "[\\[\\]0-9.: \n#$@=>A-Za-z~/é]{0,200}") {
            let _ = boot_stage(&text);
        }
    }
}
