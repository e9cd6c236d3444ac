//! Databases for tests: SQLite in a temporary file, and private MariaDB and PostgreSQL servers that live as long as the
//! test process.
#![expect(clippy::print_stdout, reason = "a failing test is to say on which engine it failed")]

pub mod fixtures;
pub mod pair;
pub mod proxy;
mod servers;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::open::{Db, Options};

/// A database of its own for one test. Dropping it removes a SQLite file; servers' databases go with their server.
#[derive(Debug)]
pub struct TestDb {
    db: Db,
    _folder: Option<tempfile::TempDir>,
}

impl std::ops::Deref for TestDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

/// A database that somebody else keeps, as one of a test's.
#[must_use]
pub fn lent(db: Db) -> TestDb {
    TestDb { db, _folder: None }
}

/// A migrated SQLite database in a temporary file.
///
/// # Panics
/// When it cannot be made: a test can do nothing else.
pub async fn sqlite() -> TestDb {
    let made = empty_sqlite().await;
    made.migrate().await.unwrap_or_else(|error| panic!("migrating SQLite: {error:?}"));
    made
}

/// Runs `test` on a fresh, migrated database of each engine. Says so where a server's program is not installed;
/// with `NOVA_TEST_REQUIRE_ALL` in the environment that is a failure.
///
/// # Panics
/// When the test does, naming the engine before.
pub async fn each(test: impl AsyncFn(&Db)) {
    each_empty(async |db: &Db| {
        db.migrate().await.unwrap_or_else(|error| panic!("migrating {:?}: {error:?}", db.engine()));
        test(db).await;
    })
    .await;
}

/// The same on databases without any table.
///
/// # Panics
/// As [`each`].
pub async fn each_empty(test: impl AsyncFn(&Db)) {
    for made in [Some(empty_sqlite().await), on_server(servers::mariadb()).await, on_server(servers::postgres()).await]
        .into_iter()
        .flatten()
    {
        println!("on {:?}", made.engine());
        test(&made).await;
        made.close().await;
    }
}

/// Runs all at once and waits for all.
pub async fn at_once<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, out) in waiting.iter_mut().zip(&mut done).filter(|(_, out)| out.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(cx) {
                *out = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

async fn empty_sqlite() -> TestDb {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
    let url = format!("sqlite:///{}", folder.path().join("nova.sqlite").display());
    let db = open(&url).await;
    TestDb { db, _folder: Some(folder) }
}

async fn on_server(server: Option<&servers::Server>) -> Option<TestDb> {
    Some(create(server?).await.0)
}

async fn create(server: &servers::Server) -> (TestDb, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("nova_{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let admin = open(&server.url(server.first_database)).await;
    let mut conn = admin.write().await.unwrap_or_else(|error| panic!("{}: {error:?}", server.program));
    let created = conn.execute_once(&format!("create database {name}")).await;
    created.unwrap_or_else(|error| panic!("create database on {}: {error:?}", server.program));
    drop(conn);
    admin.close().await;
    let url = server.url(&name);
    (TestDb { db: open(&url).await, _folder: None }, url)
}

/// A database without tables on a MariaDB of the test's own that is started with `arguments`; its folder is `name`.
///
/// # Panics
/// When it does not start.
pub async fn on_mariadb_with(name: &str, arguments: &[&str]) -> Option<TestDb> {
    servers::mariadb()?;
    let server = servers::own_mariadb(name, arguments).unwrap_or_else(|error| panic!("starting {name}: {error}"));
    Some(create(&server).await.0)
}

/// A fresh, migrated database on a server of `engine` that can be reached at another port, too, and its URL.
/// `None` where the server is not installed.
///
/// # Panics
/// When it cannot be made.
pub async fn on(engine: crate::dialect::Engine) -> Option<(TestDb, String)> {
    let server = match engine {
        crate::dialect::Engine::Sqlite => return None,
        crate::dialect::Engine::MySql => servers::mariadb()?,
        crate::dialect::Engine::Postgres => servers::postgres()?,
    };
    let (made, url) = create(server).await;
    made.migrate().await.unwrap_or_else(|error| panic!("migrating {engine:?}: {error:?}"));
    Some((made, url))
}

/// A database on a server that keeps its data on a disk and syncs each commit, as an installation's does; for benches.
#[derive(Debug)]
pub struct Durable {
    /// The database, migrated and empty.
    pub db: Db,
    /// What daemons are told to come here.
    pub url: String,
    /// The server's process.
    pub pid: u32,
}

/// A fresh database on the durable server of `engine`, which starts with the first. `None` where it is not installed.
///
/// # Panics
/// When it cannot be made.
pub async fn on_durable(engine: crate::dialect::Engine) -> Option<Durable> {
    let server = servers::durable(engine)?;
    let (made, url) = create(server).await;
    made.migrate().await.unwrap_or_else(|error| panic!("migrating {engine:?}: {error:?}"));
    Some(Durable { db: made.db, url, pid: server.pid })
}

async fn open(url: &str) -> Db {
    let options = Options { max_connections: 16, ..Options::default() };
    Db::open(url, &options).await.unwrap_or_else(|error| panic!("opening {url}: {error:?}"))
}
