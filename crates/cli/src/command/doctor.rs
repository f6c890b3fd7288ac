//! `turingpi doctor`

use turingpi_provision::doctor::{Finding, Weight};

use crate::render::out::say;
use crate::{
    args::{Doctor, Global, Output},
    exit::{self, Exit},
    render::{
        style::{BAD, BOLD, DIM, GOOD, WARN, paint},
        words,
    },
    session::{self, Opened},
};

pub(crate) async fn run(global: &Global, args: &Doctor) -> Result<u8, Exit> {
    let loaded = session::load(&args.document.document, global.output)?;
    let opened = session::until_stopped(Box::pin(Opened::new(global, loaded, &args.simulated))).await??;
    let diagnosis = session::until_stopped(opened.provision.doctor()).await;
    opened.close().await;
    let diagnosis = diagnosis??;
    let problems = diagnosis.findings.iter().filter(|f| f.weight == Weight::Problem).count();
    match global.output {
        Output::Json => say!("{:#}", serde_json::to_value(&diagnosis).unwrap_or_default()),
        Output::Text => {
            for line in &diagnosis.looked_at {
                say!("{} {line}", paint(DIM, "looked at"));
            }
            for same in together(&diagnosis.findings) {
                say!("{}", text(&same));
            }
            if problems > 0 {
                say!("\n{} to solve before `turingpi apply`", words::count(problems, "problem"));
            } else {
                say!("\n{} nothing stands in the way", paint(GOOD, "ok"));
            }
        }
    }
    Ok(if problems > 0 { exit::PROBLEMS } else { exit::DONE })
}

/// The same finding about several nodes is told once.
fn together(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let like = groups.iter_mut().find(|group| {
            group.iter().all(|other| {
                other.id == finding.id
                    && other.weight == finding.weight
                    && words::merge(&[&other.symptom, &finding.symptom]).is_some()
                    && words::merge(&[&other.cause, &finding.cause]).is_some()
                    && words::merge(&[&other.remedy, &finding.remedy]).is_some()
            })
        });
        match like {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

fn text(same: &[&Finding]) -> String {
    let Some(first) = same.first() else { return String::new() };
    let (word, style) = match first.weight {
        Weight::Problem => ("problem", BAD),
        Weight::Warning => ("warning", WARN),
        Weight::Note => ("note", DIM),
    };
    let merged = |part: fn(&Finding) -> &str| {
        let all: Vec<&str> = same.iter().map(|f| part(f)).collect();
        words::merge(&all).unwrap_or_else(|| part(first).to_owned())
    };
    let names: Vec<&str> = same.iter().map(|f| f.subject.name.as_str()).collect();
    let head = words::wrap(
        &format!("{}: {} [{}]", names.join(", "), merged(|f| &f.symptom), first.id),
        word.len() + 1,
        2,
    );
    let part = |label: &str, text: String| {
        let text = words::wrap(&text, label.len() + 3, label.len() + 3);
        format!("\n  {} {}", paint(BOLD, label), text.trim_start())
    };
    format!(
        "\n{} {}{}{}",
        paint(style, word),
        head.trim_start(),
        part("because:", merged(|f| &f.cause)),
        part("next:", merged(|f| &f.remedy))
    )
}
