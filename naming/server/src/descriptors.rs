//! How many connections the system's limit of open files permits.
//!
//! The log opens files while it runs, and an open that fails ends its writes for good: connections must never
//! take the last descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not for connections: the log, snapshots, the runtime, and a connection that is
/// refused.
const RESERVE: u64 = 64;

/// Raises this process's limit of open files as far as `connections_max` connections need it and the hard limit
/// permits, and says how many connections there may be.
pub(crate) fn room_for_connections(connections_max: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else {
        return connections_max;
    };
    let wanted = wanted(connections_max, current, limit.maximum);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    let files = if wanted > current && setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        current
    };
    let room = room(connections_max, files);
    if room < connections_max {
        tracing::warn!(
            files,
            connections = room,
            wanted = connections_max,
            "the limit of open files permits fewer connections"
        );
    }
    room
}

/// The limit to ask for.
fn wanted(connections_max: usize, current: u64, hard: Option<u64>) -> u64 {
    let wanted = (connections_max as u64).saturating_add(RESERVE);
    wanted.min(hard.unwrap_or(u64::MAX)).max(current)
}

/// The connections that fit beside everything else, at least one.
fn room(connections_max: usize, files: u64) -> usize {
    let room = usize::try_from(files.saturating_sub(RESERVE).max(1)).unwrap_or(usize::MAX);
    room.min(connections_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_never_lowered() {
        assert_eq!(wanted(20_000, 1_024, Some(500_000)), 20_000 + RESERVE);
        assert_eq!(wanted(20_000, 1_024, Some(4_096)), 4_096);
        assert_eq!(wanted(20_000, 1_024, None), 20_000 + RESERVE);
        assert_eq!(wanted(10, 1_024, Some(4_096)), 1_024);
    }

    #[test]
    fn connections_leave_descriptors_for_the_log() {
        assert_eq!(room(20_000, 1_024), 1_024 - 64);
        assert_eq!(room(20_000, 500_000), 20_000);
        assert_eq!(room(20_000, 10), 1);
    }
}
