//! Failover under every order of events that chance finds: whatever happens, the seven steps keep their
//! order, nothing is served without them, and the process ends when it is told to.

use std::time::{Duration, Instant};

use daymark_broker_core::failover::{
    About, Action, AddedExport, Event, ExportChange, Failover, GroupSeen, NamingEvent, PeerEvent,
    ProbeAnswer, Refusal, Settings, StepEvent, Target,
};
use daymark_naming_proto::{Epoch, MemberName, MemberState, Name, Role};
use proptest::prelude::*;

/// What the world does next. The numbers are reduced to what is possible at that moment.
#[derive(Clone, Debug)]
enum Turn {
    Pass { ms: u64 },
    StepEnds { how: u8 },
    NamingAnswers { how: u8 },
    PeerSpeaks { peer: u8, how: u8, ahead: u64 },
    ProbeEnds { how: u8 },
    Operator { how: u8 },
    Names { add: bool },
    StoreEnds { superseded: bool },
    SomebodyClaims,
    SomebodyWrites,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (0..700_u64).prop_map(|ms| Turn::Pass { ms }),
        12 => (0..16_u8).prop_map(|how| Turn::StepEnds { how }),
        4 => (0..8_u8).prop_map(|how| Turn::NamingAnswers { how }),
        6 => (0..2_u8, 0..6_u8, 0..2_u64).prop_map(|(peer, how, ahead)| Turn::PeerSpeaks { peer, how, ahead }),
        6 => (0..4_u8).prop_map(|how| Turn::ProbeEnds { how }),
        1 => (0..3_u8).prop_map(|how| Turn::Operator { how }),
        2 => any::<bool>().prop_map(|add| Turn::Names { add }),
        1 => any::<bool>().prop_map(|superseded| Turn::StoreEnds { superseded }),
        1 => Just(Turn::SomebodyClaims),
        1 => Just(Turn::SomebodyWrites),
    ]
}

/// The world around one broker, and what the broker holds in it.
struct World {
    now: Instant,
    me: MemberName,
    failover: Failover,
    /// The step of a promotion that is under way.
    pending: Option<Action>,
    naming_asked: Option<Action>,
    probe: Option<u64>,
    naming_epoch: u64,
    store_epoch: u64,
    locked: bool,
    granted: Option<Epoch>,
    written: Option<Epoch>,
    recovered: bool,
    port_open: bool,
    ended: bool,
    said_goodbye: bool,
    /// Whether an administrator waits for an answer.
    changing: bool,
}

#[expect(clippy::disallowed_methods, reason = "a run needs a first instant")]
fn start() -> Instant {
    Instant::now()
}

fn jms_a() -> Name {
    "jms/a".parse().expect("a name")
}

fn label(text: &str) -> MemberName {
    text.parse().expect("a label")
}

impl World {
    fn new(role: Role, tries: u32) -> Self {
        let settings = Settings {
            start_up_max_try_count: tries,
            ..Settings::default()
        };
        let me = label("a");
        let mut world = Self {
            now: start(),
            failover: Failover::new(me.clone(), role, settings),
            me,
            pending: None,
            naming_asked: None,
            probe: None,
            naming_epoch: 0,
            store_epoch: 0,
            locked: false,
            granted: None,
            written: None,
            recovered: false,
            port_open: false,
            ended: false,
            said_goodbye: false,
            changing: false,
        };
        world.tell(Event::Started);
        world
    }

    fn tell(&mut self, event: Event) {
        let actions = self.failover.step(self.now, event);
        assert!(actions.is_empty() || !self.ended, "{actions:?} after the end");
        for action in actions {
            self.perform(action);
        }
        let view = self.failover.view();
        if view.state == MemberState::Active {
            assert!(
                self.port_open && self.recovered && self.locked,
                "active without the steps"
            );
            assert_eq!(
                self.written,
                Some(view.epoch),
                "active under an epoch that is not written"
            );
        }
    }

