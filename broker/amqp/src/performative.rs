//! The nine performatives: what frames say, decoded and encoded.

use crate::desc;
use crate::error::AmqpError;
use crate::list::List;
use crate::read::{DecodeError, Reader};
use crate::state::{DeliveryState, error_field, put_error, put_state, state_field};
use crate::terminus::{Source, Target, put_source, put_target, source_field, target_field};
use crate::value::{Fields, Symbol};
use crate::write::{ListWriter, put_binary, put_bool, put_ubyte, put_uint, put_ulong, put_ushort};
use std::fmt;

type Result<T> = std::result::Result<T, DecodeError>;

/// Which end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sends messages.
    Sender,
    /// Receives messages.
    Receiver,
}

impl Role {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    const fn is_receiver(self) -> bool {
        matches!(self, Self::Receiver)
    }
}

/// Whether the sender sends deliveries settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SndSettleMode {
    /// None.
    Unsettled,
    /// All.
    Settled,
    /// As it likes.
    #[default]
    Mixed,
}

/// Who settles first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RcvSettleMode {
    /// The receiver settles at once.
    #[default]
    First,
    /// The receiver settles after the sender has.
    Second,
}

/// The sender's name for a delivery: at most 32 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryTag {
    len: u8,
    bytes: [u8; 32],
}

impl DeliveryTag {
    /// A tag of these bytes; `None` if there are more than 32.
    #[must_use]
    pub fn new(tag: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        bytes.get_mut(..tag.len())?.copy_from_slice(tag);
        Some(Self {
            len: u8::try_from(tag.len()).ok()?,
            bytes,
        })
    }

