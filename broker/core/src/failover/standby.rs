//! Before office: looking for an active broker at start-up, watching it, suspecting it.
//!
//! Invariant: whom this broker watches is watched by the detector too, so that no death goes unnoticed.

use std::time::Instant;

use daymark_naming_proto::{MemberName, Role};

use super::promotion::Promotion;
use super::settings::{Tries, pause};
use super::{Action, Actions, Failover, GroupSeen, Note, Phase, ProbeAnswer, Signal, Suspicion};
use crate::detector::Verdict;

/// A search for an active broker.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    attempt: u32,
    pub(super) until: Instant,
    /// The member that naming calls active, while it is asked.
    probing: Option<(MemberName, u64)>,
}

/// Waiting for a term of office.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The active broker.
    pub(super) active: Option<MemberName>,
    /// When to try the store again; only where nobody is active and nobody said that it shall stay so.
    pub(super) retry_at: Option<Instant>,
    /// Who was silent, and held the lock when it was last tried.
    frozen: Option<MemberName>,
    /// Whether this broker was cut off from everybody: it tries nothing before it hears from somebody.
    isolated: bool,
    /// Until when the one it watches, to whom the service was handed over, may still be a standby.
    pub(super) heir_until: Option<Instant>,
    /// Whether naming said meanwhile that the lease of the active broker ended.
    lease_expired: bool,
}

impl Watch {
    pub(super) fn over(active: Option<MemberName>) -> Self {
        Self {
            active,
            ..Self::default()
        }
    }
}

/// The active broker may be gone.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) peer: MemberName,
    suspicion: Suspicion,
    round: u32,
    probe: u64,
    /// Whether no probe was refused yet: a process that refuses is gone, one that is silent may be frozen.
    silent: bool,
    lease_expired: bool,
}

impl Suspect {
    /// A heartbeat ends a suspicion that came from silence. After a lost connection only the answer to a
    /// probe does: what was still on its way says nothing about now.
    pub(super) fn is_cleared_by(&self, peer: &MemberName) -> bool {
        self.peer == *peer && self.suspicion == Suspicion::Silent
    }
}

impl Failover {
    pub(super) fn discover(&mut self, now: Instant, attempt: u32, out: &mut Actions) {
        let discovery = Discovery {
            attempt,
            until: now + self.settings.discovery_response_timeout,
            probing: None,
        };
        self.phase = Phase::Discovering(discovery);
        out.extend([
            Action::Note(Note::Discovering { attempt }),
            Action::Discover { attempt },
        ]);
    }

    pub(super) fn on_discovery_tick(&mut self, now: Instant, out: &mut Actions) {
        let Phase::Discovering(discovery) = &self.phase else {
            return;
        };
        if now < discovery.until {
            return;
        }
        let attempt = discovery.attempt + 1;
        if attempt > self.settings.start_up_max_try_count {
            self.promote(now, Promotion::at_start(), out);
        } else {
            self.ask_naming(now, out);
            self.discover(now, attempt, out);
        }
    }

    pub(super) fn on_group_while_discovering(&mut self, now: Instant, group: &GroupSeen, out: &mut Actions) {
        let active = group.active.as_ref().filter(|active| **active != self.me);
        match active {
            Some(active) => self.probe_while_discovering(active.clone(), out),
            None => self.nobody_answers(now, out),
        }
    }

    fn probe_while_discovering(&mut self, peer: MemberName, out: &mut Actions) {
        let probe = self.probes + 1;
        if let Phase::Discovering(discovery) = &mut self.phase
            && discovery.probing.is_none()
        {
            self.probes = probe;
            discovery.probing = Some((peer.clone(), probe));
            out.push(Action::Probe { peer, probe });
        }
    }

    /// The search came to nothing. A primary need not wait; a backup gives it all the time of the search.
    fn nobody_answers(&mut self, now: Instant, out: &mut Actions) {
        match self.role {
            Role::Primary => self.promote(now, Promotion::at_start(), out),
            Role::Backup => {}
        }
    }

