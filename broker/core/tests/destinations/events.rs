//! What may happen in one step, to the queues and to the model alike.

use daymark_broker_core::queues::{
    Arrival, ConsumerOptions, DuplicateId, QueueId, Refused, Settlement, Subscribed, Subscription,
};
use daymark_broker_core::selector::Selector;

use crate::Seeded;
use crate::model::{Choice, Fate, Letter, Place, QUEUES, State, TOPICS, WISHES, Wish};
use crate::world::{
    Awaited, Broken, CONNECTIONS, Checked, Consumer, Held, TRANSACTION_MS, Transaction, World, connect,
    ensure, key_of, payload,
};

fn settlement(chance: &mut Seeded) -> Settlement {
    match chance.next(10) {
        0..=4 => Settlement::Accepted,
        5 => Settlement::Rejected,
        6 => Settlement::Released,
        7 | 8 => Settlement::Failed,
        _ => Settlement::Undeliverable {
            failed: chance.once_in(2),
        },
    }
}

fn arrival(letter: &Letter) -> Arrival {
    let id = format!("id-{}", letter.message);
    Arrival {
        durable: letter.durable,
        priority: letter.priority,
        duplicate_id: letter.named.then(|| DuplicateId::new(id.as_bytes()).unwrap()),
        expires_at: letter.expires,
        deliver_at: letter.deliver,
        ..Arrival::new(payload(letter.message))
    }
}

impl World {
    /// A time around now that nothing else is due at.
    fn time(&mut self, chance: &mut Seeded) -> u64 {
        let mut at = (self.model.now + chance.next(60)).saturating_sub(3);
        while !self.times.insert(at) {
            at += 1;
        }
        at
    }

    fn letter(&mut self, chance: &mut Seeded, client: usize) -> Letter {
        if chance.once_in(6) && !self.sent.is_empty() {
            return self.sent[chance.index(self.sent.len())].clone();
        }
        let to = chance.index(QUEUES.len() + TOPICS.len());
        let (to, is_topic) = match to.checked_sub(QUEUES.len()) {
            None => (QUEUES[to], false),
            Some(topic) => (TOPICS[topic], true),
        };
        let letter = Letter {
            message: self.number(),
            to,
            is_topic,
            client,
            durable: !chance.once_in(4),
            priority: u8::try_from(3 + chance.next(3)).unwrap(),
            named: chance.once_in(2),
            expires: chance.once_in(4).then(|| self.time(chance)),
            deliver: chance.once_in(5).then(|| self.time(chance)),
        };
        if letter.named {
            self.sent.push(letter.clone());
        }
        letter
    }

    fn address(&self, letter: &Letter) -> Option<QueueId> {
        if letter.is_topic {
            self.machine.find_topic(letter.to)
        } else {
            self.machine.find(letter.to)
        }
    }

    fn await_answer(&mut self, connection: usize, batch: Option<u64>, committed: bool) -> u64 {
        let delivery = self.number();
        let awaited = Awaited {
            connection,
            batch,
            committed,
        };
        self.awaited.insert(delivery, awaited);
        delivery
    }

    pub(crate) fn send(&mut self, chance: &mut Seeded) -> Checked {
        let connection = chance.index(CONNECTIONS);
        let letter = Letter {
            client: connection,
            ..self.letter(chance, connection)
        };
        let Some(to) = self.address(&letter) else {
            return Ok(());
        };
        let first = self.model.known(&letter);
        let fate = self.model.arrive(&letter, self.open);
        let batch = match fate {
            Fate::Taken(recorded) => recorded.then_some(self.open),
            Fate::Duplicate => first,
            Fate::Full | Fate::Gone => None,
        };
        let delivery = self.await_answer(connection, batch, true);
        let producer = self.connections[connection].producer;
        match (
            fate,
            self.machine
                .publish(producer, Some(to), arrival(&letter), Some(delivery)),
        ) {
            (Fate::Taken(_) | Fate::Duplicate, Ok(())) => {}
            (Fate::Full, Err(Refused::QueueFull { .. })) => {
                self.awaited.remove(&delivery);
            }
            (fate, told) => return Err(format!("{letter:?} is {fate:?}, not {told:?}")),
        }
        Ok(())
    }

