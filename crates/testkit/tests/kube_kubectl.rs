//! The simulated API server under the real `kubectl`, when there is one in the search path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod kube_support;

use std::process::{Output, Stdio};

use kube_support::{Cluster, widgets};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};
use turingpi_testkit::Gvr;

/// `kubectl` with everything it reads and writes in a folder of its own.
struct Kubectl {
    home: tempfile::TempDir,
    cluster: Cluster,
}

impl Kubectl {
    /// Nothing, loudly, when there is no `kubectl`.
    async fn with_nodes(nodes: usize) -> Option<Self> {
        let found = Command::new("kubectl")
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        if !found.is_ok_and(|s| s.success()) {
            eprintln!(
                "SKIPPED: there is no kubectl in the search path, so nothing was proved with the real one"
            );
            return None;
        }
        let cluster = Cluster::with_nodes(nodes).await;
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("kubeconfig"), cluster.kubeconfig()).unwrap();
        Some(Self { home, cluster })
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let home = self.home.path();
        let mut child = Command::new("kubectl")
            .arg("--cache-dir")
            .arg(home.join("cache"))
            .args(arguments)
            .env("HOME", home)
            .env("KUBECACHEDIR", home.join("cache"))
            .env("KUBECONFIG", home.join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        tokio::time::timeout(kube_support::LIMIT, child.wait_with_output())
            .await
            .expect("kubectl ends")
            .unwrap()
    }

    /// Runs it until it has printed all of `parts`, then ends it.
    async fn shows(&self, line: &str, parts: &[&str]) {
        let home = self.home.path();
        let mut child = Command::new("kubectl")
            .arg("--cache-dir")
            .arg(home.join("cache"))
            .args(line.split_whitespace())
            .env("HOME", home)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut shown = String::new();
        let all = async {
            while !parts.iter().all(|part| shown.contains(part)) {
                shown += &lines.next_line().await.unwrap().expect("it goes on");
            }
        };
        tokio::time::timeout(kube_support::LIMIT, all).await.expect("kubectl shows it");
    }

