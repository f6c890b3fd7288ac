//! The port other crates program against.

use async_trait::async_trait;

use crate::{
    About, BmcError, FlashObserver, Flashed, ImageUpload, Info, PerSlot, Power, Slot, Transfer, UartMark,
    UartText, UsbMode, UsbRoute, UsbState,
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

    /// Power-cycles a slot: off, one second, on. What [`BmcClient::power`] reports stays as it was.
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
}
