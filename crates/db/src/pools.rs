//! The connections to one database, whichever kind it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::conn::Conn;
use crate::dialect::Engine;
use crate::error::DbError;
use crate::held::{Held, Raw};
use crate::open::Options;
use crate::server::{self, STATEMENTS, Server, pool};
use crate::target::Target;

/// How long to wait for a replica before the primary is asked.
const REPLICA_LIMIT: Duration = Duration::from_secs(1);

/// Rows that SQLite's thread may be ahead of whoever reads them: with few, the two wake each other up all the time.
const ROWS: usize = 1024;

pub(crate) enum Pools {
    /// SQLite has one writer at a time; a pool of one makes the others wait in line instead of failing busy.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    MySql(Server<sqlx::MySql>),
    Postgres(Server<sqlx::Postgres>),
}

impl Pools {
    pub(crate) async fn open(target: &Target, options: &Options) -> Result<Self, DbError> {
        match target {
            Target::Sqlite(path) => sqlite(path, options).await.map_err(|e| DbError::from_sqlx(Engine::Sqlite, e)),
            Target::MySql(urls) => {
                let server = server::mysql(urls, options).ok().flatten();
                server.map(Self::MySql).ok_or_else(|| DbError::Url("mysql".to_owned()))
            }
            Target::Postgres(urls) => {
                let server = server::postgres(urls, options).ok().flatten();
                server.map(Self::Postgres).ok_or_else(|| DbError::Url("postgresql".to_owned()))
            }
        }
    }

    /// A server that nobody waits for.
    pub(crate) fn open_replica(target: &Target, options: &Options) -> Result<Self, DbError> {
        let options = Options { acquire_timeout: REPLICA_LIMIT, ..options.clone() };
        let (mysql, postgres) = match target {
            Target::Sqlite(_) => return Err(DbError::ReadUrl),
            // With several hosts the primary among them would be looked for.
            Target::MySql(urls) | Target::Postgres(urls) if urls.len() > 1 => return Err(DbError::ReadUrl),
            Target::MySql(urls) => (server::mysql(urls, &options).ok().flatten(), None),
            Target::Postgres(urls) => (None, server::postgres(urls, &options).ok().flatten()),
        };
        let opened = mysql.map(Self::MySql).or_else(|| postgres.map(Self::Postgres));
        opened.ok_or_else(|| DbError::Url("read".to_owned()))
    }

    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::MySql(_) => Engine::MySql,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    pub(crate) async fn read(&self) -> Result<Conn, DbError> {
        match self {
            Self::Sqlite { readers, .. } => acquire_sqlite(readers).await,
            Self::MySql(server) => {
                let conn = server.acquire().await.map_err(|error| DbError::from_sqlx(Engine::MySql, error))?;
                Ok(Conn::new(Raw::MySql(Held::new(conn)), Some(Arc::clone(server.trust()))))
            }
            Self::Postgres(server) => {
                let conn = server.acquire().await.map_err(|error| DbError::from_sqlx(Engine::Postgres, error))?;
                Ok(Conn::new(Raw::Postgres(Held::new(conn)), Some(Arc::clone(server.trust()))))
            }
        }
    }

    pub(crate) async fn write(&self) -> Result<Conn, DbError> {
        match self {
            Self::Sqlite { writer, .. } => acquire_sqlite(writer).await,
            Self::MySql(_) | Self::Postgres(_) => self.read().await,
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::MySql(server) => server.close().await,
            Self::Postgres(server) => server.close().await,
        }
    }
}

async fn acquire_sqlite(pool: &SqlitePool) -> Result<Conn, DbError> {
    let conn = pool.acquire().await.map_err(|error| DbError::from_sqlx(Engine::Sqlite, error))?;
    Ok(Conn::new(Raw::Sqlite(Held::new(conn)), None))
}

async fn sqlite(path: &Path, options: &Options) -> Result<Pools, sqlx::Error> {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode FULL syncs at each commit: what was acknowledged survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(STATEMENTS)
        .row_buffer_size(ROWS)
        .foreign_keys(true);
    let writer: SqlitePoolOptions = pool(options).max_connections(1).min_connections(1).max_lifetime(None);
    let writer = writer.connect_with(connect.clone()).await?;
    let readers = pool(options).connect_lazy_with(connect.pragma("query_only", "on"));
    Ok(Pools::Sqlite { writer, readers })
}