    /// What it prints, which must have succeeded.
    async fn ok(&self, line: &str) -> String {
        self.ok_with(line, "").await
    }
    async fn ok_with(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.run(&arguments, input).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {line}\n{out}{err}");
        out.into_owned()
    }
    /// What it complains about, which must have failed.
    async fn fails(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.run(&arguments, input).await;
        assert!(
            !output.status.success(),
            "kubectl {line} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'nginx:1', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: plain, level: '3'}
";

#[tokio::test]
async fn kubectl_reads_the_cluster() {
    let Some(k) = Kubectl::with_nodes(2).await else { return };
    has(
        &k.ok("get nodes").await,
        &["NAME", "STATUS", "ROLES", "node1   Ready    control-plane", "node2   Ready    <none>"],
    );
    has(&k.ok("get nodes -o wide").await, &["INTERNAL-IP", "10.10.88.71", "containerd://2.1.1"]);
    let node: Value = serde_json::from_str(&k.ok("get node node1 -o json").await).unwrap();
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.35.5+k3s1");
    has(&k.ok("get node node1 -o yaml").await, &["kind: Node"]);
    assert_eq!(k.ok("get nodes -l kubernetes.io/hostname=node2 -o name").await, "node/node2\n");
    has(&k.ok("get namespaces").await, &["kube-system", "Active"]);
    has(&k.ok("get all -A").await, &["service/kubernetes", "10.43.0.1"]);
    has(&k.ok("describe node node1").await, &["PodCIDR:", "KubeletReady", "Non-terminated Pods:"]);
    has(&k.ok("api-resources").await, &["deployments", "deploy", "customresourcedefinitions"]);
    has(&k.ok("api-versions").await, &["apps/v1", "coordination.k8s.io/v1"]);
    has(&k.ok("version").await, &["Server Version: v1.35.5+k3s1"]);
    has(&k.ok("cluster-info").await, &["control plane", &k.cluster.url]);
    assert_eq!(k.ok("auth can-i create pods").await, "yes\n");
    has(&k.ok("auth can-i --list").await, &["*.*"]);
    has(&k.ok("auth whoami").await, &["system:admin"]);
    has(&k.ok("get --raw /readyz?verbose").await, &["[+]etcd ok", "readyz check passed"]);
    has(&k.ok("explain pod.spec.nodeName").await, &["KIND:       Pod", "FIELD: nodeName <string>"]);
    has(
        &k.fails("get pods --field-selector=spec.colour=red", "").await,
        &["field label not supported: spec.colour"],
    );
    has(&k.fails("get gadgets", "").await, &["doesn't have a resource type \"gadgets\""]);
    has(&k.fails("top nodes", "").await, &["Metrics API not available"]);
}

#[tokio::test]
async fn kubectl_applies_and_deletes() {
    let Some(k) = Kubectl::with_nodes(2).await else { return };
    has(
        &k.ok_with("apply -f -", WEB).await,
        &["deployment.apps/web created", "service/web created", "configmap/settings created"],
    );
    has(
        &k.ok_with("apply -f -", WEB).await,
        &["deployment.apps/web unchanged", "service/web unchanged", "configmap/settings unchanged"],
    );
    has(&k.ok("rollout status deployment/web --timeout=60s").await, &["successfully rolled out"]);
    has(&k.ok("get deployments,replicasets,pods -o wide").await, &["2/2", "nginx:1", "Running"]);
    has(
        &k.ok_with("apply -f -", &WEB.replace("nginx:1", "nginx:2")).await,
        &["deployment.apps/web configured"],
    );
    has(&k.ok("rollout status deployment/web --timeout=60s").await, &["successfully rolled out"]);
    has(&k.ok("rollout history deployment/web").await, &["\n1 ", "\n2 "]);
    has(&k.ok("rollout undo deployment/web").await, &["rolled back"]);
    k.ok("rollout status deployment/web --timeout=60s").await;
    has(&k.ok("describe deployment web").await, &["nginx:1", "NewReplicaSetAvailable", "ScalingReplicaSet"]);
    has(&k.ok("describe pod -l app=web").await, &["Successfully assigned default/web-"]);
    has(&k.ok("events").await, &["SuccessfulCreate"]);
    has(
        &k.fails("logs deployment/web", "").await,
        &["MethodNotAllowed", "simulated kubelet does not offer \"log\""],
    );
    let typo = WEB.replace("\ndata: {", "\ndataa: {");
    has(&k.fails("apply -f -", &typo).await, &["strict decoding error: unknown field \"dataa\""]);
    k.ok_with("delete -f - --timeout=60s", WEB).await;
    has(&k.fails("get deployment web", "").await, &["deployments.apps \"web\" not found"]);
    assert!(k.cluster.server.store().find(&Gvr::CONFIG_MAPS, None, "settings").is_none());
}

#[tokio::test]
async fn kubectl_applies_on_the_server_with_owners() {
    let Some(k) = Kubectl::with_nodes(1).await else { return };
    has(&k.ok_with("apply --server-side -f -", WEB).await, &["configmap/settings serverside-applied"]);
    has(&k.ok_with("apply --server-side -f -", WEB).await, &["deployment.apps/web serverside-applied"]);
    let other = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {mode: fancy}}";
    let refused = k.fails("apply --server-side --field-manager=other -f -", other).await;
    has(&refused, &["Apply failed with 1 conflict: conflict with \"kubectl\": .data.mode"]);
    k.ok_with("apply --server-side --field-manager=other --force-conflicts -f -", other).await;
    assert_eq!(k.ok("get configmap settings -o jsonpath={.data.mode}").await, "fancy");
    has(
        &k.ok("get configmap settings -o yaml --show-managed-fields").await,
        &["manager: other", "f:mode: {}", "operation: Apply"],
    );
    // A client-side applied object moves over to server-side apply.
    let plain = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: moved}, data: {a: b}}";
    k.ok_with("apply -f -", plain).await;
    k.ok_with("apply --server-side -f -", plain).await;
    k.ok_with(
        "apply --server-side -f -",
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: moved}, data: {c: d}}",
    )
    .await;
    assert_eq!(k.ok("get configmap moved -o jsonpath={.data}").await, "{\"c\":\"d\"}");
}

