//! Stopping a program on the node together with everything it started.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Command, SshError, Status,
    exec::{self, Limit, Sink},
    link::Link,
    sudo::Root,
};

/// A shell on the node, as it described itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its process session. sshd starts each channel's program in a session of its own, and sudo with a terminal
    /// of its own makes one more, so the session holds the program and whatever it started, and nothing else.
    pub(crate) session: u32,
}

impl Process {
    /// Reads `/proc/<pid>/stat` (proc_pid_stat(5)), or a bare process id where there is no such file.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((pid, rest)) = text.split_once(' ') else {
            let pid = text.parse().ok()?;
            return Some(Self { pid, session: pid });
        };
        // The name in parentheses may itself hold parentheses and blanks.
        let (_, fields) = rest.rsplit_once(") ")?;
        Some(Self { pid: pid.parse().ok()?, session: fields.split(' ').nth(3)?.parse().ok()? })
    }
}

/// Ends a session politely, then by force. Lists it anew each round, because a program may start others meanwhile.
const SCRIPT: &str = r#"
session=$1 pid=$2
if [ ! -r /proc/self/stat ]; then
    kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || exit 0
    sleep 1
    kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || :
    exit 0
fi
members() {
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        of=${stat#/proc/}
        of=${of%/stat}
        set -- ${line##*) }
        [ "${4:-}" = "$session" ] && [ "${1:-}" != Z ] && echo "$of" || :
    done
}
signal=TERM round=0
while [ "$round" -lt 60 ]; do
    found=$(members)
    [ -n "$found" ] || exit 0
    [ "$round" -lt 20 ] || signal=KILL
    case $round in 0 | 20 | 25 | 30 | 40 | 50) kill -s "$signal" $found 2>/dev/null || : ;; esac
    sleep 0.1 2>/dev/null || sleep 1
    round=$((round + 1))
done
exit 1
"#;

/// Ends the session of `process` with the rights of `root`.
pub(crate) async fn stop(link: &Arc<Link>, root: &Root, process: &Process) -> Result<(), SshError> {
    let command = Command::script(SCRIPT).arg(process.session.to_string()).arg(process.pid.to_string());
    let mut job = root.script(&command, Limit::Total(Duration::from_secs(20)))?;
    job.urgent = true;
    let (sink, _output) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    match Box::pin(exec::run(link, job, Sink::Memory(sink), &cancel)).await? {
        Status::Code(0) => Ok(()),
        status => Err(SshError::Refused {
            host: link.host.clone(),
            problem: format!("processes of session {} do not end ({status:?})", process.session),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_the_sixth_field_whatever_the_program_is_called() {
        let of = |text| Process::parse(text);
        assert_eq!(of("7 (sh) S 1 7 5 0 -1"), Some(Process { pid: 7, session: 5 }));
        assert_eq!(of(" 7 (a) b) (c) S 1 7 5 0 -1\n"), Some(Process { pid: 7, session: 5 }));
        assert_eq!(of("42"), Some(Process { pid: 42, session: 42 }));
        assert_eq!(of("7 (sh) S 1"), None);
        assert_eq!(of("x"), None);
    }
}
