use std::io::{Cursor, Write};

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;
use crate::images::size::raw_size;

/// Compresses well in places and badly in others, and is longer than every buffer on the way.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..length)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if i / 50_000 % 3 == 0 { 0 } else { (state >> 60) as u8 }
        })
        .collect()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As `xz -T2` writes it: blocks whose headers have their sizes.
pub(crate) fn xz_blocks(bytes: &[u8]) -> Vec<u8> {
    let mut builder = liblzma::stream::MtStreamBuilder::new();
    let stream = builder.threads(2).preset(0).block_size(256 << 10).encoder().unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

type Pack = fn(&[u8]) -> Vec<u8>;
const ALL: [(Packing, Pack); 5] = [
    (Packing::Xz, xz),
    (Packing::Xz, xz_blocks),
    (Packing::Zstd, zstd),
    (Packing::Gzip, gzip),
    (Packing::Bzip2, bzip2),
];

fn unpack(packed: Vec<u8>, settings: Unpacking) -> io::Result<Vec<u8>> {
    let packing = Packing::of(&packed);
    let mut out = Vec::new();
    decoder(Cursor::new(packed), packing, settings)?.read_to_end(&mut out)?;
    Ok(out)
}

const SETTINGS: [Unpacking; 2] =
    [Unpacking { threads: 3, memory: 64 << 20 }, Unpacking { threads: 1, memory: 0 }];

#[test]
fn every_packing_is_told_by_its_first_bytes_and_unpacked_whole() {
    let raw = content(1_300_000);
    for (packing, pack) in ALL {
        let packed = pack(&raw);
        assert_eq!(Packing::of(&packed), packing);
        assert!(packed.len() < raw.len());
        for settings in SETTINGS {
            assert!(unpack(packed.clone(), settings).unwrap() == raw, "{packing} {settings:?}");
        }
    }
    assert!(unpack(raw.clone(), SETTINGS[0]).unwrap() == raw);
}

#[test]
fn members_after_each_other_are_one_content() {
    let raw = content(300_000);
    let (first, second) = raw.split_at(123_457);
    for (packing, pack) in ALL {
        let packed = [pack(first), pack(second)].concat();
        for settings in SETTINGS {
            assert!(unpack(packed.clone(), settings).unwrap() == raw, "{packing}");
        }
    }
    let padded = [xz(first), vec![0; 8], xz_blocks(second), vec![0; 4]].concat();
    assert!(unpack(padded, SETTINGS[0]).unwrap() == raw);
    let skipped = [vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], zstd(&raw)].concat();
    assert_eq!(Packing::of(&skipped), Packing::Zstd);
    assert!(unpack(skipped, SETTINGS[0]).unwrap() == raw);
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    let raw = content(150_000);
    for (packing, pack) in ALL {
        let packed = pack(&raw);
        let cuts =
            [7, 20, packed.len() / 3, packed.len() / 2, packed.len() - 9, packed.len() - 4, packed.len() - 1];
        for cut in cuts {
            for settings in SETTINGS {
                let unpacked = unpack(packed[..cut].to_vec(), settings);
                assert!(unpacked.is_err(), "{packing} cut at {cut} of {}", packed.len());
            }
        }
    }
}

#[test]
fn what_follows_the_packed_data_is_an_error() {
    let raw = content(100_000);
    for (packing, pack) in ALL {
        for garbage in [b"x".as_slice(), b"garbage that is longer than any magic number", &[0xff; 32]] {
            for settings in SETTINGS {
                let unpacked = unpack([&pack(&raw), garbage].concat(), settings);
                assert!(unpacked.is_err(), "{packing} with {garbage:?}");
            }
        }
    }
    assert!(unpack([xz(&raw), vec![0; 3]].concat(), SETTINGS[0]).is_err());
}

#[test]
fn a_flipped_bit_is_an_error() {
    let raw = content(200_000);
    for (packing, pack) in ALL {
        let packed = pack(&raw);
        for at in [packed.len() / 4, packed.len() / 2, packed.len() * 3 / 4] {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            // Without a checksum zstd cannot notice every one, but ours have one.
            if let Ok(Ok(out)) = std::panic::catch_unwind(|| unpack(damaged, SETTINGS[0])) {
                assert!(out == raw, "{packing}: wrong content came out");
            }
        }
    }
}

