//! Proving who we are.

use std::{
    fs,
    process::{Child, Command as Process, Stdio},
};

use russh::MethodKind;
use turingpi_ssh::{
    AuthMethod, Fingerprint, HostKey, RusshConnector, SshConnector, SshError, SshErrorKind, SshTarget,
};

use crate::{
    small_server::{Manners, SmallServer},
    sshd::{Sshd, keygen, output_of, tool},
};

impl Sshd {
    /// Makes another key pair that is let in.
    fn another_key(&self, name: &str, kind: &str, passphrase: &str, extra: &[&str]) {
        keygen(&self.path(name), kind, passphrase, extra);
        let mut keys = fs::read_to_string(self.path("authorized_keys")).unwrap();
        keys += &fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        fs::write(self.path("authorized_keys"), keys).unwrap();
    }

    async fn login(&self, target: &SshTarget) -> Result<(), SshError> {
        self.connector().build().connect(target).await.map(drop)
    }

    fn print(&self, name: &str) -> Fingerprint {
        HostKey::from_openssh(&fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap())
            .unwrap()
            .fingerprint()
    }
}

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let Some(sshd) = Sshd::start() else { return };
    for (name, kind, extra) in [
        ("ecdsa256", "ecdsa", vec!["-b", "256"]),
        ("ecdsa384", "ecdsa", vec!["-b", "384"]),
        ("ecdsa521", "ecdsa", vec!["-b", "521"]),
        ("rsa", "rsa", vec!["-b", "2048"]),
        ("rsa-pem", "rsa", vec!["-b", "2048", "-m", "PEM"]),
        ("ecdsa-pem", "ecdsa", vec!["-m", "PEM"]),
        ("rsa-pkcs8", "rsa", vec!["-b", "2048", "-m", "PKCS8"]),
    ] {
        sshd.another_key(name, kind, "", &extra);
        let outcome = sshd.login(&sshd.bare_target().auth(sshd.key(name))).await;
        assert!(outcome.is_ok(), "{name}: {outcome:?}\n{}", sshd.log());
    }
    assert!(sshd.log().contains("RSA") || sshd.log().contains("rsa-sha2"), "{}", sshd.log());
    let text = fs::read_to_string(sshd.path("client")).unwrap();
    let given = AuthMethod::Key { openssh_pem: text.into(), passphrase: None };
    sshd.login(&sshd.bare_target().auth(given)).await.unwrap();
}

#[tokio::test]
async fn an_encrypted_key_needs_its_passphrase() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.another_key("locked", "ed25519", "open sesame", &[]);
    let with = |passphrase: Option<&str>| {
        let passphrase = passphrase.map(|text| text.to_owned().into());
        sshd.bare_target().auth(AuthMethod::KeyFile { path: sshd.path("locked"), passphrase })
    };
    sshd.login(&with(Some("open sesame"))).await.unwrap();
    for (passphrase, word) in [(None, "encrypted"), (Some("wrong-4711"), "wrong")] {
        let error = sshd.login(&with(passphrase)).await.unwrap_err();
        assert!(matches!(&error, SshError::KeyFile { problem, .. } if problem.contains(word)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("4711"));
        assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Auth, false));
    }
    // A key that cannot be used does not keep the next one from working.
    sshd.login(&with(None).auth(sshd.key("client"))).await.unwrap();
    sshd.login(&sshd.bare_target().auth(sshd.key("missing")).auth(sshd.key("client"))).await.unwrap();
}

