//! The other members as they are heard, and what each heartbeat, silence and lost connection means.

use std::collections::BTreeMap;
use std::time::Instant;

use daymark_naming_proto::{Epoch, MemberName, MemberState};

use super::standby::Watch;
use super::{Action, Actions, Failover, Note, PeerEvent, Phase, Suspicion};
use crate::detector::{Detector, Verdict};

/// What the other members said last, and how long ago.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    pub(super) detector: Detector,
    said: BTreeMap<MemberName, Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    state: MemberState,
    epoch: Epoch,
    /// Set once an operator stops it: whether it hands over.
    leaving: Option<bool>,
}

impl Peers {
    pub(super) const fn new(detector: Detector) -> Self {
        Self {
            detector,
            said: BTreeMap::new(),
        }
    }

    /// The peer that said it is active, under the newest epoch, and of whom nothing worse is believed.
    pub(super) fn active(&self) -> Option<(&MemberName, Epoch)> {
        self.said
            .iter()
            .filter(|(peer, said)| {
                said.state == MemberState::Active
                    && said.leaving.is_none()
                    && self.detector.verdict(peer) == Some(Verdict::Alive)
            })
            .map(|(peer, said)| (peer, said.epoch))
            .max_by_key(|(_, epoch)| *epoch)
    }

    /// Whether `peer` said that an operator stops it, and then whether it hands over.
    pub(super) fn leaving(&self, peer: &MemberName) -> Option<bool> {
        self.said.get(peer)?.leaving
    }

    fn forget(&mut self, peer: &MemberName) {
        self.detector.forget(peer);
        self.said.remove(peer);
    }
}

impl Failover {
    pub(super) fn on_peer(&mut self, now: Instant, event: PeerEvent, out: &mut Actions) {
        match event {
            PeerEvent::Heard { peer, state, epoch } => self.on_heard(now, peer, state, epoch, out),
            PeerEvent::Leaving { peer, handover } => {
                if let Some(said) = self.peers.said.get_mut(&peer) {
                    said.leaving = Some(handover);
                }
            }
            PeerEvent::Dropped { peer } => {
                if self.peers.detector.dropped(&peer) {
                    self.on_gone(now, &peer, Suspicion::Dropped, out);
                }
            }
            PeerEvent::Refused { peer } => self.on_refused(now, &peer, out),
            PeerEvent::Probed { probe, answer } => self.on_probed(now, probe, answer, out),
        }
    }

    fn on_heard(
        &mut self,
        now: Instant,
        peer: MemberName,
        state: MemberState,
        epoch: Epoch,
        out: &mut Actions,
    ) {
        if peer == self.me {
            return;
        }
        self.peers.detector.heard(now, &peer);
        let leaving = self.peers.leaving(&peer);
        let said = Said {
            state,
            epoch,
            leaving: leaving.filter(|_| state == MemberState::Active),
        };
        match self.peers.said.get_mut(&peer) {
            Some(before) => *before = said,
            None => {
                self.peers.said.insert(peer.clone(), said);
            }
        }
        match state {
            MemberState::Active => self.on_heard_active(&peer, epoch, out),
            MemberState::Standby => self.on_heard_standby(now, &peer, out),
        }
    }

    fn on_heard_active(&mut self, peer: &MemberName, epoch: Epoch, out: &mut Actions) {
        if self.office().is_some_and(|mine| epoch > mine) {
            return self.on_superseded(epoch, out);
        }
        let is_new_term = epoch > self.epoch;
        self.epoch = self.epoch.max(epoch);
        match &self.phase {
            Phase::Promoting(promotion) if is_new_term && promotion.waits_for_lock() => {
                self.watch(Some(peer.clone()), out); // Somebody else was faster.
            }
            Phase::Discovering(_) if self.peers.leaving(peer).is_none() => {
                self.watch(Some(peer.clone()), out);
            }
            Phase::Standby(watch) => {
                let is_newer = self.peers.active().is_some_and(|(newest, _)| newest == peer);
                if watch.active.as_ref() != Some(peer) && is_newer {
                    self.watch(Some(peer.clone()), out);
                }
            }
            Phase::Suspecting(suspect) => {
                if suspect.is_cleared_by(peer) || suspect.peer != *peer {
                    self.clear_suspicion(peer.clone(), out);
                }
            }
            Phase::New | Phase::Discovering(_) | Phase::Promoting(_) | Phase::Active(_) | Phase::Ended => {}
        }
    }

    /// A peer that was active and says standby was started anew: its term is over.
    fn on_heard_standby(&mut self, now: Instant, peer: &MemberName, out: &mut Actions) {
        match &self.phase {
            Phase::Standby(watch) if watch.active.as_ref() == Some(peer) => {
                self.suspect(now, peer.clone(), Suspicion::Dropped, out);
            }
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::Promoting(_)
            | Phase::Active(_)
            | Phase::Ended => {}
        }
    }

    /// Silence got worse.
    pub(super) fn on_verdict(
        &mut self,
        now: Instant,
        peer: &MemberName,
        verdict: Verdict,
        out: &mut Actions,
    ) {
        match verdict {
            Verdict::Alive => {}
            Verdict::Suspected => self.on_gone(now, peer, Suspicion::Silent, out),
            Verdict::Failed => self.on_failed(peer, out),
        }
    }

    /// A peer may be gone: that matters if it is the one this broker watches.
    fn on_gone(&mut self, now: Instant, peer: &MemberName, suspicion: Suspicion, out: &mut Actions) {
        let watched = match &self.phase {
            Phase::Standby(watch) => watch.active.as_ref() == Some(peer),
            Phase::New
            | Phase::Discovering(_)
            | Phase::Suspecting(_)
            | Phase::Promoting(_)
            | Phase::Active(_)
            | Phase::Ended => false,
        };
        if watched {
            self.suspect(now, peer.clone(), suspicion, out);
        }
    }

    /// Nobody listens where the peer did: it is gone, and being cut off from it means nothing any more.
    fn on_refused(&mut self, now: Instant, peer: &MemberName, out: &mut Actions) {
        if self.peers.detector.verdict(peer) == Some(Verdict::Alive) && self.peers.detector.is_connected(peer)
        {
            return; // It is heard on another connection: what refused was an address it no longer has.
        }
        self.on_gone(now, peer, Suspicion::Dropped, out);
        let suspected = matches!(&self.phase, Phase::Suspecting(suspect) if suspect.peer == *peer);
        if !suspected {
            self.peers.forget(peer);
        }
    }

    pub(super) fn forget_peer(&mut self, peer: &MemberName) {
        self.peers.forget(peer);
    }

    /// Whether every peer this broker knows has been silent for its whole lease, and there is one.
    pub(super) fn peers_are_out_of_reach(&self, now: Instant) -> bool {
        let lease = self.settings.lease;
        let mut silences = self
            .peers
            .detector
            .peers()
            .filter_map(|peer| self.peers.detector.silence(now, peer))
            .peekable();
        silences.peek().is_some() && silences.all(|silence| silence >= lease)
    }

    /// The epoch this broker serves under, or is about to.
    fn office(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Active(active) => Some(active.epoch),
            Phase::Promoting(promotion) => promotion.epoch,
            Phase::New | Phase::Discovering(_) | Phase::Standby(_) | Phase::Suspecting(_) | Phase::Ended => {
                None
            }
        }
    }

    /// Watches `active`, or nobody.
    pub(super) fn watch(&mut self, active: Option<MemberName>, out: &mut Actions) {
        out.push(Action::Note(Note::Standby {
            watching: active.clone(),
        }));
        self.phase = Phase::Standby(Watch::over(active));
    }
}
