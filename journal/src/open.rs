//! Taking a directory over, one step at a time, in the order the commit rule demands:
//! lock ([`Locked`]), then the epoch ([`Fenced`]), then reading.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::epoch::{Epochs, sync_dir};
use crate::error::{OpenError, open_io};
use crate::journal::Journal;
use crate::lock::{DirLock, Holder};
use crate::names::FileName;
use crate::options::Options;
use crate::types::{Record, Recovery};

/// A directory whose exclusive lock this process holds. Nothing has been read or written yet.
///
/// Dropping it releases the lock.
#[derive(Debug)]
pub struct Locked {
    pub(crate) base: Base,
    epoch: u64,
}

/// A directory whose epoch is durably ours and whose records have not been read yet.
///
/// Dropping it releases the lock; the epoch stays written.
#[derive(Debug)]
pub struct Fenced {
    base: Base,
    epoch: u64,
}

/// What every step hands to the next.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) dir: PathBuf,
    pub(crate) lock: DirLock,
    pub(crate) epochs: Epochs,
    pub(crate) options: Options,
    pub(crate) disk: Disk,
}

impl Locked {
    /// Takes the exclusive lock of `dir`, which is created if only its last component is missing.
    ///
    /// # Errors
    /// [`OpenError::LockedBy`] if somebody else has it; [`OpenError::ParentMissing`],
    /// [`OpenError::NotADirectory`], [`OpenError::NotWritable`] if the place is wrong;
    /// [`OpenError::InvalidOption`] if `options` are out of range.
    pub fn acquire(dir: &Path, holder: &Holder, options: Options) -> Result<Self, OpenError> {
        Self::with(dir, options, |dir| DirLock::acquire(dir, holder))
    }

    /// Takes the lock although a frozen process still holds it: the operator's evidence that it may not
    /// serve any more. The frozen process finds out when it wakes, before it acknowledges anything.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), without `LockedBy`; [`OpenError::LockLost`] if two openers force.
    pub fn acquire_forced(dir: &Path, holder: &Holder, options: Options) -> Result<Self, OpenError> {
        Self::with(dir, options, |dir| DirLock::acquire_forced(dir, holder))
    }

    fn with(
        dir: &Path,
        options: Options,
        lock: impl FnOnce(&Path) -> Result<DirLock, OpenError>,
    ) -> Result<Self, OpenError> {
        options.check()?;
        create_dir(dir)?;
        let lock = lock(dir)?;
        let epochs = Epochs::open(dir)?;
        let base = Base {
            dir: dir.to_owned(),
            lock,
            epochs,
            options,
            disk: Disk::default(),
        };
        let epoch = base.highest_epoch()?;
        Ok(Self { base, epoch })
    }

    /// The highest epoch ever durably written here, 0 if the directory is new.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Writes `epoch` durably: from now on nobody with an older one acknowledges anything here.
    ///
    /// # Errors
    /// [`OpenError::StaleEpoch`] unless `epoch` is higher than every epoch ever written here;
    /// [`OpenError::LockLost`] if the lock was taken by force meanwhile.
    pub fn begin(self, epoch: u64) -> Result<Fenced, OpenError> {
        self.base.check_lock()?;
        let current = self.base.highest_epoch()?;
        if epoch <= current {
            return Err(OpenError::StaleEpoch {
                asked: epoch,
                current,
            });
        }
        self.base.epochs.claim(epoch)?;
        Ok(Fenced {
            base: self.base,
            epoch,
        })
    }
}

impl Fenced {
    /// The epoch this opener serves under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Shows every live record to `visit` in sequence order, cuts a torn tail, seals what was found and
    /// opens a new segment for appending. Records of released segments may still be shown, always as a
    /// contiguous run that ends in the live ones.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] with file and offset if durable records are damaged or missing,
    /// [`OpenError::Visitor`] with whatever `visit` returned, [`OpenError::Superseded`] or
    /// [`OpenError::LockLost`] if somebody took over meanwhile, [`OpenError::Vanished`] if files
    /// disappear under the reader. The lock is released with the error and nothing live was changed.
    pub fn recover<E>(
        self,
        visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(Journal, Recovery), OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        crate::recover::run(self.base, self.epoch, visit)
    }
}

impl Base {
    pub(crate) fn check_lock(&self) -> Result<(), OpenError> {
        if self.lock.is_ours() {
            Ok(())
        } else {
            Err(OpenError::LockLost {
                path: self.lock.path().to_owned(),
            })
        }
    }

    /// Fails unless the directory is still ours under `epoch`.
    pub(crate) fn check_owner(&self, epoch: u64) -> Result<(), OpenError> {
        let path = self.epochs.path();
        match self.epochs.current().map_err(|e| open_io("read", path, e))? {
            current if current > epoch => Err(OpenError::Superseded { epoch: current }),
            current if current < epoch => Err(OpenError::Corrupt {
                file: path.join(format!("{epoch:016x}")),
                offset: 0,
                why: "the epoch marker was deleted".to_owned(),
            }),
            _ => self.check_lock(),
        }
    }

    /// The highest epoch any file speaks of, so that deleted markers cannot bring an old epoch back.
    fn highest_epoch(&self) -> Result<u64, OpenError> {
        let path = self.epochs.path();
        let mut highest = self.epochs.current().map_err(|e| open_io("read", path, e))?;
        let entries = std::fs::read_dir(&self.dir).map_err(|e| open_io("list", &self.dir, e))?;
        for entry in entries {
            let name = entry.map_err(|e| open_io("list", &self.dir, e))?.file_name();
            let epoch = name.to_str().and_then(FileName::parse).and_then(FileName::epoch);
            highest = highest.max(epoch.unwrap_or(0));
        }
        Ok(highest)
    }
}

fn create_dir(dir: &Path) -> Result<(), OpenError> {
    match std::fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if dir.is_dir() {
                Ok(())
            } else {
                Err(OpenError::NotADirectory { path: dir.to_owned() })
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::ParentMissing { path: dir.to_owned() })
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            Err(OpenError::NotADirectory { path: dir.to_owned() })
        }
        Err(e) => Err(open_io("create", dir, e)),
    }
}

fn sync_parent(dir: &Path) -> Result<(), OpenError> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_dir(parent).map_err(|e| open_io("sync", parent, e))
}
