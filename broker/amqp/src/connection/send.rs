//! Sending messages: one frame when it fits, several when not, as far as the session window reaches.

use super::{Command, Connection};
use crate::error::CommandError;
use crate::event::{DeliveryId, Key, LinkId};
use crate::output::Output;
use crate::performative::{DeliveryTag, Role, Transfer, put_transfer};
use crate::state::{DeliveryState, TxnId};
use bytes::Bytes;

use super::session::{Held, Session};

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// First bytes of the message, such as a rewritten header section; copied. May be empty.
    pub head: &'a [u8],
    /// The rest of the message. Large ones are never copied.
    pub payload: Bytes,
    /// The delivery tag; `None`: the engine makes one that is unique on the link.
    pub tag: Option<&'a [u8]>,
    /// Send it settled: at most once, and no disposition comes.
    pub settled: bool,
    /// Given back with every disposition, and when the link ends with the message unsettled.
    pub context: u64,
    /// 0 for AMQP messages.
    pub message_format: u32,
    /// Let it take effect when this transaction commits.
    pub txn: Option<TxnId>,
}

impl Outgoing<'_> {
    /// An unsettled message with these sections.
    #[must_use]
    pub const fn new(payload: Bytes) -> Self {
        Self {
            head: &[],
            payload,
            tag: None,
            settled: false,
            context: 0,
            message_format: 0,
            txn: None,
        }
    }
}

/// A message of several frames that has not left whole.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) link: Key,
    /// The first frame's fields; only the handle stays for the later ones.
    transfer: Transfer,
    head: Bytes,
    payload: Bytes,
}

impl Connection {
    /// How many messages can be sent now, if each fits a frame: never more than the credit, the limit of
    /// unsettled deliveries, and the session window allow. `Credit` comes when a window that was smaller than
    /// the credit grows.
    #[must_use]
    pub fn sendable(&self, link: LinkId) -> u32 {
        let Some(link) = self
            .links
            .fetch(link.0)
            .filter(|l| l.role == Role::Sender && l.is_attached())
        else {
            return 0;
        };
        let window = self.sessions.fetch(link.session).map_or(0, Session::window);
        let room = self.config.max_unsettled.saturating_sub(link.unsettled);
        if self.is_open() {
            link.credit.min(room).min(window)
        } else {
            0
        }
    }

    /// Sends a message. It is written as far as the session window reaches, the rest follows by itself.
    ///
    /// # Errors
    /// `NoCredit` and `WindowShut`: wait for `Credit`. `TooManyUnsettled`: wait for dispositions.
    /// `MessageTooLarge`, `TagTooLong`: never. `NotOpen`, `UnknownLink`, `NotAttached`, `WrongRole`.
    pub fn send(&mut self, link: LinkId, message: Outgoing<'_>) -> Command<DeliveryId> {
        self.require_open()?;
        if self.links.fetch(link.0).is_some_and(|link| link.coordinator) {
            self.flush(); // A discharge must not overtake the settlements it is to cover.
        }
        let id = self.admit(link, &message)?;
        self.write_message(link, id, message);
        Ok(DeliveryId(id))
    }

    /// Checks that a message may be sent now, and numbers it.
    fn admit(&mut self, link: LinkId, message: &Outgoing<'_>) -> Command<u32> {
        let held = self.links.fetch_mut(link.0).ok_or(CommandError::UnknownLink)?;
        if held.role != Role::Sender {
            return Err(CommandError::WrongRole);
        }
        let attached = held.is_attached();
        let session = self
            .sessions
            .fetch_mut(held.session)
            .filter(|s| attached && s.is_open());
        let session = session.ok_or(CommandError::NotAttached)?;
        let (size, limit) = (message.head.len() + message.payload.len(), held.max_message_size);
        if limit != 0 && size as u64 > limit {
            return Err(CommandError::MessageTooLarge { limit });
        }
        if held.credit == 0 {
            return Err(CommandError::NoCredit);
        }
        if !session.window_is_open() {
            return Err(CommandError::WindowShut);
        }
        if message.tag.is_some_and(|tag| tag.len() > 32) {
            return Err(CommandError::TagTooLong);
        }
        let id = session.next_delivery_id;
        if !message.settled {
            let sent = Held::new(link.0, message.context);
            if held.unsettled >= self.config.max_unsettled || !session.sent.push(id, sent) {
                return Err(CommandError::TooManyUnsettled);
            }
            held.unsettled += 1;
        }
        session.next_delivery_id = id.wrapping_add(1);
        held.credit -= 1;
        held.delivery_count = held.delivery_count.wrapping_add(1);
        Ok(id)
    }

