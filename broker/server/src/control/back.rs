//! How soon the clients of the broker before are back.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::timeline::CLIENT_CODES;
use crate::messaging::Messaging;

/// Between two counts.
const COUNT: Duration = Duration::from_millis(5);
/// Who is not back by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the three moments, and how many clients there were then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Back {
    pub(super) code: &'static str,
    pub(super) clients: u64,
}

/// Waits for the next moment that was not reached yet: the first client, half of those expected, all of them.
/// `None` if it does not come in time, or the term is over.
pub(super) async fn next(messaging: Weak<Messaging>, expected: u64, reached: usize) -> Option<Back> {
    let code = CLIENT_CODES.get(reached)?;
    let wanted = [1, expected.div_ceil(2), expected][reached];
    if wanted == 0 {
        return None; // Nobody was connected before, so only the first is told.
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let clients = u64::try_from(messaging.upgrade()?.clients()).unwrap_or(u64::MAX);
        if clients >= wanted {
            return Some(Back { code, clients });
        }
        tokio::time::sleep(COUNT).await;
    }
    None
}
