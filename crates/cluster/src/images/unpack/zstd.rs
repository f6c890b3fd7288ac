//! Zstandard: any number of frames, skippable ones between them, checksums compared.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::spoiled;

pub(super) struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    inside: bool,
    /// Bytes of this frame that came out.
    out: u64,
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), inside: false, out: 0 }
    }

    /// Goes to the next frame with content; `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut magic = [0; 4];
            let mut have = 0;
            while let Some(rest) = magic.get_mut(have..).filter(|rest| !rest.is_empty()) {
                match self.input.read(rest)? {
                    0 if have == 0 => return Ok(false),
                    0 => return Err(spoiled("something that is not zstd follows the packed data")),
                    read => have += read,
                }
            }
            match magic {
                [0x28, 0xb5, 0x2f, 0xfd] => {
                    let source = magic.chain(&mut self.input);
                    self.decoder.reset(source).map_err(|e| damaged(&e))?;
                    self.out = 0;
                    return Ok(true);
                }
                [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                    let mut length = [0; 4];
                    self.input.read_exact(&mut length)?;
                    let length = u64::from(u32::from_le_bytes(length));
                    if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? != length {
                        return Err(cut());
                    }
                }
                _ => return Err(spoiled("something that is not zstd follows the packed data")),
            }
        }
    }

    fn check_frame(&self) -> io::Result<()> {
        let (said, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        let size = self.decoder.content_size();
        if (said.is_some() && said != found) || (size != 0 && size != self.out) {
            return Err(spoiled("the packed data is damaged"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| damaged(&e))?;
            }
            let read = self.decoder.read(buffer)?;
            self.out += read as u64;
            if read > 0 {
                return Ok(read);
            }
            if self.decoder.is_finished() && self.decoder.can_collect() == 0 {
                self.check_frame()?;
                self.inside = false;
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the packed data ends in the middle")
}

fn damaged(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::UnexpectedEof
        {
            return cut();
        }
        cause = error.source();
    }
    io::Error::new(io::ErrorKind::InvalidData, format!("the packed data is damaged: {error}"))
}
