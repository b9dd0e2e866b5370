//! Why a server does not start, and why it ended.

use std::io;
use std::path::PathBuf;

use daymark_journal::OpenError;
use daymark_naming_proto::Endpoint;

/// Why a naming server does not start. Nothing was changed, apart from a data directory that was made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error("port in use: {listen} ({source})")]
    PortInUse {
        /// Where the server was to listen.
        listen: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The host is unknown, no address of this machine, or may not be used.
    #[error("cannot listen at {listen}: {source}")]
    CannotListen {
        /// Where the server was to listen.
        listen: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory cannot be made, read or written.
    #[error("data directory {}: {source}", path.display())]
    DataDirectory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the data directory.
    #[error("data directory in use: {0}")]
    InUse(OpenError),
    /// The log cannot be opened or read.
    #[error("the log cannot be opened: {0}")]
    Log(OpenError),
    /// The log holds a record that cannot be understood.
    #[error("log record {seq}: {why}")]
    Record {
        /// Its number in the journal.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the data directory is not what it should be.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The replica did not come up.
    #[error("the replica does not start: {why}")]
    Replica {
        /// What it said.
        why: String,
    },
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        if matches!(error, OpenError::LockedBy { .. }) {
            Self::InUse(error)
        } else {
            Self::Log(error)
        }
    }
}

/// Why a server no longer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Requested,
    /// It can accept no more connections.
    ListenerFailed {
        /// What the system said.
        why: String,
    },
}
