use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn resolve(text: &str, alias: &str) -> ResolvedHost {
    SshConfig::parse(text).resolve(alias)
}

#[test]
fn the_first_value_of_an_option_counts() {
    let text = "User early\nHost node1\n  HostName 10.0.0.1\n  User late\n  Port 2222\nHost *\n  Port 22\n  IdentityFile ~/.ssh/all\n";
    let node = resolve(text, "node1");
    assert_eq!(
        (node.hostname.as_str(), node.user.as_deref(), node.port),
        ("10.0.0.1", Some("early"), Some(2222))
    );
    assert_eq!(node.identity_files, [PathBuf::from("~/.ssh/all")]);
    let other = resolve(text, "elsewhere");
    assert_eq!((other.hostname.as_str(), other.port), ("elsewhere", Some(22)));
}

#[rstest]
#[case("Port 2222")]
#[case("port=2222")]
#[case("PORT = 2222")]
#[case("\tPort\t2222\t")]
#[case("Port=\"2222\"")]
#[case("Port 2222 # the usual one")]
#[case("  Port   =   2222  ")]
fn options_are_written_in_many_ways(#[case] line: &str) {
    assert_eq!(resolve(line, "x").port, Some(2222), "{line:?}");
}

#[test]
fn quotes_hold_blanks_together() {
    let node = resolve(
        "IdentityFile \"/a b/key\"\nIdentityFile '/c d'\nIdentityFile /e\\ f\nIdentityFile /a\\\\b",
        "x",
    );
    assert_eq!(node.identity_files, ["/a b/key", "/c d", "/e f", "/a\\b"].map(PathBuf::from));
    let hosts = resolve("UserKnownHostsFile \"/a b\" /c\nUserKnownHostsFile /later", "x");
    assert_eq!(hosts.user_known_hosts, ["/a b", "/c"].map(PathBuf::from));
}

#[test]
fn patterns_and_exclusions_choose_the_block() {
    let text = "Host node? !node3 *.lan\n  User taken\n";
    for (alias, taken) in
        [("node1", true), ("node3", false), ("a.lan", true), ("node10", false), ("NODE1", true)]
    {
        assert_eq!(resolve(text, alias).user.is_some(), taken, "{alias}");
    }
    assert_eq!(SshConfig::parse("Host a b* !c\nHost a d\n").aliases(), ["a", "d"]);
}

#[test]
fn every_option_that_matters_is_read() {
    let text = "Host n\nHostName %h.lan%%\nIdentitiesOnly yes\nIdentityAgent SSH_AUTH_SOCK\nStrictHostKeyChecking Accept-New\n\
                ConnectTimeout 1m30\nServerAliveInterval 15\nServerAliveCountMax 4\nHostKeyAlias alias\nProxyJump me@a:2222,b\n";
    let node = resolve(text, "n");
    assert_eq!(node.hostname, "n.lan%");
    assert!(node.identities_only);
    assert_eq!(node.identity_agent.as_deref(), Some("SSH_AUTH_SOCK"));
    assert_eq!(node.strict_host_key_checking.as_deref(), Some("accept-new"));
    assert_eq!(node.connect_timeout, Some(Duration::from_secs(90)));
    assert_eq!(
        (node.server_alive_interval, node.server_alive_count_max),
        (Some(Duration::from_secs(15)), Some(4))
    );
    assert_eq!(node.host_key_alias.as_deref(), Some("alias"));
    let hop = |user: Option<&str>, host: &str, port| JumpSpec {
        user: user.map(str::to_owned),
        host: host.into(),
        port,
    };
    assert_eq!(node.proxy_jump, [hop(Some("me"), "a", Some(2222)), hop(None, "b", None)]);
    assert_eq!(node.warnings, []);
}

#[test]
fn none_switches_off_and_still_counts_as_first() {
    let text = "Host n\nProxyJump none\nIdentityFile /a\nIdentityFile none\nHost *\nProxyJump hop\nProxyCommand nc %h\n";
    let node = resolve(text, "n");
    assert_eq!((node.proxy_jump.len(), node.identity_files.len(), node.warnings.len()), (0, 0, 0));
    assert_eq!(resolve(text, "m").proxy_jump.len(), 1);
}

