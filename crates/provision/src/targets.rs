//! From the document's words to the types the other crates take: SSH targets, nodes, image sources.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use turingpi_cluster::{
    NodeSpec,
    fetch::Source,
    first_boot::{Credentials, StaticAddress},
    images::Catalogue,
    imaging::ImageSpec,
};
use turingpi_engine::{Failure, FailureClass};
use turingpi_k3s::{InstallMode, K3sSpec};
use turingpi_ssh::{AuthMethod, Fingerprint, HostKeyPolicy, JumpSpec, ResolvedHost, SshConfig, SshTarget};

use crate::{
    document::{Document, HostKeys, Image, Node, Ssh, registries},
    environment::{Environment, Secrets, private},
    identity,
};

/// All nodes, complete.
pub(crate) async fn nodes(
    document: &Document,
    environment: &Environment,
    secrets: &Secrets,
) -> Result<Vec<NodeSpec>, Failure> {
    let mut nodes = Vec::new();
    for node in &document.nodes {
        let address = IpAddr::from_str(&node.address).map_err(|e| wrong(node, "address").source(e))?;
        nodes.push(NodeSpec {
            name: node.name.clone(),
            role: node.role,
            address,
            ssh: target(document, node, environment, secrets).await?,
            slot: node.slot_ref().map_err(|e| wrong(node, "slot").source(e))?,
            image: node.image.clone(),
            labels: node.labels.clone(),
            taints: node.taints.clone(),
        });
    }
    Ok(nodes)
}

fn wrong(node: &Node, what: &str) -> Failure {
    Failure::new(FailureClass::Config, format!("the {what} of node `{}` is not usable", node.name))
}

/// The node's own words before those of the document.
fn merged(general: &Ssh, own: Option<&Ssh>) -> Ssh {
    let own = own.cloned().unwrap_or_default();
    Ssh {
        host: own.host.or_else(|| general.host.clone()),
        user: own.user.or_else(|| general.user.clone()),
        port: own.port.or(general.port),
        identity: own.identity.or_else(|| general.identity.clone()),
        passphrase: own.passphrase.or_else(|| general.passphrase.clone()),
        agent: own.agent.or(general.agent),
        password: own.password.or_else(|| general.password.clone()),
        sudo_password: own.sudo_password.or_else(|| general.sudo_password.clone()),
        jump: if own.jump.is_empty() { general.jump.clone() } else { own.jump },
        config: own.config.or_else(|| general.config.clone()),
        host_keys: own.host_keys.or_else(|| general.host_keys.clone()),
        known_hosts: own.known_hosts.or_else(|| general.known_hosts.clone()),
    }
}

async fn target(
    document: &Document,
    node: &Node,
    environment: &Environment,
    secrets: &Secrets,
) -> Result<SshTarget, Failure> {
    let ssh = merged(&document.ssh, node.ssh.as_ref());
    let config = match &ssh.config {
        Some(path) => Some(read_config(environment, path).await?),
        None => None,
    };
    let alias = ssh.host.clone().unwrap_or_else(|| node.address.clone());
    let found = resolve(config.as_ref(), &alias);
    let user = ssh.user.clone().or_else(|| found.user.clone()).unwrap_or_else(|| "root".to_owned());
    let policy = policy(ssh.host_keys.as_ref())?;
    let auth = auth(&ssh, &found, node, environment, secrets).await?;

    let mut target = SshTarget::new(if found.hostname.is_empty() { alias } else { found.hostname.clone() })
        .port(ssh.port.or(found.port).unwrap_or(22))
        .user(user.clone())
        .host_key(policy.clone());
    target = auth.iter().cloned().fold(target, SshTarget::auth);
    if let Some(alias) = &found.host_key_alias {
        target = target.host_key_name(alias);
    }
    if let Some(source) = &ssh.sudo_password {
        target =
            target.sudo_password(secrets.resolve(source, &format!("sudo password of {}", node.name)).await?);
    }
    for hop in hops(&ssh, &found)? {
        let found = resolve(config.as_ref(), &hop.host);
        let jump = SshTarget::new(if found.hostname.is_empty() { hop.host } else { found.hostname })
            .port(hop.port.or(found.port).unwrap_or(22))
            .user(hop.user.or(found.user).unwrap_or_else(|| user.clone()))
            .host_key(policy.clone());
        target = target.jump(auth.iter().cloned().fold(jump, SshTarget::auth));
    }
    Ok(target)
}

fn resolve(config: Option<&SshConfig>, alias: &str) -> ResolvedHost {
    config.map(|c| c.resolve(alias)).unwrap_or_default()
}

