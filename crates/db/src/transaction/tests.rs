//! Tests of `transaction`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::conn::Conn;
use crate::dev;
use crate::dev::pair::Pair;
use crate::dev::proxy::{Commit, Proxy};
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

/// A database of one connection, so that what is said to one is true for the next transaction, too.
async fn narrow(url: &str) -> Db {
    Db::open(url, &Options { max_connections: 1, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn a_lock_that_is_not_had_in_time_undoes_all_and_is_tried_again() {
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((db, url)) = dev::on(engine).await else { continue };
        counters(&db).await;
        let hasty = narrow(&url).await;
        let limit = match engine {
            Engine::MySql => "set session innodb_lock_wait_timeout = 1",
            _ => "set lock_timeout = '300ms'",
        };
        hasty.write().await.unwrap().execute_once(limit).await.unwrap();
        let mut holder = db.begin().await.unwrap();
        holder.execute(UPDATE, &[1.into()]).await.unwrap();
        let runs = AtomicU32::new(0);
        let waiter = async {
            transaction!(hasty, |tx| {
                runs.fetch_add(1, Ordering::SeqCst);
                // MySQL alone keeps this when the next statement gives up.
                tx.execute(UPDATE, &[2.into()]).await?;
                tx.execute(UPDATE, &[1.into()]).await
            })
        };
        let release = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            holder.commit().await
        };
        let (waited, released) = tokio::join!(waiter, release);
        waited.unwrap();
        released.unwrap();
        assert_eq!((count(&db, 1).await, count(&db, 2).await), (2, 1), "{engine:?}");
        assert!(runs.into_inner() > 1);
    }
}

#[tokio::test]
async fn a_snapshot_that_others_overtook_is_tried_again() {
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((db, url)) = dev::on(engine).await else { continue };
        counters(&db).await;
        let old = narrow(&url).await;
        let strict = match engine {
            Engine::MySql => "set session transaction isolation level repeatable read",
            _ => "set session characteristics as transaction isolation level serializable",
        };
        old.write().await.unwrap().execute_once(strict).await.unwrap();
        let runs = AtomicU32::new(0);
        transaction!(old, |tx| {
            let seen: i32 = tx.one("select n from counters where id = 1", &[]).await?.get("n")?;
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                db.write().await?.execute(UPDATE, &[1.into()]).await?;
            }
            tx.execute("update counters set n = ? where id = 1", &[(seen + 1).into()]).await
        })
        .unwrap();
        assert_eq!((count(&db, 1).await, runs.into_inner()), (2, 2), "{engine:?}");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_believed() {
    for (engine, what, done) in [
        (Engine::MySql, Commit::Lost, 0),
        (Engine::MySql, Commit::Unanswered, 1),
        (Engine::Postgres, Commit::Lost, 0),
        (Engine::Postgres, Commit::Unanswered, 1),
    ] {
        let Some((db, url)) = dev::on(engine).await else { continue };
        counters(&db).await;
        let (proxy, through) = Proxy::before(&url).await;
        let far = Db::open(&through, &Options::default()).await.unwrap();
        proxy.next_commit(what);
        let runs = AtomicU32::new(0);
        let ended = transaction!(far, |tx| {
            runs.fetch_add(1, Ordering::SeqCst);
            tx.execute(UPDATE, &[1.into()]).await
        });
        assert!(matches!(ended, Err(DbError::InDoubt(_))) && proxy.is_done(), "{engine:?} {what:?}: {ended:?}");
        assert_eq!((runs.into_inner(), count(&db, 1).await), (1, done), "{engine:?} {what:?}");
        // What comes next is not disturbed by the connection that broke.
        transaction!(far, |tx| { tx.execute(UPDATE, &[2.into()]).await }).unwrap();
        assert_eq!(count(&db, 2).await, 1);
    }
}

#[tokio::test]
async fn a_failure_that_the_body_swallows_is_not_committed_over() {
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((db, _)) = dev::on(engine).await else { continue };
        counters(&db).await;
        let runs = AtomicU32::new(0);
        transaction!(db, |tx| {
            tx.execute(UPDATE, &[1.into()]).await?;
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                let refused = tx.execute("insert into counters (id, n) values (1, 7)", &[]).await;
                assert!(matches!(refused, Err(DbError::Duplicate(_))), "{refused:?}");
            }
            Ok(())
        })
        .unwrap();
        // PostgreSQL undid the update with the insert, MySQL the insert alone.
        assert_eq!((count(&db, 1).await, runs.into_inner()), (1, if engine == Engine::Postgres { 2 } else { 1 }));
    }
}

#[tokio::test]
async fn a_server_that_keeps_no_more_statements_is_still_asked() {
    let Some(pair) = Pair::start(Engine::MySql, "full").await else { return };
    let db = narrow(&pair.primary_url()).await;
    let mut conn = db.write().await.unwrap();
    // The two servers of the pair allow five statements for all clients together.
    pair.allow_statements(5).await;
    for n in 0..12 {
        let text = format!("select ? + {n} as sum");
        let row = conn.all_text(&text, &[1.into()]).await.unwrap().pop().unwrap();
        assert_eq!(row.get::<i64>("sum").unwrap(), n + 1);
    }
}
