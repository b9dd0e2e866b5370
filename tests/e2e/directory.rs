//! The directory through its front doors: the command line, `curl` and `redis-cli`.

use daymark_test_support::{run_tool, skipped, tool};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

#[test]
fn what_is_bound_is_looked_up_listed_rebound_and_unbound() {
    let stage = Stage::new();
    let bound = stage
        .ask(&[
            "bind",
            "BillingQueue",
            "--queue",
            "billing",
            "--attr",
            "owner=accounts",
        ])
        .ok();
    assert!(
        bound.stdout.starts_with("bound BillingQueue at revision "),
        "{bound:?}"
    );

    let shown = stage.ask(&["lookup", "BillingQueue"]).ok().stdout;
    for fact in [
        "name        BillingQueue",
        "type        queue",
        "address     billing",
        "owner=accounts",
    ] {
        assert!(shown.contains(fact), "{fact:?} is missing in\n{shown}");
    }
    let document = stage.json(&["lookup", "BillingQueue"]);
    assert_eq!(
        document["object"],
        json!({ "type": "queue", "address": "billing" })
    );
    assert_eq!(document["attributes"]["owner"], json!(["accounts"]));

    let table = stage.ask(&["list"]).ok().stdout;
    assert_eq!(
        table.lines().collect::<Vec<_>>(),
        ["name          type", "BillingQueue  queue"]
    );
    let revision = document["revision"].to_string();
    stage
        .ask(&[
            "rebind",
            "BillingQueue",
            "--queue",
            "billing-2",
            "--if-revision",
            &revision,
        ])
        .ok();
    let rebound = stage.json(&["lookup", "BillingQueue"]);
    assert_eq!(rebound["object"]["address"], "billing-2");
    assert_eq!(
        rebound["attributes"]["owner"],
        json!(["accounts"]),
        "attributes stay unless others are given"
    );

    stage.ask(&["unbind", "BillingQueue"]).ok();
    let again = stage.ask(&["unbind", "BillingQueue"]).ok();
    assert!(again.stdout.starts_with("nothing to do"), "{again:?}");
    assert_eq!(stage.ask(&["lookup", "BillingQueue"]).code, Some(3));
}

