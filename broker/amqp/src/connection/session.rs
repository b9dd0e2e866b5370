//! Sessions: channels, windows, and the numbering and settlement of deliveries.
//!
//! Windows and ids are serial numbers (RFC 1982). Invariant: `sent` and `received` hold exactly the unsettled
//! deliveries of links that have not ended.

use super::{Command, Connection, Fault};
use crate::error::{AmqpError, CommandError, condition};
use crate::event::{DeliveryId, Event, Key, LinkId, SessionId, Unsettled};
use crate::performative::{Begin, Disposition, Flow, Performative, Role, put_disposition};
use crate::ring::{Ring, left, serial_before};
use crate::state::DeliveryState;
use std::collections::BTreeMap;

/// Our own outgoing window is not limited by us; this is what we say it is.
const OUTGOING_WINDOW: u32 = i32::MAX.cast_unsigned();

/// How far one side of a session or link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Unattached,
    Attached,
    Detached,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: u16,
    remote_channel: Option<u16>,
    pub(super) local: End,
    pub(super) remote: End,
    /// `SessionEnded` was queued.
    announced: bool,
    pub(super) next_outgoing_id: u32,
    /// Transfer frames the peer will take.
    pub(super) remote_window: u32,
    pub(super) next_incoming_id: u32,
    /// Transfer frames we will take before the next flow.
    pub(super) incoming_left: u32,
    pub(super) next_delivery_id: u32,
    pub(super) last_incoming: Option<u32>,
    pub(super) remote_handle_max: u32,
    pub(super) links: Vec<Key>,
    pub(super) local_handles: Vec<Option<Key>>,
    pub(super) remote_handles: Vec<Option<Key>>,
    pub(super) sent: Ring<Held>,
    pub(super) received: Ring<Held>,
    pub(super) pending: Option<Box<super::send::Pending>>,
    /// Dispositions not yet written: as sender and as receiver.
    merged: [Option<Merged>; 2],
    dirty: bool,
    flow_due: bool,
}

/// How often a peer may change the state of one delivery without settling it. Without a limit, one small
/// frame that names thousands of deliveries could be repeated for ever.
const MAX_UPDATES: u8 = 100;

/// A delivery that is not settled.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) link: Key,
    pub(super) context: u64,
    updates: u8,
}

impl Held {
    pub(super) const fn new(link: Key, context: u64) -> Self {
        Self {
            link,
            context,
            updates: 0,
        }
    }
}

#[derive(Debug)]
struct Merged {
    first: u32,
    last: u32,
    settled: bool,
    state: DeliveryState,
}

impl Session {
    fn new(channel: u16, first_delivery_id: u32, incoming_window: u32) -> Self {
        Self {
            channel,
            remote_channel: None,
            local: End::Attached,
            remote: End::Unattached,
            announced: false,
            next_outgoing_id: first_delivery_id,
            remote_window: 0,
            next_incoming_id: 0,
            incoming_left: incoming_window,
            next_delivery_id: first_delivery_id,
            last_incoming: None,
            remote_handle_max: u32::MAX,
            links: Vec::new(),
            local_handles: Vec::new(),
            remote_handles: Vec::new(),
            sent: Ring::default(),
            received: Ring::default(),
            pending: None,
            merged: [None, None],
            dirty: false,
            flow_due: false,
        }
    }

    /// Whether frames of the peer still count.
    pub(super) fn is_open(&self) -> bool {
        self.local == End::Attached && !self.announced
    }

    fn remote_began(&mut self, channel: u16, begin: &Begin) {
        self.remote = End::Attached;
        self.remote_channel = Some(channel);
        self.next_incoming_id = begin.next_outgoing_id;
        self.remote_window = begin.incoming_window;
        self.remote_handle_max = begin.handle_max;
    }

    /// Frames that may be sent now.
    pub(super) fn window_is_open(&self) -> bool {
        self.pending.is_none() && self.remote_window > 0
    }

    /// How many frames may be sent now: none while a message of several frames waits to leave whole.
    pub(super) fn window(&self) -> u32 {
        if self.is_open() && self.pending.is_none() {
            self.remote_window
        } else {
            0
        }
    }