    pub(super) fn on_probed(&mut self, now: Instant, probe: u64, answer: ProbeAnswer, out: &mut Actions) {
        match &self.phase {
            Phase::Discovering(discovery) => {
                let asked = discovery.probing.clone().filter(|(_, asked)| *asked == probe);
                if let Some((peer, _)) = asked {
                    self.on_probed_while_discovering(now, peer, answer, out);
                }
            }
            Phase::Suspecting(suspect) if suspect.probe == probe => {
                let suspect = suspect.clone();
                self.on_probed_while_suspecting(now, suspect, answer, out);
            }
            Phase::New
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::Promoting(_)
            | Phase::Active(_)
            | Phase::HandingOver(_)
            | Phase::Ended => {}
        }
    }

    fn on_probed_while_discovering(
        &mut self,
        now: Instant,
        peer: MemberName,
        answer: ProbeAnswer,
        out: &mut Actions,
    ) {
        match answer {
            ProbeAnswer::Active => {
                self.peers.detector.answered(now, &peer);
                self.watch(Some(peer), out);
            }
            ProbeAnswer::Standby | ProbeAnswer::Refused => self.nobody_answers(now, out),
            ProbeAnswer::Silent => {}
        }
    }

    /// Nobody is active: watches whoever says it is, or tries the store again after a pause.
    pub(super) fn wait_for_active(&mut self, now: Instant, frozen: Option<MemberName>, out: &mut Actions) {
        let active = self.peers.active().map(|(peer, _)| peer.clone());
        let is_orphan = active.is_none() && self.settings.fail_over_max_try_count != Tries::Never;
        self.watch(active, out);
        if let Phase::Standby(watch) = &mut self.phase
            && is_orphan
        {
            watch.retry_at = Some(now + pause::ORPHAN);
            watch.frozen = frozen;
        }
    }

    /// The active broker handed over to a third one: if that dies on the way, it is noticed like any death.
    pub(super) fn wait_for_heir(&mut self, now: Instant, heir: MemberName, out: &mut Actions) {
        self.watch(Some(heir), out);
        if let Phase::Standby(watch) = &mut self.phase {
            watch.heir_until = Some(now + self.settings.switchover_timeout);
        }
    }

    /// Nobody was in reach for a whole lease: this broker waits until somebody is.
    pub(super) fn wait_for_contact(&mut self, out: &mut Actions) {
        self.watch(None, out);
        if let Phase::Standby(watch) = &mut self.phase {
            watch.isolated = true;
        }
    }

    /// Naming or a peer is in reach again.
    pub(super) fn on_contact(&mut self, now: Instant) {
        let may_try = self.settings.fail_over_max_try_count != Tries::Never;
        if let Phase::Standby(watch) = &mut self.phase
            && watch.isolated
        {
            watch.isolated = false;
            watch.retry_at = may_try.then(|| now + pause::ORPHAN);
        }
    }

    pub(super) fn on_standby_tick(&mut self, now: Instant, out: &mut Actions) {
        let Phase::Standby(watch) = &mut self.phase else {
            return;
        };
        watch.heir_until = watch.heir_until.filter(|until| now < *until);
        if watch.retry_at.is_some_and(|at| now >= at) {
            let promotion = Promotion::again(watch.frozen.clone(), watch.lease_expired);
            self.promote(now, promotion, out);
        }
    }

    pub(super) fn on_group_while_standby(&mut self, now: Instant, group: &GroupSeen) {
        self.on_contact(now);
        if let Phase::Standby(watch) = &mut self.phase {
            watch.lease_expired = group.lease_expired;
        }
    }

    /// The active broker may be gone.
    pub(super) fn suspect(
        &mut self,
        now: Instant,
        peer: MemberName,
        suspicion: Suspicion,
        out: &mut Actions,
    ) {
        if let Some(handover) = self.peers.leaving(&peer) {
            return self.on_planned_shutdown(now, peer, handover, out);
        }
        out.push(Action::Note(Note::Suspected {
            peer: peer.clone(),
            suspicion,
        }));
        match self.settings.fail_over_max_try_count {
            Tries::Never => {
                out.push(Action::Note(Note::NeverFailsOver { peer: peer.clone() }));
                self.forget_peer(&peer);
                self.watch(None, out);
            }
            Tries::Times(0) => self.confirm(now, peer, None, out),
            Tries::Times(_) => {
                let suspect = Suspect {
                    peer,
                    suspicion,
                    round: 0,
                    probe: 0,
                    silent: true,
                    lease_expired: false,
                };
                self.probe_suspect(now, suspect, out);
            }
        }
    }

