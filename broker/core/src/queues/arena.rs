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

/// Values with stable indices; freed places are used again, the latest first.
#[derive(Debug)]
pub(super) struct Arena<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Arena<T> {
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return Key {
                index,
                generation: place.generation,
            };
        }
        let index = u32::try_from(self.places.len()).unwrap_or(NONE);
        assert!(index < NONE, "more than four billion places are in use");
        self.places.push(Place {
            generation: 0,
            value: Some(value),
        });
        Key { index, generation: 0 }
    }

    pub(super) fn fetch(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        place
            .value
            .as_ref()
            .filter(|_| place.generation == key.generation)
    }

    pub(super) fn fetch_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        let generation = place.generation;
        place.value.as_mut().filter(|_| generation == key.generation)
    }

    /// The value at an index, whatever its generation.
    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.value.as_ref()
    }

    /// The value at an index, whatever its generation.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.value.as_mut()
    }

    /// The handle of an index in use.
    pub(super) fn key(&self, index: u32) -> Key {
        Key {
            index,
            generation: self.places[index as usize].generation,
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.places.get_mut(index as usize)?;
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
        u32::try_from(self.places.len()).unwrap_or(NONE)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
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
}
