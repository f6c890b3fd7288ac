//! `turingpi plan`

use crate::render::out::{self, say};
use crate::{
    args::{Global, Output, Plan},
    exit::{self, Exit},
    render::{
        plan as render,
        style::{GOOD, paint},
        words,
    },
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Plan) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = session::until_stopped(Box::pin(Opened::new(global, loaded, &args.simulated))).await??;
    let result = plan(global, args, &opened).await;
    opened.close().await;
    result
}

async fn plan(global: &Global, args: &Plan, opened: &Opened) -> Result<u8, Exit> {
    let intent = session::intent(&opened.provision, &args.reflash)?;
    let planned = session::until_stopped(opened.provision.plan(&intent)).await??;
    let code = if planned.preview.is_empty() { exit::DONE } else { exit::CHANGES };
    match global.output {
        Output::Json => say!(
            "{:#}",
            serde_json::json!({
                "changes": !planned.preview.is_empty(),
                "digest": planned.preview.digest(),
                "risk": planned.preview.risk(),
                "plan": planned.preview,
                "notes": planned.notes,
            })
        ),
        Output::Text => {
            for note in &planned.notes {
                say!("{}", words::wrap(&format!("note: {note}"), 0, 6));
            }
            if planned.preview.is_empty() {
                say!("{} nothing to change: the cluster is what the document says", paint(GOOD, "ok"));
            } else {
                out::data(render::text(&planned.preview, render::Detail::of(global.verbose)));
            }
        }
    }
    Ok(code)
}
