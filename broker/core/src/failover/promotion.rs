//! Taking office: lock, claim, write the epoch, recover, open the port, publish, announce, in this order.
//!
//! Invariant: a step begins only after the one before it was answered, and the epoch that is served is the
//! one that was made durable in the store while its lock was held.

use std::time::{Duration, Instant};

use daymark_naming_proto::{Epoch, Evidence, MemberName, MemberState, Name};

use super::active::{Active, Exports};
use super::exports::{Added, Fault};
use super::settings::{Settings, pause};
use super::{Action, Actions, Ending, Failover, Note, Phase, Refusal, Step, StepEvent};

/// A promotion under way.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    stage: Stage,
    /// When the step under way has taken too long.
    overdue_at: Option<Instant>,
    /// Whether somebody else's term was ended for it on purpose.
    planned: bool,
    /// Until when a lock that is busy is tried again.
    window_until: Option<Instant>,
    force: bool,
    evidence: Evidence,
    /// Who was silent: if it holds the lock and its lease has ended, the lock is taken from it.
    frozen: Option<MemberName>,
    lease_expired: bool,
    /// Whether the membership was already renewed for a claim that was refused without it.
    rejoined: bool,
    store_epoch: Epoch,
    /// The epoch granted or, without naming, taken.
    pub(super) epoch: Option<Epoch>,
    claimed: bool,
    /// The names that administrators gave, once the store is recovered.
    added: Added,
}

/// What a promotion waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Lock,
    LockPause { until: Instant },
    Membership { until: Instant },
    Claim,
    WriteEpoch,
    Recover,
    OpenPort,
    Publish,
}

impl Promotion {
    fn new(force: bool, evidence: Evidence) -> Self {
        Self {
            stage: Stage::Lock,
            overdue_at: None,
            planned: false,
            window_until: None,
            force,
            evidence,
            frozen: None,
            lease_expired: false,
            rejoined: false,
            store_epoch: Epoch(0),
            epoch: None,
            claimed: false,
            added: Added::default(),
        }
    }

    /// Nobody answered at start-up.
    pub(super) fn at_start() -> Self {
        Self::new(false, Evidence::StoreLock)
    }

    /// The store was busy when it was tried before.
    pub(super) fn again(frozen: Option<MemberName>, lease_expired: bool) -> Self {
        Self {
            frozen,
            lease_expired,
            ..Self::at_start()
        }
    }

    /// The active broker is gone: its lock may outlive its sockets for a moment.
    pub(super) fn after_death(now: Instant, settings: &Settings, frozen: Option<MemberName>) -> Self {
        Self {
            window_until: Some(now + settings.lock_window),
            frozen,
            ..Self::at_start()
        }
    }

    /// The active broker released the store for this one.
    pub(super) fn after_handover(now: Instant, settings: &Settings) -> Self {
        Self {
            planned: true,
            ..Self::after_death(now, settings, None)
        }
    }

    /// An operator says so.
    pub(super) fn by_operator(force: bool) -> Self {
        let evidence = if force {
            Evidence::Operator
        } else {
            Evidence::StoreLock
        };
        Self {
            planned: true,
            ..Self::new(force, evidence)
        }
    }

    /// An operator says so while a promotion waits for the lock already.
    pub(super) fn operator_insists(&mut self, force: bool) {
        if force && matches!(self.stage, Stage::Lock | Stage::LockPause { .. }) {
            self.force = true;
            self.planned = true;
            self.evidence = Evidence::Operator;
        }
    }

    /// Whether nothing is held and nothing is under way.
    pub(super) const fn waits_for_lock(&self) -> bool {
        matches!(self.stage, Stage::LockPause { .. })
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::LockPause { until } | Stage::Membership { until } => Some(until),
            Stage::Lock
            | Stage::Claim
            | Stage::WriteEpoch
            | Stage::Recover
            | Stage::OpenPort
            | Stage::Publish => self.overdue_at,
        }
    }

    const fn step(&self) -> Step {
        match self.stage {
            Stage::Lock | Stage::LockPause { .. } => Step::Lock,
            Stage::Membership { .. } | Stage::Claim => Step::Claim,
            Stage::WriteEpoch => Step::WriteEpoch,
            Stage::Recover => Step::Recover,
            Stage::OpenPort => Step::OpenPort,
            Stage::Publish => Step::Publish,
        }
    }
}

