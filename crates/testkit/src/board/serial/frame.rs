//! Frames of a websocket (RFC 6455), whole messages only.

use bytes::{Buf as _, BytesMut};

/// A longer frame than any console sends is not waited for.
const LONGEST: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
    /// A continuation, or what is not defined.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn new(opcode: Opcode, payload: Vec<u8>) -> Self {
        Self { opcode, payload }
    }
    pub(super) fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        Self::new(Opcode::Close, payload)
    }
    /// As a server sends it: without a mask.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let opcode = match self.opcode {
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
            Opcode::Other => 0,
        };
        let mut bytes = vec![0x80 | opcode];
        match self.payload.len() {
            short @ 0..126 => bytes.push(u8::try_from(short).unwrap_or_default()),
            middle @ 126..65_536 => {
                bytes.push(126);
                bytes.extend_from_slice(&u16::try_from(middle).unwrap_or_default().to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
    /// Takes a whole frame of a client off the front. One that is too long is taken for a kind that is not supported.
    pub(super) fn parse(pending: &mut BytesMut) -> Option<Self> {
        let [first, second, rest @ ..] = pending.as_ref() else { return None };
        let (head, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (2, u64::from(short)),
        };
        let opcode = match first & 0x0f {
            _ if first & 0x80 == 0 => Opcode::Other,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => Opcode::Other,
        };
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= LONGEST) else {
            pending.clear();
            return Some(Self::new(Opcode::Other, Vec::new()));
        };
        let masked = second & 0x80 != 0;
        let start = head + if masked { 4 } else { 0 };
        if pending.len() < start + length {
            return None;
        }
        pending.advance(head);
        let mask: [u8; 4] = if masked { pending.split_to(4).as_ref().try_into().ok()? } else { [0; 4] };
        let payload = pending.split_to(length).iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        Some(Self { opcode, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_their_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = Frame::new(Opcode::Binary, vec![7; length]);
            let mut pending = BytesMut::from(&frame.bytes()[..]);
            let whole = pending.clone();
            for cut in [0, 1, 2, 9].into_iter().filter(|cut| *cut < whole.len()) {
                let mut part = BytesMut::from(&whole[..cut]);
                assert_eq!(Frame::parse(&mut part), None, "{length} bytes, cut at {cut}");
            }
            assert_eq!(Frame::parse(&mut pending), Some(frame));
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn a_clients_mask_is_taken_off() {
        // The example of RFC 6455, 5.7.
        let mut pending =
            BytesMut::from(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58][..]);
        assert_eq!(Frame::parse(&mut pending), Some(Frame::new(Opcode::Text, b"Hello".to_vec())));
    }

    #[test]
    fn a_length_beyond_all_measure_is_not_waited_for() {
        let mut pending = BytesMut::from(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(Frame::parse(&mut pending).map(|frame| frame.opcode), Some(Opcode::Other));
    }
}
