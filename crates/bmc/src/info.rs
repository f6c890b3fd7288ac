//! The BMC's addresses and storage.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, HttpBmcClient,
    wire::{Call, answer},
};

/// What a BMC tells about itself beside its firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Info {
    /// One entry an address; an interface with IPv4 and IPv6 stands here twice.
    pub interfaces: Vec<Interface>,
    /// `BMC` is the root file system, not the memory that firmware staging needs. `SD card` only with a card.
    pub storage: Vec<Storage>,
}

/// An address of a network interface of the BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interface {
    /// Such as `br0`; firmware before bmcd 2.0.2 does not tell.
    pub device: Option<String>,
    /// The address, if the BMC knows it.
    pub ip: Option<IpAddr>,
    /// The hardware address, if the BMC knows it.
    pub mac: Option<String>,
}

/// A file system of the BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Storage {
    /// `BMC` or `SD card`.
    pub name: String,
    /// Free bytes.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

impl HttpBmcClient {
    pub(crate) async fn read_info(&self) -> Result<Info, BmcError> {
        let kind = if self.firmware().await?.has(Capability::Info) { "info" } else { "other" };
        let call = Call::get("read addresses and storage", kind);
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse(&answer::value(&reply, &attempt)?, &attempt)
    }
}

/// `info` with lists, and the flat `other` of older firmware.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<Info, BmcError> {
    let object = answer::single(value);
    if !object.is_object() {
        return Err(answer::senseless(attempt, "it holds no addresses", value));
    }
    let interfaces = match &object["ip"] {
        Value::Array(entries) => entries.iter().map(interface).collect(),
        _ => Some(interface(object)).filter(|i| i.ip.is_some() || i.mac.is_some()).into_iter().collect(),
    };
    let storage = object["storage"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = storage
        .iter()
        .filter_map(|entry| {
            Some(Storage {
                name: answer::word(&entry["name"])?,
                free: answer::number(&entry["bytes_free"])?,
                total: answer::number(&entry["total_bytes"])?,
            })
        })
        .collect();
    Ok(Info { interfaces, storage })
}

fn interface(entry: &Value) -> Interface {
    Interface {
        device: answer::word(&entry["device"]),
        ip: answer::word(&entry["ip"]).and_then(|text| text.parse().ok()),
        mac: answer::word(&entry["mac"]),
    }
}
