//! A broker's admin endpoint, asked over HTTP.

use std::time::Duration;

use daymark_client::proto::Endpoint;
use serde_json::Value;

use crate::failure::{Failure, exit};

/// Posts a JSON document and returns the answer.
///
/// # Errors
/// `Failure` with what the endpoint answered, or that it did not.
pub(crate) async fn post(
    endpoint: &Endpoint,
    path: &str,
    body: Value,
    timeout: Duration,
) -> Result<Value, Failure> {
    let url = format!("http://{endpoint}{path}");
    call(url, move |agent, url| agent.post(url).send_json(body), timeout).await
}

/// Reads a JSON document.
///
/// # Errors
/// `Failure` with what the endpoint answered, or that it did not.
pub(crate) async fn read(endpoint: &Endpoint, path: &str, timeout: Duration) -> Result<Value, Failure> {
    let url = format!("http://{endpoint}{path}");
    call(url, |agent, url| agent.get(url).call(), timeout).await
}

type Answer = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

async fn call(
    url: String,
    ask: impl FnOnce(&ureq::Agent, &str) -> Answer + Send + 'static,
    timeout: Duration,
) -> Result<Value, Failure> {
    let asked = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        read_answer(&url, ask(&config.into(), &url))
    });
    asked
        .await
        .map_err(|error| Failure::new("AdminFailed", format!("the call was given up: {error}")))?
}

fn read_answer(url: &str, answer: Answer) -> Result<Value, Failure> {
    let silent = |error: ureq::Error| {
        Failure::new("AdminUnreachable", format!("{url}: {error}")).exiting(exit::UNAVAILABLE)
    };
    let mut answer = answer.map_err(silent)?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string().map_err(silent)?;
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
