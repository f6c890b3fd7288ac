//! `turingpi board power` and `board reset`

use std::time::Duration;

use serde_json::json;
use turingpi_provision::bmc::{PerSlot, Power as Is, Slot};

use super::{
    args::{Power, SlotsYes},
    desk::{Open, Told, agree},
};
use crate::{
    exit::Exit,
    render::style::{DIM, GOOD, paint},
};

pub(super) async fn run(open: &Open, power: &Power) -> Result<Told, Exit> {
    match power {
        Power::Status => {}
        Power::On(slots) => {
            // Beside a flash, a module that is switched on could be taken for the one to be flashed.
            open.board.no_transfer().await?;
            switch(open, &slots.list(), Is::On).await?;
        }
        Power::Off(args) => {
            let slots = args.slots.list();
            let cuts = open.cuts(&slots).await;
            let what =
                format!("This cuts the power of {cuts} at once; systems that run there are not shut down.");
            agree(open.text, args.yes, &what).await?;
            switch(open, &slots, Is::Off).await?;
        }
        Power::Cycle(args) => {
            let slots = args.slots.slots.list();
            open.board.no_transfer().await?;
            let cuts = open.cuts(&slots).await;
            let what = format!("This cuts the power of {cuts} for {} s.", args.off_seconds);
            agree(open.text, args.slots.yes, &what).await?;
            switch(open, &slots, Is::Off).await?;
            // Not to be stopped in between: the slots would stay off.
            tokio::time::sleep(Duration::from_secs(args.off_seconds)).await;
            switch(open, &slots, Is::On).await?;
        }
        Power::Reset(args) => return reset(open, args).await,
    }
    status(open).await
}

pub(super) async fn reset(open: &Open, args: &SlotsYes) -> Result<Told, Exit> {
    let slots = args.slots.list();
    open.board.no_transfer().await?;
    let cuts = open.cuts(&slots).await;
    agree(open.text, args.yes, &format!("This resets {cuts}: off, one second, on.")).await?;
    let client = open.client();
    for slot in slots {
        open.have(client.reset(slot)).await?;
    }
    status(open).await
}

/// One request for all of them.
async fn switch(open: &Open, slots: &[Slot], to: Is) -> Result<(), Exit> {
    let mut change = PerSlot::new([None; 4]);
    for slot in slots {
        change[*slot] = Some(to);
    }
    open.have(open.client().set_power(&change)).await
}

async fn status(open: &Open) -> Result<Told, Exit> {
    let power = open.ask(open.client().power()).await?;
    let slots: Vec<_> = power
        .iter()
        .map(|(slot, power)| json!({ "slot": slot, "node": open.board.node(slot), "power": power }))
        .collect();
    let mut lines = vec![paint(DIM, "SLOT  POWER  NODE")];
    for (slot, power) in power.iter() {
        let word = format!("{:<5}", power.to_string());
        let word = if *power == Is::On { paint(GOOD, word) } else { word };
        lines.push(format!("{slot:<4}  {word}  {}", open.board.node(slot).unwrap_or("-")));
    }
    Ok(Told::new(json!({ "board": open.board.name(), "slots": slots }), lines.join("\n")))
}
