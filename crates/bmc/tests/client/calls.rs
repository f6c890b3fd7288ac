//! Ordinary calls: what goes over the wire, and what never does.

use std::time::Duration;

use turingpi_bmc::{
    BmcClient, BmcError, BmcTimeouts, Capability, Generation, PerSlot, Power, Slot, UartText, UsbMode,
    UsbRoute, Version,
};

use crate::server::{ABOUT_2_0_5, Answer, OK, PASSWORD, Server, timeouts};

fn uart(text: &str) -> Answer {
    Answer::json(&serde_json::json!({ "response": [{ "uart": text }] }).to_string())
}

fn about(version: &str) -> String {
    format!(r#"{{"response":[{{"result":{{"api":"1.1","version":"{version}"}}}}]}}"#)
}

#[tokio::test]
async fn many_slots_are_switched_with_one_request_and_none_without_a_change() {
    let server = Server::start().await;
    let client = server.client();
    client.set_power(&PerSlot::new([None; 4])).await.unwrap();
    assert!(server.seen().is_empty());
    client
        .set_power(&PerSlot::new([Some(Power::Off), None, Some(Power::On), Some(Power::On)]))
        .await
        .unwrap();
    assert_eq!(server.lines().last().unwrap(), "GET /api/bmc?opt=set&type=power&node1=0&node3=1&node4=1");
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_told_and_not_repeated() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    server.script("type=reset", Answer::Close, 1);
    let error = client.reset(Slot::ALL[0]).await.unwrap_err();
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    assert_eq!(server.count("type=reset"), 1);
    client.reset(Slot::ALL[0]).await.unwrap();
}

#[tokio::test]
async fn a_slow_or_endless_answer_ends_at_the_limit() {
    let server = Server::start().await;
    let client = server.client_with(BmcTimeouts { call: Duration::from_secs(5), ..timeouts() }, PASSWORD);
    client.about().await.unwrap();
    server.script("type=power", Answer::Hang, 1);
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Stalled { .. }), "{error:?}");
    // A length that never comes.
    let promised = b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"resp".to_vec();
    server.script("type=power", Answer::Raw(promised), 1);
    let error = client.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
    // More than any answer has.
    let mut flood = b"HTTP/1.1 200 X\r\n\r\n".to_vec();
    flood.resize(6 * 1024 * 1024, b' ');
    server.script("type=power", Answer::Raw(flood), 1);
    let slow = server.client();
    let error = slow.power().await.unwrap_err();
    assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
    slow.about().await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_leaves_no_half_used_connection_behind() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    server.script("type=power", Answer::Hang, 1);
    tokio::select! {
        biased;
        _ = client.power() => panic!("it hangs"),
        () = async { while server.count("type=power") == 0 { tokio::time::sleep(Duration::from_millis(1)).await } } => {}
    }
    // The next answer is its own, over a new connection.
    assert_eq!(client.about().await.unwrap().version, Version::new(2, 3, 4));
    assert_eq!(server.state.lock().unwrap().connections, 2);
}

#[tokio::test]
async fn an_error_names_what_was_attempted_and_where() {
    let server = Server::start().await;
    let client = server.client();
    server.script("type=reset", Answer::plain(500, "no"), 1);
    let error = client.reset(Slot::ALL[2]).await.unwrap_err();
    let place = server.url.port().unwrap();
    assert_eq!(error.to_string(), format!("cannot reset slot 3 (BMC 127.0.0.1:{place}): HTTP 500: no"));
}

