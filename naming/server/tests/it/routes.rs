//! The HTTP door as its own document describes it, and the verbs that both doors share.

use serde_json::{Value, json};

use crate::support::{Naming, Reply, http, queue};

/// A path of the document with something in the place of its variables.
fn filled(path: &str) -> String {
    path.replace("{name}", "some/name").replace("{group}", "orders")
}

/// Every operation: its method, its path, and what is said of it.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

fn parameters<'a>(operation: &'a Value, place: &str) -> Vec<&'a Value> {
    let parameters = operation["parameters"].as_array().expect("parameters");
    parameters
        .iter()
        .filter(|parameter| parameter["in"] == place)
        .collect()
}

async fn document(naming: &Naming) -> Value {
    let reply = naming.http("GET", "/openapi.json", "").await;
    assert_eq!(reply.status, 200);
    reply.json()
}

/// Watches do not end, so only their refusals are asked for here.
fn is_endless(path: &str) -> bool {
    path.starts_with("/v1/watch")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_document_is_a_route_and_every_other_method_is_none() {
    let naming = Naming::start().await;
    let document = document(&naming).await;
    let operations = operations(&document);
    assert!(operations.len() > 25, "{}", operations.len());
    for (method, path, _) in &operations {
        if is_endless(path) {
            continue;
        }
        let reply = naming.http(method, &filled(path), "").await;
        let is_unknown = reply.status == 405 || reply.body.contains("NotSupported");
        assert!(!is_unknown, "{method} {path}: {reply:?}");
    }
    for path in document["paths"].as_object().expect("paths").keys() {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
            let is_there = operations
                .iter()
                .any(|(m, p, _)| (m.as_str(), p) == (method, path));
            if !is_there {
                let reply = naming.http(method, &filled(path), "").await;
                assert_eq!(reply.status, 405, "{method} {path}: {}", reply.body);
                assert_eq!(reply.problem().1["code"], "NotSupported");
                assert!(reply.headers.contains_key("allow"), "{method} {path}");
            }
        }
    }
    let (status, problem) = naming.http("GET", "/v1/nothing", "").await.problem();
    assert_eq!((status, &problem["code"]), (404, &json!("NotSupported")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_takes_the_query_keys_it_names_and_no_others() {
    let naming = Naming::start().await;
    for (method, path, operation) in operations(&document(&naming).await) {
        let path = filled(&path);
        let refused = naming.http(&method, &format!("{path}?surprise=1"), "").await;
        let (status, problem) = refused.problem();
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            status == 400 && detail.contains("surprise"),
            "{method} {path}: {problem}"
        );
        if is_endless(&path) {
            continue;
        }
        for parameter in parameters(&operation, "query") {
            let (name, example) = (
                &parameter["name"],
                parameter["example"].as_str().expect("an example"),
            );
            let name = name.as_str().expect("a name");
            let asked = format!("{path}?{name}={example}");
            let reply = naming.http(&method, &asked, "").await;
            let about_query =
                reply.body.contains("unknown query key") || reply.body.contains(&format!("{name}="));
            assert!(!about_query, "{method} {asked}: {}", reply.body);
            let twice = naming
                .http(&method, &format!("{asked}&{name}={example}"), "")
                .await;
            assert!(
                twice.status == 400 && twice.body.contains("twice"),
                "{method} {asked}: {}",
                twice.body
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_is_refused_wherever_it_does_not_apply() {
    let naming = Naming::start().await;
    naming.http("POST", "/v1/names/some", &queue("q")).await;
    for (method, path, operation) in operations(&document(&naming).await) {
        let applies = !parameters(&operation, "header")
            .iter()
            .all(|header| header["name"] != "If-Match");
        let path = filled(&path);
        for condition in [("If-Match", "\"17\""), ("If-None-Match", "*")] {
            if applies {
                continue;
            }
            let reply = http(naming.addr(), &method, &path, &[condition], "").await;
            let (status, problem) = reply.problem();
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(
                status == 400 && detail.contains("do not apply"),
                "{method} {path}: {problem}"
            );
        }
    }
    let plain = http(
        naming.addr(),
        "GET",
        "/v1/names/some",
        &[("If-Match", "\"1\"")],
        "",
    )
    .await;
    assert_eq!(plain.status, 400, "also where the name is found at once");
}

fn written(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["revision"].as_u64().expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_renamed_attributes_changed_and_found_and_writes_come_as_one_over_both_doors() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let body =
        json!({"object": {"type": "queue", "address": "q"}, "attributes": {"tier": ["a"]}}).to_string();
    written(&naming.http("POST", "/v1/names/q", &body).await);
    let changes = r#"[{"op":"add","id":"tier","values":["b"]},{"op":"add","id":"owner","values":["x"]}]"#;
    let modified = http(
        naming.addr(),
        "PATCH",
        "/v1/attributes/q",
        &[("If-Match", "\"1\"")],
        changes,
    )
    .await;
    assert_eq!(written(&modified), 2);
    let over_http = naming.http("GET", "/v1/attributes/q?ids=tier", "").await.json();
    assert_eq!(over_http["attributes"], json!({"tier": ["a", "b"]}));
    assert_eq!(resp.json(&["ATTRIBUTES", "q", "IDS", "tier"]).await, over_http);
    let found = naming
        .http(
            "GET",
            "/v1/search/?filter=(%26(tier=b)(owner=*))&scope=subtree",
            "",
        )
        .await;
    assert_eq!(found.json()["entries"][0]["name"], "q", "{}", found.body);
    assert_eq!(
        resp.json(&["SEARCH", "", "(&(tier=b)(owner=*))", "SCOPE", "subtree"])
            .await,
        found.json()
    );
    let (status, problem) = naming.http("GET", "/v1/search/?filter=(a=b", "").await.problem();
    assert_eq!((status, &problem["code"]), (400, &json!("InvalidSearchFilter")));
    written(
        &naming
            .http("POST", "/v1/rename", r#"{"name":"q","target":"r"}"#)
            .await,
    );
    assert_eq!(naming.http("GET", "/v1/names/q", "").await.status, 404);
    resp.json(&["RENAME", "r", "s"]).await;
    let both = r#"[{"unbind":{"name":"s"}},{"bind":{"name":"t","object":{"type":"value","value":1}}}]"#;
    let revision = written(&naming.http("POST", "/v1/transact", both).await);
    assert_eq!(naming.lookup("t").await["revision"], revision);
    let refused = r#"[{"unbind":{"name":"t"}},{"bind":{"name":"no/where","object":{"type":"context"}}}]"#;
    let (status, problem) = naming.http("POST", "/v1/transact", refused).await.problem();
    assert_eq!(
        (status, &problem["code"], &problem["write"]),
        (404, &json!("TransactFailed"), &json!(1))
    );
    assert_eq!(resp.error(&["TRANSACT", refused]).await.0, "TRANSACTFAILED");
    assert_eq!(
        naming.lookup("t").await["revision"],
        revision,
        "none was carried out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_tell_their_failovers_memberships_their_time_and_names_their_story() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let shadow = json!([{"name": "orders/q", "object": {"type": "queue", "address": "q"}}]);
    let join = json!({"role": "primary", "endpoint": {"host": "h", "port": 1}, "lease_ms": 60_000, "shadow": shadow});
    let join = json!({"member": "kkam", "join": join}).to_string();
    written(&naming.http("POST", "/v1/groups/orders/join", &join).await);
    let claim = r#"{"member":"kkam","evidence":"none"}"#;
    written(&naming.http("POST", "/v1/groups/orders/claim", claim).await);
    let publish = json!({"member": "kkam", "epoch": 1, "exports": shadow}).to_string();
    written(&naming.http("POST", "/v1/groups/orders/publish", &publish).await);
    let report = r#"{"kind":"start","began_unix_ms":1,"steps":[{"step":"lock-taken","at_us":0}]}"#;
    let record = format!(r#"{{"member":"kkam","epoch":1,"report":{report}}}"#);
    written(&naming.http("POST", "/v1/groups/orders/record", &record).await);
    let timeline = naming.http("GET", "/v1/groups/orders/timeline", "").await.json();
    assert_eq!(
        timeline["failovers"][0]["report"]["steps"][0]["step"],
        "lock-taken"
    );
    assert_eq!(resp.json(&["GROUP", "TIMELINE", "orders"]).await, timeline);

    let leases = naming.http("GET", "/v1/leases", "").await.json();
    let lease = &leases["leases"][0];
    assert_eq!(
        (&lease["group"], &lease["member"]),
        (&json!("orders"), &json!("kkam"))
    );
    let left = lease["left_ms"].as_u64().expect("time left");
    assert!((1..=60_000).contains(&left), "{left}");
    assert_eq!(
        resp.json(&["LEASE", "LIST"]).await["leases"][0]["lease"],
        lease["lease"]
    );
    let members = naming.http("GET", "/v1/members", "").await.json();
    assert_eq!(members["members"][0]["role"], "leader", "{members}");
    assert_eq!(resp.json(&["MEMBERS"]).await, members);

    let story = naming.http("GET", "/v1/explain/orders/q", "").await.json();
    assert_eq!(resp.json(&["EXPLAIN", "orders/q"]).await, story);
    assert_eq!(story["found"]["owner"], json!({"group": "orders", "epoch": 1}));
    assert_eq!(story["group"]["active"], "kkam");
    assert_eq!(story["shadows"], json!([{"group": "orders", "member": "kkam"}]));
    let kinds: Vec<&Value> = story["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|s| &s["type"])
        .collect();
    assert_eq!(kinds, ["context", "queue"]);
    let withdraw = r#"{"epoch":1,"reason":"planned"}"#;
    written(&naming.http("POST", "/v1/groups/orders/withdraw", withdraw).await);
    let story = naming.http("GET", "/v1/explain/orders/q", "").await.json();
    assert_eq!(story["refused"]["code"], "NameUnavailable");
    assert_eq!(story["group"]["withheld"]["reason"], "withdrawn");
    let story = naming.http("GET", "/v1/explain/never/was", "").await.json();
    assert_eq!(story["refused"]["code"], "NameNotFound");
    assert_eq!(
        story["steps"].as_array().map(Vec::len),
        Some(1),
        "it goes as far as something is found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_the_directory_at_one_revision() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let naming = Naming::start().await;
    for n in 0..20 {
        naming.http("POST", &format!("/v1/names/n{n}"), &queue("q")).await;
    }
    let mut stream = tokio::net::TcpStream::connect(naming.addr())
        .await
        .expect("a connection");
    stream
        .write_all(b"GET /v1/snapshot HTTP/1.0\r\n\r\n")
        .await
        .expect("sent");
    let mut reply = Vec::new();
    crate::support::soon("a snapshot", stream.read_to_end(&mut reply))
        .await
        .expect("an answer");
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&reply[..end]).to_lowercase();
    assert!(head.contains("daymark-revision: 20"), "{head}");
    let mut reader = daymark_naming_core::SnapshotReader::new();
    reader.push(&reply[end..]).expect("a snapshot");
    let directory = reader.finish().expect("whole");
    assert_eq!((directory.revision().0, directory.names()), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order_whoever_answers_them() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let naming = Naming::start().await;
    for n in 0..3 {
        naming
            .http(
                "POST",
                &format!("/v1/names/n{n}"),
                &queue(&format!("address-{n}")),
            )
            .await;
    }
    let mut stream = tokio::net::TcpStream::connect(naming.addr())
        .await
        .expect("a connection");
    let paths = [
        "names/n0",
        "names/n1",
        "names/missing",
        "names/n2",
        "list/",
        "names/n0",
    ];
    let mut requests: String = paths
        .map(|path| format!("GET /v1/{path} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .concat();
    requests += "GET /v1/names/n1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    // In two pieces, cut within a head.
    let (first, second) = requests.split_at(75);
    stream.write_all(first.as_bytes()).await.expect("sent");
    stream.flush().await.expect("sent");
    stream.write_all(second.as_bytes()).await.expect("sent");
    let mut said = String::new();
    crate::support::soon("the answers", stream.read_to_string(&mut said))
        .await
        .expect("answers");
    let marks = [
        "address-0",
        "address-1",
        "NameNotFound",
        "address-2",
        "\"entries\"",
        "address-0",
        "address-1",
    ];
    let mut rest = said.as_str();
    for mark in marks {
        let at = rest
            .find(mark)
            .unwrap_or_else(|| panic!("{mark} is missing in {said}"));
        rest = &rest[at + mark.len()..];
    }
    assert_eq!(said.matches("HTTP/1.1 ").count(), 7);
    assert_eq!(said.to_lowercase().matches("daymark-cluster-id: ").count(), 7);
    assert_eq!(said.to_lowercase().matches("\ndate: ").count(), 7);
}
