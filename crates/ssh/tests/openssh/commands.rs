//! Running scripts.

use std::time::Duration;

use turingpi_ssh::{Chunk, Command, RusshConnector, SshConnector, SshError, SshErrorKind, Status};

use russh::MethodKind;

use crate::{
    small_server::{Manners, SmallServer},
    sshd::Sshd,
    stopping::ended,
};

#[tokio::test]
async fn output_and_exit_codes_arrive_as_the_script_left_them() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let output = client.run(&Command::script("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!(output.status, Status::Code(7));
    assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("out\n", "err\n"));
    for code in [0, 1, 2, 126, 127, 255] {
        let output = client.run(&Command::script(format!("exit {code}"))).await.unwrap();
        assert_eq!(output.status, Status::Code(code));
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
    }
}

#[tokio::test]
async fn a_script_that_kills_itself_ends_with_a_signal() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    for signal in ["TERM", "KILL", "SEGV"] {
        let output = client.run(&Command::script(format!("kill -{signal} $$; sleep 5"))).await.unwrap();
        assert_eq!(output.status, Status::Signal(signal));
        assert!(!output.success());
    }
}

#[tokio::test]
async fn programs_in_a_script_find_an_empty_standard_input() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let output = client
        .run(&Command::script("cat\nread line || echo nothing\nhead -c 5 | wc -c\necho still here"))
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "nothing\n0\nstill here\n");
}

#[tokio::test]
async fn a_script_runs_in_a_strict_shell_with_a_full_path() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let output = client
        .run(&Command::script(
            "umask; echo $LC_ALL; case :$PATH: in *:/usr/sbin:*) echo sbin;; esac; false; echo not reached",
        ))
        .await
        .unwrap();
    assert_eq!((output.status, output.stdout_text().as_str()), (Status::Code(1), "0077\nC\nsbin\n"));
    let output = client.run(&Command::script("echo $nowhere_set; echo not reached")).await.unwrap();
    assert!(!output.success() && output.stdout.is_empty(), "{output:?}");
}

#[tokio::test]
async fn odd_scripts_run_as_they_stand() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let run = async |script: &str| {
        let output = client.run(&Command::script(script)).await.unwrap();
        (output.status, output.stdout_text())
    };
    assert_eq!(run("").await, (Status::Code(0), String::new()), "empty");
    assert_eq!(run("# only a comment").await, (Status::Code(0), String::new()));
    assert_eq!(run("echo a # comment at the end").await.1, "a\n");
    assert_eq!(run("echo a \\").await.1, "a\n", "backslash at the end");
    assert_eq!(run("cat <<END\n$(echo x) }\nEND\necho y").await.1, "x }\ny\n", "here-document");
    assert_eq!(run("f() { echo \"$1\"; }\nf 'a b'").await.1, "a b\n", "function");
    assert_eq!(run("echo before\nif true; then").await.1, "", "a script that does not parse runs not at all");
    assert_ne!(run("echo before\nif true; then").await.0, Status::Code(0));
    let long = format!("{}\necho end", ": filler line of a long script\n".repeat(20_000));
    assert_eq!(run(&long).await.1, "end\n", "600 kB of script");
}

#[tokio::test]
async fn arguments_arrive_unharmed() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let arguments = [
        "",
        " ",
        "a b",
        "it's",
        "\"",
        "$HOME",
        "`id`",
        "\\",
        "new\nline",
        "*",
        "-n",
        "=x",
        "~",
        "#",
        "tab\there",
        "ü€😀",
        "'\\''",
    ];
    let mut command = Command::script("printf '%s\\0' \"$@\"; echo $#");
    for argument in arguments {
        command = command.arg(argument);
    }
    let output = client.run(&command).await.unwrap();
    let expected = arguments.iter().map(|argument| format!("{argument}\0")).collect::<String>();
    assert_eq!(output.stdout_text(), format!("{expected}{}\n", arguments.len()));
    let error = client.run(&Command::script(":").arg("nul\0")).await.unwrap_err();
    assert!(matches!(error, SshError::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn large_output_on_both_streams_arrives_whole() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let script =
        "head -c 6000000 /dev/zero | tr '\\0' o; head -c 5000000 /dev/zero | tr '\\0' e >&2; echo end";
    let mut streamed = (0, 0);
    let output = client
        .run_streaming(&Command::script(script), &mut |chunk| match chunk {
            Chunk::Stdout(data) => streamed.0 += data.len(),
            Chunk::Stderr(data) => streamed.1 += data.len(),
        })
        .await
        .unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (6_000_004, 5_000_000));
    assert_eq!(streamed, (6_000_004, 5_000_000));
    assert!(
        output.stdout[..6_000_000].iter().all(|&b| b == b'o') && output.stderr.iter().all(|&b| b == b'e')
    );
    assert!(output.stdout.ends_with(b"end\n"));
}

