use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tempfile::TempDir;

use super::*;
use crate::images::Packing;

/// A web server of a few files that counts what it is asked for.
#[derive(Clone, Default)]
struct Shop {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Cuts the next answer after so many bytes.
    cut: Arc<Mutex<Option<usize>>>,
    /// The client has what was sent before the cut.
    arrived: Arc<tokio::sync::Notify>,
    ranges: Arc<Mutex<Vec<String>>>,
    downloads: Arc<AtomicUsize>,
}

impl Shop {
    async fn open(&self) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(format!("/{path}"), bytes.into());
    }
    /// Obtains something whose first download is cut once `at` bytes have arrived.
    async fn cut(&self, store: &ImageStore, what: &str, want: &Want, at: usize) -> Result<Obtained, Failure> {
        *self.cut.lock().unwrap() = Some(at);
        let progress = |done, _| {
            if done == at as u64 {
                self.arrived.notify_one();
            }
        };
        let source = store.resolve(what, Path::new("/nowhere"))?;
        store.obtain(&source, want, &progress).await
    }
    fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
    }
}

async fn answer(State(shop): State<Shop>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(bytes) = shop.files.lock().unwrap().get(uri.path()).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !uri.path().contains(".sha") {
        shop.downloads.fetch_add(1, Ordering::SeqCst);
    }
    let total = bytes.len();
    let from = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).map(|range| {
        shop.ranges.lock().unwrap().push(range.to_owned());
        range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    let start = from.unwrap_or(0);
    let mut response = Response::builder().header(header::CONTENT_LENGTH, total - start);
    if from.is_some() {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", total - 1));
    }
    let cut = shop.cut.lock().unwrap().take();
    let end = cut.unwrap_or(total);
    let first = axum::body::Bytes::copy_from_slice(&bytes[start..end]);
    let body = match cut {
        None => axum::body::Body::from(first),
        Some(_) => {
            let arrived = Arc::clone(&shop.arrived);
            let end = futures::stream::once(async move {
                arrived.notified().await;
                Err(std::io::Error::other("cut"))
            });
            axum::body::Body::from_stream(futures::StreamExt::chain(
                futures::stream::once(async { Ok(first) }),
                end,
            ))
        }
    };
    response.body(body).unwrap()
}

/// A disk that is one for everybody who looks: a boot record and a partition.
fn disk(filler: u8) -> Vec<u8> {
    let mut disk = vec![filler; 200_000];
    disk[..512].fill(0);
    disk[446 + 4] = 0x83;
    disk[446 + 8] = 1;
    disk[446 + 12] = 200;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }
    fn store(&self, catalogue: &str) -> ImageStore {
        let catalogue = match catalogue {
            "" => Catalogue::embedded().unwrap(),
            text => Catalogue::parse(text).unwrap(),
        };
        ImageStore::new(self.folder.path().join("cache"), catalogue, FetchOptions::default()).unwrap()
    }
}

fn catalogue(urls: &[Url], digest: &str) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    format!(
        "images:\n  - {{ name: lab, aliases: [mine], title: t, modules: [rk1], family: other, version: \"1\", \
         urls: [{}], digest: {digest}, packing: raw }}\n",
        urls.join(", ")
    )
}

async fn obtain(store: &ImageStore, what: &str, want: &Want) -> Result<Obtained, Failure> {
    let source = store.resolve(what, Path::new("/nowhere"))?;
    store.obtain(&source, want, &|_, _| ()).await
}

#[tokio::test]
async fn an_image_of_the_catalogue_is_downloaded_once_and_listed_afterwards() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("disk.img").unwrap();
    shop.put("disk.img", disk(1));
    let store = home.store(&catalogue(&[url], &format!("{{ sha256: {} }}", Sha256::of(&disk(1)))));
    assert!(store.list().unwrap()[0].cached.is_none());

    let first = obtain(&store, "mine", &Want::default()).await.unwrap();
    assert_eq!((first.downloaded, &first.trust), (true, &Trust::Catalogue));
    assert_eq!((first.file.name(), first.file.raw_bytes()), ("disk.img", Some(200_000)));
    assert_eq!(std::fs::read(first.file.path()).unwrap(), disk(1));
    let again = obtain(&store, "lab", &Want::default()).await.unwrap();
    assert!(!again.downloaded);
    assert_eq!(shop.downloads(), 1);

    let listed = store.list().unwrap();
    let cached = listed[0].cached.as_ref().unwrap();
    assert_eq!((cached.bytes, cached.known_as.as_slice()), (200_000, ["lab".to_owned()].as_slice()));
    assert!(cached.used_at >= cached.fetched_at);
}

