//! `turingpi init`: asks, or takes flags, and writes a commented document that is valid as it stands.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    net::Ipv4Addr,
    path::PathBuf,
};

use turingpi_provision::{
    document,
    engine::{Failure, FailureClass},
};

use crate::render::out::{self, say};
use crate::{
    args::{Global, Init, Output},
    exit::{self, Exit},
    render::style::{BOLD, GOOD, paint},
    session,
};

/// The release a new document names.
const VERSION: &str = "v1.35.5+k3s1";

/// All answers.
struct Answers {
    name: String,
    place: Place,
    servers: usize,
    identity: PathBuf,
}

enum Place {
    Board { bmc: String, nodes: Vec<Ipv4Addr>, image: String, sha256: Option<String> },
    Hosts { addresses: Vec<Ipv4Addr>, user: String },
}

pub(crate) fn run(global: &Global, args: &Init) -> Result<u8, Exit> {
    let to_stdout = args.document.as_os_str() == "-";
    if !to_stdout && args.document.exists() && !args.force {
        return Err(Failure::new(
            FailureClass::Refused,
            format!("`{}` exists already and is left as it is", args.document.display()),
        )
        .hint("Name another file, or pass `--force` to write over it.")
        .into());
    }
    let answers = answers(args)?;
    let text = write(&answers);
    // What is written must load: a document from here that `validate` refuses would be our mistake, not the user's.
    document::load(&text).map_err(|mistakes| {
        let first = mistakes.0.first().map(ToString::to_string).unwrap_or_default();
        Failure::new(FailureClass::Usage, "these answers do not make a cluster").hint(first)
    })?;
    if to_stdout {
        out::data(&text);
        return Ok(exit::DONE);
    }
    save(args, &text)?;
    if global.output == Output::Json {
        say!("{}", serde_json::json!({ "document": args.document }));
        return Ok(exit::DONE);
    }
    let name = args.document.display();
    say!("{} {name}\nNext:", paint(GOOD, "wrote"));
    for (command, purpose) in [
        ("apply --simulate", "try it, nothing real is touched"),
        ("doctor", "what would get in the way"),
        ("plan", "what would be done"),
    ] {
        // The default name need not be typed.
        let of = if name.to_string() == "cluster.yaml" { String::new() } else { format!(" {name}") };
        say!("  {}  {purpose}", paint(BOLD, format!("{:<34}", format!("turingpi {command}{of}"))));
    }
    Ok(exit::DONE)
}

fn save(args: &Init, text: &str) -> Result<(), Exit> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true);
    if args.force {
        options.truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(&args.document).and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| {
        Failure::new(FailureClass::Config, format!("cannot write `{}`", args.document.display()))
            .source(e)
            .into()
    })
}

