//! Connections and transactions, the same over three drivers.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, MySql, Postgres, Sqlite};
use time::OffsetDateTime;

use crate::dialect::Engine;
use crate::error::DbError;
use crate::held::{Raw, STATEMENT_LIMIT, within};
use crate::row::{Cells, Row, write_stored};
use crate::server::Trust;
use crate::value::{Value, padded, pieces, to_datetime};

/// A connection, given back to its pool when dropped.
pub struct Conn {
    raw: Raw,
    /// Whether a statement failed in a way that running all of it again may mend.
    lost: bool,
    /// Whether the server refused a statement. PostgreSQL undoes the whole transaction then, and answers COMMIT as if
    /// that was what one wanted.
    refused: bool,
    trust: Option<Arc<Trust>>,
}

/// A transaction: rolled back when dropped without [`commit`](Self::commit). Use it as a [`Conn`].
#[derive(Debug)]
pub struct Tx(Conn);

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

/// Runs `$call` on the driver's query and connection, whichever driver it is.
macro_rules! drive {
    ($self:expr, $sql:expr, $args:expr, |$query:ident, $conn:ident| $call:expr, $wrap:ident) => {{
        let engine = $self.engine();
        let sql: Arc<str> = engine.render($sql, $args).into();
        let answer = match &mut $self.raw {
            // It is no server that could be gone, and waits for locks by its own limit.
            Raw::Sqlite(held) => {
                let ($query, $conn): (_, &mut SqliteConnection) = (bind_sqlite(&sql, $args), held.get());
                $wrap!(Sqlite, $call)
            }
            Raw::MySql(held) => {
                let ($query, $conn): (_, &mut MySqlConnection) = (bind_mysql(&sql, $args), held.get());
                let first = $wrap!(MySql, within(Some(STATEMENT_LIMIT), $call));
                match first {
                    Err(error) if is_full(&error) => {
                        // The server keeps no more statements, of all its clients together: make room with our own.
                        let ($query, $conn): (_, &mut MySqlConnection) = (bind_mysql(&sql, $args), held.get());
                        let _ = $conn.clear_cached_statements().await;
                        $wrap!(MySql, within(Some(STATEMENT_LIMIT), $call))
                    }
                    other => other,
                }
            }
            Raw::Postgres(held) => {
                let ($query, $conn): (_, &mut PgConnection) = (bind_postgres(&sql, $args), held.get());
                $wrap!(Postgres, within(Some(STATEMENT_LIMIT), $call))
            }
        };
        answer.map_err(|error| $self.note(error))
    }};
}

/// MySQL's `max_prepared_stmt_count` is reached.
fn is_full(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|refusal| refusal.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .is_some_and(|refusal| refusal.number() == 1461)
}

macro_rules! rows {
    ($engine:ident, $call:expr) => {
        $call.await.map(|rows| rows.into_iter().map(|row| Row(Cells::$engine(row))).collect::<Vec<_>>())
    };
}
macro_rules! maybe_row {
    ($engine:ident, $call:expr) => {
        $call.await.map(|row| row.map(|row| Row(Cells::$engine(row))))
    };
}
macro_rules! affected {
    ($engine:ident, $call:expr) => {
        $call.await.map(|done| done.rows_affected())
    };
}

impl Conn {
    pub(crate) fn new(raw: Raw, trust: Option<Arc<Trust>>) -> Self {
        Self { raw, lost: false, refused: false, trust }
    }

    /// The kind of database at the other end.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.raw {
            Raw::Sqlite(_) => Engine::Sqlite,
            Raw::MySql(_) => Engine::MySql,
            Raw::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs a statement and returns how many rows it matched.
    ///
    /// # Errors
    /// Any [`DbError`] the engine's refusal means.
    pub async fn execute(&mut self, sql: &'static str, args: &[Value]) -> Result<u64, DbError> {
        drive!(self, sql, args, |query, conn| query.execute(conn), affected)
    }

