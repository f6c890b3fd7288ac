//! One board by hand: what `turingpi board` does, for any frontend.
//!
//! A [`BoardDesk`] knows which boards are meant and what is remembered of them (pinned certificates, logins, flashes); it
//! opens an [`OpenBoard`], whose [`client`](OpenBoard::client) is the whole API of the BMC. What takes more than one call
//! stands here: [flashing](BoardDesk::flash) as a plan, [firmware](BoardDesk::stage_firmware), waiting for a
//! [restart](BoardDesk::wait_until_back), looking for boards with [`discover`].
//!
//! # Invariants
//! - A kept token goes to the host, port, user and certificate it came from and to no other, and is not sent when it is old.
//! - A refused login is not repeated; a certificate that changed is refused.
//! - Nothing here asks a person: what a frontend should ask about is told by [`BoardDesk::occupants`], [`reboot_effect`]
//!   and the risk of planned steps.

mod address;
mod console;
mod desk;
mod discover;
mod effects;
mod firmware;
mod flash;
mod lifecycle;
mod tokens;
mod watch;

pub use address::of_document;
pub use console::{BoardConsole, ConsoleEvent, PlainText, Typist};
pub use desk::{BoardChoice, BoardDesk, Certificate, OpenBoard};
pub use discover::{Discovery, Found, discover};
pub use effects::Occupant;
pub use firmware::{Activated, FirmwareRequest, Staged, reboot_effect};
pub use flash::{Flash, FlashPlan, FlashRequest, SlotEnd, SlotState};
pub use watch::{
    BoardSnapshot, BoardWatch, BootStage, BootState, PowerAction, SlotSnapshot, TransferSnapshot, Trouble,
    Wanted, WatchEvent, WatchOptions, address_in, boot_stage,
};
