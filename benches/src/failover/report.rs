//! What the failover bench prints: one row for each broker, client and cause, ratios, and where our time went.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::client::Gap;
use super::daymark::Step;
use super::row::{DAYMARK, RUST, Row};
use super::{Cause, monotonic_ns};
use crate::table::Table;
use crate::{Measurements, Outcome, other};

/// The failovers of one row.
#[derive(Clone, Debug)]
pub struct Series {
    row: Row,
    /// How long the client was without service in each run, in milliseconds.
    gaps: Vec<f64>,
    /// Where the time of each went.
    shares: Vec<Shares>,
    /// In how many runs it was not served again in time.
    unserved: usize,
    /// Why other runs told nothing.
    failed: Vec<String>,
    /// How many of the last runs went wrong in one way or the other.
    wrong_last: usize,
    /// Why the row ended before its last run.
    ended: Option<&'static str>,
}

/// How long each part of one gap took, in milliseconds, in order.
pub type Shares = Vec<(String, f64)>;

/// From the last acknowledgement before to the first step of the timeline.
const NOTICING: &str = "(until the first step)";
/// From the last step within the gap to the first acknowledgement after.
const BEHIND: &str = "(until the first acknowledgement)";

/// After so many runs in succession that went wrong a row is given up.
const WRONG_MAX: usize = 3;

impl Series {
    pub(super) const fn new(row: Row) -> Self {
        Self {
            row,
            gaps: Vec::new(),
            shares: Vec::new(),
            unserved: 0,
            failed: Vec::new(),
            wrong_last: 0,
            ended: None,
        }
    }

    /// What came of a run. It is told on standard error.
    pub(super) fn add(&mut self, run: Outcome<Option<(Gap, Shares)>>) {
        self.wrong_last += 1;
        let told = match run {
            Ok(Some((gap, shares))) => {
                self.wrong_last = 0;
                self.gaps.push(gap.ms());
                self.shares.push(shares);
                format!("{:.1} ms", gap.ms())
            }
            Ok(None) => {
                self.unserved += 1;
                "not served in time".to_owned()
            }
            Err(error) => {
                self.failed.push(error.to_string());
                format!("failed: {error}")
            }
        };
        eprintln!("{}: {} of {}: {told}", self.row, self.runs(), self.row.runs);
    }

    /// No further run begins.
    pub(super) const fn end(&mut self, why: &'static str) {
        self.ended = Some(why);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.runs() < self.row.runs && self.wrong_last < WRONG_MAX
    }

    /// The series, unless no run told anything.
    pub(super) fn unless_empty(self) -> Outcome<Self> {
        if self.gaps.is_empty() && self.unserved == 0 {
            let why = self.failed.last().map(String::as_str).or(self.ended);
            return Err(other(format!("{}: {}", self.row, why.unwrap_or("no run was wanted"))).into());
        }
        Ok(self)
    }

    fn runs(&self) -> usize {
        self.gaps.len() + self.unserved + self.failed.len()
    }

    fn percentile(&self, percent: usize) -> Option<f64> {
        let gaps: Measurements = self.gaps.iter().copied().collect();
        gaps.percentile(percent)
    }

    fn ms(&self, percent: usize) -> String {
        self.percentile(percent)
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
    }

    /// What was wanted of it, and whether that was reached.
    fn verdicts(&self) -> impl Iterator<Item = String> {
        let is_whole = self.unserved == 0 && self.failed.is_empty();
        self.row.wanted.iter().map(move |(percent, bound)| {
            let kept = is_whole && self.percentile(*percent).is_some_and(|ms| ms <= *bound);
            let what = match percent {
                100 => "max".to_owned(),
                percent => format!("p{percent}"),
            };
            let verdict = if kept { "reached" } else { "**missed**" };
            format!("{what} ≤ {bound}: {verdict}")
        })
    }

    /// What went wrong.
    fn remarks(&self) -> impl Iterator<Item = String> {
        let seconds = self.row.deadline.as_secs();
        let unserved = (self.unserved > 0).then(|| {
            format!(
                "not served within {seconds} s: {} of {}",
                self.unserved,
                self.runs()
            )
        });
        let failed = self
            .failed
            .last()
            .map(|why| format!("failed: {} of {} ({why})", self.failed.len(), self.runs()));
        let ended = self.ended.map(str::to_owned);
        unserved.into_iter().chain(failed).chain(ended)
    }

    fn line(&self) -> String {
        let Row {
            broker,
            client,
            cause,
            runs,
            ..
        } = self.row;
        let runs = match self.runs() {
            all if all == runs => runs.to_string(),
            fewer => format!("{fewer} of {runs}"),
        };
        let (p50, p99, max) = (self.ms(50), self.ms(99), self.ms(100));
        let remarks: Vec<String> = self.remarks().chain(self.verdicts()).collect();
        let (cause, remarks) = (cause.as_str(), remarks.join("; "));
        format!("| {broker} | {client} | {cause} | {runs} | {p50} | {p99} | {max} | {remarks} |")
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
pub(super) fn unix_us(ns: u64) -> u64 {
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
    /// Adds a row. One that told nothing is named at the end.
    pub fn add(&mut self, outcome: Outcome<Series>) {
        if let Some(series) = self.table.peer(outcome) {
            self.table.line(series.line());
            self.all.push(series);
        }
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
            let row = series.row;
            self.table.line(format!(
                "\nWhere the time went: {row}\n\n| step | in | p50 ms | max ms | share |\n|---|---|---|---|---|"
            ));
            for part in series.parts() {
                self.table.line(part);
            }
        }
        self.table.write("failover.md")
    }

    /// Ours beside the best that Artemis reached with the same client program, with whatever settings.
    fn ratios(&self) -> Vec<String> {
        let (ours, theirs): (Vec<&Series>, Vec<&Series>) =
            self.all.iter().partition(|series| series.row.broker == DAYMARK);
        let ours = ours.into_iter().filter(|series| series.row.client != RUST);
        let both = ours.flat_map(|ours| [50, 99].map(|percent| (ours, percent)));
        both.filter_map(|(ours, percent)| {
            let theirs = theirs.iter().filter(|theirs| theirs.row.cause == ours.row.cause);
            let best = theirs.filter_map(|theirs| theirs.percentile(percent));
            let best = best.min_by(f64::total_cmp)?;
            let times = best / ours.percentile(percent)?;
            let verdict = match ours.row.cause {
                Cause::Kill if times >= 10.0 => " (wanted 1/10: reached)",
                Cause::Kill => " (wanted 1/10: **missed**)",
                Cause::Freeze | Cause::Cut | Cause::Switchover => "",
            };
            let row = ours.row;
            Some(format!(
                "\n{row}, p{percent}: 1/{times:.1} of Artemis' best, {best:.1} ms{verdict}"
            ))
        })
        .collect()
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