#[tokio::test]
async fn a_download_that_was_cut_goes_on_at_the_next_mirror() {
    let (shop, home) = (Shop::default(), Home::new());
    let base = shop.open().await;
    let mirrors =
        [base.join("gone.img").unwrap(), base.join("one.img").unwrap(), base.join("two.img").unwrap()];
    shop.put("one.img", disk(1));
    shop.put("two.img", disk(1));
    let store = home.store(&catalogue(&mirrors, &format!("{{ sha256: {} }}", Sha256::of(&disk(1)))));
    let obtained = shop.cut(&store, "lab", &Want::default(), 150_000).await.unwrap();
    assert_eq!(std::fs::read(obtained.file.path()).unwrap(), disk(1));
    let ranges = shop.ranges.lock().unwrap().clone();
    assert_eq!(ranges, ["bytes=150000-"]);
}

#[tokio::test]
async fn without_a_published_digest_the_first_use_counts_and_a_change_is_refused() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("disk.img").unwrap();
    shop.put("disk.img", disk(1));
    let store = home.store(&catalogue(std::slice::from_ref(&url), "first-use"));
    for what in ["lab", url.as_str()] {
        let trust = obtain(&store, what, &Want::default()).await.unwrap().trust;
        match what {
            "lab" => assert_eq!(trust, Trust::FirstUse),
            _ => assert!(matches!(trust, Trust::Remembered { .. }), "{trust:?}"),
        }
    }
    // What is in the cache is still right; what the address holds now is not, once it has to be fetched.
    shop.put("disk.img", disk(2));
    assert!(!obtain(&store, "lab", &Want::default()).await.unwrap().downloaded);
    store.prune(&PruneRule { all: true, ..PruneRule::default() }, false).unwrap();
    let failure = obtain(&store, "lab", &Want::default()).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(failure.hint_text().unwrap().contains("--trust-anew"), "{failure:?}");
    let anew = Want { trust_anew: true, ..Want::default() };
    assert_eq!(obtain(&store, "lab", &anew).await.unwrap().trust, Trust::FirstUse);
    assert!(matches!(obtain(&store, "lab", &Want::default()).await.unwrap().trust, Trust::Remembered { .. }));
}

#[tokio::test]
async fn the_page_of_a_hotels_network_is_neither_kept_nor_remembered() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("disk.img").unwrap();
    shop.put("disk.img", "<!doctype html><title>Welcome, guest</title>");
    let store = home.store(&catalogue(&[url], "first-use"));
    let failure = obtain(&store, "lab", &Want::default()).await.unwrap_err();
    assert!(failure.message().contains("an HTML page"), "{failure}");
    assert!(store.cached().unwrap().is_empty());
    shop.put("disk.img", disk(1));
    assert_eq!(obtain(&store, "lab", &Want::default()).await.unwrap().trust, Trust::FirstUse);
}

#[tokio::test]
async fn the_publishers_digest_is_asked_for_and_an_image_that_differs_is_refused() {
    let (shop, home) = (Shop::default(), Home::new());
    let base = shop.open().await;
    let url = base.join("Trixie_vendor_minimal").unwrap();
    shop.put("Trixie_vendor_minimal", disk(1));
    shop.put("Trixie_vendor_minimal.sha", format!("{}  Armbian_26.2_trixie.img.xz\n", Sha256::of(&disk(1))));
    // Said by the catalogue, and found beside an address that a person gives.
    let digest = format!("{{ published: \"{url}.sha\" }}");
    for (home, what) in [(home, "lab".to_owned()), (Home::new(), url.to_string())] {
        let store = home.store(&catalogue(std::slice::from_ref(&url), &digest));
        match obtain(&store, &what, &Want::default()).await.unwrap().trust {
            Trust::Published { url } => assert!(url.ends_with(".sha")),
            other => panic!("{other:?}"),
        }
    }
    // The publisher moves on: the new digest counts, and the old file does not satisfy it.
    let home = Home::new();
    let store = home.store(&catalogue(std::slice::from_ref(&url), &digest));
    obtain(&store, "lab", &Want::default()).await.unwrap();
    shop.put("Trixie_vendor_minimal.sha", format!("{}  next.img.xz\n", Sha256::of(&disk(2))));
    assert_eq!(obtain(&store, "lab", &Want::default()).await.unwrap_err().class(), FailureClass::Refused);
    shop.put("Trixie_vendor_minimal", disk(2));
    let next = obtain(&store, "lab", &Want::default()).await.unwrap();
    assert_eq!(std::fs::read(next.file.path()).unwrap(), disk(2));
    assert_eq!(store.cached().unwrap().len(), 2);
    // A checksum file without a checksum proves nothing.
    shop.put("Trixie_vendor_minimal.sha", "<html>maintenance</html>");
    assert_eq!(obtain(&store, "lab", &Want::default()).await.unwrap_err().class(), FailureClass::Refused);
}