#[tokio::test]
async fn kubectl_changes_scales_labels_and_waits() {
    let Some(k) = Kubectl::with_nodes(2).await else { return };
    k.ok("create deployment web --image=nginx --replicas=2").await;
    has(&k.ok("wait --for=condition=Available deployment/web --timeout=60s").await, &["condition met"]);
    k.ok("scale deployment/web --replicas=3").await;
    k.ok("rollout status deployment/web --timeout=60s").await;
    assert_eq!(k.ok("get deployment web -o jsonpath={.status.readyReplicas}").await, "3");
    k.ok(r#"patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":1}]"#).await;
    k.ok(r#"patch deployment web --type=merge -p {"metadata":{"labels":{"x":"y"}}}"#).await;
    k.ok(r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"nginx:3"}]}}}}"#).await;
    assert_eq!(
        k.ok("get deployment web -o jsonpath={.spec.template.spec.containers[*].image}").await,
        "nginx:3"
    );
    k.ok("label node node1 disk=nvme").await;
    k.ok("annotate node node1 note=here").await;
    k.ok("taint node node2 reserved=yes:NoSchedule").await;
    has(&k.ok("get nodes -L disk").await, &["DISK", "nvme"]);
    has(&k.ok("get node node2 -o jsonpath={.spec.taints}").await, &["\"key\":\"reserved\""]);
    k.ok("taint node node2 reserved-").await;
    k.ok("create namespace extra").await;
    k.ok("create secret generic s -n extra --from-literal=a=b").await;
    k.ok("create configmap c -n extra --from-literal=a=b").await;
    k.ok("run p -n extra --image=busybox").await;
    has(&k.ok("get pods,secrets,configmaps -n extra").await, &["pod/p", "Opaque", "kube-root-ca.crt"]);
    k.ok("delete namespace extra --timeout=60s").await;
    has(&k.fails("get namespace extra", "").await, &["not found"]);
    k.ok("create job once --image=busybox -- true").await;
    k.ok("wait --for=condition=complete job/once --timeout=60s").await;
    k.ok("delete job once --wait=false").await;
    k.ok("wait --for=delete job/once --timeout=60s").await;
    has(&k.ok("create token default").await, &["eyJ"]);
    k.shows("get nodes -w", &["node1", "node2"]).await;
}

#[tokio::test]
async fn kubectl_drains_and_respects_budgets() {
    let Some(k) = Kubectl::with_nodes(2).await else { return };
    k.ok("create deployment web --image=nginx --replicas=2").await;
    k.ok("rollout status deployment/web --timeout=60s").await;
    k.ok("create poddisruptionbudget web --selector=app=web --min-available=2").await;
    k.cluster.until(&Gvr::POD_DISRUPTION_BUDGETS, None, "web", |b| b["status"]["currentHealthy"] == 2).await;
    let refused = k.fails("drain node2 --ignore-daemonsets --timeout=1s", "").await;
    has(&refused, &["violate the pod's disruption budget"]);
    has(&k.ok("get nodes").await, &["Ready,SchedulingDisabled"]);
    k.ok("delete poddisruptionbudget web").await;
    has(&k.ok("drain node2 --ignore-daemonsets --timeout=60s").await, &["node/node2 drained"]);
    k.ok("rollout status deployment/web --timeout=60s").await;
    let nodes = k.ok("get pods -l app=web -o jsonpath={.items[*].spec.nodeName}").await;
    assert_eq!(nodes, "node1 node1");
    has(&k.ok("uncordon node2").await, &["node/node2 uncordoned"]);
    has(&k.ok("cordon node2").await, &["node/node2 cordoned"]);
}

#[tokio::test]
async fn kubectl_uses_custom_resources_as_soon_as_they_are_established() {
    let Some(k) = Kubectl::with_nodes(1).await else { return };
    k.ok_with("apply -f -", &widgets().to_string()).await;
    k.ok("wait --for=condition=Established crd/widgets.example.com --timeout=60s").await;
    let widget = "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: one}, spec: {size: 3}}";
    has(&k.ok_with("apply -f -", widget).await, &["widget.example.com/one created"]);
    has(&k.ok_with("apply -f -", widget).await, &["widget.example.com/one unchanged"]);
    has(&k.ok("get wd").await, &["NAME   SIZE", "one    3"]);
    k.ok("scale widget/one --replicas=2").await;
    assert_eq!(k.ok("get widget one -o jsonpath={.spec.replicas}").await, "2");
    let refused = k.fails(r#"patch widget one --type=merge -p {"spec":{"size":9}}"#, "").await;
    has(&refused, &["The Widget \"one\" is invalid", "spec.size"]);
    has(&k.ok("explain widget.spec.size").await, &["KIND:       Widget", "FIELD: size <integer>"]);
    k.ok("delete crd widgets.example.com --timeout=60s").await;
    has(&k.fails("get widgets", "").await, &["widgets"]);
}
