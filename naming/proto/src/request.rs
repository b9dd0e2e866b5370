//! What a client asks: the verbs, apart from how a door spells them.

use serde::{Deserialize, Serialize};

use crate::{
    Attributes, Epoch, Evidence, Export, FailoverReport, Filter, GroupName, JoinRequest, LeaseId, MemberName,
    Modification, Name, Object, OpId, Revision, WithdrawReason,
};

/// How a read may be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The state read must be at least this new. A server that lags behind it answers `Lagging`.
    pub min_revision: Option<Revision>,
    /// How long to wait for the name to be bound before answering that it is not, in milliseconds.
    pub wait_ms: Option<u64>,
    /// Whether the answer must be linearizable (`java.naming.authoritative`).
    pub strong: bool,
}

/// How far a watch reaches (`javax.naming.event.EventContext`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The name itself.
    #[default]
    Object,
    /// The names directly below it.
    OneLevel,
    /// The name and everything below it.
    Subtree,
}

impl Scope {
    /// The scope as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::OneLevel => "one-level",
            Self::Subtree => "subtree",
        }
    }

    /// Whether a watch on `base` with this scope sees `name`.
    #[must_use]
    pub fn covers(self, base: &Name, name: &Name) -> bool {
        match self {
            Self::Object => name == base,
            Self::OneLevel => {
                name.components().len() == base.components().len() + 1 && name.starts_with(base)
            }
            Self::Subtree => name.starts_with(base),
        }
    }
}

/// Everything a naming server can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The binding of a name, links followed. Answer: `Binding`.
    Lookup {
        /// The name.
        name: Name,
        /// How it may be answered.
        options: ReadOptions,
    },
    /// The binding of a name, the last link not followed. Answer: `Binding`.
    LookupLink {
        /// The name.
        name: Name,
        /// How it may be answered.
        options: ReadOptions,
    },
    /// The names and kinds directly below a context. Answer: `Listing` without bindings.
    List {
        /// The context.
        name: Name,
        /// How it may be answered.
        options: ReadOptions,
    },
    /// The names and bindings directly below a context. Answer: `Listing` with bindings.
    ListBindings {
        /// The context.
        name: Name,
        /// How it may be answered.
        options: ReadOptions,
    },
    /// Every group. Answer: `Groups`.
    Groups,
    /// One group. Answer: `GroupView`.
    Group {
        /// The group.
        group: GroupName,
    },
    /// The server itself. Answer: `Status`.
    Status,
    /// Keeps a membership alive. Answer: `Renewed`.
    Renew {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The membership, as the join returned it.
        lease: LeaseId,
    },
    /// Follow a name. Answers: `WatchMessage`s.
    Watch {
        /// The name.
        name: Name,
        /// How far around it.
        scope: Scope,
        /// Changes after this revision; without it the current state and a bookmark come first.
        from: Option<Revision>,
    },
    /// A write. Answer: `Written`.
    Write(WriteRequest),
    /// The attributes of a name, links followed. Answer: `AttributesOf`.
    Attributes {
        /// The name.
        name: Name,
        /// Which; `None` for all. One that the binding does not have is left out of the answer.
        ids: Option<Vec<String>>,
        /// How it may be answered.
        options: ReadOptions,
    },
    /// The bindings around a name that match a filter. Answer: `Found`.
    Search {
        /// The base. Links are followed to it, and not below it.
        name: Name,
        /// What to look for, and how far.
        search: Search,
        /// How it may be answered. A search never waits for a name.
        options: ReadOptions,
    },
    /// The last failovers of a group. Answer: `Timeline`.
    Timeline {
        /// The group.
        group: GroupName,
    },
}

/// What a search looks for, and how far it goes (`javax.naming.directory.SearchControls`).
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// How far around the base. Default `Object`; JNDI's own default is one-level.
    pub scope: Scope,
    /// What must match.
    pub filter: Filter,
    /// The most bindings to return. 0 or `None`: as many as the server allows.
    pub size_limit: Option<u64>,
    /// How long it may take, in milliseconds. 0 or `None`: as long as the server allows.
    pub time_limit_ms: Option<u64>,
    /// Which attributes to return; `None` for all, an empty list for none.
    pub ids: Option<Vec<String>>,
}

impl Search {
    /// A search of everything that `filter` matches within `scope`, all attributes returned.
    #[must_use]
    pub const fn new(scope: Scope, filter: Filter) -> Self {
        Self {
            scope,
            filter,
            size_limit: None,
            time_limit_ms: None,
            ids: None,
        }
    }
}

/// A write with its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Made by the client, so that the write can be repeated safely.
    pub op: OpId,
    /// What to write.
    pub write: Write,
}

