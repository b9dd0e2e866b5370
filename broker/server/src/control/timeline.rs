//! What happened, when, and how long each step took.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daymark_broker_core::failover::{EVENT_CODES, Note};
use daymark_client::proto::{FailoverKind, FailoverReport, FailoverStep, MemberName};
use serde::Serialize;

use crate::peers::frame::PastStep;

/// How many events are kept.
const EVENTS_MAX: usize = 256;

/// How many steps of a way into office naming is told.
const STEPS_MAX: usize = 64;

/// The step that a handover begins with, and how many steps of one are told.
const HANDING_OVER: &str = "handing-over";
const GAVE_UP_MAX: usize = 8;

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
    /// How the active broker gave the service up for this one.
    heard_of: Option<(MemberName, Vec<Entry>)>,
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
        let entry = Entry {
            step,
            text,
            at_unix_us: unix_us(),
            took_us: took.map_or(0, micros),
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
            Note::TakingOver { from, is_failback } => self.begin_after_handover(from, *is_failback),
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

    /// It begins where the one before began to give the service up, if that was told.
    fn begin_after_handover(&mut self, from: &MemberName, is_failback: bool) {
        let kind = if is_failback {
            FailoverKind::Failback
        } else {
            FailoverKind::Switchover
        };
        self.begin(kind, Some(from));
        let told = self.heard_of.take().filter(|(teller, _)| teller == from);
        if let (Some(begun), Some((_, steps))) = (&mut self.begun, told) {
            begun.entries = steps;
        }
    }

    /// How this broker has just given the service up.
    pub(crate) fn gave_up(&self) -> Vec<PastStep> {
        let begun = self.events.iter().rposition(|entry| entry.step == HANDING_OVER);
        let now = Instant::now();
        let steps = self.events.iter().skip(begun.unwrap_or(self.events.len()));
        let steps = steps.take(GAVE_UP_MAX).map(|entry| PastStep {
            step: entry.step.to_owned(),
            ago_us: micros(now.saturating_duration_since(entry.at)),
        });
        steps.collect()
    }

    /// Remembers how `from` gave the service up, as of now. The way of its words through the network counts as no
    /// time: the clocks of two machines are not compared. Codes that this broker does not know are left out.
    pub(crate) fn hear_of_handover(&mut self, from: &MemberName, steps: &[PastStep]) {
        let (now, unix_us) = (Instant::now(), unix_us());
        let mut before: Option<Instant> = None;
        let entry = |told: &PastStep| {
            let step = EVENT_CODES.into_iter().find(|code| *code == told.step)?;
            let at = now.checked_sub(Duration::from_micros(told.ago_us))?;
            let took = before
                .replace(at)
                .map(|before| at.saturating_duration_since(before));
            Some(Entry {
                step,
                text: format!("{step} member={from}"),
                at_unix_us: unix_us.saturating_sub(told.ago_us),
                took_us: took.map_or(0, micros),
                numbers: BTreeMap::new(),
                at,
            })
        };
        let steps = steps.iter().take(GAVE_UP_MAX).filter_map(entry).collect();
        self.heard_of = Some((from.clone(), steps));
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
            Some(FailoverStep {
                step: entry.step.parse().ok()?,
                at_us: micros(entry.at.saturating_duration_since(first.at)),
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

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970 UTC on this machine's clock.
pub(super) fn unix_us() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
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
    use daymark_broker_core::failover::{Motive, Signal, Suspicion};
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

    #[test]
    fn a_handover_begins_with_what_the_one_before_told_of_it() {
        let [from, to]: [MemberName; 2] = ["a", "b"].map(|name| name.parse().expect("a label"));
        let mut before = Timeline::default();
        let motive = Motive::Operator;
        for note in [
            Note::Active { epoch: Epoch(1) },
            Note::HandingOver { to, motive },
            Note::Drained,
            Note::Withdrawn,
            Note::Released,
        ] {
            before.record(&note);
        }
        let mut told = before.gave_up();
        told.push(PastStep {
            step: "unheard-of".to_owned(),
            ago_us: 0,
        });
        let mut after = Timeline::default();
        after.hear_of_handover(&from, &told);
        let is_failback = false;
        for note in [
            Note::TakingOver { from, is_failback },
            Note::Promoting,
            Note::Active { epoch: Epoch(2) },
        ] {
            after.record(&note);
        }
        let expected = [
            "handing-over",
            "drained",
            "withdrawn",
            "released",
            "taking-over",
            "promoting",
            "active",
        ];
        assert_eq!(steps(&after), expected);
        let report = after.report().expect("a report");
        assert_eq!(
            (report.kind, report.steps[1].note.as_str()),
            (FailoverKind::Switchover, "member=a")
        );
        assert!(report.steps.is_sorted_by_key(|step| step.at_us), "{report:?}");
    }
}
