//! `k3s kubectl get --raw PATH`, with the server's own kubeconfig.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::client;

pub(crate) async fn run(args: &[&str]) -> Result<(), String> {
    let path = match args {
        ["get", "--raw", path, ..] => path,
        _ => return Err("the stand-in's kubectl knows `get --raw PATH` only".to_owned()),
    };
    let file = "/etc/rancher/k3s/k3s.yaml";
    let text = std::fs::read_to_string(file).map_err(|e| format!("open {file}: {e}"))?;
    let config: Value = serde_saphyr::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
    let field = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let decoded = |pointer: &str| -> Result<String, String> {
        let bytes = STANDARD.decode(field(pointer)).map_err(|e| format!("{file}: {pointer}: {e}"))?;
        String::from_utf8(bytes).map_err(|e| format!("{file}: {pointer}: {e}"))
    };
    let ca = decoded("/clusters/0/cluster/certificate-authority-data")?;
    let certificate = decoded("/users/0/user/client-certificate-data")?;
    let key = decoded("/users/0/user/client-key-data")?;
    let client = client::trusting(&ca, Some((&certificate, &key)))?;
    let url = format!("{}{path}", field("/clusters/0/cluster/server"));
    let answer = client.get(&url).send().await.map_err(|e| client::why(&e))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|e| client::why(&e))?;
    if !status.is_success() {
        return Err(format!("Error from server: {status}: {body}"));
    }
    std::io::stdout().write_all(body.as_bytes()).map_err(|e| e.to_string())
}
