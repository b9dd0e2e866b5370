//! Bindings by the text of their name, for lookups that need no walk: a hash and a copy.
//!
//! It holds whatever a lookup of the very text finds without following a link, so neither links nor withheld
//! exports; what is not found here may still be found by a walk. The answers of the bindings asked for are kept,
//! encoded once for both doors, within a number of bytes. The rules are not here: it follows the changes that
//! the directory reports.
//!
//! Invariant: an answer comes from one published root. While the apply task changes the index and publishes
//! its root, nobody is answered from the index.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use daymark_naming_core::Directory;
use daymark_naming_proto::{Binding, Change, ChangeKind, ChangeSet, Name, ObjectKind, Scope};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Parts that are locked one by one.
const SHARDS: usize = 256;
/// Where a part is full, one answer of so many takes the place of others.
const ADMITTED: u32 = 8;
/// What an answer costs beside its texts.
const REPLY_BYTES: usize = 32;
/// The head of a kept answer: the lengths of its name and of what stands before its document.
const HEAD: usize = 3;
/// Names that are taken from a directory at a time.
const PAGE: usize = 1_000;

/// The index. Any thread reads it, one writes.
pub(crate) struct Index {
    shards: Box<[RwLock<Shard>]>,
    /// Seeded by the process, so that nobody can choose names that meet in one place.
    hasher: RandomState,
    /// Odd while index and published root differ.
    turn: AtomicU64,
    /// Bytes of kept answers in one part.
    share: usize,
}

#[derive(Default)]
struct Shard {
    slots: HashTable<Slot>,
    /// Bytes of the answers kept.
    bytes: usize,
    /// Where the next answer is given up.
    hand: usize,
    /// Answers that did not fit.
    refused: u32,
}

struct Slot {
    binding: Arc<Binding>,
    reply: Option<Reply>,
}

/// The encoded answer of a lookup: its name, then a RESP bulk string whose body is the JSON document.
struct Reply(Box<[u8]>);

/// What a lookup found.
pub(crate) struct Found<'a> {
    pub(crate) binding: &'a Binding,
    /// The JSON document.
    pub(crate) json: &'a [u8],
    /// The document as a RESP bulk string.
    pub(crate) bulk: &'a [u8],
}

impl Reply {
    /// `None` for a binding that has no JSON form, which no accepted one is.
    fn of(binding: &Binding) -> Option<Self> {
        let name = binding.name.as_str().as_bytes();
        let json = serde_json::to_vec(binding).ok()?;
        let bulk_head = format!("${}\r\n", json.len());
        let [low, high] = u16::try_from(name.len()).ok()?.to_le_bytes();
        let head = [low, high, u8::try_from(bulk_head.len()).ok()?];
        Some(Self(
            [&head, name, bulk_head.as_bytes(), &json, b"\r\n"]
                .concat()
                .into(),
        ))
    }

    fn name(&self) -> &[u8] {
        let length = u16::from_le_bytes([self.0[0], self.0[1]]);
        &self.0[HEAD..HEAD + usize::from(length)]
    }

    fn bulk(&self) -> &[u8] {
        &self.0[HEAD + self.name().len()..]
    }

    fn json(&self) -> &[u8] {
        let bulk = self.bulk();
        &bulk[usize::from(self.0[2])..bulk.len() - 2]
    }

    const fn size(&self) -> usize {
        self.0.len() + REPLY_BYTES
    }
}

impl Slot {
    /// Compares with what lies beside the answer, where there is one.
    fn is_named(&self, text: &[u8]) -> bool {
        match &self.reply {
            Some(reply) => reply.name() == text,
            None => self.binding.name.as_str().as_bytes() == text,
        }
    }
}

