//! The state of the BMC's one transfer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, HttpBmcClient,
    wire::{Call, Reply, answer},
};

/// The BMC's one job slot, shared by flashes of all slots and firmware upgrades. A state stays until the next start or a
/// restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transfer {
    /// Nothing happened since the daemon started.
    Idle,
    /// A job runs.
    Moving {
        /// The job's random number; 0 where the firmware does not tell.
        id: u64,
        /// The job's name, such as `Node 2 os install service`.
        process: String,
        /// Bytes written, unpacked: more than `size` is usual for xz. 0 while the module boots; firmware 2.1 and later
        /// counts again from 0 while reading back.
        bytes: u64,
        /// Bytes declared at the start (packed ones for xz).
        size: Option<u64>,
        /// Whether it was cancelled and is winding up.
        cancelled: bool,
    },
    /// The last job ended. **No proof that anything was written**: a malformed upload ends so too.
    Done {
        /// How long it took.
        took: Duration,
        /// Bytes declared at the start; not bytes written.
        size: Option<u64>,
    },
    /// The last job failed.
    Failed {
        /// The BMC's message.
        text: String,
    },
}

impl HttpBmcClient {
    pub(crate) async fn read_transfer(&self, action: &'static str) -> Result<Transfer, BmcError> {
        self.require(Capability::ImageUpload, action).await?;
        let reply = self.session().call(&Call::get(action, "flash")).await?;
        parse(&reply, &self.session().attempt(action))
    }
}

pub(crate) fn parse(reply: &Reply, attempt: &Attempt) -> Result<Transfer, BmcError> {
    let value = answer::document(reply, attempt)?;
    let nonsense = || answer::senseless(attempt, "it is no transfer state", &value);
    match &value {
        Value::String(text) if text == "Ready" => Ok(Transfer::Idle),
        Value::Object(object) => {
            if let Some(moving) = object.get("Transferring").or_else(|| object.get("Flashing")) {
                Ok(parse_moving(moving))
            } else if let Some(done) = object.get("Done") {
                Ok(parse_done(done))
            } else if let Some(error) = object.get("Error") {
                let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
                Ok(Transfer::Failed { text: answer::shorten(text.trim()) })
            } else {
                Err(nonsense())
            }
        }
        _ => Err(nonsense()),
    }
}

fn parse_moving(value: &Value) -> Transfer {
    if let Value::Array(pair) = value {
        let at = |position: usize| pair.get(position).and_then(answer::number);
        return Transfer::Moving {
            id: 0,
            process: String::new(),
            bytes: at(0).unwrap_or(0),
            size: at(1),
            cancelled: false,
        };
    }
    Transfer::Moving {
        id: answer::number(&value["id"]).unwrap_or(0),
        process: value["process_name"].as_str().map(answer::shorten).unwrap_or_default(),
        bytes: answer::number(&value["bytes_written"]).unwrap_or(0),
        size: answer::number(&value["size"]),
        cancelled: value["cancelled"].as_bool().unwrap_or(false),
    }
}

fn parse_done(value: &Value) -> Transfer {
    let (took, size) = match value {
        Value::Array(pair) => (pair.first().unwrap_or(&Value::Null), pair.get(1).and_then(answer::number)),
        other => (other, None),
    };
    let nanos = answer::number(&took["nanos"]).unwrap_or(0);
    Transfer::Done {
        took: Duration::from_secs(answer::number(&took["secs"]).unwrap_or(0))
            .saturating_add(Duration::from_nanos(nanos)),
        size,
    }
}
