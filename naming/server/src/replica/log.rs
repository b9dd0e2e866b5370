//! The Raft log on the journal.
//!
//! Entries since the last purge are also in memory, so that nothing is ever read back from the disk while
//! the server runs. The journal holds what happened, in order: entries, votes, truncations, purges and the
//! last committed entry. Reading it from the beginning gives the log.
//!
//! Invariant: an entry, a vote or a truncation is reported as stored only after the journal's own
//! acknowledgement. The committed entry rides along with the next batch: it is older than the truth after
//! a crash, never newer.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daymark_journal::{Batch, Journal, JournalError, Record, Seqs};
use daymark_naming_core::Command;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftLogReader};
use tokio::sync::{Notify, oneshot};

use crate::options::Storage;

use super::types::{Entry, LogId, Proposal, TypeConfig, Vote};

/// Bytes of one batch, beyond which an append is split.
const PIECE_BYTES: u64 = 16 << 20;
/// How long an append waits before it asks again whether the disk has caught up.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// Record kinds in the journal.
mod kind {
    /// An entry with at most one command, as it was once written.
    pub(super) const SINGLE: u8 = 1;
    pub(super) const VOTE: u8 = 2;
    pub(super) const TRUNCATE: u8 = 3;
    pub(super) const PURGE: u8 = 4;
    pub(super) const COMMITTED: u8 = 5;
    pub(super) const ENTRY: u8 = 6;
}

/// The log as recovery builds it and as it is kept in memory.
#[derive(Default)]
pub(crate) struct Log {
    /// Consecutive entries after `purged`.
    entries: VecDeque<Kept>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Whether `committed` is newer than what the journal knows.
    committed_pending: bool,
    /// What the entries in memory hold.
    size: Size,
    /// What was left of it by the last purge.
    kept: Size,
}

/// How much a part of the log holds.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Bytes of the entries as they are encoded.
    bytes: u64,
    writes: u64,
}

impl Size {
    fn of(entry: &Entry, bytes: u64) -> Self {
        let writes = match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.0.len() as u64,
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        Self { bytes, writes }
    }

    const fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.writes += other.writes;
    }

    const fn subtract(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.writes -= other.writes;
    }

    /// Whether it is beyond `limit` and has doubled since the last purge.
    fn is_beyond(self, limit: Self, kept: Self) -> bool {
        self.bytes > limit.bytes.max(2 * kept.bytes) || self.writes > limit.writes.max(2 * kept.writes)
    }
}

struct Kept {
    entry: Entry,
    seq: u64,
    size: Size,
}

/// A record of the journal that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadRecord(String);

impl Log {
    /// Takes one record of the journal, in order.
    pub(crate) fn replay(&mut self, record: &Record<'_>) -> Result<(), BadRecord> {
        match record.kind {
            kind::ENTRY => self.replay_entry(decode(record)?, record.seq, record.body.len() as u64),
            kind::SINGLE => {
                let single: Single = decode(record)?;
                self.replay_entry(single.into(), record.seq, record.body.len() as u64)
            }
            kind::VOTE => {
                self.vote = decode(record)?;
                Ok(())
            }
            kind::TRUNCATE => {
                self.truncate_after(decode(record)?);
                Ok(())
            }
            kind::PURGE => {
                let upto: LogId = decode(record)?;
                if self.purged.as_ref() < Some(&upto) {
                    self.purge(upto);
                }
                Ok(())
            }
            kind::COMMITTED => {
                self.committed = decode(record)?;
                Ok(())
            }
            other => Err(BadRecord(format!("unknown kind {other}"))),
        }
    }

    /// What the journal still has may begin anywhere: with entries that were purged, or with a purge whose later
    /// entries were purged by another one and are gone. `check` decides whether the log is whole in the end.
    fn replay_entry(&mut self, entry: Entry, seq: u64, bytes: u64) -> Result<(), BadRecord> {
        let index = entry.index();
        let next = self.next_index();
        if index < next {
            return Ok(());
        }
        if index > next && !self.entries.is_empty() {
            return Err(BadRecord(format!(
                "entry {index} follows entry {}",
                next.saturating_sub(1)
            )));
        }
        self.push(entry, seq, bytes);
        Ok(())
    }