impl Index {
    /// An empty index that keeps about so many bytes of encoded answers.
    pub(crate) fn new(reply_bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::default(),
            turn: AtomicU64::new(0),
            share: reply_bytes_max / SHARDS,
        }
    }

    /// Finds the binding of this canonical text and lets `write` put the answer into `out`. False where `out` is as
    /// it was, and a walk has to answer.
    pub(crate) fn read(
        &self,
        text: &[u8],
        out: &mut Vec<u8>,
        write: impl FnOnce(&Found<'_>, &mut Vec<u8>),
    ) -> bool {
        let turn = self.turn.load(Ordering::Acquire);
        if turn % 2 == 1 {
            return false;
        }
        let begin = out.len();
        let found = self.find(text, |found| write(found, out));
        if found && self.turn.load(Ordering::Acquire) == turn {
            return true;
        }
        out.truncate(begin);
        false
    }

    fn find(&self, text: &[u8], write: impl FnOnce(&Found<'_>)) -> bool {
        let hash = self.hasher.hash_one(text);
        let shard = self.shard(hash);
        let binding = {
            let shard = read(shard);
            let Some(slot) = shard.slots.find(hash, |slot| slot.is_named(text)) else {
                return false;
            };
            if let Some(reply) = &slot.reply {
                write(&Found {
                    binding: &slot.binding,
                    json: reply.json(),
                    bulk: reply.bulk(),
                });
                return true;
            }
            slot.binding.clone()
        };
        let Some(reply) = Reply::of(&binding) else {
            return false;
        };
        write(&Found {
            binding: &binding,
            json: reply.json(),
            bulk: reply.bulk(),
        });
        lock(shard).keep(hash, &binding, reply, self.share);
        true
    }

    /// Takes what was bound in `directory` when the index was empty, or has changed whole, then lets `publish` put
    /// its root in place.
    pub(crate) fn replace(&self, directory: &Directory, publish: impl FnOnce()) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            *lock(shard) = Shard {
                // Names spread evenly; where a part gets more than its share it grows once.
                slots: HashTable::with_capacity(directory.names() / SHARDS),
                ..Shard::default()
            };
        }
        let (root, mut after) = (Name::root(), None);
        loop {
            let page = directory.watch_page(&root, Scope::Subtree, after.as_ref(), PAGE);
            page.iter().for_each(|change| self.take(change));
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.name.clone()),
                Some(_) | None => break,
            }
        }
        publish();
        self.turn.fetch_add(1, Ordering::SeqCst);
    }

    /// Follows changes, then lets `publish` put their root in place.
    pub(crate) fn follow(&self, sets: &[Arc<ChangeSet>], publish: impl FnOnce()) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        for change in sets.iter().flat_map(|set| &set.changes) {
            self.take(change);
        }
        publish();
        self.turn.fetch_add(1, Ordering::SeqCst);
    }

    fn take(&self, change: &Change) {
        let text = change.name.as_str().as_bytes();
        let hash = self.hasher.hash_one(text);
        let mut shard = lock(self.shard(hash));
        match &change.kind {
            ChangeKind::Bound { binding } | ChangeKind::Rebound { binding }
                if binding.object.kind() != ObjectKind::Link =>
            {
                shard.insert(hash, binding, |name| self.hasher.hash_one(name));
            }
            ChangeKind::Bound { .. }
            | ChangeKind::Rebound { .. }
            | ChangeKind::Unbound
            | ChangeKind::Withheld { .. } => shard.remove(hash, text),
        }
    }

    /// The bits that choose a part are not those that choose a place in it.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl Shard {
    fn insert(&mut self, hash: u64, binding: &Arc<Binding>, hasher: impl Fn(&[u8]) -> u64) {
        let text = binding.name.as_str().as_bytes();
        let slot = Slot {
            binding: binding.clone(),
            reply: None,
        };
        if let Some(before) = self.slots.find_mut(hash, |slot| slot.is_named(text)) {
            let before = std::mem::replace(before, slot);
            self.bytes -= before.reply.map_or(0, |reply| reply.size());
            return;
        }
        let hasher = |slot: &Slot| hasher(slot.binding.name.as_str().as_bytes());
        self.slots.insert_unique(hash, slot, hasher);
    }

    fn remove(&mut self, hash: u64, text: &[u8]) {
        if let Ok(entry) = self.slots.find_entry(hash, |slot| slot.is_named(text)) {
            let (slot, _) = entry.remove();
            self.bytes -= slot.reply.map_or(0, |reply| reply.size());
        }
    }

    /// Keeps an answer, where it fits or its turn has come, and its binding is still the one it is of.
    fn keep(&mut self, hash: u64, binding: &Arc<Binding>, reply: Reply, share: usize) {
        let size = reply.size();
        if size > share {
            return;
        }
        if self.bytes + size > share {
            self.refused = self.refused.wrapping_add(1);
            if !self.refused.is_multiple_of(ADMITTED) {
                return;
            }
            self.make_room(share - size);
        }
        let is_it = |slot: &Slot| Arc::ptr_eq(&slot.binding, binding) && slot.reply.is_none();
        if let Some(slot) = self.slots.find_mut(hash, is_it) {
            slot.reply = Some(reply);
            self.bytes += size;
        }
    }

    /// Gives answers up, in turn, until no more than `limit` bytes are left.
    fn make_room(&mut self, limit: usize) {
        let buckets = self.slots.num_buckets();
        for _ in 0..buckets {
            if self.bytes <= limit {
                return;
            }
            self.hand = (self.hand + 1) % buckets;
            if let Some(slot) = self.slots.get_bucket_mut(self.hand) {
                self.bytes -= slot.reply.take().map_or(0, |reply| reply.size());
            }
        }
    }
}

