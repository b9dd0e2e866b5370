//! The paths and what they ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use daymark_naming_proto::{
    GroupName, Name, NamingError, ReadOptions, Request, Revision, Scope, Write, WriteRequest,
};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{JSON, REVISION, body, text, watch};
use crate::dispatch::{Answer, Dispatcher};
use crate::identity::new_op;
use crate::mailbox::Mailbox;

type Shared = State<Arc<Dispatcher>>;
type Answered = Result<Response, Problem>;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Every path.
pub(super) fn router(dispatcher: Arc<Dispatcher>) -> Router {
    let names = get(lookup).put(rebind).post(bind).delete(unbind);
    let contexts = put(create_subcontext).delete(destroy_subcontext);
    Router::new()
        .route("/v1/names", names.clone())
        .route("/v1/names/", names.clone())
        .route("/v1/names/{*name}", names)
        .route("/v1/contexts/{*name}", contexts)
        .route("/v1/list", get(list))
        .route("/v1/list/", get(list))
        .route("/v1/list/{*name}", get(list))
        .route("/v1/watch", get(follow))
        .route("/v1/watch/", get(follow))
        .route("/v1/watch/{*name}", get(follow))
        .route("/v1/groups", get(groups))
        .route("/v1/groups/{group}", get(group))
        .route("/v1/groups/{group}/{verb}", post(group_verb))
        .route("/v1/status", get(status))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(dispatcher)
}

