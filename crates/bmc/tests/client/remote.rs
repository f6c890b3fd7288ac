//! What the BMC fetches itself, firmware, cancelling, and images that are made while they are sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use turingpi_bmc::{
    About, BmcClient, BmcError, Capability, FirmwareSource, FlashCause, FlashPhase, FlashProgress,
    Generation, ImageEncoding, ImageUpload, NodeAfter, RemoteImage, Slot, sends_xz_packed,
};

use crate::server::{ABOUT_2_0_5, ABOUT_COMMUNITY, Answer, HANDLE, Server, Upload, done, failed, moving};

const SLOT: Slot = Slot::ALL[1];

fn on_card() -> RemoteImage {
    RemoteImage::file("/mnt/sdcard/armbian.img").unwrap()
}

fn cause(error: BmcError) -> (FlashPhase, FlashCause, NodeAfter) {
    match error {
        BmcError::Flash { phase, cause, node, .. } => (phase, cause, node),
        other => panic!("{other:?}"),
    }
}

fn start_of(server: &Server) -> String {
    server.lines().into_iter().find(|line| line.contains("opt=set")).unwrap()
}

#[tokio::test]
async fn a_file_on_the_bmc_is_flashed_without_an_upload() {
    let server = Server::start().await;
    let size = 100_000_000;
    server.set(|state| {
        state.after_upload = VecDeque::from([
            moving(HANDLE, 0, size),
            moving(HANDLE, 60_000_000, size),
            moving(HANDLE, 524_288, size),
            done(size),
        ]);
    });
    let told = Mutex::new(Vec::new());
    let flashed =
        server.client().flash_remote(SLOT, on_card(), &|p| told.lock().unwrap().push(p)).await.unwrap();
    assert_eq!((flashed.bytes_sent, flashed.sha256.as_str()), (size, ""));
    assert_eq!(
        start_of(&server),
        "GET /api/bmc?opt=set&type=flash&node=1&local&file=%2Fmnt%2Fsdcard%2Farmbian.img"
    );
    assert_eq!(server.count("/upload/"), 0);
    assert_eq!(
        told.into_inner().unwrap(),
        [
            FlashProgress::Starting,
            FlashProgress::Writing { done: 0, total: Some(size) },
            FlashProgress::Writing { done: 60_000_000, total: Some(size) },
            FlashProgress::Verifying { done: 524_288, total: Some(size) },
            FlashProgress::Finished
        ]
    );
}

#[tokio::test]
async fn a_url_is_handed_over_with_its_digest_where_the_firmware_downloads() {
    let url = || RemoteImage::url("https://images.example/a b/armbian.img.xz".parse().unwrap()).unwrap();
    let digest = "ab".repeat(32);
    let server = Server::start().await;
    server.set(|state| state.after_upload = VecDeque::from([moving(HANDLE, 7, 5), done(5)]));
    let image = url().with_sha256(&digest.to_uppercase()).unwrap().without_check();
    let flashed = server.client().flash_remote(SLOT, image, &|_| {}).await.unwrap();
    assert_eq!(flashed.sha256, digest);
    assert_eq!(
        start_of(&server),
        format!(
            "GET /api/bmc?opt=set&type=flash&node=1&file=https%3A%2F%2Fimages.example%2Fa%2520b%2Farmbian.img.xz&sha256={digest}&skip_crc"
        )
    );
    let old = Server::start().await;
    old.set(|state| state.about = ABOUT_2_0_5.to_owned());
    let error = old.client().flash_remote(SLOT, url(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::Url, .. }), "{error:?}");
    assert_eq!(old.count("opt=set"), 0);
}

