//! Connections and transactions, the same over three drivers.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Database, MySql, Postgres, Sqlite, Transaction};
use time::OffsetDateTime;

use crate::dialect::{Engine, Rendered};
use crate::error::DbError;
use crate::row::{Cells, Row, write_stored};
use crate::value::{Value, to_datetime};

/// A connection, given back to its pool when dropped.
pub struct Conn {
    raw: Raw,
    /// Whether a statement of this transaction failed in a way that running all of it again may mend.
    lost: bool,
}

/// A transaction: rolled back when dropped without [`commit`](Self::commit). Use it as a [`Conn`].
#[derive(Debug)]
pub struct Tx(Conn);

pub(crate) enum Raw {
    Sqlite(Held<Sqlite>),
    MySql(Held<MySql>),
    Postgres(Held<Postgres>),
}

pub(crate) enum Held<DB: Database> {
    Plain(PoolConnection<DB>),
    Begun(Transaction<'static, DB>),
}

impl<DB: Database> Held<DB> {
    fn get(&mut self) -> &mut DB::Connection {
        match self {
            Self::Plain(conn) => conn,
            Self::Begun(tx) => tx,
        }
    }

    async fn end(self, commit: bool) -> Result<(), sqlx::Error> {
        match self {
            Self::Begun(tx) if commit => tx.commit().await,
            Self::Begun(tx) => tx.rollback().await,
            Self::Plain(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

/// Runs `$call` on the driver's query and connection, whichever driver it is.
macro_rules! drive {
    ($self:expr, $sql:expr, $args:expr, |$query:ident, $conn:ident| $call:expr, $wrap:ident) => {{
        let engine = $self.engine();
        let Rendered { sql, fixed } = engine.render($sql, $args);
        let answer = match &mut $self.raw {
            Raw::Sqlite(held) => {
                let ($query, $conn): (_, &mut SqliteConnection) = (bind_sqlite(sql, fixed, $args), held.get());
                $wrap!(Sqlite, $call)
            }
            Raw::MySql(held) => {
                let ($query, $conn): (_, &mut MySqlConnection) = (bind_mysql(sql, fixed, $args), held.get());
                $wrap!(MySql, $call)
            }
            Raw::Postgres(held) => {
                let ($query, $conn): (_, &mut PgConnection) = (bind_postgres(sql, fixed, $args), held.get());
                $wrap!(Postgres, $call)
            }
        };
        answer.map_err(|error| $self.note(DbError::from_sqlx(engine, error)))
    }};
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
    pub(crate) fn new(raw: Raw) -> Self {
        Self { raw, lost: false }
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
        self.execute_text(sql, args).await
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
        let width = rows.first().map_or(1, |row| row.len().max(1));
        let group = format!("({})", vec!["?"; width].join(","));
        let mut inserted = 0;
        for chunk in rows.chunks((self.engine().max_arguments() / width).clamp(1, 500)) {
            let sql = format!("{head} values {}", vec![group.as_str(); chunk.len()].join(","));
            inserted += self.execute_text(&sql, &chunk.concat()).await?;
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

    /// Runs a statement that is not a constant of the program: a migration's, or one with many groups of values.
    pub(crate) async fn execute_text(&mut self, sql: &str, args: &[Value]) -> Result<u64, DbError> {
        drive!(self, sql, args, |query, conn| query.execute(conn), affected)
    }

    fn note(&mut self, error: DbError) -> DbError {
        self.lost |= error.is_retryable();
        error
    }
}

impl Tx {
    pub(crate) fn new(raw: Raw) -> Self {
        Self(Conn::new(raw))
    }

    /// Makes all of it true at once.
    ///
    /// # Errors
    /// [`DbError::InDoubt`] when the connection broke and nobody knows.
    pub async fn commit(self) -> Result<(), DbError> {
        let engine = self.engine();
        match self.end(true).await.map_err(|error| DbError::from_sqlx(engine, error)) {
            Err(DbError::Unavailable(error)) => Err(DbError::InDoubt(error)),
            ended => ended,
        }
    }

    /// Undoes all of it.
    ///
    /// # Errors
    /// None that matter: a connection that cannot roll back is closed, which does the same.
    pub async fn rollback(self) -> Result<(), DbError> {
        let engine = self.engine();
        self.end(false).await.map_err(|error| DbError::from_sqlx(engine, error))
    }

    /// Whether a statement failed in a way that running the whole transaction again may mend.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.lost
    }

    async fn end(self, commit: bool) -> Result<(), sqlx::Error> {
        match self.0.raw {
            Raw::Sqlite(held) => held.end(commit).await,
            Raw::MySql(held) => held.end(commit).await,
            Raw::Postgres(held) => held.end(commit).await,
        }
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
        fn $name(sql: String, fixed: bool, args: &[Value]) -> Query<'static, $db, $arguments> {
            let mut query = sqlx::query::<$db>(AssertSqlSafe(Cow::Owned(sql))).persistent(fixed);
            for arg in args {
                query = match arg {
                    Value::Int(v) => query.bind(*v),
                    Value::Big(v) => query.bind(*v),
                    Value::Text(v) => query.bind(v.clone()),
                    Value::Bool(v) => query.bind(*v),
                    Value::Time(v) => query.bind(v.map(to_datetime).map($time)),
                    Value::Ints(many) => many.iter().fold(query, |query, v| query.bind(*v)),
                    Value::Texts(many) => many.iter().fold(query, |query, v| query.bind(v.clone())),
                };
            }
            query
        }
    };
}
binder!(bind_sqlite, Sqlite, SqliteArguments, write_stored);
binder!(bind_mysql, MySql, MySqlArguments, |at| at);
binder!(bind_postgres, Postgres, PgArguments, |at| at);
