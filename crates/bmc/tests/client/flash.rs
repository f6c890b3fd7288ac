//! Flashing by upload.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::io::AsyncRead;
use turingpi_bmc::{
    BmcClient, BmcError, Capability, FlashCause, FlashPhase, FlashProgress, Flashed, ImageEncoding,
    ImageUpload, NodeAfter, OpenImage, Slot,
};

use crate::server::{ABOUT_2_0_5, Answer, HANDLE, Server, Upload, done, failed, moving, timeouts};

const SLOT: Slot = Slot::ALL[1];
/// Larger than what sockets and buffers swallow, so that a server that stops reading stops the client.
const LARGE: usize = 24 * 1024 * 1024;

/// The same for every test: pseudo-random bytes take their time without optimisation.
fn large() -> ImageUpload {
    static BYTES: std::sync::LazyLock<ImageUpload> = std::sync::LazyLock::new(|| image(vec![0x5a; LARGE]));
    BYTES.clone()
}

fn raw(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn image(bytes: Vec<u8>) -> ImageUpload {
    ImageUpload::bytes("armbian.img", bytes).unwrap()
}

fn changed(mut image: ImageUpload, change: impl FnOnce(&mut ImageUpload)) -> ImageUpload {
    change(&mut image);
    image
}

async fn flash(server: &Server, image: ImageUpload) -> Result<Flashed, BmcError> {
    server.client().flash(SLOT, image, &|_| {}).await
}

fn cause(error: BmcError) -> (FlashPhase, FlashCause, NodeAfter) {
    match error {
        BmcError::Flash { phase, cause, node, .. } => (phase, cause, node),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_raw_image_arrives_whole_and_its_progress_is_told() {
    let server = Server::start().await;
    let bytes = raw(3_000_000);
    let length = bytes.len() as u64;
    server.set(|state| {
        state.after_upload = VecDeque::from([
            moving(HANDLE, 2_900_000, length),
            moving(HANDLE, 3_000_000, length),
            moving(HANDLE, 524_288, length),
            done(length),
        ]);
    });
    let told = Mutex::new(Vec::new());
    let client = server.client();
    let flashed = client.flash(SLOT, image(bytes.clone()), &|p| told.lock().unwrap().push(p)).await.unwrap();
    assert_eq!(flashed.bytes_sent, length);
    assert!(server.state.lock().unwrap().written.as_ref() == Some(&bytes), "other bytes were written");

    let start = server.lines().into_iter().find(|line| line.contains("opt=set&type=flash")).unwrap();
    assert_eq!(
        start,
        format!(
            "GET /api/bmc?opt=set&type=flash&node=1&file=armbian.img&length=3000000&sha256={}",
            flashed.sha256
        )
    );
    let told = told.into_inner().unwrap();
    assert_eq!(told[..2], [FlashProgress::Starting, FlashProgress::Uploading { sent: 0, total: length }]);
    assert_eq!(
        told[told.len() - 5..],
        [
            FlashProgress::Uploading { sent: length, total: length },
            FlashProgress::Writing { done: 2_900_000, total: Some(length) },
            FlashProgress::Writing { done: 3_000_000, total: Some(length) },
            FlashProgress::Verifying { done: 524_288, total: Some(length) },
            FlashProgress::Finished,
        ]
    );
    assert_eq!(server.count("type=power"), 0, "a flash switches nothing");
    assert_eq!(server.state.lock().unwrap().connections, 1, "the upload needs no handshake of its own");
}

#[tokio::test]
async fn an_xz_image_is_sent_as_it_is_under_a_name_that_says_so() {
    let server = Server::start().await;
    let mut bytes = vec![0xfd, b'7', b'z', b'X', b'Z', 0];
    bytes.extend(raw(100_000));
    let length = bytes.len() as u64;
    // More bytes written than declared is usual for xz.
    server
        .set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 9_000_000, length), done(length)]));
    let image = ImageUpload::bytes("../My image (1)", bytes.clone()).unwrap();
    assert_eq!(image.encoding, ImageEncoding::Xz);
    let told = Mutex::new(Vec::new());
    server.client().flash(SLOT, image, &|p| told.lock().unwrap().push(p)).await.unwrap();
    assert!(server.state.lock().unwrap().written.as_ref() == Some(&bytes));
    assert_eq!(server.count("&file=My_image__1_.xz&"), 1, "{:?}", server.lines());
    assert!(told.into_inner().unwrap().contains(&FlashProgress::Writing { done: 9_000_000, total: None }));
}

