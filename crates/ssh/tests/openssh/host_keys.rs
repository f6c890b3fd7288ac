//! Being sure who answers.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use turingpi_ssh::{
    Command, HostKeyPolicy, KnownHosts, RusshConnector, SshConnector, SshError, SshErrorKind, SshTarget,
};

use crate::sshd::{Sshd, keygen, output_of};

/// Connects with that text as known-hosts file and returns the outcome and the text afterwards.
async fn connect(sshd: &Sshd, target: SshTarget, known: &str) -> (Result<(), SshError>, String) {
    let path = sshd.path("known");
    fs::write(&path, known).unwrap();
    let outcome = RusshConnector::builder().known_hosts(&path).build().connect(&target).await.map(drop);
    if let Err(error) = &outcome {
        assert!(!error.is_transient(), "trying again must not help: {error:?}");
    }
    (outcome, fs::read_to_string(&path).unwrap())
}

fn line(sshd: &Sshd, kind: &str) -> String {
    format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key(kind))
}

fn another(sshd: &Sshd, kind: &str, name: &str) -> turingpi_ssh::HostKey {
    keygen(&sshd.path(&format!("host_{name}")), kind, "", &[]);
    sshd.host_key(name)
}

#[tokio::test]
async fn a_known_key_is_taken_and_an_unknown_one_refused() {
    let Some(sshd) = Sshd::start() else { return };
    assert!(connect(&sshd, sshd.target(), &line(&sshd, "ed25519")).await.0.is_ok());
    for known in ["", "# comment\n", "other.host ssh-ed25519 AAAA\n"] {
        let (outcome, after) = connect(&sshd, sshd.target(), known).await;
        let error = outcome.unwrap_err();
        let print = sshd.host_key("ed25519").fingerprint();
        assert!(
            matches!(&error, SshError::HostKeyUnknown { fingerprint, .. } if *fingerprint == print),
            "{error:?}"
        );
        assert_eq!((error.kind(), after.as_str()), (SshErrorKind::HostKey, known), "nothing is written down");
        assert!(error.hint().unwrap().contains(&print.to_string()));
    }
    let outcome = RusshConnector::builder().build().connect(&sshd.target()).await.map(drop);
    assert!(matches!(outcome, Err(SshError::HostKeyUnknown { .. })), "no file at all: {outcome:?}");
    let extra =
        RusshConnector::builder().known_hosts(sshd.path("none")).extra_known_hosts(sshd.known_hosts());
    assert!(extra.build().connect(&sshd.target()).await.is_ok());
    let unreadable = RusshConnector::builder().known_hosts(sshd.folder.path()).build();
    let error = unreadable.connect(&sshd.target()).await.map(drop).unwrap_err();
    assert!(
        matches!(error, SshError::KnownHosts { .. }),
        "a file that cannot be read is not an empty one: {error:?}"
    );
}

#[tokio::test]
async fn a_host_that_refuses_its_key_never_sees_a_login() {
    let Some(sshd) = Sshd::start() else { return };
    let outcome = connect(&sshd, sshd.target(), "").await.0;
    assert!(outcome.is_err());
    assert!(!sshd.log().contains("userauth-request"), "{}", sshd.log());
}

