//! Apache Qpid JMS, which most Java programs use. The cases are in `tests/interop/java`: one run of the virtual
//! machine serves them all.

use std::path::Path;

use daymark_test_support::java::Java;

use crate::stage::Brokers;

const CASES: &[&str] = &[
    // What is sent.
    "aTextArrivesAsSent",
    "bytesArriveAsSent",
    "aMapArrivesAsSent",
    "aStreamArrivesAsSent",
    "anObjectArrivesUnopened",
    "headersAndPropertiesArriveAsSent",
    "aMessageOf16MebibytesArrivesAsSent",
    "messagesLargerThanTheBrokerTakesAreRefusedAndTheConnectionLives",
    "theSimplifiedInterfaceWorks",
    // Acknowledge modes and outcomes.
    "autoAcknowledgeTakesMessagesAway",
    "dupsOkAcknowledgeTakesMessagesAway",
    "noAcknowledgeTakesMessagesAway",
    "clientAcknowledgeTakesAwayAllSoFar",
    "recoverBringsMessagesBackInOrder",
    "eachMessageIsAcknowledgedOnItsOwn",
    "aRejectedMessageDoesNotComeBack",
    "aReleasedMessageComesBackUncounted",
    "aFailedMessageComesBackCounted",
    "aListenerGetsEveryMessageInOrder",
    "aListenerThatFailsIsGivenTheMessageAgain",
    // Producers and consumers.
    "aQueueKeepsTheOrderOfItsProducer",
    "aConsumerWithoutPrefetchPulls",
    "competingConsumersShareAQueue",
    "whatAClosedConsumerHadPrefetchedGoesToTheNext",
    "aStoppedConnectionReceivesNothingUntilItStartsAgain",
    "aProducerWithoutDestinationSendsAnywhere",
    "asynchronousSendsAreCompletedInOrder",
    "fiftySessionsShareOneConnection",
    // Connections.
    "saslAnonymousEnters",
    "saslPlainEnters",
    "aClientWithoutSaslEnters",
    "aMechanismThatIsNotOfferedIsRefused",
    "aClientIdIsUsedByOneConnectionAtATime",
    "anUnknownQueueIsRefusedAndTheSessionLives",
    "anImpossibleAddressIsRefusedAndTheSessionLives",
    "anIdleConnectionIsKeptAlive",
    // When and in which order.
    "higherPrioritiesGoFirst",
    "nonPersistentMessagesAreDelivered",
    "presettledMessagesAreDelivered",
];

#[test]
fn qpid_jms_finds_what_a_jms_program_relies_on() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/java");
    let Some(java) = Java::project("interop-jms", &directory) else {
        return;
    };
    let brokers = Brokers::new();
    let arguments = [&[&brokers.willing[..], &brokers.strict], CASES].concat();
    let arguments = java.arguments("daymark.interop.Main", &arguments);
    brokers.pass(java.executable(), &arguments, CASES);
}