#[tokio::test]
async fn a_file_is_measured_sniffed_and_digested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.xz"); // raw, whatever it calls itself
    std::fs::write(&path, b"hello").unwrap();
    let image = ImageUpload::file(&path).await.unwrap();
    assert_eq!((image.length, image.encoding), (5, ImageEncoding::Raw));
    assert_eq!(
        image.sha256.as_deref(),
        Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    );
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([done(5)]));
    flash(&server, image).await.unwrap();
    assert_eq!(server.count("&file=image.xz.img&"), 1, "raw bytes must not be unpacked");

    for (name, start) in [
        ("a.gz", &b"\x1f\x8b\x08\0"[..]),
        ("a.zst", b"\x28\xb5\x2f\xfd"),
        ("a", b"BZh9"),
        ("a.zip", b"PK\x03\x04"),
    ] {
        std::fs::write(&path, start).unwrap();
        let error = ImageUpload::file(&path).await.unwrap_err();
        assert!(matches!(error, BmcError::Image { .. }), "{name}: {error:?}");
    }
    std::fs::write(&path, b"").unwrap();
    ImageUpload::file(&path).await.unwrap_err();
    ImageUpload::file(folder.path().join("missing")).await.unwrap_err();
    ImageUpload::bytes("http-image.img", &b"x"[..]).unwrap().with_sha256("zz").unwrap_err();
}

#[tokio::test]
async fn a_name_that_begins_with_http_would_be_downloaded_and_is_changed() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([done(1)]));
    flash(&server, ImageUpload::bytes("http_x.img", &b"x"[..]).unwrap()).await.unwrap();
    assert_eq!(server.count("&file=image-http_x.img&"), 1);
}

#[tokio::test]
async fn a_flash_is_refused_while_another_transfer_moves() {
    let server = Server::start().await;
    server.set(|state| state.transfer = VecDeque::from([moving(7, 1_048_576, 3_000_000)]));
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    let BmcError::Busy { process, bytes, size, .. } = &error else { panic!("{error:?}") };
    assert_eq!((process.as_str(), *bytes, *size), ("Node 2 os install service", 1_048_576, Some(3_000_000)));
    assert!(error.to_string().contains("34 %"), "{error}");
    assert_eq!(server.count("opt=set&type=flash"), 0, "a start would have killed the other one");
}

#[tokio::test]
async fn a_second_flash_of_the_same_client_is_refused_at_once() {
    let server = Server::start().await;
    server.set(|state| state.upload = Upload::Stall(100_000));
    let client = server.client();
    let other = client.clone();
    let first = tokio::spawn(async move { other.flash(SLOT, large(), &|_| {}).await });
    until(|| server.count("/upload/") == 1).await;
    let error = client.flash(Slot::ALL[3], image(raw(10)), &|_| {}).await.unwrap_err();
    assert!(matches!(&error, BmcError::Busy { process, .. } if process.contains("slot 2")), "{error:?}");
    first.abort();
    let _ = first.await;
    // The right is given back.
    server.set(|state| {
        state.upload = Upload::Take;
        state.after_upload = VecDeque::from([done(10)]);
    });
    client.flash(Slot::ALL[3], image(raw(10)), &|_| {}).await.unwrap();
}

#[tokio::test]
async fn the_token_is_fresh_when_the_upload_starts() {
    let server = Server::start().await;
    let client = server.client();
    client.about().await.unwrap();
    server.set(|state| {
        state.tokens.clear(); // the daemon restarted unnoticed
        state.after_upload = VecDeque::from([done(10)]);
    });
    client.flash(SLOT, image(raw(10)), &|_| {}).await.unwrap();
    let lines = server.lines();
    let login = lines.iter().rposition(|line| line.contains("authenticate")).unwrap();
    let start = lines.iter().position(|line| line.contains("opt=set&type=flash")).unwrap();
    assert!(
        login < start && lines.iter().filter(|line| line.contains("authenticate")).count() == 2,
        "{lines:?}"
    );
}

#[tokio::test]
async fn firmware_1_is_refused_before_anything_is_sent_to_it() {
    let server = Server::plain().await;
    let other = "{\r\n\t\"response\":\t[{\"version\":\"1.1.0\",\"buildtime\":\"2023-07-28\",\"ip\":\"192.168.1.90\",\"mac\":\"02:00:4a:ea:dd:34\"}]\n}";
    server.script("type=other", Answer::plain(200, other), usize::MAX);
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    assert!(
        matches!(&error, BmcError::Unsupported { capability: Capability::ImageUpload, firmware, .. } if firmware == "firmware 1.1.0"),
        "{error:?}"
    );
    assert!(error.hint().contains("SD card"));
    assert_eq!(server.lines(), ["GET /api/bmc?opt=get&type=other"]);
}

