//! Becoming root. The login is not root as far as `id` says, and `sudo` is a script that behaves as the real ones do.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::MethodKind;
use tempfile::TempDir;
use turingpi_ssh::{
    Command, RemoteFile, RusshConnector, SshClient, SshConnector, SshError, SshErrorKind, SudoProblem,
    Written,
};

use crate::{
    small_server::{Manners, SmallServer},
    stopping::{FAMILY, gone, past_its_limit, pids, runs},
};

const ID: &str = "#!/bin/sh\n[ \"$*\" != -u ] || { if [ -n \"${FAKE_ROOT:-}\" ]; then echo 0; else echo 1000; fi; exit 0; }\nexec /usr/bin/id \"$@\"\n";

/// Asks as sudo 1.9 does, or inside a text of its own as sudo-rs does; runs the program in a process session of its own,
/// as sudo does by default (`use_pty`).
const SUDO: &str = r#"#!/bin/sh
state=FOLDER kind=$(cat FOLDER/kind) prompt='[sudo] password for admin: ' never=
echo "$*" >>"$state/calls"
while :; do
    case $1 in
    -n) never=1 && shift ;;
    -S | -k) shift ;;
    -p) prompt=$2 && shift 2 ;;
    --) shift && break ;;
    *) break ;;
    esac
done
case $kind in
free) exec setsid -w env FAKE_ROOT=1 "$@" ;;
tty) echo 'sudo: sorry, you must have a tty to run sudo' >&2 && exit 1 ;;
esac
[ -z "$never" ] || { echo 'sudo: a password is required' >&2; exit 1; }
tries=0
while :; do
    case $kind in
    rs*) printf '[sudo: %s] Password: ' "$prompt" >&2 ;;
    *) printf '%s' "$prompt" >&2 ;;
    esac
    IFS= read -r answer || { echo 'sudo: no password was provided' >&2; exit 1; }
    echo "$answer" >>"$state/answers"
    [ "$answer" != 'right; pw' ] || break
    tries=$((tries + 1))
    case $kind in
    once) echo 'sudo: 1 incorrect password attempt' >&2 && exit 1 ;;
    rs*) echo 'sudo: Authentication failed, try again.' >&2 ;;
    *) echo 'Sorry, try again.' >&2 ;;
    esac
    [ "$tries" -lt 3 ] || exit 1
done
case $kind in
denied) echo 'admin is not in the sudoers file.' >&2 && exit 1 ;;
rs-denied) echo "sudo: I'm sorry admin. I'm afraid I can't do that" >&2 && exit 1 ;;
esac
exec setsid -w env FAKE_ROOT=1 "$@"
"#;

struct World {
    folder: TempDir,
    server: SmallServer,
}

