//! The client over HTTPS.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use secrecy::SecretString;
use url::Url;

use crate::{
    About, BackupSink, BmcClient, BmcError, Console, CoolingDevice, Fingerprint, FirmwareSource,
    FlashObserver, Flashed, ImageUpload, Info, NodeInfo, NodeInfoChange, PerSlot, Power, RemoteImage,
    SavedToken, SdCard, SerialState, Slot, StagedFirmware, Temperature, Transfer, Trust, UartEncoding,
    UartMark, UartText, UsbMode, UsbRoute, UsbState,
    tls::{Gate, client_config},
    wire::{Place, Session, Settings},
};

/// How long to wait for what. The defaults suit a real board; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcTimeouts {
    /// TCP and TLS handshake.
    pub connect: Duration,
    /// The answer to an ordinary call. Generous: the BMC answers nothing while any client uploads.
    pub call: Duration,
    /// The answer to a call that waits for something itself: a module in mass-storage mode, the web server of an image.
    pub slow_call: Duration,
    /// Between two looks at a console in use; up to four times that while nothing happens.
    pub console_poll: Duration,
    /// An upload without a byte of progress. A node that boots into its loader stalls it for up to 15 s.
    pub upload_stall: Duration,
    /// Between two looks at a transfer.
    pub poll: Duration,
    /// Failed looks in a row that are borne.
    pub poll_failures: u32,
    /// Writing or checking without a byte of progress, beside the time the image takes at 1 MB/s.
    pub write_stall: Duration,
}

impl Default for BmcTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_secs(30),
            slow_call: Duration::from_secs(60),
            console_poll: Duration::from_millis(250),
            upload_stall: Duration::from_secs(90),
            poll: Duration::from_secs(1),
            poll_failures: 5,
            write_stall: Duration::from_secs(300),
        }
    }
}

/// A [`BmcClient`] over HTTPS, or plain HTTP for firmware 1.x. Clones share one login and one connection.
#[derive(Clone)]
pub struct HttpBmcClient {
    session: Arc<Session>,
    flashing: Arc<crate::flash::Flashing>,
}

impl fmt::Debug for HttpBmcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBmcClient").field("bmc", &self.session.name()).finish_non_exhaustive()
    }
}

/// Builds an [`HttpBmcClient`].
#[derive(Debug)]
#[must_use]
pub struct HttpBmcClientBuilder {
    url: Url,
    credentials: Option<(String, SecretString)>,
    trust: Option<Trust>,
    timeouts: BmcTimeouts,
    saved: Option<SavedToken>,
}

impl HttpBmcClientBuilder {
    /// User and password; `root` and `turing` from the factory. Never sent over plain `http`.
    pub fn credentials(mut self, user: impl Into<String>, password: SecretString) -> Self {
        self.credentials = Some((user.into(), password));
        self
    }
    /// How the BMC proves itself. Needed for `https`.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }
    /// A token of an earlier run, instead of a login. It is used only if host, port and user are the same, if it is fresh,
    /// and if the BMC shows the same certificate; otherwise it is ignored. When the BMC refuses it, there is one login if
    /// there are [`HttpBmcClientBuilder::credentials`], and an error if there are none.
    pub fn saved_token(mut self, saved: SavedToken) -> Self {
        self.saved = Some(saved);
        self
    }
    /// Other waiting times.
    pub fn timeouts(mut self, timeouts: BmcTimeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BmcError::Setup`] names the setting that cannot be used.
    pub fn build(self) -> Result<HttpBmcClient, BmcError> {
        let place = Place::new(&self.url)?;
        let user = self.credentials.as_ref().map(|(user, _)| user.as_str());
        let saved = self.saved.filter(|saved| {
            (saved.host.as_str(), saved.port) == place.dial()
                && user.is_none_or(|user| user == saved.user)
                && saved.is_fresh(SystemTime::now())
                && !matches!(self.trust, Some(Trust::Pin(pin)) if pin != saved.fingerprint)
        });
        let tls = match (place.encrypted(), self.trust) {
            (false, _) => None,
            (true, Some(trust)) => {
                let gate = Arc::new(Gate::trusting(trust)?);
                Some((client_config(&gate)?, gate))
            }
            (true, None) => {
                return Err(BmcError::Setup {
                    problem: "nothing says which certificate to trust".to_owned(),
                });
            }
        };
        let settings = Settings { place, tls, credentials: self.credentials, timeouts: self.timeouts, saved };
        Ok(HttpBmcClient { session: Arc::new(Session::new(settings)), flashing: Arc::default() })
    }
}

impl HttpBmcClient {
    /// Begins with the BMC's URL: `https://10.10.88.70`, with a port and path where a proxy stands in front. Plain `http`
    /// is for firmware 1.x, which knows neither TLS nor a login.
    pub fn builder(url: Url) -> HttpBmcClientBuilder {
        HttpBmcClientBuilder {
            url,
            credentials: None,
            trust: None,
            timeouts: BmcTimeouts::default(),
            saved: None,
        }
    }

    /// The fingerprint of the certificate the BMC showed last; `None` before the first connection.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.session.fingerprint()
    }

