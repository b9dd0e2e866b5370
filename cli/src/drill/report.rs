//! What a drill found: the gap, the counts, and where the time went.

use std::time::Duration;

use daymark_client::proto::{FailoverReport, FailoverStep};
use serde::Serialize;

use super::load::Gap;
use super::{Changed, Drill, How};
use crate::ledger::Counts;
use crate::output::{facts, table};

/// The step that says that clients are back.
pub(super) const FIRST_CLIENT: &str = "first-client";
/// From the last acknowledgement before to the first step of the timeline.
const BEFORE: &str = "noticing";
/// From the last step within the gap to the first acknowledgement after.
const BEHIND: &str = "first-acknowledged";
/// Both together, where the times of the new active broker cannot be compared with those measured here.
const OUTSIDE: &str = "outside-the-steps";

/// What became of the broker that was active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Old {
    /// It was killed, and this drill starts nothing.
    Killed,
    /// It is the standby, in the same process.
    Standby,
    /// It serves again: it was handed the service back.
    Active,
    /// Its process ended.
    Ended,
    /// It did not become the standby in time.
    Unknown,
}

/// The end of a drill.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    group: String,
    how: How,
    from: String,
    to: String,
    epoch: u64,
    /// The longest time between two acknowledgements, in milliseconds.
    longest_gap_ms: f64,
    #[serde(flatten)]
    counts: Counts,
    /// What became of the old active broker.
    old: Old,
    steps: Vec<Share>,
}

/// One step, and its share of the gap.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Share {
    step: String,
    took_ms: f64,
    /// In percent of the gap; absent for what came after it.
    share: Option<f64>,
}

impl Report {
    pub(super) fn new(
        drill: &Drill,
        changed: Changed,
        told: Option<&FailoverReport>,
        same_clock: bool,
    ) -> Self {
        let shares = told.map(|told| shares(&changed.gap, told, same_clock));
        Self {
            group: drill.target.group.name.to_string(),
            how: drill.how,
            from: drill.target.active.to_string(),
            to: changed.to.to_string(),
            epoch: changed.epoch.0,
            longest_gap_ms: changed.gap.ms(),
            counts: drill.load.counts(),
            old: changed.old,
            steps: shares.unwrap_or_default(),
        }
    }

    /// Whether nothing was lost or doubled.
    pub(super) const fn is_kept(&self) -> bool {
        self.counts.lost == 0 && self.counts.doubled == 0
    }

    /// The report for people.
    pub(super) fn to_text(&self) -> String {
        let counts = &self.counts;
        let sums = facts([
            ("group", Some(self.group.clone())),
            ("how", Some(self.how.as_str().to_owned())),
            (
                "failover",
                Some(format!("{} -> {}, epoch {}", self.from, self.to, self.epoch)),
            ),
            (
                "longest gap",
                Some(format!("{:.1} ms between acknowledgements", self.longest_gap_ms)),
            ),
            ("sent", Some(counts.sent.to_string())),
            ("acknowledged", Some(counts.acknowledged.to_string())),
            ("received", Some(counts.received.to_string())),
            ("lost", Some(counts.lost.to_string())),
            ("doubled", Some(counts.doubled.to_string())),
            ("out of order", Some(counts.out_of_order.to_string())),
            ("given back", Some(counts.given_back.to_string())),
            ("old active", Some(self.old_text())),
        ]);
        if self.steps.is_empty() {
            return format!("{sums}\n\nnaming has no timeline of epoch {}", self.epoch);
        }
        let header = ["step", "took ms", "share of the gap"];
        format!("{sums}\n\n{}", table(&header, self.steps.iter().map(Share::row)))
    }

    fn old_text(&self) -> String {
        let from = &self.from;
        match self.old {
            Old::Killed => format!("{from} was killed: start it again, the group has one standby less"),
            Old::Standby => format!("{from} is the standby, in the same process"),
            Old::Active => format!("{from} is active again"),
            Old::Ended => format!("{from} ended: start it again, the group has one standby less"),
            Old::Unknown => format!("{from} did not become the standby: look at its log"),
        }
    }
}

