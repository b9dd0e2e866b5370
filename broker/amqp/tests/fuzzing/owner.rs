//! An owner of an engine that does something legal with every event, and keeps account of what it was told.
//!
//! Whatever the peer does, the account must balance: every link and session ends once and in order, every message
//! fits the credit that was granted, every unsettled delivery comes back exactly once.

use super::random::Random;
use bytes::Bytes;
use daymark_amqp::{
    AcceptOptions, AmqpError, AttachOptions, Connection, DeliveryId, DeliveryState, Event, LinkId,
    OpenOptions, Outcome, Outgoing, Role, SaslCode, SessionId, TxnId, condition,
};
use std::collections::{BTreeMap, BTreeSet};

/// Credit is given out by this much.
const CREDIT: u32 = 20;

#[derive(Debug)]
struct Link {
    session: SessionId,
    /// Asked for and neither accepted nor refused.
    waits: bool,
    /// Receiver: all the credit ever granted beyond what was used, and messages that came.
    granted: u64,
    came: u64,
    /// Sender: contexts sent unsettled and not heard of again.
    open: BTreeSet<u64>,
}

/// One engine, what it is told, and the account.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) engine: Connection,
    pub(crate) random: Random,
    is_client: bool,
    sessions: BTreeSet<SessionId>,
    links: BTreeMap<LinkId, Link>,
    /// Received and not settled by us.
    received: Vec<(LinkId, DeliveryId)>,
    contexts: u64,
    pub(crate) events: u64,
    pub(crate) messages: u64,
    pub(crate) closed: Option<daymark_amqp::CloseReason>,
}

impl Owner {
    pub(crate) fn new(engine: Connection, is_client: bool, random: Random) -> Self {
        Self {
            engine,
            random,
            is_client,
            sessions: BTreeSet::new(),
            links: BTreeMap::new(),
            received: Vec::new(),
            contexts: 0,
            events: 0,
            messages: 0,
            closed: None,
        }
    }

