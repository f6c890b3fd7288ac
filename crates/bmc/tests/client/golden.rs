//! Answers as firmware of every generation gives them, one file each: what was called, what must come out, and the answer.

use std::{fs, path::Path};

use serde_json::{Value, json};
use turingpi_bmc::{
    BmcClient, BmcError, HttpBmcClient, NodeInfoChange, PerSlot, Power, RemoteImage, Slot, UartEncoding,
    UsbMode, UsbRoute,
};

use crate::server::{Answer, HANDLE, Server, moving};

struct Case {
    name: String,
    call: String,
    expect: String,
    answer: Answer,
}

fn read(path: &Path) -> Case {
    let text = fs::read_to_string(path).unwrap();
    let (head, body) = text.split_once("---\n").unwrap();
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let kind = match field("content-type").as_deref() {
        None => None,
        Some("application/json") => Some("application/json"),
        Some("application/problem+json") => Some("application/problem+json"),
        Some("text/plain; charset=utf-8") => Some("text/plain; charset=utf-8"),
        Some("text/plain") => Some("text/plain"),
        Some("text/html") => Some("text/html"),
        Some(other) => panic!("{}: {other}", path.display()),
    };
    let body = body.strip_suffix('\n').unwrap().to_owned();
    let status = field("status").unwrap().parse().unwrap();
    Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        call: field("call").unwrap(),
        expect: field("expect").unwrap(),
        answer: Answer::Reply(status, kind, body),
    }
}

fn cases(profile: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(profile);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

async fn call(client: &HttpBmcClient, name: &str) -> Result<Value, BmcError> {
    let slot = Slot::ALL[0];
    Ok(match name {
        "about" => json!(client.about().await?),
        "info" => json!(client.info().await?),
        "power" => json!(client.power().await?),
        "set_power" => {
            let mut change = PerSlot::new([None; 4]);
            change[slot] = Some(Power::On);
            json!(client.set_power(&change).await?)
        }
        "reset" => json!(client.reset(slot).await?),
        "usb" => json!(client.usb().await?),
        "set_usb" => json!(client.set_usb(slot, UsbMode::Device, UsbRoute::Port).await?),
        "uart" => {
            // Drained or not: what is read after an empty beginning is all there is.
            let mut mark = turingpi_bmc::UartMark::start(slot);
            json!(client.uart_since(&mut mark).await?.text)
        }
        "transfer" => json!(client.transfer().await?),
        "node_info" => json!(client.node_info().await?),
        "set_node_info" => {
            let mut change = PerSlot::new([const { None }; 4]);
            change[slot] =
                Some(NodeInfoChange { name: Some("alpha".to_owned()), ..NodeInfoChange::default() });
            json!(client.set_node_info(&change).await?)
        }
        "cooling" => json!(client.cooling().await?),
        "set_cooling" => json!(client.set_cooling("system fan", 3).await?),
        "temperatures" => json!(client.temperatures().await?),
        "sd_card" => json!(client.sd_card().await?),
        "usb_node1" => json!(client.usb_node1_alternative().await?),
        "set_usb_node1" => json!(client.set_usb_node1_alternative(true).await?),
        "usb_boot" => json!(client.usb_boot(slot).await?),
        "clear_usb_boot" => json!(client.clear_usb_boot().await?),
        "mass_storage" => json!(client.mass_storage(slot).await?),
        "reset_network" => json!(client.reset_network().await?),
        "serial_status" => json!(client.serial_status().await?),
        "reboot" => json!(client.reboot().await?),
        "reload" => json!(client.reload().await?),
        "cancel" => json!(client.cancel_transfer().await?),
        "uart_utf16" => json!(client.uart_read(slot, UartEncoding::Utf16).await?),
        "uart_send" => json!(client.uart_send(slot, "root").await?),
        "start" => {
            let image = RemoteImage::file("/mnt/sdcard/armbian.img.xz").unwrap();
            json!(client.flash_remote(slot, image, &|_| {}).await?)
        }
        other => panic!("{other}"),
    })
}

/// The part of a request's line that a call's answer belongs to.
fn request(profile: &str, call: &str) -> &'static str {
    match call {
        "about" if matches!(profile, "fw1_1" | "bmcd2_0_0") => "opt=get&type=other",
        "about" => "opt=get&type=about",
        "info" if matches!(profile, "fw1_1" | "bmcd2_0_0") => "opt=get&type=other",
        "info" => "opt=get&type=info",
        "power" => "opt=get&type=power",
        "set_power" => "opt=set&type=power",
        "reset" => "opt=set&type=reset",
        "usb" => "opt=get&type=usb",
        "set_usb" => "opt=set&type=usb",
        "uart" => "opt=get&type=uart",
        "transfer" => "opt=get&type=flash",
        "node_info" if profile == "fw1_1" => "opt=get&type=nodeinfo",
        "node_info" => "opt=get&type=node_info",
        "set_node_info" => "POST /api/bmc?opt=set&type=node_info",
        "cooling" => "opt=get&type=cooling",
        "set_cooling" => "opt=set&type=cooling&device=system%20fan&speed=3",
        "temperatures" => "opt=get&type=thermal",
        "sd_card" => "opt=get&type=sdcard",
        "usb_node1" => "opt=get&type=usb_node1",
        "set_usb_node1" => "opt=set&type=usb_node1&alternative_port",
        "usb_boot" => "opt=set&type=usb_boot&node=0",
        "clear_usb_boot" => "opt=set&type=clear_usb_boot",
        "mass_storage" => "opt=set&type=node_to_msd&node=0",
        "reset_network" => "opt=set&type=network&cmd=reset",
        "serial_status" => "POST /api/bmc/serial/status",
        "reboot" => "opt=set&type=reboot",
        "reload" => "opt=set&type=reload",
        "cancel" => "GET /api/bmc/upload/218651785/cancel",
        "uart_utf16" => "opt=get&type=uart&node=0&encoding=utf16",
        "uart_send" => "opt=set&type=uart&node=0&cmd=root",
        "start" => "opt=set&type=flash&node=0&local&file=%2Fmnt%2Fsdcard%2Farmbian.img.xz",
        other => panic!("{other}"),
    }
}

