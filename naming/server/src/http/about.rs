//! What the server says of itself over HTTP.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daymark_naming_proto::Request;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::call::{Answered, Call, ok};
use super::{JSON, REVISION, openapi as document};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) async fn explain(call: Call) -> Answered {
    Ok(ok(call.dispatcher.explain(&call.name()?)?))
}

pub(super) async fn leases(call: Call) -> Answered {
    Ok(ok(call.dispatcher.lease_list()?))
}

pub(super) async fn members(call: Call) -> Answered {
    Ok(ok(call.dispatcher.members()?))
}

pub(super) async fn limits(call: Call) -> Answered {
    Ok(ok(call.dispatcher.limits_in_force()?))
}

pub(super) async fn status(call: Call) -> Answered {
    call.ask(Request::Status).await
}

/// One revision, in the pieces in which it is made: it is never in memory as a whole.
pub(super) async fn snapshot(call: Call) -> Answered {
    let root = call.dispatcher.state.load_full();
    let pieces = stream::unfold(root.snapshot_chunks(), |mut chunks| async {
        let made = tokio::task::spawn_blocking(move || {
            let chunk = chunks.next();
            (chunk, chunks)
        });
        let (chunk, chunks) = made.await.ok()?;
        Some((Ok::<Bytes, Infallible>(chunk?.into()), chunks))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, BYTES);
    headers.insert(REVISION, HeaderValue::from(root.revision().0));
    Ok(response)
}

pub(super) async fn livez(_: Call) -> Answered {
    Ok("ok\n".into_response())
}

/// Ready: this server leads and its log takes writes. Lookups are answered either way.
pub(super) async fn readyz(call: Call) -> Answered {
    call.dispatcher.replica.check_leads()?;
    Ok("ready\n".into_response())
}

pub(super) async fn openapi(_: Call) -> Answered {
    let mut response = Response::new(Body::from(document::document()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// Counters in the text format that Prometheus reads.
pub(super) async fn metrics(call: Call) -> Answered {
    let mut text = String::new();
    for (name, kind, says, value) in figures(&call) {
        let name = format!("daymark_naming_{name}");
        text += &format!("# HELP {name} {says}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
    Ok(response)
}

type Figure = (&'static str, &'static str, &'static str, u64);

fn figures(call: &Call) -> Vec<Figure> {
    let dispatcher = &call.dispatcher;
    let root = dispatcher.root();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &dispatcher.counters;
    let journal = dispatcher.replica.journal_stats();
    let (gauge, counter) = ("gauge", "counter");
    let leads = u64::from(dispatcher.replica.check_leads().is_ok());
    vec![
        ("revision", gauge, "The revision that is read.", root.revision().0),
        ("names", gauge, "Names that are bound.", root.names() as u64),
        (
            "groups",
            gauge,
            "Broker groups.",
            root.groups().groups.len() as u64,
        ),
        ("leases", gauge, "Memberships.", root.leases().count() as u64),
        ("term", gauge, "The Raft term.", dispatcher.standing().term),
        ("writable", gauge, "1 where this server takes writes.", leads),
        (
            "watches",
            gauge,
            "Watches, over both doors.",
            dispatcher.hub.count() as u64,
        ),
        (
            "waiting_lookups",
            gauge,
            "Lookups that wait.",
            dispatcher.waiting_lookups() as u64,
        ),
        (
            "connections_total",
            counter,
            "Connections that came.",
            count(&counters.connections),
        ),
        (
            "connections_refused_total",
            counter,
            "Connections beyond the limit.",
            count(&counters.connections_refused),
        ),
        (
            "http_requests_total",
            counter,
            "HTTP requests.",
            count(&counters.http_requests),
        ),
        (
            "resp_commands_total",
            counter,
            "RESP commands.",
            count(&counters.resp_commands),
        ),
        (
            "resp_errors_total",
            counter,
            "RESP commands answered with an error.",
            count(&counters.refused),
        ),
        ("log_syncs_total", counter, "Syncs of the log.", journal.syncs),
        (
            "log_records_total",
            counter,
            "Records in the log.",
            journal.appended_records,
        ),
        (
            "log_bytes_total",
            counter,
            "Bytes in the log.",
            journal.appended_bytes,
        ),
        (
            "log_disk_bytes",
            gauge,
            "Bytes of the log's files.",
            journal.disk_bytes,
        ),
    ]
}
