//! What no source line of a library may do with secrets and trust.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests too"
)]

mod common;

use std::{fs, path::Path};

use common::files;

/// Source lines of the libraries, with their place; tests left out.
fn sources() -> Vec<(String, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for krate in ["engine", "bmc", "ssh", "cluster", "k3s", "provision", "cli"] {
        for path in files(&crates.join(krate).join("src")) {
            let name = path.strip_prefix(crates).unwrap().display().to_string();
            if name.ends_with("tests.rs") || !name.ends_with(".rs") && !name.ends_with(".sh") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
            found.push((name, text));
        }
    }
    assert!(found.len() > 100, "the sources are where they are looked for");
    found
}

#[test]
fn checks_of_certificates_and_host_keys_cannot_be_switched_off() {
    let switches = [
        "danger_accept_invalid",
        "accept_invalid_certs",
        "accept_invalid_hostnames",
        "tls_danger",
        "accept_invalid",
        "StrictHostKeyChecking=no",
        "--insecure",
        "curl -k",
        "wget --no-check",
        "insecure_skip_tls_verify: true",
        "insecure-skip-tls-verify: true",
    ];
    for (name, text) in sources() {
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for switch in switches {
                assert!(!line.contains(switch), "{name}: {line}");
            }
            // Own verifiers are in one file: the one that compares the BMC's fingerprint.
            let own = line.contains(".dangerous()") || line.contains("impl ServerCertVerifier for");
            assert!(!own || name == "bmc/src/tls.rs", "{name}: {line}");
            let keys = line.contains("fn check_server_key");
            assert!(!keys || name.starts_with("ssh/src/"), "{name}: {line}");
        }
    }
}

#[test]
fn every_library_is_kept_from_the_environment_and_the_terminal() {
    let all = sources();
    for krate in ["engine", "bmc", "ssh", "cluster", "k3s", "provision"] {
        let (_, text) = all.iter().find(|(name, _)| *name == format!("{krate}/src/lib.rs")).unwrap();
        assert!(
            text.contains("warn(clippy::disallowed_methods)"),
            "{krate}: clippy.toml's list does not count for it"
        );
    }
}
