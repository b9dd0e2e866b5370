//! A store in the memory of this process, for tests: it ends with the process.
//!
//! Everything else is as with the others: one holder at a time, epochs, group commit, and a holder who is
//! superseded acknowledges nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daymark_journal::{Holder, Record};

use super::committer::{Committed, Group, Sink, Start};
use super::{AppendError, Fenced, Locked, Log, OpenError, Store, Visit};

/// A store in memory. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryStore {
    name: String,
    contents: Arc<Mutex<Contents>>,
    hanging: Arc<Hanging>,
}

/// Whether writing hangs, as on a disk that does not answer.
#[derive(Default)]
struct Hanging {
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Hanging {
    fn set(&self, hangs: bool) {
        *self.hangs.lock().unwrap_or_else(PoisonError::into_inner) = hangs;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut hangs = self.hangs.lock().unwrap_or_else(PoisonError::into_inner);
        while *hangs {
            hangs = self.changed.wait(hangs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[derive(Default)]
struct Contents {
    /// Counts locks: a holder whose number is not the last one has lost its lock.
    lock: u64,
    holder: Option<Holder>,
    epoch: u64,
    /// The number the next durable record gets.
    next_seq: u64,
    records: VecDeque<Stored>,
}

struct Stored {
    seq: u64,
    epoch: u64,
    kind: u8,
    body: Vec<u8>,
}

/// Bytes a record takes, counted as batches count them.
fn bytes_of(body: &[u8]) -> u64 {
    body.len() as u64 + 5
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory:{}", self.name)
    }
}

impl MemoryStore {
    /// The store of that name in this process. It is made when it is first asked for and stays.
    #[must_use]
    pub fn named(name: &str) -> Self {
        static STORES: Mutex<BTreeMap<String, MemoryStore>> = Mutex::new(BTreeMap::new());
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Self {
            name: name.to_owned(),
            contents: Arc::default(),
            hanging: Arc::default(),
        };
        stores.entry(name.to_owned()).or_insert_with(made).clone()
    }

    /// From now on nothing becomes durable, and whoever wants that waits until [`resume`](Self::resume).
    pub fn hang(&self) {
        self.hanging.set(true);
    }

    /// What waits becomes durable, unless somebody else has a newer epoch by then.
    pub fn resume(&self) {
        self.hanging.set(false);
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock, held until this is dropped.
#[derive(Debug)]
struct Held {
    store: MemoryStore,
    number: u64,
    epoch: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut contents = self.store.contents();
        if contents.lock == self.number {
            contents.holder = None;
        }
    }
}

impl Store for MemoryStore {
    fn lock(&self, holder: &Holder, force: bool) -> Result<Box<dyn Locked>, OpenError> {
        let mut contents = self.contents();
        if !force && contents.holder.is_some() {
            return Err(OpenError::LockedBy {
                store: format!("{self:?}"),
                holder: contents.holder.clone(),
            });
        }
        contents.lock += 1;
        contents.holder = Some(holder.clone());
        Ok(Box::new(Held {
            store: self.clone(),
            number: contents.lock,
            epoch: contents.epoch,
        }))
    }
}

impl Locked for Held {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn begin(self: Box<Self>, epoch: u64) -> Result<Box<dyn Fenced>, OpenError> {
        let mut held = self;
        let mut contents = held.store.contents();
        if epoch <= contents.epoch {
            return Err(OpenError::StaleEpoch {
                asked: epoch,
                current: contents.epoch,
            });
        }
        contents.epoch = epoch;
        drop(contents);
        held.epoch = epoch;
        Ok(held)
    }
}

impl Fenced for Held {
    fn recover(self: Box<Self>, visit: &mut Visit<'_>) -> Result<Log, OpenError> {
        let contents = self.store.contents();
        if contents.epoch > self.epoch {
            return Err(OpenError::Superseded {
                epoch: contents.epoch,
            });
        }
        for stored in &contents.records {
            let seq = stored.seq;
            let (kind, epoch, body) = (stored.kind, stored.epoch, stored.body.as_slice());
            let record = Record {
                seq,
                kind,
                epoch,
                body,
            };
            visit(record).map_err(|source| OpenError::Visitor { seq, source })?;
        }
        let start = Start {
            epoch: self.epoch,
            next_seq: contents.next_seq.max(1),
            bytes: contents.records.iter().map(|stored| bytes_of(&stored.body)).sum(),
        };
        drop(contents);
        let committed = Committed::start("memory-commit", start, *self);
        Ok(Log::new(committed.map_err(OpenError::Thread)?))
    }
}

impl Held {
    fn confirmed(&self) -> Result<MutexGuard<'_, Contents>, AppendError> {
        let contents = self.store.contents();
        if contents.epoch > self.epoch {
            return Err(AppendError::Superseded {
                epoch: contents.epoch,
            });
        }
        if contents.lock != self.number {
            return Err(AppendError::LockLost {
                store: format!("{:?}", self.store),
            });
        }
        Ok(contents)
    }
}

impl Sink for Held {
    fn commit(&mut self, group: &Group) -> Result<(), AppendError> {
        self.store.hanging.wait();
        let mut contents = self.confirmed()?;
        let records = group.batches.iter().flat_map(|batch| batch.records());
        let numbered = (group.first_seq..).zip(records);
        contents
            .records
            .extend(numbered.map(|(seq, (kind, body))| Stored {
                seq,
                epoch: self.epoch,
                kind,
                body: body.to_vec(),
            }));
        contents.next_seq = group.first_seq + group.count;
        Ok(())
    }

    fn give_back(&mut self, before: u64) -> Result<(u64, bool), AppendError> {
        let mut contents = self.confirmed()?;
        let gone = contents.records.partition_point(|stored| stored.seq < before);
        let bytes = contents
            .records
            .drain(..gone)
            .map(|stored| bytes_of(&stored.body));
        Ok((bytes.sum(), false))
    }

    fn look(&mut self) -> Result<(), AppendError> {
        self.confirmed().map(drop)
    }

    fn look_every(&self) -> Duration {
        Duration::from_millis(100)
    }
}
