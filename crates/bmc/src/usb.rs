//! The board's USB configuration.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    About, Attempt, BmcError, Capability, HttpBmcClient, Slot,
    wire::{Call, answer},
};

mod boot;

/// What the node is on the USB line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbMode {
    /// The node is the host. Not on boards with a USB hub (v2.5 and later).
    Host,
    /// The node is a device.
    Device,
    /// A device that boots into its loader at the next power-on. Firmware with bmcd 2.0.4 and later.
    Flash,
}

/// Where the line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbRoute {
    /// The board's own port: USB-A on v2.4 (`UsbA`), USB-C on v2.5 (`AlternativePort`).
    Port,
    /// The BMC.
    Bmc,
}

/// How the nodes' USB lines come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbBus {
    /// One switch, one node at a time (v2.4).
    Single,
    /// A hub, all nodes are devices of the BMC (v2.5 and later).
    Hub,
}

/// The board's one USB configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsbState {
    /// The selected slot.
    pub slot: Slot,
    /// What the node is.
    pub mode: UsbMode,
    /// Where the line goes.
    pub route: UsbRoute,
    /// The board's wiring; firmware before 2.1 does not tell.
    pub bus: Option<UsbBus>,
}

impl UsbState {
    /// A state without knowledge of the wiring.
    pub fn new(slot: Slot, mode: UsbMode, route: UsbRoute) -> Self {
        Self { slot, mode, route, bus: None }
    }
}

impl HttpBmcClient {
    pub(crate) async fn read_usb(&self) -> Result<UsbState, BmcError> {
        let call = Call::get("read the USB configuration", "usb");
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse(&answer::value(&reply, &attempt)?, &attempt)
    }

    pub(crate) async fn write_usb(&self, slot: Slot, mode: UsbMode, route: UsbRoute) -> Result<(), BmcError> {
        let call = Call::set(format!("set the USB mode of slot {slot}"), "usb");
        let about = self.firmware().await?;
        let unsupported = |capability| BmcError::Unsupported {
            attempt: self.session().attempt(call.action()),
            capability,
            firmware: about.firmware_name(),
        };
        let number = wire_mode(&about, mode, route).map_err(unsupported)?;
        // A v2.5 board refuses the host role only after it has moved the route pin: ask before, not after.
        if mode == UsbMode::Host
            && about.has(Capability::UsbBus)
            && self.read_usb().await?.bus == Some(UsbBus::Hub)
        {
            return Err(unsupported(Capability::UsbHost));
        }
        let call = call.clone().with("node", &slot.wire().to_string()).with("mode", &number.to_string());
        self.session().command(&call).await
    }
}

/// The number for the wire. 3 and 7 crash the daemon and cannot come out of this.
fn wire_mode(about: &About, mode: UsbMode, route: UsbRoute) -> Result<u8, Capability> {
    let role = match mode {
        UsbMode::Host => 0,
        UsbMode::Device => 1,
        UsbMode::Flash if about.has(Capability::UsbFlash) => 2,
        UsbMode::Flash => return Err(Capability::UsbFlash),
    };
    let bit = match route {
        UsbRoute::Port => 0,
        UsbRoute::Bmc if about.has(Capability::UsbFlash) => 4,
        // bmcd 2.0.0 to 2.0.3: bit 1 is the route, and there is no flash mode.
        UsbRoute::Bmc if about.has(Capability::UsbRoute) => 2,
        UsbRoute::Bmc => return Err(Capability::UsbRoute),
    };
    Ok(role | bit)
}

/// Words in 2.x; numbers, with the node counted from 0, in 1.x.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<UsbState, BmcError> {
    let object = answer::single(value);
    let slot = match &object["node"] {
        // `Node1` and `Node 1`
        Value::String(text) => {
            text.trim_start_matches(|c: char| !c.is_ascii_digit()).trim().parse::<u8>().ok()
        }
        number => answer::number(number).and_then(|n| u8::try_from(n).ok()).and_then(|n| n.checked_add(1)),
    }
    .and_then(|number| Slot::try_from(number).ok());
    let mode = match &object["mode"] {
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "host" => Some(UsbMode::Host),
            "device" => Some(UsbMode::Device),
            "flash" => Some(UsbMode::Flash),
            _ => None,
        },
        number => match answer::number(number) {
            Some(0) => Some(UsbMode::Host),
            Some(1) => Some(UsbMode::Device),
            _ => None,
        },
    };
    let route = match object["route"].as_str() {
        None | Some("UsbA" | "AlternativePort") => Some(UsbRoute::Port),
        Some("Bmc") => Some(UsbRoute::Bmc),
        Some(_) => None,
    };
    let bus = match object["bus_type"].as_str() {
        Some("Usb hub") => Some(UsbBus::Hub),
        Some("Single bus") => Some(UsbBus::Single),
        _ => None,
    };
    match (slot, mode, route) {
        (Some(slot), Some(mode), Some(route)) => Ok(UsbState { slot, mode, route, bus }),
        _ => Err(answer::senseless(attempt, "it is no USB configuration", value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generation;

    #[test]
    fn no_firmware_ever_gets_a_mode_that_crashes_it() {
        for generation in Generation::ALL {
            let about = About::of(generation);
            for mode in [UsbMode::Host, UsbMode::Device, UsbMode::Flash] {
                for route in [UsbRoute::Port, UsbRoute::Bmc] {
                    let Ok(number) = wire_mode(&about, mode, route) else { continue };
                    if about.has(Capability::UsbFlash) {
                        assert!(
                            [0, 1, 2, 4, 5, 6].contains(&number),
                            "{generation:?} {mode:?} {route:?}: {number}"
                        );
                    } else if about.has(Capability::UsbRoute) {
                        assert!(number <= 3);
                    } else {
                        assert!(number <= 1);
                    }
                }
            }
        }
    }
}
