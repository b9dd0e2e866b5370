//! Errors as RFC 9457 problem documents: the error's own fields and code, and what HTTP wants besides.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use daymark_naming_proto::NamingError;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error with the HTTP status it is told by.
#[derive(Debug)]
pub(super) struct Problem {
    error: NamingError,
    status: StatusCode,
}

impl From<NamingError> for Problem {
    fn from(error: NamingError) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error, status }
    }
}

impl Problem {
    /// An error under another status than its usual one.
    pub(super) fn with(status: StatusCode, error: NamingError) -> Self {
        Self { error, status }
    }

    fn document(&self) -> Map<String, Value> {
        let mut document = match serde_json::to_value(&self.error) {
            Ok(Value::Object(fields)) => fields,
            // Every error is an object; were one not, the code alone would be told.
            Ok(_) | Err(_) => Map::from_iter([("code".to_owned(), self.error.code().into())]),
        };
        let code = self.error.code();
        document.insert("type".to_owned(), format!("urn:daymark:problem:{code}").into());
        document.insert("title".to_owned(), title(code).into());
        document.insert("status".to_owned(), self.status.as_u16().into());
        document.insert("detail".to_owned(), self.error.to_string().into());
        document
    }
}

/// `NameNotFound` as `Name not found`.
fn title(code: &str) -> String {
    let mut title = String::with_capacity(code.len() + 4);
    for (at, letter) in code.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            title.push(' ');
            title.push(letter.to_ascii_lowercase());
        } else {
            title.push(letter);
        }
    }
    title
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Value::Object(self.document()).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_holds_the_code_the_fields_and_a_sentence() {
        let problem = Problem::from(NamingError::GroupNotFound {
            group: "orders".parse().expect("a label"),
        });
        let document = Value::Object(problem.document());
        assert_eq!(document["code"], "GroupNotFound");
        assert_eq!(document["group"], "orders");
        assert_eq!(document["title"], "Group not found");
        assert_eq!(document["status"], 404);
        assert_eq!(document["detail"], "group orders is unknown");
    }
}
