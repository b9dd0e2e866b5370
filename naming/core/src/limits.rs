//! How large the directory may become. Every limit has its own answer, `LimitExceeded` with its name.

use daymark_naming_proto::{Attributes, Export, NamingError, Object};
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
    /// Operation ids whose answers are remembered, the newest. Default 16,384.
    pub operations_kept: u64,
    /// Revisions whose changes are kept for watches to resume after, the newest. Default 10,000.
    pub changes_kept: u64,
    /// The bytes of those changes; the last change is kept whatever its size. Default 16,777,216.
    pub change_bytes_kept: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            names_max: 4_000_000,
            groups_max: 10_000,
            members_per_group_max: 64,
            exports_per_group_max: 10_000,
            object_bytes_max: 64 * 1024,
            attributes_per_binding_max: 128,
            attribute_bytes_max: 64 * 1024,
            operations_kept: 16_384,
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
        within("bytes of a binding's attributes", bytes, self.attribute_bytes_max)
    }

    pub(crate) fn check_exports(&self, exports: &[Export]) -> Result<(), NamingError> {
        within(
            "exports of a group",
            exports.len() as u64,
            self.exports_per_group_max,
        )?;
        exports
            .iter()
            .try_for_each(|export| self.check_binding(&export.object, &export.attributes))
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
        |(id, values): (&str, &[String])| id.len() + values.iter().map(|v| v.len() + 1).sum::<usize>();
    attributes.iter().map(bytes).sum::<usize>() as u64
}
