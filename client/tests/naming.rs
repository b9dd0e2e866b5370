//! The naming client against servers that fail in every way a test can think of.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daymark_client::proto::resp::Frame;
use daymark_client::proto::{
    Attributes, Change, ChangeKind, Epoch, Name, NamingError, Object, ReadOptions, Request, Revision, Scope,
    UnavailableReason, WatchMessage, Withholding, WriteDetail, Written,
};
use daymark_client::{Credentials, Failure, Following, LookupError, NamingConfig};
use support::{
    Reply, Server, changed, config, dead_address, document, hello, name, naming, naming_with, queue, refused,
    watch_push,
};

/// Answers every lookup with a queue of this address at this revision.
fn lookups(address: &'static str, revision: u64) -> impl Fn(&[String]) -> Vec<Reply> + Send + Sync {
    move |words| vec![document(&queue(&words[1], address, revision))]
}

fn address(binding: &daymark_client::proto::Binding) -> &str {
    let Object::Queue { address } = &binding.object else {
        panic!("not a queue: {:?}", binding.object);
    };
    address
}

fn written(revision: u64) -> Written {
    Written {
        revision: Revision(revision),
        changed: true,
        detail: WriteDetail::None,
    }
}

fn not_found(revision: u64) -> NamingError {
    NamingError::NameNotFound {
        name: name("q"),
        resolved: Name::root(),
        remaining: name("q"),
        revision: Revision(revision),
    }
}

#[tokio::test]
async fn a_call_moves_on_when_its_server_dies() {
    let first = Server::start(1, lookups("first", 1)).await;
    let second = Server::start(1, lookups("second", 1)).await;
    let naming = naming(&[&first, &second]);
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "first");
    first.stop().await;
    assert_eq!(
        address(&naming.lookup(&name("q")).await.expect("bound")),
        "second"
    );
    assert_eq!(
        address(&naming.lookup(&name("q")).await.expect("bound")),
        "second"
    );
    assert_eq!(second.connections(), 1, "the winner is kept");
}

#[tokio::test]
async fn a_black_holed_first_server_costs_one_head_start() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let hole = socket.listen(1).expect("a listener");
    let hole_address = hole.local_addr().expect("an address");
    // With its queue of connections full, the port drops what comes.
    let mut fillers = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(100),
        tokio::net::TcpStream::connect(hole_address),
    )
    .await
    {
        fillers.push(stream);
    }
    let good = Server::start(1, lookups("good", 1)).await;
    let naming = naming_with(&[hole_address, good.address], config());
    let started = Instant::now();
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(90),
        "the first had its head start: {took:?}"
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_greets_is_overtaken() {
    let frozen = Server::start_with(Reply::Raw(b""), Arc::new(|_: &[String]| vec![])).await;
    let good = Server::start(1, lookups("good", 1)).await;
    let naming = naming(&[&frozen, &good]);
    let started = Instant::now();
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_left_after_the_call_timeout() {
    let frozen = Server::start(1, |_| vec![]).await;
    let good = Server::start(1, lookups("good", 1)).await;
    let config = NamingConfig {
        call_timeout: Duration::from_millis(200),
        ..config()
    };
    let naming = naming_with(&[frozen.address, good.address], config);
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
    assert_eq!(frozen.heard("LOOKUP").len(), 1);
}

#[tokio::test]
async fn a_lagging_server_is_passed_over() {
    let lagging = Server::start(5, |_| {
        vec![refused(&NamingError::Lagging {
            have: Revision(5),
            want: Revision(7),
        })]
    })
    .await;
    let good = Server::start(7, lookups("good", 7)).await;
    let naming = naming(&[&lagging, &good]);
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
    assert_eq!(lagging.heard("LOOKUP").len(), 1);
}

#[tokio::test]
async fn a_client_never_reads_older_than_it_has_read() {
    let first = Server::start(9, lookups("first", 9)).await;
    let behind = Server::start(5, lookups("behind", 5)).await;
    let level = Server::start(9, lookups("level", 9)).await;
    let naming = naming(&[&first, &behind, &level]);
    naming.lookup(&name("q")).await.expect("bound");
    naming.lookup(&name("q")).await.expect("bound");
    assert_eq!(first.heard("LOOKUP")[1], ["LOOKUP", "q", "MINREV", "9"]);
    first.stop().await;
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "level");
    assert!(behind.heard("LOOKUP").is_empty(), "it said that it is behind");
}

