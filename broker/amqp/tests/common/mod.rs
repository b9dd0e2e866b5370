//! Two engines wired back to back, and a raw peer that says whatever a test wants.
#![allow(dead_code, reason = "every test binary uses its part")]

use bytes::Bytes;
use daymark_amqp::*;
use std::time::{Duration, Instant};

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary start; tests move time by hand"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A client and a server, and a hand that carries bytes between them.
pub(crate) struct Pair {
    pub(crate) client: Connection,
    pub(crate) server: Connection,
    pub(crate) now: Instant,
    /// How many bytes are carried at a time; small values cut frames.
    pub(crate) chunk: usize,
}

impl Pair {
    pub(crate) fn new(client: Config, server: Config) -> Self {
        let now = start();
        let (client, server) = (Connection::client(client, now), Connection::server(server, now));
        Self {
            client,
            server,
            now,
            chunk: usize::MAX,
        }
    }

    /// Both sides open.
    pub(crate) fn open() -> Self {
        Self::open_with(Config::default(), Config::default())
    }

    pub(crate) fn open_with(client: Config, server: Config) -> Self {
        let mut pair = Self::new(client, server);
        pair.client.open(OpenOptions::new("client")).unwrap();
        let events = pair.at_server();
        assert!(
            matches!(&events[..], [Event::RemoteOpen(open)] if open.container_id == "client"),
            "{events:?}"
        );
        pair.server.open(OpenOptions::new("server")).unwrap();
        let events = pair.at_client();
        assert!(matches!(&events[..], [Event::RemoteOpen(_)]), "{events:?}");
        pair
    }

    /// Carries what the client wrote; gives what the server saw.
    pub(crate) fn at_server(&mut self) -> Vec<Event> {
        carry(&mut self.client, &mut self.server, self.now, self.chunk)
    }

    /// Carries what the server wrote; gives what the client saw.
    pub(crate) fn at_client(&mut self) -> Vec<Event> {
        carry(&mut self.server, &mut self.client, self.now, self.chunk)
    }

    /// A session both sides know: the client's and the server's id.
    pub(crate) fn session(&mut self) -> (SessionId, SessionId) {
        let here = self.client.begin().unwrap();
        let events = self.at_server();
        let [
            Event::SessionBegun {
                session: there,
                by_peer: true,
            },
        ] = events[..]
        else {
            panic!("{events:?}")
        };
        let events = self.at_client();
        assert_eq!(
            events,
            [Event::SessionBegun {
                session: here,
                by_peer: false
            }]
        );
        (here, there)
    }

    /// A link the client sends on, accepted by the server: the client's and the server's id.
    pub(crate) fn sending_link(&mut self, session: SessionId, name: &str) -> (LinkId, LinkId) {
        let here = self
            .client
            .attach_sender(session, AttachOptions::to(name, "queue"))
            .unwrap();
        (here, self.answered(here))
    }

    /// A link the client receives on, accepted by the server.
    pub(crate) fn receiving_link(&mut self, session: SessionId, name: &str) -> (LinkId, LinkId) {
        let here = self
            .client
            .attach_receiver(session, AttachOptions::from(name, "queue"))
            .unwrap();
        (here, self.answered(here))
    }

