//! What the rules are told.

use daymark_naming_proto::{Epoch, MemberName, MemberState, Name, Role};

use super::exports::{AddedExport, ExportChange};

/// Something that happened. The driver says it in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The driver's admin and peer listeners are open. Comes once, first.
    Started,
    /// The time returned by `Failover::deadline` has come.
    Tick,
    /// What naming said.
    Naming(NamingEvent),
    /// What peers did.
    Peer(PeerEvent),
    /// How a step of a promotion ended.
    Step(StepEvent),
    /// The open store can acknowledge no more: a newer epoch was found in it.
    StoreSuperseded {
        /// The newer epoch.
        epoch: Epoch,
    },
    /// The open store can acknowledge no more: its lock is somebody else's, who is about to write an epoch.
    StoreTaken {
        /// What was seen.
        why: String,
    },
    /// The open store can acknowledge no more.
    StoreFailed {
        /// Why.
        why: String,
    },
    /// An operator wants this broker to be active.
    Promote {
        /// Whether the store is taken although a frozen process may hold its lock.
        force: bool,
    },
    /// An operator wants another member to be active in place of this one.
    Switchover {
        /// Whom; `None` leaves the choice to the rules: a ready primary before a ready backup, then by name.
        to: Option<MemberName>,
    },
    /// An administrator changes names of the export set. Answered by `Action::AnswerExport`, or void with
    /// `Action::Release`; no other change comes before that.
    Export(ExportChange),
    /// An operator stops this broker.
    Stop,
}

/// An answer of naming, or its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamingEvent {
    /// The answer to `Action::Join`: this broker is a member now.
    Joined {
        /// The group as naming sees it.
        group: GroupSeen,
    },
    /// The answer to `Action::Renew`: it still is.
    Renewed {
        /// The group as naming sees it.
        group: GroupSeen,
    },
    /// The answer to `Action::Renew`: the membership ended.
    LeaseEnded,
    /// A join or a renewal was not answered.
    Silent,
    /// A join or a renewal was refused for good.
    Refused {
        /// Naming's reason.
        why: String,
    },
    /// The group has members whose addresses the exports do not name yet.
    MembersChanged,
}

/// A group as naming sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSeen {
    /// The epoch granted last.
    pub epoch: Epoch,
    /// The active member, if any.
    pub active: Option<MemberName>,
    /// Whether the exports are withheld because the active member's lease ended.
    pub lease_expired: bool,
}

/// What a peer said or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A heartbeat arrived.
    Heard {
        /// Who sent it.
        peer: MemberName,
        /// What it is.
        state: MemberState,
        /// Its epoch if it is active, else the highest it knows.
        epoch: Epoch,
        /// What else it says of itself.
        about: About,
    },
    /// It is being stopped by an operator.
    Leaving {
        /// Who.
        peer: MemberName,
        /// Whether a standby should take over.
        handover: bool,
    },
    /// A connection to it ended.
    Dropped {
        /// To whom.
        peer: MemberName,
    },
    /// A new connection to it was refused: no process listens there.
    Refused {
        /// By whom.
        peer: MemberName,
    },
    /// The answer to `Action::Probe`.
    Probed {
        /// The number of the probe.
        probe: u64,
        /// What came back.
        answer: ProbeAnswer,
    },
}

/// What a peer says of itself beside its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its configured role.
    pub role: Role,
    /// Whether it is a standby that watches the active broker and is a member in naming.
    pub is_ready: bool,
    /// Tells one run of its process from the next.
    pub incarnation: u64,
    /// Set once it has drained, withdrawn and released: who shall be active now.
    pub hands_over_to: Option<MemberName>,
    /// Whether that is because the primary is back.
    pub is_failback: bool,
}

impl Default for About {
    fn default() -> Self {
        Self {
            role: Role::Backup,
            is_ready: false,
            incarnation: 0,
            hands_over_to: None,
            is_failback: false,
        }
    }
}

/// What came back from a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// It answers, and is active.
    Active,
    /// It answers, and is not active: it was started anew.
    Standby,
    /// Every port of it refuses: the process is gone.
    Refused,
    /// No answer in time.
    Silent,
}

/// How a step of a promotion ended.
#[derive(Clone, Debug, PartialEq)]
pub enum StepEvent {
    /// `Action::Lock`: the store's lock is held.
    Locked {
        /// The highest epoch in the store, 0 if it is new.
        store_epoch: Epoch,
    },
    /// `Action::Lock`: somebody else holds it.
    LockBusy {
        /// Who, as the store tells.
        holder: String,
        /// The member among them, where the store tells its name.
        member: Option<MemberName>,
    },
    /// `Action::Claim`: granted.
    Claimed {
        /// The epoch.
        epoch: Epoch,
    },
    /// `Action::Claim`: refused.
    ClaimRefused(Refusal),
    /// `Action::Claim`: not answered within `Settings::claim_timeout`. It may have been granted.
    ClaimUnanswered,
    /// `Action::WriteEpoch`: the epoch is durable.
    EpochWritten,
    /// `Action::WriteEpoch`: the store knows a newer one.
    EpochStale {
        /// The newer one.
        current: Epoch,
    },
    /// `Action::Recover`: every live record was read.
    Recovered {
        /// Messages found.
        messages: u64,
        /// Their bytes.
        bytes: u64,
        /// The names that administrators gave and that the configuration does not use.
        exports: Vec<AddedExport>,
    },
    /// `Action::OpenPort`: it listens.
    PortOpened,
    /// `Action::Publish`: the exports are visible.
    Published,
    /// `Action::Publish`: refused.
    PublishRefused(Refusal),
    /// `Action::Publish`: not answered. It may have been done.
    PublishUnanswered,
    /// The step failed for good.
    Failed {
        /// Why.
        why: String,
    },
}

/// Why naming refused a claim or a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This broker is no member: its lease ended.
    NotMember,
    /// Another member is active, and the claim brought no evidence against it.
    ActiveExists {
        /// Who.
        active: MemberName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The group is at a newer epoch.
    StaleEpoch {
        /// The group's epoch.
        current: Epoch,
    },
    /// One name of a publication: it is somebody else's, or cannot be bound where it stands.
    Name {
        /// Which.
        name: Name,
        /// Naming's reason.
        why: String,
    },
    /// Anything else; it would be refused again.
    Other(String),
}