#[tokio::test]
async fn a_miss_older_than_what_was_seen_is_no_answer() {
    let stale = Server::start(9, |_| vec![refused(&not_found(4))]).await;
    let good = Server::start(9, lookups("good", 9)).await;
    let naming = naming(&[&stale, &good]);
    assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
}

#[tokio::test]
async fn an_authoritative_miss_is_an_answer() {
    let first = Server::start(1, |_| vec![refused(&not_found(1))]).await;
    let second = Server::start(1, lookups("second", 1)).await;
    let naming = naming(&[&first, &second]);
    let error = naming.lookup(&name("q")).await.expect_err("not bound");
    assert_eq!(error.naming_error().map(NamingError::code), Some("NameNotFound"));
    assert_eq!(second.connections(), 0);
}

#[tokio::test]
async fn refused_credentials_end_the_search() {
    let greeting = Reply::Raw(b"-WRONGPASS invalid user or password\r\n+OK\r\n");
    let strict = Server::start_with(greeting, Arc::new(|_: &[String]| vec![])).await;
    let second = Server::start(1, lookups("second", 1)).await;
    let config = NamingConfig {
        credentials: Some(Credentials {
            user: "duke".into(),
            password: "wrong".into(),
        }),
        stagger: Duration::from_secs(5),
        ..config()
    };
    let naming = naming_with(&[strict.address, second.address], config);
    let error = naming.lookup(&name("q")).await.expect_err("refused");
    assert!(
        matches!(error, LookupError::AuthenticationFailed { .. }),
        "{error}"
    );
    assert_eq!(strict.heard("HELLO"), [["HELLO", "3", "AUTH", "duke", "wrong"]]);
    assert_eq!(second.connections(), 0);
    assert!(!format!("{:?}", naming.config()).contains("wrong"));
}

#[tokio::test]
async fn a_write_is_repeated_with_the_same_operation_id() {
    let dying = Server::start(1, |_| vec![Reply::Close]).await;
    let good = Server::start(1, |_| vec![document(&written(2))]).await;
    let naming = naming(&[&dying, &good]);
    let object = Object::Queue { address: "a".into() };
    let answer = naming.bind(&name("q"), object, Attributes::new()).await;
    assert_eq!(answer.expect("written").revision, Revision(2));
    let (first, second) = (dying.heard("BIND"), good.heard("BIND"));
    assert_eq!(first, second);
    assert!(first[0].contains(&"OP".to_owned()), "{first:?}");
    assert_eq!(naming.revision_seen(), Revision(2));
}

