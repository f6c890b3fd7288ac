//! Files up and down.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use secrecy::SecretSlice;
use sha2::{Digest, Sha256};
use turingpi_ssh::{Command, RemoteFile, SshClient, SshError, Written};

use crate::sshd::{Sshd, is_root};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Bytes that do not repeat.
fn content(size: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()).take(size).collect()
}

async fn write(
    client: &Arc<dyn SshClient>,
    file: &RemoteFile,
) -> Result<(Written, Vec<(u64, u64)>), SshError> {
    let mut seen = Vec::new();
    let written = client.write(file, &mut |sent, all| seen.push((sent, all))).await?;
    Ok((written, seen))
}

/// What lies in a folder, hidden files too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn file_of(path: &Path, bytes: &[u8]) -> RemoteFile {
    RemoteFile::new(path.to_str().unwrap(), bytes).as_login_user()
}

#[tokio::test]
async fn a_file_is_written_once_and_left_alone_after_that() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    for size in [0, 1, 1000, 65_536, 65_537, 3_000_000] {
        let place = sshd.path(&format!("deep/er/{size}"));
        let bytes = content(size);
        let file = file_of(&place, &bytes).mode(0o640);
        let (written, seen) = write(&client, &file).await.unwrap();
        assert_eq!(
            (written, fs::read(&place).unwrap() == bytes, mode(&place)),
            (Written::Changed, true, 0o640),
            "{size}"
        );
        assert_eq!(seen.last(), Some(&(size as u64, size as u64)));
        assert!(seen.is_sorted(), "progress goes forward: {seen:?}");
        let before = fs::metadata(&place).unwrap();
        assert_eq!(write(&client, &file).await.unwrap().0, Written::Unchanged, "{size}");
        let after = fs::metadata(&place).unwrap();
        assert_eq!(
            (before.ino(), before.mtime_nsec()),
            (after.ino(), after.mtime_nsec()),
            "not touched at all"
        );
    }
    assert_eq!(mode(&sshd.path("deep")), 0o755, "parent folders");
    assert_eq!(mode(&sshd.path("deep/er")), 0o755);
    assert_eq!(names(&sshd.path("deep/er")).len(), 6, "nothing else is left behind");
}

#[tokio::test]
async fn a_wrong_mode_is_put_right_without_sending_the_content() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    for size in [10, 200_000] {
        let place = sshd.path(&format!("file{size}"));
        write(&client, &file_of(&place, &content(size)).mode(0o644)).await.unwrap();
        let inode = fs::metadata(&place).unwrap().ino();
        let (written, _) = write(&client, &file_of(&place, &content(size)).mode(0o4750)).await.unwrap();
        assert_eq!((written, mode(&place)), (Written::Changed, 0o4750));
        assert_eq!(fs::metadata(&place).unwrap().ino(), inode);
    }
}

#[tokio::test]
async fn the_owner_is_compared_set_and_kept() {
    let Some(sshd) = Sshd::start() else { return };
    if !is_root() {
        eprintln!("SKIPPED: only root can give files away; this test proved nothing");
        return;
    }
    let client = sshd.client().await;
    for size in [10, 200_000] {
        let place = sshd.path(&format!("owned{size}"));
        let file = |bytes: &[u8], owner: &str| RemoteFile::new(place.to_str().unwrap(), bytes).owner(owner);
        let first = content(size);
        assert_eq!(write(&client, &file(&first, "1:2")).await.unwrap().0, Written::Changed);
        let of = |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
        assert_eq!(of(&place), (1, 2));
        assert_eq!(write(&client, &file(&first, "1:2")).await.unwrap().0, Written::Unchanged);
        assert_eq!(write(&client, &file(&first, "1")).await.unwrap().0, Written::Unchanged, "user only");
        assert_eq!(write(&client, &file(&first, ":2")).await.unwrap().0, Written::Unchanged, "group only");
        assert_eq!(write(&client, &file(&first, "root:root")).await.unwrap().0, Written::Changed);
        assert_eq!(of(&place), (0, 0));
        assert_eq!(
            write(&client, &file(&first, "0:0")).await.unwrap().0,
            Written::Unchanged,
            "numbers are names too"
        );
        assert_eq!(write(&client, &file(&first, "3:4")).await.unwrap().0, Written::Changed);
        let second = content(size + 1);
        let plain = RemoteFile::new(place.to_str().unwrap(), second.as_slice());
        assert_eq!(write(&client, &plain).await.unwrap().0, Written::Changed);
        assert_eq!(
            (of(&place), fs::read(&place).unwrap() == second),
            ((3, 4), true),
            "an owner that was not asked for stays"
        );
    }
}

