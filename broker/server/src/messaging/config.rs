//! What an operator may choose about queues and the AMQP port, checked before anything is opened.

use std::collections::BTreeSet;
use std::sync::Arc;

use daymark_broker_core::queues::{QueueLimits, QueueSettings, WhenFull};
use daymark_client::proto::Name;
use serde::{Deserialize, Serialize};

use super::types::DestinationKind;

/// Largest permitted [`MessagingConfig::max_message_bytes`]: a message has to fit one journal record.
pub const MAX_MESSAGE_BYTES: u64 = 60 << 20;

/// Longest queue name, in bytes.
pub const MAX_QUEUE_NAME_BYTES: usize = 255;

/// Queues, limits and the AMQP port. Every field has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessagingConfig {
    /// Declared queues. Default: one, `examples`, exported as `ExamplesQueue`.
    pub queues: Vec<DestinationConfig>,
    /// Declared topics. Default: none.
    pub topics: Vec<DestinationConfig>,
    /// Whether attaching to an unknown address creates a queue of that name, or a topic where the client asks
    /// for one. Default `false`. With `true` every client can create both, up to `max_queues`.
    pub auto_create: bool,
    /// How many duplicate ids each queue remembers. Default 20,000. A message sent again after more than
    /// that many others is stored twice. The ids of all queues take a quarter of `max_bytes` at most: where more
    /// queues are used with ids than fit, those with most of them remember fewer.
    pub duplicate_window: usize,
    /// Queues, topics and subscriptions, declared and created. Default 10,000.
    pub max_queues: usize,
    /// Bytes of all messages of all queues and of duplicate ids, in memory. Default 1 GiB. Above, producers get no more credit.
    pub max_bytes: u64,
    /// Bytes of all stored messages, on disk. Default: no limit. Above, producers get no more credit.
    pub max_stored_bytes: Option<u64>,
    /// Bytes that may wait for the disk before producers get no more credit. Default 32 MiB.
    pub max_pending_bytes: u64,
    /// Connections at a time. Default 10,000. One more is told `amqp:resource-limit-exceeded` and closed.
    pub max_connections: usize,
    /// Links of one connection. Default 1,000. One more is refused with `amqp:resource-limit-exceeded`.
    pub max_links_per_connection: usize,
    /// Temporary queues and topics of one connection. Default 1,000. One more is refused with
    /// `amqp:resource-limit-exceeded`.
    pub max_temporary_per_connection: usize,
    /// Transactions one connection may have open. Default 1,000.
    pub max_transactions_per_connection: usize,
    /// Bytes of messages one transaction may hold. Default 32 MiB, which is the most. One that holds more is rolled
    /// back.
    pub max_transaction_bytes: u64,
    /// How long a transaction may stay open, in milliseconds. Default 300,000. Then it is rolled back.
    pub transaction_timeout_ms: u64,
    /// Size of one message in bytes. Default 32 MiB, at most [`MAX_MESSAGE_BYTES`].
    pub max_message_bytes: u64,
    /// Largest frame this broker accepts, in bytes. Default 65,536, at least 512.
    pub max_frame_bytes: u32,
    /// Messages a producer link may send ahead. Default 1,000.
    pub producer_credit: u32,
    /// Bytes a producer link may send ahead, judged by the size of its latest messages. Default 4 MiB.
    pub producer_credit_bytes: u64,
    /// Silence after which a connection is given up, in milliseconds. Default 60,000; 0 means never.
    pub idle_timeout_ms: u64,
    /// What clients put before the address of a queue, and are told to: `queue-prefix` in the AMQP open.
    /// Default: nothing.
    pub queue_prefix: Option<String>,
    /// What clients put before the address of a topic, and are told to: `topic-prefix` in the AMQP open.
    /// Default: nothing.
    pub topic_prefix: Option<String>,
}

/// One declared queue or topic. What a topic is set to holds for each of its subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationConfig {
    /// The AMQP address: 1 to 255 bytes without control characters. That of a topic is made of words separated
    /// by `.`, without the wildcards `*` and `#`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The name it is published under while this broker is active; absent: not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<Name>,
    /// Messages held, at least 1. Default: no limit but `max_bytes` of all queues.
    pub max_messages: Option<u64>,
    /// Bytes held, at least 1. Default: no limit but `max_bytes` of all queues.
    pub max_bytes: Option<u64>,
    /// What happens at `max_messages` or `max_bytes`. Default [`Full::Block`]; one full subscription holds up
    /// all producers of its topic then.
    pub when_full: Full,
    /// Deliveries of one message that may fail; then it goes to `dead_letter`. Default 10; 0 means no bound.
    pub max_delivery_attempts: u32,
    /// The queue that gets what was rejected or failed too often, made when it is needed. Default `DLQ`; empty:
    /// such messages are dropped.
    pub dead_letter: String,
    /// The queue that gets what expired, made when it is needed. Default: empty, and such messages are dropped.
    pub expiry: String,
}

