//! What the failover bench prints: one row for each broker, client and cause, ratios, and where our time went.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::client::Gap;
use super::daymark::Step;
use super::{Cause, monotonic_ns};
use crate::table::Table;
use crate::{Measurements, Outcome};

/// The failovers of one broker, client and cause.
#[derive(Clone, Debug)]
pub struct Series {
    /// Whose.
    pub broker: &'static str,
    /// As seen by which client.
    pub client: &'static str,
    /// Why.
    pub cause: Cause,
    /// How long each client was without service, in milliseconds.
    pub gaps: Measurements,
    /// How often it was not served again in time, with that time in seconds.
    pub unserved: (usize, u64),
    /// Where the time of each went.
    pub shares: Vec<Shares>,
}

/// How long each part of one gap took, in milliseconds, in order.
pub type Shares = Vec<(String, f64)>;

/// From the last acknowledgement before to the first step of the timeline.
const NOTICING: &str = "(until the first step)";
/// From the last step within the gap to the first acknowledgement after.
const BEHIND: &str = "(until the first acknowledgement)";

impl Series {
    fn ms(&self, percent: usize) -> String {
        self.gaps
            .percentile(percent)
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
    }

    /// What was wanted of it, and whether that was reached.
    fn verdict(&self) -> String {
        let bounds: &[(usize, f64)] = match self.cause {
            _ if self.broker != "Daymark" => &[],
            Cause::Kill => &[(50, 60.0), (99, 150.0)],
            Cause::Freeze | Cause::Cut => &[(100, 2_000.0)],
            Cause::Switchover => &[(99, 50.0)],
        };
        let verdicts = bounds.iter().map(|(percent, bound)| {
            let kept = self.unserved.0 == 0 && self.gaps.percentile(*percent).is_some_and(|ms| ms <= *bound);
            let what = if *percent == 100 {
                "max".to_owned()
            } else {
                format!("p{percent}")
            };
            format!(
                "{what} ≤ {bound}: {}",
                if kept { "reached" } else { "**missed**" }
            )
        });
        verdicts.collect::<Vec<_>>().join(", ")
    }

    fn row(&self) -> String {
        let runs = self.gaps.count() + self.unserved.0;
        let (p50, p99, max) = (self.ms(50), self.ms(99), self.ms(100));
        let unserved = match self.unserved {
            (0, _) => String::new(),
            (times, seconds) => format!("not served within {seconds} s: {times} of {runs}. "),
        };
        let (broker, client, cause) = (self.broker, self.client, self.cause.as_str());
        let verdict = self.verdict();
        format!("| {broker} | {client} | {cause} | {runs} | {p50} | {p99} | {max} | {unserved}{verdict} |")
    }

    /// The median of each part, and its share of all of them.
    fn parts(&self) -> Vec<String> {
        let mut order: Vec<&str> = Vec::new();
        let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (part, ms) in self.shares.iter().flatten() {
            if !parts.contains_key(part.as_str()) {
                order.push(part);
            }
            parts.entry(part).or_default().push(*ms);
        }
        order.sort_by_key(|part| (*part == BEHIND, *part != NOTICING));
        let sum: f64 = parts.values().flatten().sum();
        let row = |part: &&str| {
            let all = &parts[*part];
            let (share, times) = (all.iter().sum::<f64>() / sum * 100.0, all.len());
            let all: Measurements = all.iter().copied().collect();
            let (p50, max) = (all.percentile(50).unwrap_or(0.0), all.worst().unwrap_or(0.0));
            format!("| {part} | {times} | {p50:.1} | {max:.1} | {share:.0} % |")
        };
        order.iter().map(row).collect()
    }
}

