//! What can go wrong, sorted so that the caller can decide: JNDI's exceptions as stable codes.

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, GroupName, InvalidFilter, InvalidLabel, InvalidName, InvalidObject, LeaseId, MemberName, Name,
    Revision,
};

/// An answer that is not the one asked for. JSON: an object whose `code` is the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code")]
pub enum NamingError {
    /// A name that cannot be one (`javax.naming.InvalidNameException`).
    #[error("invalid name: {reason}")]
    InvalidName {
        /// What is wrong with it.
        reason: String,
    },
    /// A request that cannot be understood or asks for something that cannot be.
    #[error("invalid request: {reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// A verb, path or option this server does not have (`OperationNotSupportedException`).
    #[error("not supported: {what}")]
    NotSupported {
        /// What was asked for.
        what: String,
    },
    /// Nothing is bound there, as of `revision`: never bound here, or unbound on purpose.
    #[error("{name} not found: nothing is bound below {resolved:?} (as of revision {revision})")]
    NameNotFound {
        /// The name asked for.
        name: Name,
        /// The part that was found.
        resolved: Name,
        /// The part that was not.
        remaining: Name,
        /// The revision of the directory that was read.
        revision: Revision,
    },
    /// A broker group exports the name, or has announced it and is promoting for the first time, but not now. Waiting
    /// for the rebind is worth it.
    #[error("{name} is unavailable ({reason}): group {group}, epoch {epoch}, since revision {since}")]
    NameUnavailable {
        /// The name asked for.
        name: Name,
        /// The export that is withheld; through links it is another name than the one asked for.
        resolved: Name,
        /// The part behind it.
        remaining: Name,
        /// Why it is withheld.
        reason: UnavailableReason,
        /// The group that exports it.
        group: GroupName,
        /// The group's epoch.
        epoch: Epoch,
        /// The revision that withheld it.
        since: Revision,
        /// When that was: milliseconds since 1970 UTC on the directory's clock.
        since_unix_ms: u64,
        /// When it is expected back, in milliseconds from then, where somebody said so.
        eta_ms: Option<u64>,
    },
    /// The name is bound already (`NameAlreadyBoundException`).
    #[error("{name} is already bound")]
    NameAlreadyBound {
        /// The name.
        name: Name,
    },
    /// The name belongs to somebody else's export set.
    #[error("{name} belongs to {owner}{}", claimant.as_ref().map(|c| format!(", {c} cannot have it")).unwrap_or_default())]
    NameConflict {
        /// The name.
        name: Name,
        /// The group that exports it, or `hand` where somebody bound it by hand.
        owner: String,
        /// The group that wanted it; absent where somebody wanted to change it by hand.
        claimant: Option<GroupName>,
    },
    /// A component on the way is bound to something that is not a context (`NotContextException`).
    #[error("{name}: {resolved} is not a context")]
    NotContext {
        /// The name asked for.
        name: Name,
        /// The part that is bound to something else.
        resolved: Name,
        /// The part behind it.
        remaining: Name,
    },
    /// A context that is not empty cannot be destroyed or replaced (`ContextNotEmptyException`).
    #[error("context {name} is not empty")]
    ContextNotEmpty {
        /// The context.
        name: Name,
    },
    /// Links lead in a circle, or through more than 8 (`LinkLoopException`).
    #[error("{name}: more than {hops} links on the way, the last one {at}")]
    LinkLoop {
        /// The name asked for.
        name: Name,
        /// The link at which the walk stopped.
        at: Name,
        /// The part behind it.
        remaining: Name,
        /// How many are followed.
        hops: u32,
    },
    /// Nobody ever joined a group of this name.
    #[error("group {group} is unknown")]
    GroupNotFound {
        /// The group.
        group: GroupName,
    },
    /// The group has no such member: it never joined, or its lease ended.
    #[error("group {group} has no member {member}")]
    MemberNotFound {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
    },
    /// The membership ended. The member must join again.
    #[error("lease {lease} of member {member} in group {group} has ended")]
    LeaseEnded {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The membership.
        lease: LeaseId,
    },
    /// The group has an active member whose lease runs, and the claim brought no evidence against it.
    #[error("group {group} has an active member: {active}, epoch {epoch}")]
    ActiveExists {
        /// The group.
        group: GroupName,
        /// Its active member.
        active: MemberName,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A write under an epoch that is over. Whoever sent it is no longer the active one.
    #[error("epoch {given} of group {group} is over: the epoch is {current}")]
    StaleEpoch {
        /// The group.
        group: GroupName,
        /// The epoch of the write.
        given: Epoch,
        /// The group's epoch.
        current: Epoch,
    },
    /// The binding changed since the caller read it.
    #[error("{name} is at revision {actual}, not {expected}")]
    RevisionMismatch {
        /// The name.
        name: Name,
        /// The revision the caller expected; 0 for a name that must not be bound.
        expected: Revision,
        /// The revision it has; 0 where it is not bound.
        actual: Revision,
    },
    /// This server has not yet seen what the caller has seen: ask another one.
    #[error("this server is at revision {have}, the request wants at least {want}")]
    Lagging {
        /// The revision of its state.
        have: Revision,
        /// The revision asked for.
        want: Revision,
    },
    /// The revisions asked for are no longer kept: start from the current state.
    #[error("revision {from} is no longer kept, the oldest to resume after is {oldest}")]
    Compacted {
        /// The revision asked for.
        from: Revision,
        /// The oldest revision that can be resumed after.
        oldest: Revision,
    },
    /// A limit of this server (`LimitExceededException`, `InsufficientResourcesException`).
    #[error("{what}: the limit is {limit}")]
    LimitExceeded {
        /// What there is too much of.
        what: String,
        /// How much is allowed.
        limit: u64,
    },
    /// The request was not answered in time: its outcome is unknown (`CommunicationException`).
    #[error("no answer within {waited_ms} ms: the outcome is unknown")]
    TimedOut {
        /// How long it waited.
        waited_ms: u64,
    },
    /// This server cannot answer now (`ServiceUnavailableException`): it starts, stops, has no leader, or
    /// its disk failed.
    #[error("service unavailable: {reason}")]
    ServiceUnavailable {
        /// Why.
        reason: String,
    },
    /// A search filter that cannot be read (`directory.InvalidSearchFilterException`).
    #[error("search filter, at byte {position}: {reason}")]
    InvalidSearchFilter {
        /// The byte at which it goes wrong, counted from 0.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// An attribute id that cannot be one (`directory.InvalidAttributeIdentifierException`).
    #[error("attribute id {id:?}: {reason}")]
    InvalidAttributeIdentifier {
        /// The id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Values that an attribute cannot have (`directory.InvalidAttributeValueException`).
    #[error("attribute {id}: {reason}")]
    InvalidAttributeValue {
        /// The attribute.
        id: String,
        /// What is wrong with its values.
        reason: String,
    },
    /// A search found more than it may return (`SizeLimitExceededException`).
    #[error("more than {limit} bindings match")]
    SizeLimitExceeded {
        /// How many may be returned.
        limit: u64,
    },
    /// A search took longer than it may (`TimeLimitExceededException`).
    #[error("the search took longer than {limit_ms} ms")]
    TimeLimitExceeded {
        /// How long it may take.
        limit_ms: u64,
    },
    /// A link leads to a name that cannot be one (`MalformedLinkException`).
    #[error("{name}: the link {at} leads to no valid name: {reason}")]
    MalformedLink {
        /// The name asked for.
        name: Name,
        /// The link.
        at: Name,
        /// The part behind it.
        remaining: Name,
        /// What is wrong with the name it leads to.
        reason: String,
    },
    /// One write of a transaction was refused, so none was carried out.
    #[error("write {write} of the transaction: {cause}")]
    TransactFailed {
        /// Which one, counted from 0.
        write: u64,
        /// Why.
        cause: Box<Self>,
    },
}

/// Why an export is known and not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnavailableReason {
    /// The active broker took it back: an operator stopped it, or it handed over.
    Withdrawn,
    /// The active broker's lease ended.
    LeaseExpired,
    /// A standby was granted the next epoch and has not published yet.
    Promoting,
}

impl std::fmt::Display for UnavailableReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Withdrawn => "withdrawn",
            Self::LeaseExpired => "lease-expired",
            Self::Promoting => "promoting",
        })
    }
}

