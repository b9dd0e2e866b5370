//! The naming client: lookups, writes, watches, over whichever naming server answers.
//!
//! One connection carries everything. What it decides is in `session`; this module spells the verbs. It never
//! reads older than it has read, on any server.

mod book;
mod config;
mod error;
mod follow;
mod greet;
mod link;
mod session;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daymark_naming_proto::{
    Advice, Attributes, AttributesOf, Binding, Epoch, Evidence, Export, Found, GroupName, GroupView, Groups,
    JoinRequest, LeaseId, Listing, MemberName, Modification, Name, NamingError, Object, OpId, ReadOptions,
    Renewed, Request, Revision, Scope, Search, Status, Timeline, TransactWrite, WithdrawReason, Write,
    WriteDetail, WriteRequest, Written,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use config::{Credentials, NamingConfig};
pub use error::{Failure, LookupError, ServerAttempt};
pub use follow::{Follow, Following};
pub use watch::Watch;

use crate::providers::Providers;
use session::{Read, Session};

/// How often a name that is waited for is looked up beside its watch, in case it hangs behind a link.
const WAIT_POLL: Duration = Duration::from_millis(500);

/// A client of the directory. Clones share one connection, made when it is first needed.
///
/// Every call is repeated over the servers of the provider list until one answers or `total_timeout` is over.
/// Its methods are called inside a tokio runtime.
#[derive(Clone)]
pub struct Naming {
    session: Arc<Session>,
}

/// A membership, as the directory granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The membership, to be renewed.
    pub lease: LeaseId,
    /// The group's epoch.
    pub epoch: Epoch,
    /// The group's active member.
    pub active: Option<MemberName>,
    /// The revision of the join.
    pub revision: Revision,
}

impl Naming {
    /// A client of these servers. Connects when it is first asked something.
    #[must_use]
    pub fn new(providers: Providers, config: NamingConfig) -> Self {
        Self {
            session: Arc::new(Session::new(providers, config)),
        }
    }