    /// The session part of a flow; saying it opens the incoming window fully.
    pub(super) fn flow(&mut self, incoming_window: u32) -> Flow {
        self.flow_due = false;
        self.incoming_left = incoming_window;
        Flow {
            next_incoming_id: (self.remote == End::Attached).then_some(self.next_incoming_id),
            incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: OUTGOING_WINDOW,
            ..Flow::default()
        }
    }

    /// Counts one transfer frame in. False if the peer overran the window.
    pub(super) fn count_transfer(&mut self, incoming_window: u32) -> bool {
        let Some(left) = self.incoming_left.checked_sub(1) else {
            return false;
        };
        self.incoming_left = left;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        self.flow_due |= left <= incoming_window / 2;
        true
    }

    pub(super) const fn is_flow_due(&self) -> bool {
        self.flow_due
    }
}

impl Connection {
    /// Begins a session; `SessionBegun` follows when the peer answers. Links may be attached at once.
    ///
    /// # Errors
    /// `NotOpen` before our Open is written; `TooManySessions` if no channel is free.
    pub fn begin(&mut self) -> Command<SessionId> {
        self.require_open()?;
        let (key, _) = self.new_session().ok_or(CommandError::TooManySessions)?;
        self.write_begin(key, None);
        Ok(SessionId(key))
    }

    /// Ends a session. Its links and then the session are reported ended when the peer answers.
    ///
    /// # Errors
    /// `UnknownSession` if it has ended.
    pub fn end(&mut self, session: SessionId, error: Option<AmqpError>) -> Command {
        self.require_open()?;
        self.open_session(session.0)?;
        self.write_end(session.0, error);
        Ok(())
    }

    pub(super) fn open_session(&mut self, key: Key) -> Command<&mut Session> {
        self.sessions
            .fetch_mut(key)
            .filter(|session| session.is_open())
            .ok_or(CommandError::UnknownSession)
    }

