//! The duplicate window of each queue: a ring of the latest duplicate ids.
//!
//! It decides whether a message was stored before. It forgets the oldest id when a new one needs its place.
//! Invariant: all windows together take no more than a quarter of what messages may take, unless one id of each
//! takes more.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::ops::{AddAssign, SubAssign};

use super::Queues;

/// Longest duplicate id in bytes; the driver refuses longer ones.
pub const MAX_DUPLICATE_ID_BYTES: usize = 255;

/// What an id takes in memory beside its text, roughly: a place in the ring and one in the set.
const ID_OVERHEAD: u64 = 112;

/// What a sender calls a message so that sending it again stores it once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DuplicateId(Form);

/// Ids made of 32 lower-case hexadecimal digits, which most are, take half the bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    Hex(u128),
    Text(Box<[u8]>),
}

/// A duplicate id of no bytes, or of more than [`MAX_DUPLICATE_ID_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duplicate id has 1 to {MAX_DUPLICATE_ID_BYTES} bytes, not {length}")]
pub struct InvalidDuplicateId {
    /// Bytes given.
    pub length: usize,
}

impl DuplicateId {
    /// The id of these bytes.
    ///
    /// # Errors
    /// [`InvalidDuplicateId`] if there are none or too many.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidDuplicateId> {
        if bytes.is_empty() || bytes.len() > MAX_DUPLICATE_ID_BYTES {
            return Err(InvalidDuplicateId { length: bytes.len() });
        }
        Ok(Self(match parse_hex(bytes) {
            Some(number) => Form::Hex(number),
            None => Form::Text(bytes.into()),
        }))
    }

    /// Appends the stored form: a length byte, 0 for 16 raw bytes, then the bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Hex(number) => {
                out.push(0);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Form::Text(bytes) => {
                // `new` permits no more than a byte can count.
                out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(bytes);
            }
        }
    }

    fn sizes(&self, position: u64) -> Sizes {
        let (text, stored) = match &self.0 {
            Form::Hex(_) => (0, 17),
            Form::Text(bytes) => (bytes.len() as u64, bytes.len() as u64 + 1),
        };
        Sizes {
            memory: ID_OVERHEAD + 2 * text,
            stored: if position == 0 { 0 } else { stored },
        }
    }

    /// Takes one stored id off the front of `bytes`.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let size = if length == 0 { 16 } else { usize::from(length) };
        let (id, rest) = rest.split_at_checked(size)?;
        *bytes = rest;
        Some(Self(match length {
            0 => Form::Hex(u128::from_be_bytes(id.try_into().ok()?)),
            _ => Form::Text(id.into()),
        }))
    }
}

fn parse_hex(bytes: &[u8]) -> Option<u128> {
    if bytes.len() != 32 {
        return None;
    }
    bytes.iter().try_fold(0u128, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Bytes that ids take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) memory: u64,
    /// In the store.
    pub(super) stored: u64,
}

impl AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.memory += other.memory;
        self.stored += other.stored;
    }
}

impl SubAssign for Sizes {
    fn sub_assign(&mut self, other: Self) {
        self.memory -= other.memory;
        self.stored -= other.stored;
    }
}

/// The latest ids of one queue, with the journal position that holds each (0: in memory only).
#[derive(Debug, Default)]
pub(super) struct DuplicateWindow {
    order: VecDeque<(DuplicateId, u64)>,
    known: HashSet<DuplicateId, Keyed>,
    sizes: Sizes,
}

/// Hashes with a key nobody outside knows, so that nobody can choose ids that all fall into one place. The
/// same key gives the same machine.
#[derive(Clone, Debug, Default)]
struct Keyed(u128);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u128(self.0);
        hasher
    }
}

impl DuplicateWindow {
    /// Chooses the key. Whatever is known is forgotten, until [`recalled`](Self::recalled).
    pub(super) fn set_key(&mut self, key: u128) {
        self.known = HashSet::with_hasher(Keyed(key));
    }

    pub(super) fn knows(&self, id: &DuplicateId) -> bool {
        !self.known.is_empty() && self.known.contains(id)
    }

