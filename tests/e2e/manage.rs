//! What an administrator does to a group's destinations from the command line.

use daymark_client::proto::FactorySettings;
use daymark_client::{
    Connection, ConnectionFactory, ConnectionOptions, ConsumerOptions, Destination, Message, Subscription,
};
use daymark_test_support::eventually;
use serde_json::json;

use crate::stage::{Pair, SOON, wait};

async fn connect(port: u16) -> Connection {
    let factory = ConnectionFactory::explicit([("127.0.0.1", port)], FactorySettings::default());
    let options = ConnectionOptions {
        container_id: Some("reader".to_owned()),
        ..ConnectionOptions::default()
    };
    factory.connect_with(options).await.expect("a connection")
}

#[test]
fn a_queue_is_made_looked_into_emptied_and_deleted_from_the_command_line_over_a_switchover() {
    let pair = Pair::new("[failover]\nauto_switchover = false\n");
    let put = [
        "queue",
        "put",
        "orders",
        "a/b c",
        "--max-messages",
        "5",
        "--when-full",
        "reject",
    ];
    assert_eq!(pair.stage.told(&put), "queue a/b c is set\n");
    wait(async {
        let connection = connect(pair.one.broker.port).await;
        let session = connection.session().await.expect("a session");
        let producer = session
            .producer(&Destination::queue("a/b c"))
            .await
            .expect("a producer");
        for text in ["one", "two"] {
            let message = Message::text(text).with_property("n", text);
            producer.send(message).await.expect("a confirmation");
        }
        connection.close().await;
    });
    pair.stage.switch_over("two");
    pair.stage.group_served_by("two", 2);
    let shown = pair.stage.json(&["queue", "show", "orders", "a/b c"]);
    assert_eq!(
        (&shown["messages"], &shown["settings"]["max_messages"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(shown["settings"]["when_full"], "reject");
    assert!(
        pair.stage
            .told(&["queue", "show", "orders", "a/b c"])
            .contains("max messages           5\n")
    );
    assert!(
        pair.stage
            .told(&["queue", "list", "orders"])
            .contains("\na/b c     2 ")
    );
    let browse = ["queue", "browse", "orders", "a/b c", "--selector", "n = 'two'"];
    let found = pair.stage.json(&browse);
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["messages"][0]["text"], "two");
    assert!(pair.stage.told(&browse).contains("two"));
    pair.stage.refused(
        &["queue", "browse", "orders", "a/b c", "--selector", "n ="],
        1,
        "InvalidRequest",
    );
    pair.stage.refused(
        &["queue", "delete", "orders", "a/b c", "--only-if-unused"],
        1,
        "InUse",
    );
    assert_eq!(
        pair.stage.told(&["queue", "purge", "orders", "a/b c"]),
        "2 messages dropped\n"
    );
    assert_eq!(
        pair.stage.told(&["queue", "delete", "orders", "a/b c"]),
        "0 messages dropped\n"
    );
    pair.stage
        .refused(&["queue", "show", "orders", "a/b c"], 3, "NotFound");
    pair.stage
        .refused(&["queue", "put", "orders", "examples"], 1, "Configured");
    pair.stage
        .refused(&["queue", "list", "nobody"], 3, "GroupNotFound");
}

#[test]
fn topics_subscriptions_connections_links_and_factories_are_shown_and_ended_from_the_command_line() {
    let pair = Pair::new("[failover]\nauto_switchover = false\n");
    pair.stage
        .told(&["topic", "put", "orders", "news", "--expiry", "late"]);
    let topic = pair.stage.json(&["topic", "show", "orders", "news"]);
    assert_eq!(topic["settings"]["expiry"], "late");
    wait(async {
        let connection = connect(pair.one.broker.port).await;
        let session = connection.session().await.expect("a session");
        let options = ConsumerOptions {
            subscription: Some(Subscription::durable("all")),
            ..ConsumerOptions::default()
        };
        let news = Destination::topic("news");
        let _consumer = session.consumer_with(&news, options).await.expect("a consumer");
        let list = |what: &str| pair.stage.json(&[what, "list", "orders"])[format!("{what}s")].clone();
        let client = json!({"name": "all", "client": "reader", "durable": true});
        let subscription = list("subscription")[0].clone();
        for key in ["name", "client", "durable"] {
            assert_eq!(subscription[key], client[key]);
        }
        assert!(
            pair.stage
                .told(&["subscription", "list", "orders"])
                .contains("\nall   reader  news")
        );
        let delete = ["subscription", "delete", "orders", "all", "--client", "reader"];
        pair.stage.refused(&delete, 1, "InUse");
        let link = list("link")[0].clone();
        assert_eq!(
            (&link["kind"], &link["address"]),
            (&json!("consumer"), &json!("news"))
        );
        let id = list("connection")[0]["id"].to_string();
        assert_eq!(
            pair.stage.told(&["connection", "close", "orders", &id]),
            format!("connection {id} is closed\n")
        );
    });
    let gone = || pair.stage.json(&["link", "list", "orders"])["links"] == json!([]);
    eventually(SOON, "no link is left", gone);
    pair.stage
        .told(&["subscription", "delete", "orders", "all", "--client", "reader"]);
    pair.stage
        .refused(&["link", "close", "orders", "99999"], 3, "NotFound");
    pair.stage.told(&["topic", "delete", "orders", "news"]);
    assert!(pair.stage.told(&["topic", "list", "orders"]).starts_with("name"));
    let factories = pair.stage.json(&["factory", "list", "orders"]);
    assert_eq!(factories["factories"][0]["export"], "QueueConnectionFactory");
    let told = pair.stage.told(&["factory", "list", "orders"]);
    assert!(told.contains("initial connect attempts        10\n"), "{told}");
}
