//! Programs that real users call a BMC with.

use std::process::Stdio;

use tokio::process::Command;
use turingpi_testkit::{BoardPlan, BoardRevision, Module as _, OsImage};

use crate::support::Bench;

/// Whether curl is there; says loudly when not.
async fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("SKIPPED: curl is not installed, so its upload was not tried");
    }
    found
}

#[tokio::test]
async fn curl_logs_in_uploads_a_form_and_reads_the_status() {
    if !has_curl().await {
        return;
    }
    let bench = Bench::start(BoardPlan::new("board1")).await;
    let image = OsImage::armbian().with_size(2 * 1024 * 1024);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("armbian.img.xz");
    std::fs::write(&path, image.xz()).unwrap();
    let curl = async |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "30"])
            .args(["--user", "root:turing"])
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let query = format!("opt=set&type=flash&node=0&file=armbian.img.xz&length={}", image.xz().len());
    let started = curl(&[&bench.url(&format!("/api/bmc?{query}"))]).await;
    let handle: serde_json::Value = serde_json::from_str(&started).unwrap();
    let upload = bench.url(&format!("/api/bmc/upload/{}", handle["handle"]));
    // A form this large makes curl ask first with `Expect: 100-continue`.
    let form = format!("file=@{}", path.display());
    assert_eq!(curl(&["--form", &form, "--write-out", "%{http_code}", &upload]).await, "200");
    bench.job_is("Done").await;
    assert_eq!(bench.module(1).emmc(), image.raw());
    assert!(curl(&[&bench.url("/api/bmc?opt=get&type=flash")]).await.starts_with(r#"{"Done":[{"secs":"#));
}

#[tokio::test]
async fn tpi_shows_info_and_power_switches_flashes_and_talks_to_the_serial_line() {
    let found = Command::new("tpi").arg("--version").stdout(Stdio::null()).status().await;
    if !found.is_ok_and(|status| status.success()) {
        println!("SKIPPED: tpi is not installed, so the vendor's client was not tried");
        return;
    }
    let bench = Bench::start(BoardPlan::new("board1").revision(BoardRevision::V2_4)).await;
    let folder = tempfile::tempdir().unwrap();
    let image = OsImage::armbian().with_size(2 * 1024 * 1024);
    let path = folder.path().join("armbian.img.xz");
    std::fs::write(&path, image.xz()).unwrap();
    let address = bench.view.url().replace("https://", "");
    let (host, port) = address.split_once(':').unwrap();
    let tpi = async |arguments: &[&str]| {
        let output = Command::new("tpi")
            .args(["--host", host, "--port", port, "--user", "root", "--password", "turing"])
            .args(arguments)
            .env("HOME", folder.path())
            .env("XDG_CACHE_HOME", folder.path())
            .env("NO_PROXY", "*")
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        println!("{arguments:?}\n{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    assert!(tpi(&["info"]).await.contains("2.3.4"));
    tpi(&["power", "on", "--node", "1"]).await;
    assert_eq!(bench.view.power(), [true, false, false, false]);
    let status = tpi(&["power", "status"]).await;
    assert!(status.contains("node1: On") && status.contains("node2: off"), "{status}");
    bench.module(1).uart().write("turing-rk1 login: ".as_bytes());
    assert!(tpi(&["uart", "--node", "1", "get"]).await.contains("turing-rk1 login: "));
    tpi(&["uart", "--node", "1", "set", "--cmd", "root"]).await;
    assert_eq!(*bench.module(1).typed.lock().unwrap(), ["root"]);
    tpi(&["usb", "host", "--node", "2"]).await;
    let usb = tpi(&["usb", "status"]).await;
    assert!(usb.contains("node 2") && usb.contains("alternativeport"), "{usb}");
    assert!(tpi(&["cooling", "status"]).await.contains("system fan"));
    tpi(&["power", "off"]).await;
    tpi(&["flash", "--node", "1", "--image-path", &path.display().to_string()]).await;
    assert_eq!(bench.module(1).emmc(), image.raw());
    assert_eq!(bench.view.power(), [false; 4]);
}