async fn no_such_path(uri: Uri) -> Problem {
    let what = format!("path {}", uri.path());
    Problem::with(StatusCode::NOT_FOUND, NamingError::NotSupported { what })
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let what = format!("{method} {}", uri.path());
    Problem::with(StatusCode::METHOD_NOT_ALLOWED, NamingError::NotSupported { what })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Consistency {
    #[default]
    Local,
    Strong,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Links {
    #[default]
    Yes,
    No,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    wait: Option<String>,
    min_revision: Option<Revision>,
    #[serde(default)]
    consistency: Consistency,
    #[serde(default)]
    links: Links,
    #[serde(default)]
    bindings: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Following {
    #[serde(default)]
    scope: Scope,
    from: Option<Revision>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, NamingError> {
    let parsed = Query::<T>::try_from_uri(uri);
    parsed
        .map(|Query(parsed)| parsed)
        .map_err(|rejection| NamingError::invalid(rejection.body_text()))
}

impl Reading {
    fn options(&self) -> Result<ReadOptions, NamingError> {
        Ok(ReadOptions {
            min_revision: self.min_revision,
            wait_ms: self.wait.as_deref().map(text::milliseconds).transpose()?,
            strong: matches!(self.consistency, Consistency::Strong),
        })
    }
}

fn ok(status: StatusCode, answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(REVISION, HeaderValue::from(answer.revision.0));
    if let Some(revision) = answer.binding {
        headers.insert(ETAG, text::etag(revision));
    }
    response
}

async fn ask(dispatcher: &Dispatcher, request: Request) -> Answered {
    Ok(ok(StatusCode::OK, dispatcher.ask(request).await?))
}

/// A write with a body of `bytes` bytes. Whoever asked may leave meanwhile: the write counts as under way until
/// the log has answered.
async fn write(dispatcher: &Arc<Dispatcher>, headers: &HeaderMap, write: Write, bytes: usize) -> Answered {
    let op = text::op_id(headers)?.unwrap_or_else(new_op);
    let begun = dispatcher.begin(WriteRequest { op, write }, bytes).await?;
    let finishing = dispatcher.clone();
    let finished = tokio::spawn(async move { finishing.finish(begun).await }).await;
    let answer = finished.map_err(|_| NamingError::ServiceUnavailable {
        reason: "this server stops".to_owned(),
    })?;
    Ok(ok(StatusCode::OK, answer?))
}

async fn lookup(State(dispatcher): Shared, uri: Uri) -> Answered {
    let name = text::name_after("/v1/names", &uri)?;
    let reading: Reading = query(&uri)?;
    let options = reading.options()?;
    if reading.bindings {
        return Err(NamingError::invalid("bindings belongs to /v1/list").into());
    }
    let request = match reading.links {
        Links::Yes => Request::Lookup { name, options },
        Links::No => Request::LookupLink { name, options },
    };
    ask(&dispatcher, request).await
}

async fn list(State(dispatcher): Shared, uri: Uri) -> Answered {
    let name = text::name_after("/v1/list", &uri)?;
    let reading: Reading = query(&uri)?;
    let options = reading.options()?;
    let request = if reading.bindings {
        Request::ListBindings { name, options }
    } else {
        Request::List { name, options }
    };
    ask(&dispatcher, request).await
}

async fn bind(State(dispatcher): Shared, uri: Uri, headers: HeaderMap, content: Body) -> Answered {
    query::<Nothing>(&uri)?;
    let name = text::name_after("/v1/names", &uri)?;
    let content = body::read(content, &dispatcher.limits).await?;
    let (object, attributes) = body::bound(&content)?;
    let attributes = attributes.unwrap_or_default();
    let bind = Write::Bind {
        name,
        object,
        attributes,
    };
    write(&dispatcher, &headers, bind, content.len()).await
}

async fn rebind(State(dispatcher): Shared, uri: Uri, headers: HeaderMap, content: Body) -> Answered {
    query::<Nothing>(&uri)?;
    let name = text::name_after("/v1/names", &uri)?;
    let content = body::read(content, &dispatcher.limits).await?;
    let (object, attributes) = body::bound(&content)?;
    let rebind = Write::Rebind {
        name,
        object,
        attributes,
        expected: text::expected(&headers)?,
    };
    write(&dispatcher, &headers, rebind, content.len()).await
}

async fn unbind(State(dispatcher): Shared, uri: Uri, headers: HeaderMap) -> Answered {
    query::<Nothing>(&uri)?;
    let unbind = Write::Unbind {
        name: text::name_after("/v1/names", &uri)?,
        expected: text::expected(&headers)?,
    };
    write(&dispatcher, &headers, unbind, 0).await
}

async fn create_subcontext(
    State(dispatcher): Shared,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Answered {
    query::<Nothing>(&uri)?;
    let name = text::name_after("/v1/contexts", &uri)?;
    let content = body::read(content, &dispatcher.limits).await?;
    let subcontext: body::Subcontext = if content.is_empty() {
        body::Subcontext::default()
    } else {
        body::json(&content)?
    };
    let attributes = subcontext.attributes;
    write(
        &dispatcher,
        &headers,
        Write::CreateSubcontext { name, attributes },
        content.len(),
    )
    .await
}

async fn destroy_subcontext(State(dispatcher): Shared, uri: Uri, headers: HeaderMap) -> Answered {
    query::<Nothing>(&uri)?;
    let name = text::name_after("/v1/contexts", &uri)?;
    write(&dispatcher, &headers, Write::DestroySubcontext { name }, 0).await
}

async fn follow(State(dispatcher): Shared, uri: Uri, headers: HeaderMap) -> Answered {
    let name: Name = text::name_after("/v1/watch", &uri)?;
    let following: Following = query(&uri)?;
    let last = text::text_of(&headers, &LAST_EVENT_ID)?.filter(|last| !last.is_empty());
    let last = last
        .map(|last| last.parse::<Revision>())
        .transpose()
        .map_err(|_| NamingError::invalid("Last-Event-ID is not a revision"))?;
    let from = last.or(following.from);
    let mailbox = Arc::new(Mailbox::new(dispatcher.limits.watch_buffer_bytes_max));
    let watching = dispatcher.watch(name, following.scope, from, mailbox.clone())?;
    Ok(watch::response(watching, mailbox, dispatcher.limits.keepalive))
}

async fn groups(State(dispatcher): Shared) -> Answered {
    ask(&dispatcher, Request::Groups).await
}

fn group_name(text: &str) -> Result<GroupName, NamingError> {
    Ok(text.parse()?)
}

async fn group(State(dispatcher): Shared, Path(group): Path<String>) -> Answered {
    let group = group_name(&group)?;
    ask(&dispatcher, Request::Group { group }).await
}

async fn group_verb(
    State(dispatcher): Shared,
    Path((group, verb)): Path<(String, String)>,
    headers: HeaderMap,
    content: Body,
) -> Answered {
    let group = group_name(&group)?;
    let content = body::read(content, &dispatcher.limits).await?;
    let request = match verb.as_str() {
        "renew" => {
            let body::Membership { member, lease } = body::json(&content)?;
            return ask(&dispatcher, Request::Renew { group, member, lease }).await;
        }
        "join" => {
            let body::Join { member, join } = body::json(&content)?;
            Write::Join { group, member, join }
        }
        "leave" => {
            let body::Membership { member, lease } = body::json(&content)?;
            Write::Leave { group, member, lease }
        }
        "claim" => {
            let claim: body::Claim = body::json(&content)?;
            Write::Claim {
                group,
                member: claim.member,
                store_epoch: claim.store_epoch,
                evidence: claim.evidence,
            }
        }
        "publish" => {
            let publish: body::Publish = body::json(&content)?;
            Write::Publish {
                group,
                member: publish.member,
                epoch: publish.epoch,
                exports: publish.exports,
            }
        }
        "withdraw" => {
            let withdraw: body::Withdraw = body::json(&content)?;
            Write::Withdraw {
                group,
                epoch: withdraw.epoch,
                reason: withdraw.reason,
                eta_ms: withdraw.eta_ms,
            }
        }
        _ => {
            let what = format!("group verb {verb}: join, leave, claim, publish, withdraw or renew");
            return Err(Problem::with(
                StatusCode::NOT_FOUND,
                NamingError::NotSupported { what },
            ));
        }
    };
    write(&dispatcher, &headers, request, content.len()).await
}

async fn status(State(dispatcher): Shared) -> Answered {
    ask(&dispatcher, Request::Status).await
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Ready: this server leads and its log takes writes. Lookups are answered either way.
async fn readyz(State(dispatcher): Shared) -> Answered {
    dispatcher.replica.check_leads()?;
    Ok("ready\n".into_response())
}

/// Counters in the text format that Prometheus reads.
async fn metrics(State(dispatcher): Shared) -> String {
    let counters = &dispatcher.counters;
    let journal = dispatcher.replica.journal_stats();
    let root = dispatcher.root();
    let now = [
        ("daymark_naming_revision", "gauge", root.revision().0),
        ("daymark_naming_names", "gauge", root.names() as u64),
        ("daymark_naming_term", "gauge", dispatcher.standing().term),
        ("daymark_naming_watches", "gauge", dispatcher.hub.count() as u64),
        (
            "daymark_naming_waiting_lookups",
            "gauge",
            dispatcher.waiting_lookups() as u64,
        ),
        (
            "daymark_naming_connections_total",
            "counter",
            counters.connections.load(Ordering::Relaxed),
        ),
        (
            "daymark_naming_http_requests_total",
            "counter",
            counters.http_requests.load(Ordering::Relaxed),
        ),
        (
            "daymark_naming_resp_commands_total",
            "counter",
            counters.resp_commands.load(Ordering::Relaxed),
        ),
        (
            "daymark_naming_resp_errors_total",
            "counter",
            counters.refused.load(Ordering::Relaxed),
        ),
        ("daymark_naming_log_syncs_total", "counter", journal.syncs),
        (
            "daymark_naming_log_records_total",
            "counter",
            journal.appended_records,
        ),
        (
            "daymark_naming_log_bytes_total",
            "counter",
            journal.appended_bytes,
        ),
        ("daymark_naming_log_disk_bytes", "gauge", journal.disk_bytes),
    ];
    let lines = now.map(|(name, kind, value)| format!("# TYPE {name} {kind}\n{name} {value}\n"));
    lines.concat()
}
