//! The download mirror, looked at from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use sha2::{Digest as _, Sha256};
use turingpi_testkit::{Action, Fault, Faults, Mirror, MirrorPlan, OsImage, Site, k3s_binary};

const TAG: &str = "v1.35.5+k3s1";

fn image() -> OsImage {
    OsImage::armbian().with_size(256 * 1024)
}
async fn mirror() -> (Mirror, Faults, reqwest::Client) {
    let faults = Faults::default();
    let plan = MirrorPlan::new().image("armbian", image()).k3s_release("v1.34.3+k3s1").k3s_release(TAG);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    (Mirror::start(plan, faults.clone()).await.unwrap(), faults, http)
}
fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn a_release_is_laid_out_as_on_github_and_its_hash_file_tells_the_truth() {
    let (mirror, _, http) = mirror().await;
    for (tag, arch, binary) in
        [(TAG, "arm64", "k3s-arm64"), ("v1.35.5%2Bk3s1", "arm64", "k3s-arm64"), (TAG, "amd64", "k3s")]
    {
        let get = async |name: &str| {
            let answer =
                http.get(format!("{}/download/{tag}/{name}", mirror.k3s_releases())).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            answer.bytes().await.unwrap()
        };
        assert_eq!(get(binary).await, k3s_binary(TAG, arch));
        let sums = String::from_utf8(get(&format!("sha256sum-{arch}.txt")).await.to_vec()).unwrap();
        assert_eq!(sums.lines().count(), 3);
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            assert_eq!(sha256(&get(name).await), sum, "{name}");
        }
        assert!(sums.lines().any(|line| line.ends_with(&format!(" {binary}"))), "{sums}");
    }
}

#[tokio::test]
async fn what_a_release_does_not_have_is_404() {
    let (mirror, _, http) = mirror().await;
    let base = mirror.k3s_releases();
    for path in ["download/v1.35.5+k3s1/install.sh", "download/v9.9.9+k3s1/k3s", "tag/v9.9.9+k3s1"] {
        assert_eq!(http.get(format!("{base}/{path}")).send().await.unwrap().status(), 404, "{path}");
    }
}

#[tokio::test]
async fn a_channel_leads_to_the_page_of_its_latest_release() {
    let (mirror, _, http) = mirror().await;
    for (channel, tag) in [("stable", TAG), ("latest", TAG), ("v1.35", TAG), ("v1.34", "v1.34.3+k3s1")] {
        let answer = http.get(format!("{}/{channel}", mirror.k3s_channels())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.url().path().rsplit('/').next(), Some(tag), "{channel}");
    }
    let missing = http.get(format!("{}/v1.2", mirror.k3s_channels())).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn the_collection_lists_name_and_latest_of_every_channel() {
    let (mirror, _, http) = mirror().await;
    let text = http.get(mirror.k3s_channels()).send().await.unwrap().text().await.unwrap();
    let channels: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(channels["type"], "collection");
    let named = |name: &str| {
        let all = channels["data"].as_array().unwrap();
        all.iter().find(|channel| channel["name"] == name).unwrap()["latest"].clone()
    };
    assert_eq!((named("stable"), named("v1.34")), (TAG.into(), "v1.34.3+k3s1".into()));
}

#[tokio::test]
async fn without_a_release_named_the_default_is_served() {
    let mirror = Mirror::start(MirrorPlan::new(), Faults::default()).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("{}/stable", mirror.k3s_channels())).send().await.unwrap();
    assert!(answer.url().path().ends_with(TAG));
}

#[tokio::test]
async fn an_image_is_served_with_its_hash_whole_in_part_and_not_at_all() {
    let (mirror, _, http) = mirror().await;
    let packed = image().xz();
    let served = mirror.images().remove(0);
    assert_eq!((served.sha256.clone(), served.bytes), (sha256(&packed), packed.len() as u64));
    let whole = http.get(&served.url).send().await.unwrap();
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.bytes().await.unwrap(), packed);
    let line = http.get(format!("{}.sha256", served.url)).send().await.unwrap().text().await.unwrap();
    assert_eq!(line, format!("{}  armbian.img.xz\n", served.sha256));

    let head = http.head(&served.url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], packed.len().to_string());
    assert_eq!(head.bytes().await.unwrap().len(), 0);

    let part = http.get(&served.url).header("range", "bytes=1000-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    let range = format!("bytes 1000-{}/{}", packed.len() - 1, packed.len());
    assert_eq!(part.headers()["content-range"], range);
    assert_eq!(part.bytes().await.unwrap(), packed[1000..]);
    let resumed = |etag: &str| {
        http.get(&served.url).header("range", "bytes=1000-1999").header("if-range", etag.to_owned()).send()
    };
    assert_eq!(resumed(&etag).await.unwrap().bytes().await.unwrap(), packed[1000..2000]);
    let changed = resumed("\"another\"").await.unwrap();
    assert_eq!((changed.status().as_u16(), changed.bytes().await.unwrap().len()), (200, packed.len()));
    let beyond = http.get(&served.url).header("range", "bytes=99999999-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], format!("bytes */{}", packed.len()));
    let same = http.get(&served.url).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(same.status(), 304);
    assert_eq!(http.get(format!("{}x", served.url)).send().await.unwrap().status(), 404);
    assert_eq!(http.post(&served.url).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_download_is_cut_corrupted_refused_or_dropped_and_then_goes_well() {
    let (mirror, faults, http) = mirror().await;
    let served = mirror.images().remove(0);
    let at = |action| Fault::at(Site::Mirror { path: "/images/".into() }, action);
    let get = async || http.get(&served.url).send().await;

    faults.add(at(Action::CutAfter(1000)));
    let cut = get().await.unwrap();
    assert_eq!(cut.headers()["content-length"], served.bytes.to_string());
    assert!(cut.bytes().await.is_err());
    faults.add(at(Action::Corrupt));
    let corrupt = get().await.unwrap().bytes().await.unwrap();
    assert_eq!(corrupt.len() as u64, served.bytes);
    assert_ne!(sha256(&corrupt), served.sha256);
    faults.add(at(Action::Status(503, "try later".into())));
    let refused = get().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.text().await.unwrap()), (503, "try later".into()));
    faults.add(at(Action::Drop));
    assert!(get().await.is_err());
    assert_eq!(sha256(&get().await.unwrap().bytes().await.unwrap()), served.sha256);
    assert_eq!(faults.struck(), 4);
    let statuses: Vec<_> = mirror.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(200), Some(200), Some(503), None, Some(200)]);
}

#[tokio::test]
async fn a_mirror_that_is_shut_down_answers_nobody() {
    let (mirror, _, http) = mirror().await;
    let url = mirror.k3s_channels();
    mirror.shutdown().await;
    assert!(http.get(url).send().await.unwrap_err().is_connect());
}