#[test]
fn contexts_links_topics_and_values_are_bound_and_listed_with_what_they_say() {
    let stage = Stage::new();
    stage.ask(&["create-subcontext", "billing"]).ok();
    stage
        .ask(&["bind", "billing/events", "--topic", "billing.events"])
        .ok();
    stage.ask(&["bind", "current", "--link", "billing/events"]).ok();
    stage
        .ask(&["bind", "billing/limits", "--value", r#"{"per_second": 100}"#])
        .ok();

    assert_eq!(
        stage.json(&["lookup", "current"])["object"]["type"],
        "topic",
        "links are followed"
    );
    assert_eq!(
        stage.json(&["lookup", "current", "--link"])["object"]["target"],
        "billing/events"
    );
    let listing = stage.json(&["list", "billing", "--bindings"]);
    let kinds: Vec<&Value> = listing["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|e| &e["type"])
        .collect();
    assert_eq!(kinds, ["topic", "value"]);
    let table = stage.ask(&["list", "billing", "--bindings"]).ok().stdout;
    assert!(
        table.contains(r#"billing/limits  value  {"per_second":100}"#),
        "{table}"
    );

    let refused = stage.ask(&["destroy-subcontext", "billing"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .starts_with("error: ContextNotEmpty: context billing is not empty"),
        "{refused:?}"
    );
    stage.ask(&["unbind", "billing/events"]).ok();
    stage.ask(&["unbind", "billing/limits"]).ok();
    stage.ask(&["destroy-subcontext", "billing"]).ok();
}

#[test]
fn a_lookup_waits_until_the_name_is_bound() {
    let stage = Stage::new();
    let mut waiting = stage.program.start(&[
        "lookup",
        "later",
        "--wait",
        "20s",
        "--json",
        "--provider",
        &stage.address,
    ]);
    stage.ask(&["bind", "later", "--value", "1"]).ok();
    let line = waiting.line(SOON).expect("an answer");
    let document: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(document["object"], json!({ "type": "value", "value": 1 }));
    assert!(waiting.ended(SOON).success());
}

#[test]
fn a_watch_shows_the_state_and_then_every_change_in_order() {
    let stage = Stage::new();
    stage.ask(&["bind", "x", "--value", "1"]).ok();
    let arguments = [
        "watch",
        "x",
        "--changes",
        "2",
        "--json",
        "--provider",
        &stage.address,
    ];
    let mut watch = stage.program.start(&arguments);
    let mut next = || {
        let line = watch.line(SOON).expect("a line");
        serde_json::from_str::<Value>(&line).expect("JSON")
    };
    assert_eq!(next()["kind"], "state");
    assert_eq!(next()["kind"], "bookmark");
    stage.ask(&["rebind", "x", "--value", "2"]).ok();
    stage.ask(&["unbind", "x"]).ok();
    let (rebound, unbound) = (next(), next());
    assert_eq!(rebound["changes"][0]["event"], "rebound");
    assert_eq!(unbound["changes"][0]["event"], "unbound");
    assert!(rebound["revision"].as_u64() < unbound["revision"].as_u64());
    assert!(watch.ended(SOON).success(), "it ends after the changes asked for");
}

#[test]
fn ctrl_c_ends_a_watch() {
    let stage = Stage::new();
    let mut watch = stage.program.start(&["watch", "x", "--provider", &stage.address]);
    assert!(
        watch
            .line(SOON)
            .expect("the bookmark")
            .contains("as of this revision")
    );
    watch.interrupt();
    assert_eq!(watch.ended(SOON).code(), Some(0), "a watch has no other end");
}

#[test]
fn a_killed_naming_server_restarts_with_everything_it_acknowledged() {
    let mut stage = Stage::new();
    stage.ask(&["create-subcontext", "kept"]).ok();
    for number in 0..20 {
        let (name, value) = (format!("kept/{number}"), number.to_string());
        stage.ask(&["bind", &name, "--value", &value]).ok();
    }
    let before = stage.json(&["list", "kept", "--bindings"]);
    stage.naming.kill_9();
    (stage.naming, stage.address) = stage.program.naming_at(&stage.address, "naming");
    let after = stage.json(&["list", "kept", "--bindings"]);
    assert_eq!(before["entries"], after["entries"]);
    assert_eq!(before["entries"].as_array().map(Vec::len), Some(20));
}

#[test]
fn a_stopped_naming_server_ends_in_order() {
    let mut stage = Stage::new();
    stage.naming.terminate();
    assert_eq!(stage.naming.ended(SOON).code(), Some(0), "{}", stage.naming.log());
}

#[test]
fn status_shows_every_server_of_the_list_also_one_that_is_gone() {
    let stage = Stage::new();
    let gone = format!("127.0.0.1:{}", daymark_test_support::free_port());
    let list = format!("{gone},{}", stage.address);
    let arguments = ["status", "--json", "--timeout", "500ms", "--provider", &list];
    let servers = stage.program.run(&arguments).ok().json_lines();
    assert_eq!(servers.len(), 2);
    assert_eq!(servers[0]["server"], gone.as_str());
    assert!(
        servers[0]["error"]
            .as_str()
            .is_some_and(|why| why.contains("refused")),
        "{servers:?}"
    );
    assert_eq!(servers[1]["leader"], 1);
    let table = stage.ask(&["status"]).ok().stdout;
    assert!(table.starts_with("server"), "{table}");
}

#[test]
fn the_provider_list_comes_from_the_flag_the_file_or_the_environment() {
    let stage = Stage::new();
    let elsewhere = "127.0.0.1:1";
    let environment = [("DAYMARK_PROVIDER_URL", elsewhere)];
    stage
        .program
        .run_with(&["status", "--provider", &stage.address], &environment)
        .ok();
    let file = stage.program.file(
        "other.properties",
        &format!("java.naming.provider.url={}\n", stage.address),
    );
    let file = file.display().to_string();
    stage
        .program
        .run_with(&["status", "--jndi-properties", &file], &environment)
        .ok();
    stage
        .program
        .run_with(&["status"], &[("DAYMARK_PROVIDER_URL", &stage.address)])
        .ok();
    stage.program.file(
        "jndi.properties",
        &format!("java.naming.provider.url = {}\n", stage.address),
    );
    stage.program.run(&["status"]).ok();
}

#[test]
fn curl_gets_the_document_the_command_line_shows() {
    let Some(curl) = tool("curl") else { return };
    let stage = Stage::new();
    stage.ask(&["bind", "q", "--queue", "examples"]).ok();
    let url = format!("http://{}/v1/names/q", stage.address);
    let answer = run_tool(&curl, &["--silent", "--show-error", "--fail", &url]).ok();
    assert_eq!(
        serde_json::from_str::<Value>(&answer.stdout).ok(),
        Some(stage.json(&["lookup", "q"]))
    );

    let missing = format!("http://{}/v1/names/missing", stage.address);
    let answer = run_tool(
        &curl,
        &[
            "--silent",
            "--write-out",
            "\n%{http_code} %{content_type}",
            &missing,
        ],
    )
    .ok();
    let (body, status) = answer.stdout.rsplit_once('\n').expect("two lines");
    assert_eq!(status, "404 application/problem+json");
    let problem: Value = serde_json::from_str(body).expect("a problem document");
    assert_eq!(problem["code"], "NameNotFound");
}

#[test]
fn redis_cli_gets_the_document_the_command_line_shows() {
    let Some(redis_cli) = tool("redis-cli") else {
        return;
    };
    let stage = Stage::new();
    stage.ask(&["bind", "q", "--queue", "examples"]).ok();
    let Some((host, port)) = stage.address.rsplit_once(':') else {
        return skipped("the address has no port");
    };
    let ask = |words: &[&str]| run_tool(&redis_cli, &[&["-h", host, "-p", port][..], words].concat()).stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&ask(&["LOOKUP", "q"])).ok(),
        Some(stage.json(&["lookup", "q"]))
    );
    assert_eq!(ask(&["PING"]).trim(), "PONG");
    assert!(
        ask(&["LOOKUP", "missing"]).starts_with("NAMENOTFOUND"),
        "{}",
        ask(&["LOOKUP", "missing"])
    );
}
