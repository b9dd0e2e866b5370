//! Two members, one store, one directory, and everything that may go wrong between them.
//!
//! Time is virtual, chance is seeded: a run is a function of its seed. Deliveries take a millisecond, what is
//! sent over a cut is lost, a frozen process gets its mail when it wakes, and what a killed or frozen process
//! had given to the disk may still land there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use daymark_broker_core::failover::{
    About, Action, AddedExport, Ending, Event, ExportAnswer, ExportChange, Failover, GroupSeen, NamingEvent,
    PeerEvent, ProbeAnswer, Refusal, Settings, Step, StepEvent, Target,
};
use daymark_naming_proto::{Epoch, Evidence, MemberName, MemberState, Name, Role, WithdrawReason};

use crate::store::{Group, No, Process, Store};

const MS: u64 = 1000;
const BEAT: u64 = 50 * MS;

/// A rule that the driver of the model breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// Acknowledges what is durable without reading the epoch again.
    NoSecondLook,
    /// Publishes, and only then listens.
    PublishesFirst,
    /// Leaves the port open when it is told to close it.
    KeepsThePort,
    /// Takes a lock that somebody else holds, and writes no epoch that would stop the other one.
    TakesTheLock,
    /// Tells an administrator that a name is published, and does not store it.
    ForgetsTheName,
    /// Tells the rules that naming refused the whole set where it refused one name.
    BlamesTheWholeSet,
}

/// What goes wrong, or is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(usize),
    Restart(usize),
    Freeze(usize),
    Thaw(usize),
    CutPeers,
    CutNaming(usize),
    Reconnect,
    NamingDown,
    NamingUp,
    SlowDisk(bool),
    LateAnswers(bool),
    Stop(usize),
    Switchover(usize),
    Force(usize),
    /// An administrator gives a destination this name, or takes it away.
    Declare(u8),
    Undeclare(u8),
    /// Somebody binds this name by hand, or unbinds it.
    Bind(u8),
    Unbind(u8),
}

/// Something that happens at a moment.
#[derive(Debug)]
enum What {
    Tick {
        process: Process,
        stamp: u64,
    },
    Mail {
        process: Process,
        work: Work,
    },
    /// A step of a promotion reaches the disk, then its end is mailed.
    Disk {
        process: Process,
        term: u64,
        action: Action,
    },
    Ask {
        process: Process,
        term: u64,
        ask: u64,
        action: Action,
    },
    Patience {
        process: Process,
        ask: u64,
        work: Work,
    },
    Beat(Process),
    Write(usize),
    Durable {
        process: Process,
        term: u64,
        epoch: u64,
        record: u64,
    },
    Leases,
}

/// What a process does when it runs.
#[derive(Debug)]
enum Work {
    Tell(Event),
    Step { term: u64, event: StepEvent },
    Answer { ask: u64, event: Box<Self> },
    Acknowledge { term: u64, epoch: u64, record: u64 },
    Lease(u64),
}

struct Member {
    run: u64,
    alive: bool,
    frozen: bool,
    mail: VecDeque<Work>,
    failover: Failover,
    stamp: u64,
    term: u64,
    port: bool,
    fenced: Option<u64>,
    lease: u64,
    asks: u64,
    open_asks: BTreeMap<u64, ()>,
    state: MemberState,
    epoch: u64,
    leaving: Option<bool>,
    hands_over_to: Option<usize>,
    /// The name that is being given or taken away.
    change: Option<(u8, bool)>,
}

pub(crate) struct World {
    base: Instant,
    now: u64,
    made: u64,
    queue: BTreeMap<(u64, u64), What>,
    members: [Member; 2],
    store: Store,
    group: Group,
    peers_cut: bool,
    naming_cut: [bool; 2],
    slow_disk: bool,
    late_answers: bool,
    broken: Broken,
    records: u64,
    acknowledged: BTreeMap<u64, u64>,
    newest_acknowledged: (u64, usize),
    /// The names that an administrator was told are given.
    promised: BTreeSet<u8>,
    runs: u64,
    pub(crate) violation: Option<String>,
}