    fn on_planned_shutdown(&mut self, now: Instant, peer: MemberName, handover: bool, out: &mut Actions) {
        out.push(Action::Note(Note::PlannedShutdown {
            peer: peer.clone(),
            handover,
        }));
        self.forget_peer(&peer);
        if handover && self.settings.fail_over_max_try_count != Tries::Never {
            self.promote(now, Promotion::after_death(now, &self.settings, None), out);
        } else {
            self.watch(None, out);
        }
    }

    fn probe_suspect(&mut self, now: Instant, mut suspect: Suspect, out: &mut Actions) {
        self.probes += 1;
        suspect.round += 1;
        suspect.probe = self.probes;
        out.push(Action::Probe {
            peer: suspect.peer.clone(),
            probe: suspect.probe,
        });
        if suspect.suspicion == Suspicion::Silent || suspect.round > 1 && suspect.silent {
            self.membership.ask_no_later_than(now); // Naming may know that the lease has ended.
        }
        self.phase = Phase::Suspecting(suspect);
    }

    fn on_probed_while_suspecting(
        &mut self,
        now: Instant,
        mut suspect: Suspect,
        answer: ProbeAnswer,
        out: &mut Actions,
    ) {
        match answer {
            ProbeAnswer::Active => {
                self.peers.detector.answered(now, &suspect.peer);
                return self.clear_suspicion(suspect.peer, out);
            }
            ProbeAnswer::Standby => return self.confirm(now, suspect.peer, None, out),
            ProbeAnswer::Refused => suspect.silent = false,
            ProbeAnswer::Silent => {}
        }
        match self.settings.fail_over_max_try_count {
            Tries::Times(most) if suspect.round < most => self.probe_suspect(now, suspect, out),
            Tries::Times(_) | Tries::Never => {
                let frozen = suspect.silent.then(|| suspect.peer.clone());
                self.confirm(now, suspect.peer, frozen, out);
            }
        }
    }

    pub(super) fn clear_suspicion(&mut self, active: MemberName, out: &mut Actions) {
        if let Phase::Suspecting(suspect) = &self.phase {
            let peer = suspect.peer.clone();
            out.push(Action::Note(Note::Cleared { peer }));
        }
        self.watch(Some(active), out);
    }

    pub(super) fn on_group_while_suspecting(&mut self, now: Instant, group: &GroupSeen, out: &mut Actions) {
        if let Phase::Suspecting(suspect) = &mut self.phase {
            suspect.lease_expired = group.lease_expired;
        }
        self.confirm_if_lease_expired(now, out);
    }

    /// A peer was silent for `Timing::failed`.
    pub(super) fn on_failed(&mut self, now: Instant, peer: &MemberName, out: &mut Actions) {
        if matches!(&self.phase, Phase::Suspecting(suspect) if suspect.peer == *peer) {
            self.confirm_if_lease_expired(now, out);
        }
    }

    /// Naming and the peers agree that the active broker is gone: no probe needs to run out.
    fn confirm_if_lease_expired(&mut self, now: Instant, out: &mut Actions) {
        let Phase::Suspecting(suspect) = &self.phase else {
            return;
        };
        let peer = suspect.peer.clone();
        if suspect.lease_expired && self.peers.detector.verdict(&peer) == Some(Verdict::Failed) {
            self.signal(&peer, Signal::Failed, out);
            out.push(Action::Note(Note::Confirmed { peer: peer.clone() }));
            self.forget_peer(&peer);
            self.promote(now, Promotion::again(Some(peer), true), out);
        }
    }

    fn confirm(&mut self, now: Instant, peer: MemberName, frozen: Option<MemberName>, out: &mut Actions) {
        self.signal(&peer, Signal::Failed, out);
        out.push(Action::Note(Note::Confirmed { peer: peer.clone() }));
        self.forget_peer(&peer);
        self.promote(now, Promotion::after_death(now, &self.settings, frozen), out);
    }
}
