//! How destinations and connection factories are made, changed and deleted over HTTP, with the names they have in
//! the directory.
//!
//! A name is published before it is stored: what naming refuses is not stored, and whoever asked is told why.
//! Where naming does not answer, the name is stored all the same, and published when naming is back. Whatever
//! is deleted is so before its name is.
//!
//! Invariant: a change goes on to its end, even if whoever asked for it waits no longer.

use std::sync::{Arc, Weak};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, put};
use daymark_broker_core::failover::{AddedExport, ExportAnswer, ExportChange, Standing, Target};
use daymark_client::proto::Name;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::messaging::{Answer, Problem, active, invalid, not_active, ok, refused, told};
use super::{Admin, OUTCOME};
use crate::config::Factory;
use crate::control::{Exporting, Wish};
use crate::messaging::{
    DestinationConfig, DestinationKind, ManageError, Messaging, check_factory, destination_export,
    factory_export,
};

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
    let change = Change::new(admin)?;
    to_its_end(async move { change.declare_destination(kind, &destination).await }).await
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
    let change = Change::new(admin)?;
    to_its_end(async move {
        change
            .delete_destination(kind, &name, deletion.only_if_unused)
            .await
    })
    .await
}

/// What makes and deletes connection factories.
pub(super) fn declared_factory() -> MethodRouter<Admin> {
    put(declare_factory).delete(delete_factory)
}

async fn declare_factory(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    declared: Result<Json<Factory>, JsonRejection>,
) -> Answer {
    let Json(factory) = declared.map_err(|rejection| invalid(&rejection.body_text()))?;
    let change = Change::new(admin)?;
    to_its_end(async move { change.declare_factory(&name, &factory).await }).await
}

