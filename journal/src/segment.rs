//! Segment files of this owner: creating, filling, and putting into service.
//!
//! A file gets its segment name only after its header is durable, so a segment with a bad header is damage
//! and never an unfinished creation. The name is durable before anything in the segment is acknowledged.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::epoch::sync_dir;
use crate::format::{SEGMENT_HEADER, SegmentHeader, TERMINATOR};
use crate::names;

/// Bytes written between two looks at the stop flag while a file is filled with zeros.
const FILL_STEP: usize = 1 << 20;

/// What every segment begins with.
const START: usize = SEGMENT_HEADER + TERMINATOR;

/// A file of this owner that is not a segment yet, or not any more.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) recycled: bool,
}

/// A segment of this owner that can be appended to.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) size: u64,
    /// Filled with zeros (or with stale frames), so that commits do not change its length.
    pub(crate) filled: bool,
    pub(crate) recycled: bool,
    naming: Naming,
}

/// How far a segment has come to its name.
#[derive(Debug)]
enum Naming {
    /// It is called so instead.
    Spare(PathBuf),
    /// It may be called otherwise after a crash.
    Given,
    Durable,
}

impl Spare {
    /// Creates an empty file for the owner of `epoch`.
    pub(crate) fn create(dir: &Path, epoch: u64, number: u64) -> io::Result<Self> {
        let path = dir.join(names::spare(epoch, number));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            file,
            path,
            size: 0,
            recycled: false,
        })
    }

    /// Fills the file with zeros up to `size`, durably. Returns `false` if `stop` said so.
    pub(crate) fn fill(&mut self, disk: &Disk, size: u64, stop: impl Fn() -> bool) -> io::Result<bool> {
        let zeros = vec![0; FILL_STEP];
        while self.size < size {
            if stop() {
                return Ok(false);
            }
            let step = (size - self.size).min(FILL_STEP as u64);
            disk.write_all_at(&self.file, &zeros[..step as usize], self.size)?;
            // Step by step, so that a commit never waits behind a large write of ours.
            disk.sync(&self.file)?;
            self.size += step;
        }
        Ok(true)
    }

    /// Puts the file into service as segment `id`: header first, durably, and then the name, durably too.
    pub(crate) fn promote(self, dir: &Path, disk: &Disk, header: SegmentHeader) -> io::Result<SegmentFile> {
        self.begin(disk, header)?;
        let mut segment = self.into_segment(dir, header);
        segment.sync_header()?;
        segment.name()?;
        segment.sync_name(dir)?;
        Ok(segment)
    }

    /// Writes the header.
    pub(crate) fn begin(&self, disk: &Disk, header: SegmentHeader) -> io::Result<()> {
        let mut start = [0; START];
        start[..SEGMENT_HEADER].copy_from_slice(&header.encode());
        disk.write_all_at(&self.file, &start, 0)
    }

    /// The segment of a file that begins with `header`. It does not have the name of one yet.
    pub(crate) fn into_segment(self, dir: &Path, header: SegmentHeader) -> SegmentFile {
        SegmentFile {
            file: self.file,
            path: dir.join(names::segment(header.id, header.epoch)),
            header,
            size: self.size.max(START as u64),
            filled: self.size > 0,
            recycled: self.recycled,
            naming: Naming::Spare(self.path),
        }
    }
}

impl SegmentFile {
    /// Creates a segment that grows as it is written, which costs no more than two syncs.
    pub(crate) fn create(dir: &Path, disk: &Disk, header: SegmentHeader, number: u64) -> io::Result<Self> {
        Spare::create(dir, header.epoch, number)?.promote(dir, disk, header)
    }

    /// Makes the header durable, which comes before the name.
    pub(crate) fn sync_header(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it its name, if it has not got it yet.
    pub(crate) fn name(&mut self) -> io::Result<()> {
        if let Naming::Spare(spare) = &self.naming {
            std::fs::rename(spare, &self.path)?;
            self.naming = Naming::Given;
        }
        Ok(())
    }

    /// Makes the name durable, if it is not yet.
    pub(crate) fn sync_name(&mut self, dir: &Path) -> io::Result<()> {
        if matches!(self.naming, Naming::Given) {
            sync_dir(dir)?;
            self.naming = Naming::Durable;
        }
        Ok(())
    }
}
