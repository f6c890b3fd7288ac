use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use turingpi_engine::{FailureClass, FileLock, LockOwner};

const HOLD: &str = "TURINGPI_ENGINE_TEST_HOLD_LOCK";

#[test]
fn a_held_lock_is_refused_and_says_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let guard = FileLock::acquire(&path, &LockOwner::new("workbench", "apply")).unwrap();
    assert_eq!(guard.path(), path);
    let failure = FileLock::acquire(&path, &LockOwner::new("workbench", "destroy")).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Locked);
    let told = failure.to_string();
    for part in ["`apply`", &format!("process {}", std::process::id()), "on workbench", "since 20"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(failure.hint_text().is_some());
    drop(guard);
    drop(FileLock::acquire(&path, &LockOwner::new("workbench", "destroy")).unwrap());
}

#[test]
fn what_stands_in_the_file_of_a_free_lock_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    for old in ["", "{\"pid\": 1", "\u{0}\u{0}", &"x".repeat(100_000)] {
        fs::write(&path, old).unwrap();
        let guard = FileLock::acquire(&path, &LockOwner::new("h", "apply")).unwrap();
        let owner: LockOwner = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((owner.pid, owner.verb.as_str()), (std::process::id(), "apply"));
        drop(guard);
    }
}

#[test]
fn a_lock_without_a_readable_owner_is_still_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let _guard = FileLock::acquire(&path, &LockOwner::new("h", "apply")).unwrap();
    fs::write(&path, "garbage").unwrap();
    let failure = FileLock::acquire(&path, &LockOwner::new("h", "apply")).unwrap_err();
    assert!(failure.to_string().ends_with("is held by another process"), "{failure}");
}

#[test]
fn a_lock_that_cannot_be_had_at_all_is_a_matter_of_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let failure =
        FileLock::acquire(folder.path().join("no/such/folder/lock"), &LockOwner::new("h", "v")).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Config);
}

/// The other side of the next test: a process of its own that takes the lock and never lets go.
#[test]
fn a_child_process_holds_the_lock_when_it_is_told_to() {
    let Some(path) = std::env::var_os(HOLD) else {
        // In the ordinary run there is nobody to hold it for; the test below starts this one again with a path.
        return;
    };
    let _guard = FileLock::acquire(path, &LockOwner::new("child-host", "apply")).unwrap();
    println!("held");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_process_that_is_killed_frees_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lock::a_child_process_holds_the_lock_when_it_is_told_to", "--nocapture"])
        .env(HOLD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.any(|line| line.unwrap().contains("held"));
    let refused = FileLock::acquire(&path, &LockOwner::new("h", "apply")).map(drop);
    // SIGKILL: no destructor of the child runs.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(held, "the child never took the lock");
    let told = refused.unwrap_err().to_string();
    assert!(told.contains(&format!("process {} on child-host", child.id())), "{told}");
    drop(FileLock::acquire(&path, &LockOwner::new("h", "apply")).unwrap());
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let diary = folder.path().join("diary");
    std::fs::write(&diary, "dear diary").unwrap();
    let path = folder.path().join("lock");
    std::os::unix::fs::symlink(&diary, &path).unwrap();
    let failure = FileLock::acquire(&path, &LockOwner::new("h", "apply")).map(drop).unwrap_err();
    assert!(failure.to_string().contains("is a link"), "{failure}");
    assert_eq!(std::fs::read_to_string(diary).unwrap(), "dear diary");
}