    /// The token in use, to be kept for a later run; `None` without one, and after a reboot, a restart of the daemon or a
    /// firmware upgrade was asked for: look again at the end of a run, and forget what was kept before if there is none.
    pub fn saved_token(&self) -> Option<SavedToken> {
        self.session.saved_token()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
    pub(crate) fn flashing(&self) -> &crate::flash::Flashing {
        &self.flashing
    }
}

#[async_trait]
impl BmcClient for HttpBmcClient {
    async fn about(&self) -> Result<About, BmcError> {
        let about = self.read_about().await?;
        self.session.learn_firmware(&Arc::new(about.clone()));
        Ok(about)
    }
    async fn info(&self) -> Result<Info, BmcError> {
        self.read_info().await
    }
    async fn power(&self) -> Result<PerSlot<Power>, BmcError> {
        self.read_power().await
    }
    async fn set_power(&self, change: &PerSlot<Option<Power>>) -> Result<(), BmcError> {
        self.write_power(change).await
    }
    async fn reset(&self, slot: Slot) -> Result<(), BmcError> {
        self.reset_slot(slot).await
    }
    async fn power_cycle(&self, slot: Slot, off_for: Duration) -> Result<(), BmcError> {
        self.cycle_power(slot, off_for).await
    }
    async fn node_info(&self) -> Result<PerSlot<NodeInfo>, BmcError> {
        self.read_node_info().await
    }
    async fn set_node_info(&self, change: &PerSlot<Option<NodeInfoChange>>) -> Result<(), BmcError> {
        self.write_node_info(change).await
    }
    async fn usb(&self) -> Result<UsbState, BmcError> {
        self.read_usb().await
    }
    async fn set_usb(&self, slot: Slot, mode: UsbMode, route: UsbRoute) -> Result<(), BmcError> {
        self.write_usb(slot, mode, route).await
    }
    async fn usb_node1_alternative(&self) -> Result<bool, BmcError> {
        self.read_usb_node1().await
    }
    async fn set_usb_node1_alternative(&self, alternative: bool) -> Result<(), BmcError> {
        self.write_usb_node1(alternative).await
    }
    async fn usb_boot(&self, slot: Slot) -> Result<(), BmcError> {
        self.hold_boot_pin(slot).await
    }
    async fn clear_usb_boot(&self) -> Result<(), BmcError> {
        self.release_boot_pins().await
    }
    async fn mass_storage(&self, slot: Slot) -> Result<(), BmcError> {
        self.enter_mass_storage(slot).await
    }
    async fn normal_mode(&self, slot: Slot) -> Result<(), BmcError> {
        self.leave_mass_storage(slot).await
    }
    async fn cooling(&self) -> Result<Vec<CoolingDevice>, BmcError> {
        self.read_cooling().await
    }
    async fn set_cooling(&self, device: &str, speed: u32) -> Result<(), BmcError> {
        self.write_cooling(device, speed).await
    }
    async fn temperatures(&self) -> Result<Vec<Temperature>, BmcError> {
        self.read_temperatures().await
    }
    async fn sd_card(&self) -> Result<Option<SdCard>, BmcError> {
        self.read_sd_card().await
    }
    async fn reset_network(&self) -> Result<(), BmcError> {
        self.restart_network().await
    }
    async fn uart_read(&self, slot: Slot, encoding: UartEncoding) -> Result<String, BmcError> {
        self.read_uart_buffer(slot, encoding).await
    }
    async fn serial_status(&self) -> Result<PerSlot<SerialState>, BmcError> {
        self.read_serial_status().await
    }
    async fn console(&self, slot: Slot) -> Result<Console, BmcError> {
        self.open_console(slot).await
    }
    async fn uart_mark(&self, slot: Slot) -> Result<UartMark, BmcError> {
        self.mark_uart(slot).await
    }
    async fn uart_since(&self, mark: &mut UartMark) -> Result<UartText, BmcError> {
        self.read_uart(mark).await
    }
    async fn uart_send(&self, slot: Slot, line: &str) -> Result<(), BmcError> {
        self.type_uart(slot, line).await
    }
    async fn transfer(&self) -> Result<Transfer, BmcError> {
        self.read_transfer("read the transfer's state").await
    }
    async fn flash<'a>(
        &self,
        slot: Slot,
        image: ImageUpload,
        progress: &'a FlashObserver<'a>,
    ) -> Result<Flashed, BmcError> {
        self.flash_upload(slot, image, progress).await
    }
    async fn flash_remote<'a>(
        &self,
        slot: Slot,
        image: RemoteImage,
        progress: &'a FlashObserver<'a>,
    ) -> Result<Flashed, BmcError> {
        self.flash_by_itself(slot, &image, progress).await
    }
    async fn cancel_transfer(&self) -> Result<bool, BmcError> {
        self.cancel_job().await
    }
    async fn upgrade_firmware<'a>(
        &self,
        source: FirmwareSource,
        progress: &'a FlashObserver<'a>,
    ) -> Result<StagedFirmware, BmcError> {
        self.stage_firmware(source, progress).await
    }
    async fn reboot(&self) -> Result<(), BmcError> {
        self.restart_bmc().await
    }
    async fn reload(&self) -> Result<(), BmcError> {
        self.restart_daemon().await
    }
    async fn backup<'a>(&self, into: &'a mut BackupSink<'a>) -> Result<u64, BmcError> {
        self.fetch_backup(into).await
    }
    async fn ping(&self) -> Result<(), BmcError> {
        self.reach().await
    }
}
