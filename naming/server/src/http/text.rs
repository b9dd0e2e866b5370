//! Texts of HTTP requests: names in paths, durations, revisions, operation ids.

use std::borrow::Cow;

use daymark_naming_proto::{NamingError, OpId, Revision};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use percent_encoding::percent_decode_str;

/// A part of a path, percent-decoded.
///
/// # Errors
/// `InvalidName` when it is not UTF-8.
pub(super) fn decoded(text: &str) -> Result<Cow<'_, str>, NamingError> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| NamingError::InvalidName {
            reason: "a name that is not UTF-8".to_owned(),
        })
}

/// `"17"`, as `If-Match` takes it back.
pub(super) fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The revision a binding must have: `If-Match: "17"`, or 0 (not bound) for `If-None-Match: *`.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Revision>, NamingError> {
    let given = text_of(headers, &IF_MATCH)?;
    let absent = text_of(headers, &IF_NONE_MATCH)?;
    match (given, absent) {
        (None, None) => Ok(None),
        (Some(text), None) => {
            let number = text.trim_matches('"').parse();
            number.map(Some).map_err(|_| {
                NamingError::invalid(format!("If-Match {text:?} is not a revision such as \"17\""))
            })
        }
        (None, Some("*")) => Ok(Some(Revision(0))),
        (None, Some(text)) => Err(NamingError::invalid(format!(
            "If-None-Match {text:?}: only * is understood"
        ))),
        (Some(_), Some(_)) => Err(NamingError::invalid("If-Match and If-None-Match together")),
    }
}

/// The operation id of a write, where the client made one.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn op_id(headers: &HeaderMap) -> Result<Option<OpId>, NamingError> {
    text_of(headers, &super::OP_ID)?
        .map(|text| text.parse().map_err(NamingError::from))
        .transpose()
}

/// A header as text.
///
/// # Errors
/// `InvalidRequest` when it is not visible ASCII.
pub(super) fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, NamingError> {
    headers
        .get(name)
        .map(|value| {
            let text = value.to_str();
            text.map_err(|_| NamingError::invalid(format!("header {name} is not plain text")))
        })
        .transpose()
}

/// `10s`, `500ms` or `2m` in milliseconds.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn milliseconds(text: &str) -> Result<u64, NamingError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    factor
        .zip(number.parse::<u64>().ok())
        .and_then(|(factor, number)| number.checked_mul(factor))
        .ok_or_else(|| NamingError::invalid(format!("{text:?} is not a duration such as 10s or 500ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(milliseconds("10s"), Ok(10_000));
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("2m"), Ok(120_000));
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1h",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(milliseconds(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_expected_revision_is_a_quoted_number_or_nothing_bound() {
        let mut headers = HeaderMap::new();
        assert_eq!(expected(&headers), Ok(None));
        headers.insert(IF_MATCH, HeaderValue::from_static("\"17\""));
        assert_eq!(expected(&headers), Ok(Some(Revision(17))));
        headers.insert(IF_MATCH, HeaderValue::from_static("x"));
        assert!(expected(&headers).is_err());
        headers.remove(IF_MATCH);
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        assert_eq!(expected(&headers), Ok(Some(Revision(0))));
    }
}