impl Failover {
    pub(super) fn promote(&mut self, now: Instant, promotion: Promotion, out: &mut Actions) {
        out.push(Action::Note(Note::Promoting));
        let force = promotion.force;
        self.go_on(now, promotion, Stage::Lock, Action::Lock { force }, out);
    }

    pub(super) fn on_promotion_step(&mut self, now: Instant, event: StepEvent, out: &mut Actions) {
        match &self.phase {
            Phase::Promoting(promotion) => {
                let promotion = promotion.clone();
                self.on_step_while_promoting(now, promotion, event, out);
            }
            Phase::Active(_) => self.on_step_while_active(now, event, out),
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::HandingOver(_)
            | Phase::Ended => {}
        }
    }

    fn on_step_while_promoting(
        &mut self,
        now: Instant,
        mut promotion: Promotion,
        event: StepEvent,
        out: &mut Actions,
    ) {
        match event {
            StepEvent::Locked { store_epoch } => {
                out.push(Action::Note(Note::LockTaken { store_epoch }));
                promotion.store_epoch = store_epoch;
                self.claim(now, promotion, out);
            }
            StepEvent::LockBusy { holder, member } => {
                self.on_lock_busy(now, promotion, holder, member.as_ref(), out);
            }
            StepEvent::Claimed { epoch } => self.on_claimed(now, promotion, epoch, out),
            StepEvent::ClaimRefused(refusal) => self.on_claim_refused(now, promotion, refusal, out),
            StepEvent::ClaimUnanswered => self.claim_alone(now, promotion, out),
            StepEvent::EpochWritten => {
                let epoch = promotion.epoch.unwrap_or(self.epoch);
                out.push(Action::Note(Note::EpochWritten { epoch }));
                self.go_on(now, promotion, Stage::Recover, Action::Recover, out);
            }
            StepEvent::EpochStale { current } => self.on_superseded(now, current, out),
            StepEvent::Recovered {
                messages,
                bytes,
                exports,
            } => {
                promotion.added = Added::recovered(exports);
                out.push(Action::Note(Note::Recovered { messages, bytes }));
                let epoch = promotion.epoch.unwrap_or(self.epoch);
                self.go_on(now, promotion, Stage::OpenPort, Action::OpenPort { epoch }, out);
            }
            StepEvent::PortOpened => self.on_port_opened(now, promotion, out),
            StepEvent::Published => {
                out.push(Action::Note(Note::Published));
                promotion.added.published(out);
                let exports = Exports::after(now, &promotion.added);
                self.announce(now, promotion, exports, out);
            }
            StepEvent::PublishUnanswered => {
                out.push(Action::Note(Note::PublishUnanswered));
                self.announce(now, promotion, Exports::retry(now), out);
            }
            StepEvent::PublishRefused(refusal) => self.on_publish_refused(now, promotion, refusal, out),
            StepEvent::Failed { why } => self.fail(promotion.step(), why, out),
        }
    }

    fn go_on(
        &mut self,
        now: Instant,
        mut promotion: Promotion,
        stage: Stage,
        action: Action,
        out: &mut Actions,
    ) {
        promotion.stage = stage;
        promotion.overdue_at = self.patience(stage).map(|patience| now + patience);
        self.phase = Phase::Promoting(promotion);
        out.push(action);
    }

    /// How long a step may take that nobody else bounds.
    const fn patience(&self, stage: Stage) -> Option<Duration> {
        match stage {
            Stage::Lock | Stage::WriteEpoch | Stage::OpenPort => Some(self.settings.step_timeout),
            Stage::Recover => Some(self.settings.recovery_timeout),
            Stage::LockPause { .. } | Stage::Membership { .. } | Stage::Claim | Stage::Publish => None,
        }
    }

