//! Which names in the directory the destinations have: those of the configuration, and those that
//! administrators gave, which are stored with the destinations; and those of the connection factories that
//! administrators declared.

use std::collections::BTreeMap;

use daymark_broker_core::failover::{AddedExport, Target};
use daymark_broker_core::queues::{Factory, Lifetime};
use daymark_client::proto::Name;

use super::shared::State;
use super::{DestinationConfig, DestinationKind, Messaging};

/// The name of a destination or a factory in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportName {
    pub(crate) name: Name,
    /// Whether it stands in the configuration.
    pub(crate) is_configured: bool,
}

impl ExportName {
    pub(crate) const fn new(name: Name, is_configured: bool) -> Self {
        Self { name, is_configured }
    }
}

impl Messaging {
    /// The names that administrators gave.
    pub(crate) fn added_exports(&self) -> Vec<AddedExport> {
        let state = self.shared.look();
        let queues = state.queues.settings().filter_map(|(address, settings)| {
            destination_export(DestinationKind::Queue, address, settings.export.as_ref())
        });
        let topics = state.queues.topic_settings().filter_map(|(address, settings)| {
            destination_export(DestinationKind::Topic, address, settings.export.as_ref())
        });
        let factories = state.queues.factories();
        let factories = factories.map(|(name, factory)| factory_export(name, factory));
        queues.chain(topics).chain(factories).collect()
    }

    /// The name that an administrator gave to this destination.
    pub(crate) fn added_export(&self, kind: DestinationKind, address: &str) -> Option<AddedExport> {
        let state = self.shared.look();
        let settings = state.queues.settings_of(state.find(kind, address)?)?;
        destination_export(kind, address, settings.export.as_ref())
    }

    /// The name of the factory that an administrator declared as `name`.
    pub(crate) fn added_factory(&self, name: &str) -> Option<AddedExport> {
        let state = self.shared.look();
        let found = state.queues.factory(name)?;
        Some(factory_export(name, found))
    }

    /// The names of all destinations of this kind that have one, by address.
    pub(crate) fn export_names(&self, kind: DestinationKind) -> BTreeMap<String, ExportName> {
        let added = self.added_exports().into_iter();
        let added = added.filter_map(|export| match (kind, export.to) {
            (DestinationKind::Queue, Target::Queue(address))
            | (DestinationKind::Topic, Target::Topic(address)) => {
                Some((address, ExportName::new(export.name, false)))
            }
            (DestinationKind::Queue | DestinationKind::Topic, _) => None,
        });
        let configured = self.configured(kind).iter();
        let configured = configured.filter_map(|declared| {
            let export = ExportName::new(declared.export.clone()?, true);
            Some((declared.name.clone(), export))
        });
        added.chain(configured).collect()
    }

    /// The name of one destination, wherever it is from.
    pub(super) fn export_of(&self, state: &State, kind: DestinationKind, address: &str) -> Option<Name> {
        let mut configured = self.configured(kind).iter();
        let configured = configured.find(|declared| declared.name == address);
        match configured {
            Some(declared) => declared.export.clone(),
            None => state
                .queues
                .settings_of(state.find(kind, address)?)?
                .export
                .clone(),
        }
    }

    /// What stands in the configuration.
    pub(super) fn configured(&self, kind: DestinationKind) -> &[DestinationConfig] {
        match kind {
            DestinationKind::Queue => &self.shared.config.queues,
            DestinationKind::Topic => &self.shared.config.topics,
        }
    }

    /// Whether the destination goes with the connection that made it.
    pub(super) fn is_temporary(&self, kind: DestinationKind, address: &str) -> bool {
        let state = self.shared.look();
        let found = state.find(kind, address);
        let settings = found.and_then(|found| state.queues.settings_of(found));
        settings.is_some_and(|settings| matches!(settings.lifetime, Lifetime::Owner(_)))
    }
}

/// A name, if the destination has one, with where it leads.
pub(crate) fn destination_export(
    kind: DestinationKind,
    address: &str,
    name: Option<&Name>,
) -> Option<AddedExport> {
    let address = address.to_owned();
    Some(AddedExport {
        name: name?.clone(),
        to: match kind {
            DestinationKind::Queue => Target::Queue(address),
            DestinationKind::Topic => Target::Topic(address),
        },
    })
}

/// The name of a factory, with where it leads.
pub(crate) fn factory_export(name: &str, factory: &Factory) -> AddedExport {
    AddedExport {
        name: factory.export.clone(),
        to: Target::Factory {
            name: name.to_owned(),
            settings: Box::new(factory.settings.clone()),
        },
    }
}
