//! Names in the directory that an administrator gives to destinations.

use daymark_test_support::{HttpAnswer, eventually, eventually_some, http_delete, http_get, http_put};
use serde_json::{Value, json};

use crate::stage::{Member, Pair, SOON, Stage};

/// A primary that is back stays what it is.
const NO_FAILBACK: &str = "[failover]\nauto_switchover = false\n";

/// What a name is bound to, and the epoch it is exported under.
fn bound(stage: &Stage, name: &str) -> (Value, Value) {
    let binding = stage.json(&["lookup", name]);
    (
        binding["object"]["address"].clone(),
        binding["owner"]["epoch"].clone(),
    )
}

/// A destination as the broker's endpoint lists it.
fn listed(member: &Member, kind: &str, name: &str) -> Option<Value> {
    let answer = http_get(&member.admin, &format!("/v1/{kind}s"))?;
    let mut all = answer.body[format!("{kind}s")].as_array()?.iter();
    all.find(|one| one["name"] == name).cloned()
}

#[test]
fn a_name_given_by_an_administrator_follows_failover_until_it_is_taken_away() {
    let mut pair = Pair::new(NO_FAILBACK);
    let stage = &pair.stage;
    let put = ["queue", "put", "orders", "billing", "--export", "jms/billing"];
    assert_eq!(stage.told(&put), "queue billing is set\n");
    assert_eq!(bound(stage, "jms/billing"), (json!("billing"), json!(1)));
    stage.told(&["topic", "put", "orders", "news", "--export", "jms/news"]);
    assert_eq!(bound(stage, "jms/news"), (json!("news"), json!(1)));
    let group = stage.group_served_by("one", 1);
    let names = [
        "ExamplesQueue",
        "QueueConnectionFactory",
        "jms/billing",
        "jms/news",
    ];
    assert_eq!(group["exports"], json!(names), "what is configured stays");

    pair.one.process.kill_9();
    let group = pair.stage.group_served_by("two", 2);
    assert_eq!(group["exports"], json!(names));
    let stage = &pair.stage;
    assert_eq!(bound(stage, "jms/billing"), (json!("billing"), json!(2)));
    assert_eq!(bound(stage, "jms/news"), (json!("news"), json!(2)));
    let queues = stage.told(&["queue", "list", "orders"]);
    let billing = queues
        .lines()
        .find(|line| line.starts_with("billing "))
        .unwrap_or_default();
    let cells: Vec<&str> = billing.split_whitespace().collect();
    assert!(cells.ends_with(&["jms/billing", "published"]), "{queues}");
    let shown = stage.json(&["queue", "show", "orders", "billing"]);
    assert_eq!(
        (&shown["settings"]["export"], &shown["export_state"]),
        (&json!("jms/billing"), &json!("published"))
    );
    let examples = stage.json(&["queue", "show", "orders", "examples"]);
    assert_eq!(
        (&examples["settings"]["export"], &examples["export_state"]),
        (&json!("ExamplesQueue"), &json!("published"))
    );

    stage.told(&["queue", "put", "orders", "billing", "--export", "jms/bills"]);
    assert_eq!(bound(stage, "jms/bills"), (json!("billing"), json!(2)));
    stage.refused(&["lookup", "jms/billing"], 3, "NameNotFound");
    assert_eq!(
        stage.told(&["queue", "delete", "orders", "billing"]),
        "0 messages dropped\n"
    );
    stage.refused(&["lookup", "jms/bills"], 3, "NameNotFound");
    stage.told(&["topic", "put", "orders", "news"]);
    stage.refused(&["lookup", "jms/news"], 3, "NameNotFound");
    assert_eq!(stage.group_served_by("two", 2)["exports"], json!(names[..2]));
}

