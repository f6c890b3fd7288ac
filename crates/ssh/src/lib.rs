//! Runs commands on a node and moves files over SSH, with host keys that are really checked.
//!
//! For: one login host of a cluster, driven by a program. [`SshConnector`] opens a connection, [`SshClient`] runs scripts
//! and moves files over it; [`RusshConnector`] is the implementation. Not for: terminals, port forwarding, SFTP, agents of
//! others, or hosts without a POSIX shell.
//!
//! ```no_run
//! use turingpi_ssh::{AuthMethod, Command, HostKeyPolicy, RemoteFile, RusshConnector, SshConnector, SshTarget};
//!
//! # async fn example() -> Result<(), turingpi_ssh::SshError> {
//! let connector = RusshConnector::builder()
//!     .known_hosts("cluster/known_hosts")
//!     .on_new_host_key(|new| eprintln!("{} has the key {}", new.host, new.fingerprint))
//!     .build();
//! let target = SshTarget::new("10.10.88.73")
//!     .user("ubuntu")
//!     .auth(AuthMethod::KeyFile { path: "id_ed25519".into(), passphrase: None })
//!     .host_key(HostKeyPolicy::AcceptNew);
//! let node = connector.connect(&target).await?;
//! let output = node.run(&Command::script("systemctl is-active \"$1\"").arg("k3s").as_root()).await?;
//! if !output.success() {
//!     node.write(&RemoteFile::new("/etc/rancher/k3s/config.yaml", "disable: [traefik]\n"), &mut |_, _| {}).await?;
//! }
//! node.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The parsers stand on their own:
//!
//! ```
//! use turingpi_ssh::{HostKey, KnownHosts, SshConfig, Verdict};
//!
//! let config = SshConfig::parse("Host node?\n  HostName %h.lan\n  ProxyJump admin@gate:2222\n");
//! assert_eq!(config.resolve("node1").hostname, "node1.lan");
//!
//! let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
//! let hosts = KnownHosts::parse(&format!("*.lan,!node2.lan {key}"));
//! let shown = HostKey::from_openssh(key).ok_or("no key")?;
//! assert_eq!(hosts.lookup("node1.lan", 22, &shown), Verdict::Known);
//! assert_eq!(hosts.lookup("node2.lan", 22, &shown), Verdict::Unknown);
//! # Ok::<(), &str>(())
//! ```
//!
//! # What always holds
//! - A host's key is known, signed by a known authority, pinned, or new and written down. There is no fourth way, and a
//!   host that is known by another type of key is not new.
//! - Scripts, arguments and secrets travel on standard input: none of them shows in the node's list of processes.
//! - A script is read to its end before any of it runs, and finds an empty standard input.
//! - An exit status other than 0 is data. No status at all is an error.
//! - A run that passes its limit, or whose future is dropped, is stopped on the node with everything it started.
//! - A file has its old or its new content, mode and owner, never something between; its digest was compared on the node.
//! - A wrong password is given once. Nothing here retries; see [`SshError::is_transient`].
//!
//! # On the wire
//! A script is run by `exec /bin/sh -s`, behind `sudo -n --` or `sudo -S -k -p … --` when it needs to be root. Files up to
//! 64 KiB travel inside a script; larger ones as the standard input of
//! `exec /bin/sh -c '…; tee -a "$1" | sha256sum' turingpi-receive <part> replace|append`. The node needs a POSIX shell and
//! the usual small programs (coreutils, find, df); `openssl` is used for digests where there is one, because it is faster.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod client;
mod command;
mod connector;
mod error;
mod exec;
mod feed;
mod file;
mod fingerprint;
mod hostkey;
mod known_hosts;
mod link;
mod login;
#[cfg(feature = "mock")]
mod mock;
mod noise;
mod pattern;
mod public_key;
mod session;
mod shell;
mod ssh_config;
mod stop;
mod sudo;
mod target;
mod transfer;

#[cfg(feature = "mock")]
pub use client::MockSshConnector;
pub use client::{SshClient, SshConnector};
pub use command::{Chunk, Command, Output, Status};
pub use connector::{NewHostKey, RusshConnector, RusshConnectorBuilder};
pub use error::{SshError, SshErrorKind, SudoProblem};
pub use file::{Content, RemoteFile, Written};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use known_hosts::{HostKey, KnownHosts, Verdict};
#[cfg(feature = "mock")]
pub use mock::MockSshClient;
pub use public_key::public_key_line;
pub use session::RusshClient;
pub use shell::quote;
pub use ssh_config::{ConfigWarning, JumpSpec, ResolvedHost, SshConfig};
pub use target::{AuthMethod, HostKeyPolicy, SshTarget};
