//! Keeps one connection to the directory, and brings every request to an answer or an end.
//!
//! It decides when a connection is replaced and when a request is repeated: reads anywhere, writes with the
//! same operation id. It never repeats an answer away: what a server refuses with authority is returned.
//! Invariant: at most one task connects, and it ends when nobody waits for a connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use daymark_naming_proto::resp::{Frame, write_command};
use daymark_naming_proto::{Advice, Endpoint, NamingError, OpId, Request, Revision};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::after;
use super::book::Book;
use super::config::NamingConfig;
use super::error::{Failure, LookupError};
use super::greet::{self, Greeted, no_answer};
use super::link::{self, Link, Unanswered, malformed};
use crate::providers::Providers;

/// How often a connecting task checks that somebody still waits for it.
const WANTED_CHECK: Duration = Duration::from_millis(500);

/// What all clones of a `Naming` share.
pub(super) struct Session {
    pub(super) providers: Providers,
    pub(super) config: NamingConfig,
    book: Mutex<Book>,
    slot: watch::Sender<Slot>,
    connector: Mutex<Option<JoinHandle<()>>>,
}

/// The connection, as far as there is one.
#[derive(Clone, Debug)]
enum Slot {
    Down,
    Up(Link),
    Denied { server: Endpoint, reason: String },
}

/// What a document brought, and the revision it tells.
pub(super) type Read<T> = (T, Option<Revision>);

/// What to make of a reply.
enum Verdict<T> {
    Answer(T),
    Refused(NamingError),
    Denied(String),
    /// Another server may do better.
    PassOver(Failure),
    /// As before, and a write may have happened.
    Unknown(Failure),
}

/// Why there is no connection.
enum NoLink {
    Denied { server: Endpoint, reason: String },
    Late,
}

impl Session {
    pub(super) fn new(providers: Providers, config: NamingConfig) -> Self {
        Self {
            book: Mutex::new(Book::new(providers.endpoints(), &config)),
            providers,
            config,
            slot: watch::Sender::new(Slot::Down),
            connector: Mutex::new(None),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) -> Revision {
        self.book().seen()
    }

    pub(super) fn saw(&self, link: &Link, revision: Revision) {
        self.book().saw(link.server, revision);
    }

    fn failed(&self, server: usize, why: Failure) {
        tracing::debug!(server = ?self.book().server(server).map(ToString::to_string), %why, "naming server failed");
        self.book()
            .failed(server, why, Instant::now().into_std(), fastrand::f64());
    }

    /// Asks until there is an answer, or the total timeout is over.
    pub(super) async fn call<T>(
        self: &Arc<Self>,
        mut request: Request,
        read: impl Fn(&Bytes) -> Result<Read<T>, String>,
    ) -> Result<T, LookupError> {
        let started = Instant::now();
        let deadline = after(started, self.config.total_timeout);
        let mut unknown = None;
        loop {
            let link = match self.link(deadline).await {
                Ok(link) => link,
                Err(why) => return Err(self.gave_up(why, started, unknown)),
            };
            self.demand_what_was_seen(&mut request);
            let patience = self
                .config
                .call_timeout
                .min(deadline.saturating_duration_since(Instant::now()));
            match link.ask(encode(&request), patience).await {
                Ok(reply) => match self.judge(reply, &request, &link, &read) {
                    Verdict::Answer(answer) => return Ok(answer),
                    Verdict::Refused(error) => return Err(error.into()),
                    Verdict::Denied(reason) => return Err(self.denied(link.server, reason)),
                    Verdict::PassOver(why) => self.pass_over(&link, why, deadline).await,
                    Verdict::Unknown(why) => {
                        unknown = operation(&request);
                        self.pass_over(&link, why, deadline).await;
                    }
                },
                Err(Unanswered::Lost) => {
                    unknown = operation(&request);
                    self.dropped(&link);
                }
                Err(Unanswered::Late) => {
                    unknown = operation(&request);
                    self.failed(link.server, no_answer(patience));
                    self.leave(&link).await;
                }
            }
        }
    }

    /// Starts a watch on the current connection.
    pub(super) async fn watch(
        self: &Arc<Self>,
        request: &Request,
        events: impl Fn() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>),
    ) -> Result<(Link, i64, mpsc::Receiver<Bytes>), LookupError> {
        let started = Instant::now();
        let deadline = after(started, self.config.total_timeout);
        loop {
            let link = match self.link(deadline).await {
                Ok(link) => link,
                Err(why) => return Err(self.gave_up(why, started, None)),
            };
            let (sender, receiver) = events();
            let patience = self.config.call_timeout;
            match link.watch(encode(request), sender, patience).await {
                Ok(Ok(id)) => {
                    self.book().answered(link.server);
                    return Ok((link, id, receiver));
                }
                Ok(Err(reply)) => {
                    let none = |_: &Bytes| Err("WATCH was not answered with an id".to_owned());
                    match self.judge::<()>(reply, request, &link, &none) {
                        Verdict::Answer(()) => {}
                        Verdict::Refused(error) => return Err(error.into()),
                        Verdict::Denied(reason) => return Err(self.denied(link.server, reason)),
                        Verdict::PassOver(why) | Verdict::Unknown(why) => {
                            self.pass_over(&link, why, deadline).await;
                        }
                    }
                }
                Err(Unanswered::Lost) => self.dropped(&link),
                Err(Unanswered::Late) => {
                    self.failed(link.server, no_answer(patience));
                    self.leave(&link).await;
                }
            }
        }
    }

