//! The one place where requests are answered, whichever door they came through.
//!
//! It decides who answers: the published state, the log, or the leases. What an answer says is decided by the
//! directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daymark_naming_core::Directory;
use daymark_naming_proto::{
    Binding, GroupName, LeaseId, MemberName, Name, NamingError, ReadOptions, Request, Revision, Scope,
    Search, Status, Write, WriteRequest, Written,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::explain::{self, Explanation, LeaseLeft};
use crate::hub::{Hub, Watching};
use crate::identity::Identity;
use crate::leases::Leases;
use crate::mailbox::Mailbox;
use crate::options::Limits;
use crate::replica::{Pending, Replica, Standing};
use crate::room::InputRoom;
use crate::state::{State, to_json};

/// What a request is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The JSON document.
    pub(crate) json: Bytes,
    /// The revision of the state that was read or written.
    pub(crate) revision: Revision,
    /// The revision of the binding, where the document is one.
    pub(crate) binding: Option<Revision>,
}

/// A write on its way, with the room it takes.
pub(crate) struct Begun {
    pending: Pending,
    /// What it takes of the room for writes.
    pub(crate) bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Begun {
    /// Whether `finish` would not wait.
    pub(crate) fn is_answered(&self) -> bool {
        self.pending.is_answered()
    }
}

/// The steps of a search after which other requests get their turn: a fraction of a millisecond.
const SEARCH_STEPS: u64 = 1_000;
/// The unit in which the bytes of writes under way are counted.
const WRITE_UNIT: usize = 1024;

/// Room for as many bytes of writes.
pub(crate) fn room_for_writes(bytes: usize) -> Arc<Semaphore> {
    let units = bytes.div_ceil(WRITE_UNIT).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(units))
}

/// What happened since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) http_requests: AtomicU64,
    pub(crate) resp_commands: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) resp_sessions: AtomicU64,
}

