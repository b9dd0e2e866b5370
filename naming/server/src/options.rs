//! What an operator may choose about a naming server.

use std::path::PathBuf;
use std::time::Duration;

use daymark_naming_proto::{DEFAULT_PORT, Endpoint};

/// How a naming server runs.
#[derive(Clone, Debug)]
pub struct NamingOptions {
    /// Where both doors listen. Default `0.0.0.0:9736`; port 0 takes any free one.
    pub listen: Endpoint,
    /// The data directory. It is made where only its last component is missing. One process at a time
    /// holds it.
    pub data: PathBuf,
    /// What one peer, and all peers together, may take. See [`Limits`].
    pub limits: Limits,
    /// What the directory itself may hold.
    pub directory: daymark_naming_core::Limits,
    /// How the log is kept and compacted. See [`Storage`].
    pub storage: Storage,
}

impl NamingOptions {
    /// Defaults, with this data directory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: Endpoint {
                host: "0.0.0.0".to_owned(),
                port: DEFAULT_PORT,
            },
            data: data.into(),
            limits: Limits::default(),
            directory: daymark_naming_core::Limits::default(),
            storage: Storage::default(),
        }
    }
}

/// What one peer, and all peers together, may take. Every limit has an error of its own when it is hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, over both doors. Default 20,000. One more is told so and closed. The server raises
    /// the process's limit of open files for them, and permits fewer where the hard limit is lower.
    pub connections_max: usize,
    /// Bytes of an HTTP body, or of one argument of a RESP command; a command may have twice as many in all.
    /// Default 1 MiB.
    pub request_bytes_max: usize,
    /// Bytes of the head of one HTTP request. Default 32 KiB, at least 8 KiB.
    pub head_bytes_max: usize,
    /// Arguments of one RESP command. Default 32.
    pub arguments_max: usize,
    /// How long the first bytes, the head of an HTTP request, its body, or the rest of a RESP command that
    /// has begun may take. It also ends an HTTP/1.1 connection nobody asks anything on. Default 10 s.
    pub header_timeout: Duration,
    /// How long a RESP connection without a watch may be silent. Default 10 minutes.
    pub idle_timeout: Duration,
    /// How long a peer may refuse to read what it asked for. Default 30 s.
    pub stall_timeout: Duration,
    /// How long a write may take to become durable before its outcome is unknown, and how long a strong read
    /// may take. Default 10 s.
    pub write_timeout: Duration,
    /// Bytes of the writes that are under way at a time, over both doors. Default 256 MiB. One more is answered
    /// `ServiceUnavailable`: it was not stored, and may be repeated.
    pub write_bytes_max: usize,
    /// The longest a lookup waits for a name to be bound, whatever it asks for. Default 60 s.
    pub wait_max: Duration,
    /// Lookups that wait at a time. Default 10,000.
    pub waiters_max: usize,
    /// Watches at a time, over both doors. Default 100,000.
    pub watches_max: usize,
    /// Watches of one RESP connection. Default 1,000.
    pub watches_per_connection_max: usize,
    /// Bytes of events that wait for one RESP connection, or one HTTP watch, to be read. Default 4 MiB.
    /// A watch that would pass it ends with `Compacted`.
    pub watch_buffer_bytes_max: usize,
    /// Bytes of encoded answers that are kept, so that a lookup is a copy. Default 64 MiB. What is asked for beyond
    /// them is encoded anew.
    pub reply_bytes_max: usize,
    /// How often a silent HTTP watch gets a comment, so that both sides notice a dead connection. Default 15 s.
    pub keepalive: Duration,
    /// How long a stopping server waits for answers under way. Default 2 s.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            request_bytes_max: 1 << 20,
            head_bytes_max: 32 << 10,
            arguments_max: 32,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            write_bytes_max: 256 << 20,
            wait_max: Duration::from_secs(60),
            waiters_max: 10_000,
            watches_max: 100_000,
            watches_per_connection_max: 1_000,
            watch_buffer_bytes_max: 4 << 20,
            reply_bytes_max: 64 << 20,
            keepalive: Duration::from_secs(15),
            stop_timeout: Duration::from_secs(2),
        }
    }
}

/// How the log is kept and compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Size of one journal segment in bytes. Default 16 MiB.
    pub segment_bytes: u64,
    /// Writes after which a snapshot is made and the log before it is released. Default 50,000.
    pub snapshot_writes: u64,
    /// Bytes of log after which a snapshot is made, whatever the number of writes. Default 64 MiB. The log
    /// since the last snapshot is also in memory.
    pub snapshot_log_bytes: u64,
    /// How many entries before a snapshot stay in the log, for replicas that lag. Default 0: a cluster of one
    /// has none.
    pub entries_kept: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            snapshot_writes: 50_000,
            snapshot_log_bytes: 64 << 20,
            entries_kept: 0,
        }
    }
}
