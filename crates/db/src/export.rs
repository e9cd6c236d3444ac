//! Moves all rows of one database to another, empty one: from SQLite to a server when one machine becomes several.
//!
//! The source is locked against writers while it is read, and the target gets everything in one transaction, which is
//! committed only after it was read back and found to be the same. So an export that fails leaves the target empty.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::conn::{Conn, Tx};
use crate::dialect::Engine;
use crate::error::DbError;
use crate::open::Db;
use crate::row::Row;
use crate::value::Value;

/// All tables with rows worth keeping, each after those it refers to.
const TABLES: &[&str] = &[
    "services",
    "instances",
    "networks",
    "fixed_ips",
    "floating_ips",
    "security_groups",
    "security_group_rules",
    "security_group_instance_association",
    "volumes",
    "export_devices",
    "key_pairs",
    "quotas",
    "users",
    "projects",
    "user_project_association",
    "user_role_association",
    "user_project_role_association",
    "auth_tokens",
    "certificates",
    "console_pools",
    "consoles",
    "instance_actions",
    "iscsi_targets",
    "compute_nodes",
    "images",
    "quota_usages",
    "client_tokens",
    "instance_tags",
    "service_keys",
    "evacuations",
];

/// Rows read at once.
const BATCH: i32 = 256;
/// Most bytes of text in one statement; servers take 16 MiB and more.
const STATEMENT_BYTES: usize = 1 << 20;

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database to read is no SQLite file, or the one to write is.
    #[error("an export goes from sqlite to mysql or postgresql")]
    Direction,
    /// Somebody's rows are in the target already.
    #[error("the target is not empty: there are rows in {0}")]
    NotEmpty(&'static str),
    /// The target refused rows, or one of both could not be asked.
    #[error("copying {table}")]
    Table {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        source: DbError,
    },
    /// What the target holds is not what it was given.
    #[error("{table} arrived changed: {sent} rows were sent, {arrived} are there, or one differs")]
    Differs {
        /// The table.
        table: &'static str,
        /// Rows that were sent.
        sent: u64,
        /// Rows that arrived.
        arrived: u64,
    },
    /// One of the databases cannot be used.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A table that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// Makes the schema in `target` and copies all of `source` there, or nothing.
///
/// Daemons must not use either meanwhile: those of the source would wait for its lock.
///
/// # Errors
/// Any [`ExportError`]; the target is then without rows, except after [`DbError::InDoubt`]: it has all or none.
pub async fn copy(source: &Db, target: &Db) -> Result<Vec<Copied>, ExportError> {
    if source.engine() != Engine::Sqlite || target.engine() == Engine::Sqlite {
        return Err(ExportError::Direction);
    }
    source.ready().await?;
    target.migrate().await?;
    target.ready().await?;
    let mut from = source.begin().await?;
    count_on(&mut from, target).await?;
    let mut to = target.begin().await?;
    let mut copied = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let failed = |source| ExportError::Table { table, source };
        lock_empty(&mut to, table).await?;
        let columns = columns(&mut from, table).await.map_err(failed)?;
        let sent = send(&mut from, &mut to, table, &columns).await.map_err(failed)?;
        let arrived = digest(&mut to, table, &columns).await.map_err(failed)?;
        if sent != arrived {
            return Err(ExportError::Differs { table, sent: sent.rows, arrived: arrived.rows });
        }
        copied.push(Copied { table, rows: sent.rows });
    }
    to.commit().await?;
    from.rollback().await?;
    Ok(copied)
}

/// A column as the migrations declared it.
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Int,
    Big,
    Bool,
    Time,
    Text,
}

/// What a table's rows come to, whatever their order.
#[derive(Default, PartialEq, Eq)]
struct Digest {
    rows: u64,
    sum: u64,
}

impl Digest {
    fn add(&mut self, row: &[Value]) {
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// The columns that are stored. `live` is computed by each database for itself.
async fn columns(from: &mut Conn, table: &str) -> Result<Vec<Column>, DbError> {
    let sql = "select name, lower(type) as kind from pragma_table_xinfo(?) where hidden = 0 order by cid";
    let rows = from.all(sql, &[table.into()]).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.get("kind")?;
            let kind = match kind.split('(').next().unwrap_or_default() {
                "integer" => Kind::Int,
                "bigint" => Kind::Big,
                "boolean" => Kind::Bool,
                "datetime" => Kind::Time,
                "varchar" | "text" => Kind::Text,
                _ => return Err(DbError::Corrupt { column: "type", value: kind }),
            };
            Ok(Column { name: row.get("name")?, kind })
        })
        .collect()
}

