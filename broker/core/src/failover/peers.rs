//! The other members as they are heard, and what each heartbeat, silence and lost connection means.

use std::collections::BTreeMap;
use std::time::Instant;

use daymark_naming_proto::{Epoch, MemberName, MemberState, Role};

use super::action::Lapse;
use super::standby::Watch;
use super::{About, Action, Actions, Failover, Note, PeerEvent, Phase, Signal, Suspicion};
use crate::detector::{Detector, Verdict};

/// What the other members said last, and how long ago.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    pub(super) detector: Detector,
    said: BTreeMap<MemberName, Said>,
}

#[derive(Clone, Debug)]
struct Said {
    /// When it was heard last. The detector's own memory forgives a node its own sleep; this one does not.
    at: Instant,
    state: MemberState,
    epoch: Epoch,
    /// Set once an operator stops it: whether it hands over.
    leaving: Option<bool>,
    about: About,
    /// Since when it has said without interruption that it is a ready standby.
    ready_since: Option<Instant>,
    /// What was told of it last.
    told: Option<Signal>,
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

    /// Whether `peer` is heard.
    pub(super) fn is_heard(&self, peer: &MemberName) -> bool {
        self.said.contains_key(peer) && self.detector.verdict(peer) == Some(Verdict::Alive)
    }

    /// Whether `peer` could be handed the service now.
    pub(super) fn is_ready(&self, peer: &MemberName) -> bool {
        self.is_heard(peer)
            && self
                .said
                .get(peer)
                .is_some_and(|said| said.ready_since.is_some() && said.leaving.is_none())
    }

    /// Whether `peer` said last that it is active, or a ready standby.
    pub(super) fn is_active_or_ready(&self, peer: &MemberName) -> bool {
        let said = self.said.get(peer);
        said.is_some_and(|said| said.state == MemberState::Active || said.ready_since.is_some())
    }

    /// What was told of `peer` last; `None` if it is not known.
    pub(super) fn told(&mut self, peer: &MemberName) -> Option<&mut Option<Signal>> {
        self.said.get_mut(peer).map(|said| &mut said.told)
    }

    /// Who would be handed the service where nobody is named: a primary before a backup, then by name.
    pub(super) fn successor(&self) -> Option<MemberName> {
        let ready = |role| {
            let mut said = self.said.iter().filter(move |(_, said)| said.about.role == role);
            said.find(|(peer, _)| self.is_ready(peer))
        };
        let first = ready(Role::Primary).or_else(|| ready(Role::Backup));
        first.map(|(peer, _)| peer.clone())
    }

    /// The primaries that have been ready since `since`, with the run of their process.
    pub(super) fn ready_primaries(&self, since: Option<Instant>) -> impl Iterator<Item = (&MemberName, u64)> {
        let long_enough =
            move |said: &Said| said.ready_since.zip(since).is_some_and(|(at, since)| at <= since);
        self.said
            .iter()
            .filter(move |(peer, said)| {
                said.about.role == Role::Primary && long_enough(said) && self.is_ready(peer)
            })
            .map(|(peer, said)| (peer, said.about.incarnation))
    }

    /// Every known peer with the run of its process.
    pub(super) fn incarnations(&self) -> BTreeMap<MemberName, u64> {
        let said = self.said.iter();
        said.map(|(peer, said)| (peer.clone(), said.about.incarnation))
            .collect()
    }

    fn forget(&mut self, peer: &MemberName) {
        self.detector.forget(peer);
        self.said.remove(peer);
    }
}

