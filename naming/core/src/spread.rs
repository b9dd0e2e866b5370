//! How far apart clients should act on a change of exports, so that not all of them reconnect at once.

use daymark_naming_proto::{Change, ChangeKind};

/// Watchers who are asked to act within one millisecond.
const WATCHERS_PER_MS: u64 = 10;
/// The longest window, in milliseconds.
const SPREAD_MS_MAX: u64 = 2_000;

/// The window over which `watchers` clients should act on these changes, in milliseconds: a tenth of a
/// millisecond for each, at most 2 s. 0 where nothing a group exports is among them: clients reconnect because a
/// broker comes or goes, not because somebody bound a name.
#[must_use]
pub fn spread_ms(changes: &[Change], watchers: u64) -> u64 {
    let is_export = |change: &Change| match &change.kind {
        ChangeKind::Bound { binding } | ChangeKind::Rebound { binding } => binding.owner.is_some(),
        ChangeKind::Withheld { .. } => true,
        ChangeKind::Unbound => false,
    };
    if changes.iter().any(is_export) {
        (watchers / WATCHERS_PER_MS).min(SPREAD_MS_MAX)
    } else {
        0
    }
}