#[test]
fn names_that_the_bmc_would_misread_are_refused() {
    for path in ["image.img", "/", "/mnt/", "/a.img.gz", "/a.ZST", "/a.img.XZ", "/a.zip", "/a\nb"] {
        RemoteImage::file(path).unwrap_err();
    }
    for url in [
        "ftp://x/a.img",
        "file:///a.img",
        "http://user:secret@x/a.img",
        "http://x/a.img.bz2",
        "http://x/a.img.xz?token=1",
        "http://x/a.img.gz?x=.img",
    ] {
        let error = RemoteImage::url(url.parse().unwrap()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(RemoteImage::file("/a.img.xz").unwrap().encoding(), ImageEncoding::Xz);
    on_card().with_sha256(&"ab".repeat(32)).unwrap_err();
    RemoteImage::url("http://x/a.img".parse().unwrap()).unwrap().with_sha256("zz").unwrap_err();
}

#[tokio::test]
async fn a_job_of_the_bmcs_own_is_watched_as_suspiciously_as_an_upload() {
    let cases: [(Vec<Answer>, FlashCause); 4] = [
        (vec![done(5)], FlashCause::NotProven),
        (vec![moving(HANDLE, 3, 5), Answer::plain(200, "\"Ready\"")], FlashCause::DaemonRestarted),
        (vec![moving(HANDLE, 3, 5), failed("Input/output error (os error 5)")], FlashCause::DeviceIo),
        (vec![failed("Compute module's USB interface not found or supported")], FlashCause::ModuleNotFound),
    ];
    for (answers, expected) in cases {
        let server = Server::start().await;
        server.set(|state| state.after_upload = answers.into());
        let error = server.client().flash_remote(SLOT, on_card(), &|_| {}).await.unwrap_err();
        assert!(!error.hint().is_empty());
        assert_eq!(cause(error).1, expected);
    }
    let server = Server::start().await;
    server.set(|state| state.after_upload = [moving(HANDLE, 3, 5), moving(4711, 3, 5)].into());
    let error = server.client().flash_remote(SLOT, on_card(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Replaced { .. }), "{error:?}");
    let server = Server::start().await;
    server.set(|state| state.transfer = [moving(4711, 3, 5)].into());
    let error = server.client().flash_remote(SLOT, on_card(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Busy { .. }), "{error:?}");
    assert_eq!(server.count("opt=set"), 0, "a start would have killed the other one");
}

#[tokio::test]
async fn only_what_moves_is_cancelled() {
    let server = Server::start().await;
    let client = server.client();
    assert!(!client.cancel_transfer().await.unwrap());
    server.set(|state| state.transfer = [done(5)].into());
    assert!(!client.cancel_transfer().await.unwrap());
    assert_eq!(server.count("cancel"), 0, "an idle BMC would report `cancelled` from then on");
    server.set(|state| state.transfer = [moving(7, 1, 5)].into());
    assert!(client.cancel_transfer().await.unwrap());
    assert_eq!(server.lines().last().unwrap(), "GET /api/bmc/upload/7/cancel");
}

#[tokio::test]
async fn cancelling_ones_own_upload_is_refused_instead_of_hanging_behind_it() {
    let server = Server::start().await;
    server.set(|state| state.upload = Upload::Stall(1000));
    let client = server.client();
    let other = client.clone();
    let image = ImageUpload::bytes("a.img", vec![1; 24 * 1024 * 1024]).unwrap();
    let upload = tokio::spawn(async move { other.flash(SLOT, image, &|_| {}).await });
    let uploading = async {
        while server.count("/upload/") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), uploading).await.unwrap();
    let error = client.cancel_transfer().await.unwrap_err();
    assert!(matches!(&error, BmcError::Busy { process, .. } if process.contains("slot 2")), "{error:?}");
    upload.abort();
}

fn tpu() -> ImageUpload {
    ImageUpload::bytes("tp2-ota-v2.1.0.tpu", vec![7; 1000]).unwrap()
}

#[tokio::test]
async fn firmware_is_staged_and_nothing_is_rebooted() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = [moving(HANDLE, 500, 1000), done(1000)].into());
    let client = server.client();
    let staged = client.upgrade_firmware(FirmwareSource::Upload(tpu()), &|_| {}).await.unwrap();
    assert_eq!((staged.bytes, staged.sha256.clone()), (1000, tpu().sha256));
    let digest = staged.sha256.unwrap();
    assert_eq!(
        start_of(&server),
        format!("GET /api/bmc?opt=set&type=firmware&file=tp2-ota-v2.1.0.tpu&length=1000&sha256={digest}")
    );
    assert_eq!(server.count("type=reboot"), 0);
    assert!(client.saved_token().is_none(), "a reboot is next");
    assert_eq!(server.state.lock().unwrap().written.as_deref(), Some(&[7u8; 1000][..]));
}

#[tokio::test]
async fn firmware_that_is_refused_leaves_everything_as_it_was() {
    let server = Server::start().await;
    let text = "failed firmware upgrade (exit status: 2)";
    server.set(|state| state.after_upload = [moving(HANDLE, 1000, 1000), failed(text)].into());
    let error = server.client().upgrade_firmware(FirmwareSource::Upload(tpu()), &|_| {}).await.unwrap_err();
    assert!(error.hint().contains("the firmware it has"), "{}", error.hint());
    assert!(error.to_string().contains("upgrade the BMC's firmware"), "{error}");
    assert_eq!(cause(error), (FlashPhase::Write, FlashCause::FirmwareRefused, NodeAfter::Untouched));
}