async fn delete_factory(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let change = Change::new(admin)?;
    to_its_end(async move { change.delete_factory(&name).await }).await
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

/// A change of something that may have a name in the directory, in one term of office.
struct Change {
    admin: Admin,
    /// Not held while the rules are asked: the term may end meanwhile, and its store with it.
    messaging: Weak<Messaging>,
}

impl Change {
    fn new(admin: Admin) -> Result<Self, Problem> {
        let messaging = Arc::downgrade(&active(&admin)?);
        Ok(Self { admin, messaging })
    }

    fn messaging(&self) -> Result<Arc<Messaging>, Problem> {
        self.messaging.upgrade().ok_or_else(not_active)
    }

    async fn declare_destination(&self, kind: DestinationKind, destination: &DestinationConfig) -> Answer {
        let by_itself = self.messaging()?.check_declared(kind, destination);
        by_itself.map_err(|error| refused(&error))?;
        let _turn = self.admin.exporting.lock().await;
        let before = self.messaging()?.added_export(kind, &destination.name);
        let wanted = destination_export(kind, &destination.name, destination.export.as_ref());
        let store = async {
            let stored = self.messaging()?.declare(kind, destination).await;
            stored.map_err(|error| refused(&error))
        };
        self.replace(before, wanted, store).await
    }

    async fn declare_factory(&self, name: &str, factory: &Factory) -> Answer {
        check_factory(name, factory).map_err(|error| refused(&error))?;
        self.check_not_configured(name)?;
        let _turn = self.admin.exporting.lock().await;
        let before = self.messaging()?.added_factory(name);
        let wanted = Some(factory_export(name, factory));
        let store = async {
            let stored = self.messaging()?.declare_factory(name, factory).await;
            stored.map_err(|error| refused(&error))
        };
        self.replace(before, wanted, store).await
    }

    /// Publishes what is wanted in place of what was before, and has it stored.
    async fn replace(
        &self,
        before: Option<AddedExport>,
        wanted: Option<AddedExport>,
        store: impl Future<Output = Result<(), Problem>>,
    ) -> Answer {
        if before.is_none() && wanted.is_none() {
            store.await?; // Naming has nothing to do with it.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        self.check_free(before.as_ref(), wanted.as_ref())?;
        let name_of = |export: &Option<AddedExport>| export.as_ref().map(|export| export.name.clone());
        let (old, name) = (name_of(&before), name_of(&wanted));
        let answer = self.publish(wanted, old).await?;
        if let Err(problem) = store.await {
            // Nothing was stored, so the names are to be as before. One who is no longer active has none.
            let _ = self.publish(before, name).await;
            return Err(problem);
        }
        if answer != ExportAnswer::Waiting {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let later = json!({
            "export": name,
            "export_state": Standing::Waiting.as_str(),
            "detail": "it is stored; naming does not answer now, and is told of the name when it does",
        });
        Ok((StatusCode::ACCEPTED, Json(later)).into_response())
    }

    async fn delete_destination(&self, kind: DestinationKind, name: &str, only_if_unused: bool) -> Answer {
        let _turn = self.admin.exporting.lock().await;
        let before = self.messaging()?.added_export(kind, name);
        let dropped = self.messaging()?.delete(kind, name, only_if_unused).await;
        let dropped = dropped.map_err(|error| refused(&error))?;
        let mut done = json!({ "messages_dropped": dropped });
        if let Some(detail) = self.withdraw(before).await {
            done["detail"] = detail.into();
        }
        ok(done)
    }

    async fn delete_factory(&self, name: &str) -> Answer {
        self.check_not_configured(name)?;
        let _turn = self.admin.exporting.lock().await;
        let before = self.messaging()?.added_factory(name);
        let deleted = self.messaging()?.delete_factory(name).await;
        deleted.map_err(|error| refused(&error))?;
        Ok(match self.withdraw(before).await {
            Some(detail) => (StatusCode::ACCEPTED, Json(json!({ "detail": detail }))).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        })
    }

    /// Takes the name of something that was deleted out of the directory, and says where that is still to come.
    async fn withdraw(&self, before: Option<AddedExport>) -> Option<&'static str> {
        // One who is no longer active publishes nothing: whoever is next reads what is stored.
        let answer = self.publish(None, Some(before?.name)).await;
        let detail =
            "it is deleted; naming does not answer now, and is told that its name is gone when it does";
        matches!(answer, Ok(ExportAnswer::Waiting)).then_some(detail)
    }

    fn check_not_configured(&self, factory: &str) -> Result<(), Problem> {
        let mut configured = self.admin.factories.iter();
        if configured.any(|configured| configured.export.as_str() == factory) {
            let name = factory.to_owned();
            return Err(refused(&ManageError::Configured { name }));
        }
        Ok(())
    }

    /// Whether nothing else has the name that is wanted.
    fn check_free(&self, before: Option<&AddedExport>, wanted: Option<&AddedExport>) -> Result<(), Problem> {
        let Some(AddedExport { name, .. }) = wanted else {
            return Ok(());
        };
        let is_kept = before.is_some_and(|before| before.name == *name);
        let added = self.messaging()?.added_exports().into_iter();
        let mut others = added.filter(|export| export.name == *name && !is_kept);
        let holder = self.admin.configured.holder(name).map(str::to_owned);
        let holder = holder.or_else(|| others.next().map(|other| spoken(&other.to)));
        holder.map_or(Ok(()), |holder| {
            let name = name.clone();
            Err(refused(&ManageError::ExportTaken { name, holder }))
        })
    }

    /// Has the export set published with one name and without another.
    async fn publish(&self, add: Option<AddedExport>, remove: Option<Name>) -> Result<ExportAnswer, Problem> {
        let change = ExportChange { add, remove };
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

/// What has a name, as an error tells it.
fn spoken(holder: &Target) -> String {
    match holder {
        Target::Queue(address) => format!("the queue {address:?}"),
        Target::Topic(address) => format!("the topic {address:?}"),
        Target::Factory { name, .. } => format!("the factory {name:?}"),
    }
}
