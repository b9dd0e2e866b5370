//! Two members and one store under crash, freeze, partition, slow disk, late answers, outage of naming,
//! planned stop, switchover, force and failback, names that are given and stolen, in every order that a seed or a
//! list makes.
//!
//! Whatever happens: no two members acknowledge under the same or an older epoch, nothing acknowledged is
//! lost, nothing is published that does not listen, a standby does not listen, a stolen name ends nobody, and
//! somebody serves once the faults have ended, under every promised name that nobody else has. `MODEL_SEEDS=N` runs N seeds instead of the usual number; a failure names its seed.

mod store;
mod world;

use world::{Broken, Fault, World};

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

    fn fault(&mut self) -> Fault {
        let member = usize::from(self.next(2) == 1);
        let name = u8::try_from(self.next(3)).unwrap_or_default();
        match self.next(32) {
            0..=2 => Fault::Kill(member),
            3..=6 => Fault::Restart(member),
            7 | 8 => Fault::Freeze(member),
            9..=11 => Fault::Thaw(member),
            12 => Fault::CutPeers,
            13 => Fault::CutNaming(member),
            14 | 15 => Fault::Reconnect,
            16 => Fault::NamingDown,
            17 => Fault::NamingUp,
            18 => Fault::SlowDisk(self.next(2) == 0),
            19 => Fault::LateAnswers(self.next(2) == 0),
            20 => Fault::Stop(member),
            21 | 22 => Fault::Switchover(member),
            23 => Fault::Force(member),
            24..=26 => Fault::Declare(name),
            27 => Fault::Undeclare(name),
            28 | 29 => Fault::Bind(name),
            _ => Fault::Unbind(name),
        }
    }
}

/// One life of the pair; what was violated, if anything.
fn live(seed: u64, broken: Broken) -> Option<String> {
    let mut chance = Seeded(seed);
    let mut world = World::new(broken);
    for _ in 0..chance.next(40) {
        let most = match chance.next(3) {
            0 => 20,
            1 => 300,
            _ => 2500,
        };
        world.pass(chance.next(most));
        world.suffer(chance.fault());
    }
    world.heal();
    world.violation
}

fn seeds() -> u64 {
    let told = std::env::var("MODEL_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    told.unwrap_or(400)
}

#[test]
fn whatever_happens_to_a_pair_its_promises_hold() {
    for seed in 0..seeds() {
        let violation = live(seed, Broken::Nothing);
        assert_eq!(violation, None, "seed {seed}");
    }
}

/// A pair in which `a` serves and `b` is ready.
fn pair() -> World {
    let mut world = World::new(Broken::Nothing);
    world.pass(1500);
    assert_eq!(
        (world.active(), world.is_served()),
        (Some(0), true),
        "the pair does not start"
    );
    world
}

#[test]
fn a_pair_that_suffers_nothing_serves_hands_over_and_hands_back() {
    let mut world = pair();
    let before = world.acknowledged();
    world.suffer(Fault::Switchover(0));
    world.pass(100);
    assert_eq!((world.active(), world.is_served()), (Some(1), true));
    world.suffer(Fault::Switchover(1));
    world.pass(100);
    assert_eq!((world.active(), world.is_served()), (Some(0), true));
    assert!(
        world.acknowledged() > before + 5,
        "it acknowledges under every term"
    );
    assert_eq!(world.violation, None);
}

/// Every fault at every moment of a switchover, one by one.
#[test]
fn a_switchover_that_is_disturbed_at_any_moment_ends_with_somebody_active() {
    let disturbances = [
        Fault::Kill(0),
        Fault::Kill(1),
        Fault::Freeze(0),
        Fault::Freeze(1),
        Fault::CutPeers,
        Fault::CutNaming(0),
        Fault::CutNaming(1),
        Fault::NamingDown,
        Fault::SlowDisk(true),
        Fault::LateAnswers(true),
        Fault::Stop(0),
        Fault::Stop(1),
        Fault::Switchover(1),
        Fault::Force(0),
        Fault::Force(1),
    ];
    for fault in disturbances {
        for moment in 0..40 {
            for pause in [50, 2500] {
                let mut world = pair();
                world.suffer(Fault::Switchover(0));
                world.turns(moment);
                world.suffer(fault);
                world.pass(pause);
                world.heal();
                assert_eq!(
                    world.violation, None,
                    "{fault:?} after {moment} turns for {pause} ms"
                );
            }
        }
    }
}

/// Whether some seed finds what is broken.
fn is_found(broken: Broken) -> bool {
    (0..400).any(|seed| live(seed, broken).is_some())
}

#[test]
fn a_rule_broken_on_purpose_is_found() {
    for broken in [
        Broken::NoSecondLook,
        Broken::PublishesFirst,
        Broken::KeepsThePort,
        Broken::TakesTheLock,
        Broken::ForgetsTheName,
        Broken::BlamesTheWholeSet,
    ] {
        assert!(is_found(broken), "{broken:?} is not found");
    }
}