#[tokio::test]
async fn firmware_2_0_gets_no_xz_and_no_digest_it_does_not_know() {
    let server = Server::start().await;
    server.set(|state| {
        state.about = ABOUT_2_0_5.to_owned();
        state.after_upload = VecDeque::from([done(10)]);
    });
    let error = flash(&server, ImageUpload::bytes("a.xz", &b"\xfd7zXZ\0..."[..]).unwrap()).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::Xz, .. }), "{error:?}");
    flash(&server, image(raw(10))).await.unwrap();
    assert_eq!(server.count("sha256"), 0);
}

#[tokio::test]
async fn an_early_answer_tells_the_reason_though_the_upload_breaks() {
    let server = Server::start().await;
    server.set(|state| {
        state.upload = Upload::Reject(
            300_000,
            Answer::plain(500, "Compute module's USB interface not found or supported"),
        );
        let text = "Compute module's USB interface not found or supported";
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), failed(text)]);
    });
    let found = cause(flash(&server, large()).await.unwrap_err());
    assert_eq!(found, (FlashPhase::Upload, FlashCause::ModuleNotFound, NodeAfter::OnInFlashMode));
    assert_eq!(server.count("opt=get&type=flash"), 2, "the state is asked once before and once after");
}

#[tokio::test]
async fn an_early_answer_is_heard_even_if_the_state_says_nothing() {
    // Many times: the answer and the reset that follows it race each other.
    for _ in 0..5 {
        let server = Server::start().await;
        server.set(|state| {
            state.upload =
                Upload::Reject(64 * 1024, Answer::plain(500, "No space left on device (os error 28)"));
            state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), done(1)]);
        });
        let found = cause(flash(&server, large()).await.unwrap_err());
        assert_eq!(found, (FlashPhase::Upload, FlashCause::NoSpace, NodeAfter::Off));
    }
}

#[tokio::test]
async fn done_after_a_refused_upload_is_no_success() {
    let server = Server::start().await;
    server.set(|state| {
        state.upload = Upload::TakeAnd(Answer::plain(500, "Multipart form invalid"));
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), done(10)]);
    });
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    assert!(error.to_string().contains("Multipart form invalid"), "{error}");
    assert!(matches!(error, BmcError::Flash { phase: FlashPhase::Upload, .. }), "{error:?}");
}

#[tokio::test]
async fn done_without_bytes_and_without_a_digest_is_no_success() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 0, 10), done(10)]));
    let without = changed(image(raw(10)), |image| image.sha256 = None);
    let found = cause(flash(&server, without.clone()).await.unwrap_err());
    assert_eq!(found.1, FlashCause::NotProven);
    // With bytes seen it is one.
    server.set(|state| {
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\"")]);
        state.after_upload = VecDeque::from([moving(HANDLE, 10, 10), done(10)]);
    });
    let flashed = flash(&server, without).await.unwrap();
    assert_eq!(Some(flashed.sha256), image(raw(10)).sha256, "computed while sending");
}

#[tokio::test]
async fn done_of_another_size_is_somebody_elses() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 10, 10), done(77)]));
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    assert!(matches!(error, BmcError::Replaced { .. }), "{error:?}");
}

#[tokio::test]
async fn a_foreign_job_after_the_upload_is_reported() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 5, 10), moving(4711, 5, 10)]));
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    assert!(
        matches!(&error, BmcError::Replaced { process, .. } if process == "Node 2 os install service"),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_foreign_job_during_the_upload_is_reported() {
    let server = Server::start().await;
    server.set(|state| {
        state.upload = Upload::Reject(100, Answer::plain(500, "unauthorized request for handle"));
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), moving(4711, 5, 10)]);
    });
    let error = flash(&server, image(raw(100_000))).await.unwrap_err();
    assert!(matches!(&error, BmcError::Replaced { process, .. } if !process.is_empty()), "{error:?}");
}

