//! The conversations of the corpus, whole and damaged, and engines in company: a short part of what
//! `examples/fuzz.rs` plays for as long as one likes.

mod fuzzing;

use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary start; nothing waits for it"
)]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn the_corpus_is_heard_without_harm_by_either_side() {
    let corpus = fuzzing::corpus();
    assert!(corpus.len() >= 4, "{} conversations", corpus.len());
    for (name, bytes) in corpus {
        for seed in 0..40 {
            let tally = fuzzing::replay(&bytes, seed, start());
            assert_eq!(tally.bytes, bytes.len() as u64, "{name}");
        }
    }
}

#[test]
fn damaged_conversations_are_survived_and_the_account_balances() {
    let corpus = fuzzing::conversations();
    let mut violations = 0;
    for seed in 0..1_500 {
        violations += fuzzing::damage(&corpus, seed, start()).violations;
    }
    assert!(violations > 50, "the damage is noticed: {violations}");
}

#[test]
fn engines_that_do_whatever_they_may_never_call_each_other_wrong() {
    let mut messages = 0;
    for seed in 0..400 {
        messages += fuzzing::company(seed, start()).messages;
    }
    assert!(messages > 500, "messages were exchanged: {messages}");
}
