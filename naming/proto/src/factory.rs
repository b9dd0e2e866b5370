//! How a messaging client behaves: connects, reconnects and gives up.

use serde::{Deserialize, Serialize};

/// How a messaging client connects, reconnects and gives up. All times in milliseconds, all finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FactorySettings {
    /// Whether a lost connection is made anew. Default true.
    pub reconnect_enabled: bool,
    /// How long all attempts of one reconnection may take together. Default 60,000 ms.
    pub reconnect_period_ms: u64,
    /// The pause after the first failed round of attempts. Default 10 ms.
    pub reconnect_interval_ms: u64,
    /// What the pause is multiplied with after each failed round. Default 2.0; 1.0 keeps it.
    pub reconnect_interval_multiplier: f64,
    /// The longest pause. Default 500 ms.
    pub max_reconnect_interval_ms: u64,
    /// Rounds of attempts per reconnection; -1 for as many as `reconnect_period_ms` allows, 0 for none. Default -1.
    pub reconnect_attempts: i32,
    /// Rounds of attempts for the first connection, at least 1; -1 as above. Default 10.
    pub initial_connect_attempts: i32,
    /// How long one attempt to connect to one address may take. Default 2,000 ms.
    pub connect_timeout_ms: u64,
    /// How long the connection may be silent before it counts as dead. Default 5,000 ms; at least 100.
    pub client_failure_check_period_ms: u64,
    /// How long a broker keeps the session of a client it no longer hears. Default 60,000 ms; at least
    /// `client_failure_check_period_ms`.
    pub connection_ttl_ms: u64,
    /// How long a blocking call waits for its answer on a working connection. Default 30,000 ms.
    pub call_timeout_ms: u64,
    /// How long a blocking call made during a failover waits for it to end. Default 60,000 ms.
    pub call_failover_timeout_ms: u64,
    /// How long a send that waited for its answer when the connection was lost goes on waiting, while the client
    /// looks for the next broker and sends the message again by itself. After that it returns as unblocked, with
    /// an unknown outcome. 0 unblocks at once and leaves every resend to the program. Default 60,000 ms.
    pub request_blocking_time_ms: u64,
}

