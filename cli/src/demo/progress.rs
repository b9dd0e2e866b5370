//! What the demo shows while it runs, on standard error: a live line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far the demo is.
#[derive(Debug)]
pub struct Progress(Shown);

#[derive(Debug)]
enum Shown {
    Live(ProgressBar),
    Lines { messages: u64, next: AtomicU64 },
    Nothing,
}

/// Plain lines come after each tenth of the messages.
const PARTS: u64 = 10;

impl Progress {
    /// On standard error, as fits what it is connected to.
    #[must_use]
    pub fn on_stderr(messages: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            let next = AtomicU64::new(messages.div_ceil(PARTS));
            return Self(Shown::Lines { messages, next });
        }
        let bar = ProgressBar::new(messages);
        let template = "{spinner} {bar:30} {pos}/{len} acknowledged, {elapsed}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Shown::Live(bar))
    }

    /// Nowhere.
    #[must_use]
    pub const fn silent() -> Self {
        Self(Shown::Nothing)
    }

    /// Something happened.
    pub(super) fn event(&self, what: &str) {
        match &self.0 {
            Shown::Live(bar) => bar.println(what),
            Shown::Lines { .. } => line(what),
            Shown::Nothing => {}
        }
    }

    /// What it is doing now, where the line is live.
    pub(super) fn doing(&self, what: &str) {
        match &self.0 {
            Shown::Live(bar) => bar.set_message(what.to_owned()),
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }

    /// So many messages are acknowledged.
    pub(super) fn acknowledged(&self, count: u64) {
        match &self.0 {
            Shown::Live(bar) => bar.set_position(count),
            Shown::Lines { messages, next } => {
                let due = next.load(Ordering::Relaxed);
                if count >= due {
                    next.store(due + messages.div_ceil(PARTS), Ordering::Relaxed);
                    line(&format!("{count} of {messages} acknowledged"));
                }
            }
            Shown::Nothing => {}
        }
    }

    /// Nothing more is shown.
    pub(super) fn finish(&self) {
        match &self.0 {
            Shown::Live(bar) => bar.finish_and_clear(),
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }
}

/// There is nobody left to tell when standard error is gone.
fn line(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
