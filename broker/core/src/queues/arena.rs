//! Places with generations: a handle to something gone never reaches its successor.

/// Stands for "no place" in links between places.
pub(super) const NONE: u32 = u32::MAX;

/// A handle: index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Places in one block of memory. A block stays where it is when the next one is added, so that no insertion ever
/// waits while millions of places are copied, and no more memory is taken than one block beyond what is used.
const BLOCK: usize = 1 << 12;

/// Values with stable indices; freed places are used again, the latest first.
#[derive(Debug)]
pub(super) struct Arena<T> {
    /// All but the last are full.
    blocks: Vec<Vec<Place<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Arena<T> {
    fn place(&self, index: u32) -> Option<&Place<T>> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get(index % BLOCK)
    }

    fn place_mut(&mut self, index: u32) -> Option<&mut Place<T>> {
        let index = index as usize;
        self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)
    }

    /// The block that takes the next place that was never used.
    fn last_block(&mut self) -> &mut Vec<Place<T>> {
        if self.blocks.last().is_none_or(|last| last.len() == BLOCK) {
            // The first one grows as it is filled: most arenas stay small.
            let size = if self.blocks.is_empty() { 0 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(size));
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.place_mut(index)
        {
            place.value = Some(value);
            let generation = place.generation;
            return Key { index, generation };
        }
        let index = self.capacity();
        assert!(index < NONE, "more than four billion places are in use");
        self.last_block().push(Place {
            generation: 0,
            value: Some(value),
        });
        Key { index, generation: 0 }
    }

    pub(super) fn fetch(&self, key: Key) -> Option<&T> {
        let place = self.place(key.index)?;
        place
            .value
            .as_ref()
            .filter(|_| place.generation == key.generation)
    }

    pub(super) fn fetch_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.place_mut(key.index)?;
        let generation = place.generation;
        place.value.as_mut().filter(|_| generation == key.generation)
    }

    /// The value at an index, whatever its generation.
    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.place(index)?.value.as_ref()
    }

    /// The value at an index, whatever its generation.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.place_mut(index)?.value.as_mut()
    }

    /// The handle of an index in use.
    pub(super) fn key(&self, index: u32) -> Key {
        let generation = self.blocks[index as usize / BLOCK][index as usize % BLOCK].generation;
        Key { index, generation }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.place_mut(index)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    pub(super) fn remove_key(&mut self, key: Key) -> Option<T> {
        self.fetch(key)?;
        self.remove(key.index)
    }

    /// Indices ever used: every value lies below.
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.used()).unwrap_or(NONE)
    }

    fn used(&self) -> usize {
        match self.blocks.split_last() {
            None => 0,
            Some((last, full)) => full.len() * BLOCK + last.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_to_something_gone_never_reaches_its_successor() {
        let mut arena = Arena::default();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first.index), Some("first"));
        let second = arena.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(arena.fetch(first), None);
        assert_eq!(arena.fetch(second), Some(&"second"));
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn a_value_stays_where_it_is_whatever_comes_behind_it() {
        let mut arena = Arena::default();
        let count = u32::try_from(3 * BLOCK + 1).unwrap();
        for number in 0..count {
            assert_eq!(arena.insert(number).index, number);
        }
        let first: *const u32 = arena.at(BLOCK as u32).unwrap();
        (0..count).for_each(|number| {
            arena.insert(number);
        });
        assert!(std::ptr::eq(first, arena.at(BLOCK as u32).unwrap()));
        assert!((0..2 * count).all(|index| arena.at(index) == Some(&(index % count))));
        assert_eq!((arena.len() as u32, arena.capacity()), (2 * count, 2 * count));
        assert_eq!(arena.at(2 * count), None);
    }
}