    pub(crate) fn attach(&mut self, chance: &mut Seeded) -> Checked {
        let connection = chance.index(CONNECTIONS);
        let Some(place) = self.some_place(chance, |place| matches!(place, Place::Queue(_))) else {
            return Ok(());
        };
        let choice = [Choice::All, Choice::All, Choice::Zero, Choice::More][chance.index(4)];
        self.attach_to(connection, place, choice, chance.once_in(4))
    }

    fn some_place(&self, chance: &mut Seeded, that: impl Fn(&Place) -> bool) -> Option<Place> {
        let found: Vec<&Place> = self.places.keys().filter(|place| that(place)).collect();
        (!found.is_empty()).then(|| found[chance.index(found.len())].clone())
    }

    pub(crate) fn attach_to(
        &mut self,
        connection: usize,
        place: Place,
        choice: Choice,
        browse: bool,
    ) -> Checked {
        let link = self.number();
        let selector = choice
            .selector()
            .filter(|_| self.broken != Broken::IgnoresSelectors);
        let options = ConsumerOptions {
            settled: false,
            browse,
            selector: selector.map(|text| Selector::parse(text).unwrap()),
        };
        let owner = self.connections[connection].owner;
        let told = self
            .machine
            .attach_consumer(owner, link, self.places[&place], options);
        let taken = self.consumers.values().any(|other| other.place == place)
            && matches!(&place, Place::Subscription(number) if !self.model.subscribers[number].wish.shared);
        let id = match told {
            Ok(id) if !taken => id,
            Err(Refused::InUse(_)) if taken => return Ok(()),
            told => return Err(format!("a consumer of {place:?} was told {told:?}")),
        };
        let consumer = Consumer {
            id,
            connection,
            place,
            choice,
            browse,
            credit: 0,
            held: Vec::new(),
            seen: std::collections::BTreeMap::new(),
        };
        self.consumers.insert(link, consumer);
        Ok(())
    }

    pub(crate) fn subscribe(&mut self, chance: &mut Seeded) -> Checked {
        let (connection, wish) = (chance.index(CONNECTIONS), WISHES[chance.index(WISHES.len())]);
        let subscription = Subscription {
            key: key_of(wish, connection),
            topic: wish.pattern.to_owned(),
            selector: wish.choice.selector().map(|text| Selector::parse(text).unwrap()),
            no_local: wish.no_local,
            durable: wish.durable,
            shared: wish.shared,
        };
        let owner = self.connections[connection].owner;
        let told = self.machine.subscribe(owner, subscription);
        let existing = self.model.namesake(wish, connection);
        let used = |number: u64| {
            self.consumers
                .values()
                .any(|other| other.place == Place::Subscription(number))
        };
        let place = match (existing, told) {
            (None, Ok((id, Subscribed::Created))) => self.subscribed(wish, connection, id),
            (Some((number, true)), Ok((_, Subscribed::Resumed))) => Place::Subscription(number),
            (Some((number, false)), Ok((id, Subscribed::Replaced))) if !used(number) => {
                self.end_place(&Place::Subscription(number));
                self.subscribed(wish, connection, id)
            }
            (Some((number, false)), Err(Refused::InUse(_))) if used(number) => return Ok(()),
            (existing, told) => return Err(format!("{wish:?} meets {existing:?} and is told {told:?}")),
        };
        self.attach_to(connection, place, Choice::All, false)
    }

    fn subscribed(&mut self, wish: Wish, connection: usize, id: QueueId) -> Place {
        let place = Place::Subscription(self.model.subscribe(wish, connection));
        self.places.insert(place.clone(), id);
        place
    }

    fn end_place(&mut self, place: &Place) {
        self.model.remove(place);
        self.places.remove(place);
    }

    fn some_consumer(&self, chance: &mut Seeded, that: impl Fn(&Consumer) -> bool) -> Option<u64> {
        let found: Vec<u64> = self
            .consumers
            .iter()
            .filter(|(_, found)| that(found))
            .map(|(link, _)| *link)
            .collect();
        (!found.is_empty()).then(|| found[chance.index(found.len())])
    }

    pub(crate) fn credit(&mut self, chance: &mut Seeded) -> Checked {
        if let Some(link) = self.some_consumer(chance, |_| true) {
            self.set_credit(link, u32::try_from(chance.next(5)).unwrap(), chance.once_in(4));
        }
        Ok(())
    }

    pub(crate) fn set_credit(&mut self, link: u64, credit: u32, drain: bool) {
        if let Some(consumer) = self.consumers.get_mut(&link) {
            consumer.credit = credit;
            let more = u32::from(self.broken == Broken::GivesMoreCredit);
            self.machine.set_credit(consumer.id, credit + more, drain);
        }
    }

