//! Connection factories that an administrator declares.

use daymark_client::{Connection, Destination, Message};
use daymark_test_support::{eventually, http_delete, http_get, http_put};
use serde_json::{Value, json};

use crate::stage::{Pair, SOON, Stage, wait};

/// A primary that is back stays what it is.
const NO_FAILBACK: &str = "[failover]\nauto_switchover = false\n";

/// What a factory's name is bound to, without its settings, and those.
fn looked_up(stage: &Stage, name: &str) -> (Value, Value) {
    let mut object = stage.json(&["lookup", name])["object"].take();
    let settings = object["settings"].take();
    (object, settings)
}

/// A factory as the broker's endpoint lists it.
fn listed(admin: &str, name: &str) -> Option<Value> {
    let answer = http_get(admin, "/v1/factories")?;
    let mut all = answer.body["factories"].as_array()?.iter();
    all.find(|factory| factory["name"] == name).cloned()
}

async fn connect(stage: &Stage, factory: &str) -> Connection {
    let name = factory.parse().expect("a name");
    let factory = stage.client().connection_factory(&name).await.expect("a factory");
    factory.connect().await.expect("a connection")
}

async fn send(connection: &Connection, text: &str) {
    let session = connection.session().await.expect("a session");
    let queue = Destination::queue("examples");
    let producer = session.producer(&queue).await.expect("a producer");
    let sent = producer.send(Message::text(text)).await;
    sent.expect("a confirmation");
}

async fn receive(connection: &Connection) -> String {
    let session = connection.session().await.expect("a session");
    let queue = Destination::queue("examples");
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let received = consumer.receive(SOON).await.expect("an answer");
    let delivery = received.expect("a message");
    delivery.accept().await.expect("it is accepted");
    delivery.message().as_text().expect("text").to_owned()
}

#[test]
fn a_declared_factory_is_looked_up_and_used_over_a_failover_until_it_is_deleted() {
    let mut pair = Pair::new(NO_FAILBACK);
    let stage = &pair.stage;
    let put = |setting| {
        let words = ["factory", "put", "orders", "patient", "--export", "jms/Patient"];
        stage.told(&[&words[..], &["--setting", setting]].concat())
    };
    assert_eq!(put("call_timeout_ms=7000"), "factory patient is set\n");
    assert_eq!(looked_up(stage, "jms/Patient").1["call_timeout_ms"], 7000);
    let revision = || stage.json(&["lookup", "jms/Patient"])["revision"].as_u64();
    let before = revision();
    put("initial_connect_attempts=-1");
    assert!(revision() > before, "a new export revision");
    let (object, mut settings) = looked_up(stage, "jms/Patient");
    let configured = looked_up(stage, "QueueConnectionFactory");
    assert_eq!(object, configured.0, "like a configured one");
    assert_eq!(settings["initial_connect_attempts"].take(), -1);
    assert_eq!(settings["call_timeout_ms"], configured.1["call_timeout_ms"]);

    wait(async { send(&connect(stage, "jms/Patient").await, "before").await });
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 2);
    let stage = &pair.stage;
    let (object, settings) = looked_up(stage, "jms/Patient");
    assert_eq!(
        (&object["brokers"][0]["port"], &object["epoch"]),
        (&json!(pair.two.broker.port), &json!(2))
    );
    assert_eq!(settings["initial_connect_attempts"], -1);
    let received = wait(async { receive(&connect(stage, "jms/Patient").await).await });
    assert_eq!(received, "before");

    let found = listed(&pair.two.admin, "patient").expect("the factory");
    let how = |factory: &Value| {
        [&factory["declared"], &factory["export_state"], &factory["export"]].map(Value::clone)
    };
    assert_eq!(
        how(&found),
        ["admin", "published", "jms/Patient"].map(Value::from)
    );
    let found = listed(&pair.two.admin, "QueueConnectionFactory").expect("the configured factory");
    let export = "QueueConnectionFactory";
    assert_eq!(
        how(&found),
        ["configuration", "published", export].map(Value::from)
    );
    let told = stage.told(&["factory", "show", "orders", "patient"]);
    assert!(told.contains("declared                        admin\n"), "{told}");
    assert!(told.contains("initial connect attempts        -1\n"), "{told}");

    assert_eq!(
        stage.told(&["factory", "delete", "orders", "patient"]),
        "factory patient is deleted\n"
    );
    stage.refused(&["lookup", "jms/Patient"], 3, "NameNotFound");
    stage.refused(&["factory", "show", "orders", "patient"], 3, "NotFound");
    stage.refused(&["factory", "delete", "orders", "patient"], 3, "NotFound");
    let group = stage.group_served_by("two", 2);
    assert_eq!(
        group["exports"],
        json!(["ExamplesQueue", "QueueConnectionFactory"])
    );
}

