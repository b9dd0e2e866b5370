//! Who this server is, and numbers nobody else makes.
//!
//! The cluster id is made with the data directory and kept there, together with the limits of the directory,
//! which decide what a write answers: the log must be read again under the limits it was written under.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use daymark_naming_core::Limits;
use daymark_naming_proto::OpId;
use serde::{Deserialize, Serialize};

use crate::error::StartError;

/// The file in the data directory.
const FILE: &str = "cluster.json";

/// What a data directory says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// 32 hexadecimal digits; servers of one directory share it.
    pub(crate) cluster_id: String,
    /// The Raft node id of this server.
    pub(crate) node: u64,
    /// The limits of the directory.
    pub(crate) limits: Limits,
}

impl Identity {
    /// Reads the identity of a data directory, or makes one where nothing was ever written. The directory's lock
    /// must be held.
    pub(crate) fn of(data: &Path, limits: Limits, is_new: bool) -> Result<Self, StartError> {
        let path = data.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| StartError::Damaged {
                path,
                why: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_new => Err(StartError::Damaged {
                path,
                why: "it is missing beside a log that was written to; without it the log cannot be read as it was \
                      written"
                    .to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self {
                    cluster_id: format!("{:032x}", random()),
                    node: 1,
                    limits,
                };
                identity
                    .store(data)
                    .map_err(|source| StartError::DataDirectory { path, source })?;
                Ok(identity)
            }
            Err(source) => Err(StartError::DataDirectory { path, source }),
        }
    }

    fn store(&self, data: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace(&data.join(FILE), |file| file.write_all(&text)).map(|_| ())
    }
}

/// Makes a directory where it is missing, so that it stays: whatever is durable in it is found again.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => sync_parent(directory),
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    // The parent of a bare name is the empty path.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a file whole: under another name first, then durably, then in place.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<PathBuf> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_parent(path)?;
    Ok(path.to_owned())
}

/// 128 bits from the system's random source, by way of the standard library's hash keys.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    (half() << 64) | half()
}

/// An operation id for a write that brought none.
pub(crate) fn new_op() -> OpId {
    static PREFIX: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = *PREFIX.get_or_init(random) << 64;
    OpId(prefix | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}
