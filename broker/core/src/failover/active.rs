//! In office: exports that follow naming, a lease that is proven, and the ways a term ends.
//!
//! Invariant: an active broker that learns of a newer epoch closes its port before it does anything else.

use std::collections::BTreeMap;
use std::time::Instant;

use daymark_naming_proto::{Epoch, Evidence, MemberName, Name, WithdrawReason};

use super::action::Drain;
use super::exports::{Added, ExportAnswer, ExportChange, Fault};
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
    /// Whether naming took the export set of this term.
    pub(super) published: bool,
    /// The names that administrators gave.
    pub(super) added: Added,
    /// Whether names that naming refused are being offered again, and nothing else is new.
    offers_again: bool,
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
    /// They are visible without the names that naming refused, which are offered again then.
    Partial { again_at: Instant },
    /// A claim or a publication is under way.
    Asked,
    /// Naming did not answer: ask again then.
    Retry { at: Instant },
}

impl Exports {
    /// Naming took what was offered.
    pub(super) fn after(now: Instant, added: &Added) -> Self {
        if added.is_partial() {
            let again_at = now + pause::LEFT_OUT;
            return Self::Partial { again_at };
        }
        Self::Published
    }

    /// Naming did not take them: it is asked again after a pause.
    pub(super) fn retry(now: Instant) -> Self {
        Self::Retry {
            at: now + pause::NAMING,
        }
    }
}

impl Active {
    pub(super) fn new(now: Instant, epoch: Epoch, claimed: bool, exports: Exports) -> Self {
        Self {
            epoch,
            since: now,
            claimed,
            exports,
            published: matches!(exports, Exports::Published | Exports::Partial { .. }),
            added: Added::default(),
            offers_again: false,
            outdated: false,
            respected: BTreeMap::new(),
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.exports {
            Exports::Retry { at } | Exports::Partial { again_at: at } => Some(at),
            Exports::Published | Exports::Asked => None,
        }
    }

    /// Whether naming did not answer when it was asked last.
    const fn is_unanswered(&self) -> bool {
        matches!(self.exports, Exports::Retry { .. })
    }

    /// The export set is no longer what was published, or is being published.
    fn publish_anew(&mut self, out: &mut Actions) {
        self.offers_again = false;
        match self.exports {
            Exports::Published | Exports::Partial { .. } => self.ask(out),
            Exports::Asked => self.outdated = true,
            Exports::Retry { .. } => {} // What is published then is what is known then.
        }
    }

    /// Naming does not answer: it is asked again, and an administrator need not wait for that.
    fn wait_for_naming(&mut self, now: Instant, out: &mut Actions) {
        self.exports = Exports::retry(now);
        self.added.unanswered(out);
    }

    /// The next thing to ask naming for, so that it shows the exports.
    fn ask(&mut self, out: &mut Actions) {
        self.exports = Exports::Asked;
        self.outdated = false;
        let epoch = self.epoch;
        out.push(if self.claimed {
            Action::Publish {
                epoch,
                added: self.added.offer(),
            }
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
        match active.exports {
            Exports::Retry { at } if now >= at && joined => active.ask(out),
            Exports::Retry { at } if now >= at => active.wait_for_naming(now, out),
            Exports::Partial { again_at } if now >= again_at => {
                active.added.offer_all();
                active.offers_again = true;
                active.ask(out);
            }
            Exports::Retry { .. } | Exports::Partial { .. } | Exports::Published | Exports::Asked => {}
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
            && active.is_unanswered()
        {
            active.ask(out);
        }
    }

    pub(super) fn on_members_changed(&mut self, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        active.publish_anew(out);
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
        if active.is_unanswered() {
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
                active.published = true;
                active.added.published(out);
                active.exports = Exports::after(now, &active.added);
                let is_as_before = std::mem::take(&mut active.offers_again) && active.added.is_partial();
                if !is_as_before {
                    out.push(Action::Note(Note::Published));
                }
                if active.outdated {
                    active.ask(out);
                }
            }
            StepEvent::ClaimUnanswered | StepEvent::PublishUnanswered => active.wait_for_naming(now, out),
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
                active.wait_for_naming(now, out);
                self.membership.joined = false;
                self.ask_naming(now, out);
            }
            Refusal::StaleEpoch { current } if current == active.epoch => self.serve_new_term(now, out),
            Refusal::StaleEpoch { current } => self.on_superseded(now, current, out),
            Refusal::ActiveExists { epoch, .. } => self.on_superseded(now, epoch, out),
            Refusal::Name { name, why } => self.publish_again_without(step, Some(&name), why, out),
            Refusal::Other(why) => self.publish_again_without(step, None, why, out),
        }
    }

    /// Names that administrators gave end no term: what was published before the change that
    /// naming refused is published again, or everything without the names at fault.
    fn publish_again_without(&mut self, step: Step, name: Option<&Name>, why: String, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        let fault = match step {
            Step::Publish => active.added.refused(name, &why, out),
            Step::Lock | Step::Claim | Step::WriteEpoch | Step::Recover | Step::OpenPort | Step::Announce => {
                Fault::Configured
            }
        };
        match fault {
            Fault::Change | Fault::Names => active.ask(out),
            Fault::Configured => self.fail(step, why, out),
        }
    }

    /// An administrator changes the names: the set is published anew, under the same epoch.
    pub(super) fn on_export_change(&mut self, change: ExportChange, out: &mut Actions) {
        let Phase::Active(active) = &mut self.phase else {
            return out.push(Action::AnswerExport(ExportAnswer::NotActive));
        };
        active.added.begin(change);
        active.publish_anew(out);
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