fn answers(args: &Init) -> Result<Answers, Exit> {
    let ask = !args.demo && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let question =
        |given: &Option<String>, question: &str, default: &str, check: Check| -> Result<String, Exit> {
            match given {
                Some(answer) => Ok(answer.clone()),
                None if ask => dialoguer::Input::<String>::new()
                    .with_prompt(question)
                    .default(default.to_owned())
                    .validate_with(|text: &String| check(text))
                    .interact_text()
                    .map_err(|_| Exit::silent(exit::STOPPED)),
                None => Ok(default.to_owned()),
            }
        };
    let name = question(&args.name, "Name of the cluster", "homelab", |_| Ok(()))?;
    let board_given = args.bmc.is_some() || args.nodes.is_some() || args.image.is_some();
    let on_board = if args.hosts.is_some() {
        false
    } else if ask && !board_given {
        dialoguer::Confirm::new()
            .with_prompt("Are the nodes modules of a Turing Pi board?")
            .default(true)
            .interact()
            .map_err(|_| Exit::silent(exit::STOPPED))?
    } else {
        true
    };
    let place = if on_board {
        let bmc = question(&args.bmc, "Address of the board's BMC", "10.10.88.70", |_| Ok(()))?;
        let nodes = question(&args.nodes, "Nodes' addresses, slot 1 first", "10.10.88.73-76", |text| {
            addresses(text).map_err(in_a_line).and_then(|all| match all.len() {
                0..=4 => Ok(()),
                many => Err(format!("a board has four slots, these are {many} addresses")),
            })
        })?;
        let image = question(&args.image, "System image, path or URL", "./armbian-rk1.img.xz", |_| Ok(()))?;
        let mut sha256 = args.sha256.clone();
        if sha256.is_none() && image.contains("://") && ask {
            let digest = question(&None, "Its SHA-256, or - to look beside it", "-", |text| {
                let whole = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
                if whole || text == "-" {
                    Ok(())
                } else {
                    Err("a SHA-256 has 64 hexadecimal digits".to_owned())
                }
            })?;
            sha256 = (digest != "-").then_some(digest);
        }
        Place::Board { bmc, nodes: addresses(&nodes)?, image, sha256 }
    } else {
        let hosts =
            question(&args.hosts, "Hosts' addresses, with commas", "192.168.1.21,192.168.1.22", |text| {
                addresses(text).map_err(in_a_line).map(drop)
            })?;
        let user = question(&args.user, "Login user (root, or one with sudo)", "root", |_| Ok(()))?;
        Place::Hosts { addresses: addresses(&hosts)?, user }
    };
    let count = match &place {
        Place::Board { nodes, .. } => nodes.len(),
        Place::Hosts { addresses, .. } => addresses.len(),
    };
    let servers = match args.servers {
        Some(servers) => servers,
        None if count >= 3 && ask => {
            let servers = question(&None, "How many servers (3 survive the loss of one)", "1", |text| {
                match text.parse::<usize>() {
                    Ok(1 | 3 | 5) => Ok(()),
                    _ => Err("1, 3 or 5".to_owned()),
                }
            })?;
            servers.parse().unwrap_or(1)
        }
        None => 1,
    };
    if servers == 0 || servers > count || servers % 2 == 0 {
        return Err(Failure::new(
            FailureClass::Usage,
            format!("{servers} of {count} nodes cannot be servers"),
        )
        .hint("1, 3 or 5, and no more than there are nodes.")
        .into());
    }
    if let Place::Board { nodes, .. } = &place
        && nodes.len() > 4
    {
        return Err(Failure::new(
            FailureClass::Usage,
            format!("a board has four slots, these are {} nodes", nodes.len()),
        )
        .hint("Start with one board; more are added under `boards` by hand.")
        .into());
    }
    let identity = args.identity.clone().unwrap_or_else(default_identity);
    Ok(Answers { name, place, servers, identity })
}

/// Says what is wrong with an answer.
type Check = fn(&str) -> Result<(), String>;

/// A failure as short as a prompt shows it.
fn in_a_line(exit: Exit) -> String {
    exit.report.map(|r| r.message).unwrap_or_default()
}

/// The key that is there, or the one people usually make.
fn default_identity() -> PathBuf {
    let home = session::home().unwrap_or_default();
    ["id_ed25519", "id_ecdsa", "id_rsa"]
        .into_iter()
        .find(|name| home.join(".ssh").join(name).is_file())
        .map_or_else(|| PathBuf::from("~/.ssh/id_ed25519"), |name| PathBuf::from("~/.ssh").join(name))
}

/// `10.0.0.3-6`, `10.0.0.3,10.0.0.9`.
fn addresses(text: &str) -> Result<Vec<Ipv4Addr>, Exit> {
    let wrong = |part: &str| {
        Exit::from(
            Failure::new(FailureClass::Usage, format!("`{part}` is not an address or a range"))
                .hint("For example `10.10.88.73-76` or `10.10.88.73,10.10.88.80`."),
        )
    };
    let mut all = Vec::new();
    for part in text.split([',', ' ']).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, ""));
        let first: Ipv4Addr = first.parse().map_err(|_| wrong(part))?;
        let [a, b, c, d] = first.octets();
        let last: u8 = if last.is_empty() { d } else { last.parse().map_err(|_| wrong(part))? };
        if last < d {
            return Err(wrong(part));
        }
        all.extend((d..=last).map(|d| Ipv4Addr::new(a, b, c, d)));
    }
    if all.is_empty() { Err(wrong(text)) } else { Ok(all) }
}

/// The document that stands for a board nobody has described: four slots, one server.
#[cfg(feature = "simulate")]
pub(crate) fn demo() -> String {
    let nodes = (73..=76).map(|d| Ipv4Addr::new(10, 10, 88, d)).collect();
    let place =
        Place::Board { bmc: "10.10.88.70".into(), nodes, image: "./armbian.img.xz".into(), sha256: None };
    write(&Answers { name: "homelab".into(), place, servers: 1, identity: "~/.ssh/id_ed25519".into() })
}