/// What a caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It is an answer: asking again changes nothing.
    GiveUp,
    /// Wait for the name to be bound, here.
    WaitForRebind,
    /// Ask another server.
    AskAnother,
    /// Ask again, with the same operation id.
    Retry,
}

impl NamingError {
    /// The stable code, as in JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidName",
            Self::InvalidRequest { .. } => "InvalidRequest",
            Self::NotSupported { .. } => "NotSupported",
            Self::NameNotFound { .. } => "NameNotFound",
            Self::NameUnavailable { .. } => "NameUnavailable",
            Self::NameAlreadyBound { .. } => "NameAlreadyBound",
            Self::NameConflict { .. } => "NameConflict",
            Self::NotContext { .. } => "NotContext",
            Self::ContextNotEmpty { .. } => "ContextNotEmpty",
            Self::LinkLoop { .. } => "LinkLoop",
            Self::GroupNotFound { .. } => "GroupNotFound",
            Self::MemberNotFound { .. } => "MemberNotFound",
            Self::LeaseEnded { .. } => "LeaseEnded",
            Self::ActiveExists { .. } => "ActiveExists",
            Self::StaleEpoch { .. } => "StaleEpoch",
            Self::RevisionMismatch { .. } => "RevisionMismatch",
            Self::Lagging { .. } => "Lagging",
            Self::Compacted { .. } => "Compacted",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::TimedOut { .. } => "TimedOut",
            Self::ServiceUnavailable { .. } => "ServiceUnavailable",
            Self::InvalidSearchFilter { .. } => "InvalidSearchFilter",
            Self::InvalidAttributeIdentifier { .. } => "InvalidAttributeIdentifier",
            Self::InvalidAttributeValue { .. } => "InvalidAttributeValue",
            Self::SizeLimitExceeded { .. } => "SizeLimitExceeded",
            Self::TimeLimitExceeded { .. } => "TimeLimitExceeded",
            Self::MalformedLink { .. } => "MalformedLink",
            Self::TransactFailed { .. } => "TransactFailed",
        }
    }

    /// The HTTP status of the problem document that carries it (RFC 9110).
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::InvalidName { .. }
            | Self::InvalidRequest { .. }
            | Self::InvalidSearchFilter { .. }
            | Self::InvalidAttributeIdentifier { .. }
            | Self::InvalidAttributeValue { .. } => 400,
            Self::NameNotFound { .. } | Self::GroupNotFound { .. } | Self::MemberNotFound { .. } => 404,
            Self::NotSupported { .. } => 405,
            Self::NameAlreadyBound { .. }
            | Self::NameConflict { .. }
            | Self::NotContext { .. }
            | Self::ContextNotEmpty { .. }
            | Self::LinkLoop { .. }
            | Self::MalformedLink { .. }
            | Self::LeaseEnded { .. }
            | Self::ActiveExists { .. }
            | Self::StaleEpoch { .. } => 409,
            Self::Compacted { .. } => 410,
            Self::RevisionMismatch { .. } => 412,
            Self::LimitExceeded { .. } | Self::SizeLimitExceeded { .. } => 429,
            Self::NameUnavailable { .. } | Self::Lagging { .. } | Self::ServiceUnavailable { .. } => 503,
            Self::TimedOut { .. } | Self::TimeLimitExceeded { .. } => 504,
            Self::TransactFailed { cause, .. } => cause.http_status(),
        }
    }

    /// What the caller may do next. No wildcard arm: a new variant has to choose.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::NameUnavailable { .. } => Advice::WaitForRebind,
            Self::Lagging { .. } | Self::ServiceUnavailable { .. } => Advice::AskAnother,
            Self::TimedOut { .. } => Advice::Retry,
            Self::InvalidName { .. }
            | Self::InvalidRequest { .. }
            | Self::NotSupported { .. }
            | Self::NameNotFound { .. }
            | Self::NameAlreadyBound { .. }
            | Self::NameConflict { .. }
            | Self::NotContext { .. }
            | Self::ContextNotEmpty { .. }
            | Self::LinkLoop { .. }
            | Self::GroupNotFound { .. }
            | Self::MemberNotFound { .. }
            | Self::LeaseEnded { .. }
            | Self::ActiveExists { .. }
            | Self::StaleEpoch { .. }
            | Self::RevisionMismatch { .. }
            | Self::Compacted { .. }
            | Self::LimitExceeded { .. }
            | Self::InvalidSearchFilter { .. }
            | Self::InvalidAttributeIdentifier { .. }
            | Self::InvalidAttributeValue { .. }
            | Self::SizeLimitExceeded { .. }
            | Self::TimeLimitExceeded { .. }
            | Self::MalformedLink { .. } => Advice::GiveUp,
            Self::TransactFailed { cause, .. } => cause.advice(),
        }
    }

    /// The JNDI exception that says the same, by its full class name; `javax.naming.NamingException` where
    /// JNDI has none of its own.
    ///
    /// Of JNDI's other exceptions, those about connecting, configuring and interrupting arise in clients only,
    /// and those about schemas and single values (`AttributeInUseException`, `SchemaViolationException`,
    /// `NoSuchAttributeException`) never: there is no schema, and modifications are operations on sets.
    #[must_use]
    pub fn jndi_exception(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "javax.naming.InvalidNameException",
            Self::NotSupported { .. } => "javax.naming.OperationNotSupportedException",
            Self::NameNotFound { .. } | Self::GroupNotFound { .. } | Self::MemberNotFound { .. } => {
                "javax.naming.NameNotFoundException"
            }
            Self::NameAlreadyBound { .. } => "javax.naming.NameAlreadyBoundException",
            Self::NameConflict { .. } => "javax.naming.NoPermissionException",
            Self::NotContext { .. } => "javax.naming.NotContextException",
            Self::ContextNotEmpty { .. } => "javax.naming.ContextNotEmptyException",
            Self::LinkLoop { .. } => "javax.naming.LinkLoopException",
            Self::MalformedLink { .. } => "javax.naming.MalformedLinkException",
            Self::LimitExceeded { .. } => "javax.naming.LimitExceededException",
            Self::TimedOut { .. } => "javax.naming.CommunicationException",
            Self::NameUnavailable { .. } | Self::Lagging { .. } | Self::ServiceUnavailable { .. } => {
                "javax.naming.ServiceUnavailableException"
            }
            Self::InvalidSearchFilter { .. } => "javax.naming.directory.InvalidSearchFilterException",
            Self::InvalidAttributeIdentifier { .. } => {
                "javax.naming.directory.InvalidAttributeIdentifierException"
            }
            Self::InvalidAttributeValue { .. } => "javax.naming.directory.InvalidAttributeValueException",
            Self::SizeLimitExceeded { .. } => "javax.naming.SizeLimitExceededException",
            Self::TimeLimitExceeded { .. } => "javax.naming.TimeLimitExceededException",
            Self::TransactFailed { cause, .. } => cause.jndi_exception(),
            Self::InvalidRequest { .. }
            | Self::LeaseEnded { .. }
            | Self::ActiveExists { .. }
            | Self::StaleEpoch { .. }
            | Self::RevisionMismatch { .. }
            | Self::Compacted { .. } => "javax.naming.NamingException",
        }
    }

    /// How far the name was resolved, and the rest of it (`NamingException.getResolvedName` and
    /// `getRemainingName`). Where a name was found but could not be changed, that is its context and its last
    /// component. `None` for an error that is not about a name.
    #[must_use]
    pub fn progress(&self) -> Option<(Name, Name)> {
        match self {
            Self::NameNotFound {
                resolved, remaining, ..
            }
            | Self::NameUnavailable {
                resolved, remaining, ..
            }
            | Self::NotContext {
                resolved, remaining, ..
            }
            | Self::LinkLoop {
                at: resolved,
                remaining,
                ..
            }
            | Self::MalformedLink {
                at: resolved,
                remaining,
                ..
            } => Some((resolved.clone(), remaining.clone())),
            Self::NameAlreadyBound { name }
            | Self::NameConflict { name, .. }
            | Self::ContextNotEmpty { name }
            | Self::RevisionMismatch { name, .. } => {
                let above = name.components().len().saturating_sub(1);
                Some((name.prefix(above), name.suffix(above)))
            }
            Self::TransactFailed { cause, .. } => cause.progress(),
            Self::InvalidName { .. }
            | Self::InvalidRequest { .. }
            | Self::NotSupported { .. }
            | Self::GroupNotFound { .. }
            | Self::MemberNotFound { .. }
            | Self::LeaseEnded { .. }
            | Self::ActiveExists { .. }
            | Self::StaleEpoch { .. }
            | Self::Lagging { .. }
            | Self::Compacted { .. }
            | Self::LimitExceeded { .. }
            | Self::TimedOut { .. }
            | Self::ServiceUnavailable { .. }
            | Self::InvalidSearchFilter { .. }
            | Self::InvalidAttributeIdentifier { .. }
            | Self::InvalidAttributeValue { .. }
            | Self::SizeLimitExceeded { .. }
            | Self::TimeLimitExceeded { .. } => None,
        }
    }

    /// An `InvalidRequest` with this reason.
    #[must_use]
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidRequest {
            reason: reason.into(),
        }
    }
}

