//! The manifest: what an owner found at its takeover, and up to where it believes earlier owners.
//!
//! `manifest-EPOCH` is written once, complete and durable, before its owner creates its first segment. From
//! then on an earlier owner that wakes late can change nothing: what it appends lies behind the sealed
//! length, and what it creates carries an older epoch. The text is JSON and one line with its checksum.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::epoch::sync_dir;
use crate::error::{OpenError, open_io};
use crate::format::VERSION;
use crate::names;

/// What the owner of `epoch` took over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) epoch: u64,
    /// Segments created by this owner, or by an earlier one too late to count, have at least this id.
    pub(crate) next_id: u64,
    /// Number of the first record this owner writes.
    pub(crate) next_seq: u64,
    /// Records below are not needed.
    pub(crate) released: u64,
    /// The segments that hold everything before `next_seq`, oldest first, which is by id.
    pub(crate) sealed: Vec<Sealed>,
}

/// A segment of an earlier owner, and how much of it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    /// The epoch in the segment's header.
    pub(crate) epoch: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// Valid length.
    pub(crate) bytes: u64,
}

impl Manifest {
    /// What holds before the first owner.
    pub(crate) fn initial() -> Self {
        Self {
            version: VERSION,
            next_id: 1,
            next_seq: 1,
            ..Self::default()
        }
    }

    /// Number of the first record that existed when the manifest was written.
    pub(crate) fn first_seq(&self) -> u64 {
        self.sealed
            .first()
            .map_or(self.next_seq, |sealed| sealed.first_seq)
    }

    /// Writes the manifest so that it is there completely or not at all, and every name given before it too. Its own
    /// name is durable with the next sync of the directory.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), OpenError> {
        let draft = dir.join(names::manifest_draft(self.epoch));
        let text = self.encode().map_err(|e| open_io("encode", &draft, e))?;
        let mut file = File::create(&draft).map_err(|e| open_io("create", &draft, e))?;
        file.write_all(&text).map_err(|e| open_io("write", &draft, e))?;
        file.sync_all().map_err(|e| open_io("sync", &draft, e))?;
        // The segments have their new names durably before the manifest that demands them has its own. After
        // the draft, because syncing that has mostly brought the names along.
        sync_dir(dir).map_err(|e| open_io("sync", dir, e))?;
        let path = dir.join(names::manifest(self.epoch));
        std::fs::rename(&draft, &path).map_err(|e| open_io("rename", &draft, e))
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        let crc = crc32c::crc32c(&text);
        text.extend_from_slice(format!("\ncrc32c:{crc:08x}\n").as_bytes());
        Ok(text)
    }

    /// Reads the manifest of `epoch`. The outer `io::Error` says that it could not be read at all.
    pub(crate) fn read(dir: &Path, epoch: u64) -> io::Result<Result<Self, OpenError>> {
        let path = dir.join(names::manifest(epoch));
        let text = std::fs::read(&path)?;
        Ok(Self::decode(&text, &path, epoch))
    }

    fn decode(text: &[u8], path: &Path, epoch: u64) -> Result<Self, OpenError> {
        let corrupt = |offset: usize, why: String| OpenError::Corrupt {
            file: path.to_owned(),
            offset: offset as u64,
            why,
        };
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let (json, trailer) = text.split_at(end);
        let crc = crc32c::crc32c(json);
        if trailer != format!("\ncrc32c:{crc:08x}\n").as_bytes() {
            return Err(corrupt(end, "the checksum of the manifest is wrong".to_owned()));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|e| corrupt(e.column(), e.to_string()))?;
        if manifest.version != VERSION {
            let (file, version) = (path.to_owned(), manifest.version);
            return Err(OpenError::UnknownVersion {
                file,
                version,
                supported: VERSION,
            });
        }
        if manifest.epoch != epoch {
            return Err(corrupt(
                0,
                format!("the manifest of epoch {} lies under this name", manifest.epoch),
            ));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let sealed = Sealed {
            id: 3,
            epoch: 6,
            first_seq: 10,
            last_seq: 19,
            bytes: 4096,
        };
        Manifest {
            version: VERSION,
            epoch: 7,
            next_id: 4,
            next_seq: 20,
            released: 10,
            sealed: vec![sealed],
        }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        sample().write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path(), 7).unwrap().unwrap(), sample());
    }

    #[test]
    fn a_manifest_with_any_byte_changed_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        sample().write(dir.path()).unwrap();
        let path = dir.path().join(names::manifest(7));
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            let read = Manifest::decode(&damaged, &path, 7);
            assert!(
                matches!(read, Err(OpenError::Corrupt { .. })),
                "byte {at}: {read:?}"
            );
        }
    }
}
