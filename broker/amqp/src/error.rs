//! Errors: what a peer is told, what the owner is told.

use crate::value::{Fields, Symbol, Value};
use std::fmt;

/// An AMQP error as it travels: a condition, a text for people, and details.
#[derive(Clone, Debug, PartialEq)]
pub struct AmqpError {
    /// What happened, one of [`condition`] or another registered symbol.
    pub condition: Symbol,
    /// Text for people. At most 320 bytes of it are sent.
    pub description: Option<String>,
    /// Details, by condition.
    pub info: Fields,
}

impl AmqpError {
    /// An error with a text.
    #[must_use]
    pub fn new(condition: Symbol, description: impl Into<String>) -> Self {
        Self {
            condition,
            description: Some(description.into()),
            info: Fields::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_info(mut self, key: Symbol, value: impl Into<Value>) -> Self {
        self.info.insert(key, value);
        self
    }
}

impl fmt::Display for AmqpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.as_str())?;
        match &self.description {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AmqpError {}

macro_rules! conditions {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// The error conditions of the AMQP specification.
        pub mod condition {
            use crate::value::Symbol;
            $(
                #[doc = concat!("`", $text, "`")]
                pub const $name: Symbol = Symbol::from_static($text);
            )+
        }
    };
}

conditions! {
    INTERNAL_ERROR = "amqp:internal-error",
    NOT_FOUND = "amqp:not-found",
    UNAUTHORIZED_ACCESS = "amqp:unauthorized-access",
    DECODE_ERROR = "amqp:decode-error",
    RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded",
    NOT_ALLOWED = "amqp:not-allowed",
    INVALID_FIELD = "amqp:invalid-field",
    NOT_IMPLEMENTED = "amqp:not-implemented",
    RESOURCE_LOCKED = "amqp:resource-locked",
    PRECONDITION_FAILED = "amqp:precondition-failed",
    RESOURCE_DELETED = "amqp:resource-deleted",
    ILLEGAL_STATE = "amqp:illegal-state",
    FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small",
    CONNECTION_FORCED = "amqp:connection:forced",
    FRAMING_ERROR = "amqp:connection:framing-error",
    CONNECTION_REDIRECT = "amqp:connection:redirect",
    WINDOW_VIOLATION = "amqp:session:window-violation",
    ERRANT_LINK = "amqp:session:errant-link",
    HANDLE_IN_USE = "amqp:session:handle-in-use",
    UNATTACHED_HANDLE = "amqp:session:unattached-handle",
    DETACH_FORCED = "amqp:link:detach-forced",
    TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded",
    MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded",
    LINK_REDIRECT = "amqp:link:redirect",
    LINK_STOLEN = "amqp:link:stolen",
    TRANSACTION_UNKNOWN_ID = "amqp:transaction:unknown-id",
    TRANSACTION_ROLLBACK = "amqp:transaction:rollback",
    TRANSACTION_TIMEOUT = "amqp:transaction:timeout",
}

/// Why a command was not carried out. The connection is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// The connection is closing, closed, or not yet at this point.
    NotOpen,
    /// The session has ended.
    UnknownSession,
    /// The link has gone.
    UnknownLink,
    /// The link is not attached on both sides, or was already answered.
    NotAttached,
    /// The command belongs to the other role of a link.
    WrongRole,
    /// No settled or unsettled delivery has this id: it was settled before, or its link has gone.
    UnknownDelivery,
    /// The receiver has granted no more credit. Wait for `Event::Credit`.
    NoCredit,
    /// The peer's session window is shut. Wait for `Event::Credit`.
    WindowShut,
    /// Too many unsettled deliveries on the link.
    TooManyUnsettled,
    /// The peer takes messages of at most `limit` bytes on this link.
    MessageTooLarge {
        /// Bytes.
        limit: u64,
    },
    /// A delivery tag is at most 32 bytes long.
    TagTooLong,
    /// No channel is free.
    TooManySessions,
    /// No handle is free.
    TooManyLinks,
    /// A link of this name and role is attached to the session already.
    NameInUse,
    /// The value does not fit into one frame of the peer's size.
    FrameTooLarge,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("the connection is not open"),
            Self::UnknownSession => f.write_str("the session has ended"),
            Self::UnknownLink => f.write_str("the link has gone"),
            Self::NotAttached => f.write_str("the link is not attached, or already answered"),
            Self::WrongRole => f.write_str("the link has the other role"),
            Self::UnknownDelivery => f.write_str("no such delivery is outstanding"),
            Self::NoCredit => f.write_str("the receiver has granted no credit"),
            Self::WindowShut => f.write_str("the session window is shut"),
            Self::TooManyUnsettled => f.write_str("too many unsettled deliveries on the link"),
            Self::MessageTooLarge { limit } => write!(f, "the peer takes at most {limit} bytes"),
            Self::TagTooLong => f.write_str("a delivery tag has at most 32 bytes"),
            Self::TooManySessions => f.write_str("no channel is free"),
            Self::TooManyLinks => f.write_str("no handle is free"),
            Self::NameInUse => f.write_str("the link name is in use"),
            Self::FrameTooLarge => f.write_str("does not fit into one frame"),
        }
    }
}

impl std::error::Error for CommandError {}
