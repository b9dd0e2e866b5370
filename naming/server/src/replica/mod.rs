//! One replica of the directory: a deterministic state machine under Raft, its log on the journal.
//!
//! It decides when a write is committed and when a read is linearizable. It never decides what a write does.
//! A cluster of one is the same code as a cluster of many, with nobody to send to.
//!
//! Invariant: a write is answered only after its entry is durable on a majority and its root is published.

mod log;
mod machine;
mod network;
mod proposer;
mod snapshot;
mod types;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daymark_journal::{Holder, Journal, Locked};
use daymark_naming_core::{Command, Directory};
use daymark_naming_proto::{NamingError, OpId, Write, Written};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{Fatal, LinearizableReadError, RaftError};
use openraft::{BasicNode, Config, Raft, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{timeout, timeout_at};

use self::log::{Applied, Log, LogStore};
use self::machine::Machine;
use self::network::NoPeers;
use self::proposer::Waiting;
use self::snapshot::SnapshotDir;
use self::types::TypeConfig;
use crate::error::StartError;
use crate::identity::{Identity, make};
use crate::leases::Leases;
use crate::options::{NamingOptions, Storage};
use crate::state::State;

/// How long a start may take after the log was read.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What a write of the server itself counts for.
const SMALL_BYTES: usize = 256;

/// A handle to the replica of this process.
#[derive(Clone)]
pub(crate) struct Replica {
    raft: Raft<TypeConfig, Machine>,
    writes: mpsc::Sender<Waiting>,
    journal: Journal,
    snapshots: SnapshotDir,
    node: u64,
    write_timeout: Duration,
}

/// A write on its way.
pub(crate) struct Pending {
    answer: oneshot::Receiver<proposer::Answer>,
    deadline: tokio::time::Instant,
}

impl Pending {
    /// Whether the answer is there.
    pub(crate) fn is_answered(&self) -> bool {
        !self.answer.is_empty()
    }
}

/// What a started replica hands to the rest of the server.
pub(crate) struct Started {
    pub(crate) replica: Replica,
    pub(crate) state: Arc<State>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) identity: Identity,
    /// Told when the log is large enough for a snapshot.
    pub(crate) log_full: Arc<Notify>,
}

/// Where this replica stands in its cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
}

/// What is read from the data directory before the replica runs.
struct Opened {
    identity: Identity,
    journal: Journal,
    log: Log,
    snapshots: SnapshotDir,
}

/// Starts the replica of a data directory and waits until it is the leader of everything it had stored.
pub(crate) async fn start(options: &NamingOptions) -> Result<Started, StartError> {
    let opening = options.clone();
    let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
    let Opened {
        identity,
        journal,
        log,
        snapshots,
    } = opened.map_err(replica_error)??;
    let empty = Directory::new(identity.limits);
    let state = Arc::new(State::new(empty.clone(), options.limits.reply_bytes_max));
    let leases = Arc::new(Leases::default());
    let (log_full, applied) = (Arc::new(Notify::new()), Applied::default());
    let machine = Machine::new(
        empty,
        state.clone(),
        leases.clone(),
        snapshots.clone(),
        applied.clone(),
    );
    let store = LogStore::new(
        log,
        journal.clone(),
        &options.storage,
        log_full.clone(),
        snapshots.clone(),
        applied,
    );
    let config = config(&identity, &options.storage)?;
    let raft = Raft::new(identity.node, Arc::new(config), NoPeers, store, machine)
        .await
        .map_err(replica_error)?;
    raft.with_state_machine(|machine| {
        machine.publish_from_now_on();
        Box::pin(std::future::ready(()))
    })
    .await
    .map_err(replica_error)?;
    let replica = Replica {
        writes: proposer::start(raft.clone()),
        raft,
        journal,
        snapshots,
        node: identity.node,
        write_timeout: options.limits.write_timeout,
    };
    if let Err(error) = replica.lead().await {
        replica.stop(options.limits.stop_timeout).await;
        return Err(error);
    }
    leases.restart(Instant::now());
    Ok(Started {
        replica,
        state,
        leases,
        identity,
        log_full,
    })
}

fn replica_error(error: impl std::fmt::Display) -> StartError {
    StartError::Replica {
        why: error.to_string(),
    }
}

