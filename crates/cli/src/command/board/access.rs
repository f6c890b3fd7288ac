//! `turingpi board login`, `logout` and `trust`

use serde_json::json;
use turingpi_provision::engine::{Failure, FailureClass};

use super::{
    args::{Trust, Which},
    desk::{Open, Told, desk},
};
use crate::{
    args::{Global, Output},
    exit::{self, Exit},
    session,
};

/// Who logs in wants to know whether the password is right: a login that was kept must not answer for it.
pub(super) async fn forget(global: &Global, which: &Which) -> Result<(), Exit> {
    let desk = desk(global, which).await?;
    let name = desk.sole()?;
    desk.forget_login(name)?;
    Ok(())
}

/// Opening the board was the login.
pub(super) fn login(open: &Open) -> Told {
    let board = &open.board;
    let fingerprint = board.http().fingerprint().map(|f| f.to_string());
    let json = json!({
        "board": board.name(),
        "user": board.username(),
        "fingerprint": fingerprint,
        "done": "login",
    });
    let text = match board.url().scheme() {
        "https" => format!("logged in to {} as {}", board.name(), board.username()),
        _ => format!("{} asks for no login", board.name()),
    };
    Told::new(json, text)
}

pub(super) async fn logout(global: &Global, which: &Which) -> Result<u8, Exit> {
    let desk = desk(global, which).await?;
    let name = desk.sole()?;
    let found = desk.forget_login(name)?;
    let text = match found {
        true => format!("the login of {name} is forgotten here; the BMC forgets it within three hours"),
        false => format!("there was no kept login of {name}"),
    };
    Told::new(json!({ "board": name, "done": "logout", "found": found }), text).tell(global);
    Ok(exit::DONE)
}

pub(super) async fn trust(global: &Global, which: &Which, args: &Trust) -> Result<u8, Exit> {
    let desk = desk(global, which).await?;
    let name = desk.sole()?;
    if args.forget || args.pin.is_some() {
        desk.trust(name, args.pin).await?;
    }
    let certificate = match session::until_stopped(desk.certificate(name)).await? {
        Ok(certificate) => certificate,
        // What was asked for is done; whether the BMC answers now is another matter.
        Err(_) if args.forget => {
            let json = json!({ "board": name, "pinned": null, "shown": null, "matches": null, "from_document": false });
            Told::new(json, format!("{name}: nothing is pinned")).tell(global);
            return Ok(exit::DONE);
        }
        Err(failure) => return Err(failure.into()),
    };
    let matches = match (certificate.pinned, certificate.shown) {
        (Some(pinned), Some(shown)) => Some(pinned == shown),
        _ => None,
    };
    let word = |f: Option<turingpi_provision::bmc::Fingerprint>, none: &str| {
        f.map_or(none.to_owned(), |f| f.to_string())
    };
    let from = if certificate.from_document { " (by the document)" } else { "" };
    let text = format!(
        "{name}\n  pinned{from}\n    {}\n  shown now\n    {}\n{}",
        word(certificate.pinned, "nothing: the next one seen is pinned"),
        word(certificate.shown, "none: firmware 1.x has no encryption"),
        match matches {
            Some(true) => "They are the same.",
            Some(false) => "THEY DIFFER: nothing is sent to this BMC.",
            None => "",
        },
    );
    let json = json!({
        "board": name,
        "pinned": certificate.pinned.map(|f| f.to_string()),
        "shown": certificate.shown.map(|f| f.to_string()),
        "matches": matches,
        "from_document": certificate.from_document,
    });
    Told::new(json, text).tell(global);
    match matches {
        // Programs have been told.
        Some(false) if global.output == Output::Json => Ok(exit::AUTH),
        Some(false) => Err(Failure::new(
            FailureClass::Auth,
            format!("the certificate of {name} is not the pinned one"),
        )
        .hint(format!(
            "If the BMC was reinstalled, compare the shown one on the board itself, then `turingpi board trust --board {name} --pin FINGERPRINT`."
        ))
        .into()),
        _ => Ok(exit::DONE),
    }
}
