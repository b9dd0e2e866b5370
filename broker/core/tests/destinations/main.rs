//! Queues, topics, subscriptions and transactions against a model, under random events, a slow store, passing
//! time and crashes.
//!
//! The model says after every step what waits in each queue and subscription, in which order, and how often it
//! failed; the queues must show exactly that. So nothing is lost, nothing is doubled, the order is kept, what
//! was settled stays settled, what expired is gone, and a dead letter arrives once. Beside that: no consumer
//! gets more than its credit, what it does not want, or what is not durable yet; and one with credit gets what
//! there is. A crash cuts off what the store had not made durable, or only some of it.
//!
//! `QUEUES_MODEL_SEEDS=N` runs N seeds instead of the usual number, `QUEUES_MODEL_FIRST` says which is the
//! first; a failure names its seed.

#[path = "../queues_support/mod.rs"]
mod queues_support;

mod events;
mod model;
mod world;

use world::{Broken, World};

/// Chance that repeats (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.next(below as u64)).unwrap()
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.next(times) == 0
    }
}

/// One life of the queues; what was violated, if anything.
fn live(seed: u64, broken: Broken) -> Result<(), String> {
    let mut chance = Seeded(seed);
    let mut world = World::new(broken);
    for _ in 0..40 + chance.next(160) {
        world.step(&mut chance)?;
    }
    world.finish()
}

fn told(variable: &str, usual: u64) -> u64 {
    let told = std::env::var(variable).ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn queues_hold_and_hand_out_what_the_model_says() {
    let first = told("QUEUES_MODEL_FIRST", 0);
    for seed in first..first + told("QUEUES_MODEL_SEEDS", 200) {
        assert_eq!(live(seed, Broken::Nothing), Ok(()), "seed {seed}");
    }
}

#[test]
fn a_rule_broken_on_purpose_is_found() {
    for broken in [
        Broken::LosesBatches,
        Broken::CallsEarly,
        Broken::StopsTheClock,
        Broken::ForgetsSettlements,
        Broken::ForgetsMoves,
        Broken::IgnoresSelectors,
        Broken::GivesMoreCredit,
        Broken::ReleasesInsteadOfAccepting,
        Broken::CommitsRollbacks,
    ] {
        let found = (0..200).any(|seed| live(seed, broken).is_err());
        assert!(found, "{broken:?} is not found");
    }
}
