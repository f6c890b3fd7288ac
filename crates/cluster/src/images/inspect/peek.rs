//! Reading anywhere in an image, also in a packed one, unpacking no further than is needed.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
};

use super::InspectOptions;
use crate::images::{Packing, Unpacking, unpack};

/// What is unpacked in one go.
const PIECE: usize = 64 << 10;

/// An image to read from. Clones read the same.
#[derive(Clone)]
pub(super) struct Peek {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    /// The raw image, or what of it was unpacked.
    file: File,
    /// Bytes that are there.
    have: u64,
    /// The rest of a packed image.
    decoder: Option<Box<dyn Read + Send>>,
    most: u64,
    /// All was unpacked.
    whole: bool,
}

impl Peek {
    pub(super) fn open(
        path: &Path,
        packing: Packing,
        bytes: u64,
        options: &InspectOptions,
    ) -> io::Result<Self> {
        let inner = match packing {
            Packing::Raw => {
                Inner { file: File::open(path)?, have: bytes, decoder: None, most: bytes, whole: true }
            }
            _ => Inner {
                file: tempfile::tempfile_in(&options.scratch)?,
                have: 0,
                decoder: Some(unpack::open(path, packing, Unpacking::default())?),
                most: options.most,
                whole: false,
            },
        };
        Ok(Self { inner: Rc::new(RefCell::new(inner)) })
    }

    /// Reads as much as there is at `at`.
    pub(super) fn up_to(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.borrow_mut();
        let end = at.saturating_add(buffer.len() as u64);
        inner.unpack_to(end)?;
        let length = usize::try_from(inner.have.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        if let Some(part) = buffer.get_mut(..length) {
            inner.file.read_exact_at(part, at)?;
        }
        Ok(length)
    }

    /// Reads exactly so many bytes; `None` where there are fewer.
    pub(super) fn exactly(&self, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; length];
        let have = self.up_to(at, &mut buffer)?;
        Ok((have == length).then_some(buffer))
    }

    /// The size of the image: unpacks the rest to nowhere. `None` where that is more than may be unpacked. Nothing can be
    /// read behind what was unpacked before.
    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        let mut inner = self.inner.borrow_mut();
        let Some(mut decoder) = inner.decoder.take() else { return Ok(inner.whole.then_some(inner.have)) };
        let mut bytes = inner.have;
        let mut piece = vec![0; PIECE];
        while bytes <= inner.most {
            match unpack::fill(&mut decoder, &mut piece)? {
                0 => return Ok(Some(bytes)),
                length => bytes += length as u64,
            }
        }
        Ok(None)
    }
}

impl Inner {
    fn unpack_to(&mut self, end: u64) -> io::Result<()> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let mut piece = vec![0; PIECE];
        while self.have < end.min(self.most) {
            let length = unpack::fill(decoder, &mut piece)?;
            let part = piece.get(..length).unwrap_or_default();
            // Zeros stay holes, and most of an image is zeros.
            if part.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(part, self.have)?;
            }
            self.have += length as u64;
            if length < PIECE {
                self.whole = true;
                self.decoder = None;
                break;
            }
        }
        // What is behind the last data reads as zeros, too.
        if self.file.metadata()?.len() < self.have {
            self.file.set_len(self.have)?;
        }
        Ok(())
    }
}
