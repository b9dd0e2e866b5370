//! One connection to PostgreSQL, driven from blocking threads.
//!
//! Every statement has an end: the server is told one, and this side waits a little longer. Nothing is tried
//! again.

use std::fmt;
use std::time::{Duration, Instant};

use daymark_journal::Holder;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Row};

use super::schema::{FORMAT, LOCK_HOLDERS, Schema, TERMINATE, TRY_LOCK};
use super::{PostgresOptions, PostgresUrl, unsigned};

/// How much longer than the server this side waits for a statement.
const GRACE: Duration = Duration::from_secs(1);
/// How long the server keeps a session that is not yet, or not to be, in service.
const OPENING: Duration = Duration::from_secs(60);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Between two attempts to take a lock whose holder was ended.
const FORCE_PAUSE: Duration = Duration::from_millis(5);
/// The first version whose server ends silent sessions.
const ENDS_SILENT_SESSIONS: i32 = 140_000;

/// What the database answered, or that it did not. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL, {doing}: {why}")]
pub struct PostgresError {
    doing: &'static str,
    why: String,
}

impl PostgresError {
    fn new(doing: &'static str, error: &tokio_postgres::Error) -> Self {
        let why = match error.as_db_error() {
            Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
            None => full_text(error),
        };
        Self { doing, why }
    }

    pub(super) fn damaged(why: &str) -> Self {
        Self {
            doing: "check the store",
            why: why.to_owned(),
        }
    }

    pub(super) fn out_of_range(what: &'static str) -> Self {
        Self {
            doing: "count",
            why: format!("{what} exceeds what a bigint holds"),
        }
    }
}

/// An error with its causes.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The one row that says where a store stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreRow {
    pub(super) epoch: u64,
    pub(super) next_seq: u64,
    pub(super) released: u64,
}

