//! Group commit for stores that are not journals: one thread makes durable together whatever waits.
//!
//! It decides sequence numbers, back-pressure and who is told what. How a group becomes durable is the matter
//! of a [`Sink`]. A failure of any step is final: nothing is retried and nothing more is acknowledged.
//! Invariant: after `failed` is set no group is queued any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use daymark_journal::{Appended, Batch, Seqs};

use super::{AppendError, Done, OnFailure, OpenStore, Usage};

/// Largest body of one record in bytes.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// Bytes that may wait to become durable.
const PENDING_BYTES_MAX: u64 = 256 << 20;
/// Bytes gathered into one group, unless a single batch is longer.
const GROUP_BYTES: u64 = 4 << 20;

/// Where groups go.
pub(super) trait Sink: Send + 'static {
    /// Makes a group durable and finds the epoch still ours.
    fn commit(&mut self, group: &Group) -> Result<(), AppendError>;

    /// Gives back some of what lies below `before`. Returns the bytes, and whether more is left.
    fn give_back(&mut self, before: u64) -> Result<(u64, bool), AppendError>;

    /// Whether the store is still ours, while there is nothing to do.
    fn look(&mut self) -> Result<(), AppendError>;

    /// How often to look.
    fn look_every(&self) -> Duration;
}

/// Batches that become durable and are acknowledged together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) batches: Vec<Batch>,
    pub(super) first_seq: u64,
    pub(super) count: u64,
    waiting: Vec<Waiting>,
    bytes: u64,
}

struct Waiting {
    seqs: Seqs,
    done: Done,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seqs.fmt(f)
    }
}

/// Where a store stands when it is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) epoch: u64,
    pub(super) next_seq: u64,
    /// Bytes in use, counted as [`Batch::bytes`] counts.
    pub(super) bytes: u64,
}

/// An open store with a committer thread. Dropping it closes the store.
pub(super) struct Committed {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    epoch: u64,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Bytes in use, and the first number that is not durable.
    used: AtomicU64,
    durable: AtomicU64,
}

struct Queue {
    groups: VecDeque<Group>,
    next_seq: u64,
    pending_bytes: u64,
    release_before: u64,
    closing: bool,
    failed: Option<AppendError>,
    on_failure: Vec<OnFailure>,
}

enum Work {
    Commit(Group),
    GiveBack(u64),
    Look,
    Close,
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed")
            .field("epoch", &self.shared.epoch)
            .field("failed", &self.failed())
            .finish()
    }
}