impl Default for FactorySettings {
    fn default() -> Self {
        Self {
            reconnect_enabled: true,
            reconnect_period_ms: 60_000,
            reconnect_interval_ms: 10,
            reconnect_interval_multiplier: 2.0,
            max_reconnect_interval_ms: 500,
            reconnect_attempts: -1,
            initial_connect_attempts: 10,
            connect_timeout_ms: 2_000,
            client_failure_check_period_ms: 5_000,
            connection_ttl_ms: 60_000,
            call_timeout_ms: 30_000,
            call_failover_timeout_ms: 60_000,
            request_blocking_time_ms: 60_000,
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {given}: {rule}")]
pub struct InvalidSetting {
    /// Its name, as in `FactorySettings`.
    pub setting: &'static str,
    /// What was given.
    pub given: String,
    /// What is allowed.
    pub rule: String,
}

/// The longest time of any setting: 31 days.
pub const SETTING_MS_MAX: u64 = 31 * 24 * 3_600 * 1_000;
/// The shortest silence that can be told from a busy machine.
const FAILURE_CHECK_MS_MIN: u64 = 100;

impl FactorySettings {
    /// Checks that every setting can be used.
    ///
    /// # Errors
    /// `InvalidSetting` for the first that cannot.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let times = [
            ("reconnect_period_ms", self.reconnect_period_ms, 1),
            ("reconnect_interval_ms", self.reconnect_interval_ms, 0),
            ("max_reconnect_interval_ms", self.max_reconnect_interval_ms, 1),
            ("connect_timeout_ms", self.connect_timeout_ms, 1),
            (
                "client_failure_check_period_ms",
                self.client_failure_check_period_ms,
                FAILURE_CHECK_MS_MIN,
            ),
            ("connection_ttl_ms", self.connection_ttl_ms, 1),
            ("call_timeout_ms", self.call_timeout_ms, 1),
            ("call_failover_timeout_ms", self.call_failover_timeout_ms, 1),
            ("request_blocking_time_ms", self.request_blocking_time_ms, 0),
        ];
        for (setting, given, least) in times {
            check_time(setting, given, least)?;
        }
        self.check_pauses()?;
        check_attempts("reconnect_attempts", self.reconnect_attempts, 0)?;
        check_attempts("initial_connect_attempts", self.initial_connect_attempts, 1)?;
        let least = self.client_failure_check_period_ms;
        demand(
            self.connection_ttl_ms >= least,
            "connection_ttl_ms",
            self.connection_ttl_ms,
            || format!("it must be at least client_failure_check_period_ms, which is {least}"),
        )
    }

    fn check_pauses(&self) -> Result<(), InvalidSetting> {
        let longest = self.max_reconnect_interval_ms;
        demand(
            self.reconnect_interval_ms <= longest,
            "reconnect_interval_ms",
            self.reconnect_interval_ms,
            || format!("it must be at most max_reconnect_interval_ms, which is {longest}"),
        )?;
        let growth = self.reconnect_interval_multiplier;
        demand(
            (1.0..=100.0).contains(&growth),
            "reconnect_interval_multiplier",
            growth,
            || "it must be a number from 1.0 to 100.0".into(),
        )
    }
}

fn check_time(setting: &'static str, given: u64, least: u64) -> Result<(), InvalidSetting> {
    demand((least..=SETTING_MS_MAX).contains(&given), setting, given, || {
        format!("it must be from {least} to {SETTING_MS_MAX} milliseconds (31 days)")
    })
}

fn check_attempts(setting: &'static str, given: i32, least: i32) -> Result<(), InvalidSetting> {
    demand(given == -1 || given >= least, setting, given, || {
        format!("it must be at least {least}, or -1 for as many as reconnect_period_ms allows")
    })
}

fn demand(
    holds: bool,
    setting: &'static str,
    given: impl ToString,
    rule: impl FnOnce() -> String,
) -> Result<(), InvalidSetting> {
    if holds {
        return Ok(());
    }
    Err(InvalidSetting {
        setting,
        given: given.to_string(),
        rule: rule(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used() {
        assert_eq!(FactorySettings::default().check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_is_allowed() {
        let check = |json: &str| {
            let settings: FactorySettings = serde_json::from_str(json).expect("JSON");
            settings.check().map_err(|why| why.to_string())
        };
        let refused = [
            (r#"{"reconnect_period_ms":0}"#, "reconnect_period_ms is 0"),
            (r#"{"call_timeout_ms":18446744073709551615}"#, "31 days"),
            (r#"{"client_failure_check_period_ms":99}"#, "from 100 to"),
            (
                r#"{"connection_ttl_ms":4999}"#,
                "client_failure_check_period_ms, which is 5000",
            ),
            (
                r#"{"reconnect_interval_ms":501}"#,
                "max_reconnect_interval_ms, which is 500",
            ),
            (r#"{"reconnect_interval_multiplier":0.5}"#, "from 1.0 to 100.0"),
            (r#"{"reconnect_attempts":-2}"#, "reconnect_attempts is -2"),
            (r#"{"initial_connect_attempts":0}"#, "at least 1, or -1"),
        ];
        for (json, part) in refused {
            let why = check(json).expect_err(json);
            assert!(why.contains(part), "{why}");
        }
        for json in [
            r#"{"reconnect_attempts":0}"#,
            r#"{"request_blocking_time_ms":0,"reconnect_interval_ms":0}"#,
            r#"{"initial_connect_attempts":-1}"#,
        ] {
            assert_eq!(check(json), Ok(()));
        }
        let nan = FactorySettings {
            reconnect_interval_multiplier: f64::NAN,
            ..FactorySettings::default()
        };
        assert!(nan.check().is_err());
    }
}