#[tokio::test]
async fn firmware_that_does_not_fit_or_whose_name_a_shell_would_run_is_not_sent() {
    let server = Server::start().await;
    let open: turingpi_bmc::OpenImage =
        Arc::new(|| Box::pin(async { Err(std::io::Error::other("never opened")) }));
    let large = ImageUpload::new("large.tpu", 60 * 1024 * 1024, ImageEncoding::Raw, open);
    let remote = |path: &str| FirmwareSource::Remote(RemoteImage::file(path).unwrap());
    for source in
        [FirmwareSource::Upload(large.clone()), remote("/mnt/sdcard/a;reboot.tpu"), remote("/mnt/a b.tpu")]
    {
        let error = server.client().upgrade_firmware(source, &|_| {}).await.unwrap_err();
        assert!(matches!(error, BmcError::Image { .. }), "{error:?}");
    }
    assert_eq!(server.count("opt=set"), 0);
    // Names of uploads are made harmless.
    server.set(|state| state.after_upload = [done(5)].into());
    let named = ImageUpload::bytes("$(reboot) `x`.tpu", vec![1; 5]).unwrap();
    server.client().upgrade_firmware(FirmwareSource::Upload(named), &|_| {}).await.unwrap();
    assert!(start_of(&server).contains("&file=__reboot___x_.tpu&"), "{}", start_of(&server));
    // The community's firmware has more room.
    server.set(|state| state.about = ABOUT_COMMUNITY.to_owned());
    let error = server.client().upgrade_firmware(FirmwareSource::Upload(large), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn firmware_on_the_sd_card_is_staged_without_an_upload() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = [moving(HANDLE, 500, 1000), done(1000)].into());
    let source = FirmwareSource::Remote(RemoteImage::file("/mnt/sdcard/tp2-ota-v2.1.0.tpu").unwrap());
    let staged = server.client().upgrade_firmware(source, &|_| {}).await.unwrap();
    assert_eq!((staged.bytes, staged.sha256), (1000, None));
    assert!(start_of(&server).contains("type=firmware&local&file=%2Fmnt%2Fsdcard%2Ftp2-ota-v2.1.0.tpu"));
}

#[tokio::test]
async fn a_firmware_file_is_sent_as_it_is_whatever_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tp2.tpu");
    std::fs::write(&path, b"\x1f\x8b looks packed").unwrap();
    let file = ImageUpload::firmware_file(&path).await.unwrap();
    assert_eq!((file.encoding, file.length), (ImageEncoding::Raw, 15));
    assert!(file.sha256.is_some());
    std::fs::write(&path, b"").unwrap();
    ImageUpload::firmware_file(&path).await.unwrap_err();
}

#[tokio::test]
async fn an_image_that_is_made_while_it_is_sent_needs_only_its_length() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    server.set(|state| state.after_upload = [moving(HANDLE, 3_000_000, 3_000_000), done(3_000_000)].into());
    let (mut writer, reader) = tokio::io::duplex(10_000);
    let made = bytes.clone();
    let making = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut writer, &made).await });
    let image = ImageUpload::stream("armbian.img.zst", 3_000_000, ImageEncoding::Raw, reader);
    let flashed = server.client().flash(SLOT, image.clone(), &|_| {}).await.unwrap();
    making.await.unwrap().unwrap();
    assert!(server.state.lock().unwrap().written.as_ref() == Some(&bytes));
    assert_eq!(
        flashed.sha256,
        ImageUpload::bytes("x", bytes).unwrap().sha256.unwrap(),
        "computed on the way"
    );
    // It cannot be sent again.
    let error = server.client().flash(SLOT, image, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Image { source: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_stream_that_fails_or_has_another_length_is_never_a_success() {
    for (length, sent) in [(1000usize, 999usize), (1000, 1001), (1000, 0)] {
        let server = Server::start().await;
        let reader = std::io::Cursor::new(vec![1; sent]);
        let image = ImageUpload::stream("a.img", length as u64, ImageEncoding::Raw, reader);
        let error = server.client().flash(SLOT, image, &|_| {}).await.unwrap_err();
        assert!(matches!(error, BmcError::Image { .. }), "{error:?}");
        assert!(server.state.lock().unwrap().written.is_none());
    }
}

#[tokio::test]
async fn the_check_is_left_out_only_where_the_firmware_can() {
    let server = Server::start().await;
    server.set(|state| state.after_upload = [moving(HANDLE, 10, 10), done(10)].into());
    let image = ImageUpload::bytes("a.img", vec![1; 10]).unwrap().without_check();
    server.client().flash(SLOT, image.clone(), &|_| {}).await.unwrap();
    assert!(start_of(&server).ends_with("&skip_crc"), "present, and without a value: {}", start_of(&server));
    server.set(|state| state.about = ABOUT_2_0_5.to_owned());
    let error = server.client().flash(SLOT, image, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { capability: Capability::SkipCrc, .. }), "{error:?}");
}

#[test]
fn xz_may_be_sent_as_it_is_from_firmware_2_1_on() {
    let sends = |generation| sends_xz_packed(&About::of(generation).capabilities());
    assert!(!sends(Generation::Legacy) && !sends(Generation::V2_0));
    assert!(sends(Generation::V2_1) && sends(Generation::V2_3) && sends(Generation::Community));
}
