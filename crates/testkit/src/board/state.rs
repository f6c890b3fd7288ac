//! What the board's hardware and its settings store hold.

use std::time::Duration;

use serde::Deserialize;

/// How one module is wired to USB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsbMode {
    Host,
    Device,
    Flash,
}

impl UsbMode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Host => "Host",
            Self::Device => "Device",
            Self::Flash => "Flash",
        }
    }
}

/// The board's one USB setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsbSetting {
    /// 0 to 3.
    pub(crate) node: usize,
    pub(crate) mode: UsbMode,
    /// Routed to the BMC instead of the USB-A port.
    pub(crate) to_bmc: bool,
}

impl UsbSetting {
    pub(crate) const FACTORY: Self = Self { node: 0, mode: UsbMode::Device, to_bmc: false };
}

/// What a user may note about a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct NodeNote {
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) module_name: Option<String>,
    /// Accepted and ignored: the daemon counts it itself.
    #[serde(default, rename = "power_on_time")]
    _power_on_time: Option<u64>,
    #[serde(default)]
    pub(crate) uart_baud: Option<u32>,
}

/// Pins, settings store and fan. Indices are slots, 0 to 3.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    /// The stored power state: what was last asked for.
    pub(crate) intent: [bool; 4],
    /// When each module was powered on, by the daemon's bookkeeping.
    pub(crate) on_since: [Option<Duration>; 4],
    /// The stored USB setting.
    pub(crate) usb: UsbSetting,
    /// USB-A of node 1 on the alternative port (v2.5).
    pub(crate) usb_node1: bool,
    /// Boot pins: a module that is powered on with its pin high waits in its loader.
    pub(crate) boot_pins: [bool; 4],
    /// Modules that were powered on with their boot pin high.
    pub(crate) loader: [bool; 4],
    /// Modules that present their eMMC as a disk.
    pub(crate) disk: [bool; 4],
    pub(crate) notes: [NodeNote; 4],
    /// 0 to [`FAN_MAX`].
    pub(crate) fan_speed: u64,
}

/// The name of the one cooling device.
pub(crate) const FAN: &str = "system fan";
/// Its highest speed.
pub(crate) const FAN_MAX: u64 = 6;

impl Default for Hardware {
    fn default() -> Self {
        Self {
            intent: [false; 4],
            on_since: [None; 4],
            usb: UsbSetting::FACTORY,
            usb_node1: false,
            boot_pins: [false; 4],
            loader: [false; 4],
            disk: [false; 4],
            notes: Default::default(),
            fan_speed: 0,
        }
    }
}
