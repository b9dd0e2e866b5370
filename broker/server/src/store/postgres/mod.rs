//! PostgreSQL as a store: the tables of one schema, one session that holds the lock, one transaction for each
//! group of batches.
//!
//! | what | how |
//! |---|---|
//! | lock | a session advisory lock: it lives as long as the connection, which nobody re-opens |
//! | holder | a row that names it, believed while its server process is the one that holds the lock |
//! | epoch | a row that every transaction checks and locks, so that an older epoch can write nothing more |
//! | durable | the commit of the transaction, under `synchronous_commit` |
//! | a frozen holder | the server ends a session that is silent for `session_timeout` |
//!
//! It never reconnects: the loss of the connection is the loss of the lock, and ends the term as a failed sync
//! does. A change of epoch and an insertion change the same row, so one of them comes first; whoever takes over
//! reads after its change and so sees every insertion that succeeded.
//! Passwords are never shown or logged.

mod schema;
mod session;
mod url;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daymark_journal::{Holder, Record};
use futures_util::TryStreamExt;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::committer::{Committed, Group, Sink, Start};
use super::{AppendError, Fenced, Locked, Log, OpenError, Store, Visit};
use schema::Schema;
pub use session::PostgresError;
use session::Session;
pub use url::{InvalidPostgresUrl, PostgresUrl};

/// Rows removed in one transaction. Commits wait for it, so it takes a few milliseconds.
const ROWS_GIVEN_BACK: u64 = 2000;

/// How long to wait for an answer of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// For a connection. Default 5,000 ms.
    pub connect_timeout: Duration,
    /// For each statement; a longer one ends the term. Default 10,000 ms.
    pub statement_timeout: Duration,
    /// How long the server keeps the session, and with it the lock, of a broker that is silent. The broker
    /// speaks at least six times as often. Default 3,000 ms. Takes effect with PostgreSQL 14 and later.
    pub session_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(3),
        }
    }
}

/// The tables of one schema.
#[derive(Debug)]
pub struct PostgresStore {
    url: PostgresUrl,
    schema: Schema,
    options: PostgresOptions,
    /// The connection of an attempt that found the lock held, for the next attempt.
    waiting: Mutex<Option<Session>>,
}

impl PostgresStore {
    /// A store at `url`, in the schema it names or else in that of `group`. Nothing is connected yet.
    #[must_use]
    pub fn new(url: PostgresUrl, group: &str, options: PostgresOptions) -> Self {
        let schema = match url.schema() {
            Some(schema) => Schema::new(schema),
            None => Schema::new(&format!("daymark_{group}")),
        };
        Self {
            url,
            schema,
            options,
            waiting: Mutex::new(None),
        }
    }

    fn session(&self) -> Result<Session, PostgresError> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        match waiting.filter(Session::is_alive) {
            Some(session) => Ok(session),
            None => Session::connect(&self.url, self.options),
        }
    }

    fn keep_waiting(&self, session: Session) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

impl Store for PostgresStore {
    fn lock(&self, holder: &Holder, force: bool) -> Result<Box<dyn Locked>, OpenError> {
        let mut session = self.session()?;
        let taken = session.try_lock(&self.schema)?
            || (force && session.lock_by_force(&self.schema, self.options.statement_timeout)?);
        if !taken {
            let holder = session.holder(&self.schema)?;
            self.keep_waiting(session);
            return Err(OpenError::LockedBy {
                store: self.url.to_string(),
                holder,
            });
        }
        let epoch = session.prepare_tables(&self.schema, holder)?;
        Ok(Box::new(Held {
            session,
            schema: self.schema.clone(),
            options: self.options,
            epoch,
        }))
    }
}

/// The session that holds the lock.
#[derive(Debug)]
struct Held {
    session: Session,
    schema: Schema,
    options: PostgresOptions,
    epoch: u64,
}

impl Locked for Held {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn begin(self: Box<Self>, epoch: u64) -> Result<Box<dyn Fenced>, OpenError> {
        let mut held = self;
        let number = signed("the epoch", epoch)?;
        let client = held.session.client();
        let written = held.session.run(
            "write the epoch",
            client.execute(&held.schema.write_epoch(), &[&number]),
        )?;
        if written == 0 {
            let current = held.session.row(&held.schema)?.epoch;
            return Err(OpenError::StaleEpoch {
                asked: epoch,
                current,
            });
        }
        held.epoch = epoch;
        Ok(held)
    }
}