fn hops(ssh: &Ssh, found: &ResolvedHost) -> Result<Vec<JumpSpec>, Failure> {
    if ssh.jump.is_empty() {
        return Ok(found.proxy_jump.clone());
    }
    ssh.jump
        .iter()
        .map(|hop| {
            JumpSpec::parse(hop).ok_or_else(|| {
                Failure::new(FailureClass::Config, format!("`{hop}` is not a host to go through"))
            })
        })
        .collect()
}

/// The ways to log in, in the order in which they are tried.
async fn auth(
    ssh: &Ssh,
    found: &ResolvedHost,
    node: &Node,
    environment: &Environment,
    secrets: &Secrets,
) -> Result<Vec<AuthMethod>, Failure> {
    let mut auth = Vec::new();
    let passphrase = match &ssh.passphrase {
        Some(source) => Some(secrets.resolve(source, "passphrase of the SSH key").await?),
        None => None,
    };
    if let Some(identity) = &ssh.identity {
        let path = environment.path(identity);
        private(&path, "private SSH key")?;
        auth.push(AuthMethod::KeyFile { path, passphrase: passphrase.clone() });
    }
    for identity in &found.identity_files {
        let path = environment.path(identity);
        if path.is_file() {
            auth.push(AuthMethod::KeyFile { path, passphrase: passphrase.clone() });
        }
    }
    if ssh.agent.unwrap_or(true)
        && let Some(socket) = &environment.ssh_agent
    {
        auth.push(AuthMethod::Agent { socket: socket.clone() });
    }
    if let Some(source) = &ssh.password {
        auth.push(AuthMethod::Password(
            secrets.resolve(source, &format!("SSH password of {}", node.name)).await?,
        ));
    }
    Ok(auth)
}

async fn read_config(environment: &Environment, path: &std::path::Path) -> Result<SshConfig, Failure> {
    let path = environment.path(path);
    let text = tokio::fs::read_to_string(&path).await.map_err(|e| {
        Failure::new(FailureClass::Config, format!("cannot read the SSH configuration `{}`", path.display()))
            .source(e)
    })?;
    Ok(SshConfig::parse(&text))
}

