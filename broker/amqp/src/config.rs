//! Limits and choices of one connection, and what is said when it opens and when links attach.

use crate::performative::{RcvSettleMode, Role, SndSettleMode};
use crate::sasl::Sasl;
use crate::terminus::{Source, Target};
use crate::value::{Fields, Symbol};
use std::time::Duration;

/// The limits of one connection. Every one of them bounds what a peer can make us hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of the largest frame we accept. Default 65,536; at least 512.
    pub max_frame_size: u32,
    /// Sessions of one connection. Default 256.
    pub max_sessions: u16,
    /// Links of one session. Default 1,024.
    pub max_links: u32,
    /// Unsettled deliveries of one link, each direction. Default 10,000.
    pub max_unsettled: u32,
    /// Bytes of one message. Default 64 MiB.
    pub max_message_size: u64,
    /// Bytes of half-received messages, all links together. Default 128 MiB.
    pub max_partial: u64,
    /// Transfer frames a peer may send ahead in one session. Default 2,048.
    pub incoming_window: u32,
    /// `wants_input` turns false while more bytes than this wait to be parsed. Default 256 KiB. One whole
    /// frame is always wanted.
    pub input_limit: usize,
    /// `is_writable` turns false while more bytes than this wait to be written. Default 256 KiB.
    pub output_high_water: usize,
    /// Above this many bytes of unread output other than messages nothing more is parsed. Default 8 MiB.
    pub output_limit: usize,
    /// Silence of the peer after which we close; the peer is told half of it. Default 60 s. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Output waits and the peer takes not one byte for this long: we give up. Default 60 s. `None`: never.
    pub write_timeout: Option<Duration>,
    /// From the start to the peer's Open. Default 10 s.
    pub handshake_timeout: Duration,
    /// From our Close to the peer's. Default 5 s.
    pub close_timeout: Duration,
    /// SASL. Default none.
    pub sasl: Sasl,
    /// The first delivery-id of every session. Default 0; any value is right, as ids wrap.
    pub first_delivery_id: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_frame_size: 65_536,
            max_sessions: 256,
            max_links: 1_024,
            max_unsettled: 10_000,
            max_message_size: 64 << 20,
            max_partial: 128 << 20,
            incoming_window: 2_048,
            input_limit: 256 << 10,
            output_high_water: 256 << 10,
            output_limit: 8 << 20,
            idle_timeout: Some(Duration::from_secs(60)),
            write_timeout: Some(Duration::from_secs(60)),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            sasl: Sasl::None,
            first_delivery_id: 0,
        }
    }
}

/// What we say when the connection opens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenOptions {
    /// Who we are; for JMS this is the client id.
    pub container_id: String,
    /// The virtual host we want (client).
    pub hostname: Option<String>,
    /// Extensions we offer.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions we want.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties, such as `product`.
    pub properties: Fields,
}

impl OpenOptions {
    /// Only a container id.
    #[must_use]
    pub fn new(container_id: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            ..Self::default()
        }
    }
}

/// What the peer said when the connection opened.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteOpen {
    /// Who it is; for JMS this is the client id.
    pub container_id: String,
    /// The virtual host it wants.
    pub hostname: Option<String>,
    /// Bytes of the largest frame it accepts.
    pub max_frame_size: u32,
    /// The highest channel it accepts.
    pub channel_max: u16,
    /// Silence of ours after which it may close.
    pub idle_timeout: Option<Duration>,
    /// Extensions it offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions it wants.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Fields,
}

impl RemoteOpen {
    /// Whether it offers this capability.
    #[must_use]
    pub fn offers(&self, capability: &str) -> bool {
        self.offered_capabilities
            .iter()
            .any(|symbol| *symbol == *capability)
    }

    /// Whether it desires this capability.
    #[must_use]
    pub fn desires(&self, capability: &str) -> bool {
        self.desired_capabilities
            .iter()
            .any(|symbol| *symbol == *capability)
    }
}

/// A link we start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttachOptions {
    /// Its name: unique per role between two containers.
    pub name: String,
    /// Where messages come from.
    pub source: Option<Source>,
    /// Where messages go to.
    pub target: Option<Target>,
    /// Whether deliveries are sent settled. Default mixed.
    pub snd_settle_mode: SndSettleMode,
    /// Who settles first. Default the receiver.
    pub rcv_settle_mode: RcvSettleMode,
    /// Extensions we offer.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions we want.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Fields,
    /// Bytes of the largest message we take; 0 for the limit of [`Config`].
    pub max_message_size: u64,
}

impl AttachOptions {
    /// A link that sends to `address`.
    #[must_use]
    pub fn to(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            source: Some(Source::default()),
            target: Some(Target::address(address)),
            ..Self::default()
        }
    }

    /// A link that receives from `address`.
    #[must_use]
    pub fn from(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            source: Some(Source::address(address)),
            target: Some(Target::Node(crate::TargetNode::default())),
            ..Self::default()
        }
    }
}

/// How we answer a link the peer started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcceptOptions {
    /// Where messages come from, with the real address.
    pub source: Option<Source>,
    /// Where messages go to, with the real address.
    pub target: Option<Target>,
    /// Whether deliveries are sent settled; `None`: as the peer asked.
    pub snd_settle_mode: Option<SndSettleMode>,
    /// Who settles first; `None`: as the peer asked.
    pub rcv_settle_mode: Option<RcvSettleMode>,
    /// Extensions we offer.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions we want.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Fields,
    /// Bytes of the largest message we take; 0 for the limit of [`Config`].
    pub max_message_size: u64,
}

impl AcceptOptions {
    /// The termini as asked for. For a dynamic node put the new address in, and leave `dynamic` set.
    #[must_use]
    pub fn echo(attach: &RemoteAttach) -> Self {
        Self {
            source: attach.source.clone(),
            target: attach.target.clone(),
            ..Self::default()
        }
    }
}

/// What the peer said of a link: its wish, or its answer to ours.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteAttach {
    /// The link's name.
    pub name: String,
    /// Our role.
    pub role: Role,
    /// Where messages come from.
    pub source: Option<Source>,
    /// Where messages go to.
    pub target: Option<Target>,
    /// Whether deliveries are sent settled.
    pub snd_settle_mode: SndSettleMode,
    /// Who settles first.
    pub rcv_settle_mode: RcvSettleMode,
    /// Where the sender starts counting deliveries.
    pub initial_delivery_count: Option<u32>,
    /// Bytes of the largest message the peer takes; 0 for no limit.
    pub max_message_size: u64,
    /// Extensions it offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions it wants.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties.
    pub properties: Fields,
    /// The peer remembers unsettled deliveries and hopes to resume them. We do not: they are as new.
    pub has_unsettled: bool,
}

impl RemoteAttach {
    /// Whether an answer to our link is a refusal; `LinkDetached` with the reason follows.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        match self.role {
            Role::Sender => self.target.is_none(),
            Role::Receiver => self.source.is_none(),
        }
    }
}
