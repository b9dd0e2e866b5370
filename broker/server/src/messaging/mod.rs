//! Queues behind the AMQP port: the data plane of an active broker.
//!
//! It performs what the queue rules in `broker/core` decide: sockets, the journal, wake-ups. It never
//! decides who may be active; whoever calls [`Messaging::recover`] already holds the store and its epoch.
//! Invariant: nothing is acknowledged to anyone unless the journal said it is durable, and nothing at all
//! is acknowledged after the journal failed.

mod config;
mod types;

pub use config::{
    MAX_MESSAGE_BYTES, MAX_QUEUE_NAME_BYTES, MessagingConfig, MessagingConfigError, QueueConfig,
};
pub use types::{
    Greeting, ListenError, MessagingStats, QueueStats, Recovered, Stop, StoreError, StoreFailure,
};

use std::net::SocketAddr;

use daymark_journal::{Fenced, Journal, Record};
use daymark_naming_proto::Endpoint;
use tokio::sync::watch;

/// The data plane of one term of office. Dropping it closes every connection at once and the journal with it.
#[derive(Debug)]
pub struct Messaging {
    journal: Journal,
    failure: watch::Receiver<Option<StoreFailure>>,
}

impl Messaging {
    /// Reads the store back and makes it ready to serve. Blocking: run it on a blocking thread.
    ///
    /// # Errors
    /// [`StoreError`] if a setting cannot be used or the store cannot be read; nothing was changed then.
    pub fn recover(fenced: Fenced, config: MessagingConfig) -> Result<(Self, Recovered), StoreError> {
        config.check()?;
        let (journal, recovery) = fenced.recover(|_: Record<'_>| Ok::<(), std::convert::Infallible>(()))?;
        let (fail, failure) = watch::channel(None);
        journal.on_failure(move |cause| {
            fail.send_replace(Some(StoreFailure { cause }));
        });
        let recovered = Recovered {
            messages: recovery.records,
            bytes: recovery.bytes,
            queues: config.queues.len(),
        };
        Ok((Self { journal, failure }, recovered))
    }

    /// Opens the AMQP port and returns the address it got.
    ///
    /// # Errors
    /// [`ListenError`] if the address cannot be resolved or bound.
    pub async fn listen(&self, addr: &Endpoint, greeting: Greeting) -> Result<SocketAddr, ListenError> {
        let _ = greeting;
        Err(ListenError::Bind {
            address: addr.to_string(),
            source: std::io::Error::other("the AMQP port is not built yet"),
        })
    }

    /// Resolves when the store can no longer acknowledge anything; never before.
    pub async fn failed(&self) -> StoreFailure {
        let mut failure = self.failure.clone();
        loop {
            if let Some(found) = failure.borrow_and_update().clone() {
                return found;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes the port, every connection and the journal.
    pub async fn stop(&self, how: Stop) {
        let _ = how;
        let journal = self.journal.clone();
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
    }

    /// What is there now, and totals since the start.
    #[must_use]
    pub fn stats(&self) -> MessagingStats {
        MessagingStats::default()
    }
}
