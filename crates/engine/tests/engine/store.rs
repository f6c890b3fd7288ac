use std::{fs, path::Path};

use secrecy::{ExposeSecret, SecretString};
use turingpi_engine::{FailureClass, FileStateStore, Generation, Outcome, STATE_VERSION, State, StateStore};

use crate::support::chain;

pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    chmod(path, 0o600);
}

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
}

fn numbered(number: u32) -> State {
    let mut state = State::default();
    state.put_record("number", &number).unwrap();
    state
}

#[tokio::test]
async fn a_saved_state_is_loaded_again_with_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clusters/homelab/state.json");
    let store = FileStateStore::new(&path);
    let (mut state, generation) = store.load().await.unwrap();
    assert_eq!(generation, Generation(0));
    state.put_secret("token", SecretString::from("s3cret"));
    let first = store.save(&state, generation).await.unwrap();
    let (state, seen) = FileStateStore::new(&path).load().await.unwrap();
    assert_eq!(seen, first);
    assert_eq!(state.secret("token").unwrap().expose_secret(), "s3cret");
    assert_eq!(store.path(), path);
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_its_backup_and_its_folder_are_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/state.json");
    let store = FileStateStore::new(&path);
    let first = store.save(&numbered(1), Generation(0)).await.unwrap();
    store.save(&numbered(2), first).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path().join("new/state.json.bak")), 0o600);
    assert_eq!(mode(&folder.path().join("new")), 0o700);
    let names: Vec<_> =
        fs::read_dir(folder.path().join("new")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let store = FileStateStore::new(&path);
    let first = store.save(&numbered(1), Generation(0)).await.unwrap();
    for open in [0o640, 0o604, 0o666, 0o620] {
        chmod(&path, open);
        for failure in [store.load().await.unwrap_err(), store.save(&numbered(2), first).await.unwrap_err()] {
            assert_eq!(failure.class(), FailureClass::Config);
            assert!(failure.to_string().contains(&format!("mode 0{open:o}")), "{failure}");
            assert!(failure.hint_text().unwrap().contains("chmod 600"));
        }
        assert_eq!(mode(&path), open);
    }
}

#[tokio::test]
async fn the_save_before_stays_as_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let store = FileStateStore::new(&path);
    let mut generation = Generation(0);
    for number in 1..=3 {
        generation = store.save(&numbered(number), generation).await.unwrap();
    }
    let backup = FileStateStore::new(folder.path().join("state.json.bak"));
    let (state, seen) = backup.load().await.unwrap();
    assert_eq!((state.record::<u32>("number").unwrap(), seen), (Some(2), Generation(2)));
}

#[tokio::test]
async fn a_save_over_somebody_elses_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let (ours, theirs) = (FileStateStore::new(&path), FileStateStore::new(&path));
    let first = ours.save(&numbered(1), Generation(0)).await.unwrap();
    theirs.save(&numbered(2), first).await.unwrap();
    let failure = ours.save(&numbered(3), first).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Locked);
    assert!(failure.to_string().contains("state.json"), "{failure}");
    assert_eq!(ours.load().await.unwrap().0.record::<u32>("number").unwrap(), Some(2));
    fs::remove_file(&path).unwrap();
    assert_eq!(
        ours.save(&numbered(3), first).await.unwrap_err().class(),
        FailureClass::Locked,
        "the file is gone"
    );
}

