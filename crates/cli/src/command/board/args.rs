//! The words of `turingpi board`: those of `tpi` where there are any.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use turingpi_provision::{
    bmc::{Fingerprint, Slot},
    cluster::Sha256,
};

#[derive(Debug, Args)]
pub(crate) struct Board {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which board, and how to log in to it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Which {
    /// A board of the document, or an address or URL [default: the document's only board]
    #[arg(
        long,
        visible_alias = "host",
        global = true,
        env = "TPI_HOSTNAME",
        value_name = "BOARD",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Board"
    )]
    pub(crate) board: Vec<String>,
    /// The user to log in as [default: the document's, or root]
    #[arg(
        long,
        global = true,
        env = "TPI_USERNAME",
        value_name = "USER",
        hide_env_values = true,
        help_heading = "Board"
    )]
    pub(crate) user: Option<String>,
    /// A file with the password [default: TPI_PASSWORD, or asked for]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Board")]
    pub(crate) password_file: Option<PathBuf>,
    /// The document with the boards [default: cluster.yaml, if there is one]
    #[arg(long, global = true, value_name = "DOCUMENT", help_heading = "Board")]
    pub(crate) document: Option<PathBuf>,
    /// Milliseconds between two looks while something is waited for
    #[arg(long, global = true, env = "TURINGPI_POLL_MS", default_value_t = 2000, hide = true)]
    pub(crate) poll_ms: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the firmware, the board, its addresses and its storage
    #[command(
        visible_alias = "about",
        after_help = "JSON:\n  \
        {\"board\",\"url\",\"about\":{\"generation\",\"version\",\"board_revision\",…},\n   \
        \"firmware\",\"fingerprint\",\"interfaces\":[…],\"storage\":[…],\"capabilities\":[…]}\n\n\
        Examples:\n  turingpi board info\n  turingpi board info --board 10.10.88.70\n  \
        turingpi board about --output json | jq .about.version"
    )]
    Info,
    /// Switch slots on and off, power-cycle and reset them
    #[command(subcommand)]
    Power(Power),
    /// Reset slots: off, one second, on. The same as `power reset`
    #[command(after_help = "JSON: as `board power`.\n\n\
        Examples:\n  turingpi board reset -n 2           # asks first\n  \
        turingpi board reset -n 1,3 --yes")]
    Reset(SlotsYes),
    /// Show or change where the board's USB goes
    #[command(subcommand)]
    Usb(Usb),
    /// Read or type on a slot's serial console, once
    #[command(subcommand)]
    Uart(Uart),
    /// Follow a slot's serial console and type on it
    #[command(after_help = super::console::HELP)]
    Console(Box<super::console::Console>),
    /// Show boards live: power, boot, addresses, the transfer
    #[command(after_help = super::watch::HELP)]
    Watch(super::watch::Watch),
    /// Show or change what the BMC remembers of the nodes: names, modules
    #[command(
        after_help = "JSON:\n  {\"board\",\"nodes\":[{\"slot\",\"name\",\"module_name\",\"uart_baud\",\n   \
        \"on_for_seconds\",\"node\"}]}\n\n\
        Examples:\n  turingpi board node-info\n  \
        turingpi board node-info -n 1 --name node1 --module RK1"
    )]
    NodeInfo(NodeInfo),
    /// Show a slot's eMMC as a disk, or take it back to normal
    #[command(subcommand)]
    Advanced(Advanced),
    /// Show or set the fans
    #[command(subcommand)]
    Cooling(Cooling),
    /// The board's network switch
    #[command(subcommand)]
    Eth(Eth),
    /// Show the size of the BMC's own SD card
    #[command(
        after_help = "JSON: {\"board\",\"sd_card\":{\"total\",\"free\",\"used\"}} in bytes, or null.\n\n\
        Example:\n  turingpi board sdcard"
    )]
    Sdcard,
    /// Restart the BMC, wait for it, and log in anew
    #[command(after_help = "On v2.4 boards and with firmware 2.0 all nodes lose power meanwhile.\n\n\
        JSON: {\"board\",\"done\":\"reboot\",\"firmware\"}\n\n\
        Examples:\n  turingpi board reboot               # asks first\n  turingpi board reboot --yes")]
    Reboot(Restart),
    /// Restart the BMC's daemon; nodes may lose power
    #[command(after_help = "The daemon applies the stored power state when it starts. Boards were seen\n\
        whose nodes restarted with it.\n\n\
        JSON: {\"board\",\"done\":\"reload\",\"firmware\"}\n\n\
        Example:\n  turingpi board reload --yes")]
    Reload(Restart),
    /// Save the BMC's settings as an archive
    #[command(after_help = "The archive holds password hashes and the BMC's private key: the file is made\n\
        readable for you alone. There is no call to restore it.\n\n\
        JSON: {\"board\",\"file\",\"bytes\"}\n\n\
        Example:\n  turingpi board backup board1.tar.gz")]
    Backup(Backup),
    /// Show the BMC's one transfer, or cancel it
    #[command(
        after_help = "JSON:\n  {\"board\",\"transfer\":\"idle\"|{\"moving\":{…}}|{\"done\":{…}}|{\"failed\":{…}},\n   \
        \"cancelled\":true|false}\n\n\
        Examples:\n  turingpi board transfer\n  turingpi board transfer --cancel --yes"
    )]
    Transfer(Transfer),
    /// Look for boards on the local network
    #[command(
        after_help = "Asks for `turingpi.local`, and knocks at addresses only with --scan. No password\n\
        is sent to anybody. Exits 5 when no board was found.\n\n\
        JSON:\n  {\"boards\":[{\"host\",\"url\",\"by\",\"generation\",\"version\",\"fingerprint\",\"mac\"}]}\n\n\
        Examples:\n  turingpi board discover\n  turingpi board discover --scan 10.10.88.0/24"
    )]
    Discover(Discover),
    /// Log in and keep the login for the next commands
    #[command(
        after_help = "Other verbs log in by themselves; this one proves a password. A login is kept in\n\
        a file of yours alone, for this host, user and certificate, and ends three hours\n\
        after its last use.\n\n\
        JSON: {\"board\",\"user\",\"fingerprint\",\"done\":\"login\"}\n\n\
        Example:\n  turingpi board login --board 10.10.88.70"
    )]
    Login,
    /// Forget the kept login
    #[command(after_help = "JSON: {\"board\",\"done\":\"logout\",\"found\":true|false}\n\n\
        Example:\n  turingpi board logout --board 10.10.88.70")]
    Logout,
    /// Show, pin or forget the board's certificate
    #[command(
        after_help = "The first certificate seen is pinned and reported; another one is refused from\n\
        then on. Compare a new one on the board itself before you pin it.\n\n\
        JSON: {\"board\",\"pinned\",\"shown\",\"matches\",\"from_document\"}\n\n\
        Examples:\n  turingpi board trust\n  turingpi board trust --forget"
    )]
    Trust(Trust),
    /// Write an image to slots, and see them boot it
    #[command(after_help = FLASH_HELP)]
    Flash(Box<Flash>),
    /// Upgrade the BMC's firmware: stage, verify, ask, reboot, look
    #[command(
        after_help = "The file is written to the spare slot and changes nothing until the reboot, which\n\
        is asked for. Back up first: `turingpi board backup`.\n\n\
        Exits 8 when the BMC comes back with the version it had: it may have fallen back\n\
        to its old firmware. Where the file holds that version, say --reinstall.\n\n\
        JSON: events as in `board flash`; the last line has \"staged\":{\"running\",\"bytes\",\n\
        \"sha256\"} and \"activated\":{\"before\",\"after\",\"changed\",\"power\"} or null.\n\n\
        Examples:\n  turingpi board firmware tp2-ota-v2.1.0.tpu\n  \
        turingpi board firmware -f tp2-ota-v2.1.0.tpu --sha256 HEX --yes"
    )]
    Firmware(Firmware),
}