impl Share {
    fn row(&self) -> [String; 3] {
        let share = self.share.map(|share| format!("{share:.0} %"));
        [
            self.step.clone(),
            format!("{:.3}", self.took_ms),
            share.unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// Where the time went. What does not belong to a step is told apart only where the clocks are the same.
fn shares(gap: &Gap, told: &FailoverReport, same_clock: bool) -> Vec<Share> {
    let gap_us = us(gap.took);
    let began_us = i128::from(told.began_unix_ms) * 1000 - i128::from(gap.from_unix_us);
    // A timeline begins with a whole millisecond, so its beginning may seem to lie just before the gap.
    let before_us = u64::try_from(began_us).unwrap_or(0).min(gap_us);
    let within = |step: &FailoverStep| {
        if same_clock {
            before_us + step.at_us <= gap_us
        } else {
            !told
                .steps
                .iter()
                .any(|first| first.step.as_str() == FIRST_CLIENT && first.at_us < step.at_us)
        }
    };
    let last_us = told
        .steps
        .iter()
        .filter(|step| within(step))
        .map(|step| step.at_us)
        .max();
    let inside_us = last_us.unwrap_or(0);
    let share = |step: &str, took_us: u64, counts: bool| Share {
        step: step.to_owned(),
        took_ms: took_us as f64 / 1000.0,
        share: (counts && gap_us > 0).then(|| took_us as f64 * 100.0 / gap_us as f64),
    };
    let mut shares = Vec::new();
    if same_clock {
        shares.push(share(BEFORE, before_us, true));
    }
    let mut at_us = 0;
    for step in &told.steps {
        let took_us = step.at_us.saturating_sub(at_us);
        shares.push(share(step.step.as_str(), took_us, within(step)));
        at_us = step.at_us;
    }
    let rest_us = gap_us.saturating_sub(inside_us);
    shares.push(if same_clock {
        share(BEHIND, rest_us.saturating_sub(before_us), true)
    } else {
        share(OUTSIDE, rest_us, true)
    });
    shares
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use daymark_client::proto::{Epoch, FailoverKind};

    use super::*;

    fn told() -> FailoverReport {
        let step = |code: &str, at_us| FailoverStep {
            step: code.parse().expect("a label"),
            at_us,
            note: String::new(),
            numbers: BTreeMap::new(),
        };
        FailoverReport {
            kind: FailoverKind::Failover,
            began_unix_ms: 1_010,
            from: None,
            steps: vec![
                step("suspected", 0),
                step("listening", 20_000),
                step(FIRST_CLIENT, 25_000),
                step("last-client", 60_000),
            ],
        }
    }

    fn gap() -> Gap {
        Gap {
            from_unix_us: 1_000_000,
            took: Duration::from_millis(40),
            epoch: Epoch(2),
        }
    }

    fn rows(shares: &[Share]) -> Vec<(&str, f64, Option<f64>)> {
        let rows = shares.iter();
        rows.map(|row| (row.step.as_str(), row.took_ms, row.share))
            .collect()
    }

    #[test]
    fn the_shares_of_the_gap_add_up_to_all_of_it() {
        let expected = [
            (BEFORE, 10.0, Some(25.0)),
            ("suspected", 0.0, Some(0.0)),
            ("listening", 20.0, Some(50.0)),
            (FIRST_CLIENT, 5.0, Some(12.5)),
            ("last-client", 35.0, None),
            (BEHIND, 5.0, Some(12.5)),
        ];
        assert_eq!(rows(&shares(&gap(), &told(), true)), expected);
    }

    #[test]
    fn what_another_clock_tells_is_not_placed_within_the_gap() {
        let expected = [
            ("suspected", 0.0, Some(0.0)),
            ("listening", 20.0, Some(50.0)),
            (FIRST_CLIENT, 5.0, Some(12.5)),
            ("last-client", 35.0, None),
            (OUTSIDE, 15.0, Some(37.5)),
        ];
        assert_eq!(rows(&shares(&gap(), &told(), false)), expected);
    }
}
