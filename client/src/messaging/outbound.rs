//! The sending side of one producer, as the driver keeps it: what waits, what is on its way, what is resent.
//!
//! It decides the order: messages leave in the order they were given, again after a reconnection; and which
//! messages a lost connection, or the end of a transaction, takes with it. Invariant: every message given gets
//! exactly one answer. It holds at most the producer's window.

use std::collections::VecDeque;

use bytes::Bytes;
use daymark_amqp::{
    AttachOptions, CommandError, Connection as Engine, DeliveryState, LinkId, Outcome, Outgoing,
    SndSettleMode, Source, Target, TargetNode, TxnId,
};
use daymark_naming_proto::Epoch;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::abilities;
use super::destination::{Destination, outcomes};
use super::driver::Closing;
use super::error::{Disconnected, OpenError, Refusal, SendError};
use super::message::{DuplicateId, Message};
use super::transaction::RollbackReason;

/// The answer to one send: the epoch of the broker that has it.
pub(super) type SendReply = oneshot::Sender<Result<Epoch, SendError>>;

/// What goes over the wire.
pub(super) enum Payload {
    Ready(Bytes),
    /// Written anew for each broker, because an address in it may change.
    Late {
        message: Box<Message>,
        to: Option<Destination>,
    },
}

impl Payload {
    pub(super) fn new(message: Message, id: DuplicateId, to: Option<Destination>) -> Self {
        let moves = |destination: &Destination| destination.moves();
        if message.reply_to.as_ref().is_some_and(moves) || to.as_ref().is_some_and(moves) {
            let message = Box::new(message);
            return Self::Late { message, to };
        }
        Self::Ready(message.encode(id, to.as_ref()))
    }

    /// The bytes for the present broker; `None` while an address in it is not known.
    fn bytes(&self, id: DuplicateId) -> Option<Bytes> {
        match self {
            Self::Ready(bytes) => Some(bytes.clone()),
            Self::Late { message, to } => {
                let stands =
                    |destination: &Option<Destination>| destination.as_ref().is_none_or(Destination::stands);
                (stands(&message.reply_to) && stands(to)).then(|| message.encode(id, to.as_ref()))
            }
        }
    }
}

/// The transaction that messages are sent in, and where their ids are noted.
pub(super) struct Under<'a> {
    pub(super) txn: &'a TxnId,
    pub(super) ids: &'a mut Vec<DuplicateId>,
    /// Set where a message cannot be sent: then the transaction cannot be committed.
    pub(super) spoiled: &'a mut Option<RollbackReason>,
}

/// A message on its way to the broker.
pub(super) struct Pending {
    pub(super) payload: Payload,
    /// To be delivered later: not every broker does that.
    pub(super) delayed: bool,
    pub(super) duplicate_id: DuplicateId,
    pub(super) reply: SendReply,
    /// Its place in the producer's window.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Pending {
    pub(super) fn refuse(self, why: SendError) {
        let _ = self.reply.send(Err(why));
        drop(self.permit);
    }
}

struct Slot {
    pending: Pending,
    /// Handed to an engine at least once: a broker may have stored it.
    written: bool,
}

impl Slot {
    fn answer(self, answer: Result<Epoch, SendError>) {
        let _ = self.pending.reply.send(answer);
        drop(self.pending.permit);
    }
}

pub(super) struct Outbound {
    pub(super) session: u64,
    /// Whether its session is transacted.
    pub(super) transacted: bool,
    name: String,
    /// `None`: each message says where it goes.
    pub(super) destination: Option<Destination>,
    pub(super) link: Option<LinkId>,
    /// Who waits for the link to be attached for the first time.
    pub(super) opening: Option<oneshot::Sender<Result<(), OpenError>>>,
    /// Who waits for everything to be answered and the link to end.
    pub(super) closing: Option<Closing>,
    /// In order; what was answered out of order leaves a hole until it is at the front.
    slots: VecDeque<Option<Slot>>,
    /// The number of the first slot.
    first: u64,
    /// How many slots from the front were handed to the present engine.
    sent: usize,
    /// The number of the first slot that does not belong to the transaction that is ending.
    end: Option<u64>,
    /// The number of the first slot that was given after the connection was lost.
    blocked: u64,
}

