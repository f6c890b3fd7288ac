//! `usb`, `usb_node1`, `usb_boot`, `cooling`: what is set for the whole board.

use serde_json::json;

use super::{Reply, node_parameter};
use crate::board::{
    daemon::Daemon,
    query::Query,
    state::{FAN, FAN_MAX, UsbMode, UsbSetting},
    wire::Hangup,
};

pub(super) fn usb(daemon: &Daemon) -> Reply {
    let profile = daemon.profile();
    let UsbSetting { node, mode, to_bmc } = daemon.hardware().usb;
    let (node, mode) = (node + 1, mode.word());
    let node = if profile.since(2, 0, 2) { format!("Node {node}") } else { format!("Node{node}") };
    if !profile.is_modern() {
        let route = if to_bmc { "Bmc" } else { "UsbA" };
        return Reply::Value(json!([{"mode": mode, "node": node, "route": route}]));
    }
    let bus = if daemon.plan().revision.has_hub() { "Usb hub" } else { "Single bus" };
    let route = if to_bmc { "Bmc" } else { "AlternativePort" };
    Reply::Value(json!([{"bus_type": bus, "mode": mode, "node": node, "route": route}]))
}

/// A mode that the daemon has no case for kills the handler.
pub(super) fn set_usb(daemon: &Daemon, query: &Query) -> Result<Reply, Hangup> {
    let node = match node_parameter(query) {
        Ok(node) => node,
        Err(error) => return Ok(error.into()),
    };
    let Some(mode) = query.get("mode") else {
        return Ok(Reply::bad_request("Missing `mode` parameter"));
    };
    let Ok(mode) = mode.parse::<i32>() else {
        return Ok(Reply::bad_request("Parameter `mode` is not a number"));
    };
    let setting = if daemon.profile().since(2, 0, 4) {
        let usb_mode = match mode & 3 {
            0 => UsbMode::Host,
            1 => UsbMode::Device,
            2 => UsbMode::Flash,
            _ => return Err(Hangup),
        };
        UsbSetting { node, mode: usb_mode, to_bmc: mode & 4 != 0 }
    } else {
        let usb_mode = if mode & 1 == 0 { UsbMode::Host } else { UsbMode::Device };
        UsbSetting { node, mode: usb_mode, to_bmc: mode & 2 != 0 }
    };
    Ok(match daemon.store_usb(setting) {
        Ok(()) => Reply::Ok,
        Err(text) => Reply::failed("set USB mode", text),
    })
}

pub(super) fn set_usb_node1(daemon: &Daemon, query: &Query) -> Reply {
    if !daemon.plan().revision.has_hub() {
        let text = "This command is only available on v2.5+ boards";
        return Reply::failed(text, text);
    }
    daemon.hardware().usb_node1 = query.has("alternative_port");
    Reply::Ok
}

pub(super) fn usb_boot(daemon: &Daemon, query: &Query) -> Reply {
    match node_parameter(query) {
        Ok(slot) => {
            daemon.hardware().boot_pins[slot] = true;
            Reply::Ok
        }
        Err(error) => error.into(),
    }
}

pub(super) fn cooling(daemon: &Daemon) -> Reply {
    let speed = daemon.hardware().fan_speed;
    if daemon.profile().is_fork() {
        return Reply::Value(json!([{
            "device": FAN,
            "max_speed": FAN_MAX,
            "overridden": speed > 0,
            "speed": speed,
            "zone": "thermal_zone0",
        }]));
    }
    Reply::Value(json!([{"device": FAN, "max_speed": FAN_MAX, "speed": speed}]))
}

pub(super) fn set_cooling(daemon: &Daemon, query: &Query) -> Reply {
    let Some(device) = query.get("device") else {
        return Reply::bad_request("Missing `device` parameter");
    };
    let Some(speed) = query.get("speed") else {
        return Reply::bad_request("Missing `speed` parameter");
    };
    let Ok(speed) = speed.parse::<u64>() else {
        return Reply::bad_request("`speed` parameter is not a number");
    };
    let what = "set Cooling state";
    // The fork tells a mistake of the caller from one of its own.
    let refused = |text: String| match Reply::failed(what, &text) {
        Reply::Error(_, text) if daemon.profile().is_fork() => Reply::bad_request(text),
        reply => reply,
    };
    if device != FAN {
        return refused(format!("cooling device: `{device}` does not exist"));
    }
    if speed > FAN_MAX {
        return refused(format!("given speed '{speed}' exceeds maximum speed of '{FAN_MAX}'"));
    }
    daemon.hardware().fan_speed = speed;
    Reply::Ok
}