    /// Remembers an id; with `capacity` others after it, it is forgotten again.
    pub(super) fn remember(&mut self, id: DuplicateId, position: u64, capacity: usize) {
        if !self.known.insert(id.clone()) {
            return;
        }
        self.sizes += id.sizes(position);
        self.order.push_back((id, position));
        while self.order.len() > capacity {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((oldest, position)) = self.order.pop_front() {
            self.known.remove(&oldest);
            self.sizes -= oldest.sizes(position);
        }
    }

    /// Forgets the oldest ids until the others take no more than `bytes`, or one is left.
    fn shrink_to(&mut self, bytes: u64) {
        if self.sizes.memory <= bytes {
            return;
        }
        while self.sizes.memory > bytes && self.order.len() > 1 {
            self.forget_oldest();
        }
        self.order.shrink_to_fit();
        self.known.shrink_to_fit();
    }

    pub(super) const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Adds an id read back from the store, which was new when it was stored. Nothing is known before
    /// [`recalled`](Self::recalled).
    pub(super) fn recall(&mut self, id: DuplicateId, position: u64, capacity: usize) {
        self.order.push_back((id, position));
        if self.order.len() > capacity {
            self.order.pop_front();
        }
    }

    /// Everything was read back.
    pub(super) fn recalled(&mut self) {
        let known = &mut self.known;
        known.reserve(self.order.len());
        // An id may be there twice if the window was smaller when it was stored.
        self.order.retain(|(id, _)| known.insert(id.clone()));
        self.sizes = Sizes::default();
        for (id, position) in &self.order {
            self.sizes += id.sizes(*position);
        }
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.known.clear();
    }

    /// The ids of stored messages, oldest first. Those of messages in memory must be forgotten with them:
    /// after a crash, sending such a message again has to store it.
    pub(super) fn stored_ids(&self) -> impl Iterator<Item = &DuplicateId> {
        self.order.iter().filter(|(_, at)| *at != 0).map(|(id, _)| id)
    }

    /// Whether an id that must survive lies in the journal below `position`.
    pub(super) fn reaches_below(&self, position: u64) -> bool {
        self.order.iter().any(|&(_, at)| at != 0 && at < position)
    }

    /// All stored ids were written again at `position`.
    pub(super) fn moved_to(&mut self, position: u64) {
        for (_, at) in self.order.iter_mut().filter(|(_, at)| *at != 0) {
            *at = position;
        }
    }
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Remembers the id of a message that was stored at `position`, or in memory only.
    pub(super) fn remember(&mut self, queue: u32, id: DuplicateId, position: u64) {
        let window = &mut self.queues[queue as usize].duplicates;
        self.windows -= window.sizes();
        window.remember(id, position, self.limits.duplicate_window);
        self.windows += window.sizes();
        self.bound_windows();
    }

    /// If all windows together take too much, those that take more than their share forget their oldest ids:
    /// so much that this is not needed again soon. Producers are not made to wait for that, as nobody takes
    /// ids away.
    pub(super) fn bound_windows(&mut self) {
        let limit = self.limits.max_bytes.min(self.limits.max_stored_bytes) / 4;
        if self.windows.memory <= limit {
            return;
        }
        let used = |queue: &&super::Queue| !queue.duplicates.order.is_empty();
        let count = self.queues.iter().filter(used).count() as u64;
        let share = limit / 4 * 3 / count.max(1);
        self.windows = Sizes::default();
        for queue in &mut self.queues {
            queue.duplicates.shrink_to(share);
            self.windows += queue.duplicates.sizes();
        }
    }

    /// What the duplicate ids of all queues take in memory, roughly.
    #[must_use]
    pub const fn duplicate_bytes(&self) -> u64 {
        self.windows.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_id_come_back_as_they_were() {
        for text in [
            "0123456789abcdef0123456789abcdef",
            "0123456789ABCDEF0123456789ABCDEF",
            "order-7",
        ] {
            let id = DuplicateId::new(text.as_bytes()).unwrap();
            let mut stored = Vec::new();
            id.encode(&mut stored);
            let mut rest = &stored[..];
            assert_eq!(DuplicateId::decode(&mut rest), Some(id));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_id_is_forgotten_when_capacity_others_came_after_it() {
        let id = |n: u32| DuplicateId::new(format!("id-{n}").as_bytes()).unwrap();
        let mut window = DuplicateWindow::default();
        for n in 0..4 {
            window.remember(id(n), 0, 3);
        }
        assert!(!window.knows(&id(0)));
        assert!(window.knows(&id(1)) && window.knows(&id(3)));
    }

    #[test]
    fn a_window_read_back_knows_the_latest_ids_each_once() {
        let id = |n: u32| DuplicateId::new(format!("id-{n}").as_bytes()).unwrap();
        let mut window = DuplicateWindow::default();
        for n in [0, 1, 2, 1] {
            window.recall(id(n), 7, 3);
        }
        window.recalled();
        assert!(!window.knows(&id(0)) && window.knows(&id(1)) && window.knows(&id(2)));
        window.remember(id(3), 8, 3);
        assert!(window.knows(&id(1)));
        window.remember(id(4), 9, 3);
        assert!(!window.knows(&id(1)) && window.knows(&id(2)));
    }

    #[test]
    fn an_empty_or_endless_id_is_refused() {
        assert_eq!(DuplicateId::new(b""), Err(InvalidDuplicateId { length: 0 }));
        assert_eq!(
            DuplicateId::new(&[b'x'; 256]),
            Err(InvalidDuplicateId { length: 256 })
        );
    }
}