    /// Runs a query and returns all its rows.
    ///
    /// # Errors
    /// Any [`DbError`] the engine's refusal means.
    pub async fn all(&mut self, sql: &'static str, args: &[Value]) -> Result<Vec<Row>, DbError> {
        drive!(self, sql, args, |query, conn| query.fetch_all(conn), rows)
    }

    /// Runs a query and returns its first row, if it has one.
    ///
    /// # Errors
    /// Any [`DbError`] the engine's refusal means.
    pub async fn optional(&mut self, sql: &'static str, args: &[Value]) -> Result<Option<Row>, DbError> {
        drive!(self, sql, args, |query, conn| query.fetch_optional(conn), maybe_row)
    }

    /// Runs a query that always has a row, such as a count.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when it has none.
    pub async fn one(&mut self, sql: &'static str, args: &[Value]) -> Result<Row, DbError> {
        self.optional(sql, args).await?.ok_or(DbError::NotFound("row"))
    }

    /// Inserts one row and returns the `id` it was given.
    ///
    /// # Errors
    /// [`DbError::Duplicate`] and [`DbError::Reference`] name a refused row.
    pub async fn insert(&mut self, sql: &'static str, args: &[Value]) -> Result<i32, DbError> {
        self.insert_text(sql, args).await
    }

    /// The same for a statement that is put together from constants of the program.
    pub(crate) async fn insert_text(&mut self, sql: &str, args: &[Value]) -> Result<i32, DbError> {
        if self.engine() == Engine::MySql {
            macro_rules! last_id {
                (MySql, $call:expr) => {
                    $call.await.map(|done| done.last_insert_id())
                };
                ($other:ident, $call:expr) => {
                    $call.await.map(|_| 0)
                };
            }
            let id: u64 = drive!(self, sql, args, |query, conn| query.execute(conn), last_id)?;
            return i32::try_from(id).map_err(|_| DbError::Corrupt { column: "id", value: id.to_string() });
        }
        let sql = format!("{sql} returning id");
        let row = drive!(self, &sql, args, |query, conn| query.fetch_optional(conn), maybe_row)?;
        row.ok_or(DbError::NotFound("row"))?.get("id")
    }

    /// Inserts many rows in as few statements as the engine allows. `head` ends before `values`.
    ///
    /// All rows have as many values as the first. Returns how many rows were inserted.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); some of the rows may then be in, so call it inside a transaction.
    pub async fn insert_many(&mut self, head: &'static str, rows: &[Vec<Value>]) -> Result<u64, DbError> {
        self.insert_many_text(head, rows).await
    }

    /// The same for a head that is put together from constants of the program.
    pub(crate) async fn insert_many_text(&mut self, head: &str, rows: &[Vec<Value>]) -> Result<u64, DbError> {
        let width = rows.first().map_or(1, |row| row.len().max(1));
        let group = format!("({})", vec!["?"; width].join(","));
        let mut inserted = 0;
        for piece in pieces(rows, (self.engine().max_arguments() / width).clamp(1, 256)) {
            let sql = format!("{head} values {}", vec![group.as_str(); piece.len()].join(","));
            inserted += self.execute_text(&sql, &piece.concat()).await?;
        }
        Ok(inserted)
    }

    /// The database's clock. Leases are counted with it and with no other.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when the database cannot be asked.
    pub async fn now(&mut self) -> Result<OffsetDateTime, DbError> {
        self.one("select {now} as at", &[]).await?.get("at")
    }

