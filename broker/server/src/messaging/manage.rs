//! What an administrator does with destinations and connection factories while the broker serves.
//!
//! Invariant: a change is answered only after it is durable, like a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use daymark_amqp::ValueRef;
use daymark_amqp::message::{Body, MapIter, MessageView};
use daymark_broker_core::queues::{Factory, Peeked, QueueCounts, QueueId, Refused, SubscriptionKey};
use daymark_broker_core::selector::Selector;
use daymark_client::proto::Name;
use serde::Serialize;

use super::config::check_address;
use super::shared::State;
use super::store::became_durable;
use super::{DestinationConfig, DestinationKind, Messaging, MessagingConfigError, QueueStats};

/// Why an administrator's wish was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// There is nothing of this name.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `queue`, `topic`, `subscription` or `factory`.
        what: String,
        /// What was asked for.
        name: String,
    },
    /// Something still uses it.
    #[error("{0} is in use")]
    InUse(&'static str),
    /// Something else has the name it should be exported under.
    #[error("{name} is the name of {holder}")]
    ExportTaken {
        /// The name.
        name: Name,
        /// What has it.
        holder: String,
    },
    /// It stands in the configuration, and would be back with the next start.
    #[error("{name:?} is declared in the configuration: take it out there")]
    Configured {
        /// Its name.
        name: String,
    },
    /// The name or a setting cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A limit was reached.
    #[error("{0}")]
    Limit(String),
    /// The broker stopped serving.
    #[error("this broker stopped serving")]
    Stopped,
}

impl From<Refused> for ManageError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::InUse(what) => Self::InUse(what),
            Refused::TooManyQueues { .. } | Refused::TooManyFactories { .. } => {
                Self::Limit(refused.to_string())
            }
            Refused::Gone(_)
            | Refused::Nameless
            | Refused::QueueFull { .. }
            | Refused::Foreign
            | Refused::NotSubscribed
            | Refused::InvalidTopic { .. }
            | Refused::DuplicateInTransaction { .. }
            | Refused::RepeatedInTransaction { .. }
            | Refused::TransactionTimedOut { .. }
            | Refused::TransactionTooLarge { .. }
            | Refused::TooManyTransactions { .. }
            | Refused::OutOfMemory { .. } => Self::Invalid(refused.to_string()),
        }
    }
}

/// Counts of one topic. Totals count from the start of this term of office.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicStats {
    /// The AMQP address.
    pub name: String,
    /// Producers attached.
    pub producers: u64,
    /// Messages that came in.
    pub received: u64,
}

impl TopicStats {
    fn new(name: &str, counts: &QueueCounts) -> Self {
        Self {
            name: name.to_owned(),
            producers: counts.producers,
            received: counts.received,
        }
    }
}

/// A queue or topic with its counts and what it is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Described<C> {
    /// [`QueueStats`] or [`TopicStats`].
    #[serde(flatten)]
    pub counts: C,
    /// As it can be declared again: without its name.
    pub settings: DestinationConfig,
}

/// Counts of one subscription that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionStats {
    /// The name.
    pub name: String,
    /// The client it belongs to; absent if all clients share it.
    pub client: Option<String>,
    /// The topic, or the pattern of topics.
    pub topic: String,
    /// Its message selector, if it has one.
    pub selector: Option<String>,
    /// Whether it goes on while nobody is there.
    pub durable: bool,
    /// Whether several consumers may use it at a time.
    pub shared: bool,
    /// Messages that wait in it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Consumers attached.
    pub consumers: u64,
}

/// A message that waits in a queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BrowsedMessage {
    /// Its number: the order of arrival in all queues.
    pub number: u64,
    /// Bytes of all its sections.
    pub size: usize,
    /// Whether it survives a crash.
    pub durable: bool,
    /// 0 to 9.
    pub priority: u8,
    /// How often a delivery of it failed.
    pub delivery_count: u32,
    /// Its id, as text.
    pub message_id: Option<String>,
    /// Its correlation id, as text.
    pub correlation_id: Option<String>,
    /// Its subject: the JMS type.
    pub subject: Option<String>,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// When it was made: milliseconds since 1970 UTC.
    pub creation_time: Option<i64>,
    /// Its application properties, as text.
    pub properties: BTreeMap<String, String>,
    /// Its message annotations, as text.
    pub annotations: BTreeMap<String, String>,
    /// The beginning of a body that is text.
    pub text: Option<String>,
}

/// Characters of a text body that are shown.
const TEXT_SHOWN: usize = 1_000;

