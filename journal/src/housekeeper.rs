//! The second thread: prepares the next segment and removes what was released, so that commits never wait
//! for either.
//!
//! It acts on the committer's decisions and makes none. A file is removed only after the release mark above
//! it is durable, oldest first, each removal durable before the next, so that the segments that are left are
//! always an unbroken run up to the newest record. Only files this owner created are used again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::disk::Disk;
use crate::epoch::{Epochs, sync_dir};
use crate::format::SegmentHeader;
use crate::journal::{Shared, lock};
use crate::names;
use crate::segment::{SegmentFile, Spare};

/// Released files that are kept for use as segments.
const SPARES: usize = 2;

/// How long a new owner has the disk to itself: whoever waited for a takeover waits for its first commits.
const QUIET: Duration = Duration::from_millis(200);

/// The committer's side of the housekeeper.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// Where the two threads meet.
#[derive(Debug)]
struct Desk {
    orders: Mutex<Orders>,
    changed: Condvar,
    next_id: AtomicU64,
    next_spare: AtomicU64,
}

#[derive(Debug, Default)]
struct Orders {
    segment_wanted: bool,
    /// When preparing and deleting may begin; `None` for now.
    quiet_until: Option<Instant>,
    ready: Option<SegmentFile>,
    retired: VecDeque<Retired>,
    leftovers: Vec<PathBuf>,
    stop: bool,
}

/// A file that is not needed any more.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Whether it may be used again.
    pub(crate) reusable: bool,
}

struct Worker {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    dir: PathBuf,
    epochs: Epochs,
    disk: Disk,
    spares: Vec<Spare>,
}

