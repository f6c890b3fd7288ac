//! xz through liblzma, block by block on several threads where the file has blocks and the budget allows it.

use std::io::{self, BufRead, Read};

use liblzma::stream::{Action, Error, MtStreamBuilder, Status, Stream};

use super::{Unpacking, spoiled};

/// No file needs more to be read at all than this: `xz -9` takes 65 MiB.
const MOST: u64 = 256 << 20;

pub(super) struct Xz<R> {
    input: R,
    settings: Unpacking,
    stream: Stream,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Inside,
    /// After a member: padding, another member, or the end.
    Between,
    End,
}

impl<R: BufRead> Xz<R> {
    pub(super) fn new(input: R, settings: Unpacking) -> io::Result<Self> {
        Ok(Self { input, settings, stream: stream(settings)?, state: State::Inside })
    }

    /// Zeros in groups of four may follow a member, then another one or nothing.
    fn next_member(&mut self) -> io::Result<()> {
        let mut zeros = 0_u64;
        loop {
            let chunk = self.input.fill_buf()?;
            let count = chunk.iter().take_while(|byte| **byte == 0).count();
            let (length, first) = (chunk.len(), chunk.get(count).copied());
            self.input.consume(count);
            zeros += count as u64;
            if length == 0 || first.is_some() {
                if !zeros.is_multiple_of(4) || first.is_some_and(|byte| byte != 0xfd) {
                    return Err(spoiled("something that is not xz follows the packed data"));
                }
                self.state = if length == 0 { State::End } else { State::Inside };
                if self.state == State::Inside {
                    self.stream = stream(self.settings)?;
                }
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::End => return Ok(0),
                State::Between => {
                    self.next_member()?;
                    continue;
                }
                State::Inside => {}
            }
            let chunk = self.input.fill_buf()?;
            let ended = chunk.is_empty();
            let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
            let action = if ended { Action::Finish } else { Action::Run };
            let status = self.stream.process(chunk, buffer, action).map_err(explain)?;
            let consumed = usize::try_from(self.stream.total_in() - before_in).unwrap_or(usize::MAX);
            let written = usize::try_from(self.stream.total_out() - before_out).unwrap_or(usize::MAX);
            self.input.consume(consumed);
            if status == Status::StreamEnd {
                self.state = State::Between;
            } else if written == 0 && (ended || consumed == 0) {
                // liblzma says twice that it cannot go on before it is certain.
                if ended || status == Status::MemNeeded {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the packed data ends in the middle",
                    ));
                }
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

fn stream(settings: Unpacking) -> io::Result<Stream> {
    let most = MOST.max(settings.memory);
    if settings.threads <= 1 {
        return Stream::new_stream_decoder(most, 0).map_err(explain);
    }
    let mut builder = MtStreamBuilder::new();
    builder.threads(settings.threads).memlimit_threading(settings.memory).memlimit_stop(most);
    builder.decoder().map_err(explain)
}

fn explain(error: Error) -> io::Error {
    match error {
        Error::Data => spoiled("the packed data is damaged"),
        Error::Format => spoiled("this is not xz"),
        Error::MemLimit | Error::Mem => {
            io::Error::new(io::ErrorKind::OutOfMemory, "unpacking it takes more than 256 MiB of memory")
        }
        Error::Options | Error::UnsupportedCheck => {
            io::Error::new(io::ErrorKind::Unsupported, "it is packed with a filter that is not known here")
        }
        other => other.into(),
    }
}
