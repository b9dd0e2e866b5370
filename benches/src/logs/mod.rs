//! The journal beside other ways to keep records: each makes durable together what waits together.

pub mod bare;
#[cfg(feature = "fjall")]
pub mod fjall;
pub mod journal;
pub mod load;

use std::path::Path;

use tokio::sync::oneshot;

use crate::Outcome;

/// Bytes of a record.
pub const RECORD: usize = 200;
/// How many records are kept when each new one ends an old one.
pub const LAG: u64 = 200_000;

/// A log in a directory of its own. Dropping it closes it.
pub trait Log: Send + Sync {
    /// Queues record `number`, which is new, and with it the end of an old one. `done` is told once both are durable;
    /// it is dropped if they will not be.
    ///
    /// # Errors
    /// That nothing more can be queued.
    fn append(&self, number: u64, record: &[u8], ends: Option<u64>, done: oneshot::Sender<()>)
    -> Outcome<()>;
}

/// How a kind of log is opened and read back.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As the table calls it.
    pub name: &'static str,
    /// Opens one in an empty directory.
    pub create: fn(&Path) -> Outcome<Box<dyn Log>>,
    /// Opens one that was closed and looks at every record. Returns how many there are.
    pub recover: fn(&Path) -> Outcome<u64>,
}

/// All of them: ours first.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    vec![
        journal::KIND,
        bare::KIND,
        #[cfg(feature = "fjall")]
        fjall::KIND,
    ]
}
