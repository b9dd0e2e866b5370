//! The writes people make by hand: bind, rebind, unbind, and contexts.
//!
//! Links are followed up to the context that holds the name, never the name itself. A name that a group
//! exports is refused with `NameConflict`, withheld or not.

use std::sync::Arc;

use daymark_naming_proto::{Attributes, Binding, Change, ChangeKind, Name, NamingError, Object, Revision};

use crate::directory::{Directory, Effect};

/// What a conflict calls the owner of a name that somebody bound by hand.
pub(crate) const BY_HAND: &str = "hand";

impl Directory {
    pub(crate) fn bind(
        &mut self,
        name: &Name,
        object: &Object,
        attributes: &Attributes,
    ) -> Result<Effect, NamingError> {
        self.limits.check_binding(object, attributes)?;
        let name = self.place_of(name)?;
        if let Some(bound) = self.tree.find(&name) {
            refuse_owned(bound)?;
            return Err(NamingError::NameAlreadyBound { name });
        }
        self.limits.check_name(&name)?;
        self.limits.check_names(self.tree.len() + 1)?;
        Ok(self.put(name, object.clone(), attributes.clone(), None))
    }

    /// A context may be rebound to a context, which gives it other attributes and keeps what is below it.
    pub(crate) fn rebind(
        &mut self,
        name: &Name,
        object: &Object,
        attributes: Option<&Attributes>,
        expected: Option<Revision>,
    ) -> Result<Effect, NamingError> {
        let none = Attributes::new();
        self.limits.check_binding(object, attributes.unwrap_or(&none))?;
        let name = self.place_of(name)?;
        let Some(bound) = self.tree.find(&name) else {
            refuse_other_revision(&name, expected, Revision(0))?;
            self.limits.check_name(&name)?;
            self.limits.check_names(self.tree.len() + 1)?;
            let attributes = attributes.cloned().unwrap_or_default();
            return Ok(self.put(name, object.clone(), attributes, None));
        };
        refuse_owned(bound)?;
        refuse_other_revision(&name, expected, bound.revision)?;
        if *object != Object::Context {
            self.refuse_used_context(bound)?;
        }
        let attributes = attributes.unwrap_or(&bound.attributes);
        if bound.object == *object && bound.attributes == *attributes {
            return Ok(Effect::nothing());
        }
        let (attributes, created) = (attributes.clone(), bound.created);
        Ok(self.put(name, object.clone(), attributes, Some(created)))
    }

    pub(crate) fn unbind(&mut self, name: &Name, expected: Option<Revision>) -> Result<Effect, NamingError> {
        let name = self.place_of(name)?;
        let Some(bound) = self.tree.find(&name) else {
            refuse_other_revision(&name, expected, Revision(0))?;
            return Ok(Effect::nothing());
        };
        refuse_owned(bound)?;
        refuse_other_revision(&name, expected, bound.revision)?;
        self.refuse_used_context(bound)?;
        Ok(self.take(name))
    }

    pub(crate) fn create_subcontext(
        &mut self,
        name: &Name,
        attributes: &Attributes,
    ) -> Result<Effect, NamingError> {
        self.bind(name, &Object::Context, attributes)
    }

    pub(crate) fn destroy_subcontext(
        &mut self,
        name: &Name,
        expected: Option<Revision>,
    ) -> Result<Effect, NamingError> {
        let name = self.place_of(name)?;
        let Some(bound) = self.tree.find(&name) else {
            refuse_other_revision(&name, expected, Revision(0))?;
            return Ok(Effect::nothing());
        };
        refuse_other_revision(&name, expected, bound.revision)?;
        if bound.object != Object::Context {
            return Err(NamingError::NotContext {
                name: name.clone(),
                resolved: name,
                remaining: Name::root(),
            });
        }
        self.refuse_used_context(bound)?;
        Ok(self.take(name))
    }

    /// Binds a name that was checked and says what happened to it. `created` is when it was first bound, where it is.
    pub(crate) fn put(
        &mut self,
        name: Name,
        object: Object,
        attributes: Attributes,
        created: Option<Revision>,
    ) -> Effect {
        let revision = self.revision.next();
        let binding = Arc::new(Binding {
            name: name.clone(),
            object,
            attributes,
            created: created.unwrap_or(revision),
            revision,
            owner: None,
        });
        let kind = bound_or_rebound(created.is_some(), Arc::clone(&binding));
        self.tree.insert(binding);
        Effect::changed(vec![Change { name, kind }])
    }

    /// Unbinds a name that was checked and says so.
    fn take(&mut self, name: Name) -> Effect {
        self.tree.remove(&name);
        Effect::changed(vec![Change {
            name,
            kind: ChangeKind::Unbound,
        }])
    }

    /// Refuses to remove or replace the root, or a context with names below it.
    fn refuse_used_context(&self, bound: &Binding) -> Result<(), NamingError> {
        if bound.object != Object::Context {
            return Ok(());
        }
        if !self.tree.is_empty_below(&bound.name) {
            return Err(NamingError::ContextNotEmpty {
                name: bound.name.clone(),
            });
        }
        if bound.name.is_root() {
            return Err(NamingError::invalid("the root context always exists"));
        }
        Ok(())
    }
}

pub(crate) const fn bound_or_rebound(was_bound: bool, binding: Arc<Binding>) -> ChangeKind {
    if was_bound {
        ChangeKind::Rebound { binding }
    } else {
        ChangeKind::Bound { binding }
    }
}

pub(crate) fn refuse_owned(bound: &Binding) -> Result<(), NamingError> {
    match &bound.owner {
        Some(owner) => Err(NamingError::NameConflict {
            name: bound.name.clone(),
            owner: owner.group.to_string(),
            claimant: None,
        }),
        None => Ok(()),
    }
}

pub(crate) fn refuse_other_revision(
    name: &Name,
    expected: Option<Revision>,
    actual: Revision,
) -> Result<(), NamingError> {
    match expected {
        Some(expected) if expected != actual => Err(NamingError::RevisionMismatch {
            name: name.clone(),
            expected,
            actual,
        }),
        Some(_) | None => Ok(()),
    }
}
