//! What a call to the directory can end in, sorted by what the caller may do.

use std::net::SocketAddr;

use daymark_naming_proto::{Advice, Endpoint, Name, NamingError, ObjectKind, OpId, Revision};

use super::follow::Following;

/// A call that did not bring what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    /// The directory answered, and the answer is this. Asking another server changes nothing.
    #[error(transparent)]
    Refused(#[from] NamingError),
    /// No server answered within the total timeout. Nothing was written.
    #[error("no naming server answered within {waited_ms} ms{}", list(attempts))]
    Unreachable {
        /// How long it was tried, in milliseconds.
        waited_ms: u64,
        /// Every server of the provider list, and why it failed last.
        attempts: Vec<ServerAttempt>,
    },
    /// A write was sent and not answered within the total timeout. It may have happened: repeat it with the
    /// same operation id.
    #[error(
        "operation {op} was not answered within {waited_ms} ms, its outcome is unknown{}",
        list(attempts)
    )]
    OutcomeUnknown {
        /// The operation id that makes a repetition safe.
        op: OpId,
        /// How long it was tried, in milliseconds.
        waited_ms: u64,
        /// Every server of the provider list, and why it failed last.
        attempts: Vec<ServerAttempt>,
    },
    /// A server refused the credentials. No other one is asked.
    #[error("naming server {server} refused the credentials: {reason}")]
    AuthenticationFailed {
        /// The server.
        server: Endpoint,
        /// What it said.
        reason: String,
    },
    /// The name was not bound before the time was over.
    #[error("{name} was not bound within {waited_ms} ms: {last}")]
    NotBoundInTime {
        /// The name.
        name: Name,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// How it stood at the end.
        last: Following,
    },
    /// The name is bound to something else than was expected.
    #[error("{name} is a {}, not a {expected}", found.as_str())]
    WrongKind {
        /// The name.
        name: Name,
        /// What was expected.
        expected: &'static str,
        /// What it is.
        found: ObjectKind,
    },
}

impl LookupError {
    /// What the caller may do next.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Refused(error) => error.advice(),
            Self::Unreachable { .. } | Self::OutcomeUnknown { .. } => Advice::Retry,
            Self::NotBoundInTime { .. } => Advice::WaitForRebind,
            Self::AuthenticationFailed { .. } | Self::WrongKind { .. } => Advice::GiveUp,
        }
    }

    /// The directory's own answer, where this is one.
    #[must_use]
    pub const fn naming_error(&self) -> Option<&NamingError> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Unreachable { .. }
            | Self::OutcomeUnknown { .. }
            | Self::AuthenticationFailed { .. }
            | Self::NotBoundInTime { .. }
            | Self::WrongKind { .. } => None,
        }
    }

    /// Why a server was passed over until the time was over, where one said so: it lags, or it cannot answer now.
    #[must_use]
    pub fn passed_over(&self) -> Option<&NamingError> {
        let Self::Unreachable { attempts, .. } = self else {
            return None;
        };
        attempts.iter().find_map(|attempt| match &attempt.why {
            Failure::PassedOver(error) => Some(error),
            Failure::NotTried
            | Failure::Resolve { .. }
            | Failure::Connect { .. }
            | Failure::NoAnswer { .. }
            | Failure::Lost { .. }
            | Failure::Malformed { .. }
            | Failure::WrongCluster { .. }
            | Failure::Denied { .. } => None,
        })
    }
}

/// How the last attempt at one naming server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAttempt {
    /// The server, as the provider list names it.
    pub server: Endpoint,
    /// The highest revision it ever answered with, where it did.
    pub revision: Option<Revision>,
    /// Why it did not serve.
    pub why: Failure,
}

impl std::fmt::Display for ServerAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision {
            Some(revision) => write!(f, "{} (revision {revision}): {}", self.server, self.why),
            None => write!(f, "{}: {}", self.server, self.why),
        }
    }
}

/// Why one naming server did not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its turn did not come within the time.
    #[error("not tried in the time there was")]
    NotTried,
    /// Its host name was not resolved.
    #[error("its host name was not resolved: {reason}")]
    Resolve {
        /// What the resolver said.
        reason: String,
    },
    /// It did not accept a connection.
    #[error("{address} did not accept a connection: {reason}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// It accepted the connection, or the request, and did not answer.
    #[error("no answer within {waited_ms} ms")]
    NoAnswer {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The connection ended.
    #[error("the connection ended: {reason}")]
    Lost {
        /// What the system said.
        reason: String,
    },
    /// It answered with something that is no answer.
    #[error("its answer cannot be read: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It serves another directory.
    #[error("it belongs to cluster {found}, not to cluster {expected}")]
    WrongCluster {
        /// The cluster of the servers that answered before.
        expected: String,
        /// The cluster of this one.
        found: String,
    },
    /// It said that it cannot answer now.
    #[error(transparent)]
    PassedOver(NamingError),
    /// It refused the credentials.
    #[error("it refused the credentials: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
}

fn list(attempts: &[ServerAttempt]) -> String {
    let mut text = String::new();
    for attempt in attempts {
        text.push_str("; ");
        text.push_str(&attempt.to_string());
    }
    text
}
