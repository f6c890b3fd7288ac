//! The vendor's client, version 1.0.7, unchanged: its commands, what they do to the board, and what they print.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, process::Command};
use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, Module as _, ModuleKind, OsImage, SdCard};

use crate::support::{Bench, FakeModule, tls};

/// The client and its home; `None`, said loudly, when it is not installed.
struct Tpi {
    host: String,
    port: String,
    home: TempDir,
    version: &'static str,
}

impl Tpi {
    async fn at(bench: &Bench) -> Option<Self> {
        let found = Command::new("tpi").arg("--version").stdout(Stdio::null()).status().await;
        if !found.is_ok_and(|status| status.success()) {
            println!("SKIPPED: tpi is not installed, so the vendor's client was not tried");
            return None;
        }
        let url = bench.view.url();
        let (host, port) = url.split_once("://").unwrap().1.split_once(':').unwrap();
        let version = if url.starts_with("https") { "v1-1" } else { "v1" };
        let home = tempfile::tempdir().unwrap();
        Some(Self { host: host.to_owned(), port: port.to_owned(), home, version })
    }
    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
    async fn run(&self, login: &[&str], arguments: &[&str]) -> (i32, String) {
        let output = Command::new("tpi")
            .args(["--host", &self.host, "--port", &self.port, "-a", self.version])
            .args(login)
            .args(arguments)
            .env("HOME", self.home.path())
            .env("XDG_CACHE_HOME", self.home.path())
            .env("NO_PROXY", "*")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        println!("{arguments:?}\n{said}");
        (output.status.code().unwrap_or(-1), said)
    }
    /// Runs a command that must end with 0; all that was printed.
    async fn says(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(&["--user", "root", "--password", "turing"], arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }
    /// What `--json` prints is what stood on the wire.
    async fn agrees(&self, bench: &Bench, arguments: &[&str], query: &str) {
        let said = self.says(&[&["--json"], arguments].concat()).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let wire = bench.get(&format!("/api/bmc?opt=get&type={query}")).await.body;
        assert_eq!(said, serde_json::from_str::<Value>(&wire).unwrap(), "{arguments:?}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn v2_4(firmware: Firmware) -> Bench {
    let module = || Some(FakeModule::new(ModuleKind::Rk1));
    let plan = BoardPlan::new("board1").firmware(firmware).revision(BoardRevision::V2_4);
    Bench::with(plan, [module(), module(), None, None]).await
}

#[tokio::test]
async fn tpi_shows_and_switches_what_there_is_on_every_official_firmware_with_a_login() {
    for firmware in [Firmware::V2_0_5, Firmware::V2_1_0, Firmware::Bmcd2_3_7] {
        let bench = v2_4(firmware).await;
        let Some(tpi) = Tpi::at(&bench).await else { return };
        tpi.agrees(&bench, &["info"], "other").await;
        assert!(tpi.says(&["info"]).await.contains("api"));
        assert_eq!(tpi.says(&["power", "on", "-n", "1"]).await.trim(), "ok");
        assert_eq!(bench.view.power(), [true, false, false, false]);
        let status = tpi.says(&["power", "status"]).await;
        assert!(status.contains("node1: On") && status.contains("node2: off"), "{status}");
        tpi.says(&["power", "on"]).await;
        assert_eq!(bench.view.power_intent(), [true; 4]);
        tpi.agrees(&bench, &["power", "status"], "power").await;
        tpi.says(&["power", "off"]).await;
        assert_eq!(bench.view.power(), [false; 4]);
        tpi.says(&["power", "reset", "-n", "2"]).await;
        assert_eq!((bench.view.power()[1], bench.view.power_intent()[1]), (true, false));

        for (arguments, usb) in [
            (vec!["usb", "host", "-n", "2"], (2, "Host", false)),
            (vec!["usb", "device", "-n", "3", "--bmc"], (3, "Device", true)),
            (vec!["usb", "flash", "-n", "1"], (1, "Flash", false)),
        ] {
            tpi.says(&arguments).await;
            assert_eq!(bench.view.usb(), usb, "{arguments:?}");
        }
        tpi.agrees(&bench, &["usb", "status"], "usb").await;
        assert!(tpi.says(&["usb", "status"]).await.contains("node 1"));

        tpi.says(&["power", "on", "-n", "1"]).await;
        bench.module(1).uart().write(b"turing-rk1 login: ");
        assert_eq!(tpi.says(&["uart", "-n", "1", "get"]).await, "turing-rk1 login: ");
        let left = tpi.says(&["uart", "-n", "1", "get"]).await;
        assert_eq!(left, if firmware == Firmware::V2_0_5 { "" } else { "turing-rk1 login: " });
        tpi.says(&["uart", "-n", "1", "set", "--cmd", "echo a&b"]).await;
        assert_eq!(*bench.module(1).typed.lock().unwrap(), ["echo a&b"]);

        let mut open = tls(&bench.view.url()).await;
        assert_eq!(tpi.says(&["eth", "reset"]).await.trim(), "ok");
        if firmware != Firmware::V2_0_5 {
            // The network goes down a moment later, and every connection with it.
            let broken = tokio::time::timeout(Duration::from_secs(60), open.read_u8()).await;
            assert!(broken.unwrap().is_err());
        }
        assert_eq!(tpi.says(&["advanced", "msd", "-n", "1"]).await.trim(), "ok");
        assert!(*bench.module(1).loader.lock().unwrap());
        tpi.says(&["advanced", "normal", "-n", "1"]).await;
        assert!(!*bench.module(1).loader.lock().unwrap() && bench.view.power()[0]);
        assert_eq!(bench.view.boot_pins(), [false; 4]);

        if firmware != Firmware::V2_0_5 {
            tpi.says(&["cooling", "set", "system fan", "3"]).await;
            assert!(tpi.says(&["cooling", "status"]).await.contains("|system fan     |      3|          6|"));
            tpi.agrees(&bench, &["cooling", "status"], "cooling").await;
        }
    }
}

#[tokio::test]
async fn tpi_flashes_raw_and_xz_with_their_hash_and_files_of_the_card() {
    let image = OsImage::armbian().with_size(2 * 1024 * 1024);
    let (raw, packed) = (image.raw(), image.xz());
    let card = SdCard::new().file("/mnt/sdcard/a.img.xz", packed.clone());
    let module = || Some(FakeModule::new(ModuleKind::Rk1));
    let plan = BoardPlan::new("board1").sd_card(card);
    let bench = Bench::with(plan, [module(), module(), module(), None]).await;
    let Some(tpi) = Tpi::at(&bench).await else { return };
    let (raw_file, packed_file) = (tpi.file("a.img", &raw), tpi.file("a.img.xz", &packed));
    let (raw_hash, packed_hash) = (sha256(&raw), sha256(&packed));
    // One after the other, as the board has one slot for jobs.
    for (node, arguments) in [
        (1, vec!["flash", "-n", "1", "-i", &raw_file, "--sha256", &raw_hash]),
        (2, vec!["flash", "-n", "2", "-i", &packed_file, "--sha256", &packed_hash]),
        (3, vec!["flash", "-n", "3", "-i", "/mnt/sdcard/a.img.xz", "--local"]),
    ] {
        assert!(tpi.says(&arguments).await.trim_end().ends_with("Done"), "{arguments:?}");
        assert!(bench.module(node).emmc() == raw, "{arguments:?}");
        assert_eq!(bench.view.power(), [false; 4]);
    }
    let flashes = bench.view.flashes();
    assert!(flashes.iter().all(|flash| flash.error.is_none() && flash.sha256 == raw_hash), "{flashes:?}");
}

#[tokio::test]
async fn tpi_prints_the_reason_of_a_flash_that_failed_and_ends_with_0() {
    let bench = Bench::start(BoardPlan::new("board1")).await;
    let Some(tpi) = Tpi::at(&bench).await else { return };
    let file = tpi.file("a.img", &[7; 50_000]);
    let said = tpi.says(&["flash", "-n", "1", "-i", &file, "--sha256", &sha256(b"another")]).await;
    assert!(said.contains("sha256 checksum failed. Expected: "), "{said}");
}

#[tokio::test]
async fn tpi_upgrades_the_firmware_and_reboots() {
    let bench = Bench::start(BoardPlan::new("board1")).await;
    let Some(tpi) = Tpi::at(&bench).await else { return };
    let image = Firmware::Bmcd2_3_7.image();
    let file = tpi.file("tp2-ota.tpu", &image);
    let said = tpi.says(&["firmware", "--file", &file, "--sha256", &sha256(&image)]).await;
    assert!(said.trim_end().ends_with("Done"), "{said}");
    assert_eq!(bench.view.firmware(), Firmware::V2_1_0, "not before the reboot");
    assert_eq!(tpi.says(&["reboot"]).await.trim(), "ok");
    bench.until("it to go down", || !bench.view.is_up()).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert_eq!(bench.view.firmware(), Firmware::Bmcd2_3_7);
    assert!(tpi.says(&["info"]).await.contains("v2024.05.1"));
}

#[tokio::test]
async fn tpi_is_told_why_a_login_is_refused() {
    let bench = Bench::start(BoardPlan::new("board1")).await;
    let Some(tpi) = Tpi::at(&bench).await else { return };
    let wrong = ["--user", "root", "--password", "wrong"];
    for _ in 0..4 {
        let (code, said) = tpi.run(&wrong, &["info"]).await;
        assert_eq!((code, said.trim()), (1, "credentials incorrect"));
    }
    let (code, said) = tpi.run(&wrong, &["info"]).await;
    assert!(code == 1 && said.starts_with("Exceeded allowed authentication attempts."), "{code}: {said}");
}

#[tokio::test]
async fn tpi_speaks_the_first_version_of_the_api_with_firmware_1_1_0() {
    let card = SdCard::new();
    let plan =
        BoardPlan::new("board1").firmware(Firmware::V1_1_0).revision(BoardRevision::V2_4).sd_card(card);
    let bench = Bench::start(plan).await;
    let Some(tpi) = Tpi::at(&bench).await else { return };
    // It asks for a login that 1.x does not have, unless it finds a token of earlier days.
    let (code, said) = tpi.run(&["--user", "root", "--password", "turing"], &["power", "status"]).await;
    assert!(code == 101 && said.contains("API error: Expected `id` attribute"), "{code}: {said}");
    tpi.file("tpi_token", b"anything");
    let says = async |arguments: &[&str]| {
        let (code, said) = tpi.run(&[], arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    };
    assert_eq!(says(&["power", "on", "-n", "1"]).await.trim(), "ok");
    assert_eq!(bench.view.power(), [true, false, false, false]);
    // Its printers know the answers of 2.x only, and print those of 1.x as they are.
    assert!(says(&["power", "status"]).await.contains(r#"{"node1":1,"node2":0,"node3":0,"node4":0}"#));
    assert!(says(&["info"]).await.contains(r#""version":"1.1.0""#));
    says(&["usb", "host", "-n", "3"]).await;
    assert_eq!(bench.view.usb(), (3, "Host", false));
    assert!(says(&["usb", "device", "-n", "1"]).await.contains("ok"));
    bench.module(1).uart().write(b"login: ");
    assert_eq!(says(&["uart", "-n", "1", "get"]).await, "login: ");
    says(&["uart", "-n", "1", "set", "--cmd", "root"]).await;
    assert_eq!(*bench.module(1).typed.lock().unwrap(), ["root"]);
    says(&["power", "reset", "-n", "1"]).await;
    says(&["eth", "reset"]).await;
    says(&["power", "off"]).await;
    assert_eq!(bench.view.power(), [false; 4]);
    let file = tpi.file("update.bin", &Firmware::V1_1_0.image());
    says(&["firmware", "--file", &file]).await;
    bench.until("the BMC to reboot", || !bench.view.is_up()).await;
    bench.until("it to come back", || bench.view.is_up()).await;
}
