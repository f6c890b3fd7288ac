//! The port other crates program against.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    About, BackupSink, BmcError, Console, CoolingDevice, FirmwareSource, FlashObserver, Flashed, ImageUpload,
    Info, NodeInfo, NodeInfoChange, PerSlot, Power, RemoteImage, SdCard, SerialState, Slot, StagedFirmware,
    Temperature, Transfer, UartEncoding, UartMark, UartText, UsbMode, UsbRoute, UsbState,
};

/// One board's BMC.
///
/// [`HttpBmcClient`](crate::HttpBmcClient) implements it; `MockBmcClient` (feature `mock`) doubles it. Calls of one client
/// run one after the other, because the daemon itself serves only one at a time.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait BmcClient: Send + Sync {
    /// Returns the firmware's generation and version, the board's model, and what the firmware can do.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn about(&self) -> Result<About, BmcError>;

    /// Returns the BMC's network addresses and storage.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn info(&self) -> Result<Info, BmcError>;

    /// Returns each slot's power state **as last asked for**, which is not a measurement: a reset, the button on the board
    /// or a failed flash change the real state without changing this one.
    ///
    /// # Errors
    /// [`BmcError::Api`] if the BMC cannot read its stored state.
    async fn power(&self) -> Result<PerSlot<Power>, BmcError>;

    /// Switches many slots with one request; `None` leaves a slot as it is. The BMC switches one after the other, about
    /// 100 ms each. Without any change there is no request.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn set_power(&self, change: &PerSlot<Option<Power>>) -> Result<(), BmcError>;

    /// Switches a slot off, waits, and switches it on: unlike [`BmcClient::reset`] the state that [`BmcClient::power`] reports
    /// is "on" afterwards, whatever it was before. If the future is dropped while it waits, the slot stays off.
    ///
    /// # Errors
    /// As every call: [`BmcError`]. The slot may be off then.
    async fn power_cycle(&self, slot: Slot, off_for: Duration) -> Result<(), BmcError>;

    /// Returns what the BMC remembers of the nodes: names and modules that somebody typed in. Nothing is detected.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 2.0.
    async fn node_info(&self) -> Result<PerSlot<NodeInfo>, BmcError>;

    /// Changes what the BMC remembers of the nodes; `None` leaves a node or a field as it is. Without any change there is
    /// no request.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1.
    async fn set_node_info(&self, change: &PerSlot<Option<NodeInfoChange>>) -> Result<(), BmcError>;

    /// Resets a slot: off, one second, on. What [`BmcClient::power`] reports stays as it was.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 1.0, which would answer "ok" and do nothing.
    async fn reset(&self, slot: Slot) -> Result<(), BmcError>;

    /// Returns where the board's USB is routed.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn usb(&self) -> Result<UsbState, BmcError>;

    /// Routes the board's one USB configuration. Values the firmware does not know (some crash it) are never sent.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] for a mode or route this firmware or board does not have.
    async fn set_usb(&self, slot: Slot, mode: UsbMode, route: UsbRoute) -> Result<(), BmcError>;

    /// Returns whether node 1's USB goes to the alternative port; boards with a hub.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1, and on v2.4 boards.
    async fn usb_node1_alternative(&self) -> Result<bool, BmcError>;

    /// Sends node 1's USB to the alternative port, or back; boards with a hub.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1, and on v2.4 boards.
    async fn set_usb_node1_alternative(&self, alternative: bool) -> Result<(), BmcError>;

    /// Holds a slot's boot pin: the module boots into its loader at its next power-on. Not remembered over a restart.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 1.x, which would answer "ok" and do nothing.
    async fn usb_boot(&self, slot: Slot) -> Result<(), BmcError>;

    /// Releases the boot pins of **all** slots.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 1.0.
    async fn clear_usb_boot(&self) -> Result<(), BmcError>;

    /// Power-cycles a slot into mass-storage mode, in which the BMC sees its eMMC as a disk: 4 to 15 seconds. The node
    /// stays on in that mode until [`BmcClient::normal_mode`].
    ///
    /// # Errors
    /// [`BmcError::Api`] if no module the BMC knows answers on USB.
    async fn mass_storage(&self, slot: Slot) -> Result<(), BmcError>;

    /// Ends mass-storage mode: releases **all** boot pins and resets the slot.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 1.0.
    async fn normal_mode(&self, slot: Slot) -> Result<(), BmcError>;

    /// Returns the fans; empty on a board without.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1.
    async fn cooling(&self) -> Result<Vec<CoolingDevice>, BmcError>;

    /// Sets a fan's step, 0 to [`CoolingDevice::max_speed`]; the BMC remembers it.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1, [`BmcError::Api`] for an unknown device or too high a step.
    async fn set_cooling(&self, device: &str, speed: u32) -> Result<(), BmcError>;

    /// Returns the BMC's own temperatures. Nobody tells those of the modules.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on official firmware.
    async fn temperatures(&self) -> Result<Vec<Temperature>, BmcError>;

    /// Returns the BMC's SD card, if there is one.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn sd_card(&self) -> Result<Option<SdCard>, BmcError>;

    /// Resets the board's Ethernet switch (2.0 and older) or its bridge (2.1 and later). The BMC answers first; then its
    /// connections break, and its address may change.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn reset_network(&self) -> Result<(), BmcError>;

    /// Returns what the buffer of a slot's serial line holds. **Firmware before 2.1 empties it by this.**
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn uart_read(&self, slot: Slot, encoding: UartEncoding) -> Result<String, BmcError>;

    /// Returns what the BMC's readers of the serial lines do; one that stopped comes back only with a restart of the daemon.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before firmware 2.1.
    async fn serial_status(&self) -> Result<PerSlot<SerialState>, BmcError>;

    /// Opens a slot's serial console as a stream, from now on: by websocket where the firmware has a working one, by
    /// polling elsewhere. Several may be open. It shares this client's login.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn console(&self, slot: Slot) -> Result<Console, BmcError>;

    /// Returns where "now" is on a slot's serial line.
    ///
    /// # Errors
    /// As every call: [`BmcError`].
    async fn uart_mark(&self, slot: Slot) -> Result<UartMark, BmcError>;

    /// Returns what the node wrote on its serial line since the mark, and moves the mark there.
    ///
    /// # Errors
    /// As every call: [`BmcError`]. The mark is unchanged then.
    async fn uart_since(&self, mark: &mut UartMark) -> Result<UartText, BmcError>;

    /// Types a line on a slot's serial line; the firmware appends `\r\n`. No partial lines, no Ctrl-C.
    ///
    /// # Errors
    /// As every call: [`BmcError`]; the line is in none of them, it may be a password.
    async fn uart_send(&self, slot: Slot, line: &str) -> Result<(), BmcError>;

    /// Returns the state of the BMC's one transfer.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] on firmware 1.x.
    async fn transfer(&self) -> Result<Transfer, BmcError>;

    /// Writes an image to a slot's eMMC by uploading it. Returns when the BMC has written and read it back.
    ///
    /// The node is **off** afterwards, also after most failures; it is not switched on, and nothing is retried. Dropping
    /// the future while it uploads drops the connection, which cancels the job within about two seconds. Dropped later,
    /// the job goes on without an observer: the BMC has all it needs.
    ///
    /// On boards where [`About::may_flash_another_slot`] the caller has to power the other slots off first: the BMC writes
    /// to the first module it finds.
    ///
    /// # Errors
    /// [`BmcError::Busy`] while a transfer moves, [`BmcError::Flash`] with a typed cause, [`BmcError::Replaced`] if another
    /// client's job took over, [`BmcError::Image`] if the image cannot be read or is not what was declared.
    async fn flash<'a>(
        &self,
        slot: Slot,
        image: ImageUpload,
        progress: &'a FlashObserver<'a>,
    ) -> Result<Flashed, BmcError>;

    /// Writes an image to a slot's eMMC that the BMC reads itself: from its SD card, or from a web server. As
    /// [`BmcClient::flash`], but the BMC answers other calls meanwhile, and dropping the future ends nothing: cancel with
    /// [`BmcClient::cancel_transfer`].
    ///
    /// # Errors
    /// As [`BmcClient::flash`]; [`BmcError::Unsupported`] for a URL before firmware 2.1.
    async fn flash_remote<'a>(
        &self,
        slot: Slot,
        image: RemoteImage,
        progress: &'a FlashObserver<'a>,
    ) -> Result<Flashed, BmcError>;

    /// Cancels the BMC's one transfer, **also another client's**; returns false if none moved. Before the module was found
    /// it acts only afterwards. The node ends off. This client's own upload is ended by dropping its future.
    ///
    /// # Errors
    /// [`BmcError::Busy`] during this client's own upload, [`BmcError::Unsupported`] before bmcd 2.0.3.
    async fn cancel_transfer(&self) -> Result<bool, BmcError>;

    /// Stages new firmware for the BMC: it is written to the spare place, and **used from the next reboot on**. The token is
    /// not handed to later runs any more.
    ///
    /// # Errors
    /// As [`BmcClient::flash`]; [`BmcError::Unsupported`] on firmware 1.x, which only an SD card upgrades.
    async fn upgrade_firmware<'a>(
        &self,
        source: FirmwareSource,
        progress: &'a FlashObserver<'a>,
    ) -> Result<StagedFirmware, BmcError>;

    /// Reboots the BMC. **Disruptive**: nodes lose power on v2.4 boards and with firmware 2.0. The BMC answers first, is gone
    /// for about a minute, and then knows no token any more: the client has forgotten its own before.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before bmcd 2.0.1, where it would answer "ok" and do nothing.
    async fn reboot(&self) -> Result<(), BmcError>;

    /// Restarts the BMC's daemon. **Disruptive**: the stored power state is applied again, and nodes may restart. Tokens,
    /// blocks and the state of the last transfer are gone.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before bmcd 2.0.2.
    async fn reload(&self) -> Result<(), BmcError>;

    /// Downloads a backup of the BMC's settings, a `.tar.gz`, and returns its length in bytes. **It holds password hashes and
    /// the TLS key.** No firmware has a call that restores one.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] before bmcd 2.0.2, [`BmcError::Local`] if it cannot be written.
    async fn backup<'a>(&self, into: &'a mut BackupSink<'a>) -> Result<u64, BmcError>;

    /// Returns if the BMC answers, by a request without a login, which never counts as a failed one: for waiting until a
    /// reboot is over.
    ///
    /// # Errors
    /// [`BmcError::Unreachable`] and the like while it does not.
    async fn ping(&self) -> Result<(), BmcError>;
}
