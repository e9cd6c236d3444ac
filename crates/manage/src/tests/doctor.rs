//! The doctor, as an administrator calls it.

use expect_test::expect;
use nova_db::dev::fixtures;
use nova_db::{Db, fixed_ips, networks, services, transaction};

use super::Lab;

const FAKE: [&str; 4] = [
    "--network_manager=nova.network.manager.FlatDHCPManager",
    "--fake_network",
    "--ec2_dmz_host=127.0.0.1",
    // Nobody listens there.
    "--ec2_port=1",
];

#[tokio::test]
async fn a_launch_that_waits_is_explained() {
    let lab = Lab::new();
    lab.ok("network create 10.0.0.0/28 1 16").await;
    let url = lab.config(&[]).database.sql_connection;
    let db = Db::open(url.expose(), &nova_db::Options::default()).await.unwrap();
    let ids = fixtures::launch(&db, &fixtures::name("moon"), 1).await;
    let network = networks::list(&mut db.read().await.unwrap()).await.unwrap()[0].id;
    transaction!(db, |tx| { fixed_ips::take(tx, network, &ids).await }).unwrap();
    let done = lab.run_with(&FAKE, &format!("doctor instance {} --output json", ids[0])).await;
    assert_eq!(done.code, Ok(1), "{}", done.out);
    assert!(done.out.contains("\"mend\": \"no nova-scheduler reports: service nova-scheduler start\""), "{}", done.out);
    assert!(done.out.contains("\"mend\": \"euca-authorize -P icmp -t -1:-1 default\""), "{}", done.out);
    expect!["Broken: 4. Mend the first one first, then ask again.\n"].assert_eq(&done.note);
    expect!["no instance i-000000ff; nova-manage instance list shows all"]
        .assert_eq(&lab.refused("doctor instance i-000000ff").await);
    assert!(lab.refused("doctor instance x").await.contains("\"x\""));
}

#[tokio::test]
async fn a_host_is_well_or_ill_by_exit_status() {
    let lab = Lab::new();
    lab.ok("network create 10.0.0.0/28 1 16").await;
    let url = lab.config(&[]).database.sql_connection;
    let db = Db::open(url.expose(), &nova_db::Options::default()).await.unwrap();
    let host = fixtures::name("node1");
    let mut conn = db.write().await.unwrap();
    services::heartbeat(&mut conn, &host, "nova-network", "nova", true).await.unwrap();
    networks::claim(&mut conn, &host, 30).await.unwrap();
    drop(conn);
    let ill = lab.run_with(&FAKE, "doctor host").await;
    assert_eq!(ill.code, Ok(1), "{}", ill.out);
    assert!(
        ill.out.contains("broken       metadata         the metadata service does not answer at 127.0.0.1:1"),
        "{}",
        ill.out
    );
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut flags = FAKE.map(str::to_owned);
    flags[3] = format!("--ec2_port={}", server.local_addr().unwrap().port());
    let flags = flags.each_ref().map(String::as_str);
    let serve = async {
        use tokio::io::AsyncWriteExt as _;
        server.accept().await.unwrap().0.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
    };
    let (well, ()) = tokio::join!(lab.run_with(&flags, "doctor host --output table"), serve);
    assert_eq!(well.code, Ok(0), "{}", well.out);
    assert_eq!(well.note, "Nothing found that stops a packet.\n");
}
