//! What became of every message of every stream. It only counts: no clock, no sockets.
//!
//! A stream is one producer and one consumer of a queue of their own. A message is *acknowledged*, *rejected*, or
//! *unknown*, and it is consumed when its settlement or its transaction is confirmed. Invariant: a message whose
//! outcome is unknown may be there or not, and a settlement whose outcome is unknown may have happened or not;
//! nothing else is excused.

use std::fmt::Write;

/// Whether a stream's producer gives its messages ids, under which the broker stores them once, and its consumer
/// knows what it has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// Then nothing may come twice.
    Given,
    /// Then only losses and the order count.
    Absent,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    name: String,
    ids: Ids,
    sent: usize,
    lines: Vec<Line>,
    highest: Option<usize>,
    out_of_order: Vec<usize>,
    late: Vec<usize>,
    foreign: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    outcome: Outcome,
    delivered: bool,
    consumed: u8,
    /// Settlements that may have happened.
    perhaps: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Unknown,
    Acknowledged,
    Rejected,
}

/// The sums of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) rejected: u64,
    pub(super) consumed: u64,
    pub(super) lost: u64,
    /// Where ids were given.
    pub(super) doubled: u64,
    /// Where none were.
    pub(super) doubled_without_ids: u64,
    /// Rejected and yet consumed.
    pub(super) undead: u64,
    pub(super) out_of_order: u64,
    /// The same of messages that say they were out for delivery before: a connection that was cut in silence
    /// holds what it was sent until the broker has noticed, while its client goes on by another one.
    pub(super) late: u64,
    /// Messages nobody sent.
    pub(super) foreign: u64,
}

impl Sums {
    /// Whether every promise was kept.
    pub(super) fn is_kept(&self) -> bool {
        (
            self.lost,
            self.doubled,
            self.undead,
            self.out_of_order,
            self.foreign,
        ) == (0, 0, 0, 0, 0)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.rejected += other.rejected;
        self.consumed += other.consumed;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.doubled_without_ids += other.doubled_without_ids;
        self.undead += other.undead;
        self.out_of_order += other.out_of_order;
        self.late += other.late;
        self.foreign += other.foreign;
    }
}

/// How far the news of a delivery may be ahead of the news of its sending, which come on ways of their own. What
/// is still ahead in the end was never sent.
const AHEAD: usize = 1_000;

/// How many broken promises of one stream are told.
const TOLD: usize = 10;

