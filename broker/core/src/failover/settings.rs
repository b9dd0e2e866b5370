//! What an operator may choose about failover, with the names and defaults they know.

use std::time::Duration;

use crate::detector::{InvalidTiming, Timing};

/// How a broker starts, watches, takes over and gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a probe of a suspected active broker may stay without an answer. Default 5,000 ms.
    pub check_health_response_timeout: Duration,
    /// How long one search for an active broker takes at start-up. Default 5,000 ms.
    pub discovery_response_timeout: Duration,
    /// Searches for an active broker before this one takes over at start-up. Default 1; 0 = at once. A
    /// primary ends its search as soon as nobody answers; a backup uses all of it, to give the primary a
    /// chance. 0 is safe because the store's lock stands behind it.
    pub start_up_max_try_count: u32,
    /// Probes of a suspected active broker before this one takes over. Default `Times(5)`.
    pub fail_over_max_try_count: Tries,
    /// Whether an active broker whose role is `backup` hands the service back to a `primary` that is a ready
    /// standby again. Default true. A primary that an operator switched away from is left alone until its
    /// process is started anew.
    pub auto_switchover: bool,
    /// How long the primary must have been ready, without interruption, before it is handed the service.
    /// Default 2,000 ms.
    pub failback_delay: Duration,
    /// Whether a planned stop of the active broker hands over to a standby. Default false: an operator who
    /// stops a broker means the service to stop.
    pub failover_on_shutdown: bool,
    /// How long the next one may take to become active in a handover before the old active takes the store
    /// back, if it is free. Default 5,000 ms.
    pub switchover_timeout: Duration,
    /// How long one step of a promotion may take: the lock, the epoch, the port. Default 10,000 ms. A disk
    /// that hangs must not keep a broker between two states.
    pub step_timeout: Duration,
    /// How long reading the store may take. Default 600,000 ms.
    pub recovery_timeout: Duration,
    /// How long a membership of the group lasts without renewal; it is renewed every third of that.
    /// Default 1,500 ms, at least three heartbeats. A frozen broker is followed when its lease has ended.
    pub lease: Duration,
    /// How long naming may take to grant a claim before the store's lock decides alone. Default 500 ms.
    pub claim_timeout: Duration,
    /// How long a store that is still locked after a confirmed death is tried again, every millisecond: a
    /// kernel closes the sockets of a killed process a moment before it releases its locks. Default 1,000 ms.
    pub lock_window: Duration,
    /// Heartbeats between the brokers.
    pub timing: Timing,
}

/// How often something is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// Never (-1): the broker never takes over by itself.
    Never,
    /// So many times; 0 = it is not asked at all.
    Times(u32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            check_health_response_timeout: Duration::from_millis(5000),
            discovery_response_timeout: Duration::from_millis(5000),
            start_up_max_try_count: 1,
            fail_over_max_try_count: Tries::Times(5),
            auto_switchover: true,
            failback_delay: Duration::from_millis(2000),
            failover_on_shutdown: false,
            switchover_timeout: Duration::from_millis(5000),
            step_timeout: Duration::from_millis(10_000),
            recovery_timeout: Duration::from_millis(600_000),
            lease: Duration::from_millis(1500),
            claim_timeout: Duration::from_millis(500),
            lock_window: Duration::from_millis(1000),
            timing: Timing::default(),
        }
    }
}

/// Settings that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The heartbeats.
    #[error(transparent)]
    Timing(#[from] InvalidTiming),
    /// A lease that one late heartbeat or renewal would end, or longer than naming allows.
    #[error(
        "lease_ms is {lease_ms}: it must be at least three heartbeats ({heartbeat_ms} ms each) and from 100 to 3600000"
    )]
    Lease {
        /// The lease given.
        lease_ms: u128,
        /// The heartbeat.
        heartbeat_ms: u128,
    },
    /// A wait of zero: nobody could ever answer in time.
    #[error("{setting} is 0 ms: nobody could answer in time")]
    NoTime {
        /// The setting.
        setting: &'static str,
    },
}

impl Settings {
    /// Whether the settings fit together.
    ///
    /// # Errors
    /// `InvalidSettings` names the one that does not.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        self.timing.check()?;
        let lease_ms = self.lease.as_millis();
        if self.lease < self.timing.heartbeat * 3 || !(100..=3_600_000).contains(&lease_ms) {
            return Err(InvalidSettings::Lease {
                lease_ms,
                heartbeat_ms: self.timing.heartbeat.as_millis(),
            });
        }
        let waits = [
            (
                "check_health_response_timeout",
                self.check_health_response_timeout,
            ),
            ("discovery_response_timeout", self.discovery_response_timeout),
            ("claim_timeout_ms", self.claim_timeout),
            ("switchover_timeout_ms", self.switchover_timeout),
            ("step_timeout_ms", self.step_timeout),
            ("recovery_timeout_ms", self.recovery_timeout),
        ];
        match waits.into_iter().find(|(_, wait)| wait.is_zero()) {
            Some((setting, _)) => Err(InvalidSettings::NoTime { setting }),
            None => Ok(()),
        }
    }
}

/// Pauses that are not worth a setting.
pub(super) mod pause {
    use std::time::Duration;

    /// Between two attempts to take a lock that is about to be released.
    pub(in crate::failover) const LOCK: Duration = Duration::from_millis(1);
    /// Between two attempts to reach naming while it does not answer.
    pub(in crate::failover) const NAMING: Duration = Duration::from_millis(200);
    /// Between two looks at the group while the active broker is suspected: its lease may end any moment.
    pub(in crate::failover) const SUSPECTED: Duration = Duration::from_millis(50);
    /// Before names that naming refused are offered again.
    pub(in crate::failover) const LEFT_OUT: Duration = Duration::from_secs(5);
    /// Before a failback that came to nothing is tried again.
    pub(in crate::failover) const FAILBACK: Duration = Duration::from_secs(60);
    /// Before a standby that knows no active broker tries the store again.
    pub(in crate::failover) const ORPHAN: Duration = Duration::from_millis(1000);
}
