//! The sending side of one producer, as the driver keeps it: what waits, what is on its way, what is resent.
//!
//! It decides the order: messages leave in the order they were given, again after a reconnection. Invariant:
//! every message given gets exactly one answer. It holds at most the producer's window.

use std::collections::VecDeque;

use bytes::Bytes;
use daymark_amqp::{
    AttachOptions, CommandError, Connection as Engine, DeliveryState, LinkId, Outcome, Outgoing,
    SndSettleMode, Source,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::destination::Destination;
use super::driver::Closing;
use super::error::{Disconnected, OpenError, Refusal, SendError};
use super::message::DuplicateId;

/// The answer to one send.
pub(super) type SendReply = oneshot::Sender<Result<(), SendError>>;

/// A message on its way to the broker.
pub(super) struct Pending {
    pub(super) payload: Bytes,
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
    fn answer(self, answer: Result<(), SendError>) {
        let _ = self.pending.reply.send(answer);
        drop(self.pending.permit);
    }
}

pub(super) struct Outbound {
    pub(super) session: u64,
    name: String,
    destination: Destination,
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
}

impl Outbound {
    pub(super) const fn new(
        session: u64,
        name: String,
        destination: Destination,
        opening: oneshot::Sender<Result<(), OpenError>>,
    ) -> Self {
        Self {
            session,
            name,
            destination,
            link: None,
            opening: Some(opening),
            closing: None,
            slots: VecDeque::new(),
            first: 0,
            sent: 0,
        }
    }

    pub(super) fn attach_options(&self) -> AttachOptions {
        AttachOptions {
            name: self.name.clone(),
            source: Some(Source::default()),
            target: Some(self.destination.target()),
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
    pub(super) fn pump(&mut self, engine: &mut Engine) -> usize {
        let Some(link) = self.link else {
            return 0;
        };
        let mut handed = 0;
        while self.sent < self.slots.len() && engine.is_writable() {
            let number = self.first + self.sent as u64;
            let Some(slot) = self.slots[self.sent].as_mut() else {
                self.sent += 1;
                continue;
            };
            if engine.sendable(link) == 0 {
                break;
            }
            let outgoing = Outgoing {
                context: number,
                ..Outgoing::new(slot.pending.payload.clone())
            };
            match engine.send(link, outgoing) {
                Ok(_) => {
                    slot.written = true;
                    self.sent += 1;
                    handed += 1;
                }
                Err(CommandError::MessageTooLarge { limit }) => {
                    self.sent += 1;
                    self.answer(number, Err(SendError::TooLarge { limit }));
                }
                // Credit, window or link: an event says when to go on.
                Err(_) => break,
            }
        }
        handed
    }

    /// Takes the broker's word on one message.
    pub(super) fn settled(&mut self, number: u64, state: Option<&DeliveryState>) {
        let answer = match state.and_then(DeliveryState::outcome) {
            None | Some(Outcome::Accepted) => Ok(()),
            Some(Outcome::Rejected(error)) => Err(SendError::Rejected(Refusal::new(error.as_deref()))),
            Some(Outcome::Released | Outcome::Modified { .. }) => Err(SendError::Released),
        };
        self.answer(number, answer);
    }

    fn answer(&mut self, number: u64, answer: Result<(), SendError>) {
        let Some(index) = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(index).and_then(Option::take) {
            slot.answer(answer);
        }
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
