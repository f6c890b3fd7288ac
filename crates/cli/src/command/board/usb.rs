//! `turingpi board usb` and `board advanced`

use serde_json::json;
use turingpi_provision::bmc::{BmcError, UsbBus, UsbMode, UsbRoute};

use super::{
    args::{Advanced, AdvancedSlot, Usb, UsbSlot},
    desk::{Open, Told, agree},
};
use crate::exit::Exit;

pub(super) async fn run(open: &Open, usb: &Usb) -> Result<Told, Exit> {
    match usb {
        Usb::Status => {}
        Usb::Host(slot) => set(open, slot, UsbMode::Host).await?,
        Usb::Device(slot) => set(open, slot, UsbMode::Device).await?,
        Usb::Flash(args) => {
            let slot = args.slot.slot.node;
            let cuts = open.cuts(&[slot]).await;
            let what = format!(
                "At its next power-on {cuts} does not start its system but waits for an image, until this is changed back."
            );
            agree(open.text, args.yes, &what).await?;
            set(open, &args.slot, UsbMode::Flash).await?;
        }
    }
    status(open).await
}

async fn set(open: &Open, slot: &UsbSlot, mode: UsbMode) -> Result<(), Exit> {
    // A flash has the board's USB for itself.
    open.board.no_transfer().await?;
    let route = if slot.bmc { UsbRoute::Bmc } else { UsbRoute::Port };
    open.have(open.client().set_usb(slot.slot.node, mode, route)).await
}

async fn status(open: &Open) -> Result<Told, Exit> {
    let client = open.client();
    let usb = open.ask(client.usb()).await?;
    // Boards without a hub and older firmware have no such choice.
    let node1 = match client.usb_node1_alternative().await {
        Ok(alternative) => Some(alternative),
        Err(BmcError::Unsupported { .. } | BmcError::Api { .. }) => None,
        Err(error) => return Err(open.board.failure(error).into()),
    };
    let mode = match usb.mode {
        UsbMode::Host => "host",
        UsbMode::Device => "device",
        UsbMode::Flash => "device, waiting for an image at its next power-on",
    };
    let route = match (usb.route, usb.bus) {
        (UsbRoute::Bmc, _) => "the BMC",
        (UsbRoute::Port, Some(UsbBus::Hub)) => "the board's USB-C port",
        (UsbRoute::Port, Some(UsbBus::Single)) => "the board's USB-A port",
        (UsbRoute::Port, None) => "the board's port",
    };
    let mut text = format!("slot {} is a {mode}\nrouted to {route}", usb.slot);
    match usb.bus {
        Some(UsbBus::Hub) => text.push_str("\nwired as a hub: every slot is a device of the BMC (v2.5)"),
        Some(UsbBus::Single) => text.push_str("\nwired as a switch: one slot at a time (v2.4)"),
        None => {}
    }
    Ok(Told::new(json!({ "board": open.board.name(), "usb": usb, "node1_alternative": node1 }), text))
}

pub(super) async fn advanced(open: &Open, advanced: &Advanced) -> Result<Told, Exit> {
    let client = open.client();
    let (AdvancedSlot { slot, yes }, word) = match advanced {
        Advanced::Msd(args) => (args, "msd"),
        Advanced::Normal(args) => (args, "normal"),
    };
    open.board.no_transfer().await?;
    let cuts = open.cuts(&[slot.node]).await;
    let becomes = match advanced {
        Advanced::Msd(_) => "and shows its eMMC as a disk",
        Advanced::Normal(_) => "and starts its system",
    };
    agree(open.text, *yes, &format!("This power-cycles {cuts}, {becomes}.")).await?;
    let text = match advanced {
        Advanced::Msd(_) => {
            open.have(client.mass_storage(slot.node)).await?;
            format!(
                "slot {0}'s eMMC is a disk of the BMC now, and of a computer on the board's USB port\n\
                 `turingpi board advanced normal -n {0}` ends it",
                slot.node
            )
        }
        Advanced::Normal(_) => {
            open.have(client.normal_mode(slot.node)).await?;
            format!("slot {} starts its system", slot.node)
        }
    };
    Ok(Told::new(json!({ "board": open.board.name(), "slot": slot.node, "done": word }), text))
}