fn policy(keys: Option<&HostKeys>) -> Result<HostKeyPolicy, Failure> {
    Ok(match keys {
        None | Some(HostKeys::AcceptNew) => HostKeyPolicy::AcceptNew,
        Some(HostKeys::Strict) => HostKeyPolicy::Strict,
        Some(HostKeys::Pinned(keys)) => HostKeyPolicy::Pinned(
            keys.iter()
                .map(|k| {
                    Fingerprint::from_str(k).map_err(|e| {
                        Failure::new(FailureClass::Config, format!("`{k}` is not a host key fingerprint"))
                            .source(e)
                    })
                })
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// The logins that images are delivered with, beside the known ones, by image.
pub(crate) async fn image_logins(
    document: &Document,
    secrets: &Secrets,
) -> Result<BTreeMap<String, Credentials>, Failure> {
    let mut logins = BTreeMap::new();
    for (name, image) in &document.images {
        if let Some(login) = &image.login {
            let what = format!("password of {} in the image {name}", login.username);
            let password = secrets.resolve(&login.password, &what).await?;
            logins.insert(name.clone(), Credentials::new(&login.username, password));
        }
    }
    Ok(logins)
}

/// All images, complete.
pub(crate) fn images(
    document: &Document,
    environment: &Environment,
) -> Result<BTreeMap<String, ImageSpec>, Failure> {
    document
        .images
        .iter()
        .map(|(name, image)| Ok((name.clone(), image_spec(name, image, environment)?)))
        .collect()
}

fn image_spec(name: &str, image: &Image, environment: &Environment) -> Result<ImageSpec, Failure> {
    let wrong = |what: &str| {
        Failure::new(FailureClass::Config, format!("the {what} of image `{name}` is not usable"))
    };
    let catalogue = Catalogue::embedded()?;
    let entry = catalogue.find(&image.source);
    let source = match entry.and_then(|entry| entry.urls.first()) {
        Some(url) => Source::Url(url.clone()),
        None if image.source.contains("://") => {
            image.source.parse::<Source>().map_err(|e| wrong("source").source(e))?
        }
        None => Source::Path(environment.path(image.source.as_ref())),
    };
    let sha256 = match &image.sha256 {
        Some(text) => Some(
            text.to_lowercase()
                .parse()
                .map_err(|e: turingpi_cluster::fetch::InvalidSha256| wrong("sha256").source(e))?,
        ),
        None => entry.and_then(|entry| entry.sha256()).cloned(),
    };
    Ok(ImageSpec { name: name.to_owned(), source, sha256 })
}

/// The public keys that freshly flashed nodes get.
pub(crate) async fn authorized_keys(
    document: &Document,
    environment: &Environment,
    secrets: &Secrets,
) -> Result<Vec<String>, Failure> {
    let mut keys = document.first_boot.authorized_keys.clone();
    let flashed = document.nodes.iter().any(|n| n.image.is_some());
    if let (true, Some(identity)) = (flashed, &document.ssh.identity) {
        let passphrase = match &document.ssh.passphrase {
            Some(source) => Some(secrets.resolve(source, "passphrase of the SSH key").await?),
            None => None,
        };
        let path = environment.path(identity);
        let key = turingpi_ssh::public_key_line(&path, passphrase.as_ref()).await.map_err(|e| {
            Failure::new(FailureClass::Config, format!("cannot read the public key of `{}`", path.display()))
                .hint(format!("Make a key with `ssh-keygen -t ed25519 -f {}`, or name yours under `ssh: {{ identity: … }}`.", path.display()))
                .source(e)
        })?;
        identity::belongs(&path, &key).await?;
        keys.push(key);
    }
    Ok(keys)
}

/// More known_hosts files to believe.
pub(crate) fn extra_known_hosts(document: &Document, environment: &Environment) -> Vec<PathBuf> {
    let own = document.nodes.iter().filter_map(|n| n.ssh.as_ref()?.known_hosts.as_ref());
    let mut files: Vec<PathBuf> =
        document.ssh.known_hosts.iter().chain(own).map(|p| environment.path(p)).collect();
    files.sort();
    files.dedup();
    files
}

/// The node's address as a static one, when the document asks for that.
pub(crate) fn static_address(document: &Document, node: &NodeSpec) -> Result<Option<StaticAddress>, Failure> {
    let Some(wanted) = &document.first_boot.static_address else { return Ok(None) };
    let wrong =
        |what: &str| Failure::new(FailureClass::Config, format!("first-boot.static.{what} is not usable"));
    let address = IpNet::new(node.address, wanted.prefix).map_err(|e| wrong("prefix").source(e))?;
    let gateway = wanted.gateway.parse().map_err(|e: std::net::AddrParseError| wrong("gateway").source(e))?;
    let dns = wanted
        .dns
        .iter()
        .map(|server| server.parse().map_err(|e: std::net::AddrParseError| wrong("dns").source(e)))
        .collect::<Result<_, _>>()?;
    Ok(Some(StaticAddress { address, gateway: Some(gateway), dns, interface: wanted.interface.clone() }))
}

/// The k3s section, with the version and channel of the document, paths of this machine and logins of registries.
pub(crate) async fn k3s(
    document: &Document,
    environment: &Environment,
    secrets: &Secrets,
) -> Result<K3sSpec, Failure> {
    let mut spec = document.k3s.clone();
    if let Some(version) = &document.version {
        spec.version = Some(version.parse().map_err(|e: turingpi_k3s::BadVersion| {
            Failure::new(FailureClass::Config, format!("`{version}` is not a k3s release")).source(e)
        })?);
    }
    if let Some(channel) = &document.channel {
        spec.channel.clone_from(channel);
    }
    if let Some(registries) = spec.registries.take() {
        spec.registries = Some(registries::resolved(registries, secrets).await?);
    }
    if let InstallMode::Airgap { folder } = &mut spec.install {
        *folder = environment.path(folder);
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::SecretProvider;

    struct Nobody;
    #[async_trait::async_trait]
    impl SecretProvider for Nobody {
        async fn env(&self, _: &str) -> Option<secrecy::SecretString> {
            None
        }
        async fn prompt(&self, _: &str) -> Option<secrecy::SecretString> {
            None
        }
    }

    #[test]
    fn an_image_is_a_name_of_the_catalogue_an_address_or_a_path() {
        let environment = Environment {
            base: "/lab".into(),
            home: None,
            state_dir: "/lab/state".into(),
            cache_dir: "/lab/cache".into(),
            proxy: crate::Proxy::default(),
            ssh_agent: None,
            secrets: std::sync::Arc::new(Nobody),
            timing: turingpi_engine::Timing::default(),
            owner: String::new(),
            version: String::new(),
        };
        let spec = |source: &str| {
            image_spec("os", &Image { source: source.to_owned(), sha256: None, login: None }, &environment)
                .unwrap()
        };
        let named = spec("raspios");
        assert!(named.source.to_string().starts_with("https://downloads.raspberrypi.com/"), "{named:?}");
        assert!(named.sha256.is_some());
        let moving = spec("armbian");
        assert!(moving.sha256.is_none() && matches!(moving.source, Source::Url(_)), "{moving:?}");
        assert_eq!(spec("./raspios").source, Source::Path("/lab/./raspios".into()));
        assert!(matches!(spec("https://example.org/a.img.xz").source, Source::Url(_)));
    }
}
