//! The store and the messaging port of one term of office, taken step by step.
//!
//! Every step consumes what the one before brought, so that they cannot be taken out of order. A step runs
//! beside the driver; what it brings is handed over with the number of the term it was begun in, and is
//! dropped, which releases it, if that term is over by then.

use std::sync::Arc;
use std::time::Duration;

use daymark_broker_core::failover::{Event, StepEvent};
use daymark_client::proto::{Endpoint, Epoch};

use crate::config::Config;
use crate::exports::Configured;
use crate::messaging::{Greeting, Messaging, Stop, StoreError, StoreFailure};
use crate::store::{AppendError, Fenced, Holder, Locked, OpenError, Store};

/// What a broker holds.
#[derive(Debug, Default)]
pub(super) enum Office {
    /// Nothing, or a step under way holds it.
    #[default]
    Empty,
    /// The store's lock.
    Locked(Box<dyn Locked>),
    /// The store under this broker's epoch.
    Fenced(Box<dyn Fenced>),
    /// Everything.
    Open(Arc<Messaging>),
}

/// How a step ended.
#[derive(Debug)]
pub(super) struct Done {
    /// What is held now.
    pub(super) office: Office,
    pub(super) event: StepEvent,
}

impl Done {
    fn with(office: Office, event: StepEvent) -> Self {
        Self { office, event }
    }

    fn without(event: StepEvent) -> Self {
        Self::with(Office::Empty, event)
    }

    fn failed(why: impl ToString) -> Self {
        Self::without(StepEvent::Failed { why: why.to_string() })
    }
}

/// Which store is opened, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) store: Arc<dyn Store>,
    pub(super) member: String,
}

/// Step 1. Blocking.
pub(super) fn lock(opening: &Opening, force: bool) -> Done {
    let holder = Holder::here(opening.member.clone());
    match opening.store.lock(&holder, force) {
        Ok(locked) => {
            let store_epoch = Epoch(locked.epoch());
            Done::with(Office::Locked(locked), StepEvent::Locked { store_epoch })
        }
        Err(OpenError::LockedBy { store, holder }) => Done::without(busy(store, holder)),
        Err(error) => Done::failed(error),
    }
}

fn busy(store: String, holder: Option<Holder>) -> StepEvent {
    let member = holder.as_ref().and_then(|holder| holder.member.parse().ok());
    let error = OpenError::LockedBy { store, holder };
    StepEvent::LockBusy {
        holder: error.to_string(),
        member,
    }
}

/// Step 3. Blocking.
pub(super) fn write_epoch(office: Office, epoch: Epoch) -> Done {
    let Office::Locked(locked) = office else {
        return Done::failed("the store is not locked");
    };
    match locked.begin(epoch.0) {
        Ok(fenced) => Done::with(Office::Fenced(fenced), StepEvent::EpochWritten),
        Err(error) => Done::without(open_failed(&error)),
    }
}

/// Step 4. Blocking.
pub(super) fn recover(office: Office, config: &Config) -> Done {
    let Office::Fenced(fenced) = office else {
        return Done::failed("the store's epoch is not written");
    };
    match Messaging::recover(fenced, config.messaging.clone()) {
        Ok((messaging, recovered)) => {
            let event = StepEvent::Recovered {
                messages: recovered.messages,
                bytes: recovered.bytes,
                exports: Configured::of(config).without(messaging.added_exports()),
            };
            Done::with(Office::Open(Arc::new(messaging)), event)
        }
        Err(StoreError::Open(error)) => Done::without(open_failed(&error)),
        Err(error) => Done::failed(error),
    }
}

fn open_failed(error: &OpenError) -> StepEvent {
    match error.newer_epoch() {
        Some(current) => StepEvent::EpochStale {
            current: Epoch(current),
        },
        None => StepEvent::Failed {
            why: error.to_string(),
        },
    }
}

/// Step 5.
pub(super) async fn open_port(messaging: Arc<Messaging>, listen: Endpoint, greeting: Greeting) -> StepEvent {
    match messaging.listen(&listen, greeting).await {
        Ok(address) => {
            tracing::info!(%address, "listening for clients");
            StepEvent::PortOpened
        }
        Err(error) => StepEvent::Failed {
            why: error.to_string(),
        },
    }
}

/// Closes the port and the journal behind it, within `drain` and a little.
pub(super) async fn close_port(messaging: &Messaging, drain: Option<Duration>) {
    let how = match drain {
        Some(deadline) => Stop::Graceful { deadline },
        None => Stop::Now,
    };
    let patience = drain.unwrap_or_default() + Duration::from_secs(2);
    if tokio::time::timeout(patience, messaging.stop(how)).await.is_err() {
        tracing::warn!(?patience, "messaging did not stop in time");
    }
}

/// What the end of the store means: somebody else's epoch, somebody else's lock, or a failure.
pub(super) fn end_of_store(failure: &StoreFailure) -> Event {
    if let Some(epoch) = failure.cause.newer_epoch() {
        return Event::StoreSuperseded { epoch: Epoch(epoch) };
    }
    let why = failure.to_string();
    if matches!(failure.cause, AppendError::LockLost { .. }) {
        Event::StoreTaken { why }
    } else {
        Event::StoreFailed { why }
    }
}
