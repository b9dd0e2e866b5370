//! The HTTP door: HTTP/1.1 and HTTP/2, readable with curl.
//!
//! A plain lookup is answered before any routing; everything else goes through the router. Every answer
//! carries the revision, the term and the cluster id.

mod about;
mod activity;
mod body;
mod call;
mod groups;
mod lane;
mod names;
mod openapi;
mod prefixed;
mod problem;
mod table;
mod text;
mod watch;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use daymark_naming_proto::Revision;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;

use self::activity::{Activity, Busy, Held};
use self::prefixed::Prefixed;
pub(crate) use self::text::milliseconds;
use crate::dispatch::{Counters, Dispatcher};

/// The revision of the state that was read or written.
pub(crate) const REVISION: HeaderName = HeaderName::from_static("daymark-revision");
/// The Raft term as this server knows it.
const TERM: HeaderName = HeaderName::from_static("daymark-term");
/// The cluster that answered.
const CLUSTER_ID: HeaderName = HeaderName::from_static("daymark-cluster-id");
/// The client's identity of a write.
pub(crate) const OP_ID: HeaderName = HeaderName::from_static("daymark-op-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Bytes of bodies that one HTTP/2 connection may send before they are read.
const WINDOW_BYTES: u32 = 64 << 10;

type Answered = Response<Either<Full<Bytes>, Held>>;

/// What every HTTP connection shares.
pub(crate) struct Api {
    dispatcher: Arc<Dispatcher>,
    router: Router,
    connections: auto::Builder<TokioExecutor>,
    cluster_id: HeaderValue,
}

impl Api {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        let limits = &dispatcher.limits;
        // Answers of pipelined requests leave one by one: gathered, the 400 that a malformed request line gets
        // would stay behind.
        let mut connections = auto::Builder::new(TokioExecutor::new());
        connections
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(limits.head_bytes_max.max(8 << 10));
        let head_bytes_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
        connections
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(head_bytes_max)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.stall_timeout);
        let cluster_id = HeaderValue::from_str(&dispatcher.identity.cluster_id);
        Self {
            router: table::router(dispatcher.clone()),
            dispatcher,
            connections,
            cluster_id: cluster_id.unwrap_or(HeaderValue::from_static("unknown")),
        }
    }

    async fn answer(&self, request: Request<Incoming>, busy: Busy) -> Result<Answered, Infallible> {
        Counters::count(&self.dispatcher.counters.http_requests);
        let mut response = match self.straight(&request) {
            Some(response) => response,
            None => {
                let routed = self.router.clone().oneshot(request.map(Body::new)).await;
                let routed = routed.unwrap_or_else(|never| match never {});
                routed.map(|body| Either::Right(Held::new(body, busy)))
            }
        };
        self.stamp(&mut response);
        Ok(response)
    }

    /// The most frequent question: a name as it is printed, nothing else asked.
    fn straight(&self, request: &Request<Incoming>) -> Option<Answered> {
        let is_conditional = [IF_MATCH, IF_NONE_MATCH]
            .iter()
            .any(|name| request.headers().contains_key(name));
        if request.method() != Method::GET || request.uri().query().is_some() || is_conditional {
            return None;
        }
        let text = request.uri().path().strip_prefix("/v1/names/")?;
        let text = text::decoded(text).ok()?;
        let (mut json, mut revisions) = (Vec::new(), (Revision(0), Revision(0)));
        let found = self
            .dispatcher
            .state
            .read(text.as_bytes(), &mut json, |found, json| {
                json.extend_from_slice(found.json);
                revisions = (found.binding.revision, self.dispatcher.root().revision());
            });
        if !found {
            return None;
        }
        let mut response = Response::new(Either::Left(Full::from(json)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ETAG, text::etag(revisions.0));
        headers.insert(REVISION, HeaderValue::from(revisions.1.0));
        Some(response)
    }

    fn stamp(&self, response: &mut Answered) {
        let headers = response.headers_mut();
        if !headers.contains_key(REVISION) {
            headers.insert(REVISION, HeaderValue::from(self.dispatcher.root().revision().0));
        }
        headers.insert(TERM, HeaderValue::from(self.dispatcher.standing().term));
        headers.insert(CLUSTER_ID, self.cluster_id.clone());
    }
}

/// Serves one connection of which `first` was already read.
pub(crate) async fn serve(stream: TcpStream, first: BytesMut, api: Arc<Api>) -> io::Result<()> {
    let Some((stream, first)) = lane::serve(stream, first, &api.dispatcher).await? else {
        return Ok(());
    };
    let limits = &api.dispatcher.limits;
    let activity = Activity::new(api.dispatcher.input.share());
    let stream = TokioIo::new(Prefixed::new(
        first,
        stream,
        limits.stall_timeout,
        activity.clone(),
    ));
    let (answering, asked) = (api.clone(), activity.clone());
    let service = service_fn(move |request| {
        let (api, busy) = (answering.clone(), asked.begin());
        async move { api.answer(request, busy).await }
    });
    let mut connection = pin!(api.connections.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = api.dispatcher.stops() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.is_silent_for(limits.idle_timeout) => {
            connection.as_mut().graceful_shutdown();
            // A request that began and never ends is not waited for.
            timeout(limits.header_timeout, connection).await.unwrap_or(Ok(()))
        }
    };
    ended.map_err(io::Error::other)
}
