//! Unit files: where they are found, how drop-ins change them, what is enabled.

use super::vfs::{Body, Vfs};

/// Where unit files live; earlier folders win.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// A parsed unit: its settings in order, drop-ins applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) masked: bool,
    pub(crate) drop_ins: Vec<String>,
    settings: Vec<(String, String, String)>,
}

/// Adds `.service` when a name has no type.
pub(crate) fn full_name(name: &str) -> String {
    const TYPES: [&str; 9] =
        [".service", ".socket", ".target", ".mount", ".timer", ".swap", ".path", ".slice", ".scope"];
    if TYPES.iter().any(|ending| name.ends_with(ending)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// The template a unit is an instance of: `getty@tty1.service` of `getty@.service`.
fn template(name: &str) -> Option<String> {
    let (before, after) = name.split_once('@')?;
    let (instance, kind) = after.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{before}@.{kind}"))
}

fn parse(text: &str, into: &mut Vec<(String, String, String)>) {
    let mut section = String::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim) {
        if line.starts_with(['#', ';']) || line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            if value.is_empty() {
                into.retain(|(s, k, _)| *s != section || *k != key);
            } else {
                into.push((section.clone(), key, value));
            }
        }
    }
}

/// Loads a unit as `daemon-reload` would see it; `None` when there is no file for it.
pub(crate) fn load(vfs: &Vfs, name: &str) -> Option<Unit> {
    let names = [Some(name.to_owned()), template(name)];
    let (path, file) = names.into_iter().flatten().find_map(|file| {
        FOLDERS
            .iter()
            .map(|folder| format!("{folder}/{file}"))
            .find(|path| vfs.lstat(path).is_ok())
            .map(|path| (path, file))
    })?;
    let masked = match vfs.lstat(&path).map(|inode| &inode.body) {
        Ok(Body::Link(target)) => target == "/dev/null",
        Ok(Body::File(bytes)) => bytes.is_empty(),
        _ => false,
    };
    let mut unit = Unit { name: name.to_owned(), path: path.clone(), masked, ..Unit::default() };
    if masked {
        return Some(unit);
    }
    parse(&vfs.text(&path), &mut unit.settings);
    let mut folders: Vec<String> = FOLDERS.iter().rev().map(|folder| format!("{folder}/{name}.d")).collect();
    if file != name {
        folders.extend(FOLDERS.iter().rev().map(|folder| format!("{folder}/{file}.d")));
    }
    let mut drop_ins: Vec<(String, String)> = Vec::new();
    for folder in folders {
        for conf in vfs.names_ending(&folder, ".conf") {
            drop_ins.retain(|(existing, _)| *existing != conf);
            drop_ins.push((conf.clone(), format!("{folder}/{conf}")));
        }
    }
    drop_ins.sort();
    for (_, path) in drop_ins {
        parse(&vfs.text(&path), &mut unit.settings);
        unit.drop_ins.push(path);
    }
    Some(unit)
}

impl Unit {
    /// A unit without a file.
    pub(crate) fn transient(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
    /// The last value of a setting.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.settings
            .iter()
            .rev()
            .find(|(s, k, _)| s == section && k == key)
            .map(|(_, _, value)| value.as_str())
    }
    /// All values of a setting.
    pub(crate) fn all<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings
            .iter()
            .filter(move |(s, k, _)| s == section && k == key)
            .map(|(_, _, value)| value.as_str())
    }
    /// A boolean setting.
    pub(crate) fn yes(&self, section: &str, key: &str) -> bool {
        matches!(self.get(section, key), Some("yes" | "true" | "1" | "on"))
    }
    /// `Type=`, with systemd's default.
    pub(crate) fn kind(&self) -> &str {
        let default = if self.get("Service", "ExecStart").is_some() { "simple" } else { "oneshot" };
        self.get("Service", "Type").unwrap_or(default)
    }
    /// Replaces specifiers of a command line.
    pub(crate) fn expand(&self, line: &str) -> String {
        let stem = self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem);
        let instance = stem.split_once('@').map_or("", |(_, instance)| instance);
        line.replace("%N", stem)
            .replace("%n", &self.name)
            .replace("%i", instance)
            .replace("%I", instance)
            .replace("%%", "%")
    }
    /// The folders of links that `enable` makes.
    fn wanted_by(&self) -> Vec<String> {
        let words = |key: &'static str, ending: &str| {
            self.all("Install", key)
                .flat_map(str::split_whitespace)
                .map(|target| format!("/etc/systemd/system/{target}.{ending}/{}", self.name))
                .collect::<Vec<_>>()
        };
        let mut links = words("WantedBy", "wants");
        links.extend(words("RequiredBy", "requires"));
        links
    }
    fn aliases(&self) -> Vec<String> {
        self.all("Install", "Alias")
            .flat_map(str::split_whitespace)
            .map(|alias| format!("/etc/systemd/system/{alias}"))
            .collect()
    }
}

