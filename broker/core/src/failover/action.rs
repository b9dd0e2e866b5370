//! What the rules want done, and what they report.

use std::fmt;

use daymark_naming_proto::{Epoch, Evidence, MemberName, MemberState, Name, WithdrawReason};

use super::Signal;
use super::exports::{AddedExport, ExportAnswer};

/// Something to do. The driver does the actions of one step in order, each before the next begins; those
/// that are answered by an event are begun, and the event comes later.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Join the group. Answered by `NamingEvent::Joined`, `Silent` or `Refused`.
    Join,
    /// Renew the membership and read the group. Answered by `NamingEvent::Renewed`, `LeaseEnded`, `Silent`
    /// or `Refused`.
    Renew,
    /// Look for an active broker: dial every known member now.
    Discover {
        /// Which search this is, from 1.
        attempt: u32,
    },
    /// Ask a member whether it is active, at its peer port and at its messaging port, within
    /// `Settings::check_health_response_timeout`. Answered by `PeerEvent::Probed`.
    Probe {
        /// Whom.
        peer: MemberName,
        /// The number of the probe, to be repeated in the answer.
        probe: u64,
    },
    /// Step 1: take the store's exclusive lock. Answered by `StepEvent::Locked`, `LockBusy` or `Failed`.
    Lock {
        /// Whether it is taken although somebody holds it.
        force: bool,
    },
    /// Step 2: claim the group. Answered by `StepEvent::Claimed`, `ClaimRefused` or `ClaimUnanswered`.
    Claim {
        /// The highest epoch in the store.
        store_epoch: Epoch,
        /// Why it should be granted.
        evidence: Evidence,
    },
    /// Step 3: write the epoch into the store, durably. Answered by `StepEvent::EpochWritten`, `EpochStale`
    /// or `Failed`.
    WriteEpoch {
        /// The epoch.
        epoch: Epoch,
    },
    /// Step 4: read the store. Answered by `StepEvent::Recovered`, `EpochStale` or `Failed`.
    Recover,
    /// Step 5: listen for clients. Answered by `StepEvent::PortOpened` or `Failed`.
    OpenPort {
        /// The epoch to greet them with.
        epoch: Epoch,
    },
    /// Step 6: publish the exports. Answered by `StepEvent::Published`, `PublishRefused` or
    /// `PublishUnanswered`.
    Publish {
        /// The epoch they are published under.
        epoch: Epoch,
        /// What the set has beside the configured names.
        added: Vec<AddedExport>,
    },
    /// Tell an administrator what became of a change of the names.
    AnswerExport(ExportAnswer),
    /// Step 7, and its opposite: tell peers and tools what this broker is.
    Announce {
        /// What it is.
        state: MemberState,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Tell peers that an operator stops this broker.
    SayGoodbye {
        /// Whether a standby should take over.
        handover: bool,
    },
    /// Take the exports back. The wait for naming's answer is bounded, and the answer changes nothing.
    Withdraw {
        /// The epoch they were published under.
        epoch: Epoch,
        /// Why.
        reason: WithdrawReason,
    },
    /// Tell peers that the store is released and who shall be active now, until the next `Announce`.
    HandOver {
        /// Who.
        to: MemberName,
        /// The epoch that is over.
        epoch: Epoch,
        /// Why.
        motive: Motive,
    },
    /// Close the messaging port and its connections.
    ClosePort {
        /// Whether deliveries under way may end first.
        drain: Drain,
    },
    /// Give up the store and its lock, whatever step had been reached. No event of a step comes after it.
    Release,
    /// Leave the group. The wait for naming's answer is bounded, and the answer changes nothing.
    Leave,
    /// Record what happened.
    Note(Note),
    /// End the process. The last action.
    Exit(Ending),
}

/// How long deliveries under way may take to end when the port is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Not at all.
    None,
    /// A moment: the next active broker is waiting.
    Short,
    /// As long as an operator allows for a stop.
    Full,
}

/// Why the service is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motive {
    /// An operator asked for it.
    Operator,
    /// The primary is back.
    Failback,
    /// This broker is being stopped, and `failover_on_shutdown` is set.
    Shutdown,
}