    pub(crate) fn settle(&mut self, chance: &mut Seeded) -> Checked {
        let Some(link) = self.some_consumer(chance, |found| !found.held.is_empty()) else {
            return Ok(());
        };
        let nth = chance.index(self.consumers[&link].held.len());
        self.settle_one(link, nth, settlement(chance))
    }

    pub(crate) fn settle_one(&mut self, link: u64, nth: usize, how: Settlement) -> Checked {
        let Some(consumer) = self.consumers.get_mut(&link) else {
            return Ok(());
        };
        let (id, connection) = (consumer.id, consumer.connection);
        let (order, message) = consumer.held.remove(nth);
        let durable = self.model.copies.get(&order).is_some_and(|copy| copy.durable);
        self.model.settle(order, how, link);
        // What leaves its place must not be back there after a crash.
        let lasting = durable && !self.model.copies.contains_key(&order);
        let delivery = self.await_answer(connection, lasting.then_some(self.open), true);
        let releases = self.broken == Broken::ReleasesInsteadOfAccepting && how == Settlement::Accepted;
        let how = if releases { Settlement::Released } else { how };
        let told = self.machine.settle(id, message, how, Some(delivery));
        told.map_err(|error| format!("copy {order} cannot be settled: {error}"))
    }

    fn transaction(&mut self, connection: usize) -> u64 {
        let open = self
            .transactions
            .iter()
            .find(|(_, found)| found.connection == connection);
        if let Some((number, _)) = open {
            return *number;
        }
        // No two of them end at the same time.
        self.pass(1);
        let transaction = Transaction {
            id: self.machine.begin(self.connections[connection].owner).unwrap(),
            connection,
            ends_at: self.model.now + TRANSACTION_MS,
            letters: Vec::new(),
            held: Vec::new(),
            timed_out: false,
        };
        let number = self.number();
        self.transactions.insert(number, transaction);
        number
    }

    pub(crate) fn send_in_transaction(&mut self, chance: &mut Seeded) -> Checked {
        let connection = chance.index(CONNECTIONS);
        let number = self.transaction(connection);
        let letter = Letter {
            client: connection,
            expires: None,
            ..self.letter(chance, connection)
        };
        let Some(to) = self.address(&letter) else {
            return Ok(());
        };
        let producer = self.connections[connection].producer;
        let found = self.transactions.get_mut(&number).unwrap();
        let told = self
            .machine
            .publish_in(found.id, producer, Some(to), arrival(&letter));
        ensure(told.is_ok() != found.timed_out, || {
            format!("a transaction was told {told:?}")
        })?;
        if told.is_ok() {
            found.letters.push((letter, to));
        }
        Ok(())
    }

    pub(crate) fn settle_in_transaction(&mut self, chance: &mut Seeded) -> Checked {
        let Some(link) = self.some_consumer(chance, |found| !found.held.is_empty()) else {
            return Ok(());
        };
        let number = self.transaction(self.consumers[&link].connection);
        // Beginning it may have taken the time in which another one ended.
        let consumer = self.consumers.get_mut(&link).unwrap();
        let nth = chance.index(consumer.held.len());
        let (order, message) = consumer.held[nth];
        let (how, settled) = (settlement(chance), chance.once_in(2));
        let found = self.transactions.get_mut(&number).unwrap();
        let told = self
            .machine
            .settle_in(found.id, consumer.id, message, how, settled);
        ensure(told.is_ok() != found.timed_out, || {
            format!("a transaction was told {told:?}")
        })?;
        if told.is_ok() {
            consumer.held.remove(nth);
            self.model.copies.get_mut(&order).unwrap().state = State::Held;
            found.held.push(Held {
                order,
                message,
                consumer: link,
                how,
                settled,
            });
        }
        Ok(())
    }

    pub(crate) fn discharge(&mut self, chance: &mut Seeded) -> Checked {
        let open: Vec<u64> = self.transactions.keys().copied().collect();
        if open.is_empty() {
            return Ok(());
        }
        let Some(done) = self.transactions.remove(&open[chance.index(open.len())]) else {
            return Ok(());
        };
        let owner = self.connections[done.connection].owner;
        if chance.once_in(3) {
            let told = if self.broken == Broken::CommitsRollbacks {
                self.machine.commit(owner, done.id, 0, None)
            } else {
                self.machine.rollback(owner, done.id)
            };
            done.held.into_iter().for_each(|held| self.let_go(held));
            let fine = told.is_ok() || self.broken == Broken::CommitsRollbacks;
            return ensure(fine, || format!("a rollback was told {told:?}"));
        }
        self.commit(done)
    }

