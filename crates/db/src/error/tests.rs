//! Tests of `error`.

use std::collections::{BTreeMap, BTreeSet};

use super::UNIQUES;
use crate::dev;
use crate::dialect::Engine;
use crate::open::Db;

#[tokio::test]
async fn every_unique_key_of_the_schema_has_a_meaning() {
    dev::each(async |db: &Db| {
        let mut conn = db.read().await.unwrap();
        let (wanted, found): (BTreeSet<String>, BTreeSet<String>) = match db.engine() {
            Engine::Sqlite => {
                let sql = "select m.name as t, l.name as k, c.name as c from sqlite_master m, \
                    pragma_index_list(m.name) l, pragma_index_info(l.name) c \
                    where m.type = 'table' and l.\"unique\" = 1 and l.origin <> 'pk' order by l.name, c.seqno";
                let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for row in conn.all(sql, &[]).await.unwrap() {
                    let (table, column): (String, String) = (row.get("t").unwrap(), row.get("c").unwrap());
                    let key = keys.entry(row.get("k").unwrap()).or_default();
                    if column != "live" {
                        key.push(format!("{table}.{column}"));
                    }
                }
                let wanted = UNIQUES.iter().map(|(_, columns, _)| (*columns).to_owned()).collect();
                (wanted, keys.into_values().map(|columns| columns.join(", ")).collect())
            }
            engine @ (Engine::MySql | Engine::Postgres) => {
                let sql = if engine == Engine::MySql {
                    "select cast(constraint_name as char(64)) as name from information_schema.table_constraints \
                     where constraint_type = 'UNIQUE' and table_schema = database()"
                } else {
                    "select cast(indexname as char(64)) as name from pg_indexes where schemaname = current_schema() \
                     and indexdef like 'CREATE UNIQUE %' and indexname not like '%pkey'"
                };
                let rows = conn.all(sql, &[]).await.unwrap();
                let found = rows.iter().map(|row| row.get::<String>("name").unwrap().trim().to_owned()).collect();
                (UNIQUES.iter().map(|(name, ..)| (*name).to_owned()).collect(), found)
            }
        };
        assert_eq!(found, wanted);
    })
    .await;
}
