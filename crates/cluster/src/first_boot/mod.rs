//! From a system that nobody has touched to one that only our key opens.

mod console;
mod dialogue;
mod evidence;
mod job;
mod network;
pub(crate) mod screen;
mod spec;
mod step;
#[cfg(test)]
mod tests;
mod way_in;

pub use dialogue::{Dialogue, Line, Stuck, Turn};
pub(crate) use spec::nonce;
pub use spec::{Credentials, FirstBootSpec, StaticAddress, root_password_key};
pub(crate) use step::FirstBootStep;