    fn write_message(&mut self, link: LinkId, id: u32, message: Outgoing<'_>) {
        let max_frame = self.max_frame_size() as usize;
        let Some(held) = self.links.fetch_mut(link.0) else {
            return;
        };
        let Some(session) = self.sessions.fetch_mut(held.session) else {
            return;
        };
        let tag = message.tag.and_then(DeliveryTag::new);
        let transfer = Transfer {
            handle: held.local_handle,
            delivery_id: Some(id),
            // The delivery-count is unique among the unsettled deliveries of the link.
            tag: Some(tag.unwrap_or_else(|| DeliveryTag::from_counter(held.delivery_count))),
            message_format: Some(message.message_format),
            settled: message.settled,
            state: message
                .txn
                .map(|txn| DeliveryState::Transactional { txn, outcome: None }),
            ..Transfer::default()
        };
        let head = message.head;
        if !write_whole(
            &mut self.output,
            session,
            &transfer,
            head,
            &message.payload,
            max_frame,
        ) {
            let head = Bytes::copy_from_slice(head);
            let pending = Pending {
                link: link.0,
                transfer,
                head,
                payload: message.payload,
            };
            session.pending = Some(Box::new(pending));
            let key = held.session;
            self.pump(key);
        }
    }

    /// Writes frames of a session's waiting message while the window is open.
    pub(super) fn pump(&mut self, key: Key) {
        let max_frame = self.max_frame_size() as usize;
        let Some(session) = self.sessions.fetch_mut(key) else {
            return;
        };
        let Some(mut pending) = session.pending.take() else {
            return;
        };
        while session.remote_window > 0 {
            if write_part(&mut self.output, session, &mut pending, max_frame) {
                return;
            }
        }
        session.pending = Some(pending);
    }
}

fn count_frame(session: &mut Session) {
    session.remote_window -= 1;
    session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
}

/// Writes a message as one frame. False, and nothing written, if it does not fit.
fn write_whole(
    output: &mut Output,
    session: &mut Session,
    transfer: &Transfer,
    head: &[u8],
    payload: &Bytes,
    max_frame: usize,
) -> bool {
    let size = head.len() + payload.len();
    if size >= max_frame {
        return false;
    }
    let start = output.begin_amqp(session.channel);
    put_transfer(output.buffer(), transfer);
    if output.buffer().len() - start + size > max_frame {
        output.rewind(start);
        return false;
    }
    output.finish(start, size);
    output.buffer().extend_from_slice(head);
    output.payload(payload);
    count_frame(session);
    true
}

/// Writes the next frame of a message. True if it was the last.
fn write_part(output: &mut Output, session: &mut Session, pending: &mut Pending, max_frame: usize) -> bool {
    let left = pending.head.len() + pending.payload.len();
    pending.transfer.more = true;
    let start = output.begin_amqp(session.channel);
    put_transfer(output.buffer(), &pending.transfer);
    let room = max_frame.saturating_sub(output.buffer().len() - start).max(1);
    let last = left <= room;
    if last {
        output.rewind(start);
        output.begin_amqp(session.channel);
        pending.transfer.more = false;
        put_transfer(output.buffer(), &pending.transfer);
    }
    let size = left.min(room);
    output.finish(start, size);
    let head = pending.head.split_to(size.min(pending.head.len()));
    let payload = pending.payload.split_to(size - head.len());
    output.buffer().extend_from_slice(&head);
    output.payload(&payload);
    count_frame(session);
    pending.transfer = Transfer {
        handle: pending.transfer.handle,
        ..Transfer::default()
    };
    last
}
