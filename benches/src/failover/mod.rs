//! How long clients go without service when the active broker fails or hands over, seen from the clients.
//!
//! A client sends one message after another and prints when each was acknowledged. The time without service is the
//! longest time between two acknowledgements, from the moment of the cause to the first acknowledgement that came from
//! the other broker. Both ends are read from the system's monotonic clock, which all processes of a machine share.

pub mod artemis;
pub mod client;
pub mod daymark;
pub mod end;
pub mod report;
pub mod row;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{Outcome, other};
use client::Gap;
use report::Shares;

/// What happens to the active broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, for as long as the clients go without service.
    Freeze,
    /// Every packet of its host is lost. The store's directory stays in its reach.
    Cut,
    /// An operator wants the other one to be active.
    Switchover,
}

impl Cause {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Freeze, Self::Cut, Self::Switchover];

    /// Its name, in the table and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::Switchover => "switchover",
        }
    }
}

/// Two brokers, one of them active.
pub trait Pair {
    /// Starts what was killed, lets go on what was frozen or cut off, and waits until one broker is active and the other
    /// one could follow it.
    ///
    /// # Errors
    /// That this did not come about in time.
    fn become_whole(&mut self) -> Outcome<()>;

    /// Gives the cause of a failover. It does not wait for its end.
    ///
    /// # Errors
    /// That it could not be given.
    fn fail(&mut self, cause: Cause) -> Outcome<()>;

    /// Where the time of the gap went, as far as the brokers tell.
    ///
    /// # Errors
    /// That they should, and do not.
    fn shares(&mut self, gap: &Gap) -> Outcome<Shares>;
}

/// How long a pair or a client may take to be ready.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// Waits until something is so, asking every few milliseconds.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Outcome<()> {
    let until = Instant::now() + READY;
    while !is_so() {
        end::go_on()?;
        if Instant::now() > until {
            return Err(other(format!("not within {READY:?}: {what}")).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The system's monotonic clock in nanoseconds, as every process of this machine reads it.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
