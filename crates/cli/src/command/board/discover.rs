//! `turingpi board discover`

use serde_json::json;
use turingpi_provision::{
    board::{Discovery, discover},
    engine::{Failure, FailureClass},
};

use super::{args::Discover, desk::Told};
use crate::{
    args::Global,
    exit::{self, Exit},
    session,
};

pub(super) async fn run(global: &Global, args: &Discover) -> Result<u8, Exit> {
    let scan = match &args.scan {
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::new(FailureClass::Usage, format!("`{text}` is not a network"))
                .hint("Write it with its prefix: `10.10.88.0/24`.")
        })?),
        None => None,
    };
    let wanted = Discovery { scan, port: args.port, ..Discovery::default() };
    let found = session::until_stopped(discover(&wanted)).await??;
    if found.is_empty() {
        let hint = match args.scan {
            Some(_) => "Check that the board has power and its network cable, and that this is its network.",
            None => {
                "The name is only heard on the same network: try `--scan` with the network of the board, such as `10.10.88.0/24`."
            }
        };
        return Err(Failure::new(FailureClass::Unreachable, "no board was found").hint(hint).into());
    }
    let lines: Vec<String> = found
        .iter()
        .map(|board| {
            let version = board.version.as_ref().map(|v| format!("  {v}")).unwrap_or_default();
            let certificate =
                board.fingerprint.as_ref().map(|f| format!("\n  certificate {f}")).unwrap_or_default();
            format!(
                "{}  ({}){version}{certificate}\n  turingpi board info --board {}",
                board.host, board.by, board.url
            )
        })
        .collect();
    Told::new(json!({ "boards": found }), lines.join("\n")).tell(global);
    Ok(exit::DONE)
}