#[tokio::test]
async fn usb_modes_go_out_in_the_firmwares_own_numbers() {
    let cases = [
        ("2.3.4", UsbMode::Device, UsbRoute::Port, Some(1)),
        ("2.3.4", UsbMode::Flash, UsbRoute::Port, Some(2)),
        ("2.3.4", UsbMode::Host, UsbRoute::Bmc, Some(4)),
        ("2.3.4", UsbMode::Device, UsbRoute::Bmc, Some(5)),
        ("2.3.4", UsbMode::Flash, UsbRoute::Bmc, Some(6)),
        ("2.0.4", UsbMode::Flash, UsbRoute::Bmc, Some(6)),
        ("2.0.3", UsbMode::Device, UsbRoute::Bmc, Some(3)),
        ("2.0.3", UsbMode::Host, UsbRoute::Bmc, Some(2)),
        ("2.0.3", UsbMode::Flash, UsbRoute::Bmc, None),
    ];
    for (version, mode, route, number) in cases {
        let server = Server::start().await;
        server.set(|state| state.about = about(version));
        let single = r#"{"response":[{"result":[{"bus_type":"Single bus","mode":"Device","node":"Node 1","route":"UsbA"}]}]}"#;
        server.script("opt=get&type=usb", Answer::json(single), usize::MAX);
        let result = server.client().set_usb(Slot::ALL[3], mode, route).await;
        match number {
            Some(number) => {
                result.unwrap();
                let expected = format!("GET /api/bmc?opt=set&type=usb&node=3&mode={number}");
                assert_eq!(server.lines().last(), Some(&expected), "{version} {mode:?} {route:?}");
            }
            None => {
                let error = result.unwrap_err();
                assert!(
                    matches!(error, BmcError::Unsupported { capability: Capability::UsbFlash, .. }),
                    "{error:?}"
                );
                assert_eq!(server.count("opt=set"), 0);
            }
        }
    }
}

#[tokio::test]
async fn the_host_role_is_refused_on_a_hub_before_the_board_moves_a_pin() {
    let server = Server::start().await;
    let hub = r#"{"response":[{"result":[{"bus_type":"Usb hub","mode":"Device","node":"Node 1","route":"AlternativePort"}]}]}"#;
    server.script("opt=get&type=usb", Answer::json(hub), usize::MAX);
    let error = server.client().set_usb(Slot::ALL[0], UsbMode::Host, UsbRoute::Port).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::UsbHost, .. }), "{error:?}");
    assert_eq!(server.count("opt=set"), 0);
}

#[tokio::test]
async fn a_ring_that_keeps_its_text_is_read_without_repetition() {
    let server = Server::start().await;
    let client = server.client();
    let reads = [
        "old text\r\n",
        "old text\r\nturing login: ",
        "old text\r\nturing login: ",
        "old text\r\nturing login: root\r\n",
    ];
    for read in reads {
        server.script("type=uart&node=1", uart(read), 1);
    }
    let mut mark = client.uart_mark(Slot::ALL[1]).await.unwrap();
    for expected in ["turing login: ", "", "root\r\n"] {
        assert_eq!(client.uart_since(&mut mark).await.unwrap(), UartText::new(expected, false));
    }
    assert!(!format!("{mark:?}").contains("login"), "a console may show passwords");
}

#[tokio::test]
async fn a_buffer_that_reading_empties_is_read_as_it_comes() {
    let server = Server::start().await;
    server.set(|state| state.about = ABOUT_2_0_5.to_owned());
    let client = server.client();
    for read in ["old text\r\n", "login: ", "", "login: ", &"x".repeat(16 * 1024)] {
        server.script("type=uart&node=0", uart(read), 1);
    }
    let mut mark = client.uart_mark(Slot::ALL[0]).await.unwrap();
    // The same text again is new text here.
    for expected in ["login: ", "", "login: "] {
        assert_eq!(client.uart_since(&mut mark).await.unwrap(), UartText::new(expected, false));
    }
    assert!(client.uart_since(&mut mark).await.unwrap().gap, "a full buffer may have lost text");
}

#[tokio::test]
async fn a_mark_survives_a_failed_read() {
    let server = Server::start().await;
    let client = server.client();
    server.script("type=uart", uart("before"), 1);
    server.script("type=uart", Answer::Close, 1);
    server.script("type=uart", uart("before and after"), 1);
    let mut mark = client.uart_mark(Slot::ALL[0]).await.unwrap();
    let kept = mark.clone();
    client.uart_since(&mut mark).await.unwrap_err();
    assert_eq!(mark, kept);
    assert_eq!(client.uart_since(&mut mark).await.unwrap(), UartText::new(" and after", false));
}

