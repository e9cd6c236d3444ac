//! Opening a database: URLs, pools, and the session settings without which our promises do not hold.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Database, Executor as _, MySqlPool, PgPool, SqlitePool};

use crate::conn::{Conn, Held, Raw, Tx};
use crate::dialect::Engine;
use crate::error::DbError;

/// A database: pools of connections. Cloning it is cheap and shares them.
#[derive(Clone)]
pub struct Db(Arc<Pools>);

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.engine()).finish()
    }
}

enum Pools {
    /// SQLite has one writer at a time; a pool of one makes the others wait in line instead of failing busy.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    MySql(MySqlPool),
    Postgres(PgPool),
}

/// Where the database is. Its `Debug` form shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A SQLite file, created when absent.
    Sqlite(PathBuf),
    /// A `mysql://` URL.
    MySql(String),
    /// A `postgres://` URL.
    Postgres(String),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite at {}", path.display()),
            Self::MySql(url) => write!(f, "mysql at {}", place(url)),
            Self::Postgres(url) => write!(f, "postgres at {}", place(url)),
        }
    }
}

/// Host, port and database of a URL, without who logs in.
fn place(url: &str) -> &str {
    url.rsplit_once('@').map_or("its default place", |(_, place)| place)
}

/// How large pools are and how long to wait for them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections to a server, or most readers of a SQLite file.
    pub max_connections: u32,
    /// How long a caller waits for a connection before [`DbError::Unavailable`].
    pub acquire_timeout: Duration,
    /// How long SQLite waits for another process's lock.
    pub busy_timeout: Duration,
    /// How long an idle connection is kept (`sql_idle_timeout`).
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

impl FromStr for Target {
    type Err = DbError;

    /// Reads a SQLAlchemy URL: `sqlite:///relative`, `sqlite:////absolute`, `mysql://…`, `postgresql://…`,
    /// with or without a driver (`mysql+pymysql://…`).
    fn from_str(url: &str) -> Result<Self, DbError> {
        let unknown = || DbError::Url(scheme_of(url).to_owned());
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => {
                let path = rest.strip_prefix("///").unwrap_or(rest);
                let path = path.split('?').next().unwrap_or_default();
                if path.is_empty() || path.starts_with("//") || path == ":memory:" {
                    return Err(unknown());
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "mysql" | "mariadb" => Ok(Self::MySql(format!("mysql:{}", rest.replace("unix_socket=", "socket=")))),
            "postgres" | "postgresql" => Ok(Self::Postgres(format!("postgres:{rest}"))),
            _ => Err(unknown()),
        }
    }
}

/// What may be shown of a URL in an error: never its password.
fn scheme_of(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

impl Db {
    /// Opens pools to the database that a SQLAlchemy URL names. Servers are not connected to before the first query,
    /// so a daemon can start while its database is away.
    ///
    /// # Errors
    /// [`DbError::Url`] for a URL of no known kind, [`DbError::Unavailable`] when a SQLite file cannot be opened.
    pub async fn open(url: &str, options: &Options) -> Result<Self, DbError> {
        Self::open_target(&url.parse()?, options).await
    }

    /// The same for a target that was parsed elsewhere.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_target(target: &Target, options: &Options) -> Result<Self, DbError> {
        let pools = match target {
            Target::Sqlite(path) => sqlite(path, options).await.map_err(|e| DbError::from_sqlx(Engine::Sqlite, e))?,
            Target::MySql(url) => mysql(url, options).map_err(|_| DbError::Url(scheme_of(url).to_owned()))?,
            Target::Postgres(url) => postgres(url, options).map_err(|_| DbError::Url(scheme_of(url).to_owned()))?,
        };
        Ok(Self(Arc::new(pools)))
    }

    /// The kind of database.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match &*self.0 {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::MySql(_) => Engine::MySql,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// A connection to read with. On SQLite it cannot write.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when none can be had in time.
    pub async fn read(&self) -> Result<Conn, DbError> {
        let raw = match &*self.0 {
            Pools::Sqlite { readers, .. } => readers.acquire().await.map(|c| Raw::Sqlite(Held::Plain(c))),
            Pools::MySql(pool) => pool.acquire().await.map(|c| Raw::MySql(Held::Plain(c))),
            Pools::Postgres(pool) => pool.acquire().await.map(|c| Raw::Postgres(Held::Plain(c))),
        };
        raw.map(Conn::new).map_err(|error| DbError::from_sqlx(self.engine(), error))
    }

    /// A connection for single statements that write, each its own transaction. Do not hold it while asking
    /// for another: on SQLite there is one.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when none can be had in time.
    pub async fn write(&self) -> Result<Conn, DbError> {
        match &*self.0 {
            Pools::Sqlite { writer, .. } => match writer.acquire().await {
                Ok(conn) => Ok(Conn::new(Raw::Sqlite(Held::Plain(conn)))),
                Err(error) => Err(DbError::from_sqlx(Engine::Sqlite, error)),
            },
            Pools::MySql(_) | Pools::Postgres(_) => self.read().await,
        }
    }

    /// Begins a transaction. Rather use [`transaction!`](crate::transaction!), which also tries again.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when no connection can be had in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let raw = match &*self.0 {
            Pools::Sqlite { writer, .. } => {
                writer.begin_with("BEGIN IMMEDIATE").await.map(|t| Raw::Sqlite(Held::Begun(t)))
            }
            Pools::MySql(pool) => pool.begin().await.map(|t| Raw::MySql(Held::Begun(t))),
            Pools::Postgres(pool) => pool.begin().await.map(|t| Raw::Postgres(Held::Begun(t))),
        };
        raw.map(Tx::new).map_err(|error| DbError::from_sqlx(self.engine(), error))
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        match &*self.0 {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::MySql(pool) => pool.close().await,
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

/// An idle connection is asked whether it still lives, a busy one is not: that would cost a round trip each time.
fn pool<DB: Database>(options: &Options) -> PoolOptions<DB> {
    PoolOptions::new()
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_connections(options.max_connections)
        .test_before_acquire(false)
        .before_acquire(|conn: &mut DB::Connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < Duration::from_secs(1) || conn.ping().await.is_ok()) })
        })
}

