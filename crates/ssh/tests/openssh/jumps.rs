//! Going through other hosts.

use turingpi_ssh::{Command, HostKeyPolicy, KnownHosts, RusshConnector, SshConnector, SshError};

use crate::sshd::Sshd;

/// A file that knows all of these servers.
fn knowing(servers: &[&Sshd]) -> RusshConnector {
    let path = servers[0].path("all_known");
    for server in servers {
        KnownHosts::append(&path, "127.0.0.1", server.port, &server.host_key("ed25519")).unwrap();
    }
    RusshConnector::builder().known_hosts(path).build()
}

#[tokio::test]
async fn a_host_is_reached_through_a_chain_of_others() {
    let (Some(first), Some(second), Some(last)) = (Sshd::start(), Sshd::start(), Sshd::start()) else {
        return;
    };
    let connector = knowing(&[&first, &second, &last]);
    let target = last.target().jump(first.target()).jump(second.target());
    let client = connector.connect(&target).await.unwrap();
    let output =
        client.run(&Command::script("echo $SSH_CONNECTION; head -c 3000000 /dev/zero >&2")).await.unwrap();
    assert!(output.stdout_text().trim().ends_with(&last.port.to_string()), "{}", output.stdout_text());
    assert_eq!(output.stderr.len(), 3_000_000);
    first.cut();
    assert!(client.run(&Command::script(":")).await.is_err());
    assert!(!client.is_alive(), "a hop that is gone takes the connection with it");

    // The same chain written the other way: a hop that has a hop of its own.
    let target = last.target().jump(second.target().jump(first.target()));
    let client = connector.connect(&target).await.unwrap();
    assert!(client.run(&Command::script(":")).await.unwrap().success());
    client.close().await;
}

#[tokio::test]
async fn the_key_of_every_hop_is_checked() {
    let (Some(first), Some(last)) = (Sshd::start(), Sshd::start()) else { return };
    let target = || last.target().jump(first.target());
    let error = knowing(&[&last]).connect(&target()).await.map(drop).unwrap_err();
    assert!(matches!(error, SshError::HostKeyUnknown { .. }), "{error:?}");
    let error = first.connector().build().connect(&target()).await.map(drop).unwrap_err();
    assert!(matches!(error, SshError::HostKeyUnknown { .. }), "{error:?}");
    let right = HostKeyPolicy::Pinned(vec![first.host_key("ed25519").fingerprint()]);
    let wrong = HostKeyPolicy::Pinned(vec![last.host_key("ed25519").fingerprint()]);
    let pinned = |policy| last.target().host_key(wrong.clone()).jump(first.target().host_key(policy));
    let connector = RusshConnector::builder().build();
    assert!(
        connector.connect(&pinned(right)).await.is_ok(),
        "the last key is pinned rightly and so is the first"
    );
    let error = connector.connect(&pinned(wrong.clone())).await.map(drop).unwrap_err();
    assert!(matches!(error, SshError::HostKeyChanged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_hop_that_does_not_forward_or_cannot_reach_says_so() {
    let (Some(closed), Some(open)) = (Sshd::with("AllowTcpForwarding no"), Sshd::start()) else { return };
    let connector = knowing(&[&closed, &open]);
    let error = connector.connect(&open.target().jump(closed.target())).await.map(drop).unwrap_err();
    assert!(matches!(error, SshError::JumpRefused { .. }) && !error.is_transient(), "{error:?}");
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let error =
        connector.connect(&open.target().port(nobody).jump(open.target())).await.map(drop).unwrap_err();
    assert!(
        matches!(error, SshError::Connect { port, .. } if port == nobody) && error.is_transient(),
        "{error:?}"
    );
}
