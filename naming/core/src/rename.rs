//! Moving a binding, with everything below it where it is a context.
//!
//! Refused across ownership: what a group exports stays where the group said. Invariant: whatever moves
//! keeps its object, its attributes and the revision that made it.

use std::sync::Arc;

use daymark_naming_proto::{Binding, Change, ChangeKind, Name, NamingError, Revision};

use crate::bindings::{refuse_other_revision, refuse_owned};
use crate::directory::{Directory, Effect};
use crate::limits::within;

impl Directory {
    pub(crate) fn rename(
        &mut self,
        name: &Name,
        target: &Name,
        expected: Option<Revision>,
    ) -> Result<Effect, NamingError> {
        let from = self.place_of(name)?;
        let bound = self.bound_at(&from)?;
        refuse_owned(bound)?;
        refuse_other_revision(&from, expected, bound.revision)?;
        if from.is_root() {
            return Err(NamingError::invalid("the root context cannot be renamed"));
        }
        let to = self.place_of(target)?;
        if let Some(bound) = self.tree.find(&to) {
            refuse_owned(bound)?;
            return Err(NamingError::NameAlreadyBound { name: to });
        }
        if to.starts_with(&from) {
            return Err(NamingError::invalid(format!(
                "{from} cannot be moved below itself"
            )));
        }
        let moved = self.moved(&from, &to)?;
        Ok(self.carry_out(moved))
    }

    /// The binding at a place.
    pub(crate) fn bound_at(&self, place: &Name) -> Result<&Arc<Binding>, NamingError> {
        self.tree.find(place).ok_or_else(|| {
            let above = place.components().len().saturating_sub(1);
            NamingError::NameNotFound {
                name: place.clone(),
                resolved: place.prefix(above),
                remaining: place.suffix(above),
                revision: self.revision,
            }
        })
    }

    /// Every binding that moves, as it stands afterwards, with its name now.
    fn moved(&self, from: &Name, to: &Name) -> Result<Vec<(Name, Arc<Binding>)>, NamingError> {
        let mut moved = Vec::new();
        for bound in self.tree.subtree(from) {
            refuse_owned(bound)?;
            let name = to.join(&bound.name.suffix(from.components().len()))?;
            self.limits.check_name(&name)?;
            let binding = Binding {
                name,
                revision: self.revision.next(),
                ..Binding::clone(bound)
            };
            moved.push((bound.name.clone(), Arc::new(binding)));
            let limit = self.limits.names_per_rename_max;
            within("names that one rename moves", moved.len() as u64, limit)?;
        }
        Ok(moved)
    }

    fn carry_out(&mut self, moved: Vec<(Name, Arc<Binding>)>) -> Effect {
        let mut changes = Vec::with_capacity(2 * moved.len());
        for (name, binding) in moved {
            self.tree.remove(&name);
            self.tree.insert(Arc::clone(&binding));
            changes.push(Change {
                name,
                kind: ChangeKind::Unbound,
            });
            changes.push(Change {
                name: binding.name.clone(),
                kind: ChangeKind::Bound { binding },
            });
        }
        Effect::changed(changes)
    }
}