/// What happens to a message for a queue that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Full {
    /// Producers get no more credit until there is room.
    #[default]
    Block,
    /// It is rejected with `amqp:resource-limit-exceeded`.
    Reject,
    /// The oldest message makes room.
    DropOldest,
}

/// The settings of what a client created.
pub(super) fn created_queue() -> QueueSettings {
    QueueSettings {
        when_full: WhenFull::Block,
        ..QueueSettings::default()
    }
}

/// Where `daymark drill` sends to. Any client may, whatever `auto_create` says; it is never exported.
pub const DRILL_ADDRESS: &str = "daymark.drill";

/// The settings of the queue at [`DRILL_ADDRESS`]: bounded, and without anything that leads out of it.
pub(super) fn drill_queue() -> QueueSettings {
    QueueSettings {
        limits: QueueLimits {
            max_messages: 100_000,
            max_bytes: 32 << 20,
        },
        when_full: WhenFull::Reject,
        max_delivery_attempts: 0,
        dead_letter: None,
        ..QueueSettings::default()
    }
}

impl Default for DestinationConfig {
    fn default() -> Self {
        let usual = QueueSettings::default();
        Self {
            name: String::new(),
            export: None,
            max_messages: None,
            max_bytes: None,
            when_full: Full::default(),
            max_delivery_attempts: usual.max_delivery_attempts,
            dead_letter: usual
                .dead_letter
                .map_or_else(String::new, |name| name.to_string()),
            expiry: String::new(),
        }
    }
}

impl DestinationConfig {
    /// One without limits of its own that is not exported.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// What the queues are told.
    pub(crate) fn settings(&self) -> QueueSettings {
        let named = |name: &str| (!name.is_empty()).then(|| Arc::from(name));
        QueueSettings {
            limits: QueueLimits {
                max_messages: self.max_messages.unwrap_or(u64::MAX),
                max_bytes: self.max_bytes.unwrap_or(u64::MAX),
            },
            when_full: match self.when_full {
                Full::Block => WhenFull::Block,
                Full::Reject => WhenFull::Reject,
                Full::DropOldest => WhenFull::DropOldest,
            },
            max_delivery_attempts: self.max_delivery_attempts,
            dead_letter: named(&self.dead_letter),
            expiry: named(&self.expiry),
            export: self.export.clone(),
            ..QueueSettings::default()
        }
    }

    /// What the queues are told of one that stands in the configuration: its name in the directory is not stored,
    /// so that it goes when it is taken out there.
    pub(super) fn stored_settings(&self) -> QueueSettings {
        QueueSettings {
            export: None,
            ..self.settings()
        }
    }

    /// What the queues were told, without a name: the reverse of [`settings`](Self::settings).
    pub(super) fn of_settings(settings: &QueueSettings) -> Self {
        let limited = |limit: u64| (limit != u64::MAX).then_some(limit);
        let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        Self {
            name: String::new(),
            export: settings.export.clone(),
            max_messages: limited(settings.limits.max_messages),
            max_bytes: limited(settings.limits.max_bytes),
            when_full: match settings.when_full {
                WhenFull::Block => Full::Block,
                WhenFull::Reject => Full::Reject,
                WhenFull::DropOldest => Full::DropOldest,
            },
            max_delivery_attempts: settings.max_delivery_attempts,
            dead_letter: name(&settings.dead_letter),
            expiry: name(&settings.expiry),
        }
    }

    /// Whether a destination of this kind can be made of it.
    pub(super) fn check(&self, kind: DestinationKind) -> Result<(), MessagingConfigError> {
        check_name(&self.name)?;
        in_range("max_messages", self.max_messages.unwrap_or(1), 1, u64::MAX)?;
        in_range("max_bytes", self.max_bytes.unwrap_or(1), 1, u64::MAX)?;
        for name in [&self.dead_letter, &self.expiry] {
            if !name.is_empty() {
                check_name(name)?;
            }
        }
        if self.export.as_ref().is_some_and(Name::is_root) {
            return Err(MessagingConfigError::RootExported {
                name: self.name.clone(),
            });
        }
        if kind == DestinationKind::Topic && self.name.contains(['*', '#']) {
            return Err(MessagingConfigError::QueueName {
                name: self.name.clone(),
                why: "it holds a wildcard",
            });
        }
        Ok(())
    }
}

