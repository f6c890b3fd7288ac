//! Everything that can go wrong with an upload, one after the other. Never a success that is none, never an end without a
//! next step.

use std::collections::VecDeque;

use turingpi_bmc::{BmcClient, BmcError, BmcErrorKind, FlashCause, ImageUpload, Slot};

use crate::server::{Answer, HANDLE, Server, Upload, done, failed, moving};

const SLOT: Slot = Slot::ALL[1];
/// Larger than what sockets and buffers swallow, for uploads that are answered early.
const LARGE: usize = 24 * 1024 * 1024;
const SMALL: usize = 1_000_000;
const BANNED: &str = "Exceeded allowed authentication attempts. Access blocked for 1m 59s";

struct Case {
    name: &'static str,
    upload: Upload,
    /// The transfer's state after the upload, or what is left of it.
    after: Vec<Answer>,
    kind: BmcErrorKind,
    cause: Option<FlashCause>,
    transient: bool,
}

fn case(name: &'static str, upload: Upload, after: Vec<Answer>, cause: FlashCause, transient: bool) -> Case {
    Case { name, upload, after, kind: BmcErrorKind::Flash, cause: Some(cause), transient }
}

fn other(
    name: &'static str,
    upload: Upload,
    after: Vec<Answer>,
    kind: BmcErrorKind,
    transient: bool,
) -> Case {
    Case { name, upload, after, kind, cause: None, transient }
}

fn at(percent: usize) -> usize {
    SMALL / 100 * percent
}

fn ready() -> Answer {
    Answer::plain(200, "\"Ready\"")
}

fn cases() -> Vec<Case> {
    use FlashCause::{
        Cancelled, ConnectionLost, DaemonRestarted, ModuleNotFound, NotProven, NotXz, Other, ReadBack,
        SendTimeout, SeveralModules,
    };
    let size = SMALL as u64;
    let refuse = |text: &str| Upload::Reject(at(50), Answer::plain(500, text));
    let cut = |percent| Upload::Reset(at(percent));
    let cancelled = || vec![failed("cancelled by user")];
    let gone = "cannot execute command in current state. current=Ready, expected=Transferring";
    let no_module = "Compute module's USB interface not found or supported";
    let token = || Answer::Reply(401, None, "token abc is not registered".to_owned());
    let banned = || Answer::Reply(401, None, BANNED.to_owned());
    vec![
        case("cut at 0 %", cut(0), cancelled(), ConnectionLost, true),
        case("cut at 1 %", cut(1), cancelled(), ConnectionLost, true),
        case("cut at 50 %", cut(50), cancelled(), ConnectionLost, true),
        case("cut at 99 %", cut(99), cancelled(), ConnectionLost, true),
        // All of it arrived; its answer did not. The BMC may well go on, but nobody here knows.
        case(
            "cut at 100 %",
            Upload::Reset(usize::MAX),
            vec![moving(HANDLE, size, size)],
            ConnectionLost,
            true,
        ),
        case("cut at 100 %, and done", Upload::Reset(usize::MAX), vec![done(size)], ConnectionLost, true),
        case("cut, and the daemon restarted", cut(50), vec![ready()], DaemonRestarted, true),
        other("cut by another client", cut(50), vec![moving(7, 1, size)], BmcErrorKind::Replaced, false),
        other(
            "token expired at the upload",
            Upload::Reject(0, token()),
            cancelled(),
            BmcErrorKind::Auth,
            false,
        ),
        other(
            "banned at the upload",
            Upload::Reject(at(1), banned()),
            cancelled(),
            BmcErrorKind::Banned,
            false,
        ),
        other(
            "banned by community firmware",
            Upload::Reject(0, Answer::Reply(429, None, BANNED.to_owned())),
            cancelled(),
            BmcErrorKind::Banned,
            false,
        ),
        case("500 in plain text", refuse("what nobody ever saw"), vec![done(size)], Other, false),
        case(
            "500 and html",
            Upload::Reject(0, Answer::Reply(502, Some("text/html"), "<html>".into())),
            cancelled(),
            Other,
            false,
        ),
        case(
            "malformed, and done",
            Upload::TakeAnd(Answer::plain(500, "Multipart form invalid")),
            vec![done(size)],
            Other,
            false,
        ),
        case(
            "done before all was sent",
            Upload::Reject(at(50), Answer::Reply(200, None, String::new())),
            vec![done(size)],
            Other,
            false,
        ),
        case("job gone", refuse(gone), vec![ready()], DaemonRestarted, true),
        case("job gone, late", refuse(gone), vec![failed("Send timeout")], SendTimeout, true),
        other(
            "another handle",
            refuse("unauthorized request for handle"),
            vec![moving(7, 1, size)],
            BmcErrorKind::Replaced,
            false,
        ),
        other(
            "another handle, over",
            refuse("unauthorized request for handle"),
            vec![done(3)],
            BmcErrorKind::Replaced,
            false,
        ),
        case("module not found", refuse(no_module), vec![failed(no_module)], ModuleNotFound, false),
        case(
            "module not found, later",
            Upload::Take,
            vec![moving(HANDLE, 0, size), failed(no_module)],
            ModuleNotFound,
            false,
        ),
        case(
            "several modules",
            Upload::Take,
            vec![failed("Error loading USB device: Several supported devices found")],
            SeveralModules,
            false,
        ),
        case(
            "verify fails",
            Upload::Take,
            vec![moving(HANDLE, 9, size), failed("crc error. expected 1, calculated 2")],
            ReadBack,
            true,
        ),
        case("not xz", Upload::Take, vec![failed("lzma data error")], NotXz, false),
        case(
            "cancelled elsewhere",
            Upload::Take,
            vec![moving(HANDLE, 9, size), failed("cancelled by user")],
            Cancelled,
            false,
        ),
        case(
            "bmc reboots while writing",
            Upload::Take,
            vec![moving(HANDLE, 9, size), ready()],
            DaemonRestarted,
            true,
        ),
        case(
            "done with nothing written",
            Upload::Take,
            vec![moving(HANDLE, 0, size), done(size)],
            NotProven,
            true,
        ),
        other("done of another size", Upload::Take, vec![done(5)], BmcErrorKind::Replaced, false),
        other(
            "a foreign job",
            Upload::Take,
            vec![moving(HANDLE, 9, size), moving(7, 9, size)],
            BmcErrorKind::Replaced,
            false,
        ),
        other(
            "bmc gone for good",
            Upload::Take,
            vec![moving(HANDLE, 9, size), Answer::Close],
            BmcErrorKind::Unreachable,
            true,
        ),
        other(
            "nonsense for a state",
            Upload::Take,
            vec![Answer::plain(200, "{\"Hm\":1}")],
            BmcErrorKind::Protocol,
            false,
        ),
    ]
}