fn write(answers: &Answers) -> String {
    let mut out = String::new();
    let name = &answers.name;
    let _ = writeln!(
        out,
        "# Cluster `{name}`. `turingpi schema` prints the JSON Schema of this file; with it editors complete every key.\n\
         name: {}\ndistribution: k3s\nversion: {VERSION}          # or `channel: stable` to follow releases\n",
        quoted(name)
    );
    if let Place::Board { bmc, .. } = &answers.place {
        let _ = writeln!(
            out,
            "boards:\n  board1:\n    bmc: {}\n    credentials:\n      username: root\n      \
             password: {{ env: TPI_PASSWORD }}   # or {{ file: PATH }}, or prompt; never the password itself\n    \
             # fingerprint: …   # SHA-256 of the BMC's certificate; without it the first one seen is pinned\n",
            quoted(bmc)
        );
    }
    let user = match &answers.place {
        Place::Hosts { user, .. } => user.as_str(),
        Place::Board { .. } => "root",
    };
    let _ = writeln!(
        out,
        "ssh:\n  user: {}\n  identity: {}\n  # host-keys: accept-new   # or strict, or {{ pinned: [\"SHA256:…\"] }}",
        quoted(user),
        quoted(&answers.identity.display().to_string())
    );
    if user != "root" {
        out.push_str("  # sudo-password: prompt    # when sudo asks for one\n");
    }
    out.push_str(
        "\nnetwork:              # must not overlap with your LAN\n  pods: 10.244.0.0/16\n  services: 10.96.0.0/12\n  \
         # api-endpoint: …    # a name or virtual address for the API, instead of the first server's address\n\n",
    );
    if let Place::Board { image, sha256, .. } = &answers.place {
        let _ = writeln!(out, "images:\n  armbian:\n    source: {}", quoted(image));
        match sha256 {
            Some(sha256) => {
                let _ = writeln!(out, "    sha256: {}\n", quoted(sha256));
            }
            None => out.push_str(
                "    # sha256: …   # of the file as it is; required for URLs, checked when given\n\n",
            ),
        }
    }
    out.push_str("nodes:                # reserve the addresses at your DHCP server\n");
    let nodes = match &answers.place {
        Place::Board { nodes, .. } => nodes,
        Place::Hosts { addresses, .. } => addresses,
    };
    for (i, address) in nodes.iter().enumerate() {
        let role = if i < answers.servers { "control-plane" } else { "worker" };
        let slot = match &answers.place {
            Place::Board { .. } => format!(", slot: board1/{}, image: armbian", i + 1),
            Place::Hosts { .. } => String::new(),
        };
        let _ = writeln!(out, "  - {{ name: node{}, role: {role}, address: {address}{slot} }}", i + 1);
    }
    out
}

/// A YAML scalar that means the same text again.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./~".contains(c))
        && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || "./~".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "~"].contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(place: Place, servers: usize) -> String {
        write(&Answers { name: "lab".into(), place, servers, identity: "~/.ssh/id_ed25519".into() })
    }

    #[test]
    fn what_is_written_is_a_valid_document() {
        let board = |bmc: &str, image: &str| Place::Board {
            bmc: bmc.into(),
            nodes: addresses("10.0.0.3-6").ok().unwrap(),
            image: image.into(),
            sha256: image.contains("://").then(|| "a".repeat(64)),
        };
        for text in [
            written(board("10.0.0.2", "./a b.img.xz"), 1),
            written(board("https://bmc:8443", "https://x.test/i.img.xz"), 3),
            written(
                Place::Hosts {
                    addresses: addresses("10.0.0.3,10.0.0.9").ok().unwrap(),
                    user: "admin".into(),
                },
                1,
            ),
        ] {
            document::load(&text).unwrap_or_else(|e| panic!("{:?}\n{text}", e.0));
        }
    }

    #[test]
    #[cfg(feature = "simulate")]
    fn the_demo_document_is_valid() {
        assert_eq!(document::load(&demo()).unwrap().1, []);
    }

    #[test]
    fn address_ranges_are_read_and_nonsense_is_refused() {
        assert_eq!(addresses("10.0.0.3-5").ok().unwrap().len(), 3);
        for wrong in ["", "10.0.0.5-3", "10.0.0", "10.0.0.1-300", "host"] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }
}
