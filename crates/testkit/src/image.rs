//! Simulated artefacts: OS images that a simulated node can boot, and k3s files it can run.
//!
//! An image begins with a page of plain text that says what it is, so that a node which finds it on its eMMC knows what
//! to boot; the rest is filler that compresses to about half, as a real image does.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// First line of every simulated OS image.
const IMAGE_MAGIC: &str = "TURINGPI-SIM-IMAGE 1\n";
/// The descriptive page in front of the filler, in bytes.
const PAGE: usize = 4096;
/// The size of a simulated `k3s` binary, in bytes.
const K3S_BYTES: usize = 16 * 1024;

/// Which distribution an image holds: it decides users, first boot and package manager of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OsKind {
    /// Armbian: `root`/`1234`, a first-login wizard, zram swap and ramlog.
    Armbian,
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

/// A simulated OS image: what stands in its first page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsImage {
    /// The distribution.
    pub os: OsKind,
    /// Its version, as the distribution writes it.
    pub version: String,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// Size of the raw image in bytes, the first page included; at least 4096.
    pub size: usize,
    /// Selects the filler, so that two builds of one version differ in their bytes.
    #[serde(default)]
    pub build: u64,
    /// A user with a password that may use sudo, beside the distribution's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<(String, String)>,
}

impl OsImage {
    /// Size of the images below: small enough for a test, large enough for a transfer to have a middle.
    pub const DEFAULT_SIZE: usize = 4 * 1024 * 1024;

    /// Armbian for the Turing RK1.
    pub fn armbian() -> Self {
        Self::new(OsKind::Armbian, "26.2.1", "6.1.115-vendor-rk35xx")
    }
    /// Debian 13.
    pub fn debian() -> Self {
        Self::new(OsKind::Debian, "13.2", "6.12.57+deb13-arm64")
    }
    /// Ubuntu 24.04 LTS.
    pub fn ubuntu() -> Self {
        Self::new(OsKind::Ubuntu, "24.04.3", "6.8.0-88-generic")
    }
    fn new(os: OsKind, version: &str, kernel: &str) -> Self {
        Self {
            os,
            version: version.to_owned(),
            arch: "arm64".to_owned(),
            kernel: kernel.to_owned(),
            size: Self::DEFAULT_SIZE,
            build: 0,
            login: None,
        }
    }
    /// The same image with another raw size in bytes (at least one page of 4096).
    #[must_use]
    pub fn with_size(mut self, bytes: usize) -> Self {
        self.size = bytes.max(PAGE);
        self
    }
    /// The same image with another version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }
    /// The same image with other filler.
    #[must_use]
    pub fn with_build(mut self, build: u64) -> Self {
        self.build = build;
        self
    }

    /// The same image with a user of its own who may use sudo, as people bake into cloud images.
    #[must_use]
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some((user.into(), password.into()));
        self
    }

    /// The raw image: always the same bytes for the same description.
    pub fn raw(&self) -> Vec<u8> {
        let mut image = Vec::with_capacity(self.size.max(PAGE));
        image.extend_from_slice(IMAGE_MAGIC.as_bytes());
        // A plain struct of strings and numbers: writing it to a Vec cannot fail, and a half page would not parse.
        if serde_json::to_writer(&mut image, self).is_err() {
            image.truncate(IMAGE_MAGIC.len());
        }
        image.push(b'\n');
        image.resize(PAGE, 0);
        filler(&mut image, self.size.max(PAGE), self.build ^ fingerprint(&self.version));
        image
    }
    /// The image as a `.xz` file of one member.
    pub fn xz(&self) -> Vec<u8> {
        xz(&self.raw())
    }
    /// The image as a `.xz` file, packed once in a process: every simulation serves the same few images.
    pub(crate) fn shared_xz(&self) -> bytes::Bytes {
        static PACKED: Mutex<BTreeMap<String, bytes::Bytes>> = Mutex::new(BTreeMap::new());
        let key = serde_json::to_string(self).unwrap_or_default();
        let mut packed = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
        packed.entry(key).or_insert_with(|| self.xz().into()).clone()
    }
    /// What is on an eMMC, if it is a complete simulated image: the first page is readable and `emmc` is as long as the
    /// page says. An interrupted flash leaves something that does not parse.
    pub fn parse(emmc: &[u8]) -> Option<Self> {
        let image = Self::parse_page(emmc)?;
        (emmc.len() >= image.size).then_some(image)
    }
    /// What the first page says, whether or not the rest has been written.
    pub fn parse_page(emmc: &[u8]) -> Option<Self> {
        let page = emmc.get(..PAGE)?.strip_prefix(IMAGE_MAGIC.as_bytes())?;
        let line = page.split(|byte| *byte == b'\n').next()?;
        serde_json::from_slice(line).ok()
    }
}

