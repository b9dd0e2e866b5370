//! One set of stories over every kind of store, and what only one of them can show.

mod battery;
mod postgres;

use std::sync::Arc;

use daymark_broker_server::store::{JournalStore, MemoryStore, PostgresOptions, PostgresStore, Store};
use daymark_test_support::Postgres;

#[test]
fn a_journal_keeps_every_promise_of_a_store() {
    let parent = tempfile::tempdir().expect("a directory");
    battery::run(&|story| {
        Arc::new(JournalStore {
            dir: parent.path().join(story),
            options: daymark_journal::Options {
                segment_bytes: 1 << 20,
                ..daymark_journal::Options::default()
            },
        })
    });
}

#[test]
fn memory_keeps_every_promise_of_a_store() {
    battery::run(&|story| Arc::new(MemoryStore::named(story)));
}

#[test]
fn postgresql_keeps_every_promise_of_a_store() {
    let Some(server) = Postgres::start() else {
        return;
    };
    battery::run(&|story| open(&server.url(story), PostgresOptions::default()));
}

fn open(url: &str, options: PostgresOptions) -> Arc<dyn Store> {
    let url = url.parse().expect("a URL");
    Arc::new(PostgresStore::new(url, "orders", options))
}
