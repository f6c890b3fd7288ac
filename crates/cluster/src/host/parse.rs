//! Reads the answer of the facts script. Tolerant: what a host does not have is absent, not an error.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Arch, Cgroup, DiskSpace, FileFact, Firewall, HostFacts, HostTime, InterfaceAddress, Mount, Os, OsFamily,
    Route, Swap, UnitState, files::assignment,
};

/// Why an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// The last section is missing.
    #[error("the answer was cut off after {sections} sections")]
    Cut {
        /// How many there were.
        sections: usize,
    },
}

/// The sections of an answer, in order: title and exact content.
fn sections<'a>(marker: &str, text: &'a str) -> Vec<(&'a str, &'a str)> {
    let header = format!("\n{marker} ");
    // Anything before the first header is noise from the login shell.
    text.split(header.as_str()).skip(1).map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

impl HostFacts {
    /// Reads the answer of the facts script framed with `marker`.
    ///
    /// # Errors
    /// [`FactsError::Cut`] when the end is missing.
    pub fn parse(marker: &str, text: &str) -> Result<Self, FactsError> {
        let all = sections(marker, text);
        if all.last().map(|(title, _)| *title) != Some("end") {
            return Err(FactsError::Cut { sections: all.len() });
        }
        let mut facts = Self::default();
        let mut plain: BTreeMap<&str, &str> = BTreeMap::new();
        for (title, content) in all {
            match title.split_once(':') {
                Some((kind, name)) => facts.take(kind, name, content),
                None => {
                    plain.insert(title, content);
                }
            }
        }
        facts.fill(|title| plain.get(title).copied().unwrap_or(""));
        Ok(facts)
    }

    fn take(&mut self, kind: &str, name: &str, content: &str) {
        let key = name.to_owned();
        match kind {
            "file" => {
                if let Some(file) = file(content) {
                    self.files.insert(key, file);
                }
            }
            "text" => {
                self.texts.insert(key, content.to_owned());
            }
            "path" => {
                self.paths.insert(key);
            }
            "unit" => {
                self.units.insert(key, UnitState::parse(content));
            }
            "module" => {
                self.modules.insert(key);
            }
            "sysctl" => {
                self.sysctl.insert(key, content.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            "extra" => self.put_extra(name, content),
            _ => {}
        }
    }

    fn fill<'a>(&mut self, section: impl Fn(&str) -> &'a str) {
        let word = |title: &str| section(title).trim().to_owned();
        self.os = os(section("os"), section("armbian"));
        self.arch = Arch::from_machine(section("arch").trim());
        self.kernel = word("kernel");
        self.boot_id = word("boot-id");
        self.hostname = word("hostname");
        self.static_hostname = word("static-hostname");
        self.machine_id = word("machine-id");
        let mut user = section("user").lines();
        self.uid = user.next().and_then(|u| u.trim().parse().ok()).unwrap_or(u32::MAX);
        self.sudo_user = user.next().map(str::trim).filter(|u| !u.is_empty()).map(str::to_owned);
        self.addresses = section("addresses").lines().filter_map(address).collect();
        self.default_route = section("route").lines().find_map(route);
        self.macs = pairs(section("macs"));
        self.memory_bytes = number(section("memory").split_whitespace().nth(1)).saturating_mul(1024);
        self.cores = section("cores").trim().parse().unwrap_or(0);
        self.swaps = section("swaps").lines().skip(1).filter_map(swap).collect();
        self.cgroup = cgroup(
            section("cgroup").trim(),
            section("cgroup-controllers"),
            section("cgroup-subtree"),
            section("cgroup-v1"),
        );
        self.time = time(section("time"), section("timedate"), section("localtime").trim());
        self.mounts = section("mounts").lines().filter_map(mount).collect();
        self.space = section("space").lines().filter_map(space).collect();
        self.packages = section("packages").lines().filter_map(package).collect();
        self.firewall =
            Firewall { ufw: rules(section("ufw"), false), firewalld: rules(section("firewalld"), true) };
        self.iptables = Some(word("iptables")).filter(|v| !v.is_empty());
        self.first_boot_pending = words(section("first-boot"));
        self.wants_reboot = words(section("reboot"));
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.trim().split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|w| w.parse().ok()).unwrap_or(0)
}

fn os(release: &str, armbian: &str) -> Os {
    let get = |key| assignment(release, key).unwrap_or("").to_owned();
    let id = get("ID");
    let like = get("ID_LIKE");
    let debian = |name: &str| matches!(name, "debian" | "ubuntu" | "armbian" | "raspbian");
    let family =
        if debian(&id) || like.split_whitespace().any(debian) { OsFamily::Debian } else { OsFamily::Other };
    let armbian_board = assignment(armbian, "BOARD").map(str::to_owned);
    Os { id, version: get("VERSION_ID"), pretty: get("PRETTY_NAME"), family, armbian_board }
}

/// One line of `ip -o addr`: `2: end0    inet 10.0.0.5/24 brd … scope global …`.
fn address(line: &str) -> Option<InterfaceAddress> {
    let mut words = line.split_whitespace();
    let interface = words.nth(1)?.trim_end_matches(':').to_owned();
    let mut rest = words.skip_while(|w| *w != "inet" && *w != "inet6");
    rest.next()?;
    Some(InterfaceAddress { interface, address: rest.next()?.parse().ok()? })
}

/// One line of `ip -o route show default`: `default via 10.0.0.1 dev end0 proto dhcp`.
fn route(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |key: &str| {
        words.iter().position(|w| *w == key).and_then(|at| words.get(at + 1)).map(|w| (*w).to_owned())
    };
    (words.first() == Some(&"default")).then_some(())?;
    Some(Route { via: after("via"), interface: after("dev")? })
}

/// One line of `/proc/swaps`: path, type, size in KiB, used, priority.
fn swap(line: &str) -> Option<Swap> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let path = (*words.first()?).to_owned();
    Some(Swap { path, kib: number(words.get(2).copied()) })
}

fn cgroup(kind: &str, controllers: &str, subtree: &str, v1: &str) -> Cgroup {
    if kind == "cgroup2fs" || !controllers.trim().is_empty() {
        return Cgroup { version: 2, controllers: words(controllers), subtree: words(subtree) };
    }
    // `/proc/cgroups`: name, hierarchy, number of groups, enabled.
    let enabled = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.first().filter(|n| !n.starts_with('#'))?;
        (words.get(3) == Some(&"1")).then(|| (*name).to_owned())
    };
    let controllers: BTreeSet<String> = v1.lines().filter_map(enabled).collect();
    let version = u8::from(!controllers.is_empty());
    Cgroup { version, subtree: controllers.clone(), controllers }
}

