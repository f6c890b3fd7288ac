//! What the shape cannot say: names that must be unique, references that must exist, networks that must not overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    str::FromStr,
};

use turingpi_cluster::{
    Role, SlotRef,
    images::{Catalogue, DigestSource},
};
use turingpi_engine::Failure;
use turingpi_ssh::JumpSpec;

use super::{
    Document,
    diagnostic::{Diagnostic, did_you_mean, one_of},
    model::{HostKeys, Node, Ssh},
    registries,
};

/// All mistakes of meaning.
pub(crate) fn check(document: &Document) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    name(&document.name, "name", "cluster", &mut found);
    versions(document, &mut found);
    boards(document, &mut found);
    images(document, &mut found);
    nodes(document, &mut found);
    ssh(&document.ssh, "ssh", &mut found);
    networks(document, &mut found);
    registries::check(document, &mut found);
    first_boot(document, &mut found);
    found
}

fn name(name: &str, path: &str, what: &str, found: &mut Vec<Diagnostic>) {
    let ok = !name.is_empty()
        && name.len() <= 63
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !ok {
        let mut diagnostic = Diagnostic::error(
            path,
            format!("`{name}` is not a {what} name: lower-case letters, digits and dashes, at most 63"),
        );
        let better: String = name
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(63)
            .collect();
        let better = better.trim_matches('-');
        if !better.is_empty() {
            diagnostic = diagnostic.help(format!("for example `{better}`"));
        }
        found.push(diagnostic);
    }
}

fn versions(document: &Document, found: &mut Vec<Diagnostic>) {
    match (&document.version, &document.channel) {
        (Some(_), Some(_)) => found.push(
            Diagnostic::error("channel", "both `version` and `channel` are given")
                .help("keep `version` to stay where you are, or `channel` to follow releases"),
        ),
        (None, None) => found.push(
            Diagnostic::error("", "missing key `version`")
                .help("the exact release, `v1.35.5+k3s1`, or a `channel` such as `stable`"),
        ),
        (Some(version), None) => {
            if turingpi_k3s::K3sVersion::from_str(version).is_err() {
                let mut diagnostic = Diagnostic::error(
                    "version",
                    format!("`{version}` is not a k3s release such as `v1.35.5+k3s1`"),
                );
                let digits = version.trim_start_matches('v');
                if digits.split('.').count() == 3 && !digits.contains('+') {
                    diagnostic = diagnostic.help(format!("did you mean `v{digits}+k3s1`?"));
                }
                found.push(diagnostic);
            }
        }
        (None, Some(channel)) => {
            let known = ["stable", "latest", "testing"];
            let minor = channel
                .strip_prefix("v1.")
                .is_some_and(|m| !m.is_empty() && m.chars().all(|c| c.is_ascii_digit()));
            if !known.contains(&channel.as_str()) && !minor {
                let mut diagnostic = Diagnostic::error(
                    "channel",
                    format!(
                        "`{channel}` is not a channel: `stable`, `latest`, `testing` or a minor such as `v1.35`"
                    ),
                );
                if let Some(help) = did_you_mean(channel, known) {
                    diagnostic = diagnostic.help(help);
                }
                found.push(diagnostic);
            }
        }
    }
}

fn boards(document: &Document, found: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (board, spec) in &document.boards {
        name(board, &format!("boards.{board}"), "board", found);
        let path = format!("boards.{board}.bmc");
        match spec.url() {
            Ok(url) => {
                if let Some(other) = seen.insert(url.to_string(), board) {
                    found.push(Diagnostic::error(
                        &path,
                        format!("`{}` is the BMC of board `{other}` already", spec.bmc),
                    ));
                }
            }
            Err(message) => found.push(
                Diagnostic::error(&path, message)
                    .help("an address, a host name or an `https://` URL: `10.10.88.70`"),
            ),
        }
        if let Some(fingerprint) = &spec.fingerprint
            && turingpi_bmc::Fingerprint::from_str(fingerprint).is_err()
        {
            found.push(
                Diagnostic::error(format!("boards.{board}.fingerprint"), "this is not a SHA-256 fingerprint")
                    .help("64 hex digits, with or without colons; `turingpi doctor` shows the one the BMC presents"),
            );
        }
        if !document.nodes.iter().any(|n| n.slot_ref().is_ok_and(|s| s.is_some_and(|s| s.board == *board))) {
            found.push(Diagnostic::warning(format!("boards.{board}"), "no node sits on this board"));
        }
    }
}

