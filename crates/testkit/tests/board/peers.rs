//! Programs that real users call a BMC with.

use std::process::Stdio;

use tokio::process::Command;
use turingpi_testkit::{BoardPlan, OsImage};

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
