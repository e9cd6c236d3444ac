//! Tests of `transaction`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::conn::Conn;
use crate::dev;
use crate::dialect::Engine;
use crate::error::DbError;
use crate::open::{Db, Options};

const UPDATE: &str = "update counters set n = n + 1 where id = ?";

async fn counters(db: &Db) {
    let mut conn = db.write().await.unwrap();
    conn.execute("create table counters (id integer primary key, n integer not null)", &[]).await.unwrap();
    conn.execute("insert into counters (id, n) values (1, 0), (2, 0)", &[]).await.unwrap();
}

async fn count(db: &Db, id: i32) -> i32 {
    let mut conn = db.read().await.unwrap();
    conn.one("select n from counters where id = ?", &[id.into()]).await.unwrap().get("n").unwrap()
}

/// A caller with an error of its own.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the caller does not want it")]
    Unwanted,
    #[error(transparent)]
    Db(#[from] DbError),
}

#[tokio::test]
async fn an_error_undoes_all_of_it_and_is_not_tried_again() {
    dev::each_empty(async |db: &Db| {
        counters(db).await;
        let runs = AtomicU32::new(0);
        let refused = transaction!(db, |tx| -> Refusal {
            runs.fetch_add(1, Ordering::SeqCst);
            tx.execute(UPDATE, &[1.into()]).await?;
            if runs.load(Ordering::SeqCst) > 0 { Err(Refusal::Unwanted) } else { Ok(()) }
        });
        assert!(matches!(refused, Err(Refusal::Unwanted)), "{refused:?}");
        assert_eq!((runs.into_inner(), count(db, 1).await), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_half_way_leaves_nothing() {
    dev::each_empty(async |db: &Db| {
        counters(db).await;
        let slow = async {
            transaction!(db, |tx| {
                tx.execute(UPDATE, &[1.into()]).await?;
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            })
        };
        assert!(tokio::time::timeout(Duration::from_millis(200), slow).await.is_err());
        transaction!(db, |tx| { tx.execute(UPDATE, &[2.into()]).await }).unwrap();
        assert_eq!((count(db, 1).await, count(db, 2).await), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn two_that_lock_each_other_out_both_succeed() {
    dev::each_empty(async |db: &Db| {
        counters(db).await;
        let runs = AtomicU32::new(0);
        let both = [(1, 2), (2, 1)].map(|(first, second)| {
            let runs = &runs;
            async move {
                transaction!(db, |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tx.execute(UPDATE, &[first.into()]).await?;
                    // Long enough for the other to take its first row.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    tx.execute(UPDATE, &[second.into()]).await
                })
            }
        });
        for ended in dev::at_once(both.into_iter()).await {
            ended.unwrap();
        }
        assert_eq!((count(db, 1).await, count(db, 2).await), (2, 2));
        // SQLite has one writer, so nobody loses there.
        assert_eq!(runs.into_inner() > 2, db.engine() != Engine::Sqlite);
    })
    .await;
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_costs_a_second_run_only() {
    dev::each_empty(async |db: &Db| {
        counters(db).await;
        let runs = AtomicU32::new(0);
        transaction!(db, |tx| {
            tx.execute(UPDATE, &[1.into()]).await?;
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                cut(db, tx).await;
            }
            tx.execute(UPDATE, &[2.into()]).await
        })
        .unwrap();
        assert_eq!((count(db, 1).await, count(db, 2).await), (1, 1));
        assert_eq!(runs.into_inner(), if db.engine() == Engine::Sqlite { 1 } else { 2 });
    })
    .await;
}

/// Ends the connection of `tx` from outside, as a server that restarts does.
async fn cut(db: &Db, tx: &mut Conn) {
    let (own, end) = match db.engine() {
        Engine::Sqlite => return,
        Engine::MySql => ("select cast(connection_id() as signed) as id", ""),
        Engine::Postgres => ("select pg_backend_pid() as id", "select pg_terminate_backend(?)"),
    };
    let id: i64 = tx.one(own, &[]).await.unwrap().get("id").unwrap();
    let mut killer = db.read().await.unwrap();
    match db.engine() {
        Engine::MySql => killer.execute_once(&format!("kill {id}")).await.unwrap(),
        _ => killer.execute(end, &[i32::try_from(id).unwrap().into()]).await.unwrap(),
    };
}

#[tokio::test]
async fn a_commit_that_nobody_answers_is_in_doubt() {
    dev::each_empty(async |db: &Db| {
        counters(db).await;
        if db.engine() == Engine::Sqlite {
            return;
        }
        let mut tx = db.begin().await.unwrap();
        tx.execute(UPDATE, &[1.into()]).await.unwrap();
        cut(db, &mut tx).await;
        let ended = tx.commit().await;
        assert!(matches!(ended, Err(DbError::InDoubt(_))), "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn a_reader_of_sqlite_cannot_write() {
    let db = dev::sqlite().await;
    let refused = db.read().await.unwrap().execute("delete from instances", &[]).await;
    assert!(matches!(refused, Err(DbError::Sql(_))), "{refused:?}");
}

#[tokio::test]
async fn a_transaction_can_be_sent_to_another_thread() {
    let made = dev::sqlite().await;
    let db = (*made).clone();
    let task = tokio::spawn(async move { transaction!(db, |tx| { tx.now().await }) });
    assert!(task.await.unwrap().unwrap().year() > 2000);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_unavailable_in_time() {
    for url in ["mysql://nobody@127.0.0.1:1/nova", "postgresql://nobody@127.0.0.1:1/nova"] {
        let options = Options { acquire_timeout: Duration::from_millis(300), ..Options::default() };
        let db = Db::open(url, &options).await.unwrap();
        let asked = std::time::Instant::now();
        let refused = transaction!(db, |tx| { tx.now().await });
        assert!(matches!(refused, Err(DbError::Unavailable(_))), "{refused:?}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
}