fn name(member: usize) -> MemberName {
    ["a", "b"][member].parse().expect("a label")
}

fn index(member: &MemberName) -> usize {
    usize::from(member.as_str() == "b")
}

fn settings() -> Settings {
    Settings {
        discovery_response_timeout: Duration::from_millis(400),
        check_health_response_timeout: Duration::from_millis(300),
        failback_delay: Duration::from_millis(300),
        switchover_timeout: Duration::from_millis(1500),
        step_timeout: Duration::from_millis(2500),
        ..Settings::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a run needs a first instant")]
fn first_instant() -> Instant {
    Instant::now()
}

fn process(member: usize, run: u64) -> Member {
    let role = [Role::Primary, Role::Backup][member];
    Member {
        run,
        alive: true,
        frozen: false,
        mail: VecDeque::new(),
        failover: Failover::new(name(member), role, settings()),
        stamp: 0,
        term: 0,
        port: false,
        fenced: None,
        lease: 0,
        asks: 0,
        open_asks: BTreeMap::new(),
        state: MemberState::Standby,
        epoch: 0,
        leaving: None,
        hands_over_to: None,
        change: None,
    }
}

/// A name that an administrator gives to a destination.
fn export_name(number: u8) -> Name {
    format!("x{number}").parse().expect("a name")
}

fn export(number: u8) -> AddedExport {
    AddedExport {
        name: export_name(number),
        to: Target::Queue(format!("q{number}")),
    }
}

fn number(export: &AddedExport) -> u8 {
    export.name.as_str()[1..].parse().expect("a number")
}

impl World {
    /// Two members that start at the same moment.
    pub(crate) fn new(broken: Broken) -> Self {
        let mut world = Self {
            base: first_instant(),
            now: 0,
            made: 0,
            queue: BTreeMap::new(),
            members: [process(0, 1), process(1, 2)],
            store: Store::default(),
            group: Group::default(),
            peers_cut: false,
            naming_cut: [false; 2],
            slow_disk: false,
            late_answers: false,
            broken,
            records: 0,
            acknowledged: BTreeMap::new(),
            newest_acknowledged: (0, 0),
            promised: BTreeSet::new(),
            runs: 2,
            violation: None,
        };
        world.at(10 * MS, What::Leases);
        for member in 0..2 {
            world.at(20 * MS, What::Write(member));
            world.start(member);
        }
        world
    }

    fn start(&mut self, member: usize) {
        let process = (member, self.members[member].run);
        self.at(0, What::Beat(process));
        self.mail(process, Work::Tell(Event::Started));
    }

    fn at(&mut self, delay: u64, what: What) {
        self.made += 1;
        self.queue.insert((self.now + delay, self.made), what);
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while self.violation.is_none() && self.turn(until) {}
        self.now = until;
    }

    /// The next thing that happens before `until`, if there is one.
    fn turn(&mut self, until: u64) -> bool {
        match self.queue.first_key_value() {
            Some(((at, _), _)) if *at <= until => {}
            Some(_) | None => return false,
        }
        if let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            self.happen(what);
        }
        true
    }

    /// Lets exactly so many things happen.
    pub(crate) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            if self.violation.is_some() || !self.turn(u64::MAX) {
                return;
            }
        }
    }

    fn is_current(&self, (member, run): Process) -> bool {
        self.members[member].alive && self.members[member].run == run
    }

    fn runs(&self, process: Process) -> bool {
        self.is_current(process) && !self.members[process.0].frozen
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick { process, stamp } => {
                if self.is_current(process) && self.members[process.0].stamp == stamp {
                    self.mail(process, Work::Tell(Event::Tick));
                }
            }
            What::Mail { process, work } => self.mail(process, work),
            What::Disk {
                process,
                term,
                action,
            } => self.on_disk(process, term, action),
            What::Ask {
                process,
                term,
                ask,
                action,
            } => self.on_ask(process, term, ask, &action),
            What::Patience { process, ask, work } => {
                self.mail(
                    process,
                    Work::Answer {
                        ask,
                        event: Box::new(work),
                    },
                );
            }
            What::Beat(process) => {
                if self.is_current(process) {
                    self.at(BEAT, What::Beat(process));
                    if self.runs(process) {
                        self.beat(process.0);
                    }
                }
            }
            What::Write(member) => {
                self.at(20 * MS, What::Write(member));
                self.write(member);
            }
            What::Durable {
                process,
                term,
                epoch,
                record,
            } => {
                self.store.append(epoch, record);
                self.at(
                    MS / 2,
                    What::Mail {
                        process,
                        work: Work::Acknowledge { term, epoch, record },
                    },
                );
            }
            What::Leases => {
                self.at(10 * MS, What::Leases);
                if !self.group.is_down {
                    self.group.end_leases(self.now);
                }
            }
        }
    }

    fn mail(&mut self, process: Process, work: Work) {
        if !self.is_current(process) {
            return;
        }
        if self.members[process.0].frozen {
            self.members[process.0].mail.push_back(work);
        } else {
            self.work(process.0, work);
        }
    }

    fn work(&mut self, member: usize, work: Work) {
        match work {
            Work::Tell(event) => self.tell(member, event),
            Work::Step { term, event } => {
                if term == self.members[member].term {
                    if event == StepEvent::PortOpened {
                        self.members[member].port = true;
                    }
                    self.tell(member, Event::Step(event));
                }
            }
            Work::Answer { ask, event } => {
                if self.members[member].open_asks.remove(&ask).is_some() {
                    self.work(member, *event);
                }
            }
            Work::Lease(lease) => {
                self.members[member].lease = lease;
                let group = self.seen();
                self.tell(member, Event::Naming(NamingEvent::Joined { group }));
            }
            Work::Acknowledge { term, epoch, record } => self.acknowledge(member, term, epoch, record),
        }
    }

    fn tell(&mut self, member: usize, event: Event) {
        let now = self.base + Duration::from_micros(self.now);
        let actions = self.members[member].failover.step(now, event);
        for action in actions {
            self.perform(member, action);
        }
        let is_active = self.members[member].failover.view().state == MemberState::Active;
        let promoting = self.members[member].failover.view().phase == "promoting";
        if self.members[member].alive && self.members[member].port && !is_active && !promoting {
            self.violated(format!("{} listens and is no active broker", name(member)));
        }
        let stamp = self.made;
        self.members[member].stamp = stamp;
        if let Some(due) = self.members[member].failover.deadline() {
            let due = u64::try_from(due.saturating_duration_since(now).as_micros()).unwrap_or(0);
            let process = (member, self.members[member].run);
            self.at(due, What::Tick { process, stamp });
        }
    }

    fn violated(&mut self, what: String) {
        let at = self.now / MS;
        self.violation.get_or_insert(format!("after {at} ms: {what}"));
    }

    fn disk(&self) -> u64 {
        if self.slow_disk { 400 * MS } else { MS }
    }

    fn perform(&mut self, member: usize, action: Action) {
        let (run, term) = (self.members[member].run, self.members[member].term);
        let process = (member, run);
        match action {
            Action::Lock { .. } | Action::WriteEpoch { .. } | Action::Recover => {
                let delay = self.disk();
                self.at(
                    delay,
                    What::Disk {
                        process,
                        term,
                        action,
                    },
                );
            }
            Action::OpenPort { epoch } => {
                if self.broken == Broken::PublishesFirst {
                    self.ask(
                        process,
                        Action::Publish {
                            epoch,
                            added: Vec::new(),
                        },
                    );
                }
                let event = StepEvent::PortOpened;
                self.at(
                    MS,
                    What::Mail {
                        process,
                        work: Work::Step { term, event },
                    },
                );
            }
            Action::Join | Action::Renew | Action::Claim { .. } | Action::Publish { .. } => {
                self.ask(process, action);
            }
            Action::Probe { peer, probe } => self.probe(process, index(&peer), probe),
            Action::Announce { state, epoch } => {
                self.members[member].state = state;
                self.members[member].epoch = epoch.0;
                self.members[member].hands_over_to = None;
                self.beat(member);
            }
            Action::HandOver { to, epoch, .. } => {
                self.members[member].state = MemberState::Standby;
                self.members[member].epoch = epoch.0;
                self.members[member].hands_over_to = Some(index(&to));
                self.beat(member);
            }
            Action::SayGoodbye { handover } => {
                self.members[member].leaving = Some(handover);
                self.beat(member);
            }
            Action::Withdraw { epoch, reason } => {
                if self.reaches_naming(member) {
                    self.group.withdraw(epoch.0, reason == WithdrawReason::Handover);
                }
            }
            Action::ClosePort { .. } => {
                self.members[member].port &= self.broken == Broken::KeepsThePort;
            }
            Action::Release => {
                self.store.unlock(process);
                self.members[member].fenced = None;
                self.members[member].change = None;
                self.members[member].term += 1;
            }
            Action::Leave => {
                let lease = self.members[member].lease;
                if self.reaches_naming(member) {
                    self.group.leave(member, lease);
                }
            }
            Action::AnswerExport(answer) => self.on_export_answered(member, &answer),
            Action::Exit(ending) => {
                if matches!(
                    &ending,
                    Ending::StepFailed {
                        step: Step::Publish,
                        ..
                    }
                ) {
                    self.violated(format!("a name ends {}: {ending}", name(member)));
                }
                self.die(member);
            }
            Action::Discover { .. } | Action::Note(_) => {}
        }
    }

    fn reaches_naming(&self, member: usize) -> bool {
        !self.group.is_down && !self.naming_cut[member]
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only three actions come to the disk"
    )]
    fn on_disk(&mut self, process: Process, term: u64, action: Action) {
        let (member, run) = process;
        // A process that is gone keeps no lock; what it gave to the disk before may still land.
        let is_gone = !self.is_current(process) || self.members[member].term != term;
        let event = match action {
            Action::Lock { .. } if is_gone => return,
            Action::Lock { force } => self.lock(process, force),
            Action::WriteEpoch { epoch } if epoch.0 > self.store.epoch => {
                if self.broken != Broken::TakesTheLock {
                    self.store.epoch = epoch.0;
                }
                if !is_gone {
                    self.members[member].fenced = Some(epoch.0);
                }
                StepEvent::EpochWritten
            }
            Action::WriteEpoch { .. } => StepEvent::EpochStale {
                current: Epoch(self.store.epoch),
            },
            _ if self.members[member].fenced == Some(self.store.epoch)
                || self.broken == Broken::TakesTheLock =>
            {
                StepEvent::Recovered {
                    messages: 0,
                    bytes: 0,
                    exports: self.store.names.iter().copied().map(export).collect(),
                }
            }
            _ => StepEvent::EpochStale {
                current: Epoch(self.store.epoch),
            },
        };
        self.mail((member, run), Work::Step { term, event });
    }

    fn lock(&mut self, process: Process, force: bool) -> StepEvent {
        match self.store.lock {
            Some(holder) if holder != process && !force && self.broken != Broken::TakesTheLock => {
                StepEvent::LockBusy {
                    holder: name(holder.0).to_string(),
                    member: Some(name(holder.0)),
                }
            }
            Some(_) | None => {
                self.store.lock = Some(process);
                StepEvent::Locked {
                    store_epoch: Epoch(self.store.epoch),
                }
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "joins and renewals are alike")]
    fn ask(&mut self, process: Process, action: Action) {
        let member = process.0;
        let term = self.members[member].term;
        self.members[member].asks += 1;
        let ask = self.members[member].asks;
        self.members[member].open_asks.insert(ask, ());
        let (patience, nothing) = match &action {
            Action::Claim { .. } => (
                500,
                Work::Step {
                    term,
                    event: StepEvent::ClaimUnanswered,
                },
            ),
            Action::Publish { .. } => (
                1000,
                Work::Step {
                    term,
                    event: StepEvent::PublishUnanswered,
                },
            ),
            _ => (1500, Work::Tell(Event::Naming(NamingEvent::Silent))),
        };
        if let Action::Publish { .. } = &action
            && !self.members[member].port
        {
            self.violated(format!("{} publishes a port that does not listen", name(member)));
        }
        // Refused connections are known at once; over a cut nothing is known before patience ends.
        let refused = self.group.is_down && !self.naming_cut[member];
        let delay = if refused { MS } else { patience * MS };
        self.at(
            delay,
            What::Patience {
                process,
                ask,
                work: nothing,
            },
        );
        if self.reaches_naming(member) {
            self.at(
                MS,
                What::Ask {
                    process,
                    term,
                    ask,
                    action,
                },
            );
        }
    }

    fn seen(&self) -> GroupSeen {
        GroupSeen {
            epoch: Epoch(self.group.epoch),
            active: self.group.active.map(name),
            lease_expired: self.group.lease_expired,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only four actions are questions")]
    /// A question arrives at naming. Its answer may be lost, or come late.
    fn on_ask(&mut self, process: Process, term: u64, ask: u64, action: &Action) {
        let member = process.0;
        if self.group.is_down {
            return;
        }
        let until = self.now + 1500 * MS;
        let work = match action {
            Action::Join => Work::Lease(self.group.join(member, until)),
            Action::Renew => {
                let lease = self.members[member].lease;
                let event = if self.group.renew(member, lease, until) {
                    NamingEvent::Renewed { group: self.seen() }
                } else {
                    NamingEvent::LeaseEnded
                };
                Work::Tell(Event::Naming(event))
            }
            Action::Claim {
                store_epoch,
                evidence,
            } => {
                let claimed = self
                    .group
                    .claim(member, store_epoch.0, *evidence != Evidence::None);
                let event = match claimed {
                    Ok(epoch) => StepEvent::Claimed { epoch: Epoch(epoch) },
                    Err(no) => StepEvent::ClaimRefused(refusal(no)),
                };
                Work::Step { term, event }
            }
            Action::Publish { epoch, added } => {
                let names = added.iter().map(number).collect();
                let event = match self.group.publish(member, epoch.0, names) {
                    Ok(()) => StepEvent::Published,
                    Err(No::Name(_)) if self.broken == Broken::BlamesTheWholeSet => {
                        StepEvent::PublishRefused(Refusal::Other("no".into()))
                    }
                    Err(no) => StepEvent::PublishRefused(refusal(no)),
                };
                Work::Step { term, event }
            }
            _ => return,
        };
        if !self.naming_cut[member] {
            let delay = if self.late_answers { 700 * MS } else { MS };
            let event = Box::new(work);
            self.at(
                delay,
                What::Mail {
                    process,
                    work: Work::Answer { ask, event },
                },
            );
        }
    }

    fn probe(&mut self, process: Process, peer: usize, probe: u64) {
        let member = &self.members[peer];
        let (delay, answer) = if self.peers_cut || (member.alive && member.frozen) {
            (300 * MS, ProbeAnswer::Silent)
        } else if !member.alive {
            (MS / 10, ProbeAnswer::Refused)
        } else if member.state == MemberState::Active {
            (MS, ProbeAnswer::Active)
        } else {
            (MS, ProbeAnswer::Standby)
        };
        let event = Event::Peer(PeerEvent::Probed { probe, answer });
        self.at(
            delay,
            What::Mail {
                process,
                work: Work::Tell(event),
            },
        );
    }

    /// Says what this member is to the other one.
    fn beat(&mut self, member: usize) {
        let (said, other) = (&self.members[member], 1 - member);
        if self.peers_cut || !said.alive || !self.members[other].alive {
            return;
        }
        let heard = PeerEvent::Heard {
            peer: name(member),
            state: said.state,
            epoch: Epoch(said.epoch),
            about: About {
                role: [Role::Primary, Role::Backup][member],
                is_ready: said.failover.view().is_ready,
                incarnation: said.run,
                hands_over_to: said.hands_over_to.map(name),
                is_failback: false,
            },
        };
        let leaving = said.leaving;
        let process = (other, self.members[other].run);
        self.at(
            MS / 2,
            What::Mail {
                process,
                work: Work::Tell(Event::Peer(heard)),
            },
        );
        if let Some(handover) = leaving {
            let peer = name(member);
            let event = Event::Peer(PeerEvent::Leaving { peer, handover });
            self.at(
                MS / 2,
                What::Mail {
                    process,
                    work: Work::Tell(event),
                },
            );
        }
    }

    /// A client sends a message to whoever listens.
    fn write(&mut self, member: usize) {
        let sender = &self.members[member];
        let process = (member, sender.run);
        if !self.runs(process) || !sender.port {
            return;
        }
        let Some(epoch) = sender.fenced else {
            return;
        };
        self.records += 1;
        let (term, record) = (sender.term, self.records);
        let delay = self.disk();
        self.at(
            delay,
            What::Durable {
                process,
                term,
                epoch,
                record,
            },
        );
    }

    /// The batch is durable: the epoch is read again, and only then the client is told.
    fn acknowledge(&mut self, member: usize, term: u64, epoch: u64, record: u64) {
        if self.members[member].term != term {
            return;
        }
        if self.store.epoch != epoch && self.broken != Broken::NoSecondLook {
            let epoch = Epoch(self.store.epoch);
            return self.tell(member, Event::StoreSuperseded { epoch });
        }
        if !self.store.has(record) {
            self.violated(format!(
                "record {record} of epoch {epoch} is acknowledged and lost"
            ));
        }
        let (newest, by) = self.newest_acknowledged;
        if epoch < newest || (epoch == newest && by != member && newest > 0) {
            let (who, other) = (name(member), name(by));
            self.violated(format!(
                "{who} acknowledges under epoch {epoch} after {other} under {newest}"
            ));
        }
        self.newest_acknowledged = (epoch, member);
        self.acknowledged.insert(record, epoch);
    }

    fn die(&mut self, member: usize) {
        let process = (member, self.members[member].run);
        self.store.unlock(process);
        let dead = &mut self.members[member];
        dead.alive = false;
        dead.port = false;
        dead.frozen = false;
        dead.mail.clear();
        let other = (1 - member, self.members[1 - member].run);
        if !self.peers_cut {
            let peer = name(member);
            for event in [
                PeerEvent::Dropped { peer: peer.clone() },
                PeerEvent::Refused { peer },
            ] {
                self.at(
                    MS / 2,
                    What::Mail {
                        process: other,
                        work: Work::Tell(Event::Peer(event)),
                    },
                );
            }
        }
    }

    /// Does what is asked for, where it makes sense.
    pub(crate) fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(member) if self.members[member].alive => self.die(member),
            Fault::Restart(member) if !self.members[member].alive => {
                self.runs += 1;
                self.members[member] = process(member, self.runs);
                self.start(member);
            }
            Fault::Freeze(member) => self.members[member].frozen = self.members[member].alive,
            Fault::Thaw(member) => self.thaw(member),
            Fault::CutPeers => self.peers_cut = true,
            Fault::CutNaming(member) => self.naming_cut[member] = true,
            Fault::Reconnect => {
                self.peers_cut = false;
                self.naming_cut = [false; 2];
            }
            Fault::NamingDown => self.group.is_down = true,
            Fault::NamingUp if self.group.is_down => self.group.come_back(self.now + 1500 * MS),
            Fault::SlowDisk(slow) => self.slow_disk = slow,
            Fault::LateAnswers(late) => self.late_answers = late,
            Fault::Stop(member) => self.order(member, Event::Stop),
            Fault::Switchover(member) => self.order(member, Event::Switchover { to: None }),
            Fault::Force(member) => self.order(member, Event::Promote { force: true }),
            Fault::Declare(name) => self.change_name(name, true),
            Fault::Undeclare(name) => self.change_name(name, false),
            Fault::Bind(name) => self.group.bind(name),
            Fault::Unbind(name) => {
                self.group.by_hand.remove(&name);
            }
            Fault::Kill(_) | Fault::Restart(_) | Fault::NamingUp => {}
        }
    }

    fn order(&mut self, member: usize, event: Event) {
        let process = (member, self.members[member].run);
        self.mail(process, Work::Tell(event));
    }

    /// An administrator asks whoever holds the store to change one name, one at a time.
    fn change_name(&mut self, name: u8, add: bool) {
        let holds = |at: &usize| self.members[*at].fenced.is_some() && self.members[*at].change.is_none();
        let Some(member) = (0..2).find(holds) else {
            return;
        };
        if !self.members[member].alive || self.members[member].frozen {
            return;
        }
        self.members[member].change = Some((name, add));
        let change = ExportChange {
            add: add.then(|| export(name)),
            remove: (!add).then(|| export_name(name)),
        };
        self.order(member, Event::Export(change));
    }

    /// What naming has, or will have, is stored, like a message: durable, and then the epoch is read again.
    fn on_export_answered(&mut self, member: usize, answer: &ExportAnswer) {
        let Some((name, add)) = self.members[member].change.take() else {
            return self.violated("a change is answered that nobody asked for".to_owned());
        };
        let is_stored = self.members[member].fenced == Some(self.store.epoch);
        match answer {
            ExportAnswer::Published | ExportAnswer::Waiting if is_stored && add => {
                self.promised.insert(name);
                if self.broken != Broken::ForgetsTheName {
                    self.store.names.insert(name);
                }
            }
            ExportAnswer::Published | ExportAnswer::Waiting if is_stored => {
                self.promised.remove(&name);
                self.store.names.remove(&name);
            }
            ExportAnswer::Published
            | ExportAnswer::Waiting
            | ExportAnswer::Refused { .. }
            | ExportAnswer::NotActive => {}
        }
    }

    /// Whether naming has every name that was promised and no other, those aside that somebody else has.
    fn names_are_known(&self) -> bool {
        self.group.names == self.promised.difference(&self.group.by_hand).copied().collect()
    }

    fn thaw(&mut self, member: usize) {
        self.members[member].frozen = false;
        let run = self.members[member].run;
        while let Some(work) = self.members[member].mail.pop_front() {
            if !self.runs((member, run)) {
                return;
            }
            self.work(member, work);
        }
    }

    /// Everything is well from now on, and processes that end are started again. In the end nobody else has a name.
    pub(crate) fn heal(&mut self) {
        for fault in [
            Fault::Reconnect,
            Fault::NamingUp,
            Fault::SlowDisk(false),
            Fault::LateAnswers(false),
            Fault::Thaw(0),
            Fault::Thaw(1),
        ] {
            self.suffer(fault);
        }
        self.come_to_serve();
        self.group.by_hand.clear();
        self.come_to_serve();
    }

    fn come_to_serve(&mut self) {
        for _ in 0..1200 {
            if self.violation.is_some() || self.is_served() {
                return;
            }
            self.suffer(Fault::Restart(0));
            self.suffer(Fault::Restart(1));
            self.pass(50);
        }
        let views: Vec<_> = self.members.iter().map(|member| member.failover.view()).collect();
        self.violated(format!(
            "a minute after the last fault nobody serves: {views:?}, {:?}",
            self.group
        ));
    }

    /// Whether somebody is active under the store's epoch, listens, and is the one naming tells of.
    pub(crate) fn is_served(&self) -> bool {
        self.members.iter().enumerate().any(|(at, member)| {
            let view = member.failover.view();
            let is_active = member.alive && member.port && view.state == MemberState::Active;
            is_active
                && view.epoch.0 == self.store.epoch
                && self.group.exports == Some((at, self.store.epoch))
                && self.names_are_known()
        })
    }

    /// Who is active, as it believes itself.
    pub(crate) fn active(&self) -> Option<usize> {
        self.members
            .iter()
            .position(|member| member.alive && member.failover.view().state == MemberState::Active)
    }

    /// How many messages were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }
}

fn refusal(no: No) -> Refusal {
    match no {
        No::Member => Refusal::NotMember,
        No::Active(active, epoch) => Refusal::ActiveExists {
            active: name(active),
            epoch: Epoch(epoch),
        },
        No::Stale(current) => Refusal::StaleEpoch {
            current: Epoch(current),
        },
        No::Name(name) => Refusal::Name {
            name: export_name(name),
            why: "no".into(),
        },
    }
}
