//! The BMC itself: reboot, restart, backup, is it there.

use std::time::Duration;

use turingpi_bmc::{BmcClient, BmcError, PerSlot, Power, Slot};

use crate::server::{Answer, OK, Server};

const POWER: &str = r#"{"response":[{"result":[{"node1":"0","node2":"0","node3":"0","node4":"0"}]}]}"#;

#[tokio::test]
async fn a_token_is_forgotten_before_the_bmc_forgets_it() {
    for (path, reload) in [("type=reboot", false), ("type=reload", true)] {
        let server = Server::start().await;
        let client = server.client();
        client.about().await.unwrap();
        assert!(client.saved_token().is_some());
        if reload {
            client.reload().await.unwrap()
        } else {
            client.reboot().await.unwrap()
        }
        assert!(client.saved_token().is_none(), "a later run would be blocked for using it");
        assert_eq!(server.count(path), 1);
        assert_eq!(server.count("fel"), 0, "the board would stay dark");
        server.set(|state| state.tokens.clear());
        client.about().await.unwrap();
        assert_eq!(server.count("authenticate"), 2);
        let old: Vec<_> =
            server.seen().into_iter().rev().take_while(|s| !s.line.contains("authenticate")).collect();
        let old_token = format!("Bearer {:0>64}", "TOKEN1");
        for seen in old {
            assert!(
                !seen.headers.iter().any(|(_, value)| *value == old_token),
                "a stale token was used: {}",
                seen.line
            );
        }
    }
}

#[tokio::test]
async fn a_stale_token_is_found_out_before_a_reboot_is_asked_for() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    server.set(|state| state.tokens.clear());
    client.reboot().await.unwrap();
    assert_eq!((server.count("type=reboot"), server.count("authenticate")), (1, 2));
}

