//! What a plan refuses because it would be done to the wrong system: pure.

use std::collections::{BTreeMap, BTreeSet};

use turingpi_cluster::{
    NodeSpec, SlotRecord,
    imaging::{Decision, Reach},
};
use turingpi_engine::{Failure, FailureClass, State};

use crate::bring_up::Facts;

/// A slot, or an address, holds the system of another node of the document: somebody swapped modules, or lines of the
/// document. Nothing of it is erased or set up for another name unless every node that it is about was `named` to be
/// flashed.
///
/// # Errors
/// `Refused`, saying what was found where.
pub(crate) fn refuse_swapped(
    nodes: &[NodeSpec],
    named: &BTreeSet<&str>,
    decisions: &BTreeMap<String, Decision>,
    facts: &Facts,
    state: &State,
) -> Result<(), Failure> {
    let is_node = |name: &str| nodes.iter().any(|node| node.name == name);
    for node in nodes {
        let flashed = matches!(decisions.get(&node.name), Some(Decision::Flash(_)));
        let agreed = |other: &str| named.contains(node.name.as_str()) && named.contains(other);
        if let (true, Some(place)) = (flashed, &node.slot)
            && let Some(record) = SlotRecord::read(state, place)?
            && record.node != node.name
            && is_node(&record.node)
            && !agreed(&record.node)
        {
            let other = &record.node;
            return Err(Failure::new(
                FailureClass::Refused,
                format!("slot {place} holds the system of {other}, and a flash for {} would erase it", node.name),
            )
            .hint(format!(
                "Correct `slot` in the document. If the system of {other} shall go: `turingpi apply --reflash {} \
                 --reflash {other}`.",
                node.name
            )));
        }
        let Some(seen) = facts.k3s.up(&node.name) else { continue };
        let other = seen.host.hostname.as_str();
        let matters = flashed || seen.k3s.agent_data;
        if matters && other != node.name && is_node(other) && !agreed(other) {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("the system that answers as {} at {} calls itself {other}", node.name, node.address),
            )
            .hint(format!(
                "The addresses or slots of {} and {other} may be swapped in the document: correct them. Nothing was \
                 changed.",
                node.name
            )));
        }
    }
    Ok(())
}

/// Something runs in a slot that is not ours, and nothing allows us to overwrite it.
pub(crate) fn refuse_unknown(
    nodes: &[NodeSpec],
    decisions: &BTreeMap<String, Decision>,
) -> Result<(), Failure> {
    for node in nodes {
        let Some(Decision::Unknown { reach }) = decisions.get(&node.name) else { continue };
        let seen = match reach {
            Reach::Refused => "answers and refuses our login",
            Reach::OtherKey => "answers with another host key than the one we know",
            _ => "does not answer",
        };
        let hint = if node.image.is_some() {
            format!(
                "If its key was changed on purpose, correct `ssh` or the known_hosts file of the state folder. To write \
                 its image again and lose what is on it: `turingpi apply --reflash {}`.",
                node.name
            )
        } else {
            "Correct `ssh` in the document, or give the node an `image` so that it can be flashed.".to_owned()
        };
        return Err(Failure::new(
            FailureClass::Refused,
            format!("node {} {seen}, so nothing is done to it", node.name),
        )
        .hint(hint));
    }
    Ok(())
}