    /// A server sent what cannot be read: its connection is replaced.
    pub(super) async fn garbled(&self, link: &Link, reason: &impl ToString) {
        self.failed(link.server, malformed(reason));
        self.leave(link).await;
    }

    /// Reads never go back behind what was seen, on any server.
    fn demand_what_was_seen(&self, request: &mut Request) {
        let seen = self.seen();
        match request {
            Request::Lookup { options, .. }
            | Request::LookupLink { options, .. }
            | Request::List { options, .. }
            | Request::ListBindings { options, .. }
            | Request::Attributes { options, .. }
            | Request::Search { options, .. } => {
                let wanted = options.min_revision.unwrap_or_default().max(seen);
                options.min_revision = (wanted > Revision(0)).then_some(wanted);
            }
            Request::Groups
            | Request::Group { .. }
            | Request::Status
            | Request::Renew { .. }
            | Request::Watch { .. }
            | Request::Write(_)
            | Request::Timeline { .. } => {}
        }
    }

    fn judge<T>(
        &self,
        reply: Frame,
        request: &Request,
        link: &Link,
        read: &impl Fn(&Bytes) -> Result<Read<T>, String>,
    ) -> Verdict<T> {
        match reply {
            Frame::Bulk(document) => match read(&document) {
                Ok((answer, revision)) => {
                    let mut book = self.book();
                    book.answered(link.server);
                    book.saw(link.server, revision.unwrap_or_default());
                    Verdict::Answer(answer)
                }
                Err(reason) => Verdict::Unknown(Failure::Malformed { reason }),
            },
            Frame::Error(line) => self.judge_error(&line, request, link),
            Frame::Simple(_)
            | Frame::Integer(_)
            | Frame::Null
            | Frame::Boolean(_)
            | Frame::Double(_)
            | Frame::Array(_)
            | Frame::Map(_)
            | Frame::Push(_) => Verdict::Unknown(malformed(&"the reply is not a document")),
        }
    }

    fn judge_error<T>(&self, line: &str, request: &Request, link: &Link) -> Verdict<T> {
        let document = line.split_once(' ').map_or("", |(_, document)| document);
        let Ok(error) = serde_json::from_str::<NamingError>(document) else {
            let failure = greet::refusal(line);
            return if let Failure::Denied { reason } = failure {
                Verdict::Denied(reason)
            } else {
                Verdict::Unknown(failure)
            };
        };
        let error = stale_miss(error, request);
        match error.advice() {
            Advice::AskAnother => Verdict::PassOver(Failure::PassedOver(error)),
            Advice::Retry => Verdict::Unknown(Failure::PassedOver(error)),
            Advice::GiveUp | Advice::WaitForRebind => {
                let mut book = self.book();
                book.answered(link.server);
                if let NamingError::NameNotFound { revision, .. } = &error {
                    book.saw(link.server, *revision);
                }
                Verdict::Refused(error)
            }
        }
    }

