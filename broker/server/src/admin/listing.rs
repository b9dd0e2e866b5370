//! How it stands with the names of destinations, as lists and descriptions show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use daymark_broker_core::failover::{Standing, View};
use daymark_client::proto::Name;
use serde::Serialize;

use super::Admin;
use crate::exports::Configured;
use crate::messaging::{Described, DestinationKind, ExportName, Messaging};

/// The names of all destinations of one kind, and what the rules say of them.
pub(super) struct Exports {
    names: BTreeMap<String, ExportName>,
    configured: Arc<Configured>,
    view: View,
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
            configured: Arc::clone(&admin.configured),
            view: admin.board.view(),
        }
    }

    pub(super) fn listed<C>(&self, address: &str, counts: C) -> Listed<C> {
        let export = self.names.get(address);
        Listed {
            counts,
            export: export.map(|export| export.name.clone()),
            stands: export.map(|export| self.stands(export)).unwrap_or_default(),
        }
    }

    pub(super) fn shown<C>(&self, address: &str, described: Described<C>) -> Shown<C> {
        let export = self.names.get(address);
        Shown {
            described,
            stands: export.map(|export| self.stands(export)).unwrap_or_default(),
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
