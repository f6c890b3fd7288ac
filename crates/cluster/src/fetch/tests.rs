use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;

/// A server of one file that can be told to cut, to change the file, and to forget ranges.
#[derive(Clone)]
struct Served {
    content: Arc<Mutex<Vec<u8>>>,
    etag: Arc<Mutex<Option<String>>>,
    cut_at: Arc<Mutex<Option<usize>>>,
    arrived: Arc<tokio::sync::Notify>,
    requests: Arc<Mutex<Vec<HeaderMap>>>,
    ranges: bool,
}

impl Served {
    fn new(content: Vec<u8>) -> Self {
        Self {
            content: Arc::new(Mutex::new(content)),
            etag: Arc::new(Mutex::new(Some("\"v1\"".to_owned()))),
            cut_at: Arc::default(),
            arrived: Arc::default(),
            requests: Arc::default(),
            ranges: true,
        }
    }
    fn requests(&self) -> Vec<HeaderMap> {
        self.requests.lock().unwrap().clone()
    }
    /// A fetch that is cut once `at` bytes have arrived.
    async fn cut(&self, fetcher: &Fetcher, source: &Source, expected: Option<&Sha256>, at: usize) -> Failure {
        *self.cut_at.lock().unwrap() = Some(at);
        let progress = |done, _| {
            if done == at as u64 {
                self.arrived.notify_one();
            }
        };
        fetcher.fetch(source, expected, &progress).await.unwrap_err()
    }
    async fn start(&self) -> Url {
        serve(Router::new().route("/image.xz", get(answer)).with_state(self.clone()))
            .await
            .join("image.xz")
            .unwrap()
    }
}

async fn serve(router: Router) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Url::parse(&format!("http://{address}/")).unwrap()
}