    /// Runs a query that is put together from constants of the program.
    pub(crate) async fn all_text(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, DbError> {
        drive!(self, sql, args, |query, conn| query.fetch_all(conn), rows)
    }

    /// Runs a statement that is put together from constants of the program.
    pub(crate) async fn execute_text(&mut self, sql: &str, args: &[Value]) -> Result<u64, DbError> {
        drive!(self, sql, args, |query, conn| query.execute(conn), affected)
    }

    /// Runs a statement of a migration: it may take as long as it needs, and is not kept.
    pub(crate) async fn execute_once(&mut self, sql: &str) -> Result<u64, DbError> {
        let sql = AssertSqlSafe(self.engine().render(sql, &[]));
        let ran = match &mut self.raw {
            Raw::Sqlite(held) => sqlx::raw_sql(sql).execute(held.get()).await.map(|done| done.rows_affected()),
            Raw::MySql(held) => sqlx::raw_sql(sql).execute(held.get()).await.map(|done| done.rows_affected()),
            Raw::Postgres(held) => sqlx::raw_sql(sql).execute(held.get()).await.map(|done| done.rows_affected()),
        };
        ran.map_err(|error| self.note(error))
    }

    /// Whether a statement failed in a way that running all of it again, maybe elsewhere, may mend.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub(crate) async fn begin(mut self) -> Result<Tx, DbError> {
        match self.raw.begin().await {
            Ok(()) => Ok(Tx(self)),
            Err(error) => Err(self.note(error)),
        }
    }

    /// Draws the conclusions from an error, and gives it its meaning.
    fn note(&mut self, error: sqlx::Error) -> DbError {
        let error = DbError::from_sqlx(self.engine(), error);
        self.lost |= error.is_retryable();
        self.refused = true;
        if let DbError::Unavailable(reason) = &error {
            let broken = matches!(reason, sqlx::Error::Io(_) | sqlx::Error::Protocol(_));
            if broken {
                self.raw.kill();
            }
            if let Some(trust) = self.trust.as_ref().filter(|_| broken || DbError::means_read_only(reason)) {
                trust.lose();
            }
        }
        error
    }
}

impl Tx {
    /// Makes all of it true at once.
    ///
    /// # Errors
    /// [`DbError::InDoubt`] when the connection broke and nobody knows; [`DbError::Conflict`], and nothing is done, when
    /// a statement was lost or refused and the caller went on: the server may have undone what came before it.
    pub async fn commit(self) -> Result<(), DbError> {
        let engine = self.engine();
        if self.lost || self.refused && engine == Engine::Postgres {
            self.rollback().await?;
            return Err(DbError::Conflict(sqlx::Error::Protocol("a statement before the commit failed".to_owned())));
        }
        let Self(Conn { raw, trust, .. }) = self;
        match raw.end(true).await.map_err(|error| DbError::from_sqlx(engine, error)) {
            Err(DbError::Unavailable(error)) => {
                if let Some(trust) = trust {
                    trust.lose();
                }
                Err(DbError::InDoubt(error))
            }
            ended => ended,
        }
    }

    /// Undoes all of it.
    ///
    /// # Errors
    /// None that matter: a connection that cannot roll back is closed, which does the same.
    pub async fn rollback(self) -> Result<(), DbError> {
        let engine = self.engine();
        self.0.raw.end(false).await.map_err(|error| DbError::from_sqlx(engine, error))
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

macro_rules! binder {
    ($name:ident, $db:ty, $arguments:ty, $time:expr) => {
        /// All statements are kept prepared: they are few, and over TCP one that is thrown away holds up the next.
        fn $name(sql: &Arc<str>, args: &[Value]) -> Query<'static, $db, $arguments> {
            let mut query = sqlx::query::<$db>(AssertSqlSafe(Arc::clone(sql)));
            for arg in args {
                query = match arg {
                    Value::Int(v) => query.bind(*v),
                    Value::Big(v) => query.bind(*v),
                    Value::Text(v) => query.bind(v.clone()),
                    Value::Bool(v) => query.bind(*v),
                    Value::Time(v) => query.bind(v.map(to_datetime).map($time)),
                    Value::Ints(many) => padded(many).fold(query, |query, v| query.bind(*v)),
                    Value::Texts(many) => padded(many).fold(query, |query, v| query.bind(v.clone())),
                };
            }
            query
        }
    };
}
binder!(bind_sqlite, Sqlite, SqliteArguments, write_stored);
binder!(bind_mysql, MySql, MySqlArguments, |at| at);
binder!(bind_postgres, Postgres, PgArguments, |at| at);