async fn check(profile: &str) {
    let legacy = profile == "fw1_1";
    let server = if legacy { Server::plain().await } else { Server::start().await };
    let cases = cases(profile);
    assert!(cases.len() >= 2, "{profile}");
    let about = cases.iter().find(|case| case.name == "about").unwrap().answer.clone();
    for case in &cases {
        let client = server.client();
        server.set(|state| state.script.clear());
        // The case's answer once, for the call; the profile's own for the detection before it.
        let about_call = request(profile, "about");
        if request(profile, &case.call) == about_call && case.call != "about" {
            server.script(about_call, about.clone(), 1);
        }
        server.script(request(profile, &case.call), case.answer.clone(), 1);
        server.script(about_call, about.clone(), usize::MAX);
        if case.call == "cancel" {
            server.set(|state| state.transfer = [moving(HANDLE, 5, 10)].into());
        } else {
            server.set(|state| state.transfer = [Answer::plain(200, "\"Ready\"")].into());
        }
        if profile == "bmcd2_0_0" {
            let unknown = r#"{"response":[{"result":"Invalid `type` parameter about"}]}"#;
            server.script(
                "type=about",
                Answer::Reply(400, Some("application/json"), unknown.to_owned()),
                usize::MAX,
            );
        }
        let result = call(&client, &case.call).await;
        let name = format!("{profile}/{}", case.name);
        match (case.expect.strip_prefix("error "), result) {
            (None, Ok(value)) => {
                assert_eq!(value, serde_json::from_str::<Value>(&case.expect).unwrap(), "{name}");
            }
            (Some(expected), Err(error)) => {
                let (kind, text) = expected.split_once(' ').unwrap();
                assert_eq!(format!("{:?}", error.kind()), kind, "{name}: {error}");
                assert!(error.to_string().contains(text), "{name}: `{error}` does not say `{text}`");
            }
            (_, other) => panic!("{name}: {other:?} instead of {}", case.expect),
        }
    }
}

#[tokio::test]
async fn firmware_1_1_is_understood() {
    check("fw1_1").await;
}
#[tokio::test]
async fn bmcd_2_0_0_is_understood() {
    check("bmcd2_0_0").await;
}
#[tokio::test]
async fn bmcd_2_0_5_is_understood() {
    check("bmcd2_0_5").await;
}
#[tokio::test]
async fn bmcd_2_3_4_is_understood() {
    check("bmcd2_3_4").await;
}
#[tokio::test]
async fn bmcd_2_3_7_is_understood() {
    check("bmcd2_3_7").await;
}
#[tokio::test]
async fn community_firmware_is_understood() {
    check("community").await;
}