    fn perform(&mut self, action: Action) {
        assert!(!self.ended, "{action} after the end");
        match &action {
            Action::Lock { .. } => {
                assert!(!self.locked && !self.port_open, "a second lock");
                self.begin(action);
            }
            Action::Claim { .. } => {
                assert!(self.locked, "a claim without the lock");
                self.begin(action);
            }
            Action::WriteEpoch { epoch } => {
                assert!(self.locked && self.written.is_none());
                let granted = self.granted.is_none_or(|granted| granted == *epoch);
                assert!(granted, "naming granted {:?}, {epoch} is written", self.granted);
                self.pending = None; // A claim that was not answered in time is waited for no longer.
                self.begin(action);
            }
            Action::Recover => {
                assert!(self.written.is_some() && !self.recovered);
                self.begin(action);
            }
            Action::OpenPort { epoch } => {
                assert!(self.recovered && !self.port_open, "a second port");
                assert_eq!(self.written, Some(*epoch));
                self.begin(action);
            }
            Action::Publish { epoch, .. } => {
                assert!(self.port_open, "exports that point nowhere");
                assert_eq!(self.written, Some(*epoch));
                self.begin(action);
            }
            Action::HandOver { .. } => {
                assert!(
                    !self.port_open && !self.locked,
                    "somebody else is told and the store is held"
                );
            }
            Action::Announce { state, epoch } => {
                let active = *state == MemberState::Active;
                assert_eq!(active, self.port_open);
                assert!(!active || self.written == Some(*epoch));
            }
            Action::ClosePort { .. } => self.port_open = false,
            Action::Release => self.release(),
            Action::Exit(_) => {
                assert!(!self.port_open && !self.locked, "it ends and holds the store");
                self.ended = true;
            }
            Action::Join | Action::Renew => {
                assert!(self.naming_asked.is_none(), "two questions at once");
                self.naming_asked = Some(action);
            }
            Action::Probe { probe, .. } => self.probe = Some(*probe),
            Action::Discover { .. }
            | Action::SayGoodbye { .. }
            | Action::Withdraw { .. }
            | Action::Leave
            | Action::Note(_) => {}
            Action::AnswerExport(_) => {
                assert!(self.changing, "an answer nobody waits for");
                self.changing = false;
            }
        }
    }

    fn begin(&mut self, action: Action) {
        assert!(
            self.pending.is_none(),
            "{action} while {:?} is under way",
            self.pending
        );
        self.pending = Some(action);
    }

    fn release(&mut self) {
        assert!(!self.port_open, "the store is released before the port is closed");
        self.locked = false;
        self.changing = false;
        self.pending = None;
        self.granted = None;
        self.written = None;
        self.recovered = false;
    }

    fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Pass { ms } => self.pass(Duration::from_millis(*ms)),
            Turn::StepEnds { how } => self.end_step(*how),
            Turn::NamingAnswers { how } => self.answer_naming(*how),
            Turn::PeerSpeaks { peer, how, ahead } => self.speak(*peer, *how, *ahead),
            Turn::ProbeEnds { how } => self.end_probe(*how),
            Turn::Operator { how: 2.. } => self.tell(Event::Switchover { to: None }),
            Turn::Operator { how } => self.tell(Event::Promote { force: *how == 0 }),
            Turn::Names { add } => self.change_names(*add),
            Turn::StoreEnds { superseded } => self.end_store(*superseded),
            Turn::SomebodyClaims => self.naming_epoch += 1,
            Turn::SomebodyWrites => {
                if !self.locked {
                    self.store_epoch = self.store_epoch.max(self.naming_epoch);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            match self.failover.deadline() {
                Some(due) if due <= until => {
                    self.now = self.now.max(due);
                    self.tell(Event::Tick);
                }
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("ticks without end");
    }

    /// Ends the step under way: well for `how` above 4, otherwise in one of its bad ways.
    fn end_step(&mut self, how: u8) {
        let Some(step) = self.pending.take() else {
            return;
        };
        let event = match (how, &step) {
            (0, Action::Claim { .. } | Action::Publish { .. }) => {
                self.refused(&step, Refusal::Other("no".into()))
            }
            (0, _) => StepEvent::Failed { why: "no".into() },
            (1 | 2, Action::Lock { .. }) => StepEvent::LockBusy {
                holder: "b".into(),
                member: Some(label("b")),
            },
            (1, Action::Claim { .. } | Action::Publish { .. }) => self.refused(&step, Refusal::NotMember),
            (2, Action::Claim { .. } | Action::Publish { .. }) => self.refused(
                &step,
                Refusal::StaleEpoch {
                    current: Epoch(self.naming_epoch + 1),
                },
            ),
            (3, Action::Claim { .. }) => self.refused(
                &step,
                Refusal::ActiveExists {
                    active: label("b"),
                    epoch: Epoch(self.naming_epoch),
                },
            ),
            (4, Action::Claim { .. }) => StepEvent::ClaimUnanswered,
            (4, Action::Publish { .. }) => StepEvent::PublishUnanswered,
            (5 | 6, Action::Publish { .. }) => self.refused(
                &step,
                Refusal::Name {
                    name: jms_a(),
                    why: "taken".into(),
                },
            ),
            (4, Action::WriteEpoch { .. }) => StepEvent::EpochStale {
                current: Epoch(self.store_epoch + 7),
            },
            _ => self.succeed(&step),
        };
        self.tell(Event::Step(event));
    }

    fn change_names(&mut self, add: bool) {
        if self.changing || self.ended {
            return;
        }
        self.changing = true;
        let export = AddedExport {
            name: jms_a(),
            to: Target::Queue("a".into()),
        };
        self.tell(Event::Export(ExportChange {
            add: add.then_some(export),
            remove: (!add).then(jms_a),
        }));
    }

    fn refused(&self, step: &Action, refusal: Refusal) -> StepEvent {
        if matches!(step, Action::Claim { .. }) {
            StepEvent::ClaimRefused(refusal)
        } else {
            StepEvent::PublishRefused(refusal)
        }
    }

    fn succeed(&mut self, step: &Action) -> StepEvent {
        match step {
            Action::Lock { .. } => {
                self.locked = true;
                StepEvent::Locked {
                    store_epoch: Epoch(self.store_epoch),
                }
            }
            Action::Claim { store_epoch, .. } => {
                self.naming_epoch = self.naming_epoch.max(store_epoch.0) + 1;
                let epoch = Epoch(self.naming_epoch);
                self.granted = Some(epoch);
                StepEvent::Claimed { epoch }
            }
            Action::WriteEpoch { epoch } => {
                assert!(
                    epoch.0 > self.store_epoch,
                    "{epoch} is not newer than the store's"
                );
                self.store_epoch = epoch.0;
                self.written = Some(*epoch);
                StepEvent::EpochWritten
            }
            Action::Recover => {
                self.recovered = true;
                StepEvent::Recovered {
                    messages: 0,
                    bytes: 0,
                    exports: Vec::new(),
                }
            }
            Action::OpenPort { .. } => {
                self.port_open = true;
                StepEvent::PortOpened
            }
            Action::Publish { .. } => StepEvent::Published,
            Action::Join
            | Action::Renew
            | Action::Discover { .. }
            | Action::Probe { .. }
            | Action::Announce { .. }
            | Action::SayGoodbye { .. }
            | Action::HandOver { .. }
            | Action::Withdraw { .. }
            | Action::ClosePort { .. }
            | Action::Release
            | Action::Leave
            | Action::Note(_)
            | Action::AnswerExport(_)
            | Action::Exit(_) => panic!("{step} is no step"),
        }
    }

    fn answer_naming(&mut self, how: u8) {
        let Some(asked) = self.naming_asked.take() else {
            return;
        };
        let mine = self.failover.view().state == MemberState::Active;
        let group = GroupSeen {
            epoch: Epoch(self.naming_epoch),
            active: match how {
                0 => Some(label("b")),
                _ if mine => Some(self.me.clone()),
                _ => None,
            },
            lease_expired: how == 1,
        };
        self.tell(Event::Naming(match (how, asked) {
            (2, _) => NamingEvent::Silent,
            (3, Action::Renew) => NamingEvent::LeaseEnded,
            (4, _) => NamingEvent::Refused { why: "no".into() },
            (_, Action::Renew) => NamingEvent::Renewed { group },
            (_, _) => NamingEvent::Joined { group },
        }));
        if how == 5 {
            self.tell(Event::Naming(NamingEvent::MembersChanged));
        }
    }

    fn speak(&mut self, peer: u8, how: u8, ahead: u64) {
        let peer = label(if peer == 0 { "b" } else { "c" });
        let epoch = Epoch(self.store_epoch.max(self.naming_epoch) + ahead);
        let heard = |state| PeerEvent::Heard {
            peer: peer.clone(),
            state,
            epoch,
            about: About {
                is_ready: ahead == 0,
                ..About::default()
            },
        };
        let event = match how {
            0 => PeerEvent::Dropped { peer },
            1 => PeerEvent::Refused { peer },
            2 => heard(MemberState::Standby),
            3 => {
                self.said_goodbye = true;
                PeerEvent::Leaving {
                    peer,
                    handover: ahead == 1,
                }
            }
            _ => heard(MemberState::Active),
        };
        self.tell(Event::Peer(event));
    }

    fn end_probe(&mut self, how: u8) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        let answer = match how {
            0 => ProbeAnswer::Active,
            1 => ProbeAnswer::Standby,
            2 => ProbeAnswer::Refused,
            _ => ProbeAnswer::Silent,
        };
        self.tell(Event::Peer(PeerEvent::Probed { probe, answer }));
    }

    fn end_store(&mut self, superseded: bool) {
        if !self.recovered {
            return;
        }
        self.tell(if superseded {
            Event::StoreSuperseded {
                epoch: Epoch(self.store_epoch + 1),
            }
        } else {
            Event::StoreFailed { why: "disk".into() }
        });
    }

    /// The faults end: every step succeeds, naming answers, no other broker is left.
    fn heal(&mut self) {
        for _ in 0..2_000 {
            if self.ended || self.failover.view().state == MemberState::Active {
                return;
            }
            self.end_probe(2);
            self.answer_naming(7);
            self.end_step(15);
            self.pass(Duration::from_millis(50));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The assertions are in `World::perform`: each is one rule.
    #[test]
    fn the_steps_keep_their_order_and_a_stop_ends_everything(
        primary in any::<bool>(),
        tries in 0..3_u32,
        turns in prop::collection::vec(turn(), 0..120),
    ) {
        let mut world = World::new(if primary { Role::Primary } else { Role::Backup }, tries);
        for turn in &turns {
            world.turn(turn);
        }
        if !world.ended {
            world.tell(Event::Stop);
        }
        prop_assert!(world.ended, "a stop does not end it");
    }

    #[test]
    fn once_the_faults_end_the_last_broker_serves(
        primary in any::<bool>(),
        tries in 0..3_u32,
        turns in prop::collection::vec(turn(), 0..120),
    ) {
        let mut world = World::new(if primary { Role::Primary } else { Role::Backup }, tries);
        for turn in &turns {
            world.turn(turn);
        }
        world.heal();
        let active = world.failover.view().state == MemberState::Active;
        // A broker that ended, or was told that the service shall stop, is excused.
        prop_assert!(active || world.ended || world.said_goodbye, "{:?}", world.failover.view());
    }
}
