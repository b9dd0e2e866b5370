//! What the client knows of each naming server, and of the directory as a whole.
//!
//! It decides which server is tried next and whether a server may serve. It opens no connection and reads no
//! clock. Invariant: the revision seen only grows, and the cluster id never changes once it is known.

use std::time::{Duration, Instant};

use daymark_naming_proto::{Endpoint, NamingError, Revision};

use super::config::NamingConfig;
use super::error::{Failure, ServerAttempt};

/// The record of every server, in the order of the provider list.
#[derive(Debug)]
pub(super) struct Book {
    records: Vec<Record>,
    preferred: Option<usize>,
    cluster: Option<String>,
    seen: Revision,
    backoff_min: Duration,
    backoff_max: Duration,
}

#[derive(Debug)]
struct Record {
    server: Endpoint,
    revision: Option<Revision>,
    why: Failure,
    failures: u32,
    not_before: Option<Instant>,
}

impl Book {
    pub(super) fn new(servers: &[Endpoint], config: &NamingConfig) -> Self {
        let records = servers.iter().map(|server| Record {
            server: server.clone(),
            revision: None,
            why: Failure::NotTried,
            failures: 0,
            not_before: None,
        });
        Self {
            records: records.collect(),
            preferred: None,
            cluster: None,
            seen: Revision(0),
            backoff_min: config.backoff_min,
            backoff_max: config.backoff_max,
        }
    }

    /// The server to try next among those not `busy`, and when: at once where its pause is over. The last
    /// winner comes first, then the order of the list.
    pub(super) fn next(&self, busy: &[bool], now: Instant) -> Option<(usize, Instant)> {
        let free = self
            .records
            .iter()
            .enumerate()
            .filter(|&(index, _)| !busy.get(index).copied().unwrap_or(false));
        let when = free.map(|(index, record)| (record.not_before.map_or(now, |at| at.max(now)), index));
        when.min_by_key(|&(at, index)| (at, self.preferred != Some(index), index))
            .map(|(at, index)| (index, at))
    }

    /// When a server may be asked again.
    pub(super) fn not_before(&self, index: usize) -> Option<Instant> {
        self.records.get(index).and_then(|record| record.not_before)
    }

    /// Checks what a server said of itself, and makes it the preferred one.
    ///
    /// # Errors
    /// `WrongCluster`, or `PassedOver` where its state is older than what this client has seen.
    pub(super) fn admit(&mut self, index: usize, cluster: &str, revision: Revision) -> Result<(), Failure> {
        let expected = self.cluster.get_or_insert_with(|| cluster.to_owned());
        if expected != cluster {
            return Err(Failure::WrongCluster {
                expected: expected.clone(),
                found: cluster.to_owned(),
            });
        }
        self.saw(index, revision);
        if revision < self.seen {
            return Err(Failure::PassedOver(NamingError::Lagging {
                have: revision,
                want: self.seen,
            }));
        }
        self.preferred = Some(index);
        Ok(())
    }

    /// Notes a revision that a server answered with.
    pub(super) fn saw(&mut self, index: usize, revision: Revision) {
        self.seen = self.seen.max(revision);
        if let Some(record) = self.records.get_mut(index) {
            record.revision = record.revision.max(Some(revision));
        }
    }

    /// Notes that a server answered a request: it is well.
    pub(super) fn answered(&mut self, index: usize) {
        if let Some(record) = self.records.get_mut(index) {
            record.failures = 0;
            record.not_before = None;
        }
    }

    /// Notes a failure. The server is not tried again before a pause that doubles with each failure;
    /// `jitter` from 0 to 1 spreads clients over half of it.
    pub(super) fn failed(&mut self, index: usize, why: Failure, now: Instant, jitter: f64) {
        let (least, most) = (self.backoff_min, self.backoff_max);
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let doubled = least.saturating_mul(1 << record.failures.min(20)).min(most);
        record.failures = record.failures.saturating_add(1);
        record.not_before = Some(now + doubled.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0));
        record.why = why;
    }

    /// The highest revision seen on any server.
    pub(super) const fn seen(&self) -> Revision {
        self.seen
    }

    pub(super) fn server(&self, index: usize) -> Option<&Endpoint> {
        self.records.get(index).map(|record| &record.server)
    }

    /// Every server with its last failure, in the order of the list.
    pub(super) fn attempts(&self) -> Vec<ServerAttempt> {
        let attempt = |record: &Record| ServerAttempt {
            server: record.server.clone(),
            revision: record.revision,
            why: record.why.clone(),
        };
        self.records.iter().map(attempt).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let servers = ["a:1", "b:1", "c:1"].map(|text| text.parse().expect("an endpoint"));
        Book::new(&servers, &NamingConfig::default())
    }

    fn lost() -> Failure {
        Failure::Lost { reason: "x".into() }
    }

    #[test]
    fn servers_are_tried_in_order_and_the_last_winner_first() {
        let now = Instant::now();
        let mut book = book();
        assert_eq!(book.next(&[false; 3], now), Some((0, now)));
        assert_eq!(book.next(&[true, false, false], now), Some((1, now)));
        assert_eq!(book.admit(2, "c", Revision(1)), Ok(()));
        assert_eq!(book.next(&[false; 3], now), Some((2, now)));
        assert_eq!(book.next(&[true; 3], now), None);
    }

    #[test]
    fn a_failing_server_waits_longer_each_time_and_is_never_banned() {
        let now = Instant::now();
        let mut book = book();
        for expected in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            book.failed(0, lost(), now, 0.0);
            let at = now + Duration::from_millis(expected);
            assert_eq!(book.next(&[false, true, true], now), Some((0, at)));
        }
        book.failed(1, lost(), now, 1.0);
        let at = now + Duration::from_millis(10);
        assert_eq!(book.next(&[false, false, true], now), Some((1, at)));
        book.answered(0);
        assert_eq!(book.next(&[false; 3], now), Some((0, now)));
    }

    #[test]
    fn a_server_behind_what_was_seen_or_of_another_cluster_may_not_serve() {
        let mut book = book();
        assert_eq!(book.admit(0, "one", Revision(7)), Ok(()));
        let lagging = NamingError::Lagging {
            have: Revision(6),
            want: Revision(7),
        };
        assert_eq!(
            book.admit(1, "one", Revision(6)),
            Err(Failure::PassedOver(lagging))
        );
        let error = book.admit(2, "two", Revision(9)).expect_err("another cluster");
        assert_eq!(error.to_string(), "it belongs to cluster two, not to cluster one");
        assert_eq!(book.seen(), Revision(7));
    }
}
