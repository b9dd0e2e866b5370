//! The state out of a stream of bytes, read piece by piece and believed only where it is consistent.
//!
//! Invariant: whatever the bytes are, reading them ends in a directory that keeps every invariant of this
//! crate, or in an error; memory is bounded by what was pushed.

use std::sync::Arc;

use daymark_naming_proto::{Binding, Failover, Name, Object, Revision};
use imbl::{OrdMap, OrdSet};

use crate::EPOCH_MAX;
use crate::directory::Directory;
use crate::groups::{Group, Membership};
use crate::history::History;
use crate::limits::Limits;
use crate::operations::{Answered, Operations};
use crate::snapshot::{Counts, LENGTH_BYTES, MAGIC, Record, StoredAnswer, StoredGroup, VERSION};
use crate::tree::Tree;

/// How much of a whole snapshot is handed to the reader at a time.
const PIECE_BYTES: usize = 1024 * 1024;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u16>();

/// Why bytes are not a snapshot that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// They begin otherwise.
    #[error("not a snapshot of a directory")]
    NotASnapshot,
    /// They were written in a format that this program does not know.
    #[error("snapshot format {found} is unknown: this program reads format {VERSION}")]
    UnknownVersion {
        /// The format they say they have.
        found: u16,
    },
    /// A record cannot be decoded.
    #[error("record {record} of the snapshot is damaged: {reason}")]
    Damaged {
        /// Which one, counted from 0.
        record: u64,
        /// What the decoder found.
        reason: String,
    },
    /// A record can be decoded but contradicts those before it.
    #[error("record {record} of the snapshot is inconsistent: {reason}")]
    Inconsistent {
        /// Which one, counted from 0.
        record: u64,
        /// What is wrong.
        reason: String,
    },
    /// They end before the snapshot does.
    #[error("the snapshot ends early, in record {record}")]
    Truncated {
        /// Which record is not whole, counted from 0.
        record: u64,
    },
}

impl Directory {
    /// The directory of a whole snapshot.
    ///
    /// # Errors
    /// `SnapshotError` when the bytes are not one.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = SnapshotReader::new();
        for piece in bytes.chunks(PIECE_BYTES) {
            reader.push(piece)?;
        }
        reader.finish()
    }
}

/// Reads a snapshot from pieces of any size.
#[derive(Default)]
pub struct SnapshotReader {
    /// Bytes of a record that is not whole yet.
    pending: Vec<u8>,
    has_head: bool,
    /// How many records were read.
    record: u64,
    builder: Option<Builder>,
    is_whole: bool,
    failed: Option<SnapshotError>,
}

impl SnapshotReader {
    /// A reader that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// `SnapshotError` as soon as one is certain; from then on every call answers it again.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(piece);
        match self.read(&bytes) {
            Ok(used) => {
                bytes.drain(..used);
                self.pending = bytes;
                Ok(())
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The directory, if the snapshot is whole.
    ///
    /// # Errors
    /// `Truncated` where it is not, or what `push` answered.
    pub fn finish(self) -> Result<Directory, SnapshotError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.builder {
            Some(builder) if self.is_whole => Ok(builder.directory),
            Some(_) | None => Err(SnapshotError::Truncated { record: self.record }),
        }
    }

    /// Reads every whole record and says how many bytes that were.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, SnapshotError> {
        let mut used = 0;
        if !self.has_head {
            if !is_head_whole(bytes)? {
                return Ok(0);
            }
            self.has_head = true;
            used = HEAD_BYTES;
        }
        while let Some(bytes) = whole_record(&bytes[used..]) {
            let record = decode(bytes).map_err(|reason| SnapshotError::Damaged {
                record: self.record,
                reason,
            })?;
            self.take(record).map_err(|reason| self.inconsistent(reason))?;
            self.record += 1;
            used += LENGTH_BYTES + bytes.len();
        }
        if self.is_whole && used < bytes.len() {
            return Err(self.inconsistent("bytes follow the end"));
        }
        Ok(used)
    }

    fn inconsistent(&self, reason: &str) -> SnapshotError {
        SnapshotError::Inconsistent {
            record: self.record,
            reason: reason.to_owned(),
        }
    }

    fn take(&mut self, record: Record) -> Result<(), &'static str> {
        if self.is_whole {
            return Err("a record follows the end");
        }
        let Some(builder) = &mut self.builder else {
            let Record::Start { revision, limits } = record else {
                return Err("the start is missing");
            };
            self.builder = Some(Builder::new(revision, limits));
            return Ok(());
        };
        match record {
            Record::Start { .. } => Err("it starts twice"),
            Record::Group(group) => builder.group(group),
            Record::Bindings(bindings) => bindings.into_iter().try_for_each(|b| builder.binding(b)),
            Record::Answers(answers) => answers.into_iter().try_for_each(|a| builder.answer(a)),
            Record::End(counts) => {
                builder.end(counts)?;
                self.is_whole = true;
                Ok(())
            }
        }
    }
}

/// Whether the bytes hold the whole head. An error as soon as they cannot be one.
fn is_head_whole(bytes: &[u8]) -> Result<bool, SnapshotError> {
    let seen = bytes.len().min(MAGIC.len());
    if bytes[..seen] != MAGIC[..seen] {
        return Err(SnapshotError::NotASnapshot);
    }
    let Some(version) = bytes[seen..].first_chunk() else {
        return Ok(false);
    };
    match u16::from_le_bytes(*version) {
        VERSION => Ok(true),
        found => Err(SnapshotError::UnknownVersion { found }),
    }
}

