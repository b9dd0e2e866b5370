//! `broker.toml`: read into a raw form that refuses unknown keys, then checked.

mod group;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use daymark_broker_core::detector::Timing;
use daymark_broker_core::failover::{Settings, Tries};
pub use daymark_broker_core::queues::Factory;
use daymark_client::proto::{Endpoint, FactorySettings, Name};
use serde::Deserialize;

use crate::error::ConfigError;
use crate::messaging::MessagingConfig;
use crate::store::PostgresOptions;
pub use group::{GroupTransport, MulticastConfig, VirtualMember};

/// Everything an operator may choose, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[failover]`: how the broker starts, watches and takes over. All times in milliseconds.
    pub failover: Settings,
    /// `[messaging]`: queues, limits and the AMQP port.
    pub messaging: MessagingConfig,
    /// `[[factories]]`: the connection factories exported. Default: one, `QueueConnectionFactory`.
    pub factories: Vec<Factory>,
    /// `[journal]`: the files of the store.
    pub journal: daymark_journal::Options,
    /// `[postgres]`: how long to wait for the database of a PostgreSQL store.
    pub postgres: PostgresOptions,
    /// `advertise_host`: the host that clients and peers are told. Default: the host of `--listen`, or this
    /// machine's name where that is a wildcard address.
    pub advertise_host: Option<String>,
    /// `[group]`: how the brokers find each other. Default: through naming.
    pub group: GroupTransport,
    /// `peer_listen`: where heartbeats are received. Default: the host of `--listen`, any free port.
    pub peer_listen: Option<Endpoint>,
    /// `[failover] active_transport_url`: how a standby finds the active broker. Default `gms://active`.
    pub active_transport: ActiveTransport,
    /// `[failover] switchover_drain_ms`: how long a handover lets deliveries end. Default 25 ms, and never
    /// more than `drain_timeout_ms`.
    pub switchover_drain: Duration,
    /// `[failover] commit_timeout_ms`: how long the open store may make nothing durable although something
    /// waits. Default 10,000 ms; then the term and the process end.
    pub commit_timeout: Duration,
    /// `drain_timeout_ms`: how long a planned stop lets deliveries end. Default 1,000 ms.
    pub drain_timeout: Duration,
}

/// How a standby finds the active broker. Text form `gms://active` or `tcp://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActiveTransport {
    /// Through the group's membership: naming, and whoever is heard.
    Group,
    /// At this peer port (`peer_listen` of the other broker), and as with `Group` beside that.
    Tcp(Endpoint),
}

impl std::str::FromStr for ActiveTransport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "gms://active" {
            return Ok(Self::Group);
        }
        match text.strip_prefix("tcp://") {
            Some(endpoint) => endpoint
                .parse()
                .map(Self::Tcp)
                .map_err(|error: daymark_client::proto::InvalidEndpoint| error.to_string()),
            None => Err(format!("{text:?}: write gms://active or tcp://HOST:PORT")),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failover: Settings::default(),
            messaging: MessagingConfig::default(),
            factories: default_factories(),
            journal: journal_options(),
            postgres: PostgresOptions::default(),
            advertise_host: None,
            group: GroupTransport::default(),
            peer_listen: None,
            active_transport: ActiveTransport::Group,
            switchover_drain: Duration::from_millis(25),
            commit_timeout: Duration::from_millis(10_000),
            drain_timeout: Duration::from_millis(1000),
        }
    }
}

fn default_factories() -> Vec<Factory> {
    let factory = |export| Factory {
        export,
        settings: FactorySettings::default(),
    };
    Name::from_components(["QueueConnectionFactory"])
        .into_iter()
        .map(factory)
        .collect()
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// `ConfigError` with the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let raw: Raw = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        raw.checked()
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    advertise_host: Option<String>,
    peer_listen: Option<String>,
    drain_timeout_ms: u64,
    failover: RawFailover,
    group: group::RawGroup,
    messaging: MessagingConfig,
    factories: Vec<Factory>,
    journal: RawJournal,
    postgres: RawPostgres,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            advertise_host: None,
            peer_listen: None,
            drain_timeout_ms: 1000,
            failover: RawFailover::default(),
            group: group::RawGroup::default(),
            messaging: MessagingConfig::default(),
            factories: default_factories(),
            journal: RawJournal::default(),
            postgres: RawPostgres::default(),
        }
    }
}

