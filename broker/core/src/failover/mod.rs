//! Who is active: the rules of failover as a function of state, event and time.
//!
//! It decides when to look for an active broker, whom to suspect, when to take over, in which order, and
//! when to stop. It never performs anything: the driver does the actions of a step in order and tells the
//! outcome as an event.
//!
//! Invariants: nothing is served before the store's lock is held and a new epoch is durable in it; whatever
//! ends a term of office closes the port and releases the store before anything else is tried; a failed
//! step of a promotion ends the process, so that nobody holds the lock and serves nobody.

mod action;
mod active;
mod event;
mod exports;
mod handover;
mod naming;
mod peers;
mod promotion;
mod settings;
mod signal;
mod standby;

use std::collections::BTreeMap;
use std::time::Instant;

use daymark_naming_proto::{Epoch, MemberName, MemberState, Name, Role};

pub use action::{Action, Drain, EVENT_CODES, Ending, Lapse, Motive, NoSwitchover, Note, Step, Suspicion};
pub use event::{About, Event, GroupSeen, NamingEvent, PeerEvent, ProbeAnswer, Refusal, StepEvent};
pub use exports::{AddedExport, ExportAnswer, ExportChange, Standing, Target};
pub use settings::{InvalidSettings, Settings, Tries};
pub use signal::Signal;

use crate::detector::Detector;
use active::{Active, step_down};
use handover::Handover;
use naming::Membership;
use peers::Peers;
use promotion::Promotion;
use standby::{Discovery, Suspect, Watch};

/// One broker's view of its group, and what it does about it.
#[derive(Clone, Debug)]
pub struct Failover {
    me: MemberName,
    role: Role,
    settings: Settings,
    phase: Phase,
    membership: Membership,
    peers: Peers,
    /// The highest epoch this broker served under or heard of.
    epoch: Epoch,
    probes: u64,
    /// When a failback may be tried again after one that came to nothing.
    no_failback_before: Option<Instant>,
}

/// Where a broker stands.
#[derive(Clone, Debug)]
enum Phase {
    /// The driver has not started yet.
    New,
    /// Looking for an active broker at start-up.
    Discovering(Discovery),
    /// Waiting.
    Standby(Watch),
    /// The active broker may be gone.
    Suspecting(Suspect),
    /// Taking over.
    Promoting(Promotion),
    /// Serving.
    Active(Active),
    /// Waiting for another member to serve in its place.
    HandingOver(Handover),
    /// Over.
    Ended,
}

/// What the actions of one step are collected in.
type Actions = Vec<Action>;

/// What a broker is, for tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// `starting`, `discovering`, `standby`, `suspecting`, `promoting`, `active`, `handing-over` or `ended`.
    pub phase: &'static str,
    /// Active or standby: everything but `active` is standby.
    pub state: MemberState,
    /// The epoch it serves under if it is active, else the highest it heard of.
    pub epoch: Epoch,
    /// The active member it watches.
    pub watching: Option<MemberName>,
    /// Whether it could be handed the service now: a standby that watches the active broker, a member in
    /// naming.
    pub is_ready: bool,
    /// Whether naming has the export set of this term.
    pub is_published: bool,
    /// The names that administrators gave; empty unless it is active.
    pub added: BTreeMap<Name, Standing>,
}

impl Failover {
    /// A broker that has not started. Nothing is due before `Event::Started`.
    #[must_use]
    pub fn new(me: MemberName, role: Role, settings: Settings) -> Self {
        Self {
            me,
            role,
            settings,
            phase: Phase::New,
            membership: Membership::default(),
            peers: Peers::new(Detector::new(settings.timing)),
            epoch: Epoch(0),
            probes: 0,
            no_failback_before: None,
        }
    }

    /// Applies one event. The driver performs the actions in order, each before the next begins.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut out = Actions::new();
        if matches!(self.phase, Phase::Ended) {
            return out;
        }
        match event {
            Event::Started => self.on_started(now, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
            Event::Naming(event) => self.on_naming(now, event, &mut out),
            Event::Peer(event) => self.on_peer(now, event, &mut out),
            Event::Step(event) => self.on_promotion_step(now, event, &mut out),
            Event::StoreSuperseded { epoch } => self.on_superseded(now, epoch, &mut out),
            Event::StoreTaken { why } => self.on_store_taken(now, why, &mut out),
            Event::StoreFailed { why } => self.on_store_failed(why, &mut out),
            Event::Promote { force } => self.on_promote(now, force, &mut out),
            Event::Switchover { to } => self.on_switchover(now, to, &mut out),
            Event::Export(change) => self.on_export_change(change, &mut out),
            Event::Stop => self.on_stop(&mut out),
        }
        out
    }