/// Why a switchover was not begun. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSwitchover {
    /// This broker is not active.
    #[error("this broker is {phase}, not active")]
    NotActive {
        /// What it is.
        phase: &'static str,
    },
    /// It is the active one already.
    #[error("{member} is the active one already")]
    ActiveAlready {
        /// Who.
        member: MemberName,
    },
    /// Nobody of that name is heard.
    #[error("{member} is not heard by the active broker")]
    NotHeard {
        /// Who.
        member: MemberName,
    },
    /// It is heard and does not watch this broker, or is no member in naming.
    #[error("{member} is no ready standby: it must watch the active broker and be a member in naming")]
    NotReady {
        /// Who.
        member: MemberName,
    },
    /// No standby is ready.
    #[error("no standby is ready")]
    NobodyReady,
    /// Naming does not answer this broker, so that names could not follow.
    #[error("naming does not answer the active broker, names could not follow")]
    NamingSilent,
}

impl NoSwitchover {
    /// The stable code, as in problem documents.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotActive { .. } => "NotActive",
            Self::ActiveAlready { .. } => "ActiveAlready",
            Self::NotHeard { .. } => "MemberNotHeard",
            Self::NotReady { .. } => "NotReady",
            Self::NobodyReady => "NobodyReady",
            Self::NamingSilent => "NamingUnreachable",
        }
    }
}

/// Why a broker was suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Its connection ended.
    Dropped,
    /// It was silent.
    Silent,
}

/// The seven steps of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Take the store's lock.
    Lock,
    /// Claim the group.
    Claim,
    /// Write the epoch.
    WriteEpoch,
    /// Read the store.
    Recover,
    /// Open the messaging port.
    OpenPort,
    /// Publish the exports.
    Publish,
    /// Announce `active`.
    Announce,
}

/// Something worth recording, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A search for an active broker began.
    Discovering {
        /// Which one, from 1.
        attempt: u32,
    },
    /// This broker waits.
    Standby {
        /// Whom it watches, if anybody is active.
        watching: Option<MemberName>,
    },
    /// The active broker may be gone.
    Suspected {
        /// Who.
        peer: MemberName,
        /// Why.
        suspicion: Suspicion,
    },
    /// It is not.
    Cleared {
        /// Who.
        peer: MemberName,
    },
    /// It is.
    Confirmed {
        /// Who.
        peer: MemberName,
    },
    /// The active broker is being stopped by an operator.
    PlannedShutdown {
        /// Who.
        peer: MemberName,
        /// Whether this broker takes over.
        handover: bool,
    },
    /// `fail_over_max_try_count` is -1: this broker does not take over by itself.
    NeverFailsOver {
        /// Who is suspected.
        peer: MemberName,
    },
    /// Naming refused this broker's membership.
    NamingRefused {
        /// Its reason.
        why: String,
    },
    /// Naming ended this broker's membership; it joins again.
    LeaseLost,
    /// A promotion began.
    Promoting,
    /// Step 1.
    LockTaken {
        /// The store's epoch.
        store_epoch: Epoch,
    },
    /// Step 1 ended: somebody else holds the lock.
    LockBusy {
        /// Who.
        holder: String,
    },
    /// Step 2.
    Claimed {
        /// The epoch granted.
        epoch: Epoch,
    },
    /// Step 2 without naming: the store's lock decided.
    ClaimUnanswered {
        /// The epoch taken.
        epoch: Epoch,
    },
    /// Step 2 ended: another member is active.
    ClaimRefused {
        /// Who.
        active: MemberName,
    },
    /// Step 3.
    EpochWritten {
        /// The epoch.
        epoch: Epoch,
    },
    /// Step 4.
    Recovered {
        /// Messages found.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Step 5.
    Listening,
    /// Step 6.
    Published,
    /// Step 6 without naming: it is retried until naming is back.
    PublishUnanswered,
    /// Naming refused names that administrators gave: the set is published without them.
    ExportsLeftOut {
        /// Which.
        names: Vec<Name>,
        /// Naming's reason.
        why: String,
    },
    /// Step 7.
    Active {
        /// The epoch.
        epoch: Epoch,
    },
    /// Naming ended this broker's term, and nobody else is active: it serves a new one.
    TermEnded {
        /// The epoch that is over.
        epoch: Epoch,
    },
    /// A switchover was refused.
    SwitchoverRefused(NoSwitchover),
    /// This broker begins to hand the service over.
    HandingOver {
        /// To whom.
        to: MemberName,
        /// Why.
        motive: Motive,
    },
    /// The port is closed, and deliveries under way had their time.
    Drained,
    /// The exports were taken back, or naming did not answer in time.
    Withdrawn,
    /// The store and its lock are released.
    Released,
    /// Another member is active now: the handover is done.
    HandedOver {
        /// Who.
        to: MemberName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The next one did not become active: this broker takes the service back.
    HandoverFailed {
        /// Who should have.
        to: MemberName,
        /// What was seen of it.
        why: Lapse,
    },
    /// The active broker released the store for this one.
    TakingOver {
        /// Who was active.
        from: MemberName,
        /// Whether that is because this broker, the primary, is back.
        is_failback: bool,
    },
    /// Somebody has a newer epoch.
    Superseded {
        /// The newer one.
        epoch: Epoch,
    },
    /// Naming and every peer were out of reach for longer than the lease.
    Isolated,
    /// A step of a promotion failed.
    StepFailed {
        /// Which.
        step: Step,
        /// Why.
        why: String,
    },
    /// Somebody else holds the store's lock: this broker becomes a standby.
    StoreTaken {
        /// What was seen.
        why: String,
    },
    /// The open store failed.
    StoreFailed {
        /// Why.
        why: String,
    },
    /// An operator stops this broker.
    Stopping,
    /// Something became of another member, watched or not.
    Member {
        /// Who.
        peer: MemberName,
        /// What.
        signal: Signal,
    },
}

/// What became of a broker that should have taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Its process is gone.
    Gone,
    /// It was silent.
    Silent,
    /// It was not active in time.
    Late,
}

