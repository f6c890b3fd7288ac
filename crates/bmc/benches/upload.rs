//! Uploads of 1 GiB beside curl's, and the official client's where it is installed, against the same sink: TLS 1.2 on the
//! loopback, everything read and dropped. Each client is a process of its own, so that its processor time and memory count.
//!
//! `cargo bench -p turingpi-bmc`. The sink shares the machine: compare the rows of one run, not the figures of two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)] // it is what a benchmark is for

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;
use turingpi_bmc::{BmcClient, Fingerprint, HttpBmcClient, ImageUpload, Slot, Trust};

const LENGTH: u64 = 1024 * 1024 * 1024;
const ROUNDS: usize = 3;
const CALLS: u32 = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upload", url, pin, path] => one_upload(url, pin, Path::new(path)),
        ["latency", url, pin] => latency(url, pin),
        _ => compare(),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn client(url: &str, pin: &str) -> HttpBmcClient {
    HttpBmcClient::builder(url.parse().unwrap())
        .credentials("root", "turing".to_owned().into())
        .trust(Trust::Pin(pin.parse().unwrap()))
        .build()
        .unwrap()
}

fn one_upload(url: &str, pin: &str, path: &Path) {
    runtime().block_on(async {
        let digest = "00".repeat(32); // the sink compares nothing
        let image = ImageUpload::file_with_sha256(path, &digest).await.unwrap();
        client(url, pin).flash(Slot::ALL[0], image, &|_| {}).await.unwrap();
    });
}

fn latency(url: &str, pin: &str) {
    let mut took: Vec<Duration> = runtime().block_on(async {
        let client = client(url, pin);
        client.power().await.unwrap();
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let began = Instant::now();
            client.power().await.unwrap();
            took.push(began.elapsed());
        }
        took
    });
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
    println!("power status over one connection: median {} us, 99 % {} us", at(50), at(99));
}

fn compare() {
    let server = runtime();
    let (url, pin) = start(&server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.img");
    std::fs::File::create(&path).unwrap().set_len(LENGTH).unwrap();
    let image = path.display().to_string();
    let own = std::env::current_exe().unwrap();
    let (host, port) = url.trim_start_matches("https://").split_once(':').unwrap();
    let form = format!("file=@{image};type=application/octet-stream");
    let sink = format!("{url}/curl");
    println!("{:<12} {:>8} {:>10} {:>10} {:>10}", "1 GiB", "s", "MiB/s", "CPU s", "peak MiB");
    for _ in 0..ROUNDS {
        run("turingpi-bmc", Command::new(&own).args(["upload", &url, &pin, &image]));
        let quiet = ["--http1.1", "-sk", "-H", "Expect:", "-o", "/dev/null", "-F", &form, &sink];
        run("curl", Command::new("curl").args(quiet));
        let login = ["--host", host, "--port", port, "--user", "root", "--password", "turing"];
        run("tpi", Command::new("tpi").args(login).args(["flash", "-n", "1", "-i", &image]));
    }
    run("latency", Command::new(own).args(["latency", &url, &pin]).stdout(Stdio::inherit()));
}

/// Runs a client to its end, and prints what it took.
fn run(name: &str, command: &mut Command) {
    if name != "latency" {
        command.stdout(Stdio::null());
    }
    let began = Instant::now();
    let Ok(mut child) = command.stderr(Stdio::null()).spawn() else {
        return println!("{name:<12} SKIPPED: it is not installed here");
    };
    let folder = format!("/proc/{}", child.id());
    let mut peak = 0.0;
    // An ended process keeps its processor time until it is waited for.
    let cpu = loop {
        let status = std::fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = kib.and_then(|kib| kib.trim().parse::<f64>().ok()).map_or(peak, |kib| kib / 1024.0);
        let stat = std::fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if matches!(fields.first(), None | Some(&"Z")) {
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
            break (ticks(11) + ticks(12)) / 100.0;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = began.elapsed().as_secs_f64();
    let ended = child.wait().unwrap();
    if name == "latency" {
        return;
    }
    let rate = LENGTH as f64 / 1024.0 / 1024.0 / seconds;
    let failed = if ended.success() { "" } else { "  FAILED" };
    println!("{name:<12} {seconds:>8.2} {rate:>10.0} {cpu:>10.2} {peak:>10.1}{failed}");
}

/// Starts the sink; returns its URL and fingerprint.
fn start(server: &Runtime) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let done = Arc::new(AtomicBool::new(false));
    server.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(sink(acceptor.clone(), socket, done.clone()));
        }
    });
    (url, Fingerprint::of_der(made.cert.der()).to_string())
}

async fn sink(acceptor: TlsAcceptor, socket: TcpStream, done: Arc<AtomicBool>) -> Option<()> {
    let mut stream = acceptor.accept(socket).await.ok()?;
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(at) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]).await.ok()? {
                0 => return None,
                read => filled += read,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length: usize = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        let mut left = length.checked_sub(filled - end).unwrap();
        while left > 0 {
            left -= match stream.read(&mut buffer).await.ok()? {
                0 => return None,
                read => read,
            };
        }
        filled = 0;
        let body = if head.starts_with("post /api/bmc/authenticate") {
            r#"{"id":"token"}"#.to_owned()
        } else if head.contains("type=about") {
            r#"{"response":[{"result":{"version":"2.3.4"}}]}"#.to_owned()
        } else if head.contains("type=power") {
            r#"{"response":[{"result":[{"node1":"1","node2":"0","node3":"0","node4":"0"}]}]}"#.to_owned()
        } else if head.contains("opt=set&type=flash") {
            r#"{"handle":1}"#.to_owned()
        } else if head.contains("type=flash") && done.swap(false, Ordering::Relaxed) {
            format!(r#"{{"Done":[{{"secs":1,"nanos":0}},{LENGTH}]}}"#)
        } else if head.contains("type=flash") {
            r#""Ready""#.to_owned()
        } else {
            done.store(head.contains("/upload/"), Ordering::Relaxed);
            String::new()
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}