    /// The servers.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.session.providers
    }

    /// How patient it is.
    #[must_use]
    pub fn config(&self) -> &NamingConfig {
        &self.session.config
    }

    /// The highest revision seen; no read answers with an older state.
    #[must_use]
    pub fn revision_seen(&self) -> Revision {
        self.session.seen()
    }

    /// The binding of a name, links followed.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn lookup(&self, name: &Name) -> Result<Binding, LookupError> {
        self.lookup_with(name, ReadOptions::default()).await
    }

    /// The binding of a name, links followed. `wait_ms` is waited here, not at the server, so that other
    /// requests on the connection go on; it ends with the last refusal.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn lookup_with(&self, name: &Name, options: ReadOptions) -> Result<Binding, LookupError> {
        self.read(name, options, |name, options| Request::Lookup { name, options })
            .await
    }

    /// The binding of a name, the last link not followed.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn lookup_link(&self, name: &Name) -> Result<Binding, LookupError> {
        self.read(name, ReadOptions::default(), |name, options| {
            Request::LookupLink { name, options }
        })
        .await
    }

    /// The names and kinds directly below a context.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn list(&self, name: &Name) -> Result<Listing, LookupError> {
        let (name, options) = (name.clone(), ReadOptions::default());
        self.typed(Request::List { name, options }).await
    }

    /// The names and bindings directly below a context.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn list_bindings(&self, name: &Name) -> Result<Listing, LookupError> {
        let (name, options) = (name.clone(), ReadOptions::default());
        self.typed(Request::ListBindings { name, options }).await
    }

    /// The attributes of a name, links followed: those with these ids, or all. One that the binding does not have
    /// is left out.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn attributes(&self, name: &Name, ids: Option<&[&str]>) -> Result<AttributesOf, LookupError> {
        let ids = ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        let (name, options) = (name.clone(), ReadOptions::default());
        self.typed(Request::Attributes { name, ids, options }).await
    }

    /// The bindings around a name that match a filter (RFC 4515). Where a limit ended the search, `Found::stopped`
    /// says which, and the entries are those found until then.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn search(&self, name: &Name, search: Search) -> Result<Found, LookupError> {
        let (name, options) = (name.clone(), ReadOptions::default());
        self.typed(Request::Search {
            name,
            search,
            options,
        })
        .await
    }

    /// Every group.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn groups(&self) -> Result<Groups, LookupError> {
        self.typed(Request::Groups).await
    }

    /// One group.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn group(&self, group: &GroupName) -> Result<GroupView, LookupError> {
        let group = group.clone();
        self.typed(Request::Group { group }).await
    }

    /// The last failovers of a group, as the members that took over told them.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn timeline(&self, group: &GroupName) -> Result<Timeline, LookupError> {
        let group = group.clone();
        self.typed(Request::Timeline { group }).await
    }

    /// The server that answers.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn status(&self) -> Result<Status, LookupError> {
        self.typed(Request::Status).await
    }

    /// Asks anything but a watch, and returns the JSON document of the answer as it came.
    ///
    /// # Errors
    /// `LookupError`; a watch is refused as an invalid request.
    pub async fn ask(&self, request: Request) -> Result<Bytes, LookupError> {
        match request {
            Request::Watch { .. } => Err(NamingError::invalid("a watch has no single answer").into()),
            Request::Lookup { name, options } => {
                let make = |name, options| Request::Lookup { name, options };
                self.read_raw(&name, options, make, raw).await
            }
            Request::LookupLink { name, options } => {
                let make = |name, options| Request::LookupLink { name, options };
                self.read_raw(&name, options, make, raw).await
            }
            other @ (Request::List { .. }
            | Request::ListBindings { .. }
            | Request::Groups
            | Request::Group { .. }
            | Request::Status
            | Request::Renew { .. }
            | Request::Write(_)
            | Request::Attributes { .. }
            | Request::Search { .. }
            | Request::Timeline { .. }) => self.session.call(other, raw).await,
        }
    }

    /// Follows changes. The watch begins when it is first read.
    #[must_use]
    pub fn watch(&self, name: &Name, scope: Scope, from: Option<Revision>) -> Watch {
        Watch::new(Arc::clone(&self.session), name.clone(), scope, from)
    }

    /// Follows one name: the handle always holds its current binding, updated by push.
    #[must_use]
    pub fn follow(&self, name: &Name) -> Follow {
        Follow::new(self.clone(), name.clone())
    }

    /// Binds a name; refused where it is bound.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn bind(
        &self,
        name: &Name,
        object: Object,
        attributes: Attributes,
    ) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::Bind {
            name,
            object,
            attributes,
        })
        .await
    }

    /// Binds a name whatever it was bound to. Attributes that are `None` stay; `expected` is the revision the
    /// binding must have now, 0 for none.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn rebind(
        &self,
        name: &Name,
        object: Object,
        attributes: Option<Attributes>,
        expected: Option<Revision>,
    ) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::Rebind {
            name,
            object,
            attributes,
            expected,
        })
        .await
    }

    /// Unbinds a name; one that is not bound is no error.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn unbind(&self, name: &Name, expected: Option<Revision>) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::Unbind { name, expected }).await
    }

    /// Makes a subcontext.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn create_subcontext(
        &self,
        name: &Name,
        attributes: Attributes,
    ) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::CreateSubcontext { name, attributes }).await
    }

    /// Removes an empty subcontext; one that does not exist is no error.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn destroy_subcontext(&self, name: &Name) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::DestroySubcontext { name }).await
    }

    /// Moves a binding, with everything below it where it is a context, to a name that is not bound. Links that
    /// lead to the old name are not changed.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn rename(
        &self,
        name: &Name,
        target: &Name,
        expected: Option<Revision>,
    ) -> Result<Written, LookupError> {
        let (name, target) = (name.clone(), target.clone());
        self.write(Write::Rename {
            name,
            target,
            expected,
        })
        .await
    }

    /// Changes attributes, all of the modifications or none.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn modify_attributes(
        &self,
        name: &Name,
        modifications: Vec<Modification>,
        expected: Option<Revision>,
    ) -> Result<Written, LookupError> {
        let name = name.clone();
        self.write(Write::ModifyAttributes {
            name,
            modifications,
            expected,
        })
        .await
    }

    /// Carries out all writes or none, as one revision.
    ///
    /// # Errors
    /// `LookupError`; the refusal says which of them was the cause.
    pub async fn transact(&self, writes: Vec<TransactWrite>) -> Result<Written, LookupError> {
        self.write(Write::Transact { writes }).await
    }

    /// Joins a group as standby.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn join(
        &self,
        group: &GroupName,
        member: &MemberName,
        join: JoinRequest,
    ) -> Result<Joined, LookupError> {
        let (group, member) = (group.clone(), member.clone());
        let request = self.request(Write::Join { group, member, join });
        let read = |document: &Bytes| {
            let (written, revision) = typed::<Written>(document)?;
            match written.detail {
                WriteDetail::Joined { lease, epoch, active } => {
                    let joined = Joined {
                        lease,
                        epoch,
                        active,
                        revision: written.revision,
                    };
                    Ok((joined, revision))
                }
                WriteDetail::None | WriteDetail::Claimed { .. } => Err("a join without its lease".to_owned()),
            }
        };
        self.session.call(request, read).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn leave(
        &self,
        group: &GroupName,
        member: &MemberName,
        lease: LeaseId,
    ) -> Result<Written, LookupError> {
        let (group, member) = (group.clone(), member.clone());
        self.write(Write::Leave { group, member, lease }).await
    }

    /// Claims to be the active member; returns the epoch granted.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn claim(
        &self,
        group: &GroupName,
        member: &MemberName,
        store_epoch: Epoch,
        evidence: Evidence,
    ) -> Result<Epoch, LookupError> {
        let (group, member) = (group.clone(), member.clone());
        let request = self.request(Write::Claim {
            group,
            member,
            store_epoch,
            evidence,
        });
        let read = |document: &Bytes| {
            let (written, revision) = typed::<Written>(document)?;
            match written.detail {
                WriteDetail::Claimed { epoch } => Ok((epoch, revision)),
                WriteDetail::None | WriteDetail::Joined { .. } => Err("a claim without its epoch".to_owned()),
            }
        };
        self.session.call(request, read).await
    }

    /// Publishes the whole export set, in one revision.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn publish(
        &self,
        group: &GroupName,
        member: &MemberName,
        epoch: Epoch,
        exports: Vec<Export>,
    ) -> Result<Written, LookupError> {
        let (group, member) = (group.clone(), member.clone());
        self.write(Write::Publish {
            group,
            member,
            epoch,
            exports,
        })
        .await
    }

    /// Takes the exports back, in one revision.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn withdraw(
        &self,
        group: &GroupName,
        epoch: Epoch,
        reason: WithdrawReason,
        eta_ms: Option<u64>,
    ) -> Result<Written, LookupError> {
        let group = group.clone();
        self.write(Write::Withdraw {
            group,
            epoch,
            reason,
            eta_ms,
        })
        .await
    }

    /// Keeps a membership alive.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn renew(
        &self,
        group: &GroupName,
        member: &MemberName,
        lease: LeaseId,
    ) -> Result<Renewed, LookupError> {
        let (group, member) = (group.clone(), member.clone());
        self.typed(Request::Renew { group, member, lease }).await
    }

    /// Writes, with an operation id made here and kept over every repetition.
    ///
    /// # Errors
    /// `LookupError`; `OutcomeUnknown` carries the operation id for `write_as`.
    pub async fn write(&self, write: Write) -> Result<Written, LookupError> {
        self.write_as(Self::new_op(), write).await
    }

    /// Writes under a given operation id: a write that happened is answered again, not done twice.
    ///
    /// # Errors
    /// `LookupError`.
    pub async fn write_as(&self, op: OpId, write: Write) -> Result<Written, LookupError> {
        self.typed(Request::Write(WriteRequest { op, write })).await
    }

    /// A random operation id.
    #[must_use]
    pub fn new_op() -> OpId {
        OpId(fastrand::u128(..))
    }

    fn request(&self, write: Write) -> Request {
        Request::Write(WriteRequest {
            op: Self::new_op(),
            write,
        })
    }

    async fn typed<T: Answer>(&self, request: Request) -> Result<T, LookupError> {
        self.session.call(request, typed).await
    }

    async fn read(
        &self,
        name: &Name,
        options: ReadOptions,
        make: impl Fn(Name, ReadOptions) -> Request,
    ) -> Result<Binding, LookupError> {
        self.read_raw(name, options, make, typed).await
    }

    async fn read_raw<T>(
        &self,
        name: &Name,
        options: ReadOptions,
        make: impl Fn(Name, ReadOptions) -> Request,
        read: fn(&Bytes) -> Result<Read<T>, String>,
    ) -> Result<T, LookupError> {
        let deadline = Instant::now() + Duration::from_millis(options.wait_ms.unwrap_or(0));
        let now = ReadOptions {
            wait_ms: None,
            ..options
        };
        let mut watch = None;
        loop {
            let answer = self.session.call(make(name.clone(), now), read).await;
            match &answer {
                Err(LookupError::Refused(error)) if is_waited_for(error) && Instant::now() < deadline => {}
                Ok(_) | Err(_) => return answer,
            }
            let watch = watch.get_or_insert_with(|| self.watch(name, Scope::Object, None));
            let pause = deadline.min(Instant::now() + WAIT_POLL);
            // The bookmark says that the watch stands, so that nothing is missed between it and the lookup.
            if let Ok(Err(_)) = tokio::time::timeout_at(pause, watch.next()).await {
                tokio::time::sleep_until(pause).await;
            }
        }
    }
}

