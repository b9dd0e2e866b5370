//! The exchanges that the specification draws, frame by frame: the peer says its half, the engine the other.

use crate::config::{AcceptOptions, Config, OpenOptions};
use crate::connection::{Connection, Outgoing};
use crate::error::{AmqpError, condition};
use crate::event::{CloseReason, Event, LinkId};
use crate::performative::{
    Attach, Begin, DeliveryTag, Detach, Disposition, Flow, Open, Performative, RcvSettleMode, Role,
    SndSettleMode, Transfer,
};
use crate::state::{DeliveryState, Outcome, TxnId};
use crate::terminus::{Source, Target};
use crate::txn;
use crate::value::Fields;
use bytes::Bytes;
use std::time::Instant;

const HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";

/// A server, and the frames it is told and answers.
struct Script {
    server: Connection,
    now: Instant,
}

impl Script {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start")]
    fn new() -> Self {
        let now = Instant::now();
        let server = Connection::server(Config::default(), now);
        Self { server, now }
    }

    /// Headers and Open have been exchanged.
    fn opened() -> Self {
        let mut script = Self::new();
        script.server.input(HEADER, script.now);
        script.hears(0, &open());
        script.server.open(OpenOptions::new("server")).unwrap();
        let said = script.server.take_output(script.now);
        assert!(said.starts_with(HEADER));
        assert!(matches!(frames(&said[8..])[..], [(0, Performative::Open(_))]));
        script
    }

    /// And a session on channel 0 of both sides.
    fn begun() -> Self {
        let mut script = Self::opened();
        script.hears(0, &Performative::Begin(begin(None)));
        assert!(matches!(
            script.says()[..],
            [(
                0,
                Performative::Begin(Begin {
                    remote_channel: Some(0),
                    ..
                })
            )]
        ));
        script
    }