impl BrowsedMessage {
    fn new(peeked: &Peeked) -> Self {
        let view = MessageView::parse(&peeked.payload).ok();
        let header = view.as_ref().map(MessageView::header).unwrap_or_default();
        let fields = view
            .as_ref()
            .and_then(|view| view.properties().ok())
            .unwrap_or_default();
        let shown = |map: Option<MapIter<'_>>| {
            let pairs = map.into_iter().flatten();
            pairs
                .map(|(key, value)| (as_text(&key), as_text(&value)))
                .collect()
        };
        Self {
            number: peeked.number,
            size: peeked.payload.len(),
            durable: header.durable,
            priority: header.priority,
            delivery_count: header.delivery_count.saturating_add(peeked.delivery_count),
            message_id: fields.message_id.as_ref().map(as_text),
            correlation_id: fields.correlation_id.as_ref().map(as_text),
            subject: fields.subject.map(str::to_owned),
            reply_to: fields.reply_to.map(str::to_owned),
            creation_time: fields.creation_time,
            properties: shown(view.as_ref().map(MessageView::application_properties)),
            annotations: shown(view.as_ref().map(MessageView::message_annotations)),
            text: view.as_ref().and_then(body_text),
        }
    }
}

fn body_text(view: &MessageView<'_>) -> Option<String> {
    let text = match view.body().ok()? {
        Body::Value(ValueRef::String(text)) => text,
        Body::Data(bytes) => std::str::from_utf8(bytes).ok()?,
        Body::Value(_) | Body::Sequence(_) | Body::Empty => return None,
    };
    Some(text.chars().take(TEXT_SHOWN).collect())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever is no text is shown as it is"
)]
fn as_text(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::String(text) | ValueRef::Symbol(text) => (*text).to_owned(),
        ValueRef::Bool(value) => value.to_string(),
        ValueRef::Ubyte(value) => value.to_string(),
        ValueRef::Ushort(value) => value.to_string(),
        ValueRef::Uint(value) => value.to_string(),
        ValueRef::Ulong(value) => value.to_string(),
        ValueRef::Byte(value) => value.to_string(),
        ValueRef::Short(value) => value.to_string(),
        ValueRef::Int(value) => value.to_string(),
        ValueRef::Long(value) | ValueRef::Timestamp(value) => value.to_string(),
        ValueRef::Float(value) => value.to_string(),
        ValueRef::Double(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

impl Messaging {
    /// Makes a queue or topic, or changes the settings of one that exists.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn declare(
        &self,
        kind: DestinationKind,
        destination: &DestinationConfig,
    ) -> Result<(), ManageError> {
        self.check_declared(kind, destination)?;
        self.change(|state| state.declare(kind, &destination.name, destination.settings()))
            .await?;
        Ok(())
    }

    /// Whether a queue or topic can be made or changed this way, as far as that can be known before.
    pub(crate) fn check_declared(
        &self,
        kind: DestinationKind,
        destination: &DestinationConfig,
    ) -> Result<(), ManageError> {
        let invalid = |error: MessagingConfigError| ManageError::Invalid(error.to_string());
        destination.check(kind).map_err(invalid)?;
        self.check_not_configured(kind, &destination.name)?;
        if destination.export.is_some() && self.is_temporary(kind, &destination.name) {
            let why = format!(
                "{:?} is temporary, and such a {kind} is not exported",
                destination.name
            );
            return Err(ManageError::Invalid(why));
        }
        Ok(())
    }

    /// Deletes a queue or topic and returns how many messages were in it. With `only_if_unused` it must be
    /// empty and without links. The subscriptions of a topic stay, and wait for it to come again.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn delete(
        &self,
        kind: DestinationKind,
        name: &str,
        only_if_unused: bool,
    ) -> Result<u64, ManageError> {
        self.check_not_configured(kind, name)?;
        let found = self.find(kind, name)?;
        self.change(|state| state.queues.delete(found, only_if_unused))
            .await
    }

    /// Makes a connection factory, or changes the one of this name.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn declare_factory(&self, name: &str, factory: &Factory) -> Result<(), ManageError> {
        check_factory(name, factory)?;
        self.change(|state| state.queues.declare_factory(name, factory.clone()))
            .await
    }

    /// Deletes a connection factory.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn delete_factory(&self, name: &str) -> Result<(), ManageError> {
        self.change(|state| {
            let was_there = state.queues.delete_factory(name);
            was_there.then_some(()).ok_or_else(|| not_found("factory", name))
        })
        .await
    }

    /// The connection factories that administrators declared, by name.
    #[must_use]
    pub fn factories(&self) -> BTreeMap<String, Factory> {
        let state = self.shared.look();
        let factories = state.queues.factories();
        factories
            .map(|(name, factory)| (name.to_owned(), factory.clone()))
            .collect()
    }

    /// Removes all messages of a queue that are not out for delivery, and returns how many.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn purge(&self, name: &str) -> Result<u64, ManageError> {
        let queue = self.find(DestinationKind::Queue, name)?;
        self.change(|state| state.queues.purge(queue)).await
    }

    /// Ends a durable subscription, with the messages in it.
    ///
    /// # Errors
    /// [`ManageError`]; nothing was changed then.
    pub async fn delete_subscription(&self, client: Option<&str>, name: &str) -> Result<(), ManageError> {
        let key = SubscriptionKey {
            client: client.map(str::to_owned),
            name: name.to_owned(),
        };
        self.change(|state| match state.queues.unsubscribe(&key) {
            Err(Refused::NotSubscribed) => Err(not_found("subscription", name)),
            other => other.map_err(ManageError::from),
        })
        .await
    }

    /// One queue.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub fn queue(&self, name: &str) -> Result<Described<QueueStats>, ManageError> {
        self.describe(DestinationKind::Queue, name, QueueStats::new)
    }

    /// One topic.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub fn topic(&self, name: &str) -> Result<Described<TopicStats>, ManageError> {
        self.describe(DestinationKind::Topic, name, TopicStats::new)
    }

    fn describe<C>(
        &self,
        kind: DestinationKind,
        name: &str,
        stats: fn(&str, &QueueCounts) -> C,
    ) -> Result<Described<C>, ManageError> {
        let state = self.shared.look();
        let found = state.find(kind, name).and_then(|id| {
            Some(Described {
                counts: stats(name, state.queues.counts_of(id)?),
                settings: DestinationConfig {
                    export: self.export_of(&state, kind, name),
                    ..DestinationConfig::of_settings(state.queues.settings_of(id)?)
                },
            })
        });
        found.ok_or_else(|| not_found(kind.to_string(), name))
    }

    /// The first `limit` messages that wait in a queue, in the order of their delivery, of those a selector
    /// chooses among the first 100,000. Nothing is taken.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or [`ManageError::Invalid`] for a selector that is none.
    pub fn browse(
        &self,
        name: &str,
        selector: Option<&str>,
        limit: usize,
    ) -> Result<Vec<BrowsedMessage>, ManageError> {
        let selector = selector
            .map(Selector::parse)
            .transpose()
            .map_err(|error| ManageError::Invalid(error.to_string()))?;
        let queue = self.find(DestinationKind::Queue, name)?;
        let found = self.shared.look().queues.peek(queue, selector.as_ref(), limit);
        Ok(found.iter().map(BrowsedMessage::new).collect())
    }

    /// Every topic, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicStats> {
        let state = self.shared.look();
        let counts = state.queues.topic_counts();
        counts
            .map(|(name, counts)| TopicStats::new(name, counts))
            .collect()
    }

    /// Every subscription that has a name.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStats> {
        let state = self.shared.look();
        let all = state.queues.subscriptions();
        all.filter_map(|(key, durable, queue)| subscription_stats(&state, key, durable, queue))
            .collect()
    }

    fn find(&self, kind: DestinationKind, name: &str) -> Result<QueueId, ManageError> {
        let found = self.shared.look().find(kind, name);
        found.ok_or_else(|| not_found(kind.to_string(), name))
    }

    fn check_not_configured(&self, kind: DestinationKind, name: &str) -> Result<(), ManageError> {
        if self.configured(kind).iter().any(|other| other.name == name) {
            let name = name.to_owned();
            return Err(ManageError::Configured { name });
        }
        Ok(())
    }

    /// Changes the queues and waits until that is durable.
    async fn change<T, E: Into<ManageError>>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, ManageError> {
        let shared = Arc::clone(&self.shared);
        let (done, last) = {
            let mut state = shared.lock().ok_or(ManageError::Stopped)?;
            let done = change(&mut state);
            shared.finish(&mut state);
            state.wake_all();
            (done, state.queues.last_position())
        };
        let done = done.map_err(Into::into)?;
        if became_durable(&shared, last).await {
            Ok(done)
        } else {
            Err(ManageError::Stopped)
        }
    }
}