/// `[failover]`. Times in milliseconds.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawFailover {
    active_transport_url: String,
    check_health_response_timeout: u64,
    discovery_response_timeout: u64,
    start_up_max_try_count: u32,
    fail_over_max_try_count: i64,
    auto_switchover: bool,
    failback_delay_ms: u64,
    failover_on_shutdown: bool,
    switchover_drain_ms: u64,
    switchover_timeout_ms: u64,
    step_timeout_ms: u64,
    commit_timeout_ms: u64,
    recovery_timeout_ms: u64,
    lease_ms: u64,
    claim_timeout_ms: u64,
    lock_window_ms: u64,
    heartbeat_ms: u64,
    suspect_ms: u64,
    failed_ms: u64,
}

impl Default for RawFailover {
    fn default() -> Self {
        let settings = Settings::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            active_transport_url: "gms://active".to_owned(),
            check_health_response_timeout: ms(settings.check_health_response_timeout),
            discovery_response_timeout: ms(settings.discovery_response_timeout),
            start_up_max_try_count: settings.start_up_max_try_count,
            fail_over_max_try_count: match settings.fail_over_max_try_count {
                Tries::Never => -1,
                Tries::Times(times) => i64::from(times),
            },
            auto_switchover: settings.auto_switchover,
            failback_delay_ms: ms(settings.failback_delay),
            switchover_drain_ms: ms(Config::default().switchover_drain),
            switchover_timeout_ms: ms(settings.switchover_timeout),
            step_timeout_ms: ms(settings.step_timeout),
            commit_timeout_ms: ms(Config::default().commit_timeout),
            recovery_timeout_ms: ms(settings.recovery_timeout),
            failover_on_shutdown: settings.failover_on_shutdown,
            lease_ms: ms(settings.lease),
            claim_timeout_ms: ms(settings.claim_timeout),
            lock_window_ms: ms(settings.lock_window),
            heartbeat_ms: ms(settings.timing.heartbeat),
            suspect_ms: ms(settings.timing.suspect),
            failed_ms: ms(settings.timing.failed),
        }
    }
}

/// `[journal]`. Sizes in bytes.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawJournal {
    segment_bytes: u64,
    preallocate: bool,
}

impl Default for RawJournal {
    fn default() -> Self {
        let options = journal_options();
        Self {
            segment_bytes: options.segment_bytes,
            preallocate: options.preallocate,
        }
    }
}

/// `[postgres]`. Times in milliseconds.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPostgres {
    connect_timeout_ms: u64,
    statement_timeout_ms: u64,
    session_timeout_ms: u64,
}

impl Default for RawPostgres {
    fn default() -> Self {
        let options = PostgresOptions::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            connect_timeout_ms: ms(options.connect_timeout),
            statement_timeout_ms: ms(options.statement_timeout),
            session_timeout_ms: ms(options.session_timeout),
        }
    }
}

impl RawPostgres {
    fn checked(&self) -> Result<PostgresOptions, ConfigError> {
        let within = |setting, ms: u64, least: u64| {
            if (least..=3_600_000).contains(&ms) {
                return Ok(Duration::from_millis(ms));
            }
            Err(ConfigError::OutOfRange {
                setting,
                value: i64::try_from(ms).unwrap_or(i64::MAX),
                rule: "times of the database must lie between 100 and 3600000 ms, that of its session from 500 on",
            })
        };
        Ok(PostgresOptions {
            connect_timeout: within("connect_timeout_ms", self.connect_timeout_ms, 100)?,
            statement_timeout: within("statement_timeout_ms", self.statement_timeout_ms, 100)?,
            session_timeout: within("session_timeout_ms", self.session_timeout_ms, 500)?,
        })
    }
}

/// The journal's own defaults, with smaller segments: a store gives its settled messages back segment by
/// segment, and what it has not given back is read again in a failover.
fn journal_options() -> daymark_journal::Options {
    daymark_journal::Options {
        segment_bytes: 4 << 20,
        ..daymark_journal::Options::default()
    }
}

/// Ten years: longer waits cannot be meant, and sums of them stay within what a clock can hold.
const LONGEST_MS: u64 = 10 * 365 * 24 * 3_600_000;

