//! What only a database can do to a broker: end the connection, restart, be damaged, be slow.

use std::sync::mpsc;
use std::time::Duration;

use daymark_broker_server::store::{AppendError, Batch, OpenError, PostgresOptions};
use daymark_test_support::{Postgres, eventually};

use crate::battery::{PATIENCE, batch, holder, take, texts};
use crate::open;

fn quick() -> PostgresOptions {
    PostgresOptions {
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(20),
        session_timeout: Duration::from_secs(10),
    }
}

#[test]
fn the_loss_of_the_connection_is_final_and_frees_the_lock() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let mut expected = Vec::new();
    for way in ["terminated", "stopped", "killed"] {
        let (log, rows) = take(&*open(&server.url("lost"), quick()), way, false);
        assert_eq!(texts(&rows), expected, "{way}");
        let (failed, failure) = mpsc::channel();
        log.on_failure(move |error| failed.send(error).expect("a receiver"));
        log.append_and_wait(batch(&[way])).expect("durable");
        expected.push(way);
        match way {
            "terminated" => {
                let holder = "SELECT pg_terminate_backend(backend) FROM lost.store";
                assert_eq!(server.sql(holder), "t");
            }
            "stopped" => server.stop(),
            _ => server.kill_9(),
        }
        let told = failure.recv_timeout(PATIENCE).expect("an idle store notices");
        assert!(matches!(told, AppendError::Postgres(_)), "{told}");
        if way != "terminated" {
            let refused = open(&server.url("lost"), quick()).lock(&holder("b"), false);
            let refused = refused.expect_err("nobody is there").to_string();
            assert!(refused.contains("connect"), "{refused}");
            assert!(!refused.contains(server.password()), "{refused}");
            server.resume();
        }
        let again = log.append_and_wait(batch(&["too late"]));
        assert!(again.is_err_and(|error| error.is_fatal()), "it never reconnects");
    }
    let (_log, rows) = take(&*open(&server.url("lost"), quick()), "later", false);
    assert_eq!(texts(&rows), expected);
}

#[test]
fn what_was_in_flight_when_the_server_was_killed_is_there_if_it_was_acknowledged() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let (log, _) = take(&*open(&server.url("flight"), quick()), "a", false);
    let (told, answers) = mpsc::channel();
    let writer = {
        let (log, told) = (log.clone(), told);
        std::thread::spawn(move || {
            for number in 0.. {
                let (text, told) = (number.to_string(), told.clone());
                let mut batch = Batch::new();
                batch.push(1, &[text.as_bytes()]);
                let sent = log.submit(batch, move |result| {
                    if result.is_ok() {
                        told.send(text).expect("a receiver");
                    }
                });
                match sent {
                    Ok(_) => std::thread::yield_now(),
                    Err(AppendError::Backlog { .. }) => std::thread::sleep(Duration::from_millis(1)),
                    Err(_) => return,
                }
            }
        })
    };
    let mut acknowledged: Vec<_> = answers.iter().take(500).collect();
    server.kill_9();
    writer.join().expect("the writer");
    acknowledged.extend(answers.iter());
    server.resume();
    let mut rows = Vec::new();
    eventually(PATIENCE, "the lock is free", || {
        match open(&server.url("flight"), quick()).lock(&holder("b"), false) {
            Ok(locked) => {
                drop(locked);
                rows = take(&*open(&server.url("flight"), quick()), "b", false).1;
                true
            }
            Err(_) => false,
        }
    });
    let found = texts(&rows);
    assert!(acknowledged.len() <= found.len());
    assert_eq!(
        found[..acknowledged.len()],
        acknowledged,
        "in order and without a gap"
    );
}

#[test]
fn a_silent_holder_loses_its_session_and_with_it_the_lock() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.url("silent");
    let options = PostgresOptions {
        session_timeout: Duration::from_millis(500),
        ..quick()
    };
    // One that took the lock, was put into service, and speaks no more: its thread is held up in a callback.
    let (log, _) = take(&*open(&url, options), "silent", false);
    let (wake, asleep) = mpsc::channel::<()>();
    let (entered, reached) = mpsc::channel();
    log.submit(batch(&["acknowledged"]), move |result| {
        result.expect("durable");
        entered.send(()).expect("a receiver");
        let _ = asleep.recv();
    })
    .expect("queued");
    reached.recv_timeout(PATIENCE).expect("the callback runs");
    let second = open(&url, options);
    eventually(PATIENCE, "the server gives the lock away", || {
        second.lock(&holder("second"), false).is_ok()
    });
    let (_next, rows) = take(&*second, "second", false);
    assert_eq!(texts(&rows), ["acknowledged"]);
    let (told, answer) = mpsc::channel();
    let sent = log.submit(batch(&["asleep"]), move |result| {
        told.send(result).expect("a receiver")
    });
    drop(wake);
    let late = match sent {
        Ok(_) => answer.recv_timeout(PATIENCE).expect("an answer").map(drop),
        Err(error) => Err(error),
    };
    assert!(late.is_err_and(|error| error.is_fatal()), "it woke too late");
}

#[test]
fn a_damaged_store_is_reported_and_never_served() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let damages = [
        (
            "gap",
            "DELETE FROM gap.records WHERE seq = 2",
            "record 2 is missing",
        ),
        (
            "tail",
            "DELETE FROM tail.records WHERE seq = 3",
            "record 3 is missing",
        ),
        (
            "front",
            "DELETE FROM front.records WHERE seq = 1",
            "record 1 is missing",
        ),
        ("format", "UPDATE format.store SET format = 9", "format 9"),
        ("row", "DELETE FROM \"row\".store", "row of the store is gone"),
    ];
    for (schema, damage, said) in damages {
        let (log, _) = take(&*open(&server.url(schema), quick()), "a", false);
        log.append_and_wait(batch(&["1", "2", "3"])).expect("durable");
        log.close();
        assert_eq!(server.sql(damage), "");
        let store = open(&server.url(schema), quick());
        let opened = store.lock(&holder("b"), false).and_then(|locked| {
            let epoch = locked.epoch() + 1;
            locked.begin(epoch)?.recover(&mut |_| Ok(()))
        });
        let error = opened.expect_err(schema);
        assert!(matches!(error, OpenError::Postgres(_)), "{schema}: {error}");
        assert!(error.to_string().contains(said), "{schema}: {error}");
    }
}

#[test]
fn a_database_that_cannot_be_used_says_why() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let good = server.url("s");
    let wrong_word = good.replace(server.password(), "another");
    let no_database = good.replace("/postgres?", "/nowhere?");
    for (url, said) in [(wrong_word, "28P01"), (no_database, "3D000")] {
        let error = open(&url, quick())
            .lock(&holder("a"), false)
            .expect_err(&url)
            .to_string();
        assert!(error.contains(said), "{error}");
        assert!(
            !error.contains(server.password()) && !error.contains("another"),
            "{error}"
        );
    }
}