impl Committed {
    /// Starts the thread.
    pub(super) fn start(name: &str, start: Start, sink: impl Sink) -> std::io::Result<Self> {
        let queue = Queue {
            groups: VecDeque::new(),
            next_seq: start.next_seq,
            pending_bytes: 0,
            release_before: 0,
            closing: false,
            failed: None,
            on_failure: Vec::new(),
        };
        let shared = Arc::new(Shared {
            epoch: start.epoch,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            used: AtomicU64::new(start.bytes),
            durable: AtomicU64::new(start.next_seq),
        });
        let served = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name(name.to_owned());
        let thread = builder.spawn(move || serve(&served, sink))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl OpenStore for Committed {
    fn submit(&self, batch: Batch, done: Done) -> Result<Seqs, AppendError> {
        check_size(&batch)?;
        let seqs = self.shared.queue().push(batch, done)?;
        self.shared.wake.notify_one();
        Ok(seqs)
    }

    fn release_before(&self, seq: u64) {
        let mut queue = self.shared.queue();
        // Records that do not exist yet cannot be unneeded.
        queue.release_before = queue.release_before.max(seq.min(queue.next_seq));
        drop(queue);
        self.shared.wake.notify_one();
    }

    fn usage(&self) -> Usage {
        let bytes = self.shared.used.load(Ordering::Acquire);
        Usage {
            bytes,
            before: (bytes > 0).then(|| self.shared.durable.load(Ordering::Acquire)),
        }
    }

    fn next_seq(&self) -> u64 {
        self.shared.queue().next_seq
    }

    fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    fn failed(&self) -> Option<AppendError> {
        self.shared.queue().failed.clone()
    }

    fn on_failure(&self, hook: OnFailure) {
        let mut queue = self.shared.queue();
        match queue.failed.clone() {
            None => queue.on_failure.push(hook),
            Some(failed) => {
                drop(queue);
                hook(failed);
            }
        }
    }

    fn close(&self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_all();
        let thread = lock(&self.thread).take();
        let Some(thread) = thread else {
            return;
        };
        if thread.thread().id() != std::thread::current().id() {
            // The thread catches its own panics and reports them as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        self.close();
    }
}

fn check_size(batch: &Batch) -> Result<(), AppendError> {
    if batch.is_empty() {
        return Err(AppendError::EmptyBatch);
    }
    let too_large = |bytes, limit| Err(AppendError::TooLarge { bytes, limit });
    match (batch.largest(), batch.bytes()) {
        (largest, _) if largest > RECORD_BYTES_MAX => too_large(largest, RECORD_BYTES_MAX),
        (_, bytes) if bytes > PENDING_BYTES_MAX => too_large(bytes, PENDING_BYTES_MAX),
        _ => Ok(()),
    }
}

/// Serves until the store is closed or fails. The sink, and with it the lock, goes when the owner closes.
fn serve(shared: &Shared, mut sink: impl Sink) {
    let served = guarded(|| {
        let mut given_back = 0;
        while work(shared, &mut sink, &mut given_back) {}
    });
    if let Err(message) = served {
        shared.fail(AppendError::Panicked { message }, Group::default());
    }
    shared.wait_for_close();
}

fn work(shared: &Shared, sink: &mut impl Sink, given_back: &mut u64) -> bool {
    match shared.next_work(*given_back, sink.look_every()) {
        Work::Commit(group) => match sink.commit(&group) {
            Ok(()) => shared.acknowledge(group),
            Err(error) => shared.fail(error, group),
        },
        Work::GiveBack(before) => match sink.give_back(before) {
            Ok((bytes, more)) => {
                shared.used.fetch_sub(bytes, Ordering::AcqRel);
                if !more {
                    *given_back = before;
                }
                true
            }
            Err(error) => shared.fail(error, Group::default()),
        },
        Work::Look => match sink.look() {
            Ok(()) => true,
            Err(error) => shared.fail(error, Group::default()),
        },
        Work::Close => false,
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn next_work(&self, given_back: u64, patience: Duration) -> Work {
        let mut queue = self.queue();
        loop {
            if let Some(group) = queue.groups.pop_front() {
                return Work::Commit(group);
            }
            if queue.closing {
                return Work::Close;
            }
            if queue.release_before > given_back {
                return Work::GiveBack(queue.release_before);
            }
            let waited = self.wake.wait_timeout(queue, patience);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if waited.timed_out() && queue.groups.is_empty() && !queue.closing {
                return Work::Look;
            }
        }
    }

    /// Tells the owners of a durable group. `false` if one of them panicked.
    fn acknowledge(&self, group: Group) -> bool {
        self.used.fetch_add(group.bytes, Ordering::AcqRel);
        self.durable
            .store(group.first_seq + group.count, Ordering::Release);
        let mut queue = self.queue();
        queue.pending_bytes = queue.pending_bytes.saturating_sub(group.bytes);
        drop(queue);
        let mut panicked = None;
        for Waiting { seqs, done } in group.waiting {
            let epoch = self.epoch;
            if let Err(message) = guarded(|| done(Ok(Appended { seqs, epoch }))) {
                panicked = Some(message);
            }
        }
        match panicked {
            None => true,
            Some(message) => self.fail(AppendError::Panicked { message }, Group::default()),
        }
    }

    /// Makes `error` the answer to `in_flight`, to everything that waits and to everything that comes.
    fn fail(&self, error: AppendError, in_flight: Group) -> bool {
        let mut queue = self.queue();
        let error = queue.failed.get_or_insert(error).clone();
        let groups = std::mem::take(&mut queue.groups);
        let hooks = std::mem::take(&mut queue.on_failure);
        queue.pending_bytes = 0;
        drop(queue);
        for waiting in std::iter::once(in_flight)
            .chain(groups)
            .flat_map(|group| group.waiting)
        {
            // The store has failed already; a panic can add nothing to that.
            let _ = guarded(|| (waiting.done)(Err(error.clone())));
        }
        for hook in hooks {
            let _ = guarded(|| hook(error.clone()));
        }
        false
    }

    fn wait_for_close(&self) {
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
    fn push(&mut self, batch: Batch, done: Done) -> Result<Seqs, AppendError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.closing {
            return Err(AppendError::Closed);
        }
        let (bytes, count) = (batch.bytes(), batch.len() as u64);
        if self.pending_bytes + bytes > PENDING_BYTES_MAX {
            return Err(AppendError::Backlog {
                pending: self.pending_bytes,
                limit: PENDING_BYTES_MAX,
            });
        }
        let seqs = Seqs {
            first: self.next_seq,
            last: self.next_seq + count - 1,
        };
        self.next_seq += count;
        self.pending_bytes += bytes;
        let fits = |group: &Group| group.bytes + bytes <= GROUP_BYTES;
        if !self.groups.back().is_some_and(fits) {
            self.groups.push_back(Group {
                first_seq: seqs.first,
                ..Group::default()
            });
        }
        if let Some(group) = self.groups.back_mut() {
            group.bytes += bytes;
            group.count += count;
            group.batches.push(batch);
            group.waiting.push(Waiting { seqs, done });
        }
        Ok(seqs)
    }
}

/// Runs owner code, turning a panic into its message.
fn guarded(run: impl FnOnce()) -> Result<(), String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown".to_owned())
    })
}

/// Locks a mutex whose data is consistent after every statement, so that a panic elsewhere does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