impl Lapse {
    /// The lapse as it is written in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Late => "late",
        }
    }
}

impl Motive {
    /// The motive as it is written in logs and timelines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Failback => "failback",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How a broker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An operator stopped it.
    Stopped,
    /// A step of its promotion failed.
    StepFailed {
        /// Which.
        step: Step,
        /// Why.
        why: String,
    },
    /// Its store failed while it was active.
    StoreFailed {
        /// Why.
        why: String,
    },
}

/// How many names one line tells.
const NAMES_SHOWN: usize = 8;

/// Every code that `Note::code` gives, in the order of a broker's life. `docs/failover.md` explains each.
pub const EVENT_CODES: [&str; 42] = [
    "discovering",
    "standby",
    "suspected",
    "cleared",
    "confirmed",
    "planned-shutdown",
    "never-fails-over",
    "naming-refused",
    "lease-lost",
    "promoting",
    "lock-taken",
    "lock-busy",
    "claimed",
    "claim-unanswered",
    "claim-refused",
    "epoch-written",
    "recovered",
    "listening",
    "published",
    "publish-unanswered",
    "exports-left-out",
    "active",
    "term-ended",
    "switchover-refused",
    "handing-over",
    "drained",
    "withdrawn",
    "released",
    "handed-over",
    "handover-failed",
    "taking-over",
    "superseded",
    "isolated",
    "step-failed",
    "store-taken",
    "store-failed",
    "stopping",
    "member-joined",
    "member-joined-and-ready",
    "member-suspected",
    "member-failed",
    "member-planned-shutdown",
];

