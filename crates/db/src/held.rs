//! A driver's connection while somebody uses it, and how it goes back to its pool.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Database, Executor as _, MySql, Postgres, Sqlite};

/// No statement of ours takes as long, so a server that does not answer within it is gone. Migrations and exports, which
/// may take longer, do not wait by it.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

pub(crate) enum Raw {
    Sqlite(Held<Sqlite>),
    MySql(Held<MySql>),
    Postgres(Held<Postgres>),
}

/// A connection of a pool. Dropped within a transaction it is closed, which rolls back.
pub(crate) struct Held<DB: Database> {
    /// `None` only while being dropped.
    conn: Option<PoolConnection<DB>>,
    begun: bool,
    dead: bool,
}

impl<DB: Database> Held<DB> {
    pub(crate) fn new(conn: PoolConnection<DB>) -> Self {
        Self { conn: Some(conn), begun: false, dead: false }
    }

    pub(crate) fn get(&mut self) -> &mut DB::Connection {
        #[expect(clippy::expect_used, reason = "it is taken out by drop alone")]
        self.conn.as_mut().expect("held until dropped")
    }
}

impl<DB: Database> Drop for Held<DB> {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        if self.dead {
            // Saying goodbye to a server that does not answer would take for ever, and the pool would wait for it.
            drop(conn.detach());
        } else if self.begun {
            conn.close_on_drop();
        }
    }
}

/// What is the same for each driver.
macro_rules! each {
    ($self:expr, $held:ident => $do:expr) => {
        match $self {
            Raw::Sqlite($held) => $do,
            Raw::MySql($held) => $do,
            Raw::Postgres($held) => $do,
        }
    };
}

impl Raw {
    /// Throws the connection away instead of giving it back.
    pub(crate) fn kill(&mut self) {
        each!(self, held => held.dead = true);
    }

    pub(crate) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        // Before it is sent: who is interrupted does not know.
        each!(self, held => held.begun = true);
        // SQLite is to take its write lock at once: getting it later can fail halfway.
        let begin = if matches!(self, Self::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let begun = self.say(begin).await;
        if begun.is_err() {
            self.kill();
        }
        begun
    }

    pub(crate) async fn end(mut self, commit: bool) -> Result<(), sqlx::Error> {
        let ended = self.say(if commit { "COMMIT" } else { "ROLLBACK" }).await;
        each!(&mut self, held => held.begun = ended.is_err());
        if matches!(ended, Err(sqlx::Error::Io(_))) {
            self.kill();
        }
        ended
    }

    async fn say(&mut self, word: &'static str) -> Result<(), sqlx::Error> {
        let said = async {
            match self {
                Self::Sqlite(held) => {
                    let conn: &mut SqliteConnection = held.get();
                    conn.execute(word).await.map(drop)
                }
                Self::MySql(held) => {
                    let conn: &mut MySqlConnection = held.get();
                    conn.execute(word).await.map(drop)
                }
                Self::Postgres(held) => {
                    let conn: &mut PgConnection = held.get();
                    conn.execute(word).await.map(drop)
                }
            }
        };
        within(Some(STATEMENT_LIMIT), said).await
    }
}

/// Waits for an answer, and not for ever.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let Some(limit) = limit else { return answer.await };
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer"));
    tokio::time::timeout(limit, answer).await.map_err(late)?
}
