//! What was acknowledged is there after every restart.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Naming, Resp, http, queue, soon};

/// Binds `names` names over one connection, pipelined.
async fn bind_many(naming: &Naming, names: usize) {
    let mut resp = naming.resp().await;
    for first in (0..names).step_by(100) {
        for n in first..(first + 100).min(names) {
            resp.send(&["REBIND", &format!("n{n}"), &queue(&format!("q{n}"))])
                .await;
        }
        for _ in first..(first + 100).min(names) {
            resp.reply().await.expect("an answer");
        }
    }
}

async fn find_many(naming: &Naming, names: usize) {
    let mut resp = naming.resp().await;
    for n in 0..names {
        let binding = resp.json(&["LOOKUP", &format!("n{n}")]).await;
        assert_eq!(binding["object"]["address"], format!("q{n}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything_acknowledged() {
    let naming = Naming::start().await;
    let cluster_id = naming.server.cluster_id().to_owned();
    bind_many(&naming, 300).await;
    let before = naming.http("GET", "/v1/list?bindings=true", "").await.body;
    let naming = naming.restarted().await;
    assert_eq!(
        naming.http("GET", "/v1/list?bindings=true", "").await.body,
        before
    );
    assert_eq!(
        naming.server.cluster_id(),
        cluster_id,
        "the directory keeps its id"
    );
    let next = naming.http("POST", "/v1/names/next", &queue("q")).await;
    assert_eq!(next.json()["revision"], 301, "revisions go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_dropped_in_the_middle_keeps_everything_acknowledged() {
    let mut naming = Naming::start().await;
    let mut acknowledged = 0;
    for round in 0..5 {
        bind_many(&naming, 50 * (round + 1)).await;
        acknowledged = 50 * (round + 1);
        naming = naming.dropped_and_started().await;
        find_many(&naming, acknowledged).await;
    }
    assert_eq!(acknowledged, 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_a_released_log_hold_the_same_directory() {
    let small = |options: &mut daymark_naming_server::NamingOptions| {
        options.storage.snapshot_writes = 100;
        options.storage.entries_kept = 10;
        options.storage.segment_bytes = 64 << 10;
    };
    let mut naming = Naming::start_with(small).await;
    bind_many(&naming, 1_000).await;
    let snapshots = naming.data.path().join("snapshots");
    soon("a snapshot", async {
        while std::fs::read_dir(&snapshots).expect("snapshots").next().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..3 {
        let before = naming.http("GET", "/v1/list?bindings=true", "").await.body;
        naming = naming.dropped_and_started().await;
        assert_eq!(
            naming.http("GET", "/v1/list?bindings=true", "").await.body,
            before
        );
        bind_many(&naming, 250).await;
    }
    find_many(&naming, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_bytes_is_compacted_before_it_has_many_writes() {
    let naming = Naming::start_with(|options| options.storage.snapshot_log_bytes = 200_000).await;
    let mut resp = naming.resp().await;
    let padding = "x".repeat(10_000);
    let snapshots = naming.data.path().join("snapshots");
    let mut written = 0;
    while std::fs::read_dir(&snapshots).expect("snapshots").next().is_none() {
        resp.json(&["REBIND", "q", &queue(&format!("{written}{padding}"))])
            .await;
        written += 1;
        assert!(written < 2_000, "no snapshot");
    }
    let before = naming.lookup("q").await;
    let naming = naming.dropped_and_started().await;
    assert_eq!(naming.lookup("q").await, before);
}

/// An election timeout lasts at least 150 ms. Where the disk or the processor is busy a start may take longer
/// without one, so the first quick start of many decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_takes_no_election_timeout() {
    let mut naming = Naming::start().await;
    bind_many(&naming, 100).await;
    let mut fastest = Duration::MAX;
    for _ in 0..30 {
        let Naming { server, data } = naming;
        soon("stop", server.stop()).await;
        let began = Instant::now();
        let options = crate::support::options(data.path());
        let server = soon("start", daymark_naming_server::Server::start(options)).await;
        naming = Naming {
            server: server.expect("a server"),
            data,
        };
        assert_eq!(naming.http("GET", "/readyz", "").await.status, 200);
        fastest = fastest.min(began.elapsed());
        if fastest < Duration::from_millis(140) {
            return;
        }
    }
    panic!("the fastest of thirty starts took {fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_and_memberships_survive_a_restart() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let join =
        json!({"role": "primary", "endpoint": {"host": "h", "port": 1}, "lease_ms": 60_000}).to_string();
    let joined = resp.json(&["GROUP", "JOIN", "orders", "kkam", &join]).await;
    let lease = joined["detail"]["joined"]["lease"].to_string();
    resp.json(&["GROUP", "CLAIM", "orders", "kkam", "7", "store-lock"])
        .await;
    let naming = naming.dropped_and_started().await;
    let mut resp = naming.resp().await;
    let group = resp.json(&["GROUP", "SHOW", "orders"]).await;
    assert_eq!((&group["epoch"], &group["active"]), (&json!(8), &json!("kkam")));
    let renewed = resp.json(&["LEASE", "RENEW", "orders", "kkam", &lease]).await;
    assert_eq!(
        (&renewed["epoch"], &renewed["lease_ms"]),
        (&json!(8), &json!(60_000))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_taken_away_ends_writes_and_not_lookups() {
    let naming = Naming::start().await;
    naming.http("POST", "/v1/names/q", &queue("1")).await;
    // Somebody with a newer epoch takes the log by force: what an operator does to a frozen server.
    let log = naming.data.path().join("log");
    let options = daymark_journal::Options {
        segment_bytes: 1 << 20,
        ..daymark_journal::Options::default()
    };
    let holder = daymark_journal::Holder::here("operator");
    let taken = daymark_journal::Locked::acquire_forced(&log, &holder, options).expect("the lock");
    let epoch = taken.epoch() + 1;
    let _fenced = taken.begin(epoch).expect("the epoch");
    let refused = naming.http("POST", "/v1/names/late", &queue("2")).await;
    let (status, problem) = refused.problem();
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("ServiceUnavailable")),
        "{problem}"
    );
    assert!(!problem["reason"].as_str().unwrap_or_default().is_empty());
    assert_eq!(
        naming.lookup("q").await["object"]["address"],
        "1",
        "lookups go on"
    );
    let (status, problem) = naming.http("GET", "/readyz", "").await.problem();
    assert_eq!((status, &problem["code"]), (503, &json!("ServiceUnavailable")));
    assert_eq!(naming.http("GET", "/livez", "").await.status, 200);
    assert!(naming.server.impaired().is_some());
    let mut resp: Resp = naming.resp().await;
    assert_eq!(resp.error(&["UNBIND", "q"]).await.0, "SERVICEUNAVAILABLE");
    let strong = http(naming.addr(), "GET", "/v1/names/q?consistency=strong", &[], "").await;
    assert_eq!(strong.status, 503, "a strong read cannot be promised any more");
}