fn time(setting: &'static str, ms: u64) -> Result<Duration, ConfigError> {
    if ms > LONGEST_MS {
        return Err(ConfigError::OutOfRange {
            setting,
            value: i64::try_from(ms).unwrap_or(i64::MAX),
            rule: "it must be at most ten years in milliseconds",
        });
    }
    Ok(Duration::from_millis(ms))
}

impl Raw {
    fn checked(self) -> Result<Config, ConfigError> {
        self.messaging.check()?;
        let peer_listen = self.peer_listen.map(|text| text.parse()).transpose();
        let peer_listen: Option<Endpoint> = peer_listen.map_err(
            |error: daymark_client::proto::InvalidEndpoint| ConfigError::Endpoint {
                setting: "peer_listen",
                reason: error.to_string(),
            },
        )?;
        let active_transport = self.failover.active_transport_url.parse();
        let config = Config {
            group: self.group.checked(peer_listen.as_ref())?,
            active_transport: active_transport.map_err(|reason| ConfigError::Endpoint {
                setting: "active_transport_url",
                reason,
            })?,
            switchover_drain: time("switchover_drain_ms", self.failover.switchover_drain_ms)?,
            commit_timeout: self.failover.commit_timeout()?,
            failover: self.failover.checked()?,
            messaging: self.messaging,
            factories: self.factories,
            journal: self.journal.checked()?,
            postgres: self.postgres.checked()?,
            advertise_host: self.advertise_host,
            peer_listen,
            drain_timeout: time("drain_timeout_ms", self.drain_timeout_ms)?,
        };
        config.check_names()?;
        config.check_factories()?;
        config.check_host()?;
        Ok(config)
    }
}

