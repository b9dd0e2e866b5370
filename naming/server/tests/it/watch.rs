//! Watches: state, bookmark, live, resume, compacted, over both doors.

use serde_json::{Value, json};

use crate::support::{Event, Events, Naming, Resp, queue};

async fn rebind(resp: &mut Resp, name: &str, address: &str) -> u64 {
    let written = resp.json(&["REBIND", name, &queue(address)]).await;
    written["revision"].as_u64().expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_begins_with_the_state_and_goes_on_live() {
    let naming = Naming::start().await;
    let mut writer = naming.resp().await;
    writer.json(&["CREATESUBCONTEXT", "orders"]).await;
    rebind(&mut writer, "orders/a", "1").await;
    let mut watcher = naming.resp3().await;
    let id = watcher.watch(&["WATCH", "orders", "SCOPE", "one-level"]).await;
    let (got, state) = watcher.event().await;
    assert_eq!(
        (got, &state["kind"], &state["name"]),
        (id, &json!("state"), &json!("orders/a"))
    );
    assert_eq!(
        watcher.event().await.1,
        json!({"kind": "bookmark", "revision": 2})
    );
    let mut events = Events::open(naming.addr(), "/v1/watch/orders?scope=one-level", &[]).await;
    let first = events.next().await.expect("an event");
    assert_eq!(
        (first.kind.as_str(), first.id, &first.data),
        ("state", None, &state)
    );
    let bookmark = events.next().await.expect("an event");
    assert_eq!(
        (bookmark.kind.as_str(), bookmark.id.as_deref()),
        ("bookmark", Some("2"))
    );
    rebind(&mut writer, "elsewhere", "x").await;
    rebind(&mut writer, "orders/b", "2").await;
    let (_, pushed) = watcher.event().await;
    assert_eq!(
        (&pushed["kind"], &pushed["revision"]),
        (&json!("changed"), &json!(4))
    );
    assert_eq!(pushed["changes"][0]["event"], "bound");
    let sent = events.next().await.expect("an event");
    let expected = Event {
        id: Some("4".to_owned()),
        kind: "changed".to_owned(),
        data: pushed,
    };
    assert_eq!(sent, expected, "both doors tell the same document");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_where_it_was_without_gaps_or_repeats() {
    let naming = Naming::start().await;
    let mut writer = naming.resp().await;
    for n in 1..=10 {
        rebind(&mut writer, "q", &n.to_string()).await;
    }
    let mut watcher = naming.resp3().await;
    watcher.watch(&["WATCH", "q", "FROM", "4"]).await;
    let last = [("Last-Event-ID", "4")];
    let mut events = Events::open(naming.addr(), "/v1/watch/q?from=1", &last).await;
    rebind(&mut writer, "q", "11").await;
    for revision in 5..=11_u64 {
        assert_eq!(watcher.event().await.1["revision"], revision);
        let event = events.next().await.expect("an event");
        assert_eq!(event.id, Some(revision.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_forgotten_revision_is_told_so_and_ends() {
    let naming = Naming::start_with(|options| options.directory.changes_kept = 5).await;
    let mut writer = naming.resp().await;
    for n in 1..=20 {
        rebind(&mut writer, "q", &n.to_string()).await;
    }
    let mut watcher = naming.resp3().await;
    let id = watcher.watch(&["WATCH", "q", "FROM", "3"]).await;
    let (_, event) = watcher.event().await;
    assert_eq!(event, json!({"kind": "compacted", "oldest": 15}));
    let (code, _) = watcher.error(&["UNWATCH", &id.to_string()]).await;
    assert_eq!(code, "INVALIDREQUEST", "the watch is over");
    let mut events = Events::open(naming.addr(), "/v1/watch/q?from=3", &[]).await;
    let event = events.next().await.expect("an event");
    assert_eq!(
        (event.kind.as_str(), event.id.as_deref()),
        ("compacted", Some("")),
        "a browser starts anew"
    );
    assert_eq!(events.next().await, None);
    watcher.watch(&["WATCH", "q", "FROM", "15"]).await;
    assert_eq!(
        watcher.event().await.1["revision"],
        16,
        "the oldest named can be resumed after"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_the_future_is_refused() {
    let naming = Naming::start().await;
    let mut watcher = naming.resp3().await;
    assert_eq!(watcher.error(&["WATCH", "q", "FROM", "99"]).await.0, "LAGGING");
    let (status, problem) = naming.http("GET", "/v1/watch/q?from=99", "").await.problem();
    assert_eq!((status, &problem["code"]), (503, &json!("Lagging")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_needs_push_frames() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let (code, text) = resp.error(&["WATCH", "q"]).await;
    assert_eq!(
        (code.as_str(), text.as_str()),
        (
            "INVALIDREQUEST",
            "invalid request: WATCH needs RESP3: say HELLO 3 first"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publish_reaches_a_watcher_as_one_event() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let join =
        json!({"role": "primary", "endpoint": {"host": "h", "port": 1}, "lease_ms": 60_000}).to_string();
    resp.json(&["GROUP", "JOIN", "orders", "a", &join]).await;
    resp.json(&["GROUP", "CLAIM", "orders", "a", "0", "none"]).await;
    resp.watch(&["WATCH", "", "SCOPE", "subtree"]).await;
    while resp.event().await.1["kind"] != "bookmark" {}
    let object = json!({"type": "queue", "address": "q"});
    let exports: Vec<Value> = (0..5)
        .map(|n| json!({"name": format!("x/q{n}"), "object": object}))
        .collect();
    let exports = Value::from(exports).to_string();
    let written = resp
        .json(&["GROUP", "PUBLISH", "orders", "a", "1", &exports])
        .await;
    let (_, event) = resp.event().await;
    assert_eq!(event["revision"], written["revision"]);
    let names: Vec<&Value> = event["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["x", "x/q0", "x/q1", "x/q2", "x/q3", "x/q4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_watch_says_nothing_more_and_others_go_on() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let first = resp.watch(&["WATCH", "q"]).await;
    let second = resp.watch(&["WATCH", "q"]).await;
    for id in [first, second] {
        assert_eq!(
            resp.event().await,
            (id, json!({"kind": "bookmark", "revision": 0}))
        );
    }
    resp.ask(&["UNWATCH", &first.to_string()]).await;
    rebind(&mut resp, "q", "1").await;
    assert_eq!(resp.event().await.0, second);
    assert!(
        naming
            .http("GET", "/metrics", "")
            .await
            .body
            .contains("daymark_naming_watches 1\n")
    );
}

/// The watcher does not read while far more is written than may wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_cut_off_and_costs_bounded_memory() {
    let naming = Naming::start_with(|options| options.limits.watch_buffer_bytes_max = 256 << 10).await;
    let mut watcher = naming.resp3().await;
    let id = watcher.watch(&["WATCH", "q"]).await;
    let mut writer = naming.resp().await;
    let padding = "x".repeat(40_000);
    let mut written = 0;
    while naming
        .http("GET", "/metrics", "")
        .await
        .body
        .contains("daymark_naming_watches 1\n")
    {
        for _ in 0..20 {
            written = rebind(&mut writer, "q", &format!("{written}{padding}")).await;
        }
        assert!(written < 5_000, "the watch never ended");
    }
    let mut last = (0, json!({"kind": "bookmark"}));
    let mut revision = 0;
    while last.1["kind"] != "compacted" {
        last = watcher.event().await;
        if last.1["kind"] == "changed" {
            revision += 1;
            assert_eq!(
                last.1["revision"], revision,
                "what came before the end is whole and in order"
            );
        }
    }
    assert_eq!(last.0, id);
    assert!(revision < written);
    assert!(
        watcher.json(&["LOOKUP", "q"]).await["revision"].as_u64() >= Some(written),
        "the connection goes on"
    );
}

/// Watchers come, go and resume while somebody writes; each history is complete, ordered and without repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_is_complete_whenever_a_watcher_comes() {
    const WRITES: u64 = 400;
    let naming = Naming::start().await;
    let addr = naming.addr();
    let watchers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < WRITES {
                    let mut resp = Resp::connect(addr).await;
                    resp.ask(&["HELLO", "3"]).await;
                    let from = seen.to_string();
                    resp.watch(&["WATCH", "q", "FROM", &from]).await;
                    for _ in 0..37 {
                        if seen == WRITES {
                            break;
                        }
                        let (_, event) = resp.event().await;
                        assert_eq!(event["revision"], seen + 1);
                        assert_eq!(
                            event["changes"][0]["binding"]["object"]["address"],
                            (seen + 1).to_string()
                        );
                        seen += 1;
                    }
                }
            })
        })
        .collect();
    let mut writer = naming.resp().await;
    for n in 1..=WRITES {
        rebind(&mut writer, "q", &n.to_string()).await;
    }
    for watcher in watchers {
        watcher.await.expect("a whole history");
    }
}
