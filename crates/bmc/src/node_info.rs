//! What the BMC remembers of the nodes: names that somebody gave them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Attempt, BmcError, Capability, Generation, HttpBmcClient, PerSlot, Slot,
    wire::{Call, answer},
};

/// What is remembered of one node. No firmware detects modules: all but the time was typed in by somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The node's name.
    pub name: Option<String>,
    /// The kind of module, in free words such as `RK1`.
    pub module_name: Option<String>,
    /// A baud rate; stored only, the line is always 115200.
    pub uart_baud: Option<u32>,
    /// Since the BMC switched the node on, by the BMC's wall clock, which jumps when NTP sets it. Repeating "on" starts it
    /// again for slots 2 to 4.
    pub on_for: Option<Duration>,
}

/// A change of what is remembered of one node. `None` leaves a field as it is; no firmware can clear one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeInfoChange {
    /// The node's name.
    pub name: Option<String>,
    /// The kind of module, in free words.
    pub module_name: Option<String>,
    /// A baud rate; stored only.
    pub uart_baud: Option<u32>,
}

impl HttpBmcClient {
    pub(crate) async fn read_node_info(&self) -> Result<PerSlot<NodeInfo>, BmcError> {
        let action = "read the nodes' names";
        // Firmware 1.x has another type for it, and never answers one it does not know.
        let kind = if self.firmware().await?.generation == Generation::Legacy {
            "nodeinfo"
        } else {
            self.require(Capability::NodeInfo, action).await?;
            "node_info"
        };
        let reply = self.session().call(&Call::get(action, kind)).await?;
        let attempt = self.session().attempt(action);
        parse(&answer::unwrapped(&answer::envelope(&reply, &attempt)?), &attempt)
    }

    pub(crate) async fn write_node_info(
        &self,
        change: &PerSlot<Option<NodeInfoChange>>,
    ) -> Result<(), BmcError> {
        let mut body = Map::new();
        for (slot, change) in change.iter() {
            if let Some(fields) = change.as_ref().map(fields).filter(|fields| !fields.is_empty()) {
                body.insert(format!("Node{slot}"), Value::Object(fields));
            }
        }
        if body.is_empty() {
            return Ok(());
        }
        let call = Call::set("write the nodes' names", "node_info").posting(&Value::Object(body));
        self.require(Capability::NodeInfo, &call.action()).await?;
        let reply = self.session().call(&call).await?;
        answer::accepted(&reply, &self.session().attempt(call.action()))
    }
}

fn fields(change: &NodeInfoChange) -> Map<String, Value> {
    [
        ("name", change.name.as_ref().map(|v| json!(v))),
        ("module_name", change.module_name.as_ref().map(|v| json!(v))),
        ("uart_baud", change.uart_baud.map(|v| json!(v))),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect()
}

/// An array of four in 2.1 and later; an object of words such as `[raspberry pi]` in 1.x.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<PerSlot<NodeInfo>, BmcError> {
    let mut nodes = PerSlot::new([const { None }; 4]);
    match value {
        Value::Array(entries) if entries.len() == 4 => {
            for (slot, entry) in Slot::ALL.into_iter().zip(entries) {
                nodes[slot] = entry.is_object().then(|| node(entry));
            }
        }
        other => {
            let object = answer::single(other);
            for slot in Slot::ALL {
                let entry = &object[format!("node{slot}").as_str()];
                nodes[slot] = (entry.is_string() || entry.is_number()).then(|| NodeInfo {
                    module_name: answer::word(entry).map(|name| name.replace(['[', ']'], "")),
                    ..NodeInfo::default()
                });
            }
        }
    }
    let mut complete = PerSlot::new(
        [const { NodeInfo { name: None, module_name: None, uart_baud: None, on_for: None } }; 4],
    );
    for slot in Slot::ALL {
        match nodes[slot].take() {
            Some(node) => complete[slot] = node,
            None => return Err(answer::senseless(attempt, "it does not tell of four nodes", value)),
        }
    }
    Ok(complete)
}

fn node(entry: &Value) -> NodeInfo {
    NodeInfo {
        name: answer::word(&entry["name"]),
        module_name: answer::word(&entry["module_name"]),
        uart_baud: answer::number(&entry["uart_baud"]).and_then(|baud| u32::try_from(baud).ok()),
        on_for: answer::number(&entry["power_on_time"]).map(Duration::from_secs),
    }
}
