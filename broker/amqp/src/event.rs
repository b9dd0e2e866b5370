//! What happened, in the order it happened.

use crate::config::{RemoteAttach, RemoteOpen};
use crate::error::AmqpError;
use crate::performative::DeliveryTag;
use crate::sasl::{SaslCode, SaslInit};
use crate::state::{DeliveryState, TxnId};
use bytes::Bytes;

/// A session of one connection. A stale id never means another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) Key);

/// A link of one connection. A stale id never means another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) Key);

/// A place in a [`crate::slab::Slab`], with the number of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A delivery of one link: its delivery-id, a serial number of the session that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryId(pub(crate) u32);

impl DeliveryId {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A message we sent that was never settled when its link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The delivery.
    pub delivery: DeliveryId,
    /// What the owner gave with it.
    pub context: u64,
}

/// A message received whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The link it came by.
    pub link: LinkId,
    /// To settle it; if `settled`, there is nothing to settle.
    pub delivery: DeliveryId,
    /// The sender's name for the delivery.
    pub tag: DeliveryTag,
    /// Sent settled: no answer is expected.
    pub settled: bool,
    /// 0 for AMQP messages.
    pub message_format: u32,
    /// The message's sections. A slice of the bytes that came in if it came in one frame: keeping it keeps
    /// the whole buffer that was read into.
    pub payload: Bytes,
    /// It takes effect when this transaction commits.
    pub txn: Option<TxnId>,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq)]
pub enum CloseReason {
    /// We closed it, and the peer answered or had its time.
    Local,
    /// The peer closed it.
    Remote(Option<AmqpError>),
    /// The peer broke the protocol or a limit; it was told this error.
    Violation(AmqpError),
    /// Nothing came for the idle timeout.
    IdleTimeout,
    /// The peer took no byte of our output for the write timeout.
    WriteTimeout,
    /// The peer's Open did not come in time.
    HandshakeTimeout,
    /// Authentication failed.
    SaslFailed(SaslCode),
    /// The peer speaks another protocol, or wants no SASL where we demand it: its header.
    UnsupportedProtocol([u8; 8]),
    /// The bytes ended without a Close.
    TransportLost,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Server: a client presents itself. Nothing more is parsed until `sasl_outcome` or `sasl_challenge`.
    SaslInit(Box<SaslInit>),
    /// Server: the answer to our challenge. Nothing more is parsed until `sasl_outcome` or `sasl_challenge`.
    SaslResponse(Bytes),
    /// Client: answer with `sasl_response`.
    SaslChallenge(Bytes),
    /// Client: the server decided. `additional` is its last word, such as a SCRAM server signature.
    SaslOutcome {
        /// The decision.
        code: SaslCode,
        /// Data of the mechanism.
        additional: Option<Bytes>,
    },
    /// The peer opened the connection. A server answers with `open`, perhaps followed by `close`.
    RemoteOpen(Box<RemoteOpen>),
    /// A session is there: the peer began it (we have answered), or answered ours.
    SessionBegun {
        /// The session.
        session: SessionId,
        /// The peer began it.
        by_peer: bool,
    },
    /// The peer starts a link: answer with `accept_link` or `refuse_link`, at once or later.
    LinkRequested {
        /// The new link.
        link: LinkId,
        /// Its session.
        session: SessionId,
        /// All the peer said.
        attach: Box<RemoteAttach>,
    },
    /// The peer answered a link of ours; see [`RemoteAttach::is_refused`].
    LinkAttached {
        /// The link.
        link: LinkId,
        /// All the peer said.
        attach: Box<RemoteAttach>,
    },
    /// Sender: the receiver changed its credit, or the session window that held messages back grew.
    Credit {
        /// The link.
        link: LinkId,
        /// Messages it will take.
        credit: u32,
        /// Send what is available now, then call `drained`.
        drain: bool,
    },
    /// Receiver: the sender answered our drain; no credit is left.
    Drained {
        /// The link.
        link: LinkId,
    },
    /// A message.
    Message(Message),
    /// The sender took back a message before it was whole. It used up one credit, and there is nothing to
    /// settle.
    Aborted {
        /// The link.
        link: LinkId,
    },
    /// Coordinator: answer with `settle(.., DeliveryState::Declared(id), true)`, or a rejection.
    Declare {
        /// The coordinator's link.
        link: LinkId,
        /// To settle.
        delivery: DeliveryId,
        /// The global transaction id, if the client gave one.
        global_id: Option<Bytes>,
    },
    /// Coordinator: answer with `settle(.., Outcome::Accepted, true)` when done, or a rejection.
    Discharge {
        /// The coordinator's link.
        link: LinkId,
        /// To settle.
        delivery: DeliveryId,
        /// The transaction.
        txn: TxnId,
        /// Roll back.
        fail: bool,
    },
    /// The peer changed the state of one delivery.
    Disposition {
        /// The link.
        link: LinkId,
        /// The delivery.
        delivery: DeliveryId,
        /// What the owner gave with it when it was sent; 0 for a delivery we received.
        context: u64,
        /// The new state; none means the default outcome.
        state: Option<DeliveryState>,
        /// The peer has forgotten the delivery, and so have we. If false, settle it.
        settled: bool,
    },
    /// A link ended. Every link ends with exactly one of these, whatever the cause.
    LinkDetached {
        /// The link.
        link: LinkId,
        /// Closed for good; otherwise the termini may live on.
        closed: bool,
        /// Why.
        error: Option<Box<AmqpError>>,
        /// The peer began it and the session lives: answer with `detach`.
        by_peer: bool,
        /// What we sent on it that was never settled, in sending order.
        unsettled: Vec<Unsettled>,
    },
    /// A session ended, after all its links.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        error: Option<Box<AmqpError>>,
    },
    /// The connection ended, after all its sessions. Nothing follows.
    Closed(CloseReason),
}