    /// A tag of the four bytes of a counter.
    pub(crate) fn from_counter(counter: u32) -> Self {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&counter.to_be_bytes());
        Self { len: 4, bytes }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for DeliveryTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Open {
    pub(crate) container_id: String,
    pub(crate) hostname: Option<String>,
    pub(crate) max_frame_size: u32,
    pub(crate) channel_max: u16,
    pub(crate) idle_timeout: Option<u32>,
    pub(crate) offered_capabilities: Vec<Symbol>,
    pub(crate) desired_capabilities: Vec<Symbol>,
    pub(crate) properties: Fields,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begin {
    pub(crate) remote_channel: Option<u16>,
    pub(crate) next_outgoing_id: u32,
    pub(crate) incoming_window: u32,
    pub(crate) outgoing_window: u32,
    pub(crate) handle_max: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attach {
    pub(crate) name: String,
    pub(crate) handle: u32,
    pub(crate) role: Role,
    pub(crate) snd_settle_mode: SndSettleMode,
    pub(crate) rcv_settle_mode: RcvSettleMode,
    pub(crate) source: Option<Source>,
    pub(crate) target: Option<Target>,
    /// Only whether deliveries are listed; resuming them is not supported.
    pub(crate) has_unsettled: bool,
    pub(crate) initial_delivery_count: Option<u32>,
    pub(crate) max_message_size: u64,
    pub(crate) offered_capabilities: Vec<Symbol>,
    pub(crate) desired_capabilities: Vec<Symbol>,
    pub(crate) properties: Fields,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) next_incoming_id: Option<u32>,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) outgoing_window: u32,
    pub(crate) handle: Option<u32>,
    pub(crate) delivery_count: Option<u32>,
    pub(crate) link_credit: Option<u32>,
    pub(crate) available: Option<u32>,
    pub(crate) drain: bool,
    pub(crate) echo: bool,
    /// What the credit brings is to be acquired by a transaction (§4.4.3). Only read: this engine asks for no
    /// such thing.
    pub(crate) transactional: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) handle: u32,
    pub(crate) delivery_id: Option<u32>,
    pub(crate) tag: Option<DeliveryTag>,
    pub(crate) message_format: Option<u32>,
    pub(crate) settled: bool,
    pub(crate) more: bool,
    pub(crate) state: Option<DeliveryState>,
    pub(crate) resume: bool,
    pub(crate) aborted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Disposition {
    pub(crate) role: Role,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) settled: bool,
    pub(crate) state: Option<DeliveryState>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detach {
    pub(crate) handle: u32,
    pub(crate) closed: bool,
    pub(crate) error: Option<AmqpError>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Performative {
    Open(Box<Open>),
    Begin(Begin),
    Attach(Box<Attach>),
    Flow(Flow),
    Transfer(Transfer),
    Disposition(Disposition),
    Detach(Detach),
    End(Option<AmqpError>),
    Close(Option<AmqpError>),
}

impl Performative {
    /// Decodes the start of a frame body; also gives how many bytes it took (the payload follows).
    pub(crate) fn decode(body: &[u8]) -> Result<(Self, usize)> {
        let mut reader = Reader::new(body);
        let code = reader.descriptor()?;
        let mut list = reader.list()?;
        let used = body.len() - reader.len();
        let performative = match code {
            desc::TRANSFER => Self::Transfer(transfer(&mut list)?),
            desc::DISPOSITION => Self::Disposition(disposition(&mut list)?),
            desc::FLOW => Self::Flow(flow(&mut list)?),
            desc::OPEN => Self::Open(Box::new(open(&mut list)?)),
            desc::BEGIN => Self::Begin(begin(&mut list)?),
            desc::ATTACH => Self::Attach(Box::new(attach(&mut list)?)),
            desc::DETACH => Self::Detach(detach(&mut list)?),
            desc::END => Self::End(error_field(&mut list)?),
            desc::CLOSE => Self::Close(error_field(&mut list)?),
            _ => return Err(DecodeError::Descriptor),
        };
        Ok((performative, used))
    }

    pub(crate) fn encode(&self, buf: &mut Vec<u8>) {
        match self {
            Self::Open(open) => put_open(buf, open),
            Self::Begin(begin) => put_begin(buf, begin),
            Self::Attach(attach) => put_attach(buf, attach),
            Self::Flow(flow) => put_flow(buf, flow),
            Self::Transfer(transfer) => put_transfer(buf, transfer),
            Self::Disposition(disposition) => put_disposition(buf, disposition),
            Self::Detach(detach) => put_detach(buf, detach),
            Self::End(error) => put_ending(buf, desc::END, error.as_ref()),
            Self::Close(error) => put_ending(buf, desc::CLOSE, error.as_ref()),
        }
    }
}

fn open(list: &mut List<'_>) -> Result<Open> {
    let container_id = list
        .string("container-id")?
        .ok_or(DecodeError::Missing("container-id"))?;
    let hostname = list.string("hostname")?;
    let max_frame_size = list.uint("max-frame-size")?.unwrap_or(u32::MAX);
    let channel_max = list.ushort("channel-max")?.unwrap_or(u16::MAX);
    let idle_timeout = list.uint("idle-time-out")?;
    list.symbols("outgoing-locales")?;
    list.symbols("incoming-locales")?;
    Ok(Open {
        container_id,
        hostname,
        max_frame_size,
        channel_max,
        idle_timeout,
        offered_capabilities: list.symbols("offered-capabilities")?,
        desired_capabilities: list.symbols("desired-capabilities")?,
        properties: list.fields("properties")?,
    })
}

fn put_open(buf: &mut Vec<u8>, open: &Open) {
    let mut list = ListWriter::described(buf, desc::OPEN);
    list.string(Some(&open.container_id));
    list.string(open.hostname.as_deref());
    list.uint(open.max_frame_size);
    list.with(|buf| put_ushort(buf, open.channel_max));
    list.option(open.idle_timeout, put_uint);
    list.null();
    list.null();
    list.symbols(&open.offered_capabilities);
    list.symbols(&open.desired_capabilities);
    list.fields(&open.properties);
    list.finish();
}

fn begin(list: &mut List<'_>) -> Result<Begin> {
    Ok(Begin {
        remote_channel: list.ushort("remote-channel")?,
        next_outgoing_id: list
            .uint("next-outgoing-id")?
            .ok_or(DecodeError::Missing("next-outgoing-id"))?,
        incoming_window: list
            .uint("incoming-window")?
            .ok_or(DecodeError::Missing("incoming-window"))?,
        outgoing_window: list
            .uint("outgoing-window")?
            .ok_or(DecodeError::Missing("outgoing-window"))?,
        handle_max: list.uint("handle-max")?.unwrap_or(u32::MAX),
    })
}

fn put_begin(buf: &mut Vec<u8>, begin: &Begin) {
    let mut list = ListWriter::described(buf, desc::BEGIN);
    list.option(begin.remote_channel, put_ushort);
    list.uint(begin.next_outgoing_id);
    list.uint(begin.incoming_window);
    list.uint(begin.outgoing_window);
    list.uint(begin.handle_max);
    list.finish();
}

fn attach(list: &mut List<'_>) -> Result<Attach> {
    let name = list.string("name")?.ok_or(DecodeError::Missing("name"))?;
    let handle = list.uint("handle")?.ok_or(DecodeError::Missing("handle"))?;
    let role = role(list)?;
    let snd_settle_mode = snd_mode(list)?;
    let rcv_settle_mode = rcv_mode(list)?;
    let source = source_field(list)?;
    let target = target_field(list)?;
    let has_unsettled = match list.raw()? {
        Some(mut map) => !map.map()?.is_empty(),
        None => false,
    };
    list.boolean("incomplete-unsettled")?;
    Ok(Attach {
        name,
        handle,
        role,
        snd_settle_mode,
        rcv_settle_mode,
        source,
        target,
        has_unsettled,
        initial_delivery_count: list.uint("initial-delivery-count")?,
        max_message_size: list.ulong("max-message-size")?.unwrap_or(0),
        offered_capabilities: list.symbols("offered-capabilities")?,
        desired_capabilities: list.symbols("desired-capabilities")?,
        properties: list.fields("properties")?,
    })
}

fn role(list: &mut List<'_>) -> Result<Role> {
    Ok(if list.boolean("role")? {
        Role::Receiver
    } else {
        Role::Sender
    })
}

fn snd_mode(list: &mut List<'_>) -> Result<SndSettleMode> {
    match list.ubyte("snd-settle-mode")? {
        Some(0) => Ok(SndSettleMode::Unsettled),
        Some(1) => Ok(SndSettleMode::Settled),
        None | Some(2) => Ok(SndSettleMode::Mixed),
        Some(_) => Err(DecodeError::Range("snd-settle-mode")),
    }
}

fn rcv_mode(list: &mut List<'_>) -> Result<RcvSettleMode> {
    match list.ubyte("rcv-settle-mode")? {
        None | Some(0) => Ok(RcvSettleMode::First),
        Some(1) => Ok(RcvSettleMode::Second),
        Some(_) => Err(DecodeError::Range("rcv-settle-mode")),
    }
}

fn put_attach(buf: &mut Vec<u8>, attach: &Attach) {
    let mut list = ListWriter::described(buf, desc::ATTACH);
    list.string(Some(&attach.name));
    list.uint(attach.handle);
    list.with(|buf| put_bool(buf, attach.role.is_receiver()));
    list.with(|buf| put_ubyte(buf, attach.snd_settle_mode as u8));
    list.with(|buf| put_ubyte(buf, attach.rcv_settle_mode as u8));
    list.option(attach.source.as_ref(), put_source);
    list.option(attach.target.as_ref(), put_target);
    list.null();
    list.null();
    list.option(attach.initial_delivery_count, put_uint);
    list.option(
        (attach.max_message_size != 0).then_some(attach.max_message_size),
        put_ulong,
    );
    list.symbols(&attach.offered_capabilities);
    list.symbols(&attach.desired_capabilities);
    list.fields(&attach.properties);
    list.finish();
}

fn flow(list: &mut List<'_>) -> Result<Flow> {
    Ok(Flow {
        next_incoming_id: list.uint("next-incoming-id")?,
        incoming_window: list
            .uint("incoming-window")?
            .ok_or(DecodeError::Missing("incoming-window"))?,
        next_outgoing_id: list
            .uint("next-outgoing-id")?
            .ok_or(DecodeError::Missing("next-outgoing-id"))?,
        outgoing_window: list
            .uint("outgoing-window")?
            .ok_or(DecodeError::Missing("outgoing-window"))?,
        handle: list.uint("handle")?,
        delivery_count: list.uint("delivery-count")?,
        link_credit: list.uint("link-credit")?,
        available: list.uint("available")?,
        drain: list.boolean("drain")?,
        echo: list.boolean("echo")?,
        transactional: names_transaction(list)?,
    })
}

/// Whether the properties of a flow hold a `txn-id`. Everything else in them is the peer's own business.
fn names_transaction(list: &mut List<'_>) -> Result<bool> {
    let Some(mut raw) = list.raw()? else {
        return Ok(false);
    };
    let mut properties = raw.map()?;
    while !properties.is_empty() {
        let is_id = properties.text("key")? == Some("txn-id");
        if properties.raw()?.is_some() && is_id {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put_flow(buf: &mut Vec<u8>, flow: &Flow) {
    let mut list = ListWriter::described(buf, desc::FLOW);
    list.option(flow.next_incoming_id, put_uint);
    list.uint(flow.incoming_window);
    list.uint(flow.next_outgoing_id);
    list.uint(flow.outgoing_window);
    list.option(flow.handle, put_uint);
    list.option(flow.delivery_count, put_uint);
    list.option(flow.link_credit, put_uint);
    list.option(flow.available, put_uint);
    list.flag(flow.drain);
    list.flag(flow.echo);
    list.finish();
}

fn transfer(list: &mut List<'_>) -> Result<Transfer> {
    let handle = list.uint("handle")?.ok_or(DecodeError::Missing("handle"))?;
    let delivery_id = list.uint("delivery-id")?;
    let tag = match list.binary("delivery-tag")? {
        Some(tag) => Some(DeliveryTag::new(tag).ok_or(DecodeError::Range("delivery-tag"))?),
        None => None,
    };
    let message_format = list.uint("message-format")?;
    let settled = list.boolean("settled")?;
    let more = list.boolean("more")?;
    rcv_mode(list)?;
    Ok(Transfer {
        handle,
        delivery_id,
        tag,
        message_format,
        settled,
        more,
        state: state_field(list)?,
        resume: list.boolean("resume")?,
        aborted: list.boolean("aborted")?,
    })
}

pub(crate) fn put_transfer(buf: &mut Vec<u8>, transfer: &Transfer) {
    let mut list = ListWriter::described(buf, desc::TRANSFER);
    list.uint(transfer.handle);
    list.option(transfer.delivery_id, put_uint);
    list.option(transfer.tag.as_ref(), |buf, tag| put_binary(buf, tag.as_bytes()));
    list.option(transfer.message_format, put_uint);
    list.flag(transfer.settled);
    list.flag(transfer.more);
    list.null();
    list.option(transfer.state.as_ref(), put_state);
    list.flag(transfer.resume);
    list.flag(transfer.aborted);
    list.finish();
}

fn disposition(list: &mut List<'_>) -> Result<Disposition> {
    let role = role(list)?;
    let first = list.uint("first")?.ok_or(DecodeError::Missing("first"))?;
    let last = list.uint("last")?.unwrap_or(first);
    let settled = list.boolean("settled")?;
    Ok(Disposition {
        role,
        first,
        last,
        settled,
        state: state_field(list)?,
    })
}

pub(crate) fn put_disposition(buf: &mut Vec<u8>, disposition: &Disposition) {
    let mut list = ListWriter::described(buf, desc::DISPOSITION);
    list.with(|buf| put_bool(buf, disposition.role.is_receiver()));
    list.uint(disposition.first);
    list.option(
        (disposition.last != disposition.first).then_some(disposition.last),
        put_uint,
    );
    list.flag(disposition.settled);
    list.option(disposition.state.as_ref(), put_state);
    list.finish();
}

fn detach(list: &mut List<'_>) -> Result<Detach> {
    Ok(Detach {
        handle: list.uint("handle")?.ok_or(DecodeError::Missing("handle"))?,
        closed: list.boolean("closed")?,
        error: error_field(list)?,
    })
}

fn put_detach(buf: &mut Vec<u8>, detach: &Detach) {
    let mut list = ListWriter::described(buf, desc::DETACH);
    list.uint(detach.handle);
    list.flag(detach.closed);
    list.option(detach.error.as_ref(), put_error);
    list.finish();
}

fn put_ending(buf: &mut Vec<u8>, descriptor: u64, error: Option<&AmqpError>) {
    let mut list = ListWriter::described(buf, descriptor);
    list.option(error, put_error);
    list.finish();
}
