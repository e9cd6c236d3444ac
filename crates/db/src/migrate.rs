//! Brings the schema to this program's version. Forward only, and restartable at any statement: MySQL commits each
//! change of a table by itself, so a journal says which ones are done.

use std::collections::HashSet;

use tracing::info;

use crate::conn::Conn;
use crate::dialect::Engine;
use crate::error::{DbError, Unique};
use crate::open::Db;

/// The version this program needs.
pub const LATEST: i32 = 109;

/// All versions, in order. One source for all engines, so that they cannot drift apart.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../../../migrations/0001_austin.sql")),
    (2, include_str!("../../../migrations/0002_bexar.sql")),
    (100, include_str!("../../../migrations/0100_ours.sql")),
    (101, include_str!("../../../migrations/0101_replicas.sql")),
    (102, include_str!("../../../migrations/0102_service_keys.sql")),
    (103, include_str!("../../../migrations/0103_leases.sql")),
    (104, include_str!("../../../migrations/0104_changed_hosts.sql")),
    (105, include_str!("../../../migrations/0105_addresses.sql")),
    (106, include_str!("../../../migrations/0106_routers.sql")),
    (108, include_str!("../../../migrations/0108_changed_addresses.sql")),
    (LATEST, include_str!("../../../migrations/0109_domains.sql")),
];

/// `migrate_version` is what sqlalchemy-migrate kept, so that old tools can still ask; the journal is ours.
const BOOKS: &[&str] = &[
    "create table if not exists migrate_version (
       repository_id varchar(250) not null primary key, repository_path {text}, version integer
     ) {table}",
    "create table if not exists migrate_journal (
       version integer not null, statement integer not null, finished_at {datetime} not null,
       primary key (version, statement)
     ) {table}",
];

/// Where a migration stands; for the test that kills it everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The statement is done, but on an engine without transactional DDL not yet in the journal.
    Done,
    /// The statement is in the journal.
    Noted,
}

impl Db {
    /// Brings the schema to this program's version. Does nothing where it is; several may run at once.
    ///
    /// # Errors
    /// [`DbError::SchemaVersion`] when the schema is newer, [`DbError::Foreign`] when another Nova made it,
    /// [`DbError::NoTransactions`] when a table cannot keep our promises.
    pub async fn migrate(&self) -> Result<(), DbError> {
        self.migrate_watched(|_| Ok(())).await
    }

    /// The version of the schema; 0 for an empty database.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when the database cannot be asked.
    pub async fn version(&self) -> Result<i32, DbError> {
        version(&mut self.read().await?).await
    }

    /// Checks that the database can be reached, keeps transactions and has this program's schema.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: ask again later. [`DbError::SchemaVersion`] or [`DbError::NoTransactions`]: an
    /// administrator must act.
    pub async fn ready(&self) -> Result<(), DbError> {
        let mut conn = self.read().await?;
        refuse_without_transactions(&mut conn).await?;
        match version(&mut conn).await? {
            LATEST => Ok(()),
            found => Err(DbError::SchemaVersion { found, wanted: LATEST }),
        }
    }

    pub(crate) async fn migrate_watched(
        &self,
        mut watch: impl FnMut(Step) -> Result<(), DbError> + Send,
    ) -> Result<(), DbError> {
        let mut conn = self.write().await?;
        refuse_without_transactions(&mut conn).await?;
        let found = version(&mut conn).await?;
        if found > LATEST || (found > 0 && !MIGRATIONS.iter().any(|(v, _)| *v == found)) {
            return Err(DbError::SchemaVersion { found, wanted: LATEST });
        }
        if found == LATEST {
            return Ok(());
        }
        if found > 0 && !has_table(&mut conn, "migrate_journal").await? {
            return Err(DbError::Foreign(found));
        }
        for statement in BOOKS {
            ignore_race(conn.execute_once(statement).await)?;
        }
        drop(conn);
        for (version, text) in MIGRATIONS {
            match self.migrate_to(*version, text, &mut watch).await {
                // Another run noted the same in the same moment; what it did need not be done again.
                Err(DbError::Duplicate(Unique::PrimaryKey)) => self.migrate_to(*version, text, &mut watch).await?,
                done => done?,
            }
        }
        Ok(())
    }

    async fn migrate_to(
        &self,
        version: i32,
        text: &'static str,
        watch: &mut (impl FnMut(Step) -> Result<(), DbError> + Send),
    ) -> Result<(), DbError> {
        let done: HashSet<i32> = {
            let mut conn = self.read().await?;
            let rows = conn.all("select statement from migrate_journal where version = ?", &[version.into()]).await?;
            rows.iter().map(|row| row.get("statement")).collect::<Result<_, _>>()?
        };
        for (number, statement) in (0_i32..).zip(statements(text)) {
            if !done.contains(&number) {
                self.migrate_one(version, number, &statement, watch).await?;
            }
        }
        let mut tx = self.begin().await?;
        lock(&mut tx).await?;
        let stamped = stamp(&mut tx, version).await;
        unlock(&mut tx).await?;
        stamped?;
        tx.commit().await?;
        info!(version, "The schema is at version {version}.");
        Ok(())
    }