async fn answer(State(served): State<Served>, headers: HeaderMap) -> Response {
    served.requests.lock().unwrap().push(headers.clone());
    let content = served.content.lock().unwrap().clone();
    let etag = served.etag.lock().unwrap().clone();
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let from = text(header::RANGE)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let same = text(header::IF_RANGE).is_none_or(|tag| Some(tag) == etag);
    let (status, start) = match from {
        Some(from) if served.ranges && same && from >= content.len() => {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        Some(from) if served.ranges && same => (StatusCode::PARTIAL_CONTENT, from),
        _ => (StatusCode::OK, 0),
    };
    let mut response =
        Response::builder().status(status).header(header::CONTENT_LENGTH, content.len() - start);
    if let Some(etag) = etag {
        response = response.header(header::ETAG, etag);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        response = response
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", content.len() - 1, content.len()));
    }
    let cut = served.cut_at.lock().unwrap().take();
    let body = match cut {
        Some(cut) => {
            let sent = Bytes::copy_from_slice(&content[start..cut]);
            let arrived = Arc::clone(&served.arrived);
            let end = stream::once(async move {
                arrived.notified().await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(stream::once(async { Ok(sent) }).chain(end))
        }
        None => Body::from(content[start..].to_vec()),
    };
    response.body(body).unwrap()
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn fetcher(folder: &TempDir) -> Fetcher {
    Fetcher::new(folder.path().join("cache"), FetchOptions::default()).unwrap()
}

const QUIET: FetchProgress<'static> = &|_, _| ();

#[tokio::test]
async fn a_download_lands_in_the_cache_for_its_owner_only_and_is_not_fetched_twice() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let digest = Sha256::of(&content());
    let seen = Mutex::new(Vec::new());
    let progress = |done, total| seen.lock().unwrap().push((done, total));
    let fetched = fetcher(&folder).fetch(&source, Some(&digest), &progress).await.unwrap();
    assert_eq!((fetched.bytes, &fetched.sha256), (300_000, &digest));
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
    assert_eq!(std::fs::metadata(&fetched.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(folder.path().join("cache")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(seen.lock().unwrap().last(), Some(&(300_000, Some(300_000))));
    let again = fetcher(&folder).fetch(&source, Some(&digest), QUIET).await.unwrap();
    assert_eq!(again, fetched);
    assert_eq!(served.requests().len(), 1);
}

#[tokio::test]
async fn a_damaged_cached_file_is_noticed_and_fetched_again() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let digest = Sha256::of(&content());
    let fetched = fetcher(&folder).fetch(&source, Some(&digest), QUIET).await.unwrap();
    std::fs::write(&fetched.path, b"rotten").unwrap();
    let again = fetcher(&folder).fetch(&source, Some(&digest), QUIET).await.unwrap();
    assert_eq!(std::fs::read(again.path).unwrap(), content());
    assert_eq!(served.requests().len(), 2);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let digest = Sha256::of(&content());
    let failure = served.cut(&fetcher(&folder), &source, Some(&digest), 120_000).await;
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Unreachable, true));
    // Another process goes on: nothing of the first one is in memory.
    let fetched = fetcher(&folder).fetch(&source, Some(&digest), QUIET).await.unwrap();
    assert_eq!(fetched.sha256, digest);
    let requests = served.requests();
    assert_eq!(requests[1][header::RANGE], "bytes=120000-");
    assert_eq!(requests[1][header::IF_RANGE], "\"v1\"");
    assert_eq!(std::fs::read_dir(folder.path().join("cache/partial")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_changed_between_two_parts_is_fetched_from_its_beginning() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let fetcher = fetcher(&folder);
    served.cut(&fetcher, &source, None, 120_000).await;
    let newer: Vec<u8> = content().into_iter().map(|byte| !byte).collect();
    served.content.lock().unwrap().clone_from(&newer);
    *served.etag.lock().unwrap() = Some("\"v2\"".to_owned());
    let fetched = fetcher.fetch(&source, None, QUIET).await.unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), newer);
}

#[tokio::test]
async fn a_server_without_ranges_or_validators_still_ends_in_the_right_file() {
    for ranges in [true, false] {
        let folder = TempDir::new().unwrap();
        let served = Served { ranges, ..Served::new(content()) };
        *served.etag.lock().unwrap() = None;
        let source = Source::Url(served.start().await);
        let fetcher = fetcher(&folder);
        served.cut(&fetcher, &source, None, 50_000).await;
        let fetched = fetcher.fetch(&source, None, QUIET).await.unwrap();
        assert_eq!(std::fs::read(fetched.path).unwrap(), content());
        assert!(
            !served.requests()[1].contains_key(header::RANGE),
            "nothing could tell whether the rest belongs to it"
        );
    }
}

#[tokio::test]
async fn a_wrong_digest_is_a_typed_refusal_and_drops_what_was_fetched() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let wanted = Sha256::of(b"something else");
    let failure = fetcher(&folder).fetch(&source, Some(&wanted), QUIET).await.unwrap_err();
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Refused, false));
    let mismatch = std::error::Error::source(&failure).unwrap().downcast_ref::<DigestMismatch>().unwrap();
    assert_eq!(*mismatch, DigestMismatch { expected: wanted, found: Sha256::of(&content()) });
    assert_eq!(std::fs::read_dir(folder.path().join("cache/partial")).unwrap().count(), 0);
    assert!(!folder.path().join("cache/sha256").exists());
}

#[tokio::test]
async fn a_stale_part_that_spoils_the_digest_is_dropped_and_the_next_try_is_whole() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    *served.etag.lock().unwrap() = None;
    let source = Source::Url(served.start().await);
    let newer: Vec<u8> = content().into_iter().map(|byte| !byte).collect();
    let digest = Sha256::of(&newer);
    let fetcher = fetcher(&folder);
    served.cut(&fetcher, &source, Some(&digest), 50_000).await;
    served.content.lock().unwrap().clone_from(&newer);
    let failure = fetcher.fetch(&source, Some(&digest), QUIET).await.unwrap_err();
    assert!(failure.is_retryable(), "it may be right from the start: {failure}");
    assert_eq!(fetcher.fetch(&source, Some(&digest), QUIET).await.unwrap().sha256, digest);
}

#[tokio::test]
async fn fetches_of_the_same_digest_at_once_share_one_download() {
    let (folder, served) = (TempDir::new().unwrap(), Served::new(content()));
    let source = Source::Url(served.start().await);
    let digest = Sha256::of(&content());
    let fetcher = fetcher(&folder);
    let all = (0..8).map(|_| fetcher.fetch(&source, Some(&digest), QUIET));
    for fetched in futures::future::join_all(all).await {
        assert_eq!(fetched.unwrap().sha256, digest);
    }
    assert_eq!(served.requests().len(), 1);
}

