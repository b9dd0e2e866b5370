//! Attributes of bindings: reading them and changing them by operations on sets of values.
//!
//! There is no schema: every attribute may have any number of values but none, and values compare exactly.

use daymark_naming_proto::{AttributesOf, Modification, ModificationOp, Name, NamingError, Revision};

use crate::bindings::{refuse_other_revision, refuse_owned};
use crate::directory::{Directory, Effect};
use crate::limits::{check_id, within, without_values};

impl Directory {
    /// The attributes of a name, links followed: those of `ids` that are there, or all.
    ///
    /// # Errors
    /// As for `lookup`.
    pub fn attributes(&self, name: &Name, ids: Option<&[String]>) -> Result<AttributesOf, NamingError> {
        let binding = self.lookup(name)?;
        let attributes = match ids {
            Some(ids) => binding.attributes.selected(ids),
            None => binding.attributes.clone(),
        };
        Ok(AttributesOf {
            name: binding.name.clone(),
            revision: binding.revision,
            attributes,
        })
    }

    pub(crate) fn modify_attributes(
        &mut self,
        name: &Name,
        modifications: &[Modification],
        expected: Option<Revision>,
    ) -> Result<Effect, NamingError> {
        let place = self.place_of(name)?;
        let bound = self.bound_at(&place)?;
        refuse_owned(bound)?;
        refuse_other_revision(&place, expected, bound.revision)?;
        let limit = self.limits.attributes_per_binding_max;
        within("modifications of one write", modifications.len() as u64, limit)?;
        let mut attributes = bound.attributes.clone();
        for modification in modifications {
            check(modification)?;
            attributes.modify(modification);
            self.limits.check_attributes(&attributes)?;
        }
        if attributes == bound.attributes {
            return Ok(Effect::nothing());
        }
        let (object, created) = (bound.object.clone(), bound.created);
        Ok(self.put(place, object, attributes, Some(created)))
    }
}

fn check(modification: &Modification) -> Result<(), NamingError> {
    check_id(&modification.id)?;
    match modification.op {
        ModificationOp::Add if modification.values.is_empty() => Err(without_values(&modification.id)),
        ModificationOp::Add | ModificationOp::Replace | ModificationOp::Remove => Ok(()),
    }
}
