//! Snapshots as files.
//!
//! A file is a magic, then blocks: length (u32), CRC-32C (u32), both little endian, and that many bytes. The
//! first block says which log the snapshot stands for, the others are the directory as its own crate writes
//! it, an empty one ends the file. A file appears under its name only when it is whole and durable.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daymark_naming_core::{Directory, SnapshotReader};

use super::log::Size;
use super::types::SnapshotMeta;
use crate::identity::{make, replace};

const MAGIC: &[u8; 8] = b"DMKSNAP1";
const EXTENSION: &str = "snapshot";
/// The largest block that is read; the directory writes far smaller ones.
const BLOCK_BYTES_MAX: u32 = 256 << 20;

/// A snapshot that is whole and durable.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: Arc<Path>,
}

/// The directory where snapshots are.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDir {
    dir: Arc<Path>,
    writing: Arc<Writing>,
}

/// Whether snapshots may be written, and how much the newest one holds.
#[derive(Debug, Default)]
struct Writing {
    /// Held while a snapshot is written.
    turn: Mutex<()>,
    over: AtomicBool,
    newest: Mutex<Size>,
}

impl Writing {
    fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards files, and those are whole whatever happens.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_when_over(&self) -> io::Result<()> {
        if self.over.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "this replica stops: it writes no snapshot any more",
            ));
        }
        Ok(())
    }
}

impl SnapshotDir {
    /// The directory, made where it is missing. Drafts of a process that died are removed.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        make(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "draft") {
                fs::remove_file(path)?;
            }
        }
        let opened = Self {
            dir: dir.into(),
            writing: Arc::default(),
        };
        if let Some(newest) = opened.files()?.last() {
            let bytes = fs::metadata(newest)?.len();
            // How many names it holds is told once it is loaded.
            opened.note(Size { bytes, writes: 0 });
        }
        Ok(opened)
    }

    /// How much the newest snapshot holds; nothing where there is none.
    pub(super) fn newest_size(&self) -> Size {
        *self.newest_lock()
    }

    /// Takes down how many names the newest snapshot turned out to hold.
    pub(super) fn note_names(&self, names: usize) {
        self.newest_lock().writes = names as u64;
    }

    fn note(&self, size: Size) {
        *self.newest_lock() = size;
    }

    fn newest_lock(&self) -> MutexGuard<'_, Size> {
        // Two numbers are whole whatever happens.
        self.writing.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> io::Result<Option<SnapshotFile>> {
        Ok(self.files()?.pop().map(|path| SnapshotFile { path: path.into() }))
    }

    /// Every snapshot, the oldest first: the names carry the log index with leading zeros.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == EXTENSION) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Gives up the snapshot that is being written and all later ones. From its return on this process changes
    /// nothing here, so that the next one may own the directory. Blocks the thread for the write of one block.
    pub(crate) fn close(&self) {
        self.writing.over.store(true, Ordering::Release);
        drop(self.writing.turn());
    }

    /// Whether snapshots are given up for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.writing.over.load(Ordering::Acquire)
    }

    /// Writes a snapshot and removes the older ones. Blocks the thread.
    pub(crate) fn write(&self, meta: &SnapshotMeta, directory: &Directory) -> io::Result<SnapshotFile> {
        let _turn = self.writing.turn();
        let index = meta.last_log_id.map_or(0, |id| id.index());
        let path = self.dir.join(format!("{index:020}.{EXTENSION}"));
        let path = replace(&path, |file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            file.write_all(MAGIC)?;
            write_block(&mut file, &postcard::to_stdvec(meta).map_err(io::Error::other)?)?;
            for chunk in directory.snapshot_chunks() {
                self.writing.refuse_when_over()?;
                write_block(&mut file, &chunk)?;
            }
            write_block(&mut file, &[])?;
            file.flush()
        })?;
        self.note(Size {
            bytes: fs::metadata(&path)?.len(),
            writes: directory.names() as u64,
        });
        for older in self.files()?.into_iter().filter(|other| *other < path) {
            // One that stays costs disk, nothing else; the next snapshot tries again.
            let _ = fs::remove_file(older);
        }
        Ok(SnapshotFile { path: path.into() })
    }
}

