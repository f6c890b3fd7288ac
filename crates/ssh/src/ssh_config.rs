//! Client configuration in the format of OpenSSH (ssh_config(5)), as far as it says whom to reach and how.
//!
//! Pure: the caller hands in texts. The first value given for an option counts, as with OpenSSH; `IdentityFile` and
//! `UserKnownHostsFile` aside, later ones are ignored.

#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use crate::pattern;

/// A parsed configuration.
#[derive(Debug, Clone, Default)]
pub struct SshConfig {
    lines: Vec<Line>,
    warnings: Vec<ConfigWarning>,
}

/// Something in a configuration that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Line in the text it stands in, counted from one.
    pub line: usize,
    /// What was left out, and why.
    pub text: String,
}

/// What a configuration says about one host. Paths are as written: `~` and `%d` are the caller's to replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedHost {
    /// Where to connect: `HostName` with `%h` and `%%` replaced, or the alias itself.
    pub hostname: String,
    /// `Port`.
    pub port: Option<u16>,
    /// `User`.
    pub user: Option<String>,
    /// Every `IdentityFile`, in order. `none` empties the list.
    pub identity_files: Vec<PathBuf>,
    /// `IdentitiesOnly yes`.
    pub identities_only: bool,
    /// `IdentityAgent`: a socket path, `SSH_AUTH_SOCK`, `$NAME` or `none`.
    pub identity_agent: Option<String>,
    /// `ProxyJump`, one entry a hop, in the order they are gone through. Empty when there is none.
    pub proxy_jump: Vec<JumpSpec>,
    /// `UserKnownHostsFile`, every file.
    pub user_known_hosts: Vec<PathBuf>,
    /// `StrictHostKeyChecking` in lower case: `yes`, `no`, `ask`, `accept-new`, `off`.
    pub strict_host_key_checking: Option<String>,
    /// `HostKeyAlias`.
    pub host_key_alias: Option<String>,
    /// `ConnectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `ServerAliveInterval`.
    pub server_alive_interval: Option<Duration>,
    /// `ServerAliveCountMax`.
    pub server_alive_count_max: Option<u32>,
    /// Options given for this host that this crate does not act on and that change whom one talks to, for example `ProxyCommand`.
    pub warnings: Vec<ConfigWarning>,
}

/// One hop of `ProxyJump`: `[user@]host[:port]`. The host may be an alias of the same configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpSpec {
    /// Login name.
    pub user: Option<String>,
    /// Host or alias.
    pub host: String,
    /// TCP port.
    pub port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Line {
    Host(Vec<String>),
    /// A `Match` block: never taken, except `Match all`.
    Match {
        all: bool,
    },
    /// Up to where an included text reaches: what stood before it counts again after it.
    Enter,
    Leave,
    Option {
        line: usize,
        name: String,
        values: Vec<String>,
    },
}

impl SshConfig {
    /// Parses a text in which `Include` lines are left out with a warning.
    pub fn parse(text: &str) -> Self {
        Self::parse_with(text, |_| Vec::new())
    }

    /// Parses a text. For each pattern of an `Include` line `include` gives the texts to put there (glob and `~` are its
    /// to expand); none is a warning. Nesting ends at 16 levels, as with OpenSSH.
    pub fn parse_with(text: &str, mut include: impl FnMut(&str) -> Vec<String>) -> Self {
        let mut config = Self::default();
        config.read(text, &mut include, 0);
        config
    }

    /// What was left out while parsing: `Match` blocks, lines that make no sense, includes that gave nothing.
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }

    /// The aliases that stand in `Host` lines without wildcard or exclusion, each once.
    pub fn aliases(&self) -> Vec<&str> {
        let mut aliases: Vec<&str> = Vec::new();
        for line in &self.lines {
            let Line::Host(patterns) = line else { continue };
            for pattern in patterns.iter().filter(|pattern| !pattern.contains(['*', '?', '!'])) {
                if !aliases.contains(&pattern.as_str()) {
                    aliases.push(pattern);
                }
            }
        }
        aliases
    }

    fn read(&mut self, text: &str, include: &mut dyn FnMut(&str) -> Vec<String>, depth: usize) {
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let (name, values) = match words(raw) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => continue,
                Err(problem) => {
                    self.warn(line, problem);
                    continue;
                }
            };
            match name.as_str() {
                "host" => self.lines.push(Line::Host(values)),
                "match" => {
                    let all = matches!(values.as_slice(), [only] if only.eq_ignore_ascii_case("all"));
                    if !all {
                        self.warn(
                            line,
                            format!("`Match {}` is not evaluated; its block is left out", values.join(" ")),
                        );
                    }
                    self.lines.push(Line::Match { all });
                }
                "include" => {
                    for wanted in &values {
                        self.include(line, wanted, include, depth);
                    }
                }
                _ => self.lines.push(Line::Option { line, name, values }),
            }
        }
    }

    fn include(
        &mut self,
        line: usize,
        wanted: &str,
        include: &mut dyn FnMut(&str) -> Vec<String>,
        depth: usize,
    ) {
        if depth >= 16 {
            return self.warn(line, format!("`Include {wanted}` is nested too deeply"));
        }
        let texts = include(wanted);
        if texts.is_empty() {
            self.warn(line, format!("`Include {wanted}` gave nothing"));
        }
        for text in texts {
            self.lines.push(Line::Enter);
            self.read(&text, include, depth + 1);
            self.lines.push(Line::Leave);
        }
    }

    fn warn(&mut self, line: usize, text: String) {
        self.warnings.push(ConfigWarning { line, text });
    }

    /// What the configuration says about a host, given by alias or name.
    pub fn resolve(&self, alias: &str) -> ResolvedHost {
        let mut host = ResolvedHost::default();
        let mut seen = Seen::default();
        let mut active = true;
        let mut outer = Vec::new();
        for line in &self.lines {
            match line {
                // A block inside an included text can only narrow the block that includes it.
                Line::Host(patterns) => {
                    active = outer.last().copied().unwrap_or(true)
                        && pattern::list(patterns.iter().map(String::as_str), alias);
                }
                Line::Match { all } => active = outer.last().copied().unwrap_or(true) && *all,
                Line::Enter => outer.push(active),
                Line::Leave => active = outer.pop().unwrap_or(true),
                Line::Option { line, name, values } if active => host.take(&mut seen, *line, name, values),
                Line::Option { .. } => {}
            }
        }
        host.hostname = match seen.hostname {
            Some(name) => name.replace("%%", "\0").replace("%h", alias).replace('\0', "%"),
            None => alias.to_owned(),
        };
        host
    }
}

