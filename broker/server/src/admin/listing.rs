//! How it stands with the names of destinations and connection factories, as lists and descriptions show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use daymark_broker_core::failover::{Standing, View};
use daymark_client::proto::Name;
use serde::Serialize;

use super::Admin;
use crate::config::Factory;
use crate::exports::Configured;
use crate::messaging::{Described, DestinationKind, ExportName, Messaging};

/// The names of all destinations of one kind, and how it stands with them.
pub(super) struct Exports {
    names: BTreeMap<String, ExportName>,
    standings: Standings,
}

/// What the rules say of names.
struct Standings {
    configured: Arc<Configured>,
    view: View,
}

/// A connection factory.
#[derive(Serialize)]
pub(super) struct ListedFactory {
    /// Its own name; that of a configured one is the one it is exported under.
    pub(super) name: String,
    /// `admin` or `configuration`.
    declared: &'static str,
    #[serde(flatten)]
    factory: Factory,
    #[serde(flatten)]
    stands: Stands,
}

/// A destination in a list.
#[derive(Serialize)]
pub(super) struct Listed<C> {
    #[serde(flatten)]
    counts: C,
    /// Its name in the directory.
    export: Option<Name>,
    #[serde(flatten)]
    stands: Stands,
}

/// A destination with its settings, the name among them.
#[derive(Serialize)]
pub(super) struct Shown<C> {
    #[serde(flatten)]
    described: Described<C>,
    #[serde(flatten)]
    stands: Stands,
}

/// How it stands with a name.
#[derive(Default, Serialize)]
struct Stands {
    /// `published`, `waiting` for naming, or `left-out`; absent without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    export_state: Option<&'static str>,
    /// Why it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    export_why: Option<String>,
}

impl Exports {
    pub(super) fn of(admin: &Admin, messaging: &Messaging, kind: DestinationKind) -> Self {
        Self {
            names: messaging.export_names(kind),
            standings: Standings::of(admin),
        }
    }

    pub(super) fn listed<C>(&self, address: &str, counts: C) -> Listed<C> {
        let export = self.names.get(address);
        Listed {
            counts,
            export: export.map(|export| export.name.clone()),
            stands: self.stands(export),
        }
    }

    pub(super) fn shown<C>(&self, address: &str, described: Described<C>) -> Shown<C> {
        let export = self.names.get(address);
        Shown {
            described,
            stands: self.stands(export),
        }
    }

    fn stands(&self, export: Option<&ExportName>) -> Stands {
        export
            .map(|export| self.standings.stands(export))
            .unwrap_or_default()
    }
}

/// Every connection factory, those of the configuration first.
pub(super) fn factories(admin: &Admin, messaging: &Messaging) -> Vec<ListedFactory> {
    let standings = Standings::of(admin);
    let listed = |name, factory: Factory, is_configured| ListedFactory {
        name,
        declared: if is_configured { "configuration" } else { "admin" },
        stands: standings.stands(&ExportName::new(factory.export.clone(), is_configured)),
        factory,
    };
    let configured = admin.factories.iter().cloned();
    let configured = configured.map(|factory| listed(factory.export.to_string(), factory, true));
    let added = messaging.factories().into_iter();
    let added = added.map(|(name, factory)| listed(name, factory, false));
    configured.chain(added).collect()
}

impl Standings {
    fn of(admin: &Admin) -> Self {
        Self {
            configured: Arc::clone(&admin.configured),
            view: admin.board.view(),
        }
    }

    fn stands(&self, export: &ExportName) -> Stands {
        let standing = match self.view.added.get(&export.name) {
            Some(standing) if !export.is_configured => standing.clone(),
            Some(_) | None if export.is_configured && self.view.is_published => Standing::Published,
            Some(_) | None => match self.configured.holder(&export.name) {
                Some(holder) if !export.is_configured => Standing::LeftOut {
                    why: format!("the configuration uses the name for {holder}"),
                },
                Some(_) | None => Standing::Waiting,
            },
        };
        Stands {
            export_state: Some(standing.as_str()),
            export_why: match standing {
                Standing::LeftOut { why } => Some(why),
                Standing::Waiting | Standing::Published => None,
            },
        }
    }
}
