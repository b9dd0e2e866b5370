//! The handle of an open journal, and the queue between its owners and the committer.
//!
//! A submitted batch is copied into the group that gathers while the committer is busy with the one
//! before. The queue decides sequence numbers and back-pressure; it never touches the disk.
//! Invariant: after `failed` is set no group is queued any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{JoinHandle, ThreadId};

use crate::batch::Batch;
use crate::error::JournalError;
use crate::format::{FRAME_HEADER, MAX_FRAME_RECORDS};
use crate::options::{MAX_BYTES, Options};
use crate::types::{Appended, SegmentInfo, Seqs, Stats};

/// An open journal. Cloning gives another handle to the same one.
///
/// [`close`](Self::close), or dropping the last handle, flushes what is pending, stops the threads and
/// releases the lock.
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

/// What a batch's owner wants to be told.
pub(crate) type Done = Box<dyn FnOnce(Result<Appended, JournalError>) + Send>;
type OnFailure = Box<dyn FnOnce(JournalError) + Send>;

struct Handle {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    committer_id: ThreadId,
}

/// What the handles, the committer and the housekeeper share.
pub(crate) struct Shared {
    pub(crate) epoch: u64,
    pub(crate) options: Options,
    queue: Mutex<Queue>,
    wake: Condvar,
    table: Mutex<Table>,
}

struct Queue {
    groups: VecDeque<Group>,
    reusable: Vec<Group>,
    next_seq: u64,
    pending_bytes: u64,
    release_before: u64,
    closing: bool,
    committer_idle: bool,
    failed: Option<JournalError>,
    on_failure: Vec<OnFailure>,
}

/// Batches that will be written, synced and acknowledged together.
#[derive(Default)]
pub(crate) struct Group {
    /// Room for the frame header, then the encoded records.
    pub(crate) buffer: Vec<u8>,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) waiting: Vec<(Seqs, Done)>,
}

/// What the committer publishes about the files.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) segments: Vec<Segment>,
    pub(crate) stats: Stats,
    /// Bytes of files that are not in `segments`: the one prepared next, and the spares.
    pub(crate) spare_bytes: u64,
}

/// One live segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) info: SegmentInfo,
    /// Created by this owner. Files of earlier owners may still be written by a zombie, so they are
    /// deleted and never used again.
    pub(crate) own: bool,
    /// Filled with zeros to its full size, so that it is worth using again.
    pub(crate) filled: bool,
}

/// What the committer should do next.
pub(crate) enum Work {
    /// Write this group; the second field is the release mark asked for.
    Commit(Group, u64),
    /// Nothing to write, but segments below this number may be released.
    Release(u64),
    /// Nothing happened for a while: look whether the directory is still ours.
    Look,
    /// Everything is written and the handle was closed.
    Close,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("epoch", &self.epoch())
            .field("failed", &self.failed())
            .finish()
    }
}

impl Journal {
    pub(crate) fn new(shared: Arc<Shared>, committer: JoinHandle<()>) -> Self {
        let committer_id = committer.thread().id();
        let handle = Handle {
            shared,
            committer: Mutex::new(Some(committer)),
            committer_id,
        };
        Self {
            handle: Arc::new(handle),
        }
    }

    /// Queues a batch. Its sequence numbers are assigned now, in call order.
    ///
    /// `done` is called exactly once, from the committer thread and in submission order: with `Ok` only
    /// after the batch is durable *and* the epoch was re-read and found to be ours; with `Err` when the
    /// journal failed, in which case the outcome is unknown. It must be short and must not wait for the
    /// journal. If it panics the journal stops.
    ///
    /// # Errors
    /// `done` is dropped uncalled and nothing is queued on [`JournalError::Backlog`] (try again later),
    /// [`JournalError::TooLarge`], [`JournalError::EmptyBatch`], and on every fatal error.
    pub fn submit(
        &self,
        batch: Batch,
        done: impl FnOnce(Result<Appended, JournalError>) + Send + 'static,
    ) -> Result<Seqs, JournalError> {
        self.handle.shared.submit(&batch, Box::new(done))
    }

    /// Appends a batch and blocks until it is durable.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); [`JournalError::WouldDeadlock`] if called from a completion callback.
    pub fn append_and_wait(&self, batch: Batch) -> Result<Seqs, JournalError> {
        if self.on_committer() {
            return Err(JournalError::WouldDeadlock);
        }
        let (sender, answer) = mpsc::sync_channel(1);
        self.submit(batch, move |result| {
            // The receiver waits below, so it is there.
            let _ = sender.send(result);
        })?;
        match answer.recv() {
            Ok(result) => result.map(|appended| appended.seqs),
            Err(mpsc::RecvError) => Err(self.failed().unwrap_or(JournalError::Closed)),
        }
    }

