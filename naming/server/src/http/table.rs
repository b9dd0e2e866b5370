//! Every route of the HTTP door: one table, from which the router and the OpenAPI document are made, so that they
//! cannot differ.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use daymark_naming_proto::NamingError;
use futures_util::future::BoxFuture;
use hyper::{HeaderMap, Method, StatusCode, Uri};

use super::call::{Answered, Call};
use super::problem::Problem;
use super::{about, groups, names};
use crate::dispatch::Dispatcher;

/// A method that a route answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Verb {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    /// An example that a server accepts.
    pub(super) example: &'static str,
}

/// What a route answers when all is well.
#[derive(Clone, Copy)]
pub(super) enum Says {
    /// A JSON document of this schema.
    Document(&'static str),
    /// Plain text.
    Text,
    /// Server-sent events of this schema.
    Events(&'static str),
    /// Bytes.
    Bytes,
}

/// One route: a path, a method, and what belongs to them.
pub(super) struct Route {
    pub(super) verb: Verb,
    /// `{name}` stands for a whole name, separators included, and may be empty; `{group}` for one word.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    /// The schema of the body, where there is one.
    pub(super) body: Option<&'static str>,
    /// Whether `If-Match` and `If-None-Match` apply.
    pub(super) takes_condition: bool,
    /// Whether it writes, and so takes an operation id.
    pub(super) writes: bool,
    pub(super) says: Says,
    handler: fn(Call) -> BoxFuture<'static, Answered>,
}

impl Route {
    /// The path up to its first variable.
    pub(super) fn fixed(&self) -> &'static str {
        self.path
            .split('{')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
    }

    /// The paths as the router spells them.
    fn paths(&self) -> Vec<String> {
        match self.path.strip_suffix("/{name}") {
            Some(fixed) => vec![
                fixed.to_owned(),
                format!("{fixed}/"),
                format!("{fixed}/{{*name}}"),
            ],
            None => vec![self.path.to_owned()],
        }
    }
}

const WAIT: Parameter = Parameter {
    name: "wait",
    says: "how long to wait for the name to be bound: 10s, 500ms or 2m",
    example: "1ms",
};
const MIN_REVISION: Parameter = Parameter {
    name: "min_revision",
    says: "the state read must be at least this new",
    example: "0",
};
const CONSISTENCY: Parameter = Parameter {
    name: "consistency",
    says: "local (default), or strong: linearizable",
    example: "local",
};
const LINKS: Parameter = Parameter {
    name: "links",
    says: "yes (default), or no: a link at the end of the name is not followed",
    example: "no",
};
const BINDINGS: Parameter = Parameter {
    name: "bindings",
    says: "false (default), or true: with the bindings",
    example: "true",
};
const SCOPE: Parameter = Parameter {
    name: "scope",
    says: "object (default), one-level or subtree",
    example: "subtree",
};
const FROM: Parameter = Parameter {
    name: "from",
    says: "changes after this revision, without the current state; Last-Event-ID is stronger",
    example: "0",
};
const IDS: Parameter = Parameter {
    name: "ids",
    says: "the attributes to return, with commas; all where it is absent",
    example: "owner,region",
};
const FILTER: Parameter = Parameter {
    name: "filter",
    says: "an RFC 4515 filter",
    example: "(owner=*)",
};
const LIMIT: Parameter = Parameter {
    name: "limit",
    says: "the most bindings to return",
    example: "10",
};
const TIME: Parameter = Parameter {
    name: "time",
    says: "how long the search may take: 10s, 500ms or 2m",
    example: "1s",
};

const fn read(
    path: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    says: Says,
    handler: fn(Call) -> BoxFuture<'static, Answered>,
) -> Route {
    Route {
        verb: Verb::Get,
        path,
        summary,
        query,
        body: None,
        takes_condition: false,
        writes: false,
        says,
        handler,
    }
}

const fn write(
    (verb, path): (Verb, &'static str),
    summary: &'static str,
    body: Option<&'static str>,
    handler: fn(Call) -> BoxFuture<'static, Answered>,
) -> Route {
    Route {
        verb,
        path,
        summary,
        query: &[],
        body,
        takes_condition: false,
        writes: true,
        says: Says::Document("Written"),
        handler,
    }
}

const fn conditional(route: Route) -> Route {
    Route {
        takes_condition: true,
        ..route
    }
}

/// Every route.
pub(super) static ROUTES: &[Route] = &[
    read(
        "/v1/names/{name}",
        "Look a name up",
        &[WAIT, MIN_REVISION, CONSISTENCY, LINKS],
        Says::Document("Binding"),
        |call| Box::pin(names::lookup(call)),
    ),
    conditional(write(
        (Verb::Put, "/v1/names/{name}"),
        "Rebind a name",
        Some("Bound"),
        |call| Box::pin(names::rebind(call)),
    )),
    write(
        (Verb::Post, "/v1/names/{name}"),
        "Bind a name that is not bound",
        Some("Bound"),
        |call| Box::pin(names::bind(call)),
    ),
    conditional(write(
        (Verb::Delete, "/v1/names/{name}"),
        "Unbind a name",
        None,
        |call| Box::pin(names::unbind(call)),
    )),
    write(
        (Verb::Put, "/v1/contexts/{name}"),
        "Create a subcontext",
        Some("Subcontext"),
        |call| Box::pin(names::create_subcontext(call)),
    ),
    write(
        (Verb::Delete, "/v1/contexts/{name}"),
        "Destroy an empty subcontext",
        None,
        |call| Box::pin(names::destroy_subcontext(call)),
    ),
    read(
        "/v1/attributes/{name}",
        "The attributes of a name",
        &[IDS, WAIT, MIN_REVISION, CONSISTENCY],
        Says::Document("AttributesOf"),
        |call| Box::pin(names::attributes(call)),
    ),
    conditional(write(
        (Verb::Patch, "/v1/attributes/{name}"),
        "Add, replace and remove attributes, all of them or none",
        Some("Modifications"),
        |call| Box::pin(names::modify_attributes(call)),
    )),
    read(
        "/v1/list/{name}",
        "What stands directly below a context",
        &[BINDINGS, WAIT, MIN_REVISION, CONSISTENCY],
        Says::Document("Listing"),
        |call| Box::pin(names::list(call)),
    ),
    read(
        "/v1/search/{name}",
        "The bindings that match a filter",
        &[FILTER, SCOPE, LIMIT, TIME, IDS, MIN_REVISION, CONSISTENCY],
        Says::Document("Found"),
        |call| Box::pin(names::search(call)),
    ),
    conditional(write(
        (Verb::Post, "/v1/rename"),
        "Give a name another name",
        Some("Rename"),
        |call| Box::pin(names::rename(call)),
    )),
    write(
        (Verb::Post, "/v1/transact"),
        "Carry out all writes or none",
        Some("Transact"),
        |call| Box::pin(names::transact(call)),
    ),
    read(
        "/v1/watch/{name}",
        "Follow a name as server-sent events",
        &[SCOPE, FROM],
        Says::Events("WatchMessage"),
        |call| Box::pin(names::watch(call)),
    ),
    read(
        "/v1/explain/{name}",
        "How a lookup of a name goes, step by step, and who is behind it",
        &[],
        Says::Document("Explanation"),
        |call| Box::pin(about::explain(call)),
    ),
    read(
        "/v1/groups",
        "Every broker group",
        &[],
        Says::Document("Groups"),
        |call| Box::pin(groups::groups(call)),
    ),
    read(
        "/v1/groups/{group}",
        "One broker group",
        &[],
        Says::Document("GroupView"),
        |call| Box::pin(groups::group(call)),
    ),
    read(
        "/v1/groups/{group}/timeline",
        "The last failovers of a group",
        &[],
        Says::Document("Timeline"),
        |call| Box::pin(groups::timeline(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/join"),
        "Become a member, as standby",
        Some("Join"),
        |call| Box::pin(groups::join(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/leave"),
        "Leave a group",
        Some("Membership"),
        |call| Box::pin(groups::leave(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/claim"),
        "Ask to become the active one",
        Some("Claim"),
        |call| Box::pin(groups::claim(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/publish"),
        "Replace the whole export set, in one revision",
        Some("Publish"),
        |call| Box::pin(groups::publish(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/withdraw"),
        "Take the exports back, in one revision",
        Some("Withdraw"),
        |call| Box::pin(groups::withdraw(call)),
    ),
    write(
        (Verb::Post, "/v1/groups/{group}/record"),
        "Tell how the active member took over",
        Some("Record"),
        |call| Box::pin(groups::record(call)),
    ),
    Route {
        says: Says::Document("Renewed"),
        writes: false,
        ..write(
            (Verb::Post, "/v1/groups/{group}/renew"),
            "Keep a membership alive",
            Some("Membership"),
            |call| Box::pin(groups::renew(call)),
        )
    },
    read(
        "/v1/leases",
        "Every membership and its time left",
        &[],
        Says::Document("Leases"),
        |call| Box::pin(about::leases(call)),
    ),
    read(
        "/v1/members",
        "The servers of this directory",
        &[],
        Says::Document("Members"),
        |call| Box::pin(about::members(call)),
    ),
    read(
        "/v1/limits",
        "The limits in force, by their names in the configuration",
        &[],
        Says::Document("Limits"),
        |call| Box::pin(about::limits(call)),
    ),
    read(
        "/v1/snapshot",
        "The whole directory, as one revision",
        &[],
        Says::Bytes,
        |call| Box::pin(about::snapshot(call)),
    ),
    read(
        "/v1/status",
        "The server as it sees itself",
        &[],
        Says::Document("Status"),
        |call| Box::pin(about::status(call)),
    ),
    read("/livez", "Whether the process answers", &[], Says::Text, |call| {
        Box::pin(about::livez(call))
    }),
    read(
        "/readyz",
        "Whether the server leads and its log takes writes",
        &[],
        Says::Text,
        |call| Box::pin(about::readyz(call)),
    ),
    read(
        "/metrics",
        "Counters in the text format of Prometheus",
        &[],
        Says::Text,
        |call| Box::pin(about::metrics(call)),
    ),
    read(
        "/openapi.json",
        "This document",
        &[],
        Says::Document("OpenApi"),
        |call| Box::pin(about::openapi(call)),
    ),
];

/// The router of the table.
pub(super) fn router(dispatcher: Arc<Dispatcher>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        for path in route.paths() {
            router = router.route(&path, answering(route));
        }
    }
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(dispatcher)
}

fn answering(route: &'static Route) -> MethodRouter<Arc<Dispatcher>> {
    let handler = move |State(dispatcher): State<Arc<Dispatcher>>,
                        uri: Uri,
                        headers: HeaderMap,
                        body: Body| async move {
        match Call::new(route, dispatcher, &uri, headers, body) {
            Ok(call) => (route.handler)(call).await.into_response(),
            Err(error) => Problem::from(error).into_response(),
        }
    };
    on(route.verb.filter(), handler)
}

async fn no_such_path(uri: Uri) -> Problem {
    let what = format!("path {}", uri.path());
    Problem::with(StatusCode::NOT_FOUND, NamingError::NotSupported { what })
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let what = format!("{method} {}", uri.path());
    Problem::with(StatusCode::METHOD_NOT_ALLOWED, NamingError::NotSupported { what })
}
