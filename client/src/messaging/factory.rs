//! Connection factories: which brokers to try, in which order, and how patiently.
//!
//! It decides the order of addresses and which epochs are over. Invariant: the highest epoch seen only grows,
//! over all connections of one factory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daymark_amqp::{RemoteOpen, Value};
use daymark_naming_proto::{self as proto, Advice, Binding, Endpoint, Epoch, FactorySettings, Name, Object};

use super::builder::FactoryBuilder;
use super::connection::Connection;
use super::driver;
use super::error::{BrokerFailure, ConnectError};
use super::message::DuplicateId;
use crate::naming::{Credentials, Follow, Following, LookupError, Naming, after};

/// The most addresses kept: those of the factory, and those a broker taught.
const ADDRESSES_MAX: usize = 64;

/// Makes connections. One that was looked up is followed: it always knows the newest brokers and epoch.
///
/// Clones share what was learned.
#[derive(Clone)]
pub struct ConnectionFactory {
    known: Arc<Mutex<Known>>,
    follow: Option<Follow>,
}

struct Known {
    /// The factory's own addresses, the active broker first.
    brokers: Vec<Endpoint>,
    /// What the last broker said in its `failover-server-list`.
    learned: Vec<Endpoint>,
    settings: FactorySettings,
    epoch: Epoch,
}

/// How one connection presents itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Its name at the broker (the JMS client id), kept over reconnections. Default a random one.
    pub container_id: Option<String>,
    /// Who connects. Default nobody in particular.
    pub credentials: Option<Credentials>,
}

impl ConnectionFactory {
    /// Begins a factory of explicit broker addresses and settings, which are checked when it is built.
    #[must_use]
    pub fn builder() -> FactoryBuilder {
        FactoryBuilder::default()
    }

    /// A factory for brokers at these addresses, without naming. The active one may be any of them.
    #[must_use]
    pub fn explicit<H: Into<String>>(
        addresses: impl IntoIterator<Item = (H, u16)>,
        settings: FactorySettings,
    ) -> Self {
        let endpoint = |(host, port): (H, u16)| Endpoint {
            host: host.into(),
            port,
        };
        Self::new(
            addresses.into_iter().map(endpoint).collect(),
            Epoch(0),
            settings,
            None,
        )
    }

    /// A factory for what is bound, without following it.
    #[must_use]
    pub fn from_object(object: &proto::ConnectionFactory) -> Self {
        Self::of(object, None)
    }

    fn of(object: &proto::ConnectionFactory, follow: Option<Follow>) -> Self {
        let brokers = object.brokers.iter().map(proto::BrokerAddress::endpoint);
        let epoch = object.epoch.unwrap_or_default();
        Self::new(brokers.collect(), epoch, object.settings.clone(), follow)
    }

    fn new(brokers: Vec<Endpoint>, epoch: Epoch, settings: FactorySettings, follow: Option<Follow>) -> Self {
        let known = Known {
            brokers,
            learned: Vec::new(),
            settings,
            epoch,
        };
        Self {
            known: Arc::new(Mutex::new(known)),
            follow,
        }
    }

