//! The thread that makes groups durable and acknowledges them.
//!
//! The commit rule: write, sync, *then* re-read the epoch, and acknowledge only if it is still ours. Whoever
//! takes over writes its epoch first and reads afterwards; so either it finds this group, or this thread
//! finds its epoch. A failure of any step is final: nothing is retried and nothing more is acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::epoch::sync_dir;
use crate::error::JournalError;
use crate::format::{FRAME_HEADER, FrameHeader, SEGMENT_HEADER, SegmentHeader, TERMINATOR};
use crate::housekeeper::{Housekeeper, Retired};
use crate::journal::{Group, Segment, Shared, Work, guarded};
use crate::names;
use crate::open::Base;
use crate::segment::SegmentFile;
use crate::types::{Appended, SegmentInfo};

/// How often an idle committer looks whether the directory is still its own.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Everything the thread owns, the lock included.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) base: Base,
    pub(crate) housekeeper: Housekeeper,
    pub(crate) active: Active,
    /// Number of the first record that is not durable yet.
    pub(crate) next_seq: u64,
    /// The release mark in the last durable frame or the manifest.
    pub(crate) released: u64,
    /// The last release asked for that was looked at.
    pub(crate) release_seen: u64,
}

/// The segment being appended to.
pub(crate) struct Active {
    pub(crate) file: SegmentFile,
    /// Where the next frame goes.
    pub(crate) at: u64,
}

impl Active {
    pub(crate) fn new(file: SegmentFile) -> Self {
        Self {
            file,
            at: SEGMENT_HEADER as u64,
        }
    }

    fn is_empty(&self) -> bool {
        self.at == SEGMENT_HEADER as u64
    }

    /// How the segment looks from outside when it is put into service.
    pub(crate) fn as_segment(&self, next_seq: u64) -> Segment {
        let header = self.file.header;
        let info = SegmentInfo {
            id: header.id,
            epoch: header.epoch,
            first_seq: next_seq,
            last_seq: next_seq - 1,
            bytes: self.at,
            disk_bytes: self.file.size,
            active: true,
        };
        Segment {
            info,
            own: true,
            filled: self.file.filled,
        }
    }
}

impl Committer {
    /// Serves until the journal is closed; then stops the housekeeper and releases the lock.
    /// After a failure the lock stays until the owner has noticed and closes.
    /// `leftovers` are files of earlier owners that the manifest does not need.
    pub(crate) fn run(mut self, leftovers: Vec<PathBuf>) {
        let shared = Arc::clone(&self.shared);
        if let Err(message) = guarded(|| self.serve(leftovers)) {
            shared.fail(JournalError::CommitterPanicked { message }, Vec::new());
        }
        self.housekeeper.stop();
        shared.wait_for_close();
    }

    fn serve(&mut self, leftovers: Vec<PathBuf>) {
        if let Err(failed) = self.begin() {
            let error = self.reason(failed);
            return self.shared.fail(error, Vec::new());
        }
        self.housekeeper.delete(leftovers);
        self.housekeeper.want_segment();
        loop {
            let alive = match self.shared.next_work(self.release_seen, LOOK_EVERY) {
                Work::Commit(group, release) => self.commit(group, release),
                Work::Release(release) => self.release(release),
                Work::Look => self
                    .confirm()
                    .map_err(|e| self.shared.fail(e, Vec::new()))
                    .is_ok(),
                Work::Close => false,
            };
            if !alive {
                return;
            }
        }
    }

    /// What whoever opened the journal did not wait for: the manifest has its name durably, and then the first segment
    /// of the epoch that it belongs to gets its own, which is made durable with the first frame.
    fn begin(&mut self) -> Result<(), JournalError> {
        let file = &mut self.active.file;
        file.sync_header()
            .map_err(|e| JournalError::sync(&file.path, e))?;
        sync_dir(&self.base.dir).map_err(|e| JournalError::sync(&self.base.dir, e))?;
        file.name().map_err(|e| JournalError::write(&file.path, e))
    }

