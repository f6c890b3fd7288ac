//! The client over HTTPS.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::SecretString;
use url::Url;

use crate::{
    About, BmcClient, BmcError, Fingerprint, FlashObserver, Flashed, ImageUpload, Info, PerSlot, Power, Slot,
    Transfer, Trust, UartMark, UartText, UsbMode, UsbRoute, UsbState,
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
        let settings = Settings { place, tls, credentials: self.credentials, timeouts: self.timeouts };
        Ok(HttpBmcClient { session: Arc::new(Session::new(settings)), flashing: Arc::default() })
    }
}

impl HttpBmcClient {
    /// Begins with the BMC's URL: `https://10.10.88.70`, with a port and path where a proxy stands in front. Plain `http`
    /// is for firmware 1.x, which knows neither TLS nor a login.
    pub fn builder(url: Url) -> HttpBmcClientBuilder {
        HttpBmcClientBuilder { url, credentials: None, trust: None, timeouts: BmcTimeouts::default() }
    }

    /// The fingerprint of the certificate the BMC showed last; `None` before the first connection.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.session.fingerprint()
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
        self.power_cycle(slot).await
    }
    async fn usb(&self) -> Result<UsbState, BmcError> {
        self.read_usb().await
    }
    async fn set_usb(&self, slot: Slot, mode: UsbMode, route: UsbRoute) -> Result<(), BmcError> {
        self.write_usb(slot, mode, route).await
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
}
