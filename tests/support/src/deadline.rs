//! Waiting for something to become so, with an end.

use std::time::{Duration, Instant};

/// How often the world is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `is_so`.
///
/// # Panics
/// With `what`, when it is not so within `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    eventually_some(limit, what, || is_so().then_some(()));
}

/// Waits until `find` finds something, and returns it.
///
/// # Panics
/// With `what`, when nothing is found within `limit`.
#[track_caller]
pub fn eventually_some<T>(limit: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(began.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_so_is_returned() {
        let mut looks = 0;
        let found = eventually_some(Duration::from_secs(5), "three looks", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }

    #[test]
    #[should_panic(expected = "still not: the impossible")]
    fn what_never_becomes_so_ends_with_what_was_waited_for() {
        eventually(Duration::from_millis(20), "the impossible", || false);
    }
}
