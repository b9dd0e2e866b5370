//! go-amqp, which Go programs use. The cases are in `tests/interop/go/main.go`.

use std::path::Path;

use daymark_test_support::go;

use crate::stage::Brokers;

const CASES: &[&str] = &[
    "bodiesArriveAsSent",
    "everyOutcomeDoesWhatItSays",
    "aReceiverThatSettlesSecondIsConfirmed",
    "presettledMessagesArrive",
    "messagesKeepTheirOrder",
    "aMessageOf16MebibytesArrives",
    "thirtySessionsShareOneConnection",
    "saslPlainEnters",
    "saslAnonymousEnters",
    "aClientWithoutSaslEnters",
    "anIdleConnectionIsKeptAlive",
    "anUnknownQueueIsRefusedAndTheConnectionLives",
    "aSelectorTakesWhatItChoosesAndLeavesTheRest",
    "aRequestIsAnsweredOverATemporaryQueue",
    "everySubscriberOfATopicGetsItsCopy",
    "aSharedSubscriptionGivesEachMessageToOne",
    "aDurableSubscriptionKeepsWhatCameMeanwhile",
];

#[test]
fn go_amqp_finds_what_its_programs_rely_on() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/go");
    let Some(program) = go::program("interop", &directory) else {
        return;
    };
    let brokers = Brokers::new();
    let arguments = [&[&brokers.willing[..], &brokers.strict], CASES].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    brokers.pass(&program, &arguments, CASES);
}
