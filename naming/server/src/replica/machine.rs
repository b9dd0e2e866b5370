//! The state machine: committed entries, in order, into the directory.
//!
//! One task runs it. After each batch it publishes a new root, and only then answers those who wait, so that
//! whoever is answered finds the write in whatever it reads next.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daymark_naming_core::{Command, Directory};
use daymark_naming_proto::{ChangeSet, NamingError, Write, Written};
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership};

use super::log::Applied;
use super::snapshot::{SnapshotDir, SnapshotFile};
use super::types::{Entry, LogId, Membership, Outcome, SnapshotMeta, TypeConfig};
use crate::leases::Leases;
use crate::state::State;

/// How many writes are applied before their root is published, when more are waiting.
const BATCH_MAX: usize = 512;
/// The pause before a snapshot that could not be written is tried again.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(2);

type Committed = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
type MachineSnapshot = Snapshot<Committed, u64, BasicNode, SnapshotFile>;

/// The state machine of one replica.
pub(crate) struct Machine {
    working: Directory,
    /// The changes since the last root was published.
    unpublished: Vec<Arc<ChangeSet>>,
    last_applied: Option<LogId>,
    /// Where the log learns of `last_applied`.
    applied: Applied,
    membership: Membership,
    state: Arc<State>,
    leases: Arc<Leases>,
    snapshots: SnapshotDir,
    has_readers: bool,
}

/// Those who wait for a batch, and what else follows it.
#[derive(Default)]
struct Aftermath {
    answers: Vec<(ApplyResponder<TypeConfig>, Outcome)>,
    memberships_changed: bool,
    applied: usize,
}

impl Machine {
    pub(crate) fn new(
        empty: Directory,
        state: Arc<State>,
        leases: Arc<Leases>,
        snapshots: SnapshotDir,
        applied: Applied,
    ) -> Self {
        Self {
            working: empty,
            unpublished: Vec::new(),
            last_applied: None,
            applied,
            membership: StoredMembership::default(),
            state,
            leases,
            snapshots,
            has_readers: false,
        }
    }

    /// Publishes what was recovered, and from now on every batch. Before, nobody can read a root, and each one
    /// published is copied wherever the next batch changes it.
    pub(crate) fn publish_from_now_on(&mut self) {
        self.has_readers = true;
        self.state.replace(self.working.clone());
    }

    fn publish(&mut self) {
        if self.has_readers {
            self.state.publish(self.working.clone(), &self.unpublished);
            self.unpublished.clear();
        }
    }

    fn take(&mut self, entry: Entry) -> (Outcome, bool) {
        self.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => (Outcome::Internal, false),
            EntryPayload::Normal(proposal) => {
                let (mut results, mut memberships) = (Vec::with_capacity(proposal.0.len()), false);
                for command in proposal.0.iter() {
                    let result = self.apply_command(command);
                    memberships |= result.is_ok() && concerns_memberships(&command.write);
                    results.push(result);
                }
                (Outcome::Commands(results), memberships)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(self.last_applied, membership);
                (Outcome::Internal, false)
            }
        }
    }

    /// A write that changed nothing made no revision, and so no changes.
    fn apply_command(&mut self, command: &Command) -> Result<Written, NamingError> {
        let before = self.working.revision();
        let result = self.working.apply(command);
        if self.has_readers && self.working.revision() != before {
            self.unpublished.extend(self.working.last_change());
        }
        result
    }

    /// Makes the batch visible, then answers those who wait for it.
    fn finish(&mut self, aftermath: Aftermath) {
        self.publish();
        self.applied.tell(self.last_applied);
        if aftermath.memberships_changed {
            self.leases.follow(&self.working, Instant::now());
        }
        for (responder, outcome) in aftermath.answers {
            responder.send(outcome);
        }
    }
}

fn concerns_memberships(write: &Write) -> bool {
    match write {
        Write::Join { .. } | Write::Leave { .. } | Write::EndLease { .. } => true,
        Write::Bind { .. }
        | Write::Rebind { .. }
        | Write::Unbind { .. }
        | Write::CreateSubcontext { .. }
        | Write::DestroySubcontext { .. }
        | Write::Claim { .. }
        | Write::Publish { .. }
        | Write::Withdraw { .. }
        | Write::Rename { .. }
        | Write::ModifyAttributes { .. }
        | Write::Transact { .. }
        | Write::RecordFailover { .. } => false,
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut aftermath = Aftermath::default();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let (outcome, memberships) = self.take(entry);
            aftermath.memberships_changed |= memberships;
            aftermath.applied += outcome.writes();
            aftermath
                .answers
                .extend(responder.map(|responder| (responder, outcome)));
            if aftermath.applied >= BATCH_MAX {
                self.finish(std::mem::take(&mut aftermath));
            }
        }
        self.finish(aftermath);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
            },
            directory: self.working.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        self.working = blocking(move || snapshot.read()).await?;
        self.snapshots.note_names(self.working.names());
        self.last_applied = meta.last_log_id;
        self.applied.tell(self.last_applied);
        self.membership = meta.last_membership.clone();
        self.unpublished.clear();
        if self.has_readers {
            self.state.replace(self.working.clone());
        }
        self.leases.follow(&self.working, Instant::now());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MachineSnapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let Some(snapshot) = snapshots.newest()? else {
                return Ok(None);
            };
            let meta = snapshot.meta()?;
            Ok(Some(Snapshot { meta, snapshot }))
        })
        .await
    }
}

/// Writes one snapshot beside the state machine, which goes on meanwhile.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    directory: Directory,
    snapshots: SnapshotDir,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    /// A snapshot that cannot be written, for want of room most often, is tried again until the replica stops: the
    /// log goes on meanwhile, and whether writes go on is the log's affair.
    async fn build_snapshot(&mut self) -> Result<MachineSnapshot, io::Error> {
        let started = Instant::now();
        let snapshot = loop {
            match self.write().await {
                Err(error) if !self.snapshots.is_closed() => {
                    tracing::warn!(%error, "no snapshot: the log keeps what it would release");
                    tokio::time::sleep(SNAPSHOT_RETRY).await;
                }
                written => break written?,
            }
        };
        let took_ms = started.elapsed().as_millis();
        tracing::debug!(revision = %self.directory.revision(), took_ms, "snapshot written");
        Ok(snapshot)
    }
}

impl Builder {
    async fn write(&self) -> io::Result<MachineSnapshot> {
        let (meta, directory) = (self.meta.clone(), self.directory.clone());
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let snapshot = snapshots.write(&meta, &directory)?;
            Ok(Snapshot { meta, snapshot })
        })
        .await
    }
}

/// Runs file work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