    fn denied(&self, server: usize, reason: String) -> LookupError {
        let server = self.book().server(server).cloned();
        LookupError::AuthenticationFailed {
            server: server.unwrap_or_else(|| self.providers.endpoints()[0].clone()),
            reason,
        }
    }

    fn gave_up(&self, why: NoLink, started: Instant, unknown: Option<OpId>) -> LookupError {
        let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attempts = self.book().attempts();
        match (why, unknown) {
            (NoLink::Denied { server, reason }, _) => LookupError::AuthenticationFailed { server, reason },
            (NoLink::Late, Some(op)) => LookupError::OutcomeUnknown {
                op,
                waited_ms,
                attempts,
            },
            (NoLink::Late, None) => LookupError::Unreachable { waited_ms, attempts },
        }
    }

    /// Goes to another server; where there is only one, waits for its pause to end.
    async fn pass_over(&self, link: &Link, why: Failure, deadline: Instant) {
        self.failed(link.server, why);
        if self.providers.endpoints().len() > 1 {
            return self.leave(link).await;
        }
        let pause = self.book().not_before(link.server);
        sleep_until(pause.map_or_else(Instant::now, |at| Instant::from_std(at).min(deadline))).await;
    }

    /// Gives a connection up: watches move, requests on their way may finish.
    async fn leave(&self, link: &Link) {
        self.dropped(link);
        link.retire().await;
    }

    fn dropped(&self, link: &Link) {
        self.slot.send_if_modified(|slot| {
            let current = matches!(slot, Slot::Up(up) if up.is(link));
            if current {
                *slot = Slot::Down;
            }
            current
        });
    }

    /// The connection; waits for one until the deadline.
    async fn link(self: &Arc<Self>, deadline: Instant) -> Result<Link, NoLink> {
        if Instant::now() >= deadline {
            return Err(NoLink::Late);
        }
        let mut slot = self.slot.subscribe();
        loop {
            if let Slot::Up(link) = &*slot.borrow_and_update()
                && link.is_alive()
            {
                return Ok(link.clone());
            }
            self.ensure_connecting();
            if timeout_at(deadline, slot.changed()).await.is_err() {
                return Err(NoLink::Late);
            }
            if let Slot::Denied { server, reason } = slot.borrow().clone() {
                return Err(NoLink::Denied { server, reason });
            }
        }
    }

