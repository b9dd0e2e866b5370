//! The exclusive lock of a journal directory.
//!
//! It decides who may open the directory, and says who does. It never protects the data by itself: a lock
//! can be broken by force or forgotten by a file system, so safety comes from the epoch.
//!
//! `DIR/lock` is held with `flock`. Taking it by force leaves the frozen holder its lock and puts another
//! file in its place: a new lock file is written and locked under a temporary name and renamed over `lock`.
//! Invariant: the lock is ours as long as the path names the file we locked.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{OpenError, open_io};

/// How often a lock file that was replaced between opening and locking it is tried again.
const REPLACED_TRIES: u32 = 16;

/// Who holds a journal, as written into its lock file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// Process id on `host`.
    pub pid: u32,
    /// Name of the machine.
    pub host: String,
    /// Name of the group member, or whatever tells the operator which process this is.
    pub member: String,
    /// When the lock was taken, in milliseconds since 1970 UTC.
    pub since_unix_ms: u64,
}

impl Holder {
    /// This process, on this machine, now.
    #[must_use]
    pub fn here(member: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            member: member.into(),
            since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            host,
            member,
            since_unix_ms,
        } = self;
        write!(
            f,
            "{member} (pid {pid} on {host}, since {since_unix_ms} ms after 1970)"
        )
    }
}

/// The lock, held until this value is dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl DirLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn acquire(dir: &Path, holder: &Holder) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        for _ in 0..REPLACED_TRIES {
            let file = open_lock_file(&path)?;
            if !try_flock(&file).map_err(|e| open_io("lock", &path, e))? {
                return Err(OpenError::LockedBy {
                    dir: dir.to_owned(),
                    holder: read_holder(&path),
                });
            }
            let lock = Self::of(file, path.clone())?;
            if lock.is_ours() {
                write_holder(&lock.file, holder).map_err(|e| open_io("write", &path, e))?;
                return Ok(lock);
            }
        }
        Err(OpenError::LockLost { path })
    }

    /// Takes the lock, replacing the lock file if somebody still holds it.
    pub(crate) fn acquire_forced(dir: &Path, holder: &Holder) -> Result<Self, OpenError> {
        match Self::acquire(dir, holder) {
            Err(OpenError::LockedBy { .. }) => Self::replace(dir, holder),
            other => other,
        }
    }

    fn replace(dir: &Path, holder: &Holder) -> Result<Self, OpenError> {
        let temporary = dir.join(temporary_name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(|e| open_io("create", &temporary, e))?;
        if !try_flock(&file).map_err(|e| open_io("lock", &temporary, e))? {
            return Err(OpenError::LockLost { path: temporary });
        }
        write_holder(&file, holder).map_err(|e| open_io("write", &temporary, e))?;
        file.sync_all().map_err(|e| open_io("sync", &temporary, e))?;
        let path = dir.join("lock");
        std::fs::rename(&temporary, &path).map_err(|e| open_io("rename", &temporary, e))?;
        let lock = Self::of(file, path)?;
        if lock.is_ours() {
            Ok(lock)
        } else {
            Err(OpenError::LockLost {
                path: lock.path.clone(),
            })
        }
    }

    fn of(file: File, path: PathBuf) -> Result<Self, OpenError> {
        let metadata = file.metadata().map_err(|e| open_io("stat", &path, e))?;
        Ok(Self {
            file,
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether the path still names the file we locked.
    pub(crate) fn is_ours(&self) -> bool {
        match rustix::fs::stat(&self.path) {
            Ok(stat) => stat.st_dev == self.device && stat.st_ino == self.inode,
            Err(_) => false,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Unlocked by hand, so that a descriptor a child inherited cannot keep the lock.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// `lock-PID-N-NANOS.tmp`: free of clashes between processes and within one.
fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!(
        "lock-{}-{}-{nanos}.tmp",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn open_lock_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| open_io("open", path, e))
}

fn try_flock(file: &File) -> io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn write_holder(mut file: &File, holder: &Holder) -> io::Result<()> {
    let text = serde_json::to_vec(holder)?;
    file.set_len(0)?;
    io::Seek::rewind(&mut file)?;
    file.write_all(&text)
}

/// Longest lock file that is read back; anything longer was not written by us.
const MAX_HOLDER_BYTES: u64 = 64 * 1024;

fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_HOLDER_BYTES)
        .read_to_end(&mut text)
        .ok()?;
    serde_json::from_slice(&text).ok()
}
