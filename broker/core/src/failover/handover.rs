//! Switchover, failback and the stop that hands over: one member gives the service to another on purpose.
//!
//! It decides who may be handed the service, in which order it is given up, and when it is taken back. It
//! waits for no timeout while the other one does its part, and lets nobody believe that it still serves.
//!
//! Invariant: the next one is told only after the port is closed, the exports are withdrawn and the store is
//! released; until it is heard to be active, this broker stands ready to take the store back.

use std::time::Instant;

use daymark_naming_proto::{Epoch, MemberName, MemberState, Role, WithdrawReason};

use super::action::{Drain, Lapse, Motive, NoSwitchover};
use super::promotion::Promotion;
use super::settings::pause;
use super::{Action, Actions, Failover, Note, Phase};
use crate::detector::Verdict;

/// The service was given up for another member, which is not heard to be active yet.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    pub(super) to: MemberName,
    epoch: Epoch,
    begun: Instant,
    /// When to take the service back. Not known before the driver has given everything up.
    take_back_at: Option<Instant>,
}

impl Handover {
    /// At once, to see when everything was given up; then when to take it back.
    pub(super) fn deadline(&self) -> Instant {
        self.take_back_at.unwrap_or(self.begun)
    }
}

impl Failover {
    /// An operator wants somebody else to be active.
    pub(super) fn on_switchover(&mut self, now: Instant, to: Option<MemberName>, out: &mut Actions) {
        match self.successor(now, to) {
            Ok(to) => self.hand_over(now, to, Motive::Operator, out),
            Err(why) => out.push(Action::Note(Note::SwitchoverRefused(why))),
        }
    }

    /// Who would be handed the service now.
    fn successor(&self, now: Instant, wanted: Option<MemberName>) -> Result<MemberName, NoSwitchover> {
        if !matches!(self.phase, Phase::Active(_)) {
            let phase = self.view().phase;
            return Err(NoSwitchover::NotActive { phase });
        }
        if self.membership.proven_until.is_none_or(|until| now >= until) {
            return Err(NoSwitchover::NamingSilent);
        }
        let Some(member) = wanted else {
            return self.peers.successor().ok_or(NoSwitchover::NobodyReady);
        };
        if member == self.me {
            return Err(NoSwitchover::ActiveAlready { member });
        }
        if !self.peers.is_heard(&member) {
            return Err(NoSwitchover::NotHeard { member });
        }
        if !self.peers.is_ready(&member) {
            return Err(NoSwitchover::NotReady { member });
        }
        Ok(member)
    }

    fn hand_over(&mut self, now: Instant, to: MemberName, motive: Motive, out: &mut Actions) {
        let Phase::Active(active) = &self.phase else {
            return;
        };
        let epoch = active.epoch;
        out.push(Action::Note(Note::HandingOver {
            to: to.clone(),
            motive,
        }));
        release_for(&to, epoch, motive, out);
        self.phase = Phase::HandingOver(Handover {
            to,
            epoch,
            begun: now,
            take_back_at: None,
        });
    }

    /// A planned stop that hands over: whoever is ready is told at once, everybody else by the goodbye.
    pub(super) fn step_down_for_another(&self, epoch: Epoch, out: &mut Actions) {
        out.push(Action::SayGoodbye { handover: true });
        match self.peers.successor() {
            Some(to) => {
                let motive = Motive::Shutdown;
                out.push(Action::Note(Note::HandingOver {
                    to: to.clone(),
                    motive,
                }));
                release_for(&to, epoch, motive, out);
            }
            None => give_up_for_another(epoch, out),
        }
    }

    pub(super) fn on_handover_tick(&mut self, now: Instant, out: &mut Actions) {
        let timeout = self.settings.switchover_timeout;
        let Phase::HandingOver(handover) = &mut self.phase else {
            return;
        };
        let at = *handover.take_back_at.get_or_insert(now + timeout);
        if now >= at {
            self.take_back(now, Lapse::Late, out);
        }
    }

