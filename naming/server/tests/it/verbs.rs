//! Every verb through both doors.

use serde_json::{Value, json};

use crate::support::{Naming, Resp, http, queue};
use daymark_naming_proto::resp::Frame;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_answer_the_same_document() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    resp.json(&["CREATESUBCONTEXT", "orders"]).await;
    resp.json(&["BIND", "orders/in", &queue("q1"), "ATTRS", r#"{"Region":["eu"]}"#])
        .await;
    resp.json(&["BIND", "orders/link", r#"{"type":"link","target":"orders/in"}"#])
        .await;
    let reads = [
        (vec!["LOOKUP", "orders/in"], "/v1/names/orders/in"),
        (
            vec!["LOOKUP", "orders/in", "STRONG"],
            "/v1/names/orders/in?consistency=strong",
        ),
        (
            vec!["LOOKUP", "orders/in", "MINREV", "1"],
            "/v1/names/orders/in?min_revision=1",
        ),
        (vec!["LOOKUP", "orders/link"], "/v1/names/orders/link"),
        (
            vec!["LOOKUPLINK", "orders/link"],
            "/v1/names/orders/link?links=no",
        ),
        (vec!["LOOKUP", ""], "/v1/names/"),
        (vec!["LIST"], "/v1/list"),
        (vec!["LIST", "orders"], "/v1/list/orders"),
        (vec!["LISTBINDINGS", "orders"], "/v1/list/orders?bindings=true"),
        (vec!["GROUP", "LIST"], "/v1/groups"),
        (vec!["STATUS"], "/v1/status"),
    ];
    for (words, path) in reads {
        let reply = naming.http("GET", path, "").await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert_eq!(resp.document(&words).await, reply.body, "{words:?} and {path}");
    }
    let binding = naming.lookup("orders/link").await;
    assert_eq!(binding["name"], "orders/in");
    assert_eq!(binding["object"]["address"], "q1");
    assert_eq!(binding["attributes"]["Region"][0], "eu");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_can_be_made_over_http() {
    let naming = Naming::start().await;
    let made = naming.http("PUT", "/v1/contexts/orders", "").await;
    assert_eq!((made.status, &made.json()["changed"]), (200, &json!(true)));
    let bound = naming.http("POST", "/v1/names/orders/in", &queue("q1")).await;
    assert_eq!(
        bound.json(),
        json!({"revision": 2, "changed": true, "detail": "none"})
    );
    let again = naming.http("POST", "/v1/names/orders/in", &queue("q2")).await;
    let (status, problem) = again.problem();
    assert_eq!((status, &problem["code"]), (409, &json!("NameAlreadyBound")));
    let body = json!({"object": {"type": "topic", "address": "t"}, "attributes": {"a": ["b"]}}).to_string();
    assert_eq!(naming.http("PUT", "/v1/names/orders/in", &body).await.status, 200);
    let binding = naming.lookup("orders/in").await;
    assert_eq!(binding["object"], json!({"type": "topic", "address": "t"}));
    assert_eq!(binding["attributes"], json!({"a": ["b"]}));
    let refused = naming.http("DELETE", "/v1/contexts/orders", "").await;
    assert_eq!(refused.problem().1["code"], "ContextNotEmpty");
    assert_eq!(naming.http("DELETE", "/v1/names/orders/in", "").await.status, 200);
    let gone = naming.http("DELETE", "/v1/names/orders/in", "").await;
    assert_eq!(
        gone.json()["changed"],
        false,
        "unbinding what is not bound is no error"
    );
    assert_eq!(naming.http("DELETE", "/v1/contexts/orders", "").await.status, 200);
    assert_eq!(
        naming.http("GET", "/v1/names/orders", "").await.problem().1["code"],
        "NameNotFound"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_an_expected_revision_is_refused_when_somebody_was_faster() {
    let naming = Naming::start().await;
    let first = naming.http("POST", "/v1/names/q", &queue("1")).await;
    assert_eq!(first.status, 200);
    let read = naming.http("GET", "/v1/names/q", "").await;
    assert_eq!(read.headers["etag"], "\"1\"");
    let put = |tag: &'static str, body: String| {
        let addr = naming.addr();
        async move { http(addr, "PUT", "/v1/names/q", &[("If-Match", tag)], &body).await }
    };
    assert_eq!(put("\"1\"", queue("2")).await.status, 200);
    let late = put("\"1\"", queue("3")).await;
    let (status, problem) = late.problem();
    assert_eq!(
        (status, &problem["code"], &problem["actual"]),
        (412, &json!("RevisionMismatch"), &json!(2))
    );
    let absent = [("If-None-Match", "*")];
    let taken = http(naming.addr(), "PUT", "/v1/names/q", &absent, &queue("4")).await;
    assert_eq!(taken.status, 412);
    let mut resp = naming.resp().await;
    assert_eq!(
        resp.error(&["REBIND", "q", &queue("5"), "IFREV", "1"]).await.0,
        "REVISIONMISMATCH"
    );
    assert_eq!(resp.json(&["UNBIND", "q", "IFREV", "2"]).await["changed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_operation_id_returns_the_first_answer() {
    let naming = Naming::start().await;
    let op = [("Daymark-Op-Id", "beef")];
    let first = http(naming.addr(), "POST", "/v1/names/q", &op, &queue("1")).await;
    let second = http(naming.addr(), "POST", "/v1/names/q", &op, &queue("1")).await;
    assert_eq!((second.status, &second.body), (200, &first.body));
    let mut resp = naming.resp().await;
    assert_eq!(
        resp.document(&["BIND", "q", &queue("1"), "OP", "beef"]).await,
        first.body
    );
    let naming = naming.restarted().await;
    let third = http(naming.addr(), "POST", "/v1/names/q", &op, &queue("1")).await;
    assert_eq!(third.body, first.body, "also after a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_http_answer_says_revision_term_and_cluster() {
    let naming = Naming::start().await;
    naming.http("POST", "/v1/names/q", &queue("1")).await;
    for path in [
        "/v1/names/q",
        "/v1/names/none",
        "/v1/status",
        "/nowhere",
        "/livez",
    ] {
        let reply = naming.http("GET", path, "").await;
        assert_eq!(reply.headers["daymark-revision"], "1", "{path}");
        assert_eq!(
            reply.headers["daymark-cluster-id"],
            naming.server.cluster_id(),
            "{path}"
        );
        assert!(
            reply.headers["daymark-term"]
                .parse::<u64>()
                .is_ok_and(|term| term > 0),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_say_why() {
    let naming = Naming::start().await;
    naming.http("POST", "/v1/names/q", &queue("1")).await;
    let (status, problem) = naming.http("GET", "/v1/names/orders/in", "").await.problem();
    assert_eq!(
        (status, &problem["code"], &problem["revision"]),
        (404, &json!("NameNotFound"), &json!(1))
    );
    assert_eq!(problem["remaining"], "orders/in");
    let (status, problem) = naming.http("GET", "/v1/names/q/below", "").await.problem();
    assert_eq!((status, &problem["code"]), (409, &json!("NotContext")));
    let (status, problem) = naming
        .http("GET", "/v1/names/q?min_revision=9", "")
        .await
        .problem();
    assert_eq!(
        (status, &problem["code"], &problem["have"]),
        (503, &json!("Lagging"), &json!(1))
    );
    let mut resp = naming.resp().await;
    let (code, text) = resp.error(&["LOOKUP", "none"]).await;
    assert_eq!(code, "NAMENOTFOUND");
    assert_eq!(
        text,
        "none not found: nothing is bound below \"\" (as of revision 1)"
    );
    resp.ask(&["ERRORS", "JSON"]).await;
    let (code, text) = resp.error(&["LOOKUP", "none"]).await;
    let error: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (code.as_str(), &error["code"]),
        ("NAMENOTFOUND", &json!("NameNotFound"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_can_wait_until_the_name_is_bound() {
    let naming = Naming::start().await;
    let mut waiting = naming.resp().await;
    waiting.send(&["LOOKUP", "late", "WAIT", "15000"]).await;
    let addr = naming.addr();
    let http_waits = tokio::spawn(async move { http(addr, "GET", "/v1/names/late?wait=15s", &[], "").await });
    let mut binder = naming.resp().await;
    for n in 0..20 {
        binder.json(&["BIND", &format!("other{n}"), &queue("x")]).await;
    }
    binder.json(&["BIND", "late", &queue("x")]).await;
    assert!(matches!(waiting.reply().await, Some(Frame::Bulk(_))));
    assert_eq!(http_waits.await.expect("an answer").status, 200);
    let missed = naming.http("GET", "/v1/names/never?wait=50ms", "").await;
    assert_eq!(missed.problem().1["code"], "NameNotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_commands_are_answered_in_order_and_read_their_own_writes() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let mut bytes = Vec::new();
    for n in 0..200 {
        let name = format!("n{n}");
        daymark_naming_proto::resp::write_command(&["BIND", &name, &queue(&name)], &mut bytes);
        if n % 3 == 0 {
            daymark_naming_proto::resp::write_command(&["LOOKUP", &name], &mut bytes);
        }
    }
    resp.send_bytes(&bytes).await;
    for n in 0..200_u64 {
        let written = next_json(&mut resp).await;
        assert_eq!(written["revision"], n + 1);
        if n % 3 == 0 {
            assert_eq!(next_json(&mut resp).await["name"], format!("n{n}"));
        }
    }
}

async fn next_json(resp: &mut Resp) -> Value {
    match resp.reply().await {
        Some(Frame::Bulk(bytes)) => serde_json::from_slice(&bytes).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_at_a_terminal_is_helped() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    resp.send_bytes(b"PING\r\n").await;
    assert_eq!(resp.reply().await, Some(Frame::Simple("PONG".into())));
    resp.send_bytes(b"BIND q '{\"type\":\"queue\",\"address\":\"a b\"}'\r\n\r\nLOOKUP q\r\n")
        .await;
    assert_eq!(next_json(&mut resp).await["revision"], 1);
    assert_eq!(next_json(&mut resp).await["object"]["address"], "a b");
    let Frame::Array(lines) = resp.ask(&["HELP"]).await else {
        panic!("no lines");
    };
    let lookup = Frame::Simple("LOOKUP name [MINREV revision] [WAIT ms] [STRONG]".into());
    assert!(lines.contains(&lookup));
    assert!(matches!(resp.ask(&["COMMAND"]).await, Frame::Array(verbs) if verbs.len() > 20));
    assert!(
        matches!(resp.ask(&["COMMAND", "DOCS"]).await, Frame::Array(_)),
        "RESP2 has no maps"
    );
    let Frame::Map(hello) = resp.ask(&["HELLO", "3"]).await else {
        panic!("no map");
    };
    let keys: Vec<&Frame> = hello.iter().map(|(key, _)| key).collect();
    for key in [
        "server",
        "version",
        "proto",
        "id",
        "mode",
        "role",
        "modules",
        "cluster_id",
        "term",
        "revision",
        "node",
    ] {
        assert!(
            keys.contains(&&Frame::Bulk(key.as_bytes().to_vec().into())),
            "{key}"
        );
    }
    assert!(matches!(resp.ask(&["COMMAND", "DOCS"]).await, Frame::Map(_)));
    let info = resp.document(&["INFO"]).await;
    assert!(info.lines().any(|line| line == "loading:0"), "{info}");
    assert!(info.lines().any(|line| line == "role:master"), "{info}");
    assert_eq!(resp.ask(&["ECHO", "hi"]).await, Frame::Bulk("hi".into()));
    assert_eq!(resp.ask(&["QUIT"]).await, Frame::Simple("OK".into()));
    assert_eq!(resp.until_closed().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_carry_many_http_requests() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let naming = Naming::start().await;
    naming.http("POST", "/v1/names/q", &queue("1")).await;
    let mut stream = tokio::net::TcpStream::connect(naming.addr())
        .await
        .expect("a connection");
    let one = "GET /v1/names/q HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(one.repeat(3).as_bytes()).await.expect("sent");
    let last = "GET /v1/status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(last.as_bytes()).await.expect("sent");
    let mut answers = String::new();
    crate::support::soon("answers", stream.read_to_string(&mut answers))
        .await
        .expect("answers");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4);
    assert_eq!(answers.matches(r#""address":"1""#).count(), 3);
}

/// The preface and empty settings, by hand: the server answers with its own settings frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_spoken_on_the_same_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const SETTINGS: u8 = 4;
    let naming = Naming::start().await;
    let mut stream = tokio::net::TcpStream::connect(naming.addr())
        .await
        .expect("a connection");
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .expect("sent");
    stream
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .await
        .expect("sent");
    let mut head = [0; 9];
    crate::support::soon("a frame", stream.read_exact(&mut head))
        .await
        .expect("a frame");
    assert_eq!(head[3], SETTINGS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_ask_for_single_commands_and_unknown_ones_are_none() {
    let naming = Naming::start().await;
    let mut resp = naming.resp3().await;
    let Frame::Array(found) = resp
        .ask(&["COMMAND", "INFO", "lookup", "get", "group|list"])
        .await
    else {
        panic!("no array");
    };
    let names: Vec<Option<Frame>> = found
        .into_iter()
        .map(|entry| match entry {
            Frame::Array(parts) => parts.into_iter().next(),
            Frame::Null => None,
            Frame::Simple(_)
            | Frame::Error(_)
            | Frame::Integer(_)
            | Frame::Bulk(_)
            | Frame::Boolean(_)
            | Frame::Double(_)
            | Frame::Map(_)
            | Frame::Push(_) => panic!("{entry:?} describes no command"),
        })
        .collect();
    let bulk = |text: &'static str| Some(Frame::Bulk(text.as_bytes().into()));
    assert_eq!(names, [bulk("lookup"), None, bulk("group list")]);
    let Frame::Map(docs) = resp.ask(&["COMMAND", "DOCS", "rebind", "get"]).await else {
        panic!("no map");
    };
    assert_eq!(docs.len(), 1);
    assert_eq!(
        resp.error(&["COMMAND", "GETKEYS", "lookup", "x"]).await.0,
        "NOTSUPPORTED"
    );
}