#[tokio::test]
async fn a_write_that_nobody_answers_has_an_unknown_outcome() {
    let mute = Server::start(1, |_| vec![]).await;
    let config = NamingConfig {
        call_timeout: Duration::from_millis(100),
        total_timeout: Duration::from_millis(400),
        ..config()
    };
    let naming = naming_with(&[mute.address], config);
    let error = naming.unbind(&name("q"), None).await.expect_err("no answer");
    let LookupError::OutcomeUnknown { op, attempts, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(mute.heard("UNBIND")[0].last(), Some(&op.to_string()));
    assert!(
        matches!(attempts[0].why, Failure::NoAnswer { .. }),
        "{attempts:?}"
    );
    let read = naming.lookup(&name("q")).await.expect_err("no answer");
    assert!(matches!(read, LookupError::Unreachable { .. }), "{read}");
}

#[tokio::test]
async fn the_last_error_lists_every_server_and_why() {
    let unavailable = || NamingError::ServiceUnavailable {
        reason: "no leader".into(),
    };
    let leaderless = Server::start(3, move |_| vec![refused(&unavailable())]).await;
    let alien = Server::start_with(hello("other", 3), Arc::new(|_: &[String]| vec![])).await;
    let dead = dead_address().await;
    let config = NamingConfig {
        total_timeout: Duration::from_millis(700),
        ..config()
    };
    let naming = naming_with(&[leaderless.address, dead, alien.address], config);
    let started = Instant::now();
    let error = naming.lookup(&name("q")).await.expect_err("nobody serves");
    assert!(started.elapsed() < Duration::from_secs(5));
    let LookupError::Unreachable { attempts, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(attempts.len(), 3);
    assert_eq!(attempts[0].revision, Some(Revision(3)));
    assert!(matches!(attempts[1].why, Failure::Connect { .. }));
    let text = error.to_string();
    for part in [
        "no leader",
        "did not accept a connection",
        "it belongs to cluster other, not to cluster c",
        &dead.to_string(),
    ] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_no_answer() {
    let garbage: [(&'static str, &'static [u8]); 7] = [
        ("no frame", b"hello there\r\n"),
        ("no document", b":7\r\n"),
        ("no JSON", b"$2\r\n{]\r\n"),
        ("another document", b"$2\r\n{}\r\n"),
        ("an error that says nothing", b"-ERR what\r\n"),
        ("a reply too many", b"$2\r\n{}\r\n+OK\r\n+OK\r\n"),
        ("a length too large", b"$99999999999\r\n"),
    ];
    for (what, bytes) in garbage {
        let bad = Server::start(1, move |_| vec![Reply::Raw(bytes)]).await;
        let good = Server::start(1, lookups("good", 1)).await;
        let naming = naming(&[&bad, &good]);
        let found = naming.lookup(&name("q")).await.expect(what);
        assert_eq!(address(&found), "good", "{what}");
    }
}

#[tokio::test]
async fn a_greeting_that_cannot_be_read_is_passed_over() {
    for greeting in [
        &b"+OK\r\n+OK\r\n"[..],
        b"%0\r\n+OK\r\n",
        b"-ERR x\r\n-ERR y\r\n",
        b"!",
    ] {
        let bad = Server::start_with(Reply::Raw(greeting), Arc::new(|_: &[String]| vec![])).await;
        let good = Server::start(1, lookups("good", 1)).await;
        let naming = naming(&[&bad, &good]);
        assert_eq!(address(&naming.lookup(&name("q")).await.expect("bound")), "good");
    }
}

#[tokio::test]
async fn requests_share_one_connection_and_replies_keep_their_order() {
    let server = Server::start(1, lookups("x", 1)).await;
    let naming = naming(&[&server]);
    let calls: Vec<_> = (0..500)
        .map(|n| {
            let naming = naming.clone();
            tokio::spawn(async move {
                let asked = name(&format!("q{n}"));
                let found = naming.lookup(&asked).await.expect("bound");
                assert_eq!(found.name, asked);
            })
        })
        .collect();
    for call in calls {
        call.await.expect("its own answer");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn ask_returns_the_document_as_it_came() {
    let server = Server::start(1, |_| vec![Reply::Raw(b"$16\r\n{ \"revision\":8 }\r\n")]).await;
    let naming = naming(&[&server]);
    let document = naming.ask(Request::Status).await.expect("an answer");
    assert_eq!(&document[..], b"{ \"revision\":8 }");
    assert_eq!(naming.revision_seen(), Revision(8));
}

fn bound(address: &str, revision: u64) -> ChangeKind {
    ChangeKind::Bound {
        binding: Arc::new(queue("q", address, revision)),
    }
}

fn state(address: &str, revision: u64) -> WatchMessage {
    WatchMessage::State {
        change: Change {
            name: name("q"),
            kind: bound(address, revision),
        },
    }
}

fn bookmark(revision: u64) -> WatchMessage {
    WatchMessage::Bookmark {
        revision: Revision(revision),
    }
}

/// Answers a watch with an id and these messages, and lookups with the queue of the last state.
fn watched(id: i64, messages: Vec<WatchMessage>) -> impl Fn(&[String]) -> Vec<Reply> + Send + Sync {
    move |_| {
        let mut replies = vec![Reply::Frame(Frame::Integer(id))];
        replies.extend(
            messages
                .iter()
                .map(|message| Reply::Frame(watch_push(id, message))),
        );
        replies
    }
}

#[tokio::test]
async fn a_watch_resumes_after_its_last_revision_and_delivers_nothing_twice() {
    let first = Server::start(3, watched(1, vec![state("a", 2), bookmark(3)])).await;
    let second = Server::start(5, |words| {
        assert!(words.ends_with(&["FROM".to_owned(), "4".to_owned()]), "{words:?}");
        vec![
            Reply::Frame(Frame::Integer(9)),
            Reply::Frame(changed(9, 4, bound("b", 4))),
            Reply::Frame(changed(9, 5, bound("c", 5))),
        ]
    })
    .await;
    let naming = naming(&[&first, &second]);
    let mut watch = naming.watch(&name("q"), Scope::Object, None);
    assert_eq!(watch.next().await.expect("state"), state("a", 2));
    assert_eq!(watch.next().await.expect("bookmark"), bookmark(3));
    first.push(changed(1, 4, bound("b", 4)));
    assert!(matches!(
        watch.next().await.expect("a change"),
        WatchMessage::Changed {
            revision: Revision(4),
            ..
        }
    ));
    first.stop().await;
    assert!(matches!(
        watch.next().await.expect("a change"),
        WatchMessage::Changed {
            revision: Revision(5),
            ..
        }
    ));
    assert_eq!(watch.revision(), Some(Revision(5)));
}

#[tokio::test]
async fn a_watch_whose_past_is_gone_says_so_and_begins_from_the_state() {
    let compacted = NamingError::Compacted {
        from: Revision(2),
        oldest: Revision(8),
    };
    let server = Server::start(9, move |words| {
        if words.contains(&"FROM".to_owned()) {
            vec![refused(&compacted)]
        } else {
            watched(1, vec![state("a", 9), bookmark(9)])(words)
        }
    })
    .await;
    let naming = naming(&[&server]);
    let mut watch = naming.watch(&name("q"), Scope::Object, Some(Revision(2)));
    let oldest = Revision(8);
    assert_eq!(
        watch.next().await.expect("a mark"),
        WatchMessage::Compacted { oldest }
    );
    assert_eq!(watch.next().await.expect("state"), state("a", 9));
    assert_eq!(watch.next().await.expect("bookmark"), bookmark(9));
    // The server ends it as well, when the watcher is too slow.
    server.push(watch_push(1, &WatchMessage::Compacted { oldest }));
    assert_eq!(
        watch.next().await.expect("a mark"),
        WatchMessage::Compacted { oldest }
    );
    assert_eq!(watch.next().await.expect("state"), state("a", 9));
}

#[tokio::test]
async fn states_that_were_cut_off_are_declared_void() {
    let first = Server::start(3, watched(1, vec![state("a", 2)])).await;
    let second = Server::start(3, watched(1, vec![bookmark(3)])).await;
    let naming = naming(&[&first, &second]);
    let mut watch = naming.watch(&name("q"), Scope::Object, None);
    assert_eq!(watch.next().await.expect("state"), state("a", 2));
    first.stop().await;
    assert!(matches!(
        watch.next().await.expect("a mark"),
        WatchMessage::Compacted { .. }
    ));
    assert_eq!(watch.next().await.expect("bookmark"), bookmark(3));
}

#[tokio::test]
async fn a_watch_ends_at_the_server_when_it_is_dropped() {
    let server = Server::start(3, watched(7, vec![bookmark(3)])).await;
    let naming = naming(&[&server]);
    let mut watch = naming.watch(&name("q"), Scope::Object, None);
    watch.next().await.expect("bookmark");
    drop(watch);
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.heard("UNWATCH").is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.heard("UNWATCH"), [["UNWATCH", "7"]]);
}

fn withheld(since: u64) -> ChangeKind {
    ChangeKind::Withheld {
        group: "orders".parse().expect("a group"),
        epoch: Epoch(3),
        withheld: Withholding {
            reason: UnavailableReason::LeaseExpired,
            since: Revision(since),
            since_unix_ms: 0,
            eta_ms: None,
        },
    }
}

#[tokio::test]
async fn a_followed_name_changes_by_push_and_survives_its_server() {
    let first = Server::start(3, watched(1, vec![state("a", 2), bookmark(3)])).await;
    let second = Server::start(5, watched(1, vec![])).await;
    let naming = naming(&[&first, &second]);
    let mut follow = naming.follow(&name("q"));
    let wait = Duration::from_secs(5);
    let found = follow.wait_bound(wait).await.expect("bound");
    assert_eq!(address(&found), "a");
    first.push(changed(1, 4, withheld(4)));
    assert!(matches!(follow.changed().await, Following::Unavailable { .. }));
    let short = follow
        .wait_bound(Duration::from_millis(50))
        .await
        .expect_err("withheld");
    assert!(short.to_string().contains("lease-expired"), "{short}");
    first.stop().await;
    let deadline = Instant::now() + wait;
    while second.heard("WATCH").is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(follow.current(), Following::Unavailable { .. }));
    second.push(changed(1, 6, bound("b", 6)));
    let found = follow.wait_bound(wait).await.expect("bound again");
    assert_eq!(address(&found), "b");
}

#[tokio::test]
async fn a_followed_name_that_is_not_bound_says_so() {
    let server = Server::start(3, |words| match words[0].as_str() {
        "WATCH" => watched(1, vec![bookmark(3)])(words),
        _ => vec![refused(&not_found(3))],
    })
    .await;
    let naming = naming(&[&server]);
    let mut follow = naming.follow(&name("q"));
    assert!(matches!(follow.current(), Following::Unknown));
    assert!(matches!(follow.changed().await, Following::Unbound));
}

#[tokio::test]
async fn a_followed_link_follows_what_it_leads_to() {
    let target = Arc::new(AtomicBool::new(false));
    let moved = Arc::clone(&target);
    let server = Server::start(3, move |words| match (words[0].as_str(), words[1].as_str()) {
        ("WATCH", "q") => {
            let mut link = queue("q", "", 2);
            link.object = Object::Link { target: name("end") };
            let change = Change {
                name: name("q"),
                kind: ChangeKind::Bound {
                    binding: Arc::new(link),
                },
            };
            watched(1, vec![WatchMessage::State { change }, bookmark(3)])(words)
        }
        ("WATCH", _) => watched(2, vec![bookmark(3)])(words),
        _ => {
            let address = if moved.load(Ordering::SeqCst) { "b" } else { "a" };
            vec![document(&queue("end", address, 2))]
        }
    })
    .await;
    let naming = naming(&[&server]);
    let mut follow = naming.follow(&name("q"));
    let wait = Duration::from_secs(5);
    assert_eq!(address(&follow.wait_bound(wait).await.expect("bound")), "a");
    target.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + wait;
    while server.heard("WATCH").len() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.push(changed(2, 4, bound("b", 4)));
    loop {
        assert!(Instant::now() < deadline);
        if let Following::Bound(binding) = follow.changed().await
            && address(&binding) == "b"
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_lookup_that_may_wait_returns_when_the_name_is_bound() {
    let there = Arc::new(AtomicBool::new(false));
    let bound_now = Arc::clone(&there);
    let server = Server::start(3, move |words| match words[0].as_str() {
        "WATCH" => watched(1, vec![bookmark(3)])(words),
        _ if bound_now.load(Ordering::SeqCst) => vec![document(&queue("q", "a", 4))],
        _ => vec![refused(&not_found(3))],
    })
    .await;
    let naming = naming(&[&server]);
    let wait = |wait_ms| ReadOptions {
        wait_ms: Some(wait_ms),
        ..ReadOptions::default()
    };
    let error = naming
        .lookup_with(&name("q"), wait(30))
        .await
        .expect_err("not bound");
    assert_eq!(error.naming_error().map(NamingError::code), Some("NameNotFound"));
    let waiting = {
        let naming = naming.clone();
        tokio::spawn(async move { naming.lookup_with(&name("q"), wait(8000)).await })
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.heard("WATCH").len() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    there.store(true, Ordering::SeqCst);
    server.push(changed(1, 4, bound("a", 4)));
    assert_eq!(address(&waiting.await.expect("no panic").expect("bound")), "a");
    assert!(
        server
            .heard("LOOKUP")
            .iter()
            .all(|words| !words.contains(&"WAIT".to_owned()))
    );
}

#[tokio::test]
async fn a_client_whose_servers_come_late_is_served_when_they_come() {
    let place = dead_address().await;
    let naming = naming_with(&[place], config());
    let asked = tokio::spawn(async move { naming.lookup(&name("q")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let relay = tokio::net::TcpListener::bind(place)
        .await
        .expect("the port is free");
    let server = Server::start(1, lookups("late", 1)).await;
    let target = server.address;
    let relaying = tokio::spawn(async move {
        let (mut from, _) = relay.accept().await.expect("a connection");
        let mut to = tokio::net::TcpStream::connect(target).await.expect("the server");
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    assert_eq!(address(&asked.await.expect("no panic").expect("bound")), "late");
    relaying.abort();
}