    /// When `Event::Tick` is due; `None` before the start and after the end.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::New | Phase::Ended => return None,
            Phase::Discovering(discovery) => Some(discovery.until),
            Phase::Standby(watch) => [watch.retry_at, watch.heir_until].into_iter().flatten().min(),
            Phase::Suspecting(_) => None,
            Phase::Promoting(promotion) => promotion.deadline(),
            Phase::Active(active) => active.deadline(),
            Phase::HandingOver(handover) => Some(handover.deadline()),
        };
        [phase, self.membership.deadline(), self.peers.detector.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What this broker is now.
    #[must_use]
    pub fn view(&self) -> View {
        let (phase, watching) = match &self.phase {
            Phase::New => ("starting", None),
            Phase::Discovering(_) => ("discovering", None),
            Phase::Standby(watch) => ("standby", watch.active.clone()),
            Phase::Suspecting(suspect) => ("suspecting", Some(suspect.peer.clone())),
            Phase::Promoting(_) => ("promoting", None),
            Phase::Active(_) => ("active", None),
            Phase::HandingOver(handover) => ("handing-over", Some(handover.to.clone())),
            Phase::Ended => ("ended", None),
        };
        let active = if let Phase::Active(active) = &self.phase {
            Some(active)
        } else {
            None
        };
        let is_watching = matches!(&self.phase, Phase::Standby(watch) if watch.active.is_some());
        View {
            phase,
            state: if active.is_some() {
                MemberState::Active
            } else {
                MemberState::Standby
            },
            epoch: active.map_or(self.epoch, |active| active.epoch),
            watching,
            is_ready: is_watching && self.membership.joined,
            is_published: active.is_some_and(|active| active.published),
            added: active.map(|active| active.added.standings()).unwrap_or_default(),
        }
    }

    fn on_started(&mut self, now: Instant, out: &mut Actions) {
        self.ask_naming(now, out);
        if self.settings.start_up_max_try_count == 0 {
            self.promote(now, Promotion::at_start(), out);
        } else {
            self.discover(now, 1, out);
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Actions) {
        if self.membership.is_due(now) {
            self.ask_naming(now, out);
        }
        for (peer, verdict) in self.peers.detector.tick(now) {
            self.on_verdict(now, &peer, verdict, out);
        }
        match &mut self.phase {
            Phase::New | Phase::Suspecting(_) | Phase::Ended => {}
            Phase::Discovering(_) => self.on_discovery_tick(now, out),
            Phase::Standby(_) => self.on_standby_tick(now, out),
            Phase::Promoting(_) => self.on_promotion_tick(now, out),
            Phase::Active(_) => self.on_active_tick(now, out),
            Phase::HandingOver(_) => self.on_handover_tick(now, out),
        }
    }

    fn on_promote(&mut self, now: Instant, force: bool, out: &mut Actions) {
        match &mut self.phase {
            Phase::New | Phase::Active(_) | Phase::Ended => {}
            Phase::Promoting(promotion) => promotion.operator_insists(force),
            Phase::Discovering(_) | Phase::Standby(_) | Phase::Suspecting(_) | Phase::HandingOver(_) => {
                self.promote(now, Promotion::by_operator(force), out);
            }
        }
    }

    fn on_stop(&mut self, out: &mut Actions) {
        out.push(Action::Note(Note::Stopping));
        match &self.phase {
            Phase::New
            | Phase::Discovering(_)
            | Phase::Standby(_)
            | Phase::Suspecting(_)
            | Phase::HandingOver(_)
            | Phase::Ended => {}
            Phase::Promoting(_) => out.extend([Action::ClosePort { drain: Drain::None }, Action::Release]),
            Phase::Active(active) if self.settings.failover_on_shutdown => {
                self.step_down_for_another(active.epoch, out);
            }
            Phase::Active(active) => step_down(active.epoch, out),
        }
        out.push(Action::Leave);
        self.exit(Ending::Stopped, out);
    }

    /// Gives up whatever is held and ends the process.
    fn give_up(&mut self, note: Note, ending: Ending, out: &mut Actions) {
        out.extend([
            Action::Note(note),
            Action::ClosePort { drain: Drain::None },
            Action::Release,
            Action::Leave,
        ]);
        self.exit(ending, out);
    }

    /// Somebody has a newer epoch: this broker gives up what it holds and waits for the next term.
    fn on_superseded(&mut self, now: Instant, epoch: Epoch, out: &mut Actions) {
        self.epoch = self.epoch.max(epoch);
        self.demote(Note::Superseded { epoch }, out);
        self.wait_for_active(now, None, out);
    }

    /// Somebody took the store from this broker, by force or because it was taken for frozen.
    fn on_store_taken(&mut self, now: Instant, why: String, out: &mut Actions) {
        self.demote(Note::StoreTaken { why }, out);
        self.wait_for_active(now, None, out);
    }

    /// Gives up whatever is held: a standby holds nothing and serves nobody.
    fn demote(&mut self, note: Note, out: &mut Actions) {
        out.extend([
            Action::Note(note),
            Action::ClosePort { drain: Drain::None },
            Action::Release,
            Action::Announce {
                state: MemberState::Standby,
                epoch: self.epoch,
            },
        ]);
    }

    fn on_store_failed(&mut self, why: String, out: &mut Actions) {
        let note = Note::StoreFailed { why: why.clone() };
        self.give_up(note, Ending::StoreFailed { why }, out);
    }

    fn exit(&mut self, ending: Ending, out: &mut Actions) {
        self.phase = Phase::Ended;
        out.push(Action::Exit(ending));
    }
}
