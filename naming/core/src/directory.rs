//! The whole state, and what happens to every write: answered from memory, refused, or committed as one
//! revision.

use std::sync::Arc;

use daymark_naming_proto::{
    Change, ChangeSet, GroupName, Name, NamingError, OpId, Revision, Write, WriteDetail, Written,
};
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::groups::Group;
use crate::history::History;
use crate::limits::Limits;
use crate::operations::{Answered, Operations};
use crate::tree::Tree;

/// One entry of the replicated log: a write, who asked for it, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The client's identity for the write. A repeated one is answered as the first time.
    pub op: OpId,
    /// The leader's clock as it took the write, in milliseconds since 1970 UTC.
    pub at_unix_ms: u64,
    /// What to do.
    pub write: Write,
}

/// The directory. A clone is O(1) and is a snapshot: it does not follow later writes.
#[derive(Clone)]
pub struct Directory {
    pub(crate) limits: Limits,
    pub(crate) revision: Revision,
    pub(crate) tree: Tree,
    pub(crate) groups: OrdMap<GroupName, Arc<Group>>,
    /// The names that each promoting group has announced. Follows from `groups`.
    pub(crate) promised: OrdMap<GroupName, OrdSet<Name>>,
    pub(crate) operations: Operations,
    pub(crate) history: History,
}

/// What a write that was not refused does.
pub(crate) struct Effect {
    /// What it does to names; `None` where it changes nothing at all, not even a group.
    pub(crate) changes: Option<Vec<Change>>,
    pub(crate) detail: WriteDetail,
}

impl Effect {
    /// Everything was already as the write wants it.
    pub(crate) const fn nothing() -> Self {
        Self {
            changes: None,
            detail: WriteDetail::None,
        }
    }

    pub(crate) const fn changed(changes: Vec<Change>) -> Self {
        Self {
            changes: Some(changes),
            detail: WriteDetail::None,
        }
    }
}

impl Directory {
    /// An empty directory at revision 0.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            revision: Revision(0),
            tree: Tree::new(),
            groups: OrdMap::new(),
            promised: OrdMap::new(),
            operations: Operations::default(),
            history: History::after(Revision(0)),
        }
    }

    /// Performs one write. A write that changes something makes the next revision.
    ///
    /// A repeated operation id returns the first answer, whatever the write says now. Remembered are the newest
    /// `Limits::operations_kept` answers, none of them longer than `Limits::operations_kept_ms` by the
    /// clock of the commands.
    ///
    /// # Errors
    /// The write is refused, has changed nothing and is not remembered.
    pub fn apply(&mut self, command: &Command) -> Result<Written, NamingError> {
        if let Some(first) = self.operations.answer(command.op) {
            return Ok(Written::clone(first));
        }
        let effect = self.perform(command)?;
        let written = self.commit(effect);
        let answer = Answered {
            written: Arc::new(written.clone()),
            at_unix_ms: command.at_unix_ms,
        };
        self.operations.remember(command.op, answer, &self.limits);
        Ok(written)
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Puts other limits in force. What is there already stays, except for answers and changes beyond what
    /// is now kept. Every replica must do this at the same place of the log.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.operations.shrink(&limits);
        self.history.shrink(&limits);
    }

    /// Carries a write out, or refuses it before anything is touched.
    fn perform(&mut self, command: &Command) -> Result<Effect, NamingError> {
        let at_unix_ms = command.at_unix_ms;
        match &command.write {
            Write::Bind {
                name,
                object,
                attributes,
            } => self.bind(name, object, attributes),
            Write::Rebind {
                name,
                object,
                attributes,
                expected,
            } => self.rebind(name, object, attributes.as_ref(), *expected),
            Write::Unbind { name, expected } => self.unbind(name, *expected),
            Write::CreateSubcontext { name, attributes } => self.create_subcontext(name, attributes),
            Write::DestroySubcontext { name } => self.destroy_subcontext(name, None),
            Write::Join { group, member, join } => self.join(group, member, join, at_unix_ms),
            Write::Leave { group, member, lease } => self.leave(group, member, *lease, at_unix_ms),
            Write::Claim {
                group,
                member,
                store_epoch,
                evidence,
            } => self.claim(group, member, *store_epoch, *evidence, at_unix_ms),
            Write::Publish {
                group,
                member,
                epoch,
                exports,
            } => self.publish(group, member, *epoch, exports),
            Write::Withdraw {
                group,
                epoch,
                reason,
                eta_ms,
            } => self.withdraw(group, *epoch, *reason, *eta_ms, at_unix_ms),
            Write::EndLease { group, member, lease } => Ok(self.end_lease(group, member, *lease, at_unix_ms)),
            Write::Rename {
                name,
                target,
                expected,
            } => self.rename(name, target, *expected),
            Write::ModifyAttributes {
                name,
                modifications,
                expected,
            } => self.modify_attributes(name, modifications, *expected),
            Write::Transact { writes } => self.transact(writes),
            Write::RecordFailover {
                group,
                member,
                epoch,
                report,
            } => self.record_failover(group, member, *epoch, report),
        }
    }

    /// Gives what was done its revision and its place in the history.
    fn commit(&mut self, effect: Effect) -> Written {
        let Some(mut changes) = effect.changes else {
            return Written {
                revision: self.revision,
                changed: false,
                detail: effect.detail,
            };
        };
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        self.revision = self.revision.next();
        let set = ChangeSet {
            revision: self.revision,
            changes,
        };
        self.history.push(set, &self.limits);
        Written {
            revision: self.revision,
            changed: true,
            detail: effect.detail,
        }
    }
}
