//! `nova-manage db export`: a cloud on SQLite moves to a server.

use std::time::Duration;

use nova_db::{Db, Engine, Options, dev, services};

use super::Lab;

#[tokio::test]
async fn a_cloud_goes_to_a_server_and_is_administered_there() {
    for engine in [Engine::MySql, Engine::Postgres] {
        let Some((_server, url)) = dev::on(engine).await else { continue };
        let lab = Lab::new();
        lab.ok("user admin anne access secret").await;
        lab.ok("project create moon anne").await;
        lab.ok("network create 10.0.0.0/24 1 256").await;
        let done = lab.run(&format!("db export --to={url}")).await;
        assert_eq!(done.code, Ok(0), "{engine:?} {}", done.note);
        assert!(done.out.contains("256 fixed_ips\n") && done.out.contains("1 users\n"), "{}", done.out);
        let there = format!("--sql_connection={url}");
        let users = lab.run_with(&[&there], "user list").await;
        assert_eq!((users.code, users.out), (Ok(0), lab.ok("user list").await));
        // What was moved cannot be moved again.
        let again = lab.refused(&format!("db export --to={url}")).await;
        assert!(again.ends_with("the target is not empty: there are rows in networks"), "{again}");
    }
}

#[tokio::test]
async fn a_cloud_whose_daemons_run_stays_where_it_is() {
    let Some((_server, url)) = dev::on(Engine::Postgres).await else { return };
    let lab = Lab::new();
    lab.ok("user list").await;
    let db = Db::open(lab.config(&[]).database.sql_connection.expose(), &Options::default()).await.unwrap();
    let report = async || {
        let host = "node1".parse().unwrap();
        let mut conn = db.write().await.unwrap();
        services::heartbeat(&mut conn, &host, "nova-compute", "nova", true).await.unwrap();
    };
    report().await;
    let command = format!("db export --to={url}");
    let (refused, ()) = tokio::join!(lab.run_with(&["--report_interval=1"], &command), async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        report().await;
    });
    let line = refused.code.unwrap_err();
    assert!(line.starts_with("nova-compute on node1 is running"), "{line}");
    // It ends; a moment later that is certain.
    let done = lab.run_with(&["--report_interval=1"], &command).await;
    assert_eq!(done.code, Ok(0), "{}", done.note);
    assert!(done.note.starts_with("nova-compute on node1 reported a moment ago"), "{}", done.note);
}

#[tokio::test]
async fn an_export_goes_one_way_only() {
    let lab = Lab::new();
    lab.ok("user list").await;
    let line = lab.refused("db export --to=sqlite:////tmp/other.sqlite").await;
    assert!(line.starts_with("an export goes from a sqlite:// --sql_connection"), "{line}");
}