#[tokio::test]
async fn no_fault_of_an_upload_becomes_a_success_or_an_end_without_a_next_step() {
    let bytes = |length| {
        let mut image = ImageUpload::bytes("armbian.img", vec![0x5a; length]).unwrap();
        // Without a digest that the BMC compares: then `Done` alone must not do.
        image.sha256 = None;
        image
    };
    let (small, large) = (bytes(SMALL), bytes(LARGE));
    for case in cases() {
        let server = Server::start().await;
        server.set(|state| {
            state.upload = case.upload.clone();
            if matches!(case.upload, Upload::Take) {
                state.after_upload = case.after.into();
            } else {
                state.transfer = VecDeque::from([ready()]);
                state.transfer.extend(case.after);
            }
        });
        let early = matches!(case.upload, Upload::Reject(..));
        let image = if early { large.clone() } else { small.clone() };
        let error = match server.client().flash(SLOT, image, &|_| {}).await {
            Err(error) => error,
            Ok(flashed) => panic!("{}: {flashed:?}", case.name),
        };
        let shown = format!("{}: {error:?}", case.name);
        assert_eq!(error.kind(), case.kind, "{shown}");
        if let BmcError::Flash { cause, .. } = &error {
            assert_eq!(Some(cause), case.cause.as_ref(), "{shown}");
        }
        assert_eq!(error.is_transient(), case.transient, "{shown}");
        assert!(error.hint().len() > 20, "{shown}");
        assert!(
            error.to_string().contains("flash slot 2") || error.to_string().contains("follow"),
            "{shown}"
        );
        if error.kind() == BmcErrorKind::Banned {
            assert_eq!(error.retry_after().unwrap().as_secs(), 119, "{shown}");
        }
        assert_eq!(server.count("opt=set&type=flash"), 1, "nothing is repeated blindly: {shown}");
        assert!(server.count("authenticate") <= 2, "{shown}");
    }
}

#[tokio::test]
async fn after_any_fault_the_same_client_flashes_again() {
    for upload in [Upload::Reset(at(50)), Upload::Reject(at(1), Answer::plain(500, "Send timeout"))] {
        let server = Server::start().await;
        server.set(|state| state.upload = upload);
        let client = server.client();
        let image = ImageUpload::bytes("armbian.img", vec![1; LARGE]).unwrap();
        client.flash(SLOT, image.clone(), &|_| {}).await.unwrap_err();
        server.set(|state| {
            state.upload = Upload::Take;
            state.after_upload = [done(LARGE as u64)].into();
        });
        client.flash(SLOT, image, &|_| {}).await.unwrap();
    }
}
