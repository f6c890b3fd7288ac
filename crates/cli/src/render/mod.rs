//! Turns data and events into words and pixels. Data goes to standard output, talk to standard error.

pub(crate) mod bars;
pub(crate) mod failure;
pub(crate) mod out;
pub(crate) mod plain;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod screen;
pub(crate) mod style;
pub(crate) mod watch;
pub(crate) mod words;
