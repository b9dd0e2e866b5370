//! What the benches share: how a set of measurements is summed up and shown, and the peers beside us.

pub mod directory;
pub mod failover;
pub mod logs;
pub mod messaging;
pub mod peer;
pub mod table;

use std::io;

/// What can go wrong in a bench: it says so and ends.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn other(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// Measurements of one thing, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Measurements(Vec<f64>);

impl Measurements {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of an even number, the mean of the two in the middle. `None` where there are none.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let upper = *self.0.get(self.0.len() / 2)?;
        let lower = self.0[(self.0.len() - 1) / 2];
        Some(f64::midpoint(lower, upper))
    }

    /// The one that so many of a hundred do not exceed (nearest rank): of fewer than a hundred, the 99th is the
    /// largest. `None` where there are none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.max(1) - 1).copied()
    }

    /// The smallest. `None` where there are none.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The largest. `None` where there are none.
    #[must_use]
    pub fn worst(&self) -> Option<f64> {
        self.0.last().copied()
    }
}

impl FromIterator<f64> for Measurements {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let four: Measurements = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(
            (four.best(), four.median(), four.worst()),
            (Some(1.0), Some(2.5), Some(4.0))
        );
        assert_eq!([5.0].into_iter().collect::<Measurements>().median(), Some(5.0));
        assert_eq!(Measurements::default().median(), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_measurements() {
        let hundred: Measurements = (1..=100).map(f64::from).collect();
        assert_eq!(
            (hundred.percentile(50), hundred.percentile(99)),
            (Some(50.0), Some(99.0))
        );
        let few: Measurements = [1.0, 2.0, 3.0].into_iter().collect();
        assert_eq!((few.percentile(0), few.percentile(99)), (Some(1.0), Some(3.0)));
        assert_eq!(Measurements::default().percentile(99), None);
    }
}