#[rstest::rstest]
#[case("", 1, "it ends too early")]
#[case("{\n  \"version\": 1,\n  \"generation\": 3,\n", 4, "it ends too early")]
#[case("{\n  \"version\": 1,\n  oops\n}", 3, "it is not JSON")]
#[case("{\n  \"version\": 1,\n  \"runs\": [\n    7\n  ]\n}", 4, "a value has another type")]
#[case("{\n  \"generation\": 3\n}", 3, "a field is missing")]
#[tokio::test]
async fn a_broken_file_is_named_with_the_line_and_never_overwritten(
    #[case] text: &str,
    #[case] line: usize,
    #[case] what: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    write_private(&path, text);
    let store = FileStateStore::new(&path);
    let failure = store.load().await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Config);
    let told = failure.to_string();
    assert!(told.contains("state.json`") && told.contains(&format!("line {line},")), "{told}");
    assert!(told.contains(what), "{told}");
    assert!(failure.hint_text().unwrap().contains("state.json.bak"));
    if what != "a value has another type" {
        store.save(&State::default(), Generation(3)).await.unwrap_err();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_refused_whatever_else_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let text =
        format!("{{\"version\": {}, \"generation\": 1, \"runs\": \"another shape\"}}", STATE_VERSION + 1);
    write_private(&path, &text);
    let store = FileStateStore::new(&path);
    for failure in
        [store.load().await.unwrap_err(), store.save(&State::default(), Generation(1)).await.unwrap_err()]
    {
        assert_eq!(failure.class(), FailureClass::Config);
        assert!(failure.to_string().contains(&format!("has version {}", STATE_VERSION + 1)), "{failure}");
        assert!(failure.hint_text().unwrap().contains("newer release"));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn the_file_of_every_release_so_far_still_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    write_private(&path, include_str!("fixtures/state-v1.json"));
    let store = FileStateStore::new(&path);
    let (state, generation) = store.load().await.unwrap();
    assert_eq!((generation, state.version), (Generation(42), STATE_VERSION));
    assert_eq!(state.secret("k3s/token").unwrap().expose_secret(), "not-a-real-token");
    assert_eq!(state.record::<String>("slot/board1/1/image").unwrap().as_deref(), Some("sha256:aa55"));
    assert_eq!(state.in_doubt["node2/flash"].run, "20261101T080000Z-0a0b0c");
    assert_eq!(state.runs.len(), 2);
    assert_eq!(state.runs[0].summary.as_ref().unwrap().outcome, Outcome::Failed);
    assert_eq!(state.runs[1].summary, None);
    store.save(&state, generation).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.json"), folder.path().join("state.json"));
    let generation = FileStateStore::new(&real).save(&numbered(1), Generation(0)).await.unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    FileStateStore::new(&link).save(&numbered(2), generation).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(FileStateStore::new(&real).load().await.unwrap().0.record::<u32>("number").unwrap(), Some(2));
}

#[tokio::test]
async fn a_save_that_cannot_be_written_says_so_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let blocker = folder.path().join("file");
    fs::write(&blocker, "not a folder").unwrap();
    let store = FileStateStore::new(blocker.join("state.json"));
    let failure = store.save(&State::default(), Generation(0)).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Config);
    assert!(chain(&failure).contains("state.json"), "{}", chain(&failure));
}

#[tokio::test]
async fn a_load_waits_for_a_save_whose_caller_went_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStateStore::new(folder.path().join("state.json"));
    let mut generation = Generation(0);
    for number in 0..20 {
        let state = numbered(number);
        let save = store.save(&state, generation);
        // Polled once, so that the blocking task is on its way, then dropped.
        let save = futures::future::poll_immediate(save).await;
        assert!(save.is_none());
        let (state, seen) = store.load().await.unwrap();
        assert_eq!(seen, Generation(u64::from(number) + 1));
        assert_eq!(state.record::<u32>("number").unwrap(), Some(number));
        generation = seen;
    }
}

#[tokio::test]
async fn a_forgotten_secret_is_gone_from_the_save_before_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let store = FileStateStore::new(&path);
    let (mut state, generation) = store.load().await.unwrap();
    state.put_secret("k3s/token", SecretString::from("hush-hush"));
    state.put_secret("other", SecretString::from("stays-here"));
    let generation = store.save(&state, generation).await.unwrap();
    state.put_record("number", &1).unwrap();
    let generation = store.save(&state, generation).await.unwrap();
    let backup = || fs::read_to_string(folder.path().join("state.json.bak")).unwrap();
    assert!(backup().contains("hush-hush") && !backup().contains("number"), "the save before");
    state.remove_secret("k3s/token");
    store.save(&state, generation).await.unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("hush-hush"), "{text}");
        assert!(text.contains("stays-here"), "{text}");
    }
}
