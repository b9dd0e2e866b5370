//! Export sets: what the active member of a group offers, published and withdrawn as a whole.
//!
//! It decides who may publish under which epoch and which names it may have. Contexts on the way to an
//! export are made, belong to nobody, and stay when the export goes: somebody may have bound a name there.
//!
//! Invariant: the bindings owned by a group are exactly the names in its export set.

use std::collections::BTreeSet;
use std::sync::Arc;

use daymark_naming_proto::{
    Attributes, Binding, Change, ChangeKind, Epoch, Export, GroupName, MemberName, Name, NamingError, Object,
    Owner, Revision, UnavailableReason, WithdrawReason,
};

use crate::bindings::{BY_HAND, bound_or_rebound};
use crate::directory::{Directory, Effect};
use crate::groups::{Group, member_not_found};
use crate::tree::Tree;

impl Directory {
    /// Replaces the export set of a group. Only the active member under the group's epoch may.
    pub(crate) fn publish(
        &mut self,
        name: &GroupName,
        member: &MemberName,
        epoch: Epoch,
        exports: &[Export],
    ) -> Result<Effect, NamingError> {
        let group = self.known_group(name)?;
        refuse_other_epoch(name, group, epoch)?;
        if !group.members.contains_key(member) {
            return Err(member_not_found(name, member));
        }
        if !group.is_active(member) {
            return Err(stale(name, group, epoch));
        }
        self.limits.check_exports(exports)?;
        let mut edit = ExportEdit {
            group: name,
            owner: Arc::new(Owner {
                group: name.clone(),
                epoch,
            }),
            was_withheld: group.withheld.is_some(),
            revision: self.revision.next(),
            tree: self.tree.clone(),
            changes: Vec::new(),
        };
        let offered = distinct_names(exports)?;
        edit.unbind_others(group, &offered);
        exports.iter().try_for_each(|export| edit.export(export))?;
        self.limits.check_names(edit.tree.len())?;
        let ExportEdit { tree, changes, .. } = edit;
        if changes.is_empty() && group.withheld.is_none() && group.exports_epoch == epoch {
            return Ok(Effect::nothing());
        }
        let mut group = Group::clone(group);
        group.exports = offered.into_iter().cloned().collect();
        group.exports_epoch = epoch;
        group.withheld = None;
        self.tree = tree;
        self.keep(name, group);
        Ok(Effect::changed(merged(changes)))
    }

    /// Takes the exports back. After `handover` and `failed` the group has no active member, so that another one
    /// is granted its claim; after `planned` the member stays active until it leaves, because an operator
    /// who stops a broker does not ask for a failover.
    pub(crate) fn withdraw(
        &mut self,
        name: &GroupName,
        epoch: Epoch,
        reason: WithdrawReason,
        eta_ms: Option<u64>,
        at_unix_ms: u64,
    ) -> Result<Effect, NamingError> {
        let group = self.known_group(name)?;
        refuse_other_epoch(name, group, epoch)?;
        if group.active.is_none() {
            return Err(stale(name, group, epoch));
        }
        let releases = match reason {
            WithdrawReason::Planned => false,
            WithdrawReason::Handover | WithdrawReason::Failed => true,
        };
        let is_withdrawn = group.withheld.as_ref().is_some_and(|withheld| {
            withheld.reason == UnavailableReason::Withdrawn && withheld.eta_ms == eta_ms
        });
        if is_withdrawn && !releases {
            return Ok(Effect::nothing());
        }
        let mut group = Group::clone(group);
        if releases {
            group.active = None;
        }
        let mut withheld = self.withholding(UnavailableReason::Withdrawn, at_unix_ms);
        withheld.eta_ms = eta_ms;
        let changes = group.withhold(name, withheld);
        self.keep(name, group);
        Ok(Effect::changed(changes))
    }
}

/// A lower epoch is over; a higher one was never granted.
pub(crate) fn refuse_other_epoch(name: &GroupName, group: &Group, given: Epoch) -> Result<(), NamingError> {
    if given < group.epoch {
        return Err(stale(name, group, given));
    }
    if given > group.epoch {
        return Err(NamingError::invalid(format!(
            "epoch {given} of group {name} was never granted: the epoch is {}",
            group.epoch
        )));
    }
    Ok(())
}

/// The term under `given` has ended, by a later claim or because its member is no longer active.
pub(crate) fn stale(name: &GroupName, group: &Group, given: Epoch) -> NamingError {
    NamingError::StaleEpoch {
        group: name.clone(),
        given,
        current: group.epoch,
    }
}