#[tokio::test]
async fn a_reader_sees_the_old_or_the_new_file_and_never_a_part() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let place = sshd.path("file");
    fs::write(&place, "old").unwrap();
    let held = fs::File::open(&place).unwrap();
    write(&client, &file_of(&place, b"new")).await.unwrap();
    assert_eq!(std::io::read_to_string(held).unwrap(), "old", "the old file was replaced, not overwritten");
    assert_eq!(fs::read_to_string(&place).unwrap(), "new");
}

#[tokio::test]
async fn odd_paths_work_and_impossible_ones_are_refused() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    for name in ["with blank", "it's", "$HOME", "back\\slash", "*", "-n", "ü€😀", "quote\"d", "a'\\'b"] {
        for size in [10, 70_000] {
            let place = sshd.path("odd").join(name);
            let (written, _) = write(&client, &file_of(&place, &content(size))).await.unwrap();
            assert_eq!((written, fs::read(&place).unwrap().len()), (Written::Changed, size), "{name}");
            if is_root() {
                assert_eq!(client.read(place.to_str().unwrap()).await.unwrap().unwrap().len(), size);
            }
        }
    }
    for path in ["relative", "/ends/", "/line\nbreak", "/nul\0", ""] {
        let error = write(&client, &RemoteFile::new(path, "x").as_login_user()).await.unwrap_err();
        assert!(matches!(error, SshError::Invalid { .. }), "{path:?}: {error:?}");
    }
    fs::create_dir(sshd.path("folder")).unwrap();
    for size in [10, 70_000] {
        let error = write(&client, &file_of(&sshd.path("folder"), &content(size))).await.unwrap_err();
        assert!(matches!(error, SshError::NotAFile { .. }), "{error:?}");
    }
    assert!(names(&sshd.path("folder")).is_empty(), "nothing was moved into it");
}

#[tokio::test]
async fn a_path_whose_parent_is_a_file_fails_with_what_the_node_said() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    fs::write(sshd.path("file"), "").unwrap();
    for size in [10, 70_000] {
        let error = write(&client, &file_of(&sshd.path("file/below"), &content(size))).await.unwrap_err();
        assert!(matches!(&error, SshError::Remote { stderr, .. } if stderr.contains("file")), "{error:?}");
    }
}

#[tokio::test]
async fn a_secret_file_is_private_and_shows_nowhere() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let place = sshd.path("token");
    let secret = SecretSlice::from(b"s3cr3t-4711".to_vec());
    let file = RemoteFile::secret(place.to_str().unwrap(), secret).as_login_user();
    assert!(!format!("{file:?}").contains("4711"));
    assert_eq!(write(&client, &file).await.unwrap().0, Written::Changed);
    assert_eq!((fs::read_to_string(&place).unwrap().as_str(), mode(&place)), ("s3cr3t-4711", 0o600));
    assert_eq!(write(&client, &file).await.unwrap().0, Written::Unchanged);
}

