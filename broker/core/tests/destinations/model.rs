//! What ought to be in every queue and subscription, kept the simplest way: one entry for each copy of a message.

use std::collections::{BTreeMap, BTreeSet};

use daymark_broker_core::queues::{QueueLimits, QueueSettings, Reason, Settlement};

/// Queues that are declared by name; `DLQ` and `late` are made when they are needed.
pub(crate) const QUEUES: [&str; 2] = ["bounded", "patient"];
pub(crate) const TOPICS: [&str; 3] = ["a", "a.b", "a.c"];

/// What a declared queue or topic is set to.
pub(crate) fn settings(name: &str) -> QueueSettings {
    let usual = QueueSettings::default();
    match name {
        "bounded" => QueueSettings {
            limits: QueueLimits {
                max_messages: 8,
                ..usual.limits
            },
            max_delivery_attempts: 2,
            expiry: Some("late".into()),
            ..usual
        },
        "patient" => QueueSettings {
            max_delivery_attempts: 0,
            dead_letter: None,
            ..usual
        },
        "a.b" => QueueSettings {
            max_delivery_attempts: 1,
            ..usual
        },
        _ => usual,
    }
}

/// What a consumer or subscriber wants, of the property `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    Zero,
    More,
}

impl Choice {
    pub(crate) const fn selector(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Zero => Some("k = 0"),
            Self::More => Some("k BETWEEN 1 AND 9"),
        }
    }

    pub(crate) const fn wants(self, message: u64) -> bool {
        match self {
            Self::All => true,
            Self::Zero => message.is_multiple_of(3),
            Self::More => !message.is_multiple_of(3),
        }
    }
}

/// A subscription somebody may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Its name, if it has one, and whether it belongs to one client.
    pub(crate) name: Option<(&'static str, bool)>,
    pub(crate) pattern: &'static str,
    pub(crate) choice: Choice,
    pub(crate) no_local: bool,
    pub(crate) durable: bool,
    pub(crate) shared: bool,
}

const PASSING: Wish = Wish {
    name: None,
    pattern: "a.b",
    choice: Choice::All,
    no_local: false,
    durable: false,
    shared: false,
};

pub(crate) const WISHES: [Wish; 8] = [
    PASSING,
    Wish {
        pattern: "a.#",
        choice: Choice::More,
        no_local: true,
        ..PASSING
    },
    Wish {
        name: Some(("own", true)),
        durable: true,
        ..PASSING
    },
    Wish {
        name: Some(("own", true)),
        durable: true,
        pattern: "a.*",
        ..PASSING
    },
    Wish {
        name: Some(("own", true)),
        durable: true,
        no_local: true,
        ..PASSING
    },
    Wish {
        name: Some(("ours", false)),
        pattern: "#",
        durable: true,
        shared: true,
        ..PASSING
    },
    Wish {
        name: Some(("ours", false)),
        shared: true,
        choice: Choice::Zero,
        ..PASSING
    },
    Wish {
        name: Some(("mine", true)),
        pattern: "a",
        durable: true,
        shared: true,
        ..PASSING
    },
];

/// A place that holds copies: a queue by its name, or a subscription by a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Queue(String),
    Subscription(u64),
}

/// A subscription, and the client that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) wish: Wish,
    pub(crate) client: usize,
}

impl Subscriber {
    /// The client and the name by which it is found again.
    pub(crate) fn key(&self) -> Option<(Option<usize>, &'static str)> {
        let (name, own) = self.wish.name?;
        Some((own.then_some(self.client), name))
    }

    /// Whether asking for that finds this one, if both have the same name.
    pub(crate) fn is_same(&self, wish: Wish, client: usize) -> bool {
        self.wish == wish && (!wish.no_local || self.client == client)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Delayed,
    /// Out to a consumer, since a step.
    Out(u64),
    /// A transaction decides.
    Held,
}

/// One message in one place.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) message: u64,
    pub(crate) place: Place,
    pub(crate) state: State,
    /// It survives crashes, once the batch that holds it was stored.
    pub(crate) durable: bool,
    pub(crate) batch: u64,
    pub(crate) failures: u32,
    /// How many may be in the store.
    pub(crate) failures_stored: u32,
    pub(crate) priority: u8,
    pub(crate) expires: Option<u64>,
    pub(crate) deliver: Option<u64>,
    pub(crate) why: Option<(Reason, String, u32)>,
    pub(crate) refused_by: BTreeSet<u64>,
}

