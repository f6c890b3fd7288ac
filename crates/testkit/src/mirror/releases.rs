//! k3s releases and the channels that point at them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::file::File;
use crate::{k3s_airgap_images, k3s_binary};

/// The architectures of a release.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// The images a k3s release needs, as its `k3s-images.txt` lists them.
const IMAGES: &str = "docker.io/rancher/klipper-helm:v0.9.14-build20260210
docker.io/rancher/klipper-lb:v0.4.15
docker.io/rancher/local-path-provisioner:v0.0.34
docker.io/rancher/mirrored-coredns-coredns:1.14.1
docker.io/rancher/mirrored-library-busybox:1.37.0
docker.io/rancher/mirrored-library-traefik:3.6.9
docker.io/rancher/mirrored-metrics-server:v0.8.1
docker.io/rancher/mirrored-pause:3.6
";

/// The releases on offer. Their files are made when they are first asked for.
#[derive(Debug)]
pub(super) struct Releases {
    tags: Vec<String>,
    channels: BTreeMap<String, String>,
    made: Mutex<HashMap<(String, String), File>>,
}

impl Releases {
    pub(super) fn new(tags: Vec<String>, named: BTreeMap<String, String>) -> Self {
        let mut channels = BTreeMap::new();
        for tag in &tags {
            let minor = tag.split('.').take(2).collect::<Vec<_>>().join(".");
            for name in ["stable", "latest", &minor] {
                channels.insert(name.to_owned(), tag.clone());
            }
        }
        channels.extend(named);
        Self { tags, channels, made: Mutex::default() }
    }
    pub(super) fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|known| known == tag)
    }
    pub(super) fn channel(&self, name: &str) -> Option<&str> {
        self.channels.get(name).map(String::as_str)
    }
    /// The channel server's collection.
    pub(super) fn channels(&self, base: &str) -> Value {
        let all = format!("{base}/v1-release/channels");
        let one = |(name, tag): (&String, &String)| {
            let mut channel = json!({
                "id": name,
                "type": "channel",
                "links": {"self": format!("{all}/{name}")},
                "name": name,
                "latest": tag,
            });
            if name.starts_with('v') {
                channel["latestRegexp"] = json!(format!("{}\\..*", name.replace('.', "\\.")));
                channel["excludeRegexp"] = json!("^[^+]+-");
            }
            channel
        };
        let data: Vec<Value> = self.channels.iter().map(one).collect();
        json!({
            "type": "collection",
            "links": {"self": all},
            "actions": {},
            "resourceType": "channels",
            "data": data,
        })
    }
    /// A file of a release.
    pub(super) fn file(&self, tag: &str, name: &str) -> Option<File> {
        if !self.has(tag) {
            return None;
        }
        let key = (tag.to_owned(), name.to_owned());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = made.get(&key) {
            return Some(file.clone());
        }
        let file = File::new(contents(tag, name)?);
        made.insert(key, file.clone());
        Some(file)
    }
}

fn contents(tag: &str, name: &str) -> Option<Vec<u8>> {
    if name == "k3s-images.txt" {
        return Some(IMAGES.as_bytes().to_vec());
    }
    ARCHITECTURES.iter().find_map(|arch| {
        let [binary, images, sums] = names(arch);
        if name == binary {
            Some(k3s_binary(tag, arch))
        } else if name == images {
            Some(k3s_airgap_images(tag, arch))
        } else if name == sums {
            let sum = |name: &str| {
                contents(tag, name).map(|bytes| format!("{}  {name}\n", File::new(bytes).sha256()))
            };
            Some(
                [images.as_str(), "k3s-images.txt", &binary]
                    .into_iter()
                    .filter_map(sum)
                    .collect::<String>()
                    .into(),
            )
        } else {
            None
        }
    })
}

/// Binary, image archive and hash file of an architecture. The binary of amd64 has no suffix.
fn names(arch: &str) -> [String; 3] {
    let binary = if arch == "amd64" { "k3s".to_owned() } else { format!("k3s-{arch}") };
    [binary, format!("k3s-airgap-images-{arch}.tar.zst"), format!("sha256sum-{arch}.txt")]
}