#[derive(Default)]
struct Seen {
    hostname: Option<String>,
    proxy_jump: bool,
    identities_only: bool,
    known_hosts: bool,
}

fn first<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let valid = value.is_some();
    if slot.is_none() {
        *slot = value;
    }
    valid
}

impl ResolvedHost {
    fn take(&mut self, seen: &mut Seen, line: usize, name: &str, values: &[String]) {
        let Some(value) = values.first() else { return };
        let seconds = || duration(value);
        let valid = match name {
            "hostname" => first(&mut seen.hostname, Some(value.clone())),
            "port" => first(&mut self.port, value.parse().ok().filter(|&port| port != 0)),
            "user" => first(&mut self.user, Some(value.clone())),
            "identityagent" => first(&mut self.identity_agent, Some(value.clone())),
            "hostkeyalias" => first(&mut self.host_key_alias, Some(value.clone())),
            "stricthostkeychecking" => {
                first(&mut self.strict_host_key_checking, Some(value.to_ascii_lowercase()))
            }
            "connecttimeout" => {
                value.eq_ignore_ascii_case("none") || first(&mut self.connect_timeout, seconds())
            }
            "serveraliveinterval" => first(&mut self.server_alive_interval, seconds()),
            "serveralivecountmax" => first(&mut self.server_alive_count_max, value.parse().ok()),
            "identitiesonly" => {
                if !std::mem::replace(&mut seen.identities_only, true) {
                    self.identities_only =
                        value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true");
                }
                true
            }
            "identityfile" => {
                if value.eq_ignore_ascii_case("none") {
                    self.identity_files.clear();
                } else if !self.identity_files.iter().any(|known| known.as_os_str() == value.as_str()) {
                    self.identity_files.push(value.into());
                }
                true
            }
            "userknownhostsfile" => {
                if !std::mem::replace(&mut seen.known_hosts, true) && !value.eq_ignore_ascii_case("none") {
                    self.user_known_hosts = values.iter().map(PathBuf::from).collect();
                }
                true
            }
            "proxyjump" => self.take_jump(seen, value),
            "proxycommand" => {
                if !value.eq_ignore_ascii_case("none") && !std::mem::replace(&mut seen.proxy_jump, true) {
                    self.warn(line, "`ProxyCommand` is not supported; use `ProxyJump`".into());
                }
                true
            }
            _ => true,
        };
        if !valid {
            self.warn(line, format!("`{value}` is no value for `{name}`"));
        }
    }

    fn take_jump(&mut self, seen: &mut Seen, value: &str) -> bool {
        if std::mem::replace(&mut seen.proxy_jump, true) || value.eq_ignore_ascii_case("none") {
            return true;
        }
        match value.split(',').map(JumpSpec::parse).collect::<Option<Vec<_>>>() {
            Some(jumps) => {
                self.proxy_jump = jumps;
                true
            }
            None => false,
        }
    }

    fn warn(&mut self, line: usize, text: String) {
        self.warnings.push(ConfigWarning { line, text });
    }
}

impl JumpSpec {
    /// Reads `[user@]host[:port]` or `ssh://[user@]host[:port]`; an IPv6 address with port stands in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("ssh://").map_or(text, |rest| rest.trim_end_matches('/'));
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), rest),
            None => (None, text),
        };
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']')?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return None,
            }
        } else {
            match rest.split_once(':') {
                Some((_, port)) if port.contains(':') => (rest, None), // a bare IPv6 address
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let port =
            port.map(|port| port.parse::<u16>().ok().filter(|&port| port != 0).ok_or(())).transpose().ok()?;
        (!host.is_empty()).then(|| Self { user, host: host.to_owned(), port })
    }
}

/// Seconds, or OpenSSH's time format: `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if text.is_empty() {
        return None;
    }
    Some(Duration::from_secs(total.checked_add(number.unwrap_or(0))?))
}

/// One line as option name (lower case) and values; `None` for an empty line or a comment.
fn words(line: &str) -> Result<Option<(String, Vec<String>)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let name = name.trim_matches('"').to_ascii_lowercase();
    let values = split(rest)?;
    if values.is_empty() {
        return Err(format!("`{name}` has no value"));
    }
    Ok(Some((name, values)))
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        // A `#` after the values starts a comment (OpenSSH 8.5 and later).
        let Some(&first) = chars.peek() else { break };
        if first == '#' {
            break;
        }
        let mut value = String::new();
        let mut quote: Option<char> = None;
        while let Some(&c) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match (c, quote) {
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                ('\\', _)
                    if chars.peek().is_some_and(|&next| {
                        matches!(next, '"' | '\'' | '\\') || next == ' ' && quote.is_none()
                    }) =>
                {
                    value.extend(chars.next());
                }
                _ => value.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".into());
        }
        values.push(value);
    }
    Ok(values)
}