#[tokio::test]
async fn a_local_file_is_streamed_and_its_digest_must_be_right() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let local = sshd.path("local");
    let bytes = content(20_000_003);
    fs::write(&local, &bytes).unwrap();
    let digest = hex::encode(Sha256::digest(&bytes));
    let (given, computed) = (sshd.path("given"), sshd.path("computed"));
    let file = |place: &Path, digest: Option<&str>| {
        RemoteFile::local(place.to_str().unwrap(), &local, digest.map(str::to_owned)).as_login_user()
    };
    assert_eq!(
        write(&client, &file(&given, Some(&digest.to_uppercase()))).await.unwrap().0,
        Written::Changed
    );
    assert_eq!(write(&client, &file(&computed, None)).await.unwrap().0, Written::Changed);
    assert!(fs::read(&given).unwrap() == bytes && fs::read(&computed).unwrap() == bytes);
    assert_eq!(write(&client, &file(&given, None)).await.unwrap().0, Written::Unchanged);

    let wrong = file(&sshd.path("never"), Some(&"0".repeat(64)));
    let error = write(&client, &wrong).await.unwrap_err();
    assert!(matches!(&error, SshError::Invalid { why, .. } if why.contains(&digest)), "{error:?}");
    assert!(!sshd.path("never").exists(), "a file with the wrong digest never gets its place");
    assert!(matches!(
        write(&client, &file(&given, Some("abc"))).await.unwrap_err(),
        SshError::Invalid { .. }
    ));
    let missing = RemoteFile::local("/tmp/x", sshd.path("missing"), None).as_login_user();
    assert!(matches!(write(&client, &missing).await.unwrap_err(), SshError::Local { .. }));
}

/// The name of the part that an upload of this content to this place leaves when it breaks.
fn part(place: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let digest = hex::encode(Sha256::digest(bytes));
    place.with_file_name(format!(
        ".{}.{}.tpi-part",
        place.file_name().unwrap().to_str().unwrap(),
        &digest[..24]
    ))
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_it_stopped() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let place = sshd.path("image");
    let local = sshd.path("local");
    let bytes = content(30_000_000);
    fs::write(&local, &bytes).unwrap();
    let file = RemoteFile::local(place.to_str().unwrap(), &local, None).as_login_user();
    // Given up in the middle, as a lost connection or a stopped program would.
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    {
        let mut progress = |sent, _| assert!(tell.send(sent).is_ok());
        let upload = client.write(&file, &mut progress);
        tokio::pin!(upload);
        loop {
            tokio::select! {
                biased;
                Some(sent) = told.recv() => if sent > 8_000_000 { break },
                outcome = &mut upload => panic!("too fast: {outcome:?}"),
            }
        }
    }
    assert!(!place.exists(), "no part ever has the file's name");
    let left = part(&place, &bytes);
    // The remote end writes what it had received before it is stopped.
    client.close().await;
    let have = fs::metadata(&left).unwrap().len();
    assert!(have > 0 && have < 30_000_000, "{have}");
    assert_eq!(mode(&left), 0o600);

    let client = sshd.client().await;
    let (written, seen) = write(&client, &file).await.unwrap();
    assert_eq!((written, fs::read(&place).unwrap() == bytes), (Written::Changed, true));
    assert_eq!(seen.first(), Some(&(have, 30_000_000)), "it starts behind what was there");
    assert!(!left.exists());
}

#[tokio::test]
async fn a_part_that_does_not_fit_is_not_built_upon() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let bytes = content(500_000);
    for (name, wrong) in [("other", vec![7; 1000]), ("longer", content(600_000)), ("empty", Vec::new())] {
        let place = sshd.path(name);
        fs::write(part(&place, &bytes), wrong).unwrap();
        let (_, seen) = write(&client, &file_of(&place, &bytes)).await.unwrap();
        assert_eq!((seen.first(), fs::read(&place).unwrap() == bytes), (Some(&(0, 500_000)), true), "{name}");
    }
    let (place, victim) = (sshd.path("linked"), sshd.path("victim"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, part(&place, &bytes)).unwrap();
    write(&client, &file_of(&place, &bytes)).await.unwrap();
    assert_eq!(
        fs::read_to_string(&victim).unwrap(),
        "precious",
        "a link in the part's place is not followed"
    );
    assert!(fs::read(&place).unwrap() == bytes && !place.is_symlink());
}

