//! The faults: each is chosen by a seeded generator, performed, and ended.

use std::fmt;
use std::time::Duration;

use super::relay::Line;
use super::world::World;

/// A broker, by what it is at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Active,
    Standby,
}

/// One fault. What lasts does so for so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill(Who),
    Freeze(Who, u64),
    Stop(Who),
    Switchover,
    /// Between clients and the active broker.
    CutClients(Line, u64),
    /// Between everybody and naming.
    CutNaming(Line, u64),
    DiskFull(u64),
    KillNaming(u64),
    FreezeNaming(u64),
    StopNaming(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Fault {
    /// A fault that may follow any other.
    pub(super) fn any(random: &mut fastrand::Rng) -> Self {
        let who = if random.u8(0..4) == 0 {
            Who::Standby
        } else {
            Who::Active
        };
        let line = if random.bool() { Line::Silent } else { Line::Broken };
        let short = random.u64(100..3_000);
        let long = random.u64(500..6_000);
        match random.u8(0..14) {
            0..=2 => Self::Kill(who),
            3 | 4 => Self::Freeze(who, long),
            5 => Self::Stop(who),
            6 => Self::Switchover,
            7 | 8 => Self::CutClients(line, long),
            9 => Self::CutNaming(line, long),
            10 => Self::DiskFull(long),
            11 => Self::KillNaming(short),
            12 => Self::FreezeNaming(long),
            _ => Self::StopNaming(short),
        }
    }

    /// Whether a broker may die of it without a word to its clients and its store: it is killed, its successor has the
    /// store when it wakes, or its store fails.
    pub(super) const fn is_death(self) -> bool {
        match self {
            Self::Kill(_) | Self::Freeze(..) | Self::DiskFull(_) => true,
            Self::Stop(_)
            | Self::Switchover
            | Self::CutClients(..)
            | Self::CutNaming(..)
            | Self::KillNaming(_)
            | Self::FreezeNaming(_)
            | Self::StopNaming(_) => false,
        }
    }

    /// Lets it happen. Returns what else there is to say; everything is healed by [`World::heal`].
    pub(super) fn happen(self, world: &mut World) -> Vec<String> {
        let active = world.active();
        let seat = |who| match who {
            Who::Active => active,
            Who::Standby => 1 - active,
        };
        match self {
            Self::Kill(who) => world.seats[seat(who)].kill(),
            Self::Freeze(who, ms) => {
                world.seats[seat(who)].freeze();
                last(ms);
            }
            Self::Stop(who) => return world.seats[seat(who)].stop().into_iter().collect(),
            Self::Switchover => world.switch_over(),
            Self::CutClients(line, ms) => {
                world.to_brokers[active].set(line);
                last(ms);
            }
            Self::CutNaming(line, ms) => {
                world.to_naming.set(line);
                last(ms);
            }
            Self::DiskFull(ms) => {
                if !world.fill_disk() {
                    return vec!["there is no disk of its own to fill".to_owned()];
                }
                last(ms);
            }
            Self::KillNaming(ms) => {
                world.kill_naming();
                last(ms);
            }
            Self::FreezeNaming(ms) => {
                if let Some(naming) = world.naming() {
                    naming.freeze();
                }
                last(ms);
            }
            Self::StopNaming(ms) => {
                world.stop_naming();
                last(ms);
            }
        }
        Vec::new()
    }
}

/// A fault has a length of its own: this is no wait for anything.
fn last(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
