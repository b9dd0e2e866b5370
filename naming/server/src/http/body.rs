//! Bodies of HTTP requests: bounded in bytes and time, JSON, no unknown keys.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use daymark_naming_proto::{
    Attributes, Epoch, Evidence, Export, FailoverReport, JoinRequest, LeaseId, MemberName, Name, NamingError,
    Object, WithdrawReason,
};
use http_body_util::BodyExt;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::dispatch::Dispatcher;
use crate::room::Share;

/// Reads a body.
///
/// # Errors
/// 413 when it is too large, 408 when it does not arrive in time, 400 when it breaks off.
pub(super) async fn read(body: Body, dispatcher: &Dispatcher) -> Result<Bytes, Problem> {
    let limits = &dispatcher.limits;
    let mut share = dispatcher.input.share();
    let collecting = collect(body, limits.request_bytes_max, &mut share);
    match tokio::time::timeout(limits.header_timeout, collecting).await {
        Ok(collected) => collected,
        Err(_) => Err(Problem::with(
            StatusCode::REQUEST_TIMEOUT,
            NamingError::invalid("the body did not arrive in time"),
        )),
    }
}

/// How much of a body that is too large is read all the same, so that its sender comes to read the answer.
const LINGER_BYTES: usize = 8 << 20;

async fn collect(mut body: Body, limit: usize, share: &mut Share) -> Result<Bytes, Problem> {
    let mut content = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NamingError::invalid(format!("the body breaks off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue; // Trailers say nothing here.
        };
        length += data.len();
        if length > limit + LINGER_BYTES {
            break;
        }
        if length <= limit {
            content.extend_from_slice(&data);
            share.hold(content.capacity())?;
        }
    }
    if length <= limit {
        return Ok(content.freeze());
    }
    let what = "bytes of a request body".to_owned();
    let limit = limit as u64;
    Err(Problem::with(
        StatusCode::PAYLOAD_TOO_LARGE,
        NamingError::LimitExceeded { what, limit },
    ))
}

/// A JSON body.
///
/// # Errors
/// `InvalidRequest` with the place and the reason.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, NamingError> {
    serde_json::from_slice(body).map_err(|error| NamingError::invalid(format!("body: {error}")))
}

/// What is to be bound: the object itself, or `{"object": …, "attributes": …}`.
///
/// # Errors
/// `InvalidRequest` with the place and the reason.
pub(super) fn bound(body: &[u8]) -> Result<(Object, Option<Attributes>), NamingError> {
    if !has_key(body, "object") {
        return Ok((Object::from_json(body)?, None));
    }
    let bound: Bound = json(body)?;
    Ok((bound.object, bound.attributes))
}

fn has_key(body: &[u8], key: &str) -> bool {
    serde_json::from_slice::<std::collections::BTreeMap<String, &RawValue>>(body)
        .is_ok_and(|fields| fields.contains_key(key))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    object: Object,
    #[serde(default)]
    attributes: Option<Attributes>,
}

/// A subcontext to be made.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subcontext {
    #[serde(default)]
    pub(super) attributes: Attributes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub(super) member: MemberName,
    pub(super) join: JoinRequest,
}

/// A leave or a renewal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Membership {
    pub(super) member: MemberName,
    pub(super) lease: LeaseId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    pub(super) member: MemberName,
    #[serde(default)]
    pub(super) store_epoch: Epoch,
    pub(super) evidence: Evidence,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub(super) member: MemberName,
    pub(super) epoch: Epoch,
    pub(super) exports: Vec<Export>,
}

/// How a member took over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) member: MemberName,
    pub(super) epoch: Epoch,
    pub(super) report: FailoverReport,
}

/// A name and the one it gets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    name: String,
    target: String,
}

impl Rename {
    /// Both names.
    ///
    /// # Errors
    /// `InvalidName`, as for a name in a path.
    pub(super) fn names(&self) -> Result<(Name, Name), NamingError> {
        Ok((self.name.parse()?, self.target.parse()?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdraw {
    pub(super) epoch: Epoch,
    pub(super) reason: WithdrawReason,
    #[serde(default)]
    pub(super) eta_ms: Option<u64>,
}