impl Stream {
    pub(super) fn new(name: String, ids: Ids) -> Self {
        Self {
            name,
            ids,
            sent: 0,
            lines: Vec::new(),
            highest: None,
            out_of_order: Vec::new(),
            late: Vec::new(),
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

    pub(super) fn acknowledged(&mut self, number: usize) {
        self.lines[number].outcome = Outcome::Acknowledged;
    }

    pub(super) fn rejected(&mut self, number: usize) {
        self.lines[number].outcome = Outcome::Rejected;
    }

    /// The consumer was given this text; `again`: it says that it was out for delivery before. Returns its number,
    /// if it is one of this stream.
    pub(super) fn delivered(&mut self, text: &str, again: bool) -> Option<usize> {
        let number: Option<usize> = text
            .strip_prefix(self.name.as_str())
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(|number| number.parse().ok())
            .filter(|number| *number < self.sent + AHEAD);
        let Some(number) = number else {
            self.foreign.push(text.to_owned());
            return None;
        };
        self.lines
            .resize(self.lines.len().max(number + 1), Line::default());
        if !self.lines[number].delivered && self.highest > Some(number) {
            let late = if again {
                &mut self.late
            } else {
                &mut self.out_of_order
            };
            late.push(number);
        }
        self.lines[number].delivered = true;
        self.highest = self.highest.max(Some(number));
        Some(number)
    }

    /// Its settlement, or the transaction that it was in, is confirmed.
    pub(super) fn consumed(&mut self, number: usize) {
        let line = &mut self.lines[number];
        line.consumed = line.consumed.saturating_add(1);
    }

    /// Whether it is settled is unknown.
    pub(super) fn perhaps_consumed(&mut self, number: usize) {
        let line = &mut self.lines[number];
        line.perhaps = line.perhaps.saturating_add(1);
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums {
            sent: self.sent as u64,
            out_of_order: self.out_of_order.len() as u64,
            late: self.late.len() as u64,
            foreign: (self.foreign.len() + self.lines.len() - self.sent) as u64,
            ..Sums::default()
        };
        for line in self.lines.iter().take(self.sent) {
            match line.outcome {
                Outcome::Unknown => sums.unknown += 1,
                Outcome::Acknowledged => sums.acknowledged += 1,
                Outcome::Rejected => sums.rejected += 1,
            }
            sums.consumed += u64::from(line.consumed.min(1));
            sums.lost += u64::from(line.is_lost());
            sums.undead += u64::from(line.is_undead());
            match self.ids {
                Ids::Given => sums.doubled += line.doubles(),
                Ids::Absent => sums.doubled_without_ids += line.doubles(),
            }
        }
        sums
    }

    /// What was broken, one promise per line.
    pub(super) fn broken(&self) -> String {
        let mut text = String::new();
        let mut tell = |what: &str, numbers: Vec<usize>| {
            if !numbers.is_empty() {
                let (count, told) = (numbers.len(), &numbers[..numbers.len().min(TOLD)]);
                // Writing into a string never fails.
                let _ = writeln!(text, "{}: {count} {what}: {told:?}", self.name);
            }
        };
        let with = |is: fn(&Line) -> bool| {
            let found = self.lines.iter().enumerate().filter(|(_, line)| is(line));
            found.map(|(number, _)| number).collect::<Vec<_>>()
        };
        tell("lost", with(Line::is_lost));
        if self.ids == Ids::Given {
            tell("doubled", with(|line| line.doubles() > 0));
        }
        tell("rejected and yet consumed", with(Line::is_undead));
        tell("out of order", self.out_of_order.clone());
        for foreign in self.foreign.iter().take(TOLD) {
            let _ = writeln!(text, "{}: nobody sent {foreign:?}", self.name);
        }
        text
    }
}

impl Line {
    fn is_lost(&self) -> bool {
        self.outcome == Outcome::Acknowledged && self.consumed == 0 && self.perhaps == 0
    }

    fn is_undead(&self) -> bool {
        self.outcome == Outcome::Rejected && self.consumed > 0
    }

    fn doubles(&self) -> u64 {
        u64::from(self.consumed.saturating_sub(1))
    }
}

#[test]
fn the_checker_finds_every_broken_promise() {
    let mut stream = Stream::new("s".to_owned(), Ids::Given);
    for _ in 0..6 {
        stream.send();
    }
    for number in [0, 1, 2] {
        stream.acknowledged(number);
    }
    stream.rejected(3);
    for text in ["s 1", "s 0", "s 1", "s 3", "t 1", "s 9999"] {
        if let Some(number) = stream.delivered(text, false) {
            stream.consumed(number);
        }
    }
    let expected = Sums {
        sent: 6,
        acknowledged: 3,
        unknown: 2,
        rejected: 1,
        consumed: 3,
        lost: 1,
        doubled: 1,
        undead: 1,
        out_of_order: 1,
        foreign: 2,
        ..Sums::default()
    };
    assert_eq!(stream.sums(), expected);
    for told in [
        "1 lost: [2]",
        "1 doubled: [1]",
        "consumed: [3]",
        "out of order: [0]",
        "\"t 1\"",
    ] {
        assert!(stream.broken().contains(told), "{told} in {}", stream.broken());
    }
}

#[test]
fn the_checker_excuses_what_is_unknown_and_nothing_else() {
    let mut stream = Stream::new("s".to_owned(), Ids::Given);
    for _ in 0..4 {
        stream.send();
    }
    stream.acknowledged(0);
    stream.perhaps_consumed(0); // Its settlement was not confirmed, and it did not come again.
    stream.consumed(1); // It was never acknowledged, and came.
    stream.acknowledged(2);
    stream.perhaps_consumed(2);
    stream.consumed(2); // It came again.
    assert!(stream.sums().is_kept(), "{}", stream.broken());
    stream.acknowledged(3);
    assert!(!stream.sums().is_kept());
    stream.consumed(3);
    stream.consumed(3);
    assert!(!stream.sums().is_kept());
}