/// The parts of one gap: the steps that fell into it, what came before the first and what after the last.
#[must_use]
pub fn shares(gap: &Gap, steps: &[Step]) -> Shares {
    let (from_us, to_us) = (unix_us(gap.from_ns), unix_us(gap.to_ns));
    let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
    let mut parts = Vec::new();
    let mut at_us = from_us;
    for step in steps.iter().filter(|step| step.at_unix_us <= to_us) {
        // A timeline begins with a whole millisecond, so its beginning may seem to lie just before the gap.
        let name = if parts.is_empty() { NOTICING } else { &step.code };
        parts.push((name.to_owned(), ms(at_us, step.at_unix_us)));
        at_us = at_us.max(step.at_unix_us);
    }
    parts.push((BEHIND.to_owned(), ms(at_us, to_us)));
    parts
}

/// A moment of the monotonic clock as microseconds since 1970 UTC.
fn unix_us(ns: u64) -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
    now_us.saturating_sub(monotonic_ns().saturating_sub(ns) / 1000)
}

/// The tables. Rows are printed as they are measured.
#[derive(Debug)]
pub struct Tables {
    table: Table,
    all: Vec<Series>,
}

impl Default for Tables {
    fn default() -> Self {
        let header = "| broker | client | cause | runs | p50 ms | p99 ms | max ms | wanted |\n|---|---|---|---|---|---|---|---|";
        Self {
            table: Table::with_header(header),
            all: Vec::new(),
        }
    }
}

impl Tables {
    /// Adds a row.
    pub fn add(&mut self, series: Series) {
        self.table.line(series.row());
        self.all.push(series);
    }

    /// What came of a peer; one that failed is named at the end.
    pub fn peer<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        self.table.peer(outcome)
    }

    /// Adds the ratios and where the time went, and writes everything to `target/benches/failover.md`.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn finish(mut self) -> Outcome<()> {
        for ratio in self.ratios() {
            self.table.line(ratio);
        }
        let own = self
            .all
            .iter()
            .filter(|series| series.shares.iter().any(|shares| shares.len() > 1));
        for series in own {
            let (cause, client) = (series.cause.as_str(), series.client);
            self.table.line(format!(
                "\nWhere the time went: {cause}, {client}\n\n| step | in | p50 ms | max ms | share |\n|---|---|---|---|---|"
            ));
            for part in series.parts() {
                self.table.line(part);
            }
        }
        self.table.write("failover.md")
    }

    /// Ours beside Artemis' with the same client.
    fn ratios(&self) -> Vec<String> {
        let mut ratios = Vec::new();
        for theirs in self.all.iter().filter(|series| series.broker != "Daymark") {
            let same = |ours: &&Series| {
                (ours.broker, ours.client, ours.cause) == ("Daymark", theirs.client, theirs.cause)
            };
            let Some(ours) = self.all.iter().find(same) else {
                continue;
            };
            for percent in [50, 99] {
                let both = ours.gaps.percentile(percent).zip(theirs.gaps.percentile(percent));
                ratios.extend(both.map(|(our_ms, their_ms)| {
                    let (cause, client, broker) = (ours.cause.as_str(), ours.client, theirs.broker);
                    let times = their_ms / our_ms;
                    let verdict = match ours.cause {
                        Cause::Kill if times >= 10.0 => " (wanted 1/10: reached)",
                        Cause::Kill => " (wanted 1/10: **missed**)",
                        Cause::Freeze | Cause::Cut | Cause::Switchover => "",
                    };
                    format!("\n{cause}, {client}, p{percent}: 1/{times:.1} of {broker}'s{verdict}")
                }));
            }
        }
        ratios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_gap_add_up_to_all_of_it() {
        let now = monotonic_ns();
        let gap = Gap {
            from_ns: now - 40_000_000,
            to_ns: now,
        };
        let begun = unix_us(gap.from_ns);
        let step = |code: &str, after_us: u64| Step {
            code: code.to_owned(),
            at_unix_us: begun + after_us,
        };
        let steps = [
            step("suspected", 10_000),
            step("listening", 30_000),
            step("last-client", 90_000),
        ];
        let parts = shares(&gap, &steps);
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [NOTICING, "listening", BEHIND]);
        let sum: f64 = parts.iter().map(|(_, ms)| ms).sum();
        assert!((sum - gap.ms()).abs() < 1.0, "{parts:?}");
    }
}
