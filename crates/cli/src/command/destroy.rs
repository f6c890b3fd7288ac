//! `turingpi destroy`

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use turingpi_provision::{
    TeardownIntent,
    engine::{Approval, Cancellation, EventSink, Failure, FailureClass},
};

use crate::render::out::{say, talk};
use crate::{
    args::{Destroy, Global, Output, Simulated},
    command::apply::{ended, write_report},
    exit::{self, Exit},
    render::{
        plan as render,
        screen::Screen,
        style::{BAD, GOOD, paint},
        words,
    },
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Destroy) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = Opened::new(global, loaded, &Simulated { simulate: false, pace: 0.0 }).await?;
    let result = destroy(global, args, &opened).await;
    opened.close().await;
    result
}

async fn destroy(global: &Global, args: &Destroy, opened: &Opened) -> Result<u8, Exit> {
    let text = global.output == Output::Text;
    let intent = TeardownIntent {
        keep_data: args.keep_data,
        power_off: args.power_off,
        drain: !args.no_drain,
        skip_unreachable: args.skip_unreachable,
    };
    let planned = session::until_stopped(opened.provision.plan_teardown(&intent)).await?;
    let planned = planned.map_err(|failure| without_it(failure, args))?;
    if text {
        for note in &planned.notes {
            say!("{}", words::wrap(&format!("note: {note}"), 0, 6));
        }
    }
    if planned.preview.is_empty() {
        if text {
            say!("{} nothing of the cluster is left", paint(GOOD, "ok"));
        } else {
            say!("{}", exit::result(exit::DONE, None, None, opened.simulated, None));
        }
        return Ok(exit::DONE);
    }
    if text {
        say!("{}", render::text(&planned.preview, render::Detail::of(global.verbose)));
    }
    confirm(args, opened.provision.document().name.clone(), text).await?;

    let cancellation = Cancellation::new();
    let ears = session::stop_on_signals(&cancellation);
    let screen = Screen::new(global, opened.simulated, opened.state_dir.join("runs"));
    let sink: Arc<dyn EventSink> = screen.clone();
    // The typed name covers the plan that was shown; anything beyond it stops the run.
    let approval = Approval::safe_only().digest(planned.preview.digest());
    let result = opened.provision.destroy(&intent, &approval, sink, &cancellation).await;
    drop(ears);
    screen.finish();
    write_report(args.report.as_deref(), "destroy", opened, &screen, text)?;
    let summary = result.map_err(|failure| ended(without_it(failure, args), &screen, opened, text))?;
    if !text {
        say!("{}", exit::result(exit::DONE, None, Some(&summary), opened.simulated, None));
        return Ok(exit::DONE);
    }
    say!(
        "{} cluster `{}` is gone: {} in {}",
        paint(GOOD, "done"),
        opened.provision.document().name,
        words::count(summary.steps_done, "step"),
        words::duration(Duration::from_millis(summary.millis)),
    );
    if args.keep_data {
        say!("Its data is kept on the nodes: `turingpi apply` brings the same cluster back.");
    }
    Ok(exit::DONE)
}

/// Names the flag that goes on without a node which does not answer.
fn without_it(failure: Failure, args: &Destroy) -> Failure {
    if failure.class() != FailureClass::Unreachable || args.skip_unreachable {
        return failure;
    }
    let hint = failure.hint_text().map(|h| format!("{h} ")).unwrap_or_default();
    failure.hint(format!("{hint}`--skip-unreachable` goes on without nodes that do not answer."))
}

/// The cluster's name, typed or given.
async fn confirm(args: &Destroy, name: String, text: bool) -> Result<(), Exit> {
    let typed = match &args.confirm {
        Some(typed) => typed.clone(),
        None if text && std::io::stdin().is_terminal() => {
            talk!("{} Type the name of the cluster to destroy it.", paint(BAD, "This cannot be undone."));
            let question =
                || dialoguer::Input::<String>::new().with_prompt("Cluster").allow_empty(true).interact_text();
            session::ask(question).await?.map_err(|_| Exit::silent(exit::STOPPED))?
        }
        None => {
            return Err(Failure::new(
                FailureClass::Unapproved,
                format!("destroying `{name}` needs its name as confirmation"),
            )
            .hint(format!("Pass `--confirm {name}`."))
            .into());
        }
    };
    if typed.trim() == name {
        return Ok(());
    }
    Err(Failure::new(
        FailureClass::Unapproved,
        format!("`{}` is not the name of this cluster, so nothing was changed", typed.trim()),
    )
    .hint(format!("It is `{name}`."))
    .into())
}
