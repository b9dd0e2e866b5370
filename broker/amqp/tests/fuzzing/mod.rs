//! What an engine must survive, in two games played from a seed.
//!
//! *Damage*: one engine hears a valid conversation with frames moved, mixed and bent. *Company*: two engines do
//! whatever they may, in any order, over a transport that loses nothing, and must never call each other wrong. Each
//! game ends with an account that balances; see [`owner`].
#![allow(dead_code, reason = "the tests and the long run each use their part")]

mod mutate;
mod owner;
mod random;
mod record;

#[allow(unused_imports, reason = "only the long run records")]
pub(crate) use record::{corpus, record};

use daymark_amqp::{CloseReason, Config, Connection, OpenOptions, Sasl, mechanism};
use owner::Owner;
use random::Random;
use std::time::{Duration, Instant};

/// Small limits, so that they are met.
fn limits(random: &mut Random) -> Config {
    Config {
        max_frame_size: [512, 1_024, 4_096][random.below(3)],
        max_sessions: 4,
        max_links: 6,
        max_unsettled: 64,
        max_message_size: 32_768,
        max_partial: 65_536,
        incoming_window: [1, 3, 16, 200][random.below(4)],
        input_limit: 16_384,
        output_high_water: 16_384,
        output_limit: 65_536,
        first_delivery_id: [0, u32::MAX - 5, 0x7fff_fffc][random.below(3)],
        ..Config::default()
    }
}

/// What one game did, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    pub(crate) messages: u64,
    /// Games that ended because one side broke the protocol.
    pub(crate) violations: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, game: Self) {
        self.bytes += game.bytes;
        self.events += game.events;
        self.messages += game.messages;
        self.violations += game.violations;
    }
}

/// Conversations as frames, for [`damage`].
pub(crate) fn conversations() -> Vec<Vec<Vec<u8>>> {
    corpus().iter().map(|(_, bytes)| mutate::pieces(bytes)).collect()
}

/// One engine hears one damaged conversation.
pub(crate) fn damage(corpus: &[Vec<Vec<u8>>], seed: u64, now: Instant) -> Tally {
    let mut random = Random::new(seed);
    let bytes = mutate::damaged(corpus, &mut random);
    hear(&bytes, random, now)
}

/// One engine hears one conversation as it was recorded.
pub(crate) fn replay(bytes: &[u8], seed: u64, now: Instant) -> Tally {
    hear(bytes, Random::new(seed), now)
}

/// One engine, of either role, hears these bytes in pieces of any size.
fn hear(bytes: &[u8], mut random: Random, now: Instant) -> Tally {
    let mut config = limits(&mut random);
    let client = random.one_in(3);
    config.sasl = match (client, random.below(3)) {
        (_, 0) => Sasl::None,
        (true, 1) => Sasl::Anonymous,
        (true, _) => Sasl::Plain {
            user: "user".into(),
            password: "password".into(),
        },
        (false, n) => Sasl::Server {
            mechanisms: vec![mechanism::ANONYMOUS, mechanism::PLAIN, mechanism::SCRAM_SHA_256],
            required: n == 1,
        },
    };
    let engine = if client {
        Connection::client(config.clone(), now)
    } else {
        Connection::server(config.clone(), now)
    };
    let mut owner = Owner::new(engine, client, random);
    if client {
        let _ = owner.engine.open(OpenOptions::new("fuzz"));
    }
    let reads = !owner.random.one_in(5);
    let mut rest = bytes;
    let mut idle = 0;
    while !rest.is_empty() && idle < 3 {
        // A peer that never reads stops the engine from wanting more.
        if owner.engine.wants_input() {
            let size = (1 + owner.random.below(700)).min(rest.len());
            let (piece, left) = rest.split_at(size);
            owner.engine.input(piece, now);
            rest = left;
            idle = 0;
        } else {
            idle += 1;
        }
        owner.poll();
        if owner.random.one_in(3) {
            owner.act();
            owner.poll();
        }
        if reads && owner.random.one_in(2) {
            owner.engine.take_output(now);
        }
        owner.check(&config);
        bounded(&owner, &config);
    }
    finish(owner, bytes.len())
}

/// What is held for a peer has a limit, whatever it sent.
fn bounded(owner: &Owner, config: &Config) {
    let frame = config.max_frame_size as usize;
    assert!(
        owner.engine.input_len() <= config.input_limit + 2 * frame,
        "input grows"
    );
    // Frames that answer, then messages: one of at most 5,000 bytes may go over the high water mark.
    let most = config.output_limit + config.output_high_water + 64 * 1_024;
    assert!(
        owner.engine.output_len() <= most,
        "output grows: {}",
        owner.engine.output_len()
    );
}

fn finish(mut owner: Owner, bytes: usize) -> Tally {
    owner.engine.input_closed();
    owner.poll();
    assert!(owner.closed.is_some(), "the end was not told");
    assert!(
        owner.events <= 2_000 + 300 * bytes as u64,
        "{} events of {bytes} bytes",
        owner.events
    );
    Tally {
        bytes: bytes as u64,
        events: owner.events,
        messages: owner.messages,
        violations: u64::from(matches!(owner.closed, Some(CloseReason::Violation(_)))),
    }
}

/// Two engines do whatever they may and keep the protocol.
pub(crate) fn company(seed: u64, now: Instant) -> Tally {
    let mut random = Random::new(seed);
    let (ours, theirs) = (limits(&mut random), limits(&mut random));
    let mut client = Owner::new(
        Connection::client(ours.clone(), now),
        true,
        Random::new(random.next()),
    );
    let mut server = Owner::new(
        Connection::server(theirs.clone(), now),
        false,
        Random::new(random.next()),
    );
    client
        .engine
        .open(OpenOptions::new("client"))
        .expect("the first command");
    let mut bytes = 0;
    let mut now = now;
    for _ in 0..random.below(300) {
        if random.one_in(50) {
            now += Duration::from_millis(1);
        }
        match random.below(4) {
            0 => client.act(),
            1 => server.act(),
            2 => bytes += carry(&mut client, &mut server, &mut random, now),
            _ => bytes += carry(&mut server, &mut client, &mut random, now),
        }
        client.poll();
        server.poll();
        client.check(&ours);
        server.check(&theirs);
    }
    // Nobody was wrong, so both say goodbye in peace.
    client.engine.close(None);
    for _ in 0..3 {
        bytes += carry_all(&mut client, &mut server, now);
        bytes += carry_all(&mut server, &mut client, now);
    }
    assert_eq!(client.closed, Some(CloseReason::Local));
    assert_eq!(server.closed, Some(CloseReason::Remote(None)));
    Tally {
        bytes: bytes as u64,
        events: client.events + server.events,
        messages: client.messages + server.messages,
        violations: 0,
    }
}

/// Carries some of what one has written to the other.
fn carry(from: &mut Owner, to: &mut Owner, random: &mut Random, now: Instant) -> usize {
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let filled = from.engine.output_slices(&mut slices);
    let mut piece: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
    piece.truncate(1 + random.below(3_000));
    if !to.engine.wants_input() {
        return 0;
    }
    from.engine.output_written(piece.len(), now);
    to.engine.input(&piece, now);
    to.poll();
    piece.len()
}

fn carry_all(from: &mut Owner, to: &mut Owner, now: Instant) -> usize {
    let piece = from.engine.take_output(now);
    for part in piece.chunks(1_000) {
        to.engine.input(part, now);
        to.poll();
    }
    piece.len()
}