/// Locks the data directory, then reads it. Blocks the thread.
fn open(options: &NamingOptions) -> Result<Opened, StartError> {
    let data = options.data.as_path();
    make(data).map_err(|source| StartError::DataDirectory {
        path: data.to_owned(),
        source,
    })?;
    let journal_options = daymark_journal::Options {
        segment_bytes: options.storage.segment_bytes,
        ..daymark_journal::Options::default()
    };
    let locked = Locked::acquire(&data.join("log"), &Holder::here("naming"), journal_options)?;
    let identity = Identity::of(data, options.directory, locked.epoch() == 0)?;
    let snapshots_dir = data.join("snapshots");
    let snapshots = SnapshotDir::open(snapshots_dir.clone()).map_err(|source| StartError::DataDirectory {
        path: snapshots_dir,
        source,
    })?;
    let epoch = locked.epoch() + 1;
    let fenced = locked.begin(epoch)?;
    let mut log = Log::default();
    let (journal, recovery) = fenced.recover(|record| log.replay(&record))?;
    log.check().map_err(|error| StartError::Damaged {
        path: data.join("log"),
        why: error.to_string(),
    })?;
    tracing::debug!(
        records = recovery.records,
        torn_bytes = recovery.torn_bytes,
        epoch,
        "log read"
    );
    Ok(Opened {
        identity,
        journal,
        log,
        snapshots,
    })
}

/// Restart safety: a leader is never restored from its vote alone, it is elected again, so that it cannot
/// serve a state from before its own commits. The committed entry is persisted by the log besides.
fn config(identity: &Identity, storage: &Storage) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: identity.cluster_id.clone(),
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        // The log says itself when it is large enough: an entry may hold many writes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: storage.entries_kept,
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(replica_error)
}

impl Replica {
    /// Makes this node the leader of its cluster of one and waits until everything stored is applied.
    async fn lead(&self) -> Result<(), StartError> {
        let initialized = self.raft.is_initialized().await.map_err(replica_error)?;
        if initialized {
            self.raft.trigger().elect(false).await.map_err(replica_error)?;
        } else {
            let node = (self.node, BasicNode::default());
            let members = std::collections::BTreeMap::from([node]);
            self.raft.initialize(members).await.map_err(replica_error)?;
        }
        let wait = self.raft.wait(Some(START_TIMEOUT));
        wait.current_leader(self.node, "leader of a cluster of one")
            .await
            .map_err(replica_error)?;
        self.raft
            .wait_for_recovery(Some(START_TIMEOUT))
            .await
            .map_err(replica_error)?;
        self.raft
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
            .map_err(replica_error)?;
        Ok(())
    }

    /// Puts a write of about `bytes` bytes on its way into the log. Writes are committed in the order in which they
    /// were begun.
    ///
    /// # Errors
    /// `ServiceUnavailable`: nothing was stored, because this replica has failed, or takes no more writes now.
    pub(crate) async fn begin(&self, op: OpId, write: Write, bytes: usize) -> Result<Pending, NamingError> {
        let command = Command {
            op,
            at_unix_ms: unix_ms(),
            write,
        };
        let (sender, answer) = oneshot::channel();
        let deadline = tokio::time::Instant::now() + self.write_timeout;
        let waiting = Waiting {
            command,
            bytes,
            answer: sender,
        };
        timeout_at(deadline, self.writes.send(waiting))
            .await
            .map_err(|_| unavailable("the log takes no writes now"))?
            .map_err(|_| self.unavailable(&Fatal::Stopped))?;
        Ok(Pending { answer, deadline })
    }

    /// Waits for what became of a write; not to be asked again once it has said so. Given up in between, it can be
    /// asked again.
    ///
    /// # Errors
    /// What the directory answers, `TimedOut` where the outcome is unknown, or `ServiceUnavailable`.
    pub(crate) async fn finish(&self, pending: &mut Pending) -> Result<Written, NamingError> {
        let waited = timeout_at(pending.deadline, &mut pending.answer).await;
        let answered = waited.map_err(|_| self.timed_out())?;
        match answered {
            Ok(Err(NamingError::ServiceUnavailable { reason })) => Err(NamingError::ServiceUnavailable {
                reason: self.failure().unwrap_or(reason),
            }),
            Ok(answer) => answer,
            Err(_) => Err(self.unavailable(&Fatal::Stopped)),
        }
    }