impl Housekeeper {
    /// Starts the thread. `next_id` is the first id it may give to a segment.
    pub(crate) fn start(
        shared: Arc<Shared>,
        dir: PathBuf,
        epochs: Epochs,
        disk: Disk,
        next_id: u64,
    ) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            orders: Mutex::new(Orders {
                quiet_until: Some(Instant::now() + QUIET),
                ..Orders::default()
            }),
            changed: Condvar::new(),
            next_id: AtomicU64::new(next_id),
            next_spare: AtomicU64::new(1),
        });
        let mut worker = Worker {
            desk: Arc::clone(&desk),
            shared,
            dir,
            epochs,
            disk,
            spares: Vec::new(),
        };
        let builder = std::thread::Builder::new().name("journal-files".to_owned());
        let thread = builder.spawn(move || worker.run())?;
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// A number no spare file of this owner has had.
    pub(crate) fn spare_number(&self) -> u64 {
        self.desk.next_spare.fetch_add(1, Ordering::Relaxed)
    }

    /// An id above every segment's.
    pub(crate) fn segment_id(&self) -> u64 {
        self.desk.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for a segment to be prepared.
    pub(crate) fn want_segment(&self) {
        lock(&self.desk.orders).segment_wanted = true;
        self.desk.changed.notify_one();
    }

    /// The next segment is needed soon: preparing it begins now.
    pub(crate) fn hurry(&self) {
        if lock(&self.desk.orders).quiet_until.take().is_some() {
            self.desk.changed.notify_one();
        }
    }

    /// Whether a segment lies ready.
    pub(crate) fn is_ready(&self) -> bool {
        lock(&self.desk.orders).ready.is_some()
    }

    /// The prepared segment, if it comes after `active`. One that was overtaken by a segment created in
    /// haste is removed, because ids have to ascend with sequence numbers.
    pub(crate) fn take_segment(&self, active: u64) -> Option<SegmentFile> {
        let mut orders = lock(&self.desk.orders);
        let ready = orders.ready.take()?;
        if ready.header.id > active {
            return Some(ready);
        }
        let (path, size) = (ready.path, ready.size);
        orders.retired.push_back(Retired {
            path,
            size,
            reusable: ready.filled,
        });
        drop(orders);
        self.desk.changed.notify_one();
        None
    }

    /// Hands over segments below a durable release mark, oldest first.
    pub(crate) fn retire(&self, retired: impl IntoIterator<Item = Retired>) {
        lock(&self.desk.orders).retired.extend(retired);
        self.desk.changed.notify_one();
    }

    /// Hands over files earlier owners left behind.
    pub(crate) fn delete(&self, leftovers: Vec<PathBuf>) {
        lock(&self.desk.orders).leftovers.extend(leftovers);
        self.desk.changed.notify_one();
    }

    /// Stops the thread after the step it is in.
    pub(crate) fn stop(&mut self) {
        lock(&self.desk.orders).stop = true;
        self.desk.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there leaves unprepared and undeleted files, which the next owner removes.
            let _ = thread.join();
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Task {
    Remove(Retired),
    Prepare,
    Delete(PathBuf),
}

impl Worker {
    fn run(&mut self) {
        while let Some(task) = self.next_task() {
            if !self.is_owner() {
                return;
            }
            match task {
                Task::Remove(retired) => self.remove(retired),
                Task::Prepare => self.prepare(),
                Task::Delete(path) => {
                    // What cannot be deleted now is tried by the next owner.
                    let _ = fs::remove_file(path);
                }
            }
            self.publish_spare_bytes();
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut orders = lock(&self.desk.orders);
        loop {
            if orders.stop {
                return None;
            }
            if let Some(retired) = orders.retired.pop_front() {
                return Some(Task::Remove(retired));
            }
            if let Some(until) = orders.quiet_until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    orders.quiet_until = None;
                } else {
                    let woken = self.desk.changed.wait_timeout(orders, left);
                    orders = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                continue;
            }
            if std::mem::take(&mut orders.segment_wanted) && orders.ready.is_none() {
                return Some(Task::Prepare);
            }
            if let Some(path) = orders.leftovers.pop() {
                return Some(Task::Delete(path));
            }
            orders = self
                .desk
                .changed
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A look before every step. What follows is harmless even if a successor appears right after it: it
    /// will find the release mark, and files under the names of its own epoch.
    fn is_owner(&self) -> bool {
        self.epochs
            .current()
            .is_ok_and(|current| current == self.shared.epoch)
    }

    fn remove(&mut self, retired: Retired) {
        let keep = retired.reusable && self.spares.len() < SPARES;
        let removed = if keep {
            self.keep(&retired)
        } else {
            fs::remove_file(&retired.path)
        };
        // A file that stays is below the mark: the next owner deletes it.
        let _ = removed.and_then(|()| sync_dir(&self.dir));
    }

    fn keep(&mut self, retired: &Retired) -> io::Result<()> {
        let number = self.desk.next_spare.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(names::spare(self.shared.epoch, number));
        fs::rename(&retired.path, &path)?;
        // The new name is durable before the contents change.
        sync_dir(&self.dir)?;
        let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        self.spares.push(Spare {
            file,
            path,
            size: retired.size,
            recycled: true,
        });
        Ok(())
    }

    fn prepare(&mut self) {
        match self.try_prepare() {
            Ok(Some(segment)) => lock(&self.desk.orders).ready = Some(segment),
            Ok(None) => {}
            // The committer creates a segment itself when it needs one, and reports what goes wrong then.
            Err(_) => self.shared.table().stats.unprepared += 1,
        }
    }

    fn try_prepare(&mut self) -> io::Result<Option<SegmentFile>> {
        let epoch = self.shared.epoch;
        let spare = match self.spares.pop() {
            Some(spare) => spare,
            None => match self.fresh_spare()? {
                Some(spare) => spare,
                None => return Ok(None),
            },
        };
        let id = self.desk.next_id.fetch_add(1, Ordering::Relaxed);
        let path = spare.path.clone();
        let promoted = spare.promote(&self.dir, &self.disk, SegmentHeader::new(id, epoch));
        if promoted.is_err() {
            let _ = fs::remove_file(path);
        }
        promoted.map(Some)
    }

    fn fresh_spare(&self) -> io::Result<Option<Spare>> {
        let number = self.desk.next_spare.fetch_add(1, Ordering::Relaxed);
        let mut spare = Spare::create(&self.dir, self.shared.epoch, number)?;
        if !self.shared.options.preallocate {
            return Ok(Some(spare));
        }
        let stop = || lock(&self.desk.orders).stop;
        match spare.fill(&self.disk, self.shared.options.segment_bytes, stop) {
            Ok(true) => Ok(Some(spare)),
            Ok(false) => {
                fs::remove_file(&spare.path)?;
                Ok(None)
            }
            Err(e) => {
                let _ = fs::remove_file(&spare.path);
                Err(e)
            }
        }
    }

    fn publish_spare_bytes(&self) {
        let ready = lock(&self.desk.orders)
            .ready
            .as_ref()
            .map_or(0, |segment| segment.size);
        let spares: u64 = self.spares.iter().map(|spare| spare.size).sum();
        self.shared.table().spare_bytes = ready + spares;
    }
}
