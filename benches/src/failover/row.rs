//! One row of the table: the same failover again and again, of one pair as one client sees it.

use std::fmt;
use std::time::Duration;

use super::client::{Client, Gap};
use super::end::End;
use super::report::{Series, Shares};
use super::{Cause, Pair, READY};
use crate::Outcome;

/// Our own broker, in the table.
pub const DAYMARK: &str = "Daymark";
/// Our own client.
pub const RUST: &str = "Rust";

/// What a row measures.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Whose failovers.
    pub broker: &'static str,
    /// As seen by which client.
    pub client: &'static str,
    /// Why.
    pub cause: Cause,
    /// How many.
    pub runs: usize,
    /// How long the client may be without service before a run is given up.
    pub deadline: Duration,
    /// What is wanted of it: so many of a hundred, the largest for 100, take at most so many milliseconds.
    pub wanted: &'static [(usize, f64)],
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.broker, self.client, self.cause.as_str())
    }
}

/// How long the client is served before a cause is given.
const FLOW: Duration = Duration::from_millis(500);

/// A pair that is started when it is first needed, and anew after a run that went wrong.
#[derive(Debug)]
pub struct Stage<P, S> {
    start: S,
    pair: Option<P>,
}

impl<P: Pair, S: Fn() -> Outcome<P>> Stage<P, S> {
    /// A stage for pairs that are started so.
    pub fn new(start: S) -> Self {
        Self { start, pair: None }
    }

    /// Measures a row with a client of its own. What goes wrong in a run is counted, and the next one begins with another
    /// pair and client; the row ends early after a few such runs in succession, and at the `end` of everything.
    ///
    /// # Errors
    /// Why not one run told anything.
    pub fn row(&mut self, row: Row, client: impl Fn(&P) -> Outcome<Client>, end: End) -> Outcome<Series> {
        let mut series = Series::new(row);
        let mut running = None;
        while series.is_wanted() {
            if let Some(why) = end.reached() {
                series.end(why);
                break;
            }
            let run = self.run(row, &mut running, &client);
            if run.is_err() && end.reached().is_some() {
                continue; // It may have failed because of that.
            }
            if !matches!(run, Ok(Some(_))) {
                running = None;
                self.pair = None;
            }
            series.add(run);
        }
        series.unless_empty()
    }

    /// One failover. `None` where the client was not served again in time.
    fn run(
        &mut self,
        row: Row,
        running: &mut Option<Client>,
        client: impl Fn(&P) -> Outcome<Client>,
    ) -> Outcome<Option<(Gap, Shares)>> {
        let pair = match &mut self.pair {
            Some(pair) => pair,
            none => none.insert((self.start)()?),
        };
        pair.become_whole()?;
        let client = match running {
            Some(client) => client,
            none => none.insert(client(pair)?),
        };
        client.served_for(FLOW, READY)?;
        let from = client.mark();
        pair.fail(row.cause)?;
        let Some(gap) = client.gap_since(&from, row.deadline)? else {
            return Ok(None);
        };
        let shares = pair.shares(&gap)?;
        Ok(Some((gap, shares)))
    }
}
