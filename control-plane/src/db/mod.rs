//! The database: state that is durable before anyone acts on it, and telemetry in a file of its own.
//!
//! SQL is raw and means the same to SQLite and to PostgreSQL: `$1` places, epoch milliseconds as
//! BIGINT, upserts with RETURNING. The schema alone goes through the dialect-aware builder.
//! One file for each family of tables; they take any connection, so a caller can join them in one
//! transaction.

pub mod schema;

pub mod bundles;
pub mod claims;
pub mod departures;
pub mod deployments;
pub mod desired;
pub mod devices;
pub mod documents;
pub mod events;
pub mod floors;
pub mod history;
pub mod members;
pub mod people;
pub mod plans;
pub mod releases;
pub mod rollouts;
pub mod telemetry;
pub mod tokens;
pub mod trust;

use std::path::Path;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, FromQueryResult,
    RuntimeErr, Statement, TransactionTrait, Value,
};
use sea_orm_migration::MigratorTrait;

/// How long a statement waits for another process's lock on the file.
const BUSY_TIME: Duration = Duration::from_secs(10);
/// How long a statement waits for a connection of the pool.
const ACQUIRE_TIME: Duration = Duration::from_secs(10);
/// Connections that only read.
const READERS_MAX: u32 = 4;

/// What was attempted on the database, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct DbError {
    doing: &'static str,
    #[source]
    source: DbErr,
}

impl DbError {
    /// Whether the disk is full, so that a person can help.
    pub fn is_disk_full(&self) -> bool {
        let error = match &self.source {
            DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => error,
            _ => return false,
        };
        // SQLITE_FULL is 13; sqlx gives extended codes, whose low byte is the primary one.
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        code.is_some_and(|code| code & 0xff == 13)
    }

    fn corrupt(doing: &'static str, what: impl std::fmt::Display) -> Self {
        Self { doing, source: DbErr::Type(what.to_string()) }
    }
}

/// Turns a database error into ours.
fn failed(doing: &'static str) -> impl FnOnce(DbErr) -> DbError {
    move |source| DbError { doing, source }
}

/// The state: one connection writes, others read.
pub struct Db {
    writer: DatabaseConnection,
    readers: DatabaseConnection,
}

impl Db {
    /// Opens or creates the state in `path`. A commit is on the disk when it returns.
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let writer = connect(path, SqliteSynchronous::Full, 1).await?;
        schema::State::up(&writer, None).await.map_err(failed("bring the state's schema up to date"))?;
        let readers = connect(path, SqliteSynchronous::Full, READERS_MAX).await?;
        Ok(Self { writer, readers })
    }

    /// For statements that change nothing.
    pub fn read(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// For a single statement that changes something.
    pub fn write(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// Begins a transaction; it is rolled back unless it is committed. Whoever holds it must not wait
    /// for another: there is one writer.
    pub async fn begin(&self) -> Result<DatabaseTransaction, DbError> {
        self.writer.begin().await.map_err(failed("begin a transaction"))
    }

    /// Closes the files; every statement after this fails.
    pub async fn close(&self) {
        close(&self.readers).await;
        close(&self.writer).await;
    }
}

async fn close(connection: &DatabaseConnection) {
    if let Err(error) = connection.clone().close().await {
        tracing::warn!(%error, "cannot close a database");
    }
}

/// Telemetry: much of it, and a power cut may cost the last moments, which devices send again.
pub struct TelemetryDb(DatabaseConnection);

impl TelemetryDb {
    /// Opens or creates the telemetry in `path`.
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let connection = connect(path, SqliteSynchronous::Normal, 1).await?;
        schema::Telemetry::up(&connection, None).await.map_err(failed("bring telemetry's schema up to date"))?;
        Ok(Self(connection))
    }

    /// The connection.
    pub fn connection(&self) -> &DatabaseConnection {
        &self.0
    }

    /// Closes the file; every statement after this fails.
    pub async fn close(&self) {
        close(&self.0).await;
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<DatabaseTransaction, DbError> {
        self.0.begin().await.map_err(failed("begin a transaction on telemetry"))
    }
}

/// Commits what a transaction changed.
pub async fn commit(transaction: DatabaseTransaction) -> Result<(), DbError> {
    transaction.commit().await.map_err(failed("commit a transaction"))
}

async fn connect(path: &Path, synchronous: SqliteSynchronous, connections: u32) -> Result<DatabaseConnection, DbError> {
    let path = path.to_owned();
    // The path is set below, so that no character of it has a meaning in a URL.
    let mut options = ConnectOptions::new("sqlite://state");
    options.max_connections(connections).acquire_timeout(ACQUIRE_TIME).sqlx_logging(false).map_sqlx_sqlite_opts(
        move |options| {
            options
                .filename(&path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(synchronous)
                .foreign_keys(true)
                .busy_timeout(BUSY_TIME)
        },
    );
    Database::connect(options).await.map_err(failed("open the database"))
}

/// Runs a statement; says how many rows it changed.
async fn execute(
    db: &impl ConnectionTrait,
    doing: &'static str,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, DbError> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    db.execute_raw(statement).await.map(|done| done.rows_affected()).map_err(failed(doing))
}

/// Runs a query for at most one row.
async fn one<R: FromQueryResult>(
    db: &impl ConnectionTrait,
    doing: &'static str,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<R>, DbError> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    R::find_by_statement(statement).one(db).await.map_err(failed(doing))
}

/// Runs a query for all its rows.
async fn all<R: FromQueryResult>(
    db: &impl ConnectionTrait,
    doing: &'static str,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<R>, DbError> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    R::find_by_statement(statement).all(db).await.map_err(failed(doing))
}

/// The larger half of 64-bit numbers has no place in a BIGINT; nothing of ours gets there.
fn big(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    number.try_into().unwrap_or(0)
}

/// A digest as it stands in a column.
fn digest(doing: &'static str, bytes: &[u8]) -> Result<muster_shared::Digest, DbError> {
    bytes.try_into().map(muster_shared::Digest).map_err(|_| DbError::corrupt(doing, "a digest of the wrong length"))
}

/// A name as it stands in a column.
fn name<T: std::str::FromStr<Err: std::fmt::Display>>(doing: &'static str, text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error| DbError::corrupt(doing, error))
}

/// A document as it stands in a column.
fn json<T: serde::de::DeserializeOwned>(doing: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::corrupt(doing, error))
}

/// A document as it goes into a column.
fn to_json(document: &impl serde::Serialize) -> String {
    // Trees of strings and numbers always become JSON.
    serde_json::to_string(document).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh state in a folder that lives as long as the handle.
    pub(crate) async fn state() -> (Db, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Db::open(&folder.path().join("state.db")).await.expect("a database");
        (db, folder)
    }

    #[tokio::test]
    async fn a_state_opens_again_with_its_schema() {
        let (db, folder) = state().await;
        db.close().await;
        let path = folder.path().join("state.db");
        assert!(Db::open(&path).await.is_ok());
        std::fs::write(folder.path().join("bad.db"), "this is no database at all").expect("a file");
        assert!(Db::open(&folder.path().join("bad.db")).await.is_err());
    }
}