impl Copy {
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.state, State::Out(_) | State::Held)
    }
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) message: u64,
    pub(crate) to: &'static str,
    pub(crate) is_topic: bool,
    pub(crate) client: usize,
    pub(crate) durable: bool,
    pub(crate) priority: u8,
    pub(crate) named: bool,
    pub(crate) expires: Option<u64>,
    pub(crate) deliver: Option<u64>,
}

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there; whether it is in a record.
    Taken(bool),
    Duplicate,
    Full,
    /// There is no such queue or topic.
    Gone,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// By order of arrival, over all places.
    pub(crate) copies: BTreeMap<u64, Copy>,
    pub(crate) queues: BTreeMap<String, QueueSettings>,
    pub(crate) topics: BTreeSet<&'static str>,
    pub(crate) subscribers: BTreeMap<u64, Subscriber>,
    subscriber_settings: BTreeMap<u64, QueueSettings>,
    /// Messages whose duplicate id is known where they were sent to, with the batch that says so; 0: none.
    known: BTreeMap<(&'static str, u64), u64>,
    orders: u64,
    subscriptions_made: u64,
    pub(crate) now: u64,
}

impl Model {
    pub(crate) fn declare(&mut self, name: &str) {
        self.queues.insert(name.to_owned(), settings(name));
    }

    /// As for queues; subscriptions to this topic alone are set likewise.
    pub(crate) fn declare_topic(&mut self, name: &'static str) {
        self.topics.insert(name);
        for (number, subscriber) in &self.subscribers {
            if subscriber.wish.pattern == name {
                self.subscriber_settings.insert(*number, settings(name));
            }
        }
    }

    pub(crate) fn settings(&self, place: &Place) -> QueueSettings {
        let found = match place {
            Place::Queue(name) => self.queues.get(name),
            Place::Subscription(number) => self.subscriber_settings.get(number),
        };
        found.cloned().unwrap_or_default()
    }

    pub(crate) fn subscribe(&mut self, wish: Wish, client: usize) -> u64 {
        self.subscriptions_made += 1;
        let number = self.subscriptions_made;
        let set = self.topics.contains(wish.pattern).then(|| settings(wish.pattern));
        self.subscriber_settings.insert(number, set.unwrap_or_default());
        self.subscribers.insert(number, Subscriber { wish, client });
        number
    }

    /// A place is gone with what is in it.
    pub(crate) fn remove(&mut self, place: &Place) {
        self.copies.retain(|_, copy| copy.place != *place);
        match place {
            Place::Queue(name) => {
                self.queues.remove(name);
                self.known.retain(|(to, _), _| to != name);
            }
            Place::Subscription(number) => {
                self.subscribers.remove(number);
                self.subscriber_settings.remove(number);
            }
        }
    }

    pub(crate) fn remove_topic(&mut self, name: &str) {
        self.topics.remove(name);
        self.known.retain(|(to, _), _| *to != name);
    }

    pub(crate) fn is_known(&self, letter: &Letter) -> bool {
        letter.named && self.known.contains_key(&(letter.to, letter.message))
    }

    /// The batch that holds the first message with the letter's duplicate id, if one does.
    pub(crate) fn known(&self, letter: &Letter) -> Option<u64> {
        let batch = self.known.get(&(letter.to, letter.message)).copied();
        batch.filter(|batch| *batch != 0)
    }

    /// The subscription found under the name of a wish, and whether it is what is wished for.
    pub(crate) fn namesake(&self, wish: Wish, client: usize) -> Option<(u64, bool)> {
        let key = Subscriber { wish, client }.key()?;
        let found = self
            .subscribers
            .iter()
            .find(|(_, other)| other.key() == Some(key) && other.wish.durable == wish.durable);
        found.map(|(number, other)| (*number, other.is_same(wish, client)))
    }

