//! A primary and its replica, both real servers of the test's own.

use std::time::Duration;

use super::servers::{self, Server};
use crate::conn::Conn;
use crate::dialect::Engine;
use crate::open::{Db, Options};

/// Database and plain user of both servers.
const NAME: &str = "nova_pair";

/// Two servers, the second of which follows the first.
#[derive(Debug)]
pub struct Pair {
    engine: Engine,
    primary: Server,
    replica: Server,
}

impl Pair {
    /// Starts both; `name` tells the folders apart. `None` where the server is not installed (a failure with
    /// `NOVA_TEST_REQUIRE_ALL`).
    ///
    /// # Panics
    /// When they do not start or do not follow.
    pub async fn start(engine: Engine, name: &str) -> Option<Self> {
        match engine {
            Engine::Sqlite => return None,
            Engine::MySql => servers::mariadb().map(drop)?,
            Engine::Postgres => servers::postgres().map(drop)?,
        }
        let started = match engine {
            Engine::MySql => start_mariadb(name).await,
            Engine::Sqlite | Engine::Postgres => start_postgres(name).await,
        };
        let (primary, replica) = started.unwrap_or_else(|error| panic!("a pair of {engine:?}: {error}"));
        Some(Self { engine, primary, replica })
    }

    /// The URL of the primary, for a user without special rights.
    #[must_use]
    pub fn primary_url(&self) -> String {
        url(self.engine, &[self.primary.port])
    }

    /// The URL of the replica.
    #[must_use]
    pub fn replica_url(&self) -> String {
        url(self.engine, &[self.replica.port])
    }

    /// A URL with both, the replica first.
    #[must_use]
    pub fn both_url(&self) -> String {
        url(self.engine, &[self.replica.port, self.primary.port])
    }

    /// Lets the replica receive changes without showing them, or show them again.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn hold_back(&self, held: bool) {
        let word = match (self.engine, held) {
            (Engine::MySql, true) => "stop slave sql_thread",
            (Engine::MySql, false) => "start slave sql_thread",
            (_, true) => "select pg_wal_replay_pause()",
            (_, false) => "select pg_wal_replay_resume()",
        };
        say(&self.replica, &[word]).await;
    }

    /// Makes the replica the primary, and the primary one that takes no writes, as an administrator does.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn swap(&self) {
        if self.engine == Engine::MySql {
            say(&self.primary, &["set global read_only = 1"]).await;
            say(&self.replica, &["stop slave", "set global read_only = 0"]).await;
        } else {
            self.kill_primary();
            say(&self.replica, &["select pg_promote()"]).await;
        }
    }

    /// How many statements all clients of the MySQL primary together may keep prepared.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn allow_statements(&self, most: u32) {
        say(&self.primary, &[&format!("set global max_prepared_stmt_count = {most}")]).await;
    }

    /// Ends the primary as a power cut does.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill_primary(&self) {
        self.primary.kill().unwrap_or_else(|error| panic!("ending the primary: {error}"));
    }

    /// Ends the replica as a power cut does.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill_replica(&self) {
        self.replica.kill().unwrap_or_else(|error| panic!("ending the replica: {error}"));
    }
}

fn url(engine: Engine, ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (scheme, user) = if engine == Engine::MySql { ("mysql", "plain") } else { ("postgresql", "nova") };
    format!("{scheme}://{user}:a%2Fb@{}/{NAME}", hosts.join(","))
}

async fn start_mariadb(name: &str) -> std::io::Result<(Server, Server)> {
    let common = ["--log-bin=log", "--binlog-format=MIXED"];
    let primary = servers::own_mariadb(&format!("{name}-primary"), &[&common[..], &["--server-id=1"]].concat())?;
    let follows = ["--server-id=2", "--read-only=1", "--relay-log=relay", "--log-slave-updates=1"];
    let replica = servers::own_mariadb(&format!("{name}-replica"), &[&common[..], &follows].concat())?;
    let follow = format!(
        "change master to master_host = '127.0.0.1', master_port = {}, master_user = 'root', master_use_gtid = slave_pos",
        primary.port
    );
    say(&replica, &[&follow, "start slave"]).await;
    let grant = format!("grant all on {NAME}.* to plain@'%'");
    say(&primary, &[&format!("create database {NAME}"), "create user plain@'%' identified by 'a/b'", &grant]).await;
    Ok((primary, replica))
}

async fn start_postgres(name: &str) -> std::io::Result<(Server, Server)> {
    let primary = servers::own_postgres(&format!("{name}-primary"), None)?;
    say(&primary, &[&format!("create database {NAME}")]).await;
    let replica = servers::own_postgres(&format!("{name}-replica"), Some(&primary))?;
    Ok((primary, replica))
}

/// Says something to a server as its administrator. It may still be starting.
async fn say(server: &Server, words: &[&str]) {
    let options = Options { max_connections: 1, acquire_timeout: Duration::from_secs(30), ..Options::default() };
    let opened = Db::open(&server.url(server.first_database), &options).await;
    let db = opened.unwrap_or_else(|error| panic!("opening {}: {error:?}", server.program));
    let mut conn: Conn = db.write().await.unwrap_or_else(|error| panic!("{}: {error:?}", server.program));
    for word in words {
        let said = conn.execute_once(word).await;
        said.unwrap_or_else(|error| panic!("{word} on {}: {error:?}", server.program));
    }
    drop(conn);
    db.close().await;
}
