//! One request on its way to the handler of its route, and how its parts are read.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use daymark_naming_proto::{GroupName, Name, NamingError, ReadOptions, Request, Write, WriteRequest};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::table::Route;
use super::{JSON, REVISION, body, text};
use crate::dispatch::{Answer, Dispatcher};
use crate::identity::new_op;

/// What a handler answers.
pub(super) type Answered = Result<Response, Problem>;

/// A request that fits its route.
pub(super) struct Call {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) headers: HeaderMap,
    /// What is behind the fixed beginning of the path.
    rest: String,
    query: BTreeMap<String, String>,
    body: Body,
}

impl Call {
    /// Takes a request apart.
    ///
    /// # Errors
    /// `InvalidRequest` for a query key or a condition that the route does not know.
    pub(super) fn new(
        route: &Route,
        dispatcher: Arc<Dispatcher>,
        uri: &Uri,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Self, NamingError> {
        let is_conditional = [IF_MATCH, IF_NONE_MATCH]
            .iter()
            .any(|name| headers.contains_key(name));
        if is_conditional && !route.takes_condition {
            let what = format!(
                "If-Match and If-None-Match do not apply to {} {}",
                route.verb.as_str(),
                route.path
            );
            return Err(NamingError::invalid(what));
        }
        Ok(Self {
            dispatcher,
            headers,
            rest: uri
                .path()
                .strip_prefix(route.fixed())
                .unwrap_or_default()
                .to_owned(),
            query: query(uri, route)?,
            body,
        })
    }

    /// The name in the path; the root where there is none.
    ///
    /// # Errors
    /// `InvalidName`.
    pub(super) fn name(&self) -> Result<Name, NamingError> {
        let rest = self.rest.strip_prefix('/').unwrap_or(&self.rest);
        Ok(text::decoded(rest)?.parse()?)
    }

    /// The group in the path.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(super) fn group(&self) -> Result<GroupName, NamingError> {
        let rest = self.rest.trim_start_matches('/');
        let group = rest.split_once('/').map_or(rest, |(group, _)| group);
        Ok(text::decoded(group)?.parse()?)
    }

    /// A query parameter as text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// A query parameter as a number or another value with a text form.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(super) fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>, NamingError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: &str| {
            let refused = |error: T::Err| NamingError::invalid(format!("{key}={text:?}: {error}"));
            text.parse().map_err(refused)
        };
        self.text(key).map(parse).transpose()
    }

    /// A query parameter that is one of several words.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(super) fn word<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T, NamingError> {
        let Some(text) = self.text(key) else {
            return Ok(T::default());
        };
        serde_json::from_value(text.into())
            .map_err(|error| NamingError::invalid(format!("{key}={text:?}: {error}")))
    }

    /// A query parameter that is a list with commas.
    pub(super) fn list(&self, key: &str) -> Option<Vec<String>> {
        let words = |text: &str| {
            text.split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        self.text(key).map(words)
    }

    /// How a read may be answered.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(super) fn read_options(&self) -> Result<ReadOptions, NamingError> {
        let strong = match self.text("consistency") {
            None | Some("local") => false,
            Some("strong") => true,
            Some(other) => {
                return Err(NamingError::invalid(format!(
                    "consistency={other:?}: local or strong"
                )));
            }
        };
        Ok(ReadOptions {
            min_revision: self.parsed("min_revision")?,
            wait_ms: self.text("wait").map(text::milliseconds).transpose()?,
            strong,
        })
    }

    /// The body, whole.
    ///
    /// # Errors
    /// As `body::read`.
    pub(super) async fn content(&mut self) -> Result<Bytes, Problem> {
        let content = std::mem::replace(&mut self.body, Body::empty());
        body::read(content, &self.dispatcher).await
    }

    /// The body as a JSON document, with its length.
    ///
    /// # Errors
    /// As `content`, and `InvalidRequest` with the place and the reason.
    pub(super) async fn document<T: DeserializeOwned>(&mut self) -> Result<(T, usize), Problem> {
        let content = self.content().await?;
        Ok((body::json(&content)?, content.len()))
    }

    /// Answers a read.
    pub(super) async fn ask(self, request: Request) -> Answered {
        Ok(ok(self.dispatcher.ask(request).await?))
    }

    /// Carries out a write with a body of `bytes` bytes. Whoever asked may leave meanwhile: the write counts as
    /// under way until the log has answered.
    pub(super) async fn write(self, write: Write, bytes: usize) -> Answered {
        let op = text::op_id(&self.headers)?.unwrap_or_else(new_op);
        let mut begun = self.dispatcher.begin(WriteRequest { op, write }, bytes).await?;
        let finishing = self.dispatcher.clone();
        let finished = tokio::spawn(async move { finishing.finish(&mut begun).await }).await;
        let answer = finished.map_err(|_| NamingError::ServiceUnavailable {
            reason: "this server stops".to_owned(),
        })?;
        Ok(ok(answer?))
    }
}

/// An answer as a response.
pub(super) fn ok(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.json));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(REVISION, HeaderValue::from(answer.revision.0));
    if let Some(revision) = answer.binding {
        headers.insert(ETAG, text::etag(revision));
    }
    response
}

/// The query, each key known to the route and given once.
fn query(uri: &Uri, route: &Route) -> Result<BTreeMap<String, String>, NamingError> {
    let mut query = BTreeMap::new();
    let pairs = uri.query().unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = unescaped(key)?;
        if !route.query.iter().any(|parameter| parameter.name == key) {
            let known: Vec<&str> = route.query.iter().map(|parameter| parameter.name).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(NamingError::invalid(format!(
                "unknown query key {key:?}; known here: {known}"
            )));
        }
        if query.insert(key.clone(), unescaped(value)?).is_some() {
            return Err(NamingError::invalid(format!("query key {key:?} is given twice")));
        }
    }
    Ok(query)
}

/// A part of a query, as forms write it.
fn unescaped(text: &str) -> Result<String, NamingError> {
    let blanks = text.replace('+', " ");
    let decoded = percent_decode_str(&blanks).decode_utf8();
    let decoded = decoded.map_err(|_| NamingError::invalid("a query that is not UTF-8"))?;
    Ok(decoded.into_owned())
}