    /// Makes one group durable and answers its owners. `false` after a failure.
    fn commit(&mut self, mut group: Group, release: u64) -> bool {
        let mark = self.mark_for(release);
        let bytes = group.bytes();
        let header = FrameHeader {
            first_seq: group.first_seq,
            released: mark,
            count: group.count,
        };
        if let Err(error) = self.make_durable(&mut group.buffer, header) {
            self.shared.fail(error, group.waiting);
            return false;
        }
        self.next_seq = group.next_seq();
        self.publish(u64::from(group.count), bytes);
        self.retire_below(mark);
        self.shared.settle(bytes);
        self.acknowledge(group)
    }

    fn acknowledge(&self, mut group: Group) -> bool {
        let epoch = self.shared.epoch;
        let mut panicked = None;
        for (seqs, done) in group.waiting.drain(..) {
            if let Err(message) = guarded(|| done(Ok(Appended { seqs, epoch }))) {
                panicked = Some(message);
            }
        }
        self.shared.reuse(group);
        match panicked {
            None => true,
            Some(message) => {
                self.shared
                    .fail(JournalError::CommitterPanicked { message }, Vec::new());
                false
            }
        }
    }

    /// Makes a release durable with a frame of its own, because no group is waiting that could carry it.
    fn release(&mut self, release: u64) -> bool {
        let mark = self.mark_for(release);
        if mark == self.released {
            return true;
        }
        let header = FrameHeader {
            first_seq: self.next_seq,
            released: mark,
            count: 0,
        };
        let mut frame = vec![0; FRAME_HEADER];
        if let Err(error) = self.make_durable(&mut frame, header) {
            self.shared.fail(error, Vec::new());
            return false;
        }
        self.publish(0, 0);
        self.retire_below(mark);
        true
    }

    /// The first record that stays if everything below `release` may go: whole segments only.
    fn mark_for(&mut self, release: u64) -> u64 {
        if release <= self.release_seen {
            return self.released;
        }
        self.release_seen = release;
        let table = self.shared.table();
        let gone = table
            .segments
            .iter()
            .take_while(|s| !s.info.active && s.info.last_seq < release);
        gone.last()
            .map_or(self.released, |segment| segment.info.last_seq + 1)
            .max(self.released)
    }

    /// The commit rule: write, sync, look.
    fn make_durable(&mut self, frame: &mut Vec<u8>, header: FrameHeader) -> Result<(), JournalError> {
        match self.append(frame, header) {
            Ok(()) => self.confirm(),
            Err(failed) => Err(self.reason(failed)),
        }
    }

    /// A successor deletes our spare files, so the first thing an overtaken owner notices may be that one of them is
    /// gone. Then the newer epoch is the reason to report.
    fn reason(&self, failed: JournalError) -> JournalError {
        match self.confirm() {
            Err(superseded @ JournalError::Superseded { .. }) => superseded,
            Ok(()) | Err(_) => failed,
        }
    }

    /// Writes one frame and syncs it.
    fn append(&mut self, frame: &mut Vec<u8>, header: FrameHeader) -> Result<(), JournalError> {
        let length = frame.len() as u64;
        self.make_room(length + TERMINATOR as u64)?;
        let Active { file, at } = &mut self.active;
        header.seal(file.header.seed(), frame);
        frame.extend_from_slice(&[0; TERMINATOR]);
        let disk = &self.base.disk;
        disk.write_all_at(&file.file, frame, *at)
            .map_err(|e| JournalError::write(&file.path, e))?;
        let started = Instant::now();
        if let Err(e) = disk.sync(&file.file) {
            disk.forget(&file.file, *at, length);
            return Err(JournalError::sync(&file.path, e));
        }
        file.sync_name(&self.base.dir)
            .map_err(|e| JournalError::sync(&self.base.dir, e))?;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        *at += length;
        file.size = file.size.max(*at + TERMINATOR as u64);
        let mut table = self.shared.table();
        table.stats.syncs += 1;
        table.stats.sync_nanos += nanos;
        table.stats.sync_nanos_max = table.stats.sync_nanos_max.max(nanos);
        Ok(())
    }

