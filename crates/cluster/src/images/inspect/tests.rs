//! `data/root.ext4.xz` is an ext4 of 1 MiB made by `mkfs.ext4 -d` from a folder with the release files of an Armbian.

use std::io::{Read, Write};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const START: u64 = 2048 * 512;

fn root() -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzDecoder::new(include_bytes!("data/root.ext4.xz").as_slice())
        .read_to_end(&mut out)
        .unwrap();
    out
}

/// A disk with a GPT, the root at 1 MiB, and the loader's magic at sector 64.
fn gpt_disk() -> Vec<u8> {
    let root = root();
    let mut disk = vec![0; usize::try_from(START).unwrap()];
    disk.extend_from_slice(&root);
    disk.resize(disk.len() + (1 << 20), 0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[450] = 0xee;
    let mut entries = vec![0; 128 * 128];
    // 0fc63daf-8483-4772-8e79-3d69d8477de4, first groups little-endian
    entries[..16].copy_from_slice(&hex::decode("af3dc60f838472478e793d69d8477de4").unwrap());
    entries[32..40].copy_from_slice(&2048_u64.to_le_bytes());
    let last = 2048 + root.len() as u64 / 512 - 1;
    entries[40..48].copy_from_slice(&last.to_le_bytes());
    for (i, unit) in "rootfs\u{7}".encode_utf16().enumerate() {
        entries[56 + 2 * i..58 + 2 * i].copy_from_slice(&unit.to_le_bytes());
    }
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    disk[512..604].copy_from_slice(&header);
    disk[1024..1024 + entries.len()].copy_from_slice(&entries);
    disk[64 * 512..64 * 512 + 4].copy_from_slice(b"RKNS");
    disk
}

/// A disk with an MBR and the root at 1 MiB.
fn mbr_disk() -> Vec<u8> {
    let root = root();
    let mut disk = vec![0; usize::try_from(START).unwrap()];
    disk.extend_from_slice(&root);
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&2048_u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn inspect(bytes: &[u8]) -> Result<Inspection, Failure> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    let file = ImageFile::open(&path).await?;
    let inspection = Inspection::of(&file, &InspectOptions::new(folder.path())).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
    inspection
}

#[tokio::test]
async fn an_armbian_image_says_what_it_is_packed_or_not() {
    let disk = gpt_disk();
    for packed in [disk.clone(), xz(&disk), gzip(&disk)] {
        let found = inspect(&packed).await.unwrap();
        assert_eq!((&found.content, found.table), (&Content::Disk, Some(PartitionTable::Gpt)));
        assert_eq!(found.raw_bytes, Some(disk.len() as u64), "{found:?}");
        assert_eq!((found.packing, found.packed_bytes), (Packing::of(&packed), packed.len() as u64));
        assert_eq!((found.smallest_emmc_gb, found.module), (Some(8), Some(Module::Rk1)));
        assert!(found.rockchip_loader && found.notes.is_empty(), "{:?}", found.notes);

        let [part] = &found.partitions[..] else { panic!("{found:?}") };
        assert_eq!((part.number, part.start_bytes, part.bytes), (1, START, 1 << 20));
        assert_eq!((part.kind.as_str(), part.name.as_str()), ("linux", "rootfs\u{fffd}"));
        let fs = part.file_system.as_ref().unwrap();
        assert_eq!((fs.kind.as_str(), fs.label.as_str(), fs.bytes), ("ext4", "armbi_root", Some(1 << 20)));
        assert_eq!(fs.uuid.as_deref(), Some("0a1b2c3d-1111-2222-3333-444455556666"));

        let system = found.system.unwrap();
        assert_eq!(system.name, "Armbian_community 26.2.0-trunk.151 trixie");
        assert_eq!((system.id.as_deref(), system.version.as_deref()), (Some("debian"), Some("13")));
        assert_eq!((system.board.as_deref(), system.branch.as_deref()), (Some("turing-rk1"), Some("vendor")));
        assert_eq!(system.board_name.as_deref(), Some("Turing RK1"));
        assert_eq!(system.armbian_version.as_deref(), Some("26.2.0-trunk.151"));
        assert_eq!(system.kernels, ["6.1.115-vendor-rk35xx"]);
    }
}

#[tokio::test]
async fn a_disk_without_the_boards_loader_says_so() {
    let found = inspect(&mbr_disk()).await.unwrap();
    assert_eq!(found.table, Some(PartitionTable::Mbr));
    assert_eq!((found.partitions[0].kind.as_str(), found.partitions[0].start_bytes), ("linux", START));
    assert!(found.system.is_some() && !found.rockchip_loader);
    assert!(found.notes.iter().any(|note| note.contains("no Rockchip boot loader")), "{:?}", found.notes);
}

#[tokio::test]
async fn files_that_are_no_disk_image_are_called_by_their_name() {
    let padded = |start: &[u8]| [start, &vec![0; 40_000]].concat();
    let mut iso = vec![0; 40_000];
    iso[32769..32774].copy_from_slice(b"CD001");
    let mut tar = vec![0; 2000];
    tar[257..262].copy_from_slice(b"ustar");
    let cases = [
        (b"\n <!DOCTYPE HTML><title>Not found</title>".to_vec(), "HTML"),
        (b"<html>".to_vec(), "HTML"),
        (b"{\"error\":1}".to_vec(), "JSON"),
        (b"<?xml version=\"1.0\"?><Error/>".to_vec(), "XML"),
        (padded(b"PK\x03\x04"), "zip"),
        (padded(b"UBI#\x01"), "BMC"),
        (iso, "ISO"),
        (tar, "tar"),
        (xz(b"<html><body>"), "HTML"),
        (gzip(&xz(&mbr_disk())), "packed twice"),
    ];
    for (bytes, part) in cases {
        match inspect(&bytes).await.unwrap().content {
            Content::Foreign(what) => assert!(what.contains(part), "{what} is not {part}"),
            other => panic!("{other:?} is not {part}"),
        }
    }
    assert_eq!(inspect(&root()).await.unwrap().content, Content::FileSystem);
    assert_eq!(inspect(&vec![0; 1 << 20]).await.unwrap().content, Content::Unknown);
    assert_eq!(inspect(b"just a text").await.unwrap().content, Content::Unknown);
}

#[tokio::test]
async fn a_packed_image_that_is_cut_is_an_error_and_no_verdict() {
    let packed = gzip(&gpt_disk());
    let failure = inspect(&packed[..packed.len() - 20]).await.unwrap_err();
    assert!(failure.hint_text().is_some(), "{failure}");
    let packed = xz(&gpt_disk());
    inspect(&packed[..packed.len() / 2]).await.unwrap_err();
}

#[tokio::test]
async fn an_image_that_unpacks_to_more_than_allowed_is_not_unpacked_further() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, gzip(&vec![0; 4 << 20])).unwrap();
    let file = ImageFile::open(&path).await.unwrap();
    let options = InspectOptions { most: 1 << 20, ..InspectOptions::new(folder.path()) };
    let found = Inspection::of(&file, &options).await.unwrap();
    assert_eq!((found.raw_bytes, found.content), (None, Content::Unknown));
}

