//! The timeline of a group: what happened at each failover, step by step, as the member that took over told it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Epoch, GroupName, MemberName, Revision, StepCode};

/// Why the active member changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverKind {
    /// Nobody was active before: the group's first start, or a start after all members had stopped.
    Start,
    /// The active member died, hung or was cut off.
    Failover,
    /// An operator wanted another one.
    Switchover,
    /// The primary was back.
    Failback,
}

impl FailoverKind {
    /// The kind as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Failback => "failback",
        }
    }
}

/// One step of a failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverStep {
    /// Its stable code, for example `lock-taken`.
    pub step: StepCode,
    /// When: microseconds after the first step, on the monotonic clock of the member that tells it.
    pub at_us: u64,
    /// What it says beyond its code, for people.
    #[serde(default)]
    pub note: String,
    /// What it counted, for example `messages` and `bytes`.
    #[serde(default)]
    pub numbers: BTreeMap<String, u64>,
}

/// What the member that took over tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverReport {
    /// Why it took over.
    pub kind: FailoverKind,
    /// When the first step was, in milliseconds since 1970 UTC on that member's clock.
    pub began_unix_ms: u64,
    /// Who was active before, where that is known.
    #[serde(default)]
    pub from: Option<MemberName>,
    /// The steps, in order.
    pub steps: Vec<FailoverStep>,
}

/// One failover of a group's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The member that took over.
    pub member: MemberName,
    /// The revision that recorded it as it stands.
    pub revision: Revision,
    /// What that member tells.
    pub report: FailoverReport,
}

/// The last failovers of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The group.
    pub group: GroupName,
    /// The revision of the directory that was read.
    pub revision: Revision,
    /// By epoch, the newest last.
    pub failovers: Vec<Failover>,
}