/// The first record, without its length, if it is all there.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.get(..length)
}

fn decode(bytes: &[u8]) -> Result<Record, String> {
    match postcard::take_from_bytes::<Record>(bytes) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// A directory on its way out of records. The reasons it answers become `Inconsistent`.
struct Builder {
    directory: Directory,
    /// The name read last.
    last: Option<Name>,
    /// The contexts above the name read last, and that name where it is a context; the root first.
    contexts: Vec<Name>,
    counts: Counts,
}

impl Builder {
    fn new(revision: Revision, limits: Limits) -> Self {
        Self {
            directory: Directory {
                limits,
                revision,
                tree: Tree::new(),
                groups: OrdMap::new(),
                promised: OrdMap::new(),
                operations: Operations::default(),
                history: History::after(revision),
            },
            last: None,
            contexts: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn group(&mut self, stored: StoredGroup) -> Result<(), &'static str> {
        if self.counts.bindings > 0 || self.counts.answers > 0 {
            return Err("a group comes late");
        }
        let members = stored.members.into_iter().map(|member| {
            let membership = Membership {
                lease: member.lease,
                joined: member.joined,
            };
            (member.name, Arc::new(membership))
        });
        let group = Group {
            epoch: stored.epoch,
            active: stored.active,
            members: members.collect(),
            exports: OrdSet::new(),
            exports_epoch: stored.exports_epoch,
            withheld: stored.withheld,
            failovers: stored.failovers.into_iter().collect(),
            revision: stored.revision,
        };
        self.check_group(&group)?;
        self.directory.promise(&stored.name, &group);
        let groups = &mut self.directory.groups;
        if groups.insert(stored.name, Arc::new(group)).is_some() {
            return Err("a group comes twice");
        }
        self.counts.groups += 1;
        Ok(())
    }

    fn check_group(&self, group: &Group) -> Result<(), &'static str> {
        let revision = self.directory.revision;
        if group.epoch.0 > EPOCH_MAX || group.exports_epoch > group.epoch {
            return Err("a group's epochs do not fit");
        }
        if group.revision > revision || group.members.values().any(|m| m.lease.0 > revision.0) {
            return Err("a group is newer than the snapshot");
        }
        let failovers = &group.failovers;
        let is_in_order = failovers
            .iter()
            .zip(failovers.iter().skip(1))
            .all(|(a, b)| a.epoch < b.epoch);
        let is_past =
            |failover: &Arc<Failover>| failover.epoch <= group.epoch && failover.revision <= group.revision;
        if !is_in_order || !failovers.iter().all(is_past) {
            return Err("a group's failovers do not fit");
        }
        match &group.active {
            Some(active) if !group.members.contains_key(active) => Err("an active member is no member"),
            None if group.withheld.is_none() && group.epoch.0 > 0 => Err("exports without an active member"),
            Some(_) | None => Ok(()),
        }
    }

    fn binding(&mut self, binding: Arc<Binding>) -> Result<(), &'static str> {
        if self.counts.answers > 0 {
            return Err("a name comes late");
        }
        if binding.revision > self.directory.revision || binding.created > binding.revision {
            return Err("a name is newer than the snapshot");
        }
        self.check_place(&binding)?;
        if let Some(owner) = &binding.owner {
            let group = self.directory.groups.get_mut(&owner.group);
            let group = group.ok_or("a name belongs to a group that is not there")?;
            let fits = group.exports_epoch == owner.epoch && owner.epoch.0 > 0;
            if !fits || binding.object == Object::Context {
                return Err("a name does not fit its group");
            }
            Arc::make_mut(group).exports.insert(binding.name.clone());
        }
        if binding.object == Object::Context {
            self.contexts.push(binding.name.clone());
        }
        self.last = Some(binding.name.clone());
        self.directory.tree.insert(binding);
        self.counts.bindings += 1;
        Ok(())
    }

    /// Names come in their order, each below a context that came before it.
    fn check_place(&mut self, binding: &Binding) -> Result<(), &'static str> {
        let name = &binding.name;
        let Some(last) = &self.last else {
            let is_root = name.is_root() && binding.object == Object::Context && binding.owner.is_none();
            return if is_root {
                Ok(())
            } else {
                Err("the root is missing")
            };
        };
        if name <= last {
            return Err("a name is out of order");
        }
        while self
            .contexts
            .last()
            .is_some_and(|context| !name.starts_with(context))
        {
            self.contexts.pop();
        }
        match self.contexts.last() {
            Some(context) if context.components().len() + 1 == name.components().len() => Ok(()),
            Some(_) | None => Err("a name stands below no context"),
        }
    }

    fn answer(&mut self, answer: StoredAnswer) -> Result<(), &'static str> {
        if answer.written.revision > self.directory.revision {
            return Err("an answer is newer than the snapshot");
        }
        let limits = &self.directory.limits;
        let operations = &mut self.directory.operations;
        let answered = Answered {
            written: answer.written,
            at_unix_ms: answer.at_unix_ms,
        };
        let is_full = operations.len() as u64 >= limits.operations_kept;
        if is_full || !operations.push(answer.op, answered) {
            return Err("an answer too many");
        }
        self.counts.answers += 1;
        Ok(())
    }

    fn end(&self, counts: Counts) -> Result<(), &'static str> {
        if counts != self.counts || self.counts.bindings == 0 {
            return Err("entries are missing");
        }
        Ok(())
    }
}