async fn sqlite(path: &Path, options: &Options) -> Result<Pools, sqlx::Error> {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode FULL syncs at each commit: what was acknowledged survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
        .foreign_keys(true);
    let writer: SqlitePoolOptions = pool(options).max_connections(1).min_connections(1).max_lifetime(None);
    let writer = writer.connect_with(connect.clone()).await?;
    let readers = pool(options).connect_lazy_with(connect.pragma("query_only", "on"));
    Ok(Pools::Sqlite { writer, readers })
}

fn mysql(url: &str, options: &Options) -> Result<Pools, sqlx::Error> {
    let connect = MySqlConnectOptions::from_str(url)?.charset("utf8mb4").collation("utf8mb4_bin");
    let pool: MySqlPoolOptions = pool(options).after_connect(|conn: &mut MySqlConnection, _| {
        Box::pin(async move {
            conn.execute(
                "set session sql_mode = 'STRICT_ALL_TABLES,ANSI_QUOTES,PIPES_AS_CONCAT,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
                 ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 5, \
                 default_storage_engine = InnoDB",
            )
            .await?;
            conn.execute("set session transaction isolation level read committed").await?;
            // MariaDB from 10.6.18 on only: a second belt that turns a lost update into an error we retry.
            let _ = conn.execute("set session innodb_snapshot_isolation = on").await;
            Ok(())
        })
    });
    Ok(Pools::MySql(pool.connect_lazy_with(connect)))
}

fn postgres(url: &str, options: &Options) -> Result<Pools, sqlx::Error> {
    let connect = PgConnectOptions::from_str(url)?.application_name("nova");
    let pool: PgPoolOptions = pool(options).after_connect(|conn: &mut PgConnection, _| {
        Box::pin(async move {
            conn.execute("set lock_timeout = '5s'").await?;
            conn.execute("set idle_in_transaction_session_timeout = '60s'").await?;
            conn.execute("set default_transaction_isolation = 'read committed'").await?;
            Ok(())
        })
    });
    Ok(Pools::Postgres(pool.connect_lazy_with(connect)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::Target;

    fn check(urls: &[&str], want: Expect) {
        let read: Vec<String> = urls
            .iter()
            .map(|url| match url.parse::<Target>() {
                Ok(target) => format!("{target:?}"),
                Err(error) => error.to_string(),
            })
            .collect();
        want.assert_eq(&(read.join("\n") + "\n"));
    }

    #[test]
    fn urls_are_read_the_way_sqlalchemy_reads_them() {
        check(
            &[
                "sqlite:///nova.sqlite",
                "sqlite:////var/lib/nova/nova.sqlite",
                "mysql://root:nova@10.0.0.1/nova",
                "mysql+pymysql://u@h/nova?unix_socket=/run/s",
                "postgresql+psycopg2://u:p@h:5433/nova",
            ],
            expect![[r#"
                sqlite at nova.sqlite
                sqlite at /var/lib/nova/nova.sqlite
                mysql at 10.0.0.1/nova
                mysql at h/nova?socket=/run/s
                postgres at h:5433/nova
            "#]],
        );
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_without_its_password() {
        check(
            &["", "nova.sqlite", "sqlite:///", "sqlite:///:memory:", "oracle://scott:tiger@h/nova"],
            expect![[r#"
                "" is not a database URL
                "nova.sqlite" is not a database URL
                "sqlite" is not a database URL
                "sqlite" is not a database URL
                "oracle" is not a database URL
            "#]],
        );
    }
}
