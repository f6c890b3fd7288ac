//! The four places for compute modules.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A slot as printed on the board: 1 to 4. The wire's 0 to 3 stays inside this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Slot(u8);

/// A slot number outside 1 to 4.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a slot: the board has slots 1 to 4")]
pub struct InvalidSlot(String);

impl Slot {
    /// All four, in order.
    pub const ALL: [Self; 4] = [Self(1), Self(2), Self(3), Self(4)];

    /// The number printed on the board, 1 to 4.
    pub fn number(self) -> u8 {
        self.0
    }
    pub(crate) fn wire(self) -> u8 {
        self.0 - 1
    }
    pub(crate) fn position(self) -> usize {
        usize::from(self.0 - 1)
    }
}

impl TryFrom<u8> for Slot {
    type Error = InvalidSlot;
    fn try_from(number: u8) -> Result<Self, InvalidSlot> {
        if (1..=4).contains(&number) { Ok(Self(number)) } else { Err(InvalidSlot(number.to_string())) }
    }
}
impl From<Slot> for u8 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}
impl FromStr for Slot {
    type Err = InvalidSlot;
    fn from_str(text: &str) -> Result<Self, InvalidSlot> {
        text.parse::<u8>().map_err(|_| InvalidSlot(text.to_owned())).and_then(Self::try_from)
    }
}
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One value for each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerSlot<T>([T; 4]);

impl<T> PerSlot<T> {
    /// From the values of slots 1 to 4.
    pub fn new(values: [T; 4]) -> Self {
        Self(values)
    }
    /// Each slot with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        Slot::ALL.into_iter().zip(self.0.iter())
    }
}
impl<T> std::ops::Index<Slot> for PerSlot<T> {
    type Output = T;
    fn index(&self, slot: Slot) -> &T {
        &self.0[slot.position()]
    }
}
impl<T> std::ops::IndexMut<Slot> for PerSlot<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.0[slot.position()]
    }
}
