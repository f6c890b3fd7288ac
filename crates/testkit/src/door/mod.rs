//! The doors that belong to nodes.

pub(crate) mod sshd;
