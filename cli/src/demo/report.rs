//! What the demo found: the sums, and how long each step of each failover took.

use serde::Serialize;
use serde_json::Value;

use crate::ledger::Counts;
use crate::output::{facts, table};

/// The end of a demo. All times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What became of the messages.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages still in the queue after the last one was received and accepted; none should be.
    pub left_in_queue: Option<u64>,
    /// How long it took from the first message sent to the last one received.
    pub elapsed_ms: f64,
    /// Every kill, in order.
    pub failovers: Vec<Failover>,
}

/// One kill and what followed.
#[derive(Clone, Debug, Serialize)]
pub struct Failover {
    /// The member that was killed.
    pub killed: String,
    /// The member that took over.
    pub active: String,
    /// The epoch it was granted.
    pub epoch: u64,
    /// When the signal was sent: microseconds since 1970 UTC.
    pub killed_at_unix_us: u64,
    /// What happened then, in order, ending with `first-acknowledged`.
    pub steps: Vec<Step>,
}

/// One step of a failover.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its stable code, as in the broker's log.
    pub step: String,
    /// How long after the kill it was done.
    pub after_kill_ms: f64,
}

/// The step the demo itself adds: the first message acknowledged by the new active broker.
pub const FIRST_ACKNOWLEDGED: &str = "first-acknowledged";

/// The steps every failover goes through, in order.
pub const STEPS: [&str; 10] = [
    "suspected",
    "confirmed",
    "lock-taken",
    "claimed",
    "epoch-written",
    "recovered",
    "listening",
    "published",
    "active",
    FIRST_ACKNOWLEDGED,
];

impl Report {
    /// Whether nothing was lost, doubled or received out of order, and nothing was left.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let counts = &self.counts;
        counts.lost == 0
            && counts.doubled == 0
            && counts.out_of_order == 0
            && counts.acknowledged == counts.sent
            && self.left_in_queue.unwrap_or(0) == 0
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let counts = &self.counts;
        let per_second = counts.received as f64 / (self.elapsed_ms / 1000.0);
        let sums = facts([
            ("sent", Some(counts.sent.to_string())),
            ("acknowledged", Some(counts.acknowledged.to_string())),
            ("received", Some(counts.received.to_string())),
            ("lost", Some(counts.lost.to_string())),
            ("doubled", Some(counts.doubled.to_string())),
            ("out of order", Some(counts.out_of_order.to_string())),
            ("given back", Some(counts.given_back.to_string())),
            ("left in queue", self.left_in_queue.map(|left| left.to_string())),
            (
                "took",
                Some(format!(
                    "{:.1} s, {per_second:.0} messages/s",
                    self.elapsed_ms / 1000.0
                )),
            ),
        ]);
        if self.failovers.is_empty() {
            return sums;
        }
        format!("{sums}\n\nMilliseconds from SIGKILL to:\n{}", self.timelines())
    }

    fn timelines(&self) -> String {
        let header: Vec<&str> = ["failover", "epoch"].into_iter().chain(STEPS).collect();
        table(&header, self.failovers.iter().map(Failover::row))
    }
}

impl Failover {
    /// How long after the kill a step was done.
    #[must_use]
    pub fn after_kill_ms(&self, step: &str) -> Option<f64> {
        self.steps
            .iter()
            .find(|found| found.step == step)
            .map(|found| found.after_kill_ms)
    }

    fn row(&self) -> Vec<String> {
        let steps = STEPS.iter().map(|step| {
            self.after_kill_ms(step)
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
        });
        [
            format!("{} -> {}", self.killed, self.active),
            self.epoch.to_string(),
        ]
        .into_iter()
        .chain(steps)
        .collect()
    }
}

/// The steps of the last failover, from the new active broker's status document.
pub(super) fn steps_of(status: &Value, killed_at_unix_us: u64) -> Vec<Step> {
    let steps = status.pointer("/timeline").and_then(Value::as_array);
    let read = |step: &Value| {
        let at = step.get("at_unix_us")?.as_u64()?;
        Some(Step {
            step: step.get("step")?.as_str()?.to_owned(),
            after_kill_ms: milliseconds_between(killed_at_unix_us, at),
        })
    };
    steps.into_iter().flatten().filter_map(read).collect()
}

/// From one moment to another, both in microseconds since 1970 UTC; negative when it is the other way round.
pub(super) fn milliseconds_between(from_unix_us: u64, to_unix_us: u64) -> f64 {
    (to_unix_us as f64 - from_unix_us as f64) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lost: u64, doubled: u64) -> Report {
        let counts = Counts {
            sent: 2,
            acknowledged: 2,
            received: 2 - lost,
            lost,
            doubled,
            ..Counts::default()
        };
        Report {
            counts,
            left_in_queue: Some(0),
            elapsed_ms: 10.0,
            failovers: Vec::new(),
        }
    }

    #[test]
    fn the_promise_is_kept_only_if_nothing_is_lost_or_doubled() {
        assert!(report(0, 0).is_kept());
        assert!(!report(1, 0).is_kept());
        assert!(!report(0, 1).is_kept());
    }

    #[test]
    fn a_failover_is_one_row_with_a_dash_for_what_did_not_happen() {
        let failover = Failover {
            killed: "one".into(),
            active: "two".into(),
            epoch: 2,
            killed_at_unix_us: 0,
            steps: vec![Step {
                step: "claimed".into(),
                after_kill_ms: 1.25,
            }],
        };
        assert_eq!(failover.row()[..6], ["one -> two", "2", "-", "-", "-", "1.2"]);
    }
}