    /// Polls and answers everything.
    pub(crate) fn poll(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            assert!(self.closed.is_none(), "{event:?} after the end");
            self.events += 1;
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::SaslInit(_) | Event::SaslResponse(_) => self.decide(),
            Event::SaslChallenge(_) => {
                let _ = self.engine.sasl_response(Bytes::from_static(b"response"));
            }
            Event::SaslOutcome { .. } => {}
            Event::RemoteOpen(_) => {
                let _ = self.engine.open(OpenOptions::new("fuzz"));
            }
            Event::SessionBegun { session, by_peer } => {
                assert_eq!(
                    self.sessions.insert(session),
                    by_peer,
                    "a session begun twice or unknown"
                );
            }
            Event::LinkRequested {
                link,
                session,
                attach,
            } => {
                assert!(self.sessions.contains(&session), "a link of no session");
                let before = self.links.insert(link, new_link(session, true));
                assert!(before.is_none(), "a link requested twice");
                self.answer(link, AcceptOptions::echo(&attach));
            }
            Event::LinkAttached { link, .. } => {
                assert!(self.links.contains_key(&link), "an answer to no link");
                self.grant(link);
            }
            Event::Credit { link, .. } => {
                assert!(self.links.contains_key(&link), "credit of no link");
                self.send(link);
            }
            // Credit may have been granted again since.
            Event::Drained { link } => assert!(self.links.contains_key(&link), "a drain of no link"),
            Event::Message(message) => {
                self.count(message.link);
                self.messages += 1;
                if !message.settled {
                    self.received.push((message.link, message.delivery));
                }
            }
            Event::Aborted { link } => self.count(link),
            Event::Declare { link, delivery, .. } => {
                self.count(link);
                let txn = TxnId::new(Bytes::from_static(b"txn"));
                let _ = self
                    .engine
                    .settle(link, delivery, DeliveryState::Declared(txn), true);
            }
            Event::Discharge { link, delivery, .. } => {
                self.count(link);
                self.received.push((link, delivery));
            }
            Event::Disposition {
                link,
                delivery,
                context,
                state,
                settled,
            } => self.on_disposition(link, delivery, context, state, settled),
            Event::LinkDetached {
                link,
                closed,
                by_peer,
                unsettled,
                ..
            } => {
                let held = self
                    .links
                    .remove(&link)
                    .expect("a link that ends twice or never began");
                assert!(
                    self.sessions.contains(&held.session),
                    "a link outlives its session"
                );
                let contexts: BTreeSet<u64> = unsettled.iter().map(|delivery| delivery.context).collect();
                assert_eq!(contexts.len(), unsettled.len(), "a delivery given back twice");
                assert_eq!(contexts, held.open, "other deliveries given back than were open");
                self.received.retain(|(other, _)| *other != link);
                if by_peer {
                    let _ = self.engine.detach(link, closed, None);
                }
            }
            Event::SessionEnded { session, .. } => {
                assert!(
                    self.sessions.remove(&session),
                    "a session that ends twice or never began"
                );
                let orphans = self.links.values().filter(|link| link.session == session).count();
                assert_eq!(orphans, 0, "a session ended before its links");
            }
            Event::Closed(reason) => {
                assert!(self.links.is_empty(), "links outlive the connection");
                assert!(self.sessions.is_empty(), "sessions outlive the connection");
                self.closed = Some(reason);
            }
        }
    }

    fn decide(&mut self) {
        let _ = match self.random.below(6) {
            0 => self.engine.sasl_challenge(Bytes::from_static(b"challenge")),
            1 => self.engine.sasl_outcome(SaslCode::Auth, None),
            _ => self.engine.sasl_outcome(SaslCode::Ok, None),
        };
    }

    fn answer(&mut self, link: LinkId, accept: AcceptOptions) {
        match self.random.below(8) {
            0 => {
                // A refused link is heard of no more.
                let error = AmqpError::new(condition::NOT_FOUND, "no");
                if self.engine.refuse_link(link, error).is_ok() {
                    self.links.remove(&link);
                }
            }
            1 => {} // It waits; perhaps for ever.
            _ => self.accept(link, accept),
        }
    }

    fn accept(&mut self, link: LinkId, accept: AcceptOptions) {
        if self.engine.accept_link(link, accept).is_ok() {
            if let Some(held) = self.links.get_mut(&link) {
                held.waits = false;
            }
            self.grant(link);
        }
    }

    fn grant(&mut self, link: LinkId) {
        if self.engine.role(link) != Some(Role::Receiver) {
            return;
        }
        let drain = self.random.one_in(10);
        let had = self.engine.credit(link);
        if self.engine.grant_credit(link, CREDIT, drain).is_ok()
            && let Some(held) = self.links.get_mut(&link)
        {
            held.granted += u64::from(CREDIT.saturating_sub(had));
        }
    }

    /// One message, whole or not, came on a link we receive on.
    fn count(&mut self, link: LinkId) {
        let held = self.links.get_mut(&link).expect("a message of no link");
        held.came += 1;
        assert!(
            held.came <= held.granted,
            "{} messages, {} granted",
            held.came,
            held.granted
        );
        if self.engine.credit(link) < CREDIT / 4 {
            self.grant(link);
        }
    }

    fn on_disposition(
        &mut self,
        link: LinkId,
        delivery: DeliveryId,
        context: u64,
        state: Option<DeliveryState>,
        settled: bool,
    ) {
        let held = self.links.get_mut(&link).expect("a disposition of no link");
        if self.engine.role(link) == Some(Role::Receiver) {
            if settled {
                let place = self.received.iter().position(|held| *held == (link, delivery));
                self.received
                    .swap_remove(place.expect("a delivery that was not open"));
            }
            return;
        }
        assert!(held.open.contains(&context), "a disposition of no open delivery");
        if settled {
            held.open.remove(&context);
        } else {
            let state = state.unwrap_or(DeliveryState::ACCEPTED);
            if self.engine.settle(link, delivery, state, true).is_ok() {
                held.open.remove(&context);
            }
        }
    }

    /// Sends as much as may be sent, and says when that was all.
    pub(crate) fn send(&mut self, link: LinkId) {
        let most = self.random.below(30);
        for _ in 0..most {
            if self.engine.sendable(link) == 0 || !self.engine.is_writable() {
                break;
            }
            self.send_one(link);
        }
        if self.random.one_in(2) {
            let _ = self.engine.drained(link);
        }
    }

    fn send_one(&mut self, link: LinkId) {
        let Some(held) = self.links.get_mut(&link) else {
            return;
        };
        let size = [0, 1, 100, 600, 5_000][self.random.below(5)];
        self.contexts += 1;
        let context = self.contexts;
        let settled = self.random.one_in(4);
        let outgoing = Outgoing {
            settled,
            context,
            ..Outgoing::new(Bytes::from(vec![b'm'; size]))
        };
        if self.engine.send(link, outgoing).is_ok() && !settled {
            held.open.insert(context);
        }
    }

    /// Does one thing that an owner may do at any time.
    pub(crate) fn act(&mut self) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        let sessions: Vec<SessionId> = self.sessions.iter().copied().collect();
        match self.random.below(12) {
            // Only clients begin sessions: two sides that fill each other's channels could not answer.
            0 if self.is_client => {
                if let Ok(session) = self.engine.begin() {
                    self.sessions.insert(session);
                }
            }
            1 | 2 => {
                if let Some(session) = self.random.pick(&sessions).copied() {
                    self.attach(session);
                }
            }
            3 | 4 => {
                if let Some(link) = self.random.pick(&links).copied() {
                    self.send(link);
                }
            }
            5 => {
                if let Some(link) = self.random.pick(&links).copied() {
                    self.grant(link);
                }
            }
            6 if self.random.one_in(3) => {
                if let Some(link) = self.random.pick(&links).copied() {
                    let closed = self.random.one_in(2);
                    let _ = self.engine.detach(link, closed, None);
                }
            }
            7 if self.random.one_in(6) => {
                if let Some(session) = self.random.pick(&sessions).copied() {
                    let _ = self.engine.end(session, None);
                }
            }
            _ => self.settle_some(),
        }
    }

    fn attach(&mut self, session: SessionId) {
        let name = format!("link {}", self.random.below(6));
        let attached = if self.random.one_in(2) {
            self.engine
                .attach_sender(session, AttachOptions::to(name, "queue"))
        } else {
            self.engine
                .attach_receiver(session, AttachOptions::from(name, "queue"))
        };
        if let Ok(link) = attached {
            self.links.insert(link, new_link(session, false));
        }
    }

    fn settle_some(&mut self) {
        let outcome = match self.random.below(4) {
            0 => Outcome::Released,
            1 => Outcome::Rejected(None),
            _ => Outcome::Accepted,
        };
        let settled = !self.random.one_in(5);
        for _ in 0..=self.random.below(20) {
            if self.received.is_empty() {
                return;
            }
            let place = self.random.below(self.received.len());
            let (link, delivery) = self.received[place];
            let result = self
                .engine
                .settle(link, delivery, outcome.clone().into(), settled);
            if result.is_err() || settled {
                self.received.swap_remove(place);
            }
        }
    }

    /// What must hold between any two calls.
    pub(crate) fn check(&self, config: &daymark_amqp::Config) {
        for (link, held) in &self.links {
            assert!(
                self.engine.unsettled(*link) <= config.max_unsettled,
                "too many unsettled"
            );
            if self.engine.role(*link) == Some(Role::Sender) {
                assert!(
                    self.engine.sendable(*link) <= self.engine.credit(*link),
                    "more than the credit may be sent"
                );
                assert!(
                    !held.waits || self.engine.sendable(*link) == 0,
                    "an unanswered link may send"
                );
            }
        }
        assert!(self.links.len() <= usize::from(config.max_sessions) * 2 * config.max_links as usize);
        assert!(self.sessions.len() <= usize::from(config.max_sessions) * 2);
    }
}

const fn new_link(session: SessionId, waits: bool) -> Link {
    Link {
        session,
        waits,
        granted: 0,
        came: 0,
        open: BTreeSet::new(),
    }
}