    /// Connects to the active broker, under a random name.
    ///
    /// # Errors
    /// `ConnectError`.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.connect_with(ConnectionOptions::default()).await
    }

    /// Connects to the active broker: every address known, `initial_connect_attempts` rounds.
    ///
    /// # Errors
    /// `ConnectError`.
    pub async fn connect_with(&self, options: ConnectionOptions) -> Result<Connection, ConnectError> {
        let identity = Identity {
            is_named: options.container_id.is_some(),
            container_id: options
                .container_id
                .unwrap_or_else(|| format!("daymark-{}", DuplicateId::random())),
            instance: DuplicateId::random().to_string(),
            credentials: options.credentials,
        };
        driver::start(self.clone(), identity).await
    }

    /// The settings that apply to new connections.
    #[must_use]
    pub fn settings(&self) -> FactorySettings {
        self.refresh();
        self.known().settings.clone()
    }

    /// The addresses to try, the active broker's first.
    #[must_use]
    pub fn addresses(&self) -> Vec<Endpoint> {
        self.refresh();
        let known = self.known();
        let mut addresses: Vec<Endpoint> = Vec::new();
        for address in known.brokers.iter().chain(&known.learned) {
            if !addresses.contains(address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// The highest epoch seen: in naming, or from a broker. 0 where none was.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.refresh();
        self.known().epoch
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what naming says now. While the name is unavailable the last brokers stay known.
    fn refresh(&self) {
        let Some(Following::Bound(binding)) = self.follow.as_ref().map(Follow::current) else {
            return;
        };
        if let Object::ConnectionFactory(object) = &binding.object {
            let mut known = self.known();
            known.brokers = object
                .brokers
                .iter()
                .map(proto::BrokerAddress::endpoint)
                .collect();
            known.settings = object.settings.clone();
            known.epoch = known.epoch.max(object.epoch.unwrap_or_default());
        }
    }

    /// A handle to wait for changes in naming; `None` where the factory is not followed.
    pub(super) fn follower(&self) -> Option<Follow> {
        self.follow.clone()
    }

    /// Checks the epoch a broker greets with, and learns the addresses it names.
    pub(super) fn admit(&self, open: &RemoteOpen) -> Result<Epoch, BrokerFailure> {
        self.refresh();
        let mut known = self.known();
        let highest = known.epoch;
        let Some(given) = epoch_of(open) else {
            return if highest == Epoch(0) {
                Ok(highest)
            } else {
                Err(BrokerFailure::NoEpoch { highest })
            };
        };
        if given < highest {
            return Err(BrokerFailure::StaleEpoch { given, highest });
        }
        known.epoch = given;
        let learned = failover_servers(open);
        if !learned.is_empty() {
            known.learned = learned;
        }
        Ok(given)
    }
}

/// Who connects.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) container_id: String,
    /// Whether the program chose the name.
    pub(super) is_named: bool,
    /// Nobody else says this: by it a broker knows a connection that follows a lost one, of which it may not have
    /// heard that it is lost.
    pub(super) instance: String,
    pub(super) credentials: Option<Credentials>,
}

fn epoch_of(open: &RemoteOpen) -> Option<Epoch> {
    let value = open.properties.get("daymark:epoch")?;
    value
        .as_i64()
        .and_then(|number| u64::try_from(number).ok())
        .map(Epoch)
}

/// The `failover-server-list` property: a list of maps with `network-host` or `hostname`, and `port`.
fn failover_servers(open: &RemoteOpen) -> Vec<Endpoint> {
    let Some(Value::List(servers)) = open.properties.get("failover-server-list") else {
        return Vec::new();
    };
    let servers = servers.iter().take(ADDRESSES_MAX);
    servers.filter_map(failover_server).collect()
}

fn failover_server(server: &Value) -> Option<Endpoint> {
    let Value::Map(pairs) = server else {
        return None;
    };
    let fields: BTreeMap<&str, &Value> = pairs
        .iter()
        .filter_map(|(key, value)| Some((key.as_str()?, value)))
        .collect();
    let host = ["network-host", "hostname"]
        .iter()
        .find_map(|key| fields.get(key)?.as_str())
        .filter(|host| !host.is_empty())?;
    let port = fields.get("port")?.as_i64()?;
    Some(Endpoint {
        host: host.to_owned(),
        port: u16::try_from(port).ok()?,
    })
}

fn factory_of(binding: &Binding) -> Result<&proto::ConnectionFactory, LookupError> {
    if let Object::ConnectionFactory(object) = &binding.object {
        return Ok(object);
    }
    Err(LookupError::WrongKind {
        name: binding.name.clone(),
        expected: "connection-factory",
        found: binding.object.kind(),
    })
}

impl Naming {
    /// The connection factory of this name, followed from now on. Where its group is failing over, waits for
    /// the rebind up to the total timeout.
    ///
    /// # Errors
    /// `LookupError`; `WrongKind` where the name is bound to something else.
    pub async fn connection_factory(&self, name: &Name) -> Result<ConnectionFactory, LookupError> {
        let binding = self.lookup_available(name).await?;
        let object = factory_of(&binding)?;
        Ok(ConnectionFactory::of(object, Some(self.follow(name))))
    }

    /// The queue or topic of this name. Where its group is failing over, waits as above.
    ///
    /// # Errors
    /// `LookupError`; `WrongKind` where the name is bound to something else.
    pub async fn destination(&self, name: &Name) -> Result<super::Destination, LookupError> {
        super::Destination::from_binding(&self.lookup_available(name).await?)
    }

    async fn lookup_available(&self, name: &Name) -> Result<Binding, LookupError> {
        let total = self.config().total_timeout;
        let deadline = after(tokio::time::Instant::now(), total);
        loop {
            let error = match self.lookup(name).await {
                Ok(binding) => return Ok(binding),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if error.advice() != Advice::WaitForRebind || left == Duration::ZERO {
                return Err(error);
            }
            // A rebind ends the wait; what it brought is looked up like everything else.
            let _ = self.follow(name).wait_bound(left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_amqp::{Fields, Symbol};

    fn open(properties: Fields) -> RemoteOpen {
        RemoteOpen {
            container_id: "b".into(),
            hostname: None,
            max_frame_size: 512,
            channel_max: 0,
            idle_timeout: None,
            offered_capabilities: vec![],
            desired_capabilities: vec![],
            properties,
        }
    }

    fn epoch(epoch: u64) -> Fields {
        Fields::new().with(Symbol::from_static("daymark:epoch"), epoch)
    }

    #[test]
    fn a_broker_whose_epoch_is_over_is_refused() {
        let factory = ConnectionFactory::explicit([("a", 1)], FactorySettings::default());
        assert_eq!(factory.admit(&open(Fields::new())), Ok(Epoch(0)));
        assert_eq!(factory.admit(&open(epoch(3))), Ok(Epoch(3)));
        assert_eq!(factory.admit(&open(epoch(3))), Ok(Epoch(3)));
        let (given, highest) = (Epoch(2), Epoch(3));
        assert_eq!(
            factory.admit(&open(epoch(2))),
            Err(BrokerFailure::StaleEpoch { given, highest })
        );
        assert_eq!(
            factory.admit(&open(Fields::new())),
            Err(BrokerFailure::NoEpoch { highest })
        );
    }

    #[test]
    fn a_broker_teaches_the_addresses_of_its_group() {
        let factory = ConnectionFactory::explicit([("a", 1)], FactorySettings::default());
        let server = |key: &'static str, host: &str, port: Value| {
            Value::Map(vec![
                (Symbol::from_static(key).into(), host.into()),
                (Symbol::from_static("port").into(), port),
            ])
        };
        let servers = Value::List(vec![
            server("network-host", "b", Value::Int(2)),
            server("hostname", "a", Value::Ushort(1)),
            server("network-host", "c", Value::Int(70_000)),
            Value::Null,
        ]);
        let properties = epoch(1).with(Symbol::from_static("failover-server-list"), servers);
        factory.admit(&open(properties)).expect("admitted");
        let addresses: Vec<String> = factory.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["a:1", "b:2"]);
    }
}