/// Makes the target give new rows the ids that the source would have given: an id that was somebody's is nobody else's.
/// This is no part of a transaction on MySQL, and does no harm where it stays alone.
async fn count_on(from: &mut Conn, target: &Db) -> Result<(), ExportError> {
    let mut conn = target.write().await?;
    for table in TABLES {
        let failed = |source| ExportError::Table { table, source };
        let counted = from.optional("select seq from sqlite_sequence where name = ?", &[(*table).into()]).await;
        let Some(row) = counted.map_err(failed)? else { continue };
        let last: i64 = row.get("seq").map_err(failed)?;
        let next = last.saturating_add(1);
        let sql = match target.engine() {
            Engine::MySql => format!("alter table {table} auto_increment = {next}"),
            _ => format!("alter table {table} alter column id restart with {next}"),
        };
        conn.execute_once(&sql).await.map_err(failed)?;
    }
    Ok(())
}

/// Makes sure that nobody's rows are there.
async fn lock_empty(to: &mut Tx, table: &'static str) -> Result<(), ExportError> {
    let failed = |source| ExportError::Table { table, source };
    if to.engine() == Engine::Postgres {
        to.execute_once(&format!("lock table {table} in exclusive mode")).await.map_err(failed)?;
    }
    let found = to.all_text(&format!("select 1 as one from {table} limit 1 {{for_update}}"), &[]).await;
    if found.map_err(failed)?.is_empty() { Ok(()) } else { Err(ExportError::NotEmpty(table)) }
}

async fn send(from: &mut Conn, to: &mut Conn, table: &str, columns: &[Column]) -> Result<Digest, DbError> {
    let (names, mut digest, mut last) = (names(columns), Digest::default(), i64::MIN);
    let read = format!("select rowid as nova_row, {names} from {table} where rowid > ? order by rowid limit ?");
    let head = format!("insert into {table} ({names})");
    loop {
        let rows = from.all_text(&read, &[last.into(), BATCH.into()]).await?;
        let Some(end) = rows.last() else { return Ok(digest) };
        last = end.get("nova_row")?;
        let (mut group, mut bytes) = (Vec::new(), 0);
        for row in &rows {
            let values = values(row, columns)?;
            digest.add(&values);
            let size = size(&values);
            if bytes + size > STATEMENT_BYTES && !group.is_empty() {
                to.insert_many_text(&head, &group).await?;
                (group, bytes) = (Vec::new(), 0);
            }
            bytes += size;
            group.push(values);
        }
        to.insert_many_text(&head, &group).await?;
    }
}

async fn digest(to: &mut Conn, table: &str, columns: &[Column]) -> Result<Digest, DbError> {
    let (names, mut digest) = (names(columns), Digest::default());
    let numbered = columns.iter().any(|column| column.name == "id" && matches!(column.kind, Kind::Int));
    // Tables without a number are short, and nobody else can write meanwhile.
    let key = if numbered { "id" } else { names.as_str() };
    let (scope, mut at) = if numbered { ("where id > ?", i32::MIN) } else { ("", 0) };
    let end = if numbered { "limit ?" } else { "limit ? offset ?" };
    let sql = format!("select {names} from {table} {scope} order by {key} {end}");
    loop {
        let args = if numbered { [at.into(), BATCH.into()] } else { [BATCH.into(), at.into()] };
        let rows = to.all_text(&sql, &args).await?;
        for row in &rows {
            digest.add(&values(row, columns)?);
        }
        match rows.last() {
            Some(last) if numbered => at = last.get("id")?,
            Some(_) => at += BATCH,
            None => return Ok(digest),
        }
    }
}

/// Quoted: one of them is a word of SQL.
fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

fn values(row: &Row, columns: &[Column]) -> Result<Vec<Value>, DbError> {
    columns
        .iter()
        .map(|Column { name, kind }| {
            Ok(match kind {
                Kind::Int => Value::Int(row.get(name)?),
                Kind::Big => Value::Big(row.get(name)?),
                Kind::Bool => Value::Bool(row.get(name)?),
                Kind::Time => Value::Time(row.get(name)?),
                Kind::Text => Value::Text(row.get(name)?),
            })
        })
        .collect()
}

fn size(values: &[Value]) -> usize {
    let text = |value: &Value| match value {
        Value::Text(Some(text)) => text.len(),
        _ => 8,
    };
    values.iter().map(text).sum()
}

#[cfg(test)]
mod tests;
