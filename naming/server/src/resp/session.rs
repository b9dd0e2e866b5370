//! One RESP connection's state: what it speaks, what it watches, which writes are under way.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use daymark_naming_proto::resp::{self, Frame, RespError, parse_command, write_bulk, write_frame};
use daymark_naming_proto::{Name, NamingError, Request, Revision, Scope};

use super::words::{Own, Verb};
use super::{FLUSH_BYTES, Wire, info, plain};
use crate::dispatch::{Answer, Begun, Counters, Dispatcher};
use crate::hub::Ticket;
use crate::identity::new_op;
use crate::mailbox::{Event, Mailbox};
use crate::state::push_number;

/// One connection's writes under way take at most this part of the room for all.
const PENDING_SHARE: usize = 8;

/// The state of one connection.
pub(super) struct Session {
    dispatcher: Arc<Dispatcher>,
    /// Its number among the RESP connections since the start.
    id: u64,
    limits: resp::Limits,
    resp3: bool,
    json_errors: bool,
    mailbox: Arc<Mailbox>,
    watches: BTreeMap<u64, Ticket>,
    pending: VecDeque<Begun>,
    /// Bytes of the writes in `pending`.
    pending_bytes: usize,
    out: Vec<u8>,
    /// Commands that are not in the counters yet.
    commands: u64,
    over: bool,
}

