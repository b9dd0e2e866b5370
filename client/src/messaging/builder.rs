//! Connection factories made in code, of explicit broker addresses and settings.
//!
//! It decides whether they can be used. It never connects.

use std::time::Duration;

use daymark_naming_proto::{Endpoint, FactorySettings, InvalidSetting};

use super::factory::ConnectionFactory;

/// A connection factory that is being described. Every setting has a finite default: see `FactorySettings`.
///
/// ```
/// use daymark_client::ConnectionFactory;
/// use std::time::Duration;
///
/// let factory = ConnectionFactory::builder()
///     .add_broker_address("192.168.0.1", 9741, "192.168.0.2", 9741)
///     .reconnect_period(Duration::from_secs(120))
///     .build()
///     .expect("two brokers and settings that can be used");
/// assert_eq!(factory.addresses().len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct FactoryBuilder {
    brokers: Vec<Endpoint>,
    settings: FactorySettings,
}

/// A connection factory that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFactory {
    /// No broker was given.
    #[error("no broker address was given")]
    NoBroker,
    /// A broker's address cannot be one.
    #[error("{host:?} port {port} is no broker address: a host without blanks and a port from 1 to 65535")]
    Address {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
}

impl FactoryBuilder {
    /// A pair of brokers, of which either may be active.
    #[must_use]
    pub fn add_broker_address(
        self,
        host: impl Into<String>,
        port: u16,
        other_host: impl Into<String>,
        other_port: u16,
    ) -> Self {
        self.add_broker(host, port).add_broker(other_host, other_port)
    }

    /// One more broker. Addresses are tried in the order given.
    #[must_use]
    pub fn add_broker(mut self, host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        self.brokers.push(Endpoint { host, port });
        self
    }

    /// All settings at once.
    #[must_use]
    pub fn settings(mut self, settings: FactorySettings) -> Self {
        self.settings = settings;
        self
    }

    /// Whether a lost connection is made anew. Default true.
    #[must_use]
    pub const fn reconnect_enabled(mut self, enabled: bool) -> Self {
        self.settings.reconnect_enabled = enabled;
        self
    }

    /// How long all attempts of one reconnection may take together. Default 60 s.
    #[must_use]
    pub fn reconnect_period(mut self, period: Duration) -> Self {
        self.settings.reconnect_period_ms = ms(period);
        self
    }

    /// The pause after the first failed round of attempts. Default 10 ms.
    #[must_use]
    pub fn reconnect_interval(mut self, interval: Duration) -> Self {
        self.settings.reconnect_interval_ms = ms(interval);
        self
    }

    /// What the pause is multiplied with after each failed round. Default 2.0; 1.0 keeps it.
    #[must_use]
    pub const fn reconnect_interval_multiplier(mut self, multiplier: f64) -> Self {
        self.settings.reconnect_interval_multiplier = multiplier;
        self
    }

    /// The longest pause. Default 500 ms.
    #[must_use]
    pub fn max_reconnect_interval(mut self, interval: Duration) -> Self {
        self.settings.max_reconnect_interval_ms = ms(interval);
        self
    }

    /// Rounds of attempts per reconnection; -1 for as many as the period allows, 0 for none. Default -1.
    #[must_use]
    pub const fn reconnect_attempts(mut self, attempts: i32) -> Self {
        self.settings.reconnect_attempts = attempts;
        self
    }

    /// Rounds of attempts for the first connection; -1 for as many as the period allows. Default 10.
    #[must_use]
    pub const fn initial_connect_attempts(mut self, attempts: i32) -> Self {
        self.settings.initial_connect_attempts = attempts;
        self
    }