    fn connector(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.connector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_connecting(self: &Arc<Self>) {
        let mut connector = self.connector();
        if matches!(&*self.slot.borrow(), Slot::Up(link) if link.is_alive()) {
            return;
        }
        // A task of a runtime that is gone is finished without having said so.
        if connector.as_ref().is_none_or(JoinHandle::is_finished) {
            *connector = Some(tokio::spawn(connect(Arc::clone(self))));
        }
    }

    /// Ends the connecting task: with a result, or because nobody waits. Under the lock, so that whoever
    /// comes after it starts a new one.
    fn finish_connecting(&self, slot: Option<Slot>) -> bool {
        let mut connector = self.connector();
        match slot {
            Some(slot) => drop(self.slot.send_replace(slot)),
            None if self.slot.receiver_count() > 0 => return false,
            None => {}
        }
        *connector = None;
        true
    }
}

/// A miss that is older than what the caller has seen is no answer: the server lags.
fn stale_miss(error: NamingError, request: &Request) -> NamingError {
    let (Request::Lookup { options, .. }
    | Request::LookupLink { options, .. }
    | Request::List { options, .. }
    | Request::ListBindings { options, .. }
    | Request::Attributes { options, .. }
    | Request::Search { options, .. }) = request
    else {
        return error;
    };
    match (&error, options.min_revision) {
        (NamingError::NameNotFound { revision, .. }, Some(want)) if *revision < want => {
            NamingError::Lagging {
                have: *revision,
                want,
            }
        }
        _ => error,
    }
}

fn encode(request: &Request) -> Vec<u8> {
    let words = request.to_arguments();
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut bytes = Vec::new();
    write_command(&words, &mut bytes);
    bytes
}

fn operation(request: &Request) -> Option<OpId> {
    match request {
        Request::Write(write) => Some(write.op),
        Request::Lookup { .. }
        | Request::LookupLink { .. }
        | Request::List { .. }
        | Request::ListBindings { .. }
        | Request::Groups
        | Request::Group { .. }
        | Request::Status
        | Request::Renew { .. }
        | Request::Watch { .. }
        | Request::Attributes { .. }
        | Request::Search { .. }
        | Request::Timeline { .. } => None,
    }
}

/// Races attempts over the provider list until one wins, the credentials are refused, or nobody waits.
async fn connect(session: Arc<Session>) {
    let mut race = Race::new(&session);
    loop {
        let next = race.next(&session);
        let start = next.map_or_else(Instant::now, |(_, at)| at);
        tokio::select! {
            biased;
            Some(done) = race.attempts.join_next(), if !race.attempts.is_empty() => {
                // An attempt that panicked does not say which one it was.
                let Ok((index, outcome)) = done else {
                    race = Race::new(&session);
                    continue;
                };
                race.busy[index] = false;
                if let Some(slot) = settle(&session, index, outcome) {
                    session.finish_connecting(Some(slot));
                    return;
                }
            }
            () = sleep_until(start), if next.is_some() => {
                if let Some((index, _)) = next {
                    race.start(&session, index);
                }
            }
            () = tokio::time::sleep(WANTED_CHECK) => {}
        }
        if session.finish_connecting(None) {
            return;
        }
    }
}

/// Attempts that run beside each other.
struct Race {
    attempts: JoinSet<(usize, Result<Greeted, Failure>)>,
    busy: Vec<bool>,
    last_start: Option<Instant>,
}

impl Race {
    fn new(session: &Session) -> Self {
        Self {
            attempts: JoinSet::new(),
            busy: vec![false; session.providers.endpoints().len()],
            last_start: None,
        }
    }

    /// The server to try next, and when: its pause must be over, and the attempts that run get a head start.
    fn next(&self, session: &Session) -> Option<(usize, Instant)> {
        let (index, at) = session.book().next(&self.busy, Instant::now().into_std())?;
        let at = Instant::from_std(at);
        let head_start = match self.last_start {
            Some(last) if !self.attempts.is_empty() => last + session.config.stagger,
            Some(_) | None => at,
        };
        Some((index, at.max(head_start)))
    }

    fn start(&mut self, session: &Session, index: usize) {
        self.last_start = Some(Instant::now());
        self.busy[index] = true;
        let server = session.providers.endpoints()[index].clone();
        let config = session.config.clone();
        self.attempts
            .spawn(async move { (index, greet::attempt(&server, &config).await) });
    }
}

/// What an attempt means for the race; a slot ends it.
fn settle(session: &Arc<Session>, index: usize, outcome: Result<Greeted, Failure>) -> Option<Slot> {
    let admitted = outcome.and_then(|greeted| {
        session.book().admit(index, &greeted.cluster, greeted.revision)?;
        Ok(greeted)
    });
    match admitted {
        Ok(greeted) => {
            tracing::debug!(server = %session.providers.endpoints()[index], "connected to naming");
            Some(Slot::Up(run(session, index, greeted)))
        }
        Err(Failure::Denied { reason }) => {
            session.failed(
                index,
                Failure::Denied {
                    reason: reason.clone(),
                },
            );
            Some(Slot::Denied {
                server: session.providers.endpoints()[index].clone(),
                reason,
            })
        }
        Err(why) => {
            session.failed(index, why);
            None
        }
    }
}

fn run(session: &Arc<Session>, index: usize, greeted: Greeted) -> Link {
    let patience = session.config.call_timeout;
    // The connection must not keep alive what holds its handle.
    let owner = Arc::downgrade(session);
    link::start(greeted.stream, greeted.input, index, patience, move |why| {
        if let Some(session) = owner.upgrade() {
            session.failed(index, why);
        }
    })
}
