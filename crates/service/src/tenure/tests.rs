//! Daemons that want the same name, in one process and on one database.

use nova_db::dev::TestDb;
use nova_types::service::Service;

use super::*;

fn membership(db: &Db, holder: &str) -> Membership {
    Membership {
        db: db.clone(),
        hosts: vec!["h1".parse().unwrap()],
        binary: "nova-compute",
        zone: "north".to_owned(),
        enable_new: false,
        address: None,
        holder: Holder::named(holder),
        interval: Duration::from_millis(10),
    }
}

async fn entered(db: &Db, holder: &str) -> Tenure {
    enter(membership(db, holder), &Ready::default(), &Stop::new()).await.unwrap().unwrap()
}

async fn row(db: &TestDb, least: i32) -> Service {
    for _ in 0..500 {
        let found = services::list(&mut db.read().await.unwrap()).await.unwrap().pop();
        if let Some(row) = found.filter(|row| row.report_count >= least) {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no report came")
}

#[tokio::test]
async fn a_row_is_made_kept_fresh_and_made_again() {
    let db = nova_db::dev::sqlite().await;
    let (tenure, stop) = (entered(&db, "a").await, Stop::new());
    let keeping = tokio::spawn(tenure.hold(stop.clone().cancelled_owned()));
    let found = row(&db, 3).await;
    assert_eq!((&*found.binary, &*found.topic, &*found.availability_zone), ("nova-compute", "compute", "north"));
    assert!(found.disabled && found.is_up(60));
    services::delete(&mut db.write().await.unwrap(), &found.host, "nova-compute").await.unwrap();
    assert_ne!(row(&db, 1).await.id, found.id);
    stop.cancel();
    keeping.await.unwrap().unwrap();
    // It gave its name up.
    entered(&db, "b").await;
}

#[tokio::test]
async fn a_second_installation_is_refused_and_the_first_goes_on_after_a_crash() {
    let db = nova_db::dev::sqlite().await;
    drop(entered(&db, "a").await);
    let (ready, stop) = (Ready::default(), Stop::new());
    let refused = enter(membership(&db, "b"), &ready, &stop).await.unwrap_err();
    let told = chain(&refused).to_string();
    let wanted = "another nova-compute works as host h1; if it is gone, its name is free in ";
    assert!(told.starts_with(wanted), "{told}");
    assert!(!ready.is_set());
    entered(&db, "a").await;
}

#[tokio::test]
async fn whoever_was_silent_for_too_long_stops_when_another_took_over() {
    let db = nova_db::dev::sqlite().await;
    let silent = entered(&db, "a").await;
    let mut conn = db.write().await.unwrap();
    conn.execute("update services set lease_until = {now-?}", &[1.into()]).await.unwrap();
    drop(conn);
    entered(&db, "b").await;
    let told = chain(&silent.hold(std::future::pending::<()>()).await.unwrap_err()).to_string();
    assert!(told.starts_with("this daemon was silent for too long: another nova-compute works as host h1;"), "{told}");
}

#[tokio::test]
async fn an_absent_schema_is_waited_for_and_a_newer_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}", folder.path().join("nova.sqlite").display());
    let db = Db::open(&url, &nova_db::Options::default()).await.unwrap();
    let (ready, stop) = (Ready::default(), Stop::new());
    let waiting = tokio::spawn({
        let (wanted, ready, stop) = (membership(&db, "a"), ready.clone(), stop.clone());
        async move { enter(wanted, &ready, &stop).await }
    });
    ready.wait().await;
    assert!(!waiting.is_finished());
    db.migrate().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_some());

    let sql = "update migrate_version set version = 100000";
    db.write().await.unwrap().execute(sql, &[]).await.unwrap();
    let told = chain(&enter(membership(&db, "a"), &ready, &stop).await.unwrap_err()).to_string();
    assert!(told.starts_with("the database cannot be used: the database schema is at version 100000"), "{told}");

    db.write().await.unwrap().execute("update migrate_version set version = 2", &[]).await.unwrap();
    stop.cancel();
    assert!(enter(membership(&db, "a"), &ready, &stop).await.unwrap().is_none(), "a stop ends the waiting");
}
