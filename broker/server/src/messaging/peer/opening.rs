//! The opening of a connection: what this broker says of itself, and whether the peer may have its name.
//!
//! A peer that wants to be the only one of its container id waits a moment for its predecessor, which may be
//! just about to go, and is then refused the way JMS clients expect.

use std::time::{Duration, Instant};

use daymark_amqp::{AmqpError, Fields, OpenOptions, RemoteOpen, Symbol, Value, condition};

use super::super::registry::{Claim, Name};
use super::super::{Greeting, MessagingConfig};
use super::Peer;

/// How long a newcomer waits for the connection that holds its container id to end.
const PATIENCE: Duration = Duration::from_secs(1);

const SOLE_CONNECTION: &str = "sole-connection-for-container";

/// The property by which a client says that a connection follows one of its own, which it has given up.
const INSTANCE: &str = "daymark:instance";

/// What is offered to everyone.
const OFFERED: [&str; 4] = [
    SOLE_CONNECTION,
    "DELAYED_DELIVERY",
    "ANONYMOUS-RELAY",
    "SHARED-SUBS",
];

impl Peer {
    pub(super) fn on_open(&mut self) {
        if let Some(error) = self.unwelcome.take() {
            return self.refuse_open(error);
        }
        self.waiting = Some(Instant::now() + PATIENCE);
        self.answer_open();
    }

    /// Lets the peer in, turns it away, or goes on waiting.
    pub(super) fn answer_open(&mut self) {
        let (Some(until), Some(open)) = (self.waiting, self.amqp.remote_open()) else {
            return;
        };
        let now = Instant::now();
        let name = Name {
            container: &open.container_id,
            instance: open.properties.get(INSTANCE).and_then(Value::as_str),
            alone: open.desires(SOLE_CONNECTION),
        };
        match self.shared.registry.claim(&self.entry, &name, now) {
            Claim::Granted => {
                self.waiting = None;
                self.shared
                    .look()
                    .queues
                    .set_container(self.owner, name.container);
                self.open(false);
            }
            Claim::Busy if now < until => {}
            Claim::Busy => {
                let error = in_use(open);
                self.refuse_open(error);
            }
        }
    }

    fn refuse_open(&mut self, error: AmqpError) {
        self.waiting = None;
        let container = self.amqp.remote_open().map(|open| open.container_id.as_str());
        tracing::info!(container, %error, "connection refused");
        self.open(true);
        self.closing = true;
        self.amqp.close(Some(error));
    }

    fn open(&mut self, refused: bool) {
        let Some(greeting) = self.shared.greeting() else {
            return; // The port is open only after the greeting was set.
        };
        let mut properties = properties(&greeting, &self.shared.config);
        if refused {
            let failed = Symbol::from_static("amqp:connection-establishment-failed");
            properties.insert(failed, Value::Bool(true));
        }
        let options = OpenOptions {
            offered_capabilities: OFFERED.map(Symbol::from_static).to_vec(),
            properties,
            ..OpenOptions::new(greeting.member.as_str())
        };
        if let Err(error) = self.amqp.open(options) {
            tracing::debug!(%error, "the connection was not opened");
        }
    }
}

fn in_use(open: &RemoteOpen) -> AmqpError {
    let text = format!(
        "container id {:?} is in use by another connection",
        open.container_id
    );
    let field = Value::Symbol(Symbol::from_static("container-id"));
    AmqpError::new(condition::INVALID_FIELD, text).with_info(Symbol::from_static("invalid-field"), field)
}

fn properties(greeting: &Greeting, config: &MessagingConfig) -> Fields {
    let brokers = greeting.failover_server_list.iter().map(|broker| {
        let symbol = |name| Value::Symbol(Symbol::from_static(name));
        Value::Map(vec![
            (symbol("network-host"), Value::String(broker.host.clone())),
            (symbol("port"), Value::Int(i32::from(broker.port))),
            (symbol("scheme"), Value::String("amqp".to_owned())),
            (symbol("hostname"), Value::String(broker.host.clone())),
        ])
    });
    let brokers = Value::List(brokers.collect());
    let mut properties = Fields::new()
        .with(Symbol::from_static("product"), "daymark")
        .with(Symbol::from_static("version"), env!("CARGO_PKG_VERSION"))
        .with(Symbol::from_static("daymark:group"), greeting.group.as_str())
        .with(
            Symbol::from_static("daymark:epoch"),
            Value::Ulong(greeting.epoch.0),
        )
        .with(Symbol::from_static("failover-server-list"), brokers);
    for (key, prefix) in [
        ("queue-prefix", &config.queue_prefix),
        ("topic-prefix", &config.topic_prefix),
    ] {
        if let Some(prefix) = prefix {
            properties.insert(Symbol::from_static(key), Value::String(prefix.clone()));
        }
    }
    properties
}