    /// And a link on handle 0; the peer has this role.
    fn attached(role: Role) -> (Self, LinkId) {
        let mut script = Self::begun();
        let events = script.hears(0, &Performative::Attach(Box::new(attach(role))));
        let [Event::LinkRequested { link, attach, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        script
            .server
            .accept_link(*link, AcceptOptions::echo(attach))
            .unwrap();
        let said = script.says();
        assert!(
            matches!(&said[..], [(0, Performative::Attach(a))] if a.role == role.other()),
            "{said:?}"
        );
        (script, *link)
    }

    fn hears(&mut self, channel: u16, performative: &Performative) -> Vec<Event> {
        self.hears_with(channel, performative, b"")
    }

    fn hears_with(&mut self, channel: u16, performative: &Performative, payload: &[u8]) -> Vec<Event> {
        let mut body = Vec::new();
        performative.encode(&mut body);
        body.extend(payload);
        let mut frame = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
        frame.extend([2, 0]);
        frame.extend(channel.to_be_bytes());
        frame.extend(body);
        self.server.input(&frame, self.now);
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    fn says(&mut self) -> Vec<(u16, Performative)> {
        frames(&self.server.take_output(self.now))
    }
}

fn frames(mut bytes: &[u8]) -> Vec<(u16, Performative)> {
    let mut frames = Vec::new();
    while let Some(head) = bytes.first_chunk::<8>() {
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let channel = u16::from_be_bytes([head[6], head[7]]);
        let (frame, rest) = bytes.split_at(size);
        frames.push((channel, Performative::decode(&frame[8..]).unwrap().0));
        bytes = rest;
    }
    frames
}

fn open() -> Performative {
    Performative::Open(Box::new(Open {
        container_id: "peer".into(),
        hostname: None,
        max_frame_size: u32::MAX,
        channel_max: 9,
        idle_timeout: None,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Fields::new(),
    }))
}

const fn begin(remote_channel: Option<u16>) -> Begin {
    Begin {
        remote_channel,
        next_outgoing_id: 0,
        incoming_window: 10,
        outgoing_window: 10,
        handle_max: 9,
    }
}

fn attach(role: Role) -> Attach {
    Attach {
        name: "link".into(),
        handle: 0,
        role,
        snd_settle_mode: SndSettleMode::Mixed,
        rcv_settle_mode: RcvSettleMode::First,
        source: Some(Source::address("source")),
        target: Some(Target::address("target")),
        has_unsettled: false,
        initial_delivery_count: (role == Role::Sender).then_some(0),
        max_message_size: 0,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Fields::new(),
    }
}

const fn credit(delivery_count: u32, link_credit: u32, drain: bool) -> Performative {
    Performative::Flow(Flow {
        next_incoming_id: Some(delivery_count),
        incoming_window: 10,
        next_outgoing_id: 0,
        outgoing_window: 10,
        handle: Some(0),
        delivery_count: Some(delivery_count),
        link_credit: Some(link_credit),
        available: None,
        drain,
        echo: false,
        transactional: false,
    })
}

fn transfer(id: u32) -> Performative {
    Performative::Transfer(transfer_of(id))
}

fn transfer_of(id: u32) -> Transfer {
    Transfer {
        delivery_id: Some(id),
        tag: DeliveryTag::new(&id.to_be_bytes()),
        message_format: Some(0),
        ..Transfer::default()
    }
}

const fn disposition(role: Role, id: u32, settled: bool, state: Option<DeliveryState>) -> Performative {
    Performative::Disposition(Disposition {
        role,
        first: id,
        last: id,
        settled,
        state,
    })
}

/// Part 2.2: a version that is not spoken is answered with the one that is.
#[test]
fn version_negotiation() {
    let mut script = Script::new();
    script.server.input(b"AMQP\x00\x01\x01\x00", script.now);
    assert_eq!(
        script.server.poll_event(),
        Some(Event::Closed(CloseReason::UnsupportedProtocol(
            *b"AMQP\x00\x01\x01\x00"
        )))
    );
    assert_eq!(script.server.take_output(script.now), HEADER);
}

/// Part 2.4.1, pipelined open: the peer waits for nothing, and Begin may follow at once.
#[test]
fn pipelined_open() {
    let mut script = Script::new();
    let mut bytes = HEADER.to_vec();
    for performative in [open(), Performative::Begin(begin(None))] {
        let mut body = Vec::new();
        performative.encode(&mut body);
        bytes.extend(u32::try_from(body.len() + 8).unwrap().to_be_bytes());
        bytes.extend([2, 0, 0, 0]);
        bytes.extend(body);
    }
    script.server.input(&bytes, script.now);
    assert!(matches!(script.server.poll_event(), Some(Event::RemoteOpen(_))));
    script.server.open(OpenOptions::new("server")).unwrap();
    assert!(matches!(
        script.server.poll_event(),
        Some(Event::SessionBegun { by_peer: true, .. })
    ));
    let said = frames(&script.server.take_output(script.now)[8..]);
    assert!(
        matches!(
            said[..],
            [(0, Performative::Open(_)), (0, Performative::Begin(_))]
        ),
        "{said:?}"
    );
}

/// Part 2.4.3: both sides close at once, and both are content.
#[test]
fn simultaneous_close() {
    let mut script = Script::opened();
    script.server.close(None);
    assert_eq!(script.says(), [(0, Performative::Close(None))]);
    let events = script.hears(0, &Performative::Close(None));
    assert_eq!(events, [Event::Closed(CloseReason::Local)]);
    assert_eq!(script.says(), []);
}

/// Part 2.5.4: both sides end a session at once; the channel is free again.
#[test]
fn simultaneous_end() {
    let mut script = Script::opened();
    let events = script.hears(3, &Performative::Begin(begin(None)));
    let [
        Event::SessionBegun {
            session,
            by_peer: true,
        },
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    script.says();
    script.server.end(session, None).unwrap();
    assert_eq!(script.says(), [(0, Performative::End(None))]);
    let events = script.hears(3, &Performative::End(None));
    assert_eq!(events, [Event::SessionEnded { session, error: None }]);
    assert_eq!(script.says(), []);
    assert_eq!(script.hears(3, &Performative::Begin(begin(None))).len(), 1);
}

/// Part 2.6.5: the peer detaches, is answered, and takes the handle again.
#[test]
fn detach_and_attach_again() {
    let (mut script, link) = Script::attached(Role::Sender);
    let detach = Detach {
        handle: 0,
        closed: false,
        error: None,
    };
    let events = script.hears(0, &Performative::Detach(detach.clone()));
    assert!(
        matches!(
            events[..],
            [Event::LinkDetached {
                closed: false,
                by_peer: true,
                ..
            }]
        ),
        "{events:?}"
    );
    script.server.detach(link, false, None).unwrap();
    assert_eq!(script.says(), [(0, Performative::Detach(detach))]);
    let again = Performative::Attach(Box::new(attach(Role::Sender)));
    let events = script.hears(0, &again);
    assert!(matches!(events[..], [Event::LinkRequested { .. }]), "{events:?}");
}

/// Part 2.6.3: what does not exist is refused by an attach without it and a detach that says why.
#[test]
fn refused_link() {
    let mut script = Script::begun();
    let events = script.hears(0, &Performative::Attach(Box::new(attach(Role::Receiver))));
    let [Event::LinkRequested { link, .. }] = events[..] else {
        panic!("{events:?}")
    };
    let error = AmqpError::new(condition::NOT_FOUND, "no");
    script.server.refuse_link(link, error.clone()).unwrap();
    let said = script.says();
    let [
        (0, Performative::Attach(answer)),
        (0, Performative::Detach(detach)),
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert!(answer.source.is_none() && answer.role == Role::Sender);
    assert!(detach.closed && detach.error == Some(error));
}

/// Part 2.6.7, synchronous get: credit for one and drain, which either brings a message or gives the credit back.
#[test]
fn synchronous_get() {
    let (mut script, link) = Script::attached(Role::Receiver);
    let asked = Event::Credit {
        link,
        credit: 1,
        drain: true,
    };
    assert_eq!(script.hears(0, &credit(0, 1, true)), std::slice::from_ref(&asked));
    script.server.drained(link).unwrap();
    let said = script.says();
    let [(0, Performative::Flow(flow))] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(
        (flow.delivery_count, flow.link_credit, flow.drain),
        (Some(1), Some(0), true)
    );

    assert_eq!(script.hears(0, &credit(1, 1, true)), [asked]);
    script
        .server
        .send(link, Outgoing::new(Bytes::from_static(b"m")))
        .unwrap();
    script.server.drained(link).unwrap();
    let said = script.says();
    assert!(
        matches!(&said[0], (0, Performative::Transfer(t)) if t.delivery_id == Some(0)),
        "{said:?}"
    );
    assert_eq!(script.server.credit(link), 0);
}

/// Part 2.6.7, asynchronous notification: credit stays until it is taken back, and is taken back by a smaller one.
#[test]
fn asynchronous_notification() {
    let (mut script, link) = Script::attached(Role::Receiver);
    script.hears(0, &credit(0, 3, false));
    script
        .server
        .send(link, Outgoing::new(Bytes::from_static(b"1")))
        .unwrap();
    // The peer had not seen the first message when it said this.
    script.hears(0, &credit(0, 2, false));
    assert_eq!(script.server.credit(link), 1);
    script.hears(0, &credit(1, 0, false));
    assert_eq!(script.server.sendable(link), 0);
}

/// Part 2.6.12, at least once: the receiver's settled outcome ends it.
#[test]
fn at_least_once() {
    let (mut script, link) = Script::attached(Role::Sender);
    script.server.grant_credit(link, 1, false).unwrap();
    script.says();
    let events = script.hears_with(0, &transfer(0), b"m");
    let [Event::Message(message)] = &events[..] else {
        panic!("{events:?}")
    };
    script
        .server
        .settle(link, message.delivery, DeliveryState::ACCEPTED, true)
        .unwrap();
    let accepted = disposition(Role::Receiver, 0, true, Some(DeliveryState::ACCEPTED));
    assert_eq!(script.says(), [(0, accepted)]);
}

/// Part 2.6.12, exactly once: the receiver states, the sender settles, the receiver forgets.
#[test]
fn exactly_once() {
    let (mut script, link) = Script::attached(Role::Sender);
    script.server.grant_credit(link, 1, false).unwrap();
    script.says();
    let events = script.hears_with(0, &transfer(0), b"m");
    let [Event::Message(message)] = &events[..] else {
        panic!("{events:?}")
    };
    let released = DeliveryState::Outcome(Outcome::Released);
    script
        .server
        .settle(link, message.delivery, released.clone(), false)
        .unwrap();
    let said = script.says();
    assert_eq!(
        said,
        [(0, disposition(Role::Receiver, 0, false, Some(released.clone())))]
    );
    assert_eq!(script.server.unsettled(link), 1);
    let events = script.hears(0, &disposition(Role::Sender, 0, true, Some(released)));
    assert!(
        matches!(events[..], [Event::Disposition { settled: true, .. }]),
        "{events:?}"
    );
    assert_eq!(script.server.unsettled(link), 0);
}

/// Part 2.6.12, at most once: a settled transfer, and nothing is said to it.
#[test]
fn at_most_once() {
    let (mut script, link) = Script::attached(Role::Sender);
    script.server.grant_credit(link, 1, false).unwrap();
    script.says();
    let settled = Transfer {
        settled: true,
        ..transfer_of(0)
    };
    let events = script.hears_with(0, &Performative::Transfer(settled), b"m");
    assert!(
        matches!(&events[..], [Event::Message(message)] if message.settled),
        "{events:?}"
    );
    assert_eq!(script.server.unsettled(link), 0);
    assert_eq!(script.says(), []);
}

/// Part 2.6.14: a message in several transfers; those after the first need not say again which it is.
#[test]
fn large_message_and_abort() {
    let (mut script, link) = Script::attached(Role::Sender);
    script.server.grant_credit(link, 2, false).unwrap();
    script.says();
    let first = |id| {
        Performative::Transfer(Transfer {
            more: true,
            ..transfer_of(id)
        })
    };
    let next = |more, aborted| {
        Performative::Transfer(Transfer {
            more,
            aborted,
            ..Transfer::default()
        })
    };
    assert_eq!(script.hears_with(0, &first(0), b"a"), []);
    assert_eq!(script.hears_with(0, &next(true, false), b"b"), []);
    let events = script.hears_with(0, &next(false, false), b"c");
    assert!(
        matches!(&events[..], [Event::Message(message)] if message.payload == b"abc"[..]),
        "{events:?}"
    );
    assert_eq!(script.hears_with(0, &first(1), b"lost"), []);
    assert_eq!(script.hears(0, &next(false, true)), [Event::Aborted { link }]);
    assert_eq!(
        (script.server.credit(link), script.server.unsettled(link)),
        (0, 1)
    );
}

/// Part 2.5.6: a session ends with an error, and what the peer said before it heard of that is not heard.
#[test]
fn session_error() {
    let mut script = Script::begun();
    let stray = script.hears(0, &transfer(0));
    assert!(
        matches!(stray[..], [Event::SessionEnded { error: Some(_), .. }]),
        "{stray:?}"
    );
    let said = script.says();
    assert!(
        matches!(&said[..], [(0, Performative::End(Some(error)))] if error.condition == condition::UNATTACHED_HANDLE),
        "{said:?}"
    );
    assert_eq!(
        script.hears(0, &Performative::Attach(Box::new(attach(Role::Sender)))),
        []
    );
    script.hears(0, &Performative::End(None));
    assert_eq!(script.says(), []);
    script.hears(0, &Performative::Begin(begin(None)));
    assert!(
        matches!(script.says()[..], [(0, Performative::Begin(_))]),
        "the channel is free again"
    );
}

/// Part 4.4: declare, a transfer and its provisional outcome, discharge.
#[test]
fn transaction() {
    let mut script = Script::begun();
    let coordinator = Attach {
        name: "coordinator".into(),
        target: Some(Target::Coordinator {
            capabilities: vec![txn::LOCAL_TRANSACTIONS],
        }),
        ..attach(Role::Sender)
    };
    let work = Attach {
        handle: 1,
        ..attach(Role::Sender)
    };
    let [coordinator, work] = [coordinator, work].map(|attach| {
        let events = script.hears(0, &Performative::Attach(Box::new(attach)));
        let [Event::LinkRequested { link, attach, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        script
            .server
            .accept_link(*link, AcceptOptions::echo(attach))
            .unwrap();
        script.server.grant_credit(*link, 10, false).unwrap();
        *link
    });
    script.says();
    let txn = TxnId::new(&b"1"[..]);
    let events = script.hears_with(0, &transfer(0), &txn::declare(None));
    let [Event::Declare { delivery, .. }] = events[..] else {
        panic!("{events:?}")
    };
    let declared = DeliveryState::Declared(txn.clone());
    script
        .server
        .settle(coordinator, delivery, declared.clone(), true)
        .unwrap();
    assert_eq!(
        script.says(),
        [(0, disposition(Role::Receiver, 0, true, Some(declared)))]
    );
    let within = |outcome| DeliveryState::Transactional {
        txn: txn.clone(),
        outcome,
    };
    let posted = Transfer {
        handle: 1,
        state: Some(within(None)),
        ..transfer_of(1)
    };
    let events = script.hears_with(0, &Performative::Transfer(posted), b"m");
    let [Event::Message(message)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(message.txn.as_ref(), Some(&txn));
    let provisional = within(Some(Outcome::Accepted));
    script
        .server
        .settle(work, message.delivery, provisional.clone(), true)
        .unwrap();
    assert_eq!(
        script.says(),
        [(0, disposition(Role::Receiver, 1, true, Some(provisional)))]
    );
    let events = script.hears_with(0, &transfer(2), &txn::discharge(&txn, false));
    let [
        Event::Discharge {
            delivery,
            fail: false,
            ..
        },
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    script
        .server
        .settle(coordinator, delivery, DeliveryState::ACCEPTED, true)
        .unwrap();
    let committed = disposition(Role::Receiver, 2, true, Some(DeliveryState::ACCEPTED));
    assert_eq!(script.says(), [(0, committed)]);
}