impl Note {
    /// The stable code, as in logs and timelines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Discovering { .. } => "discovering",
            Self::Standby { .. } => "standby",
            Self::Suspected { .. } => "suspected",
            Self::Cleared { .. } => "cleared",
            Self::Confirmed { .. } => "confirmed",
            Self::PlannedShutdown { .. } => "planned-shutdown",
            Self::NeverFailsOver { .. } => "never-fails-over",
            Self::NamingRefused { .. } => "naming-refused",
            Self::LeaseLost => "lease-lost",
            Self::Promoting => "promoting",
            Self::LockTaken { .. } => "lock-taken",
            Self::LockBusy { .. } => "lock-busy",
            Self::Claimed { .. } => "claimed",
            Self::ClaimUnanswered { .. } => "claim-unanswered",
            Self::ClaimRefused { .. } => "claim-refused",
            Self::EpochWritten { .. } => "epoch-written",
            Self::Recovered { .. } => "recovered",
            Self::Listening => "listening",
            Self::Published => "published",
            Self::PublishUnanswered => "publish-unanswered",
            Self::ExportsLeftOut { .. } => "exports-left-out",
            Self::Active { .. } => "active",
            Self::TermEnded { .. } => "term-ended",
            Self::SwitchoverRefused(_) => "switchover-refused",
            Self::HandingOver { .. } => "handing-over",
            Self::Drained => "drained",
            Self::Withdrawn => "withdrawn",
            Self::Released => "released",
            Self::HandedOver { .. } => "handed-over",
            Self::HandoverFailed { .. } => "handover-failed",
            Self::TakingOver { .. } => "taking-over",
            Self::Superseded { .. } => "superseded",
            Self::Isolated => "isolated",
            Self::StepFailed { .. } => "step-failed",
            Self::StoreTaken { .. } => "store-taken",
            Self::StoreFailed { .. } => "store-failed",
            Self::Stopping => "stopping",
            Self::Member { signal, .. } => signal.code(),
        }
    }

    /// Whether an operator should look at it: it is logged as a warning.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Suspected { .. }
            | Self::Confirmed { .. }
            | Self::NeverFailsOver { .. }
            | Self::NamingRefused { .. }
            | Self::LeaseLost
            | Self::LockBusy { .. }
            | Self::ClaimUnanswered { .. }
            | Self::ClaimRefused { .. }
            | Self::PublishUnanswered
            | Self::ExportsLeftOut { .. }
            | Self::TermEnded { .. }
            | Self::SwitchoverRefused(_)
            | Self::HandoverFailed { .. }
            | Self::Superseded { .. }
            | Self::Isolated
            | Self::StepFailed { .. }
            | Self::StoreTaken { .. }
            | Self::StoreFailed { .. } => true,
            Self::Member { signal, .. } => signal.is_warning(),
            Self::Discovering { .. }
            | Self::Standby { .. }
            | Self::Cleared { .. }
            | Self::PlannedShutdown { .. }
            | Self::Promoting
            | Self::LockTaken { .. }
            | Self::Claimed { .. }
            | Self::EpochWritten { .. }
            | Self::Recovered { .. }
            | Self::Listening
            | Self::Published
            | Self::Active { .. }
            | Self::HandingOver { .. }
            | Self::Drained
            | Self::Withdrawn
            | Self::Released
            | Self::HandedOver { .. }
            | Self::TakingOver { .. }
            | Self::Stopping => false,
        }
    }
}

impl Step {
    /// The step as it is written in logs and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Claim => "claim",
            Self::WriteEpoch => "write-epoch",
            Self::Recover => "recover",
            Self::OpenPort => "open-port",
            Self::Publish => "publish",
            Self::Announce => "announce",
        }
    }
}

impl Suspicion {
    /// The suspicion as it is written in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Silent => "silent",
        }
    }
}