impl Counters {
    /// Counts one more and says how many there are with it.
    pub(crate) fn count(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts several more.
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Answers requests.
pub(crate) struct Dispatcher {
    pub(crate) state: Arc<State>,
    pub(crate) replica: Replica,
    pub(crate) leases: Arc<Leases>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) waiters: Semaphore,
    pub(crate) writes: Arc<Semaphore>,
    pub(crate) input: Arc<InputRoom>,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Dispatcher {
    /// Answers a read or a renewal.
    ///
    /// # Errors
    /// Whatever the directory answers, and `Lagging`, `TimedOut`, `LimitExceeded` or `ServiceUnavailable`.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, NamingError> {
        match request {
            Request::Lookup { name, options } => self.read(&options, |root| lookup(root, &name)).await,
            Request::LookupLink { name, options } => {
                self.read(&options, |root| binding_answer(root, &*root.lookup_link(&name)?))
                    .await
            }
            Request::List { name, options } => self.list(&name, &options, false).await,
            Request::ListBindings { name, options } => self.list(&name, &options, true).await,
            Request::Groups => self.now(|root| document(root, &root.groups())),
            Request::Group { group } => self.now(|root| document(root, &root.group(&group)?)),
            Request::Status => self.now(|root| document(root, &self.status(root))),
            Request::Renew { group, member, lease } => self.renew(&group, &member, lease),
            Request::Watch { .. } => Err(NamingError::invalid("a watch has more than one answer")),
            Request::Attributes { name, ids, options } => {
                self.read(&options, |root| {
                    document(root, &root.attributes(&name, ids.as_deref())?)
                })
                .await
            }
            Request::Search {
                name,
                search,
                options,
            } => self.search(&name, &search, &options).await,
            Request::Timeline { group } => self.now(|root| document(root, &root.timeline(&group)?)),
            Request::Write(_) => Err(NamingError::invalid("a write is begun, then finished")),
        }
    }

    /// How a lookup of a name goes.
    ///
    /// # Errors
    /// `ServiceUnavailable` for an answer that has no JSON form, which no real one is.
    pub(crate) fn explain(&self, name: &Name) -> Result<Answer, NamingError> {
        self.now(|root| document(root, &Explanation::of(root, name)))
    }

    /// Every membership and its time left.
    ///
    /// # Errors
    /// As for `explain`.
    pub(crate) fn lease_list(&self) -> Result<Answer, NamingError> {
        let now = Instant::now();
        self.now(|root| {
            let leases = root.leases().map(|lease| LeaseLeft {
                left_ms: self.leases.left(&lease.group, &lease.member, now),
                group: lease.group,
                member: lease.member,
                lease: lease.lease,
                lease_ms: lease.lease_ms,
            });
            let revision = root.revision();
            document(
                root,
                &explain::Leases {
                    revision,
                    leases: leases.collect(),
                },
            )
        })
    }

    /// The servers of the directory.
    ///
    /// # Errors
    /// As for `explain`.
    pub(crate) fn members(&self) -> Result<Answer, NamingError> {
        self.now(|root| {
            let standing = self.standing();
            let leads = standing.leader == Some(self.identity.node);
            let server = explain::Server {
                node: self.identity.node,
                role: if leads { "leader" } else { "follower" },
                term: standing.term,
                revision: root.revision(),
                impaired: self.replica.check_leads().err().map(|error| error.to_string()),
            };
            let members = explain::Members {
                cluster_id: self.identity.cluster_id.clone(),
                members: vec![server],
            };
            document(root, &members)
        })
    }

    /// The limits of this server and of the directory.
    ///
    /// # Errors
    /// As for `explain`.
    pub(crate) fn limits_in_force(&self) -> Result<Answer, NamingError> {
        self.now(|root| {
            let limits = explain::Limits {
                limits: &self.limits,
                directory: root.limits(),
            };
            document(root, &limits)
        })
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when the server stops.
    pub(crate) async fn stops(&self) {
        let mut stopping = self.stopping.clone();
        // A sender that is gone means the same.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// The state now. Not to be held across a wait.
    pub(crate) fn root(&self) -> arc_swap::Guard<Arc<Directory>> {
        self.state.load()
    }

    /// Lookups that wait for a name now.
    pub(crate) fn waiting_lookups(&self) -> usize {
        self.limits
            .waiters_max
            .saturating_sub(self.waiters.available_permits())
    }

    /// Term and leader as this node knows them.
    pub(crate) fn standing(&self) -> Standing {
        self.replica.standing()
    }

    /// Puts a write of about `bytes` bytes into the log. Writes are committed in the order in which they were
    /// begun.
    ///
    /// # Errors
    /// `ServiceUnavailable`: nothing was stored.
    pub(crate) async fn begin(&self, request: WriteRequest, bytes: usize) -> Result<Begun, NamingError> {
        if matches!(request.write, Write::EndLease { .. }) {
            return Err(NamingError::NotSupported {
                what: "ending a lease from outside".to_owned(),
            });
        }
        let units = u32::try_from(bytes.div_ceil(WRITE_UNIT).max(1)).unwrap_or(u32::MAX);
        let room = self.writes.clone().try_acquire_many_owned(units);
        let room = room.map_err(|_| NamingError::ServiceUnavailable {
            reason: format!(
                "too many writes are under way: the limit is {} bytes",
                self.limits.write_bytes_max
            ),
        })?;
        let pending = self.replica.begin(request.op, request.write, bytes).await?;
        Ok(Begun {
            pending,
            bytes,
            _room: room,
        })
    }

    /// Waits for what became of a write; not to be asked again once it has said so. Given up in between, it can be
    /// asked again.
    ///
    /// # Errors
    /// What the directory answers, `TimedOut` where the outcome is unknown, or `ServiceUnavailable`.
    pub(crate) async fn finish(&self, begun: &mut Begun) -> Result<Answer, NamingError> {
        let written: Written = self.replica.finish(&mut begun.pending).await?;
        Ok(Answer {
            json: to_json(&written)?,
            revision: written.revision,
            binding: None,
        })
    }

    /// Begins a watch whose events go to `mailbox`.
    ///
    /// # Errors
    /// `Lagging`, `LimitExceeded` or `ServiceUnavailable`.
    pub(crate) fn watch(
        &self,
        name: Name,
        scope: Scope,
        from: Option<Revision>,
        mailbox: Arc<Mailbox>,
    ) -> Result<Watching, NamingError> {
        self.hub.watch(name, scope, from, mailbox)
    }

    async fn list(&self, name: &Name, options: &ReadOptions, bindings: bool) -> Result<Answer, NamingError> {
        self.read(options, |root| document(root, &root.list(name, bindings)?))
            .await
    }

    /// Searches in portions, so that other requests are answered in between.
    async fn search(
        &self,
        name: &Name,
        search: &Search,
        options: &ReadOptions,
    ) -> Result<Answer, NamingError> {
        if options.strong {
            self.replica.barrier().await?;
        }
        let mut search = search.clone();
        // 0 is no limit of one's own.
        let within =
            |asked: Option<u64>, most: u64| asked.filter(|&asked| asked > 0).unwrap_or(most).min(most);
        search.size_limit = Some(within(search.size_limit, self.limits.search_size_max));
        let time_max = u64::try_from(self.limits.search_time_max.as_millis()).unwrap_or(u64::MAX);
        let limit_ms = within(search.time_limit_ms, time_max);
        let mut run = attempt(&self.root(), options, |root| root.search(name, &search))?;
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        while run.advance(SEARCH_STEPS) {
            if Instant::now() >= deadline {
                run.stop_for_time(limit_ms);
                break;
            }
            tokio::task::yield_now().await;
        }
        let found = run.finish();
        Ok(Answer {
            json: to_json(&found)?,
            revision: found.revision,
            binding: None,
        })
    }

    fn status(&self, root: &Directory) -> Status {
        let standing = self.standing();
        Status {
            cluster_id: self.identity.cluster_id.clone(),
            node: self.identity.node,
            term: standing.term,
            leader: standing.leader,
            revision: root.revision(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The membership is checked against the state, then extended: an end on its way wins.
    fn renew(&self, group: &GroupName, member: &MemberName, lease: LeaseId) -> Result<Answer, NamingError> {
        self.replica.check_leads()?;
        let root = self.root();
        let renewed = root.renewal(group, member, lease)?;
        if !self.leases.renew(group, member, lease, Instant::now()) {
            return Err(NamingError::LeaseEnded {
                group: group.clone(),
                member: member.clone(),
                lease,
            });
        }
        document(&root, &renewed)
    }

    fn now(
        &self,
        answer: impl FnOnce(&Directory) -> Result<Answer, NamingError>,
    ) -> Result<Answer, NamingError> {
        answer(&self.root())
    }

    async fn read(
        &self,
        options: &ReadOptions,
        answer: impl Fn(&Directory) -> Result<Answer, NamingError>,
    ) -> Result<Answer, NamingError> {
        if options.strong {
            self.replica.barrier().await?;
        }
        let first = attempt(&self.root(), options, &answer);
        match (first, options.wait_ms) {
            (Err(error), Some(wait_ms)) if is_worth_waiting(&error) => {
                let wait = Duration::from_millis(wait_ms).min(self.limits.wait_max);
                self.wait(options, answer, wait).await
            }
            (first, _) => first,
        }
    }

    /// Tries again at every revision, until `wait` is over.
    async fn wait(
        &self,
        options: &ReadOptions,
        answer: impl Fn(&Directory) -> Result<Answer, NamingError>,
        wait: Duration,
    ) -> Result<Answer, NamingError> {
        let deadline = tokio::time::Instant::now() + wait;
        let permit = self.waiters.try_acquire();
        let _permit = permit.map_err(|_| NamingError::LimitExceeded {
            what: "lookups that wait".to_owned(),
            limit: self.limits.waiters_max as u64,
        })?;
        let mut revisions = self.state.revisions();
        loop {
            revisions.borrow_and_update();
            let answered = attempt(&self.root(), options, &answer);
            match &answered {
                Err(error) if is_worth_waiting(error) => {}
                Ok(_) | Err(_) => return answered,
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return answered },
                () = tokio::time::sleep_until(deadline) => return answered,
                () = self.stops() => {
                    return Err(NamingError::ServiceUnavailable { reason: "this server stops".to_owned() });
                }
            }
        }
    }
}

/// Whether a later revision may answer better.
fn is_worth_waiting(error: &NamingError) -> bool {
    matches!(
        error,
        NamingError::NameNotFound { .. } | NamingError::NameUnavailable { .. } | NamingError::Lagging { .. }
    )
}

fn attempt<T>(
    root: &Directory,
    options: &ReadOptions,
    answer: impl Fn(&Directory) -> Result<T, NamingError>,
) -> Result<T, NamingError> {
    match options.min_revision {
        Some(want) if root.revision() < want => Err(NamingError::Lagging {
            have: root.revision(),
            want,
        }),
        Some(_) | None => answer(root),
    }
}

fn lookup(root: &Directory, name: &Name) -> Result<Answer, NamingError> {
    binding_answer(root, &*root.lookup(name)?)
}

/// The answer of a lookup that found `binding`.
fn binding_answer(root: &Directory, binding: &Binding) -> Result<Answer, NamingError> {
    Ok(Answer {
        json: to_json(binding)?,
        revision: root.revision(),
        binding: Some(binding.revision),
    })
}

fn document<T: serde::Serialize>(root: &Directory, value: &T) -> Result<Answer, NamingError> {
    Ok(Answer {
        json: to_json(value)?,
        revision: root.revision(),
        binding: None,
    })
}
