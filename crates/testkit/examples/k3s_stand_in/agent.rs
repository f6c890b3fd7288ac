//! `k3s agent`: tries until its server lets it in, then plays the kubelet.

use std::time::Duration;

use crate::{
    client::{self, Token},
    config::Config,
    files,
    kubelet::Kubelet,
    log, traces,
};

/// What the server hands to an agent it lets in.
struct Admission {
    ca: String,
    certificate: String,
    key: String,
    /// Where pods of the cluster live.
    pods: String,
}

pub(crate) async fn run(config: &Config, version: &str) -> Result<(), String> {
    let url = config.text("server").ok_or("--server is required")?;
    let token = config.text("token").ok_or("--token is required")?;
    if !url.starts_with("https://") {
        return Err(format!("invalid URL {url}: only https:// URLs are supported for --server"));
    }
    let (name, address) = (files::node_name(config), files::node_ip(config)?);
    let password = files::node_password()?;
    let admission = loop {
        match admit(&url, &token, &name, &password).await {
            Ok(admission) => break admission,
            Err(message) => log::error(&message),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    files::folder(&format!("{}/agent", files::DATA), 0o755)?;
    for (file, text) in [
        ("server-ca.crt", &admission.ca),
        ("client-kubelet.crt", &admission.certificate),
        ("client-kubelet.key", &admission.key),
    ] {
        files::write(&format!("{}/agent/{file}", files::DATA), text.as_bytes(), 0o600)?;
    }
    let client = client::trusting(&admission.ca, Some((&admission.certificate, &admission.key)))?;
    let kubelet = Kubelet {
        client,
        url: url.clone(),
        name,
        address,
        version: version.to_owned(),
        config,
        server: false,
        voter: false,
    };
    let cidr = kubelet.register().await?;
    traces::leave(&url, &admission.pods, &cidr);
    files::notify_ready()?;
    kubelet.beat().await
}

/// One try to be let in.
async fn admit(url: &str, token: &str, name: &str, password: &str) -> Result<Admission, String> {
    let token =
        Token::parse(token).map_err(|e| format!("failed to validate connection to cluster at {url}: {e}"))?;
    let ca = client::cluster_ca(url, &token)
        .await
        .map_err(|e| format!("failed to validate connection to cluster at {url}: {e}"))?;
    let client = client::trusting(&ca, None)?;
    let waiting =
        |why: String| format!("Waiting to retrieve agent configuration; server is not ready: {why}");
    let ask = async |path: &str| -> Result<String, String> {
        let request = client
            .get(format!("{url}{path}"))
            .basic_auth(&token.user, Some(&token.password))
            .header("k3s-Node-Name", name)
            .header("k3s-Node-Password", password);
        let answer =
            request.send().await.map_err(|e| waiting(format!("{url}{path}: {}", client::why(&e))))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| waiting(client::why(&e)))?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(waiting(format!("{url}{path}: {status}: {}", text.trim())))
        }
    };
    let config: serde_json::Value =
        serde_json::from_str(&ask("/v1-k3s/config").await?).map_err(|e| waiting(e.to_string()))?;
    let pair = ask("/v1-k3s/client-kubelet.crt").await?;
    let at = pair.find("-----BEGIN EC PRIVATE KEY").ok_or_else(|| waiting("no key came".to_owned()))?;
    let (certificate, key) = pair.split_at(at);
    Ok(Admission {
        ca,
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        pods: config.get("cluster-cidr").and_then(|v| v.as_str()).unwrap_or("10.42.0.0/16").to_owned(),
    })
}
