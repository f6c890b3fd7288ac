use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// What k3s writes: three entries called `default`, keys in base64. The words `default` and `127.0.0.1` stand where a
/// text replacement would hit them too.
const K3S: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: ZGVmYXVsdCAxMjcuMC4wLjE=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {}
users:
- name: default
  user:
    client-certificate-data: c2VjcmV0LWNlcnRpZmljYXRl
    client-key-data: c2VjcmV0LWtleQ==
";

/// A person's file: comments aside, everything in it has to survive.
const THEIRS: &str = "\
apiVersion: v1
kind: Config
x-unknown: [1, two, 3.5]
current-context: work
clusters:
- name: work
  cluster:
    server: https://work.example:6443
    insecure-skip-tls-verify: true
    x-note: yes
- name: zeta
  cluster: {server: 'https://zeta.example:6443', proxy-url: 'socks5://127.0.0.1:1080'}
users:
- name: work
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token, '--cluster', 0755]}
contexts:
- name: work
  context: {cluster: work, user: work, namespace: team}
- name: zeta
  context: {cluster: zeta, user: work}
preferences: {colors: true}
";

fn ours() -> Kubeconfig {
    Kubeconfig::parse(K3S)
        .unwrap()
        .renamed("homelab")
        .unwrap()
        .with_server("https://10.10.88.73:6443")
        .unwrap()
}

fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("config");
    fs::write(&path, text).unwrap();
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

use std::path::Path;

#[test]
fn renaming_is_structural_and_touches_nothing_else() {
    let yaml = ours().to_yaml().unwrap();
    assert_eq!(
        yaml.expose_secret(),
        "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: ZGVmYXVsdCAxMjcuMC4wLjE=
    server: https://10.10.88.73:6443
  name: homelab
contexts:
- context:
    cluster: homelab
    namespace: default
    user: homelab
  name: homelab
current-context: homelab
kind: Config
preferences: {}
users:
- user:
    client-certificate-data: c2VjcmV0LWNlcnRpZmljYXRl
    client-key-data: c2VjcmV0LWtleQ==
  name: homelab
"
    );
}

#[test]
fn merging_keeps_order_unknown_fields_and_the_entries_of_others() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    let merged = ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    assert!(merged.changed);
    let text = fs::read_to_string(&path).unwrap();
    let after = document::parse(&text, "it").unwrap();
    let before = document::parse(THEIRS, "it").unwrap();
    let keys: Vec<_> = after.as_object().unwrap().keys().collect();
    assert_eq!(keys, before.as_object().unwrap().keys().collect::<Vec<_>>(), "{text}");
    for section in Section::ALL {
        let (old, new) = (document::entries(&before, section), document::entries(&after, section));
        assert_eq!(new[..old.len()], *old, "entries of others, in their order");
        assert_eq!(new.len(), old.len() + 1);
        assert_eq!(new[old.len()]["name"], "homelab");
    }
    assert_eq!(after["x-unknown"], json!([1, "two", 3.5]));
    assert_eq!(after["current-context"], "work", "the current context is not taken over");
    assert_eq!(after["clusters"][0]["cluster"]["x-note"], "yes", "a word stays a word");
    assert_eq!(fs::read_to_string(merged.backup.unwrap()).unwrap(), THEIRS);
}

#[test]
fn the_file_and_its_backup_are_for_the_owner_only() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let merged = ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    assert_eq!((mode(&path), mode(&merged.backup.unwrap())), (0o600, 0o600));
    let fresh = folder.path().join("new/folder/config");
    let merged = ours().merge_into_file(&fresh, MergeOptions::default()).unwrap();
    assert_eq!((mode(&fresh), mode(fresh.parent().unwrap()), merged.backup), (0o600, 0o700, None));
    assert_eq!(
        fs::read_dir(fresh.parent().unwrap()).unwrap().count(),
        1,
        "no temporary file or lock is left"
    );
}

#[test]
fn a_second_merge_changes_nothing_and_keeps_the_first_backup() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    let first = ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let second = ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    assert_eq!((second.changed, second.backup), (false, None));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_to_string(first.backup.unwrap()).unwrap(), THEIRS);
    assert_eq!(mode(&path), 0o600, "a loose file is tightened all the same");
}

#[test]
fn the_current_context_is_set_when_asked_or_when_there_is_none() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    ours().merge_into_file(&path, MergeOptions { set_current: true }).unwrap();
    let now = |path: &Path| Kubeconfig::parse(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(now(&path).current_context(), Some("homelab"));
    for text in ["", "kind: Config\ncurrent-context: ''\n", "clusters: null\n"] {
        let path = file(&folder, text);
        ours().merge_into_file(&path, MergeOptions::default()).unwrap();
        assert_eq!(now(&path).current_context(), Some("homelab"), "{text:?}");
    }
}

