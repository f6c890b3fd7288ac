//! One bar for bytes.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Global, Output};

/// A bar on standard error; nothing where nobody would see it. Gone when it is dropped.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn new(global: &Global, name: &str) -> Self {
        if global.output == Output::Json || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        bar.set_message(name.chars().take(24).collect::<String>());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(Some(bar))
    }

    /// Shows how far it is.
    pub(crate) fn show(&self, done: u64, total: Option<u64>) {
        let Some(bar) = &self.0 else { return };
        let template = match (total, bar.length()) {
            (Some(total), known) if known != Some(total) => {
                bar.set_length(total);
                Some("{msg:24} {bar:16} {binary_bytes:>10} of {binary_total_bytes:<10} {eta:>5}")
            }
            (None, None) if bar.position() == 0 => Some("{msg:24} {spinner} {binary_bytes:>10}"),
            _ => None,
        };
        if let Some(Ok(style)) = template.map(ProgressStyle::with_template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