#[tokio::test]
async fn output_is_handed_out_while_the_script_runs() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let go = sshd.path("go");
    // The script waits for a file that is made when its first line has arrived: it ends only if output is streamed.
    let command = Command::script("echo first; while [ ! -e \"$1\" ]; do sleep 0.05; done; echo second")
        .arg(go.to_str().unwrap());
    let output = client
        .run_streaming(&command, &mut |chunk| {
            if matches!(chunk, Chunk::Stdout(data) if data.starts_with(b"first")) {
                std::fs::write(&go, "").unwrap();
            }
        })
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "first\nsecond\n");
}

#[tokio::test]
async fn a_consumer_that_stands_still_holds_up_nobody_else() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let loud = Command::script("head -c 30000000 /dev/zero");
    let mut held = Box::pin(client.run(&loud));
    // Polled once, so that it has started, and then left alone with its output coming in.
    tokio::select! {
        biased;
        _ = &mut held => panic!("30 MB cannot be there at once"),
        () = tokio::task::yield_now() => {}
    }
    for _ in 0..5 {
        assert!(client.run(&Command::script("echo ok")).await.unwrap().success());
    }
    assert_eq!(held.await.unwrap().stdout.len(), 30_000_000);
}

/// Zeros, without end or up to a broken disk.
struct Zeros {
    left: Option<usize>,
}

impl tokio::io::AsyncRead for Zeros {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        room: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let count = room.remaining().min(self.left.unwrap_or(usize::MAX));
        if count == 0 {
            return std::task::Poll::Ready(Err(std::io::Error::other("the disk is broken")));
        }
        room.put_slice(&vec![0; count]);
        self.left = self.left.map(|left| left - count);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_script_reads_what_it_is_given_and_not_a_byte_of_itself() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = client
        .run_with_input(
            &Command::script("sha256sum"),
            Box::new(std::io::Cursor::new(content.clone())),
            &mut |_| {},
        )
        .await
        .unwrap();
    let local = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&content));
    assert_eq!(digest.stdout_text().split(' ').next(), Some(local.as_str()));

    // Arguments, secrets, status and several readers, one after the other.
    let script = Command::script("head -c 3; echo \"-$1-$key-\"; cat; exit 7")
        .arg("it's")
        .secret("key", "s'3cret".to_owned().into());
    let output = client.run_with_input(&script, Box::new(&b"abcdef"[..]), &mut |_| {}).await.unwrap();
    assert_eq!((output.stdout_text().as_str(), output.status), ("abc-it's-s'3cret-\ndef", Status::Code(7)));
    let empty =
        client.run_with_input(&Command::script("wc -c"), Box::new(&b""[..]), &mut |_| {}).await.unwrap();
    assert_eq!(empty.stdout_text(), "0\n");
}

#[tokio::test]
async fn a_script_may_end_before_its_input_does() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let endless = Box::new(Zeros { left: None });
    let output =
        client.run_with_input(&Command::script("head -c 5 | wc -c"), endless, &mut |_| {}).await.unwrap();
    assert_eq!(output.stdout_text(), "5\n");
    assert_eq!(client.run(&Command::script("echo still here")).await.unwrap().stdout_text(), "still here\n");
}

#[tokio::test]
async fn a_script_whose_input_fails_is_stopped_and_does_not_take_it_for_the_end() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let folder = tempfile::tempdir().unwrap();
    let (list, taken) = (folder.path().join("pids"), folder.path().join("taken for whole"));
    for left in [0, 10_000_000] {
        let script = Command::script("echo $$ >>\"$1\"; cat >/dev/null; echo whole >\"$2\"")
            .arg(list.to_string_lossy())
            .arg(taken.to_string_lossy());
        let broken = Box::new(Zeros { left: Some(left) });
        let error = client.run_with_input(&script, broken, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, SshError::Input { .. }), "{error:?}");
        assert_eq!(error.kind(), SshErrorKind::Local);
    }
    ended(&list).await;
    assert!(!taken.exists(), "the end of a broken input was taken for its end");
}

#[tokio::test]
async fn many_commands_run_side_by_side() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let runs = (0..40).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let command = Command::script("echo $1; head -c 100000 /dev/zero >&2").arg(number.to_string());
            let output = client.run(&command).await.unwrap();
            assert_eq!((output.stdout_text(), output.stderr.len()), (format!("{number}\n"), 100_000));
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_host_with_fewer_channels_than_asked_for_still_serves_all() {
    let Some(sshd) = Sshd::with("MaxSessions 2") else { return };
    let client = sshd.client().await;
    let runs: Vec<_> = (0..12)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                client
                    .run(&Command::script("echo $1; sleep 0.05").arg(number.to_string()))
                    .await
                    .unwrap()
                    .stdout_text()
            })
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        assert_eq!(run.await.unwrap(), format!("{number}\n"));
    }
}

