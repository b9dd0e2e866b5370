//! The admin and health endpoint. It listens in every state, and readiness does not depend on the state.

mod declare;
mod listing;
mod messaging;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use daymark_client::proto::MemberName;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, Factory};
use crate::control::status::StatusBoard;
use crate::control::{NotSwitched, Promote, Switchover, Wish};
use crate::exports::Configured;

/// How long a promotion or a switchover may take before its outcome is reported as unknown.
const OUTCOME: Duration = Duration::from_secs(30);

/// What the endpoint reads, and whom it tells what is wanted.
#[derive(Clone)]
pub(crate) struct Admin {
    board: StatusBoard,
    wishes: mpsc::Sender<Wish>,
    /// Those of the configuration.
    factories: Arc<[Factory]>,
    configured: Arc<Configured>,
    /// Held by whoever changes the names of destinations and factories: the rules take one change at a time.
    exporting: Arc<tokio::sync::Mutex<()>>,
}

impl Admin {
    pub(crate) fn new(board: StatusBoard, wishes: mpsc::Sender<Wish>, config: &Config) -> Self {
        Self {
            board,
            wishes,
            factories: config.factories.clone().into(),
            configured: Arc::new(Configured::of(config)),
            exporting: Arc::default(),
        }
    }
}

/// What `POST /v1/promote` takes. An empty body asks for a promotion without force.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PromoteRequest {
    /// Whether the store is taken although its lock is held. Default false.
    force: bool,
}

/// What `POST /v1/switchover` takes. An empty body leaves the choice to the broker.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SwitchoverRequest {
    /// Who shall be active. Default: a ready primary before a ready backup, then by name.
    to: Option<MemberName>,
}

/// Serves until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async || "ok\n"))
        .route("/v1/status", get(status))
        .route("/v1/promote", post(promote))
        .route("/v1/switchover", post(switchover))
        .merge(messaging::routes())
        .with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin endpoint ended");
    }
}

async fn status(State(admin): State<Admin>) -> Response {
    Json(admin.board.status()).into_response()
}

async fn promote(
    State(admin): State<Admin>,
    request: Result<Option<Json<PromoteRequest>>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(request) => request.map(|Json(request)| request).unwrap_or_default(),
        Err(rejection) => {
            let detail = rejection.body_text();
            return problem(StatusCode::BAD_REQUEST, "InvalidRequest", &detail);
        }
    };
    let (answer, answered) = oneshot::channel();
    let promote = Promote {
        force: request.force,
        answer,
    };
    if admin.wishes.send(Wish::Promote(promote)).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "Ending", "the broker ends");
    }
    match tokio::time::timeout(OUTCOME, answered).await {
        Ok(Ok(Ok(_))) => Json(admin.board.status()).into_response(),
        Ok(Ok(Err(why))) => problem(StatusCode::CONFLICT, "PromotionRefused", &why),
        Ok(Err(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, "Ending", "the broker ends"),
        Err(_) => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "TimedOut",
            "the promotion goes on, its outcome is unknown",
        ),
    }
}

async fn switchover(
    State(admin): State<Admin>,
    request: Result<Option<Json<SwitchoverRequest>>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(request) => request.map(|Json(request)| request).unwrap_or_default(),
        Err(rejection) => {
            let detail = rejection.body_text();
            return problem(StatusCode::BAD_REQUEST, "InvalidRequest", &detail);
        }
    };
    let (answer, answered) = oneshot::channel();
    let wish = Wish::Switchover(Switchover {
        to: request.to,
        answer,
    });
    if admin.wishes.send(wish).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "Ending", "the broker ends");
    }
    match tokio::time::timeout(OUTCOME, answered).await {
        Ok(Ok(Ok(switched))) => Json(switched).into_response(),
        Ok(Ok(Err(NotSwitched { code, why }))) => problem(StatusCode::CONFLICT, code, &why),
        Ok(Err(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, "Ending", "the broker ends"),
        Err(_) => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "TimedOut",
            "the switchover goes on, its outcome is unknown",
        ),
    }
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}