impl Verb {
    /// Whether it tells a stream of events, whose last line is the result.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Flash(_) | Self::Firmware(_) | Self::Console(_))
    }
}

const FLASH_HELP: &str = "\
Everything in the slot is lost, so its name is asked for; --yes is not enough.
Slots of one board are written one after the other and boot while the next one
is written; several boards work side by side. On boards with a USB hub (v2.5)
other modules are powered off meanwhile and come on again. Afterwards each slot
is powered on, and its serial console has to show the new system.

--local and --url let the BMC read the image itself: it checks no digest of its
own files, unpacks only what is called .xz, and must trust the web server.

Images may be raw or packed with xz, zstd, gzip or bzip2: what the board's
firmware cannot unpack is unpacked while it is sent.

After a cut, run it again: what was half written is written anew. --resume leaves
out slots that hold this image already.

JSON: one event a line; the last is {\"event\":\"result\",\"outcome\",\"exit_code\",
\"error\",\"steps\",\"millis\",\"slots\":[{\"board\",\"slot\",\"name\",\"state\",\"power\"}]},
where state is flashed, held-already, untouched or half-written.

Examples:
  turingpi board flash -n 1 armbian.img.xz
  turingpi board flash -n 1,2 armbian.img --approve node1,node2
  turingpi board flash -n 3 armbian           # from `turingpi image list`
  turingpi board flash -n 4 https://example.net/a.img.xz --sha256 HEX
  turingpi board flash -n 2 --local /mnt/sdcard/a.img.xz --leave-off";

/// Slots, as one request.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Slots {
    /// Slots 1 to 4, with commas
    #[arg(short = 'n', long = "node", visible_alias = "slot", value_name = "SLOT", value_delimiter = ',')]
    pub(crate) node: Vec<Slot>,
    /// All four slots
    #[arg(long)]
    pub(crate) all: bool,
}

