//! Where a group keeps its messages: one set of traits over journals, PostgreSQL and memory.
//!
//! A store is taken in steps, and each step consumes what the one before brought, so that they cannot be taken
//! out of order: the exclusive lock ([`Locked`]), the epoch ([`Fenced`]), reading back ([`Log`]). It knows bytes,
//! sequence numbers and epochs, and nothing of what they mean. It never decides who may be active, and never
//! retries a failed write and calls it durable.
//! Invariant, the commit rule: whoever takes over first writes the new epoch durably and only then reads;
//! whoever serves makes a batch durable, finds the epoch still its own, and only then acknowledges.

mod committer;
mod error;
mod journal;
mod memory;
mod postgres;

use std::fmt;
use std::sync::{Arc, mpsc};

pub use daymark_journal::{Appended, Batch, Holder, Record, Seqs};
pub use error::{AppendError, BoxError, OpenError};
pub use journal::JournalStore;
pub use memory::MemoryStore;
pub use postgres::{InvalidPostgresUrl, PostgresError, PostgresOptions, PostgresStore, PostgresUrl};

/// What the owner of a batch wants to be told.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// Told once, when the store fails.
pub type OnFailure = Box<dyn FnOnce(AppendError) + Send>;

/// Shown every live record in order while a store is recovered.
pub type Visit<'a> = dyn FnMut(Record<'_>) -> Result<(), BoxError> + 'a;

/// A store that may be opened. Every call blocks, each for a bounded time: use a blocking thread.
pub trait Store: fmt::Debug + Send + Sync {
    /// Takes the exclusive lock. `force` takes it although a frozen process still holds it: the operator's
    /// evidence that it may not serve any more. The frozen process finds out before it acknowledges anything.
    ///
    /// # Errors
    /// [`OpenError::LockedBy`] names the holder where the store tells it; otherwise why there is no lock.
    fn lock(&self, holder: &Holder, force: bool) -> Result<Box<dyn Locked>, OpenError>;
}

/// A store whose exclusive lock this process holds. Nothing was read or written yet. Dropping it releases the
/// lock.
pub trait Locked: fmt::Debug + Send + Sync {
    /// The highest epoch ever durably written, 0 if the store is new.
    fn epoch(&self) -> u64;

    /// Writes `epoch` durably: from now on nobody with an older one acknowledges anything here.
    ///
    /// # Errors
    /// [`OpenError::StaleEpoch`] unless `epoch` is higher than every epoch ever written.
    fn begin(self: Box<Self>, epoch: u64) -> Result<Box<dyn Fenced>, OpenError>;
}

/// A store whose epoch is durably ours and whose records were not read yet. Dropping it releases the lock; the
/// epoch stays written.
pub trait Fenced: fmt::Debug + Send + Sync {
    /// Shows every live record to `visit`, in the order in which they were appended, and opens the store for
    /// appending. Records that were released may still be shown, always as a contiguous run that ends in the
    /// live ones.
    ///
    /// # Errors
    /// [`OpenError`]; the lock is released with it and nothing live was changed.
    fn recover(self: Box<Self>, visit: &mut Visit<'_>) -> Result<Log, OpenError>;
}

impl From<daymark_journal::Fenced> for Box<dyn Fenced> {
    fn from(fenced: daymark_journal::Fenced) -> Self {
        Box::new(fenced)
    }
}

/// What an open store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use, released ones that are not yet given back included.
    pub bytes: u64,
    /// Everything below this position can be given back, once the owner has recorded again what it still needs
    /// of it and called [`Log::release_before`]. `None` while nothing could be won by that.
    pub before: Option<u64>,
}

/// What a kind of store does while it is open. Used through [`Log`].
pub trait OpenStore: fmt::Debug + Send + Sync {
    /// See [`Log::submit`].
    ///
    /// # Errors
    /// See [`Log::submit`].
    fn submit(&self, batch: Batch, done: Done) -> Result<Seqs, AppendError>;
    /// See [`Log::release_before`].
    fn release_before(&self, seq: u64);
    /// See [`Log::usage`].
    fn usage(&self) -> Usage;
    /// See [`Log::next_seq`].
    fn next_seq(&self) -> u64;
    /// See [`Log::epoch`].
    fn epoch(&self) -> u64;
    /// See [`Log::failed`].
    fn failed(&self) -> Option<AppendError>;
    /// See [`Log::on_failure`].
    fn on_failure(&self, hook: OnFailure);
    /// See [`Log::close`].
    fn close(&self);
}

/// An open store. Cloning gives another handle to the same one; dropping the last one closes it.
#[derive(Clone, Debug)]
pub struct Log(Arc<dyn OpenStore>);

impl Log {
    /// A handle to this open store.
    #[must_use]
    pub fn new(store: impl OpenStore + 'static) -> Self {
        Self(Arc::new(store))
    }

    /// Queues a batch. Its sequence numbers are assigned now, in call order.
    ///
    /// `done` is called exactly once, from a thread of the store and in submission order: with `Ok` only after
    /// the batch is durable *and* the epoch was found to be ours; with `Err` when the store failed, in which
    /// case the outcome is unknown. It must be short and must not wait for the store.
    ///
    /// # Errors
    /// `done` is dropped uncalled and nothing is queued: [`AppendError`].
    pub fn submit(
        &self,
        batch: Batch,
        done: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
    ) -> Result<Seqs, AppendError> {
        self.0.submit(batch, Box::new(done))
    }

    /// Appends a batch and blocks until it is durable. Not to be called from a callback of the store.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn append_and_wait(&self, batch: Batch) -> Result<Seqs, AppendError> {
        let (sender, answer) = mpsc::sync_channel(1);
        self.submit(batch, move |result| {
            // The receiver waits below, so it is there.
            let _ = sender.send(result);
        })?;
        match answer.recv() {
            Ok(result) => result.map(|appended| appended.seqs),
            Err(mpsc::RecvError) => Err(self.failed().unwrap_or(AppendError::Closed)),
        }
    }

    /// Everything below `seq` is no longer needed and is given back soon and in the background, once that
    /// decision is itself durable. Records submitted after this call are never meant, whatever `seq` is.
    pub fn release_before(&self, seq: u64) {
        self.0.release_before(seq);
    }

    /// What the store holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }

    /// The number the next submitted record will get.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.0.next_seq()
    }

    /// The epoch this process writes under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    /// Why the store stopped for good, if it did. An idle store notices a newer epoch or a lost lock by itself.
    #[must_use]
    pub fn failed(&self) -> Option<AppendError> {
        self.0.failed()
    }

    /// Calls `hook` once, from a thread of the store, when it fails; at once, and from this thread, if it
    /// already has. Not called for [`close`](Self::close).
    pub fn on_failure(&self, hook: impl FnOnce(AppendError) + Send + 'static) {
        self.0.on_failure(Box::new(hook));
    }

    /// Makes durable what is pending and releases the lock. Later calls answer [`AppendError::Closed`].
    pub fn close(&self) {
        self.0.close();
    }
}
