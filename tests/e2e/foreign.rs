//! A foreign AMQP client: Proton for Python, from PyPI. It knows the address a lookup shows, and nothing else.

use std::path::Path;

use daymark_test_support::proton;

use crate::stage::{Pair, SOON, Stage};

#[test]
fn proton_sends_to_the_active_broker_and_receives_from_the_next_one() {
    let Some(python) = proton::python() else { return };
    let mut pair = Pair::new("");
    run(&python, "send", &active(&pair.stage), &["first", "second"]);
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 2);
    run(&python, "send", &active(&pair.stage), &["third"]);
    let received = run(&python, "receive", &active(&pair.stage), &["3"]);
    assert_eq!(received.lines().collect::<Vec<_>>(), ["first", "second", "third"]);
}

/// Where the active broker is, as anybody may look it up.
fn active(stage: &Stage) -> String {
    let factory = stage.json(&["lookup", "QueueConnectionFactory"]);
    let broker = &factory["object"]["brokers"][0];
    format!("{}:{}", broker["host"].as_str().expect("a host"), broker["port"])
}

fn run(python: &Path, verb: &str, address: &str, rest: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/foreign.py");
    proton::run_script(python, &script, &[&[verb, address], rest].concat(), SOON)
}