    pub(crate) fn count(&self, place: &Place) -> u64 {
        self.copies.values().filter(|copy| copy.place == *place).count() as u64
    }

    /// Where a letter goes, if anywhere.
    pub(crate) fn targets(&self, letter: &Letter) -> Option<Vec<Place>> {
        if !letter.is_topic {
            let there = self.queues.contains_key(letter.to);
            return there.then(|| vec![Place::Queue(letter.to.to_owned())]);
        }
        if !self.topics.contains(letter.to) {
            return None;
        }
        let words = |text: &'static str| text.split('.').collect::<Vec<_>>();
        let wants = |subscriber: &Subscriber| {
            matches(&words(subscriber.wish.pattern), &words(letter.to))
                && subscriber.wish.choice.wants(letter.message)
                && !(subscriber.wish.no_local && subscriber.client == letter.client)
        };
        let found = self
            .subscribers
            .iter()
            .filter(|(_, subscriber)| wants(subscriber));
        Some(found.map(|(number, _)| Place::Subscription(*number)).collect())
    }

    fn is_stored(&self, place: &Place) -> bool {
        match place {
            Place::Queue(_) => true,
            Place::Subscription(number) => self.subscribers[number].wish.durable,
        }
    }

    pub(crate) fn arrive(&mut self, letter: &Letter, batch: u64) -> Fate {
        let Some(targets) = self.targets(letter) else {
            return Fate::Gone;
        };
        if self.is_known(letter) {
            return Fate::Duplicate;
        }
        let full = |place: &Place| self.count(place) >= self.settings(place).limits.max_messages;
        if targets.iter().any(full) {
            return Fate::Full;
        }
        // What is stored gets its numbers first.
        let (stored, fleeting): (Vec<_>, Vec<_>) = targets
            .into_iter()
            .partition(|place| letter.durable && self.is_stored(place));
        let recorded = !stored.is_empty();
        for (durable, places) in [(true, stored), (false, fleeting)] {
            for place in places {
                self.put(letter, place, durable, batch);
            }
        }
        if letter.named {
            let at = if recorded { batch } else { 0 };
            self.known.insert((letter.to, letter.message), at);
        }
        Fate::Taken(recorded)
    }

    fn put(&mut self, letter: &Letter, place: Place, durable: bool, batch: u64) {
        let delayed = letter.deliver.is_some_and(|at| at > self.now);
        let copy = Copy {
            message: letter.message,
            place,
            state: if delayed { State::Delayed } else { State::Waiting },
            durable,
            batch,
            failures: 0,
            failures_stored: 0,
            priority: letter.priority,
            expires: letter.expires,
            deliver: letter.deliver,
            why: None,
            refused_by: BTreeSet::new(),
        };
        self.orders += 1;
        self.copies.insert(self.orders, copy);
    }

