//! Everything, to every server.

use std::collections::BTreeSet;

use time::macros::datetime;

use super::{Column, Copied, ExportError, Kind, TABLES, columns, copy, names, values};
use crate::dev::{self, TestDb};
use crate::dialect::Engine;
use crate::error::DbError;
use crate::open::Db;
use crate::value::Value;

/// Five characters, for one column has room for no more.
const TEXTS: [&str; 2] = ["é'\\🦀\"", "b\n;?{"];

/// Two rows in every table: the first without a NULL, the second with as many as may be.
async fn full() -> TestDb {
    let db = dev::sqlite().await;
    let mut conn = db.write().await.unwrap();
    for table in TABLES {
        let sql = "select name from pragma_table_xinfo(?) where \"notnull\" = 0 and pk = 0 and hidden = 0";
        let optional = conn.all(sql, &[(*table).into()]).await.unwrap();
        let optional: BTreeSet<String> = optional.iter().map(|row| row.get("name").unwrap()).collect();
        let columns = columns(&mut conn, table).await.unwrap();
        for (number, text) in (1_i32..).zip(TEXTS) {
            let row = columns.iter().map(|column| value(column, number, text, &optional)).collect::<Vec<_>>();
            conn.insert_many_text(&format!("insert into {table} ({})", names(&columns)), &[row]).await.unwrap();
        }
    }
    // An id that was given once is not given again.
    conn.execute("update sqlite_sequence set seq = 9 where name = 'key_pairs'", &[]).await.unwrap();
    drop(conn);
    db
}

fn value(column: &Column, number: i32, text: &str, optional: &BTreeSet<String>) -> Value {
    let none = number == 2 && optional.contains(&column.name);
    match column.kind {
        Kind::Int => Value::Int((!none).then_some(number)),
        Kind::Big => Value::Big((!none).then_some(i64::MAX - i64::from(number))),
        Kind::Bool => Value::Bool((!none).then_some(false)),
        Kind::Time => Value::Time((!none).then_some(datetime!(2011-02-03 04:05:06.789012 UTC))),
        Kind::Text => Value::Text((!none).then(|| text.to_owned())),
    }
}

async fn all(db: &Db, table: &str, columns: &[Column]) -> Vec<Vec<Value>> {
    let mut conn = db.read().await.unwrap();
    let rows = conn.all_text(&format!("select {} from {table}", names(columns)), &[]).await.unwrap();
    let mut rows: Vec<Vec<Value>> = rows.iter().map(|row| values(row, columns).unwrap()).collect();
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}

#[tokio::test]
async fn every_table_is_copied_or_known_not_to_be() {
    let db = dev::sqlite().await;
    let sql = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'";
    let rows = db.read().await.unwrap().all(sql, &[]).await.unwrap();
    let there: BTreeSet<String> = rows.iter().map(|row| row.get("name").unwrap()).collect();
    let books = ["migrate_version", "migrate_journal", "replication_heartbeat"];
    let known: BTreeSet<String> = TABLES.iter().chain(&books).map(|table| (*table).to_owned()).collect();
    assert_eq!(there, known);
}

#[tokio::test]
async fn all_rows_arrive_as_they_were_and_counting_goes_on() {
    let source = full().await;
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((target, _)) = dev::on(engine).await else { continue };
        let copied = copy(&source, &target).await.unwrap();
        assert_eq!(copied, TABLES.iter().map(|table| Copied { table, rows: 2 }).collect::<Vec<_>>());
        for table in TABLES {
            let columns = columns(&mut source.read().await.unwrap(), table).await.unwrap();
            assert_eq!(all(&target, table, &columns).await, all(&source, table, &columns).await, "{engine:?} {table}");
        }
        let mut conn = target.write().await.unwrap();
        for (sql, id) in [
            ("insert into key_pairs (name, user_id, fingerprint, public_key) values ('n', 'u', 'f', 'k')", 10),
            ("insert into services (host, \"binary\", topic) values ('h', 'b', 't')", 3),
        ] {
            assert_eq!(conn.insert(sql, &[]).await.unwrap(), id, "{engine:?}");
        }
        drop(conn);
        let again = copy(&source, &target).await;
        assert!(matches!(again, Err(ExportError::NotEmpty("services"))), "{again:?}");
    }
}

#[tokio::test]
async fn an_export_that_fails_leaves_nothing_and_can_be_repeated() {
    let source = full().await;
    let set = async |sql: &'static str, text: &str| {
        source.write().await.unwrap().execute(sql, &[text.into()]).await.unwrap();
    };
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((target, _)) = dev::on(engine).await else { continue };
        // SQLite takes what servers find too long.
        set("update instance_tags set tag_value = ? where id = 2", &"x".repeat(300)).await;
        let refused = copy(&source, &target).await;
        let named = matches!(&refused, Err(ExportError::Table { table: "instance_tags", source: DbError::Sql(_) }));
        assert!(named, "{engine:?} {refused:?}");
        for table in TABLES {
            let sql = format!("select count(*) as n from {table}");
            let rows = target.read().await.unwrap().all_text(&sql, &[]).await.unwrap();
            assert_eq!(rows[0].get::<i64>("n").unwrap(), 0, "{engine:?} {table}");
        }
        set("update instance_tags set tag_value = ? where id = 2", "short").await;
        assert_eq!(copy(&source, &target).await.unwrap().len(), TABLES.len());
    }
}

#[tokio::test]
async fn many_rows_and_long_ones_go_in_pieces() {
    let source = dev::sqlite().await;
    let mut conn = source.write().await.unwrap();
    let long = "0123456789abcdef".repeat(8 * 1024);
    let row = |n: i32| vec![format!("k{n}").into(), "joe".into(), "f".into(), long.as_str().into()];
    let rows: Vec<Vec<Value>> = (0..600).map(row).collect();
    let head = "insert into key_pairs (name, user_id, fingerprint, public_key)";
    conn.insert_many(head, &rows).await.unwrap();
    drop(conn);
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((target, _)) = dev::on(engine).await else { continue };
        let copied = copy(&source, &target).await.unwrap();
        assert_eq!(copied.iter().map(|table| table.rows).sum::<u64>(), 600);
    }
}

#[tokio::test]
async fn an_export_goes_from_sqlite_to_a_server_only() {
    let (one, two) = (dev::sqlite().await, dev::sqlite().await);
    assert!(matches!(copy(&one, &two).await, Err(ExportError::Direction)));
}
