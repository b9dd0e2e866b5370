//! The timeline of a group: the last failovers, as the members that took over told them.
//!
//! Invariant: one entry for each epoch, by epoch; only the active member under the group's epoch has written
//! the newest one.

use std::sync::Arc;

use daymark_naming_proto::{
    Epoch, Failover, FailoverReport, FailoverStep, GroupName, MemberName, NamingError, Timeline,
};

use crate::directory::{Directory, Effect};
use crate::exports::{refuse_other_epoch, stale};
use crate::groups::{Group, member_not_found};
use crate::limits::within;

/// What a step or a number costs beside its texts.
const ENTRY_BYTES: usize = 16;

impl Directory {
    /// The last failovers of a group.
    ///
    /// # Errors
    /// `GroupNotFound`.
    pub fn timeline(&self, group: &GroupName) -> Result<Timeline, NamingError> {
        let known = self.known_group(group)?;
        Ok(Timeline {
            group: group.clone(),
            revision: self.revision,
            failovers: known.failovers.iter().map(|f| Failover::clone(f)).collect(),
        })
    }

    /// Records how the active member took over, in place of what it told before of the same epoch.
    pub(crate) fn record_failover(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        epoch: Epoch,
        report: &FailoverReport,
    ) -> Result<Effect, NamingError> {
        let group = self.known_group(name)?;
        refuse_other_epoch(name, group, epoch)?;
        if !group.members.contains_key(member) {
            return Err(member_not_found(name, member));
        }
        if !group.is_active(member) {
            return Err(stale(name, group, epoch));
        }
        let bytes = report_bytes(report) as u64;
        within(
            "bytes of a failover's report",
            bytes,
            self.limits.failover_bytes_max,
        )?;
        let told = group.failovers.last().filter(|failover| failover.epoch == epoch);
        if told.is_some_and(|failover| failover.report == *report) {
            return Ok(Effect::nothing());
        }
        let mut group = Group::clone(group);
        group.failovers.retain(|failover| failover.epoch < epoch);
        group.failovers.push_back(Arc::new(Failover {
            epoch,
            member: member.clone(),
            revision: self.revision.next(),
            report: report.clone(),
        }));
        while group.failovers.len() as u64 > self.limits.failovers_kept.max(1) {
            group.failovers.pop_front();
        }
        self.keep(name, group);
        Ok(Effect::changed(Vec::new()))
    }
}

fn report_bytes(report: &FailoverReport) -> usize {
    let step = |step: &FailoverStep| {
        let numbers = step.numbers.keys().map(|key| key.len() + ENTRY_BYTES);
        ENTRY_BYTES + step.step.as_str().len() + step.note.len() + numbers.sum::<usize>()
    };
    report.steps.iter().map(step).sum()
}
