//! What became of every message of every stream. It only counts: no clock, no sockets.
//!
//! A stream is one producer and one consumer of a queue of their own; its messages have numbers and duplicate ids. A
//! message is *acknowledged*, *rejected*, or *unknown*, and settling it is confirmed, unknown, or undone. Invariant:
//! whatever is unknown may have happened or not; nothing else is excused. A message may be delivered again until its
//! settlement is confirmed, and then says that it was out before; only of what it sent in its last moments a broker
//! that dies without a word has no record.

use std::fmt::Write;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    name: String,
    sent: usize,
    lines: Vec<Line>,
    highest: Option<usize>,
    /// How many times brokers may have died without a word.
    deaths: u64,
    /// Such a time lasts.
    dying: bool,
    again: u64,
    unmarked_after_death: u64,
    doubled: Vec<usize>,
    undead: Vec<usize>,
    out_of_order: Vec<usize>,
    unmarked: Vec<usize>,
    foreign: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    outcome: Outcome,
    /// How many times brokers may have died when it was last delivered.
    delivered: Option<u64>,
    /// Its consumer gave it back as one that was not delivered.
    returned: bool,
    settlement: Settlement,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Unknown,
    Acknowledged,
    Rejected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Settlement {
    /// It was never settled, or that was undone.
    #[default]
    None,
    /// It may have been settled.
    Perhaps,
    /// It was settled on a connection of this term or a later one, and nobody confirms that. While that connection
    /// stands, it is.
    Sent {
        term: u64,
    },
    Confirmed,
}

/// One delivery, as its consumer saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) text: &'a str,
    /// It says that it was out for delivery before.
    pub(super) again: bool,
    /// On a connection of this term or an earlier one, where the consumer counts its connections.
    pub(super) term: u64,
}

/// The sums of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) rejected: u64,
    /// Confirmed, or settled where nobody confirms it.
    pub(super) consumed: u64,
    /// Deliveries after the first one, as there may be until a settlement is confirmed.
    pub(super) again: u64,
    /// Of those, the ones that do not say so because the broker that delivered them before died without a word.
    pub(super) unmarked_after_death: u64,
    /// Acknowledged, and neither settled nor perhaps settled.
    pub(super) lost: u64,
    /// Delivered after they had been settled.
    pub(super) doubled: u64,
    /// Rejected and yet delivered.
    pub(super) undead: u64,
    /// Delivered for the first time after a later one.
    pub(super) out_of_order: u64,
    /// Delivered again without a word that it is not the first time.
    pub(super) unmarked: u64,
    /// Messages nobody sent.
    pub(super) foreign: u64,
}

impl Sums {
    /// Whether every promise was kept.
    pub(super) fn is_kept(&self) -> bool {
        let broken = [
            self.lost,
            self.doubled,
            self.undead,
            self.out_of_order,
            self.unmarked,
            self.foreign,
        ];
        broken == [0; 6]
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.rejected += other.rejected;
        self.consumed += other.consumed;
        self.again += other.again;
        self.unmarked_after_death += other.unmarked_after_death;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.undead += other.undead;
        self.out_of_order += other.out_of_order;
        self.unmarked += other.unmarked;
        self.foreign += other.foreign;
    }
}

/// How far the news of a delivery may be ahead of the news of its sending, which come on ways of their own. What
/// is still ahead in the end was never sent.
const AHEAD: usize = 1_000;

/// How many broken promises of one stream are told.
const TOLD: usize = 10;

