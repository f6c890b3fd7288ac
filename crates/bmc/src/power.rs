//! Power and reset of slots.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, HttpBmcClient, PerSlot, Slot,
    wire::{Call, answer},
};

/// Power of a slot, as requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

impl HttpBmcClient {
    pub(crate) async fn read_power(&self) -> Result<PerSlot<Power>, BmcError> {
        let call = Call::get("read the power state", "power");
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse(&answer::value(&reply, &attempt)?, &attempt)
    }

    pub(crate) async fn write_power(&self, change: &PerSlot<Option<Power>>) -> Result<(), BmcError> {
        let wanted: Vec<(Slot, Power)> =
            change.iter().filter_map(|(slot, power)| power.map(|p| (slot, p))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = wanted.iter().map(|(slot, power)| format!("slot {slot} {power}")).collect();
        let call = wanted.iter().fold(
            Call::set(format!("switch {}", words.join(", ")), "power"),
            |call, (slot, power)| {
                call.with(&format!("node{slot}"), if *power == Power::On { "1" } else { "0" })
            },
        );
        self.session().command(&call).await
    }

    pub(crate) async fn reset_slot(&self, slot: Slot) -> Result<(), BmcError> {
        let call = Call::set(format!("reset slot {slot}"), "reset").with("node", &slot.wire().to_string());
        self.require(Capability::Reset, &call.action()).await?;
        self.session().command(&call).await
    }

    pub(crate) async fn cycle_power(&self, slot: Slot, off_for: Duration) -> Result<(), BmcError> {
        let mut change = PerSlot::new([None; 4]);
        change[slot] = Some(Power::Off);
        self.write_power(&change).await?;
        tokio::time::sleep(off_for).await;
        change[slot] = Some(Power::On);
        self.write_power(&change).await
    }
}

/// Strings in 2.x, numbers in 1.x; an array of one object in 2.x, the object itself in 1.x.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<PerSlot<Power>, BmcError> {
    let object = answer::single(value);
    let mut states = PerSlot::new([Power::Off; 4]);
    for slot in Slot::ALL {
        let state = &object[format!("node{slot}").as_str()];
        states[slot] = match answer::number(state) {
            Some(0) => Power::Off,
            Some(_) => Power::On,
            None if state.as_str().is_some_and(|s| s.eq_ignore_ascii_case("unknown")) => {
                return Err(BmcError::Api {
                    attempt: attempt.clone(),
                    status: 200,
                    text: format!("the stored power state of slot {slot} is unknown"),
                });
            }
            None => return Err(answer::senseless(attempt, "it has no power state for each slot", value)),
        };
    }
    Ok(states)
}
