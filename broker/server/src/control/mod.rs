//! The driver: it waits for a socket, a command or a timer, asks the rules, and performs what they decide.
//!
//! It never decides who may be active. Every wait that could hold up the rules runs beside the loop and
//! comes back as an event; the few that are made in place belong to the end of a term and are bounded.

mod back;
mod naming;
mod office;
mod outage;
mod seek;
pub(crate) mod status;
pub(crate) mod timeline;
mod ways;
mod wishes;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use daymark_broker_core::failover::{
    About, Action, AddedExport, Drain, Ending, Event, ExportAnswer, Failover, Motive, NamingEvent, Note,
    PeerEvent, ProbeAnswer, StepEvent,
};
use daymark_client::proto::{
    BrokerAddress, Endpoint, Epoch, GroupName, JoinRequest, LeaseId, Member, MemberName, MemberState, Role,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::{ActiveTransport, Config};
use crate::exports;
use crate::messaging::{Greeting, Messaging, StoreFailure};
use crate::peers::frame::Heartbeat;
use crate::peers::probe::{Target, probe};
use crate::peers::{Heard, Mesh};
use back::Back;
use naming::{Answer, Registrar};
use office::{Done, Office, Opening};
use outage::Outage;
use status::StatusBoard;
use ways::Ways;
use wishes::Switching;
pub(crate) use wishes::{Exporting, NotSwitched, Promote, Switchover, Wish};

/// How many other members are known at a time. A group has two to sixteen.
const MEMBERS_MAX: usize = 64;

/// How long the closing of a store may take that did not stop in time before.
const RELEASE: Duration = Duration::from_secs(2);

/// How long a join or a renewal may take, unless the lease is shorter.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// What comes back from work done beside the loop.
#[derive(Debug)]
enum Report {
    Naming(Answer),
    Peer(PeerEvent),
    /// Clients are back.
    Back {
        term: u64,
        back: Back,
    },
    /// Whether naming took the timeline of a term.
    Recorded {
        term: u64,
        taken: bool,
    },
    /// What was heard at the address an operator gave.
    Found(Option<Heartbeat>),
    /// A step of a promotion, and the term it was begun in.
    Step {
        term: u64,
        done: Done,
    },
    /// A step that brought nothing to hold.
    Event {
        term: u64,
        event: StepEvent,
    },
    StoreFailed {
        term: u64,
        failure: StoreFailure,
    },
}

/// What a broker is, for its driver.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) member: MemberName,
    pub(crate) role: Role,
    pub(crate) group: GroupName,
    /// Where it serves AMQP while it is active, as others are told.
    pub(crate) endpoint: Endpoint,
    /// Where it listens for that.
    pub(crate) listen: Endpoint,
    pub(crate) admin: Endpoint,
    pub(crate) peer: Endpoint,
}

/// Everything a driver is made of.
pub(crate) struct Parts {
    pub(crate) me: Identity,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn crate::store::Store>,
    pub(crate) naming: daymark_client::Naming,
    pub(crate) mesh: Mesh,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) wishes: mpsc::Receiver<Wish>,
    pub(crate) board: StatusBoard,
    pub(crate) failover: Failover,
}

pub(crate) struct Driver {
    me: Identity,
    config: Arc<Config>,
    store: Opening,
    registrar: Registrar,
    mesh: Mesh,
    heard: mpsc::Receiver<Heard>,
    wishes: mpsc::Receiver<Wish>,
    board: StatusBoard,
    failover: Failover,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// Work done beside the loop; it ends with the driver.
    beside: JoinSet<()>,
    /// Waits for the end of the open store; it holds the store and ends with the term.
    watching: JoinSet<()>,
    office: Office,
    /// Counts releases: a report from before the last one is void.
    term: u64,
    lease: Option<LeaseId>,
    /// Where each other member serves and is heard.
    members: BTreeMap<MemberName, Address>,
    heartbeat: Heartbeat,
    waiting: Vec<oneshot::Sender<Result<Epoch, String>>>,
    /// The switchover under way: since when nobody is served here, and who waits for its end.
    switching: Option<Switching>,
    /// Who waits for a change of the names of destinations.
    exporting: Option<oneshot::Sender<ExportAnswer>>,
    /// Whether naming was not told of this term's timeline yet, although it was tried.
    untold: bool,
    /// Whether naming is being told of a timeline, and whether there is more to tell since. One telling at a
    /// time: an older timeline must not arrive after a newer one.
    telling: bool,
    tell_again: bool,
    /// How many clients each other member had when it was last heard to be active.
    clients: BTreeMap<MemberName, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    messaging: Endpoint,
    peer: Option<Endpoint>,
}

