//! Typed client of a Turing Pi board's BMC: power, USB, serial console, flashing, firmware, fans and all else it can do.
//!
//! For: every firmware from 1.0 to the community's, behind one port, [`BmcClient`], that others can double (feature
//! `mock`). Not for: deciding what to do (no retries, no power-on after a flash, no waiting for a boot), and not for
//! unpacking images: what no BMC unpacks is refused, not repaired. A caller that unpacks while sending hands over a reader
//! with [`ImageUpload::stream`]; [`sends_xz_packed`] tells where that can be left to the BMC.
//!
//! What a firmware can do is detected ([`About::capabilities`]); what it cannot is refused as [`BmcError::Unsupported`]
//! before it is asked, since old firmware answers "ok" to what it does not know, hangs or crashes. [`discover`] finds boards
//! without a login (with feature `discovery` also by their name on the local network), and [`SavedToken`] takes a login from
//! one run of a program to the next.
//!
//! ```
//! use turingpi_bmc::{BmcClient, BmcError, HttpBmcClient, PerSlot, Power, Slot, Trust};
//!
//! # async fn serve() -> std::io::Result<String> {
//! #     use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! #     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! #     let url = format!("http://{}", listener.local_addr()?);
//! #     tokio::spawn(async move {
//! #         let Ok((mut socket, _)) = listener.accept().await else { return };
//! #         let mut request = [0; 2048];
//! #         while let Ok(1..) = socket.read(&mut request).await {
//! #             let text = String::from_utf8_lossy(&request).into_owned();
//! #             let result = if text.contains("opt=set") {
//! #                 r#"{"response":[{"result":"ok"}]}"#
//! #             } else {
//! #                 r#"{"response":[{"node1":1,"node2":0,"node3":0,"node4":0}]}"#
//! #             };
//! #             let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{result}", result.len());
//! #             let _ = socket.write_all(answer.as_bytes()).await;
//! #         }
//! #     });
//! #     Ok(url)
//! # }
//! /// Switches on what is off, with one request.
//! async fn all_on(bmc: &dyn BmcClient) -> Result<usize, BmcError> {
//!     let mut change = PerSlot::new([None; 4]);
//!     for (slot, power) in bmc.power().await?.iter() {
//!         if *power == Power::Off {
//!             change[slot] = Some(Power::On);
//!         }
//!     }
//!     bmc.set_power(&change).await?;
//!     Ok(change.iter().filter(|(_, power)| power.is_some()).count())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A board of firmware 2.x: the fingerprint of its self-signed certificate is pinned.
//! let pin = "5A:3F:".repeat(15) + "5A:3F";
//! let bmc = HttpBmcClient::builder("https://10.10.88.70".parse()?)
//!     .credentials("root", "turing".to_owned().into())
//!     .trust(Trust::Pin(pin.parse()?))
//!     .build()?; // nothing is sent yet
//! # drop(bmc);
//!
//! // One of firmware 1.x has neither TLS nor a login.
//! # let url = serve().await?;
//! let bmc = HttpBmcClient::builder(url.parse()?).build()?;
//! assert_eq!(all_on(&bmc).await?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - Slots are 1 to 4 everywhere; the wire's 0 to 3 and its words stay inside.
//! - One call at a time, over one connection: the daemon serves one and lets all others hang. During an upload the calls of
//!   other tasks wait; a second flash is refused. Dropping any future drops its connection, and an upload with it.
//! - Nothing is sent, credentials least of all, before the certificate is the trusted one. Plain `http` gets no credentials.
//! - A client logs in when it has to, and again once when its token is refused. A refused login is final: the BMC blocks an
//!   address after five. There are no other retries; a repetition is the caller's decision, and [`BmcError::is_transient`]
//!   and [`BmcError::retry_after`] help with it.
//! - Passwords, tokens and what is typed on a console are in no error, no `Debug` and no log.
//! - A token is bound to host, port, user and certificate, goes nowhere else, and is forgotten before a reboot or restart of
//!   the BMC is asked for.
//! - [`BmcClient::flash`] reports success only if the BMC took the whole upload, no other job came between, and the bytes were
//!   seen or their digest compared. The BMC's bare "done" proves nothing.
//! - An image passes through in pieces: memory stays within a few MiB.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod about;
mod capability;
mod client;
mod console;
mod cooling;
mod discover;
mod error;
mod flash;
mod image;
mod info;
mod lifecycle;
mod node_info;
mod port;
mod power;
mod sd_card;
mod slot;
mod tls;
mod token;
mod transfer;
mod uart;
mod usb;
mod wire;

pub use about::{About, Generation, Version};
pub use capability::{Capabilities, Capability, sends_xz_packed};
pub use client::{BmcTimeouts, HttpBmcClient, HttpBmcClientBuilder};
pub use console::{Console, ConsolePeer};
pub use cooling::{CoolingDevice, Temperature};
#[cfg(feature = "discovery")]
pub use discover::find_by_name;
pub use discover::{Candidate, DiscoveryLimits, InvalidCandidate, Sighting, discover, probe_board};
pub use error::{Attempt, AuthReason, BmcError, BmcErrorKind};
pub use flash::{
    FirmwareSource, FlashCause, FlashObserver, FlashPhase, FlashProgress, Flashed, NodeAfter, RemoteImage,
    StagedFirmware,
};
pub use image::{ImageEncoding, ImageUpload, OpenImage};
pub use info::{Info, Interface, Storage};
pub use lifecycle::BackupSink;
pub use node_info::{NodeInfo, NodeInfoChange};
pub use port::BmcClient;
#[cfg(feature = "mock")]
pub use port::MockBmcClient;
pub use power::Power;
pub use sd_card::SdCard;
pub use slot::{InvalidSlot, PerSlot, Slot};
pub use tls::{Fingerprint, FirstUse, InvalidFingerprint, Trust, probe_fingerprint};
pub use token::{InvalidSavedToken, SavedToken};
pub use transfer::Transfer;
pub use uart::{SerialState, UartEncoding, UartMark, UartText};
pub use usb::{UsbBus, UsbMode, UsbRoute, UsbState};