    fn commit(&mut self, done: Transaction) -> Checked {
        let (owner, connection) = (self.connections[done.connection].owner, done.connection);
        let refusal = self.refusal(&done);
        let delivery = match refusal {
            Refusal::None => {
                let lasting = self.carry_out(done.letters, done.held);
                self.await_answer(connection, lasting.then_some(self.open), true)
            }
            Refusal::Duplicate(first) => {
                done.held.into_iter().for_each(|held| self.let_go(held));
                self.await_answer(connection, first, false)
            }
            Refusal::Told(_) => {
                done.held.into_iter().for_each(|held| self.let_go(held));
                0
            }
        };
        let told = self.machine.commit(owner, done.id, 0, Some(delivery));
        let fits = match (&refusal, &told) {
            (Refusal::None | Refusal::Duplicate(_), Ok(())) => true,
            (Refusal::Told(why), Err(told)) => std::mem::discriminant(why) == std::mem::discriminant(told),
            _ => false,
        };
        ensure(fits, || format!("a commit that is {refusal:?} was told {told:?}"))
    }

    /// Why a transaction cannot be committed, if it cannot.
    fn refusal(&self, done: &Transaction) -> Refusal {
        if done.timed_out {
            return Refusal::Told(Refused::TransactionTimedOut {
                limit_ms: TRANSACTION_MS,
            });
        }
        let mut wanted = std::collections::BTreeMap::<Place, u64>::new();
        let mut seen = std::collections::BTreeSet::new();
        for (letter, to) in &done.letters {
            if self.address(letter) != Some(*to) {
                return Refusal::Told(Refused::Gone("the queue"));
            }
            if self.model.is_known(letter) {
                return Refusal::Duplicate(self.model.known(letter));
            }
            if letter.named && !seen.insert((letter.to, letter.message)) {
                return Refusal::Told(Refused::RepeatedInTransaction { queue: "".into() });
            }
            for place in self.model.targets(letter).into_iter().flatten() {
                *wanted.entry(place).or_default() += 1;
            }
        }
        let full = wanted.iter().any(|(place, more)| {
            self.model.count(place).saturating_add(*more) > self.model.settings(place).limits.max_messages
        });
        if full {
            return Refusal::Told(Refused::QueueFull { queue: "".into() });
        }
        Refusal::None
    }

    /// Does what a transaction says. Whether the store has to hold that.
    fn carry_out(&mut self, letters: Vec<(Letter, QueueId)>, held: Vec<Held>) -> bool {
        let mut lasting = false;
        for held in held {
            let durable = self
                .model
                .copies
                .get(&held.order)
                .is_some_and(|copy| copy.durable);
            self.model.settle(held.order, held.how, held.consumer);
            lasting |= durable && !self.model.copies.contains_key(&held.order);
        }
        for (letter, _) in letters {
            lasting |= self.model.arrive(&letter, self.open) == Fate::Taken(true);
        }
        lasting
    }

    /// A transaction decides nothing about a copy any more.
    pub(crate) fn let_go(&mut self, held: Held) {
        let step = self.steps;
        let Some(copy) = self.model.copies.get_mut(&held.order) else {
            return;
        };
        if let Some(consumer) = self.consumers.get_mut(&held.consumer).filter(|_| !held.settled) {
            copy.state = State::Out(step);
            consumer.held.push((held.order, held.message));
        } else {
            self.model.fail(held.order);
        }
    }

    pub(crate) fn detach(&mut self, chance: &mut Seeded) -> Checked {
        let Some(link) = self.some_consumer(chance, |_| true) else {
            return Ok(());
        };
        let (id, lost) = (self.consumers[&link].id, chance.once_in(2));
        if lost {
            self.machine.lose_consumer(id);
        } else {
            self.machine.detach_consumer(id);
        }
        self.end_consumer(link, lost);
        Ok(())
    }

    fn end_consumer(&mut self, link: u64, lost: bool) {
        let Some(gone) = self.consumers.remove(&link) else {
            return;
        };
        for (order, _) in gone.held {
            let how = if lost {
                Settlement::Failed
            } else {
                Settlement::Released
            };
            self.model.settle(order, how, link);
        }
        let used = self.consumers.values().any(|other| other.place == gone.place);
        if let Place::Subscription(number) = gone.place
            && !used
            && !self.model.subscribers[&number].wish.durable
        {
            self.end_place(&gone.place);
        }
    }

