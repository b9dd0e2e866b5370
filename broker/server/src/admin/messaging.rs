//! The data plane over HTTP: destinations, messages, subscriptions, connections, links.
//!
//! It decides nothing: it reads requests and writes answers. A broker that is not active has no data plane,
//! and says so.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, problem};
use crate::messaging::{DestinationConfig, DestinationKind, ManageError, Messaging};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/queues", get(queues))
        .route("/v1/queues/{name}", get(queue))
        .route("/v1/queues/{name}", declared_as(DestinationKind::Queue))
        .route("/v1/queues/{name}/purge", post(purge))
        .route("/v1/queues/{name}/messages", get(messages))
        .route("/v1/topics", get(topics))
        .route("/v1/topics/{name}", get(topic))
        .route("/v1/topics/{name}", declared_as(DestinationKind::Topic))
        .route("/v1/factories", get(factories))
        .route("/v1/subscriptions", get(subscriptions))
        .route("/v1/subscriptions/{name}", delete(delete_subscription))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/{id}", delete(close_connection))
        .route("/v1/links", get(links))
        .route("/v1/links/{id}", delete(close_link))
        .route("/metrics", get(super::metrics::metrics))
}

/// What makes and deletes destinations of this kind.
fn declared_as(kind: DestinationKind) -> MethodRouter<Admin> {
    let declare = move |admin, name, declared| declare(kind, admin, name, declared);
    let delete = move |admin, name, deleted| delete_one(kind, admin, name, deleted);
    put(declare).delete(delete)
}

/// What an answer is, or what is in its way.
type Answer = Result<Response, Problem>;

/// A problem document.
struct Problem(Box<Response>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        *self.0
    }
}

fn told(status: StatusCode, code: &str, detail: &str) -> Problem {
    Problem(Box::new(problem(status, code, detail)))
}

fn active(admin: &Admin) -> Result<Arc<Messaging>, Problem> {
    let not_active = || {
        let detail = "this broker is not active: it has no destinations and no connections";
        told(StatusCode::CONFLICT, "NotActive", detail)
    };
    admin.board.messaging().ok_or_else(not_active)
}

fn refused(error: &ManageError) -> Problem {
    let (status, code) = match error {
        ManageError::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
        ManageError::InUse(_) => (StatusCode::CONFLICT, "InUse"),
        ManageError::Configured { .. } => (StatusCode::CONFLICT, "Configured"),
        ManageError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
        ManageError::Limit(_) => (StatusCode::INSUFFICIENT_STORAGE, "LimitReached"),
        ManageError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "Ending"),
    };
    told(status, code, &error.to_string())
}

fn ok(document: impl serde::Serialize) -> Answer {
    Ok(Json(document).into_response())
}

fn done(result: Result<(), ManageError>) -> Answer {
    result
        .map(|()| StatusCode::NO_CONTENT.into_response())
        .map_err(|error| refused(&error))
}

async fn queues(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "queues": messaging.stats().queues }))
}

async fn queue(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let found = active(&admin)?.queue(&name);
    found.map_err(|error| refused(&error)).and_then(ok)
}

type Declared = Result<Option<Json<DestinationConfig>>, JsonRejection>;

fn invalid(detail: &str) -> Problem {
    told(StatusCode::BAD_REQUEST, "InvalidRequest", detail)
}

async fn declare(
    kind: DestinationKind,
    State(admin): State<Admin>,
    Path(name): Path<String>,
    declared: Declared,
) -> Answer {
    let declared = declared.map_err(|rejection| invalid(&rejection.body_text()))?;
    let declared = declared.map(|Json(declared)| declared).unwrap_or_default();
    if !declared.name.is_empty() || declared.export.is_some() {
        let detail = "the name stands in the path, and only what is configured is exported";
        return Err(invalid(detail));
    }
    let destination = DestinationConfig { name, ..declared };
    done(active(&admin)?.declare(kind, &destination).await)
}

/// How to delete.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Deletion {
    /// Only if it is empty and nobody is attached.
    only_if_unused: bool,
}

type Deleted = Result<Query<Deletion>, QueryRejection>;

fn deletion(deleted: Deleted) -> Result<bool, Problem> {
    deleted
        .map(|Query(deletion)| deletion.only_if_unused)
        .map_err(|rejection| invalid(&rejection.body_text()))
}

async fn delete_one(
    kind: DestinationKind,
    State(admin): State<Admin>,
    Path(name): Path<String>,
    deleted: Deleted,
) -> Answer {
    let only_if_unused = deletion(deleted)?;
    let dropped = active(&admin)?.delete(kind, &name, only_if_unused).await;
    dropped
        .map_err(|error| refused(&error))
        .and_then(|dropped| ok(json!({ "messages_dropped": dropped })))
}

async fn purge(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let purged = active(&admin)?.purge(&name).await;
    purged
        .map_err(|error| refused(&error))
        .and_then(|purged| ok(json!({ "messages_dropped": purged })))
}

/// Which messages to show.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Browse {
    /// Messages at most, 1 to 1,000. Default 50.
    limit: Option<usize>,
    /// A JMS selector.
    selector: Option<String>,
}

async fn messages(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    browse: Result<Query<Browse>, QueryRejection>,
) -> Answer {
    let Query(browse) = browse.map_err(|rejection| invalid(&rejection.body_text()))?;
    let limit = browse.limit.unwrap_or(50);
    if !(1..=1_000).contains(&limit) {
        return Err(invalid("limit must lie between 1 and 1000"));
    }
    let found = active(&admin)?.browse(&name, browse.selector.as_deref(), limit);
    found
        .map_err(|error| refused(&error))
        .and_then(|found| ok(json!({ "messages": found })))
}

async fn topics(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "topics": messaging.topics() }))
}

async fn topic(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let found = active(&admin)?.topic(&name);
    found.map_err(|error| refused(&error)).and_then(ok)
}

/// As they are configured; while this broker is active they are exported.
async fn factories(State(admin): State<Admin>) -> Answer {
    active(&admin)?;
    ok(json!({ "factories": *admin.factories }))
}

async fn subscriptions(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "subscriptions": messaging.subscriptions() }))
}

/// Whose subscription it is.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Subscriber {
    /// Absent: one that all clients share.
    client: Option<String>,
}

async fn delete_subscription(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    subscriber: Result<Query<Subscriber>, QueryRejection>,
) -> Answer {
    let Query(subscriber) = subscriber.map_err(|rejection| invalid(&rejection.body_text()))?;
    let messaging = active(&admin)?;
    done(
        messaging
            .delete_subscription(subscriber.client.as_deref(), &name)
            .await,
    )
}

async fn connections(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "connections": messaging.connections() }))
}

async fn close_connection(State(admin): State<Admin>, Path(id): Path<u64>) -> Answer {
    closed(active(&admin)?.close_connection(id), "connection", id)
}

async fn links(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "links": messaging.links() }))
}

async fn close_link(State(admin): State<Admin>, Path(id): Path<u64>) -> Answer {
    closed(active(&admin)?.close_link(id), "link", id)
}

fn closed(found: bool, what: &str, id: u64) -> Answer {
    if found {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (what, name) = (what.to_owned(), id.to_string());
    Err(refused(&ManageError::NotFound { what, name }))
}