#[tokio::test]
async fn a_publisher_that_cannot_be_asked_does_not_keep_one_from_what_is_there() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("disk.img").unwrap();
    shop.put("disk.img", disk(1));
    shop.put("disk.img.sha256", Sha256::of(&disk(1)).to_string());
    let store = home.store("");
    obtain(&store, url.as_str(), &Want::default()).await.unwrap();
    // Nobody listens there, as on a machine without a network.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = FetchOptions {
        rewrites: vec![(url.join("/").unwrap().to_string(), format!("http://{nobody}/"))],
        ..FetchOptions::default()
    };
    let offline =
        ImageStore::new(home.folder.path().join("cache"), Catalogue::embedded().unwrap(), options).unwrap();
    let obtained = obtain(&offline, url.as_str(), &Want::default()).await.unwrap();
    assert!(matches!(obtained.trust, Trust::Remembered { .. }) && !obtained.downloaded);
    let other = url.join("other.img").unwrap();
    assert_eq!(
        obtain(&offline, other.as_str(), &Want::default()).await.unwrap_err().class(),
        FailureClass::Unreachable
    );
}

#[tokio::test]
async fn a_given_digest_goes_before_everything_else_also_for_a_local_file() {
    let home = Home::new();
    let path = home.folder.path().join("local.img");
    std::fs::write(&path, disk(1)).unwrap();
    let store = home.store("");
    let source = store.resolve("local.img", home.folder.path()).unwrap();
    assert_eq!(source, ImageSource::Path(path));
    let want = |digest| Want { sha256: Some(digest), ..Want::default() };
    let none = |_, _| ();
    assert_eq!(store.obtain(&source, &Want::default(), &none).await.unwrap().trust, Trust::Unchecked);
    let right = store.obtain(&source, &want(Sha256::of(&disk(1))), &none).await.unwrap();
    assert_eq!((right.trust, right.file.sha256()), (Trust::Given, Some(&Sha256::of(&disk(1)))));
    let failure = store.obtain(&source, &want(Sha256::of(b"")), &none).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Refused);
    assert!(store.cached().unwrap().is_empty(), "a local file was copied");
}

#[test]
fn what_a_person_may_write_is_told_apart() {
    let home = Home::new();
    let store = home.store("");
    let base = home.folder.path();
    assert!(matches!(store.resolve("armbian", base), Ok(ImageSource::Catalogue(_))));
    assert!(matches!(store.resolve("./armbian", base), Ok(ImageSource::Path(_))));
    assert!(store.resolve("a.img.xz", base).is_err());
    assert!(matches!(store.resolve("images/a.img.xz", base), Ok(ImageSource::Path(_))));
    assert!(matches!(store.resolve("https://example.org/a.img.xz", base), Ok(ImageSource::Url(_))));
    for wrong in ["armbain", "ftp://example.org/a.img", ""] {
        assert_eq!(store.resolve(wrong, base).unwrap_err().class(), FailureClass::Usage, "{wrong}");
    }
}

#[tokio::test]
async fn a_size_that_had_to_be_found_out_is_remembered_with_the_image() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("disk.img.gz").unwrap();
    shop.put("disk.img.gz", gzip(&disk(1)));
    let store = home.store("");
    let file = obtain(&store, url.as_str(), &Want::default()).await.unwrap().file;
    assert_eq!((file.packing(), file.raw_bytes()), (Packing::Gzip, None));
    assert!(file.upload(true, crate::images::Unpacking::lean()).await.is_err());
    let measured = file.measured(&|_, _| ()).await.unwrap();
    assert_eq!(measured.raw_bytes(), Some(200_000));
    let file = obtain(&store, url.as_str(), &Want::default()).await.unwrap().file;
    assert_eq!((file.raw_bytes(), file.raw_sha256()), (Some(200_000), Some(&Sha256::of(&disk(1)))));
    assert_eq!(store.cached().unwrap()[0].raw_bytes, Some(200_000));

    let upload = file.upload(true, crate::images::Unpacking::lean()).await.unwrap();
    assert_eq!((upload.length, upload.sha256), (200_000, Some(Sha256::of(&disk(1)).to_string())));
    let mut sent = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut (upload.open)().await.unwrap(), &mut sent).await.unwrap();
    assert_eq!(sent, disk(1));

    let options = InspectOptions::new(store.scratch().unwrap());
    let found = store.inspect(&file, &options).await.unwrap();
    assert_eq!(found.raw_bytes, Some(200_000));
    assert_eq!(store.inspect(&file, &options).await.unwrap(), found);
}

