//! How patient the naming client is.

use std::time::Duration;

/// How the naming client connects, waits and gives up. Every time is finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamingConfig {
    /// How long one address may take to accept a connection. Default 300 ms.
    pub connect_timeout: Duration,
    /// How long an attempt runs alone before the next server is tried beside it. Default 200 ms.
    pub stagger: Duration,
    /// How long one server may take to answer one request. Default 2 s.
    pub call_timeout: Duration,
    /// How long one call may take over all servers and repetitions. Default 10 s.
    pub total_timeout: Duration,
    /// The pause before a server that failed is tried again; it doubles with each failure. Default 20 ms.
    pub backoff_min: Duration,
    /// The longest such pause. Default 1 s.
    pub backoff_max: Duration,
    /// Who asks. Default nobody in particular.
    pub credentials: Option<Credentials>,
}

impl Default for NamingConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(300),
            stagger: Duration::from_millis(200),
            call_timeout: Duration::from_secs(2),
            total_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            credentials: None,
        }
    }
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password. `Debug` does not show it.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
