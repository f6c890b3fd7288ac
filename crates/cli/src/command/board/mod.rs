//! `turingpi board`: one board by hand.

mod access;
mod args;
mod bmc;
mod console;
mod desk;
mod discover;
mod firmware;
mod flash;
mod info;
mod nodes;
mod power;
mod uart;
mod usb;
pub(crate) mod watch;

pub(crate) use args::{Board, Verb};

use crate::{
    args::Global,
    exit::{self, Exit},
};

pub(crate) async fn run(global: &Global, args: &Board) -> Result<u8, Exit> {
    match &args.verb {
        Verb::Discover(verb) => discover::run(global, verb).await,
        Verb::Flash(verb) => flash::run(global, &args.which, verb).await,
        Verb::Firmware(verb) => firmware::run(global, &args.which, verb).await,
        Verb::Console(verb) => console::run(global, &args.which, verb).await,
        Verb::Watch(verb) => watch::run(global, &args.which, verb).await,
        Verb::Logout => access::logout(global, &args.which).await,
        Verb::Trust(verb) => access::trust(global, &args.which, verb).await,
        verb => {
            if matches!(verb, Verb::Login) {
                access::forget(global, &args.which).await?;
            }
            let open = desk::Open::only(global, &args.which).await?;
            let told = calls(&open, verb).await;
            // The time of a token's last use counts, also after a failed call.
            let kept = open.keep_login();
            told?.tell(global);
            kept?;
            Ok(exit::DONE)
        }
    }
}

/// The verbs that are one conversation with one board.
async fn calls(open: &desk::Open, verb: &Verb) -> Result<desk::Told, Exit> {
    match verb {
        Verb::Info => info::info(open).await,
        Verb::Power(power) => power::run(open, power).await,
        Verb::Reset(reset) => power::reset(open, reset).await,
        Verb::Usb(usb) => usb::run(open, usb).await,
        Verb::Advanced(advanced) => usb::advanced(open, advanced).await,
        Verb::Uart(uart) => uart::run(open, uart).await,
        Verb::NodeInfo(nodes) => nodes::run(open, nodes).await,
        Verb::Cooling(cooling) => bmc::cooling(open, cooling).await,
        Verb::Eth(args::Eth::Reset(yes)) => bmc::eth_reset(open, *yes).await,
        Verb::Sdcard => bmc::sd_card(open).await,
        Verb::Reboot(restart) => bmc::reboot(open, restart).await,
        Verb::Reload(restart) => bmc::reload(open, restart).await,
        Verb::Backup(backup) => bmc::backup(open, backup).await,
        Verb::Transfer(transfer) => bmc::transfer(open, transfer).await,
        Verb::Login => Ok(access::login(open)),
        Verb::Console(_)
        | Verb::Watch(_)
        | Verb::Discover(_)
        | Verb::Flash(_)
        | Verb::Firmware(_)
        | Verb::Logout
        | Verb::Trust(_) => {
            unreachable!("these open their boards themselves")
        }
    }
}