#[test]
fn a_name_that_somebody_else_has_is_refused_and_the_broker_goes_on() {
    let pair = Pair::new(NO_FAILBACK);
    let stage = &pair.stage;
    stage.ask(&["bind", "taken", "--value", "1"]).ok();
    stage.told(&["queue", "put", "orders", "kept", "--export", "jms/kept"]);
    let export = |name| ["queue", "put", "orders", "a", "--export", name];
    for (name, code, says) in [
        ("taken", "ExportRefused", "taken belongs to hand"),
        (
            "ExamplesQueue/below",
            "ExportRefused",
            "ExamplesQueue is not a context",
        ),
        ("jms", "ExportRefused", "jms belongs to hand"),
        (
            "ExamplesQueue",
            "ExportTaken",
            "the name of the queue \"examples\"",
        ),
        ("QueueConnectionFactory", "ExportTaken", "the name of a factory"),
        ("jms/kept", "ExportTaken", "the name of the queue \"kept\""),
        ("", "InvalidRequest", "root context"),
    ] {
        stage.refused(&export(name), 1, code);
        stage.refused(&export(name), 1, says);
        stage.refused(&["queue", "show", "orders", "a"], 3, "NotFound");
    }
    stage.refused(&export("'never closed"), 2, "not closed");
    let answer = http_put(
        &pair.one.admin,
        "/v1/queues/a",
        &json!({"export": "'never closed"}),
    );
    let invalid =
        answer.is_some_and(|HttpAnswer { status, body }| status == 400 && body["code"] == "InvalidRequest");
    assert!(invalid, "an answer about the name");

    let change = [
        "queue",
        "put",
        "orders",
        "kept",
        "--export",
        "taken",
        "--max-messages",
        "7",
    ];
    stage.refused(&change, 1, "ExportRefused");
    let kept = stage.json(&["queue", "show", "orders", "kept"]);
    assert_eq!(kept["settings"]["export"], "jms/kept");
    assert_eq!(
        kept["settings"]["max_messages"],
        Value::Null,
        "nothing was changed"
    );
    assert_eq!(bound(stage, "jms/kept"), (json!("kept"), json!(1)));
    let group = stage.group_served_by("one", 1);
    assert_eq!(
        group["exports"],
        json!(["ExamplesQueue", "QueueConnectionFactory", "jms/kept"])
    );
    stage.ask(&["unbind", "taken"]).ok();
    assert_eq!(stage.told(&export("taken")), "queue a is set\n");
    assert_eq!(bound(stage, "taken"), (json!("a"), json!(1)));
}

#[test]
fn without_naming_a_name_is_stored_and_published_when_naming_is_back() {
    let mut pair = Pair::new(NO_FAILBACK);
    pair.stage
        .told(&["queue", "put", "orders", "old", "--export", "jms/old"]);
    pair.stage
        .told(&["topic", "put", "orders", "plain", "--export", "jms/plain"]);
    pair.stage.naming.kill_9();
    let plain = http_put(&pair.one.admin, "/v1/topics/plain", &json!({})).expect("an answer");
    assert_eq!(
        (plain.status, &plain.body["export"]),
        (202, &Value::Null),
        "the name is taken away"
    );
    let answer = http_put(&pair.one.admin, "/v1/queues/a", &json!({"export": "jms/a"})).expect("an answer");
    assert_eq!(
        (answer.status, &answer.body["export_state"]),
        (202, &json!("waiting"))
    );
    let detail = answer.body["detail"].as_str().expect("a detail");
    assert!(detail.contains("it is stored"), "{detail}");
    let waiting = listed(&pair.one, "queue", "a").expect("the queue");
    assert_eq!(waiting["export_state"], "waiting");
    let deleted = http_delete(&pair.one.admin, "/v1/queues/old").expect("an answer");
    let detail = deleted.body["detail"].as_str().expect("a detail");
    assert!(
        deleted.status == 200 && detail.contains("it is deleted"),
        "{deleted:?}"
    );

    let (naming, _) = pair.stage.program.naming_at(&pair.stage.address, "naming");
    pair.stage.naming = naming;
    let group = pair.stage.group_when("the set as it is by now", |group| {
        group["exports"] == json!(["ExamplesQueue", "QueueConnectionFactory", "jms/a"])
            && group["withheld"].is_null()
    });
    let epoch = group["epoch"].clone();
    assert_eq!(bound(&pair.stage, "jms/a"), (json!("a"), epoch));
    eventually(SOON, "the list tells that the name is published", || {
        listed(&pair.one, "queue", "a").is_some_and(|queue| queue["export_state"] == "published")
    });
}

/// The only broker of its group, active.
fn alone(stage: &Stage) -> Member {
    let broker = stage.broker("one", "primary");
    let (process, admin) = stage.program.broker(&broker);
    stage.group_served_by("one", 1);
    Member {
        process,
        admin,
        broker,
    }
}