#[tokio::test]
async fn firmware_1_x_is_asked_only_what_it_answers() {
    let server = Server::plain().await;
    let other = r#"{"response":[{"version":"1.0.2","buildtime":"2023-06-01","ip":"192.168.1.90","mac":"02:00:4a:ea:dd:34"}]}"#;
    server.script("type=other", Answer::plain(200, other), usize::MAX);
    server.script("opt=set&type=power", Answer::plain(200, OK), usize::MAX);
    let client = server.client();
    let found = client.about().await.unwrap();
    assert_eq!(
        (found.generation, found.firmware_version()),
        (Generation::Legacy, Some(Version::new(1, 0, 2)))
    );
    client.set_power(&PerSlot::new([Some(Power::On); 4])).await.unwrap();
    // 1.0 says "ok" to a reset and does nothing; it never answers a question about transfers.
    let error = client.reset(Slot::ALL[0]).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::Reset, .. }), "{error:?}");
    client.transfer().await.unwrap_err();
    for line in server.lines() {
        assert!(line.contains("type=other") || line.contains("type=power"), "{line}");
    }
}

#[tokio::test]
async fn a_redirect_to_https_says_to_use_it() {
    let server = Server::plain().await;
    server.script("/api/bmc", Answer::Reply(308, None, String::new()), usize::MAX);
    let error = server.client().about().await.unwrap_err();
    assert!(error.hint().contains("https://"), "{error:?}");
}

#[tokio::test]
async fn a_proxys_path_stands_before_the_apis() {
    let server = Server::start().await;
    for (path, expected) in [("/board1/", "/board1/api/bmc?"), ("/x/api/bmc", "/x/api/bmc?")] {
        let client = turingpi_bmc::HttpBmcClient::builder(server.url.join(path).unwrap())
            .credentials("root", secrecy::SecretString::from(PASSWORD))
            .trust(turingpi_bmc::Trust::Pin(server.fingerprint))
            .build()
            .unwrap();
        client.about().await.unwrap();
        assert!(server.lines().last().unwrap().contains(expected), "{:?}", server.lines());
    }
}

#[test]
fn capabilities_follow_the_generations() {
    use turingpi_bmc::About;
    let has = |version: Version, capability| About::new(version).has(capability);
    let v = Version::new;
    assert!(!has(v(1, 0, 2), Capability::Reset) && has(v(1, 1, 0), Capability::Reset));
    assert!(!has(v(2, 0, 0), Capability::Ban) && has(v(2, 0, 1), Capability::Ban));
    assert!(!has(v(2, 0, 2), Capability::Cancel) && has(v(2, 0, 3), Capability::Cancel));
    assert!(!has(v(2, 0, 5), Capability::Xz) && has(v(2, 3, 4), Capability::Xz));
    assert!(!has(v(2, 0, 5), Capability::UartKeeps) && has(v(2, 3, 2), Capability::UartKeeps));
    assert_eq!(About::new(v(2, 3, 4)).firmware_version(), Some(v(2, 1, 0)));
    assert_eq!(About::new(v(2, 3, 7)).firmware_version(), None);
    let legacy: Vec<_> = About::of(Generation::Legacy).capabilities().iter().collect();
    use Capability::{ClearUsbBoot, MassStorage, Reset, UsbHost};
    assert_eq!(legacy, [UsbHost, Reset, ClearUsbBoot, MassStorage]);
    assert!(About::new(v(2, 3, 4)).may_flash_another_slot(), "an unknown board may have a hub");
}

#[tokio::test]
async fn what_is_said_back_of_a_login_or_a_token_gets_into_no_error() {
    // The factory's password: six letters, too short to be found in a text without garbling it.
    let password = "turing";
    for status in [400, 404, 500, 502, 503] {
        let server = Server::start().await;
        let client = server.client_with(timeouts(), password);
        let echo = format!(r#"cannot parse {{"username":"root","password":"{password}"}}"#);
        server.script("authenticate", Answer::plain(status, &echo), 1);
        let error = client.power().await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.replace("turingpi", "").contains(password), "{said}");

        // And a token, in the answer to any call.
        let client = server.client();
        client.about().await.unwrap();
        let token = server.state.lock().unwrap().tokens.last().unwrap().clone();
        server.script("type=reset", Answer::plain(status, &format!("no luck with {token}")), 1);
        let error = client.reset(Slot::ALL[0]).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains(&token), "{said}");
        assert!(said.contains("no luck") || status == 404, "{said}");
    }
}