    fn new_session(&mut self) -> Option<(Key, u16)> {
        if self.sessions.len() >= usize::from(self.config.max_sessions) {
            return None;
        }
        let free = self
            .local_channels
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.local_channels.len());
        let channel = u16::try_from(free).ok()?;
        if self.peer.as_ref().is_some_and(|peer| channel > peer.channel_max) {
            return None;
        }
        let session = Session::new(
            channel,
            self.config.first_delivery_id,
            self.config.incoming_window,
        );
        let key = self.sessions.insert(session);
        if free == self.local_channels.len() {
            self.local_channels.push(Some(key));
        } else {
            self.local_channels[free] = Some(key);
        }
        Some((key, channel))
    }

    fn write_begin(&mut self, key: Key, remote_channel: Option<u16>) {
        let Some(session) = self.sessions.fetch(key) else {
            return;
        };
        self.output.frame(
            session.channel,
            &Performative::Begin(Begin {
                remote_channel,
                next_outgoing_id: session.next_outgoing_id,
                incoming_window: self.config.incoming_window,
                outgoing_window: OUTGOING_WINDOW,
                handle_max: self.config.max_links - 1,
            }),
        );
    }

    pub(super) fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Fault> {
        let refuse = |condition, text: &str| Err(Fault::Connection(AmqpError::new(condition, text)));
        if channel >= self.config.max_sessions {
            return refuse(condition::FRAMING_ERROR, "channel above channel-max");
        }
        if self
            .remote_channels
            .get(usize::from(channel))
            .copied()
            .flatten()
            .is_some()
        {
            return refuse(condition::NOT_ALLOWED, "a second Begin on a channel");
        }
        let by_peer = begin.remote_channel.is_none();
        let key = match begin.remote_channel {
            Some(local) => match self.awaiting_session(local) {
                Some(key) => key,
                None => {
                    return refuse(
                        condition::INVALID_FIELD,
                        "remote-channel names no session that waits",
                    );
                }
            },
            None => match self.new_session() {
                Some((key, _)) => key,
                None => return refuse(condition::RESOURCE_LIMIT_EXCEEDED, "too many sessions"),
            },
        };
        self.map_channel(channel, key);
        if let Some(session) = self.sessions.fetch_mut(key) {
            session.remote_began(channel, begin);
        }
        if by_peer {
            self.write_begin(key, Some(channel));
        }
        if self.sessions.fetch(key).is_some_and(Session::is_open) {
            self.events.push_back(Event::SessionBegun {
                session: SessionId(key),
                by_peer,
            });
        }
        Ok(())
    }

    /// Our session on this channel, if the peer has not answered it.
    fn awaiting_session(&self, channel: u16) -> Option<Key> {
        let key = self.local_channels.get(usize::from(channel)).copied().flatten()?;
        self.sessions
            .fetch(key)
            .filter(|session| session.remote == End::Unattached)?;
        Some(key)
    }

    fn map_channel(&mut self, channel: u16, key: Key) {
        let index = usize::from(channel);
        if self.remote_channels.len() <= index {
            self.remote_channels.resize(index + 1, None);
        }
        self.remote_channels[index] = Some(key);
    }

    fn write_end(&mut self, key: Key, error: Option<AmqpError>) {
        self.flush_session(key);
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        session.local = End::Detached;
        session.pending = None;
        self.output.frame(session.channel, &Performative::End(error));
    }

    pub(super) fn on_end(&mut self, key: Key, error: Option<AmqpError>) {
        if self
            .sessions
            .fetch(key)
            .is_some_and(|session| session.local == End::Attached)
        {
            self.write_end(key, None);
        }
        self.announce_session_end(key, error);
        let Some(session) = self.sessions.remove(key) else {
            return;
        };
        for link in session.links {
            self.links.remove(link);
        }
        self.local_channels[usize::from(session.channel)] = None;
        if let Some(channel) = session.remote_channel {
            self.remote_channels[usize::from(channel)] = None;
        }
    }

    /// Ends a session for a violation; the owner hears of it at once, the peer's answer is awaited silently.
    pub(super) fn fail_session(&mut self, key: Key, error: AmqpError) {
        self.write_end(key, Some(error.clone()));
        self.announce_session_end(key, Some(error));
    }

    pub(super) fn announce_session_end(&mut self, key: Key, error: Option<AmqpError>) {
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        if std::mem::replace(&mut session.announced, true) {
            return;
        }
        let mut unsettled: BTreeMap<Key, Vec<Unsettled>> = BTreeMap::new();
        for (id, sent) in session.sent.extract(|_| true) {
            let unsettled = unsettled.entry(sent.link).or_default();
            unsettled.push(Unsettled {
                delivery: DeliveryId(id),
                context: sent.context,
            });
        }
        session.received = Ring::default();
        for link in session.links.clone() {
            let unsettled = unsettled.remove(&link).unwrap_or_default();
            self.announce_link_end(link, false, None, false, unsettled);
        }
        let error = error.map(Box::new);
        self.events.push_back(Event::SessionEnded {
            session: SessionId(key),
            error,
        });
    }

    pub(super) fn on_flow(&mut self, key: Key, flow: &Flow) -> Result<(), Fault> {
        let first = self.config.first_delivery_id;
        let Some(session) = self.sessions.fetch_mut(key) else {
            return Ok(());
        };
        let before = session.window();
        let seen = flow.next_incoming_id.unwrap_or(first);
        session.remote_window = left(flow.incoming_window, seen, session.next_outgoing_id);
        self.pump(key);
        let after = self.sessions.fetch(key).map_or(0, Session::window);
        if let Some(handle) = flow.handle {
            self.on_link_flow(key, handle, flow)?;
        } else if flow.echo {
            self.write_session_flow(key);
        }
        if after > before {
            self.announce_credit(key, before);
        }
        Ok(())
    }

    /// Tells every sender of a session whose window has grown, and that this window held back, that it may
    /// go on.
    fn announce_credit(&mut self, key: Key, window: u32) {
        let Some(session) = self.sessions.fetch(key) else {
            return;
        };
        for &link in &session.links {
            if let Some(sender) = self
                .links
                .fetch(link)
                .filter(|l| l.role == Role::Sender && l.is_attached())
                && sender.credit > window
            {
                let (credit, drain) = (sender.credit, sender.drain);
                self.events.push_back(Event::Credit {
                    link: LinkId(link),
                    credit,
                    drain,
                });
            }
        }
    }

    fn write_session_flow(&mut self, key: Key) {
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        let flow = session.flow(self.config.incoming_window);
        self.output.frame(session.channel, &Performative::Flow(flow));
    }

    pub(super) fn on_disposition(&mut self, key: Key, frame: &Disposition) -> Result<(), Fault> {
        if serial_before(frame.last, frame.first) {
            let error = AmqpError::new(
                condition::INVALID_FIELD,
                "a disposition whose last is before its first",
            );
            return Err(Fault::Session(key, error));
        }
        let Self {
            sessions,
            links,
            events,
            ..
        } = self;
        let Some(session) = sessions.fetch_mut(key) else {
            return Ok(());
        };
        // The receiver speaks of what we sent, the sender of what we received.
        let ring = match frame.role {
            Role::Receiver => &mut session.sent,
            Role::Sender => &mut session.received,
        };
        let range = ring.range(frame.first, frame.last);
        for index in range.clone() {
            let Some((id, held)) = ring.at(index) else {
                continue;
            };
            held.updates = held.updates.saturating_add(1);
            if !frame.settled && held.updates > MAX_UPDATES {
                let error = AmqpError::new(condition::NOT_ALLOWED, "too many states of one delivery");
                return Err(Fault::Session(key, error));
            }
            if let Some(link) = links.fetch_mut(held.link) {
                if frame.settled {
                    link.unsettled = link.unsettled.saturating_sub(1);
                }
                // The owner hears of a delivery when it is whole.
                let partial = link.partial.as_mut();
                if partial.is_some_and(|partial| partial.note_state(id, frame.settled)) {
                    continue;
                }
            }
            events.push_back(Event::Disposition {
                link: LinkId(held.link),
                delivery: DeliveryId(id),
                context: held.context,
                state: frame.state.clone(),
                settled: frame.settled,
            });
        }
        if frame.settled {
            ring.clear(range);
        }
        Ok(())
    }

    /// Sets the state of a delivery, of either direction. Equal states of neighbouring deliveries leave as
    /// one frame when output is next asked for.
    ///
    /// # Errors
    /// `UnknownLink`, or `UnknownDelivery` if it is settled already or the peer has detached the link; then
    /// there is nobody to tell.
    pub fn settle(
        &mut self,
        link: LinkId,
        delivery: DeliveryId,
        state: DeliveryState,
        settled: bool,
    ) -> Command {
        self.require_open()?;
        let held = self.links.fetch_mut(link.0).ok_or(CommandError::UnknownLink)?;
        let session = self
            .sessions
            .fetch_mut(held.session)
            .ok_or(CommandError::UnknownLink)?;
        if !session.is_open() {
            return Err(CommandError::UnknownDelivery);
        }
        let ring = match held.role {
            Role::Sender => &mut session.sent,
            Role::Receiver => &mut session.received,
        };
        let owner = ring.lookup(delivery.0).map(|delivery| delivery.link);
        if owner != Some(link.0) {
            return Err(CommandError::UnknownDelivery);
        }
        if settled {
            held.unsettled = held.unsettled.saturating_sub(1);
            ring.remove(delivery.0);
        }
        let (role, key) = (held.role, held.session);
        self.merge(key, role, delivery.0, state, settled);
        Ok(())
    }

    fn merge(&mut self, key: Key, role: Role, id: u32, state: DeliveryState, settled: bool) {
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        let slot = &mut session.merged[role as usize];
        if let Some(merged) = slot
            && merged.settled == settled
            && merged.state == state
        {
            if merged.last.wrapping_add(1) == id {
                merged.last = id;
                return;
            }
            if id.wrapping_add(1) == merged.first {
                merged.first = id;
                return;
            }
        }
        let merged = Merged {
            first: id,
            last: id,
            settled,
            state,
        };
        if let Some(earlier) = slot.replace(merged) {
            write_merged(&mut self.output, session.channel, role, earlier);
        }
        self.mark_dirty(key);
    }

    pub(super) fn mark_dirty(&mut self, key: Key) {
        if let Some(session) = self.sessions.fetch_mut(key)
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    pub(super) fn flush_session(&mut self, key: Key) {
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        session.dirty = false;
        if session.local != End::Attached {
            return;
        }
        for role in [Role::Sender, Role::Receiver] {
            if let Some(merged) = session.merged[role as usize].take() {
                write_merged(&mut self.output, session.channel, role, merged);
            }
        }
        if session.flow_due {
            self.write_session_flow(key);
        }
    }
}

fn write_merged(output: &mut crate::output::Output, channel: u16, role: Role, merged: Merged) {
    let Merged {
        first,
        last,
        settled,
        state,
    } = merged;
    let disposition = Disposition {
        role,
        first,
        last,
        settled,
        state: Some(state),
    };
    output.frame_with(channel, |buf| put_disposition(buf, &disposition));
}
