//! When the silence of naming is worth a line in the log: when it begins, once a minute while it lasts, and when
//! it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a silence that lasts is told.
const REMIND: Duration = Duration::from_secs(60);

/// The silence of naming, shared by every call to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outage(Arc<Mutex<Option<Silence>>>);

#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    told: Instant,
}

impl Outage {
    /// A call was not answered. Returns whether that is to be told.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(silence) = &mut *silence else {
            *silence = Some(Silence {
                since: now,
                told: now,
            });
            return true;
        };
        let is_due = now.saturating_duration_since(silence.told) >= REMIND;
        if is_due {
            silence.told = now;
        }
        is_due
    }

    /// A call was answered. Returns how long naming had been silent, if it had.
    pub(super) fn is_over(&self, now: Instant) -> Option<Duration> {
        let silence = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        silence.map(|silence| now.saturating_duration_since(silence.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_when_it_begins_once_a_minute_and_when_it_ends() {
        let (start, outage) = (Instant::now(), Outage::default());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(outage.is_over(start), None);
        let told: Vec<u64> = (0..150_000)
            .step_by(200)
            .filter(|ms| outage.is_silent(at(*ms)))
            .collect();
        assert_eq!(told, [0, 60_000, 120_000]);
        assert_eq!(outage.is_over(at(150_000)), Some(Duration::from_secs(150)));
        assert_eq!(outage.is_over(at(150_001)), None);
        assert!(outage.is_silent(at(150_002)), "the next silence is told again");
    }
}
