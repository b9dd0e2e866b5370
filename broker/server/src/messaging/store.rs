//! The store behind the queues: following it, keeping it small.
//!
//! It never acknowledges anything itself. Compaction runs in small steps between the events of connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::store::AppendError;

/// How often the size of the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes recorded again in one step of a compaction.
const STEP_BYTES: u64 = 1 << 20;
/// What the store may hold beyond twice the bytes it needs. All of it is read again in a failover, for nothing.
const SLACK_BYTES: u64 = 4 << 20;

/// Tells the queues what the journal finished, as long as the process serves.
pub(super) async fn follow(shared: Arc<Shared>) {
    loop {
        shared.status.completed.notified().await;
        shared.apply_completions();
    }
}

/// Ends when the store was failed because it made nothing durable for `patience` although something waited.
///
/// Only time in which this process was awake counts: the disk had no more of it.
pub(super) async fn stalled(shared: &Shared, patience: Duration) {
    let every = (patience / 10).clamp(Duration::from_millis(1), LOOK_EVERY);
    let (mut durable, mut waited) = (shared.status.durable(), Duration::ZERO);
    while waited < patience {
        let began = Instant::now();
        tokio::time::sleep(every).await;
        let now = shared.status.durable();
        if now != durable || !shared.status.is_waiting() {
            (durable, waited) = (now, Duration::ZERO);
        } else {
            waited += began.elapsed().min(every * 2);
        }
    }
    shared.status.fail(AppendError::Stalled {
        waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    });
}

/// Keeps the store within twice the bytes it needs, and some slack.
pub(super) async fn keep_small(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(before) = overgrown(&shared) {
            compact(&shared, before).await;
        }
    }
}

/// The position that everything should be moved behind, if the store is too large.
fn overgrown(shared: &Shared) -> Option<u64> {
    let usage = shared.journal.usage();
    let needed = shared.look().queues.needed_bytes();
    let before = usage.before?;
    (usage.bytes > needed.saturating_mul(2).saturating_add(SLACK_BYTES)).then_some(before)
}

async fn compact(shared: &Arc<Shared>, before: u64) {
    tracing::debug!(before, "compaction begins");
    if let Some(mut state) = shared.lock() {
        state.queues.start_compaction(before);
    }
    loop {
        let (done, last) = {
            let Some(mut state) = shared.lock() else {
                return;
            };
            let done = state.queues.compact(STEP_BYTES);
            shared.finish(&mut state);
            state.wake_all();
            (done, state.queues.last_position())
        };
        if !became_durable(shared, last).await {
            return;
        }
        if let Some(before) = done {
            shared.journal.release_before(before);
            tracing::debug!(before, "compaction ends");
            return;
        }
    }
}

/// Waits until everything up to `position` is durable; false if the store was shut before. The pace of a
/// compaction is that of the disk.
pub(super) async fn became_durable(shared: &Shared, position: u64) -> bool {
    while shared.status.durable() < position {
        if shared.status.is_shut() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}
