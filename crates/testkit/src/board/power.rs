//! Power and USB of the four slots: what is asked for, what is stored, and what is.

use std::{sync::Arc, time::Duration};

use super::{
    daemon::Daemon,
    state::{UsbMode, UsbSetting},
};
use crate::{Module, ModuleKind};

/// Between two switches of the power pins.
const SWITCH: Duration = Duration::from_millis(100);
/// From power-on in flash mode until the boot pins are released.
const PIN_HOLD: Duration = Duration::from_secs(1);

/// Why no module answers on USB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsbFailure {
    /// Nothing known on the bus.
    NotFound,
    /// A module's loader ran, but no disk appeared.
    NoDisk,
    /// More than one disk.
    Several,
}

impl Daemon {
    /// The real power of the slots.
    pub(crate) fn actual_power(&self) -> [bool; 4] {
        std::array::from_fn(|slot| self.module(slot).is_some_and(|module| module.powered()))
    }
    /// Takes the real power for the stored state: what an owner has who powered the modules long ago.
    pub(crate) fn adopt_power(&self) {
        let (actual, now) = (self.actual_power(), self.clock().now());
        let mut hardware = self.hardware();
        hardware.intent = actual;
        hardware.on_since = actual.map(|on| on.then_some(now));
    }
    /// Applies the stored power state, as the daemon does when it starts.
    pub(crate) async fn boot_modules(&self) {
        let intent = self.hardware().intent;
        for (slot, on) in intent.into_iter().enumerate() {
            self.switch(slot, on).await;
        }
    }
    /// Takes all power away without touching the stored state.
    pub(crate) async fn cut_all(&self) {
        for slot in 0..4 {
            self.switch(slot, false).await;
        }
    }
    /// Takes the power of one slot away without touching the stored state.
    pub(crate) async fn cut_power(&self, slot: usize) {
        self.switch(slot, false).await;
    }
    /// The power key: all off if any is on, else all on.
    pub(crate) async fn toggle_all(&self) {
        let on = self.hardware().intent == [false; 4];
        self.request_power(&[Some(on); 4]).await;
    }
    /// Stores and applies what is asked for; `None` leaves a slot alone.
    pub(crate) async fn request_power(&self, change: &[Option<bool>; 4]) {
        let now = self.clock().now();
        let changes = || change.iter().enumerate().filter_map(|(slot, on)| on.map(|on| (slot, on)));
        {
            let mut hardware = self.hardware();
            for (slot, on) in changes() {
                // The daemon compares a shifted bit with a plain one: for slots 2 to 4 a redundant "on" restarts the
                // count of seconds.
                let restarts = if on { !hardware.intent[slot] || slot > 0 } else { hardware.intent[slot] };
                if restarts {
                    hardware.on_since[slot] = on.then_some(now);
                }
                hardware.intent[slot] = on;
            }
        }
        for (slot, on) in changes() {
            self.switch(slot, on).await;
        }
    }
    /// Off, one second, on. The stored state stays as it is.
    pub(crate) async fn reset(&self, slot: usize) {
        self.switch(slot, false).await;
        self.surroundings().pace.sleep(Duration::from_secs(1)).await;
        self.switch(slot, true).await;
    }
    /// The power pin of a slot. Switching on what is on does nothing.
    async fn switch(&self, slot: usize, on: bool) {
        let Some(module) = self.module(slot) else { return };
        if module.powered() == on {
            return;
        }
        self.surroundings().pace.sleep(SWITCH).await;
        let loader = {
            let mut hardware = self.hardware();
            let loader = on && hardware.boot_pins[slot];
            hardware.loader[slot] = loader;
            hardware.disk[slot] = false;
            loader
        };
        module.set_power(on, loader).await;
    }