    /// It is this late: what expired goes, what was delayed comes.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = now;
        let late = |copy: &Copy| !copy.is_out() && copy.expires.is_some_and(|at| at <= now);
        let noticed = |copy: &Copy| match copy.state {
            State::Delayed => copy.deliver.min(copy.expires),
            State::Waiting | State::Out(_) | State::Held => copy.expires,
        };
        let mut expired: Vec<_> = self.copies.iter().filter(|(_, copy)| late(copy)).collect();
        expired.sort_by_key(|(_, copy)| noticed(copy));
        let expired: Vec<u64> = expired.into_iter().map(|(order, _)| *order).collect();
        for order in expired {
            self.discard(order, Reason::Expired);
        }
        for copy in self.copies.values_mut() {
            if copy.state == State::Delayed && copy.deliver.is_none_or(|at| at <= now) {
                copy.state = State::Waiting;
            }
        }
    }

    /// To the dead letters, to what expired, or away.
    fn discard(&mut self, order: u64, reason: Reason) {
        let Some(mut copy) = self.copies.remove(&order) else {
            return;
        };
        let settings = self.settings(&copy.place);
        let target = match reason {
            Reason::Expired => settings.expiry,
            Reason::Rejected | Reason::Attempts => settings.dead_letter,
        };
        let from = match &copy.place {
            Place::Queue(name) => name.clone(),
            Place::Subscription(number) => self.subscribers[number].wish.pattern.to_owned(),
        };
        let Some(target) = target.filter(|target| copy.place != Place::Queue(target.to_string())) else {
            return;
        };
        self.queues.entry(target.to_string()).or_default();
        copy.place = Place::Queue(target.to_string());
        copy.state = State::Waiting;
        copy.why = Some((reason, from, copy.failures));
        (copy.failures, copy.failures_stored) = (0, 0);
        (copy.expires, copy.deliver) = (None, None);
        copy.refused_by.clear();
        self.orders += 1;
        self.copies.insert(self.orders, copy);
    }

    fn requeue(&mut self, order: u64) {
        let now = self.now;
        let Some(copy) = self.copies.get_mut(&order) else {
            return;
        };
        copy.state = State::Waiting;
        if copy.expires.is_some_and(|at| at <= now) {
            self.discard(order, Reason::Expired);
        }
    }

    pub(crate) fn fail(&mut self, order: u64) {
        let Some(copy) = self.copies.get_mut(&order) else {
            return;
        };
        copy.failures += 1;
        let (failures, place) = (copy.failures, copy.place.clone());
        let most = self.settings(&place).max_delivery_attempts;
        if most > 0 && failures >= most {
            self.discard(order, Reason::Attempts);
        } else {
            self.requeue(order);
        }
    }

    /// A copy that is out is settled.
    pub(crate) fn settle(&mut self, order: u64, how: Settlement, consumer: u64) {
        match how {
            Settlement::Accepted => {
                self.copies.remove(&order);
            }
            Settlement::Rejected => self.discard(order, Reason::Rejected),
            Settlement::Released => self.requeue(order),
            Settlement::Failed => self.fail(order),
            Settlement::Undeliverable { failed } => {
                if let Some(copy) = self.copies.get_mut(&order) {
                    copy.refused_by.insert(consumer);
                }
                if failed {
                    self.fail(order);
                } else {
                    self.requeue(order);
                }
            }
        }
    }

    /// A batch goes to the store: what is out counts as failed from now on, if the broker ends.
    pub(crate) fn close_batch(&mut self) {
        for copy in self.copies.values_mut() {
            let counts = copy.failures + u32::from(copy.is_out());
            copy.failures_stored = copy.failures_stored.max(counts);
        }
    }

    /// What a broker finds that reads this state back from the store.
    pub(crate) fn after_crash(&self) -> Self {
        let mut after = self.clone();
        after.subscribers.retain(|_, subscriber| subscriber.wish.durable);
        after.copies.retain(|_, copy| copy.durable);
        after.known.retain(|_, batch| *batch != 0);
        for copy in after.copies.values_mut() {
            copy.failures += u32::from(copy.is_out());
            // Whether its time has come is looked at anew.
            copy.state = if copy.deliver.is_some() {
                State::Delayed
            } else {
                State::Waiting
            };
            copy.refused_by.clear();
        }
        after
    }

    /// What waits in a place for everyone to see, first to go first.
    pub(crate) fn visible(&self, place: &Place, durable: u64) -> Vec<u64> {
        let shown = |copy: &Copy| {
            copy.place == *place && copy.state == State::Waiting && (!copy.durable || copy.batch <= durable)
        };
        let mut found: Vec<_> = self.copies.iter().filter(|(_, copy)| shown(copy)).collect();
        found.sort_by_key(|(order, copy)| (std::cmp::Reverse(copy.priority), **order));
        found.into_iter().map(|(order, _)| *order).collect()
    }
}

/// Whether a pattern stands for a topic.
fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    match pattern.split_first() {
        None => topic.is_empty(),
        Some((&"#", rest)) => (0..=topic.len()).any(|skip| matches(rest, &topic[skip..])),
        Some((&"*", rest)) => !topic.is_empty() && matches(rest, &topic[1..]),
        Some((word, rest)) => topic.first() == Some(word) && matches(rest, &topic[1..]),
    }
}