#[tokio::test]
async fn a_daemon_that_is_gone_before_its_answer_has_restarted() {
    let server = Server::start().await;
    server.script("type=reload", Answer::Close, 1);
    server.client().reload().await.unwrap();
    // A reboot is another matter: nobody knows.
    server.script("type=reboot", Answer::Close, 1);
    let error = server.client().reboot().await.unwrap_err();
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_ping_needs_no_login_and_a_block_does_not_hide_the_bmc() {
    let server = Server::start().await;
    let client = server.client();
    client.ping().await.unwrap();
    assert_eq!(server.count("authenticate"), 0);
    assert!(!server.seen()[0].headers.iter().any(|(name, _)| name == "authorization"));
    let banned = "Exceeded allowed authentication attempts. Access blocked for 59s";
    server.script("type=other", Answer::Reply(401, None, banned.to_owned()), 1);
    client.ping().await.unwrap();
    client.about().await.unwrap();
    client.ping().await.unwrap();
    let last = server.seen().pop().unwrap();
    assert!(!last.headers.iter().any(|(name, _)| name == "authorization"), "a token of before a reboot");
    server.script("type=other", Answer::Reply(502, Some("text/html"), "<html>".to_owned()), 1);
    let error = client.ping().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_backup_is_passed_on_as_it_comes_however_long_it_is() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..6 * 1024 * 1024u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut raw =
        b"HTTP/1.1 200 X\r\ncontent-type: application/gzip\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in bytes.chunks(100_000) {
        raw.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        raw.extend_from_slice(piece);
        raw.extend(b"\r\n");
    }
    raw.extend(b"0\r\n\r\n");
    server.script("/backup", Answer::Raw(raw.clone()), 1);
    let client = server.client();
    let mut got = Vec::new();
    assert_eq!(client.backup(&mut got).await.unwrap(), bytes.len() as u64);
    assert!(got == bytes);
    // Cut off in the middle it is none.
    raw.truncate(3 * 1024 * 1024);
    server.script("/backup", Answer::Raw(raw), 1);
    let error = client.backup(&mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
    // The web page instead of it, an error, nothing.
    let error = client.backup(&mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
    server.script("/backup", Answer::plain(500, "tar failed"), 1);
    let error = client.backup(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("tar failed"), "{error}");
    server.script("/backup", Answer::Reply(200, Some("application/gzip"), String::new()), 1);
    let error = client.backup(&mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
    client.about().await.unwrap();
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_names_the_disk_and_not_the_bmc() {
    let server = Server::start().await;
    server.script("/backup", Answer::Reply(200, Some("application/gzip"), "x".repeat(1000)), 1);
    let mut full = [0u8; 10];
    let error = server.client().backup(&mut std::io::Cursor::new(&mut full[..])).await.unwrap_err();
    assert!(matches!(error, BmcError::Local { .. }), "{error:?}");
}

#[tokio::test]
async fn a_power_cycle_leaves_the_slot_on() {
    let server = Server::start().await;
    server.script("type=power", Answer::json(OK), usize::MAX);
    server.client().power_cycle(Slot::ALL[2], Duration::from_millis(1)).await.unwrap();
    let lines = server.lines();
    assert!(lines[lines.len() - 2].ends_with("type=power&node3=0"), "{lines:?}");
    assert!(lines[lines.len() - 1].ends_with("type=power&node3=1"), "{lines:?}");
}

#[tokio::test]
async fn leaving_mass_storage_mode_releases_the_pins_before_the_reset() {
    let server = Server::start().await;
    server.client().normal_mode(Slot::ALL[1]).await.unwrap();
    let lines = server.lines();
    assert!(lines[lines.len() - 2].ends_with("type=clear_usb_boot"), "{lines:?}");
    assert!(lines[lines.len() - 1].ends_with("type=reset&node=1"), "{lines:?}");
}

#[tokio::test]
async fn names_of_nodes_go_out_in_one_request_and_nothing_without_a_change() {
    let server = Server::start().await;
    server.script("type=node_info", Answer::Reply(200, None, String::new()), usize::MAX);
    let client = server.client();
    client.set_node_info(&PerSlot::new([const { None }; 4])).await.unwrap();
    let empty = turingpi_bmc::NodeInfoChange::default();
    client.set_node_info(&PerSlot::new([Some(empty), None, None, None])).await.unwrap();
    assert!(server.seen().is_empty());
    let name = turingpi_bmc::NodeInfoChange {
        name: Some("alpha".into()),
        uart_baud: Some(9600),
        ..Default::default()
    };
    client.set_node_info(&PerSlot::new([None, None, None, Some(name)])).await.unwrap();
    let seen = server.seen().pop().unwrap();
    assert_eq!(seen.line, "POST /api/bmc?opt=set&type=node_info");
    assert!(seen.headers.contains(&("content-type".to_owned(), "application/json".to_owned())));
    assert_eq!(seen.body, br#"{"Node4":{"name":"alpha","uart_baud":9600}}"#);
}

#[tokio::test]
async fn after_a_reset_of_the_network_the_next_call_gets_its_own_connection() {
    let server = Server::start().await;
    server.script("opt=get&type=power", Answer::json(POWER), usize::MAX);
    let client = server.client();
    client.reset_network().await.unwrap();
    assert_eq!(client.power().await.unwrap(), PerSlot::new([Power::Off; 4]));
    assert_eq!(server.state.lock().unwrap().connections, 2);
}

#[tokio::test]
async fn what_firmware_1_x_would_never_answer_is_not_asked() {
    let server = Server::plain().await;
    let other = r#"{"response":[{"version":"1.1.0","buildtime":"2023-07-28","ip":"192.168.1.90","mac":"02:00:4a:ea:dd:34"}]}"#;
    server.script("type=other", Answer::plain(200, other), usize::MAX);
    server.script("/api/bmc", Answer::Hang, usize::MAX);
    let client = server.client();
    let slot = Slot::ALL[0];
    let mut sink = Vec::new();
    let refused = [
        client.cooling().await.map(drop),
        client.set_cooling("fan", 1).await,
        client.temperatures().await.map(drop),
        client.usb_node1_alternative().await.map(drop),
        client.set_usb_node1_alternative(true).await,
        client.usb_boot(slot).await,
        client.serial_status().await.map(drop),
        client.cancel_transfer().await.map(drop),
        client.reboot().await,
        client.reload().await,
        client.backup(&mut sink).await.map(drop),
        client.transfer().await.map(drop),
    ];
    for (position, result) in refused.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert!(matches!(error, BmcError::Unsupported { .. }), "{position}: {error:?}");
        assert!(error.to_string().contains("firmware 1.1.0 has no"), "{error}");
        assert!(error.to_string().contains("firmware 2."), "it names what has it: {error}");
    }
    assert_eq!(server.lines().iter().filter(|line| !line.contains("type=other")).count(), 0);
}