#[tokio::test]
async fn accept_new_writes_a_new_host_down_once() {
    let Some(sshd) = Sshd::start() else { return };
    let path = sshd.path("folder/known");
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let connector = RusshConnector::builder()
        .known_hosts(&path)
        .on_new_host_key(move |new| log.lock().unwrap().push(new.clone()))
        .build();
    let target = sshd.target().host_key(HostKeyPolicy::AcceptNew);
    for _ in 0..2 {
        let client = connector.connect(&target).await.unwrap();
        assert!(client.run(&Command::script(":")).await.unwrap().success());
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), line(&sshd, "ed25519"));
    assert!(connector.connect(&sshd.target()).await.is_ok(), "and strictly it is known now");
    {
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        let print = sshd.host_key("ed25519").fingerprint();
        assert_eq!(
            (told[0].host.as_str(), told[0].port, told[0].fingerprint),
            ("127.0.0.1", sshd.port, print)
        );
    }
    // OpenSSH's own tool finds the entry.
    let name = format!("[127.0.0.1]:{}", sshd.port);
    assert!(output_of("ssh-keygen", &["-F", &name, "-f", path.to_str().unwrap()]).contains("ssh-ed25519"));
    assert_eq!(KnownHosts::forget(&path, "127.0.0.1", sshd.port).unwrap(), 1);
    assert!(matches!(
        connector.connect(&sshd.target()).await.map(drop),
        Err(SshError::HostKeyUnknown { .. })
    ));
    let nowhere = RusshConnector::builder().build().connect(&target).await.map(drop);
    assert!(matches!(nowhere, Err(SshError::Invalid { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn many_connections_at_once_write_a_new_host_down_once() {
    let Some(sshd) = Sshd::start() else { return };
    let path = sshd.path("known");
    let connector = RusshConnector::builder().known_hosts(&path).build();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (connector, target) = (connector.clone(), sshd.target().host_key(HostKeyPolicy::AcceptNew));
            tokio::spawn(async move { connector.connect(&target).await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), line(&sshd, "ed25519"));
}

#[tokio::test]
async fn a_changed_key_is_refused_whatever_the_policy() {
    let Some(sshd) = Sshd::start() else { return };
    let old = another(&sshd, "ed25519", "old");
    let known = format!("# first line\n[127.0.0.1]:{} {old}\n", sshd.port);
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let (outcome, after) = connect(&sshd, sshd.target().host_key(policy), &known).await;
        match outcome.unwrap_err() {
            SshError::HostKeyChanged { expected, found, file, line, .. } => {
                assert_eq!(
                    (expected, found),
                    (vec![old.fingerprint()], sshd.host_key("ed25519").fingerprint())
                );
                assert_eq!((file, line), (Some(sshd.path("known")), Some(2)));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(after, known);
    }
    let both = format!("{known}{}", line(&sshd, "ed25519"));
    assert!(
        connect(&sshd, sshd.target(), &both).await.0.is_ok(),
        "one stale line beside the right one does no harm"
    );
}

#[tokio::test]
async fn a_host_known_by_another_type_of_key_is_not_a_new_one() {
    let Some(sshd) = Sshd::start() else { return };
    let ecdsa = another(&sshd, "ecdsa", "ecdsa");
    let known = format!("[127.0.0.1]:{} {ecdsa}\n", sshd.port);
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let (outcome, after) = connect(&sshd, sshd.target().host_key(policy), &known).await;
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, SshError::HostKeyTypeGone { known, .. } if known == &["ecdsa-sha2-nistp256"]),
            "{error:?}"
        );
        assert_eq!((error.kind(), after), (SshErrorKind::HostKey, known.clone()));
    }
}

#[tokio::test]
async fn a_host_is_asked_for_the_type_of_key_it_is_known_by() {
    let Some(sshd) = Sshd::with("HostKey FOLDER/host_ecdsa\nHostKey FOLDER/host_rsa") else { return };
    another(&sshd, "ecdsa", "ecdsa");
    another(&sshd, "rsa", "rsa");
    for kind in ["ecdsa", "rsa", "ed25519"] {
        let (outcome, _) = connect(&sshd, sshd.target(), &line(&sshd, kind)).await;
        assert!(outcome.is_ok(), "{kind}: {outcome:?}");
        let pinned = HostKeyPolicy::Pinned(vec![sshd.host_key(kind).fingerprint()]);
        let (outcome, _) = connect(&sshd, sshd.target().host_key(pinned), "").await;
        assert!(outcome.is_ok(), "a pinned {kind} key is found: {outcome:?}");
    }
}

#[tokio::test]
async fn a_pinned_key_is_the_only_one_taken() {
    let Some(sshd) = Sshd::start() else { return };
    let other = another(&sshd, "ed25519", "other").fingerprint();
    let own = sshd.host_key("ed25519").fingerprint();
    let pinned = |prints: Vec<_>| sshd.target().host_key(HostKeyPolicy::Pinned(prints));
    assert!(connect(&sshd, pinned(vec![other, own]), "").await.0.is_ok());
    for prints in [vec![other], Vec::new()] {
        let (outcome, _) = connect(&sshd, pinned(prints.clone()), &line(&sshd, "ed25519")).await;
        match outcome.unwrap_err() {
            SshError::HostKeyChanged { expected, found, file: None, .. } => {
                assert_eq!((expected, found), (prints, own))
            }
            error => panic!("{error:?}"),
        }
    }
    let revoked = format!("@revoked * {}\n", sshd.host_key("ed25519"));
    let (outcome, _) = connect(&sshd, pinned(vec![own]), &revoked).await;
    assert!(matches!(outcome, Err(SshError::HostKeyRevoked { line: 1, .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_where_it_is_known() {
    let Some(sshd) = Sshd::start() else { return };
    let known = format!("{}@revoked * {}\n", line(&sshd, "ed25519"), sshd.host_key("ed25519"));
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let (outcome, _) = connect(&sshd, sshd.target().host_key(policy), &known).await;
        assert!(matches!(outcome, Err(SshError::HostKeyRevoked { line: 2, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn hashed_names_patterns_and_aliases_are_found() {
    let Some(sshd) = Sshd::start() else { return };
    let path = sshd.path("hashed");
    fs::write(&path, line(&sshd, "ed25519")).unwrap();
    output_of("ssh-keygen", &["-H", "-f", path.to_str().unwrap()]);
    let hashed = fs::read_to_string(&path).unwrap();
    assert!(hashed.starts_with("|1|"));
    assert!(connect(&sshd, sshd.target(), &hashed).await.0.is_ok());
    let key = sshd.host_key("ed25519");
    assert!(connect(&sshd, sshd.target(), &format!("[127.0.0.*]:* {key}\n")).await.0.is_ok());
    let excluded = format!("*,![127.0.0.1]:{} {key}\n", sshd.port);
    assert!(matches!(connect(&sshd, sshd.target(), &excluded).await.0, Err(SshError::HostKeyUnknown { .. })));
    assert!(connect(&sshd, sshd.target().host_key_name("node1"), &format!("node1 {key}\n")).await.0.is_ok());
}

/// A server with a certificate of its own authority; `extra` goes to ssh-keygen.
fn certified(names: &str, extra: &[&str]) -> Option<Sshd> {
    let sshd = Sshd::with("HostCertificate FOLDER/host_ed25519-cert.pub")?;
    sign(&sshd, names, extra);
    Some(sshd)
}

fn sign(sshd: &Sshd, names: &str, extra: &[&str]) {
    if !sshd.path("host_ca").exists() {
        another(sshd, "ed25519", "ca");
    }
    let (ca, key) = (sshd.path("host_ca"), sshd.path("host_ed25519.pub"));
    let mut args = vec!["-q", "-s", ca.to_str().unwrap(), "-I", "test", "-n", names];
    args.extend(extra);
    args.push(key.to_str().unwrap());
    output_of("ssh-keygen", &args);
}

#[tokio::test]
async fn a_host_certificate_of_a_known_authority_is_taken() {
    let Some(sshd) = certified("node1,127.0.0.1", &["-h"]) else { return };
    let authority = format!("@cert-authority [127.0.0.1]:* {}\n", sshd.host_key("ca"));
    let (outcome, after) = connect(&sshd, sshd.target().host_key(HostKeyPolicy::AcceptNew), &authority).await;
    assert!(outcome.is_ok(), "{outcome:?}\n{}", sshd.log());
    assert_eq!(after, authority, "nothing needs to be written down");
    let both = format!("{authority}{}", line(&sshd, "ed25519"));
    assert!(connect(&sshd, sshd.target(), &both).await.0.is_ok());
    for revoked in ["ca", "ed25519"] {
        let known = format!("{authority}@revoked * {}\n", sshd.host_key(revoked));
        let (outcome, _) = connect(&sshd, sshd.target(), &known).await;
        assert!(matches!(outcome, Err(SshError::HostKeyRevoked { .. })), "{revoked}: {outcome:?}");
    }
}

#[tokio::test]
async fn host_certificates_with_rsa_and_ecdsa_are_taken_too() {
    for (authority, key) in
        [("rsa", "ed25519"), ("ecdsa", "ed25519"), ("ed25519", "ecdsa"), ("ed25519", "rsa")]
    {
        let file = if key == "ed25519" { "ed25519" } else { "certified" };
        let config = format!("HostKey FOLDER/host_{file}\nHostCertificate FOLDER/host_{file}-cert.pub");
        let Some(sshd) = Sshd::with(&config) else { return };
        if file != "ed25519" {
            another(&sshd, key, file);
        }
        another(&sshd, authority, "ca");
        let (ca, public) = (sshd.path("host_ca"), sshd.path(&format!("host_{file}.pub")));
        let args = [
            "-q",
            "-s",
            ca.to_str().unwrap(),
            "-I",
            "test",
            "-n",
            "127.0.0.1",
            "-h",
            public.to_str().unwrap(),
        ];
        output_of("ssh-keygen", &args);
        let known = format!("@cert-authority * {}\n", sshd.host_key("ca"));
        let (outcome, _) = connect(&sshd, sshd.target(), &known).await;
        assert!(outcome.is_ok(), "{authority} for {key}: {outcome:?}\n{}", sshd.log());
    }
}

#[tokio::test]
async fn a_host_certificate_that_proves_something_else_is_refused() {
    for (names, extra, problem) in [
        ("node2", vec!["-h"], "it is for"),
        ("127.0.0.1", vec!["-h", "-V", "20200101:20210101"], "expired"),
        ("127.0.0.1", vec!["-h", "-V", "20990101:21000101"], "not valid yet"),
    ] {
        let Some(sshd) = certified(names, &extra) else { return };
        let authority = format!("@cert-authority * {}\n", sshd.host_key("ca"));
        let (outcome, _) = connect(&sshd, sshd.target(), &authority).await;
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, SshError::HostCertificate { problem: said, .. } if said.contains(problem)),
            "{error:?}"
        );
    }
    let Some(sshd) = certified("127.0.0.1", &["-h"]) else { return };
    let stranger = format!("@cert-authority * {}\n", another(&sshd, "ed25519", "stranger"));
    let error = connect(&sshd, sshd.target(), &stranger).await.0.unwrap_err();
    assert!(
        matches!(&error, SshError::HostCertificate { problem, .. } if problem.contains("not trusted")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_host_with_an_authority_that_shows_a_bare_key_is_not_a_new_host() {
    let Some(sshd) = Sshd::start() else { return };
    let known = format!("@cert-authority * {}\n", another(&sshd, "ed25519", "ca"));
    let (outcome, after) = connect(&sshd, sshd.target().host_key(HostKeyPolicy::AcceptNew), &known).await;
    assert!(matches!(outcome, Err(SshError::HostKeyUnknown { .. })), "{outcome:?}");
    assert_eq!(after, known);
}