fn images(document: &Document, found: &mut Vec<Diagnostic>) {
    let catalogue = Catalogue::embedded().ok();
    for (image, spec) in &document.images {
        let path = format!("images.{image}");
        if let Some(entry) = catalogue.as_ref().and_then(|c| c.find(&spec.source))
            && entry.digest == DigestSource::FirstUse
            && spec.sha256.is_none()
        {
            found.push(
                Diagnostic::error(&path, format!("nobody publishes a digest of image `{}`", spec.source))
                    .help(format!(
                        "run `turingpi image pull {}`, compare, and write the `sha256` it shows here",
                        spec.source
                    )),
            );
        }
        let url = spec.source.contains("://");
        if url && !(spec.source.starts_with("https://") || spec.source.starts_with("http://")) {
            found.push(
                Diagnostic::error(format!("{path}.source"), "only paths and `http(s)` URLs can be read")
                    .help("leave out `file://` for a path"),
            );
        }
        if url && url::Url::parse(&spec.source).is_err() {
            found
                .push(Diagnostic::error(format!("{path}.source"), format!("`{}` is not a URL", spec.source)));
        }
        if url && spec.sha256.is_none() {
            found.push(
                Diagnostic::error(&path, "a downloaded image needs its `sha256`")
                    .help("the publisher shows it beside the download, often as a `.sha256` or `.sha` file"),
            );
        }
        if let Some(digest) = &spec.sha256
            && (digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()))
        {
            found.push(Diagnostic::error(
                format!("{path}.sha256"),
                format!("a SHA-256 has 64 hex digits, this has {} characters", digest.chars().count()),
            ));
        }
        let file = spec.source.rsplit('/').next().unwrap_or_default();
        if [".gz", ".bz2", ".zst", ".zip", ".7z"].iter().any(|e| file.ends_with(e)) {
            found.push(
                Diagnostic::error(
                    format!("{path}.source"),
                    format!("`{file}` is packed in a way no BMC can unpack"),
                )
                .help("unpack it, or pack it with xz"),
            );
        }
        if !document.nodes.iter().any(|n| n.image.as_deref() == Some(image)) {
            found.push(Diagnostic::warning(&path, "no node uses this image"));
        }
    }
}

fn nodes(document: &Document, found: &mut Vec<Diagnostic>) {
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut slots = BTreeMap::new();
    for (i, node) in document.nodes.iter().enumerate() {
        let path = format!("nodes[{i}]");
        name(&node.name, &format!("{path}.name"), "node", found);
        if let Some(other) = names.insert(&node.name, i) {
            found.push(Diagnostic::error(
                format!("{path}.name"),
                format!("`{}` is the name of nodes[{other}] already", node.name),
            ));
        }
        match IpAddr::from_str(&node.address) {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                found.push(Diagnostic::error(
                    format!("{path}.address"),
                    format!("`{address}` is not the address of a host"),
                ))
            }
            Ok(address) => {
                if let Some(other) = addresses.insert(address, &node.name) {
                    found.push(Diagnostic::error(
                        format!("{path}.address"),
                        format!("`{address}` is the address of node `{other}` already"),
                    ));
                }
            }
            Err(_) => {
                let mut diagnostic = Diagnostic::error(
                    format!("{path}.address"),
                    format!("`{}` is not an IP address", node.address),
                );
                if node.address.contains('/') {
                    diagnostic = diagnostic.help("leave out the prefix length");
                } else if node.address.chars().any(|c| c.is_ascii_alphabetic()) {
                    diagnostic = diagnostic
                        .help("a host name goes to `ssh: { host: … }`; the cluster needs the IP address");
                }
                found.push(diagnostic);
            }
        }
        placement(document, node, &path, &mut slots, found);
        for (key, value) in &node.labels {
            if let Err(why) = label(key, value) {
                found.push(Diagnostic::error(format!("{path}.labels.{key}"), why));
            }
        }
        for (t, taint) in node.taints.iter().enumerate() {
            if let Err(why) = check_taint(taint) {
                found.push(Diagnostic::error(format!("{path}.taints[{t}]"), why));
            }
        }
        if let Some(overrides) = &node.ssh {
            ssh(overrides, &format!("{path}.ssh"), found);
        }
    }
    let servers = document.nodes.iter().filter(|n| n.role == Role::ControlPlane).count();
    match servers {
        1 | 3 | 5 | 7 => {}
        0 => found.push(
            Diagnostic::error("nodes", "no node has `role: control-plane`")
                .help("one for a small cluster, three for high availability"),
        ),
        even => found
            .push(Diagnostic::error("nodes", format!("{even} nodes have `role: control-plane`")).help(
            "1, 3 or 5: an even number tolerates no more failures than one less, and two are worse than one",
        )),
    }
}

