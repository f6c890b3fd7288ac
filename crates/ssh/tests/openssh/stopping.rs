//! Commands that nobody wants any more are gone from the node, with everything they started.

use std::{path::Path, time::Duration};

use turingpi_ssh::{Chunk, Command, SshError, SshErrorKind};

use crate::sshd::Sshd;

/// A script that starts children of several kinds, writes down their process ids, and would run for minutes.
pub(crate) const FAMILY: &str = r#"
sleep 300 & echo $! >>"$1"
(trap '' TERM HUP; echo $(sh -c 'echo $PPID') >>"$1"; while :; do sleep 1; done) &
timeout 300 sleep 299 & echo $! >>"$1"
echo $$ >>"$1"
while [ "$(wc -l <"$1")" -lt 4 ]; do sleep 0.02; done
echo ready
wait
"#;

pub(crate) fn pids(list: &Path) -> Vec<String> {
    std::fs::read_to_string(list).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Running, and not merely waiting to be reaped.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

pub(crate) async fn gone(list: &Path) {
    assert_eq!(pids(list).len(), 4, "every kind of child was started");
    ended(list).await;
}

pub(crate) async fn ended(list: &Path) {
    let all = pids(list);
    let ended = async {
        while all.iter().any(|pid| runs(pid)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let late = tokio::time::timeout(Duration::from_secs(30), ended).await.is_err();
    assert!(!late, "still running: {:?}", all.iter().filter(|pid| runs(pid)).collect::<Vec<_>>());
}

/// Runs a family with limits that grow until all of it was there when the limit came: how long that takes is the
/// machine's business.
pub(crate) async fn past_its_limit(
    client: &std::sync::Arc<dyn turingpi_ssh::SshClient>,
    list: &Path,
    command: impl Fn(Duration) -> Command,
) -> (SshError, Duration) {
    for limit in [700, 3_000, 12_000].map(Duration::from_millis) {
        let _ = std::fs::remove_file(list);
        let error = client.run(&command(limit)).await.unwrap_err();
        if pids(list).len() == 4 {
            return (error, limit);
        }
    }
    let limit = Duration::from_secs(60);
    (client.run(&command(limit)).await.unwrap_err(), limit)
}

#[tokio::test]
async fn a_command_past_its_limit_is_stopped_with_its_children() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let list = sshd.path("pids");
    let command = |limit| Command::script(FAMILY).arg(list.to_str().unwrap()).limit(limit);
    let (error, wanted) = past_its_limit(&client, &list, command).await;
    assert!(matches!(error, SshError::CommandLimit { limit, .. } if limit == wanted), "{error:?}");
    assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Timeout, false));
    let all = pids(&list);
    assert_eq!(all.len(), 4);
    assert!(!all.iter().any(|pid| runs(pid)), "nothing runs any more when the error is there");
    assert!(client.run(&Command::script(":")).await.unwrap().success(), "the connection is still good");
}

#[tokio::test]
async fn a_dropped_run_is_stopped_with_its_children() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let list = sshd.path("pids");
    let command = Command::script(FAMILY).arg(list.to_str().unwrap());
    let (ready, mut started) = tokio::sync::mpsc::unbounded_channel();
    {
        let mut tell = |_: Chunk<'_>| assert!(ready.send(()).is_ok());
        let run = client.run_streaming(&command, &mut tell);
        tokio::pin!(run);
        tokio::select! {
            outcome = &mut run => panic!("it should still run: {outcome:?}"),
            _ = started.recv() => {}
        }
        assert!(pids(&list).iter().all(|pid| runs(pid)));
    }
    gone(&list).await;
}

#[tokio::test]
async fn closing_the_connection_stops_what_runs_first() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let list = sshd.path("pids");
    let command = Command::script(FAMILY).arg(list.to_str().unwrap());
    let (ready, mut started) = tokio::sync::mpsc::unbounded_channel();
    let mut tell = |_: Chunk<'_>| assert!(ready.send(()).is_ok());
    let run = client.run_streaming(&command, &mut tell);
    let close = async {
        started.recv().await;
        client.close().await;
        assert!(!pids(&list).iter().any(|pid| runs(pid)), "stopped before the connection ended");
    };
    let (outcome, ()) = tokio::join!(run, close);
    assert!(matches!(outcome, Err(SshError::Cancelled { .. })), "{outcome:?}");
    gone(&list).await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_free_channel() {
    let Some(sshd) = Sshd::start() else { return };
    let connector = sshd.connector().channels(2).build();
    let client = turingpi_ssh::SshConnector::connect(&connector, &sshd.target()).await.unwrap();
    let long = Command::script("sleep 100").limit(Duration::from_millis(500));
    let (one, two) = tokio::join!(client.run(&long), client.run(&long));
    assert!(matches!(one, Err(SshError::CommandLimit { .. })), "{one:?}");
    assert!(matches!(two, Err(SshError::CommandLimit { .. })), "{two:?}");
}

#[tokio::test]
async fn what_a_script_leaves_in_the_background_does_not_hold_it_up() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let output = client.run(&Command::script("sleep 100 & echo $!")).await.unwrap();
    assert!(output.success());
    let pid = output.stdout_text();
    assert!(runs(pid.trim()), "a command that ended by itself is not stopped");
    assert!(client.run(&Command::script("kill $1").arg(pid.trim())).await.unwrap().success());
}
