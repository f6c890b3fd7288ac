//! Upload throughput beside curl's, against the same sink: TLS 1.2 on the loopback, everything read and dropped.
//!
//! `cargo bench -p turingpi-bmc`. The sink shares the machine, so the figures are lower bounds; compare the two.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use divan::{Bencher, counter::BytesCount};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;
use turingpi_bmc::{BmcClient, BmcTimeouts, Fingerprint, HttpBmcClient, ImageUpload, Slot, Trust};

const LENGTH: u64 = 512 * 1024 * 1024;

fn main() {
    divan::main();
}

struct Bed {
    url: String,
    fingerprint: Fingerprint,
    path: PathBuf,
    image: ImageUpload,
    _folder: tempfile::TempDir,
    _server: Runtime,
}

static BED: LazyLock<Bed> = LazyLock::new(|| {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.img");
    std::fs::File::create(&path).unwrap().set_len(LENGTH).unwrap();
    let digest = "00".repeat(32); // the sink compares nothing
    let image = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(ImageUpload::file_with_sha256(&path, &digest))
        .unwrap();
    Bed {
        url,
        fingerprint: Fingerprint::of_der(made.cert.der()),
        path,
        image,
        _folder: folder,
        _server: server,
    }
});

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

#[divan::bench(sample_count = 5, sample_size = 1)]
fn flash(bencher: Bencher<'_, '_>) {
    let bed = &*BED;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = HttpBmcClient::builder(bed.url.parse().unwrap())
        .credentials("root", "turing".to_owned().into())
        .trust(Trust::Pin(bed.fingerprint))
        .timeouts(BmcTimeouts::default())
        .build()
        .unwrap();
    bencher.counter(BytesCount::new(LENGTH)).bench(|| {
        runtime.block_on(client.flash(Slot::ALL[0], bed.image.clone(), &|_| {})).unwrap();
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn curl(bencher: Bencher<'_, '_>) {
    let bed = &*BED;
    bencher.counter(BytesCount::new(LENGTH)).bench(|| upload_with_curl(&bed.url, &bed.path));
}

fn upload_with_curl(url: &str, path: &Path) {
    let form = format!("file=@{};type=application/octet-stream", path.display());
    let run = Command::new("curl")
        .args(["--http1.1", "-sk", "-H", "Expect:", "-F", &form, "-o", "/dev/null"])
        .arg(format!("{url}/curl"))
        .status();
    assert!(run.is_ok_and(|status| status.success()), "curl is needed for the comparison");
}