fn placement<'a>(
    document: &'a Document,
    node: &'a Node,
    path: &str,
    slots: &mut BTreeMap<SlotRef, &'a str>,
    found: &mut Vec<Diagnostic>,
) {
    match node.slot_ref() {
        Err(message) => {
            found.push(
                Diagnostic::error(format!("{path}.slot"), message)
                    .help("a board and a slot from 1 to 4: `board1/1`"),
            );
        }
        Ok(Some(slot)) => {
            if !document.boards.contains_key(&slot.board) {
                let mut diagnostic =
                    Diagnostic::error(format!("{path}.slot"), format!("there is no board `{}`", slot.board));
                if let Some(help) = did_you_mean(&slot.board, document.boards.keys().map(String::as_str)) {
                    diagnostic = diagnostic.help(help);
                } else if !document.boards.is_empty() {
                    diagnostic = diagnostic
                        .help(format!("known: {}", one_of(document.boards.keys().map(String::as_str))));
                } else {
                    diagnostic = diagnostic.help("describe it under `boards`");
                }
                found.push(diagnostic);
            }
            if let Some(other) = slots.insert(slot.clone(), &node.name) {
                found.push(Diagnostic::error(
                    format!("{path}.slot"),
                    format!("slot {slot} holds node `{other}` already"),
                ));
            }
        }
        Ok(None) => {}
    }
    if let Some(image) = &node.image {
        if node.slot.is_none() {
            found.push(
                Diagnostic::error(
                    format!("{path}.image"),
                    "an image can only be flashed to a node with a `slot`",
                )
                .help("add `slot: board1/1`, or leave out `image` for a host that runs already"),
            );
        }
        if !document.images.contains_key(image) {
            let mut diagnostic =
                Diagnostic::error(format!("{path}.image"), format!("there is no image `{image}`"));
            if let Some(help) = did_you_mean(image, document.images.keys().map(String::as_str)) {
                diagnostic = diagnostic.help(help);
            } else {
                diagnostic = diagnostic.help("describe it under `images`");
            }
            found.push(diagnostic);
        }
    }
}

fn label(key: &str, value: &str) -> Result<(), String> {
    let (prefix, bare) = key.rsplit_once('/').map_or((None, key), |(p, b)| (Some(p), b));
    let word = |text: &str| {
        text.len() <= 63
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && text.chars().next().is_none_or(|c| c.is_ascii_alphanumeric())
            && text.chars().last().is_none_or(|c| c.is_ascii_alphanumeric())
    };
    if bare.is_empty() || !word(bare) || prefix.is_some_and(|p| p.is_empty() || p.len() > 253) {
        return Err(format!("`{key}` is not a label key"));
    }
    if !word(value) {
        return Err(format!("`{value}` is not a label value: at most 63 letters, digits, `-`, `_` and `.`"));
    }
    if prefix == Some("node-role.kubernetes.io") || prefix == Some("kubernetes.io") {
        return Err(format!("`{key}` belongs to Kubernetes and cannot be set here"));
    }
    Ok(())
}

fn check_taint(taint: &str) -> Result<(), String> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let Some((rest, effect)) = taint.rsplit_once(':') else {
        return Err(format!("`{taint}` is not a taint such as `key=value:NoSchedule`"));
    };
    if !EFFECTS.contains(&effect) {
        let help =
            did_you_mean(effect, EFFECTS).unwrap_or_else(|| format!("it is one of {}", one_of(EFFECTS)));
        return Err(format!("`{effect}` is not the effect of a taint: {help}"));
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    label(key, value).map_err(|_| format!("`{rest}` is not the key of a taint"))
}

fn ssh(ssh: &Ssh, path: &str, found: &mut Vec<Diagnostic>) {
    for (i, hop) in ssh.jump.iter().enumerate() {
        if JumpSpec::parse(hop)
            .is_none_or(|j| j.host.contains(char::is_whitespace) || j.host.starts_with('-'))
        {
            found.push(
                Diagnostic::error(
                    format!("{path}.jump[{i}]"),
                    format!("`{hop}` is not a host to go through"),
                )
                .help("`host`, `user@host` or `user@host:port`"),
            );
        }
    }
    if let Some(HostKeys::Pinned(keys)) = &ssh.host_keys {
        for (i, key) in keys.iter().enumerate() {
            if turingpi_ssh::Fingerprint::from_str(key).is_err() {
                found.push(
                    Diagnostic::error(
                        format!("{path}.host-keys.pinned[{i}]"),
                        format!("`{key}` is not a fingerprint"),
                    )
                    .help("`SHA256:` and 43 letters, as `ssh-keygen -l` prints it"),
                );
            }
        }
    }
}