/// Compresses like `xz -1`, one member with a CRC-64 check.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::with_capacity(bytes.len() / 2), 1);
    // Writing to a Vec fails only when memory does.
    if encoder.write_all(bytes).is_err() {
        return Vec::new();
    }
    encoder.finish().unwrap_or_default()
}

/// A simulated `k3s` binary of 16 KiB: a shell script that a simulated node's shell can run.
///
/// Line 2 is `# simulated-k3s <version> <arch>`; line 3 hands over to the builtin `k3s-simulated`.
pub fn k3s_binary(version: &str, arch: &str) -> Vec<u8> {
    let mut script =
        format!("#!/bin/sh\n# simulated-k3s {version} {arch}\nexec k3s-simulated '{version}' \"$@\"\n")
            .into_bytes();
    let mut seed = fingerprint(version) ^ fingerprint(arch);
    while script.len() < K3S_BYTES {
        let line = format!("# {:016x}\n", next(&mut seed));
        let room = K3S_BYTES - script.len();
        script.extend_from_slice(line.as_bytes().get(..room).unwrap_or(line.as_bytes()));
    }
    script
}

/// A simulated air-gap image archive (`k3s-airgap-images-<arch>.tar.zst`): a magic line and filler, 64 KiB.
pub fn k3s_airgap_images(version: &str, arch: &str) -> Vec<u8> {
    let mut archive = format!("TURINGPI-SIM-AIRGAP 1 {version} {arch}\n").into_bytes();
    filler(&mut archive, 64 * 1024, fingerprint(version) ^ fingerprint(arch));
    archive
}

/// Extends `bytes` to `size` with 16 letters in pseudo-random order: half a byte of entropy a byte.
fn filler(bytes: &mut Vec<u8>, size: usize, seed: u64) {
    const LETTERS: &[u8; 16] = b"tuirngp0123456#\n";
    let mut state = seed;
    while bytes.len() < size {
        let word = next(&mut state);
        let room = (size - bytes.len()).min(16);
        bytes.extend(
            (0..room).map(|nibble| LETTERS[usize::try_from(word >> (4 * nibble) & 0xf).unwrap_or(0)]),
        );
    }
}

/// One step of SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// FNV-1a: a seed from a text.
fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_it_is_and_an_interrupted_one_does_not() {
        let image = OsImage::armbian();
        let raw = image.raw();
        assert_eq!(raw.len(), OsImage::DEFAULT_SIZE);
        assert_eq!(OsImage::parse(&raw), Some(image.clone()));
        assert_eq!(OsImage::parse(&raw[..raw.len() - 1]), None);
        assert_eq!(OsImage::parse_page(&raw[..PAGE]), Some(image));
        assert_eq!(OsImage::parse(&vec![0; raw.len()]), None);
        assert_eq!(OsImage::parse(b""), None);
    }

    #[test]
    fn a_larger_emmc_still_holds_the_image() {
        let mut raw = OsImage::debian().with_size(8192).raw();
        raw.resize(20_000, 0xff);
        assert_eq!(OsImage::parse(&raw).unwrap().os, OsKind::Debian);
    }

    #[test]
    fn images_are_reproducible_and_differ_by_build() {
        let small = OsImage::ubuntu().with_size(64 * 1024);
        assert_eq!(small.raw(), small.raw());
        assert_ne!(small.raw(), small.clone().with_build(1).raw());
    }

    #[test]
    fn the_xz_form_is_smaller_and_unpacks_to_the_raw_form() {
        let image = OsImage::armbian().with_size(256 * 1024);
        let packed = image.xz();
        assert!(packed.starts_with(b"\xfd7zXZ\0"));
        assert!(packed.len() < image.size * 3 / 4, "{}", packed.len());
        assert!(packed.len() > image.size / 4, "{}", packed.len());
        let mut decoder = liblzma::write::XzDecoder::new(Vec::new());
        decoder.write_all(&packed).unwrap();
        assert_eq!(decoder.finish().unwrap(), image.raw());
    }

    #[test]
    fn a_k3s_binary_is_a_script_of_sixteen_kib_that_names_version_and_architecture() {
        let binary = k3s_binary("v1.35.5+k3s1", "arm64");
        assert_eq!(binary.len(), K3S_BYTES);
        let text = String::from_utf8(binary).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh"));
        assert_eq!(lines.next(), Some("# simulated-k3s v1.35.5+k3s1 arm64"));
        assert_eq!(lines.next(), Some("exec k3s-simulated 'v1.35.5+k3s1' \"$@\""));
        assert!(lines.all(|line| line.starts_with('#')));
    }

    #[test]
    fn air_gap_archives_differ_by_version() {
        assert_ne!(k3s_airgap_images("v1.35.5+k3s1", "arm64"), k3s_airgap_images("v1.34.1+k3s1", "arm64"));
    }
}
