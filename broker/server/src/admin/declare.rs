//! How destinations are made, changed and deleted over HTTP, with the names they have in the directory.
//!
//! A name is published before it is stored: what naming refuses is not stored, and whoever asked is told why.
//! Where naming does not answer, the name is stored all the same, and published when naming is back. A
//! destination is deleted before its name is.
//!
//! Invariant: a change goes on to its end, even if whoever asked for it waits no longer.

use std::sync::{Arc, Weak};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, put};
use daymark_broker_core::failover::{AddedExport, Destination, ExportAnswer, ExportChange, Standing};
use daymark_client::proto::Name;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::messaging::{Answer, Problem, active, invalid, not_active, ok, refused, told};
use super::{Admin, OUTCOME};
use crate::control::{Exporting, Wish};
use crate::messaging::{DestinationConfig, DestinationKind, ManageError, Messaging};

/// What makes and deletes destinations of this kind.
pub(super) fn declared_as(kind: DestinationKind) -> MethodRouter<Admin> {
    let declare = move |admin, name, declared| declare(kind, admin, name, declared);
    let delete = move |admin, name, deleted| delete_one(kind, admin, name, deleted);
    put(declare).delete(delete)
}

type Declared = Result<Option<Json<DestinationConfig>>, JsonRejection>;

async fn declare(
    kind: DestinationKind,
    State(admin): State<Admin>,
    Path(name): Path<String>,
    declared: Declared,
) -> Answer {
    let declared = declared.map_err(|rejection| invalid(&rejection.body_text()))?;
    let declared = declared.map(|Json(declared)| declared).unwrap_or_default();
    if !declared.name.is_empty() {
        return Err(invalid("the name stands in the path"));
    }
    let destination = DestinationConfig { name, ..declared };
    let change = Change::new(admin, kind)?;
    to_its_end(async move { change.declare(&destination).await }).await
}

/// How to delete.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Deletion {
    /// Only if it is empty and nobody is attached.
    only_if_unused: bool,
}

type Deleted = Result<Query<Deletion>, QueryRejection>;

async fn delete_one(
    kind: DestinationKind,
    State(admin): State<Admin>,
    Path(name): Path<String>,
    deleted: Deleted,
) -> Answer {
    let Query(deletion) = deleted.map_err(|rejection| invalid(&rejection.body_text()))?;
    let change = Change::new(admin, kind)?;
    to_its_end(async move { change.delete(&name, deletion.only_if_unused).await }).await
}

/// Runs a change beside the request, which may be given up.
async fn to_its_end(change: impl Future<Output = Answer> + Send + 'static) -> Answer {
    match tokio::time::timeout(OUTCOME, tokio::spawn(change)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ending()),
        Err(_) => {
            let detail = "the change goes on, its outcome is unknown";
            Err(told(StatusCode::GATEWAY_TIMEOUT, "TimedOut", detail))
        }
    }
}

fn ending() -> Problem {
    told(StatusCode::SERVICE_UNAVAILABLE, "Ending", "the broker ends")
}

/// A change of one destination of this kind, in one term of office.
struct Change {
    admin: Admin,
    /// Not held while the rules are asked: the term may end meanwhile, and its store with it.
    messaging: Weak<Messaging>,
    kind: DestinationKind,
}

impl Change {
    fn new(admin: Admin, kind: DestinationKind) -> Result<Self, Problem> {
        let messaging = Arc::downgrade(&active(&admin)?);
        Ok(Self {
            admin,
            messaging,
            kind,
        })
    }

    fn messaging(&self) -> Result<Arc<Messaging>, Problem> {
        self.messaging.upgrade().ok_or_else(not_active)
    }

