//! Queues behind the AMQP port: the data plane of an active broker.
//!
//! It performs what the queue rules in `broker/core` decide: sockets, the journal, wake-ups. It never
//! decides who may be active; whoever calls [`Messaging::recover`] already holds the store and its epoch.
//! Invariant: nothing is acknowledged to anyone unless the journal said it is durable, and nothing at all
//! is acknowledged after the journal failed.
//!
//! Who may enter: clients without SASL, with SASL ANONYMOUS, and with SASL PLAIN under any user and password.
//! There are no rights yet, so the port belongs on a network where everyone is trusted.
//!
//! Not there, and refused by name with `amqp:not-implemented`: transactions of several resources, filters
//! other than selectors and no-local.

mod arrival;
mod attach;
mod config;
mod keep;
mod manage;
mod names;
mod peer;
mod port;
mod properties;
mod recover;
mod registry;
mod rewrite;
mod shared;
mod store;
mod timer;
mod types;

pub use config::{
    DRILL_ADDRESS, DestinationConfig, Full, MAX_MESSAGE_BYTES, MAX_QUEUE_NAME_BYTES, MessagingConfig,
    MessagingConfigError,
};
pub use manage::{BrowsedMessage, Described, ManageError, SubscriptionStats, TopicStats};
pub(crate) use manage::{check_factory, not_found};
pub(crate) use names::{ExportName, destination_export, factory_export};
pub use types::{
    ConnectionStats, DestinationKind, Greeting, LinkKind, LinkStats, ListenError, MessagingStats, QueueStats,
    Recovered, Stop, StoreError, StoreFailure,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use daymark_amqp::{AmqpError, condition};
use daymark_client::proto::{BrokerAddress, Endpoint};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::store::Fenced;
use registry::Order;
use shared::{Phase, Shared};

/// The data plane of one term of office. Dropping it cuts every connection and closes the journal.
#[derive(Debug)]
pub struct Messaging {
    shared: Arc<Shared>,
    /// The port and its connections; following the journal is in the second, so that a stop can wait for
    /// the first.
    ports: Mutex<JoinSet<()>>,
    helpers: Mutex<JoinSet<()>>,
}

impl Messaging {
    /// Reads the store back and makes it ready to serve. Blocking: run it on a blocking thread.
    ///
    /// # Errors
    /// [`StoreError`] if a setting cannot be used or the store cannot be read or written.
    pub fn recover(
        fenced: impl Into<Box<dyn Fenced>>,
        config: MessagingConfig,
    ) -> Result<(Self, Recovered), StoreError> {
        config.check()?;
        let (journal, queues, recovered) = recover::recover(fenced.into(), &config)?;
        let shared = Shared::new(config, journal, queues);
        let status = Arc::clone(&shared.status);
        shared.journal.on_failure(move |cause| status.fail(cause));
        let messaging = Self {
            shared,
            ports: Mutex::new(JoinSet::new()),
            helpers: Mutex::new(JoinSet::new()),
        };
        Ok((messaging, recovered))
    }

    /// Opens the AMQP port and returns the address it got.
    ///
    /// # Errors
    /// [`ListenError`] if the address cannot be resolved or bound, or after a stop or a failure.
    pub async fn listen(&self, addr: &Endpoint, greeting: Greeting) -> Result<SocketAddr, ListenError> {
        if *self.shared.status.phase.borrow() != Phase::Serving {
            return Err(ListenError::Stopped {
                address: addr.to_string(),
            });
        }
        let refused = |source| ListenError::Bind {
            address: addr.to_string(),
            source,
        };
        let listener = TcpListener::bind((addr.host.as_str(), addr.port))
            .await
            .map_err(refused)?;
        let local = listener.local_addr().map_err(refused)?;
        let mut helpers = held(&self.helpers);
        if helpers.is_empty() {
            helpers.spawn(store::follow(Arc::clone(&self.shared)));
            helpers.spawn(store::keep_small(Arc::clone(&self.shared)));
            helpers.spawn(timer::keep_time(Arc::clone(&self.shared)));
        }
        self.shared.greet(|_| Some(greeting));
        held(&self.ports).spawn(port::serve(listener, Arc::clone(&self.shared)));
        Ok(local)
    }

    /// Changes the `failover-server-list` that clients are told when they connect: the complete list, this
    /// broker first. Nothing happens before the port was opened.
    pub fn know_brokers(&self, brokers: Vec<BrokerAddress>) {
        self.shared.greet(|greeting| {
            greeting.map(|greeting| Greeting {
                failover_server_list: brokers,
                ..greeting.clone()
            })
        });
    }

    /// Resolves when the store can no longer acknowledge anything; never before.
    pub async fn failed(&self) -> StoreFailure {
        let mut failure = self.shared.status.failure.subscribe();
        let found = failure.wait_for(Option::is_some).await.map(|found| found.clone());
        match found {
            Ok(Some(failure)) => failure,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// As [`failed`](Self::failed), and fails the store with [`AppendError::Stalled`](crate::store::AppendError)
    /// when it makes nothing durable for `patience` although something waits for it: a disk that hangs.
    pub async fn failed_within(&self, patience: Duration) -> StoreFailure {
        tokio::select! {
            failure = self.failed() => failure,
            () = store::stalled(&self.shared, patience) => self.failed().await,
        }
    }

    /// Closes the port, every connection and the journal.
    pub async fn stop(&self, how: Stop) {
        let mut ports = std::mem::take(&mut *held(&self.ports));
        if let Stop::Graceful { deadline } = how {
            let error = AmqpError::new(condition::CONNECTION_FORCED, "the broker is stopping");
            self.shared.status.close_connections(error);
            let ended = async { while ports.join_next().await.is_some() {} };
            if tokio::time::timeout(deadline, ended).await.is_err() {
                tracing::info!("some connections did not close in time and are cut");
            }
        }
        self.shared.status.phase.send_replace(Phase::Cut);
        ports.shutdown().await;
        self.shared.status.shut();
        let journal = self.shared.journal.clone();
        // The journal's own thread does the work; a panic there was reported as a failure.
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        let mut helpers = std::mem::take(&mut *held(&self.helpers));
        helpers.shutdown().await;
    }

    /// Every open connection, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let mut links: BTreeMap<u64, usize> = BTreeMap::new();
        for link in self.shared.look().links.values() {
            *links.entry(link.connection).or_default() += 1;
        }
        let entries = self.shared.registry.all().into_iter();
        let stats = entries.map(|entry| ConnectionStats {
            id: entry.id,
            remote: entry.remote.to_string(),
            container: entry.container().map(str::to_owned),
            user: entry.user().map(str::to_owned),
            since_ms: entry.since.duration_since(UNIX_EPOCH).map_or(0, milliseconds),
            links: links.get(&entry.id).copied().unwrap_or(0),
        });
        stats.collect()
    }

    /// Closes a connection with `amqp:connection:forced`. False if there is none of this number.
    pub fn close_connection(&self, id: u64) -> bool {
        let Some(entry) = self.shared.registry.find(id) else {
            return false;
        };
        let text = "an administrator closed this connection";
        entry.order(Order::Close(AmqpError::new(condition::CONNECTION_FORCED, text)));
        true
    }

    /// Every link that was taken, the oldest first.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStats> {
        let state = self.shared.look();
        let links = state.links.iter().map(|(id, link)| LinkStats {
            id: *id,
            connection: link.connection,
            name: link.name.clone(),
            kind: link.kind,
            address: link.address.clone(),
            selector: link.selector.clone(),
            subscription: link.subscription.clone(),
        });
        links.collect()
    }

    /// Closes a link with `amqp:link:detach-forced`. False if there is none of this number.
    pub fn close_link(&self, id: u64) -> bool {
        let found = self
            .shared
            .look()
            .links
            .get(&id)
            .map(|info| (info.connection, info.link));
        let Some((connection, link)) = found else {
            return false;
        };
        let text = "an administrator closed this link";
        let error = AmqpError::new(condition::DETACH_FORCED, text);
        let entry = self.shared.registry.find(connection);
        entry
            .map(|entry| entry.order(Order::Detach(link, error)))
            .is_some()
    }

    /// How many clients are connected and were taken in.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.registry.opened()
    }

    /// What is there now, and totals since the start.
    #[must_use]
    pub fn stats(&self) -> MessagingStats {
        let state = self.shared.look();
        let queues = state.queues.counts();
        let queues = queues.map(|(name, counts)| QueueStats::new(name, counts));
        MessagingStats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            messages: state.queues.message_count(),
            bytes: state.queues.byte_count(),
            pending_bytes: state.queues.pending_bytes(),
            duplicate_bytes: state.queues.duplicate_bytes(),
            queues: queues.collect(),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