/// What a section says of itself.
fn section(result: Result<(), Failure>, path: &str, found: &mut Vec<Diagnostic>) {
    if let Err(failure) = result {
        let diagnostic = Diagnostic::error(path, failure.message());
        found.push(match failure.hint_text() {
            Some(hint) => diagnostic.help(hint),
            None => diagnostic,
        });
    }
}

fn networks(document: &Document, found: &mut Vec<Diagnostic>) {
    section(document.network.validate([]), "network", found);
    section(document.k3s.validate(), "k3s", found);
    section(document.host.validate(), "host", found);
    let mut outside: Vec<(String, String, IpAddr)> = Vec::new();
    for (i, node) in document.nodes.iter().enumerate() {
        if let Ok(address) = IpAddr::from_str(&node.address) {
            outside.push((format!("nodes[{i}].address"), format!("node `{}`", node.name), address));
        }
    }
    let nodes: BTreeSet<IpAddr> = outside.iter().map(|(_, _, a)| *a).collect();
    for (board, spec) in &document.boards {
        if let Ok(address) = IpAddr::from_str(&spec.bmc) {
            if nodes.contains(&address) {
                found.push(Diagnostic::error(
                    format!("boards.{board}.bmc"),
                    format!("`{address}` is also the address of a node"),
                ));
            }
            outside.push((format!("boards.{board}.bmc"), format!("board `{board}`"), address));
        }
    }
    for (path, what, address) in outside {
        for (net, key) in [(document.network.pods, "pods"), (document.network.services, "services")] {
            if net.contains(&address) {
                found.push(
                    Diagnostic::error(
                        path.clone(),
                        format!("the address of {what} lies inside `network.{key}` ({net})"),
                    )
                    .help("the networks of pods and services must not be used on your LAN"),
                );
            }
        }
    }
}

fn first_boot(document: &Document, found: &mut Vec<Diagnostic>) {
    for (i, key) in document.first_boot.authorized_keys.iter().enumerate() {
        let mut words = key.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
        if !known || words.next().is_none_or(|w| w.len() < 40) {
            let path = format!("first-boot.authorized-keys[{i}]");
            let diagnostic = if key.contains("PRIVATE KEY") {
                Diagnostic::error(path, "this is a private key")
                    .help("only public keys stand here; change that key now")
            } else {
                Diagnostic::error(path, "this is not a public key")
                    .help("a line of `id_ed25519.pub`: `ssh-ed25519 AAAA… name`")
            };
            found.push(diagnostic);
        }
    }
    let flashed = document.nodes.iter().any(|n| n.image.is_some());
    if flashed && document.ssh.identity.is_none() && document.first_boot.authorized_keys.is_empty() {
        found.push(
            Diagnostic::error("ssh", "freshly flashed nodes need a public key to let us in")
                .help("set `ssh: { identity: ~/.ssh/id_ed25519 }`"),
        );
    }
    if let Some(address) = &document.first_boot.static_address {
        let path = "first-boot.static";
        match IpAddr::from_str(&address.gateway) {
            Ok(IpAddr::V4(gateway)) => {
                if let Ok(net) = ipnet::Ipv4Net::new(gateway, address.prefix) {
                    for (i, node) in document.nodes.iter().enumerate().filter(|(_, n)| n.image.is_some()) {
                        if let Ok(IpAddr::V4(a)) = IpAddr::from_str(&node.address)
                            && !net.contains(&a)
                        {
                            found.push(Diagnostic::error(
                                format!("nodes[{i}].address"),
                                format!(
                                    "`{a}` is not in the network of the gateway {gateway}/{}",
                                    address.prefix
                                ),
                            ));
                        }
                    }
                }
            }
            Ok(IpAddr::V6(_)) => {}
            Err(_) => found.push(Diagnostic::error(
                format!("{path}.gateway"),
                format!("`{}` is not an IP address", address.gateway),
            )),
        }
        for (i, server) in address.dns.iter().enumerate() {
            if IpAddr::from_str(server).is_err() {
                found.push(Diagnostic::error(
                    format!("{path}.dns[{i}]"),
                    format!("`{server}` is not an IP address"),
                ));
            }
        }
    }
}
