//! What happened, when, and how long each step took.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use daymark_broker_core::failover::Note;
use daymark_client::proto::{FailoverKind, FailoverReport, FailoverStep, MemberName};
use serde::Serialize;

/// How many events are kept.
const EVENTS_MAX: usize = 256;

/// How many steps of a way into office naming is told.
const STEPS_MAX: usize = 64;

/// The codes that only a timeline has: how soon clients were back after a change of the active broker.
pub const CLIENT_CODES: [&str; 3] = ["first-client", "half-clients", "last-client"];

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
    /// What was counted.
    #[serde(skip)]
    numbers: BTreeMap<String, u64>,
    #[serde(skip)]
    at: Instant,
}

/// The latest events, and those of the last way into office from its first sign to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    events: VecDeque<Entry>,
    /// The way into office under way, if one is.
    begun: Option<Way>,
    promotion: Way,
    last: Option<Instant>,
    /// Whom this broker watched last, until somebody else's term began.
    watched: Option<MemberName>,
}

/// A way into office.
#[derive(Clone, Debug, Default)]
struct Way {
    entries: Vec<Entry>,
    kind: Option<FailoverKind>,
    from: Option<MemberName>,
}

impl Timeline {
    /// Records a note as of now.
    pub(crate) fn record(&mut self, note: &Note) {
        let before = self.last;
        let entry = self.enter(note.code(), note.to_string(), numbers(note));
        if matches!(note, Note::Member { .. }) {
            self.last = before; // What became of a member is no step of anything, and cuts none short.
            return;
        }
        self.follow(note, entry);
    }

    /// Records that so many clients are back, as part of the way into office that has ended.
    pub(crate) fn record_clients(&mut self, code: &'static str, clients: u64) {
        let numbers = BTreeMap::from([("clients".to_owned(), clients)]);
        let entry = self.enter(code, format!("{code} clients={clients}"), numbers);
        self.promotion.entries.push(entry);
    }

    fn enter(&mut self, step: &'static str, text: String, numbers: BTreeMap<String, u64>) -> Entry {
        let now = Instant::now();
        let took = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Entry {
            step,
            text,
            at_unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX),
            took_us: took.map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            numbers,
            at: now,
        };
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(entry.clone());
        entry
    }

    /// A way into office begins with a suspicion, a handover, or the promotion itself where there was neither.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only its beginning and its end are told apart"
    )]
    fn follow(&mut self, note: &Note, entry: Entry) {
        match note {
            Note::Suspected { peer, .. } => self.begin(FailoverKind::Failover, Some(peer)),
            Note::HandoverFailed { to, .. } => self.begin(FailoverKind::Failover, Some(to)),
            Note::PlannedShutdown { peer, .. } => self.begin(FailoverKind::Switchover, Some(peer)),
            Note::TakingOver {
                from,
                is_failback: true,
            } => self.begin(FailoverKind::Failback, Some(from)),
            Note::TakingOver { from, .. } => self.begin(FailoverKind::Switchover, Some(from)),
            Note::Promoting if self.begun.is_none() => match self.watched.take() {
                Some(peer) => self.begin(FailoverKind::Switchover, Some(&peer)),
                None => self.begin(FailoverKind::Start, None),
            },
            Note::Published if self.begun.is_none() && !self.is_published() => {
                self.promotion.entries.push(entry);
                return;
            }
            Note::Standby { watching } => self.watched.clone_from(watching),
            _ => {}
        }
        let Some(begun) = &mut self.begun else {
            return;
        };
        if begun.entries.len() < EVENTS_MAX {
            begun.entries.push(entry);
        }
        match note {
            Note::Active { .. } => self.promotion = self.begun.take().unwrap_or_default(),
            Note::Cleared { .. } | Note::Standby { .. } => self.begun = None,
            _ => {}
        }
    }

    fn begin(&mut self, kind: FailoverKind, from: Option<&MemberName>) {
        self.begun = Some(Way {
            entries: Vec::new(),
            kind: Some(kind),
            from: from.cloned(),
        });
    }

    fn is_published(&self) -> bool {
        self.promotion
            .entries
            .iter()
            .any(|entry| entry.step == "published")
    }

    /// The last way into office that led there.
    pub(crate) fn promotion(&self) -> &[Entry] {
        &self.promotion.entries
    }

    /// Who was active before this broker, where that is known.
    pub(crate) fn predecessor(&self) -> Option<&MemberName> {
        self.promotion.from.as_ref()
    }

    /// The last way into office as naming keeps it.
    pub(crate) fn report(&self) -> Option<FailoverReport> {
        let way = &self.promotion;
        let first = way.entries.first()?;
        let steps = way.entries.iter().take(STEPS_MAX).filter_map(|entry| {
            let at = entry.at.saturating_duration_since(first.at).as_micros();
            Some(FailoverStep {
                step: entry.step.parse().ok()?,
                at_us: u64::try_from(at).unwrap_or(u64::MAX),
                note: entry
                    .text
                    .strip_prefix(entry.step)
                    .unwrap_or("")
                    .trim_start()
                    .to_owned(),
                numbers: entry.numbers.clone(),
            })
        });
        Some(FailoverReport {
            kind: way.kind.unwrap_or(FailoverKind::Start),
            began_unix_ms: first.at_unix_us / 1000,
            from: way.from.clone(),
            steps: steps.collect(),
        })
    }

    /// The latest events, oldest first.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Entry> {
        self.events.iter()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others count nothing")]
fn numbers(note: &Note) -> BTreeMap<String, u64> {
    let numbers = |numbers: &[(&str, u64)]| {
        let numbers = numbers.iter().map(|(key, number)| ((*key).to_owned(), *number));
        numbers.collect()
    };
    match note {
        Note::Recovered { messages, bytes } => numbers(&[("messages", *messages), ("bytes", *bytes)]),
        Note::Active { epoch } | Note::Claimed { epoch } => numbers(&[("epoch", epoch.0)]),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_broker_core::failover::{Signal, Suspicion};
    use daymark_client::proto::Epoch;

    fn steps(timeline: &Timeline) -> Vec<&'static str> {
        timeline.promotion().iter().map(|entry| entry.step).collect()
    }

    #[test]
    fn a_timeline_begins_with_the_suspicion_and_ends_in_office() {
        let peer: MemberName = "a".parse().expect("a label");
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
            Note::Member {
                peer: peer.clone(),
                signal: Signal::Failed,
            },
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
            Note::Cleared { peer: peer.clone() },
            Note::Member {
                peer,
                signal: Signal::Joined,
            },
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
        assert_eq!(timeline.events().count(), 15);
    }
}
