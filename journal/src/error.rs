//! What can go wrong, sorted by when: [`OpenError`] while taking a directory over, [`JournalError`] while
//! appending to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::lock::Holder;

/// Why a directory could not be locked, fenced or recovered.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is outside its range; nothing was touched.
    #[error("{option} is {value}, but must lie between {min} and {max}")]
    InvalidOption {
        /// Name of the field in [`Options`](crate::Options).
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// Smallest permitted value.
        min: u64,
        /// Largest permitted value.
        max: u64,
    },
    /// The path exists and is something else than a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The offending path.
        path: PathBuf,
    },
    /// The directory does not exist and neither does the one it would be created in.
    #[error("cannot create {}: its parent directory does not exist", path.display())]
    ParentMissing {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// The directory may not be written by this process, or lies on a read-only file system.
    #[error("{} is not writable: {source}", path.display())]
    NotWritable {
        /// What could not be opened or created.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another opener holds the lock.
    #[error("{} is locked by {}", dir.display(), describe(holder.as_ref()))]
    LockedBy {
        /// The journal's directory.
        dir: PathBuf,
        /// Who holds it; `None` if the holder has not yet written its name.
        holder: Option<Holder>,
    },
    /// The lock was taken away (by force) between two steps.
    #[error("the lock {} was taken away", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// The epoch asked for is not newer than the newest one ever written here.
    #[error("epoch {asked} is not newer than {current}")]
    StaleEpoch {
        /// What [`begin`](crate::Locked::begin) was called with.
        asked: u64,
        /// The newest epoch in the directory.
        current: u64,
    },
    /// Somebody with a newer epoch took over while this opener was at work.
    #[error("superseded by epoch {epoch} while opening")]
    Superseded {
        /// The newer epoch.
        epoch: u64,
    },
    /// Bytes that were durable once are not what they were. Nothing was skipped and nothing was changed.
    #[error("{} is corrupt at byte {offset}: {why}", file.display())]
    Corrupt {
        /// The damaged (or missing) file.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What was found, in words.
        why: String,
    },
    /// A file that was being recovered disappeared. Opening again shows the truth.
    #[error("{} vanished while it was being recovered", file.display())]
    Vanished {
        /// The file that is gone.
        file: PathBuf,
    },
    /// The file was written by a version of the journal this one does not know.
    #[error("{} has format version {version}, this program reads version {supported}", file.display())]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
        /// The version this crate reads and writes.
        supported: u32,
    },
    /// The visitor refused a record.
    #[error("record {seq} was refused: {source}")]
    Visitor {
        /// The refused record.
        seq: u64,
        /// The visitor's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room left for the files of a new owner.
    #[error("disk full while writing {}", file.display())]
    DiskFull {
        /// The file that did not fit.
        file: PathBuf,
    },
    /// Any other answer of the operating system.
    #[error("cannot {op} {}: {source}", file.display())]
    Io {
        /// What was attempted, as a verb.
        op: &'static str,
        /// On which file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "a process that has not yet written its name".to_owned(),
    }
}

/// Wraps an operating system error with what was attempted, recognising the cases an operator can act on.
pub(crate) fn open_io(op: &'static str, file: &Path, source: io::Error) -> OpenError {
    if is_disk_full(&source) {
        return OpenError::DiskFull {
            file: file.to_owned(),
        };
    }
    if is_not_writable(&source) {
        return OpenError::NotWritable {
            path: file.to_owned(),
            source,
        };
    }
    OpenError::Io {
        op,
        file: file.to_owned(),
        source,
    }
}

fn is_not_writable(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::ACCESS, Errno::PERM, Errno::ROFS]
        .iter()
        .any(|e| code == Some(e.raw_os_error()))
}

fn is_disk_full(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NOSPC, Errno::DQUOT]
        .iter()
        .any(|e| code == Some(e.raw_os_error()))
}

/// Why a batch was not (or will never be) acknowledged.
///
/// [`is_fatal`](Self::is_fatal) tells the sticky ones from those that concern a single call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A newer epoch was found. Whoever holds it has, or does not have, the unacknowledged batches: unknown.
    #[error("superseded by epoch {epoch}")]
    Superseded {
        /// The newest epoch found.
        epoch: u64,
    },
    /// The lock file is no longer ours.
    #[error("the lock {} was taken away", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// The epoch could not be re-read, so nothing may be acknowledged.
    #[error("cannot read the epoch from {}: {why}", path.display())]
    EpochUnreadable {
        /// The directory of epoch markers.
        path: PathBuf,
        /// What happened.
        why: Arc<io::Error>,
    },
    /// A write failed. It is never retried.
    #[error("writing {} failed: {source}", file.display())]
    WriteFailed {
        /// The segment.
        file: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// A sync failed. It is never retried: after a failed sync nobody knows what is on the disk.
    #[error("syncing {} failed: {source}", file.display())]
    SyncFailed {
        /// The segment.
        file: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The disk, or the quota, is full.
    #[error("disk full while writing {}", file.display())]
    DiskFull {
        /// The file that did not fit.
        file: PathBuf,
    },
    /// A callback, or the committer itself, panicked. What was durable is durable; nothing more is accepted.
    #[error("the committer panicked: {message}")]
    CommitterPanicked {
        /// The panic's message.
        message: String,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// Too many bytes wait for the disk; this batch was not queued and may be tried again later.
    #[error("{pending} bytes are waiting for the disk, {limit} are permitted")]
    Backlog {
        /// Bytes waiting when the batch was refused.
        pending: u64,
        /// [`max_pending_bytes`](crate::Options::max_pending_bytes).
        limit: u64,
    },
    /// A record or the whole batch is larger than the options permit; it can never be queued.
    #[error("{bytes} bytes are more than the permitted {limit}")]
    TooLarge {
        /// Size of the largest record, or of the batch.
        bytes: u64,
        /// The limit it broke.
        limit: u64,
    },
    /// The batch holds no record.
    #[error("an empty batch cannot be appended")]
    EmptyBatch,
    /// A callback tried to wait for the thread it runs on.
    #[error("a completion callback must not wait for the journal")]
    WouldDeadlock,
}

impl JournalError {
    /// Whether the journal is finished: every later call fails too, and the owner has to stop serving.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Superseded { .. }
            | Self::LockLost { .. }
            | Self::EpochUnreadable { .. }
            | Self::WriteFailed { .. }
            | Self::SyncFailed { .. }
            | Self::DiskFull { .. }
            | Self::CommitterPanicked { .. }
            | Self::Closed => true,
            Self::Backlog { .. } | Self::TooLarge { .. } | Self::EmptyBatch | Self::WouldDeadlock => false,
        }
    }

    pub(crate) fn write(file: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull {
                file: file.to_owned(),
            };
        }
        Self::WriteFailed {
            file: file.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn sync(file: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull {
                file: file.to_owned(),
            };
        }
        Self::SyncFailed {
            file: file.to_owned(),
            source: Arc::new(source),
        }
    }
}
