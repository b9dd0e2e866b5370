//! What became of each numbered message. It only counts: no clock, no sockets, no opinion.
//!
//! Invariant: a message counts as lost only if it was acknowledged and not received, and as doubled for each
//! time it was received after the first. A delivery the client gave back, because the connection was lost
//! before it was accepted, was not received: the program was told so, and the message comes again.

/// One line for each message.
#[derive(Debug)]
pub(crate) struct Ledger {
    lines: Vec<Line>,
    sent: u64,
    acknowledged: u64,
    given_back: u64,
    out_of_order: u64,
    /// The highest number received so far.
    highest: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    acknowledged: bool,
    delivered: u16,
    given_back: u16,
}

/// The sums of a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Messages handed to the client.
    pub sent: u64,
    /// Messages the broker acknowledged, each counted once.
    pub acknowledged: u64,
    /// Messages the program received, each counted once.
    pub received: u64,
    /// Messages acknowledged and never received.
    pub lost: u64,
    /// Deliveries of a message the program had received already.
    pub doubled: u64,
    /// Messages delivered for the first time after a message that was sent later.
    pub out_of_order: u64,
    /// Deliveries the client gave back, because the connection was lost before they were accepted.
    pub given_back: u64,
}

/// A number that is not one of the messages sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownNumber;

impl Ledger {
    /// An empty ledger for the messages `0..messages`.
    pub(crate) fn new(messages: usize) -> Self {
        Self {
            lines: vec![Line::default(); messages],
            sent: 0,
            acknowledged: 0,
            given_back: 0,
            out_of_order: 0,
            highest: None,
        }
    }

    /// One more message was handed to the client.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// The broker acknowledged this message. Returns how many it has acknowledged.
    pub(crate) fn acknowledged(&mut self, number: u64) -> Result<u64, UnknownNumber> {
        let line = self.line(number)?;
        if !std::mem::replace(&mut line.acknowledged, true) {
            self.acknowledged += 1;
        }
        Ok(self.acknowledged)
    }

    /// The program was given this message.
    pub(crate) fn delivered(&mut self, number: u64) -> Result<(), UnknownNumber> {
        let line = self.line(number)?;
        line.delivered = line.delivered.saturating_add(1);
        if line.delivered == 1 {
            if self.highest > Some(number) {
                self.out_of_order += 1;
            }
            self.highest = self.highest.max(Some(number));
        }
        Ok(())
    }

    /// The client gave a delivery of this message back.
    pub(crate) fn given_back(&mut self, number: u64) -> Result<(), UnknownNumber> {
        let line = self.line(number)?;
        line.given_back = line.given_back.saturating_add(1);
        self.given_back += 1;
        Ok(())
    }

    /// The sums as they stand.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            sent: self.sent,
            acknowledged: self.acknowledged,
            out_of_order: self.out_of_order,
            given_back: self.given_back,
            ..Counts::default()
        };
        for line in &self.lines {
            let received = u64::from(line.delivered.saturating_sub(line.given_back));
            counts.received += received.min(1);
            counts.lost += u64::from(line.acknowledged && received == 0);
            counts.doubled += received.saturating_sub(1);
        }
        counts
    }

    fn line(&mut self, number: u64) -> Result<&mut Line, UnknownNumber> {
        let index = usize::try_from(number).map_err(|_| UnknownNumber)?;
        self.lines.get_mut(index).ok_or(UnknownNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger_of(acknowledged: &[u64], received: &[u64]) -> Counts {
        let mut ledger = Ledger::new(10);
        for number in acknowledged {
            ledger.sent();
            ledger.acknowledged(*number).expect("a number");
        }
        for number in received {
            ledger.delivered(*number).expect("a number");
        }
        ledger.counts()
    }

    #[test]
    fn a_message_acknowledged_and_never_received_is_lost() {
        let counts = ledger_of(&[0, 1, 2], &[0, 2]);
        assert_eq!((counts.acknowledged, counts.received, counts.lost), (3, 2, 1));
    }

    #[test]
    fn a_message_received_and_never_acknowledged_is_neither_lost_nor_doubled() {
        let counts = ledger_of(&[0], &[0, 1]);
        assert_eq!((counts.received, counts.lost, counts.doubled), (2, 0, 0));
    }

    #[test]
    fn every_delivery_after_the_first_is_a_double_and_no_violation_of_order() {
        let counts = ledger_of(&[0, 1], &[0, 1, 0, 0]);
        assert_eq!((counts.received, counts.doubled, counts.out_of_order), (2, 2, 0));
    }

    #[test]
    fn a_first_delivery_behind_a_later_message_is_out_of_order() {
        assert_eq!(ledger_of(&[0, 1, 2, 3], &[0, 2, 1, 3]).out_of_order, 1);
    }

    #[test]
    fn a_delivery_given_back_was_not_received_and_its_successor_is_no_double() {
        let mut ledger = Ledger::new(1);
        ledger.acknowledged(0).expect("a number");
        ledger.delivered(0).expect("a number");
        ledger.given_back(0).expect("a number");
        assert_eq!((ledger.counts().received, ledger.counts().lost), (0, 1));
        ledger.delivered(0).expect("a number");
        let counts = ledger.counts();
        assert_eq!(
            (counts.received, counts.lost, counts.doubled, counts.given_back),
            (1, 0, 0, 1)
        );
    }

    #[test]
    fn a_number_that_was_never_sent_is_refused() {
        assert_eq!(Ledger::new(10).delivered(10), Err(UnknownNumber));
        assert_eq!(Ledger::new(10).acknowledged(u64::MAX), Err(UnknownNumber));
    }
}
