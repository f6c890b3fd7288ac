//! The facts script and the file operations, run for real with the shells of this machine. Nothing outside of a
//! temporary folder is changed.

mod local;

use local::LocalClient;
use rstest::rstest;
use sha2::{Digest, Sha256};
use turingpi_cluster::{FactsRequest, Host};
use turingpi_engine::FailureClass;

/// The shells that are here: dash or whatever `sh` is, and bash.
fn shells() -> Vec<&'static str> {
    ["/bin/sh", "/bin/dash", "/bin/bash"].into_iter().filter(|s| std::path::Path::new(s).exists()).collect()
}

fn host(shell: &'static str) -> Host {
    Host::new("here", LocalClient::shared(shell))
}

#[tokio::test]
async fn the_facts_script_tells_the_truth_about_this_machine_in_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's a file");
    std::fs::write(&path, "line one\nno newline at the end").unwrap();
    let path = path.to_str().unwrap();
    let request = FactsRequest::new()
        .files([path, "/does/not/exist"])
        .texts([path])
        .paths([path, "/does/not/exist"])
        .units(["no-such.service"])
        .packages(["dpkg", "no-such-package"])
        .sysctls(["kernel.ostype", "no.such.key"])
        .extra("answer", "printf 'forty-two'");
    for shell in shells() {
        let facts = host(shell).facts(&request).await.unwrap();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        assert_eq!(facts.boot_id, read("/proc/sys/kernel/random/boot_id"), "{shell}");
        assert_eq!(facts.kernel, read("/proc/sys/kernel/osrelease"), "{shell}");
        assert_eq!(facts.hostname, read("/proc/sys/kernel/hostname"), "{shell}");
        assert_eq!(facts.machine_id, read("/etc/machine-id"), "{shell}");
        assert_eq!(facts.arch.as_str(), if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        assert!(facts.memory_bytes > 100 << 20, "{shell}: {}", facts.memory_bytes);
        assert_eq!(facts.cores as usize, std::thread::available_parallelism().unwrap().get(), "{shell}");
        assert!(facts.time.skew_seconds.abs() <= 2, "{shell}: {:?}", facts.time);
        assert!(facts.mounts.iter().any(|m| m.path == "/"), "{shell}");
        assert!(facts.space["/"].total_bytes > 0, "{shell}");
        assert_eq!(facts.sysctl.get("kernel.ostype").map(String::as_str), Some("Linux"), "{shell}");
        assert!(!facts.sysctl.contains_key("no.such.key"), "{shell}");

        let text = "line one\nno newline at the end";
        assert_eq!(facts.text(path), text, "{shell}");
        assert_eq!(facts.digest(path), Some(hex::encode(Sha256::digest(text)).as_str()), "{shell}");
        assert_eq!(facts.files[path].bytes, text.len() as u64, "{shell}");
        assert!(!facts.files.contains_key("/does/not/exist"), "{shell}");
        assert_eq!(facts.paths.iter().collect::<Vec<_>>(), [path], "{shell}");
        assert!(!facts.unit("no-such.service").exists(), "{shell}");
        assert!(!facts.packages.contains_key("no-such-package"), "{shell}");
        assert_eq!(
            facts.packages.contains_key("dpkg"),
            std::path::Path::new("/var/lib/dpkg/info/dpkg.list").exists()
        );
        assert_eq!(facts.extra("answer"), Some("forty-two"), "{shell}");
    }
}

#[tokio::test]
async fn a_callers_script_can_neither_end_the_facts_nor_show_up_in_them() {
    let request =
        FactsRequest::new().extra("one", "echo hush-hush; exit 7").extra("two", "false; echo still here");
    for shell in shells() {
        let facts = host(shell).facts(&request).await.unwrap();
        assert_eq!(facts.extra("one"), Some("hush-hush\n"), "{shell}");
        assert_eq!(facts.extra("two"), Some("still here\n"), "{shell}");
        assert!(!format!("{facts:?}").contains("hush"), "{shell}");
    }
}

#[tokio::test]
async fn a_script_that_fails_is_refused_with_its_exit_code_and_last_words() {
    for shell in shells() {
        let failure =
            host(shell).script("do it", "echo first >&2; echo \"last $1\" >&2; exit 3", &["word"]).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.class(), FailureClass::Refused);
        assert_eq!(failure.message(), "cannot do it on here");
        assert_eq!(failure.report().causes, ["it ended with exit code 3: first\nlast word"]);
    }
}

#[rstest]
#[case("plain")]
#[case("with space")]
#[case("quote's \"and\" $HOME `x`")]
#[case("-n")]
#[tokio::test]
async fn files_are_hashed_and_removed_whatever_their_name(#[case] name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let text = path.to_str().unwrap();
    for shell in shells() {
        let host = host(shell);
        assert_eq!(host.digest(text).await.unwrap(), None);
        std::fs::write(&path, "x").unwrap();
        assert_eq!(host.digest(text).await.unwrap(), Some(hex::encode(Sha256::digest("x"))));
        host.remove_files(&[text]).await.unwrap();
        assert!(!path.exists());
        host.remove_files(&[text]).await.unwrap();
    }
}