impl Stream {
    pub(super) const fn new(name: String) -> Self {
        Self {
            name,
            sent: 0,
            lines: Vec::new(),
            highest: None,
            deaths: 0,
            dying: false,
            again: 0,
            unmarked_after_death: 0,
            doubled: Vec::new(),
            undead: Vec::new(),
            out_of_order: Vec::new(),
            unmarked: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// The next message is sent. Returns its number.
    pub(super) fn send(&mut self) -> usize {
        self.sent += 1;
        self.lines
            .resize(self.lines.len().max(self.sent), Line::default());
        self.sent - 1
    }

    /// From now on brokers may die without a word, or they are over that.
    pub(super) fn dying(&mut self, dying: bool) {
        self.deaths += u64::from(self.dying && !dying);
        self.dying = dying;
    }

    pub(super) fn acknowledged(&mut self, number: usize) {
        self.lines[number].outcome = Outcome::Acknowledged;
    }

    pub(super) fn rejected(&mut self, number: usize) {
        self.lines[number].outcome = Outcome::Rejected;
    }

    /// The consumer was given a message. Returns its number, if it is one of this stream.
    pub(super) fn delivered(&mut self, seen: Seen<'_>) -> Option<usize> {
        let Some(number) = self.number(seen.text) else {
            self.foreign.push(seen.text.to_owned());
            return None;
        };
        self.lines
            .resize(self.lines.len().max(number + 1), Line::default());
        let line = &mut self.lines[number];
        if line.is_settled(seen.term) {
            self.doubled.push(number);
        }
        if line.outcome == Outcome::Rejected {
            self.undead.push(number);
        }
        if let Some(deaths) = line.delivered {
            self.again += 1;
            if !seen.again && (self.dying || deaths != self.deaths) {
                self.unmarked_after_death += 1;
            } else if !seen.again && !line.returned {
                self.unmarked.push(number);
            }
        } else if self.highest > Some(number) {
            self.out_of_order.push(number);
        }
        line.delivered = Some(self.deaths);
        line.returned = false;
        if line.settlement != Settlement::Confirmed {
            line.settlement = Settlement::None; // Whatever was unknown did not happen.
        }
        self.highest = self.highest.max(Some(number));
        Some(number)
    }

    fn number(&self, text: &str) -> Option<usize> {
        text.strip_prefix(self.name.as_str())
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(|number| number.parse().ok())
            .filter(|number| *number < self.sent + AHEAD)
    }

    /// Its settlement, or the transaction that it was in, is confirmed.
    pub(super) fn consumed(&mut self, number: usize) {
        self.lines[number].settlement = Settlement::Confirmed;
    }

    /// It was settled on a connection of this term or a later one, and nobody confirms it.
    pub(super) fn settled(&mut self, number: usize, term: u64) {
        self.settle(number, Settlement::Sent { term });
    }

    /// Whether it is settled is unknown.
    pub(super) fn perhaps_consumed(&mut self, number: usize) {
        self.settle(number, Settlement::Perhaps);
    }

    /// Its consumer gives it back as one that was not delivered: it closes its link.
    pub(super) fn returned(&mut self, number: usize) {
        self.lines[number].returned = true;
    }

    fn settle(&mut self, number: usize, settlement: Settlement) {
        let line = &mut self.lines[number];
        if line.settlement != Settlement::Confirmed {
            line.settlement = settlement;
        }
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums {
            sent: self.sent as u64,
            again: self.again,
            unmarked_after_death: self.unmarked_after_death,
            doubled: self.doubled.len() as u64,
            undead: self.undead.len() as u64,
            out_of_order: self.out_of_order.len() as u64,
            unmarked: self.unmarked.len() as u64,
            foreign: (self.foreign.len() + self.lines.len() - self.sent) as u64,
            ..Sums::default()
        };
        for line in self.lines.iter().take(self.sent) {
            match line.outcome {
                Outcome::Unknown => sums.unknown += 1,
                Outcome::Acknowledged => sums.acknowledged += 1,
                Outcome::Rejected => sums.rejected += 1,
            }
            sums.consumed += u64::from(line.is_settled(0));
            sums.lost += u64::from(line.is_lost());
        }
        sums
    }

    /// What was broken, one promise per line.
    pub(super) fn broken(&self) -> String {
        let mut text = String::new();
        let mut tell = |what: &str, numbers: &[usize]| {
            if !numbers.is_empty() {
                let (count, told) = (numbers.len(), &numbers[..numbers.len().min(TOLD)]);
                // Writing into a string never fails.
                let _ = writeln!(text, "{}: {count} {what}: {told:?}", self.name);
            }
        };
        let lines = self.lines.iter().enumerate();
        let lost: Vec<usize> = lines
            .filter(|(_, line)| line.is_lost())
            .map(|(number, _)| number)
            .collect();
        tell("lost", &lost);
        tell("doubled", &self.doubled);
        tell("rejected and yet delivered", &self.undead);
        tell("out of order", &self.out_of_order);
        tell("again without saying so", &self.unmarked);
        for foreign in self.foreign.iter().take(TOLD) {
            let _ = writeln!(text, "{}: nobody sent {foreign:?}", self.name);
        }
        text
    }
}

impl Line {
    /// Whether it is settled for good as long as there was no connection after the one of `term`.
    fn is_settled(&self, now: u64) -> bool {
        match self.settlement {
            Settlement::Confirmed => true,
            Settlement::Sent { term } => now <= term,
            Settlement::None | Settlement::Perhaps => false,
        }
    }

    fn is_lost(&self) -> bool {
        self.outcome == Outcome::Acknowledged && self.settlement == Settlement::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sent: usize) -> Stream {
        let mut stream = Stream::new("s".to_owned());
        for _ in 0..sent {
            stream.send();
        }
        stream
    }

    fn first(text: &str) -> Seen<'_> {
        Seen {
            text,
            again: false,
            term: 0,
        }
    }

    fn again(text: &str, term: u64) -> Seen<'_> {
        Seen {
            text,
            again: true,
            term,
        }
    }

