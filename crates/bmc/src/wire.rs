//! Everything between a typed call and the bytes of HTTP: one connection, one login, one call at a time.

pub(crate) mod answer;
mod auth;
mod call;
mod connection;
pub(crate) mod patient;
mod payload;
mod place;
mod session;

#[cfg(test)]
mod fuzz;

pub(crate) use call::{Call, Method};
pub(crate) use connection::{Broken, Connection, handshake};
pub(crate) use payload::{ImageBody, Payload, Sent};
pub(crate) use place::Place;
pub(crate) use session::{Line, Session, Settings};

use bytes::Bytes;

/// A complete answer, before anybody has looked at it.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Whether the content type says HTML.
    pub(crate) html: bool,
    /// Seconds of a `Retry-After` header.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Bytes,
}