    pub(crate) fn unsubscribe(&mut self, chance: &mut Seeded) -> Checked {
        let (connection, wish) = (chance.index(CONNECTIONS), WISHES[chance.index(WISHES.len())]);
        let Some(key) = key_of(wish, connection) else {
            return Ok(());
        };
        let durable = Wish {
            durable: true,
            ..wish
        };
        let existing = self
            .model
            .namesake(durable, connection)
            .map(|(number, _)| Place::Subscription(number));
        let used = self
            .consumers
            .values()
            .any(|other| Some(&other.place) == existing.as_ref());
        match (existing, self.machine.unsubscribe(&key)) {
            (Some(place), Ok(())) if !used => self.end_place(&place),
            (Some(_), Err(Refused::InUse(_))) if used => {}
            (None, Err(Refused::NotSubscribed)) => {}
            (existing, told) => return Err(format!("unsubscribing {existing:?} was told {told:?}")),
        }
        Ok(())
    }

    /// A queue or topic goes, or all that are gone come again.
    pub(crate) fn delete(&mut self, chance: &mut Seeded) -> Checked {
        match chance.next(4) {
            0 => {
                let topic = TOPICS[chance.index(TOPICS.len())];
                if let Some(id) = self.machine.find_topic(topic) {
                    self.machine
                        .delete(id, false)
                        .map_err(|error| error.to_string())?;
                }
                self.model.remove_topic(topic);
                Ok(())
            }
            1 => {
                let place = self.some_place(chance, |place| matches!(place, Place::Queue(_)));
                place.map_or(Ok(()), |place| self.delete_queue(&place))
            }
            _ => {
                QUEUES.iter().for_each(|name| self.declare(name));
                TOPICS.iter().for_each(|name| self.declare_topic(name));
                Ok(())
            }
        }
    }

    fn delete_queue(&mut self, place: &Place) -> Checked {
        let now = self.model.now;
        let mut out = self
            .model
            .copies
            .values()
            .filter(|copy| copy.place == *place && copy.is_out());
        // They would go to another queue, in an order nobody promised.
        if out.any(|copy| copy.expires.is_some_and(|at| at <= now)) {
            return Ok(());
        }
        let links: Vec<u64> = self
            .consumers
            .iter()
            .filter(|(_, found)| found.place == *place)
            .map(|(link, _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.end_consumer(link, false));
        let count = self.model.count(place);
        let told = self.machine.delete(self.places[place], false);
        self.end_place(place);
        ensure(told.as_ref().is_ok_and(|told| *told <= count), || {
            format!("a deletion was told {told:?}")
        })
    }

    pub(crate) fn purge(&mut self, chance: &mut Seeded) -> Checked {
        let Some(place) = self.some_place(chance, |_| true) else {
            return Ok(());
        };
        let before = self.model.count(&place);
        self.model
            .copies
            .retain(|_, copy| copy.place != place || copy.is_out());
        let purged = before - self.model.count(&place);
        let told = self.machine.purge(self.places[&place]);
        ensure(told == Ok(purged), || {
            format!("{told:?} were purged, not {purged}")
        })
    }

    /// A connection is lost, and another one comes.
    pub(crate) fn reconnect(&mut self, connection: usize) -> Checked {
        self.machine.remove_owner(self.connections[connection].owner);
        let begun: Vec<u64> = self
            .transactions
            .iter()
            .filter(|(_, found)| found.connection == connection)
            .map(|(number, _)| *number)
            .collect();
        for number in begun {
            let gone = self.transactions.remove(&number);
            gone.into_iter()
                .flat_map(|gone| gone.held)
                .for_each(|held| self.let_go(held));
        }
        let links: Vec<u64> = self
            .consumers
            .iter()
            .filter(|(_, found)| found.connection == connection)
            .map(|(link, _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.end_consumer(link, true));
        self.awaited.retain(|_, awaited| awaited.connection != connection);
        self.connections[connection] = connect(&mut self.machine, connection);
        Ok(())
    }
}

/// Why a transaction is not committed.
#[derive(Debug)]
enum Refusal {
    None,
    /// A message was stored before, in this batch if in any.
    Duplicate(Option<u64>),
    Told(Refused),
}
