//! The Raft log on the journal.
//!
//! Entries are also in memory until they are applied, so that nothing is ever read back from the disk while the server
//! runs: a cluster of one has nobody else to read them for. The journal holds what happened, in order: entries, votes,
//! truncations, purges and the last committed entry. Reading it from the beginning gives the log.
//!
//! Invariant: an entry, a vote or a truncation is reported as stored only after the journal's own
//! acknowledgement. The committed entry rides along with the next batch: it is older than the truth after
//! a crash, never newer.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daymark_journal::{Batch, Journal, JournalError, Record, Seqs};
use daymark_naming_core::Command;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftLogReader};
use tokio::sync::{Notify, oneshot};

use crate::options::Storage;

use super::snapshot::SnapshotDir;
use super::types::{Entry, LogId, Payload, Proposal, TypeConfig, Vote};

/// Bytes of one batch, beyond which an append is split.
const PIECE_BYTES: u64 = 16 << 20;
/// The room for encoding is given back where an entry needed more than this.
const ROOM_KEPT: usize = 4 << 20;
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
    /// How many of them, the first ones, were applied: nobody reads these any more.
    applied: usize,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Whether `committed` is newer than what the journal knows.
    committed_pending: bool,
    /// What the entries hold.
    size: Size,
    /// What was left of it by the last purge.
    kept: Size,
}

/// How much a part of the log, or a snapshot, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes as they are encoded.
    pub(super) bytes: u64,
    /// Writes; of a snapshot, names.
    pub(super) writes: u64,
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

    /// Whether a log of this size is worth a snapshot: it is beyond `limit` and beyond half of the snapshot there is,
    /// and has doubled since the last purge left `kept`. So a large directory is written again no more often than
    /// its log fills half of its room, and what a start has to apply stays in proportion to what it has to load.
    fn is_beyond(self, limit: Self, snapshot: Self, kept: Self) -> bool {
        let is_more = |of: fn(Self) -> u64| of(self) > of(limit).max(of(snapshot) / 2).max(2 * of(kept));
        is_more(|size| size.bytes) || is_more(|size| size.writes)
    }
}

struct Kept {
    id: LogId,
    /// `None` once it was applied.
    payload: Option<Payload>,
    seq: u64,
    size: Size,
}

impl Kept {
    fn entry(&self) -> io::Result<Entry> {
        let payload = self.payload.clone().ok_or_else(|| {
            io::Error::other(format!(
                "entry {} was applied and is not in memory",
                self.id.index()
            ))
        })?;
        Ok(Entry::new(self.id, payload))
    }
}

/// How far the state machine has come: the index behind the last entry that it has applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied(Arc<AtomicU64>);

impl Applied {
    pub(super) fn tell(&self, last: Option<LogId>) {
        self.0
            .store(last.map_or(0, |id| id.index() + 1), Ordering::Release);
    }

    fn end(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
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
        self.entries.push_back(Kept {
            id: entry.log_id,
            payload: Some(entry.payload),
            seq,
            size,
        });
    }

    /// Gives up what the entries before index `end` say, which were applied.
    fn forget_before(&mut self, end: u64) {
        while let Some(kept) = self.entries.get_mut(self.applied)
            && kept.id.index() < end
        {
            kept.payload = None;
            self.applied += 1;
        }
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|kept| kept.id.index())
    }

    fn next_index(&self) -> u64 {
        match self.entries.back() {
            Some(kept) => kept.id.index() + 1,
            None => self.purged.map_or(0, |id| id.index() + 1),
        }
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let keep_below = last.map_or(0, |id| id.index() + 1);
        while self
            .entries
            .back()
            .is_some_and(|kept| kept.id.index() >= keep_below)
        {
            if let Some(kept) = self.entries.pop_back() {
                self.size.subtract(kept.size);
            }
        }
        self.applied = self.applied.min(self.entries.len());
    }

    fn purge(&mut self, upto: LogId) {
        while self
            .entries
            .front()
            .is_some_and(|kept| kept.id.index() <= upto.index())
        {
            if let Some(kept) = self.entries.pop_front() {
                self.size.subtract(kept.size);
                self.applied = self.applied.saturating_sub(1);
            }
        }
        self.purged = Some(upto);
        self.kept = self.size;
    }

    fn last_id(&self) -> Option<LogId> {
        self.entries.back().map_or(self.purged, |kept| Some(kept.id))
    }

    fn range(&self, range: &impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        let Some(first) = self.first_index() else {
            return Ok(Vec::new());
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
            return Ok(Vec::new());
        }
        let at = |index: u64| usize::try_from(index - first).unwrap_or(usize::MAX);
        self.entries.range(at(from)..at(to)).map(Kept::entry).collect()
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
    /// Told when the log is worth a snapshot.
    full: Arc<Notify>,
    limit: Size,
    snapshots: SnapshotDir,
    applied: Applied,
    /// Bytes that may wait in the journal.
    pending_max: u64,
    /// Room in which entries are encoded, one after the other.
    room: Vec<u8>,
}