    async fn declare(&self, destination: &DestinationConfig) -> Answer {
        let by_itself = self.messaging()?.check_declared(self.kind, destination);
        by_itself.map_err(|error| refused(&error))?;
        let _turn = self.admin.exporting.lock().await;
        let (name, wanted) = (&destination.name, &destination.export);
        let before = self.messaging()?.added_export(self.kind, name);
        if before.is_none() && wanted.is_none() {
            self.store(destination).await?; // Naming has nothing to do with it.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        self.check_free(destination)?;
        let answer = self.publish(name, wanted.clone(), before.clone()).await?;
        if let Err(problem) = self.store(destination).await {
            // Nothing was stored, so the names are to be as before. One who is no longer active has none.
            let _ = self.publish(name, before, wanted.clone()).await;
            return Err(problem);
        }
        if answer != ExportAnswer::Waiting {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let later = json!({
            "export": wanted,
            "export_state": Standing::Waiting.as_str(),
            "detail": "it is stored; naming does not answer now, and is told of the name when it does",
        });
        Ok((StatusCode::ACCEPTED, Json(later)).into_response())
    }

    async fn store(&self, destination: &DestinationConfig) -> Result<(), Problem> {
        let stored = self.messaging()?.declare(self.kind, destination).await;
        stored.map_err(|error| refused(&error))
    }

    async fn delete(&self, name: &str, only_if_unused: bool) -> Answer {
        let _turn = self.admin.exporting.lock().await;
        let before = self.messaging()?.added_export(self.kind, name);
        let dropped = self.messaging()?.delete(self.kind, name, only_if_unused).await;
        let dropped = dropped.map_err(|error| refused(&error))?;
        let mut done = json!({ "messages_dropped": dropped });
        // One who is no longer active publishes nothing: whoever is next reads what is stored.
        if before.is_some() && matches!(self.publish(name, None, before).await, Ok(ExportAnswer::Waiting)) {
            let detail =
                "it is deleted; naming does not answer now, and is told that its name is gone when it does";
            done["detail"] = detail.into();
        }
        ok(done)
    }

    /// Whether nothing else has the name.
    fn check_free(&self, destination: &DestinationConfig) -> Result<(), Problem> {
        let Some(name) = &destination.export else {
            return Ok(());
        };
        let me = self.destination(&destination.name);
        let added = self.messaging()?.added_exports().into_iter();
        let mut others = added.filter(|export| export.name == *name && export.to != me);
        let holder = self.admin.configured.holder(name).map(str::to_owned);
        let holder = holder.or_else(|| others.next().map(|other| spoken(&other.to)));
        holder.map_or(Ok(()), |holder| {
            let name = name.clone();
            Err(refused(&ManageError::ExportTaken { name, holder }))
        })
    }

    fn destination(&self, address: &str) -> Destination {
        match self.kind {
            DestinationKind::Queue => Destination::Queue(address.to_owned()),
            DestinationKind::Topic => Destination::Topic(address.to_owned()),
        }
    }

    /// Has the export set published with one name of this destination and without another.
    async fn publish(
        &self,
        address: &str,
        add: Option<Name>,
        remove: Option<Name>,
    ) -> Result<ExportAnswer, Problem> {
        let change = ExportChange {
            add: add.map(|name| AddedExport {
                name,
                to: self.destination(address),
            }),
            remove,
        };
        let (answer, answered) = oneshot::channel();
        let wish = Wish::Export(Exporting { change, answer });
        self.admin.wishes.send(wish).await.map_err(|_| ending())?;
        match answered.await {
            Ok(ExportAnswer::Refused { why }) => Err(told(
                StatusCode::CONFLICT,
                "ExportRefused",
                &format!("naming refuses the name, and nothing was changed: {why}"),
            )),
            Ok(ExportAnswer::NotActive) => Err(not_active()),
            Ok(answer @ (ExportAnswer::Published | ExportAnswer::Waiting)) => Ok(answer),
            Err(_) => Err(ending()),
        }
    }
}

/// A destination as an error names it.
fn spoken(destination: &Destination) -> String {
    match destination {
        Destination::Queue(address) => format!("the queue {address:?}"),
        Destination::Topic(address) => format!("the topic {address:?}"),
    }
}