#[tokio::test]
async fn parts_that_nobody_needs_any_more_are_cleaned_away() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let folder = sshd.path("folder");
    fs::create_dir(&folder).unwrap();
    for name in [".a.0123.tpi-part", ".b.0123.tpi-part", "a.tpi-part", ".other"] {
        fs::write(folder.join(name), "x").unwrap();
    }
    let old =
        Command::script("touch -d '2 hours ago' \"$1\"/.a.0123.tpi-part \"$1\"/a.tpi-part \"$1\"/.other");
    assert!(client.run(&old.arg(folder.to_str().unwrap())).await.unwrap().success());
    write(&client, &file_of(&folder.join("new"), &content(100_000))).await.unwrap();
    assert_eq!(
        names(&folder),
        [".b.0123.tpi-part", ".other", "a.tpi-part", "new"],
        "only old parts of ours go"
    );
}

#[tokio::test]
async fn a_file_that_cannot_fit_is_refused_before_it_is_sent() {
    let Some(sshd) = Sshd::start() else { return };
    let client = sshd.client().await;
    let local = sshd.path("huge");
    // A file of many terabytes that takes no room here.
    if fs::File::create(&local).unwrap().set_len(10 << 40).is_err() {
        eprintln!("SKIPPED: this file system has no files of 10 TiB; this test proved nothing");
        return;
    }
    let file =
        RemoteFile::local(sshd.path("big").to_str().unwrap(), &local, Some("0".repeat(64))).as_login_user();
    let error = write(&client, &file).await.unwrap_err();
    assert!(matches!(error, SshError::NoSpace { needed, available, .. } if needed > available), "{error:?}");
    assert!(!error.is_transient() && error.hint().is_some());
}

#[tokio::test]
async fn files_are_read_and_downloaded_whole() {
    let Some(sshd) = Sshd::start() else { return };
    if !is_root() {
        eprintln!(
            "SKIPPED: files are read as root, which the login of this test is not; this test proved nothing"
        );
        return;
    }
    let client = sshd.client().await;
    let (place, local) = (sshd.path("remote"), sshd.path("fetched"));
    for size in [0, 1, 5_000_000] {
        let bytes = content(size);
        fs::write(&place, &bytes).unwrap();
        assert!(client.read(place.to_str().unwrap()).await.unwrap() == Some(bytes.clone()), "{size}");
        let mut seen = Vec::new();
        client
            .download(place.to_str().unwrap(), &local, &mut |got, all| seen.push((got, all)))
            .await
            .unwrap();
        assert!(fs::read(&local).unwrap() == bytes, "{size}");
        assert_eq!(mode(&local), 0o600);
        assert!(
            seen.is_sorted() && (size == 0 || seen.last() == Some(&(size as u64, size as u64))),
            "{seen:?}"
        );
    }
    assert_eq!(client.read(sshd.path("missing").to_str().unwrap()).await.unwrap(), None);
    let error =
        client.download(sshd.path("missing").to_str().unwrap(), &local, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(error, SshError::NotFound { .. }), "{error:?}");
    assert_eq!(fs::metadata(&local).unwrap().len(), 5_000_000, "a failed download leaves what was there");
    let folder = sshd.folder.path().to_str().unwrap().to_owned();
    assert!(matches!(client.read(&folder).await.unwrap_err(), SshError::NotAFile { .. }));
    assert!(matches!(
        client.download(&folder, &local, &mut |_, _| {}).await.unwrap_err(),
        SshError::NotAFile { .. }
    ));
    fs::File::create(&place).unwrap().set_len((16 << 20) + 1).unwrap();
    assert!(matches!(client.read(place.to_str().unwrap()).await.unwrap_err(), SshError::TooLarge { .. }));
    assert!(
        client.read("/proc/self/status").await.unwrap().unwrap().starts_with(b"Name:"),
        "files without a size"
    );
    assert!(
        !names(sshd.folder.path()).iter().any(|name| name.ends_with(".tpi-part")),
        "nothing is left behind"
    );
}