// No change of a part is half done when something panics.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_naming_core::{Command, Limits};
    use daymark_naming_proto::{Attributes, Object, OpId, Write};

    struct Bound {
        directory: Directory,
        index: Index,
    }

    impl Bound {
        fn new(reply_bytes_max: usize) -> Self {
            Self {
                directory: Directory::new(Limits::default()),
                index: Index::new(reply_bytes_max),
            }
        }

        fn write(&mut self, write: Write) {
            let command = Command {
                op: OpId(u128::from(self.directory.revision().0)),
                at_unix_ms: 0,
                write,
            };
            self.directory.apply(&command).expect("accepted");
            let sets: Vec<_> = self.directory.last_change().into_iter().collect();
            self.index.follow(&sets, || ());
        }

        fn bind(&mut self, name: &str, object: Object) {
            let name = name.parse().expect("a name");
            self.write(Write::Rebind {
                name,
                object,
                attributes: Some(Attributes::new()),
                expected: None,
            });
        }

        fn queue(&mut self, name: &str, address: &str) {
            self.bind(
                name,
                Object::Queue {
                    address: address.into(),
                },
            );
        }

        fn bulk(&self, text: &str) -> Option<String> {
            let mut out = b"before".to_vec();
            let found = self
                .index
                .read(text.as_bytes(), &mut out, |found, out| out.extend(found.bulk));
            let out = String::from_utf8(out).expect("UTF-8");
            let answer = out.strip_prefix("before").expect("what was there stays");
            assert_eq!(found, !answer.is_empty());
            found.then(|| answer.to_owned())
        }

        fn kept(&self) -> usize {
            self.index.shards.iter().map(|shard| read(shard).bytes).sum()
        }
    }

    #[test]
    fn an_answer_is_the_document_of_the_binding_the_first_time_and_every_other() {
        let mut bound = Bound::new(1 << 20);
        bound.queue("q", "1");
        let binding = bound
            .directory
            .lookup(&"q".parse().expect("a name"))
            .expect("bound");
        let json = serde_json::to_string(&*binding).expect("JSON");
        let expected = Some(format!("${}\r\n{json}\r\n", json.len()));
        assert_eq!(bound.bulk("q"), expected);
        assert!(bound.kept() > json.len());
        assert_eq!(bound.bulk("q"), expected, "the one that is kept");
        bound.queue("q", "2");
        assert_eq!(bound.kept(), 0, "an answer goes with its binding");
        assert!(
            bound
                .bulk("q")
                .is_some_and(|bulk| bulk.contains("\"address\":\"2\""))
        );
    }

    #[test]
    fn links_and_what_is_not_bound_are_left_to_a_walk() {
        let mut bound = Bound::new(1 << 20);
        bound.queue("q", "1");
        let target = "q".parse().expect("a name");
        bound.bind("link", Object::Link { target });
        assert_eq!(bound.bulk("link"), None);
        assert_eq!(bound.bulk("nothing"), None);
        bound.bulk("q").expect("bound");
        bound.write(Write::Unbind {
            name: "q".parse().expect("a name"),
            expected: None,
        });
        assert_eq!((bound.bulk("q"), bound.kept()), (None, 0));
    }

    #[test]
    fn nobody_is_answered_while_index_and_root_differ() {
        let mut bound = Bound::new(1 << 20);
        bound.queue("q", "1");
        bound.index.follow(&[], || assert_eq!(bound.bulk("q"), None));
        assert!(bound.bulk("q").is_some());
    }

    #[test]
    fn the_answers_kept_stay_within_their_bytes_and_change_with_what_is_asked() {
        let limit = SHARDS * 1_000;
        let mut bound = Bound::new(limit);
        let names: Vec<String> = (0..5_000).map(|n| format!("name-{n}")).collect();
        for name in &names {
            bound.queue(name, &"x".repeat(200));
        }
        for _ in 0..20 {
            for name in &names {
                assert!(bound.bulk(name).is_some_and(|bulk| bulk.contains(name)));
            }
        }
        assert!(
            bound.kept() <= limit && bound.kept() > limit / 4,
            "{}",
            bound.kept()
        );
        for _ in 0..10 * ADMITTED {
            bound.bulk("name-7").expect("bound");
        }
        let hash = bound.index.hasher.hash_one(b"name-7".as_slice());
        let shard = read(bound.index.shard(hash));
        let slot = shard.slots.find(hash, |slot| slot.is_named(b"name-7"));
        assert!(
            slot.is_some_and(|slot| slot.reply.is_some()),
            "what is asked for often is kept"
        );
    }

    #[test]
    fn an_index_of_a_directory_is_the_index_of_its_changes() {
        let mut bound = Bound::new(1 << 20);
        bound.queue("a", "1");
        bound.bind("c", Object::Context);
        bound.queue("c/b", "2");
        let other = Index::new(1 << 20);
        other.replace(&bound.directory, || ());
        for name in ["", "a", "c", "c/b"] {
            let mut out = Vec::new();
            other.read(name.as_bytes(), &mut out, |found, out| out.extend(found.bulk));
            // The root was bound by nobody, so no change tells of it.
            let expected = bound.bulk(name).unwrap_or_default();
            assert!(out == expected.as_bytes() || name.is_empty(), "{name}");
        }
    }
}