    pub(super) fn fail(&mut self, step: Step, why: String, out: &mut Actions) {
        let note = Note::StepFailed {
            step,
            why: why.clone(),
        };
        self.give_up(note, Ending::StepFailed { step, why }, out);
    }

    fn on_lock_busy(
        &mut self,
        now: Instant,
        mut promotion: Promotion,
        holder: String,
        member: Option<&MemberName>,
        out: &mut Actions,
    ) {
        let is_frozen = promotion.frozen.is_some() && promotion.frozen.as_ref() == member;
        if promotion.force || (is_frozen && promotion.lease_expired) {
            if !promotion.force {
                promotion.evidence = Evidence::None; // The lease has ended, so naming needs no more.
            }
            promotion.force = true;
            return self.go_on(now, promotion, Stage::Lock, Action::Lock { force: true }, out);
        }
        if promotion.window_until.is_some_and(|until| now < until) {
            promotion.stage = Stage::LockPause {
                until: now + pause::LOCK,
            };
            self.phase = Phase::Promoting(promotion);
            return;
        }
        out.push(Action::Note(Note::LockBusy { holder }));
        let frozen = if is_frozen { promotion.frozen } else { None };
        self.wait_for_active(now, frozen, out);
    }

    pub(super) fn on_promotion_tick(&mut self, now: Instant, out: &mut Actions) {
        let Phase::Promoting(promotion) = &self.phase else {
            return;
        };
        if promotion.deadline().is_none_or(|at| now < at) {
            return;
        }
        let promotion = promotion.clone();
        match promotion.stage {
            Stage::LockPause { .. } => {
                let force = promotion.force;
                self.go_on(now, promotion, Stage::Lock, Action::Lock { force }, out);
            }
            Stage::Membership { .. } => self.claim_alone(now, promotion, out),
            Stage::Lock
            | Stage::Claim
            | Stage::WriteEpoch
            | Stage::Recover
            | Stage::OpenPort
            | Stage::Publish => self.fail(promotion.step(), "it did not end in time".to_owned(), out),
        }
    }

    /// Claims the group, or waits for the membership that a claim needs.
    fn claim(&mut self, now: Instant, mut promotion: Promotion, out: &mut Actions) {
        if self.membership.joined {
            let claim = Action::Claim {
                store_epoch: promotion.store_epoch,
                evidence: promotion.evidence,
            };
            return self.go_on(now, promotion, Stage::Claim, claim, out);
        }
        promotion.stage = Stage::Membership {
            until: now + self.settings.claim_timeout,
        };
        self.phase = Phase::Promoting(promotion);
        self.ask_naming(now, out);
    }

    /// Naming does not answer: a promotion that waits for it goes on alone.
    pub(super) fn on_naming_silent(&mut self, now: Instant, out: &mut Actions) {
        if let Phase::Promoting(promotion) = &self.phase
            && matches!(promotion.stage, Stage::Membership { .. })
        {
            let promotion = promotion.clone();
            self.claim_alone(now, promotion, out);
        }
    }

    /// Naming said that this broker is a member.
    pub(super) fn on_membership(&mut self, now: Instant, out: &mut Actions) {
        match &self.phase {
            Phase::Promoting(promotion) if matches!(promotion.stage, Stage::Membership { .. }) => {
                let promotion = promotion.clone();
                self.claim(now, promotion, out);
            }
            Phase::Active(_) => self.on_membership_while_active(out),
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::Promoting(_)
            | Phase::HandingOver(_)
            | Phase::Ended => {}
        }
    }

    fn on_claimed(&mut self, now: Instant, mut promotion: Promotion, epoch: Epoch, out: &mut Actions) {
        if epoch <= promotion.store_epoch {
            let why = format!(
                "naming granted epoch {epoch}, which is not newer than the store's {}",
                promotion.store_epoch
            );
            return self.fail(Step::Claim, why, out);
        }
        out.push(Action::Note(Note::Claimed { epoch }));
        promotion.claimed = true;
        self.write_epoch(now, promotion, epoch, out);
    }