impl Default for MessagingConfig {
    fn default() -> Self {
        let examples = DestinationConfig {
            export: Name::from_components(["ExamplesQueue"]).ok(),
            ..DestinationConfig::new("examples")
        };
        Self {
            queues: vec![examples],
            topics: Vec::new(),
            auto_create: false,
            duplicate_window: 20_000,
            max_queues: 10_000,
            max_bytes: 1 << 30,
            max_stored_bytes: None,
            max_pending_bytes: 32 << 20,
            max_connections: 10_000,
            max_links_per_connection: 1_000,
            max_temporary_per_connection: 1_000,
            max_transactions_per_connection: 1_000,
            max_transaction_bytes: 32 << 20,
            transaction_timeout_ms: 300_000,
            max_message_bytes: 32 << 20,
            max_frame_bytes: 65_536,
            producer_credit: 1_000,
            producer_credit_bytes: 4 << 20,
            idle_timeout_ms: 60_000,
            queue_prefix: None,
            topic_prefix: None,
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessagingConfigError {
    /// A number outside its range.
    #[error("{setting} is {value}, but must lie between {min} and {max}")]
    OutOfRange {
        /// Field of [`MessagingConfig`].
        setting: &'static str,
        /// What was given.
        value: u64,
        /// Smallest permitted value.
        min: u64,
        /// Largest permitted value.
        max: u64,
    },
    /// A queue name that cannot be an address.
    #[error("{name:?} cannot name a queue or topic: {why}")]
    QueueName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A queue or a topic under the empty name, which is the root context.
    #[error("{name:?} cannot be exported under the empty name: it is the root context")]
    RootExported {
        /// The queue or topic.
        name: String,
    },
    /// A queue or a topic declared twice.
    #[error("{name:?} is declared twice")]
    QueueTwice {
        /// The name.
        name: String,
    },
    /// A prefix that tells nothing.
    #[error("{setting} is {prefix:?}: {why}")]
    Prefix {
        /// `queue_prefix` or `topic_prefix`.
        setting: &'static str,
        /// What was given.
        prefix: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More queues and topics declared than `max_queues` permits.
    #[error("{declared} queues and topics are declared, max_queues is {max}")]
    TooManyQueues {
        /// Queues declared.
        declared: usize,
        /// The limit.
        max: usize,
    },
}

impl MessagingConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), MessagingConfigError> {
        let max = u64::MAX;
        in_range("duplicate_window", self.duplicate_window as u64, 1, 200_000)?;
        in_range("max_bytes", self.max_bytes, 1, max)?;
        in_range("max_stored_bytes", self.max_stored_bytes.unwrap_or(max), 1, max)?;
        in_range(
            "max_transactions_per_connection",
            self.max_transactions_per_connection as u64,
            1,
            max,
        )?;
        in_range("max_transaction_bytes", self.max_transaction_bytes, 1, 32 << 20)?;
        in_range("transaction_timeout_ms", self.transaction_timeout_ms, 1, max)?;
        in_range("max_pending_bytes", self.max_pending_bytes, 1, 128 << 20)?;
        in_range("max_connections", self.max_connections as u64, 1, max)?;
        in_range(
            "max_links_per_connection",
            self.max_links_per_connection as u64,
            1,
            max,
        )?;
        in_range("max_message_bytes", self.max_message_bytes, 1, MAX_MESSAGE_BYTES)?;
        in_range("max_frame_bytes", self.max_frame_bytes.into(), 512, 16 << 20)?;
        in_range("producer_credit", self.producer_credit.into(), 1, 10_000)?;
        in_range("producer_credit_bytes", self.producer_credit_bytes, 1, max)?;
        self.check_prefixes()?;
        self.check_queues()
    }

    fn check_prefixes(&self) -> Result<(), MessagingConfigError> {
        let refuse = |setting, prefix: &str, why| {
            let prefix = prefix.to_owned();
            Err(MessagingConfigError::Prefix { setting, prefix, why })
        };
        for (setting, prefix) in [
            ("queue_prefix", &self.queue_prefix),
            ("topic_prefix", &self.topic_prefix),
        ] {
            if let Some(prefix) = prefix
                && let Err(why) = check_address(prefix)
            {
                return refuse(setting, prefix, why);
            }
        }
        match (&self.queue_prefix, &self.topic_prefix) {
            (Some(queue), Some(topic))
                if queue.starts_with(topic.as_str()) || topic.starts_with(queue.as_str()) =>
            {
                refuse("topic_prefix", topic, "it cannot be told from queue_prefix")
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn check_queues(&self) -> Result<(), MessagingConfigError> {
        let declared = self.queues.len() + self.topics.len();
        if declared > self.max_queues {
            return Err(MessagingConfigError::TooManyQueues {
                declared,
                max: self.max_queues,
            });
        }
        let kinds = [
            (DestinationKind::Queue, &self.queues),
            (DestinationKind::Topic, &self.topics),
        ];
        for (kind, destinations) in kinds {
            let mut seen = BTreeSet::new();
            for destination in destinations {
                destination.check(kind)?;
                if !seen.insert(&destination.name) {
                    let name = destination.name.clone();
                    return Err(MessagingConfigError::QueueTwice { name });
                }
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), MessagingConfigError> {
    if name == DRILL_ADDRESS {
        return Err(MessagingConfigError::QueueName {
            name: name.to_owned(),
            why: "it belongs to `daymark drill`",
        });
    }
    check_address(name).map_err(|why| MessagingConfigError::QueueName {
        name: name.to_owned(),
        why,
    })
}

/// Says what is wrong with a queue name, if anything is.
pub(crate) fn check_address(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name.len() > MAX_QUEUE_NAME_BYTES {
        Err("it is longer than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Err("it holds a control character")
    } else {
        Ok(())
    }
}

fn in_range(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), MessagingConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(MessagingConfigError::OutOfRange {
            setting,
            value,
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used() {
        assert_eq!(MessagingConfig::default().check(), Ok(()));
    }

    #[test]
    fn what_the_queues_were_told_comes_back_as_it_was_configured() {
        let config = DestinationConfig {
            max_bytes: Some(7),
            when_full: Full::DropOldest,
            max_delivery_attempts: 3,
            dead_letter: String::new(),
            expiry: "late".to_owned(),
            export: "jms/a".parse().ok(),
            ..DestinationConfig::default()
        };
        assert_eq!(DestinationConfig::of_settings(&config.settings()), config);
    }

    #[test]
    fn nothing_is_exported_as_the_root_context() {
        let queue = DestinationConfig {
            export: Some(Name::root()),
            ..DestinationConfig::new("a")
        };
        let error = queue.check(DestinationKind::Queue).unwrap_err().to_string();
        assert!(error.contains("root context"), "{error}");
    }

    #[test]
    fn a_stray_key_is_refused() {
        let error = toml::from_str::<MessagingConfig>("auto_creat = true").unwrap_err();
        assert!(error.to_string().contains("auto_creat"), "{error}");
    }

    #[test]
    fn a_message_larger_than_a_journal_record_may_not_be_permitted() {
        let config = MessagingConfig {
            max_message_bytes: MAX_MESSAGE_BYTES + 1,
            ..MessagingConfig::default()
        };
        let error = config.check().unwrap_err();
        assert!(error.to_string().starts_with("max_message_bytes is"), "{error}");
    }

    #[test]
    fn a_queue_that_could_never_take_a_message_is_refused() {
        let queue = DestinationConfig {
            max_messages: Some(0),
            ..DestinationConfig::new("a")
        };
        let config = MessagingConfig {
            queues: vec![queue],
            ..MessagingConfig::default()
        };
        let error = config.check().unwrap_err();
        assert!(error.to_string().starts_with("max_messages is 0"), "{error}");
    }

    #[test]
    fn the_queue_of_drills_cannot_be_declared_and_so_not_exported() {
        let config = MessagingConfig {
            queues: vec![DestinationConfig::new(DRILL_ADDRESS)],
            ..MessagingConfig::default()
        };
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("daymark drill"), "{error}");
    }

    #[test]
    fn a_queue_declared_twice_is_named() {
        let config = MessagingConfig {
            queues: vec![DestinationConfig::new("a"), DestinationConfig::new("a")],
            ..MessagingConfig::default()
        };
        assert_eq!(
            config.check(),
            Err(MessagingConfigError::QueueTwice { name: "a".into() })
        );
    }
}
