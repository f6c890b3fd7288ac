//! `turingpi simulate`

use turingpi_provision::document;

use crate::render::out::say;
use crate::{
    args::{Global, Output, Simulate},
    command::init,
    exit::{self, Exit},
    render::style::{BOLD, WARN, paint},
    session::{self, Loaded},
    simulate::{Running, private_file},
};

pub(crate) async fn run(global: &Global, args: &Simulate) -> Result<u8, Exit> {
    let document = match &args.document {
        Some(path) => {
            let Loaded { document, .. } = session::load(path, global.output)?;
            document
        }
        None => demo(),
    };
    // Before anybody is told that it runs: from then on it may be stopped.
    let mut signals = session::Signals::hear();
    let running = Running::start(&document, args.pace, &args.hardware, args.write.as_deref()).await?;
    let file = std::path::absolute(running.folder())
        .unwrap_or_else(|_| running.folder().to_owned())
        .join("cluster.yaml");
    let yaml = running.document().to_yaml().map_err(std::io::Error::other);
    yaml.and_then(|yaml| private_file(&file, &yaml)).map_err(|e| {
        turingpi_provision::engine::Failure::new(
            turingpi_provision::engine::FailureClass::Config,
            format!("cannot write `{}`", file.display()),
        )
        .source(e)
    })?;
    let endpoints = running.endpoints();
    let identity = file.with_file_name("id_ed25519");
    match global.output {
        Output::Json => {
            say!("{}", serde_json::json!({ "document": file, "endpoints": endpoints, "identity": identity }));
        }
        Output::Text => {
            let name = |name: &str| paint(BOLD, format!("{name:<10}"));
            say!("{} board, until Ctrl-C. Nothing here is real.\n", paint(WARN, "SIMULATED"));
            for (board, at) in &endpoints.boards {
                let (firmware, revision) = (at.firmware.name(), at.revision.name());
                say!("{}  BMC    {}  firmware {firmware}, board v{revision}", name(board), at.url);
                say!("{}  login  {}, password {}", name(""), at.username, at.password);
                if !at.fingerprint.is_empty() {
                    say!("{}  TLS    sha256:{}", name(""), at.fingerprint);
                    say!("{}  HTTP   {}, which redirects", name(""), at.plain_url);
                }
            }
            for (node, at) in &endpoints.nodes {
                say!("{}  ssh    root@{} -p {}", name(node), at.ssh.ip(), at.ssh.port());
                say!("{}  API    https://{}, once k3s runs there", name(""), at.kube);
            }
            say!("{}  k3s    {}", name("mirror"), endpoints.mirror.k3s_releases);
            for (image, at) in &endpoints.mirror.images {
                say!("{}  image  {image}: {}", name(""), at.url);
            }
            say!(
                "\nThe key of every node is {}.\nIn another terminal:\n  {}",
                identity.display(),
                paint(BOLD, format!("turingpi apply {}", file.display()))
            );
        }
    }
    signals.next().await;
    running.stop().await;
    Ok(exit::DONE)
}

/// The document that `init --demo` writes.
fn demo() -> document::Document {
    // A test proves that this text loads.
    document::load(&init::demo())
        .map(|(document, _)| document)
        .unwrap_or_else(|_| unreachable!("the demo document is valid"))
}
