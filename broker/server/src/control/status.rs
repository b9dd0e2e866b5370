//! What tools are told about a broker.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use daymark_broker_core::failover::View;
use daymark_client::proto::{Endpoint, Epoch, FailoverReport, GroupName, MemberName, MemberState, Role};
use serde::Serialize;

use super::timeline::{Entry, Timeline};
use crate::home::Home;
use crate::messaging::{Messaging, MessagingStats};
use crate::peers::frame::PastStep;

/// Shared between the driver, which writes, and the admin endpoint, which reads.
#[derive(Clone, Debug)]
pub(crate) struct StatusBoard(Arc<Mutex<Board>>);

#[derive(Debug)]
struct Board {
    about: About,
    view: View,
    timeline: Timeline,
    /// Not held: the board may outlive the term.
    messaging: Weak<Messaging>,
}

/// What does not change while a broker runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) member: MemberName,
    pub(crate) role: Role,
    pub(crate) group: GroupName,
    pub(crate) store: String,
    /// Where it serves AMQP while it is active.
    pub(crate) endpoint: Endpoint,
    pub(crate) admin: Endpoint,
    pub(crate) peer: Endpoint,
    pub(crate) version: &'static str,
    pub(crate) pid: u32,
    /// Where that process id means this process.
    #[serde(flatten)]
    pub(crate) home: Home,
}

/// The status document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    #[serde(flatten)]
    about: About,
    pub(crate) state: MemberState,
    /// Finer than the state: `discovering`, `suspecting`, `promoting` and so on.
    phase: &'static str,
    pub(crate) epoch: Epoch,
    watching: Option<MemberName>,
    /// Whether it could be handed the service now.
    ready: bool,
    /// Counts of queues and connections; absent on a standby, which has none.
    messaging: Option<MessagingStats>,
    /// The last way into office, step by step.
    timeline: Vec<Entry>,
    /// The latest events, oldest first.
    events: Vec<Entry>,
}

impl StatusBoard {
    pub(crate) fn new(about: About, view: View) -> Self {
        Self(Arc::new(Mutex::new(Board {
            about,
            view,
            timeline: Timeline::default(),
            messaging: Weak::new(),
        })))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Board) -> T) -> T {
        // A panic elsewhere leaves values that are each whole, so the board stays readable.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn show_view(&self, view: View) {
        self.with(|board| board.view = view);
    }

    pub(super) fn show_messaging(&self, messaging: Weak<Messaging>) {
        self.with(|board| board.messaging = messaging);
    }

    pub(super) fn record(&self, note: &daymark_broker_core::failover::Note) {
        self.with(|board| board.timeline.record(note));
    }

    /// Records that so many clients are back.
    pub(super) fn record_clients(&self, code: &'static str, clients: u64) {
        self.with(|board| board.timeline.record_clients(code, clients));
    }

    /// How this broker has just given the service up.
    pub(super) fn gave_up(&self) -> Vec<PastStep> {
        self.with(|board| board.timeline.gave_up())
    }

    /// The active broker told how it gave the service up for this one.
    pub(super) fn hear_of_handover(&self, from: &MemberName, steps: &[PastStep]) {
        self.with(|board| board.timeline.hear_of_handover(from, steps));
    }

    /// Who was active before this broker, where that is known.
    pub(super) fn predecessor(&self) -> Option<MemberName> {
        self.with(|board| board.timeline.predecessor().cloned())
    }

    /// The last way into office as naming keeps it.
    pub(super) fn report(&self) -> Option<FailoverReport> {
        self.with(|board| board.timeline.report())
    }

    /// What this broker is.
    pub(crate) fn view(&self) -> View {
        self.with(|board| board.view.clone())
    }

    /// The data plane, while this broker has one.
    pub(crate) fn messaging(&self) -> Option<Arc<Messaging>> {
        self.with(|board| board.messaging.upgrade())
    }

    /// The document as of now.
    pub(crate) fn status(&self) -> Status {
        let (mut status, messaging) = self.with(|board| {
            let status = Status {
                about: board.about.clone(),
                state: board.view.state,
                phase: board.view.phase,
                epoch: board.view.epoch,
                watching: board.view.watching.clone(),
                ready: board.view.is_ready,
                messaging: None,
                timeline: board.timeline.promotion().to_vec(),
                events: board.timeline.events().cloned().collect(),
            };
            (status, board.messaging.clone())
        });
        status.messaging = messaging.upgrade().map(|messaging| messaging.stats());
        status
    }
}
