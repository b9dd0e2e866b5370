//! What a server answers: one JSON document for each kind of request, the same through every door.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Attributes, Epoch, GroupName, GroupView, LeaseId, MemberName, Name, NamingError, Object, ObjectKind,
    Revision, Withholding,
};

/// A name and what it is bound to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The name, from the root.
    pub name: Name,
    /// What it is bound to.
    pub object: Object,
    /// Its attributes.
    #[serde(default)]
    pub attributes: Attributes,
    /// The revision that made the binding.
    pub created: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// Who exported it; absent where somebody bound it by hand.
    #[serde(default)]
    pub owner: Option<Arc<Owner>>,
}

/// The group that exported a binding, and under which epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The group.
    pub group: GroupName,
    /// The epoch of its active member.
    pub epoch: Epoch,
}

/// What stands directly below a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The context.
    pub name: Name,
    /// The revision of the directory that was read.
    pub revision: Revision,
    /// Sorted by name. Withheld exports are not among them.
    pub entries: Vec<ListEntry>,
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The full name, from the root.
    pub name: Name,
    /// What it is bound to.
    #[serde(rename = "type")]
    pub kind: ObjectKind,
    /// The binding, where bindings were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<Binding>>,
}

/// The attributes of one binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributesOf {
    /// The name, where links led to.
    pub name: Name,
    /// The revision that last changed the binding.
    pub revision: Revision,
    /// Those that were asked for and are there.
    pub attributes: Attributes,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The base, where links led to.
    pub name: Name,
    /// The revision of the directory that was read: the whole search reads this one.
    pub revision: Revision,
    /// What matches, sorted by name, with the attributes asked for. Withheld exports are not among them.
    pub entries: Vec<Arc<Binding>>,
    /// `SizeLimitExceeded` or `TimeLimitExceeded` where the entries are not all there are.
    #[serde(default)]
    pub stopped: Option<NamingError>,
}

/// Every group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    /// The revision of the directory that was read.
    pub revision: Revision,
    /// Sorted by name.
    pub groups: Vec<GroupView>,
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The revision the write made, or the directory's where it changed nothing.
    pub revision: Revision,
    /// Whether it changed anything.
    pub changed: bool,
    /// What else the kind of write answers.
    pub detail: WriteDetail,
}

/// What a kind of write answers beside its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteDetail {
    /// Nothing more.
    None,
    /// A join.
    Joined {
        /// The membership, to be renewed.
        lease: LeaseId,
        /// The group's epoch.
        epoch: Epoch,
        /// The group's active member.
        active: Option<MemberName>,
    },
    /// A claim that was granted.
    Claimed {
        /// The epoch granted: higher than every epoch before it.
        epoch: Epoch,
    },
}

/// The answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// How long the membership goes on without another renewal, in milliseconds from its receipt.
    pub lease_ms: u64,
    /// The group's epoch: a member that believes to be active under a lower one is not.
    pub epoch: Epoch,
    /// The group's active member.
    pub active: Option<MemberName>,
}

/// A naming server as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Made with the data directory; servers of one directory share it.
    pub cluster_id: String,
    /// The Raft node id of this server.
    pub node: u64,
    /// The current Raft term.
    pub term: u64,
    /// The Raft leader, where one is known.
    pub leader: Option<u64>,
    /// The revision of the state it reads from.
    pub revision: Revision,
    /// The program's version.
    pub version: String,
}

/// What one write did to one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The name.
    pub name: Name,
    /// What happened to it.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// What happened to a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is bound now and was not.
    Bound {
        /// The binding.
        binding: Arc<Binding>,
    },
    /// It is bound to something else, or with other attributes, now.
    Rebound {
        /// The binding.
        binding: Arc<Binding>,
    },
    /// It is no longer bound.
    Unbound,
    /// It is known and not available.
    Withheld {
        /// The group that exports it.
        group: GroupName,
        /// The epoch under which it was exported.
        epoch: Epoch,
        /// Why it is withheld.
        withheld: Withholding,
    },
}

/// Everything one committed write did: watchers get it whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The revision of the write.
    pub revision: Revision,
    /// What it did, sorted by name.
    pub changes: Vec<Change>,
}

/// What a watch sends, in this order: `State`s and a `Bookmark` unless it resumes, then `Changed`s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WatchMessage {
    /// A name that is bound, or known and withheld, as the watch begins.
    State {
        /// The name and how it stands.
        #[serde(flatten)]
        change: Change,
    },
    /// Everything up to this revision has been sent.
    Bookmark {
        /// Resume after this one.
        revision: Revision,
    },
    /// A committed write that touched what is watched.
    Changed {
        /// The revision of the write.
        revision: Revision,
        /// What it did to the names watched, sorted by name.
        changes: Vec<Change>,
        /// The window over which clients should act on this, in milliseconds, so that not all come at once.
        spread_ms: u64,
    },
    /// The revisions to resume from are no longer kept, or the watcher was too slow. The watch has ended:
    /// start one without a revision.
    Compacted {
        /// The oldest revision that can be resumed after.
        oldest: Revision,
    },
}