    /// How long one attempt to connect to one address may take. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout_ms = ms(timeout);
        self
    }

    /// How long the connection may be silent before it counts as dead. Default 5 s; at least 100 ms.
    #[must_use]
    pub fn client_failure_check_period(mut self, period: Duration) -> Self {
        self.settings.client_failure_check_period_ms = ms(period);
        self
    }

    /// How long a broker keeps the session of a client it no longer hears. Default 60 s.
    #[must_use]
    pub fn connection_ttl(mut self, ttl: Duration) -> Self {
        self.settings.connection_ttl_ms = ms(ttl);
        self
    }

    /// How long a blocking call waits for its answer on a working connection. Default 30 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout_ms = ms(timeout);
        self
    }

    /// How long a blocking call made during a failover waits for it to end. Default 60 s.
    #[must_use]
    pub fn call_failover_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_failover_timeout_ms = ms(timeout);
        self
    }

    /// How long a send that was blocked when the connection was lost goes on waiting while it is sent again by
    /// itself. Default 60 s. Zero returns it at once as `SendError::Unblocked`, for programs that resend.
    #[must_use]
    pub fn request_blocking_time(mut self, time: Duration) -> Self {
        self.settings.request_blocking_time_ms = ms(time);
        self
    }

    /// The factory.
    ///
    /// # Errors
    /// `InvalidFactory` for the first thing that cannot be used.
    pub fn build(self) -> Result<ConnectionFactory, InvalidFactory> {
        if self.brokers.is_empty() {
            return Err(InvalidFactory::NoBroker);
        }
        for Endpoint { host, port } in &self.brokers {
            if host.is_empty() || host.contains(char::is_whitespace) || *port == 0 {
                let (host, port) = (host.clone(), *port);
                return Err(InvalidFactory::Address { host, port });
            }
        }
        self.settings.check()?;
        let addresses = self.brokers.into_iter().map(|broker| (broker.host, broker.port));
        Ok(ConnectionFactory::explicit(addresses, self.settings))
    }
}

/// In milliseconds; what is too long to be counted is too long to be allowed.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_given_in_code() {
        let factory = ConnectionFactory::builder()
            .add_broker_address("192.168.0.1", 9741, "192.168.0.2", 9742)
            .add_broker("third", 9743)
            .reconnect_enabled(false)
            .reconnect_period(Duration::from_secs(1))
            .reconnect_interval(Duration::from_millis(2))
            .reconnect_interval_multiplier(3.0)
            .max_reconnect_interval(Duration::from_millis(4))
            .reconnect_attempts(5)
            .initial_connect_attempts(6)
            .connect_timeout(Duration::from_millis(7))
            .client_failure_check_period(Duration::from_millis(800))
            .connection_ttl(Duration::from_millis(900))
            .call_timeout(Duration::from_millis(10))
            .call_failover_timeout(Duration::from_millis(11))
            .request_blocking_time(Duration::ZERO)
            .build()
            .expect("a factory");
        let addresses: Vec<String> = factory.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.168.0.1:9741", "192.168.0.2:9742", "third:9743"]);
        let expected = FactorySettings {
            reconnect_enabled: false,
            reconnect_period_ms: 1_000,
            reconnect_interval_ms: 2,
            reconnect_interval_multiplier: 3.0,
            max_reconnect_interval_ms: 4,
            reconnect_attempts: 5,
            initial_connect_attempts: 6,
            connect_timeout_ms: 7,
            client_failure_check_period_ms: 800,
            connection_ttl_ms: 900,
            call_timeout_ms: 10,
            call_failover_timeout_ms: 11,
            request_blocking_time_ms: 0,
        };
        assert_eq!(factory.settings(), expected);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let builder = ConnectionFactory::builder;
        assert!(matches!(builder().build().err(), Some(InvalidFactory::NoBroker)));
        for (host, port) in [("", 1), ("a b", 1), ("a", 0)] {
            let why = builder().add_broker(host, port).build().err();
            assert!(matches!(why, Some(InvalidFactory::Address { .. })), "{why:?}");
        }
        let forever = builder().add_broker("a", 1).call_timeout(Duration::MAX).build();
        let why = forever.err().expect("refused").to_string();
        assert!(
            why.contains("call_timeout_ms") && why.contains("31 days"),
            "{why}"
        );
    }
}
