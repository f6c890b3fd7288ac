//! What the community fork does differently, beyond its answers.

use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, ModuleKind};

use crate::support::{Bench, FakeModule};

fn plan() -> BoardPlan {
    BoardPlan::new("board1").firmware(Firmware::Fork).credentials("root", "correct horse")
}

#[tokio::test]
async fn a_wrong_module_is_refused_by_the_port_it_was_found_on() {
    let module = || Some(FakeModule::new(ModuleKind::Rk1));
    // Slot 3 is empty and the module in slot 1 waits in its boot ROM.
    let bench = Bench::with(plan(), [module(), None, None, None]).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    bench.start_job("type=flash&node=2&file=a.img&length=5000").await;
    let error = bench.job_is("Error").await;
    assert_eq!(error["Error"], "node 3 requested on 1-1.3; found Rockusb on 1-1.1 instead");
    assert!(bench.module(1).emmc().is_empty());

    // With a module there, that one is written, whoever else waits on the hub.
    let bench = Bench::with(plan(), [module(), None, module(), None]).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    let handle = bench.start_job("type=flash&node=2&file=a.img&length=5000").await;
    assert_eq!(bench.upload(handle, vec![7; 5000]).await.status, 200);
    bench.job_is("Done").await;
    assert_eq!((bench.module(1).emmc(), bench.module(3).emmc()), (Vec::new(), vec![7; 5000]));
}

#[tokio::test]
async fn a_second_firmware_is_not_staged_over_the_first() {
    let bench = Bench::start(plan()).await;
    let image = Firmware::V2_1_0.image();
    let handle = bench.start_job(&format!("type=firmware&file=a.tpu&length={}", image.len())).await;
    bench.upload(handle, image).await;
    bench.job_is("Done").await;
    let again = bench.get("/api/bmc?opt=set&type=firmware&file=b.tpu&length=5").await;
    assert_eq!(again.status, 409);
    assert!(again.body.contains("is already staged for the next boot"), "{}", again.body);
    assert_eq!(bench.get("/api/bmc?opt=set&type=firmware&file=b.tpu&length=5&force=1").await.status, 200);
}

#[tokio::test]
async fn a_reboot_keeps_the_modules_running_on_any_board() {
    let bench = Bench::start(plan().revision(BoardRevision::V2_4)).await;
    bench.get("/api/bmc?opt=set&type=power&node1=1").await;
    assert_eq!(bench.get("/api/bmc?opt=set&type=reboot").await.status, 200);
    bench.until("it to go down", || !bench.view.is_up()).await;
    bench.until("it to come back", || bench.view.is_up()).await;
    assert_eq!(bench.module(1).power_ons.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn http_2_is_not_offered_and_the_document_of_the_paths_is_json() {
    let bench = Bench::start(plan()).await;
    let http2 = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let request = http2.get(bench.url("/api/bmc/openapi.json")).basic_auth("root", Some("correct horse"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    let document: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/bmc/power"]["post"].is_object(), "{document}");
    assert!(document["paths"]["/api/bmc/thermal"]["post"].is_null(), "{document}");
}