/// The heartbeat of a broker that starts.
pub(crate) fn first_heartbeat(me: &Identity) -> Heartbeat {
    Heartbeat {
        version: crate::peers::frame::VERSION,
        group: me.group.clone(),
        member: me.member.clone(),
        state: MemberState::Standby,
        epoch: Epoch(0),
        leaving: None,
        endpoint: me.endpoint.clone(),
        peer: me.peer.clone(),
        role: me.role,
        ready: false,
        incarnation: timeline::unix_us(),
        hands_over_to: None,
        is_failback: false,
        gave_up: Vec::new(),
        clients: 0,
    }
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let (reporter, reports) = mpsc::channel(64);
        let settings = &parts.config.failover;
        let registrar = Registrar {
            ways: Ways::new(&parts.naming),
            naming: parts.naming,
            group: parts.me.group.clone(),
            member: parts.me.member.clone(),
            patience: settings.lease.min(ANSWER),
            claim_timeout: settings.claim_timeout,
            outage: Outage::default(),
        };
        let store = Opening {
            store: parts.store,
            member: parts.me.member.to_string(),
        };
        Self {
            heartbeat: first_heartbeat(&parts.me),
            me: parts.me,
            config: parts.config,
            store,
            registrar,
            mesh: parts.mesh,
            heard: parts.heard,
            wishes: parts.wishes,
            board: parts.board,
            failover: parts.failover,
            reports,
            reporter,
            beside: JoinSet::new(),
            watching: JoinSet::new(),
            office: Office::Empty,
            term: 0,
            lease: None,
            members: BTreeMap::new(),
            waiting: Vec::new(),
            switching: None,
            exporting: None,
            untold: false,
            telling: false,
            tell_again: false,
            clients: BTreeMap::new(),
        }
    }

    /// Runs until the rules end it. `stop` resolves when an operator wants that.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Ending {
        tokio::pin!(stop);
        let mut stopping = false;
        let mut next = vec![Event::Started];
        loop {
            for event in next {
                if let Some(ending) = self.step(event).await {
                    return ending;
                }
            }
            let due = self.failover.deadline();
            next = tokio::select! {
                Some(report) = self.reports.recv() => self.on_report(report),
                Some(heard) = self.heard.recv() => self.on_heard(heard),
                Some(wish) = self.wishes.recv() => self.on_wish(wish),
                () = sleep_until(due) => {
                    self.count_clients();
                    vec![Event::Tick]
                }
                () = &mut stop, if !stopping => {
                    stopping = true;
                    vec![Event::Stop]
                }
            };
        }
    }

    async fn step(&mut self, event: Event) -> Option<Ending> {
        tracing::trace!(?event, "event");
        let actions = self.failover.step(Instant::now(), event);
        if actions.is_empty() {
            return None;
        }
        self.show_view();
        for action in actions {
            tracing::trace!(%action, "action");
            if let Some(ending) = self.perform(action).await {
                return Some(ending);
            }
        }
        None
    }

    async fn perform(&mut self, action: Action) -> Option<Ending> {
        match action {
            Action::Join => self.join(),
            Action::Renew => self.renew(),
            Action::Discover { .. } => self.discover(),
            Action::Probe { peer, probe } => self.probe(peer, probe),
            Action::Lock { force } => {
                let store = self.store.clone();
                self.begin(move || office::lock(&store, force));
            }
            Action::Claim {
                store_epoch,
                evidence,
            } => {
                let registrar = self.registrar.clone();
                self.report_step(async move { registrar.claim(store_epoch, evidence).await });
            }
            Action::WriteEpoch { epoch } => {
                let office = std::mem::take(&mut self.office);
                self.begin(move || office::write_epoch(office, epoch));
            }
            Action::Recover => {
                let office = std::mem::take(&mut self.office);
                let config = Arc::clone(&self.config);
                self.begin(move || office::recover(office, &config));
            }
            Action::OpenPort { epoch } => self.open_port(epoch),
            Action::Publish { epoch, added } => self.publish(epoch, &added),
            Action::AnswerExport(answer) => self.answer_exporting(answer),
            Action::Announce { state, epoch } => self.announce(state, epoch),
            Action::HandOver { to, epoch, motive } => {
                self.heartbeat.is_failback = motive == Motive::Failback;
                self.heartbeat.state = MemberState::Standby;
                self.heartbeat.epoch = epoch;
                self.heartbeat.hands_over_to = Some(to);
                self.heartbeat.gave_up = self.board.gave_up();
                self.say();
            }
            Action::SayGoodbye { handover } => {
                self.heartbeat.leaving = Some(handover);
                self.say();
            }
            Action::Withdraw { epoch, reason } => self.registrar.withdraw(epoch, reason).await,
            Action::ClosePort { drain } => {
                // Whoever follows waits for those who are here now, however lately they came.
                self.count_clients();
                self.close_port(drain).await;
            }
            Action::Release => self.release().await,
            Action::Leave => self.leave().await,
            Action::Note(note) => self.note(&note),
            Action::Exit(ending) => {
                self.answer_waiting(&Err(ending.to_string()));
                self.answer_switching(&Err(NotSwitched {
                    code: "Ending",
                    why: ending.to_string(),
                }));
                return Some(ending);
            }
        }
        None
    }

    /// Runs something beside the loop; what it brings comes back as a report.
    fn report(&mut self, work: impl Future<Output = Report> + Send + 'static) {
        while self.beside.try_join_next().is_some() {}
        let reporter = self.reporter.clone();
        self.beside.spawn(async move {
            // Nobody listens any more only when the broker ends; what the report holds is released then.
            let _ = reporter.send(work.await).await;
        });
    }

    fn report_step(&mut self, step: impl Future<Output = StepEvent> + Send + 'static) {
        let term = self.term;
        self.report(async move {
            let event = step.await;
            Report::Event { term, event }
        });
    }

    /// Begins a step that blocks, on a thread of its own.
    fn begin(&self, step: impl FnOnce() -> Done + Send + 'static) {
        let (term, reporter) = (self.term, self.reporter.clone());
        tokio::task::spawn_blocking(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(step));
            let done = done.unwrap_or_else(|_| Done {
                office: Office::Empty,
                event: StepEvent::Failed {
                    why: "the step panicked".to_owned(),
                },
            });
            let _ = reporter.blocking_send(Report::Step { term, done });
        });
    }

    fn on_report(&mut self, report: Report) -> Vec<Event> {
        match report {
            Report::Naming(answer) => self.on_answer(answer),
            Report::Peer(event) => vec![Event::Peer(event)],
            Report::Found(heartbeat) => heartbeat.map_or_else(Vec::new, |heartbeat| self.on_found(heartbeat)),
            Report::Step { term, done } if term == self.term => {
                self.take_office(done.office);
                vec![Event::Step(done.event)]
            }
            Report::Event { term, event } if term == self.term => vec![Event::Step(event)],
            Report::StoreFailed { term, failure } if term == self.term => {
                vec![office::end_of_store(&failure)]
            }
            Report::Back { term, back } if term == self.term => {
                self.board.record_clients(back.code, back.clients);
                self.tell_timeline();
                self.wait_for_clients(back_index(back.code) + 1);
                Vec::new()
            }
            Report::Recorded { term, taken } => {
                self.untold |= !taken && term == self.term;
                self.telling = false;
                if std::mem::take(&mut self.tell_again) {
                    self.tell_timeline();
                }
                Vec::new()
            }
            Report::Step { .. } | Report::Event { .. } | Report::StoreFailed { .. } | Report::Back { .. } => {
                Vec::new()
            }
        }
    }

    fn take_office(&mut self, office: Office) {
        self.office = office;
        if let Office::Open(messaging) = &self.office {
            let (term, messaging) = (self.term, Arc::clone(messaging));
            self.board.show_messaging(Arc::downgrade(&messaging));
            let (reporter, patience) = (self.reporter.clone(), self.config.commit_timeout);
            self.watching.spawn(async move {
                // Nobody listens any more only when the broker ends.
                let _ = reporter.send(watch_store(term, messaging, patience).await).await;
            });
        }
    }

    fn on_answer(&mut self, answer: Answer) -> Vec<Event> {
        if self.untold
            && matches!(
                answer.event,
                NamingEvent::Joined { .. } | NamingEvent::Renewed { .. }
            )
        {
            self.tell_timeline();
        }
        if answer.lease.is_some() {
            self.lease = answer.lease;
        }
        let mut events = vec![Event::Naming(answer.event)];
        if self.learn_members(answer.members) {
            events.push(Event::Naming(NamingEvent::MembersChanged));
        }
        events
    }

    /// Remembers where the others are. An address once known stays known while there is room, because its
    /// broker may come back.
    /// Returns whether anything is new that exports tell.
    fn learn_members(&mut self, members: Vec<Member>) -> bool {
        if self.members.len() >= MEMBERS_MAX && !members.is_empty() {
            self.members
                .retain(|known, _| members.iter().any(|member| member.name == *known));
        }
        let mut changed = false;
        for member in members {
            let address = Address {
                messaging: member.joined.endpoint,
                peer: member.joined.peer,
            };
            changed |= self.learn(member.name, address);
        }
        changed
    }

    fn learn(&mut self, member: MemberName, address: Address) -> bool {
        if member == self.me.member || self.members.get(&member) == Some(&address) {
            return false;
        }
        let before = self.members.insert(member, address.clone());
        let peers = self.members.iter();
        let peers = peers.filter_map(|(name, at)| Some((name.clone(), at.peer.clone()?)));
        self.mesh.dial(&peers.collect());
        // A new peer port concerns nobody but us.
        let moved = before.is_none_or(|before| before.messaging != address.messaging);
        if moved && let Office::Open(messaging) = &self.office {
            messaging.know_brokers(self.brokers());
        }
        moved
    }

    fn on_heard(&mut self, heard: Heard) -> Vec<Event> {
        match heard {
            Heard::Dropped(peer) => vec![Event::Peer(PeerEvent::Dropped { peer })],
            Heard::Refused(peer) => vec![Event::Peer(PeerEvent::Refused { peer })],
            Heard::Heartbeat(heartbeat) => self.on_heartbeat(heartbeat),
            Heard::Found(member, endpoint) => {
                self.mesh.found(member, endpoint);
                Vec::new()
            }
        }
    }

    /// The mesh goes on from what was found; a heartbeat of our own or of a stranger is none.
    fn on_found(&mut self, heartbeat: Heartbeat) -> Vec<Event> {
        if heartbeat.member == self.me.member || heartbeat.group != self.me.group {
            return Vec::new();
        }
        self.on_heartbeat(heartbeat)
    }

    fn on_heartbeat(&mut self, heartbeat: Heartbeat) -> Vec<Event> {
        let peer = heartbeat.member;
        let address = Address {
            messaging: heartbeat.endpoint,
            peer: Some(heartbeat.peer),
        };
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&peer) {
            return Vec::new(); // Naming's view of the group makes room, when it is read next.
        }
        if heartbeat.state == MemberState::Active {
            self.clients.insert(peer.clone(), heartbeat.clients);
        }
        if heartbeat.hands_over_to.as_ref() == Some(&self.me.member) {
            self.board.hear_of_handover(&peer, &heartbeat.gave_up);
        }
        let is_new = self.learn(peer.clone(), address);
        let mut events = vec![Event::Peer(PeerEvent::Heard {
            peer: peer.clone(),
            state: heartbeat.state,
            epoch: heartbeat.epoch,
            about: About {
                role: heartbeat.role,
                is_ready: heartbeat.ready,
                incarnation: heartbeat.incarnation,
                hands_over_to: heartbeat.hands_over_to,
                is_failback: heartbeat.is_failback,
            },
        })];
        if let Some(handover) = heartbeat.leaving {
            events.push(Event::Peer(PeerEvent::Leaving { peer, handover }));
        }
        if is_new {
            events.push(Event::Naming(NamingEvent::MembersChanged));
        }
        events
    }
}