    /// Everything below `seq` is no longer needed: whole segments below it are recycled or deleted, soon
    /// and in the background, once that decision is itself durable. The segment being appended to goes when
    /// it is left. Records submitted after this call are never meant, whatever `seq` is.
    pub fn release_before(&self, seq: u64) {
        self.handle.shared.release_before(seq);
    }

    /// The segments that may hold records, oldest first; the last one is being appended to. For owners
    /// that compact by copying live records forward and then call [`release_before`](Self::release_before).
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.handle
            .shared
            .table()
            .segments
            .iter()
            .map(|segment| segment.info.clone())
            .collect()
    }

    /// Running totals.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// The epoch this journal writes under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.handle.shared.epoch
    }

    /// The number the next submitted record will get.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.handle.shared.queue().next_seq
    }

    /// Why the journal stopped for good, if it did. Sticky. An idle journal notices a newer epoch or a
    /// lost lock within about 100 ms.
    #[must_use]
    pub fn failed(&self) -> Option<JournalError> {
        self.handle.shared.queue().failed.clone()
    }

    /// Calls `hook` once, from the committer thread, when the journal fails; at once, and from this
    /// thread, if it already has. Not called for [`close`](Self::close). A hook that owns
    /// a handle keeps the journal open until it is closed explicitly.
    pub fn on_failure(&self, hook: impl FnOnce(JournalError) + Send + 'static) {
        let mut queue = self.handle.shared.queue();
        match queue.failed.clone() {
            None => queue.on_failure.push(Box::new(hook)),
            Some(failed) => {
                drop(queue);
                hook(failed);
            }
        }
    }

    /// Flushes what is pending, stops the threads and releases the lock. Later calls on any handle answer
    /// [`JournalError::Closed`]. Called from a completion callback it returns at once and the rest follows.
    pub fn close(&self) {
        self.handle.close();
    }

    fn on_committer(&self) -> bool {
        std::thread::current().id() == self.handle.committer_id
    }
}

