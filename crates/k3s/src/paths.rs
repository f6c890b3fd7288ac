//! Where k3s keeps what, and what we write beside it.

/// The binary.
pub(crate) const BINARY: &str = "/usr/local/bin/k3s";
/// Links to the binary.
pub(crate) const LINKS: [&str; 3] = ["/usr/local/bin/kubectl", "/usr/local/bin/crictl", "/usr/local/bin/ctr"];
/// The user's own settings; never written by us.
pub(crate) const USER_CONFIG: &str = "/etc/rancher/k3s/config.yaml";
/// Our settings. A drop-in, so that the user's own file survives.
pub(crate) const CONFIG: &str = "/etc/rancher/k3s/config.yaml.d/50-turingpi.yaml";
/// Registry mirrors and credentials.
pub(crate) const REGISTRIES: &str = "/etc/rancher/k3s/registries.yaml";
/// The admin kubeconfig of a server.
pub(crate) const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
/// The data of server and agent.
pub(crate) const DATA: &str = "/var/lib/rancher/k3s";
/// A server's join token in its full form.
pub(crate) const SERVER_TOKEN: &str = "/var/lib/rancher/k3s/server/token";
/// Archives of container images that k3s imports at start.
pub(crate) const IMAGES: &str = "/var/lib/rancher/k3s/agent/images";
/// What the running service was started with: a digest over the files it reads.
pub(crate) const APPLIED: &str = "/var/lib/turingpi/k3s-applied";
/// The name of the cluster that a run of ours set this node up for. Stays as long as k3s's data does.
pub(crate) const CLUSTER: &str = "/var/lib/turingpi/k3s-cluster";
