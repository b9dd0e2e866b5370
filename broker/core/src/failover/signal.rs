//! What is told of every other member of the group, whether it matters to this broker or not.
//!
//! The names are those of Shoal, the group service that operators of application servers know. Signals decide
//! nothing: what follows from a silence or a lost connection is decided where it is noticed.
//! Invariant: each is told once until something else is true of the member.

use daymark_naming_proto::MemberName;

use super::{Action, Actions, Failover, Note};

/// What became of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// It is heard: for the first time, again, or as a new run of its process.
    Joined,
    /// It is heard, and is active or could be handed the service now.
    JoinedAndReady,
    /// Its connection ended, or it was silent for `Timing::suspect`.
    Suspected,
    /// It was silent for `Timing::failed`, or its process is gone.
    Failed,
    /// It said that an operator stops it.
    PlannedShutdown,
}

impl Signal {
    /// The stable code, as in logs and `GET /v1/status`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Joined => "member-joined",
            Self::JoinedAndReady => "member-joined-and-ready",
            Self::Suspected => "member-suspected",
            Self::Failed => "member-failed",
            Self::PlannedShutdown => "member-planned-shutdown",
        }
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        match self {
            Self::Suspected | Self::Failed => true,
            Self::Joined | Self::JoinedAndReady | Self::PlannedShutdown => false,
        }
    }

    /// Whether this is news after `told`. Who was told to have failed is not suspected, and what becomes of a
    /// member that an operator stops is no failure.
    const fn is_news_after(self, told: Option<Self>) -> bool {
        match (told, self) {
            (Some(Self::PlannedShutdown), _) | (Some(Self::Failed), Self::Suspected) => false,
            (told, now) => match told {
                Some(told) => told as u8 != now as u8,
                None => true,
            },
        }
    }
}

impl Failover {
    /// Tells this of `peer`, if it is known and this is news.
    pub(super) fn signal(&mut self, peer: &MemberName, signal: Signal, out: &mut Actions) {
        let Some(told) = self.peers.told(peer) else {
            return;
        };
        if signal.is_news_after(*told) {
            *told = Some(signal);
            let peer = peer.clone();
            out.push(Action::Note(Note::Member { peer, signal }));
        }
    }

    /// A heartbeat of `peer` arrived and is remembered.
    pub(super) fn signal_heard(&mut self, peer: &MemberName, out: &mut Actions) {
        let is_ready = self.peers.is_active_or_ready(peer);
        let Some(told) = self.peers.told(peer) else {
            return;
        };
        match *told {
            // It is told when it is ready again.
            Some(Signal::JoinedAndReady) if !is_ready => *told = Some(Signal::Joined),
            Some(Signal::Joined | Signal::JoinedAndReady | Signal::Suspected) => {}
            Some(Signal::Failed | Signal::PlannedShutdown) | None => {
                self.signal(peer, Signal::Joined, out);
            }
        }
        let now = if is_ready {
            Signal::JoinedAndReady
        } else {
            Signal::Joined
        };
        self.signal(peer, now, out);
    }
}