    /// Whether this revision takes that USB setting. The refusal comes after the route pin has moved.
    pub(crate) fn store_usb(&self, setting: UsbSetting) -> Result<(), &'static str> {
        if setting.mode == UsbMode::Host && self.plan().revision.has_hub() && self.profile().is_modern() {
            return Err(
                "Selecting one of the nodes as USB Host role is not supported by the current hardware",
            );
        }
        let mut hardware = self.hardware();
        hardware.usb = setting;
        if setting.mode == UsbMode::Flash {
            hardware.boot_pins[setting.node] = true;
        }
        Ok(())
    }

    /// Power-cycles a module into its loader and routes it to the BMC: what flashing and disk mode begin with.
    pub(crate) async fn enter_loader(&self, slot: usize) {
        self.request_power(&only(slot, false)).await;
        self.hardware().boot_pins[slot] = true;
        self.request_power(&only(slot, true)).await;
        self.surroundings().pace.sleep(PIN_HOLD).await;
        self.hardware().boot_pins = [false; 4];
    }
    /// Ends a flash: module off, boot pin low, stored USB setting back.
    pub(crate) async fn leave_loader(&self, slot: usize) {
        self.request_power(&only(slot, false)).await;
        self.hardware().boot_pins[slot] = false;
    }
    /// The module that the BMC's search over USB finds when it means `target`: on a hub the first one that waits in its
    /// boot ROM, whatever its slot.
    pub(crate) fn find_on_usb(&self, target: usize) -> Result<(usize, Arc<dyn Module>), UsbFailure> {
        let hardware = self.hardware().clone();
        let visible = || self.on_usb(target).into_iter();
        let is_cm4 = |module: &dyn Module| matches!(module.kind(), ModuleKind::Cm4 | ModuleKind::Cm4Lite);
        let found = visible()
            .find(|(_, module)| is_cm4(module.as_ref()))
            .or_else(|| visible().find(|(_, module)| module.kind() == ModuleKind::Rk1))
            .ok_or(UsbFailure::NotFound)?;
        let others = visible().any(|(slot, _)| slot != found.0 && hardware.disk[slot]);
        match found.1.kind() {
            _ if others => Err(UsbFailure::Several),
            ModuleKind::Cm4Lite => Err(UsbFailure::NoDisk),
            _ => Ok(found),
        }
    }
    /// What the BMC sees on USB when the bus is switched to `target`: the modules that wait in their boot ROM.
    fn on_usb(&self, target: usize) -> Vec<(usize, Arc<dyn Module>)> {
        let hardware = self.hardware().clone();
        let on_bus = |slot: &usize| self.plan().revision.has_hub() || *slot == target;
        (0..4)
            .filter(on_bus)
            .filter_map(|slot| {
                let module = self.module(slot)?;
                let waits = hardware.loader[slot] || hardware.disk[slot] || !module.bootable();
                (module.powered() && waits).then(|| (slot, module.clone()))
            })
            .collect()
    }
    /// The fork's search: on a hub it knows the port of each slot, and takes no other module.
    pub(crate) fn find_by_port(&self, target: usize) -> Result<(usize, Arc<dyn Module>), String> {
        let visible = self.on_usb(target);
        let flashable = |module: &dyn Module| matches!(module.kind(), ModuleKind::Cm4 | ModuleKind::Rk1);
        match visible.iter().find(|(slot, _)| *slot == target) {
            Some(found) if flashable(found.1.as_ref()) => Ok(found.clone()),
            Some((_, module)) if module.kind() == ModuleKind::Cm4Lite => {
                Err(self.usb_failure_text(UsbFailure::NoDisk).to_owned())
            }
            _ => match visible.iter().find(|(_, module)| flashable(module.as_ref())) {
                Some((other, module)) => {
                    let loader = if module.kind() == ModuleKind::Rk1 { "Rockusb" } else { "rpiboot" };
                    let (target, other) = (target + 1, other + 1);
                    Err(format!(
                        "node {target} requested on 1-1.{target}; found {loader} on 1-1.{other} instead"
                    ))
                }
                None => Err(self.usb_failure_text(UsbFailure::NotFound).to_owned()),
            },
        }
    }
    /// The failure in the words of this firmware.
    pub(crate) fn usb_failure_text(&self, failure: UsbFailure) -> &'static str {
        let modern = self.profile().is_modern();
        match failure {
            UsbFailure::NotFound if modern => "Compute module's USB interface not found or supported",
            UsbFailure::NotFound => "No supported devices found",
            UsbFailure::NoDisk if modern => "Error loading USB device: No supported USB devices found",
            UsbFailure::NoDisk => "No MSD USB devices found",
            UsbFailure::Several if modern => "Error loading USB device: Several supported devices found",
            UsbFailure::Several => "Several supported devices found: found 2, expected 1",
        }
    }
}

/// A change of one slot.
pub(crate) fn only(slot: usize, on: bool) -> [Option<bool>; 4] {
    std::array::from_fn(|other| (other == slot).then_some(on))
}
