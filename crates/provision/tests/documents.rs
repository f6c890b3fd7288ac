//! Documents with mistakes: every one is found, with its place, its path and what to write instead.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use turingpi_provision::document::{self, Severity};

struct Case<'a> {
    title: &'a str,
    path: &'a str,
    message: &'a str,
    help: &'a str,
    text: &'a str,
}

fn cases(all: &str) -> Vec<Case<'_>> {
    all.split("\n=== ")
        .skip(1)
        .map(|case| {
            let (title, rest) = case.split_once('\n').unwrap();
            let (expect, text) = rest.split_once("\n---").unwrap();
            let mut parts = expect.strip_prefix("expect:").unwrap().splitn(3, '|').map(str::trim);
            let mut next = || parts.next().unwrap();
            Case { title, path: next(), message: next(), help: next(), text: text.trim_start_matches('\n') }
        })
        .collect()
}

#[test]
fn every_kind_of_mistake_is_found_with_place_path_and_suggestion() {
    let all = cases(include_str!("bad_documents.txt"));
    assert!(all.len() >= 40, "{} cases", all.len());
    let mut wrong = Vec::new();
    for case in all {
        let Err(mistakes) = document::load(case.text) else {
            wrong.push(format!("{}: was accepted", case.title));
            continue;
        };
        let errors: Vec<_> = mistakes.0.iter().filter(|d| d.severity == Severity::Error).collect();
        let hit = errors.iter().find(|d| {
            d.path == case.path
                && d.message.contains(case.message)
                && d.help.as_deref().unwrap_or_default().contains(case.help)
        });
        match hit {
            None => wrong.push(format!("{}: found {errors:#?}", case.title)),
            Some(d) if d.line == 0 && !case.text.trim().is_empty() && !case.text.starts_with('#') => {
                wrong.push(format!("{}: has no place: {d}", case.title));
            }
            Some(d) => {
                // The place is inside the text.
                let lines = case.text.lines().count() as u64 + 1;
                assert!(d.line <= lines, "{}: line {} of {lines}", case.title, d.line);
            }
        }
        if errors.len() > 2 {
            wrong.push(format!("{}: one mistake, {} errors: {errors:#?}", case.title, errors.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn several_mistakes_are_found_at_once_in_the_order_of_the_text() {
    let text = "nmae: lab\nversion: v1\nnodes:\n  - { name: a, role: boss, adress: x }\n";
    let mistakes = document::load(text).unwrap_err();
    let lines: Vec<u64> = mistakes.0.iter().map(|d| d.line).collect();
    assert!(mistakes.0.len() >= 3, "{mistakes:?}");
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let text = "name: lab\nversion: v1.35.5+k3s1\nboards:\n  b: { bmc: 10.0.0.2, credentials: { password: hunter2 } }\n\
                nodes:\n  - { name: a, role: control-plane, address: 10.0.0.3 }\n";
    let shown = format!("{:?} {}", document::load(text), document::load(text).unwrap_err().0[0]);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn an_image_may_be_named_as_the_catalogue_names_it_when_its_digest_can_be_known() {
    let with = |source: &str| {
        format!(
            "name: lab\nversion: v1.35.5+k3s1\nboards: {{ b: {{ bmc: 10.0.0.2 }} }}\n\
             ssh: {{ identity: ~/.ssh/id }}\nimages: {{ os: {{ {source} }} }}\nnodes:\n  \
             - {{ name: a, role: control-plane, address: 10.0.0.3, slot: b/1, image: os }}\n"
        )
    };
    for source in ["source: armbian", "source: raspios", "source: ./armbian"] {
        assert!(document::load(&with(source)).is_ok(), "{source}");
    }
    let digest = "ab".repeat(32);
    assert!(document::load(&with(&format!("source: ubuntu-22.04, sha256: {digest}"))).is_ok());
    let mistakes = document::load(&with("source: ubuntu-22.04")).unwrap_err().0;
    assert_eq!(mistakes[0].path, "images.os");
    assert!(mistakes[0].help.as_ref().unwrap().contains("turingpi image pull ubuntu-22.04"), "{mistakes:?}");
}

#[test]
fn a_registry_login_in_the_document_is_refused_without_being_repeated() {
    let text = "name: lab\nversion: v1.35.5+k3s1\nk3s:\n  registries:\n    mirrors: { docker.io: { endpoint: ['https://me:hunter2@m.lan'] } }\n    \
                configs:\n      reg.lan:\n        auth: { username: me, password: hunter2, token: { env: A, file: b } }\n\
                nodes:\n  - { name: a, role: control-plane, address: 10.0.0.3 }\n";
    let mistakes = document::load(text).unwrap_err();
    let paths: Vec<&str> = mistakes.0.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "k3s.registries.mirrors.docker.io.endpoint[0]",
            "k3s.registries.configs.reg.lan.auth.password",
            "k3s.registries.configs.reg.lan.auth.token"
        ]
    );
    assert!(mistakes.0.iter().all(|d| d.line > 0 && d.help.is_some()), "{mistakes:?}");
    assert!(!format!("{mistakes:?} {}", mistakes.0[1]).contains("hunter2"), "{mistakes:?}");
    let text = text.replace("me:hunter2@", "").replace("hunter2", "prompt").replace("env: A, ", "");
    assert!(document::load(&text).is_ok(), "{:?}", document::load(&text));
}

#[test]
fn the_examples_are_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path().join("cluster.yaml");
        if file.is_file() {
            let text = std::fs::read_to_string(&file).unwrap();
            let (_, warnings) =
                document::load(&text).unwrap_or_else(|e| panic!("{}: {:?}", file.display(), e.0));
            assert!(warnings.is_empty(), "{}: {warnings:?}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");
}

#[test]
fn the_schema_accepts_what_load_accepts_by_name() {
    let schema = document::schema();
    let properties = schema["properties"].as_object().unwrap();
    for key in [
        "name",
        "version",
        "channel",
        "boards",
        "ssh",
        "network",
        "images",
        "nodes",
        "k3s",
        "first-boot",
        "timeouts",
    ] {
        assert!(properties.contains_key(key), "{key}");
        assert!(
            properties[key]["description"].is_string() || properties[key]["$ref"].is_string(),
            "{key} is not described"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = document::load(&text);
    }

    #[test]
    fn no_mangled_document_makes_it_panic(at in 0_usize..900, with in "[\\[\\]{}:,\"'&*!|>%@`\n\t -]{1,4}") {
        let good = include_str!("../../../examples/k3s-cluster/cluster.yaml");
        let at = (0..=at.min(good.len())).rev().find(|i| good.is_char_boundary(*i)).unwrap();
        let _ = document::load(&format!("{}{with}{}", &good[..at], &good[at..]));
    }
}