async fn watch_store(term: u64, messaging: Arc<Messaging>, patience: Duration) -> Report {
    let failure = messaging.failed_within(patience).await;
    Report::StoreFailed { term, failure }
}

/// Which of the moments a code is.
fn back_index(code: &str) -> usize {
    let found = timeline::CLIENT_CODES.iter().position(|known| *known == code);
    found.unwrap_or(timeline::CLIENT_CODES.len())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The actions that take more than a line.
impl Driver {
    fn join(&mut self) {
        let brokers = self.brokers();
        let request = JoinRequest {
            role: self.me.role,
            endpoint: self.me.endpoint.clone(),
            admin: Some(self.me.admin.clone()),
            peer: Some(self.me.peer.clone()),
            lease_ms: u64::try_from(self.config.failover.lease.as_millis()).unwrap_or(u64::MAX),
            shadow: exports::export_set(&self.config, &self.me.group, None, &brokers, &[]),
        };
        let registrar = self.registrar.clone();
        self.report(async move { Report::Naming(registrar.join(request).await) });
    }

    fn renew(&mut self) {
        let registrar = self.registrar.clone();
        let lease = self.lease;
        self.report(async move {
            Report::Naming(match lease {
                Some(lease) => registrar.renew(lease).await,
                None => Answer::not_joined(),
            })
        });
    }

    fn probe(&mut self, peer: MemberName, number: u64) {
        let target = self.members.get(&peer).map(|address| Target {
            group: self.me.group.clone(),
            member: peer,
            messaging: address.messaging.clone(),
            peer: address.peer.clone(),
        });
        let timeout = self.config.failover.check_health_response_timeout;
        self.report(async move {
            let answer = match target {
                Some(target) => probe(target, timeout).await,
                None => ProbeAnswer::Silent, // Nobody told where it is.
            };
            Report::Peer(PeerEvent::Probed {
                probe: number,
                answer,
            })
        });
    }

    /// Every known broker, this one first.
    fn brokers(&self) -> Vec<BrokerAddress> {
        let others = self.members.iter();
        let others = others.map(|(name, address)| (name.clone(), address.messaging.clone()));
        exports::broker_list((&self.me.member, &self.me.endpoint), &others.collect())
    }

    fn open_port(&mut self, epoch: Epoch) {
        let Office::Open(messaging) = &self.office else {
            return self.report_step(async {
                StepEvent::Failed {
                    why: "the store is not open".to_owned(),
                }
            });
        };
        let greeting = Greeting {
            group: self.me.group.clone(),
            member: self.me.member.clone(),
            epoch,
            failover_server_list: self.brokers(),
        };
        let opening = office::open_port(Arc::clone(messaging), self.me.listen.clone(), greeting);
        self.report_step(opening);
    }

    fn publish(&mut self, epoch: Epoch, added: &[AddedExport]) {
        let brokers = self.brokers();
        let exports = exports::export_set(&self.config, &self.me.group, Some(epoch), &brokers, added);
        let registrar = self.registrar.clone();
        self.report_step(async move { registrar.publish(epoch, exports).await });
    }

    fn announce(&mut self, state: MemberState, epoch: Epoch) {
        self.heartbeat.hands_over_to = None;
        self.heartbeat.is_failback = false;
        self.heartbeat.gave_up.clear();
        self.heartbeat.state = state;
        self.heartbeat.epoch = epoch;
        self.say();
        if state == MemberState::Active {
            self.answer_waiting(&Ok(epoch));
        }
    }

    fn say(&self) {
        if let Err(error) = self.mesh.say(&self.heartbeat) {
            tracing::error!(%error, "peers cannot be told");
        }
    }

    async fn close_port(&self, drain: Drain) {
        if let Office::Open(messaging) = &self.office {
            let drain = match drain {
                Drain::None => None,
                Drain::Short => Some(self.config.switchover_drain.min(self.config.drain_timeout)),
                Drain::Full => Some(self.config.drain_timeout),
            };
            office::close_port(messaging, drain).await;
        }
    }

    async fn release(&mut self) {
        self.term += 1;
        self.answer_exporting(ExportAnswer::NotActive);
        self.board.show_messaging(Weak::new());
        let office = std::mem::take(&mut self.office);
        if let Office::Open(messaging) = &office {
            office::close_port(messaging, None).await;
            self.watching.shutdown().await;
        }
        // Closing files may block, so it is not done here. Where messaging did not stop in time, this closes the store
        // and frees its lock.
        let dropping = tokio::task::spawn_blocking(move || drop(office));
        if tokio::time::timeout(RELEASE, dropping).await.is_err() {
            tracing::error!(patience = ?RELEASE, "the store does not close: its lock goes with the process");
        }
    }

    async fn leave(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.registrar.leave(lease).await;
        }
    }

    /// Naming is told how this broker came into office, and how soon the clients came after it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only its end matters")]
    fn follow_office(&mut self, note: &Note) {
        match note {
            Note::Active { .. } => {
                self.untold = false;
                self.tell_timeline();
                self.wait_for_clients(0);
            }
            Note::Published if self.failover.view().state == MemberState::Active => self.tell_timeline(),
            _ => {}
        }
    }

    fn tell_timeline(&mut self) {
        if self.telling {
            self.tell_again = true;
            return;
        }
        self.untold = false;
        let view = self.failover.view();
        let Some(report) = self.board.report().filter(|_| view.state == MemberState::Active) else {
            return;
        };
        self.telling = true;
        let (term, registrar) = (self.term, self.registrar.clone());
        self.report(async move {
            let taken = registrar.record(view.epoch, report).await;
            Report::Recorded { term, taken }
        });
    }

    fn wait_for_clients(&mut self, reached: usize) {
        let Office::Open(messaging) = &self.office else {
            return;
        };
        let before = self.board.predecessor();
        let expected = before
            .and_then(|before| self.clients.get(&before).copied())
            .unwrap_or(0);
        let (term, messaging, reporter) = (self.term, Arc::downgrade(messaging), self.reporter.clone());
        self.watching.spawn(async move {
            if let Some(back) = back::next(messaging, expected, reached).await {
                // Nobody listens any more only when the broker ends.
                let _ = reporter.send(Report::Back { term, back }).await;
            }
        });
    }

    /// Peers are told how many clients are served, so that whoever follows knows how many to expect.
    fn count_clients(&mut self) {
        let Office::Open(messaging) = &self.office else {
            return;
        };
        let clients = u64::try_from(messaging.clients()).unwrap_or(u64::MAX);
        if self.heartbeat.clients != clients && self.heartbeat.state == MemberState::Active {
            self.heartbeat.clients = clients;
            self.say();
        }
    }

    /// Looks for the active broker: at every address known, and at the one an operator gave.
    fn discover(&mut self) {
        self.mesh.dial_now();
        if let ActiveTransport::Tcp(endpoint) = &self.config.active_transport {
            let timeout = self.config.failover.discovery_response_timeout;
            let seeking = seek::seek(endpoint.clone(), self.me.group.clone(), timeout);
            self.report(async move { Report::Found(seeking.await) });
        }
    }

    /// Peers are told at once when this broker becomes ready to take over, or no longer is.
    fn show_view(&mut self) {
        let view = self.failover.view();
        if self.heartbeat.ready != view.is_ready {
            self.heartbeat.ready = view.is_ready;
            self.say();
        }
        self.board.show_view(view);
    }

    fn note(&mut self, note: &Note) {
        self.board.record(note);
        let (code, group, member) = (note.code(), &self.me.group, &self.me.member);
        let epoch = self.failover.view().epoch;
        if note.is_warning() {
            tracing::warn!(code, %group, %member, %epoch, "{note}");
        } else {
            tracing::info!(code, %group, %member, %epoch, "{note}");
        }
        self.follow_switchover(note);
        self.follow_office(note);
        self.follow_promotion(note);
    }
}
