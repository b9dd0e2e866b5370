//! What happened, when, and how long each step took.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use daymark_broker_core::failover::Note;
use serde::Serialize;

/// How many events are kept.
const EVENTS_MAX: usize = 256;

/// One event with a stable code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// The code, for example `lock-taken`.
    pub(crate) step: &'static str,
    /// The code and what it says beyond it.
    pub(crate) text: String,
    /// When: microseconds since 1970 UTC on this machine's clock.
    pub(crate) at_unix_us: u64,
    /// How long after the event before it, in microseconds on a monotonic clock.
    pub(crate) took_us: u64,
}

/// The latest events, and those of the last way into office from its first sign to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    events: VecDeque<Entry>,
    /// The way into office under way, if one is.
    begun: Option<Vec<Entry>>,
    promotion: Vec<Entry>,
    last: Option<Instant>,
}

impl Timeline {
    /// Records a note as of now.
    pub(crate) fn record(&mut self, note: &Note) {
        let now = Instant::now();
        let took = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Entry {
            step: note.code(),
            text: note.to_string(),
            at_unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX),
            took_us: took.map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        };
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(entry.clone());
        self.follow(note, entry);
    }

    /// A way into office begins with a suspicion, or with the promotion itself where nobody was suspected.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only its beginning and its end are told apart"
    )]
    fn follow(&mut self, note: &Note, entry: Entry) {
        match note {
            Note::Suspected { .. } | Note::PlannedShutdown { .. } | Note::TakingOver { .. } => {
                self.begun = Some(Vec::new())
            }
            Note::Promoting => self.begun = Some(self.begun.take().unwrap_or_default()),
            Note::Published if self.begun.is_none() && !self.is_published() => {
                self.promotion.push(entry);
                return;
            }
            _ => {}
        }
        let Some(begun) = &mut self.begun else {
            return;
        };
        if begun.len() < EVENTS_MAX {
            begun.push(entry);
        }
        match note {
            Note::Active { .. } => self.promotion = self.begun.take().unwrap_or_default(),
            Note::Cleared { .. } | Note::Standby { .. } => self.begun = None,
            _ => {}
        }
    }

    fn is_published(&self) -> bool {
        self.promotion.iter().any(|entry| entry.step == "published")
    }

    /// The last way into office that led there.
    pub(crate) fn promotion(&self) -> &[Entry] {
        &self.promotion
    }

    /// The latest events, oldest first.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Entry> {
        self.events.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_broker_core::failover::Suspicion;
    use daymark_client::proto::Epoch;

    fn steps(timeline: &Timeline) -> Vec<&'static str> {
        timeline.promotion().iter().map(|entry| entry.step).collect()
    }

    #[test]
    fn a_timeline_begins_with_the_suspicion_and_ends_in_office() {
        let peer: daymark_client::proto::MemberName = "a".parse().expect("a label");
        let suspicion = Suspicion::Dropped;
        let mut timeline = Timeline::default();
        for note in [
            Note::Discovering { attempt: 1 },
            Note::Promoting,
            Note::Active { epoch: Epoch(1) },
            Note::Suspected {
                peer: peer.clone(),
                suspicion,
            },
            Note::Confirmed { peer: peer.clone() },
            Note::Promoting,
            Note::PublishUnanswered,
            Note::Active { epoch: Epoch(2) },
            Note::LeaseLost,
            Note::Published,
            Note::Published,
            Note::Suspected {
                peer: peer.clone(),
                suspicion,
            },
            Note::Cleared { peer },
        ] {
            timeline.record(&note);
        }
        assert_eq!(
            steps(&timeline),
            [
                "suspected",
                "confirmed",
                "promoting",
                "publish-unanswered",
                "active",
                "published"
            ]
        );
        assert_eq!(timeline.events().count(), 13);
    }
}