#[test]
fn a_name_stolen_before_a_promotion_is_left_out_and_comes_back_when_it_is_free() {
    let mut stage = Stage::new();
    let mut one = alone(&stage);
    stage.naming.kill_9();
    for name in ["mine", "stolen"] {
        let path = format!("/v1/queues/{name}");
        let answer = http_put(&one.admin, &path, &json!({"export": name})).expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    one.process.kill_9();
    let (naming, _) = stage.program.naming_at(&stage.address, "naming");
    stage.naming = naming;
    stage.ask(&["bind", "stolen", "--value", "1"]).ok();

    one.restart(&stage);
    let group = stage.group_served_by("one", 2);
    assert_eq!(
        group["exports"],
        json!(["ExamplesQueue", "QueueConnectionFactory", "mine"])
    );
    assert_eq!(bound(&stage, "mine"), (json!("mine"), json!(2)));
    assert_eq!(stage.json(&["lookup", "stolen"])["object"]["type"], "value");
    let left_out = eventually_some(SOON, "the list tells of the name", || {
        listed(&one, "queue", "stolen").filter(|queue| queue["export_state"] == "left-out")
    });
    let why = left_out["export_why"].as_str().expect("a reason");
    assert!(why.contains("stolen belongs to hand"), "{why}");
    let status = http_get(&one.admin, "/v1/status").expect("a status").body;
    let steps = status["timeline"].as_array().expect("steps");
    assert!(
        steps.iter().any(|step| step["step"] == "exports-left-out"),
        "{status}"
    );

    stage.ask(&["unbind", "stolen"]).ok();
    let is_back = |group: &Value| group["exports"].as_array().is_some_and(|names| names.len() == 4);
    let group = stage.group_when("the name is offered again", is_back);
    assert_eq!(group["epoch"], 2, "the term goes on");
    assert_eq!(bound(&stage, "stolen"), (json!("stolen"), json!(2)));
}

#[test]
fn a_name_that_the_configuration_comes_to_use_is_left_out_until_it_is_free_again() {
    let stage = Stage::new();
    let mut one = alone(&stage);
    stage.told(&["topic", "put", "orders", "news", "--export", "news"]);
    one.process.kill_9();
    let config = "[[messaging.queues]]\nname = \"other\"\nexport = \"news\"\n";
    one.broker.config = Some(stage.program.file("broker.toml", config));
    one.restart(&stage);
    stage.group_served_by("one", 2);
    assert_eq!(bound(&stage, "news"), (json!("other"), json!(2)));
    let news = listed(&one, "topic", "news").expect("the topic");
    assert_eq!(
        (&news["export"], &news["export_state"]),
        (&json!("news"), &json!("left-out"))
    );
    let why = news["export_why"].as_str().expect("a reason");
    assert!(why.contains("the queue \"other\""), "{why}");
    stage.told(&["topic", "put", "orders", "news", "--export", "news2"]);
    assert_eq!(bound(&stage, "news"), (json!("other"), json!(2)));
    assert_eq!(bound(&stage, "news2"), (json!("news"), json!(2)));
}

#[test]
fn names_given_at_the_same_time_are_all_published_and_one_name_goes_to_one() {
    let stage = Stage::new();
    let (_process, admin) = stage.program.broker(&stage.broker("one", "primary"));
    stage.group_served_by("one", 1);
    let put = |number: usize, export: String| {
        let path = format!("/v1/queues/q{number}");
        let answer = http_put(&admin, &path, &json!({ "export": export })).expect("an answer");
        (answer.status, answer.body["code"].clone())
    };
    let all = |export: &(dyn Fn(usize) -> String + Sync)| {
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || put(n, export(n)))).collect();
            let answers = asked.into_iter().map(|asked| asked.join().expect("an answer"));
            answers.collect::<Vec<_>>()
        })
    };
    let answers = all(&|number| format!("jms/q{number}"));
    assert!(answers.iter().all(|(status, _)| *status == 204), "{answers:?}");
    for number in 0..8 {
        let address = json!(format!("q{number}"));
        assert_eq!(bound(&stage, &format!("jms/q{number}")), (address, json!(1)));
    }
    let answers = all(&|_| "jms/wanted".to_owned());
    let taken = (409, json!("ExportTaken"));
    assert_eq!(
        answers.iter().filter(|answer| **answer == taken).count(),
        7,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|answer| answer.0 == 204).count(),
        1,
        "{answers:?}"
    );
    let group = stage.group_served_by("one", 1);
    assert_eq!(group["exports"].as_array().map(Vec::len), Some(2 + 8));
}

#[test]
fn a_naming_server_that_hangs_holds_up_no_administrator() {
    let stage = Stage::new();
    let (_process, admin) = stage.program.broker(&stage.broker("one", "primary"));
    stage.group_served_by("one", 1);
    stage.naming.freeze();
    let answer = http_put(&admin, "/v1/queues/a", &json!({"export": "jms/a"})).expect("an answer in time");
    assert_eq!(
        (answer.status, &answer.body["export_state"]),
        (202, &json!("waiting"))
    );
    stage.naming.thaw();
    stage.group_when("the name is published", |group| {
        let names = group["exports"].as_array();
        names.is_some_and(|names| names.contains(&json!("jms/a"))) && group["withheld"].is_null()
    });
    assert_eq!(bound(&stage, "jms/a").0, "a");
}