impl Fenced for Held {
    fn recover(self: Box<Self>, visit: &mut Visit<'_>) -> Result<Log, OpenError> {
        let row = self.session.row(&self.schema)?;
        if row.epoch != self.epoch {
            return Err(OpenError::Superseded { epoch: row.epoch });
        }
        let mut reading = Reading::default();
        self.session.unhurried(true)?;
        self.read(&mut reading, visit)?;
        self.session.unhurried(false)?;
        reading.check(&self.schema, row.released, row.next_seq)?;
        let row = self.session.row(&self.schema)?;
        if row.epoch != self.epoch {
            return Err(OpenError::Superseded { epoch: row.epoch });
        }
        let start = Start {
            epoch: self.epoch,
            next_seq: row.next_seq,
            bytes: reading.bytes,
        };
        let sink = PostgresSink::new(*self, row.released)?;
        let committed = Committed::start("postgres-commit", start, sink);
        Ok(Log::new(committed.map_err(OpenError::Thread)?))
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    first: Option<u64>,
    last: u64,
    bytes: u64,
}

impl Held {
    fn read(&self, reading: &mut Reading, visit: &mut Visit<'_>) -> Result<(), OpenError> {
        let client = self.session.client();
        let statement = self.schema.read();
        let parameters: [&(dyn ToSql + Sync); 0] = [];
        let rows = client.query_raw(&statement, parameters);
        let rows = self.session.run("read the records", rows)?;
        tokio::pin!(rows);
        while let Some(row) = self.session.run("read the records", rows.try_next())? {
            let (seq, epoch) = (unsigned(row.get(0))?, unsigned(row.get(1))?);
            let kind: i16 = row.get(2);
            let kind =
                u8::try_from(kind).map_err(|_| PostgresError::damaged("a record has an unknown kind"))?;
            let body: &[u8] = row.get(3);
            reading.on_record(&self.schema, seq, body)?;
            let record = Record {
                seq,
                kind,
                epoch,
                body,
            };
            visit(record).map_err(|source| OpenError::Visitor { seq, source })?;
        }
        Ok(())
    }
}

impl Reading {
    fn on_record(&mut self, schema: &Schema, seq: u64, body: &[u8]) -> Result<(), PostgresError> {
        if self.first.is_some() && seq != self.last + 1 {
            return Err(schema.missing(self.last + 1));
        }
        self.first.get_or_insert(seq);
        self.last = seq;
        self.bytes += body.len() as u64 + 5;
        Ok(())
    }

    /// Whether everything from `released` on was there.
    fn check(&self, schema: &Schema, released: u64, next_seq: u64) -> Result<(), PostgresError> {
        match self.first {
            None if released == next_seq => Ok(()),
            None => Err(schema.missing(released)),
            Some(first) if first > released => Err(schema.missing(released)),
            Some(_) if self.last + 1 != next_seq => Err(schema.missing(self.last + 1)),
            Some(_) => Ok(()),
        }
    }
}

/// One transaction for each group.
struct PostgresSink {
    held: Held,
    insert: Statement,
    give_back: Statement,
    epoch: i64,
    /// Everything below is gone from the table.
    released: u64,
}

impl PostgresSink {
    fn new(held: Held, released: u64) -> Result<Self, OpenError> {
        held.session.expire_after(held.options.session_timeout)?;
        let client = held.session.client();
        let prepare = |sql: String| {
            held.session
                .run("prepare", async move { client.prepare(&sql).await })
        };
        let (insert, give_back) = (prepare(held.schema.insert())?, prepare(held.schema.give_back())?);
        let epoch = signed("the epoch", held.epoch)?;
        Ok(Self {
            held,
            insert,
            give_back,
            epoch,
            released,
        })
    }

    /// Why a statement changed nothing: somebody else's epoch, or a store that was tampered with.
    fn overtaken(&self) -> AppendError {
        match self.held.session.row(&self.held.schema) {
            Ok(row) if row.epoch > self.held.epoch => AppendError::Superseded { epoch: row.epoch },
            Ok(_) => PostgresError::damaged("the row of the store is not what this broker made it").into(),
            Err(error) => error.into(),
        }
    }
}

impl Sink for PostgresSink {
    fn commit(&mut self, group: &Group) -> Result<(), AppendError> {
        let records = group.batches.iter().flat_map(|batch| batch.records());
        let (kinds, bodies): (Vec<i16>, Vec<&[u8]>) =
            records.map(|(kind, body)| (i16::from(kind), body)).unzip();
        let first = signed("a position", group.first_seq)?;
        let next = signed("a position", group.first_seq + group.count)?;
        let client = self.held.session.client();
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.epoch, &first, &next, &kinds, &bodies];
        let insert = client.execute(&self.insert, &parameters);
        let inserted = self.held.session.run("append", insert)?;
        if inserted == group.count {
            Ok(())
        } else {
            Err(self.overtaken())
        }
    }

    fn give_back(&mut self, before: u64) -> Result<(u64, bool), AppendError> {
        let upto = before.min(self.released + ROWS_GIVEN_BACK);
        if upto <= self.released {
            return Ok((0, false));
        }
        let bound = signed("a position", upto)?;
        let client = self.held.session.client();
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.epoch, &bound];
        let give_back = client.query_one(&self.give_back, &parameters);
        let row = self.held.session.run("give records back", give_back)?;
        let (mine, rows, bytes): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if mine == 0 {
            return Err(self.overtaken());
        }
        self.released = upto;
        Ok((unsigned(bytes)? + 5 * unsigned(rows)?, upto < before))
    }

    fn look(&mut self) -> Result<(), AppendError> {
        let row = self.held.session.row(&self.held.schema)?;
        if row.epoch > self.held.epoch {
            return Err(AppendError::Superseded { epoch: row.epoch });
        }
        Ok(())
    }

    fn look_every(&self) -> Duration {
        self.held.options.session_timeout / 6
    }
}

fn signed(what: &'static str, number: u64) -> Result<i64, PostgresError> {
    i64::try_from(number).map_err(|_| PostgresError::out_of_range(what))
}

fn unsigned(number: i64) -> Result<u64, PostgresError> {
    u64::try_from(number).map_err(|_| PostgresError::damaged("a number in the store is negative"))
}