    /// Makes a small write and waits.
    ///
    /// # Errors
    /// As `begin` and `finish`.
    pub(crate) async fn write(&self, op: OpId, write: Write) -> Result<Written, NamingError> {
        let mut pending = self.begin(op, write, SMALL_BYTES).await?;
        self.finish(&mut pending).await
    }

    /// Returns when the published state holds everything that was committed before the call.
    ///
    /// # Errors
    /// `ServiceUnavailable` where this node cannot know that, `TimedOut` where it does not in time.
    pub(crate) async fn barrier(&self) -> Result<(), NamingError> {
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let read = timeout(self.write_timeout, read).await;
        let read = read.map_err(|_| self.timed_out())?;
        read.map(|_| ()).map_err(|error| match error {
            RaftError::Fatal(fatal) => self.unavailable(&fatal),
            RaftError::APIError(LinearizableReadError::ForwardToLeader(_)) => {
                unavailable("this server is not the leader")
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                unavailable("no majority of the replicas answers")
            }
        })
    }

    /// Term and leader as this node knows them.
    pub(crate) fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Standing {
            term: metrics.current_term,
            leader: metrics.current_leader,
        }
    }

    /// Why this replica can store nothing any more, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(error) = self.journal.failed() {
            return Some(error.to_string());
        }
        let metrics = self.raft.metrics();
        let running = metrics.borrow_watched().running_state.clone();
        running.err().map(|fatal| fatal.to_string())
    }

    /// Whether this node may answer for memberships and writes now.
    ///
    /// # Errors
    /// `ServiceUnavailable` with the reason why not.
    pub(crate) fn check_leads(&self) -> Result<(), NamingError> {
        if let Some(reason) = self.failure() {
            return Err(NamingError::ServiceUnavailable { reason });
        }
        if self.standing().leader == Some(self.node) {
            return Ok(());
        }
        Err(unavailable("this server is not the leader"))
    }

    /// What the journal has done since the start.
    pub(crate) fn journal_stats(&self) -> daymark_journal::Stats {
        self.journal.stats()
    }

    /// Makes a snapshot and releases the log before it.
    pub(crate) async fn compact(&self) {
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::warn!(%error, "no snapshot");
        }
    }

    /// Stops for good, within twice `limit`: a disk that does not answer holds nobody up. What was acknowledged is
    /// durable already.
    pub(crate) async fn stop(&self, limit: Duration) {
        match timeout(limit, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the replica did not end well"),
            Err(_) => tracing::warn!(?limit, "the replica did not end in time"),
        }
        let (sender, released) = oneshot::channel();
        self.release(move || {
            // Whoever waits may have given up.
            let _ = sender.send(());
        });
        if !matches!(timeout(limit, released).await, Ok(Ok(()))) {
            still_locked(limit);
        }
    }

    /// Releases the data directory on a thread of its own, which a disk that does not answer holds up and nobody
    /// else. Nothing in the directory changes once its lock, which is the journal's, is released.
    fn release(&self, released: impl FnOnce() + Send + 'static) {
        let (snapshots, journal) = (self.snapshots.clone(), self.journal.clone());
        let thread = std::thread::Builder::new().name("naming-release".to_owned());
        let started = thread.spawn(move || {
            snapshots.close();
            journal.close();
            released();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread releases the data directory");
        }
    }

    /// Releases the data directory without waiting for anything but the writes under way, and not longer than `limit`
    /// for these. Blocks the thread.
    pub(crate) fn abandon(&self, limit: Duration) {
        let (sender, released) = std::sync::mpsc::sync_channel(1);
        self.release(move || {
            // Whoever waits may have given up.
            let _ = sender.send(());
        });
        if released.recv_timeout(limit).is_err() {
            still_locked(limit);
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let raft = self.raft.clone();
            runtime.spawn(async move { raft.shutdown().await });
        }
    }

    fn timed_out(&self) -> NamingError {
        NamingError::TimedOut {
            waited_ms: u64::try_from(self.write_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn unavailable(&self, fatal: &Fatal<TypeConfig>) -> NamingError {
        let reason = self.failure().unwrap_or_else(|| fatal.to_string());
        NamingError::ServiceUnavailable { reason }
    }
}

fn still_locked(limit: Duration) {
    tracing::warn!(
        ?limit,
        "the disk did not answer in time: the data directory stays locked"
    );
}

fn unavailable(reason: &str) -> NamingError {
    NamingError::ServiceUnavailable {
        reason: reason.to_owned(),
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