#[test]
fn a_factory_that_cannot_be_is_refused_with_the_reason_and_nothing_is_changed() {
    let stage = Stage::new();
    let (_process, admin) = stage.program.broker(&stage.broker("one", "primary"));
    stage.group_served_by("one", 1);
    stage.ask(&["bind", "taken", "--value", "1"]).ok();
    stage.told(&["queue", "put", "orders", "q", "--export", "jms/q"]);
    stage.told(&["factory", "put", "orders", "kept", "--export", "jms/kept"]);
    let refused = |name: &str, body: Value, status: u16, code: &str, says: &str| {
        let answer = http_put(&admin, &format!("/v1/factories/{name}"), &body).expect("an answer");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            answer.status == status && answer.body["code"] == code && detail.contains(says),
            "{answer:?}"
        );
        assert_eq!(listed(&admin, name), None, "nothing was made");
    };
    for (export, code, says) in [
        ("taken", "ExportRefused", "taken belongs to hand"),
        (
            "ExamplesQueue/below",
            "ExportRefused",
            "ExamplesQueue is not a context",
        ),
        ("jms/q", "ExportTaken", "the name of the queue \"q\""),
        ("jms/kept", "ExportTaken", "the name of the factory \"kept\""),
        ("QueueConnectionFactory", "ExportTaken", "the name of a factory"),
    ] {
        refused("f", json!({ "export": export }), 409, code, says);
    }
    let long = "f".repeat(256);
    let one = json!({"export": "jms/f"});
    let stray = json!({"export": "jms/f", "settings": {"patience": 1}});
    let (zero, root) = (json!({"connect_timeout_ms": 0}), json!({"export": ""}));
    let zero = json!({"export": "jms/f", "settings": zero});
    for (name, body, says) in [
        ("f", json!({}), "export"),
        ("f", root, "root context"),
        ("f", stray, "patience"),
        ("f", zero, "connect_timeout_ms is 0"),
        (&long, one.clone(), "longer than 255 bytes"),
        ("a%0Ab", one, "a control character"),
    ] {
        refused(name, body, 400, "InvalidRequest", says);
    }
    stage.refused(
        &["queue", "put", "orders", "a", "--export", "jms/kept"],
        1,
        "the name of the factory \"kept\"",
    );

    let kept = listed(&admin, "kept").expect("the factory");
    let change = [
        "factory",
        "put",
        "orders",
        "kept",
        "--setting",
        "call_timeout_ms=1",
    ];
    stage.refused(
        &[&change[..], &["--export", "taken"]].concat(),
        1,
        "ExportRefused",
    );
    assert_eq!(
        listed(&admin, "kept").as_ref(),
        Some(&kept),
        "nothing was changed"
    );
    assert_eq!(looked_up(&stage, "jms/kept").1, kept["settings"]);

    let configured = [
        "factory",
        "put",
        "orders",
        "QueueConnectionFactory",
        "--export",
        "x",
    ];
    stage.refused(&configured, 1, "Configured");
    stage.refused(&["lookup", "x"], 3, "NameNotFound");
    let configured = ["factory", "delete", "orders", "QueueConnectionFactory"];
    stage.refused(&configured, 1, "Configured");
    for (setting, says) in [
        ("call_timeout_ms", "KEY=VALUE"),
        ("call_timeout_ms=soon", "true or false"),
    ] {
        let put = [
            "factory",
            "put",
            "orders",
            "f",
            "--export",
            "jms/f",
            "--setting",
            setting,
        ];
        stage.refused(&put, 2, says);
    }
    let group = stage.group_served_by("one", 1);
    let names = ["ExamplesQueue", "QueueConnectionFactory", "jms/kept", "jms/q"];
    assert_eq!(group["exports"], json!(names));
}

#[test]
fn without_naming_factories_are_stored_and_deleted_and_naming_is_told_when_it_is_back() {
    let mut stage = Stage::new();
    let (_process, admin) = stage.program.broker(&stage.broker("one", "primary"));
    stage.group_served_by("one", 1);
    stage.told(&["factory", "put", "orders", "old", "--export", "jms/old"]);
    stage.naming.kill_9();
    let answer = http_put(&admin, "/v1/factories/new", &json!({"export": "jms/new"})).expect("an answer");
    assert_eq!(
        (answer.status, &answer.body["export_state"]),
        (202, &json!("waiting"))
    );
    let waiting = listed(&admin, "new").expect("the factory");
    assert_eq!(waiting["export_state"], "waiting");
    let deleted = http_delete(&admin, "/v1/factories/old").expect("an answer");
    let detail = deleted.body["detail"].as_str().expect("a detail");
    assert!(
        deleted.status == 202 && detail.contains("it is deleted"),
        "{deleted:?}"
    );

    let (naming, _) = stage.program.naming_at(&stage.address, "naming");
    stage.naming = naming;
    let names = json!(["ExamplesQueue", "QueueConnectionFactory", "jms/new"]);
    stage.group_when("the set as it is by now", |group| {
        group["exports"] == names && group["withheld"].is_null()
    });
    eventually(SOON, "the list tells that the name is published", || {
        listed(&admin, "new").is_some_and(|factory| factory["export_state"] == "published")
    });
}
