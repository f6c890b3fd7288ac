//! What a server answers its agents on the port of the API: `/v1-k3s/…`.

use std::sync::{Arc, OnceLock};

use axum::{Router, extract::State, http::HeaderMap, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use turingpi_testkit::{ApiServer, Gvr};

/// What agents are checked against.
pub(crate) struct Door {
    pub(crate) token: String,
    pub(crate) agent_token: Option<String>,
    pub(crate) pods: String,
    /// Set once the server is built: it is built with the router that needs it.
    pub(crate) api: OnceLock<Arc<ApiServer>>,
}

type Answer = Result<String, (StatusCode, String)>;

pub(crate) fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/v1-k3s/config", get(config))
        .route("/v1-k3s/client-kubelet.crt", get(client_kubelet))
        .with_state(door)
}

fn refused(code: StatusCode, why: &str) -> (StatusCode, String) {
    (code, why.to_owned())
}

impl Door {
    fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let given = headers
            .get("authorization")
            .and_then(|v| v.to_str().ok()?.strip_prefix("Basic "))
            .and_then(|v| String::from_utf8(STANDARD.decode(v).ok()?).ok());
        let fits = given.as_deref().and_then(|g| g.split_once(':')).is_some_and(|(user, password)| {
            let server = password == self.token && (user == "server" || user == "node");
            server || (user == "node" && self.agent_token.as_deref() == Some(password))
        });
        if fits { Ok(()) } else { Err(refused(StatusCode::UNAUTHORIZED, "Unauthorized")) }
    }

    fn api(&self) -> Result<&Arc<ApiServer>, (StatusCode, String)> {
        self.api.get().ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE, "runtime core not ready"))
    }

    /// Notes the password of a node that joins, or compares it with the one it joined with.
    pub(crate) fn node_password(&self, name: &str, password: &str) -> Result<(), (StatusCode, String)> {
        let store = self.api()?.store();
        let hash = STANDARD.encode(format!("$1:{}:15:8:1", hex::encode(Sha256::digest(password))));
        let secret = format!("{name}.node-password.k3s");
        if let Some(known) = store.find(&Gvr::SECRETS, Some("kube-system"), &secret) {
            let same = known.pointer("/data/hash").and_then(|h| h.as_str()) == Some(hash.as_str());
            let why = "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-password entry, try enabling a unique node name with the --with-node-id flag";
            return if same { Ok(()) } else { Err(refused(StatusCode::FORBIDDEN, why)) };
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": "kube-system"},
            "type": "Opaque", "immutable": true, "data": {"hash": hash}
        });
        let made = store.create(&Gvr::SECRETS, Some("kube-system"), object);
        made.map(drop).map_err(|e| refused(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))
    }
}

async fn config(State(door): State<Arc<Door>>, headers: HeaderMap) -> Answer {
    door.check(&headers)?;
    door.api()?;
    Ok(json!({ "cluster-cidr": door.pods }).to_string())
}

async fn client_kubelet(State(door): State<Arc<Door>>, headers: HeaderMap) -> Answer {
    door.check(&headers)?;
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (name, password) = (header("k3s-Node-Name"), header("k3s-Node-Password"));
    if name.is_empty() || password.is_empty() {
        return Err(refused(StatusCode::BAD_REQUEST, "node name or node password not set"));
    }
    door.node_password(&name, &password)?;
    let issued = door.api()?.pki().issue_client(&format!("system:node:{name}"), &["system:nodes"]);
    let issued = issued.map_err(|e| refused(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
    Ok(format!("{}{}", issued.chain_pem(), issued.key_pem()))
}
