//! Connection factories that administrators declared. They are stored with the queues, which have no use for them.
//!
//! Invariant: there are never more than [`MAX_FACTORIES`].

use daymark_naming_proto::{FactorySettings, Name};
use serde::{Deserialize, Serialize};

use super::Queues;
use super::batch::RECORD_OVERHEAD;
use super::record::Record;
use super::types::Refused;

/// How many factories there may be. Naming takes the whole export set in one request of 1 MiB at most, and half of
/// that is enough for as many with four brokers in each.
pub const MAX_FACTORIES: usize = 500;

/// Stored bytes of one beside its names, roughly.
const SETTINGS_BYTES: u64 = 512;

/// A connection factory to export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factory {
    /// The name it is published under.
    pub export: Name,
    /// How clients connect, reconnect and give up.
    #[serde(default)]
    pub settings: FactorySettings,
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Every factory, by its own name.
    pub fn factories(&self) -> impl Iterator<Item = (&str, &Factory)> {
        let by_name = self.factories.iter();
        by_name.map(|(name, factory)| (name.as_str(), factory))
    }

    /// The factory of this name.
    #[must_use]
    pub fn factory(&self, name: &str) -> Option<&Factory> {
        self.factories.get(name)
    }

    /// From here on the factory of this name is this one.
    ///
    /// # Errors
    /// [`Refused::TooManyFactories`].
    pub fn declare_factory(&mut self, name: &str, factory: Factory) -> Result<(), Refused> {
        if self.factories.len() >= MAX_FACTORIES && !self.factories.contains_key(name) {
            return Err(Refused::TooManyFactories { limit: MAX_FACTORIES });
        }
        if self.factory(name) != Some(&factory) {
            self.factories.insert(name.to_owned(), factory);
            self.record_factory(name.to_owned());
        }
        Ok(())
    }

    /// Whether there was a factory of this name. There is none from here on.
    pub fn delete_factory(&mut self, name: &str) -> bool {
        let was_there = self.factories.remove(name).is_some();
        if was_there {
            self.record_factory(name.to_owned());
        }
        was_there
    }

    pub(super) fn record_factories(&mut self) {
        let names: Vec<String> = self.factories.keys().cloned().collect();
        names.into_iter().for_each(|name| self.record_factory(name));
    }

    /// Records what stands, or no longer stands, under a name.
    fn record_factory(&mut self, name: String) {
        let factory = self.factory(&name).cloned().map(Box::new);
        let bytes = factory.as_ref().map_or(0, |factory| bytes(&name, factory));
        self.batches.push(Record::Factory { name, factory }, bytes);
    }

    /// Bytes that the store needs for all of them.
    pub(super) fn factory_bytes(&self) -> u64 {
        let each = self
            .factories()
            .map(|(name, factory)| bytes(name, factory) + RECORD_OVERHEAD);
        each.sum()
    }
}

fn bytes(name: &str, factory: &Factory) -> u64 {
    (name.len() + factory.export.as_str().len()) as u64 + SETTINGS_BYTES
}