impl World {
    async fn new(kind: &str) -> Self {
        // Not in memory: programs cannot be started from there everywhere.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        for (name, text) in [("id", ID), ("sudo", SUDO)] {
            let path = at("bin").join(name);
            fs::write(&path, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(at("kind"), kind).unwrap();
        let manners =
            Manners { methods: vec![MethodKind::None], programs: Some(at("bin")), ..Manners::default() };
        let server = SmallServer::start(manners).await;
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn client(&self, password: Option<&str>) -> Arc<dyn SshClient> {
        let mut target = self.server.target();
        if let Some(password) = password {
            target = target.sudo_password(password.to_owned().into());
        }
        RusshConnector::builder().build().connect(&target).await.unwrap()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn as_root(script: &str) -> Command {
    Command::script(script).as_root()
}

async fn problem(client: &Arc<dyn SshClient>) -> SudoProblem {
    match client.run(&as_root("echo never")).await {
        Err(error @ SshError::Sudo { .. }) => {
            assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Auth, false));
            assert!(error.hint().is_some());
            let SshError::Sudo { kind, .. } = error else { unreachable!() };
            kind
        }
        other => panic!("{other:?}"),
    }
}

async fn works(kind: &str, password: Option<&str>) {
    let world = World::new(kind).await;
    let client = world.client(password).await;
    for round in ["a", "b"] {
        let script = "cat; echo \"$FAKE_ROOT $1 $token\"; echo err >&2; exit 3";
        let output =
            client.run(&as_root(script).arg(round).secret("token", "t'k".to_owned().into())).await.unwrap();
        assert_eq!(output.status, turingpi_ssh::Status::Code(3));
        assert_eq!(
            (output.stdout_text(), output.stderr_text()),
            (format!("1 {round} t'k\n"), "err\n".to_owned()),
            "{kind}"
        );
    }
    let plain = client.run(&Command::script("echo ${FAKE_ROOT:-none}")).await.unwrap();
    assert_eq!(plain.stdout_text(), "none\n", "what does not ask for root does not get it");
    let calls = world.lines("calls").join("\n");
    assert!(!calls.contains("right; pw") && !calls.contains("t'k"), "no secret in arguments: {calls}");
    assert!(
        world.lines("answers").iter().all(|answer| answer == "right; pw"),
        "{:?}",
        world.lines("answers")
    );
}

#[tokio::test]
async fn sudo_without_a_password_works() {
    works("free", None).await;
    works("free", Some("right; pw")).await;
}

#[tokio::test]
async fn sudo_with_a_password_works() {
    works("classic", Some("right; pw")).await;
}

#[tokio::test]
async fn sudo_rs_with_its_own_prompt_works() {
    works("rs", Some("right; pw")).await;
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_never_again() {
    for kind in ["classic", "rs", "once"] {
        let world = World::new(kind).await;
        let client = world.client(Some("wrong")).await;
        let (one, two, three) = tokio::join!(problem(&client), problem(&client), problem(&client));
        assert_eq!(
            [one, two, three, problem(&client).await],
            [const { SudoProblem::WrongPassword }; 4],
            "{kind}"
        );
        assert_eq!(
            world.lines("answers"),
            ["wrong"],
            "{kind}: and no line of a script was taken for a password"
        );
    }
}

#[tokio::test]
async fn every_refusal_says_why() {
    for (kind, password, expected) in [
        ("classic", None, SudoProblem::PasswordNeeded),
        ("rs", None, SudoProblem::PasswordNeeded),
        ("denied", Some("right; pw"), SudoProblem::NotAllowed),
        ("rs-denied", Some("right; pw"), SudoProblem::NotAllowed),
        ("tty", None, SudoProblem::TerminalNeeded),
        ("tty", Some("right; pw"), SudoProblem::TerminalNeeded),
    ] {
        let world = World::new(kind).await;
        let client = world.client(password).await;
        assert_eq!(problem(&client).await, expected, "{kind}");
        assert!(
            client.run(&Command::script("echo ok")).await.unwrap().success(),
            "without root it still works"
        );
    }
}

#[tokio::test]
async fn a_host_without_sudo_is_told_so() {
    if Path::new("/usr/bin/sudo").exists() || Path::new("/bin/sudo").exists() {
        eprintln!("SKIPPED: this machine has a sudo that cannot be hidden; this test proved nothing");
        return;
    }
    let world = World::new("free").await;
    fs::remove_file(world.path("bin/sudo")).unwrap();
    assert_eq!(problem(&world.client(None).await).await, SudoProblem::Missing);
}

#[tokio::test]
async fn a_login_with_user_id_0_needs_no_sudo() {
    let world = World::new("classic").await;
    fs::write(world.path("bin/id"), "#!/bin/sh\necho 0\n").unwrap();
    let output = world.client(None).await.run(&as_root("echo direct")).await.unwrap();
    assert_eq!(output.stdout_text(), "direct\n");
    assert!(world.lines("calls").is_empty(), "sudo was not started");
}

#[tokio::test]
async fn files_move_through_sudo() {
    for (kind, password) in [("free", None), ("classic", Some("right; pw")), ("rs", Some("right; pw"))] {
        let world = World::new(kind).await;
        let client = world.client(password).await;
        for size in [20, 900_000] {
            let bytes: Vec<u8> =
                (0..size).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let place = world.path("placed");
            let file = RemoteFile::new(place.to_str().unwrap(), bytes.clone()).mode(0o600);
            assert_eq!(client.write(&file, &mut |_, _| {}).await.unwrap(), Written::Changed, "{kind}");
            assert_eq!(client.write(&file, &mut |_, _| {}).await.unwrap(), Written::Unchanged, "{kind}");
            assert!(fs::read(&place).unwrap() == bytes, "{kind} {size}");
            assert!(client.read(place.to_str().unwrap()).await.unwrap() == Some(bytes.clone()), "{kind}");
            client.download(place.to_str().unwrap(), &world.path("back"), &mut |_, _| {}).await.unwrap();
            assert!(fs::read(world.path("back")).unwrap() == bytes, "{kind}");
        }
        let input = Box::new(&b"given"[..]);
        let output = client.run_with_input(&as_root("id -u; cat"), input, &mut |_| {}).await.unwrap();
        assert_eq!(output.stdout_text(), "0\ngiven", "{kind}");
        assert!(world.lines("calls").len() >= 6, "all of it went through sudo");
    }
}

async fn stops(kind: &str, password: Option<&str>) {
    let world = World::new(kind).await;
    let client = world.client(password).await;
    let list = world.path("pids");
    let command = |limit| as_root(FAMILY).arg(list.to_str().unwrap()).limit(limit);
    let (error, _) = past_its_limit(&client, &list, command).await;
    assert!(matches!(error, SshError::CommandLimit { .. }), "{kind}: {error:?}");
    assert!(!pids(&list).iter().any(|pid| runs(pid)), "{kind}: nothing runs any more");
    gone(&list).await;
}

#[tokio::test]
async fn stopping_works_through_sudo() {
    tokio::join!(stops("free", None), stops("rs", Some("right; pw")));
}

#[tokio::test]
async fn a_program_that_ends_without_a_status_is_an_error() {
    let manners = Manners { methods: vec![MethodKind::None], no_status: true, ..Manners::default() };
    let server = SmallServer::start(manners).await;
    let client = RusshConnector::builder().build().connect(&server.target()).await.unwrap();
    let error = client.run(&Command::script("echo done")).await.unwrap_err();
    assert!(matches!(error, SshError::Disconnected { .. }), "{error:?}");
}
