//! Every limit is hit once, and says so.

use std::time::{Duration, Instant};

use daymark_naming_proto::resp::{Frame, write_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Naming, queue, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_so_and_closed() {
    let naming = Naming::start_with(|options| options.limits.connections_max = 2).await;
    let mut first = naming.resp().await;
    let mut second = naming.resp().await;
    assert_eq!(first.ask(&["PING"]).await, Frame::Simple("PONG".into()));
    assert_eq!(second.ask(&["PING"]).await, Frame::Simple("PONG".into()));
    let third = naming.resp().await.until_closed().await;
    assert_eq!(
        third,
        [Frame::Error("LIMITEXCEEDED connections: the limit is 2".into())]
    );
    first.ask(&["QUIT"]).await;
    assert_eq!(first.until_closed().await, []);
    soon("room for another", async {
        loop {
            let mut again = naming.resp().await;
            again.send(&["PING"]).await;
            if again.reply().await == Some(Frame::Simple("PONG".into())) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_connections_end_in_time_and_disturb_nobody() {
    let naming = Naming::start_with(|options| {
        options.limits.header_timeout = Duration::from_millis(200);
        options.limits.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let began = Instant::now();
    let starts: [&[u8]; 6] = [
        b"",
        b"G",
        b"GET /v1/status HTTP/1.1\r\nHost: t\r\n",
        b"*2\r\n$6\r\nLOOK",
        b"PIN",
        b"*1\r\n$4\r\nPING\r\n",
    ];
    let mut streams = Vec::new();
    for start in starts {
        let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
        stream.write_all(start).await.expect("sent");
        streams.push(stream);
    }
    assert_eq!(
        naming.resp().await.ask(&["PING"]).await,
        Frame::Simple("PONG".into()),
        "others are served"
    );
    for (mut stream, start) in streams.into_iter().zip(starts) {
        let mut said = Vec::new();
        // A reset is an end too.
        let _ = soon("the end", stream.read_to_end(&mut said)).await;
        if start.starts_with(b"*2") {
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("did not arrive in time"), "{said}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let naming =
        Naming::start_with(|options| options.limits.header_timeout = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
    let head = "POST /v1/names/x HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut said = vec![0; 12];
    soon("an answer", stream.read_exact(&mut said))
        .await
        .expect("an answer");
    assert_eq!(said, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_waiting_lookups_are_counted() {
    let naming = Naming::start_with(|options| {
        options.limits.watches_per_connection_max = 2;
        options.limits.watches_max = 3;
        options.limits.waiters_max = 1;
    })
    .await;
    let mut first = naming.resp3().await;
    first.watch(&["WATCH", "a"]).await;
    first.watch(&["WATCH", "b"]).await;
    let (code, text) = first.error(&["WATCH", "c"]).await;
    assert!(
        code == "LIMITEXCEEDED" && text.contains("one connection"),
        "{text}"
    );
    let mut second = naming.resp3().await;
    second.watch(&["WATCH", "a"]).await;
    let (code, text) = second.error(&["WATCH", "b"]).await;
    assert!(code == "LIMITEXCEEDED" && text.contains("this server"), "{text}");
    drop(first);
    soon("room for another watch", async {
        while !matches!(second.ask(&["WATCH", "b"]).await, Frame::Integer(_)) {}
    })
    .await;
    let mut waiting = naming.resp().await;
    waiting.send(&["LOOKUP", "late", "WAIT", "15000"]).await;
    soon("the wait", async {
        let waits = "daymark_naming_waiting_lookups 1\n";
        while !naming.http("GET", "/metrics", "").await.body.contains(waits) {}
    })
    .await;
    let refused = naming.http("GET", "/v1/names/later?wait=20ms", "").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.problem().1["what"], "lookups that wait");
    naming.http("POST", "/v1/names/late", &queue("q")).await;
    assert!(matches!(waiting.reply().await, Some(Frame::Bulk(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_http_watch_gets_comments_and_outlives_the_header_timeout() {
    let naming = Naming::start_with(|options| {
        options.limits.header_timeout = Duration::from_millis(100);
        options.limits.keepalive = Duration::from_millis(50);
    })
    .await;
    let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
    stream
        .write_all(b"GET /v1/watch/q HTTP/1.0\r\n\r\n")
        .await
        .expect("sent");
    let mut said = String::new();
    soon("comments", async {
        let mut piece = [0; 1024];
        while said.matches(": still here\n\n").count() < 8 {
            let count = stream.read(&mut piece).await.expect("the stream");
            assert!(count > 0, "the stream ended: {said}");
            said += std::str::from_utf8(&piece[..count]).expect("UTF-8");
        }
    })
    .await;
    assert!(said.contains("retry: 1000\n\n"), "{said}");
    naming.http("POST", "/v1/names/q", &queue("1")).await;
    soon("the change", async {
        let mut piece = [0; 4096];
        while !said.contains("event: changed") {
            let count = stream.read(&mut piece).await.expect("the stream");
            assert!(count > 0, "the stream ended: {said}");
            said += std::str::from_utf8(&piece[..count]).expect("UTF-8");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_writes_under_way_than_fit_are_refused_and_not_stored() {
    let naming = Naming::start_with(|options| options.limits.write_bytes_max = 4 << 10).await;
    let mut resp = naming.resp().await;
    let big = queue(&"x".repeat(5 << 10));
    let (code, text) = resp.error(&["BIND", "big", &big]).await;
    assert!(
        code == "SERVICEUNAVAILABLE" && text.contains("4096 bytes"),
        "{code} {text}"
    );
    for n in 0..100 {
        resp.json(&["BIND", &format!("n{n}"), &queue("q")]).await;
    }
    assert_eq!(resp.error(&["LOOKUP", "big"]).await.0, "NAMENOTFOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_its_http_answers_is_let_go() {
    let naming = Naming::start_with(|options| {
        options.limits.connections_max = 2;
        options.limits.stall_timeout = Duration::from_millis(200);
    })
    .await;
    let mut resp = naming.resp().await;
    resp.json(&["BIND", "q", &queue(&"x".repeat(60_000))]).await;
    let mut deaf = TcpStream::connect(naming.addr()).await.expect("a connection");
    let request = b"GET /v1/names/q HTTP/1.1\r\nHost: t\r\n\r\n".repeat(500);
    // The server stops reading once nobody takes its answers.
    let sent = tokio::time::timeout(Duration::from_secs(5), deaf.write_all(&request)).await;
    drop(sent);
    soon("room for another", async {
        loop {
            let mut again = naming.resp().await;
            again.send(&["PING"]).await;
            if again.reply().await == Some(Frame::Simple("PONG".into())) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_whole_have_one_room_together_and_short_ones_always_fit() {
    let naming = Naming::start_with(|options| options.limits.input_bytes_max = 64 << 10).await;
    let half = format!(
        "*3\r\n$4\r\nBIND\r\n$1\r\nq\r\n$1000000\r\n{}",
        "x".repeat(60 << 10)
    );
    let (mut first, mut second) = (naming.resp().await, naming.resp().await);
    for waiting in [&mut first, &mut second] {
        // Whoever is refused while it still sends is reset.
        let _ = waiting.stream.write_all(half.as_bytes()).await;
    }
    let refused = soon("a refusal", async {
        tokio::select! {
            refused = first.reply() => refused,
            refused = second.reply() => refused,
        }
    });
    if let Some(refused) = refused.await {
        let is_limit =
            matches!(&refused, Frame::Error(error) if error.starts_with("LIMITEXCEEDED bytes of requests"));
        assert!(is_limit, "{refused:?}");
    }
    assert_eq!(
        naming.resp().await.ask(&["PING"]).await,
        Frame::Simple("PONG".into())
    );
    naming.http("POST", "/v1/names/small", &queue("q")).await;
    assert_eq!(naming.lookup("small").await["name"], "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beyond_those_that_one_connection_may_have_under_way_wait_for_the_first() {
    const WRITES: usize = 12;
    let naming = Naming::start_with(|options| options.limits.writes_per_connection_max = 1).await;
    let syncs = async || {
        let text = naming.http("GET", "/metrics", "").await.body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("daymark_naming_log_syncs_total "));
        line.expect("a figure").parse::<usize>().expect("a number")
    };
    let before = syncs().await;
    let mut resp = naming.resp().await;
    let mut commands = Vec::new();
    for n in 0..WRITES {
        write_command(&["BIND", &format!("n{n}"), &queue("q")], &mut commands);
    }
    resp.send_bytes(&commands).await;
    for _ in 0..WRITES {
        assert!(matches!(resp.reply().await, Some(Frame::Bulk(_))));
    }
    // Each was durable before the next began.
    assert!(syncs().await - before >= WRITES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_returns_and_takes_no_more_than_the_server_permits() {
    let naming = Naming::start_with(|options| {
        options.limits.search_size_max = 2;
        options.limits.search_time_max = Duration::from_secs(5);
    })
    .await;
    let mut resp = naming.resp().await;
    for n in 0..4 {
        resp.json(&["BIND", &format!("n{n}"), &queue("q")]).await;
    }
    let found = resp
        .json(&["SEARCH", "", "(!(none=*))", "SCOPE", "subtree", "LIMIT", "100"])
        .await;
    assert_eq!(found["entries"].as_array().map(Vec::len), Some(2), "{found}");
    assert_eq!(found["stopped"]["code"], "SizeLimitExceeded", "{found}");
    let naming = Naming::start_with(|options| options.limits.search_time_max = Duration::ZERO).await;
    let mut resp = naming.resp().await;
    for part in 0..3 {
        let writes: Vec<String> = (0..900)
            .map(|n| format!(r#"{{"bind":{{"name":"n{part}x{n}","object":{}}}}}"#, queue("q")))
            .collect();
        resp.json(&["TRANSACT", &format!("[{}]", writes.join(","))]).await;
    }
    let cut = resp
        .json(&["SEARCH", "", "(!(none=*))", "SCOPE", "subtree", "TIME", "60000"])
        .await;
    assert_eq!(cut["stopped"]["code"], "TimeLimitExceeded", "{}", cut["stopped"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_is_no_longer_than_the_server_permits() {
    let naming = Naming::start_with(|options| options.limits.wait_max = Duration::from_millis(50)).await;
    let reply = naming.http("GET", "/v1/names/never?wait=60m", "").await;
    assert_eq!(reply.status, 404, "and soon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_long_is_refused_as_such() {
    let naming = Naming::start_with(|options| options.limits.head_bytes_max = 8 << 10).await;
    let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
    let head = format!(
        "GET /v1/names/x HTTP/1.1\r\nHost: t\r\nX-Long: {}\r\n",
        "x".repeat(20 << 10)
    );
    // Whoever is refused while it still sends may be reset.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut said = [0; 12];
    soon("an answer", stream.read_exact(&mut said))
        .await
        .expect("an answer");
    assert_eq!(&said, b"HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watching_connection_without_a_word_for_too_long_is_told_so_and_closed() {
    let naming = Naming::start_with(|options| {
        options.limits.idle_timeout = Duration::from_millis(50);
        options.limits.watch_idle_timeout = Duration::from_millis(600);
    })
    .await;
    let began = Instant::now();
    let mut resp = naming.resp3().await;
    resp.watch(&["WATCH", "q"]).await;
    let last = resp.until_closed().await.pop();
    let is_goodbye = matches!(&last, Some(Frame::Error(text)) if text.contains("silent for too long"));
    assert!(is_goodbye, "{last:?}");
    assert!(began.elapsed() >= Duration::from_millis(600));
}

/// The rows of a table of the documentation: each setting with its default.
fn documented(table: &str) -> serde_json::Map<String, serde_json::Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/directory.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let (begin, end) = (format!("<!-- {table} -->"), format!("<!-- /{table} -->"));
    let after = text.split_once(&begin).expect("where the table begins").1;
    let rows = after
        .split_once(&end)
        .expect("where it ends")
        .0
        .trim()
        .lines()
        .skip(2);
    let row = |row: &str| {
        let mut cells = row
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().trim_matches('`'));
        let (name, value) = (cells.next().expect("a name"), cells.next().expect("a default"));
        (name.to_owned(), value.parse().expect("a value"))
    };
    rows.map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_is_documented_with_its_default_and_told() {
    let naming = Naming::start().await;
    let told = naming.http("GET", "/v1/limits", "").await.json();
    assert_eq!(
        told["directory"],
        serde_json::Value::Object(documented("directory"))
    );
    let mut limits = told["limits"].clone();
    // Where the process may open few files there are fewer.
    let fits = limits["connections_max"]
        .as_u64()
        .is_some_and(|most| most <= 20_000);
    assert!(fits, "{limits}");
    limits["connections_max"] = 20_000.into();
    assert_eq!(limits, serde_json::Value::Object(documented("limits")));
    assert_eq!(naming.resp().await.json(&["LIMITS"]).await, told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_does_not_wait_for_a_peer_that_takes_no_answers() {
    let stall = Duration::from_secs(3_600);
    let naming = Naming::start_with(|options| {
        options.limits.stall_timeout = stall;
        options.limits.stop_timeout = Duration::from_millis(100);
    })
    .await;
    let mut resp = naming.resp().await;
    resp.json(&["BIND", "q", &queue(&"x".repeat(60_000))]).await;
    let mut deaf = naming.resp().await;
    let mut lookups = Vec::new();
    for _ in 0..2_000 {
        write_command(&["LOOKUP", "q"], &mut lookups);
    }
    deaf.send_bytes(&lookups).await;
    soon("a stop", naming.server.stop()).await;
}
