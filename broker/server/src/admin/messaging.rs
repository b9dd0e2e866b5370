//! The data plane over HTTP: destinations, factories, messages, subscriptions, connections, links.
//!
//! It decides nothing: it reads requests and writes answers. A broker that is not active has no data plane,
//! and says so.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::declare::{declared_as, declared_factory};
use super::listing::{self, Exports};
use super::{Admin, problem};
use crate::messaging::{DestinationKind, ManageError, Messaging, not_found};

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
        .route("/v1/factories/{name}", get(factory))
        .route("/v1/factories/{name}", declared_factory())
        .route("/v1/subscriptions", get(subscriptions))
        .route("/v1/subscriptions/{name}", delete(delete_subscription))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/{id}", delete(close_connection))
        .route("/v1/links", get(links))
        .route("/v1/links/{id}", delete(close_link))
        .route("/metrics", get(super::metrics::metrics))
}

/// What an answer is, or what is in its way.
pub(super) type Answer = Result<Response, Problem>;

/// A problem document.
pub(super) struct Problem(Box<Response>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        *self.0
    }
}

pub(super) fn told(status: StatusCode, code: &str, detail: &str) -> Problem {
    Problem(Box::new(problem(status, code, detail)))
}

pub(super) fn active(admin: &Admin) -> Result<Arc<Messaging>, Problem> {
    admin.board.messaging().ok_or_else(not_active)
}

pub(super) fn not_active() -> Problem {
    let detail = "this broker is not active: it has no destinations and no connections";
    told(StatusCode::CONFLICT, "NotActive", detail)
}

pub(super) fn refused(error: &ManageError) -> Problem {
    let (status, code) = match error {
        ManageError::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
        ManageError::InUse(_) => (StatusCode::CONFLICT, "InUse"),
        ManageError::ExportTaken { .. } => (StatusCode::CONFLICT, "ExportTaken"),
        ManageError::Configured { .. } => (StatusCode::CONFLICT, "Configured"),
        ManageError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
        ManageError::Limit(_) => (StatusCode::INSUFFICIENT_STORAGE, "LimitReached"),
        ManageError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "Ending"),
    };
    told(status, code, &error.to_string())
}

pub(super) fn ok(document: impl serde::Serialize) -> Answer {
    Ok(Json(document).into_response())
}

fn done(result: Result<(), ManageError>) -> Answer {
    result
        .map(|()| StatusCode::NO_CONTENT.into_response())
        .map_err(|error| refused(&error))
}

async fn queues(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    let exports = Exports::of(&admin, &messaging, DestinationKind::Queue);
    let queues = messaging.stats().queues.into_iter();
    let queues: Vec<_> = queues
        .map(|queue| exports.listed(&queue.name.clone(), queue))
        .collect();
    ok(json!({ "queues": queues }))
}

async fn queue(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let messaging = active(&admin)?;
    let found = messaging.queue(&name).map_err(|error| refused(&error))?;
    ok(Exports::of(&admin, &messaging, DestinationKind::Queue).shown(&name, found))
}

pub(super) fn invalid(detail: &str) -> Problem {
    told(StatusCode::BAD_REQUEST, "InvalidRequest", detail)
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
    let exports = Exports::of(&admin, &messaging, DestinationKind::Topic);
    let topics = messaging.topics().into_iter();
    let topics: Vec<_> = topics
        .map(|topic| exports.listed(&topic.name.clone(), topic))
        .collect();
    ok(json!({ "topics": topics }))
}

async fn topic(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let messaging = active(&admin)?;
    let found = messaging.topic(&name).map_err(|error| refused(&error))?;
    ok(Exports::of(&admin, &messaging, DestinationKind::Topic).shown(&name, found))
}

async fn factories(State(admin): State<Admin>) -> Answer {
    let messaging = active(&admin)?;
    ok(json!({ "factories": listing::factories(&admin, &messaging) }))
}

async fn factory(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let messaging = active(&admin)?;
    let mut all = listing::factories(&admin, &messaging).into_iter();
    let found = all.find(|factory| factory.name == name);
    ok(found.ok_or_else(|| refused(&not_found("factory", &name)))?)
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
    Err(refused(&not_found(what, &id.to_string())))
}