impl Config {
    fn check_names(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        let factories = self.factories.iter().map(|factory| &factory.export);
        let queues = self
            .messaging
            .queues
            .iter()
            .filter_map(|queue| queue.export.as_ref());
        let topics = self.messaging.topics.iter();
        let topics = topics.filter_map(|topic| topic.export.as_ref());
        if self.factories.iter().any(|factory| factory.export.is_root()) {
            return Err(ConfigError::RootExported);
        }
        match factories
            .chain(queues)
            .chain(topics)
            .find(|name| !names.insert(*name))
        {
            Some(name) => Err(ConfigError::ExportTwice { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn check_factories(&self) -> Result<(), ConfigError> {
        for Factory { export, settings } in &self.factories {
            settings.check().map_err(|why| ConfigError::Factory {
                export: export.clone(),
                why,
            })?;
        }
        Ok(())
    }

    fn check_host(&self) -> Result<(), ConfigError> {
        let Some(host) = &self.advertise_host else {
            return Ok(());
        };
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        match Endpoint::parse_or(&bracketed, Some(1)) {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::Endpoint {
                setting: "advertise_host",
                reason: error.to_string(),
            }),
        }
    }
}

impl RawFailover {
    fn commit_timeout(&self) -> Result<Duration, ConfigError> {
        if (100..=3_600_000).contains(&self.commit_timeout_ms) {
            return Ok(Duration::from_millis(self.commit_timeout_ms));
        }
        Err(ConfigError::OutOfRange {
            setting: "commit_timeout_ms",
            value: i64::try_from(self.commit_timeout_ms).unwrap_or(i64::MAX),
            rule: "it must lie between 100 and 3600000",
        })
    }

    fn checked(self) -> Result<Settings, ConfigError> {
        let tries = match self.fail_over_max_try_count {
            -1 => Tries::Never,
            count => Tries::Times(u32::try_from(count).map_err(|_| ConfigError::OutOfRange {
                setting: "fail_over_max_try_count",
                value: count,
                rule: "it must be -1 (never), 0 (at once) or a number of probes",
            })?),
        };
        let settings = Settings {
            check_health_response_timeout: time(
                "check_health_response_timeout",
                self.check_health_response_timeout,
            )?,
            discovery_response_timeout: time("discovery_response_timeout", self.discovery_response_timeout)?,
            start_up_max_try_count: self.start_up_max_try_count,
            fail_over_max_try_count: tries,
            auto_switchover: self.auto_switchover,
            failback_delay: time("failback_delay_ms", self.failback_delay_ms)?,
            failover_on_shutdown: self.failover_on_shutdown,
            switchover_timeout: time("switchover_timeout_ms", self.switchover_timeout_ms)?,
            step_timeout: time("step_timeout_ms", self.step_timeout_ms)?,
            recovery_timeout: time("recovery_timeout_ms", self.recovery_timeout_ms)?,
            lease: time("lease_ms", self.lease_ms)?,
            claim_timeout: time("claim_timeout_ms", self.claim_timeout_ms)?,
            lock_window: time("lock_window_ms", self.lock_window_ms)?,
            timing: Timing {
                heartbeat: time("heartbeat_ms", self.heartbeat_ms)?,
                suspect: time("suspect_ms", self.suspect_ms)?,
                failed: time("failed_ms", self.failed_ms)?,
            },
        };
        settings.check()?;
        Ok(settings)
    }
}

impl RawJournal {
    fn checked(&self) -> Result<daymark_journal::Options, ConfigError> {
        let range = daymark_journal::MIN_SEGMENT_BYTES..=daymark_journal::MAX_BYTES;
        if !range.contains(&self.segment_bytes) {
            return Err(ConfigError::OutOfRange {
                setting: "segment_bytes",
                value: i64::try_from(self.segment_bytes).unwrap_or(i64::MAX),
                rule: "it must lie between 65536 and 1073741824",
            });
        }
        Ok(daymark_journal::Options {
            segment_bytes: self.segment_bytes,
            preallocate: self.preallocate,
            ..journal_options()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: "broker.toml".into(),
            reason: error.to_string(),
        })?;
        raw.checked()
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").expect("a configuration");
        assert_eq!(config.failover, Settings::default());
        assert_eq!(config.messaging, MessagingConfig::default());
        assert_eq!(config.factories[0].export.as_str(), "QueueConnectionFactory");
        let queue = &config.messaging.queues[0];
        assert_eq!(
            (queue.name.as_str(), queue.export.as_ref().map(Name::as_str)),
            ("examples", Some("ExamplesQueue"))
        );
    }

    #[test]
    fn the_known_settings_are_read() {
        let config = parse(
            "[failover]\nstart_up_max_try_count = 0\nfail_over_max_try_count = -1\nlease_ms = 900\n\
             auto_switchover = false\n[[factories]]\nexport = \"jms/Factory\"\n\
             settings = { reconnect_attempts = 3 }\n",
        )
        .expect("a configuration");
        assert_eq!(config.failover.start_up_max_try_count, 0);
        assert_eq!(config.failover.fail_over_max_try_count, Tries::Never);
        assert_eq!(config.failover.lease, Duration::from_millis(900));
        assert_eq!(config.factories[0].settings.reconnect_attempts, 3);
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_named() {
        for (text, part) in [
            ("colour = 1", "colour"),
            ("[failover]\nlease = 1", "lease"),
            ("[failover]\nlease_ms = 50", "lease_ms"),
            (
                "[[factories]]\nexport = \"F\"\nsettings = { reconnect_interval_multiplier = 0.5 }",
                "factory F: reconnect_interval_multiplier is 0.5",
            ),
            ("[failover]\nsuspect_ms = 60", "suspect_ms"),
            (
                "[failover]\nfail_over_max_try_count = -2",
                "fail_over_max_try_count",
            ),
            (
                "[failover]\nactive_transport_url = \"udp://a\"",
                "active_transport_url",
            ),
            (
                "[failover]\nactive_transport_url = \"tcp://a\"",
                "active_transport_url",
            ),
            ("[failover]\nswitchover_timeout_ms = 0", "switchover_timeout_ms"),
            ("[failover]\nstep_timeout_ms = 0", "step_timeout_ms"),
            ("[failover]\ncommit_timeout_ms = 99", "commit_timeout_ms"),
            ("[failover]\nheartbeat_ms = 18446744073709551615", "heartbeat_ms"),
            ("[journal]\nsegment_bytes = 1", "segment_bytes"),
            ("[group]\ntransport = \"virtual-multicast\"", "peer_listen"),
            ("[postgres]\nsession_timeout_ms = 10", "session_timeout_ms"),
            ("[messaging]\nshape = 1", "shape"),
            ("[[factories]]\nexport = \"ExamplesQueue\"", "exported twice"),
            ("[[factories]]\nexport = \"\"", "root context"),
            ("[[factories]]\nexport = \"a\"\ncodebase = \"x\"", "codebase"),
            ("peer_listen = \"nowhere\"", "peer_listen"),
            ("advertise_host = \"\"", "advertise_host"),
            ("[failover", "expected"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
