use std::fmt::Write;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

fn a() -> HostKey {
    HostKey::from_openssh(A).unwrap()
}
fn b() -> HostKey {
    HostKey::from_openssh(B).unwrap()
}
/// A key of a type of its own, whatever is in it.
fn of_type(kind: &str) -> HostKey {
    let mut blob = (kind.len() as u32).to_be_bytes().to_vec();
    blob.extend_from_slice(kind.as_bytes());
    HostKey::from_blob([blob, vec![0, 0, 0, 1, 7]].concat()).unwrap()
}
fn verdict(text: &str, host: &str, port: u16) -> Verdict {
    KnownHosts::parse(text).lookup(host, port, &a())
}

#[rstest]
#[case("node1 A", "node1", 22, true)]
#[case("node1 A", "NODE1", 22, true)]
#[case("node1\tA", "node1", 22, true)]
#[case("   node1   A   a comment  ", "node1", 22, true)]
#[case("x,node1,y A", "node1", 22, true)]
#[case("node1 A", "node1", 2222, false)]
#[case("[node1]:2222 A", "node1", 2222, true)]
#[case("[node1]:2222 A", "node1", 22, false)]
#[case("fe80::1 A", "fe80::1", 22, true)]
#[case("[fe80::1]:2222 A", "fe80::1", 2222, true)]
#[case("node? A", "node7", 22, true)]
#[case("*.lan,!bad.lan A", "good.lan", 22, true)]
#[case("*.lan,!bad.lan A", "bad.lan", 22, false)]
#[case("# node1 A", "node1", 22, false)]
#[case("@unknown node1 A", "node1", 22, false)]
#[case(
    "node1 ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
    "node1",
    22,
    false
)]
#[case("node1", "node1", 22, false)]
#[case("|1|c2FsdA==|bad A", "node1", 22, false)]
fn a_line_takes_the_hosts_that_openssh_takes(
    #[case] line: &str,
    #[case] host: &str,
    #[case] port: u16,
    #[case] known: bool,
) {
    let line = line.replace(" A", &format!(" {A}")).replace("\tA", &format!("\t{}", A.replace(' ', "\t")));
    assert_eq!(verdict(&line, host, port) == Verdict::Known, known, "{line}");
}

#[test]
fn a_hashed_name_is_found() {
    // From `ssh-keygen -H` on a line for 192.0.2.7.
    let salt = STANDARD.encode([9; 20]);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[9; 20]);
    let hash = STANDARD.encode(hmac::sign(&key, b"192.0.2.7"));
    let text = format!("|1|{salt}|{hash} {A}\n");
    assert_eq!(verdict(&text, "192.0.2.7", 22), Verdict::Known);
    assert_eq!(verdict(&text, "192.0.2.8", 22), Verdict::Unknown);
}

#[test]
fn verdicts_tell_unknown_changed_other_type_and_revoked_apart() {
    let rsa = of_type("ssh-rsa");
    assert_eq!(verdict("", "n", 22), Verdict::Unknown);
    assert_eq!(verdict(&format!("m {A}"), "n", 22), Verdict::Unknown);
    let expected = vec![b().fingerprint()];
    assert_eq!(
        verdict(&format!("# c\n\nn {B}"), "n", 22),
        Verdict::Changed { expected, file: None, line: 3 }
    );
    assert_eq!(verdict(&format!("n {B}\nn {A}"), "n", 22), Verdict::Known, "any line that fits");
    let other = Verdict::OtherType {
        known: vec!["ssh-rsa".into()],
        expected: vec![rsa.fingerprint()],
        file: None,
        line: 1,
    };
    assert_eq!(verdict(&format!("n {rsa}"), "n", 22), other);
    assert_eq!(verdict(&format!("n {A}\n@revoked n {A}"), "n", 22), Verdict::Revoked { file: None, line: 2 });
    assert_eq!(
        verdict(&format!("n {A}\n@revoked m {A}"), "n", 22),
        Verdict::Known,
        "revoked for another host"
    );
    assert_eq!(verdict(&format!("n {A}\n@revoked n {B}"), "n", 22), Verdict::Known, "another key is revoked");
    assert_eq!(verdict(&format!("@revoked n {B}"), "n", 22), Verdict::Unknown);
    assert_eq!(
        verdict(&format!("@cert-authority n {A}"), "n", 22),
        Verdict::AuthorityOnly,
        "an authority is no host"
    );
}

