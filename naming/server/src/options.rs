//! What an operator may choose about a naming server.

use std::path::PathBuf;
use std::time::Duration;

use daymark_naming_proto::{DEFAULT_PORT, Endpoint};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How a naming server runs.
#[derive(Clone, Debug)]
pub struct NamingOptions {
    /// Where both doors listen. Default `0.0.0.0:9736`; port 0 takes any free one.
    pub listen: Endpoint,
    /// The data directory. It is made where only its last component is missing. One process at a time
    /// holds it.
    pub data: PathBuf,
    /// What one peer, and all peers together, may take. See [`Limits`].
    pub limits: Limits,
    /// What the directory itself may hold.
    pub directory: daymark_naming_core::Limits,
    /// How the log is kept and compacted. See [`Storage`].
    pub storage: Storage,
}

impl NamingOptions {
    /// Defaults, with this data directory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: Endpoint {
                host: "0.0.0.0".to_owned(),
                port: DEFAULT_PORT,
            },
            data: data.into(),
            limits: Limits::default(),
            directory: daymark_naming_core::Limits::default(),
            storage: Storage::default(),
        }
    }

    /// Takes limits and storage from a TOML text with the tables `limits`, `directory` and `storage`, whose keys are
    /// the fields of [`Limits`], of the directory's limits and of [`Storage`]; times are texts such as `"10s"` or
    /// `"500ms"`. What it does not name has its default. The directory keeps the limits it was made with.
    ///
    /// # Errors
    /// `InvalidConfig` with the place: an unknown key, a value that cannot be one, or a limit that nothing fits in.
    pub fn configure(&mut self, text: &str) -> Result<(), InvalidConfig> {
        let refused = |error: toml::de::Error| InvalidConfig(error.to_string().trim_end().to_owned());
        let file: File = toml::from_str(text).map_err(refused)?;
        file.limits.check()?;
        self.limits = file.limits;
        self.directory = file.directory;
        self.storage = file.storage;
        Ok(())
    }
}

/// A configuration that cannot be used: where and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(String);

/// A configuration file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    limits: Limits,
    directory: daymark_naming_core::Limits,
    storage: Storage,
}

/// A time with its unit, as `duration` reads it.
fn with_unit<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let milliseconds = duration.as_millis();
    let text = match milliseconds % 1_000 {
        0 => format!("{}s", milliseconds / 1_000),
        _ => format!("{milliseconds}ms"),
    };
    serializer.serialize_str(&text)
}

/// A time with its unit.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let milliseconds = crate::http::milliseconds(&text).map_err(de::Error::custom)?;
    Ok(Duration::from_millis(milliseconds))
}

/// What one peer, and all peers together, may take. `docs/directory.md` says what a peer is told that hits one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time, over both doors. Default 20,000. One more is told so and closed. The server raises
    /// the process's limit of open files for them, and permits fewer where the hard limit is lower.
    pub connections_max: usize,
    /// Bytes of an HTTP body, or of one argument of a RESP command; a command may have twice as many in all.
    /// Default 1 MiB.
    pub request_bytes_max: usize,
    /// Bytes of the head of one HTTP request. Default 32 KiB, at least 8 KiB.
    pub head_bytes_max: usize,
    /// Arguments of one RESP command. Default 32.
    pub arguments_max: usize,
    /// How long the first bytes, the head of an HTTP request, its body, or the rest of a RESP command that
    /// has begun may take. It also ends an HTTP/1.1 connection nobody asks anything on. Default 10 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub header_timeout: Duration,
    /// How long a RESP connection without a watch may be silent, and an HTTP/2 connection without a request under way.
    /// Default 10 minutes.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub idle_timeout: Duration,
    /// How long a RESP connection with a watch may hear nothing and say nothing. Whether its peer is there at all is
    /// known within about two minutes. Default 1440 minutes, a day.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub watch_idle_timeout: Duration,
    /// How long a peer may refuse to read what it asked for. Default 30 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub stall_timeout: Duration,
    /// Bytes of requests that are not whole yet, of all connections together, beyond 16 KiB for each connection.
    /// Default 256 MiB. A request for which there is no room is refused, and a RESP connection ends with it.
    pub input_bytes_max: usize,
    /// How long a write may take to become durable before its outcome is unknown, and how long a strong read
    /// may take. Default 10 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub write_timeout: Duration,
    /// Bytes of the writes that are under way at a time, over both doors. Default 256 MiB. One more is answered
    /// `ServiceUnavailable`: it was not stored, and may be repeated.
    pub write_bytes_max: usize,
    /// Writes of one RESP connection that are under way together: one that pipelines more waits for the first ones.
    /// Default 1,024. They take at most an eighth of `write_bytes_max`.
    pub writes_per_connection_max: usize,
    /// Requests of one HTTP/2 connection that are under way together; one more is refused by the protocol
    /// (`REFUSED_STREAM`). Default 256. An HTTP/1.1 connection has one at a time.
    pub streams_per_connection_max: u32,
    /// The most bindings one search returns, whatever it asks for. Default 10,000.
    pub search_size_max: u64,
    /// The longest one search may take, whatever it asks for. Default 10 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub search_time_max: Duration,
    /// The longest a lookup waits for a name to be bound, whatever it asks for. Default 60 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub wait_max: Duration,
    /// Lookups that wait at a time. Default 10,000.
    pub waiters_max: usize,
    /// Watches at a time, over both doors. Default 100,000.
    pub watches_max: usize,
    /// Watches of one RESP connection. Default 1,000.
    pub watches_per_connection_max: usize,
    /// Bytes of events that wait for one RESP connection, or one HTTP watch, to be read. Default 4 MiB.
    /// A watch that would pass it ends with `Compacted`.
    pub watch_buffer_bytes_max: usize,
    /// Bytes of encoded answers that are kept, so that a lookup is a copy. Default 64 MiB. What is asked for beyond
    /// them is encoded anew.
    pub reply_bytes_max: usize,
    /// How often a silent HTTP watch gets a comment, so that both sides notice a dead connection. Default 15 s.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub keepalive: Duration,
    /// How long a stopping server waits for answers under way, then for its replica, then for its disk. Default 2 s
    /// each.
    #[serde(deserialize_with = "duration", serialize_with = "with_unit")]
    pub stop_timeout: Duration,
}

