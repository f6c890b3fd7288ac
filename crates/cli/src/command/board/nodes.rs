//! `turingpi board node-info`

use serde_json::json;
use turingpi_provision::{
    bmc::{NodeInfoChange, PerSlot},
    engine::{Failure, FailureClass},
};

use super::{
    args::NodeInfo,
    desk::{Open, Told},
};
use crate::{
    exit::Exit,
    render::{
        style::{DIM, paint},
        words,
    },
};

pub(super) async fn run(open: &Open, args: &NodeInfo) -> Result<Told, Exit> {
    let client = open.client();
    match (args.node, &args.name, &args.module) {
        (None, None, None) => {}
        (Some(_), None, None) => {
            return Err(Failure::new(FailureClass::Usage, "there is nothing to change")
                .hint("Give `--name` or `--module`; without `-n` everything is shown.")
                .into());
        }
        (Some(slot), name, module) => {
            let mut change = PerSlot::new([const { None }; 4]);
            change[slot] =
                Some(NodeInfoChange { name: name.clone(), module_name: module.clone(), uart_baud: None });
            open.have(client.set_node_info(&change)).await?;
        }
        (None, ..) => unreachable!("the flags require a slot"),
    }
    let nodes = open.ask(client.node_info()).await?;
    let list: Vec<_> = nodes
        .iter()
        .map(|(slot, node)| {
            json!({
                "slot": slot,
                "name": node.name,
                "module_name": node.module_name,
                "uart_baud": node.uart_baud,
                "on_for_seconds": node.on_for.map(|on_for| on_for.as_secs()),
                "node": open.board.node(slot),
            })
        })
        .collect();
    let mut lines = vec![paint(DIM, format!("{:<4}  {:<16}  {:<12}  ON FOR", "SLOT", "NAME", "MODULE"))];
    for (slot, node) in nodes.iter() {
        let word = |text: &Option<String>, width| words::clip(text.as_deref().unwrap_or("-"), width);
        lines.push(format!(
            "{slot:<4}  {:<16}  {:<12}  {}",
            word(&node.name, 16),
            word(&node.module_name, 12),
            node.on_for.map_or("-".to_owned(), words::duration),
        ));
    }
    Ok(Told::new(json!({ "board": open.board.name(), "nodes": list }), lines.join("\n")))
}
