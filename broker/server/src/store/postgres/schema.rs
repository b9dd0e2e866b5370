//! The tables, and every statement over them.

use std::fmt;

use super::PostgresError;

/// The form of the tables that this version reads and writes.
pub(super) const FORMAT: i32 = 1;

/// The schema that holds the tables of one store. Its name is quoted wherever it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    name: String,
}

impl fmt::Display for Schema {
    /// As an identifier in a statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.name.replace('"', "\"\""))
    }
}

impl Schema {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The text whose hash is the key of the advisory lock.
    pub(super) fn lock_name(&self) -> String {
        format!("daymark store {}", self.name)
    }

    pub(super) fn missing(&self, seq: u64) -> PostgresError {
        PostgresError::damaged(&format!("record {seq} is missing in schema {}", self.name))
    }

    /// Creates what is not there. Run by whoever holds the lock, so nobody does the same.
    pub(super) fn create(&self) -> String {
        format!(
            "CREATE SCHEMA IF NOT EXISTS {self};
             CREATE TABLE {self}.records (
                 seq bigint PRIMARY KEY, epoch bigint NOT NULL, kind smallint NOT NULL, body bytea NOT NULL);
             ALTER TABLE {self}.records ALTER COLUMN body SET STORAGE EXTERNAL;
             CREATE TABLE {self}.store (
                 one boolean PRIMARY KEY DEFAULT true CHECK (one), format integer NOT NULL,
                 epoch bigint NOT NULL, next_seq bigint NOT NULL, released bigint NOT NULL,
                 holder text NOT NULL, backend integer NOT NULL) WITH (fillfactor = 50);
             INSERT INTO {self}.store (format, epoch, next_seq, released, holder, backend)
                 VALUES ({FORMAT}, 0, 1, 1, '', 0)"
        )
    }

    pub(super) fn row(&self) -> String {
        format!("SELECT epoch, next_seq, released, format FROM {self}.store")
    }

    pub(super) fn name_holder(&self) -> String {
        format!("UPDATE {self}.store SET holder = $1, backend = pg_backend_pid()")
    }

    /// The holder's name, if the process that wrote it is the one that holds the lock.
    pub(super) fn holder(&self) -> String {
        format!("SELECT holder FROM {self}.store WHERE backend = ANY ($1)")
    }

    pub(super) fn write_epoch(&self) -> String {
        format!("UPDATE {self}.store SET epoch = $1 WHERE epoch < $1")
    }

    pub(super) fn read(&self) -> String {
        format!("SELECT seq, epoch, kind, body FROM {self}.records ORDER BY seq")
    }

    /// The row of the store first: it is locked until the transaction ends, and nothing is inserted unless it
    /// still says this epoch and this position.
    pub(super) fn insert(&self) -> String {
        format!(
            "WITH mine AS (
                 UPDATE {self}.store SET next_seq = $3 WHERE epoch = $1 AND next_seq = $2 RETURNING true)
             INSERT INTO {self}.records (seq, epoch, kind, body)
             SELECT $2 + r.n - 1, $1, r.kind, r.body
             FROM mine, unnest($4::smallint[], $5::bytea[]) WITH ORDINALITY AS r (kind, body, n)"
        )
    }

    pub(super) fn give_back(&self) -> String {
        format!(
            "WITH mine AS (
                 UPDATE {self}.store SET released = $2 WHERE epoch = $1 RETURNING true),
             gone AS (
                 DELETE FROM {self}.records USING mine WHERE seq < $2
                 RETURNING octet_length(body)::bigint AS bytes)
             SELECT (SELECT count(*) FROM mine), count(*), coalesce(sum(bytes), 0)::bigint FROM gone"
        )
    }
}

/// Processes that hold the lock whose name is the parameter.
pub(super) const LOCK_HOLDERS: &str = "
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) = hashtextextended($1, 0)";

pub(super) const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";

pub(super) const TERMINATE: &str = "SELECT pg_terminate_backend($1)";
