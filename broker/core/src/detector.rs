//! Heartbeat detection: which peers are heard, suspected or failed.
//!
//! It decides from silence and from connections that ended, and from nothing else. It never opens a
//! connection, reads no clock and confirms nothing: a suspicion is a question that somebody else answers.
//! Invariant: a node whose own tick came late accuses nobody for the time it slept; a peer whose heartbeats
//! come irregularly is suspected later, and has failed no later for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daymark_naming_proto::MemberName;

/// How long silence may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a peer sends a heartbeat. Default 50 ms.
    pub heartbeat: Duration,
    /// Silence after which a peer is suspected that is heard regularly. Default 200 ms; at least three
    /// heartbeats. It grows with what a peer's heartbeats vary by, up to halfway to `failed`.
    pub suspect: Duration,
    /// Silence after which a peer has failed. Default 600 ms; longer than `suspect`.
    pub failed: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            suspect: Duration::from_millis(200),
            failed: Duration::from_millis(600),
        }
    }
}

/// Heartbeat times that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTiming {
    /// The heartbeat is zero.
    #[error("heartbeat_ms is 0: it must be at least 1")]
    NoHeartbeat,
    /// A single lost heartbeat would raise a suspicion.
    #[error("suspect_ms is {suspect_ms}: it must be at least three heartbeats ({heartbeat_ms} ms each)")]
    SuspectTooShort {
        /// The time given.
        suspect_ms: u128,
        /// The heartbeat.
        heartbeat_ms: u128,
    },
    /// A peer would fail before it is suspected.
    #[error("failed_ms is {failed_ms}: it must be longer than suspect_ms ({suspect_ms})")]
    FailedTooShort {
        /// The time given.
        failed_ms: u128,
        /// The time until suspicion.
        suspect_ms: u128,
    },
}

impl Timing {
    /// Whether the three times fit together.
    ///
    /// # Errors
    /// `InvalidTiming` names the one that does not.
    pub fn check(&self) -> Result<(), InvalidTiming> {
        if self.heartbeat < Duration::from_millis(1) {
            return Err(InvalidTiming::NoHeartbeat);
        }
        if self.suspect < self.heartbeat * 3 {
            return Err(InvalidTiming::SuspectTooShort {
                suspect_ms: self.suspect.as_millis(),
                heartbeat_ms: self.heartbeat.as_millis(),
            });
        }
        if self.failed <= self.suspect {
            return Err(InvalidTiming::FailedTooShort {
                failed_ms: self.failed.as_millis(),
                suspect_ms: self.suspect.as_millis(),
            });
        }
        Ok(())
    }
}

/// What is believed of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is heard.
    Alive,
    /// Its connection ended, or it was silent for `Timing::suspect`.
    Suspected,
    /// It was silent for `Timing::failed`.
    Failed,
}

/// How regularly a peer is heard: moving averages of the time between two heartbeats and of what it varies
/// by, as TCP estimates a round trip (RFC 6298 section 2), only slower: one late heartbeat is no habit.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    between: Duration,
    varies: Duration,
}

impl Rhythm {
    /// The share of one more heartbeat in the averages is one of so many.
    const SLOWNESS: u32 = 16;

    const fn regular(heartbeat: Duration) -> Self {
        Self {
            between: heartbeat,
            varies: Duration::ZERO,
        }
    }

    fn note(&mut self, gap: Duration) {
        let moved =
            |average: Duration, one: Duration| (average * (Self::SLOWNESS - 1) + one) / Self::SLOWNESS;
        self.varies = moved(self.varies, gap.abs_diff(self.between));
        self.between = moved(self.between, gap);
    }