impl Limits {
    /// Refuses limits that nothing fits in.
    fn check(&self) -> Result<(), InvalidConfig> {
        let counts = [
            ("connections_max", self.connections_max, 1),
            ("request_bytes_max", self.request_bytes_max, 4 << 10),
            ("arguments_max", self.arguments_max, 16),
            ("write_bytes_max", self.write_bytes_max, self.request_bytes_max),
            ("watch_buffer_bytes_max", self.watch_buffer_bytes_max, 4 << 10),
            ("writes_per_connection_max", self.writes_per_connection_max, 1),
            (
                "streams_per_connection_max",
                self.streams_per_connection_max as usize,
                1,
            ),
        ];
        for (name, given, least) in counts {
            if given < least {
                return Err(InvalidConfig(format!(
                    "limits.{name} is {given}: at least {least} is needed"
                )));
            }
        }
        let times = [
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("watch_idle_timeout", self.watch_idle_timeout),
            ("stall_timeout", self.stall_timeout),
            ("write_timeout", self.write_timeout),
            ("search_time_max", self.search_time_max),
            ("keepalive", self.keepalive),
        ];
        match times.iter().find(|(_, given)| given.is_zero()) {
            Some((name, _)) => Err(InvalidConfig(format!(
                "limits.{name} is 0: nothing could be in time"
            ))),
            None => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            request_bytes_max: 1 << 20,
            head_bytes_max: 32 << 10,
            arguments_max: 32,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            watch_idle_timeout: Duration::from_secs(86_400),
            stall_timeout: Duration::from_secs(30),
            input_bytes_max: 256 << 20,
            write_timeout: Duration::from_secs(10),
            write_bytes_max: 256 << 20,
            writes_per_connection_max: 1_024,
            streams_per_connection_max: 256,
            search_size_max: 10_000,
            search_time_max: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
            waiters_max: 10_000,
            watches_max: 100_000,
            watches_per_connection_max: 1_000,
            watch_buffer_bytes_max: 4 << 20,
            reply_bytes_max: 64 << 20,
            keepalive: Duration::from_secs(15),
            stop_timeout: Duration::from_secs(2),
        }
    }
}

/// How the log is kept and compacted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Size of one journal segment in bytes. Default 16 MiB.
    pub segment_bytes: u64,
    /// Writes after which a snapshot is made and the log before it is released; half as many as the last snapshot
    /// holds names, where that is more. Default 200,000.
    pub snapshot_writes: u64,
    /// Bytes of log after which a snapshot is made, whatever the number of writes; half as many as the last snapshot
    /// has, where that is more. Default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// How many entries before a snapshot stay in the log, for replicas that lag. Default 0: a cluster of one
    /// has none.
    pub entries_kept: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            snapshot_writes: 200_000,
            snapshot_log_bytes: 64 << 20,
            entries_kept: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(text: &str) -> Result<NamingOptions, String> {
        let mut options = NamingOptions::new("data");
        let done = options.configure(text);
        done.map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_names_what_differs_from_the_defaults() {
        let text = "[limits]\nwatches_max = 7\nidle_timeout = \"2m\"\n[directory]\nnames_max = 9\n[storage]\nsnapshot_writes = 3";
        let options = configured(text).expect("a configuration");
        assert_eq!(options.limits.watches_max, 7);
        assert_eq!(options.limits.idle_timeout, Duration::from_secs(120));
        assert_eq!(
            (options.directory.names_max, options.storage.snapshot_writes),
            (9, 3)
        );
        assert_eq!(options.limits.connections_max, Limits::default().connections_max);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, named) in [
            ("[limits]\nstray = 1", "stray"),
            ("[stray]", "stray"),
            ("[directory]\nstray = 1", "stray"),
            ("[storage]\nstray = 1", "stray"),
            ("[limits]\nidle_timeout = 10", "idle_timeout"),
            ("[limits]\nidle_timeout = \"10\"", "duration"),
            ("[limits]\nheader_timeout = \"0s\"", "header_timeout"),
            ("[limits]\nconnections_max = 0", "connections_max"),
            (
                "[limits]\nwrites_per_connection_max = 0",
                "writes_per_connection_max",
            ),
            (
                "[limits]\nstreams_per_connection_max = 0",
                "streams_per_connection_max",
            ),
            ("[limits]\nwatch_idle_timeout = \"0s\"", "watch_idle_timeout"),
            ("[limits]\nwrite_bytes_max = 5000", "write_bytes_max"),
        ] {
            let error = configured(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
