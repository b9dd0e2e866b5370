//! Apache Qpid JMS, which most Java programs use. The cases are in `tests/interop/java`: one run of the virtual
//! machine serves them all.

use std::path::Path;

use daymark_test_support::Process;
use daymark_test_support::java::Java;
use daymark_test_support::proxy::{Act, Moment, Piece, Proxy, Way};

use crate::pair::Pair;
use crate::stage::{Brokers, PATIENCE};

const CASES: &[&str] = &[
    // What is sent.
    "aTextArrivesAsSent",
    "bytesArriveAsSent",
    "aMapArrivesAsSent",
    "aStreamArrivesAsSent",
    "anObjectArrivesUnopened",
    "headersAndPropertiesArriveAsSent",
    "aMessageOf16MebibytesArrivesAsSent",
    "aMessageOf16MebibytesArrivesInFramesOf4Kibibytes",
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
    "anExpiredMessageIsNotDelivered",
    "aDelayedMessageComesInItsTime",
    "nonPersistentMessagesAreDelivered",
    "presettledMessagesAreDelivered",
    // Looking and choosing.
    "aBrowserSeesEverythingAndTakesNothing",
    "aBrowserChooses",
    "aSelectorTakesWhatItChoosesAndLeavesTheRest",
    "everyKindOfConditionChooses",
    "aSelectorThatMakesNoSenseIsRefused",
    // What lives as long as its connection.
    "aRequestIsAnsweredThroughATemporaryQueue",
    "aTemporaryTopicReachesItsSubscribers",
    "temporaryQueuesHaveNamesOfTheirOwn",
    "aDeletedTemporaryQueueIsGone",
    "aTemporaryQueueGoesWithItsConnection",
    // Topics.
    "everySubscriberGetsEveryMessage",
    "aSubscriberChoosesWithASelector",
    "noLocalLeavesOutWhatItsOwnConnectionSent",
    "aDurableSubscriptionKeepsWhatCameMeanwhile",
    "unsubscribeIsRefusedForWhatIsNotThereOrInUse",
    "aDurableSubscriptionWithAnotherSelectorStartsAgain",
    "aSharedSubscriptionSharesItsMessages",
    "oneConnectionSharesASubscriptionWithItself",
    "aSharedDurableSubscriptionSharesAndKeeps",
    "aSharedDurableSubscriptionOfAClientIdIsItsOwn",
    // Transactions.
    "sentMessagesAppearWithTheCommit",
    "sentMessagesVanishWithTheRollback",
    "receivedMessagesGoWithTheCommit",
    "receivedMessagesComeBackWithTheRollback",
    "receivingAndSendingAreOneTransaction",
    "aTransactionReachesSeveralQueuesAndTopics",
    "aSessionThatClosesRollsBack",
    "manyTransactionsFollowEachOther",
    "aListenerInATransactionIsGivenTheMessageAgainAfterRollback",
];

#[test]
fn qpid_jms_finds_what_a_jms_program_relies_on() {
    let Some(java) = cases() else { return };
    let brokers = Brokers::new();
    let arguments = [&[&brokers.willing[..], &brokers.strict], CASES].concat();
    let arguments = java.arguments("daymark.interop.Main", &arguments);
    brokers.pass(java.executable(), &arguments, CASES);
}

#[test]
fn qpid_jms_learns_where_the_standby_is_and_goes_on_there_after_kill_9() {
    let Some(java) = cases() else { return };
    let mut pair = Pair::new("");
    let one = format!("127.0.0.1:{}", pair.one.broker.port);
    let two = format!("127.0.0.1:{}", pair.two.broker.port);
    let arguments = java.arguments("daymark.interop.Failover", &[&one]);
    let mut program = Process::start(java.executable(), &arguments, &pair.stage.program.path("."), &[]);
    while program.announced("sent", PATIENCE) != "20" {}
    pair.one.process.kill_9();
    for _ in ["the connection that sends", "the connection that receives"] {
        assert_eq!(program.announced("restored", PATIENCE), two);
    }
    let received = program.announced("received all", PATIENCE);
    assert!(received.parse::<u32>().expect("a number") >= 30, "{received}");
}

/// What docs/client.md tells JMS programs to do after a commit that was refused, and why: this client gives back what it
/// had fetched ahead, and shows and "commits" it all the same in the same session.
#[test]
fn qpid_jms_commits_each_message_once_in_another_session_after_a_refused_commit_and_not_in_the_same() {
    let Some(java) = cases() else { return };
    let brokers = Brokers::new();
    let committed = |queue: &str, how: &str| {
        let proxy = Proxy::start(brokers.willing.parse().expect("an address"));
        let third = Moment::Piece(Piece::Disposition, 3);
        let cut = proxy.at(Way::ToBroker, third, Act::CutAfter);
        let through = proxy.address.to_string();
        let arguments = [&brokers.willing, &through, queue, how];
        let arguments = java.arguments("daymark.interop.InDoubt", &arguments);
        let mut program = Process::start(java.executable(), &arguments, Path::new("."), &[]);
        let committed = program.announced("committed", PATIENCE);
        assert!(cut.is_done(), "{how}: the connection was never cut");
        committed
    };
    assert_eq!(committed("in-doubt.careful", "careful"), "20 twice 0");
    let careless = committed("in-doubt.careless", "careless");
    assert!(
        careless.starts_with("20 twice ") && careless != "20 twice 0",
        "{careless}: this client has learnt better, and docs/client.md may say so"
    );
}

fn cases() -> Option<Java> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/java");
    Java::project("interop-jms", &directory)
}