    /// Silence that may still be nothing, in whole milliseconds as every setting.
    fn patience(&self) -> Duration {
        let patience = self.between + self.varies * 4;
        Duration::from_millis(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
    }
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    heard: Instant,
    verdict: Verdict,
    /// Whether it spoke on a connection since the last one ended.
    connected: bool,
    rhythm: Rhythm,
}

/// The peers of one node.
#[derive(Clone, Debug)]
pub struct Detector {
    timing: Timing,
    peers: BTreeMap<MemberName, Watched>,
    ticked: Option<Instant>,
}

impl Detector {
    /// A detector that watches nobody yet. A peer is watched from the first time it is heard.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self {
            timing,
            peers: BTreeMap::new(),
            ticked: None,
        }
    }

    /// A heartbeat of `peer` arrived: it is alive, whatever was believed before.
    pub fn heard(&mut self, now: Instant, peer: &MemberName) {
        self.alive(now, peer, true);
    }

    /// `peer` answered a question: it is alive, but no connection says when it ends.
    pub fn answered(&mut self, now: Instant, peer: &MemberName) {
        let connected = self.is_connected(peer);
        self.alive(now, peer, connected);
    }

    fn alive(&mut self, now: Instant, peer: &MemberName, connected: bool) {
        let timing = self.timing;
        let Some(watched) = self.peers.get_mut(peer) else {
            let watched = Watched {
                heard: now,
                verdict: Verdict::Alive,
                connected,
                rhythm: Rhythm::regular(timing.heartbeat),
            };
            self.peers.insert(peer.clone(), watched);
            return;
        };
        if connected && watched.connected {
            let gap = now.saturating_duration_since(watched.heard);
            watched.rhythm.note(gap.min(timing.latest_suspicion()));
        }
        watched.heard = now;
        watched.verdict = Verdict::Alive;
        watched.connected = connected;
    }

    /// A connection to `peer` ended. Returns whether this is the first sign of trouble.
    pub fn dropped(&mut self, peer: &MemberName) -> bool {
        let Some(watched) = self.peers.get_mut(peer) else {
            return false;
        };
        watched.connected = false;
        let first = watched.verdict == Verdict::Alive;
        watched.verdict = watched.verdict.max(Verdict::Suspected);
        first
    }

    /// Whether `peer` spoke on a connection since the last of its connections ended.
    #[must_use]
    pub fn is_connected(&self, peer: &MemberName) -> bool {
        self.peers.get(peer).is_some_and(|watched| watched.connected)
    }

    /// `peer` is watched no longer.
    pub fn forget(&mut self, peer: &MemberName) {
        self.peers.remove(peer);
    }

    /// How long `peer` has been silent; `None` if it is not watched.
    #[must_use]
    pub fn silence(&self, now: Instant, peer: &MemberName) -> Option<Duration> {
        let watched = self.peers.get(peer)?;
        Some(now.saturating_duration_since(watched.heard))
    }

    /// What is believed of `peer`; `None` if it is not watched.
    #[must_use]
    pub fn verdict(&self, peer: &MemberName) -> Option<Verdict> {
        self.peers.get(peer).map(|watched| watched.verdict)
    }

    /// Every peer that is watched.
    pub fn peers(&self) -> impl Iterator<Item = &MemberName> {
        self.peers.keys()
    }

    /// Reads the silences. Returns the peers of whom something worse is believed than before.
    ///
    /// It wants to be called every heartbeat. A call that comes late raises nothing and counts every
    /// silence from now: who slept cannot know who was silent.
    pub fn tick(&mut self, now: Instant) -> Vec<(MemberName, Verdict)> {
        let late = self.is_late(now);
        self.ticked = Some(now);
        if late {
            for watched in self.peers.values_mut() {
                watched.heard = now;
            }
            return Vec::new();
        }
        let timing = self.timing;
        let worse = |(peer, watched): (&MemberName, &mut Watched)| {
            let verdict = timing.verdict(now.saturating_duration_since(watched.heard), watched.rhythm);
            if verdict <= watched.verdict {
                return None;
            }
            watched.verdict = verdict;
            Some((peer.clone(), verdict))
        };
        self.peers.iter_mut().filter_map(worse).collect()
    }

    /// When the next tick is due: after a heartbeat, or when a silence becomes too long before that. `None`
    /// while nobody is watched.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.peers.values().map(|watched| watched.heard).min()?;
        let regular = self.ticked.unwrap_or(first) + self.timing.heartbeat;
        let silences = self.peers.values().filter_map(|watched| {
            let patience = match watched.verdict {
                Verdict::Alive => self.timing.suspicion(watched.rhythm),
                Verdict::Suspected => self.timing.failed,
                Verdict::Failed => return None,
            };
            Some(watched.heard + patience)
        });
        Some(silences.fold(regular, Instant::min))
    }

    fn is_late(&self, now: Instant) -> bool {
        let patience = self.timing.heartbeat + (self.timing.suspect / 2).max(self.timing.heartbeat);
        !self.peers.is_empty()
            && self
                .ticked
                .is_some_and(|ticked| now.saturating_duration_since(ticked) > patience)
    }
}

impl Timing {
    /// Silence after which a peer of this rhythm is suspected.
    fn suspicion(&self, rhythm: Rhythm) -> Duration {
        rhythm.patience().clamp(self.suspect, self.latest_suspicion())
    }

    /// The same of one that keeps no rhythm at all.
    fn latest_suspicion(&self) -> Duration {
        self.suspect + (self.failed - self.suspect) / 2
    }

