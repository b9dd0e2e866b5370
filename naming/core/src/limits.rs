//! How large the directory may become. Every limit has its own answer, `LimitExceeded` with its name.

use daymark_naming_proto::{Attributes, Export, Filter, Name, NamingError, Object, Values, is_id_character};
use serde::{Deserialize, Serialize};

/// What the directory refuses to grow beyond, and how much it remembers.
///
/// The limits decide what a write answers, so they are part of the replicated state: every replica must
/// apply the same ones at the same place in the log. A snapshot carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bound names in all, contexts and exports included. Default 4,000,000.
    pub names_max: u64,
    /// Bytes of a bound name as it is printed. Default 1,024, which is also the most: no name is longer.
    pub name_bytes_max: u64,
    /// Bytes of each component of a bound name. Default 255, which is also the most.
    pub component_bytes_max: u64,
    /// Components of a bound name. Default 32, which is also the most.
    pub components_max: u64,
    /// Groups, those without members included: a group is never forgotten, because its epoch must not
    /// start again. Default 10,000.
    pub groups_max: u64,
    /// Members of one group. Default 64.
    pub members_per_group_max: u64,
    /// Exports, and shadow exports of one member, of one group. Default 10,000.
    pub exports_per_group_max: u64,
    /// The bytes of one bound object: the texts in it. Default 65,536.
    pub object_bytes_max: u64,
    /// Attributes of one binding. Default 128.
    pub attributes_per_binding_max: u64,
    /// The bytes of one binding's attributes, ids and values. Default 65,536.
    pub attribute_bytes_max: u64,
    /// Names that one rename moves. Default 10,000.
    pub names_per_rename_max: u64,
    /// Writes of one transaction. Default 1,000.
    pub writes_per_transact_max: u64,
    /// The bytes of one transaction: the texts in it. Default 1,048,576.
    pub transact_bytes_max: u64,
    /// Failovers kept in the timeline of one group, the newest. Default 32.
    pub failovers_kept: u64,
    /// The bytes of one failover's report: the texts in it, and 16 for each step and number. Default 16,384.
    pub failover_bytes_max: u64,
    /// Operation ids whose answers are remembered, the newest. Default 65,536.
    pub operations_kept: u64,
    /// How long they are remembered, in milliseconds by the clock of the commands. Default 600,000, ten
    /// minutes: longer than any client goes on repeating one write.
    pub operations_kept_ms: u64,
    /// Revisions whose changes are kept for watches to resume after, the newest. Default 10,000.
    pub changes_kept: u64,
    /// The bytes of those changes; the last change is kept whatever its size. Default 16,777,216.
    pub change_bytes_kept: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            names_max: 4_000_000,
            name_bytes_max: Name::BYTES_MAX as u64,
            component_bytes_max: Name::COMPONENT_BYTES_MAX as u64,
            components_max: Name::COMPONENTS_MAX as u64,
            groups_max: 10_000,
            members_per_group_max: 64,
            exports_per_group_max: 10_000,
            object_bytes_max: 64 * 1024,
            attributes_per_binding_max: 128,
            attribute_bytes_max: 64 * 1024,
            names_per_rename_max: 10_000,
            writes_per_transact_max: 1_000,
            transact_bytes_max: 1024 * 1024,
            failovers_kept: 32,
            failover_bytes_max: 16 * 1024,
            operations_kept: 65_536,
            operations_kept_ms: 600_000,
            changes_kept: 10_000,
            change_bytes_kept: 16 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Refuses an object or attributes that are too large.
    pub(crate) fn check_binding(&self, object: &Object, attributes: &Attributes) -> Result<(), NamingError> {
        within("bytes of the object", object_bytes(object), self.object_bytes_max)?;
        self.check_attributes(attributes)
    }

    pub(crate) fn check_attributes(&self, attributes: &Attributes) -> Result<(), NamingError> {
        let count = attributes.len() as u64;
        within("attributes of a binding", count, self.attributes_per_binding_max)?;
        let bytes = attribute_bytes(attributes);
        within("bytes of a binding's attributes", bytes, self.attribute_bytes_max)?;
        for (id, values) in attributes.iter() {
            check_id(id)?;
            if values.len() == 0 {
                return Err(without_values(id));
            }
        }
        Ok(())
    }

    pub(crate) fn check_exports(&self, exports: &[Export]) -> Result<(), NamingError> {
        within(
            "exports of a group",
            exports.len() as u64,
            self.exports_per_group_max,
        )?;
        exports.iter().try_for_each(|export| {
            self.check_name(&export.name)?;
            self.check_binding(&export.object, &export.attributes)
        })
    }

    /// Refuses a name that is to be bound and is too large. Names that are only asked for have the limits of `Name`.
    pub(crate) fn check_name(&self, name: &Name) -> Result<(), NamingError> {
        within("bytes of a name", name.as_str().len() as u64, self.name_bytes_max)?;
        let components = name.components();
        within(
            "components of a name",
            components.len() as u64,
            self.components_max,
        )?;
        let longest = components.map(str::len).max().unwrap_or_default();
        within("bytes of a component", longest as u64, self.component_bytes_max)
    }

    pub(crate) fn check_names(&self, count: usize) -> Result<(), NamingError> {
        within("bound names", count as u64, self.names_max)
    }
}

/// `LimitExceeded` when there is more than the limit.
pub(crate) fn within(what: &str, count: u64, limit: u64) -> Result<(), NamingError> {
    if count <= limit {
        return Ok(());
    }
    Err(NamingError::LimitExceeded {
        what: what.to_owned(),
        limit,
    })
}

/// Refuses what a search filter could not name.
pub(crate) fn check_id(id: &str) -> Result<(), NamingError> {
    let reason = if id.is_empty() {
        "it is empty".to_owned()
    } else if id.len() > Filter::ID_BYTES_MAX {
        format!(
            "it has {} bytes, at most {} are allowed",
            id.len(),
            Filter::ID_BYTES_MAX
        )
    } else if let Some(found) = id.chars().find(|&c| !is_id_character(c)) {
        format!("{found:?} cannot stand in it")
    } else {
        return Ok(());
    };
    let id = id.chars().take(Filter::ID_BYTES_MAX).collect();
    Err(NamingError::InvalidAttributeIdentifier { id, reason })
}

pub(crate) fn without_values(id: &str) -> NamingError {
    NamingError::InvalidAttributeValue {
        id: id.to_owned(),
        reason: "an attribute has at least one value".to_owned(),
    }
}

/// The bytes of the texts in an object.
pub(crate) fn object_bytes(object: &Object) -> u64 {
    let bytes = match object {
        Object::Context => 0,
        Object::Link { target } => target.as_str().len(),
        Object::ConnectionFactory(factory) => {
            factory.brokers.iter().map(|broker| broker.host.len() + 16).sum()
        }
        Object::Queue { address } | Object::Topic { address } => address.len(),
        Object::Reference(reference) => {
            let addresses = reference.addresses.iter();
            let bytes: usize = addresses.map(|a| a.kind.len() + a.content.len() + 2).sum();
            reference.class_name.len() + bytes
        }
        Object::Value { json } => json.len(),
    };
    bytes as u64
}

/// The bytes of ids and values.
pub(crate) fn attribute_bytes(attributes: &Attributes) -> u64 {
    let bytes =
        |(id, values): (&str, Values<'_>)| id.len() + values.map(|value| value.len() + 1).sum::<usize>();
    attributes.iter().map(bytes).sum::<usize>() as u64
}
