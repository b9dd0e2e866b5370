//! Consumers that do not simply take the first message: those with a selector, those that only look, and
//! those that refused something.
//!
//! Each remembers how far it has come in every priority, so that it looks at a message once and not again
//! with each delivery. Invariant: a walker stands on a message of the line, or before its begin.

use super::arena::{Arena, Key, NONE};
use super::links::Consumer;
use super::queue::{Message, PRIORITIES, Queue};
use super::time::Extras;
use super::{Queues, ReadProperties};
use crate::selector::{Properties, Selector, Value};

/// Messages looked at in one go; the rest waits for the next [`tick`](super::Queues::tick).
const LOOKS: usize = 1_000;

/// How far a consumer has come.
#[derive(Debug)]
pub(super) struct Walker {
    /// The last message of the line it looked at.
    stand: [u32; PRIORITIES],
    /// Of those that came back, it looked at all before this one.
    returned: [u64; PRIORITIES],
    /// What a browser was shown: all before this one.
    shown: Option<[u64; PRIORITIES]>,
}

impl Walker {
    pub(super) fn new(browse: bool) -> Self {
        Self {
            stand: [NONE; PRIORITIES],
            returned: [0; PRIORITIES],
            shown: browse.then_some([0; PRIORITIES]),
        }
    }

    /// A message came back.
    pub(super) fn came_back(&mut self, priority: u8, id: u64) {
        let seen = &mut self.returned[usize::from(priority)];
        *seen = id.min(*seen);
    }

    /// The message leaves the line.
    pub(super) fn step_back(&mut self, priority: u8, index: u32, previous: u32) {
        let stand = &mut self.stand[usize::from(priority)];
        if *stand == index {
            *stand = previous;
        }
    }

    /// The next message of this priority, counted as looked at, if it may be shown.
    fn step(
        &mut self,
        queue: &[super::queue::Level; PRIORITIES],
        messages: &mut Arena<Message>,
        priority: usize,
        durable: u64,
    ) -> Option<u32> {
        let level = &queue[priority];
        let ahead = messages
            .at(self.stand[priority])
            .map_or(level.first, |at| at.next);
        let fresh = messages.at(ahead).map(|message| message.id);
        let returned = level.returned.range(self.returned[priority]..).next();
        let (index, from_line) = match (returned, fresh) {
            (None, None) => return None,
            (Some((&id, &index)), Some(fresh)) if id < fresh => (index, false),
            (Some((_, &index)), None) => (index, false),
            (_, Some(_)) => (ahead, true),
        };
        let message = messages.at_mut(index)?;
        if !message.is_visible(durable) {
            return None;
        }
        if from_line {
            message.mark();
            self.stand[priority] = index;
        } else {
            self.returned[priority] = message.id + 1;
        }
        Some(index)
    }

    /// Whether a browser has not been shown this one yet; for others always.
    fn is_new(&mut self, priority: usize, id: u64) -> bool {
        let Some(shown) = &mut self.shown else {
            return true;
        };
        let new = id >= shown[priority];
        shown[priority] = shown[priority].max(id + 1);
        new
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// A message for this consumer, still in its place.
    Found(u32),
    /// Nothing, and everything was looked at.
    Nothing,
    /// Nothing yet.
    Unfinished,
}

pub(super) struct Walk<'a, L> {
    pub(super) key: Key,
    pub(super) consumer: &'a Consumer<L>,
    pub(super) queue: &'a mut Queue,
    pub(super) messages: &'a mut Arena<Message>,
    pub(super) extras: &'a Extras,
    pub(super) read: ReadProperties,
    pub(super) durable: u64,
}

impl<L> Walk<'_, L> {
    pub(super) fn go(self) -> Walked {
        let Some(walker) = self.queue.walkers.get_mut(&self.key) else {
            return Walked::Nothing;
        };
        let mut left = self.queue.occupied;
        let mut looks = 0;
        while left != 0 {
            let priority = left.ilog2() as usize;
            while let Some(index) = walker.step(&self.queue.levels, self.messages, priority, self.durable) {
                let Some(message) = self.messages.at(index) else {
                    break;
                };
                let refused = message.has_extra() && self.extras.is_refused(index, self.key);
                if !refused
                    && walker.is_new(priority, message.id)
                    && wants(self.consumer.selector.as_deref(), self.read, message)
                {
                    return Walked::Found(index);
                }
                looks += 1;
                if looks == LOOKS {
                    return Walked::Unfinished;
                }
            }
            left &= !(1 << priority);
        }
        Walked::Nothing
    }
}

fn wants(selector: Option<&Selector>, read: ReadProperties, message: &Message) -> bool {
    selector.is_none_or(|selector| {
        let mut wanted = false;
        read(&message.payload, message.delivery_count(), &mut |properties| {
            wanted = selector.matches(properties);
        });
        wanted
    })
}

/// Properties of a message nobody can read.
struct Nothing;

impl Properties for Nothing {
    fn value(&self, _name: &str) -> Value<'_> {
        Value::Null
    }
}

/// Shows no properties at all.
pub(super) fn read_nothing(_payload: &[u8], _count: u32, with: &mut dyn FnMut(&dyn Properties)) {
    with(&Nothing);
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// What a consumer that does not simply take the first finds.
    pub(super) fn walk(&mut self, queue: u32, key: Key) -> Walked {
        let Some(consumer) = self.consumers.fetch(key) else {
            return Walked::Nothing;
        };
        let walk = Walk {
            key,
            consumer,
            queue: &mut self.queues[queue as usize],
            messages: &mut self.messages,
            extras: &self.extras,
            read: self.read,
            durable: self.batches.durable(),
        };
        walk.go()
    }
}
