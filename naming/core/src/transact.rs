//! Several writes as one: all of them in one revision, or none.
//!
//! Invariant: a transaction touches the tree only, so that a refusal is undone by putting the old tree back.

use std::collections::BTreeSet;
use std::sync::Arc;

use daymark_naming_proto::{
    Attributes, Change, ChangeKind, Modification, Name, NamingError, Object, Revision, TransactWrite,
};

use crate::bindings::{bound_or_rebound, refuse_other_revision};
use crate::directory::{Directory, Effect};
use crate::limits::{attribute_bytes, object_bytes, within};
use crate::tree::Tree;

/// What a write costs beside its texts.
const WRITE_BYTES: u64 = 64;

impl Directory {
    pub(crate) fn transact(&mut self, writes: &[TransactWrite]) -> Result<Effect, NamingError> {
        let limit = self.limits.writes_per_transact_max;
        within("writes of a transaction", writes.len() as u64, limit)?;
        let bytes = writes.iter().map(write_bytes).sum();
        within("bytes of a transaction", bytes, self.limits.transact_bytes_max)?;
        let before = self.tree.clone();
        let mut touched = BTreeSet::new();
        for (at, write) in writes.iter().enumerate() {
            match self.transact_one(write) {
                Ok(effect) => {
                    let changes = effect.changes.into_iter().flatten();
                    touched.extend(changes.map(|change| change.name));
                }
                Err(cause) => {
                    self.tree = before;
                    let (write, cause) = (at as u64, Box::new(cause));
                    return Err(NamingError::TransactFailed { write, cause });
                }
            }
        }
        let changes = changes_between(&before, &self.tree, touched);
        if changes.is_empty() {
            // What was made was also undone, and nothing that stood before was touched.
            self.tree = before;
            return Ok(Effect::nothing());
        }
        Ok(Effect::changed(changes))
    }

    fn transact_one(&mut self, write: &TransactWrite) -> Result<Effect, NamingError> {
        match write {
            TransactWrite::Bind {
                name,
                object,
                attributes,
            } => self.bind(name, object, attributes),
            TransactWrite::Rebind {
                name,
                object,
                attributes,
                expected,
            } => self.rebind(name, object, attributes.as_ref(), *expected),
            TransactWrite::Unbind { name, expected } => self.unbind(name, *expected),
            TransactWrite::CreateSubcontext { name, attributes } => self.create_subcontext(name, attributes),
            TransactWrite::DestroySubcontext { name, expected } => self.destroy_subcontext(name, *expected),
            TransactWrite::Rename {
                name,
                target,
                expected,
            } => self.rename(name, target, *expected),
            TransactWrite::ModifyAttributes {
                name,
                modifications,
                expected,
            } => self.modify_attributes(name, modifications, *expected),
            TransactWrite::Check { name, expected } => self.check(name, *expected),
        }
    }

    fn check(&self, name: &Name, expected: Revision) -> Result<Effect, NamingError> {
        let place = self.place_of(name)?;
        let actual = self.tree.find(&place).map_or(Revision(0), |bound| bound.revision);
        refuse_other_revision(&place, Some(expected), actual)?;
        Ok(Effect::nothing())
    }
}

/// One change for each name that stands otherwise than before.
fn changes_between(before: &Tree, after: &Tree, touched: BTreeSet<Name>) -> Vec<Change> {
    let change = |name: Name| {
        let kind = match (before.find(&name), after.find(&name)) {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => return None,
            (old, Some(new)) => bound_or_rebound(old.is_some(), Arc::clone(new)),
            (Some(_), None) => ChangeKind::Unbound,
            (None, None) => return None,
        };
        Some(Change { name, kind })
    };
    touched.into_iter().filter_map(change).collect()
}

fn write_bytes(write: &TransactWrite) -> u64 {
    let none = Attributes::new();
    let binding = |object: &Object, attributes: Option<&Attributes>| {
        object_bytes(object) + attribute_bytes(attributes.unwrap_or(&none))
    };
    let (name, bytes) = match write {
        TransactWrite::Bind {
            name,
            object,
            attributes,
        } => (name, binding(object, Some(attributes))),
        TransactWrite::Rebind {
            name,
            object,
            attributes,
            ..
        } => (name, binding(object, attributes.as_ref())),
        TransactWrite::CreateSubcontext { name, attributes } => (name, attribute_bytes(attributes)),
        TransactWrite::Rename { name, target, .. } => (name, target.as_str().len() as u64),
        TransactWrite::ModifyAttributes {
            name, modifications, ..
        } => (name, modifications.iter().map(modification_bytes).sum()),
        TransactWrite::Unbind { name, .. }
        | TransactWrite::DestroySubcontext { name, .. }
        | TransactWrite::Check { name, .. } => (name, 0),
    };
    WRITE_BYTES + name.as_str().len() as u64 + bytes
}

fn modification_bytes(modification: &Modification) -> u64 {
    let values = modification.values.iter().map(|value| value.len() + 1);
    (modification.id.len() + values.sum::<usize>()) as u64
}