    /// `peer` is active under `epoch`.
    pub(super) fn on_active_while_handing_over(
        &mut self,
        peer: &MemberName,
        epoch: Epoch,
        out: &mut Actions,
    ) {
        let Phase::HandingOver(handover) = &self.phase else {
            return;
        };
        if epoch <= handover.epoch {
            return;
        }
        out.extend([
            Action::Note(Note::HandedOver {
                to: peer.clone(),
                epoch,
            }),
            Action::Announce {
                state: MemberState::Standby,
                epoch,
            },
        ]);
        self.watch(Some(peer.clone()), out);
    }

    /// Somebody may be gone: that matters if it was to take over.
    pub(super) fn on_gone_while_handing_over(
        &mut self,
        now: Instant,
        peer: &MemberName,
        why: Lapse,
        out: &mut Actions,
    ) {
        if matches!(&self.phase, Phase::HandingOver(handover) if handover.to == *peer) {
            self.take_back(now, why, out);
        }
    }

    /// The other one did not do its part. Its lock may outlive its sockets for a moment.
    fn take_back(&mut self, now: Instant, why: Lapse, out: &mut Actions) {
        let Phase::HandingOver(handover) = &self.phase else {
            return;
        };
        let (to, epoch) = (handover.to.clone(), handover.epoch);
        self.no_failback_before = Some(now + pause::FAILBACK);
        out.extend([
            Action::Note(Note::HandoverFailed { to, why }),
            Action::Announce {
                state: MemberState::Standby,
                epoch,
            },
        ]);
        let promotion = Promotion::after_death(now, &self.settings, None);
        self.promote(now, promotion, out);
    }

    /// The active broker released the store for this one.
    pub(super) fn take_over(&mut self, now: Instant, from: MemberName, is_failback: bool, out: &mut Actions) {
        out.push(Action::Note(Note::TakingOver { from, is_failback }));
        let promotion = Promotion::after_handover(now, &self.settings);
        self.promote(now, promotion, out);
    }

    /// Hands the service back to a primary that has been ready for long enough.
    pub(super) fn on_failback_tick(&mut self, now: Instant, out: &mut Actions) {
        if self.role != Role::Backup
            || !self.settings.auto_switchover
            || self.no_failback_before.is_some_and(|before| now < before)
        {
            return;
        }
        let Phase::Active(active) = &self.phase else {
            return;
        };
        let since = now.checked_sub(self.settings.failback_delay);
        let primary = self
            .peers
            .ready_primaries(since)
            .find(|(peer, incarnation)| active.respected.get(*peer) != Some(incarnation));
        let Some(primary) = primary.map(|(peer, _)| peer.clone()) else {
            return;
        };
        if self.successor(now, Some(primary.clone())).is_ok() {
            self.hand_over(now, primary, Motive::Failback, out);
        }
    }

    /// Silence of `peer` got worse.
    pub(super) fn on_silence_while_handing_over(
        &mut self,
        now: Instant,
        peer: &MemberName,
        verdict: Verdict,
        out: &mut Actions,
    ) {
        match verdict {
            Verdict::Alive | Verdict::Suspected => {} // It has its hands full: a new store may take its time.
            Verdict::Failed => self.on_gone_while_handing_over(now, peer, Lapse::Silent, out),
        }
    }
}

/// Drain, withdraw, release, in this order.
fn give_up_for_another(epoch: Epoch, out: &mut Actions) {
    out.extend([
        Action::ClosePort { drain: Drain::Short },
        Action::Note(Note::Drained),
        Action::Withdraw {
            epoch,
            reason: WithdrawReason::Handover,
        },
        Action::Note(Note::Withdrawn),
        Action::Release,
        Action::Note(Note::Released),
    ]);
}

fn release_for(to: &MemberName, epoch: Epoch, motive: Motive, out: &mut Actions) {
    give_up_for_another(epoch, out);
    out.push(Action::HandOver {
        to: to.clone(),
        epoch,
        motive,
    });
}
