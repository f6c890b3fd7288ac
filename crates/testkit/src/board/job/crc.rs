//! CRC-64 as the daemon computes it over what it writes and reads back (Jones polynomial, reflected, no inversion).

/// The reflected polynomial.
const POLYNOMIAL: u64 = 0x95AC_9329_AC4B_C9B5;

/// Eight tables, so that eight bytes go at once.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0_u64; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][index] = value;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let before = tables[table - 1][index];
            tables[table][index] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
}

/// A running checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Crc64(u64);

impl Crc64 {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for word in words {
            let mixed = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
            crc = TABLES[7][usize::from(mixed[0])]
                ^ TABLES[6][usize::from(mixed[1])]
                ^ TABLES[5][usize::from(mixed[2])]
                ^ TABLES[4][usize::from(mixed[3])]
                ^ TABLES[3][usize::from(mixed[4])]
                ^ TABLES[2][usize::from(mixed[5])]
                ^ TABLES[1][usize::from(mixed[6])]
                ^ TABLES[0][usize::from(mixed[7])];
        }
        for byte in rest {
            crc = (crc >> 8) ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
        }
        self.0 = crc;
    }
    /// `before`, with `bytes` behind it.
    pub(super) fn of(before: Self, bytes: &[u8]) -> Self {
        let mut crc = before;
        crc.update(bytes);
        crc
    }
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        let mut crc = Crc64::default();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let (mut whole, mut pieces) = (Crc64::default(), Crc64::default());
        whole.update(&bytes);
        bytes.chunks(13).for_each(|piece| pieces.update(piece));
        assert_eq!(whole, pieces);
    }
}