#[tokio::test]
async fn a_refused_login_tells_what_was_tried_and_is_final() {
    let Some(sshd) = Sshd::start() else { return };
    keygen(&sshd.path("stranger"), "ed25519", "", &[]);
    let target = sshd.bare_target().auth(sshd.key("stranger")).auth(sshd.key("missing"));
    let error = sshd.login(&target).await.unwrap_err();
    match &error {
        SshError::Auth { tried, remaining, .. } => {
            assert!(
                tried.len() == 2 && tried[0].contains("stranger") && tried[1].contains("missing"),
                "{tried:?}"
            );
            assert_eq!(remaining, &["publickey"]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((error.kind(), error.is_transient()), (SshErrorKind::Auth, false));
    let error = sshd.login(&sshd.bare_target()).await.unwrap_err();
    assert!(matches!(&error, SshError::Auth { tried, .. } if tried.is_empty()), "{error:?}");
}

/// ssh-agent, ended with this value.
struct Agent(Child);

impl Agent {
    fn start(sshd: &Sshd) -> Option<Self> {
        if !tool("ssh-agent") || !tool("ssh-add") {
            eprintln!("SKIPPED: no ssh-agent on this machine; this test proved nothing");
            return None;
        }
        let socket = sshd.path("agent");
        let child =
            Process::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        while !socket.exists() {
            std::thread::yield_now();
        }
        Some(Self(child))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn add(sshd: &Sshd, names: &[&str]) {
    for name in names {
        let mut command = Process::new("ssh-add");
        command.arg("-q").arg(sshd.path(name)).env("SSH_AUTH_SOCK", sshd.path("agent")).stdin(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

#[tokio::test]
async fn keys_of_an_agent_log_in() {
    let Some(sshd) = Sshd::start() else { return };
    let Some(_agent) = Agent::start(&sshd) else { return };
    let socket = sshd.path("agent");
    let all = || AuthMethod::Agent { socket: socket.clone() };
    let error = sshd.login(&sshd.bare_target().auth(all())).await.unwrap_err();
    assert!(matches!(&error, SshError::Auth { tried, .. } if tried[0].contains("no such key")), "{error:?}");
    for (name, kind) in [("one", "ed25519"), ("two", "rsa"), ("three", "ecdsa")] {
        sshd.another_key(name, kind, "", &[]);
        add(&sshd, &[name]);
        let only = vec![sshd.print(name)];
        let chosen = AuthMethod::AgentKeys { socket: socket.clone(), only };
        let outcome = sshd.login(&sshd.bare_target().auth(chosen)).await;
        assert!(outcome.is_ok(), "{kind}: {outcome:?}");
    }
    sshd.login(&sshd.bare_target().auth(all())).await.unwrap();
    let nowhere = AuthMethod::Agent { socket: sshd.path("no-agent") };
    sshd.login(&sshd.bare_target().auth(nowhere).auth(sshd.key("client"))).await.unwrap();
}

#[tokio::test]
async fn an_agent_full_of_keys_does_not_use_up_the_tries_of_the_host() {
    let Some(sshd) = Sshd::with("MaxAuthTries 4") else { return };
    let Some(_agent) = Agent::start(&sshd) else { return };
    let strangers: Vec<String> = (0..8).map(|n| format!("stranger{n}")).collect();
    for name in &strangers {
        keygen(&sshd.path(name), "ed25519", "", &[]);
        add(&sshd, &[name]);
    }
    let agent = AuthMethod::Agent { socket: sshd.path("agent") };
    let connector = sshd.connector().auth_tries(4).build();
    let error = connector.connect(&sshd.bare_target().auth(agent.clone())).await.map(drop).unwrap_err();
    match error {
        SshError::Auth { tried, .. } => {
            let told = tried.iter().any(|tried| tried.contains("more keys") || tried.contains("hung up"));
            assert!(told && tried.len() <= 6, "{tried:?}");
        }
        other => panic!("{other:?}"),
    }
    // A key that was named goes before the agent's, as it stands first.
    connector.connect(&sshd.bare_target().auth(sshd.key("client")).auth(agent)).await.unwrap();
}

#[tokio::test]
async fn a_user_certificate_beside_the_key_logs_in() {
    let Some(sshd) = Sshd::with("TrustedUserCAKeys FOLDER/user_ca.pub") else { return };
    keygen(&sshd.path("user_ca"), "ed25519", "", &[]);
    keygen(&sshd.path("signed"), "ed25519", "", &[]);
    let (ca, key) = (sshd.path("user_ca"), sshd.path("signed.pub"));
    let user = crate::sshd::user();
    output_of(
        "ssh-keygen",
        &["-q", "-s", ca.to_str().unwrap(), "-I", "test", "-n", &user, key.to_str().unwrap()],
    );
    sshd.login(&sshd.bare_target().auth(sshd.key("signed"))).await.unwrap();
}

fn asking(methods: &[MethodKind], rounds: &[&[(&str, bool)]]) -> Manners {
    let round =
        |round: &&[(&str, bool)]| round.iter().map(|(prompt, echo)| ((*prompt).to_owned(), *echo)).collect();
    let rounds = rounds.iter().map(round).collect();
    Manners { methods: methods.to_vec(), password: "right".into(), rounds, ..Manners::default() }
}

async fn with_password(server: &SmallServer, password: &str) -> Result<(), SshError> {
    let target = server.target().auth(AuthMethod::Password(password.to_owned().into()));
    RusshConnector::builder().build().connect(&target).await.map(drop)
}

const DIALOGUE: MethodKind = MethodKind::KeyboardInteractive;

#[tokio::test]
async fn a_password_logs_in_by_itself_and_as_an_answer() {
    let server = SmallServer::start(asking(&[MethodKind::Password], &[])).await;
    with_password(&server, "right").await.unwrap();
    assert_eq!(server.tried(), ["password right"]);

    let both = [DIALOGUE, MethodKind::Password];
    let server = SmallServer::start(asking(&both, &[&[("Password: ", false)]])).await;
    with_password(&server, "right").await.unwrap();
    assert_eq!(server.tried(), ["dialogue right"]);

    // Some hosts end the dialogue with a message that wants no answer.
    let server = SmallServer::start(asking(&[DIALOGUE], &[&[], &[("Passwort für admin:", false)]])).await;
    with_password(&server, "right").await.unwrap();
    assert_eq!(server.tried(), ["dialogue ", "dialogue right"]);
}

#[tokio::test]
async fn a_wrong_password_is_given_once() {
    let server =
        SmallServer::start(asking(&[DIALOGUE, MethodKind::Password], &[&[("Password: ", false)]])).await;
    let error = with_password(&server, "wrong-4711").await.unwrap_err();
    assert!(matches!(&error, SshError::Auth { .. }) && !error.is_transient(), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("4711"), "{error:?}");
    assert_eq!(server.tried(), ["dialogue wrong-4711"], "not once more by another way");
}

#[tokio::test]
async fn a_password_is_no_answer_to_other_questions() {
    for rounds in
        [&[("Verification code: ", false)][..], &[("Your name: ", true)], &[("A: ", false), ("B: ", false)]]
    {
        let server = SmallServer::start(asking(&[DIALOGUE], &[rounds])).await;
        let error = with_password(&server, "right").await.unwrap_err();
        assert!(matches!(&error, SshError::Auth { .. }), "{error:?}");
        assert!(!server.tried().iter().any(|tried| tried.contains("right")), "{:?}", server.tried());
    }
    let server = SmallServer::start(asking(&[DIALOGUE], &[&[("Current password: ", false)]])).await;
    let error = with_password(&server, "right").await.unwrap_err();
    assert!(matches!(error, SshError::PasswordExpired { .. }), "{error:?}");
    assert!(server.tried().is_empty());
}

#[tokio::test]
async fn a_host_that_hangs_up_over_the_first_key_is_shutting_down_and_over_a_password_has_refused() {
    let Some(sshd) = Sshd::start() else { return };
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    let server = SmallServer::start(Manners { hangs_up: true, ..asking(&methods, &[]) }).await;
    let target = server.target().auth(sshd.key("client"));
    let error = RusshConnector::builder().build().connect(&target).await.map(drop).unwrap_err();
    assert!(matches!(&error, SshError::HungUp { .. }) && error.is_transient(), "{error:?}");
    assert!(
        error.kind() == SshErrorKind::Unreachable && error.hint().unwrap().contains("booting"),
        "{error:?}"
    );
    let error = with_password(&server, "right").await.unwrap_err();
    assert!(matches!(&error, SshError::Auth { .. }) && !error.is_transient(), "{error:?}");
    assert_eq!(server.tried(), ["password right"], "once");
}

#[tokio::test]
async fn keys_go_before_passwords() {
    let Some(sshd) = Sshd::start() else { return };
    keygen(&sshd.path("stranger"), "ed25519", "", &[]);
    let server = SmallServer::start(asking(&[MethodKind::PublicKey, MethodKind::Password], &[])).await;
    let target =
        server.target().auth(AuthMethod::Password("wrong".to_owned().into())).auth(sshd.key("stranger"));
    let error = RusshConnector::builder().build().connect(&target).await.map(drop).unwrap_err();
    match error {
        SshError::Auth { tried, .. } => {
            assert!(tried[0].starts_with("key") && tried[1] == "password", "{tried:?}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_that_wants_two_proofs_gets_two() {
    let Some(sshd) = Sshd::with("AuthenticationMethods publickey,publickey") else { return };
    sshd.another_key("second", "ed25519", "", &[]);
    let error = sshd.login(&sshd.target()).await.unwrap_err();
    assert!(matches!(&error, SshError::Auth { tried, .. } if tried[0].contains("more asked")), "{error:?}");
    sshd.login(&sshd.target().auth(sshd.key("second"))).await.unwrap();
}
