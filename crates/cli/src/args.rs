//! The command line's words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes Turing Pi boards from bare metal to a healthy Kubernetes cluster, and keeps it healthy.
#[derive(Debug, Parser)]
#[command(
    name = "turingpi",
    version,
    about,
    max_term_width = 80,
    after_help = "Try it without a board:\n  turingpi init --demo\n  turingpi apply --simulate\n\n\
        Exit codes:\n  \
        0 done                  7 locked by another run\n  \
        2 changes found (plan)  8 refused for safety\n  \
        3 approval missing      9 timed out\n  \
        4 document wrong       10 bootstrapping (status)\n  \
        5 unreachable          11 degraded (status)\n  \
        6 login or key refused 12 problems found (doctor)\n  \
        64 wrong usage, 130 stopped, 1 anything else"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How results are written: text, or json for programs
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT",
        hide_possible_values = true)]
    pub(crate) output: Output,

    /// Folder for state, pinned keys and run logs [default: .turingpi/NAME beside the document]
    #[arg(long, global = true, env = "TURINGPI_STATE_DIR", value_name = "DIR", hide_env_values = true)]
    pub(crate) state_dir: Option<PathBuf>,

    /// Folder for downloads, shared by all clusters [default: in your cache folder]
    #[arg(long, global = true, env = "TURINGPI_CACHE_DIR", value_name = "DIR", hide_env_values = true)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Say more: whole plans, and logs on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented document to start from
    #[command(after_help = "Examples:\n  turingpi init                       # asks\n  \
        turingpi init --bmc 10.10.88.70 --nodes 10.10.88.73-76 --image ./a.img.xz\n  \
        turingpi init lab.yaml --hosts 192.168.1.21,192.168.1.22 --name lab")]
    Init(Init),
    /// Check a document and say everything that is wrong with it
    #[command(
        after_help = "Examples:\n  turingpi validate cluster.yaml\n  turingpi validate --output json lab.yaml | jq ."
    )]
    Validate(Document),
    /// Show what `apply` would change, old to new, with its risk
    #[command(after_help = "Exits 0 when nothing would change and 2 when something would.\n\n\
        Examples:\n  turingpi plan\n  turingpi plan -v                    # every node, every value\n  \
        turingpi plan --simulate            # for an empty board made from the document\n  \
        turingpi plan --output json > plan.json")]
    Plan(Plan),
    /// Make the cluster be what the document says
    #[command(after_help = "Examples:\n  \
        turingpi apply --simulate examples/k3s-cluster/cluster.yaml\n  \
        turingpi apply                      # asks before anything is lost\n  \
        turingpi apply --yes                # fine for all that loses no data\n  \
        turingpi apply --yes --approve node1,node2   # may flash these two\n  \
        turingpi apply --approve 3f1c09a2b4d5e6f7    # exactly this plan\n  \
        turingpi apply --output json | jq -c 'select(.event == \"result\")'")]
    Apply(Apply),
    /// Show whether the cluster is healthy, and why not
    #[command(after_help = "Exits 0 when ready, 10 when bootstrapping and 11 when degraded.\n\n\
        Examples:\n  turingpi status\n  turingpi status --watch\n  turingpi status --output json | jq .state")]
    Status(Status),
    /// Take the cluster down: drain, uninstall, verify that nothing is left
    #[command(
        after_help = "Examples:\n  turingpi destroy                    # asks for the cluster's name\n  \
        turingpi destroy --confirm homelab --power-off\n  \
        turingpi destroy --keep-data        # `apply` brings it back"
    )]
    Destroy(Destroy),
    /// Print the kubeconfig, or merge it into a file
    #[command(
        after_help = "Examples:\n  turingpi kubeconfig > homelab.yaml\n  turingpi kubeconfig --merge\n  \
        turingpi kubeconfig --merge --into ./config --use"
    )]
    Kubeconfig(Kubeconfig),
    /// Serve a simulated board until stopped
    #[command(
        after_help = "Examples:\n  turingpi simulate                   # one board, four empty slots\n  \
        turingpi simulate cluster.yaml --write sim\n  \
        turingpi apply sim/cluster.yaml     # in another terminal\n  \
        turingpi simulate --firmware 2.0.5 --revision 2.4 --sd-card armbian.img"
    )]
    Simulate(Simulate),
    /// Look for everything that would get in the way, and say what to do about it
    #[command(after_help = "Examples:\n  turingpi doctor\n  turingpi doctor --output json cluster.yaml")]
    Doctor(Doctor),
    /// One board by hand: power, USB, console, flash, firmware; as `tpi`, and more
    #[command(
        after_help = "Which board: --board with a name of the document or an address; without it the\n\
        only board of cluster.yaml. The password comes from TPI_PASSWORD, a file or a\n\
        question, never from the command line. What cuts something asks, or needs --yes.\n\n\
        Examples:\n  turingpi board info --board 10.10.88.70\n  turingpi board power on -n 1,3\n  \
        turingpi board flash -n 2 armbian.img.xz\n  turingpi board discover"
    )]
    Board(crate::command::board::Board),
    /// Operating system images: list, download, check, look inside, make room
    #[command(after_help = crate::command::image::EXAMPLES)]
    Image(crate::command::image::Image),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  \
        turingpi completions bash > ~/.local/share/bash-completion/completions/turingpi\n  \
        turingpi completions fish > ~/.config/fish/completions/turingpi.fish")]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of the document, for editors
    #[command(after_help = "Example:\n  turingpi schema > turingpi.schema.json\n\n\
        First line of cluster.yaml, for editors:\n  \
        # yaml-language-server: $schema=turingpi.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Document {
    /// The document
    #[arg(value_name = "DOCUMENT", default_value = "cluster.yaml")]
    pub(crate) document: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Simulated {
    /// Run against a simulated board made from the document; nothing real is touched
    #[arg(long)]
    pub(crate) simulate: bool,

    /// How fast simulated time passes: 1 is about as slow as a real board
    #[arg(long, requires = "simulate", value_name = "FACTOR", default_value_t = 0.08)]
    pub(crate) pace: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) document: Document,
    #[command(flatten)]
    pub(crate) simulated: Simulated,
    /// Flash these nodes again, whatever they hold
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(crate) reflash: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) document: Document,
    #[command(flatten)]
    pub(crate) simulated: Simulated,
    /// Accept everything that only interrupts: restarts, reboots. What loses data still needs --approve
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Accept what loses data: on these nodes, or exactly the plan with this digest
    #[arg(long, value_name = "NODE|DIGEST", value_delimiter = ',')]
    pub(crate) approve: Vec<String>,
    /// Flash these nodes again, whatever they hold
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(crate) reflash: Vec<String>,
    /// Write a page with the timeline of the run
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Merge the kubeconfig into `~/.kube/config` at the end
    #[arg(long)]
    pub(crate) merge_kubeconfig: bool,
    /// Keep the simulated board running at the end, until Ctrl-C
    #[arg(long, requires = "simulate")]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) document: Document,
    /// Look again and again until stopped
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "watch")]
    pub(crate) interval: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Destroy {
    #[command(flatten)]
    pub(crate) document: Document,
    /// The cluster's name, instead of being asked for it
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    /// Keep the datastore, volumes and token on the nodes, so that `apply` brings the same cluster back
    #[arg(long, conflicts_with = "wipe_data")]
    pub(crate) keep_data: bool,
    /// Remove all data of the cluster from the nodes; the default
    #[arg(long)]
    pub(crate) wipe_data: bool,
    /// Switch the nodes off at the end, those that sit on a board
    #[arg(long)]
    pub(crate) power_off: bool,
    /// Do not move workloads away first
    #[arg(long)]
    pub(crate) no_drain: bool,
    /// Go on without nodes that cannot be reached
    #[arg(long)]
    pub(crate) skip_unreachable: bool,
    /// Write a page with the timeline of the run
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Kubeconfig {
    #[command(flatten)]
    pub(crate) document: Document,
    /// Merge into a kubeconfig file instead of printing; the old file is kept as a backup
    #[arg(long)]
    pub(crate) merge: bool,
    /// The file to merge into [default: `~/.kube/config`]
    #[arg(long, value_name = "FILE", requires = "merge")]
    pub(crate) into: Option<PathBuf>,
    /// Make it the current context
    #[arg(long = "use", requires = "merge")]
    pub(crate) make_current: bool,
    /// Fetch it anew from the first server instead of using the stored one
    #[arg(long)]
    pub(crate) refresh: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The document to build the board from; without it, one board with four empty slots
    #[arg(value_name = "DOCUMENT")]
    pub(crate) document: Option<PathBuf>,
    /// Write a document, a key and the credentials for `turingpi apply` into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
    /// How fast simulated time passes: 1 is about as slow as a real board
    #[arg(long, value_name = "FACTOR", default_value_t = 0.08)]
    pub(crate) pace: f64,
    #[cfg(feature = "simulate")]
    #[command(flatten)]
    pub(crate) hardware: crate::simulate::Hardware,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) document: Document,
    #[command(flatten)]
    pub(crate) simulated: Simulated,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The BMC's address
    #[arg(long, value_name = "HOST", conflicts_with = "hosts")]
    pub(crate) bmc: Option<String>,
    /// The nodes' addresses, slot by slot: `10.10.88.73-76` or a list with commas
    #[arg(long, value_name = "ADDRESSES", conflicts_with = "hosts")]
    pub(crate) nodes: Option<String>,
    /// Hosts that already run, without a board: a list with commas
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) hosts: Option<String>,
    /// How many of the nodes are servers: 1, 3 or 5
    #[arg(long, value_name = "COUNT")]
    pub(crate) servers: Option<usize>,
    /// The operating system image, a path or URL
    #[arg(long, value_name = "IMAGE", conflicts_with = "hosts")]
    pub(crate) image: Option<String>,
    /// SHA-256 of the image
    #[arg(long, value_name = "HEX", requires = "image")]
    pub(crate) sha256: Option<String>,
    /// The private key to log in with
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// The login user of running hosts
    #[arg(long, value_name = "USER", requires = "hosts")]
    pub(crate) user: Option<String>,
    /// Take an answer for everything that is not given, and ask nothing
    #[arg(long)]
    pub(crate) demo: bool,
    /// Write over an existing file
    #[arg(long)]
    pub(crate) force: bool,
    /// Where to write; `-` is standard output
    #[arg(value_name = "DOCUMENT", default_value = "cluster.yaml")]
    pub(crate) document: PathBuf,
}
