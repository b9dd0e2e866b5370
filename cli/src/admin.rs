//! A broker's admin endpoint, asked over HTTP.

use std::time::Duration;

use daymark_client::proto::Endpoint;
use serde_json::{Map, Value};

use crate::failure::{Failure, exit};

/// What is asked of a path.
pub(crate) enum Ask {
    /// What is there.
    Get,
    /// To be as this document says.
    Put(Value),
    /// To do something with this document.
    Post(Value),
    /// To be no more.
    Delete,
}

/// Asks, and returns the answer; one without content is an empty document.
///
/// # Errors
/// `Failure` with what the endpoint answered, or that it did not.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    ask: Ask,
    path: &str,
    timeout: Duration,
) -> Result<Value, Failure> {
    let url = format!("http://{endpoint}{path}");
    let asked = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        let agent = ureq::Agent::from(config);
        let answer = match ask {
            Ask::Get => agent.get(&url).call(),
            Ask::Put(body) => agent.put(&url).send_json(body),
            Ask::Post(body) => agent.post(&url).send_json(body),
            Ask::Delete => agent.delete(&url).call(),
        };
        read_answer(&url, answer)
    });
    asked
        .await
        .map_err(|error| Failure::new("AdminFailed", format!("the call was given up: {error}")))?
}

/// Posts a JSON document and returns the answer.
///
/// # Errors
/// As for [`ask`].
pub(crate) async fn post(
    endpoint: &Endpoint,
    path: &str,
    body: Value,
    timeout: Duration,
) -> Result<Value, Failure> {
    ask(endpoint, Ask::Post(body), path, timeout).await
}

/// Reads a JSON document.
///
/// # Errors
/// As for [`ask`].
pub(crate) async fn read(endpoint: &Endpoint, path: &str, timeout: Duration) -> Result<Value, Failure> {
    ask(endpoint, Ask::Get, path, timeout).await
}

type Answer = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// Bytes of an answer at most: long lists and 1,000 messages fit.
const ANSWER_MAX: u64 = 256 << 20;

fn read_answer(url: &str, answer: Answer) -> Result<Value, Failure> {
    let silent = |error: ureq::Error| {
        Failure::new("AdminUnreachable", format!("{url}: {error}")).exiting(exit::UNAVAILABLE)
    };
    let mut answer = answer.map_err(silent)?;
    let status = answer.status();
    if status == ureq::http::StatusCode::NO_CONTENT {
        return Ok(Value::Object(Map::new()));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_MAX);
    let text = body.read_to_string().map_err(silent)?;
    let document: Option<Value> = serde_json::from_str(&text).ok();
    match document {
        Some(document) if status.is_success() => Ok(document),
        Some(problem) => Err(refused(url, &problem)),
        None => Err(Failure::new(
            "BadAnswer",
            format!("{url} answered {status} with no JSON document"),
        )),
    }
}

/// A problem document (RFC 9457) with its code: its detail is the sentence.
fn refused(url: &str, problem: &Value) -> Failure {
    let text = |key| problem.get(key).and_then(Value::as_str);
    let sentence = text("detail").or_else(|| text("title"));
    let code = text("code").unwrap_or("Refused").to_owned();
    Failure::new(code, format!("{url}: {}", sentence.unwrap_or("no reason given")))
}