    fn verdict(&self, silence: Duration, rhythm: Rhythm) -> Verdict {
        if silence >= self.failed {
            Verdict::Failed
        } else if silence >= self.suspicion(rhythm) {
            Verdict::Suspected
        } else {
            Verdict::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> MemberName {
        name.parse().expect("a label")
    }

    /// Some instant; the rules only see differences.
    #[expect(clippy::disallowed_methods, reason = "the tests need a first instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Ticks every 10 ms up to `until` and returns what was raised, with its time.
    fn ticks(detector: &mut Detector, start: Instant, from: u64, until: u64) -> Vec<(u64, Verdict)> {
        (from..=until)
            .step_by(10)
            .flat_map(|at| {
                let raised = detector.tick(start + ms(at));
                raised.into_iter().map(move |(_, verdict)| (at, verdict))
            })
            .collect()
    }

    #[test]
    fn a_silent_peer_is_suspected_then_failed_each_once() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        detector.heard(start, &b);
        let raised = ticks(&mut detector, start, 0, 1000);
        assert_eq!(raised, [(200, Verdict::Suspected), (600, Verdict::Failed)]);
    }

    #[test]
    fn a_heartbeat_clears_every_suspicion() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        detector.heard(start, &b);
        ticks(&mut detector, start, 0, 700);
        detector.heard(start + ms(700), &b);
        assert_eq!(detector.verdict(&b), Some(Verdict::Alive));
        assert_eq!(ticks(&mut detector, start, 710, 900), [(900, Verdict::Suspected)]);
    }

    /// Hears `peer` with these pauses again and again, so many times. Returns when it was heard last.
    fn rhythm(detector: &mut Detector, start: Instant, peer: &MemberName, gaps: &[u64], times: usize) -> u64 {
        let mut at = 0;
        for gap in gaps.iter().cycle().take(gaps.len() * times) {
            at += gap;
            detector.heard(start + ms(at), peer);
        }
        at
    }

    #[test]
    fn a_peer_that_is_heard_irregularly_is_suspected_later_and_fails_no_later() {
        let (start, b) = (start(), peer("b"));
        let suspected_after = |gaps: &[u64]| {
            let mut detector = Detector::new(Timing::default());
            let last = rhythm(&mut detector, start, &b, gaps, 20);
            let raised = ticks(&mut detector, start, last, last + 1000);
            let [(suspected, Verdict::Suspected), (failed, Verdict::Failed)] = raised[..] else {
                panic!("{raised:?}");
            };
            assert_eq!(failed - last, 600, "{gaps:?}");
            suspected - last
        };
        assert_eq!(suspected_after(&[50]), 200);
        assert_eq!(suspected_after(&[45, 60, 50, 40]), 200, "what varies little");
        let lossy = suspected_after(&[50, 50, 50, 250, 0, 0]);
        assert!((300..400).contains(&lossy), "{lossy} ms");
        assert_eq!(suspected_after(&[50, 590]), 400, "halfway to a failure");
    }

    #[test]
    fn one_late_heartbeat_and_a_connection_that_was_made_anew_change_nothing() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        let late = rhythm(&mut detector, start, &b, &[50, 50, 50, 190], 1);
        detector.dropped(&b);
        detector.heard(start + ms(late + 5000), &b);
        let raised = ticks(&mut detector, start, late + 5000, late + 5390);
        assert_eq!(raised, [(late + 5200, Verdict::Suspected)]);
    }

    #[test]
    fn a_connection_that_ended_is_suspected_at_once_and_once() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        assert!(!detector.dropped(&b), "nobody watched it");
        detector.heard(start, &b);
        assert!(detector.dropped(&b));
        assert!(!detector.dropped(&b));
        assert_eq!(ticks(&mut detector, start, 0, 599), []);
        assert_eq!(ticks(&mut detector, start, 600, 600), [(600, Verdict::Failed)]);
    }

    #[test]
    fn an_answer_is_a_sign_of_life_and_no_connection() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        detector.heard(start, &b);
        assert!(detector.is_connected(&b));
        detector.dropped(&b);
        detector.answered(start + ms(10), &b);
        assert_eq!(detector.verdict(&b), Some(Verdict::Alive));
        assert!(!detector.is_connected(&b));
        assert!(detector.dropped(&b), "it may end again");
        detector.heard(start + ms(20), &b);
        assert!(detector.is_connected(&b));
    }

    #[test]
    fn who_slept_accuses_nobody_for_the_time_it_slept() {
        let (start, b) = (start(), peer("b"));
        let mut detector = Detector::new(Timing::default());
        detector.heard(start, &b);
        ticks(&mut detector, start, 0, 50);
        assert_eq!(detector.tick(start + ms(5000)), []);
        assert_eq!(ticks(&mut detector, start, 5010, 5190), []);
        assert_eq!(
            ticks(&mut detector, start, 5200, 5200),
            [(5200, Verdict::Suspected)]
        );
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused() {
        let with = |heartbeat, suspect, failed| {
            let timing = Timing {
                heartbeat: ms(heartbeat),
                suspect: ms(suspect),
                failed: ms(failed),
            };
            timing.check()
        };
        assert_eq!(Timing::default().check(), Ok(()));
        assert_eq!(with(0, 200, 600), Err(InvalidTiming::NoHeartbeat));
        assert!(matches!(
            with(100, 200, 600),
            Err(InvalidTiming::SuspectTooShort { .. })
        ));
        assert!(matches!(
            with(50, 200, 200),
            Err(InvalidTiming::FailedTooShort { .. })
        ));
    }
}