#[test]
fn merging_over_our_own_entry_replaces_credentials_and_keeps_what_a_person_added() {
    let folder = TempDir::new().unwrap();
    let text = "\
clusters:
- name: homelab
  cluster: {server: https://old:6443, insecure-skip-tls-verify: true, proxy-url: http://proxy}
contexts:
- name: homelab
  context: {cluster: homelab, user: homelab, namespace: media}
users:
- name: homelab
  user: {token: old-token, as: somebody}
";
    let path = file(&folder, text);
    ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    let after = document::parse(&fs::read_to_string(&path).unwrap(), "it").unwrap();
    let cluster = &after["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://10.10.88.73:6443");
    assert_eq!(cluster["proxy-url"], "http://proxy");
    assert!(cluster.get("insecure-skip-tls-verify").is_none(), "an unsafe leftover must not stay");
    assert!(after["users"][0]["user"].get("token").is_none(), "an old token must not stay");
    assert_eq!(after["users"][0]["user"]["as"], "somebody");
    assert_eq!(after["clusters"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_parsed_is_refused_and_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    for text in [
        "clusters: [",
        "- a list",
        "a: 1\na: 2\n",
        "clusters: {a: b}",
        "clusters: [{cluster: {}}]",
        "x: 'unclosed",
    ] {
        let path = file(&folder, text);
        let failure = ours().merge_into_file(&path, MergeOptions::default()).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Config, "{text:?}");
        assert!(failure.hint_text().unwrap().contains("Nothing was changed"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let path = folder.path().join("bytes");
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(
        ours().merge_into_file(&path, MergeOptions::default()).unwrap_err().class(),
        FailureClass::Config
    );
}

#[test]
fn a_parse_error_shows_no_credential() {
    let failure = Kubeconfig::parse("users:\n- user: {token: s3cr3t-t0ken: x}\n").unwrap_err();
    let report = format!("{:?} {}", failure.report(), failure);
    assert!(!report.contains("s3cr3t"), "{report}");
    assert!(report.contains("line 2"), "{report}");
}

#[test]
fn debug_output_shows_names_and_no_credential() {
    let shown = format!("{:?}", ours());
    assert!(shown.contains("homelab") && shown.contains("10.10.88.73"), "{shown}");
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn a_link_stays_a_link() {
    let folder = TempDir::new().unwrap();
    let real = file(&folder, THEIRS);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let merged = ours().merge_into_file(&link, MergeOptions::default()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(merged.path, fs::canonicalize(&real).unwrap());
    assert!(fs::read_to_string(&real).unwrap().contains("homelab"));
}

#[test]
fn a_file_that_kubectl_is_writing_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    let lock = folder.path().join("config.lock");
    fs::write(&lock, "").unwrap();
    let failure = ours().merge_into_file(&path, MergeOptions::default()).unwrap_err();
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Locked, true));
    assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
    fs::remove_file(&lock).unwrap();
    ours().merge_into_file(&path, MergeOptions::default()).unwrap();
    assert!(!lock.exists());
}

#[test]
fn removing_takes_our_entries_and_leaves_those_that_others_use() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, THEIRS);
    ours().merge_into_file(&path, MergeOptions { set_current: true }).unwrap();
    let removed = Kubeconfig::remove_from_file(&path, "homelab").unwrap();
    assert!(removed.changed);
    let after = document::parse(&fs::read_to_string(&path).unwrap(), "it").unwrap();
    let mut before = document::parse(THEIRS, "it").unwrap();
    document::set(&mut before, "current-context", Value::from(""));
    assert_eq!(after, before);
    let shared = "contexts: [{name: a, context: {cluster: homelab, user: u}}, {name: homelab, context: {cluster: homelab, user: homelab}}]\nclusters: [{name: homelab, cluster: {}}]\nusers: [{name: homelab, user: {}}]\n";
    let path = file(&folder, shared);
    Kubeconfig::remove_from_file(&path, "homelab").unwrap();
    let after = document::parse(&fs::read_to_string(&path).unwrap(), "it").unwrap();
    assert_eq!(document::names(&after, Section::Clusters), ["homelab"], "another context uses it");
    assert_eq!(document::names(&after, Section::Users), Vec::<&str>::new());
    assert!(!Kubeconfig::remove_from_file(&folder.path().join("none"), "homelab").unwrap().changed);
}

#[test]
fn the_first_file_with_the_context_is_chosen_and_else_the_first() {
    let folder = TempDir::new().unwrap();
    let paths: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| folder.path().join(name)).collect();
    fs::write(&paths[1], "not: [yaml").unwrap();
    assert_eq!(choose_kubeconfig_file(&paths, "homelab"), Some(paths[0].as_path()));
    ours().write_file(&paths[2]).unwrap();
    assert_eq!(choose_kubeconfig_file(&paths, "homelab"), Some(paths[2].as_path()));
    assert_eq!(choose_kubeconfig_file(&[], "homelab"), None);
}

#[test]
fn the_expiry_of_the_client_certificate_is_read() {
    let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let mut config = ours();
    let user = document::body_mut(&mut config.tree, Section::Users, "homelab").unwrap();
    document::set(user, "client-certificate-data", Value::from(STANDARD.encode(certificate.pem())));
    let expiry = config.client_certificate_expiry().unwrap().unwrap();
    assert_eq!(expiry.days_left(time::macros::datetime!(2026-12-30 00:00 UTC)), 2);
    assert!(expiry.days_left(time::macros::datetime!(2027-02-01 00:00 UTC)) < 0);
    assert_eq!(Kubeconfig::parse("").unwrap().client_certificate_expiry().unwrap(), None);
    assert_eq!(ours().client_certificate_expiry().unwrap_err().class(), FailureClass::Config);
}

#[test]
fn addresses_that_are_none_and_unsafe_users_are_refused() {
    for url in ["", "10.0.0.1:6443", "http://10.0.0.1:6443", "https://"] {
        assert!(ours().with_server(url).is_err(), "{url:?}");
    }
    let named = ours().with_tls_server_name(Some("homelab.local")).unwrap();
    assert_eq!(named.tls_server_name(), Some("homelab.local"));
    assert_eq!(named.with_tls_server_name(None).unwrap().tls_server_name(), None);
    let exec = Kubeconfig::parse(THEIRS).unwrap();
    assert!(exec.endpoint().is_err(), "a plugin is not run and TLS is not switched off");
}

/// Trees of the shapes that stand in such files.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![Just("yes"), Just("0755"), Just("null"), Just("1_000"), Just("12:30"), Just("~")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z][a-z-]{0,8}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn config() -> impl Strategy<Value = Value> {
    let entries = |key: &'static str| {
        prop::collection::btree_map("[a-z]{1,6}|homelab", value(), 0..4).prop_map(move |entries| {
            Value::Array(
                entries.into_iter().map(|(name, body)| json!({key: body, "name": name, "x": name})).collect(),
            )
        })
    };
    (entries("cluster"), entries("user"), entries("context"), value()).prop_map(|(clusters, users, contexts, other)| {
        json!({"x-first": other, "contexts": contexts, "clusters": clusters, "users": users, "current-context": "mine"})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_else_is_in_the_file_survives_a_merge(tree in config()) {
        let folder = TempDir::new().unwrap();
        let path = file(&folder, &document::write(&tree).unwrap());
        ours().merge_into_file(&path, MergeOptions::default()).unwrap();
        let after = document::parse(&fs::read_to_string(&path).unwrap(), "it").unwrap();
        prop_assert_eq!(&after["x-first"], &tree["x-first"]);
        prop_assert_eq!(&after["current-context"], "mine");
        for section in Section::ALL {
            let others = |tree: &Value| -> Vec<Value> {
                document::entries(tree, section).iter().filter(|e| e["name"] != "homelab").cloned().collect()
            };
            prop_assert_eq!(others(&after), others(&tree));
            prop_assert_eq!(document::entries(&after, section).iter().filter(|e| e["name"] == "homelab").count(), 1);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), noise in "(?s)[a-z:\\-\\[\\]{}#&*!|>'\"%@` \n]{0,80}") {
        for text in [text, noise] {
            if let Ok(config) = Kubeconfig::parse(&text) {
                let _ = (config.renamed("x"), config.endpoint().is_ok(), config.client_certificate_expiry());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_in_a_file_never_panic_and_are_never_lost(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, &bytes).unwrap();
        match ours().merge_into_file(&path, MergeOptions::default()) {
            Ok(merged) => prop_assert_eq!(fs::read(merged.backup.unwrap()).unwrap(), bytes),
            Err(_) => prop_assert_eq!(fs::read(&path).unwrap(), bytes),
        }
    }
}