fn time(epoch: &str, timedate: &str, localtime: &str) -> HostTime {
    let synchronized = assignment(timedate, "NTPSynchronized").map(|v| v == "yes");
    let linked = localtime.split_once("zoneinfo/").map(|(_, zone)| zone.to_owned());
    let timezone = assignment(timedate, "Timezone").filter(|z| !z.is_empty()).map(str::to_owned).or(linked);
    HostTime { epoch: epoch.trim().parse().unwrap_or(0), synchronized, skew_seconds: 0, timezone }
}

/// One line of `/proc/mounts`; spaces in paths are written as `\040`.
fn mount(line: &str) -> Option<Mount> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().map(|w| w.replace("\\040", " "));
    Some(Mount { device: next()?, path: next()?, kind: next()? })
}

/// The folder, then one line of `df -Pk`: device, KiB, used, free, percent, mount point.
fn space(line: &str) -> Option<(String, DiskSpace)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kib = |at: usize| number(words.get(at).copied()).saturating_mul(1024);
    let mount = words.get(6..).filter(|w| !w.is_empty())?.join(" ");
    Some(((*words.first()?).to_owned(), DiskSpace { mount, total_bytes: kib(2), free_bytes: kib(4) }))
}

/// `name status version`, only when the status is `installed`.
fn package(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    (words.get(1) == Some(&"installed")).then_some(())?;
    Some(((*words.first()?).to_owned(), words.get(2).copied().unwrap_or("").to_owned()))
}

/// The first line says `active`; the others are rules, one a line or one a word.
fn rules(text: &str, by_word: bool) -> Option<BTreeSet<String>> {
    let mut lines = text.lines();
    (lines.next()?.trim() == "active").then_some(())?;
    Some(if by_word {
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    } else {
        lines.map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect()
    })
}

/// `sha256` on the first line, `mode user:group bytes` on the second.
fn file(content: &str) -> Option<FileFact> {
    let mut words = content.split_whitespace();
    let sha256 = words.next().filter(|d| d.len() == 64)?.to_owned();
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let owner = words.next()?.to_owned();
    Some(FileFact { sha256, mode, owner, bytes: number(words.next()) })
}
