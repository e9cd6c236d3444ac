//! A database server: the pool of connections to it, and which of its hosts is the primary.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Database, Executor as _, MySql, Pool, Postgres, Row as _};

use crate::open::Options;

/// Statements that a connection keeps prepared. There are some 200 in all; a daemon uses a part of them.
pub(crate) const STATEMENTS: usize = 256;
/// How long a host may take to say what it is.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before all hosts are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the connections that are open can be relied on.
#[derive(Debug)]
pub(crate) struct Trust {
    /// The primary must be looked for.
    lost: AtomicBool,
    /// Connections opened before are not to be used again.
    since: Mutex<Instant>,
}

impl Trust {
    fn new(lost: bool) -> Self {
        Self { lost: AtomicBool::new(lost), since: Mutex::new(Instant::now()) }
    }

    /// A connection broke, or its server became a replica: the others to it are no better.
    pub(crate) fn lose(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.lost.store(true, Ordering::Release);
    }

    fn accepts(&self, age: Duration) -> bool {
        age < self.since.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// What a driver must know besides.
pub(crate) trait Remote: Database {
    /// Makes a new connection one on which our promises hold.
    fn prepare(conn: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Asks the server whether it takes writes.
    fn is_primary(conn: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>>;
}

type Connect<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A server on one host, or on one of several.
pub(crate) struct Server<DB: Remote> {
    pool: Pool<DB>,
    hosts: Vec<Connect<DB>>,
    trust: Arc<Trust>,
    searching: tokio::sync::Mutex<()>,
    acquire_timeout: Duration,
}

impl<DB: Remote> Server<DB> {
    /// Nothing is connected to before it is needed.
    pub(crate) fn new(hosts: Vec<Connect<DB>>, options: &Options) -> Option<Self> {
        let first = hosts.first()?.clone();
        let several = hosts.len() > 1;
        let trust = Arc::new(Trust::new(several));
        let (judge, witness) = (Arc::clone(&trust), Arc::clone(&trust));
        let pool = pool(options)
            .before_acquire(move |conn: &mut DB::Connection, meta| {
                let trusted = judge.accepts(meta.age);
                Box::pin(async move {
                    // An idle connection is asked whether it still lives, a busy one is not: that costs a round trip.
                    Ok(trusted && (meta.idle_for < Duration::from_secs(1) || lives::<DB>(conn).await))
                })
            })
            .after_connect(move |conn: &mut DB::Connection, _| {
                let witness = Arc::clone(&witness);
                Box::pin(async move {
                    DB::prepare(conn).await?;
                    if several && !DB::is_primary(conn).await? {
                        witness.lose();
                        return Err(sqlx::Error::Protocol("the server is a replica".to_owned()));
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(first);
        let (searching, acquire_timeout) = (tokio::sync::Mutex::new(()), options.acquire_timeout);
        Some(Self { pool, hosts, trust, searching, acquire_timeout })
    }

    pub(crate) fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// A connection to the primary.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<DB>, sqlx::Error> {
        if self.hosts.len() == 1 {
            return self.pool.acquire().await;
        }
        let deadline = tokio::time::Instant::now() + self.acquire_timeout;
        let found = tokio::time::timeout_at(deadline, async {
            loop {
                if self.trust.lost.load(Ordering::Acquire) {
                    self.search().await;
                }
                // A pool whose server went away tries on; what it tries may have become the wrong host.
                match tokio::time::timeout(2 * PROBE_LIMIT, self.pool.acquire()).await {
                    Ok(Ok(conn)) => return Ok(conn),
                    Ok(Err(closed @ sqlx::Error::PoolClosed)) => return Err(closed),
                    Ok(Err(_)) => self.trust.lost.store(true, Ordering::Release),
                    // All may be in use; but then asking who is the primary does no harm.
                    Err(_) => self.trust.lost.store(true, Ordering::Release),
                }
            }
        });
        found.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Asks all hosts at once until one says that it is the primary; the first in the list counts. Others wait for it.
    async fn search(&self) {
        let _one = self.searching.lock().await;
        while self.trust.lost.load(Ordering::Acquire) && !self.pool.is_closed() {
            self.trust.lost.store(false, Ordering::Release);
            let asked = futures::future::join_all(self.hosts.iter().map(|host| primary_at::<DB>(host))).await;
            if let Some((number, host)) = self.hosts.iter().enumerate().find(|(number, _)| asked[*number]) {
                tracing::info!(number, "Host {} of the database's is the primary.", number + 1);
                self.pool.set_connect_options(host.clone());
                return;
            }
            self.trust.lost.store(true, Ordering::Release);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn lives<DB: Database>(conn: &mut DB::Connection) -> bool {
    tokio::time::timeout(PROBE_LIMIT, conn.ping()).await.is_ok_and(|answer| answer.is_ok())
}

async fn primary_at<DB: Remote>(host: &Connect<DB>) -> bool {
    let asked = async {
        let mut conn = host.connect().await?;
        let is = DB::is_primary(&mut conn).await;
        let _ = conn.close().await;
        is
    };
    matches!(tokio::time::timeout(PROBE_LIMIT, asked).await, Ok(Ok(true)))
}

/// Sizes and limits of any pool.
pub(crate) fn pool<DB: Database>(options: &Options) -> PoolOptions<DB> {
    PoolOptions::new()
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_connections(options.max_connections)
        .test_before_acquire(false)
}

pub(crate) fn mysql(urls: &[String], options: &Options) -> Result<Option<Server<MySql>>, sqlx::Error> {
    let hosts = urls.iter().map(|url| {
        let host = MySqlConnectOptions::from_str(url)?;
        Ok(host.charset("utf8mb4").collation("utf8mb4_bin").statement_cache_capacity(STATEMENTS))
    });
    Ok(Server::new(hosts.collect::<Result<_, sqlx::Error>>()?, options))
}

pub(crate) fn postgres(urls: &[String], options: &Options) -> Result<Option<Server<Postgres>>, sqlx::Error> {
    let hosts = urls.iter().map(|url| {
        let host = PgConnectOptions::from_str(url)?;
        Ok(host.application_name("nova").statement_cache_capacity(STATEMENTS))
    });
    Ok(Server::new(hosts.collect::<Result<_, sqlx::Error>>()?, options))
}

impl Remote for MySql {
    fn prepare(conn: &mut MySqlConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            conn.execute(
                "set session sql_mode = 'STRICT_ALL_TABLES,ANSI_QUOTES,PIPES_AS_CONCAT,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
                 ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            )
            .await?;
            conn.execute("set session transaction isolation level read committed").await?;
            // MariaDB from 10.6.18 on only: a second belt that turns a lost update into an error we retry.
            let _ = conn.execute("set session innodb_snapshot_isolation = on").await;
            // Fails where there is no InnoDB, of which `Db::ready` tells in better words.
            let _ = conn.execute("set session innodb_lock_wait_timeout = 5, default_storage_engine = InnoDB").await;
            Ok(())
        })
    }

    fn is_primary(conn: &mut MySqlConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(async move {
            // A number with most servers, a word with some.
            let row = conn.fetch_one("select concat(@@global.read_only, '') as setting").await?;
            let setting: String = row.try_get_unchecked("setting")?;
            Ok(matches!(setting.as_str(), "0" | "OFF"))
        })
    }
}

impl Remote for Postgres {
    fn prepare(conn: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move {
            conn.execute("set lock_timeout = '5s'").await?;
            conn.execute("set idle_in_transaction_session_timeout = '60s'").await?;
            conn.execute("set default_transaction_isolation = 'read committed'").await?;
            Ok(())
        })
    }

    fn is_primary(conn: &mut PgConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(async move {
            let row = conn.fetch_one("select not pg_is_in_recovery() as is_primary").await?;
            row.try_get("is_primary")
        })
    }
}