    /// One statement and its line in the journal: together where the engine can, one after the other where it cannot.
    async fn migrate_one(
        &self,
        version: i32,
        number: i32,
        statement: &str,
        watch: &mut (impl FnMut(Step) -> Result<(), DbError> + Send),
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        lock(&mut tx).await?;
        let ran = run_and_note(&mut tx, (version, number), statement, watch).await;
        unlock(&mut tx).await?;
        ran?;
        tx.commit().await?;
        watch(Step::Noted)
    }
}

/// One migration at a time.
async fn lock(tx: &mut Conn) -> Result<(), DbError> {
    match tx.engine() {
        Engine::Postgres => tx.execute_once("select pg_advisory_xact_lock(1852798561)").await.map(|_| ()),
        Engine::MySql => tx.execute_once("select get_lock('nova_migrate', 3600)").await.map(|_| ()),
        // BEGIN IMMEDIATE has done it.
        Engine::Sqlite => Ok(()),
    }
}

/// Named locks of MySQL outlive transactions. What was noted is committed first: who gets the lock next must read it.
async fn unlock(tx: &mut Conn) -> Result<(), DbError> {
    match tx.engine() {
        Engine::MySql => {
            let committed = tx.execute_once("commit").await;
            tx.execute("select release_lock('nova_migrate')", &[]).await?;
            committed.map(|_| ())
        }
        Engine::Postgres | Engine::Sqlite => Ok(()),
    }
}

async fn stamp(tx: &mut Conn, version: i32) -> Result<(), DbError> {
    match self::version(tx).await? {
        0 => {
            let sql = "insert into migrate_version (repository_id, version) values ('nova', ?)";
            tx.execute(sql, &[version.into()]).await?;
        }
        found if found < version => {
            tx.execute("update migrate_version set version = ?", &[version.into()]).await?;
        }
        _ => {}
    }
    Ok(())
}

async fn run_and_note(
    tx: &mut Conn,
    (version, number): (i32, i32),
    statement: &str,
    watch: &mut (impl FnMut(Step) -> Result<(), DbError> + Send),
) -> Result<(), DbError> {
    let line = [version.into(), number.into()];
    let noted = "select 1 as one from migrate_journal where version = ? and statement = ?";
    if tx.optional(noted, &line).await?.is_some() {
        return Ok(());
    }
    let ran = tx.execute_once(statement).await;
    if tx.engine() == Engine::MySql {
        ignore_race(ran)?
    } else {
        ran.map(|_| ())?
    }
    watch(Step::Done)?;
    tx.execute("insert into migrate_journal (version, statement, finished_at) values (?, ?, {now})", &line).await?;
    Ok(())
}

/// Lets a statement pass that found its work done: by a run that died before it could note it, or by another just now.
fn ignore_race(ran: Result<u64, DbError>) -> Result<(), DbError> {
    match ran {
        Err(DbError::Sql(sqlx::Error::Database(refusal))) if already_there(refusal.as_ref()) => Ok(()),
        Err(DbError::Duplicate(_)) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// MySQL: table, column or index exists. PostgreSQL: two `create … if not exists` at once.
fn already_there(refusal: &dyn sqlx::error::DatabaseError) -> bool {
    let mysql = refusal.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, |e| e.number());
    matches!(mysql, 1050 | 1060 | 1061) || refusal.code().as_deref() == Some("42P07")
}

/// The statements of a migration, without comments.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n") + "\n";
    code.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

async fn version(conn: &mut Conn) -> Result<i32, DbError> {
    if !has_table(conn, "migrate_version").await? {
        return Ok(0);
    }
    // Another Nova's row bears another repository name now and then; there is one row in all of them.
    let row = conn.optional("select version from migrate_version order by version desc limit 1", &[]).await?;
    row.map_or(Ok(0), |row| row.get("version"))
}

async fn has_table(conn: &mut Conn, table: &'static str) -> Result<bool, DbError> {
    let sql = match conn.engine() {
        Engine::Sqlite => "select 1 as one from sqlite_master where type = 'table' and name = ?",
        Engine::MySql => {
            "select 1 as one from information_schema.tables where table_schema = database() and table_name = ?"
        }
        Engine::Postgres => {
            "select 1 as one from information_schema.tables where table_schema = current_schema() and table_name = ?"
        }
    };
    Ok(conn.optional(sql, &[table.into()]).await?.is_some())
}

/// Old Nova's migrations let MySQL choose the engine, which was MyISAM: no transactions, no row locks.
async fn refuse_without_transactions(conn: &mut Conn) -> Result<(), DbError> {
    if conn.engine() != Engine::MySql {
        return Ok(());
    }
    let inno_db =
        "select 1 as one from information_schema.engines where engine = 'InnoDB' and support in ('YES', 'DEFAULT')";
    if conn.optional(inno_db, &[]).await?.is_none() {
        return Err(DbError::NoInnoDb);
    }
    let row = conn
        .optional(
            "select t.table_name as name from information_schema.tables t
             left join information_schema.engines e on e.engine = t.engine
             where t.table_schema = database() and t.table_type = 'BASE TABLE' and coalesce(e.transactions, 'NO') <> 'YES'
             limit 1",
            &[],
        )
        .await?;
    row.map_or(Ok(()), |row| Err(DbError::NoTransactions(row.get("name")?)))
}

#[cfg(test)]
mod tests;