#[tokio::test]
async fn a_proxy_is_asked_for_what_is_elsewhere_and_never_for_this_machine() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let proxy = serve(Router::new().fallback(move |request: axum::extract::Request| {
        log.lock().unwrap().push(request.uri().to_string());
        async { "by way of the proxy" }
    }))
    .await;
    let here = serve(Router::new().route("/a", get(|| async { "from here" }))).await;
    let folder = TempDir::new().unwrap();
    let mut with_login = proxy.clone();
    with_login.set_username("me").unwrap();
    with_login.set_password(Some("hunter2")).unwrap();
    let no_proxy = "direct.invalid".to_owned();
    let options = FetchOptions { proxy: Some(with_login), no_proxy, ..FetchOptions::default() };
    assert!(!format!("{options:?}").contains("hunter2"), "{options:?}");
    let fetcher = Fetcher::new(folder.path(), options).unwrap();
    let text = |url: &str| {
        let source = Source::Url(url.parse().unwrap());
        let fetcher = fetcher.clone();
        async move { fetcher.text(&source).await }
    };
    assert_eq!(text("http://elsewhere.invalid/b").await.unwrap(), "by way of the proxy");
    assert_eq!(text(here.join("a").unwrap().as_str()).await.unwrap(), "from here");
    assert!(text("http://direct.invalid/c").await.is_err());
    assert_eq!(*asked.lock().unwrap(), ["http://elsewhere.invalid/b"]);
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_limit() {
    let hops = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hops);
    let router = Router::new().route(
        "/{*rest}",
        get(move || {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            async move { (StatusCode::FOUND, [(header::LOCATION, format!("/hop{n}"))]) }
        }),
    );
    let url = serve(router).await.join("start").unwrap();
    let folder = TempDir::new().unwrap();
    let options = FetchOptions { redirects: 3, ..FetchOptions::default() };
    let fetcher = Fetcher::new(folder.path(), options).unwrap();
    let failure = fetcher.text(&Source::Url(url)).await.unwrap_err();
    assert_eq!((failure.class(), failure.is_retryable()), (FailureClass::Refused, false), "{failure:?}");
    assert_eq!(hops.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn answers_are_told_apart_and_credentials_never_show() {
    let router = Router::new()
        .route("/busy", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "7")]) }))
        .route("/private", get(|| async { StatusCode::FORBIDDEN }))
        .route("/large", get(|| async { vec![b'x'; (4 << 20) + 1] }))
        .route("/binary", get(|| async { vec![0xff, 0xfe] }))
        .route("/text", get(|| async { "abc" }));
    let base = serve(router).await;
    let folder = TempDir::new().unwrap();
    let fetcher = fetcher(&folder);
    let at = |path: &str| {
        let mut url = base.join(path).unwrap();
        url.set_username("user").unwrap();
        url.set_password(Some("s3cr3t")).unwrap();
        url.set_query(Some("token=s3cr3t"));
        Source::Url(url)
    };
    assert_eq!(fetcher.text(&at("text")).await.unwrap(), "abc");
    assert_eq!(fetcher.text_if_there(&at("none")).await.unwrap(), None);
    let busy = fetcher.text(&at("busy")).await.unwrap_err();
    assert_eq!((busy.is_retryable(), busy.delay()), (true, Some(Duration::from_secs(7))));
    for (path, class) in [
        ("private", FailureClass::Auth),
        ("none", FailureClass::Refused),
        ("large", FailureClass::Refused),
        ("binary", FailureClass::Refused),
    ] {
        let failure = fetcher.text(&at(path)).await.unwrap_err();
        assert_eq!(failure.class(), class, "{path}");
        assert!(!format!("{failure:?} {:?}", failure.report()).contains("s3cr3t"), "{failure:?}");
    }
    let silent = Source::Url(Url::parse("http://user:s3cr3t@127.0.0.1:1/x?token=s3cr3t").unwrap());
    let failure = fetcher.fetch(&silent, None, QUIET).await.unwrap_err();
    assert!(failure.is_retryable());
    assert!(!format!("{failure:?} {:?} {silent}", failure.report()).contains("s3cr3t"), "{failure:?}");
}