impl Handle {
    fn close(&self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_all();
        if std::thread::current().id() == self.committer_id {
            return; // The committer ends by itself after the callback it is in.
        }
        let mut committer = lock(&self.committer);
        if let Some(thread) = committer.take() {
            // The committer catches its own panics and reports them as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn new(epoch: u64, options: Options, next_seq: u64, segments: Vec<Segment>) -> Self {
        let queue = Queue {
            groups: VecDeque::new(),
            reusable: Vec::new(),
            next_seq,
            pending_bytes: 0,
            release_before: 0,
            closing: false,
            committer_idle: false,
            failed: None,
            on_failure: Vec::new(),
        };
        Self {
            epoch,
            options,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            table: Mutex::new(Table {
                segments,
                ..Table::default()
            }),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    fn submit(&self, batch: &Batch, done: Done) -> Result<Seqs, JournalError> {
        self.check_size(batch)?;
        let mut queue = self.queue();
        let seqs = queue.push(batch, done, self.options.max_pending_bytes, self.group_limit())?;
        let wake = std::mem::take(&mut queue.committer_idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(seqs)
    }

    fn check_size(&self, batch: &Batch) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Err(JournalError::EmptyBatch);
        }
        let record_limit = u64::from(self.options.max_record_bytes);
        if batch.largest() > record_limit {
            return Err(JournalError::TooLarge {
                bytes: batch.largest(),
                limit: record_limit,
            });
        }
        let batch_limit = self.options.max_pending_bytes.min(MAX_BYTES);
        if batch.bytes() > batch_limit {
            return Err(JournalError::TooLarge {
                bytes: batch.bytes(),
                limit: batch_limit,
            });
        }
        Ok(())
    }

    /// A group that fits into an empty segment unless a single batch does not.
    fn group_limit(&self) -> usize {
        let segment = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX);
        MAX_FRAME_RECORDS.min(segment / 2)
    }

    fn release_before(&self, seq: u64) {
        let mut queue = self.queue();
        // Records that do not exist yet cannot be unneeded.
        queue.release_before = queue.release_before.max(seq.min(queue.next_seq));
        drop(queue);
        self.wake.notify_one();
    }

    fn stats(&self) -> Stats {
        let pending_bytes = self.queue().pending_bytes;
        let table = self.table();
        let disk: u64 = table.segments.iter().map(|segment| segment.info.disk_bytes).sum();
        Stats {
            pending_bytes,
            segments: table.segments.len() as u64,
            disk_bytes: disk + table.spare_bytes,
            ..table.stats
        }
    }

    /// Waits for something to do, at most `patience`. `released` is the release mark already handled.
    pub(crate) fn next_work(&self, released: u64, patience: std::time::Duration) -> Work {
        let mut queue = self.queue();
        loop {
            if let Some(group) = queue.groups.pop_front() {
                return Work::Commit(group, queue.release_before);
            }
            if queue.release_before > released {
                return Work::Release(queue.release_before);
            }
            if queue.closing {
                return Work::Close;
            }
            queue.committer_idle = true;
            let (guard, waited) = self
                .wake
                .wait_timeout(queue, patience)
                .unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.committer_idle = false;
            if waited.timed_out() && queue.groups.is_empty() {
                return Work::Look;
            }
        }
    }

    /// The bytes of a group no longer wait: it is durable, and is about to be acknowledged.
    pub(crate) fn settle(&self, bytes: u64) {
        let mut queue = self.queue();
        queue.pending_bytes = queue.pending_bytes.saturating_sub(bytes);
    }

    /// Takes an acknowledged group back for its buffers.
    pub(crate) fn reuse(&self, group: Group) {
        self.queue().reuse(group);
    }

    /// Makes `error` the answer to `in_flight`, to everything that waits and to everything that comes.
    pub(crate) fn fail(&self, error: JournalError, in_flight: Vec<(Seqs, Done)>) {
        let mut queue = self.queue();
        let error = queue.failed.get_or_insert(error).clone();
        let groups = std::mem::take(&mut queue.groups);
        let hooks = std::mem::take(&mut queue.on_failure);
        queue.pending_bytes = 0;
        drop(queue);
        let queued = groups.into_iter().flat_map(|group| group.waiting);
        for (_, done) in in_flight.into_iter().chain(queued) {
            // The journal has failed already; a panic can add nothing to that.
            let _ = guarded(|| done(Err(error.clone())));
        }
        for hook in hooks {
            let _ = guarded(|| hook(error.clone()));
        }
    }

    /// Blocks until the handle is closed. What a failed committer does while it still holds the lock.
    pub(crate) fn wait_for_close(&self) {
        let mut queue = self.queue();
        while !queue.closing {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        // Dropped outside of the queue's lock, because a hook may own a handle.
        let hooks = std::mem::take(&mut queue.on_failure);
        drop(queue);
        drop(hooks);
    }
}

impl Queue {
    fn push(
        &mut self,
        batch: &Batch,
        done: Done,
        pending_limit: u64,
        group_limit: usize,
    ) -> Result<Seqs, JournalError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.closing {
            return Err(JournalError::Closed);
        }
        let pending = self.pending_bytes;
        if pending + batch.bytes() > pending_limit {
            return Err(JournalError::Backlog {
                pending,
                limit: pending_limit,
            });
        }
        let seqs = Seqs {
            first: self.next_seq,
            last: self.next_seq + u64::from(batch.count()) - 1,
        };
        self.next_seq = seqs.last + 1;
        self.pending_bytes += batch.bytes();
        let group = self.gathering(batch, group_limit);
        group.buffer.extend_from_slice(batch.encoded());
        group.count += batch.count();
        group.waiting.push((seqs, done));
        Ok(seqs)
    }

    /// The group the batch belongs to: the last one, unless it is full.
    fn gathering(&mut self, batch: &Batch, limit: usize) -> &mut Group {
        let fits = self.groups.back().is_some_and(|group| {
            group.buffer.len() + batch.encoded().len() <= limit
                && group.count.checked_add(batch.count()).is_some()
        });
        if !fits {
            let mut group = self.reusable.pop().unwrap_or_default();
            group.buffer.resize(FRAME_HEADER, 0);
            group.first_seq = self.next_seq - u64::from(batch.count());
            self.groups.push_back(group);
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn reuse(&mut self, mut group: Group) {
        if self.reusable.len() < 3 && group.buffer.capacity() <= 2 * MAX_FRAME_RECORDS {
            group.buffer.clear();
            group.waiting.clear();
            group.count = 0;
            self.reusable.push(group);
        }
    }
}

impl Group {
    /// Bytes its batches were counted with.
    pub(crate) fn bytes(&self) -> u64 {
        (self.buffer.len() - FRAME_HEADER) as u64
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }
}

/// Runs owner code, turning a panic into its message.
pub(crate) fn guarded(run: impl FnOnce()) -> Result<(), String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown".to_owned())
    })
}

/// Locks a mutex whose data is consistent after every statement, so that a panic elsewhere does no harm.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
