//! Networks with a router on each host.

use expect_test::expect;
use nova_db::dev::fixtures;
use nova_db::{Db, fixed_ips, instances, networks, routers, services, transaction};
use nova_types::HostName;

use super::Lab;

const FLAT_DHCP: [&str; 1] = ["--network_manager=nova.network.manager.FlatDHCPManager"];

#[tokio::test]
async fn it_is_made_so_by_the_command_or_the_flag_and_not_under_flat_manager() {
    let lab = Lab::new();
    let made = async |flags: &[&str], command: &str| {
        lab.run_with(flags, command).await.code.unwrap();
        lab.ok("network list --output json").await.matches("\"multi_host\": true").count()
    };
    let vlan = ["--network_manager=nova.network.manager.VlanManager", "--multi_host"];
    assert_eq!(made(&vlan[..1], "network create 10.0.0.0/24 2 16").await, 0);
    assert_eq!(made(&vlan[..1], "network create 10.1.0.0/24 2 16 200 2000 --multi_host").await, 2);
    assert_eq!(made(&vlan, "network create 10.2.0.0/24 2 16 300 3000").await, 4);
    let flat = ["--network_manager=nova.network.manager.FlatManager"];
    let refused = lab.run_with(&flat, "network create 10.3.0.0/24 1 256 --multi_host").await;
    expect!["under FlatManager no host serves a network, so none can serve its own guests (--multi_host)"]
        .assert_eq(&refused.code.unwrap_err());
}

#[tokio::test]
async fn a_hosts_addresses_are_shown_and_come_free_when_its_daemon_is_forgotten() {
    let lab = Lab::new();
    assert_eq!(lab.run_with(&FLAT_DHCP, "network create 10.0.0.0/28 1 16 --multi_host").await.code, Ok(0));
    let url = lab.config(&[]).database.sql_connection;
    let db = Db::open(url.expose(), &nova_db::Options::default()).await.unwrap();
    let (host, ids) = (fixtures::name::<HostName>("node2"), fixtures::launch(&db, &fixtures::name("acme"), 1).await);
    let network = networks::list(&mut db.read().await.unwrap()).await.unwrap()[0].id;
    transaction!(db, |tx| {
        services::heartbeat(tx, &host, "nova-network", "nova", true).await?;
        fixed_ips::take(tx, network, &ids).await?;
        instances::place(tx, &ids, &host).await?;
        routers::take(tx, network, &host).await
    })
    .unwrap();
    let listed = lab.ok("network list --output json").await;
    assert!(listed.contains("\"host\": \"node2 (10.0.0.3)\""), "{listed}");
    let fixed = lab.ok("fixed list node2").await;
    let addresses: Vec<&str> = fixed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(addresses, ["10.0.0.2", "10.0.0.3"]);

    let refused = lab.refused("service delete node2 nova-network").await;
    assert!(
        refused.starts_with("nova-network on node2 reported 0 s ago") && refused.ends_with("stop it first"),
        "{refused}"
    );
    db.write().await.unwrap().execute("update services set updated_at = {now-?}", &[90.into()]).await.unwrap();
    expect!["node2 has 1 instances; run nova-manage host evacuate node2 first"]
        .assert_eq(&lab.refused("service delete node2 nova-network").await);
    db.write().await.unwrap().execute("update instances set host = null", &[]).await.unwrap();
    let done = lab.run("service delete node2 nova-network").await;
    assert_eq!(done.code, Ok(0));
    expect!["node2 had 1 addresses of its own; they are free in 600 s.\n"].assert_eq(&done.note);
    assert!(!lab.ok("network list --output json").await.contains("node2"));
    expect!["no nova-network on node2; nova-manage service list shows all"]
        .assert_eq(&lab.refused("service delete node2 nova-network").await);
}