    /// Whether the entries go on where the last purge ended.
    pub(crate) fn check(&self) -> Result<(), BadRecord> {
        let expected = self.purged.map_or(0, |id| id.index() + 1);
        match self.first_index() {
            Some(first) if first != expected => Err(BadRecord(format!(
                "the log begins with entry {first} instead of entry {expected}"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn push(&mut self, entry: Entry, seq: u64, bytes: u64) {
        let size = Size::of(&entry, bytes);
        self.size.add(size);
        self.entries.push_back(Kept { entry, seq, size });
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|kept| kept.entry.index())
    }

    fn next_index(&self) -> u64 {
        match self.entries.back() {
            Some(kept) => kept.entry.index() + 1,
            None => self.purged.map_or(0, |id| id.index() + 1),
        }
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let keep_below = last.map_or(0, |id| id.index() + 1);
        while self
            .entries
            .back()
            .is_some_and(|kept| kept.entry.index() >= keep_below)
        {
            if let Some(kept) = self.entries.pop_back() {
                self.size.subtract(kept.size);
            }
        }
    }

    fn purge(&mut self, upto: LogId) {
        while self
            .entries
            .front()
            .is_some_and(|kept| kept.entry.index() <= upto.index())
        {
            if let Some(kept) = self.entries.pop_front() {
                self.size.subtract(kept.size);
            }
        }
        self.purged = Some(upto);
        self.kept = self.size;
    }

    fn last_id(&self) -> Option<LogId> {
        self.entries
            .back()
            .map_or(self.purged, |kept| Some(kept.entry.log_id()))
    }

    fn range(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let Some(first) = self.first_index() else {
            return Vec::new();
        };
        let from = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        }
        .max(first);
        let to = match range.end_bound() {
            Bound::Included(&at) => at + 1,
            Bound::Excluded(&at) => at,
            Bound::Unbounded => u64::MAX,
        }
        .min(self.next_index());
        if from >= to {
            return Vec::new();
        }
        let at = |index: u64| usize::try_from(index - first).unwrap_or(usize::MAX);
        self.entries
            .range(at(from)..at(to))
            .map(|kept| kept.entry.clone())
            .collect()
    }

    /// Adds what the journal must know besides, and does not yet.
    fn add_committed(&mut self, batch: &mut Batch) -> io::Result<()> {
        if self.committed_pending {
            batch.push(kind::COMMITTED, &[&encode(&self.committed)?]);
            self.committed_pending = false;
        }
        Ok(())
    }
}

/// An entry as it was once written.
#[derive(serde::Deserialize)]
struct Single {
    log_id: LogId,
    payload: SinglePayload,
}

#[derive(serde::Deserialize)]
enum SinglePayload {
    Blank,
    Normal(Command),
    Membership(openraft::Membership<u64, BasicNode>),
}

impl From<Single> for Entry {
    fn from(single: Single) -> Self {
        let payload = match single.payload {
            SinglePayload::Blank => EntryPayload::Blank,
            SinglePayload::Normal(command) => EntryPayload::Normal(Proposal([command].into())),
            SinglePayload::Membership(membership) => EntryPayload::Membership(membership),
        };
        Self::new(single.log_id, payload)
    }
}

fn decode<'a, T: serde::Deserialize<'a>>(record: &Record<'a>) -> Result<T, BadRecord> {
    postcard::from_bytes(record.body).map_err(|error| BadRecord(format!("kind {}: {error}", record.kind)))
}

fn encode<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

/// The log store: a handle, cloned for every reader.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<Mutex<Log>>,
    journal: Journal,
    /// Told when the log in memory passes `limit`.
    full: Arc<Notify>,
    limit: Size,
    /// Bytes that may wait in the journal.
    pending_max: u64,
}

impl LogStore {
    pub(crate) fn new(log: Log, journal: Journal, storage: &Storage, full: Arc<Notify>) -> Self {
        let limit = Size {
            bytes: storage.snapshot_log_bytes,
            writes: storage.snapshot_writes,
        };
        Self {
            log: Arc::new(Mutex::new(log)),
            journal,
            full,
            limit,
            pending_max: daymark_journal::Options::default().max_pending_bytes,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Every change of the log is complete before anything that could panic.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one batch and waits until it is durable.
    async fn store(&self, batch: Batch) -> io::Result<Seqs> {
        self.room(batch.bytes()).await;
        let (sender, answer) = oneshot::channel();
        let seqs = self
            .journal
            .submit(batch, move |result| {
                // Nobody waits any more when the replica is gone.
                let _ = sender.send(result);
            })
            .map_err(io::Error::other)?;
        match answer.await {
            Ok(result) => result.map(|_| seqs).map_err(io::Error::other),
            Err(_) => Err(io::Error::other(
                self.journal.failed().unwrap_or(JournalError::Closed),
            )),
        }
    }

    /// Encodes and submits one piece of an append, and keeps its entries readable. `done` runs once they are
    /// durable.
    fn submit(
        &self,
        mut batch: Batch,
        entries: Vec<(Entry, u64)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let mut log = self.log();
        log.add_committed(&mut batch)?;
        let seqs = self
            .journal
            .submit(batch, move |result| {
                done(result.map(|_| ()).map_err(io::Error::other));
            })
            .map_err(io::Error::other)?;
        for (seq, (entry, bytes)) in (seqs.first..).zip(entries) {
            log.push(entry, seq, bytes);
        }
        if log.size.is_beyond(self.limit, log.kept) {
            self.full.notify_one();
        }
        Ok(())
    }

    /// Returns when the journal has room for another batch. Nobody else submits meanwhile.
    async fn room(&self, bytes: u64) {
        let limit = self.pending_max;
        while self.journal.failed().is_none() {
            let pending = self.journal.stats().pending_bytes;
            if pending == 0 || pending.saturating_add(bytes) <= limit {
                return;
            }
            tokio::time::sleep(BACKLOG_PAUSE).await;
        }
    }
}

/// Entries for one batch of the journal.
#[derive(Default)]
struct Piece {
    batch: Batch,
    entries: Vec<(Entry, u64)>,
}

impl Piece {
    fn add(&mut self, entry: Entry) -> io::Result<()> {
        let body = encode(&entry)?;
        self.batch.push(kind::ENTRY, &[&body]);
        self.entries.push((entry, body.len() as u64));
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.log().range(&range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.log();
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: log.last_id(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::new();
        batch.push(kind::VOTE, &[&encode(&Some(*vote))?]);
        self.store(batch).await?;
        self.log().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut log = self.log();
        log.committed = committed;
        log.committed_pending = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut piece = Piece::default();
        for entry in entries {
            if piece.batch.bytes() > PIECE_BYTES {
                let full = std::mem::take(&mut piece);
                self.room(full.batch.bytes()).await;
                // The journal acknowledges in order, so the last piece speaks for this one.
                self.submit(full.batch, full.entries, |_| ())?;
            }
            piece.add(entry)?;
        }
        if piece.batch.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.room(piece.batch.bytes()).await;
        self.submit(piece.batch, piece.entries, |result| callback.io_completed(result))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let mut batch = Batch::new();
        batch.push(kind::TRUNCATE, &[&encode(&last_log_id)?]);
        self.log().truncate_after(last_log_id);
        self.store(batch).await.map(|_| ())
    }

    /// What stays needed is written again, so that every segment before the first kept entry can go.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut batch = Batch::new();
        batch.push(kind::PURGE, &[&encode(&log_id)?]);
        let first_kept = {
            let mut log = self.log();
            log.purge(log_id);
            batch.push(kind::VOTE, &[&encode(&log.vote)?]);
            log.committed_pending = true;
            log.add_committed(&mut batch)?;
            log.entries.front().map(|kept| kept.seq)
        };
        let seqs = self.store(batch).await?;
        self.journal.release_before(first_kept.unwrap_or(seqs.first));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::vote::RaftLeaderId;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new(1, 1).to_committed(), index)
    }

    fn entry(index: u64) -> (u8, Vec<u8>) {
        let entry = Entry::new(id(index), EntryPayload::Blank);
        (kind::ENTRY, encode(&entry).expect("encoded"))
    }

    fn purge(upto: u64) -> (u8, Vec<u8>) {
        (kind::PURGE, encode(&id(upto)).expect("encoded"))
    }

    fn replayed(records: &[(u8, Vec<u8>)]) -> Result<Log, BadRecord> {
        let mut log = Log::default();
        for (seq, (kind, body)) in (1..).zip(records) {
            log.replay(&Record {
                seq,
                kind: *kind,
                epoch: 1,
                body,
            })?;
        }
        log.check()?;
        Ok(log)
    }

    /// An entry with one command as it was written before entries held several.
    #[test]
    fn an_entry_in_its_older_form_is_read() {
        #[derive(serde::Serialize)]
        enum Older {
            #[expect(dead_code, reason = "it holds the first place")]
            Blank,
            Normal(Command),
        }
        let command = Command {
            op: daymark_naming_proto::OpId(7),
            at_unix_ms: 9,
            write: daymark_naming_proto::Write::DestroySubcontext {
                name: "a".parse().expect("a name"),
            },
        };
        let body = encode(&(id(0), Older::Normal(command.clone()))).expect("encoded");
        let log = replayed(&[(kind::SINGLE, body), entry(1)]).expect("a log");
        assert_eq!((indexes(&log), log.size.writes), (vec![0, 1], 1));
        let EntryPayload::Normal(proposal) = &log.entries[0].entry.payload else {
            panic!("not a command: {}", log.entries[0].entry);
        };
        assert_eq!(&*proposal.0, &[command]);
    }

    fn indexes(log: &Log) -> Vec<u64> {
        log.entries.iter().map(|kept| kept.entry.index()).collect()
    }

    #[test]
    fn a_log_that_was_released_up_to_an_older_purge_is_whole() {
        let records = [purge(3), entry(7), entry(8), purge(7), entry(9)];
        let log = replayed(&records).expect("a log");
        assert_eq!(indexes(&log), [8, 9]);
        assert_eq!((log.purged, log.last_id()), (Some(id(7)), Some(id(9))));
    }

    #[test]
    fn a_log_that_begins_with_purged_entries_is_whole() {
        let records = [entry(5), entry(6), purge(5), entry(7)];
        assert_eq!(indexes(&replayed(&records).expect("a log")), [6, 7]);
        let all_gone = [entry(5), entry(6), purge(6)];
        assert_eq!(replayed(&all_gone).expect("a log").last_id(), Some(id(6)));
    }

    #[test]
    fn a_log_with_a_gap_is_refused() {
        for records in [
            &[entry(0), entry(2)][..],
            &[entry(3), entry(4)],
            &[purge(3), entry(5)],
            &[purge(3), entry(7), purge(5)],
        ] {
            assert!(replayed(records).is_err());
        }
    }
}
