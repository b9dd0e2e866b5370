//! In office: exports that follow naming, a lease that is proven, and the ways a term ends.
//!
//! Invariant: an active broker that learns of a newer epoch closes its port before it does anything else.

use std::collections::BTreeMap;
use std::time::Instant;

use daymark_naming_proto::{Epoch, Evidence, MemberName, WithdrawReason};

use super::action::Drain;
use super::promotion::Promotion;
use super::settings::pause;
use super::{Action, Actions, Failover, GroupSeen, Note, Phase, Refusal, Step, StepEvent};

/// A term of office.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) epoch: Epoch,
    since: Instant,
    /// Whether naming granted the epoch; without that it knows nothing of this term yet.
    claimed: bool,
    exports: Exports,
    /// Whether the exports changed while they were being published.
    outdated: bool,
    /// Runs of other processes that this term was begun in place of on purpose: no failback goes to them.
    pub(super) respected: BTreeMap<MemberName, u64>,
}

/// How far the exports of this term are known to naming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exports {
    /// They are visible.
    Published,
    /// A claim or a publication is under way.
    Asked,
    /// Naming did not answer: ask again then.
    Retry { at: Instant },
}

impl Exports {
    /// Naming did not take them: it is asked again after a pause.
    pub(super) fn retry(now: Instant) -> Self {
        Self::Retry {
            at: now + pause::NAMING,
        }
    }
}

impl Active {
    pub(super) const fn new(now: Instant, epoch: Epoch, claimed: bool, exports: Exports) -> Self {
        Self {
            epoch,
            since: now,
            claimed,
            exports,
            outdated: false,
            respected: BTreeMap::new(),
        }
    }

    pub(super) const fn retry_at(&self) -> Option<Instant> {
        match self.exports {
            Exports::Retry { at } => Some(at),
            Exports::Published | Exports::Asked => None,
        }
    }

    /// The next thing to ask naming for, so that it shows the exports.
    fn ask(&mut self, out: &mut Actions) {
        self.exports = Exports::Asked;
        self.outdated = false;
        let epoch = self.epoch;
        out.push(if self.claimed {
            Action::Publish { epoch }
        } else {
            Action::Claim {
                store_epoch: Epoch(epoch.0.saturating_sub(1)), // Naming grants the next one: this term's.
                evidence: Evidence::StoreLock,
            }
        });
    }
}

impl Failover {
    pub(super) fn on_active_tick(&mut self, now: Instant, out: &mut Actions) {
        if self.is_isolated(now) {
            self.demote(Note::Isolated, out);
            return self.wait_for_contact(out);
        }
        self.on_failback_tick(now, out);
        let joined = self.membership.joined;
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        if active.retry_at().is_some_and(|at| now >= at) {
            if joined {
                active.ask(out);
            } else {
                active.exports = Exports::retry(now);
            }
        }
    }

    /// Whether neither naming nor any peer was in reach for a whole lease. A broker without peers is not
    /// isolated by an outage of naming: nobody is there who could take over.
    fn is_isolated(&self, now: Instant) -> bool {
        let Phase::Active(active) = &self.phase else {
            return false;
        };
        let lease_ends = active.since + self.settings.lease;
        let proven = self.membership.proven_until.unwrap_or(lease_ends);
        now >= proven && now >= lease_ends && self.peers_are_out_of_reach(now)
    }

    pub(super) fn on_membership_while_active(&mut self, out: &mut Actions) {
        if let Phase::Active(active) = &mut self.phase
            && active.retry_at().is_some()
        {
            active.ask(out);
        }
    }

    pub(super) fn on_members_changed(&mut self, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        match active.exports {
            Exports::Published => active.ask(out),
            Exports::Asked => active.outdated = true,
            Exports::Retry { .. } => {} // What is published then is what is known then.
        }
    }

    /// Naming's view of the group, as of some moment after `asked`.
    pub(super) fn on_group_while_active(
        &mut self,
        now: Instant,
        asked: Instant,
        group: &GroupSeen,
        out: &mut Actions,
    ) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        if asked < active.since || active.exports == Exports::Asked {
            return; // It may be older than this term, or than the answer under way.
        }
        let is_mine = group.active.as_ref() == Some(&self.me);
        let is_others = group.active.is_some() && !is_mine;
        if group.epoch < active.epoch {
            active.claimed = false;
            return active.ask(out);
        }
        if is_others {
            return self.on_superseded(now, group.epoch, out);
        }
        if group.epoch > active.epoch || !is_mine {
            return self.serve_new_term(now, out);
        }
        active.claimed = true;
        if active.retry_at().is_some() {
            active.ask(out);
        }
    }

    pub(super) fn on_step_while_active(&mut self, now: Instant, event: StepEvent, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        match event {
            StepEvent::Claimed { epoch } if epoch == active.epoch => {
                active.claimed = true;
                active.since = now;
                out.push(Action::Note(Note::Claimed { epoch }));
                active.ask(out);
            }
            StepEvent::Claimed { .. } => self.serve_new_term(now, out),
            StepEvent::Published => {
                active.exports = Exports::Published;
                out.push(Action::Note(Note::Published));
                if active.outdated {
                    active.ask(out);
                }
            }
            StepEvent::ClaimUnanswered | StepEvent::PublishUnanswered => {
                active.exports = Exports::retry(now);
            }
            StepEvent::ClaimRefused(refusal) => self.on_refused_while_active(now, Step::Claim, refusal, out),
            StepEvent::PublishRefused(refusal) => {
                self.on_refused_while_active(now, Step::Publish, refusal, out);
            }
            StepEvent::Locked { .. }
            | StepEvent::LockBusy { .. }
            | StepEvent::EpochWritten
            | StepEvent::EpochStale { .. }
            | StepEvent::Recovered { .. }
            | StepEvent::PortOpened
            | StepEvent::Failed { .. } => {} // Steps of a promotion, which is over.
        }
    }

    fn on_refused_while_active(&mut self, now: Instant, step: Step, refusal: Refusal, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        match refusal {
            Refusal::NotMember => {
                active.exports = Exports::retry(now);
                self.membership.joined = false;
                self.ask_naming(now, out);
            }
            Refusal::StaleEpoch { current } if current == active.epoch => self.serve_new_term(now, out),
            Refusal::StaleEpoch { current } => self.on_superseded(now, current, out),
            Refusal::ActiveExists { epoch, .. } => self.on_superseded(now, epoch, out),
            Refusal::Other(why) => self.fail(step, why, out),
        }
    }

    /// Naming ended this term and nobody else is active: everything is given up, and the ordinary steps
    /// lead to a new term under an epoch that store and naming agree on.
    fn serve_new_term(&mut self, now: Instant, out: &mut Actions) {
        let epoch = self.epoch;
        self.demote(Note::TermEnded { epoch }, out);
        self.promote(now, Promotion::at_start(), out);
    }
}

/// A planned stop, up to the release of the store.
pub(super) fn step_down(epoch: Epoch, out: &mut Actions) {
    out.extend([
        Action::SayGoodbye { handover: false },
        Action::Withdraw {
            epoch,
            reason: WithdrawReason::Planned,
        },
        Action::ClosePort { drain: Drain::Full },
        Action::Release,
    ]);
}
