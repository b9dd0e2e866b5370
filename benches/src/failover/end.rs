//! When the bench has to end although not everything is measured: its time is over, or somebody interrupted it. What
//! runs then is unwound, so that processes, directories and networks go with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::{Outcome, other};

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The last moment at which a run may begin.
#[derive(Clone, Copy, Debug)]
pub struct End(Instant);

impl End {
    /// So many minutes from now, or at SIGINT, SIGTERM or SIGHUP, which no longer end this process by themselves.
    ///
    /// # Errors
    /// That the system does not let signals be handled.
    pub fn after(minutes: u64) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let mut signals = {
                let _entered = runtime.enter();
                signal(kind)?
            };
            runtime.spawn(async move {
                signals.recv().await;
                IS_INTERRUPTED.store(true, Ordering::Relaxed);
                eprintln!("interrupted: everything that was started is being ended");
            });
        }
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self(Instant::now() + Duration::from_secs(60 * minutes)))
    }

    /// Why no run may begin any more; `None` while one may.
    #[must_use]
    pub fn reached(self) -> Option<&'static str> {
        if is_interrupted() {
            Some("interrupted")
        } else {
            (Instant::now() > self.0).then_some("out of time")
        }
    }
}

/// Whoever waits asks this again and again.
///
/// # Errors
/// That the bench was interrupted.
pub fn go_on() -> Outcome<()> {
    if is_interrupted() {
        return Err(other("interrupted").into());
    }
    Ok(())
}

fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}
