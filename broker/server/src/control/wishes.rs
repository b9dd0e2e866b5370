//! What operators and administrators want of the driver, and what they are answered.
//!
//! It decides nothing: a wish becomes an event for the rules, and what the rules make of it becomes the answer.
//! Every wish is answered, at the latest when the broker ends.

use std::time::Instant;

use daymark_broker_core::failover::{Event, ExportAnswer, ExportChange, Lapse, Note};
use daymark_client::proto::{Epoch, MemberName, MemberState};
use serde::Serialize;
use tokio::sync::oneshot;

use super::Driver;

/// The phase of a broker that hands over, as `View` names it.
const HANDING_OVER: &str = "handing-over";

/// An operator's wish, and where to answer it: the epoch of the new term, or why there is none.
#[derive(Debug)]
pub(crate) struct Promote {
    pub(crate) force: bool,
    pub(crate) answer: oneshot::Sender<Result<Epoch, String>>,
}

/// An operator's wish for another active member, and where to answer it.
#[derive(Debug)]
pub(crate) struct Switchover {
    pub(crate) to: Option<MemberName>,
    pub(crate) answer: oneshot::Sender<Result<Switched, NotSwitched>>,
}

/// How a switchover ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Switched {
    /// Who was active.
    pub(crate) from: MemberName,
    /// Who is active now.
    pub(crate) to: MemberName,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// From the end of service here to the announcement there, in microseconds.
    pub(crate) took_us: u64,
}

/// Why a switchover did not do what it should, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotSwitched {
    pub(crate) code: &'static str,
    pub(crate) why: String,
}

/// What operators want of the driver.
#[derive(Debug)]
pub(crate) enum Wish {
    Promote(Promote),
    Switchover(Switchover),
    Export(Exporting),
}

/// A change of names of the export set, and where to answer it. One at a time.
#[derive(Debug)]
pub(crate) struct Exporting {
    pub(crate) change: ExportChange,
    pub(crate) answer: oneshot::Sender<ExportAnswer>,
}

#[derive(Debug, Default)]
pub(super) struct Switching {
    since: Option<Instant>,
    waiting: Vec<oneshot::Sender<Result<Switched, NotSwitched>>>,
}

impl Driver {
    pub(super) fn on_wish(&mut self, wish: Wish) -> Vec<Event> {
        match wish {
            Wish::Promote(promote) => self.on_promote(promote),
            Wish::Switchover(switchover) => {
                let switching = self.switching.get_or_insert_default();
                switching.waiting.push(switchover.answer);
                if self.failover.view().phase == HANDING_OVER {
                    return Vec::new(); // The answer to the one under way is the answer to this one too.
                }
                vec![Event::Switchover { to: switchover.to }]
            }
            Wish::Export(Exporting { change, answer }) => {
                self.exporting = Some(answer);
                vec![Event::Export(change)]
            }
        }
    }

    fn on_promote(&mut self, promote: Promote) -> Vec<Event> {
        let view = self.failover.view();
        if view.state == MemberState::Active {
            let _ = promote.answer.send(Ok(view.epoch));
            return Vec::new();
        }
        self.waiting.push(promote.answer);
        vec![Event::Promote { force: promote.force }]
    }

    pub(super) fn answer_switching(&mut self, answer: &Result<Switched, NotSwitched>) {
        for waiting in self.switching.take().unwrap_or_default().waiting {
            // An operator who no longer waits needs no answer.
            let _ = waiting.send(answer.clone());
        }
    }

    pub(super) fn answer_exporting(&mut self, answer: ExportAnswer) {
        if let Some(waiting) = self.exporting.take() {
            // Whoever made the change waits until it is answered.
            let _ = waiting.send(answer);
        }
    }

    pub(super) fn answer_waiting(&mut self, answer: &Result<Epoch, String>) {
        for waiting in self.waiting.drain(..) {
            // An operator who no longer waits needs no answer.
            let _ = waiting.send(answer.clone());
        }
    }

    /// A switchover ends when somebody is heard to be active, or when this broker serves again.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only its beginning and its ends matter"
    )]
    pub(super) fn follow_switchover(&mut self, note: &Note) {
        match note {
            Note::HandingOver { .. } => {
                self.switching.get_or_insert_default().since = Some(Instant::now());
            }
            Note::SwitchoverRefused(why) => self.answer_switching(&Err(NotSwitched {
                code: why.code(),
                why: why.to_string(),
            })),
            Note::HandedOver { to, epoch } => {
                let since = self.switching.as_ref().and_then(|switching| switching.since);
                let took = since.map_or(0, |since| since.elapsed().as_micros());
                self.answer_switching(&Ok(Switched {
                    from: self.me.member.clone(),
                    to: to.clone(),
                    epoch: *epoch,
                    took_us: u64::try_from(took).unwrap_or(u64::MAX),
                }));
            }
            Note::HandoverFailed { to, why } => self.answer_switching(&Err(NotSwitched {
                code: "HandoverFailed",
                why: match why {
                    Lapse::Gone => format!("{to} is gone: this broker takes the service back"),
                    Lapse::Silent => format!("{to} is silent: this broker takes the service back"),
                    Lapse::Late => format!("{to} was not active in time: this broker takes the service back"),
                },
            })),
            _ => {}
        }
    }

    /// A promotion that was asked for ends when somebody is active, or holds the store.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only its ends matter")]
    pub(super) fn follow_promotion(&mut self, note: &Note) {
        match note {
            Note::LockBusy { holder } => self.answer_waiting(&Err(holder.clone())),
            Note::Standby {
                watching: Some(active),
            } => {
                self.answer_waiting(&Err(format!("{active} became active first")));
            }
            Note::ClaimRefused { active } => {
                self.answer_waiting(&Err(format!("naming says that {active} is active")));
            }
            _ => {}
        }
    }
}
