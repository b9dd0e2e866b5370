//! The connection: buffers, timers, and the order in which things are looked at.
//!
//! Bytes are only buffered when they come in. They are parsed one frame at a time when the owner polls for
//! events, so an owner that stops polling also stops the peer. Invariant: after `Event::Closed` nothing more
//! is parsed and no event follows.

mod credit;
mod handshake;
mod link;
mod receive;
mod send;
mod session;

pub use send::Outgoing;

use crate::config::{Config, OpenOptions, RemoteOpen};
use crate::error::{AmqpError, CommandError, condition};
use crate::event::{CloseReason, Event, Key};
use crate::output::Output;
use crate::performative::Performative;
use crate::read::DecodeError;
use crate::slab::Slab;
use bytes::{Buf, Bytes, BytesMut};
use handshake::Phase;
use link::Link;
use session::Session;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

type Command<T = ()> = Result<T, CommandError>;

/// One AMQP connection, seen from one side.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    client: bool,
    phase: Phase,
    input: BytesMut,
    output: Output,
    events: VecDeque<Event>,
    sessions: Slab<Session>,
    links: Slab<Link>,
    /// Sessions by the channel the peer sends on, and by the channel we send on.
    remote_channels: Vec<Option<Key>>,
    local_channels: Vec<Option<Key>>,
    /// Sessions with dispositions or flows still to be written.
    dirty: Vec<Key>,
    peer: Option<RemoteOpen>,
    open_waiting: Option<OpenOptions>,
    open_sent: bool,
    close_sent: bool,
    /// Bytes in half-received messages.
    partial: u64,
    now: Instant,
    started: Instant,
    last_input: Instant,
    last_output: Instant,
    close_deadline: Option<Instant>,
    /// Since when output waits and not a byte was taken, as far as we were told the time.
    stalled: Option<Instant>,
}

/// What a frame did wrong, by what must end for it.
pub(crate) enum Fault {
    Connection(AmqpError),
    Session(Key, AmqpError),
    Link(Key, AmqpError),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Connection(AmqpError::new(condition::DECODE_ERROR, error.to_string()))
    }
}

impl Connection {
    /// The side that listens.
    #[must_use]
    pub fn server(config: Config, now: Instant) -> Self {
        Self::new(config, false, now)
    }

    /// The side that connects. Its first bytes are ready to be written.
    #[must_use]
    pub fn client(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(config, true, now);
        connection.start_client();
        connection
    }

    fn new(mut config: Config, client: bool, now: Instant) -> Self {
        config.max_frame_size = config.max_frame_size.max(512);
        config.max_sessions = config.max_sessions.max(1);
        config.max_links = config.max_links.max(1);
        config.incoming_window = config.incoming_window.max(1);
        Self {
            config,
            client,
            phase: Phase::Header { sasl_done: false },
            input: BytesMut::new(),
            output: Output::default(),
            events: VecDeque::new(),
            sessions: Slab::default(),
            links: Slab::default(),
            remote_channels: Vec::new(),
            local_channels: Vec::new(),
            dirty: Vec::new(),
            peer: None,
            open_waiting: None,
            open_sent: false,
            close_sent: false,
            partial: 0,
            now,
            started: now,
            last_input: now,
            last_output: now,
            close_deadline: None,
            stalled: None,
        }
    }

    /// Takes bytes from the peer. They are copied and parsed by [`Self::poll_event`].
    pub fn input(&mut self, bytes: &[u8], now: Instant) {
        self.input.extend_from_slice(bytes);
        self.input_received(now);
    }

    /// A buffer with room for at least `capacity` bytes, to read the socket into without a copy: append
    /// only, then call [`Self::input_received`].
    pub fn read_buf(&mut self, capacity: usize) -> &mut BytesMut {
        self.input.reserve(capacity);
        &mut self.input
    }

    /// Tells that bytes were appended to [`Self::read_buf`].
    pub fn input_received(&mut self, now: Instant) {
        self.now = now;
        self.last_input = now;
        if self.is_over() {
            self.input.clear();
        }
    }

    /// Tells that the peer's bytes ended: sessions and links end, then `Closed`. What came before is parsed
    /// first only if it was polled before.
    pub fn input_closed(&mut self) {
        let reason = if self.close_sent {
            CloseReason::Local
        } else {
            CloseReason::TransportLost
        };
        self.finish(reason);
    }