#[tokio::test]
async fn a_mirror_takes_the_place_of_a_prefix() {
    let base = serve(Router::new().route("/mirror/a.txt", get(|| async { "from the mirror" }))).await;
    let folder = TempDir::new().unwrap();
    let rewrites = vec![("https://github.com/".to_owned(), format!("{base}mirror/"))];
    let fetcher = Fetcher::new(folder.path(), FetchOptions { rewrites, ..FetchOptions::default() }).unwrap();
    let source: Source = "https://github.com/a.txt".parse().unwrap();
    assert_eq!(fetcher.text(&source).await.unwrap(), "from the mirror");
}

#[tokio::test]
async fn a_local_file_is_checked_in_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image.img");
    std::fs::write(&path, b"image").unwrap();
    let source: Source = path.to_str().unwrap().parse().unwrap();
    let fetched = fetcher(&folder).fetch(&source, Some(&Sha256::of(b"image")), QUIET).await.unwrap();
    assert_eq!(fetched.path, path);
    let failure = fetcher(&folder).fetch(&source, Some(&Sha256::of(b"other")), QUIET).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(path.exists(), "a person's file is never dropped");
    let missing = fetcher(&folder).fetch(&Source::Path("/nowhere/x".into()), None, QUIET).await.unwrap_err();
    assert_eq!(missing.class(), FailureClass::Config);
}

#[test]
fn digests_are_found_in_the_checksum_files_that_publishers_write() {
    let (a, b) = ("a".repeat(64), "B".repeat(64));
    let found = |text: &str| Sha256::find(text, "x.img.xz").map(String::from);
    assert_eq!(found(&format!("{b}  y.img.xz\n{a} *x.img.xz\n")), Some(a.clone()));
    assert_eq!(found(&format!("{a}  output/images/x.img.xz")), Some(a.clone()));
    assert_eq!(found(&format!("{b}\n")), Some("b".repeat(64)));
    assert_eq!(found(&format!("{b}  y.img.xz")), None);
    assert_eq!(found(&format!("{a}\n{b}\n")), None, "nobody knows which");
    assert_eq!(found("not found"), None);
}

#[test]
fn sources_are_urls_or_paths() {
    assert!(matches!("./a.img".parse(), Ok(Source::Path(_))));
    assert!(matches!("file:///a.img".parse(), Ok(Source::Path(path)) if path == Path::new("/a.img")));
    assert!(matches!("https://host/a.img".parse(), Ok(Source::Url(_))));
    for wrong in ["", "ftp://host/a", "https://"] {
        assert!(wrong.parse::<Source>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_redirect_never_leaves_https() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let plain = serve(Router::new().route(
        "/image.xz",
        get(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { "not what was asked for" }
        }),
    ))
    .await
    .join("image.xz")
    .unwrap();

    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer =
        format!("HTTP/1.1 302 Found\r\nlocation: {plain}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });

    let folder = TempDir::new().unwrap();
    let options = FetchOptions { authorities: vec![own.cert.pem().into_bytes()], ..FetchOptions::default() };
    let fetcher = Fetcher::new(folder.path(), options).unwrap();
    let url: Url = format!("https://localhost:{port}/image.xz").parse().unwrap();
    let failure = fetcher.text(&Source::Url(url.clone())).await.unwrap_err();
    let told = serde_json::to_string(&failure.report()).unwrap();
    assert!(told.contains("from https to http"), "{told}");
    let failure = fetcher.fetch(&Source::Url(url), None, QUIET).await.unwrap_err();
    assert!(!failure.is_retryable(), "{failure:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nothing was asked for in the clear");
    server.abort();
}

#[test]
fn a_checksum_file_beside_one_file_counts_whatever_name_stands_in_it() {
    let (one, two) = (Sha256::of(b"1"), Sha256::of(b"2"));
    assert_eq!(Sha256::beside(&format!("{one}  other.img.xz\n"), "mine"), Some(one.clone()));
    assert_eq!(Sha256::find(&format!("{one}  other.img.xz\n"), "mine"), None);
    let list = format!("{one}  a\n{two}  b\n");
    assert_eq!(Sha256::beside(&list, "b"), Some(two));
    assert_eq!(Sha256::beside(&list, "mine"), None);
    assert_eq!(Sha256::beside("<html>", "mine"), None);
}
