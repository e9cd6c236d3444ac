//! Replicas and primaries that change places, on real servers.

use std::time::{Duration, Instant};

use super::{MOST_WRITERS, Writers};
use crate::dev::pair::Pair;
use crate::dialect::Engine;
use crate::error::DbError;
use crate::open::{Db, Options};
use crate::{accounts, transaction};
use nova_types::account::User;

const ENGINES: [Engine; 2] = [Engine::MySql, Engine::Postgres];

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn write_user(db: &Db, id: &str) {
    let user = User {
        id: id.parse().unwrap(),
        access_key: format!("{id}-key"),
        sealed_secret: "sealed".to_owned(),
        is_admin: false,
    };
    let written: Result<(), DbError> = transaction!(db, |tx| {
        accounts::create_user(tx, &user).await.map_err(|error| match error {
            accounts::AccountError::Db(error) => error,
            other => panic!("{other}"),
        })
    });
    written.unwrap();
    db.wrote(&[id]);
}

/// Whether `caller` is shown user `id`, and by a replica.
async fn sees(db: &Db, caller: &str, id: &str) -> bool {
    let seen: Result<bool, DbError> = describe!(db, &[caller], |conn| -> DbError {
        Ok(accounts::users(conn).await?.iter().any(|user| user.id.as_str() == id))
    });
    seen.unwrap()
}

#[tokio::test]
async fn a_replica_answers_while_it_knows_enough_and_the_primary_otherwise() {
    for engine in ENGINES {
        let Some(pair) = Pair::start(engine, "describe").await else { continue };
        let lag = Duration::from_secs(4);
        let options = Options { read_urls: vec![pair.replica_url()], max_replica_lag: lag, ..Options::default() };
        let db = Db::open(&pair.primary_url(), &options).await.unwrap();
        assert!(db.replica(&["joe"]).await.is_none(), "nothing is known of it yet");
        db.migrate().await.unwrap();
        eventually("the replica is used", async || db.replica(&["joe"]).await.is_some()).await;

        // What it shows is what it has: held back, it does not show what others wrote.
        pair.hold_back(true).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        write_user(&db, "ann").await;
        assert!(db.replica(&["joe"]).await.is_some());
        assert!(!sees(&db, "joe", "ann").await);
        // Whoever wrote it sees it.
        assert!(db.replica(&["ann"]).await.is_none() && sees(&db, "ann", "ann").await);
        // Further behind than allowed, it is not used by anybody.
        eventually("the lag is noticed", async || db.replica(&["joe"]).await.is_none()).await;
        assert!(sees(&db, "joe", "ann").await);

        pair.hold_back(false).await;
        eventually("it is used again, even for the writer", async || db.replica(&["ann"]).await.is_some()).await;
        assert!(sees(&db, "ann", "ann").await);

        // It goes away under a connection that was lent already, and for good.
        let (held, hold) = (db.replica(&["joe"]).await.unwrap(), Instant::now());
        pair.kill_replica();
        drop(held);
        for _ in 0..20 {
            assert!(sees(&db, "joe", "ann").await);
        }
        assert!(hold.elapsed() < Duration::from_secs(8), "{:?}", hold.elapsed());
        db.close().await;
    }
}

#[tokio::test]
async fn the_primary_is_found_among_several_hosts_and_found_again() {
    for engine in ENGINES {
        let Some(pair) = Pair::start(engine, "several").await else { continue };
        let db = Db::open(&pair.both_url(), &Options { max_connections: 4, ..Options::default() }).await.unwrap();
        db.migrate().await.unwrap();
        write_user(&db, "ann").await;
        // Connections to the old primary lie in the pool when it becomes one no more.
        let copy = Db::open(&pair.replica_url(), &Options::default()).await.unwrap();
        eventually("the user arrives", async || {
            copy.ready().await.is_ok() && accounts::users(&mut copy.read().await.unwrap()).await.unwrap().len() == 1
        })
        .await;
        pair.swap().await;
        let begun = Instant::now();
        write_user(&db, "joe").await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{engine:?}: {:?}", begun.elapsed());
        assert_eq!(accounts::users(&mut copy.read().await.unwrap()).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_replica_of_something_else_is_refused() {
    for (url, read) in [
        ("mysql://h/nova", "postgresql://h/nova"),
        ("mysql://h/nova", "mysql://a,b/nova"),
        ("sqlite:////tmp/none/x.sqlite", "mysql://h/nova"),
    ] {
        let options = Options { read_urls: vec![read.to_owned()], ..Options::default() };
        let refused = Db::open(url, &options).await;
        assert!(matches!(refused, Err(DbError::ReadUrl)), "{refused:?}");
    }
}

#[test]
fn more_writers_than_can_be_remembered_all_count_as_writers() {
    let (mut writers, begun) = (Writers::default(), Instant::now());
    for n in 0..MOST_WRITERS {
        writers.note(&n.to_string(), begun, Duration::from_secs(5));
    }
    assert_eq!((writers.last("7"), writers.last("stranger")), (Some(begun), None));
    let later = begun + Duration::from_secs(1);
    writers.note("one more", later, Duration::from_secs(5));
    assert_eq!((writers.last("7"), writers.last("stranger"), writers.each.len()), (Some(later), Some(later), 1));
    // Those whose writes have become old are forgotten first.
    let mut writers = Writers::default();
    for n in 0..MOST_WRITERS {
        writers.note(&n.to_string(), begun, Duration::from_secs(5));
    }
    writers.note("one more", begun + Duration::from_secs(6), Duration::from_secs(5));
    assert_eq!((writers.last("stranger"), writers.each.len()), (None, 1));
}