    /// Naming does not answer: the store's lock decides.
    fn claim_alone(&mut self, now: Instant, promotion: Promotion, out: &mut Actions) {
        let epoch = promotion.store_epoch.max(self.epoch).next();
        out.push(Action::Note(Note::ClaimUnanswered { epoch }));
        self.write_epoch(now, promotion, epoch, out);
    }

    fn write_epoch(&mut self, now: Instant, mut promotion: Promotion, epoch: Epoch, out: &mut Actions) {
        promotion.epoch = Some(epoch);
        self.epoch = self.epoch.max(epoch);
        self.go_on(
            now,
            promotion,
            Stage::WriteEpoch,
            Action::WriteEpoch { epoch },
            out,
        );
    }

    fn on_claim_refused(
        &mut self,
        now: Instant,
        mut promotion: Promotion,
        refusal: Refusal,
        out: &mut Actions,
    ) {
        match refusal {
            Refusal::NotMember if !promotion.rejoined => {
                self.membership.joined = false;
                promotion.rejoined = true;
                self.claim(now, promotion, out);
            }
            Refusal::NotMember => {
                let why = "naming refuses this broker's membership".to_owned();
                self.fail(Step::Claim, why, out);
            }
            Refusal::ActiveExists { active, epoch } => {
                self.epoch = self.epoch.max(epoch);
                out.extend([Action::Note(Note::ClaimRefused { active }), Action::Release]);
                self.wait_for_active(now, None, out);
            }
            Refusal::StaleEpoch { current } => self.on_superseded(now, current, out),
            Refusal::Name { why, .. } | Refusal::Other(why) => self.fail(Step::Claim, why, out),
        }
    }

    /// Publishing needs an epoch that naming granted; a broker that took one alone serves at once.
    fn on_port_opened(&mut self, now: Instant, promotion: Promotion, out: &mut Actions) {
        out.push(Action::Note(Note::Listening));
        if promotion.claimed {
            self.publish(now, promotion, out);
        } else {
            out.push(Action::Note(Note::PublishUnanswered));
            self.announce(now, promotion, Exports::retry(now), out);
        }
    }

    fn publish(&mut self, now: Instant, mut promotion: Promotion, out: &mut Actions) {
        let publish = Action::Publish {
            epoch: promotion.epoch.unwrap_or(self.epoch),
            added: promotion.added.offer(),
        };
        self.go_on(now, promotion, Stage::Publish, publish, out);
    }

    fn on_publish_refused(
        &mut self,
        now: Instant,
        promotion: Promotion,
        refusal: Refusal,
        out: &mut Actions,
    ) {
        match refusal {
            Refusal::NotMember => {
                self.membership.joined = false;
                out.push(Action::Note(Note::PublishUnanswered));
                self.announce(now, promotion, Exports::retry(now), out);
                self.ask_naming(now, out);
            }
            Refusal::StaleEpoch { current } => self.on_superseded(now, current, out),
            Refusal::ActiveExists { epoch, .. } => self.on_superseded(now, epoch, out),
            Refusal::Name { name, why } => self.publish_without(now, promotion, Some(&name), why, out),
            Refusal::Other(why) => self.publish_without(now, promotion, None, why, out),
        }
    }

    /// Names that administrators gave keep nobody from serving; a configured name does.
    fn publish_without(
        &mut self,
        now: Instant,
        mut promotion: Promotion,
        name: Option<&Name>,
        why: String,
        out: &mut Actions,
    ) {
        match promotion.added.refused(name, &why, out) {
            Fault::Names | Fault::Change => self.publish(now, promotion, out),
            Fault::Configured => self.fail(Step::Publish, why, out),
        }
    }

    fn announce(&mut self, now: Instant, promotion: Promotion, exports: Exports, out: &mut Actions) {
        let epoch = promotion.epoch.unwrap_or(self.epoch);
        out.extend([
            Action::Announce {
                state: MemberState::Active,
                epoch,
            },
            Action::Note(Note::Active { epoch }),
        ]);
        let mut active = Active::new(now, epoch, promotion.claimed, exports);
        active.added = promotion.added;
        if promotion.planned {
            active.respected = self.peers.incarnations();
        }
        self.phase = Phase::Active(active);
    }
}
