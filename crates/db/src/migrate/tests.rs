//! The migrations, on every engine, whole and cut short anywhere.

use std::collections::BTreeMap;

use super::{LATEST, MIGRATIONS, Step, statements};
use crate::dev;
use crate::dialect::Engine;
use crate::error::DbError;
use crate::open::Db;

async fn columns(db: &Db) -> BTreeMap<String, Vec<String>> {
    let mut conn = db.read().await.unwrap();
    let sql = match db.engine() {
        Engine::Sqlite => {
            "select m.name as t, c.name as c from sqlite_master m, pragma_table_xinfo(m.name) c
             where m.type = 'table' and m.name not like 'sqlite_%' order by 1, 2"
        }
        Engine::MySql => {
            "select table_name as t, column_name as c from information_schema.columns
             where table_schema = database() order by 1, 2"
        }
        Engine::Postgres => {
            "select table_name::text as t, column_name::text as c from information_schema.columns
             where table_schema = current_schema() order by 1, 2"
        }
    };
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in conn.all(sql, &[]).await.unwrap() {
        all.entry(row.get("t").unwrap()).or_default().push(row.get("c").unwrap());
    }
    all.values_mut().for_each(|columns| columns.sort());
    all
}

#[tokio::test]
async fn the_three_schemas_have_the_same_columns() {
    let first = std::sync::Mutex::new(None);
    dev::each(async |db: &Db| {
        assert_eq!(db.version().await.unwrap(), LATEST);
        db.ready().await.unwrap();
        let columns = columns(db).await;
        assert!(columns.len() > 25 && columns["instances"].len() > 40, "{columns:?}");
        let wanted = first.lock().unwrap().get_or_insert_with(|| columns.clone()).clone();
        assert_eq!(columns, wanted);
    })
    .await;
}

#[tokio::test]
async fn a_migration_killed_at_any_point_is_finished_by_the_next() {
    dev::each_empty(async |db: &Db| {
        let all: usize = MIGRATIONS.iter().map(|(_, text)| statements(text).len()).sum();
        let mut killed = 0;
        loop {
            // Each run dies at the first point it reaches that no run has reached before.
            let mut died = None;
            let run = db
                .migrate_watched(|step| {
                    died = Some(step);
                    // Where statement and journal are one transaction, dying between them undoes both, for ever.
                    let dies = db.engine() == Engine::MySql && killed % 2 == 0 || step == Step::Noted;
                    if dies { Err(DbError::NotFound("power")) } else { Ok(()) }
                })
                .await;
            match run {
                Ok(()) => break,
                Err(DbError::NotFound("power")) => killed += 1,
                Err(other) => panic!("after {killed} kills: {other:?}"),
            }
        }
        assert!(killed >= all, "{killed} kills for {all} statements");
        db.ready().await.unwrap();
        let lines: i64 = {
            let mut conn = db.read().await.unwrap();
            conn.one("select count(*) as n from migrate_journal", &[]).await.unwrap().get("n").unwrap()
        };
        assert_eq!(usize::try_from(lines).unwrap(), all);
    })
    .await;
}

#[tokio::test]
async fn two_migrations_at_once_do_not_disturb_each_other() {
    dev::each_empty(async |db: &Db| {
        let (a, b) = tokio::join!(db.migrate(), db.migrate());
        a.unwrap();
        b.unwrap();
        db.ready().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_and_another_novas_are_refused() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let newer = LATEST + 1;
        conn.execute("update migrate_version set version = ?", &[newer.into()]).await.unwrap();
        drop(conn);
        for refused in [db.migrate().await, db.ready().await] {
            assert!(matches!(refused, Err(DbError::SchemaVersion { found, .. }) if found == newer), "{refused:?}");
        }
        let mut conn = db.write().await.unwrap();
        conn.execute("update migrate_version set version = 2", &[]).await.unwrap();
        conn.execute("drop table migrate_journal", &[]).await.unwrap();
        drop(conn);
        let refused = db.migrate().await;
        assert!(matches!(refused, Err(DbError::Foreign(2))), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_table_without_transactions_is_refused() {
    dev::each(async |db: &Db| {
        if db.engine() == Engine::MySql {
            db.write().await.unwrap().execute("create table old (id integer) engine=MyISAM", &[]).await.unwrap();
            let refused = db.ready().await;
            assert!(matches!(&refused, Err(DbError::NoTransactions(table)) if table == "old"), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_default_is_without_transactions_still_gets_tables_with_them() {
    let Some(db) = dev::on_mariadb_with("myisam", &["--default-storage-engine=MyISAM"]).await else { return };
    db.migrate().await.unwrap();
    // Nor is a table that an administrator adds by hand, through us, without them.
    db.write().await.unwrap().execute_once("create table own (id integer)").await.unwrap();
    db.ready().await.unwrap();
    db.write().await.unwrap().execute_once("alter table key_pairs engine=Aria").await.unwrap();
    for refused in [db.ready().await, db.migrate().await] {
        let line = refused.unwrap_err().to_string();
        assert_eq!(line, "table key_pairs is in a storage engine without transactions; convert it to InnoDB");
    }
}

#[tokio::test]
async fn a_server_without_innodb_is_refused() {
    let arguments = ["--skip-innodb", "--default-storage-engine=Aria"];
    let Some(db) = dev::on_mariadb_with("no-innodb", &arguments).await else { return };
    for refused in [db.migrate().await, db.ready().await] {
        assert!(matches!(refused, Err(DbError::NoInnoDb)), "{refused:?}");
    }
    assert_eq!(db.version().await.unwrap(), 0);
}
