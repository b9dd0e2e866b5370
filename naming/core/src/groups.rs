//! Broker groups: who is a member, who is active, and under which epoch.
//!
//! It decides joins, leaves, lease ends and claims. It does not know how long a lease has run: a driver
//! keeps the deadlines and writes `EndLease` when one has passed.
//!
//! Invariants: at most one member is active, and it holds the epoch that was granted last; the epoch only
//! grows; a group without an active member has no exports available.

use std::sync::Arc;

use daymark_naming_proto::{
    Change, ChangeKind, Epoch, Evidence, Failover, GroupName, JoinRequest, LeaseId, MemberName, Name,
    NamingError, Revision, UnavailableReason, Withholding, WriteDetail,
};
use imbl::{OrdMap, OrdSet, Vector};

use crate::EPOCH_MAX;
use crate::directory::{Directory, Effect};
use crate::limits::within;

const LEASE_MS_MIN: u64 = 100;
const LEASE_MS_MAX: u64 = 3_600_000;
const HOST_BYTES_MAX: u64 = 255;

/// A membership whose deadline a driver keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberName,
    /// The membership.
    pub lease: LeaseId,
    /// How long it goes on without renewal, in milliseconds.
    pub lease_ms: u64,
}

/// One active/standby set. A group stays known without members, because its epoch must not start again.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) epoch: Epoch,
    pub(crate) active: Option<MemberName>,
    pub(crate) members: OrdMap<MemberName, Arc<Membership>>,
    pub(crate) exports: OrdSet<Name>,
    /// The epoch under which the exports were published.
    pub(crate) exports_epoch: Epoch,
    /// Why the exports are not available.
    pub(crate) withheld: Option<Withholding>,
    /// The last failovers, by epoch.
    pub(crate) failovers: Vector<Arc<Failover>>,
    /// The revision that last changed the group.
    pub(crate) revision: Revision,
}

/// One member from its join to its end.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) lease: LeaseId,
    pub(crate) joined: JoinRequest,
}

impl Group {
    fn new() -> Self {
        Self {
            epoch: Epoch(0),
            active: None,
            members: OrdMap::new(),
            exports: OrdSet::new(),
            exports_epoch: Epoch(0),
            withheld: None,
            failovers: Vector::new(),
            revision: Revision(0),
        }
    }

    pub(crate) fn is_active(&self, member: &MemberName) -> bool {
        self.active.as_ref() == Some(member)
    }

    /// Takes the exports away and says what that does to each name.
    pub(crate) fn withhold(&mut self, name: &GroupName, withheld: Withholding) -> Vec<Change> {
        self.withheld = Some(withheld.clone());
        let change = |export: &Name| Change {
            name: export.clone(),
            kind: ChangeKind::Withheld {
                group: name.clone(),
                epoch: self.exports_epoch,
                withheld: withheld.clone(),
            },
        };
        self.exports.iter().map(change).collect()
    }

    /// The names that the active member announced as it joined, until it publishes.
    fn promised(&self) -> OrdSet<Name> {
        let withheld = self.withheld.as_ref();
        let is_promoting = withheld.is_some_and(|withheld| withheld.reason == UnavailableReason::Promoting);
        let active = self.active.as_ref().filter(|_| is_promoting);
        let announced = active.and_then(|active| self.members.get(active));
        let shadow = announced.into_iter().flat_map(|member| &member.joined.shadow);
        shadow.map(|export| export.name.clone()).collect()
    }

    /// Ends the term of the active member. Exports it took back on purpose stay `withdrawn`, with the time
    /// it gave: that it then went is what it had announced.
    fn end_term(&mut self, name: &GroupName, withheld: Withholding) -> Vec<Change> {
        self.active = None;
        match &self.withheld {
            Some(before) if before.reason == UnavailableReason::Withdrawn => Vec::new(),
            Some(_) | None => self.withhold(name, withheld),
        }
    }
}

impl Directory {
    /// Makes `member` a standby. Where it was the active one its process has restarted: its term is over,
    /// the epoch stays, and the exports are withheld until somebody claims and publishes.
    pub(crate) fn join(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        join: &JoinRequest,
        at_unix_ms: u64,
    ) -> Result<Effect, NamingError> {
        self.check_join(join)?;
        let mut group = match self.groups.get(name) {
            Some(group) => Group::clone(group),
            None => {
                within("groups", self.groups.len() as u64 + 1, self.limits.groups_max)?;
                Group::new()
            }
        };
        if !group.members.contains_key(member) {
            let count = group.members.len() as u64 + 1;
            within("members of a group", count, self.limits.members_per_group_max)?;
        }
        let mut changes = Vec::new();
        if group.is_active(member) {
            changes = group.end_term(
                name,
                self.withholding(UnavailableReason::LeaseExpired, at_unix_ms),
            );
        }
        let lease = LeaseId(self.revision.next().0);
        let joined = join.clone();
        group
            .members
            .insert(member.clone(), Arc::new(Membership { lease, joined }));
        let detail = WriteDetail::Joined {
            lease,
            epoch: group.epoch,
            active: group.active.clone(),
        };
        self.keep(name, group);
        let changes = Some(changes);
        Ok(Effect { changes, detail })
    }

