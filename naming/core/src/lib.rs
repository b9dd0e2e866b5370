//! The directory as a deterministic state machine: the tree of names, the broker groups, their epochs and
//! exports, the operation ids already answered and the history of changes.
//!
//! It decides what every write does and what every read answers. It never opens a socket or a file, never
//! reads a clock and never draws a random number: the time is in the [`Command`].
//!
//! Invariants: the same commands in the same order make the same state and the same answers on every
//! replica; a refused write changes nothing; at most one member of a group is active, and its epoch is higher than
//! every epoch before it; whatever one write does becomes visible as one revision.

mod attributes;
mod bindings;
mod directory;
mod exports;
mod failovers;
mod groups;
mod history;
mod limits;
mod operations;
mod read;
mod rename;
mod restore;
mod search;
mod snapshot;
mod spread;
mod transact;
mod tree;

pub use directory::{Command, Directory};
pub use groups::Lease;
pub use limits::Limits;
pub use restore::{SnapshotError, SnapshotReader};
pub use search::SearchRun;
pub use snapshot::SnapshotChunks;
pub use spread::spread_ms;

/// How many links a lookup follows before it answers `LinkLoop`.
pub const LINK_HOPS_MAX: u32 = 8;

/// The highest epoch: what a double-precision number, and so any JSON reader, holds exactly. A claim whose
/// store epoch would lead beyond it is refused, so that a broken store cannot use the epochs up.
pub const EPOCH_MAX: u64 = (1 << 53) - 1;