impl LogStore {
    pub(crate) fn new(
        log: Log,
        journal: Journal,
        storage: &Storage,
        full: Arc<Notify>,
        snapshots: SnapshotDir,
        applied: Applied,
    ) -> Self {
        let limit = Size {
            bytes: storage.snapshot_log_bytes,
            writes: storage.snapshot_writes,
        };
        Self {
            log: Arc::new(Mutex::new(log)),
            journal,
            full,
            limit,
            snapshots,
            applied,
            room: Vec::new(),
            pending_max: daymark_journal::Options::default().max_pending_bytes,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Every change of the log is complete before anything that could panic.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one batch and waits until it is durable.
    async fn store(&self, batch: Batch) -> io::Result<Seqs> {
        self.wait_for_room(batch.bytes()).await;
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
        log.forget_before(self.applied.end());
        for (seq, (entry, bytes)) in (seqs.first..).zip(entries) {
            log.push(entry, seq, bytes);
        }
        if log
            .size
            .is_beyond(self.limit, self.snapshots.newest_size(), log.kept)
        {
            self.full.notify_one();
        }
        Ok(())
    }

    /// Returns when the journal has room for another batch. Nobody else submits meanwhile.
    async fn wait_for_room(&self, bytes: u64) {
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
    /// Encodes an entry in `room`, whatever was there.
    fn add(&mut self, entry: Entry, room: &mut Vec<u8>) -> io::Result<()> {
        room.clear();
        *room = postcard::to_extend(&entry, std::mem::take(room)).map_err(io::Error::other)?;
        self.batch.push(kind::ENTRY, &[room]);
        self.entries.push((entry, room.len() as u64));
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log().range(&range)
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
                self.wait_for_room(full.batch.bytes()).await;
                // The journal acknowledges in order, so the last piece speaks for this one.
                self.submit(full.batch, full.entries, |_| ())?;
            }
            piece.add(entry, &mut self.room)?;
        }
        if self.room.capacity() > ROOM_KEPT {
            self.room = Vec::new();
        }
        if piece.batch.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.wait_for_room(piece.batch.bytes()).await;
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
        let Some(EntryPayload::Normal(proposal)) = &log.entries[0].payload else {
            panic!("not a command: {:?}", log.entries[0].payload);
        };
        assert_eq!(&*proposal.0, &[command]);
    }

    fn indexes(log: &Log) -> Vec<u64> {
        log.entries.iter().map(|kept| kept.id.index()).collect()
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
    fn entries_that_were_applied_are_in_memory_no_more_and_count_on() {
        let mut log = replayed(&[entry(0), entry(1), entry(2), entry(3)]).expect("a log");
        let bytes = log.size.bytes;
        log.forget_before(2);
        assert!(log.range(&(0..4)).is_err());
        assert_eq!(log.range(&(2..4)).expect("kept").len(), 2);
        assert_eq!((log.last_id(), log.size.bytes), (Some(id(3)), bytes));
        log.purge(id(0));
        log.forget_before(3);
        assert!(log.range(&(2..4)).is_err());
        assert_eq!(log.range(&(3..4)).expect("kept").len(), 1);
        log.truncate_after(Some(id(1)));
        log.push(Entry::new(id(2), EntryPayload::Blank), 9, 1);
        assert_eq!(log.range(&(2..)).expect("kept").len(), 1);
    }

    #[test]
    fn a_log_is_worth_a_snapshot_beyond_its_limit_and_half_of_the_last_one() {
        let size = |bytes, writes| Size { bytes, writes };
        let limit = size(100, 10);
        let beyond = |log: Size, snapshot, kept| log.is_beyond(limit, snapshot, kept);
        let none = Size::default();
        assert!(beyond(size(101, 0), none, none) && beyond(size(0, 11), none, none));
        assert!(!beyond(size(100, 10), none, none));
        let large = size(1_000, 100);
        assert!(!beyond(size(500, 50), large, none));
        assert!(beyond(size(501, 0), large, none) && beyond(size(0, 51), large, none));
        assert!(!beyond(size(160, 16), none, size(80, 8)));
        assert!(beyond(size(161, 0), none, size(80, 8)));
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