impl SnapshotFile {
    /// What the snapshot stands for.
    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        let mut file = self.open()?;
        self.read_meta(&mut file)
    }

    /// The directory in it. Blocks the thread.
    pub(crate) fn read(&self) -> io::Result<Directory> {
        let mut file = self.open()?;
        self.read_meta(&mut file)?;
        let mut reader = SnapshotReader::new();
        loop {
            let block = self.read_block(&mut file)?;
            if block.is_empty() {
                return reader.finish().map_err(|error| self.damaged(error));
            }
            reader.push(&block).map_err(|error| self.damaged(error))?;
        }
    }

    fn open(&self) -> io::Result<BufReader<File>> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&self.path)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(self.damaged("it is no snapshot of this format"));
        }
        Ok(file)
    }

    fn read_meta(&self, file: &mut impl Read) -> io::Result<SnapshotMeta> {
        let block = self.read_block(file)?;
        postcard::from_bytes(&block).map_err(|error| self.damaged(error))
    }

    fn read_block(&self, file: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(|error| self.damaged(error))?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        let checksum = u32::from_le_bytes([e, f, g, h]);
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged(format!("a block of {length} bytes")));
        }
        let mut block = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut block)?;
        if block.len() != length as usize {
            return Err(self.damaged("it ends within a block"));
        }
        if crc32c::crc32c(&block) != checksum {
            return Err(self.damaged("a block does not match its checksum"));
        }
        Ok(block)
    }

    fn damaged(&self, why: impl std::fmt::Display) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("snapshot {}: {why}", self.path.display()),
        )
    }
}

fn write_block(file: &mut impl Write, block: &[u8]) -> io::Result<()> {
    let length = u32::try_from(block.len()).map_err(io::Error::other)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&crc32c::crc32c(block).to_le_bytes())?;
    file.write_all(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_naming_core::{Command, Limits};
    use daymark_naming_proto::{Attributes, Object, OpId, Write as NamingWrite};

    /// A directory whose snapshot has several hundred blocks.
    fn large() -> Directory {
        let mut directory = Directory::new(Limits::default());
        for n in 0_u32..1_500 {
            let name = format!("n{n}").parse().expect("a name");
            let address = "x".repeat(60_000);
            let write = NamingWrite::Bind {
                name,
                object: Object::Queue {
                    address: address.into(),
                },
                attributes: Attributes::new(),
            };
            let command = Command {
                op: OpId(u128::from(n)),
                at_unix_ms: 0,
                write,
            };
            directory.apply(&command).expect("accepted");
        }
        directory
    }

    fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(dir)
            .expect("a directory")
            .map(|e| e.expect("an entry"));
        let mut files: Vec<_> = entries
            .map(|e| (e.path(), e.metadata().expect("a file").len()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn whoever_stops_changes_no_snapshot_once_the_directory_is_given_up() {
        let parent = tempfile::tempdir().expect("a directory");
        let snapshots = SnapshotDir::open(parent.path().join("snapshots")).expect("opened");
        let directory = large();
        let (writer, copy) = (snapshots.clone(), directory.clone());
        let writing = std::thread::spawn(move || writer.write(&SnapshotMeta::default(), &copy).is_ok());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while files(&snapshots.dir).is_empty() {
            assert!(std::time::Instant::now() < deadline, "nothing is written");
            std::thread::yield_now();
        }
        snapshots.close();
        let given_up = files(&snapshots.dir);
        let finished = writing.join().expect("no panic");
        assert_eq!(files(&snapshots.dir), given_up);
        assert_eq!(snapshots.newest().expect("readable").is_some(), finished);
        assert!(snapshots.write(&SnapshotMeta::default(), &directory).is_err());
    }
}
