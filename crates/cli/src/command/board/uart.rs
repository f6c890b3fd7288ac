//! `turingpi board uart`: the console once. The interactive one is `board console`.

use serde_json::json;
use turingpi_provision::bmc::UartEncoding;

use super::{
    args::{Encoding, Uart},
    desk::{Open, Told, from_stdin},
};
use crate::exit::Exit;

pub(super) async fn run(open: &Open, uart: &Uart) -> Result<Told, Exit> {
    let client = open.client();
    match uart {
        Uart::Get(args) => {
            let slot = args.slot.node;
            let text = open.ask(client.uart_read(slot, encoding(args.encoding))).await?;
            let shown = printable(&text);
            Ok(Told::new(json!({ "board": open.board.name(), "slot": slot, "text": text }), shown))
        }
        Uart::Set(args) => {
            let slot = args.slot.node;
            let line = match args.cmd.as_str() {
                "-" => from_stdin("the line")?,
                line => line.to_owned(),
            };
            open.have(client.uart_send(slot, &line)).await?;
            let json = json!({ "board": open.board.name(), "slot": slot, "done": "uart-set" });
            Ok(Told::new(json, format!("typed on the console of slot {slot}")))
        }
    }
}

/// What a console wrote must not drive this terminal: colours may stay away, and cursor jumps too.
fn printable(text: &str) -> String {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
        .collect()
}

fn encoding(encoding: Encoding) -> UartEncoding {
    match encoding {
        Encoding::Utf8 => UartEncoding::Utf8,
        Encoding::Utf16 => UartEncoding::Utf16,
        Encoding::Utf16le => UartEncoding::Utf16le,
        Encoding::Utf16be => UartEncoding::Utf16be,
        Encoding::Utf32 => UartEncoding::Utf32,
        Encoding::Utf32le => UartEncoding::Utf32le,
        Encoding::Utf32be => UartEncoding::Utf32be,
    }
}
