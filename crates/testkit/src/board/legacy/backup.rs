//! `GET /api/bmc/backup`: a tar.gz of the BMC's writable files, small and made by hand.

use bytes::Bytes;
use http::{Response, StatusCode, header};

use crate::board::wire::{AnswerBody, typed, with};

/// The archive's one file.
const FILE: (&str, &[u8]) = ("./etc/hostname", b"turingpi\n");

/// The answer: no length, `application/gzip`, a file name with today's date.
pub(crate) fn backup() -> Response<AnswerBody> {
    let now = time::OffsetDateTime::now_utc();
    let name = format!("tp2-backup-{:02}-{:02}-{}.tar.gz", now.day(), u8::from(now.month()), now.year());
    let (sender, pieces) = tokio::sync::mpsc::channel(1);
    // The channel holds the one piece, so it cannot be refused.
    let _sent = sender.try_send(Ok(Bytes::from(gzip(&tar(FILE.0, FILE.1)))));
    let mut answer = typed(StatusCode::OK, "application/gzip", "");
    *answer.body_mut() = AnswerBody::Pieces { pieces, length: None };
    with(answer, header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))
}

/// A ustar archive of one file.
fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut head = vec![0_u8; 512];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(field) = head.get_mut(at..at + text.len()) {
            field.copy_from_slice(text);
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", bytes.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    if let Some(field) = head.get_mut(148..156) {
        field.copy_from_slice(sum.as_bytes());
    }
    let mut archive = head;
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// A gzip member with one stored block; `bytes` are fewer than 65536.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    member.extend_from_slice(&length.to_le_bytes());
    member.extend_from_slice(&(!length).to_le_bytes());
    member.extend_from_slice(bytes);
    member.extend_from_slice(&crc32(bytes).to_le_bytes());
    member.extend_from_slice(&u32::from(length).to_le_bytes());
    member
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