    /// The second half of the commit rule: is the directory still ours?
    fn confirm(&self) -> Result<(), JournalError> {
        let epochs = &self.base.epochs;
        let unreadable = |why| JournalError::EpochUnreadable {
            path: epochs.path().to_owned(),
            why,
        };
        // The lock first: whoever takes it by force writes an epoch next, which is the better answer.
        let locked = self.base.lock.is_ours();
        let current = epochs.current().map_err(|e| unreadable(Arc::new(e)))?;
        if current > self.shared.epoch {
            return Err(JournalError::Superseded { epoch: current });
        }
        if current < self.shared.epoch {
            return Err(unreadable(Arc::new(std::io::Error::other(
                "our own marker is gone",
            ))));
        }
        if !locked {
            return Err(JournalError::LockLost {
                path: self.base.lock.path().to_owned(),
            });
        }
        Ok(())
    }

    fn publish(&self, records: u64, bytes: u64) {
        let mut table = self.shared.table();
        table.stats.appended_records += records;
        table.stats.appended_bytes += bytes;
        if let Some(segment) = table.segments.last_mut() {
            segment.info.last_seq = self.next_seq - 1;
            segment.info.bytes = self.active.at;
            segment.info.disk_bytes = self.active.file.size;
        }
    }

    /// Sees to it that the active segment can take `bytes` more: a full one is followed by the prepared
    /// one, and so is a growing one as soon as a filled one lies ready.
    fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        let active = &self.active;
        let full = active.at + bytes > self.shared.options.segment_bytes && !active.is_empty();
        if !active.file.filled && active.at + bytes > self.shared.options.segment_bytes / 4 {
            self.housekeeper.hurry();
        }
        let outgrown = !active.file.filled && self.shared.options.preallocate && self.housekeeper.is_ready();
        if !full && !outgrown {
            return Ok(());
        }
        match self.housekeeper.take_segment(active.file.header.id) {
            Some(prepared) => self.roll(prepared),
            None if full => {
                let created = self.create_in_haste()?;
                self.roll(created);
            }
            None => self.housekeeper.want_segment(),
        }
        Ok(())
    }

    fn create_in_haste(&self) -> Result<SegmentFile, JournalError> {
        self.shared.table().stats.unprepared += 1;
        let id = self.housekeeper.segment_id();
        let path = self.base.dir.join(names::segment(id, self.shared.epoch));
        let header = SegmentHeader::new(id, self.shared.epoch);
        let number = self.housekeeper.spare_number();
        SegmentFile::create(&self.base.dir, &self.base.disk, header, number)
            .map_err(|e| JournalError::write(&path, e))
    }

    fn roll(&mut self, next: SegmentFile) {
        let left = std::mem::replace(&mut self.active, Active::new(next));
        let mut table = self.shared.table();
        table.stats.recycled += u64::from(self.active.file.recycled);
        if let Some(last) = table.segments.last_mut() {
            last.info.active = false;
        }
        if left.is_empty() {
            table.segments.pop();
            let retired = Retired {
                path: left.file.path,
                size: left.file.size,
                reusable: false,
            };
            self.housekeeper.retire([retired]);
        }
        table.segments.push(self.active.as_segment(self.next_seq));
        drop(table);
        // The segment that was left can be released now.
        self.release_seen = 0;
        self.housekeeper.want_segment();
    }

    /// Hands segments below a mark that has just become durable to the housekeeper.
    fn retire_below(&mut self, mark: u64) {
        if mark == self.released {
            return;
        }
        self.released = mark;
        let segment_bytes = self.shared.options.segment_bytes;
        let mut table = self.shared.table();
        let gone = table
            .segments
            .iter()
            .take_while(|s| !s.info.active && s.info.last_seq < mark)
            .count();
        let retired: Vec<Retired> = table
            .segments
            .drain(..gone)
            .map(|s| self.retired(&s, segment_bytes))
            .collect();
        drop(table);
        self.housekeeper.retire(retired);
    }

    fn retired(&self, segment: &Segment, segment_bytes: u64) -> Retired {
        let info = &segment.info;
        Retired {
            path: self.base.dir.join(names::segment(info.id, self.shared.epoch)),
            size: info.disk_bytes,
            reusable: segment.own && segment.filled && info.disk_bytes == segment_bytes,
        }
    }
}
