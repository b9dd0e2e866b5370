//! The passing of time, for queues that hold something that falls due: expiry, delayed delivery, the timeout
//! of a transaction.
//!
//! Connections tell the queues the time whenever they take the lock. This sees to it that somebody does.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shared::Shared;

/// The wall clock may be set: a deadline is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Milliseconds since 1970 UTC.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the queues the time when they want to hear it, as long as the process serves.
pub(super) async fn keep_time(shared: Arc<Shared>) {
    loop {
        let deadline = {
            let Some(mut state) = shared.lock() else {
                return;
            };
            state.queues.tick(now());
            shared.finish(&mut state);
            state.wake_all();
            state.armed = state.queues.deadline();
            state.armed
        };
        let due = deadline.map(|at| Duration::from_millis(at.saturating_sub(now())));
        let wait = due.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.sooner.notified() => {}
        }
    }
}
