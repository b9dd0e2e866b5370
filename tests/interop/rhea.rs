//! rhea, the AMQP 1.0 library of Node. The cases are in `tests/interop/node/cases.js`.

use std::path::Path;

use daymark_test_support::node;

use crate::stage::Brokers;

const CASES: &[&str] = &[
    "bodiesArriveAsSent",
    "everyOutcomeDoesWhatItSays",
    "aDrainIsAnsweredAfterWhatThereIs",
    "messagesOfEverySizeKeepTheirOrder",
    "aMessageOf16MebibytesArrives",
    "fiftySessionsShareOneConnection",
    "saslPlainEnters",
    "saslAnonymousEnters",
    "aClientWithoutSaslEnters",
    "anIdleConnectionIsKeptAlive",
    "anUnknownQueueIsRefusedAndTheConnectionLives",
    "aSelectorTakesWhatItChoosesAndLeavesTheRest",
    "aSelectorThatMakesNoSenseIsRefused",
    "aBrowserSeesEverythingAndTakesNothing",
    "aRequestIsAnsweredOverATemporaryQueue",
    "everySubscriberOfATopicGetsItsCopy",
    "presettledMessagesArrive",
    "aSharedSubscriptionGivesEachMessageToOne",
    "aDurableSubscriptionKeepsWhatCameMeanwhileAndEndsWithItsLink",
];

#[test]
fn rhea_finds_what_its_programs_rely_on() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/node/cases.js");
    let Some((node, script)) = node::script(&script) else {
        return;
    };
    let brokers = Brokers::new();
    let script = script.display().to_string();
    let arguments = [&[&script[..], &brokers.willing, &brokers.strict], CASES].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    brokers.pass(&node, &arguments, CASES);
}
