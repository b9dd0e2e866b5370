//! Groups, epochs and the time of memberships.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Naming, Resp, queue, soon};

fn join(lease_ms: u64) -> String {
    let endpoint = json!({"host": "kkam", "port": 9741});
    json!({"role": "primary", "endpoint": endpoint, "lease_ms": lease_ms}).to_string()
}

fn exports(address: &str) -> String {
    json!([{"name": "ExamplesQueue", "object": {"type": "queue", "address": address}}]).to_string()
}

/// Joins, claims and publishes; returns the lease and the epoch.
async fn activate(resp: &mut Resp, member: &str, lease_ms: u64, evidence: &str) -> (String, String) {
    let joined = resp
        .json(&["GROUP", "JOIN", "orders", member, &join(lease_ms)])
        .await;
    let lease = joined["detail"]["joined"]["lease"].to_string();
    let claimed = resp
        .json(&["GROUP", "CLAIM", "orders", member, "0", evidence])
        .await;
    let epoch = claimed["detail"]["claimed"]["epoch"].to_string();
    resp.json(&["GROUP", "PUBLISH", "orders", member, &epoch, &exports(member)])
        .await;
    (lease, epoch)
}

async fn group(resp: &mut Resp) -> Value {
    resp.json(&["GROUP", "SHOW", "orders"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_lease_withholds_the_exports_and_says_so() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let (lease, epoch) = activate(&mut resp, "kkam", 200, "none").await;
    let watch = resp.watch(&["WATCH", "ExamplesQueue"]).await;
    assert_eq!(resp.event().await.1["kind"], "state");
    assert_eq!(resp.event().await.1["kind"], "bookmark");
    let (id, event) = resp.event().await;
    assert_eq!((id, &event["changes"][0]["event"]), (watch, &json!("withheld")));
    assert_eq!(event["changes"][0]["withheld"]["reason"], "lease-expired");
    let (status, problem) = naming.http("GET", "/v1/names/ExamplesQueue", "").await.problem();
    assert_eq!(
        (status, &problem["code"], &problem["reason"]),
        (503, &json!("NameUnavailable"), &json!("lease-expired"))
    );
    let (code, _) = resp.error(&["LEASE", "RENEW", "orders", "kkam", &lease]).await;
    assert!(
        code == "MEMBERNOTFOUND" || code == "LEASEENDED",
        "an ended membership cannot be renewed: {code}"
    );
    assert_eq!(group(&mut resp).await["active"], Value::Null);
    let late = resp
        .error(&["GROUP", "PUBLISH", "orders", "kkam", &epoch, &exports("late")])
        .await;
    assert!(
        ["MEMBERNOTFOUND", "STALEEPOCH"].contains(&late.0.as_str()),
        "{late:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_keep_a_membership_far_beyond_one_lease() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let (lease, _) = activate(&mut resp, "kkam", 400, "none").await;
    let revision = group(&mut resp).await["revision"].clone();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_600) {
        let renewed = resp.json(&["LEASE", "RENEW", "orders", "kkam", &lease]).await;
        assert_eq!(renewed, json!({"lease_ms": 400, "epoch": 1, "active": "kkam"}));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let after = group(&mut resp).await;
    assert_eq!(
        (&after["active"], &after["revision"]),
        (&json!("kkam"), &revision),
        "renewals write nothing"
    );
    let status = resp.json(&["STATUS"]).await;
    let renewed = naming
        .http(
            "POST",
            "/v1/groups/orders/renew",
            &json!({"member": "kkam", "lease": lease.parse::<u64>().expect("a number")}).to_string(),
        )
        .await;
    assert_eq!(renewed.status, 200);
    assert_eq!(resp.json(&["STATUS"]).await["revision"], status["revision"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_epoch_can_change_nothing() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let (_, old) = activate(&mut resp, "kkam", 60_000, "none").await;
    let (_, new) = activate(&mut resp, "kkm-PC", 60_000, "store-lock").await;
    assert_eq!((old.as_str(), new.as_str()), ("1", "2"));
    let before = naming.http("GET", "/v1/list?bindings=true", "").await.body;
    let publish = resp
        .error(&["GROUP", "PUBLISH", "orders", "kkam", &old, &exports("stale")])
        .await;
    let error: Value = serde_json::from_str(&publish.1).expect("JSON");
    assert_eq!((publish.0.as_str(), &error["current"]), ("STALEEPOCH", &json!(2)));
    let withdraw = resp
        .error(&["GROUP", "WITHDRAW", "orders", &old, "planned"])
        .await;
    assert_eq!(withdraw.0, "STALEEPOCH");
    let by_http = json!({"member": "kkam", "epoch": 1, "exports": []}).to_string();
    let by_http = naming.http("POST", "/v1/groups/orders/publish", &by_http).await;
    assert_eq!(by_http.problem().1["code"], "StaleEpoch");
    assert_eq!(
        naming.http("GET", "/v1/list?bindings=true", "").await.body,
        before
    );
    let conflict = naming
        .http("PUT", "/v1/names/ExamplesQueue", &queue("hand"))
        .await;
    assert_eq!(conflict.problem().1["code"], "NameConflict", "nor can a hand");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_lives_its_life_over_http() {
    let naming = Naming::start().await;
    let post = |verb: &str, body: Value| {
        let (addr, path) = (naming.addr(), format!("/v1/groups/orders/{verb}"));
        async move { crate::support::http(addr, "POST", &path, &[], &body.to_string()).await }
    };
    let who = json!({"role": "backup", "endpoint": {"host": "h", "port": 1}, "lease_ms": 60_000});
    let joined = post("join", json!({"member": "a", "join": who})).await.json();
    let lease = joined["detail"]["joined"]["lease"].clone();
    let claimed = post(
        "claim",
        json!({"member": "a", "store_epoch": 4, "evidence": "none"}),
    )
    .await
    .json();
    assert_eq!(claimed["detail"]["claimed"]["epoch"], 5);
    let rival = post("join", json!({"member": "b", "join": who})).await;
    assert_eq!(rival.status, 200);
    let refused = post("claim", json!({"member": "b", "evidence": "none"})).await;
    assert_eq!(refused.problem().1["code"], "ActiveExists");
    let promoting = json!([{"name": "Q", "object": {"type": "queue", "address": "q"}}]);
    let published = post(
        "publish",
        json!({"member": "a", "epoch": 5, "exports": promoting}),
    )
    .await;
    assert_eq!(published.json()["changed"], true);
    let owner = naming.lookup("Q").await["owner"].clone();
    assert_eq!(owner, json!({"group": "orders", "epoch": 5}));
    let withdrawn = post("withdraw", json!({"epoch": 5, "reason": "planned", "eta_ms": 50})).await;
    assert_eq!(withdrawn.status, 200);
    let (_, problem) = naming.http("GET", "/v1/names/Q", "").await.problem();
    assert_eq!(
        (&problem["reason"], &problem["eta_ms"]),
        (&json!("withdrawn"), &json!(50))
    );
    let left = post("leave", json!({"member": "a", "lease": lease})).await;
    assert_eq!(left.json()["changed"], true);
    let view = naming.http("GET", "/v1/groups/orders", "").await.json();
    assert_eq!((&view["active"], &view["epoch"]), (&Value::Null, &json!(5)));
    let unknown = naming.http("GET", "/v1/groups/nobody", "").await;
    assert_eq!(unknown.problem().1["code"], "GroupNotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_gets_one_full_term_after_a_restart() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let (lease, _) = activate(&mut resp, "kkam", 700, "none").await;
    let naming = naming.dropped_and_started().await;
    let mut resp = naming.resp().await;
    let renewed = resp.json(&["LEASE", "RENEW", "orders", "kkam", &lease]).await;
    assert_eq!(renewed["active"], "kkam");
    soon("the end of the lease", async {
        while group(&mut resp).await["active"] == "kkam" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Renews at random distances around the end of the lease: whatever wins, an answered renewal means that the
/// membership was there, and once it is gone no renewal succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_races_the_end_never_brings_a_membership_back() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    for round in 0..12_u64 {
        let member = format!("m{round}");
        let joined = resp.json(&["GROUP", "JOIN", "race", &member, &join(100)]).await;
        let lease = joined["detail"]["joined"]["lease"].to_string();
        tokio::time::sleep(Duration::from_millis(94 + round)).await;
        let mut ended = false;
        for _ in 0..50 {
            let answer = resp.ask(&["LEASE", "RENEW", "race", &member, &lease]).await;
            let renewed = matches!(answer, daymark_naming_proto::resp::Frame::Bulk(_));
            assert!(!(ended && renewed), "{member} was renewed after its end");
            ended |= !renewed;
        }
        if ended {
            soon("the end", async {
                while resp.json(&["GROUP", "SHOW", "race"]).await["members"]
                    .to_string()
                    .contains(&member)
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
}
