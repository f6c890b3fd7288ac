//! Rules of the repository that are tests: arrows between crates, documented exit codes, commands of the README.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Which of our crates a crate may depend on, as ARCHITECTURE.md draws it.
const ARROWS: [(&str, &[&str]); 8] = [
    ("engine", &[]),
    ("bmc", &[]),
    ("ssh", &[]),
    ("testkit", &[]),
    ("cluster", &["bmc", "engine", "ssh"]),
    ("k3s", &["cluster", "engine", "ssh"]),
    ("provision", &["bmc", "cluster", "engine", "k3s", "ssh"]),
    ("cli", &["provision", "testkit"]),
];

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ARROWS.len(), "a crate is missing in ARROWS");
    for package in packages {
        let name = package["name"].as_str().unwrap().strip_prefix("turingpi-").unwrap();
        let (_, allowed) =
            ARROWS.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} is not in ARROWS"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let Some(ours) = dependency["name"].as_str().unwrap().strip_prefix("turingpi-") else { continue };
            let for_tests = dependency["kind"].as_str() == Some("dev");
            // The mocks that testkit hands on to embedders: behind a feature, and its doors do not use them.
            if name == "testkit" && dependency["optional"] == true {
                continue;
            }
            assert!(allowed.contains(&ours) || for_tests, "{name} must not depend on {ours}");
        }
    }
}

#[test]
fn every_exit_code_is_in_the_readme_and_in_the_help() {
    let source = fs::read_to_string(root().join("crates/cli/src/exit.rs")).unwrap();
    let codes: BTreeSet<&str> = source
        .lines()
        .filter_map(|l| l.strip_prefix("pub(crate) const ")?.split(" = ").nth(1)?.strip_suffix(';'))
        .collect();
    assert!(codes.len() > 10, "{codes:?}");
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let readme = readme.split("Exit codes:").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let help = fs::read_to_string(root().join("crates/cli/src/args.rs")).unwrap();
    let help = help.split("Exit codes:").nth(1).unwrap().split("\"\n").next().unwrap().to_owned();
    for code in codes {
        for (place, text) in [("README", &readme), ("help", &help)] {
            let said = text.split(|c: char| !c.is_ascii_digit()).any(|n| n == code);
            assert!(said, "exit code {code} is not in the {place}");
        }
    }
}

#[test]
fn the_readme_names_the_commands_that_ci_runs() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let ci =
        ["run", "first-command"].map(|f| fs::read_to_string(root().join(".ci").join(f)).unwrap()).concat();
    assert!(readme.contains("\ncargo test --workspace\n"));
    assert!(ci.contains("cargo test --workspace"));
    assert!(readme.contains(
        "\ncargo run --release -p turingpi-cli -- apply --simulate examples/k3s-cluster/cluster.yaml\n"
    ));
    assert!(ci.contains(
        "cargo run --release --locked -p turingpi-cli -- apply --simulate examples/k3s-cluster/cluster.yaml"
    ));
}

#[test]
fn every_crate_has_what_a_registry_page_needs() {
    for (name, _) in ARROWS {
        let folder = root().join("crates").join(name);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("description = "), "{name} has no description");
        let lib = folder.join("src/lib.rs");
        if lib.is_file() {
            let text = fs::read_to_string(lib).unwrap();
            let docs: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
            assert!(docs.iter().any(|l| l.contains("```")), "the docs of {name} open without an example");
        }
    }
}

#[test]
fn no_file_of_a_library_is_longer_than_two_ideas() {
    let mut long = Vec::new();
    let mut folders: Vec<PathBuf> =
        ARROWS.iter().map(|(n, _)| root().join("crates").join(n).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if lines > 800 {
                    long.push(format!("{}: {lines} lines", path.display()));
                }
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