impl fmt::Display for Note {
    /// The code, then what it says beyond it as `key=value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())?;
        match self {
            Self::Discovering { attempt } => write!(f, " attempt={attempt}"),
            Self::Standby { watching: Some(peer) } => write!(f, " watching={peer}"),
            Self::Suspected { peer, suspicion } => {
                write!(f, " peer={peer} suspicion={}", suspicion.as_str())
            }
            Self::Cleared { peer }
            | Self::Confirmed { peer }
            | Self::NeverFailsOver { peer }
            | Self::Member { peer, .. } => {
                write!(f, " peer={peer}")
            }
            Self::PlannedShutdown { peer, handover } => write!(f, " peer={peer} handover={handover}"),
            Self::NamingRefused { why } | Self::StoreTaken { why } | Self::StoreFailed { why } => {
                write!(f, " why={why:?}")
            }
            Self::LockTaken { store_epoch } => write!(f, " store_epoch={store_epoch}"),
            Self::LockBusy { holder } => write!(f, " holder={holder:?}"),
            Self::ClaimRefused { active } => write!(f, " active={active}"),
            Self::Claimed { epoch }
            | Self::ClaimUnanswered { epoch }
            | Self::EpochWritten { epoch }
            | Self::Active { epoch }
            | Self::TermEnded { epoch }
            | Self::Superseded { epoch } => write!(f, " epoch={epoch}"),
            Self::SwitchoverRefused(why) => write!(f, " why=\"{why}\""),
            Self::HandingOver { to, motive } => write!(f, " to={to} motive={}", motive.as_str()),
            Self::HandedOver { to, epoch } => write!(f, " to={to} epoch={epoch}"),
            Self::HandoverFailed { to, why } => write!(f, " to={to} why={}", why.as_str()),
            Self::TakingOver { from, is_failback } => write!(f, " from={from} failback={is_failback}"),
            Self::ExportsLeftOut { names, why } => {
                f.write_str(" names=")?;
                for (at, name) in names.iter().take(NAMES_SHOWN).enumerate() {
                    write!(f, "{}{name}", if at == 0 { "" } else { "," })?;
                }
                let more = names.len().saturating_sub(NAMES_SHOWN);
                if more > 0 {
                    write!(f, " and {more} more")?;
                }
                write!(f, " why={why:?}")
            }
            Self::Recovered { messages, bytes } => write!(f, " messages={messages} bytes={bytes}"),
            Self::StepFailed { step, why } => write!(f, " step={} why={why:?}", step.as_str()),
            Self::Standby { watching: None }
            | Self::LeaseLost
            | Self::Promoting
            | Self::Listening
            | Self::Published
            | Self::PublishUnanswered
            | Self::Drained
            | Self::Withdrawn
            | Self::Released
            | Self::Isolated
            | Self::Stopping => Ok(()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::StepFailed { step, why } => write!(f, "step {} failed: {why}", step.as_str()),
            Self::StoreFailed { why } => write!(f, "the store failed: {why}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join => f.write_str("join"),
            Self::Renew => f.write_str("renew"),
            Self::Discover { attempt } => write!(f, "discover {attempt}"),
            Self::Probe { peer, probe } => write!(f, "probe {peer} {probe}"),
            Self::Lock { force: false } => f.write_str("lock"),
            Self::Lock { force: true } => f.write_str("lock by force"),
            Self::Claim {
                store_epoch,
                evidence,
            } => write!(
                f,
                "claim store_epoch={store_epoch} evidence={}",
                evidence.as_str()
            ),
            Self::WriteEpoch { epoch } => write!(f, "write-epoch {epoch}"),
            Self::Recover => f.write_str("recover"),
            Self::OpenPort { epoch } => write!(f, "open-port {epoch}"),
            Self::Publish { epoch, added } => {
                write!(f, "publish {epoch}")?;
                let names = added.iter().map(|export| &export.name);
                names.enumerate().try_for_each(|(at, name)| {
                    let before = if at == 0 { " with" } else { "" };
                    write!(f, "{before} {name}")
                })
            }
            Self::AnswerExport(answer) => write!(f, "answer-export {answer}"),
            Self::Announce { state, epoch } => write!(f, "announce {} {epoch}", state.as_str()),
            Self::SayGoodbye { handover } => write!(f, "say-goodbye handover={handover}"),
            Self::Withdraw { epoch, reason } => write!(f, "withdraw {epoch} {}", reason.as_str()),
            Self::HandOver { to, epoch, .. } => write!(f, "hand-over {epoch} to {to}"),
            Self::ClosePort { drain: Drain::Full } => f.write_str("close-port after draining"),
            Self::ClosePort { drain: Drain::Short } => f.write_str("close-port after a short drain"),
            Self::ClosePort { drain: Drain::None } => f.write_str("close-port now"),
            Self::Release => f.write_str("release"),
            Self::Leave => f.write_str("leave"),
            Self::Note(note) => write!(f, "note {note}"),
            Self::Exit(ending) => write!(f, "exit: {ending}"),
        }
    }
}