impl Slots {
    pub(crate) fn list(&self) -> Vec<Slot> {
        let mut slots = if self.all { Slot::ALL.to_vec() } else { self.node.clone() };
        slots.sort();
        slots.dedup();
        slots
    }
}

#[derive(Debug, Args)]
pub(crate) struct SlotsYes {
    #[command(flatten)]
    pub(crate) slots: Slots,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Yes {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// One slot.
#[derive(Debug, Args)]
pub(crate) struct OneSlot {
    /// The slot, 1 to 4
    #[arg(short = 'n', long = "node", visible_alias = "slot", value_name = "SLOT")]
    pub(crate) node: Slot,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Power {
    /// Show each slot's power as last asked for, which is no measurement
    #[command(after_help = "JSON: {\"board\",\"slots\":[{\"slot\",\"node\",\"power\":\"on\"|\"off\"}]}\n\n\
        Example:\n  turingpi board power status")]
    Status,
    /// Switch slots on
    #[command(after_help = "JSON: as `power status`, after the change.\n\n\
        Examples:\n  turingpi board power on -n 1,3\n  turingpi board power on --all")]
    On(Slots),
    /// Cut the power of slots. Shut their systems down first
    #[command(after_help = "JSON: as `power status`, after the change.\n\n\
        Examples:\n  turingpi board power off -n 3       # asks first\n  \
        turingpi board power off --all --yes")]
    Off(SlotsYes),
    /// Switch slots off, wait, and on again
    #[command(after_help = "JSON: as `power status`, after the change.\n\n\
        Example:\n  turingpi board power cycle -n 2 --off-seconds 5")]
    Cycle(Cycle),
    /// Reset slots: off, one second, on; the stored state stays as it is
    #[command(after_help = "JSON: as `power status`, after the change.\n\n\
        Example:\n  turingpi board power reset -n 2 --yes")]
    Reset(SlotsYes),
}

#[derive(Debug, Args)]
pub(crate) struct Cycle {
    #[command(flatten)]
    pub(crate) slots: SlotsYes,
    /// How long they stay off
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) off_seconds: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Usb {
    /// Show where USB goes
    #[command(
        after_help = "JSON:\n  {\"board\",\"usb\":{\"slot\",\"mode\",\"route\",\"bus\"},\"node1_alternative\"}\n\n\
        Example:\n  turingpi board usb status"
    )]
    Status,
    /// The node is the host; v2.4 boards only
    #[command(after_help = "JSON: as `usb status`, after the change.\n\n\
        Example:\n  turingpi board usb host -n 1")]
    Host(UsbSlot),
    /// The node is a device
    #[command(after_help = "JSON: as `usb status`, after the change.\n\n\
        Example:\n  turingpi board usb device -n 2 --bmc")]
    Device(UsbSlot),
    /// The node is a device and waits for an image at its next power-on
    #[command(
        after_help = "For modules that the BMC cannot flash (Jetson): set this, power-cycle the slot,\n\
        and flash with the vendor's tool over the USB port.\n\n\
        JSON: as `usb status`, after the change.\n\n\
        Example:\n  turingpi board usb flash -n 4 --yes"
    )]
    Flash(UsbFlash),
}