#[test]
fn emmc_sizes_leave_room_for_what_an_emmc_lacks() {
    assert_eq!(smallest_emmc(2 << 30), Some(8));
    assert_eq!(smallest_emmc(8_000_000_000), Some(16));
    assert_eq!(smallest_emmc(28_800_000_001), Some(64));
    assert_eq!(smallest_emmc(1 << 40), None);
}

/// Looks at bytes as an image, on this thread.
fn look_at(bytes: &[u8]) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Ok(file) = runtime.block_on(ImageFile::open(&path)) else { return };
    let _ = look(&file, &InspectOptions::new(folder.path()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_inspection_panic(start in prop::collection::vec(any::<u8>(), 1..1200)) {
        let mut bytes = start;
        bytes.resize(70_000, 0);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        look_at(&bytes);
        bytes[512..520].copy_from_slice(b"EFI PART");
        look_at(&bytes);
        bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
        look_at(&bytes);
    }

    #[test]
    fn no_change_to_a_disk_makes_inspection_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)
    ) {
        let mut disk = mbr_disk();
        let first = usize::try_from(START).unwrap();
        // The metadata of the file system, where a change has an effect.
        for (at, byte) in changes {
            disk[first + 1024 + at.index(60_000)] = byte;
        }
        look_at(&disk);
    }

    #[test]
    fn release_files_of_any_kind_are_read_without_control_characters(text in "(?s).{0,200}") {
        for (key, value) in release::variables(&text) {
            prop_assert!(!key.is_empty() && !value.chars().any(char::is_control));
        }
    }
}
