//! Queues as a foreign client sees them: Proton for Python.

mod messaging_support;

use std::path::Path;
use std::time::Duration;

use daymark_test_support::proton;
use messaging_support::Broker;
use tempfile::tempdir;

/// Runs one case of `proton/cases.py` against the broker.
fn case(python: &Path, broker: &Broker, name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proton/cases.py");
    let address = broker.addr.to_string();
    let _ = proton::run_script(python, &script, &[&address, name], Duration::from_secs(60));
}

/// A fresh broker for these cases, in order. It must be empty at the end.
fn cases(names: &[&str]) {
    let Some(python) = proton::python() else {
        return;
    };
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    for name in names {
        case(&python, &broker, name);
    }
    broker.until("every message to be settled", |stats| stats.messages == 0);
    broker.stop();
}

#[test]
fn messages_of_every_kind_go_through_with_default_link_names() {
    cases(&["send_and_receive"]);
}

#[test]
fn all_outcomes_take_effect() {
    cases(&["outcomes"]);
}

#[test]
fn what_is_not_there_is_refused_and_the_anonymous_relay_works() {
    cases(&["refusals"]);
}

#[test]
fn a_message_held_by_a_client_that_went_is_redelivered() {
    cases(&["leave_one", "find_left"]);
}

#[test]
fn sixteen_mebibytes_arrive_whole() {
    cases(&["large"]);
}

#[test]
fn a_stream_of_ten_thousand_keeps_its_order() {
    cases(&["stream"]);
}

#[test]
fn a_message_left_for_another_process_survives_a_restart() {
    let Some(python) = proton::python() else {
        return;
    };
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    case(&python, &broker, "leave_one");
    // The count of a delivery that failed is recorded when the connection is found gone.
    broker.until("the message to be queued again", |stats| {
        stats.queues[0].requeued > 0 && stats.connections == 0
    });
    broker.crash();
    let broker = Broker::start(dir.path());
    assert_eq!(broker.recovered.messages, 2);
    case(&python, &broker, "find_left");
    broker.stop();
}

#[test]
fn a_user_with_any_password_may_enter_for_now() {
    let Some(python) = proton::python() else {
        return;
    };
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    case(&python, &broker, "plain");
    assert_eq!(broker.stats().messages, 1);
    broker.stop();
}