#[test]
fn types_authorities_and_ignored_lines_can_be_asked_for() {
    let text = format!("n {A}\nn {B}\n* {}\n@cert-authority * {B}\nnonsense\n", of_type("ssh-rsa"));
    let hosts = KnownHosts::parse(&text);
    assert_eq!(hosts.key_types("n", 22), ["ssh-ed25519", "ssh-rsa"]);
    assert_eq!(hosts.authorities("n", 22), [b()]);
    assert_eq!(hosts.ignored_lines().collect::<Vec<_>>(), [(None, 5)]);
}

#[test]
fn appending_keeps_every_line_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/known_hosts");
    KnownHosts::append(&path, "Node1", 22, &a()).unwrap();
    KnownHosts::append(&path, "node1", 22, &a()).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        format!("node1 {A}\n"),
        "no blank line, no second one"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
    std::fs::write(&path, format!("x {A}")).unwrap();
    KnownHosts::append(&path, "node2", 2222, &b()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("x {A}\n[node2]:2222 {B}\n"));
    for name in ["", "a b", "a\nb", "a,b", "*", "!a", "@a", "#a"] {
        assert!(
            matches!(KnownHosts::append(&path, name, 22, &a()), Err(SshError::Invalid { .. })),
            "{name:?}"
        );
    }
}

#[test]
fn forgetting_a_host_leaves_everybody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    assert_eq!(KnownHosts::forget(&path, "n", 22).unwrap(), 0, "no file");
    let kept = format!(
        "# comment about n\n\nm {A}\n*.lan {A}\n@revoked n {A}\n@cert-authority n {B}\n[n]:2222 {B}\nbroken line n\n"
    );
    std::fs::write(&path, format!("{kept}n {A}\nm,N,o {B} note\nn,!x {B}\n")).unwrap();
    assert_eq!(KnownHosts::forget(&path, "n", 22).unwrap(), 3);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}m,o {B} note\n"));
    assert_eq!(KnownHosts::forget(&path, "n", 22).unwrap(), 0);
    assert_eq!(KnownHosts::forget(&path, "n", 2222).unwrap(), 1);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for number in 0..10 {
                    KnownHosts::append(path, &format!("w{writer}n{number}"), 22, &a()).unwrap();
                    KnownHosts::append(path, &format!("gone{writer}n{number}"), 22, &a()).unwrap();
                    assert_eq!(KnownHosts::forget(path, &format!("gone{writer}n{number}"), 22).unwrap(), 1);
                }
            });
        }
    });
    let hosts = KnownHosts::load(&path).unwrap();
    for writer in 0..4 {
        for number in 0..10 {
            assert_eq!(hosts.lookup(&format!("w{writer}n{number}"), 22, &a()), Verdict::Known);
        }
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 40);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_stumble(text in "(?s).{0,400}", host in ".{0,20}", port: u16) {
        let hosts = KnownHosts::parse(&text);
        hosts.lookup(&host, port, &a());
        hosts.authorities(&host, port);
    }

    #[test]
    fn no_line_of_likely_parts_makes_the_parser_stumble(
        parts in prop::collection::vec(prop::sample::select(vec![
            "@revoked", "@cert-authority", "@", "|1|", "|1|AAAA|AAAA", "node", "*", "!", ",", "[n]:22", "ssh-ed25519",
            "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ", "AAAA", "=", " ", "\t", "\n", "#",
        ]), 0..12)
    ) {
        let text = parts.concat();
        let hosts = KnownHosts::parse(&text);
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')).count();
        prop_assert_eq!(hosts.entries.len() + hosts.ignored.len(), lines, "each line is an entry or ignored");
        hosts.lookup("node", 22, &a());
    }

    #[test]
    fn what_was_appended_is_known_until_it_is_forgotten(
        hosts in prop::collection::btree_set("[a-z0-9.-]{1,12}", 1..6), port in 1_u16.., pick: prop::sample::Index
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        let mut text = String::new();
        for host in &hosts {
            KnownHosts::append(&path, host, port, &a()).unwrap();
            writeln!(text, "{} {A}", known_name(host, port)).unwrap();
        }
        let hosts: Vec<_> = hosts.into_iter().collect();
        let gone = pick.get(&hosts);
        prop_assert_eq!(KnownHosts::forget(&path, gone, port).unwrap(), 1);
        let read = KnownHosts::load(&path).unwrap();
        for host in &hosts {
            let expected = if host == gone { Verdict::Unknown } else { Verdict::Known };
            prop_assert_eq!(read.lookup(host, port, &a()), expected);
        }
    }
}