#[tokio::test]
async fn a_host_that_has_not_cleared_the_last_session_away_yet_is_asked_again() {
    let manners = Manners { methods: vec![MethodKind::None], buries_slowly: 3, ..Manners::default() };
    let server = SmallServer::start(manners).await;
    let client = RusshConnector::builder().build().connect(&server.target()).await.unwrap();
    let (one, two) = (Command::script("echo one"), Command::script("echo two"));
    let (one, two) = tokio::join!(client.run(&one), client.run(&two));
    assert_eq!((one.unwrap().stdout_text(), two.unwrap().stdout_text()), ("one\n".into(), "two\n".into()));
    assert_eq!(client.run(&Command::script("echo three")).await.unwrap().stdout_text(), "three\n");
}

#[tokio::test]
async fn noise_of_the_login_shell_is_not_output() {
    let Some(sshd) = Sshd::with(
        "ForceCommand echo noise; echo more noise >&2; printf tail; eval \"$SSH_ORIGINAL_COMMAND\"",
    ) else {
        return;
    };
    let client = sshd.client().await;
    let output = client.run(&Command::script("echo out; echo err >&2")).await.unwrap();
    assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("out\n", "err\n"));
}

#[tokio::test]
async fn a_login_that_gets_no_shell_is_told_so() {
    let Some(sshd) = Sshd::with("ForceCommand echo 'this account is not available'; exit 1") else { return };
    let error = sshd.client().await.run(&Command::script("echo out")).await.unwrap_err();
    assert!(
        matches!(&error, SshError::Refused { problem, .. } if problem.contains("not available")),
        "{error:?}"
    );
    assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Refused, false));

    let Some(sshd) =
        Sshd::with("ForceCommand echo 'Password change required but no TTY available.' >&2; exit 1")
    else {
        return;
    };
    let error = sshd.client().await.run(&Command::script("echo out")).await.unwrap_err();
    assert!(matches!(error, SshError::PasswordExpired { .. }), "{error:?}");
}

#[tokio::test]
async fn secrets_reach_the_script_and_nothing_else() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let secret = "s3cr3t-'4711\n$x";
    let command = Command::script(
        "printf '%s' \"$token\" >\"$1\"; ps -eww -o args; for f in /proc/[0-9]*/environ; do tr '\\0' '\\n' <\"$f\" 2>/dev/null || :; done",
    )
    .arg(sshd.path("got").to_str().unwrap())
    .secret("token", secret.to_owned().into());
    assert!(!format!("{command:?}").contains("4711"));
    let output = client.run(&command).await.unwrap();
    assert_eq!(std::fs::read_to_string(sshd.path("got")).unwrap(), secret);
    let seen = output.stdout_text();
    assert!(seen.contains("/bin/sh -s"), "the list of processes is there");
    assert!(!seen.contains("4711"), "neither arguments nor environments hold the secret");
    for name in ["", "a-b", "1a", "a b", "PATH", "a=b"] {
        let error =
            client.run(&Command::script(":").secret(name, "4711".to_owned().into())).await.unwrap_err();
        assert!(
            matches!(error, SshError::Invalid { .. }) && !format!("{error:?} {error}").contains("4711"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_connection_is_noticed_and_fails_what_runs() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    assert!(client.is_alive());
    let running = {
        let client = client.clone();
        tokio::spawn(
            async move { client.run_streaming(&Command::script("echo up; sleep 30"), &mut |_| {}).await },
        )
    };
    assert!(client.run(&Command::script(":")).await.unwrap().success());
    sshd.cut();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, SshError::Disconnected { .. }), "{error:?}");
    assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Unreachable, true));
    assert!(!client.is_alive());
    assert!(matches!(client.run(&Command::script(":")).await.unwrap_err(), SshError::Disconnected { .. }));
}

#[tokio::test]
async fn close_ends_the_connection() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    assert!(client.run(&Command::script(":")).await.unwrap().success());
    client.close().await;
    assert!(!client.is_alive());
    assert!(client.run(&Command::script(":")).await.is_err());
    client.close().await;
}

#[tokio::test]
async fn a_port_without_a_server_and_one_that_never_speaks_are_transient() {
    let Some(sshd) = Sshd::start() else { return };
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let connector = sshd.connector().connect_limit(Duration::from_millis(300)).build();
    let error = connector.connect(&sshd.target().port(closed)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, SshError::Connect { .. }) && error.is_transient(), "{error:?}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = connector
        .connect(&sshd.target().port(silent.local_addr().unwrap().port()))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, SshError::ConnectTimeout { .. }) && error.is_transient(), "{error:?}");
    assert_eq!(error.kind(), SshErrorKind::Timeout);
}
