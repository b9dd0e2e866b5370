//! Epochs: which term of office the directory belongs to.
//!
//! Each epoch is a marker file `DIR/epochs/EPOCH`, created exclusively and never written again; the highest
//! one is the current epoch. Marker files, rather than one file that is overwritten, because a claimant
//! that was frozen in the middle of a takeover and wakes later must not be able to bring an old epoch back.
//! Invariant: the highest marker never decreases.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, open_io};
use crate::names::parse_hex;

/// How many markers below the current one are kept, for whoever reads the directory by eye.
const KEPT: usize = 4;

/// The `epochs` directory of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Epochs {
    path: PathBuf,
}

impl Epochs {
    /// Creates the directory of markers if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("epochs");
        match std::fs::create_dir(&path) {
            Ok(()) => sync_dir(dir).map_err(|e| open_io("sync", dir, e))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(open_io("create", &path, e)),
        }
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The highest marker, 0 if there is none. The directory is opened anew, so that a shared file system
    /// has to look again.
    pub(crate) fn current(&self) -> io::Result<u64> {
        let mut highest = 0;
        for entry in std::fs::read_dir(&self.path)? {
            if let Some(epoch) = entry?.file_name().to_str().and_then(parse_hex) {
                highest = highest.max(epoch);
            }
        }
        Ok(highest)
    }

    /// Writes `epoch` durably. Refuses one that is not higher than every other.
    pub(crate) fn claim(&self, epoch: u64) -> Result<(), OpenError> {
        let current = self.read_current()?;
        if epoch <= current {
            return Err(OpenError::StaleEpoch {
                asked: epoch,
                current,
            });
        }
        let marker = self.path.join(format!("{epoch:016x}"));
        match OpenOptions::new().write(true).create_new(true).open(&marker) {
            Ok(file) => file.sync_all().map_err(|e| open_io("sync", &marker, e))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(OpenError::StaleEpoch {
                    asked: epoch,
                    current: self.read_current()?,
                });
            }
            Err(e) => return Err(open_io("create", &marker, e)),
        }
        sync_dir(&self.path).map_err(|e| open_io("sync", &self.path, e))?;
        // Another claimant may have been faster between our look and our marker.
        match self.read_current()? {
            current if current == epoch => Ok(()),
            current => Err(OpenError::StaleEpoch {
                asked: epoch,
                current,
            }),
        }
    }

    fn read_current(&self) -> Result<u64, OpenError> {
        self.current().map_err(|e| open_io("read", &self.path, e))
    }

    /// Deletes old markers below `own`, except the last few. Never touches `own` or anything above it.
    pub(crate) fn prune(&self, own: u64) -> io::Result<()> {
        let mut older: Vec<u64> = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            older.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(parse_hex)
                    .filter(|epoch| *epoch < own),
            );
        }
        older.sort_unstable();
        let surplus = older.len().saturating_sub(KEPT);
        for epoch in &older[..surplus] {
            std::fs::remove_file(self.path.join(format!("{epoch:016x}")))?;
        }
        Ok(())
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_is_not_newer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(dir.path()).unwrap();
        epochs.claim(5).unwrap();
        for asked in [0, 4, 5] {
            let refused = epochs.claim(asked);
            assert!(
                matches!(refused, Err(OpenError::StaleEpoch { current: 5, .. })),
                "{refused:?}"
            );
        }
        assert_eq!(epochs.current().unwrap(), 5);
    }

    #[test]
    fn old_markers_go_and_newer_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(dir.path()).unwrap();
        for epoch in 1..=20 {
            epochs.claim(epoch).unwrap();
        }
        epochs.prune(10).unwrap();
        assert_eq!(epochs.current().unwrap(), 20);
        assert_eq!(std::fs::read_dir(epochs.path()).unwrap().count(), 15); // 6 to 9, and 10 to 20.
    }
}