impl Outbound {
    pub(super) const fn new(
        session: u64,
        transacted: bool,
        name: String,
        destination: Option<Destination>,
        opening: oneshot::Sender<Result<(), OpenError>>,
    ) -> Self {
        Self {
            session,
            transacted,
            name,
            destination,
            link: None,
            opening: Some(opening),
            closing: None,
            slots: VecDeque::new(),
            first: 0,
            sent: 0,
            end: None,
            blocked: 0,
        }
    }

    pub(super) fn attach_options(&self) -> AttachOptions {
        AttachOptions {
            name: self.name.clone(),
            source: Some(Source {
                outcomes: outcomes(),
                ..Source::default()
            }),
            target: Some(match &self.destination {
                Some(destination) => destination.target(),
                None => Target::Node(TargetNode::default()),
            }),
            snd_settle_mode: SndSettleMode::Unsettled,
            ..AttachOptions::default()
        }
    }

    pub(super) fn push(&mut self, pending: Pending) {
        let written = false;
        self.slots.push_back(Some(Slot { pending, written }));
    }

    /// Whether it is to be closed and nothing waits for an answer any more.
    pub(super) fn is_done(&self) -> bool {
        self.closing.is_some() && self.slots.is_empty()
    }

    /// Hands to the engine what it takes now; returns how many messages that were.
    pub(super) fn pump(&mut self, engine: &mut Engine, mut under: Option<Under<'_>>) -> usize {
        let Some(link) = self.link else {
            return 0;
        };
        let mut handed = 0;
        while self.sent < self.open_end() && engine.is_writable() {
            let number = self.first + self.sent as u64;
            let Some(slot) = self.slots[self.sent].as_mut() else {
                self.sent += 1;
                continue;
            };
            if engine.sendable(link) == 0 {
                break;
            }
            if slot.pending.delayed && !abilities::delays(engine.remote_open()) {
                let refusal = Refusal::because("the broker does not deliver messages later");
                self.give_up(number, SendError::Rejected(refusal), under.as_mut());
                continue;
            }
            let id = slot.pending.duplicate_id;
            let Some(payload) = slot.pending.payload.bytes(id) else {
                break;
            };
            let outgoing = Outgoing {
                context: number,
                txn: under.as_ref().map(|under| under.txn.clone()),
                ..Outgoing::new(payload)
            };
            match engine.send(link, outgoing) {
                Ok(_) => {
                    slot.written = true;
                    self.sent += 1;
                    handed += 1;
                    if let Some(under) = under.as_mut() {
                        under.ids.push(id);
                    }
                }
                Err(CommandError::MessageTooLarge { limit }) => {
                    self.give_up(number, SendError::TooLarge { limit }, under.as_mut());
                }
                // Credit, window or link: an event says when to go on.
                Err(_) => break,
            }
        }
        handed
    }

    /// The message whose turn it is cannot be sent to this broker, nor its transaction be committed.
    fn give_up(&mut self, number: u64, why: SendError, under: Option<&mut Under<'_>>) {
        self.sent += 1;
        if let Some(under) = under {
            let refusal = Refusal::because(&why.to_string());
            under
                .spoiled
                .get_or_insert(RollbackReason::MessageRefused(refusal));
        }
        self.answer(number, Err(why));
    }

