//! `about`, `other`, `info`, `sdcard`: what the BMC says of itself.

use serde_json::{Value, json};

use super::Reply;
use crate::board::{SdCard, daemon::Daemon};

/// The address every board claims: it exists only in these answers.
const ADDRESS: &str = "192.168.1.90";
const MAC: &str = "02:00:4a:ea:dd:34";
/// The BMC's root file system.
const ROOT_TOTAL: u64 = 58_720_256;
const ROOT_FREE: u64 = 24_641_536;
/// What the reference answers count as used on an empty card.
const CARD_OVERHEAD: u64 = 700_653_568;

/// The firmware release that carries the fork's daemon.
const FORK_RELEASE: &str = "v2.42.0";

/// Buildroot, from 2.0.x, from 2.1 and from the fork on.
fn buildroot(daemon: &Daemon) -> &'static str {
    match daemon.profile() {
        profile if profile.is_fork() => "2025.02.17",
        profile if profile.is_modern() => "2024.05.1",
        _ => "2023.08",
    }
}

pub(super) fn about(daemon: &Daemon) -> Reply {
    let (profile, build) = (daemon.profile(), buildroot(daemon));
    let revision = daemon.plan().revision.number();
    let (root, time) = (format!("Buildroot {build}"), profile.build_time);
    Reply::Value(if profile.is_fork() {
        json!({
            "api": "1.1",
            "bmcd_version": profile.version,
            "board_model": "TuringPi2\0\0\0\0\0\0\0",
            "board_revision": format!("v{}", daemon.plan().revision.name()),
            "board_serial": "XZCT000000000",
            "build_version": profile.version,
            "buildroot": build,
            "buildtime": time,
            "hostname": "turingpi",
            "kernel": "6.12.109",
            "version": FORK_RELEASE,
        })
    } else if profile.since(2, 3, 5) {
        json!({
            "api": "1.1",
            "bmcd_version": profile.version,
            // The EEPROM's field is padded with NULs.
            "board_model": "Turing Pi 2\0\0\0\0\0",
            "board_revision": format!("v{revision}"),
            "buildroot": root,
            "buildtime": time,
            "hostname": "turingpi",
            "version": format!("v{build}"),
        })
    } else if profile.is_modern() {
        json!({
            "api": "1.1",
            "board_model": "Turing Pi 2",
            "board_revision": revision,
            "build_version": build,
            "buildroot": root,
            "buildtime": time,
            "hostname": "turingpi",
            "version": profile.version,
        })
    } else {
        json!({
            "api": "1.1",
            "build_version": build,
            "buildroot": root,
            "buildtime": time,
            "version": profile.version,
        })
    })
}

/// Also what port 80 answers without a login.
pub(crate) fn other(daemon: &Daemon) -> Reply {
    let (profile, build) = (daemon.profile(), buildroot(daemon));
    // os-release is read line by line, so its quotes stay.
    let (root, time) = (format!("\"Buildroot {build}\""), profile.build_time);
    Reply::Value(if profile.since(2, 3, 5) {
        let (root, version) = if profile.is_fork() {
            (build.to_owned(), FORK_RELEASE.to_owned())
        } else {
            (root, format!("v{build}"))
        };
        json!([{
            "api": "1.1",
            "buildroot": root,
            "buildtime": time,
            "ip": ADDRESS,
            "mac": MAC,
            "version": version,
        }])
    } else {
        // 2.1.0 asks eth0, but the address is on br0. 2.0.x forgets to trim.
        let modern = profile.is_modern();
        let (ip, mac) = if modern {
            ("Unknown".to_owned(), "Unknown".to_owned())
        } else {
            (ADDRESS.to_owned(), format!("{MAC}\n"))
        };
        json!([{
            "api": "1.1",
            "build_version": build,
            "buildroot": root,
            "buildtime": time,
            "ip": ip,
            "mac": mac,
            "version": profile.version,
        }])
    })
}

pub(super) fn info(daemon: &Daemon) -> Reply {
    let device = if daemon.profile().is_modern() { "br0" } else { "eth0" };
    let mut storage = vec![json!({"bytes_free": ROOT_FREE, "name": "BMC", "total_bytes": ROOT_TOTAL})];
    if let Some(card) = &daemon.plan().sd_card {
        let free = card_free(card);
        storage.push(json!({"bytes_free": free, "name": "SD card", "total_bytes": SdCard::TOTAL_BYTES}));
    }
    Reply::Value(json!({
        "ip": [{"device": device, "ip": ADDRESS, "mac": MAC}],
        "storage": Value::Array(storage),
    }))
}

pub(super) fn sd_card(daemon: &Daemon) -> Reply {
    match &daemon.plan().sd_card {
        Some(card) => {
            let (free, total) = (card_free(card), SdCard::TOTAL_BYTES);
            Reply::Value(json!([{"free": free, "total": total, "use": total - free}]))
        }
        // The daemon forgets to fill its text in.
        None => Reply::bad_request("Failed to get microSD card info: {}"),
    }
}

/// Free bytes on the card.
pub(crate) fn card_free(card: &SdCard) -> u64 {
    let files: u64 = card.files.values().map(|bytes| bytes.len() as u64).sum();
    SdCard::TOTAL_BYTES.saturating_sub(CARD_OVERHEAD + files)
}

/// What the C daemon says of itself.
pub(crate) fn c_daemon_other(version: &str, build_time: &str) -> Value {
    json!({"version": version, "buildtime": build_time, "ip": ADDRESS, "mac": MAC})
}