#[tokio::test]
async fn pruning_keeps_what_is_in_use_and_what_was_used_last() {
    let (shop, home) = (Shop::default(), Home::new());
    let base = shop.open().await;
    let store = home.store("");
    for (name, filler) in [("a.img", 1), ("b.img", 2), ("c.img", 3)] {
        shop.put(name, disk(filler));
        obtain(&store, base.join(name).unwrap().as_str(), &Want::default()).await.unwrap();
    }
    // Not an image, and not ours to remove.
    let k3s = home.folder.path().join("cache/sha256").join(Sha256::of(b"k3s").as_str());
    std::fs::write(&k3s, b"k3s").unwrap();

    let none = store.prune(&PruneRule::default(), false).unwrap();
    assert_eq!((none.images.len(), none.kept_bytes), (0, 600_000));
    let old = PruneRule { unused_for: Some(Duration::from_secs(3600)), ..PruneRule::default() };
    assert!(store.prune(&old, false).unwrap().images.is_empty());

    let room = PruneRule { keep_bytes: Some(450_000), ..PruneRule::default() };
    let would = store.prune(&room, true).unwrap();
    assert_eq!((would.images.len(), would.images[0].name.as_str()), (1, "a.img"));
    assert_eq!(store.cached().unwrap().len(), 3, "a dry run removed something");
    assert_eq!(store.prune(&room, false).unwrap().freed_bytes, 200_000);

    let held = obtain(&store, base.join("b.img").unwrap().as_str(), &Want::default()).await.unwrap();
    let all = PruneRule { all: true, ..PruneRule::default() };
    let pruned = home.store("").prune(&all, false).unwrap();
    assert_eq!((pruned.images.len(), pruned.in_use.len()), (1, 1));
    assert!(held.file.path().exists());
    drop(held);
    assert_eq!(store.prune(&all, false).unwrap().images.len(), 1);
    assert!(store.cached().unwrap().is_empty() && k3s.exists());
}

#[tokio::test]
async fn the_rest_of_a_download_goes_with_all_and_stays_for_going_on_otherwise() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("a.img").unwrap();
    shop.put("a.img", disk(1));
    let store = home.store("");
    let want = Want { sha256: Some(Sha256::of(&disk(1))), ..Want::default() };
    shop.cut(&store, url.as_str(), &want, 100_000).await.unwrap_err();
    assert_eq!(store.prune(&PruneRule::default(), false).unwrap().partial_files, 0);
    let all = PruneRule { all: true, ..PruneRule::default() };
    assert_eq!(store.prune(&all, true).unwrap().partial_files, 1);
    assert_eq!(store.prune(&all, false).unwrap().partial_files, 1);
    assert_eq!(store.prune(&all, false).unwrap().partial_files, 0);
}

#[tokio::test]
async fn verifying_reads_every_byte_again() {
    let (shop, home) = (Shop::default(), Home::new());
    let base = shop.open().await;
    let store = home.store("");
    shop.put("a.img", disk(1));
    let path = obtain(&store, base.join("a.img").unwrap().as_str(), &Want::default()).await.unwrap();
    let path = path.file.path().to_owned();
    let check = async || {
        let [image] = &store.cached().unwrap()[..] else { panic!() };
        store.verify(image.clone(), &|_, _| ()).await.unwrap().sound
    };
    assert!(check().await);
    let mut bytes = disk(1);
    bytes[100_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(!check().await);
    // And a damaged one is never handed out: it is fetched again.
    let again = obtain(&store, base.join("a.img").unwrap().as_str(), &Want::default()).await.unwrap();
    assert_eq!(std::fs::read(again.file.path()).unwrap(), disk(1));
}

#[tokio::test]
async fn two_stores_at_once_end_with_one_file() {
    let (shop, home) = (Shop::default(), Home::new());
    let url = shop.open().await.join("a.img").unwrap();
    shop.put("a.img", disk(1));
    let want = Want { sha256: Some(Sha256::of(&disk(1))), ..Want::default() };
    let one = async |store: ImageStore| {
        // Another process at the same download is told to the caller, who tries again.
        loop {
            match obtain(&store, url.as_str(), &want).await {
                Err(failure) if failure.class() == FailureClass::Locked => tokio::task::yield_now().await,
                other => return other.unwrap().file.path().to_owned(),
            }
        }
    };
    let stores = [home.store(""), home.store(""), home.store("")];
    let paths = futures::future::join_all(stores.map(one)).await;
    assert!(paths.iter().all(|path| std::fs::read(path).unwrap() == disk(1)));
    assert_eq!(std::fs::read_dir(home.folder.path().join("cache/sha256")).unwrap().count(), 1);
}