/// Whether a connection factory can be made of it.
pub(crate) fn check_factory(name: &str, factory: &Factory) -> Result<(), ManageError> {
    let unusable = |why| ManageError::Invalid(format!("{name:?} cannot name a factory: {why}"));
    check_address(name).map_err(unusable)?;
    if factory.export.is_root() {
        let why = "a factory cannot be exported under the empty name: it is the root context";
        return Err(ManageError::Invalid(why.to_owned()));
    }
    let checked = factory.settings.check();
    checked.map_err(|why| ManageError::Invalid(why.to_string()))
}

fn subscription_stats(
    state: &State,
    key: &SubscriptionKey,
    durable: bool,
    queue: QueueId,
) -> Option<SubscriptionStats> {
    let found = state.queues.find_subscription(key, durable)?;
    let counts = state.queues.counts_of(queue)?;
    Some(SubscriptionStats {
        name: key.name.clone(),
        client: key.client.clone(),
        topic: found.topic,
        selector: found.selector.map(|selector| selector.as_str().to_owned()),
        durable: found.durable,
        shared: found.shared,
        messages: counts.messages,
        bytes: counts.bytes,
        consumers: counts.consumers,
    })
}

pub(crate) fn not_found(what: impl Into<String>, name: &str) -> ManageError {
    ManageError::NotFound {
        what: what.into(),
        name: name.to_owned(),
    }
}
