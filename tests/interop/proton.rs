//! Apache Qpid Proton for Python. The cases are in `tests/interop/proton_cases.py`.

use std::path::Path;

use daymark_test_support::proton;

use crate::stage::Brokers;

const CASES: &[&str] = &[
    "bodies_arrive_as_sent",
    "properties_arrive_as_sent",
    "an_accepted_message_is_gone",
    "a_rejected_message_is_gone",
    "a_released_message_comes_back_uncounted",
    "a_modified_message_comes_back_counted",
    "messages_keep_their_order",
    "presettled_messages_arrive",
    "a_message_of_16_mebibytes_arrives_in_small_frames",
    "a_message_larger_than_the_broker_takes_is_refused_and_the_connection_lives",
    "a_sender_without_address_sends_anywhere",
    "sasl_anonymous_enters",
    "sasl_plain_enters",
    "a_client_without_sasl_enters",
    "an_idle_connection_is_kept_alive",
    "an_unknown_queue_is_refused_and_the_connection_lives",
    "a_selector_takes_what_it_chooses_and_leaves_the_rest",
    "a_selector_that_makes_no_sense_is_refused",
    "a_browser_sees_everything_and_takes_nothing",
    "a_request_is_answered_over_a_temporary_queue",
    "every_subscriber_of_a_topic_gets_its_copy",
    "a_durable_subscription_keeps_what_came_meanwhile_and_ends_with_its_link",
    "a_shared_subscription_gives_each_message_to_one",
    "what_is_sent_in_a_transaction_appears_with_its_commit",
    "what_is_sent_in_a_transaction_vanishes_with_its_rollback",
    "what_is_accepted_in_a_transaction_is_gone_with_its_commit_and_back_with_its_rollback",
    "a_duplicate_id_voids_a_transaction",
];

#[test]
fn proton_finds_what_its_programs_rely_on() {
    let Some(python) = proton::python() else { return };
    let brokers = Brokers::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/proton_cases.py");
    let script = script.display().to_string();
    let arguments = [&[&script[..], &brokers.willing, &brokers.strict], CASES].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    brokers.pass(&python, &arguments, CASES);
}