    /// Whether more bytes are wanted. If not, leave them in the socket until events were polled or output
    /// was written.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let frame = usize::try_from(self.config.max_frame_size).unwrap_or(usize::MAX);
        !self.is_over() && self.input.len() < self.config.input_limit.max(frame)
    }

    /// Bytes that came in and were not parsed yet.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.input.len()
    }

    /// Fills `slices` with what is to be written, for one vectored write; gives how many were filled.
    pub fn output_slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.flush();
        self.output.slices(slices)
    }

    /// Tells that the first `n` bytes of the output were written.
    pub fn output_written(&mut self, n: usize, now: Instant) {
        self.now = now;
        self.last_output = now;
        self.stalled = None;
        self.output.advance(n);
    }

    /// Everything there is to write, in one piece.
    pub fn take_output(&mut self, now: Instant) -> Vec<u8> {
        self.flush();
        let mut all = Vec::with_capacity(self.output.len());
        while self.output.len() > 0 {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.output.slices(&mut slices);
            let before = all.len();
            slices[..filled]
                .iter()
                .for_each(|slice| all.extend_from_slice(slice));
            self.output_written(all.len() - before, now);
        }
        all
    }

    /// Bytes waiting to be written. Merged dispositions join when the output is next asked for.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Whether there is anything to write, merged dispositions included.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.output.len() > 0 || !self.dirty.is_empty()
    }

    /// Whether the backlog is small enough to send more messages.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.output.len() < self.config.output_high_water
    }

    /// Whether the socket can be dropped: `Closed` was handed out and all is written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_over() && self.events.is_empty() && self.output.len() == 0
    }

    /// Whether the protocol has ended, perhaps with events and output still to be fetched.
    fn is_over(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// What the peer said in its Open.
    #[must_use]
    pub const fn remote_open(&self) -> Option<&RemoteOpen> {
        self.peer.as_ref()
    }

    /// Bytes of the largest frame we send.
    #[must_use]
    pub fn max_frame_size(&self) -> u32 {
        let peer = self.peer.as_ref().map_or(512, |peer| peer.max_frame_size);
        peer.min(self.config.max_frame_size)
    }

    /// When [`Self::handle_timeout`] must be called at the latest. Ask again after every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let handshake = self
            .peer
            .is_none()
            .then(|| self.started + self.config.handshake_timeout);
        let idle = self.config.idle_timeout.map(|idle| self.last_input + idle);
        let rest = [self.close_deadline, self.heartbeat_at(), self.stalls_at()];
        rest.into_iter().chain([handshake, idle]).flatten().min()
    }

    /// Does what the time demands: closes a silent or deaf peer, keeps a patient one company.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.is_over() {
            return;
        }
        if self.close_deadline.is_some_and(|at| now >= at) {
            return self.finish(CloseReason::Local);
        }
        if self.peer.is_none() && now >= self.started + self.config.handshake_timeout {
            return self.finish(CloseReason::HandshakeTimeout);
        }
        if !self.wants_input() {
            self.last_input = now; // The silence is ours: we do not read.
        }
        if self
            .config
            .idle_timeout
            .is_some_and(|idle| now >= self.last_input + idle)
        {
            let error = AmqpError::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "nothing came for the idle timeout",
            );
            self.write_close(Some(error));
            return self.finish(CloseReason::IdleTimeout);
        }
        if self.output.len() > 0 && self.stalls_at().is_some_and(|at| now >= at) {
            match self.stalled {
                None => self.stalled = Some(now), // The clock starts when we know the time.
                Some(_) => return self.finish(CloseReason::WriteTimeout),
            }
        }
        if self.heartbeat_at().is_some_and(|at| now >= at) {
            self.output.empty_frame();
        }
    }

    /// When output that nobody takes has waited too long; at once if that wait is not yet timed.
    fn stalls_at(&self) -> Option<Instant> {
        let patience = self.config.write_timeout.filter(|_| self.output.len() > 0)?;
        Some(self.stalled.map_or(self.now, |since| since + patience))
    }

    /// Half the peer's patience (and a tenth of a second) after our last byte. While output waits, that is our sign of life.
    fn heartbeat_at(&self) -> Option<Instant> {
        let patience = self.peer.as_ref()?.idle_timeout?;
        let quiet = self.output.len() == 0 && self.open_sent && !self.close_sent;
        quiet.then(|| self.last_output + (patience / 2).max(Duration::from_millis(100)))
    }

    /// Gives back buffers that are empty. For connections that have gone quiet.
    pub fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        self.output.shrink();
        for key in self.sessions.keys() {
            if let Some(session) = self.sessions.fetch_mut(key) {
                session.sent.shrink();
                session.received.shrink();
            }
        }
    }

    /// The next event. Poll until `None` after input, timeouts and commands.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// Parses one header or frame. False if nothing can be done now.
    fn step(&mut self) -> bool {
        // Messages do not count: two peers that each send a large one must both go on reading.
        if self.output.control_len() > self.config.output_limit {
            return false;
        }
        match self.phase {
            Phase::Finished => false,
            Phase::Header { sasl_done } => self.read_header(sasl_done),
            Phase::Sasl(stage) if stage.waits_for_owner() => false,
            Phase::Sasl(_) | Phase::Frames => match self.read_frame() {
                Ok(progress) => progress,
                Err(fault) => {
                    self.on_fault(fault);
                    true
                }
            },
        }
    }

    fn read_frame(&mut self) -> Result<bool, Fault> {
        let Some(frame) = frame_head(&self.input, self.config.max_frame_size)? else {
            return Ok(false);
        };
        if self.input.len() < frame.size {
            return Ok(false);
        }
        if self.phase != Phase::Frames {
            return self.read_sasl_frame(&frame).map(|()| true);
        }
        if frame.kind != 0 {
            return Err(framing("not an AMQP frame"));
        }
        let body = &self.input[frame.body..frame.size];
        if body.is_empty() {
            self.input.advance(frame.size); // An empty frame is a sign of life.
            return Ok(true);
        }
        let (performative, used) = Performative::decode(body)?;
        let payload = self.take_payload(&performative, frame.body + used, frame.size);
        self.on_performative(frame.channel, performative, payload)?;
        Ok(true)
    }

    /// Steps over a frame; what follows the performative of a transfer stays a slice of the input.
    fn take_payload(&mut self, performative: &Performative, start: usize, end: usize) -> Bytes {
        if matches!(performative, Performative::Transfer(_)) && start < end {
            self.input.advance(start);
            return self.input.split_to(end - start).freeze();
        }
        self.input.advance(end);
        Bytes::new()
    }

    fn on_performative(
        &mut self,
        channel: u16,
        performative: Performative,
        payload: Bytes,
    ) -> Result<(), Fault> {
        if let Performative::Open(open) = performative {
            return self.on_open(*open);
        }
        if let Performative::Close(error) = performative {
            self.on_close(error);
            return Ok(());
        }
        if self.peer.is_none() {
            return Err(Fault::Connection(AmqpError::new(
                condition::NOT_ALLOWED,
                "a frame before Open",
            )));
        }
        if self.close_sent {
            return Ok(()); // After our Close only the peer's matters.
        }
        if let Performative::Begin(begin) = performative {
            return self.on_begin(channel, &begin);
        }
        let key = self.remote_channels.get(usize::from(channel)).copied().flatten();
        let Some(key) = key else {
            let text = format!("no session on channel {channel}");
            return Err(Fault::Connection(AmqpError::new(condition::NOT_ALLOWED, text)));
        };
        if let Performative::End(error) = performative {
            self.on_end(key, error);
            return Ok(());
        }
        if !self.sessions.fetch(key).is_some_and(Session::is_open) {
            return Ok(()); // After our End only the peer's matters.
        }
        match performative {
            Performative::Attach(attach) => self.on_attach(key, *attach),
            Performative::Flow(flow) => self.on_flow(key, &flow),
            Performative::Transfer(transfer) => self.on_transfer(key, transfer, payload),
            Performative::Disposition(disposition) => self.on_disposition(key, &disposition),
            Performative::Detach(detach) => self.on_detach(key, detach),
            Performative::Open(_)
            | Performative::Begin(_)
            | Performative::End(_)
            | Performative::Close(_) => Ok(()),
        }
    }

    fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Connection(error) => self.fail(error),
            Fault::Session(key, error) => self.fail_session(key, error),
            Fault::Link(key, error) => self.fail_link(key, error),
        }
    }

    /// Ends the connection for a violation.
    fn fail(&mut self, error: AmqpError) {
        if self.phase == Phase::Frames {
            self.write_close(Some(error.clone()));
        }
        self.finish(CloseReason::Violation(error));
    }

    /// Ends everything; the last events are queued.
    fn finish(&mut self, reason: CloseReason) {
        if self.is_over() {
            return;
        }
        for key in self.sessions.keys() {
            self.announce_session_end(key, None);
        }
        self.sessions = Slab::default();
        self.links = Slab::default();
        self.dirty.clear();
        self.input.clear();
        self.phase = Phase::Finished;
        self.events.push_back(Event::Closed(reason));
    }

    /// Writes merged dispositions and due flows.
    fn flush(&mut self) {
        while let Some(key) = self.dirty.pop() {
            self.flush_session(key);
        }
    }

    fn is_open(&self) -> bool {
        self.phase != Phase::Finished && self.open_sent && !self.close_sent
    }

    fn require_open(&self) -> Command {
        if self.is_open() {
            Ok(())
        } else {
            Err(CommandError::NotOpen)
        }
    }
}

struct FrameHead {
    size: usize,
    body: usize,
    kind: u8,
    channel: u16,
}

/// The head of the next frame, `None` if it has not come yet. Sizes are checked before the body is waited for.
fn frame_head(input: &[u8], max: u32) -> Result<Option<FrameHead>, Fault> {
    let Some(head) = input.first_chunk::<8>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let body = usize::from(head[4]) * 4;
    if size > max {
        return Err(framing("larger than max-frame-size"));
    }
    let size = usize::try_from(size).map_err(|_| framing("larger than max-frame-size"))?;
    if body < 8 || body > size {
        return Err(framing("the sizes of a frame contradict each other"));
    }
    Ok(Some(FrameHead {
        size,
        body,
        kind: head[5],
        channel: u16::from_be_bytes([head[6], head[7]]),
    }))
}

fn framing(text: &str) -> Fault {
    Fault::Connection(AmqpError::new(condition::FRAMING_ERROR, text))
}