/// A wait so long that it might as well be for ever, and that every clock can hold.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When a wait that begins now ends. One that no clock can hold ends in thirty years.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FOR_EVER)
}

/// Whether waiting may turn this refusal into an answer.
fn is_waited_for(error: &NamingError) -> bool {
    matches!(error, NamingError::NameNotFound { .. }) || error.advice() == Advice::WaitForRebind
}

/// A document that tells a revision of the directory.
trait Answer: DeserializeOwned {
    fn revision(&self) -> Option<Revision>;
}

macro_rules! answers {
    ($($kind:ty),*) => {$(
        impl Answer for $kind {
            fn revision(&self) -> Option<Revision> {
                Some(self.revision)
            }
        }
    )*};
}

answers!(
    Binding,
    Listing,
    Groups,
    GroupView,
    Written,
    Status,
    AttributesOf,
    Found,
    Timeline
);

impl Answer for Renewed {
    fn revision(&self) -> Option<Revision> {
        None
    }
}

fn typed<T: Answer>(document: &Bytes) -> Result<Read<T>, String> {
    let answer: T = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let revision = answer.revision();
    Ok((answer, revision))
}

/// The document as it came, with the revision it tells, where it does.
fn raw(document: &Bytes) -> Result<Read<Bytes>, String> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        revision: Option<Revision>,
    }
    let told: Told = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    Ok((document.clone(), told.revision))
}
