//! What the consensus library is told about our types.

use std::fmt;
use std::sync::Arc;

use daymark_naming_core::Command;
use daymark_naming_proto::{NamingError, Written};
use openraft::impls::{BoxedErrorSource, InlineBatch};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

/// Commands on their way through the log, to be applied in order, each as if it were alone. Cheap to clone: the
/// log in memory, the state machine and the replication share them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proposal(pub(crate) Arc<[Command]>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations", self.0.len())
    }
}

/// What is done with the answer to an entry.
pub(crate) struct Answering<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Answering<T> {
    pub(crate) fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Answering<T> {
    fn on_complete(self, answer: T) {
        (self.0)(answer);
    }
}

/// What became of an entry.
pub(crate) type ClientAnswer = ClientWriteResult<TypeConfig>;

/// What applying an entry answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Commands were applied, or refused by the directory, each for itself.
    Commands(Vec<Result<Written, NamingError>>),
    /// The entry was one of the replicas' own.
    Internal,
}

impl Outcome {
    /// How many writes it is of.
    pub(crate) const fn writes(&self) -> usize {
        match self {
            Self::Commands(results) => results.len(),
            Self::Internal => 0,
        }
    }
}

/// The types of this replica group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Outcome;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, BasicNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Answering<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Payload = <TypeConfig as RaftTypeConfig>::Payload;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
