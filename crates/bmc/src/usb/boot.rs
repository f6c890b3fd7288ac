//! Boot pins, mass-storage mode and node 1's port: what the board's USB is used for beside its one configuration.

use crate::{
    BmcError, Capability, HttpBmcClient, Slot,
    wire::{Call, answer},
};

impl HttpBmcClient {
    pub(crate) async fn hold_boot_pin(&self, slot: Slot) -> Result<(), BmcError> {
        let call = Call::set(format!("hold the boot pin of slot {slot}"), "usb_boot")
            .with("node", &slot.wire().to_string());
        self.require(Capability::UsbBoot, &call.action()).await?;
        self.session().command(&call).await
    }

    pub(crate) async fn release_boot_pins(&self) -> Result<(), BmcError> {
        let call = Call::set("release the boot pins", "clear_usb_boot");
        self.require(Capability::ClearUsbBoot, &call.action()).await?;
        self.session().command(&call).await
    }

    /// The BMC answers when the node's disk has appeared: 4 to 15 seconds.
    pub(crate) async fn enter_mass_storage(&self, slot: Slot) -> Result<(), BmcError> {
        let call = Call::set(format!("put slot {slot} into mass-storage mode"), "node_to_msd")
            .with("node", &slot.wire().to_string());
        self.require(Capability::MassStorage, &call.action()).await?;
        let reply = self.session().call_within(&call, self.session().timeouts().slow_call).await?;
        answer::ok(&reply, &self.session().attempt(call.action()))
    }

    pub(crate) async fn leave_mass_storage(&self, slot: Slot) -> Result<(), BmcError> {
        self.release_boot_pins().await?;
        self.reset_slot(slot).await
    }

    pub(crate) async fn read_usb_node1(&self) -> Result<bool, BmcError> {
        let call = Call::get("read node 1's USB port", "usb_node1");
        self.require(Capability::UsbNode1, &call.action()).await?;
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        let value = answer::value(&reply, &attempt)?;
        value.as_bool().ok_or_else(|| answer::senseless(&attempt, "it is neither true nor false", &value))
    }

    pub(crate) async fn write_usb_node1(&self, alternative: bool) -> Result<(), BmcError> {
        let call = Call::set("set node 1's USB port", "usb_node1");
        let about = self.require(Capability::UsbNode1, &call.action()).await?;
        // The key counts by its presence, whatever its value.
        let call = if alternative { call.flag("alternative_port") } else { call };
        match self.session().command(&call).await {
            Err(BmcError::Api { attempt, text, .. }) if text.contains("only available on v2.5+ boards") => {
                Err(BmcError::Unsupported {
                    attempt,
                    capability: Capability::UsbNode1,
                    firmware: about.firmware_name(),
                })
            }
            other => other,
        }
    }
}
