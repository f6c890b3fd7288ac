//! Recorded exchanges, down to the last header: what stands on the wire, `date` left out.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turingpi_testkit::{BoardPlan, BoardRevision, Firmware};

use crate::support::{Bench, tls};

/// Sends bytes and returns status line, headers (sorted, names in lower case, without `date`) and body.
async fn exchange(bench: &Bench, plain: bool, request: &str) -> (String, Vec<String>, String) {
    let base = if plain { bench.view.plain_url() } else { bench.view.url() };
    let request = request.replace('\n', "\r\n");
    let mut answer = Vec::new();
    if base.starts_with("https://") {
        let mut stream = tls(&base).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        // A server that closes without a farewell is a server that has said all there was.
        let _ended = stream.read_to_end(&mut answer).await;
    } else {
        let address = base.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().to_owned();
    let mut headers: Vec<String> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            format!("{}: {value}", name.to_ascii_lowercase())
        })
        // The request asks for the end of the connection; the recorded ones did not.
        .filter(|line| !line.starts_with("date: ") && !line.starts_with("connection: "))
        .collect();
    headers.sort();
    (status, headers, body.to_owned())
}

async fn bench() -> Bench {
    Bench::start(BoardPlan::new("b").firmware(Firmware::Bmcd2_3_7)).await
}

/// A request with a token.
async fn get(bench: &Bench, target: &str) -> (String, Vec<String>, String) {
    let token = bench.login().await;
    let request = format!(
        "GET {target} HTTP/1.1\nhost: turingpi.local\nauthorization: Bearer {token}\nconnection: close\n\n"
    );
    exchange(bench, false, &request).await
}

fn is(answer: &(String, Vec<String>, String), status: &str, headers: &[&str], body: &str) {
    assert_eq!(answer.0, format!("HTTP/1.1 {status}"));
    assert_eq!(answer.1, headers);
    assert_eq!(answer.2, body);
}

#[tokio::test]
async fn the_power_state_is_77_bytes_of_json() {
    is(
        &get(&bench().await, "/api/bmc?opt=get&type=power").await,
        "200 OK",
        &["content-length: 77", "content-type: application/json"],
        r#"{"response":[{"result":[{"node1":"0","node2":"0","node3":"0","node4":"0"}]}]}"#,
    );
}

#[tokio::test]
async fn a_wrong_value_is_a_bad_request_in_the_same_envelope() {
    is(
        &get(&bench().await, "/api/bmc?opt=set&type=power&node2=on").await,
        "400 Bad Request",
        &["content-length: 68", "content-type: application/json"],
        r#"{"response":[{"result":"Invalid value `on` for parameter `node2`"}]}"#,
    );
}

#[tokio::test]
async fn a_start_answers_a_handle_as_text_and_its_errors_are_500_in_plain_text() {
    let bench = bench().await;
    let started = get(&bench, "/api/bmc?opt=set&type=flash&node=0&file=a.img&length=3000000").await;
    let id = bench.job()["Transferring"]["id"].as_u64().unwrap();
    let body = format!(r#"{{"handle":{id}}}"#);
    let length = format!("content-length: {}", body.len());
    is(&started, "200 OK", &[&length, "content-type: text/plain; charset=utf-8"], &body);
    let token = bench.login().await;
    let wrong = exchange(
        &bench,
        false,
        &format!(
            "POST /api/bmc/upload/{} HTTP/1.1\nhost: b\nauthorization: Bearer {token}\ncontent-length: 0\nconnection: \
             close\n\n",
            u32::try_from(id).unwrap().wrapping_add(1)
        ),
    )
    .await;
    is(
        &wrong,
        "500 Internal Server Error",
        &["content-length: 31", "content-type: text/plain; charset=utf-8"],
        "unauthorized request for handle",
    );
    is(
        &get(&bench, "/api/bmc?opt=set&type=flash&node=9&file=a&length=1").await,
        "500 Internal Server Error",
        &["content-length: 49", "content-type: text/plain; charset=utf-8"],
        "Parameter `node` is out of range 0..3 of node IDs",
    );
}

#[tokio::test]
async fn an_upload_is_answered_with_200_and_nothing() {
    let bench = bench().await;
    let handle = bench.start_job("type=flash&node=0&file=a.img&length=9").await;
    let token = bench.login().await;
    let form = "--B\nContent-Disposition: form-data; name=\"file\"\nContent-Type: application/octet-stream\n\n\
                the image\n--B--\n";
    let length = form.replace('\n', "\r\n").len();
    let request = format!(
        "POST /api/bmc/upload/{handle} HTTP/1.1\nhost: b\nauthorization: Bearer {token}\ncontent-type: \
         multipart/form-data; boundary=B\ncontent-length: {length}\nconnection: close\n\n{form}"
    );
    is(&exchange(&bench, false, &request).await, "200 OK", &["content-length: 0"], "");
    bench.job_is("Done").await;
    assert_eq!(bench.module(1).emmc(), b"the image");
}

#[tokio::test]
async fn who_brings_no_header_gets_a_challenge_without_a_content_type() {
    is(
        &exchange(
            &bench().await,
            false,
            "GET /api/bmc?opt=get&type=about HTTP/1.1\nhost: b\nconnection: close\n\n",
        )
        .await,
        "401 Unauthorized",
        &[
            "content-length: 32",
            "www-authenticate: Basic realm=\"Access to Baseboard Management Controller\"",
        ],
        "no authorization header provided",
    );
}

#[tokio::test]
async fn an_unknown_path_is_the_web_interface() {
    let (status, headers, body) = get(&bench().await, "/api/bmc/nope").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains(&"content-type: text/html".to_owned()), "{headers:?}");
    assert!(body.starts_with("<!doctype html>"), "{body}");
}

#[tokio::test]
async fn port_80_redirects_for_good() {
    is(
        &exchange(
            &bench().await,
            true,
            "GET /api/bmc?opt=get&type=about HTTP/1.1\nhost: turingpi.local\nconnection: close\n\n",
        )
        .await,
        "308 Permanent Redirect",
        &["content-length: 0", "location: https://turingpi.local:443/api/bmc?opt=get&type=about"],
        "",
    );
}

#[tokio::test]
async fn the_c_daemon_answers_in_plain_text_with_tabs() {
    let plan = BoardPlan::new("b").firmware(Firmware::V1_1_0).revision(BoardRevision::V2_4);
    let (status, headers, body) = exchange(
        &Bench::start(plan).await,
        false,
        "GET /api/bmc?opt=get&type=power HTTP/1.1\nhost: b\nconnection: close\n\n",
    )
    .await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains(&"content-type: text/plain".to_owned()), "{headers:?}");
    assert!(body.starts_with("{\n\t\"response\":\t[{\n\t\t\t\"node1\":\t0,"), "{body}");
}