#[derive(Debug, Args)]
pub(crate) struct UsbSlot {
    #[command(flatten)]
    pub(crate) slot: OneSlot,
    /// Route it to the BMC instead of the board's port
    #[arg(short, long)]
    pub(crate) bmc: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UsbFlash {
    #[command(flatten)]
    pub(crate) slot: UsbSlot,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Uart {
    /// Print what the BMC keeps of a console: the last 16 KiB
    #[command(after_help = "Firmware up to 2.0.5 empties its buffer when it is read.\n\n\
        JSON: {\"board\",\"slot\",\"text\"}\n\n\
        Example:\n  turingpi board uart get -n 2 | tail -20")]
    Get(UartGet),
    /// Type a line on a console; the BMC adds the line end
    #[command(after_help = "Put secrets on standard input: `-c -`.\n\n\
        JSON: {\"board\",\"slot\",\"done\":\"uart-set\"}\n\n\
        Examples:\n  turingpi board uart set -n 2 -c 'uname -a'\n  \
        turingpi board uart set -n 2 -c -")]
    Set(UartSet),
}

#[derive(Debug, Args)]
pub(crate) struct UartGet {
    #[command(flatten)]
    pub(crate) slot: OneSlot,
    /// How the bytes are read
    #[arg(long, value_enum, default_value_t = Encoding::Utf8, value_name = "ENCODING")]
    pub(crate) encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Utf8,
    Utf16,
    Utf16le,
    Utf16be,
    Utf32,
    Utf32le,
    Utf32be,
}

#[derive(Debug, Args)]
pub(crate) struct UartSet {
    #[command(flatten)]
    pub(crate) slot: OneSlot,
    /// The line; `-` reads it from standard input
    #[arg(
        short = 'c',
        long = "cmd",
        visible_alias = "command",
        value_name = "LINE",
        allow_hyphen_values = true
    )]
    pub(crate) cmd: String,
}

#[derive(Debug, Args)]
pub(crate) struct NodeInfo {
    /// The slot to change, 1 to 4
    #[arg(short = 'n', long = "node", visible_alias = "slot", value_name = "SLOT")]
    pub(crate) node: Option<Slot>,
    /// Its name
    #[arg(long, requires = "node", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Its module, in free words
    #[arg(long, requires = "node", value_name = "MODULE")]
    pub(crate) module: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Advanced {
    /// Power-cycle a slot into mass-storage mode: its eMMC becomes a disk
    #[command(
        after_help = "The disk shows on the BMC, and on the board's USB port. `advanced normal` ends it.\n\n\
        JSON: {\"board\",\"slot\",\"done\":\"msd\"}\n\n\
        Example:\n  turingpi board advanced msd -n 2"
    )]
    Msd(AdvancedSlot),
    /// Power-cycle a slot back to its normal system
    #[command(after_help = "JSON: {\"board\",\"slot\",\"done\":\"normal\"}\n\n\
        Example:\n  turingpi board advanced normal -n 2")]
    Normal(AdvancedSlot),
}

#[derive(Debug, Args)]
pub(crate) struct AdvancedSlot {
    #[command(flatten)]
    pub(crate) slot: OneSlot,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cooling {
    /// Show fans, and temperatures where the firmware tells them
    #[command(after_help = "JSON:\n  {\"board\",\"devices\":[{\"device\",\"speed\",\"max_speed\"}],\n   \
        \"temperatures\":[{\"sensor\",\"celsius\"}]}\n\n\
        Example:\n  turingpi board cooling status")]
    Status,
    /// Set a fan's speed; it is kept
    #[command(after_help = "JSON: as `cooling status`, after the change.\n\n\
        Example:\n  turingpi board cooling set 'system fan' 3")]
    Set(CoolingSet),
}