    fn answered(&mut self, here: LinkId) -> LinkId {
        let events = self.at_server();
        let [
            Event::LinkRequested {
                link: there, attach, ..
            },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        self.server
            .accept_link(*there, AcceptOptions::echo(attach))
            .unwrap();
        let events = self.at_client();
        let [Event::LinkAttached { link, attach }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(*link, here);
        assert!(!attach.is_refused());
        *there
    }

    /// Grants credit to a client that sends.
    pub(crate) fn credit_to_client(&mut self, there: LinkId, credit: u32) {
        self.server.grant_credit(there, credit, false).unwrap();
        let events = self.at_client();
        assert!(
            matches!(events[..], [Event::Credit { credit: c, .. }] if c == credit),
            "{events:?}"
        );
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn carry(from: &mut Connection, to: &mut Connection, now: Instant, chunk: usize) -> Vec<Event> {
    let mut events: Vec<Event> = std::iter::from_fn(|| to.poll_event()).collect();
    let bytes = from.take_output(now);
    for piece in bytes.chunks(chunk.min(bytes.len().max(1))) {
        to.input(piece, now);
        events.extend(std::iter::from_fn(|| to.poll_event()));
    }
    events
}

pub(crate) fn poll(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

pub(crate) fn messages(events: Vec<Event>) -> Vec<Message> {
    events
        .into_iter()
        .filter_map(|event| {
            if let Event::Message(m) = event {
                Some(m)
            } else {
                None
            }
        })
        .collect()
}

pub(crate) fn text(body: &str) -> Bytes {
    message::MessageBuilder::new().text(body)
}

/// One frame: header, performative bytes, payload.
pub(crate) fn frame(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
    bytes.extend([2, kind]);
    bytes.extend(channel.to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) const HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";
/// Open with container-id "x".
pub(crate) const OPEN: &[u8] = &[0, 0x53, 0x10, 0xc0, 4, 1, 0xa1, 1, b'x'];
/// Begin: no remote channel, next-outgoing-id 0, windows 2,048.
pub(crate) const BEGIN: &[u8] = &[
    0, 0x53, 0x11, 0xc0, 13, 4, 0x40, 0x43, 0x70, 0, 0, 8, 0, 0x70, 0, 0, 8, 0,
];
/// Attach "l" as sender on handle 0 with an empty source and a target "q".
pub(crate) const ATTACH: &[u8] = &[
    0, 0x53, 0x12, 0xc0, 24, 10, 0xa1, 1, b'l', 0x43, 0x42, 0x40, 0x40, 0, 0x53, 0x28, 0x45, 0, 0x53, 0x29,
    0xc0, 4, 1, 0xa1, 1, b'q', 0x40, 0x40, 0x43,
];

/// A server that has talked with a raw client so far: open, one session, one accepted link with credit.
pub(crate) struct Victim {
    pub(crate) server: Connection,
    pub(crate) now: Instant,
    pub(crate) link: Option<LinkId>,
}

impl Victim {
    pub(crate) fn fresh(config: Config) -> Self {
        let now = start();
        Self {
            server: Connection::server(config, now),
            now,
            link: None,
        }
    }

    pub(crate) fn opened(config: Config) -> Self {
        let mut victim = Self::fresh(config);
        let mut bytes = HEADER.to_vec();
        bytes.extend(frame(0, 0, OPEN));
        let events = victim.say(&bytes);
        assert!(matches!(events[..], [Event::RemoteOpen(_)]), "{events:?}");
        victim.server.open(OpenOptions::new("victim")).unwrap();
        victim
    }

    pub(crate) fn begun(config: Config) -> Self {
        let mut victim = Self::opened(config);
        let events = victim.say(&frame(0, 0, BEGIN));
        assert!(matches!(events[..], [Event::SessionBegun { .. }]), "{events:?}");
        victim
    }

    pub(crate) fn attached(config: Config, credit: u32) -> Self {
        let mut victim = Self::begun(config);
        let events = victim.say(&frame(0, 0, ATTACH));
        let [Event::LinkRequested { link, attach, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        victim
            .server
            .accept_link(*link, AcceptOptions::echo(attach))
            .unwrap();
        victim.server.grant_credit(*link, credit, false).unwrap();
        victim.link = Some(*link);
        victim.server.take_output(victim.now);
        victim
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.server.input(bytes, self.now);
        poll(&mut self.server)
    }

    /// The condition the connection was closed with.
    pub(crate) fn closed_with(&mut self, bytes: &[u8]) -> Symbol {
        let events = self.say(bytes);
        let Some(Event::Closed(CloseReason::Violation(error))) = events.last() else {
            panic!("{events:?}")
        };
        error.condition.clone()
    }

    /// The condition the session was ended with.
    pub(crate) fn ended_with(&mut self, bytes: &[u8]) -> Symbol {
        let events = self.say(bytes);
        let Some(Event::SessionEnded {
            error: Some(error), ..
        }) = events.last()
        else {
            panic!("{events:?}")
        };
        error.condition.clone()
    }

    /// The condition the link was detached with.
    pub(crate) fn detached_with(&mut self, bytes: &[u8]) -> Symbol {
        let events = self.say(bytes);
        let Some(Event::LinkDetached {
            error: Some(error), ..
        }) = events.last()
        else {
            panic!("{events:?}")
        };
        error.condition.clone()
    }
}