/// What `systemctl is-enabled` says about a unit.
pub(crate) fn enabled_state(vfs: &Vfs, name: &str) -> Option<&'static str> {
    let unit = load(vfs, name)?;
    if unit.masked {
        return Some(if unit.path.starts_with("/run/") { "masked-runtime" } else { "masked" });
    }
    if links_of(vfs, name).next().is_some() {
        return Some("enabled");
    }
    let installs =
        !unit.wanted_by().is_empty() || !unit.aliases().is_empty() || unit.get("Install", "Also").is_some();
    Some(if installs { "disabled" } else { "static" })
}

/// The links in `*.wants` and `*.requires` folders that enable a unit.
fn links_of<'a>(vfs: &'a Vfs, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let entries = vfs.list("/etc/systemd/system").unwrap_or_default();
    entries.into_iter().filter_map(move |(folder, _)| {
        let path = format!("/etc/systemd/system/{folder}/{name}");
        ((folder.ends_with(".wants") || folder.ends_with(".requires")) && vfs.lstat(&path).is_ok())
            .then_some(path)
    })
}

/// Enables a unit; returns the links made, as systemctl reports them.
pub(crate) fn enable(vfs: &mut Vfs, name: &str) -> Result<Vec<(String, String)>, String> {
    let Some(unit) = load(vfs, name) else {
        return Err(format!("Failed to enable unit: Unit file {name} does not exist.\n"));
    };
    if unit.masked {
        return Err(format!("Failed to enable unit: Unit file {} is masked.\n", unit.path));
    }
    let mut made = Vec::new();
    for link in unit.wanted_by().into_iter().chain(unit.aliases()) {
        if vfs.lstat(&link).is_err() {
            if let Some((folder, _)) = link.rsplit_once('/') {
                vfs.mkdirs(folder, 0o755);
            }
            vfs.link(&link, &unit.path);
            made.push((link, unit.path.clone()));
        }
    }
    let also: Vec<String> =
        unit.all("Install", "Also").flat_map(str::split_whitespace).map(str::to_owned).collect();
    for other in also {
        if other != name && enabled_state(vfs, &other) == Some("disabled") {
            made.extend(enable(vfs, &other)?);
        }
    }
    Ok(made)
}

/// Disables a unit; returns the links removed.
pub(crate) fn disable(vfs: &mut Vfs, name: &str) -> Vec<String> {
    let mut links: Vec<String> = links_of(vfs, name).collect();
    if let Some(unit) = load(vfs, name) {
        links.extend(unit.aliases().into_iter().filter(|alias| vfs.lstat(alias).is_ok()));
    }
    for link in &links {
        let _ = vfs.remove(link, false);
    }
    links
}

/// The units that targets of a normal boot want, in name order.
pub(crate) fn wanted_at_boot(vfs: &Vfs) -> Vec<String> {
    let mut names = Vec::new();
    for base in ["/usr/lib/systemd/system", "/etc/systemd/system"] {
        for target in [
            "sysinit",
            "basic",
            "sockets",
            "local-fs",
            "network-online",
            "multi-user",
            "timers",
            "getty",
            "default",
        ] {
            for kind in ["wants", "requires"] {
                names.extend(vfs.names_ending(&format!("{base}/{target}.target.{kind}"), ""));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// All unit files by name.
pub(crate) fn all_names(vfs: &Vfs) -> Vec<String> {
    let mut names: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| {
            vfs.list(folder).unwrap_or_default().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        })
        .filter(|name| full_name(name) == *name)
        .collect();
    names.sort();
    names.dedup();
    names
}