fn distinct_names(exports: &[Export]) -> Result<BTreeSet<&Name>, NamingError> {
    let mut names = BTreeSet::new();
    for export in exports {
        if export.name.is_root() {
            return Err(NamingError::invalid("the root context cannot be exported"));
        }
        if export.object == Object::Context {
            return Err(NamingError::invalid(format!(
                "{} is a context, which cannot be exported",
                export.name
            )));
        }
        if !names.insert(&export.name) {
            return Err(NamingError::invalid(format!("{} is exported twice", export.name)));
        }
    }
    Ok(names)
}

/// One change for each name: an export that became the context of another one was unbound and bound.
fn merged(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|a, b| a.name.cmp(&b.name));
    changes.dedup_by(|second, first| {
        let is_same = first.name == second.name;
        if let (true, ChangeKind::Bound { binding }) = (is_same, &second.kind) {
            first.kind = ChangeKind::Rebound {
                binding: Arc::clone(binding),
            };
        }
        is_same
    });
    changes
}

/// A new export set on its way into a copy of the tree.
struct ExportEdit<'a> {
    group: &'a GroupName,
    owner: Arc<Owner>,
    was_withheld: bool,
    revision: Revision,
    tree: Tree,
    changes: Vec<Change>,
}

impl ExportEdit<'_> {
    /// Unbinds what the group no longer offers.
    fn unbind_others(&mut self, group: &Group, offered: &BTreeSet<&Name>) {
        for name in group.exports.iter().filter(|name| !offered.contains(name)) {
            self.tree.remove(name);
            self.changes.push(Change {
                name: name.clone(),
                kind: ChangeKind::Unbound,
            });
        }
    }

    /// Binds one name, if it is free or the group's already.
    fn export(&mut self, export: &Export) -> Result<(), NamingError> {
        let Some(bound) = self.tree.find(&export.name).map(Arc::clone) else {
            self.make_contexts(&export.name)?;
            self.bind(
                &export.name,
                export.object.clone(),
                export.attributes.clone(),
                None,
            );
            return Ok(());
        };
        match &bound.owner {
            Some(owner) if owner.group == *self.group => {}
            Some(owner) => return Err(self.conflict(&export.name, owner.group.to_string())),
            None => return Err(self.conflict(&export.name, BY_HAND.to_owned())),
        }
        let is_same = bound.object == export.object
            && bound.attributes == export.attributes
            && bound.owner.as_ref() == Some(&self.owner);
        if !is_same || self.was_withheld {
            self.bind(
                &export.name,
                export.object.clone(),
                export.attributes.clone(),
                Some(&bound),
            );
        }
        Ok(())
    }

    /// Makes the contexts above a name. Links are not followed: an export stands where its name says.
    fn make_contexts(&mut self, name: &Name) -> Result<(), NamingError> {
        for depth in 1..name.components().len() {
            let above = name.prefix(depth);
            match self.tree.find(&above) {
                Some(bound) if bound.object == Object::Context => {}
                Some(bound) => {
                    return Err(NamingError::NotContext {
                        name: name.clone(),
                        resolved: bound.name.clone(),
                        remaining: name.suffix(depth),
                    });
                }
                None => self.make_context(above),
            }
        }
        Ok(())
    }

    fn make_context(&mut self, name: Name) {
        let binding = Arc::new(Binding {
            name,
            object: Object::Context,
            attributes: Attributes::new(),
            created: self.revision,
            revision: self.revision,
            owner: None,
        });
        self.put(binding, false);
    }

    fn bind(&mut self, name: &Name, object: Object, attributes: Attributes, before: Option<&Binding>) {
        let binding = Arc::new(Binding {
            name: name.clone(),
            object,
            attributes,
            created: before.map_or(self.revision, |bound| bound.created),
            revision: self.revision,
            owner: Some(Arc::clone(&self.owner)),
        });
        self.put(binding, before.is_some());
    }

    fn put(&mut self, binding: Arc<Binding>, was_bound: bool) {
        self.tree.insert(Arc::clone(&binding));
        self.changes.push(Change {
            name: binding.name.clone(),
            kind: bound_or_rebound(was_bound, binding),
        });
    }

    fn conflict(&self, name: &Name, owner: String) -> NamingError {
        NamingError::NameConflict {
            name: name.clone(),
            owner,
            claimant: Some(self.group.clone()),
        }
    }
}
