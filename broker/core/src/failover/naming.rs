//! The membership of the group: joined, renewed, lost, and what naming's answers mean to this broker.
//!
//! Invariant: at most one join or renewal is under way, and a lease counts from when it was asked for.

use std::time::Instant;

use super::settings::pause;
use super::{Action, Actions, Failover, GroupSeen, NamingEvent, Note, Phase};

/// This broker's lease as it knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Membership {
    /// Whether naming said that this broker is a member, and did not take it back.
    pub(super) joined: bool,
    /// When the question under way was asked.
    asked: Option<Instant>,
    /// When to ask next.
    ask_at: Option<Instant>,
    /// Until when naming cannot have ended the membership.
    pub(super) proven_until: Option<Instant>,
}

impl Membership {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| now >= at)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.asked {
            Some(_) => None,
            None => self.ask_at,
        }
    }

    /// Brings the next question forward.
    pub(super) fn ask_no_later_than(&mut self, at: Instant) {
        self.ask_at = Some(self.ask_at.map_or(at, |planned| planned.min(at)));
    }
}

impl Failover {
    /// Joins or renews, unless a question is under way.
    pub(super) fn ask_naming(&mut self, now: Instant, out: &mut Actions) {
        if self.membership.asked.is_some() {
            return;
        }
        self.membership.asked = Some(now);
        out.push(if self.membership.joined {
            Action::Renew
        } else {
            Action::Join
        });
    }

    pub(super) fn on_naming(&mut self, now: Instant, event: NamingEvent, out: &mut Actions) {
        match event {
            NamingEvent::Joined { group } => {
                let asked = self.prove_membership(now);
                self.on_group(now, asked, &group, out);
                self.on_membership(now, out);
            }
            NamingEvent::Renewed { group } => {
                let asked = self.prove_membership(now);
                self.on_group(now, asked, &group, out);
            }
            NamingEvent::LeaseEnded => {
                self.membership.asked = None;
                self.membership.joined = false;
                out.push(Action::Note(Note::LeaseLost));
                self.ask_naming(now, out);
            }
            NamingEvent::Silent => {
                self.ask_again(now, pause::NAMING);
                self.on_naming_silent(now, out);
            }
            NamingEvent::Refused { why } => {
                out.push(Action::Note(Note::NamingRefused { why }));
                self.ask_again(now, self.settings.lease / 3);
            }
            NamingEvent::MembersChanged => self.on_members_changed(out),
        }
    }

    /// The answer came: the lease runs from when it was asked for, which is returned.
    fn prove_membership(&mut self, now: Instant) -> Instant {
        let asked = self.membership.asked.take().unwrap_or(now);
        self.membership.joined = true;
        self.membership.proven_until = Some(asked + self.settings.lease);
        let pause = match self.phase {
            Phase::Suspecting(_) => pause::SUSPECTED,
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Promoting(_)
            | Phase::Active(_)
            | Phase::HandingOver(_)
            | Phase::Ended => self.settings.lease / 3,
        };
        self.membership.ask_at = Some((asked + pause).max(now));
        asked
    }

    fn ask_again(&mut self, now: Instant, pause: std::time::Duration) {
        self.membership.asked = None;
        self.membership.ask_at = Some(now + pause);
    }

    /// The group as naming sees it: what it means depends on what this broker believes to be.
    fn on_group(&mut self, now: Instant, asked: Instant, group: &GroupSeen, out: &mut Actions) {
        match self.phase {
            Phase::New | Phase::Ended | Phase::Promoting(_) | Phase::HandingOver(_) => {}
            Phase::Discovering(_) => self.on_group_while_discovering(now, group, out),
            Phase::Standby(_) => self.on_group_while_standby(now, group),
            Phase::Suspecting(_) => self.on_group_while_suspecting(now, group, out),
            Phase::Active(_) => return self.on_group_while_active(now, asked, group, out),
        }
        self.epoch = self.epoch.max(group.epoch);
    }
}