#[derive(Debug, Args)]
pub(crate) struct CoolingSet {
    /// The fan's name
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    /// Its step, from 0 on
    #[arg(value_name = "SPEED")]
    pub(crate) speed: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Eth {
    /// Reset the switch: every node and the BMC lose their network for seconds
    #[command(after_help = "The BMC's address may change (DHCP).\n\n\
        JSON: {\"board\",\"done\":\"eth-reset\"}\n\n\
        Example:\n  turingpi board eth reset --yes")]
    Reset(Yes),
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where to [default: BOARD-backup.tar.gz here]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write over an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Cancel it, whoever started it
    #[arg(long)]
    pub(crate) cancel: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

#[derive(Debug, Args)]
pub(crate) struct Discover {
    /// Knock at every address of this network, at most 1024
    #[arg(long, value_name = "NETWORK")]
    pub(crate) scan: Option<String>,
    /// The port to knock at, where it is not the usual one
    #[arg(long, requires = "scan", value_name = "PORT")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Forget the pinned certificate: the next one seen is pinned
    #[arg(long, conflicts_with = "pin")]
    pub(crate) forget: bool,
    /// Pin this fingerprint: SHA-256, 64 digits
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) pin: Option<Fingerprint>,
}

#[derive(Debug, Args)]
pub(crate) struct Flash {
    /// The image: a path, an http(s) URL, or a name of `turingpi image list`
    #[arg(value_name = "IMAGE", required_unless_present_any = ["local", "url", "image"])]
    pub(crate) source: Option<String>,
    /// The image, as `tpi` takes it
    #[arg(short = 'i', long = "image-path", value_name = "IMAGE", hide = true,
        conflicts_with_all = ["source", "local", "url"])]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) slots: Slots,
    /// A file on the BMC instead: `/mnt/sdcard/a.img.xz`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["source", "url", "sha256"])]
    pub(crate) local: Option<String>,
    /// A URL that the BMC downloads itself
    #[arg(long, value_name = "URL", conflicts_with = "source")]
    pub(crate) url: Option<String>,
    /// SHA-256 of the file as it comes
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<Sha256>,
    /// Accept the loss of data: slots' names, or the digest of the plan
    #[arg(long, value_name = "NAME|DIGEST", value_delimiter = ',')]
    pub(crate) approve: Vec<String>,
    /// Accept what only interrupts: neighbours that are off meanwhile
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Leave the slots off afterwards
    #[arg(long)]
    pub(crate) leave_off: bool,
    /// Power on, and do not wait for signs of a boot
    #[arg(long, conflicts_with = "leave_off")]
    pub(crate) no_boot_check: bool,
    /// How long a slot may take to show a boot
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) boot_seconds: u64,
    /// Slots with a system that boots, which stay on meanwhile (v2.5 boards)
    #[arg(long, value_name = "SLOT", value_delimiter = ',')]
    pub(crate) keep_on: Vec<Slot>,
    /// The size of the modules' eMMC, to refuse what does not fit: `32G`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) emmc: Option<u64>,
    /// Leave out slots that hold this image already
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Firmware {
    /// The firmware file (`.tpu`): a path or an http(s) URL
    #[arg(value_name = "FIRMWARE", required_unless_present = "file")]
    pub(crate) source: Option<String>,
    /// The same, as `tpi` takes it
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "source")]
    pub(crate) file: Option<String>,
    /// SHA-256 of the file; a URL needs it
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<Sha256>,
    /// Stage only; a later reboot of the BMC activates it
    #[arg(long)]
    pub(crate) stage_only: bool,
    /// The file holds the version that runs: coming back with it is no failure
    #[arg(long, conflicts_with = "stage_only")]
    pub(crate) reinstall: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

/// Reads `32G`, `29.1GiB`, `31268536320`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write `32G`, `29GiB` or a number of bytes");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "mib" => f64::from(1_u32 << 20),
        "gib" => f64::from(1_u32 << 30),
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if !(1.0..1e15).contains(&bytes) {
        return Err(wrong());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1e15")]
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!(size("32G"), Ok(32_000_000_000));
        assert_eq!(size("29.5GiB"), Ok(31_675_383_808));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "G", "-1", "0", "3X", "1e9"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
