//! What can go wrong with a store: [`OpenError`] while it is taken over, [`AppendError`] while it is appended to.

use daymark_journal::{Holder, JournalError};

use super::PostgresError;

/// Any error, for what a visitor returns.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not be locked, fenced or recovered.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another opener holds the lock.
    #[error("{store} is locked by {}", describe(holder.as_ref()))]
    LockedBy {
        /// The store, without secrets.
        store: String,
        /// Who holds it; `None` if it has not yet written its name.
        holder: Option<Holder>,
    },
    /// The epoch asked for is not newer than the newest one ever written.
    #[error("epoch {asked} is not newer than {current}")]
    StaleEpoch {
        /// What was asked for.
        asked: u64,
        /// The newest epoch in the store.
        current: u64,
    },
    /// Somebody with a newer epoch took over while this opener was at work.
    #[error("superseded by epoch {epoch} while opening")]
    Superseded {
        /// The newer epoch.
        epoch: u64,
    },
    /// The visitor refused a record.
    #[error("record {seq} was refused: {source}")]
    Visitor {
        /// The refused record.
        seq: u64,
        /// The visitor's own error.
        source: BoxError,
    },
    /// The store's thread could not be started.
    #[error("cannot start the thread of the store: {0}")]
    Thread(std::io::Error),
    /// Any other answer of a journal.
    #[error(transparent)]
    Journal(daymark_journal::OpenError),
    /// PostgreSQL answered so, or not at all.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "a process that has not yet written its name".to_owned(),
    }
}

impl OpenError {
    /// The newer epoch that ended this attempt, if that was the reason.
    #[must_use]
    pub const fn newer_epoch(&self) -> Option<u64> {
        match self {
            Self::StaleEpoch { current: epoch, .. } | Self::Superseded { epoch } => Some(*epoch),
            Self::LockedBy { .. }
            | Self::Visitor { .. }
            | Self::Thread(_)
            | Self::Journal(_)
            | Self::Postgres(_) => None,
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other error of a journal is told as the journal tells it"
)]
impl From<daymark_journal::OpenError> for OpenError {
    fn from(error: daymark_journal::OpenError) -> Self {
        use daymark_journal::OpenError as Journal;
        match error {
            Journal::LockedBy { dir, holder } => Self::LockedBy {
                store: dir.display().to_string(),
                holder,
            },
            Journal::StaleEpoch { asked, current } => Self::StaleEpoch { asked, current },
            Journal::Superseded { epoch } => Self::Superseded { epoch },
            Journal::Visitor { seq, source } => Self::Visitor { seq, source },
            other => Self::Journal(other),
        }
    }
}

/// Why a batch was not, or will never be, acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// A newer epoch was found. Whether its holder has the unacknowledged batches is unknown.
    #[error("superseded by epoch {epoch}")]
    Superseded {
        /// The newest epoch found.
        epoch: u64,
    },
    /// The lock was taken by force. Whoever did that writes an epoch next.
    #[error("the lock of {store} was taken away")]
    LockLost {
        /// The store.
        store: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The batch holds no record.
    #[error("an empty batch cannot be appended")]
    EmptyBatch,
    /// A record or the whole batch is larger than the store permits; it can never be queued.
    #[error("{bytes} bytes are more than the permitted {limit}")]
    TooLarge {
        /// Size of the largest record, or of the batch.
        bytes: u64,
        /// The limit it broke.
        limit: u64,
    },
    /// Too many bytes wait to become durable; this batch was not queued and may be tried again later.
    #[error("{pending} bytes are waiting for the store, {limit} are permitted")]
    Backlog {
        /// Bytes waiting when the batch was refused.
        pending: u64,
        /// The limit.
        limit: u64,
    },
    /// A callback, or the store's thread itself, panicked. What was durable is durable; nothing more is
    /// accepted.
    #[error("the committer panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// Nothing became durable for so long although something waited: the disk hangs. The outcome of what
    /// waited is unknown.
    #[error("nothing became durable within {waited_ms} ms: the disk hangs")]
    Stalled {
        /// How long, in milliseconds.
        waited_ms: u64,
    },
    /// Any other answer of a journal.
    #[error(transparent)]
    Journal(JournalError),
    /// PostgreSQL answered so, or not at all; the outcome of what was under way is unknown.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl AppendError {
    /// Whether the store is finished: every later call fails too, and the owner has to stop serving.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Superseded { .. }
            | Self::LockLost { .. }
            | Self::Closed
            | Self::Panicked { .. }
            | Self::Stalled { .. }
            | Self::Postgres(_) => true,
            Self::EmptyBatch | Self::TooLarge { .. } | Self::Backlog { .. } => false,
            Self::Journal(error) => error.is_fatal(),
        }
    }

    /// The newer epoch that ended this one, if that was the reason.
    #[must_use]
    pub const fn newer_epoch(&self) -> Option<u64> {
        match self {
            Self::Superseded { epoch } => Some(*epoch),
            Self::LockLost { .. }
            | Self::Closed
            | Self::EmptyBatch
            | Self::TooLarge { .. }
            | Self::Backlog { .. }
            | Self::Panicked { .. }
            | Self::Stalled { .. }
            | Self::Journal(_)
            | Self::Postgres(_) => None,
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other error of a journal is told as the journal tells it"
)]
impl From<JournalError> for AppendError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Superseded { epoch } => Self::Superseded { epoch },
            JournalError::LockLost { path } => Self::LockLost {
                store: path.parent().unwrap_or(&path).display().to_string(),
            },
            JournalError::Closed => Self::Closed,
            JournalError::EmptyBatch => Self::EmptyBatch,
            JournalError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            JournalError::Backlog { pending, limit } => Self::Backlog { pending, limit },
            JournalError::CommitterPanicked { message } => Self::Panicked { message },
            other => Self::Journal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_taken_away_from_a_journal_is_no_failure_of_the_disk() {
        let path = "/stores/orders/lock".into();
        let error = AppendError::from(JournalError::LockLost { path });
        assert!(
            matches!(&error, AppendError::LockLost { store } if store == "/stores/orders"),
            "{error:?}"
        );
    }
}