impl Session {
    pub(super) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        let limits = resp::Limits {
            bulk_bytes_max: dispatcher.limits.request_bytes_max,
            items_max: dispatcher.limits.arguments_max,
            line_bytes_max: dispatcher.limits.request_bytes_max.min(64 << 10),
        };
        let mailbox = Arc::new(Mailbox::new(dispatcher.limits.watch_buffer_bytes_max));
        Self {
            id: Counters::count(&dispatcher.counters.resp_sessions),
            dispatcher,
            limits,
            resp3: false,
            json_errors: false,
            mailbox,
            watches: BTreeMap::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            out: Vec::new(),
            commands: 0,
            over: false,
        }
    }

    /// Whether the connection is to be closed.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn has_watches(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Whether there is something to say that nobody asks for now.
    pub(super) fn expects_news(&self) -> bool {
        self.has_watches() || !self.pending.is_empty()
    }

    /// Returns when an event of a watch may have come, or when writes under way have been answered. Given up in
    /// between, it can be asked again.
    pub(super) async fn news(&mut self) {
        if !self.answer_oldest().await {
            self.mailbox.wait().await;
        }
        while self.pending.front().is_some_and(Begun::is_answered) {
            self.answer_oldest().await;
        }
    }

    pub(super) async fn flush(&mut self, wire: &mut Wire) -> io::Result<()> {
        wire.flush(&mut self.out).await
    }

    /// Answers every whole command and says how many bytes they took.
    pub(super) async fn take(&mut self, input: &[u8], wire: &mut Wire) -> io::Result<usize> {
        let mut at = 0;
        let mut arguments = Vec::new();
        while !self.over {
            let plain = plain::lookup(&input[at..]).filter(|(name, _)| self.lookup_straight(name));
            if let Some((_, used)) = plain {
                at += used;
                if self.out.len() > FLUSH_BYTES {
                    self.flush(wire).await?;
                }
                continue;
            }
            match parse_command(&input[at..], &mut arguments, &self.limits) {
                Ok(Some(used)) => {
                    at += used;
                    if !arguments.is_empty() {
                        self.command(&arguments, wire).await?;
                    }
                }
                Ok(None) => {
                    self.refuse_endless(input.len() - at).await;
                    break;
                }
                Err(error) => {
                    self.settle().await;
                    self.refuse_bytes(&error);
                }
            }
            if self.out.len() > FLUSH_BYTES {
                self.flush(wire).await?;
            }
        }
        if self.over || self.has_watches() {
            self.settle().await; // Who watches hears what became of a write before its event.
        }
        Counters::add(&self.dispatcher.counters.resp_commands, self.commands);
        self.commands = 0;
        Ok(at)
    }

    /// A command that does not end within what one may have is not waited for.
    async fn refuse_endless(&mut self, waiting: usize) {
        let limit = 2 * self.limits.bulk_bytes_max;
        if waiting > limit {
            self.settle().await;
            self.protocol_error(&format!("a command of more than {limit} bytes"));
        }
    }

    /// What is too large is answered as a limit, as at the other door; what is no RESP is answered as such.
    fn refuse_bytes(&mut self, error: &RespError) {
        match error {
            RespError::TooLarge { what, given, limit } => {
                self.error(&NamingError::LimitExceeded {
                    what: format!("{what} of {given}"),
                    limit: *limit as u64,
                });
                self.over = true;
            }
            RespError::UnknownType(_)
            | RespError::NotANumber(_)
            | RespError::Unterminated
            | RespError::TooDeep
            | RespError::UnbalancedQuotes => self.protocol_error(&error.to_string()),
        }
    }

    fn protocol_error(&mut self, why: &str) {
        let error = Frame::Error(format!("PROTOCOLERROR {why}"));
        write_frame(&error, self.resp3, &mut self.out);
        self.over = true;
    }

    /// The last words to a peer that is cut off.
    pub(super) fn say_goodbye(&mut self, why: &str) {
        self.error(&NamingError::ServiceUnavailable {
            reason: format!("connection closed: {why}"),
        });
        self.over = true;
    }

    /// The last words to a peer for whose command there is no room.
    pub(super) fn refuse(&mut self, error: &NamingError) {
        self.error(error);
        self.over = true;
    }

    async fn command(&mut self, arguments: &[Cow<'_, [u8]>], wire: &mut Wire) -> io::Result<()> {
        self.commands += 1;
        let own = match Own::read(arguments) {
            Ok(Verb::Own(own)) => own,
            Ok(Verb::Request) => return self.request(arguments, wire).await,
            Err(error) => {
                self.settle().await;
                self.error(&error);
                return Ok(());
            }
        };
        self.settle().await;
        self.own(own);
        Ok(())
    }

    /// Answers a lookup of a name as it is printed, unless writes before it wait for their answers.
    fn lookup_straight(&mut self, name: &[u8]) -> bool {
        let answered = self.pending.is_empty()
            && name.len() <= self.limits.bulk_bytes_max
            && self.dispatcher.state.read(name, &mut self.out, |found, out| {
                out.extend_from_slice(found.bulk)
            });
        self.commands += u64::from(answered);
        answered
    }

    async fn request(&mut self, arguments: &[Cow<'_, [u8]>], wire: &mut Wire) -> io::Result<()> {
        match Request::from_arguments(arguments, new_op) {
            Ok(Request::Write(write)) => {
                let bytes = arguments.iter().map(|argument| argument.len()).sum();
                if !self.may_pipeline(bytes) {
                    self.settle().await;
                }
                match self.dispatcher.begin(write, bytes).await {
                    Ok(pending) => {
                        self.pending.push_back(pending);
                        self.pending_bytes += bytes;
                    }
                    Err(error) => {
                        self.settle().await;
                        self.error(&error);
                    }
                }
            }
            Ok(Request::Watch { name, scope, from }) => {
                self.settle().await;
                self.watch(name, scope, from, wire).await?;
            }
            Ok(request) => {
                self.settle().await;
                if self.may_take_long(&request) {
                    self.flush(wire).await?;
                }
                let answered = self.dispatcher.ask(request).await;
                self.answer(answered);
            }
            Err(error) => {
                self.settle().await;
                self.error(&error);
            }
        }
        Ok(())
    }

    /// Answers that are ready do not wait for one that waits for a name.
    fn may_take_long(&self, request: &Request) -> bool {
        matches!(
            request,
            Request::Lookup { options, .. } | Request::LookupLink { options, .. } if options.wait_ms.is_some()
        )
    }

    /// Whether another write fits beside those under way: one connection does not take all the room.
    fn may_pipeline(&self, bytes: usize) -> bool {
        let limits = &self.dispatcher.limits;
        let share = limits.write_bytes_max / PENDING_SHARE;
        self.pending.len() < limits.writes_per_connection_max && self.pending_bytes + bytes <= share
    }

    /// Answers the writes under way, in order.
    pub(super) async fn settle(&mut self) {
        while self.answer_oldest().await {}
    }

    /// Waits for the oldest write under way and answers it; says whether there was one.
    async fn answer_oldest(&mut self) -> bool {
        let Some(oldest) = self.pending.front_mut() else {
            return false;
        };
        let answered = self.dispatcher.finish(oldest).await;
        self.pending_bytes -= oldest.bytes;
        self.pending.pop_front();
        self.answer(answered);
        true
    }

    fn answer(&mut self, answered: Result<Answer, NamingError>) {
        match answered {
            Ok(answer) => write_bulk(&answer.json, &mut self.out),
            Err(error) => self.error(&error),
        }
    }

    fn error(&mut self, error: &NamingError) {
        Counters::count(&self.dispatcher.counters.refused);
        let code = error.code().to_ascii_uppercase();
        let text = if self.json_errors {
            serde_json::to_string(error).unwrap_or_else(|_| error.to_string())
        } else {
            error.to_string()
        };
        write_frame(&Frame::Error(format!("{code} {text}")), self.resp3, &mut self.out);
    }

    fn own(&mut self, own: Own<'_>) {
        let frame = match own {
            Own::Explain { name } => {
                let name = Name::from_bytes(name).map_err(NamingError::from);
                return self.answer(name.and_then(|name| self.dispatcher.explain(&name)));
            }
            Own::Members => return self.answer(self.dispatcher.members()),
            Own::Limits => return self.answer(self.dispatcher.limits_in_force()),
            Own::Leases => return self.answer(self.dispatcher.lease_list()),
            Own::Hello { version } => {
                self.speak(version);
                info::hello(&self.dispatcher, self.id, self.resp3)
            }
            Own::Ping { message: None } => Frame::Simple("PONG".to_owned()),
            Own::Ping {
                message: Some(message),
            } => Frame::Bulk(message.to_vec().into()),
            Own::Quit => {
                self.over = true;
                Frame::Simple("OK".to_owned())
            }
            Own::Echo { message } => Frame::Bulk(message.to_vec().into()),
            Own::Info => info::info(&self.dispatcher),
            Own::Help => info::help(),
            Own::Command { sub, verbs } => info::command(&sub, &verbs),
            Own::Errors { json } => {
                self.json_errors = json;
                Frame::Simple("OK".to_owned())
            }
            Own::Unwatch { id } => {
                if self.watches.remove(&id).is_none() {
                    self.error(&NamingError::invalid(format!(
                        "this connection has no watch {id}"
                    )));
                    return;
                }
                Frame::Simple("OK".to_owned())
            }
            Own::Client => Frame::Simple("OK".to_owned()),
        };
        write_frame(&frame, self.resp3, &mut self.out);
    }

    /// A watch cannot go on where there are no push frames.
    fn speak(&mut self, version: Option<u8>) {
        match version {
            Some(3) => self.resp3 = true,
            Some(_) => {
                self.resp3 = false;
                self.watches.clear();
            }
            None => {}
        }
    }

    async fn watch(
        &mut self,
        name: Name,
        scope: Scope,
        from: Option<Revision>,
        wire: &mut Wire,
    ) -> io::Result<()> {
        let watching = self.may_watch().and_then(|()| {
            let mailbox = self.mailbox.clone();
            self.dispatcher.watch(name, scope, from, mailbox)
        });
        let watching = match watching {
            Ok(watching) => watching,
            Err(error) => {
                self.error(&error);
                return Ok(());
            }
        };
        let id = watching.ticket.id();
        self.watches.insert(id, watching.ticket);
        write_frame(
            &Frame::Integer(i64::try_from(id).unwrap_or(i64::MAX)),
            true,
            &mut self.out,
        );
        for message in watching.first {
            match Event::of(&message) {
                Ok(event) => self.push(id, &event),
                Err(error) => tracing::error!(%error, "the start of a watch cannot be told"),
            }
            if self.out.len() > FLUSH_BYTES {
                self.flush(wire).await?;
            }
        }
        Ok(())
    }

    fn may_watch(&self) -> Result<(), NamingError> {
        if !self.resp3 {
            return Err(NamingError::invalid("WATCH needs RESP3: say HELLO 3 first"));
        }
        let limit = self.dispatcher.limits.watches_per_connection_max;
        if self.watches.len() >= limit {
            return Err(NamingError::LimitExceeded {
                what: "watches of one connection".to_owned(),
                limit: limit as u64,
            });
        }
        Ok(())
    }

    /// Sends the events that have come.
    pub(super) async fn tell(&mut self, wire: &mut Wire) -> io::Result<()> {
        const HEAD_BYTES: usize = 32;
        while let Some((ids, event)) = self.mailbox.pop() {
            let bytes = ids.len() * (event.bulk.len() + HEAD_BYTES);
            self.out.reserve(bytes.min(FLUSH_BYTES));
            for &id in ids.iter() {
                if self.watches.contains_key(&id) {
                    self.push(id, &event);
                }
                if self.out.len() > FLUSH_BYTES {
                    self.flush(wire).await?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, id: u64, event: &Event) {
        self.out.extend_from_slice(b">3\r\n$5\r\nwatch\r\n:");
        push_number(&mut self.out, id);
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(&event.bulk);
        if event.ends {
            self.watches.remove(&id);
        }
    }
}