impl From<InvalidName> for NamingError {
    fn from(error: InvalidName) -> Self {
        Self::InvalidName {
            reason: error.to_string(),
        }
    }
}

impl From<InvalidFilter> for NamingError {
    fn from(error: InvalidFilter) -> Self {
        Self::InvalidSearchFilter {
            position: error.position as u64,
            reason: error.reason,
        }
    }
}

impl From<InvalidObject> for NamingError {
    fn from(error: InvalidObject) -> Self {
        Self::InvalidRequest {
            reason: error.to_string(),
        }
    }
}

impl From<InvalidLabel> for NamingError {
    fn from(error: InvalidLabel) -> Self {
        Self::InvalidRequest {
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_its_json_form_and_carries_its_code() {
        let stale = NamingError::StaleEpoch {
            group: "orders".parse().expect("a label"),
            given: Epoch(2),
            current: Epoch(3),
        };
        let nested = NamingError::TransactFailed {
            write: 7,
            cause: Box::new(stale.clone()),
        };
        for error in [stale, nested] {
            let json = serde_json::to_value(&error).expect("JSON");
            assert_eq!(json["code"], error.code());
            let back = serde_json::from_value::<NamingError>(json).expect("an error");
            assert_eq!(back, error);
        }
    }

    #[test]
    fn a_refused_transaction_reads_like_the_write_that_was_refused() {
        let cause = NamingError::NameAlreadyBound {
            name: "a/b".parse().expect("a name"),
        };
        let error = NamingError::TransactFailed {
            write: 2,
            cause: Box::new(cause.clone()),
        };
        assert_eq!(
            error.to_string(),
            "write 2 of the transaction: a/b is already bound"
        );
        assert_eq!(error.http_status(), cause.http_status());
        assert_eq!(error.jndi_exception(), "javax.naming.NameAlreadyBoundException");
        let progress = error.progress().expect("names");
        assert_eq!((progress.0.as_str(), progress.1.as_str()), ("a", "b"));
    }
}
