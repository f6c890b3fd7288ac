//! Files that are no disk image, by their first bytes.

/// How much of the start is looked at: the descriptor of an ISO lies at 32 KiB.
pub(super) const NEEDED: usize = 34 << 10;

/// What it is, in words that follow "it is". `None` for all that may be a disk.
pub(super) fn kind(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(usize, &[u8], &str); 21] = [
        (0, b"PK\x03\x04", "a zip archive"),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (0, b"Rar!", "a rar archive"),
        (0, b"\x1f\x8b\x08", "packed twice, with gzip inside"),
        (0, b"\xfd7zXZ\0", "packed twice, with xz inside"),
        (0, b"\x28\xb5\x2f\xfd", "packed twice, with zstd inside"),
        (0, b"BZh", "packed twice, with bzip2 inside"),
        (257, b"ustar", "a tar archive"),
        (32769, b"CD001", "an ISO image of a CD or DVD: an installer, not an installed system"),
        (0, b"UBI#", "a flash image of a BMC's own firmware (UBI)"),
        (0, b"hsqs", "a bare squashfs, such as the firmware of a BMC"),
        (0, b"\xd0\x0d\xfe\xed", "a device tree or a boot image (FIT)"),
        (0, b"070701", "a cpio archive, such as an initial RAM disk"),
        (0, b"070702", "a cpio archive, such as an update of a BMC's firmware"),
        (0, b"QFI\xfb", "a qcow2 disk of a virtual machine"),
        (0, b"KDMV", "a vmdk disk of a virtual machine"),
        (0, b"vhdxfile", "a vhdx disk of a virtual machine"),
        (0, b"\x3a\xff\x26\xed", "an Android sparse image"),
        (0, b"\x7fELF", "a program (ELF)"),
        (0, b"%PDF", "a PDF document"),
        (0, b"-----BEGIN", "a key, certificate or signature"),
    ];
    if start.is_empty() {
        return Some("empty");
    }
    if let Some((_, _, what)) =
        MAGIC.iter().find(|(at, magic, _)| start.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
    {
        return Some(what);
    }
    let text: Vec<u8> = start
        .iter()
        .skip_while(|byte| byte.is_ascii_whitespace() || [0xef, 0xbb, 0xbf].contains(*byte))
        .take(15)
        .map(u8::to_ascii_lowercase)
        .collect();
    [
        (b"<!doctype html".as_slice(), "an HTML page"),
        (b"<html", "an HTML page"),
        (b"<?xml", "an XML document, as download servers send with an error"),
        (b"{\"", "a JSON document, as download servers send with an error"),
        (b"version https://", "a Git LFS pointer, not the file it stands for"),
    ]
    .into_iter()
    .find(|(begin, _)| text.starts_with(begin.get(..15).unwrap_or(begin)))
    .map(|(_, what)| what)
}
