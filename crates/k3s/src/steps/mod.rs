//! The steps of k3s. Each looks first, and each reads back what it changed.

mod api;
mod back;
mod binary;
mod files;
mod forget;
mod quorum;
mod run;
mod token;

use sha2::{Digest, Sha256};

pub(crate) use api::ApiStep;
pub(crate) use back::{After, BackInCluster};
pub(crate) use binary::{Binary, Images, binary_record};
pub(crate) use files::{ConfigStep, RegistriesTask, UnitTask};
pub(crate) use forget::ForgetNode;
pub(crate) use run::RunStep;
pub(crate) use token::TokenStep;

/// SHA-256 as 64 hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
