//! The literals of the reference sheet: files that the door must reproduce byte for byte.
//!
//! `# revision 2.4`, `# password turing` and `# sd` set the board up; `> METHOD target`, `> header: value` and `> | body` are the request
//! (with a token unless an `authorization` header is given, `none` for no header; `>80` goes to the plain door);
//! `< status content-type`, `< header: value` and the lines up to the next request are the answer, `< closed` is none.

use std::{fmt::Write as _, fs, path::Path};

use turingpi_testkit::{BoardPlan, BoardRevision, Firmware, SdCard};

use crate::support::Bench;

#[derive(Debug, Default)]
struct Exchange {
    plain_door: bool,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    expected: String,
}

fn exchanges(text: &str) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    let mut in_request = false;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let request = line.strip_prefix(">80 ").map(|rest| (true, rest));
        let request = request.or_else(|| line.strip_prefix("> ").map(|rest| (false, rest)));
        if let Some((plain_door, rest)) = request {
            if !in_request {
                let (method, target) = rest.split_once(' ').unwrap();
                all.push(Exchange {
                    plain_door,
                    method: method.into(),
                    target: target.into(),
                    ..Exchange::default()
                });
            } else if let Some(body) = rest.strip_prefix("| ") {
                all.last_mut().unwrap().body = body.into();
            } else {
                let (name, value) = rest.split_once(": ").unwrap();
                all.last_mut().unwrap().headers.push((name.into(), value.into()));
            }
            in_request = true;
        } else {
            in_request = false;
            writeln!(all.last_mut().unwrap().expected, "{line}").unwrap();
        }
    }
    all
}

/// What differs from run to run gets a name.
fn normalised(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() == 64 { "{token}" } else { &run });
        run.clear();
        out.push(c);
    }
    out.pop();
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some(at) = line.find("blocked for ") {
            line.truncate(at + "blocked for ".len());
            line.push_str("{wait}");
        }
        if let Some(at) = line.find("{\"handle\":") {
            line.truncate(at);
            line.push_str("{handle}");
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

async fn actual(bench: &Bench, exchange: &Exchange, token: &str) -> String {
    let base = if exchange.plain_door { bench.view.plain_url() } else { bench.view.url() };
    let method = exchange.method.parse().unwrap();
    let mut request = bench.http.request(method, format!("{base}{}", exchange.target));
    if !exchange.headers.iter().any(|(name, _)| name == "authorization") {
        request = request.bearer_auth(token);
    }
    for (name, value) in exchange.headers.iter().filter(|(_, value)| value != "none") {
        request = request.header(name, value);
    }
    let Ok(answer) = request.body(exchange.body.clone()).send().await else {
        return "< closed\n".to_owned();
    };
    let mut text = format!("< {}", answer.status().as_u16());
    if let Some(media) = answer.headers().get("content-type") {
        write!(text, " {}", media.to_str().unwrap()).unwrap();
    }
    text.push('\n');
    for name in ["allow", "location", "www-authenticate", "x-auth-token"] {
        if let Some(value) = answer.headers().get(name) {
            writeln!(text, "< {name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    if answer.headers().contains_key("retry-after") {
        text.push_str("< retry-after: {wait}\n");
    }
    let body = answer.text().await.unwrap();
    if !body.is_empty() {
        writeln!(text, "{body}").unwrap();
    }
    normalised(&text)
}

async fn reproduces(profile: &str, firmware: Firmware) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bmc").join(profile);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let has = |line: &str| text.lines().any(|other| other == line);
        let mut plan = BoardPlan::new("board1").firmware(firmware).revision(BoardRevision::V2_5_1);
        if has("# revision 2.4") {
            plan = plan.revision(BoardRevision::V2_4);
        }
        // The fork does nothing at all as long as the password is the factory's.
        if firmware == Firmware::Fork && !has("# password turing") {
            plan = plan.credentials("root", "correct horse");
        }
        if has("# sd") {
            plan = plan.sd_card(SdCard::new());
        }
        let bench = Bench::start(plan).await;
        bench.module(1).uart_line();
        let token = if firmware == Firmware::V1_1_0 { String::new() } else { bench.login().await };
        for exchange in exchanges(&text) {
            let actual = actual(&bench, &exchange, &token).await;
            let name = file.file_name().unwrap().to_string_lossy();
            assert_eq!(
                actual, exchange.expected,
                "{profile}/{name}: {} {}",
                exchange.method, exchange.target
            );
        }
    }
}

#[tokio::test]
async fn firmware_1_1_0_reproduces_its_golden_files() {
    reproduces("fw1_1", Firmware::V1_1_0).await;
}

#[tokio::test]
async fn bmcd_2_0_0_reproduces_its_golden_files() {
    reproduces("bmcd2_0_0", Firmware::V2_0_0).await;
}

#[tokio::test]
async fn bmcd_2_0_5_reproduces_its_golden_files() {
    reproduces("bmcd2_0_5", Firmware::V2_0_5).await;
}

#[tokio::test]
async fn bmcd_2_3_4_reproduces_its_golden_files() {
    reproduces("bmcd2_3_4", Firmware::V2_1_0).await;
}

#[tokio::test]
async fn bmcd_2_3_7_reproduces_its_golden_files() {
    reproduces("bmcd2_3_7", Firmware::Bmcd2_3_7).await;
}

#[tokio::test]
async fn the_fork_reproduces_its_golden_files() {
    reproduces("fork", Firmware::Fork).await;
}