/// Everything that changes the directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Write {
    /// Binds a name; refused if it is bound.
    Bind {
        /// The name. Its context must exist.
        name: Name,
        /// What to bind.
        object: Object,
        /// With which attributes.
        attributes: Attributes,
    },
    /// Binds a name whatever it was bound to.
    Rebind {
        /// The name. Its context must exist.
        name: Name,
        /// What to bind.
        object: Object,
        /// With which attributes; `None` keeps those it has.
        attributes: Option<Attributes>,
        /// The revision the binding must have now; 0 means that it must not be bound.
        expected: Option<Revision>,
    },
    /// Unbinds a name; a name that is not bound is no error.
    Unbind {
        /// The name.
        name: Name,
        /// The revision the binding must have now.
        expected: Option<Revision>,
    },
    /// Makes a subcontext; refused if the name is bound.
    CreateSubcontext {
        /// The name. Its context must exist.
        name: Name,
        /// With which attributes.
        attributes: Attributes,
    },
    /// Removes a subcontext; refused unless it is empty. One that does not exist is no error.
    DestroySubcontext {
        /// The name.
        name: Name,
    },
    /// A broker becomes a member of a group, as standby. A member of that name is replaced.
    Join {
        /// The group; it is made by its first member.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// What it says of itself.
        join: JoinRequest,
    },
    /// A member leaves its group.
    Leave {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The membership that ends.
        lease: LeaseId,
    },
    /// A member wants to become the active one.
    Claim {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The highest epoch in the store it holds; the epoch granted is higher.
        store_epoch: Epoch,
        /// Why it should be granted.
        evidence: Evidence,
    },
    /// The active member publishes its whole export set, in one revision.
    Publish {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The epoch it was granted.
        epoch: Epoch,
        /// Every name it offers.
        exports: Vec<Export>,
    },
    /// The active member takes its exports back, in one revision. They stay known as unavailable.
    Withdraw {
        /// The group.
        group: GroupName,
        /// The epoch it was granted.
        epoch: Epoch,
        /// Why.
        reason: WithdrawReason,
        /// When they are expected back, in milliseconds, where it knows.
        eta_ms: Option<u64>,
    },
    /// A membership was not renewed in time. Only servers say this, never clients.
    EndLease {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The membership that ends; another one of the same member goes on.
        lease: LeaseId,
    },
    /// Moves a binding, with everything below it where it is a context, to a name that is not bound. Refused
    /// where a group owns any of it. Links that point there are not changed.
    Rename {
        /// The name. A link at its end is moved, not followed.
        name: Name,
        /// The new name. Its context must exist.
        target: Name,
        /// The revision the binding must have now.
        expected: Option<Revision>,
    },
    /// Changes attributes, all of the modifications or none.
    ModifyAttributes {
        /// The name. A link at its end is changed itself, not followed.
        name: Name,
        /// The changes, in order.
        modifications: Vec<Modification>,
        /// The revision the binding must have now.
        expected: Option<Revision>,
    },
    /// Carries out all writes or none, as one revision. Each sees what those before it did.
    Transact {
        /// The writes, in order.
        writes: Vec<TransactWrite>,
    },
    /// The active member tells how it took over. What it told before of the same epoch is replaced.
    RecordFailover {
        /// The group.
        group: GroupName,
        /// The member.
        member: MemberName,
        /// The epoch it was granted.
        epoch: Epoch,
        /// What happened.
        report: FailoverReport,
    },
}

/// One write of a transaction: `{"rebind": {"name": …, "object": …}}`. Groups change by verbs that are
/// transactions themselves and are not among them, nor are transactions.
///
/// `expected` is the revision that the binding must have when its turn comes, 0 for a name that must not be
/// bound; a name that an earlier write of the same transaction has changed is at the revision being made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TransactWrite {
    /// As `Write::Bind`.
    Bind {
        /// The name.
        name: Name,
        /// What to bind.
        object: Object,
        /// With which attributes.
        #[serde(default)]
        attributes: Attributes,
    },
    /// As `Write::Rebind`.
    Rebind {
        /// The name.
        name: Name,
        /// What to bind.
        object: Object,
        /// With which attributes; `None` keeps those it has.
        #[serde(default)]
        attributes: Option<Attributes>,
        /// The revision the binding must have.
        #[serde(default)]
        expected: Option<Revision>,
    },
    /// As `Write::Unbind`.
    Unbind {
        /// The name.
        name: Name,
        /// The revision the binding must have.
        #[serde(default)]
        expected: Option<Revision>,
    },
    /// As `Write::CreateSubcontext`.
    CreateSubcontext {
        /// The name.
        name: Name,
        /// With which attributes.
        #[serde(default)]
        attributes: Attributes,
    },
    /// As `Write::DestroySubcontext`.
    DestroySubcontext {
        /// The name.
        name: Name,
        /// The revision the binding must have.
        #[serde(default)]
        expected: Option<Revision>,
    },
    /// As `Write::Rename`.
    Rename {
        /// The name.
        name: Name,
        /// The new name.
        target: Name,
        /// The revision the binding must have.
        #[serde(default)]
        expected: Option<Revision>,
    },
    /// As `Write::ModifyAttributes`.
    ModifyAttributes {
        /// The name.
        name: Name,
        /// The changes, in order.
        modifications: Vec<Modification>,
        /// The revision the binding must have.
        #[serde(default)]
        expected: Option<Revision>,
    },
    /// Changes nothing, and refuses the transaction unless the name is at this revision. The name may belong
    /// to a group.
    Check {
        /// The name.
        name: Name,
        /// The revision the binding must have.
        expected: Revision,
    },
}