#[rstest]
#[case("host", Some((None, "host", None)))]
#[case("u@host:1", Some((Some("u"), "host", Some(1))))]
#[case("u@dom@host", Some((Some("u@dom"), "host", None)))]
#[case("[::1]:22", Some((None, "::1", Some(22))))]
#[case("[::1]", Some((None, "::1", None)))]
#[case("::1", Some((None, "::1", None)))]
#[case("ssh://u@host:1/", Some((Some("u"), "host", Some(1))))]
#[case("", None)]
#[case("host:", None)]
#[case("host:0", None)]
#[case("host:99999", None)]
#[case("[::1", None)]
#[case("[::1]x", None)]
#[case("u@", None)]
fn a_hop_is_read(#[case] text: &str, #[case] expected: Option<(Option<&str>, &str, Option<u16>)>) {
    let expected = expected.map(|(user, host, port)| JumpSpec {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
    });
    assert_eq!(JumpSpec::parse(text), expected, "{text}");
}

#[test]
fn what_is_not_understood_is_told_and_left_out() {
    let text = "Match host n exec \"true\"\n  User matched\nHost n\n  Port many\n  ProxyCommand nc %h %p\n  User \"open\n  Unknown thing\nMatch all\n  Port 7\nInclude x\n";
    let config = SshConfig::parse(text);
    let lines: Vec<usize> = config.warnings().iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [1, 6, 10], "{:?}", config.warnings());
    let node = config.resolve("n");
    assert_eq!((node.user, node.port), (None, Some(7)), "`Match all` is everybody");
    assert_eq!(
        node.warnings.iter().map(|warning| warning.line).collect::<Vec<_>>(),
        [4, 5],
        "{:?}",
        node.warnings
    );
}

#[test]
fn includes_stand_where_their_line_stood() {
    let mut asked = Vec::new();
    let text = "Include first ~/second\nHost n\n  Include inner\n  User outer\nPort 1\n";
    let config = SshConfig::parse_with(text, |wanted| {
        asked.push(wanted.to_owned());
        match wanted {
            "first" => vec!["Host n\nPort 5\n".into()],
            "inner" => vec!["IdentityFile /inner\nHost other\nUser nobody\n".into()],
            _ => Vec::new(),
        }
    });
    assert_eq!(asked, ["first", "~/second", "inner"]);
    assert_eq!(config.warnings().len(), 1, "an include that gives nothing is told");
    let node = config.resolve("n");
    assert_eq!(
        (node.port, node.user.as_deref()),
        (Some(5), Some("outer")),
        "a block of an included text ends with it"
    );
    assert_eq!(node.identity_files, [PathBuf::from("/inner")]);
    let other = config.resolve("other");
    assert_eq!(
        (other.user, other.identity_files.len()),
        (None, 0),
        "an include inside a block is for that block only"
    );
}

#[test]
fn an_include_of_itself_ends() {
    let config = SshConfig::parse_with("Include me", |_| vec!["Include me\nUser x".into()]);
    assert_eq!(config.resolve("n").user.as_deref(), Some("x"));
    assert!(config.warnings().iter().any(|warning| warning.text.contains("too deeply")));
}

#[rstest]
#[case("90", Some(90))]
#[case("1m", Some(60))]
#[case("1h30m5s", Some(5405))]
#[case("2D", Some(172_800))]
#[case("1w", Some(604_800))]
#[case("1m30", Some(90))]
#[case("", None)]
#[case("m", None)]
#[case("1x", None)]
#[case("99999999999999999999", None)]
#[case("9999999999999999w", None)]
fn times_are_read_as_openssh_reads_them(#[case] text: &str, #[case] seconds: Option<u64>) {
    assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_stumble(text in "(?s).{0,400}", alias in ".{0,20}") {
        SshConfig::parse(&text).resolve(&alias);
    }

    #[test]
    fn no_text_of_likely_parts_makes_the_parser_stumble(
        parts in prop::collection::vec(prop::sample::select(vec![
            "Host", "Match", "all", "Include", "Port", "User", "ProxyJump", "HostName", "%h", "%%", "%", "\"", "'", "\\", "=",
            " ", "\t", "\n", "#", "*", "!", "a", "22", "none", ",", "@", "[", "]", ":", "ConnectTimeout", "\u{0}", "é",
        ]), 0..25)
    ) {
        let text = parts.concat();
        SshConfig::parse_with(&text, |_| vec![text.clone()].into_iter().filter(|text| text.matches("nclude").count() < 2).collect()).resolve("a");
    }

    #[test]
    fn a_quoted_value_comes_back(value in "[^\"\\\\\r\n\u{0}]{1,40}") {
        let node = resolve(&format!("IdentityFile \"{value}\""), "x");
        prop_assume!(!value.eq_ignore_ascii_case("none"));
        prop_assert_eq!(node.identity_files, [PathBuf::from(value)]);
    }
}