#[tokio::test]
async fn what_the_bmc_says_after_the_upload_becomes_a_typed_cause() {
    let (one, two) = ("aa".repeat(32), "bb".repeat(32));
    let cases = [
        ("Send timeout".to_owned(), FlashCause::SendTimeout, NodeAfter::Off),
        (
            format!("sha256 checksum failed. Expected: {one}, got: {two}"),
            FlashCause::Checksum { expected: one, found: two },
            NodeAfter::Off,
        ),
        ("crc error. expected 12, calculated 34".to_owned(), FlashCause::ReadBack, NodeAfter::Off),
        ("lzma data error".to_owned(), FlashCause::NotXz, NodeAfter::Off),
        ("stream/file format not recognized".to_owned(), FlashCause::NotXz, NodeAfter::Off),
        ("cancelled by user".to_owned(), FlashCause::Cancelled, NodeAfter::Off),
        ("No space left on device (os error 28)".to_owned(), FlashCause::NoSpace, NodeAfter::Off),
        ("Input/output error (os error 5)".to_owned(), FlashCause::DeviceIo, NodeAfter::Off),
        (
            "Error loading USB device: No supported USB devices found".to_owned(),
            FlashCause::NoDisk,
            NodeAfter::OnInFlashMode,
        ),
        (
            "Error loading USB device: Several supported devices found".to_owned(),
            FlashCause::SeveralModules,
            NodeAfter::OnInFlashMode,
        ),
        ("what nobody ever saw".to_owned(), FlashCause::Other, NodeAfter::Unknown),
    ];
    let server = Server::start().await;
    let client = server.client();
    for (text, expected, node) in cases {
        server.set(|state| {
            state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\"")]);
            state.after_upload = VecDeque::from([moving(HANDLE, 10, 10), failed(&text)]);
        });
        let error = client.flash(SLOT, image(raw(10)), &|_| {}).await.unwrap_err();
        assert!(!error.hint().is_empty());
        assert_eq!(cause(error), (FlashPhase::Write, expected, node), "{text}");
    }
}

#[tokio::test]
async fn firmware_2_0_leaves_the_node_on_after_any_failure() {
    let server = Server::start().await;
    server.set(|state| {
        state.about = ABOUT_2_0_5.to_owned();
        state.after_upload = VecDeque::from([failed("integrity check of written image failed")]);
    });
    let found = cause(flash(&server, image(raw(10))).await.unwrap_err());
    assert_eq!((found.1, found.2), (FlashCause::ReadBack, NodeAfter::OnInFlashMode));
}

#[tokio::test]
async fn a_refused_start_touches_nothing() {
    let server = Server::start().await;
    server.script("opt=set&type=flash", Answer::plain(500, "Invalid `length` query parameter"), 1);
    let error = flash(&server, image(raw(10))).await.unwrap_err();
    assert!(error.to_string().contains("Invalid `length`"), "{error}");
    assert_eq!(cause(error), (FlashPhase::Start, FlashCause::Other, NodeAfter::Untouched));
    assert_eq!(server.count("/upload/"), 0);
}

#[tokio::test]
async fn a_start_that_never_reached_a_job_is_told_by_its_state() {
    // The ten seconds were over before the upload came.
    let server = Server::start().await;
    let text = "cannot execute command in current state. current=Error, expected=Transferring";
    server.set(|state| {
        state.upload = Upload::Reject(10, Answer::plain(500, text));
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), failed("Send timeout")]);
    });
    let error = flash(&server, image(raw(1000))).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(cause(error).1, FlashCause::SendTimeout);
}

#[tokio::test]
async fn a_connection_reset_while_sending_is_told_apart_from_a_restarted_daemon() {
    for percent in [1, 50, 99] {
        let server = Server::start().await;
        server.set(|state| {
            state.upload = Upload::Reset(LARGE / 100 * percent);
            state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), failed("cancelled by user")]);
        });
        let error = flash(&server, large()).await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(
            cause(error),
            (FlashPhase::Upload, FlashCause::ConnectionLost, NodeAfter::Unknown),
            "{percent} %"
        );
    }
    let server = Server::start().await;
    server.set(|state| state.upload = Upload::Reset(LARGE / 2)); // the state says "Ready"
    let found = cause(flash(&server, large()).await.unwrap_err());
    assert_eq!(found.1, FlashCause::DaemonRestarted);
}

#[tokio::test]
async fn a_daemon_that_restarts_while_writing_is_told() {
    let server = Server::start().await;
    server.set(|state| {
        state.after_upload = VecDeque::from([moving(HANDLE, 5, 10), Answer::plain(200, "\"Ready\"")]);
    });
    let found = cause(flash(&server, image(raw(10))).await.unwrap_err());
    assert_eq!((found.1, found.2), (FlashCause::DaemonRestarted, NodeAfter::Unknown));
}