    #[test]
    fn the_checker_finds_every_broken_promise() {
        let mut stream = stream(6);
        for number in [0, 1, 2] {
            stream.acknowledged(number);
        }
        stream.rejected(3);
        for text in ["s 1", "s 0", "s 1", "s 3", "t 1", "s 9999"] {
            if let Some(number) = stream.delivered(first(text)) {
                stream.consumed(number);
            }
        }
        let expected = Sums {
            sent: 6,
            acknowledged: 3,
            unknown: 2,
            rejected: 1,
            consumed: 3,
            again: 1,
            lost: 1,
            doubled: 1,
            undead: 1,
            out_of_order: 1,
            unmarked: 1,
            foreign: 2,
            ..Sums::default()
        };
        assert_eq!(stream.sums(), expected);
        for told in [
            "1 lost: [2]",
            "1 doubled: [1]",
            "delivered: [3]",
            "out of order: [0]",
            "without saying so: [1]",
            "\"t 1\"",
        ] {
            assert!(stream.broken().contains(told), "{told} in {}", stream.broken());
        }
    }

    #[test]
    fn the_checker_excuses_what_is_unknown_and_nothing_else() {
        let mut stream = stream(4);
        stream.acknowledged(0);
        stream.delivered(first("s 0"));
        stream.perhaps_consumed(0); // Its settlement was not confirmed, and it did not come again.
        stream.delivered(first("s 1"));
        stream.consumed(1); // It was never acknowledged, and came.
        stream.acknowledged(2);
        stream.delivered(first("s 2"));
        stream.perhaps_consumed(2);
        stream.delivered(again("s 2", 0)); // It came again, and said so.
        stream.consumed(2);
        assert!(stream.sums().is_kept(), "{}", stream.broken());
        stream.acknowledged(3);
        assert_eq!(stream.sums().lost, 1);
        stream.delivered(first("s 3"));
        stream.consumed(3);
        assert!(stream.sums().is_kept(), "{}", stream.broken());
        stream.delivered(again("s 3", 1));
        assert_eq!(stream.sums().doubled, 1);
    }

    #[test]
    fn what_comes_again_says_so_unless_a_broker_died_in_between() {
        let mut stream = stream(2);
        stream.delivered(first("s 0"));
        stream.dying(true);
        stream.delivered(first("s 0"));
        stream.dying(false);
        stream.delivered(first("s 0"));
        stream.consumed(0);
        assert!(stream.sums().is_kept(), "{}", stream.broken());
        stream.delivered(first("s 1"));
        stream.delivered(first("s 1"));
        assert_eq!(
            (stream.sums().unmarked_after_death, stream.sums().unmarked),
            (2, 1)
        );
        stream.returned(1);
        stream.delivered(first("s 1"));
        assert_eq!(stream.sums().unmarked, 1);
    }

    #[test]
    fn what_nobody_confirms_may_come_again_on_a_later_connection_only() {
        let mut stream = stream(2);
        stream.delivered(first("s 0"));
        stream.settled(0, 0);
        stream.delivered(again("s 0", 1));
        stream.settled(0, 1);
        assert!(stream.sums().is_kept(), "{}", stream.broken());
        stream.delivered(again("s 0", 1));
        assert_eq!(stream.sums().doubled, 1);
    }
}
