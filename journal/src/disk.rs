//! The writes and syncs of the commit path, in one place so that unit tests can make them fail.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// A multiple of every page size in use.
const PAGE: u64 = 64 * 1024;

/// Performs writes and syncs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<faults::Faults>,
}

impl Disk {
    pub(crate) fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_write(file, bytes, offset)?;
        file.write_all_at(bytes, offset)
    }

    /// Makes the contents durable (fdatasync).
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_sync()?;
        file.sync_data()
    }

    /// Drops cached pages whose sync failed. The kernel takes them for clean although the disk never got
    /// them; a successor on this machine has to read what is on the disk. Nothing depends on success.
    pub(crate) fn forget(&self, file: &File, offset: u64, length: u64) {
        let start = offset - offset % PAGE;
        let whole = NonZeroU64::new((offset + length - start).next_multiple_of(PAGE));
        let _ = rustix::fs::fadvise(file, start, whole, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(test)]
pub(crate) mod faults {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::io::Errno;

    use crate::journal::lock;

    /// What should go wrong next.
    #[derive(Default)]
    pub(crate) struct Faults {
        /// The next write stores only the given number of bytes and then fails like this.
        pub(crate) write: Mutex<Option<(usize, Errno)>>,
        /// The next sync fails like this.
        pub(crate) sync: Mutex<Option<Errno>>,
        /// Every write of nothing but zeros fails for want of room.
        pub(crate) refuse_zeros: AtomicBool,
        /// Runs before every sync.
        pub(crate) on_sync: Mutex<Option<Box<dyn FnMut() + Send>>>,
    }

    impl std::fmt::Debug for Faults {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Faults")
        }
    }

    impl Faults {
        pub(crate) fn before_write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            if self.refuse_zeros.load(Ordering::SeqCst) && bytes.iter().all(|byte| *byte == 0) {
                return Err(Errno::NOSPC.into());
            }
            match lock(&self.write).take() {
                None => Ok(()),
                Some((stored, errno)) => {
                    file.write_all_at(&bytes[..stored.min(bytes.len())], offset)?;
                    Err(errno.into())
                }
            }
        }

        pub(crate) fn before_sync(&self) -> io::Result<()> {
            if let Some(hook) = lock(&self.on_sync).as_mut() {
                hook();
            }
            lock(&self.sync).take().map_or(Ok(()), |errno| Err(errno.into()))
        }
    }
}