#[tokio::test]
async fn an_upload_that_stalls_ends() {
    let server = Server::start().await;
    server.set(|state| {
        state.upload = Upload::Stall(1_000_000);
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\""), moving(HANDLE, 5, 10)]);
    });
    let short = turingpi_bmc::BmcTimeouts { upload_stall: Duration::from_millis(300), ..timeouts() };
    let client = server.client_with(short, crate::server::PASSWORD);
    let error = client.flash(SLOT, large(), &|_| {}).await.unwrap_err();
    assert!(
        matches!(error, BmcError::Stalled { limit, .. } if limit == Duration::from_millis(300)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_job_that_stops_writing_ends() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 5, 10)]));
    let short = turingpi_bmc::BmcTimeouts { write_stall: Duration::from_millis(100), ..timeouts() };
    let client = server.client_with(short, crate::server::PASSWORD);
    let error = client.flash(SLOT, image(raw(10)), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Stalled { .. }), "{error:?}");
}

#[tokio::test]
async fn a_few_failed_looks_are_borne_and_more_are_not() {
    let server = Server::start().await;
    let slow = turingpi_bmc::BmcTimeouts { call: Duration::from_secs(5), ..timeouts() };
    let client = server.client_with(slow, crate::server::PASSWORD);
    client.about().await.unwrap();
    let looks = [
        moving(HANDLE, 5, 10),
        Answer::Close,
        Answer::Hang, // slower than the limit of a call
        Answer::Reply(502, Some("text/html"), "<html>bad gateway</html>".to_owned()),
        moving(HANDLE, 8, 10),
        Answer::Late(Duration::from_millis(30), Box::new(done(10))),
    ];
    server.set(|state| state.after_upload = VecDeque::from(looks));
    client.flash(SLOT, image(raw(10)), &|_| {}).await.unwrap();

    server.set(|state| {
        state.transfer = VecDeque::from([Answer::plain(200, "\"Ready\"")]);
        state.after_upload = VecDeque::from([Answer::Close]);
    });
    let error = client.flash(SLOT, image(raw(10)), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_dropped_flash_drops_its_connection() {
    let server = Server::start().await;
    server.set(|state| state.upload = Upload::Take);
    let client = server.client();
    // A reader that gives some bytes and then waits for ever.
    let open: OpenImage =
        Arc::new(|| Box::pin(async { Ok(Box::new(Endless(0)) as Box<dyn AsyncRead + Send + Unpin>) }));
    let image = ImageUpload::new("endless.img", 50_000_000, ImageEncoding::Raw, open);
    let flashing = client.clone();
    let task = tokio::spawn(async move { flashing.flash(SLOT, image, &|_| {}).await });
    until(|| server.count("opt=set&type=flash") == 1).await;
    assert_eq!(server.state.lock().unwrap().aborted, 0);
    task.abort();
    let _ = task.await;
    until(|| server.state.lock().unwrap().aborted == 1).await;
    // And the client goes on with another connection.
    client.about().await.unwrap();
}

struct Endless(usize);
impl AsyncRead for Endless {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.0 > 1_000_000 {
            return std::task::Poll::Pending;
        }
        let room = buf.remaining().min(65_536);
        self.0 += room;
        buf.put_slice(&vec![7; room]);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_image_that_is_not_what_was_declared_never_becomes_a_whole_upload() {
    let bytes = raw(1_000_000);
    let good = image(bytes.clone());
    let wrong_digest = "ab".repeat(32);
    let cases = [
        (changed(good.clone(), |image| image.length = 999_999), "longer"),
        (changed(good.clone(), |image| image.length = 1_000_001), "shorter"),
        (good.clone().with_sha256(&wrong_digest).unwrap(), "SHA-256"),
    ];
    for (image, word) in cases {
        let server = Server::start().await;
        // Firmware 2.0 compares no digest: the client does, before the last byte.
        server.set(|state| state.about = ABOUT_2_0_5.to_owned());
        let error = flash(&server, image).await.unwrap_err();
        assert!(
            matches!(&error, BmcError::Image { problem, .. } if problem.contains(word)),
            "{word}: {error:?}"
        );
        assert!(server.state.lock().unwrap().written.is_none());
    }
    let broken: OpenImage = Arc::new(|| Box::pin(async { Err(io::Error::other("gone")) }));
    let server = Server::start().await;
    let error = flash(&server, changed(good, |image| image.open = broken)).await.unwrap_err();
    assert!(matches!(error, BmcError::Image { source: Some(_), .. }), "{error:?}");
    assert_eq!(server.count("opt=set&type=flash"), 0, "opened before the start");
}

/// Waits for a condition of the server.
async fn until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}
