//! The global lock: while one remote request is served, no other is.

use std::{sync::Arc, time::Duration};

use turingpi_testkit::{BoardPlan, BoardRevision, Firmware};

use crate::support::{Bench, Reply};

/// An upload that has begun and waits for its second half.
struct Upload {
    rest: tokio::sync::mpsc::Sender<std::io::Result<Vec<u8>>>,
    answer: tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>,
}

async fn begin_upload(bench: &Bench) -> Upload {
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=2000").await;
    let (rest, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(8);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let request = bench
        .http
        .post(bench.url(&format!("/api/bmc/upload/{handle}")))
        .basic_auth("root", Some("turing"))
        .header("content-type", "multipart/form-data; boundary=B")
        .body(reqwest::Body::wrap_stream(stream));
    let answer = tokio::spawn(request.send());
    let mut half = b"--B\r\n\r\n".to_vec();
    half.extend_from_slice(&[7; 1000]);
    rest.send(Ok(half)).await.unwrap();
    bench
        .until("the upload to be read", || {
            bench.view.requests().last().is_some_and(|request| request.body_bytes > 1000)
        })
        .await;
    Upload { rest, answer }
}

impl Upload {
    async fn finish(self) -> u16 {
        let mut rest = vec![7; 1000];
        rest.extend_from_slice(b"\r\n--B--\r\n");
        self.rest.send(Ok(rest)).await.unwrap();
        drop(self.rest);
        self.answer.await.unwrap().unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn status_cancel_and_login_are_answered_only_after_the_upload() {
    let bench = Arc::new(Bench::start(BoardPlan::new("b")).await);
    let upload = begin_upload(&bench).await;
    let asked = |target: &'static str| {
        let bench = bench.clone();
        tokio::spawn(async move { bench.get(target).await })
    };
    let status = asked("/api/bmc?opt=get&type=flash");
    let power = asked("/api/bmc?opt=get&type=power");
    let login = {
        let bench = bench.clone();
        tokio::spawn(async move { bench.login().await })
    };
    let naked = {
        let request = bench.http.get(bench.url("/api/bmc?opt=get&type=power"));
        tokio::spawn(request.send())
    };
    bench.until("all four to arrive", || bench.view.requests().len() == 6).await;
    // All of them have been read; while pages that need no lock come and go, none of them is answered.
    for _ in 0..20 {
        assert_eq!(bench.http.get(bench.url("/")).send().await.unwrap().status(), 200);
    }
    assert!(![&status, &power].iter().any(|task| task.is_finished()));
    assert!(!login.is_finished());
    assert!(!naked.is_finished());
    assert_eq!(upload.finish().await, 200);
    let answered: [Reply; 2] = [status.await.unwrap(), power.await.unwrap()];
    assert!(answered.iter().all(|reply| reply.status == 200));
    login.await.unwrap();
    assert_eq!(naked.await.unwrap().unwrap().status(), 401);
}

#[tokio::test]
async fn the_first_daemon_answers_during_an_upload() {
    let plan = BoardPlan::new("b").firmware(Firmware::V2_0_0).revision(BoardRevision::V2_4);
    let bench = Bench::start(plan).await;
    let upload = begin_upload(&bench).await;
    assert_eq!(bench.get("/api/bmc?opt=get&type=flash").await.status, 200);
    assert_eq!(upload.finish().await, 200);
}

#[tokio::test]
async fn static_pages_and_port_80_do_not_wait() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let _held = bench.view.hold_lock().await;
    assert_eq!(bench.http.get(bench.url("/")).send().await.unwrap().status(), 200);
    let info = bench.http.get(format!("{}/info", bench.view.plain_url())).send().await.unwrap();
    assert_eq!(info.status(), 200);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_keep_the_lock() {
    let bench = Bench::start(BoardPlan::new("b")).await;
    let held = bench.view.hold_lock().await;
    let given_up = bench
        .http
        .get(bench.url("/api/bmc?opt=get&type=power"))
        .basic_auth("root", Some("turing"))
        .timeout(Duration::from_millis(20))
        .send()
        .await;
    assert!(given_up.unwrap_err().is_timeout());
    drop(held);
    assert_eq!(bench.get("/api/bmc?opt=get&type=power").await.status, 200);
}
