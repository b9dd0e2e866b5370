//! Where the message of each id is, while a store is read back.
//!
//! Ids are given out in ascending order and mostly recorded so: those stand in a list, found again from where the last
//! one was found. The few that come late, because a compaction or a transaction recorded them later, are hashed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::arena::NONE;

/// Entries of messages that are gone, before the list is packed.
const GONE_MIN: usize = 1024;

/// Spreads message numbers, which we gave out ourselves one after the other.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio of 2^64 spreads neighbours over the high bits; the table wants them low as well.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }
}

/// An index for each id.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Ascending ids; `NONE` where the message is gone.
    ordered: Vec<(u64, u32)>,
    /// How many of them are gone.
    gone: usize,
    /// Where the last one was found.
    cursor: usize,
    /// The highest id that was ever entered.
    highest: u64,
    late: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
}

impl Places {
    /// Enters a message. Returns the index that was entered under this id before.
    pub(super) fn insert(&mut self, id: u64, index: u32) -> Option<u32> {
        if id > self.highest {
            self.highest = id;
            self.ordered.push((id, index));
            return None;
        }
        match self.find(id) {
            Some(at) => Some(std::mem::replace(&mut self.ordered[at].1, index)),
            None => self.late.insert(id, index),
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<u32> {
        let Some(at) = self.find(id) else {
            return self.late.remove(&id);
        };
        let index = std::mem::replace(&mut self.ordered[at].1, NONE);
        self.gone += 1;
        if self.gone > GONE_MIN.max(self.ordered.len() / 2) {
            self.ordered.retain(|(_, index)| *index != NONE);
            (self.gone, self.cursor) = (0, 0);
        }
        Some(index)
    }

    pub(super) fn get(&mut self, id: u64) -> Option<u32> {
        match self.find(id) {
            Some(at) => Some(self.ordered[at].1),
            None => self.late.get(&id).copied(),
        }
    }

    /// The messages that are not gone, by id.
    pub(super) fn into_order(self) -> Vec<(u64, u32)> {
        let mut order = self.ordered;
        order.retain(|(_, index)| *index != NONE);
        order.extend(self.late);
        order.sort_unstable(); // Which is one look where nothing came late.
        order
    }

    /// Where in the list a message that is not gone stands.
    fn find(&mut self, id: u64) -> Option<usize> {
        let found = self.ordered.get(self.cursor).map_or(0, |(other, _)| *other);
        let (from, to) = if found > id {
            (0, self.cursor)
        } else {
            let mut step = 1;
            while self
                .ordered
                .get(self.cursor + step)
                .is_some_and(|(other, _)| *other < id)
            {
                step *= 2;
            }
            (self.cursor, self.ordered.len().min(self.cursor + step + 1))
        };
        let at = from
            + self
                .ordered
                .get(from..to)?
                .partition_point(|(other, _)| *other < id);
        let (other, index) = self.ordered.get(at)?;
        if *other != id || *index == NONE {
            return None;
        }
        self.cursor = at;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_answers_as_a_plain_map_does_whatever_the_order() {
        let (mut places, mut plain) = (Places::default(), BTreeMap::new());
        let mut state: u64 = 7;
        for round in 0..60_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly the next id, sometimes an old one; more and more of them go.
            let near = u64::from(round) / 2 + 1;
            let id = if state >> 61 == 0 { state % near + 1 } else { near };
            if round % 2 == 0 {
                assert_eq!(places.insert(id, round), plain.insert(id, round));
            } else {
                let old = near.saturating_sub((state >> 33) & 0xFFF) + 1;
                assert_eq!(places.get(old), plain.get(&old).copied());
                assert_eq!(places.remove(old), plain.remove(&old));
            }
        }
        for id in 0..=40_000 {
            assert_eq!(places.get(id), plain.get(&id).copied(), "{id}");
        }
        assert_eq!(places.into_order(), plain.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_gone_takes_no_room_for_long() {
        let mut places = Places::default();
        for id in 1..=100_000 {
            places.insert(id, 1);
            places.remove(id);
        }
        assert!(places.ordered.len() <= 2 * GONE_MIN, "{}", places.ordered.len());
    }
}
