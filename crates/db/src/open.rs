//! Opening a database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::conn::{Conn, Tx};
use crate::dialect::Engine;
use crate::error::DbError;
use crate::pools::Pools;
use crate::replicas::{self, Replicas};
use crate::target::Target;

/// A database: pools of connections. Cloning it is cheap and shares them.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pools: Pools,
    pub(crate) replicas: Option<Replicas>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.engine()).finish()
    }
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
    /// URLs of replicas that may answer [`describe!`](crate::describe!) (`sql_read_connection`).
    pub read_urls: Vec<String>,
    /// How far behind the primary such an answer may be (`sql_max_replica_lag`).
    pub max_replica_lag: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            read_urls: Vec::new(),
            max_replica_lag: Duration::from_secs(5),
        }
    }
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
    /// As [`open`](Self::open); [`DbError::ReadUrl`] for a replica of something else.
    pub async fn open_target(target: &Target, options: &Options) -> Result<Self, DbError> {
        let copies = options.read_urls.iter().map(|url| match (target, url.parse()?) {
            (Target::MySql(_), copy @ Target::MySql(_)) | (Target::Postgres(_), copy @ Target::Postgres(_)) => {
                Pools::open_replica(&copy, options)
            }
            _ => Err(DbError::ReadUrl),
        });
        let copies: Vec<Pools> = copies.collect::<Result<_, _>>()?;
        let pools = Pools::open(target, options).await?;
        let replicas = (!copies.is_empty()).then(|| Replicas::new(copies, options.max_replica_lag));
        let db = Self(Arc::new(Inner { pools, replicas }));
        if db.0.replicas.is_some() {
            replicas::watch(Arc::downgrade(&db.0));
        }
        Ok(db)
    }

    /// The kind of database.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.0.pools.engine()
    }

    /// A connection to read with. On SQLite it cannot write.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when none can be had in time.
    pub async fn read(&self) -> Result<Conn, DbError> {
        self.0.pools.read().await
    }

    /// A connection for single statements that write, each its own transaction. Do not hold it while asking
    /// for another: on SQLite there is one.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when none can be had in time.
    pub async fn write(&self) -> Result<Conn, DbError> {
        self.0.pools.write().await
    }

    /// Begins a transaction. Rather use [`transaction!`](crate::transaction!), which also tries again.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when no connection can be had in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        self.write().await?.begin().await
    }

    /// A connection to a replica that knows all that `callers` wrote through this process, and is as fresh as
    /// `max_replica_lag` asks. Rather use [`describe!`](crate::describe!), which asks the primary where there is none.
    pub async fn replica(&self, callers: &[&str]) -> Option<Conn> {
        self.0.replicas.as_ref()?.choose(callers).await
    }

    /// Remembers that `callers` (users, projects) just wrote, so that they are shown it.
    pub fn wrote(&self, callers: &[&str]) {
        if let Some(replicas) = &self.0.replicas {
            replicas.wrote(callers);
        }
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        if let Some(replicas) = &self.0.replicas {
            replicas.close().await;
        }
        self.0.pools.close().await;
    }
}
