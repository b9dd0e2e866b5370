//! Places with generations: a handle to something gone never reaches its successor.

use crate::event::Key;

#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.1 = Some(value);
            return Key {
                index,
                generation: place.0,
            };
        }
        // Sessions and links are limited far below 2^32.
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    #[inline]
    pub(crate) fn fetch(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.0 == key.generation {
            place.1.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn fetch_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.0 == key.generation {
            place.1.as_mut()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self
            .places
            .get_mut(key.index as usize)
            .filter(|place| place.0 == key.generation)?;
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let live = self
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.1.is_some());
        live.map(|(index, place)| Key {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation: place.0,
        })
        .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