    /// How many slots from the front may be sent now.
    fn open_end(&self) -> usize {
        let end = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.first));
        usize::try_from(end).map_or(self.slots.len(), |end| end.min(self.slots.len()))
    }

    /// Whether something waits to be sent now.
    pub(super) fn has_unsent(&self) -> bool {
        let end = self.open_end();
        self.sent < end && self.slots.range(self.sent..end).any(Option::is_some)
    }

    /// Ends the transaction after what was given until now; false where that was said before.
    pub(super) fn mark_end(&mut self) -> bool {
        let end = self.first + self.slots.len() as u64;
        self.end.replace(self.end.unwrap_or(end)).is_none()
    }

    /// The transaction has ended.
    pub(super) const fn forget_end(&mut self) {
        self.end = None;
    }

    /// Whether everything of the transaction that is ending is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.slots.is_empty() || self.end.is_some_and(|end| self.first >= end)
    }

    /// What was given to the transaction and not sent will not be.
    pub(super) fn refuse_unsent(&mut self, why: &impl Fn() -> SendError) {
        self.refuse_range(self.sent, why);
    }

    /// Nothing that was given to the transaction will be sent, or has been stored.
    pub(super) fn refuse(&mut self, why: &impl Fn() -> SendError) {
        self.refuse_range(0, why);
    }

    fn refuse_range(&mut self, from: usize, why: &impl Fn() -> SendError) {
        for index in from..self.open_end() {
            if let Some(slot) = self.slots[index].take() {
                slot.answer(Err(why()));
            }
        }
        self.trim();
    }

    /// What was given before the connection was lost is not sent again: whoever waits for it is told.
    pub(super) fn unblock(&mut self, waited_ms: u64) {
        let blocked = self.blocked.saturating_sub(self.first);
        let blocked = usize::try_from(blocked)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        for index in 0..blocked {
            if let Some(slot) = self.slots[index].take() {
                let duplicate_id = slot.pending.duplicate_id;
                let why = if slot.written {
                    SendError::Unblocked { duplicate_id }
                } else {
                    SendError::NotSent { waited_ms }
                };
                slot.answer(Err(why));
            }
        }
        self.trim();
    }

    /// Takes the word of the broker of this epoch on one message; returns why it was refused.
    pub(super) fn settled(
        &mut self,
        number: u64,
        state: Option<&DeliveryState>,
        epoch: Epoch,
    ) -> Option<Refusal> {
        let answer = match state.and_then(DeliveryState::outcome) {
            None | Some(Outcome::Accepted) => Ok(epoch),
            Some(Outcome::Rejected(error)) => Err(SendError::Rejected(Refusal::new(error.as_deref()))),
            Some(Outcome::Released | Outcome::Modified { .. }) => Err(SendError::Released),
        };
        let refusal = match &answer {
            Err(SendError::Rejected(refusal)) => Some(refusal.clone()),
            Err(_) => Some(Refusal::because("the broker released it")),
            Ok(_) => None,
        };
        self.answer(number, answer);
        refusal
    }

    fn answer(&mut self, number: u64, answer: Result<Epoch, SendError>) {
        let Some(index) = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::take) {
            slot.answer(answer);
        }
        self.trim();
    }

    /// Lets go of answered slots at the front.
    fn trim(&mut self) {
        while matches!(self.slots.front(), Some(None)) {
            self.slots.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// The connection is gone: everything that was not answered is sent again, in order.
    pub(super) fn rewind(&mut self) {
        self.link = None;
        self.sent = 0;
        self.blocked = self.first + self.slots.len() as u64;
    }

    /// Nothing can be sent any more. What a broker may have stored has an unknown outcome.
    pub(super) fn fail(&mut self, why: &impl Fn() -> SendError) {
        self.sent = 0;
        for slot in self.slots.drain(..).flatten() {
            self.first += 1;
            let answer = if slot.written {
                SendError::OutcomeUnknown {
                    duplicate_id: slot.pending.duplicate_id,
                }
            } else {
                why()
            };
            slot.answer(Err(answer));
        }
    }

    /// The connection is over.
    pub(super) fn end(mut self, why: &Disconnected) {
        self.fail(&|| why.clone().into());
        if let Some(opening) = self.opening.take() {
            let _ = opening.send(Err(why.clone().into()));
        }
    }
}