impl Failover {
    pub(super) fn on_peer(&mut self, now: Instant, event: PeerEvent, out: &mut Actions) {
        match event {
            PeerEvent::Heard {
                peer,
                state,
                epoch,
                about,
            } => self.on_heard(now, peer, state, epoch, about, out),
            PeerEvent::Leaving { peer, handover } => {
                if let Some(said) = self.peers.said.get_mut(&peer) {
                    said.leaving = Some(handover);
                    self.signal(&peer, Signal::PlannedShutdown, out);
                }
            }
            PeerEvent::Dropped { peer } => {
                if self.peers.detector.dropped(&peer) {
                    self.signal(&peer, Signal::Suspected, out);
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
        about: About,
        out: &mut Actions,
    ) {
        if peer == self.me {
            return;
        }
        let heir = about.hands_over_to.clone().map(|heir| (heir, about.is_failback));
        self.remember(now, &peer, state, epoch, about);
        self.signal_heard(&peer, out);
        self.on_contact(now);
        match (state, heir) {
            (MemberState::Active, _) => self.on_heard_active(now, &peer, epoch, out),
            (MemberState::Standby, Some(heir)) => self.on_released(now, &peer, heir, epoch, out),
            (MemberState::Standby, None) => self.on_heard_standby(now, &peer, out),
        }
    }

    fn remember(&mut self, now: Instant, peer: &MemberName, state: MemberState, epoch: Epoch, about: About) {
        self.peers.detector.heard(now, peer);
        let before = self.peers.said.get(peer);
        let same_run = before.filter(|before| before.about.incarnation == about.incarnation);
        let is_ready = state == MemberState::Standby && about.is_ready;
        let said = Said {
            at: now,
            state,
            epoch,
            // Once said it holds for this run of its process.
            leaving: same_run.and_then(|before| before.leaving),
            told: same_run.and_then(|before| before.told),
            ready_since: is_ready.then(|| same_run.and_then(|before| before.ready_since).unwrap_or(now)),
            about,
        };
        self.peers.said.insert(peer.clone(), said);
    }

    /// `peer` gave up the store so that `heir` takes it.
    fn on_released(
        &mut self,
        now: Instant,
        peer: &MemberName,
        (heir, is_failback): (MemberName, bool),
        epoch: Epoch,
        out: &mut Actions,
    ) {
        let waits = match &self.phase {
            Phase::Discovering(_) | Phase::Standby(_) => true,
            Phase::Suspecting(suspect) => suspect.peer == *peer,
            Phase::New | Phase::Promoting(_) | Phase::Active(_) | Phase::HandingOver(_) | Phase::Ended => {
                false
            }
        };
        if !waits || epoch < self.epoch {
            return;
        }
        self.epoch = epoch;
        if heir == self.me {
            return self.take_over(now, peer.clone(), is_failback, out);
        }
        if self.view().watching.as_ref() == Some(peer) {
            self.wait_for_heir(now, heir, out);
        }
    }

    fn on_heard_active(&mut self, now: Instant, peer: &MemberName, epoch: Epoch, out: &mut Actions) {
        if self.office().is_some_and(|mine| epoch > mine) {
            return self.on_superseded(now, epoch, out);
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
            Phase::HandingOver(_) => self.on_active_while_handing_over(peer, epoch, out),
            Phase::New | Phase::Discovering(_) | Phase::Promoting(_) | Phase::Active(_) | Phase::Ended => {}
        }
    }

    /// A peer that was active and says standby was started anew: its term is over.
    fn on_heard_standby(&mut self, now: Instant, peer: &MemberName, out: &mut Actions) {
        match &self.phase {
            Phase::Standby(watch) if watch.active.as_ref() == Some(peer) && watch.heir_until.is_none() => {
                self.suspect(now, peer.clone(), Suspicion::Dropped, out);
            }
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::Promoting(_)
            | Phase::Active(_)
            | Phase::HandingOver(_)
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
        self.on_silence_while_handing_over(now, peer, verdict, out);
        match verdict {
            Verdict::Alive => {}
            Verdict::Suspected => {
                self.signal(peer, Signal::Suspected, out);
                self.on_gone(now, peer, Suspicion::Silent, out);
            }
            Verdict::Failed => {
                self.signal(peer, Signal::Failed, out);
                self.on_failed(now, peer, out);
            }
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
            | Phase::HandingOver(_)
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
        self.on_gone_while_handing_over(now, peer, Lapse::Gone, out);
        self.on_gone(now, peer, Suspicion::Dropped, out);
        let suspected = matches!(&self.phase, Phase::Suspecting(suspect) if suspect.peer == *peer);
        if !suspected {
            self.signal(peer, Signal::Failed, out);
            self.peers.forget(peer);
        }
    }

    pub(super) fn forget_peer(&mut self, peer: &MemberName) {
        self.peers.forget(peer);
    }

    /// Whether every peer this broker knows has been silent for its whole lease, and there is one.
    pub(super) fn peers_are_out_of_reach(&self, now: Instant) -> bool {
        let lease = self.settings.lease;
        let mut heard = self.peers.said.values().map(|said| said.at).peekable();
        heard.peek().is_some() && heard.all(|at| now.saturating_duration_since(at) >= lease)
    }

    /// The epoch this broker serves under, or is about to.
    fn office(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Active(active) => Some(active.epoch),
            Phase::Promoting(promotion) => promotion.epoch,
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::HandingOver(_)
            | Phase::Ended => None,
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
