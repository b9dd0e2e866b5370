//! The state as a stream of bytes, written piece by piece.
//!
//! Layout: the magic `DAYMARKD`, the format version (u16, little endian), then records, each a length (u64,
//! little endian) and that many bytes of postcard: one `Start`; the `Group`s; the `Bindings`, sorted, the root
//! first; the `Answers`, oldest first; one `End`. Two directories in the same state write the same bytes. The history of
//! changes is not written, nor are export sets, which are the bindings a group owns. Checksums belong to
//! whoever stores the bytes.

use std::ops::Bound;
use std::sync::Arc;

use daymark_naming_proto::{
    Binding, Epoch, Failover, GroupName, JoinRequest, LeaseId, MemberName, Name, OpId, Revision, Withholding,
    Written,
};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::groups::Group;
use crate::limits::{Limits, attribute_bytes, object_bytes};

pub(crate) const MAGIC: &[u8; 8] = b"DAYMARKD";
pub(crate) const VERSION: u16 = 4;
pub(crate) const LENGTH_BYTES: usize = size_of::<u64>();
/// The size of a record that the writer aims at. A record is larger only where one entry is.
const RECORD_BYTES: u64 = 256 * 1024;
const ANSWERS_PER_RECORD: usize = 4096;

/// One record. The order of variants and fields is the format.
#[derive(Serialize, Deserialize)]
pub(crate) enum Record {
    Start { revision: Revision, limits: Limits },
    Group(StoredGroup),
    Bindings(Vec<Arc<Binding>>),
    Answers(Vec<StoredAnswer>),
    End(Counts),
}

/// How much a snapshot holds, to notice one that was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) groups: u64,
    pub(crate) bindings: u64,
    pub(crate) answers: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredGroup {
    pub(crate) name: GroupName,
    pub(crate) epoch: Epoch,
    pub(crate) active: Option<MemberName>,
    pub(crate) members: Vec<StoredMember>,
    pub(crate) exports_epoch: Epoch,
    pub(crate) withheld: Option<Withholding>,
    pub(crate) failovers: Vec<Arc<Failover>>,
    pub(crate) revision: Revision,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredMember {
    pub(crate) name: MemberName,
    pub(crate) lease: LeaseId,
    pub(crate) joined: JoinRequest,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAnswer {
    pub(crate) op: OpId,
    pub(crate) at_unix_ms: u64,
    pub(crate) written: Arc<Written>,
}

impl Directory {
    /// The state in pieces of some 256 KiB, made as they are asked for. The pieces belong to this revision
    /// whatever is written meanwhile, and the iterator can move to another thread.
    #[must_use]
    pub fn snapshot_chunks(&self) -> SnapshotChunks {
        SnapshotChunks {
            directory: self.clone(),
            next: Part::Start,
        }
    }

    /// The state in one piece.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in self.snapshot_chunks() {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    }
}

/// The pieces of a snapshot; together, in order, they are its bytes.
pub struct SnapshotChunks {
    directory: Directory,
    next: Part,
}

/// What the next piece holds.
enum Part {
    Start,
    /// Groups after this one.
    Groups(Option<GroupName>),
    /// Bindings after this one.
    Bindings(Option<Name>),
    /// Answers from this place on.
    Answers(usize),
    End,
    Nothing,
}

impl Iterator for SnapshotChunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (record, next) = match &self.next {
                Part::Start => (Some(self.start()), Part::Groups(None)),
                Part::Groups(after) => self.group(after.as_ref()),
                Part::Bindings(after) => self.bindings(after.as_ref()),
                Part::Answers(from) => self.answers(*from),
                Part::End => (Some(framed(&self.end())), Part::Nothing),
                Part::Nothing => return None,
            };
            self.next = next;
            if record.is_some() {
                return record;
            }
        }
    }
}

impl SnapshotChunks {
    fn start(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(framed(&Record::Start {
            revision: self.directory.revision,
            limits: self.directory.limits,
        }));
        bytes
    }

    fn group(&self, after: Option<&GroupName>) -> (Option<Vec<u8>>, Part) {
        let groups = &self.directory.groups;
        let found = match after {
            Some(after) => groups
                .range::<_, GroupName>((Bound::Excluded(after), Bound::Unbounded))
                .next(),
            None => groups.iter().next(),
        };
        match found {
            Some((name, group)) => {
                let record = Record::Group(stored_group(name, group));
                (Some(framed(&record)), Part::Groups(Some(name.clone())))
            }
            None => (None, Part::Bindings(None)),
        }
    }

    fn bindings(&self, after: Option<&Name>) -> (Option<Vec<u8>>, Part) {
        let tree = &self.directory.tree;
        let mut page: Vec<Arc<Binding>> = Vec::new();
        let root = Name::root();
        let first = if after.is_none() { tree.find(&root) } else { None };
        let mut bytes = 0;
        for binding in first.into_iter().chain(tree.after(after.unwrap_or(&root))) {
            if bytes >= RECORD_BYTES {
                break;
            }
            bytes += binding_bytes(binding);
            page.push(Arc::clone(binding));
        }
        match page.last().map(|binding| binding.name.clone()) {
            Some(last) => (Some(framed(&Record::Bindings(page))), Part::Bindings(Some(last))),
            None => (None, Part::Answers(0)),
        }
    }

    fn answers(&self, from: usize) -> (Option<Vec<u8>>, Part) {
        let page = self.directory.operations.page(from, ANSWERS_PER_RECORD);
        if page.is_empty() {
            return (None, Part::End);
        }
        let next = Part::Answers(from + page.len());
        let stored = page.into_iter().map(|(op, answer)| StoredAnswer {
            op,
            at_unix_ms: answer.at_unix_ms,
            written: answer.written,
        });
        (Some(framed(&Record::Answers(stored.collect()))), next)
    }

    fn end(&self) -> Record {
        Record::End(Counts {
            groups: self.directory.groups.len() as u64,
            bindings: self.directory.tree.len() as u64 + 1,
            answers: self.directory.operations.len() as u64,
        })
    }
}

fn stored_group(name: &GroupName, group: &Group) -> StoredGroup {
    let members = group.members.iter().map(|(name, membership)| StoredMember {
        name: name.clone(),
        lease: membership.lease,
        joined: membership.joined.clone(),
    });
    StoredGroup {
        name: name.clone(),
        epoch: group.epoch,
        active: group.active.clone(),
        members: members.collect(),
        exports_epoch: group.exports_epoch,
        withheld: group.withheld.clone(),
        failovers: group.failovers.iter().cloned().collect(),
        revision: group.revision,
    }
}

fn binding_bytes(binding: &Binding) -> u64 {
    let texts = object_bytes(&binding.object) + attribute_bytes(&binding.attributes);
    32 + binding.name.as_str().len() as u64 + texts
}

/// A record with its length before it.
fn framed(record: &Record) -> Vec<u8> {
    // Memory takes every byte and every type here has a form without field names: only a mistake in this
    // crate could make this fail.
    let mut bytes = postcard::to_extend(record, vec![0; LENGTH_BYTES]).expect("a record has a postcard form");
    let length = (bytes.len() - LENGTH_BYTES) as u64;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}