#[test]
fn the_size_is_known_beforehand_where_the_format_tells_it() {
    let raw = content(700_000);
    let size = |packed: Vec<u8>| raw_size(&mut Cursor::new(&packed), Packing::of(&packed));
    assert_eq!(size(raw.clone()).unwrap(), Some(700_000));
    assert_eq!(size(xz(&raw)).unwrap(), Some(700_000));
    assert_eq!(size(xz_blocks(&raw)).unwrap(), Some(700_000));
    assert_eq!(size([xz(&raw), vec![0; 12], xz_blocks(&raw)].concat()).unwrap(), Some(1_400_000));
    assert_eq!(size(gzip(&raw)).unwrap(), None);
    assert_eq!(size(bzip2(&raw)).unwrap(), None);
    // A frame with its size, as `zstd FILE` writes it, holding `Turing Pi\n` as one raw block.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 10, 0x51, 0, 0], b"Turing Pi\n".as_slice()].concat();
    assert_eq!(unpack(frame.clone(), SETTINGS[0]).unwrap(), b"Turing Pi\n");
    let skipped = [0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
    assert_eq!(size([&frame, skipped.as_slice(), &frame].concat()).unwrap(), Some(20));
    assert!(size(frame[..15].to_vec()).is_err());
}

#[test]
fn a_cut_xz_file_is_found_out_without_unpacking_it() {
    let packed = xz(&content(100_000));
    for cut in [20, packed.len() / 2, packed.len() - 4, packed.len() - 1] {
        let cut = &packed[..cut];
        assert!(raw_size(&mut Cursor::new(cut), Packing::Xz).is_err());
    }
}

async fn stream(packed: &[u8], settings: Unpacking) -> io::Result<Vec<u8>> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(packed).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let mut unpacked = Unpacked::start(file, Packing::of(packed), settings);
    let mut out = Vec::new();
    unpacked.read_to_end(&mut out).await?;
    assert_eq!(unpacked.packed_bytes_read(), packed.len() as u64);
    Ok(out)
}

#[tokio::test]
async fn the_stream_gives_what_the_decoder_gives_and_fails_at_its_end_when_that_is_cut() {
    let raw = content(2_500_000);
    for (packing, pack) in ALL {
        let packed = pack(&raw);
        assert!(stream(&packed, SETTINGS[0]).await.unwrap() == raw, "{packing}");
        assert!(stream(&packed[..packed.len() - 5], SETTINGS[0]).await.is_err(), "{packing}");
    }
    assert!(stream(&raw, SETTINGS[0]).await.unwrap() == raw);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_any_more_stops_its_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, content(8 << 20)).unwrap();
    let mut unpacked = Unpacked::start(File::open(&path).unwrap(), Packing::Raw, Unpacking::lean());
    let read = Arc::clone(&unpacked.packed_read);
    unpacked.read_exact(&mut [0; 1000]).await.unwrap();
    drop(unpacked);
    // The decoder holds the other reference, and lets go of it when it ends.
    while Arc::strong_count(&read) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(read.load(Ordering::Relaxed) < 8 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_size_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for packing in [Packing::Xz, Packing::Zstd] {
            let _ = raw_size(&mut Cursor::new(&bytes), packing);
        }
    }

    #[test]
    fn no_change_to_a_sound_file_makes_a_size_parser_panic(
        at in 0_usize..400, byte: u8, cut in 0_usize..400
    ) {
        for pack in [xz, xz_blocks, zstd] {
            let mut packed = pack(&content(3000));
            let length = packed.len();
            packed[at % length] = byte;
            packed.truncate(length - cut % length);
            let _ = raw_size(&mut Cursor::new(&packed), Packing::Xz);
            let _ = raw_size(&mut Cursor::new(&packed), Packing::Zstd);
        }
    }

    #[test]
    fn a_damaged_file_never_unpacks_to_something_else_without_an_error(
        at in 4_usize..4000, bit in 0_u8..8
    ) {
        let raw = content(6_000);
        for (packing, pack) in ALL {
            let mut packed = pack(&raw);
            let at = at % packed.len();
            packed[at] ^= 1 << bit;
            // With another magic number it is another kind of file.
            if Packing::of(&packed) != packing {
                continue;
            }
            // ruzstd may panic on what it did not foresee; the stream turns that into an error.
            if let Ok(Ok(out)) = std::panic::catch_unwind(|| unpack(packed, SETTINGS[1])) {
                prop_assert!(out == raw, "{} flipped at {}", packing, at);
            }
        }
    }
}
