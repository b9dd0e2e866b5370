//! Outstanding deliveries by delivery-id: constant time in the usual case, memory bounded by what is live.
//!
//! Ids are serial numbers: they grow and wrap. Invariant: ids in the ring ascend, and the last is less than
//! 2^31 after the first, so that comparing by wrapped difference is sound.

use std::collections::VecDeque;
use std::ops::Range;

/// Whether `a` comes before `b` in serial-number arithmetic (RFC 1982).
pub(crate) const fn serial_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b)).cast_signed() < 0
}

/// What is left of `granted` when the peer had counted to `seen` and we have counted to `count` since: a
/// flow may cross what we sent meanwhile.
pub(crate) const fn left(granted: u32, seen: u32, count: u32) -> u32 {
    if serial_before(count, seen) {
        granted
    } else {
        granted.saturating_sub(count.wrapping_sub(seen))
    }
}

#[derive(Debug)]
pub(crate) struct Ring<T> {
    slots: VecDeque<(u32, Option<T>)>,
    live: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            live: 0,
        }
    }
}

impl<T> Ring<T> {
    /// Adds the newest id. False if it is not newer than the last, or too far from the first.
    #[must_use]
    pub(crate) fn push(&mut self, id: u32, value: T) -> bool {
        if let (Some((first, _)), Some((last, _))) = (self.slots.front(), self.slots.back())
            && (!serial_before(*last, id) || serial_before(id, *first))
        {
            return false;
        }
        self.slots.push_back((id, Some(value)));
        self.live += 1;
        true
    }

    pub(crate) fn lookup(&self, id: u32) -> Option<&T> {
        let index = self.lower_bound(id);
        self.slots.get(index).filter(|slot| slot.0 == id)?.1.as_ref()
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let index = self.lower_bound(id);
        let value = self.slots.get_mut(index).filter(|slot| slot.0 == id)?.1.take()?;
        self.live -= 1;
        self.tidy();
        Some(value)
    }

    /// The places of the ids from `first` to `last`.
    pub(crate) fn range(&self, first: u32, last: u32) -> Range<usize> {
        let start = self.lower_bound(first);
        let end = self.lower_bound(last);
        let includes_last = self.slots.get(end).is_some_and(|slot| slot.0 == last);
        start..(end + usize::from(includes_last)).max(start)
    }

    pub(crate) fn at(&mut self, index: usize) -> Option<(u32, &mut T)> {
        let (id, value) = self.slots.get_mut(index)?;
        value.as_mut().map(|value| (*id, value))
    }

    /// Empties these places.
    pub(crate) fn clear(&mut self, range: Range<usize>) {
        for slot in self.slots.range_mut(range) {
            if slot.1.take().is_some() {
                self.live -= 1;
            }
        }
        self.tidy();
    }

    /// Takes out every value that `wanted` picks, oldest first.
    pub(crate) fn extract(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<(u32, T)> {
        let mut taken = Vec::new();
        for (id, value) in &mut self.slots {
            if let Some(value) = value.take_if(|value| wanted(value)) {
                taken.push((*id, value));
            }
        }
        self.live -= taken.len();
        self.tidy();
        taken
    }

    /// The first place whose id is not before `id`.
    fn lower_bound(&self, id: u32) -> usize {
        let Some((first, _)) = self.slots.front() else {
            return 0;
        };
        if !serial_before(*first, id) {
            return 0;
        }
        let offset = id.wrapping_sub(*first);
        let guess = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        // Ids without gaps lie exactly at their offset; with gaps, earlier.
        if self.slots.get(guess).is_some_and(|slot| slot.0 == id) {
            return guess;
        }
        let (mut low, mut high) = (0, guess);
        while low < high {
            let middle = low + (high - low) / 2;
            if serial_before(self.slots[middle].0, id) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    /// Drops empty places at the front, and all of them once they outnumber the live ones.
    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.1.is_none()) {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.live + 64 {
            self.slots.retain(|slot| slot.1.is_some());
        }
    }

    pub(crate) fn shrink(&mut self) {
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ids_with_gaps_and_across_the_wrap() {
        let mut ring = Ring::default();
        for id in [u32::MAX - 3, u32::MAX - 1, u32::MAX, 0, 7, 9] {
            assert!(ring.push(id, id));
        }
        for id in [u32::MAX - 3, u32::MAX - 1, u32::MAX, 0, 7, 9] {
            assert_eq!(ring.lookup(id), Some(&id));
        }
        for id in [u32::MAX - 4, u32::MAX - 2, 1, 8, 10] {
            assert_eq!(ring.lookup(id), None);
        }
        assert_eq!(ring.range(u32::MAX - 2, 8), 1..5);
        assert_eq!(ring.range(u32::MAX - 100, u32::MAX - 50), 0..0);
        assert_eq!(ring.range(10, 100), 6..6);
    }

    #[test]
    fn refuses_ids_that_do_not_ascend() {
        let mut ring = Ring::default();
        assert!(ring.push(5, ()));
        assert!(!ring.push(5, ()));
        assert!(!ring.push(4, ()));
        assert!(!ring.push(5_u32.wrapping_add(1 << 31), ()));
        assert!(ring.push(6, ()));
    }

    #[test]
    fn one_old_delivery_does_not_hold_the_memory_of_all_later_ones() {
        let mut ring = Ring::default();
        assert!(ring.push(0, 0));
        for id in 1..100_000 {
            assert!(ring.push(id, id));
            assert_eq!(ring.remove(id), Some(id));
        }
        assert!(ring.slots.len() < 128);
        assert_eq!(ring.remove(0), Some(0));
        assert_eq!(ring.live, 0);
    }
}