    pub(crate) fn leave(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        lease: LeaseId,
        at_unix_ms: u64,
    ) -> Result<Effect, NamingError> {
        let group = self.membership(name, member, lease)?;
        let withheld = self.withholding(UnavailableReason::Withdrawn, at_unix_ms);
        Ok(self.end_membership(name, Group::clone(group), member, withheld))
    }

    /// Ends a membership that was not renewed. One that ended otherwise meanwhile is no error.
    pub(crate) fn end_lease(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        lease: LeaseId,
        at_unix_ms: u64,
    ) -> Effect {
        let Ok(group) = self.membership(name, member, lease) else {
            return Effect::nothing();
        };
        let withheld = self.withholding(UnavailableReason::LeaseExpired, at_unix_ms);
        self.end_membership(name, Group::clone(group), member, withheld)
    }

    fn end_membership(
        &mut self,
        name: &GroupName,
        mut group: Group,
        member: &MemberName,
        withheld: Withholding,
    ) -> Effect {
        group.members.remove(member);
        let mut changes = Vec::new();
        if group.is_active(member) {
            changes = group.end_term(name, withheld);
        }
        self.keep(name, group);
        Effect::changed(changes)
    }

    /// Makes `member` the active one under a new epoch. Whoever was active is a standby from this revision
    /// on, and its exports are withheld until the new active publishes.
    pub(crate) fn claim(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        store_epoch: Epoch,
        evidence: Evidence,
        at_unix_ms: u64,
    ) -> Result<Effect, NamingError> {
        let mut group = Group::clone(self.known_group(name)?);
        if !group.members.contains_key(member) {
            return Err(member_not_found(name, member));
        }
        match (&group.active, evidence) {
            (Some(active), Evidence::None) if active != member => {
                return Err(NamingError::ActiveExists {
                    group: name.clone(),
                    active: active.clone(),
                    epoch: group.epoch,
                });
            }
            (None | Some(_), Evidence::None | Evidence::StoreLock | Evidence::Operator) => {}
        }
        let highest = group.epoch.max(store_epoch);
        if highest.0 >= EPOCH_MAX {
            return Err(NamingError::invalid(format!(
                "no epoch is left above {highest}: the highest is {EPOCH_MAX}"
            )));
        }
        group.epoch = highest.next();
        group.active = Some(member.clone());
        let changes = group.withhold(name, self.withholding(UnavailableReason::Promoting, at_unix_ms));
        let detail = WriteDetail::Claimed { epoch: group.epoch };
        self.keep(name, group);
        let changes = Some(changes);
        Ok(Effect { changes, detail })
    }

    fn check_join(&self, join: &JoinRequest) -> Result<(), NamingError> {
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&join.lease_ms) {
            return Err(NamingError::invalid(format!(
                "a lease of {} ms: it must have {LEASE_MS_MIN} to {LEASE_MS_MAX} ms",
                join.lease_ms
            )));
        }
        let endpoints = [Some(&join.endpoint), join.admin.as_ref(), join.peer.as_ref()];
        for endpoint in endpoints.into_iter().flatten() {
            within("bytes of a host name", endpoint.host.len() as u64, HOST_BYTES_MAX)?;
        }
        self.limits.check_exports(&join.shadow)
    }

    /// The group, if it was ever joined.
    pub(crate) fn known_group(&self, name: &GroupName) -> Result<&Arc<Group>, NamingError> {
        self.groups
            .get(name)
            .ok_or_else(|| NamingError::GroupNotFound { group: name.clone() })
    }

    /// The group, if this membership of it goes on.
    pub(crate) fn membership(
        &self,
        name: &GroupName,
        member: &MemberName,
        lease: LeaseId,
    ) -> Result<&Arc<Group>, NamingError> {
        let group = self.known_group(name)?;
        let membership = group.members.get(member);
        let membership = membership.ok_or_else(|| member_not_found(name, member))?;
        if membership.lease != lease {
            return Err(NamingError::LeaseEnded {
                group: name.clone(),
                member: member.clone(),
                lease,
            });
        }
        Ok(group)
    }

    /// Stores a group that the revision being made has changed.
    pub(crate) fn keep(&mut self, name: &GroupName, mut group: Group) {
        group.revision = self.revision.next();
        self.promise(name, &group);
        self.groups.insert(name.clone(), Arc::new(group));
    }

    /// Keeps what a group promises now.
    pub(crate) fn promise(&mut self, name: &GroupName, group: &Group) {
        let promised = group.promised();
        if promised.is_empty() {
            self.promised.remove(name);
        } else {
            self.promised.insert(name.clone(), promised);
        }
    }

    /// A withholding by the revision being made.
    pub(crate) const fn withholding(&self, reason: UnavailableReason, at_unix_ms: u64) -> Withholding {
        Withholding {
            reason,
            since: self.revision.next(),
            since_unix_ms: at_unix_ms,
            eta_ms: None,
        }
    }
}

pub(crate) fn member_not_found(group: &GroupName, member: &MemberName) -> NamingError {
    NamingError::MemberNotFound {
        group: group.clone(),
        member: member.clone(),
    }
}
