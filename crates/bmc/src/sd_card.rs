//! The BMC's SD card.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Generation, HttpBmcClient,
    wire::{Call, answer},
};

/// The SD card in the BMC's slot. It is the BMC's own, not a node's; it hangs at `/mnt/sdcard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SdCard {
    /// Bytes in all. Firmware 1.x counts whole MiB.
    pub total: u64,
    /// Free bytes.
    pub free: u64,
    /// Used bytes.
    pub used: u64,
}

impl SdCard {
    /// A card, for test doubles.
    pub fn new(total: u64, free: u64, used: u64) -> Self {
        Self { total, free, used }
    }
}

impl HttpBmcClient {
    pub(crate) async fn read_sd_card(&self) -> Result<Option<SdCard>, BmcError> {
        let legacy = self.firmware().await?.generation == Generation::Legacy;
        let call = Call::get("read the SD card's size", "sdcard");
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        match answer::value(&reply, &attempt) {
            Ok(value) => parse(&value, legacy, &attempt),
            // The text for "no card", its placeholder never filled in.
            Err(BmcError::Api { text, .. }) if text.contains("get microSD card info") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Bytes in 2.x; MiB, and zeros without a card, in 1.x.
pub(crate) fn parse(value: &Value, legacy: bool, attempt: &Attempt) -> Result<Option<SdCard>, BmcError> {
    let object = answer::single(value);
    let unit = if legacy { 1024 * 1024 } else { 1 };
    let bytes = |key: &str| answer::number(&object[key]).map(|n: u64| n.saturating_mul(unit));
    match (bytes("total"), bytes("free"), bytes("use")) {
        (Some(0), ..) => Ok(None),
        (Some(total), Some(free), Some(used)) => Ok(Some(SdCard { total, free, used })),
        _ => Err(answer::senseless(attempt, "it tells no sizes", value)),
    }
}
