//! The unpacked size of a packed file, where its format tells it, without unpacking.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::Packing;

/// The unpacked size. `None` when the format does not tell.
///
/// gzip keeps it modulo 4 GiB and of its last member only, bzip2 not at all.
///
/// # Errors
/// `InvalidData` when the file is cut or its index is damaged; what the source says otherwise.
pub(super) fn raw_size(input: &mut (impl Read + Seek), packing: Packing) -> io::Result<Option<u64>> {
    match packing {
        Packing::Raw => input.seek(SeekFrom::End(0)).map(Some),
        Packing::Xz => xz(input).map(Some),
        Packing::Zstd => zstd(input),
        Packing::Gzip | Packing::Bzip2 => Ok(None),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not whole: its end is missing or damaged")
}

/// Sums the indexes of all members, from the last to the first. Source: xz file format 1.2.1, sections 2 and 4.
fn xz(input: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut end = input.seek(SeekFrom::End(0))?;
    let mut total = 0_u64;
    while end > 0 {
        let mut word = [0; 4];
        input.seek(SeekFrom::Start(end.checked_sub(4).ok_or_else(damaged)?))?;
        input.read_exact(&mut word)?;
        if word == [0; 4] {
            end -= 4;
            continue;
        }
        let (start, size) = xz_member(input, end)?;
        total = total.checked_add(size).ok_or_else(damaged)?;
        end = start;
    }
    Ok(total)
}

/// Start and unpacked size of the member that ends at `end`.
fn xz_member(input: &mut (impl Read + Seek), end: u64) -> io::Result<(u64, u64)> {
    let footer_at = end.checked_sub(12).ok_or_else(damaged)?;
    let mut footer = [0; 12];
    input.seek(SeekFrom::Start(footer_at))?;
    input.read_exact(&mut footer)?;
    let [c0, c1, c2, c3, b0, b1, b2, b3, flag0, flag1, b'Y', b'Z'] = footer else { return Err(damaged()) };
    if crc32fast::hash(&[b0, b1, b2, b3, flag0, flag1]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(damaged());
    }
    let index_size = (u64::from(u32::from_le_bytes([b0, b1, b2, b3])) + 1) * 4;
    let index_at = footer_at.checked_sub(index_size).ok_or_else(damaged)?;
    input.seek(SeekFrom::Start(index_at))?;
    let mut index = Index {
        input: BufReader::new(input.by_ref().take(index_size)),
        crc: crc32fast::Hasher::new(),
        read: 0,
    };
    if index.byte()? != 0 {
        return Err(damaged());
    }
    let (mut packed, mut unpacked) = (0_u64, 0_u64);
    for _ in 0..index.number()? {
        let block = index.number()?;
        packed = block.checked_next_multiple_of(4).and_then(|b| packed.checked_add(b)).ok_or_else(damaged)?;
        unpacked = unpacked.checked_add(index.number()?).ok_or_else(damaged)?;
    }
    while !index.read.is_multiple_of(4) {
        if index.byte()? != 0 {
            return Err(damaged());
        }
    }
    let found = index.crc.clone().finalize().to_le_bytes();
    let said = [index.byte()?, index.byte()?, index.byte()?, index.byte()?];
    let start = index_at.checked_sub(packed).and_then(|s| s.checked_sub(12));
    match start {
        Some(start) if said == found && index.read == index_size => Ok((start, unpacked)),
        _ => Err(damaged()),
    }
}

/// The bytes of an index, counted and summed.
struct Index<R> {
    input: R,
    crc: crc32fast::Hasher,
    read: u64,
}

impl<R: Read> Index<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|_| damaged())?;
        self.crc.update(&byte);
        self.read += 1;
        let [byte] = byte;
        Ok(byte)
    }

    /// Seven bits a byte, least first, at most 63 bits.
    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(damaged()) } else { Ok(number) };
            }
        }
        Err(damaged())
    }
}

/// Walks frames and the headers of their blocks. Source: RFC 8878, section 3.1.
fn zstd(input: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let end = input.seek(SeekFrom::End(0))?;
    input.seek(SeekFrom::Start(0))?;
    let mut input = Walk { input: BufReader::new(input), at: 0, end };
    let mut total = 0_u64;
    while input.at < end {
        match input.bytes()? {
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let length = u32::from_le_bytes(input.bytes()?);
                input.skip(u64::from(length))?;
            }
            [0x28, 0xb5, 0x2f, 0xfd] => match zstd_frame(&mut input)? {
                Some(size) => total = total.checked_add(size).ok_or_else(damaged)?,
                None => return Ok(None),
            },
            _ => return Err(damaged()),
        }
    }
    Ok(Some(total))
}

/// The size that a frame says it has; leaves the input behind the frame.
fn zstd_frame<R: Read + Seek>(input: &mut Walk<R>) -> io::Result<Option<u64>> {
    let [descriptor] = input.bytes()?;
    let single = descriptor & 0x20 != 0;
    if !single {
        input.skip(1)?;
    }
    input.skip(match descriptor & 3 {
        0 => 0,
        1 => 1,
        2 => 2,
        _ => 4,
    })?;
    let size = match (descriptor >> 6, single) {
        (0, false) => return Ok(None),
        (0, true) => u64::from(u8::from_le_bytes(input.bytes()?)),
        (1, _) => u64::from(u16::from_le_bytes(input.bytes()?)) + 256,
        (2, _) => u64::from(u32::from_le_bytes(input.bytes()?)),
        _ => u64::from_le_bytes(input.bytes()?),
    };
    loop {
        let [low, middle, high] = input.bytes()?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        // A block of one byte, repeated, is that byte.
        input.skip(if header >> 1 & 3 == 1 { 1 } else { u64::from(header >> 3) })?;
        if header & 1 == 1 {
            break;
        }
    }
    if descriptor & 4 != 0 {
        input.skip(4)?;
    }
    Ok(Some(size))
}

/// Reads and skips within known bounds.
struct Walk<R> {
    input: BufReader<R>,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Walk<R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.at += N as u64;
        if self.at > self.end {
            return Err(damaged());
        }
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.end).ok_or_else(damaged)?;
        self.input.seek_relative(i64::try_from(count).map_err(|_| damaged())?)
    }
}