/// A connection. Dropping it ends the session, and with it every lock it holds.
pub(super) struct Session {
    /// `None` while it is dropped.
    connection: Option<(Runtime, Client)>,
    statement_timeout: Duration,
    version: i32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn connect(url: &PostgresUrl, options: PostgresOptions) -> Result<Self, PostgresError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| PostgresError {
                doing: "connect",
                why: error.to_string(),
            })?;
        let config = url.config(options.connect_timeout);
        let connecting = async { tokio::time::timeout(options.connect_timeout, config.connect(NoTls)).await };
        let (client, connection) = match runtime.block_on(connecting) {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(PostgresError::new("connect", &error)),
            Err(_) => {
                return Err(PostgresError {
                    doing: "connect",
                    why: format!("no answer within {} ms", options.connect_timeout.as_millis()),
                });
            }
        };
        runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = full_text(&error), "the connection to PostgreSQL ended");
            }
        });
        let mut session = Self {
            connection: Some((runtime, client)),
            statement_timeout: options.statement_timeout,
            version: 0,
        };
        session.settle()?;
        Ok(session)
    }

    /// What every session is told first.
    fn settle(&mut self) -> Result<(), PostgresError> {
        let settings = "SELECT current_setting('server_version_num')::integer, current_setting('fsync'),
            set_config('client_min_messages', 'warning', false),
            CASE current_setting('synchronous_commit') WHEN 'off'
                THEN set_config('synchronous_commit', 'on', false) END";
        let row = self.run("begin a session", self.client().query_one(settings, &[]))?;
        self.version = row.get(0);
        let fsync: &str = row.get(1);
        if fsync == "off" {
            tracing::warn!("PostgreSQL runs with fsync = off: what it calls durable is not");
        }
        self.unhurried(false)?;
        self.set("lock_timeout", self.statement_timeout)?;
        self.expire_after(OPENING)
    }

    fn set(&self, setting: &str, time: Duration) -> Result<(), PostgresError> {
        let statement = format!("SET {setting} = {}", time.as_millis());
        self.run("begin a session", self.client().batch_execute(&statement))
    }

    /// Lets the server end statements after a time, or lets them run while answers keep coming.
    pub(super) fn unhurried(&self, unhurried: bool) -> Result<(), PostgresError> {
        let timeout = if unhurried {
            Duration::ZERO
        } else {
            self.statement_timeout
        };
        self.set("statement_timeout", timeout)
    }

    /// Lets the server end this session after a silence.
    pub(super) fn expire_after(&self, silence: Duration) -> Result<(), PostgresError> {
        let seconds = silence.as_secs().max(1);
        let keepalive = format!(
            "SET tcp_keepalives_idle = {seconds}; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3"
        );
        self.run("begin a session", self.client().batch_execute(&keepalive))?;
        if self.version < ENDS_SILENT_SESSIONS {
            return Ok(());
        }
        self.set("idle_session_timeout", silence)
    }

    /// The client. Its futures make progress in [`run`](Self::run) only.
    pub(super) fn client(&self) -> &Client {
        &self.parts().1
    }

    fn parts(&self) -> &(Runtime, Client) {
        match &self.connection {
            Some(parts) => parts,
            None => unreachable!("only a drop takes the connection"),
        }
    }

    /// Whether the connection stood when it was used last.
    pub(super) fn is_alive(&self) -> bool {
        let (runtime, client) = self.parts();
        let asked = async { tokio::time::timeout(GOODBYE, client.batch_execute("")).await };
        matches!(runtime.block_on(asked), Ok(Ok(())))
    }

    /// Waits for an answer, a little longer than the server is allowed to take.
    pub(super) fn run<T>(
        &self,
        doing: &'static str,
        asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        let patience = self.statement_timeout + GRACE;
        let bounded = async { tokio::time::timeout(patience, asking).await };
        match self.parts().0.block_on(bounded) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(PostgresError::new(doing, &error)),
            Err(_) => Err(PostgresError {
                doing,
                why: format!("no answer within {} ms", patience.as_millis()),
            }),
        }
    }

    pub(super) fn try_lock(&self, schema: &Schema) -> Result<bool, PostgresError> {
        let name = schema.lock_name();
        let row = self.run("lock", self.client().query_one(TRY_LOCK, &[&name]))?;
        Ok(row.get(0))
    }

    /// Ends the sessions that hold the lock, and takes it.
    pub(super) fn lock_by_force(&self, schema: &Schema, patience: Duration) -> Result<bool, PostgresError> {
        let deadline = Instant::now() + patience;
        loop {
            for pid in self.lock_holders(schema)? {
                self.run(
                    "end the holder's session",
                    self.client().query(TERMINATE, &[&pid]),
                )?;
            }
            if self.try_lock(schema)? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(FORCE_PAUSE);
        }
    }

    fn lock_holders(&self, schema: &Schema) -> Result<Vec<i32>, PostgresError> {
        let name = schema.lock_name();
        let rows = self.run("find the holder", self.client().query(LOCK_HOLDERS, &[&name]))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Who holds the lock, as far as it has said so.
    pub(super) fn holder(&self, schema: &Schema) -> Result<Option<Holder>, PostgresError> {
        if !self.has_tables(schema)? {
            return Ok(None);
        }
        let backends = self.lock_holders(schema)?;
        let statement = schema.holder();
        let rows = self.run("find the holder", self.client().query(&statement, &[&backends]))?;
        let text: Option<&str> = rows.first().map(|row| row.get(0));
        Ok(text.and_then(|text| serde_json::from_str(text).ok()))
    }

    fn has_tables(&self, schema: &Schema) -> Result<bool, PostgresError> {
        let name = format!("{schema}.store");
        let found = "SELECT to_regclass($1::text) IS NOT NULL";
        let row = self.run("find the tables", self.client().query_one(found, &[&name]))?;
        Ok(row.get(0))
    }

    /// Makes the tables if they are not there, writes the holder's name, and returns the highest epoch.
    pub(super) fn prepare_tables(&mut self, schema: &Schema, holder: &Holder) -> Result<u64, PostgresError> {
        if !self.has_tables(schema)? {
            tracing::info!(schema = schema.name(), "the tables of the store are made");
            let statement = schema.create();
            self.run("make the tables", self.client().batch_execute(&statement))?;
        }
        let row = self.row(schema)?;
        let text = serde_json::to_string(holder).unwrap_or_default();
        let statement = schema.name_holder();
        self.run("name the holder", self.client().execute(&statement, &[&text]))?;
        Ok(row.epoch)
    }

    /// Where the store stands.
    pub(super) fn row(&self, schema: &Schema) -> Result<StoreRow, PostgresError> {
        let statement = schema.row();
        let row = self.run("read the epoch", self.client().query_opt(&statement, &[]))?;
        let row: Row = row.ok_or_else(|| PostgresError::damaged("the row of the store is gone"))?;
        let format: i32 = row.get(3);
        if format != FORMAT {
            return Err(PostgresError::damaged(&format!(
                "schema {} has format {format}, this program reads format {FORMAT}",
                schema.name()
            )));
        }
        Ok(StoreRow {
            epoch: unsigned(row.get(0))?,
            next_seq: unsigned(row.get(1))?,
            released: unsigned(row.get(2))?,
        })
    }
}

impl Drop for Session {
    /// Gives the lock back in words, so that it is free when this returns and not a moment later. On a thread
    /// of its own, because the dropper may be one that must not drive a runtime.
    fn drop(&mut self) {
        let Some((runtime, client)) = self.connection.take() else {
            return;
        };
        let goodbye = std::thread::spawn(move || {
            let unlock = client.batch_execute("SELECT pg_advisory_unlock_all()");
            // Where nobody answers, the server notices the end of the connection.
            let _ = runtime.block_on(async { tokio::time::timeout(GOODBYE, unlock).await });
            drop(client);
            runtime.shutdown_background();
        });
        // It ends by itself; a panic in it left nothing behind.
        let _ = goodbye.join();
    }
}
