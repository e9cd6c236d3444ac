//! Compute hosts: what they have, and evacuating one.

use expect_test::expect;
use nova_db::dev::fixtures;
use nova_db::{Db, compute_nodes, fixed_ips, instances, quotas, transaction};
use nova_types::HostName;
use nova_types::quota::{Quotas, Resource};

use super::Lab;

/// A cloud with instances of `acme` on `node2`.
async fn cloud(lab: &Lab, count: u32) -> Db {
    lab.ok("db sync").await;
    let url = lab.config(&[]).database.sql_connection;
    let db = Db::open(url.expose(), &nova_db::Options::default()).await.unwrap();
    let host: HostName = fixtures::name("node2");
    fixtures::node(&db, &host, 1000).await;
    let network = fixtures::flat_network(&db, 22).await;
    let new = fixtures::new_instances(&fixtures::name("acme"), count);
    let limits = Quotas { instances: 1000, cores: 1000, ..Quotas::default() };
    transaction!(db, |tx| {
        let amounts = [(Resource::Instances, count), (Resource::Cores, count)];
        quotas::reserve(tx, &new.project, &amounts, &limits).await?;
        let ids = instances::insert_batch(tx, &new).await?;
        instances::place(tx, &ids, &host).await?;
        assert!(compute_nodes::claim(tx, &host, fixtures::DEMAND.times(count)).await?);
        fixed_ips::take(tx, network, &ids).await
    })
    .unwrap();
    db
}

async fn silent_for(db: &Db, seconds: i32) {
    let sql = "update services set updated_at = {now-?}";
    db.write().await.unwrap().execute(sql, &[seconds.into()]).await.unwrap();
}

#[tokio::test]
async fn what_a_host_has_is_told_as_cactus_did() {
    let lab = Lab::new();
    let _db = cloud(&lab, 3).await;
    expect![["HOST\t\t\tPROJECT\t\tcpu\tmem(mb)\tdisk(gb)\nnode2(total)\t\t\t1000\t512000\t100\nnode2(used)\t\t\t3\t1536\t0\nnode2\t\tacme\t\t3\t1536\t0\n"]]
        .assert_eq(&lab.ok("service describe_resource node2").await);
    expect!["node9 is no compute host; nova-manage host list shows all"]
        .assert_eq(&lab.refused("service describe_resource node9").await);
    let list = lab.ok("host list --output json").await;
    assert!(list.contains("\"host\": \"node2\"") && list.contains("\"vcpus_used\": 3"), "{list}");
}

#[tokio::test]
async fn a_daemon_is_forgotten_when_it_is_gone_and_nobody_needs_it() {
    let lab = Lab::new();
    let db = cloud(&lab, 1).await;
    expect!["no nova-compute on node9; nova-manage service list shows all"]
        .assert_eq(&lab.refused("service delete node9 nova-compute").await);
    let refused = lab.refused("service delete node2 nova-compute").await;
    assert!(
        refused.starts_with("nova-compute on node2 reported ") && refused.ends_with("; stop it first"),
        "{refused}"
    );
    silent_for(&db, 90).await;
    expect!["node2 has 1 instances; run nova-manage host evacuate node2 first"]
        .assert_eq(&lab.refused("service delete node2 nova-compute").await);
    let gone = "update instances set host = null";
    db.write().await.unwrap().execute(gone, &[]).await.unwrap();
    lab.ok("service delete node2 nova-compute").await;
    assert_eq!(lab.ok("service list node2").await, "");
}

#[tokio::test]
async fn a_host_is_evacuated_when_it_was_silent_for_long_or_by_force() {
    let lab = Lab::new();
    let db = cloud(&lab, 250).await;
    expect!["there is no nova-compute on node9; nova-manage host list shows all hosts"]
        .assert_eq(&lab.refused("host evacuate node9").await);
    silent_for(&db, 30).await;
    let refused = lab.refused("host evacuate node2").await;
    assert!(refused.starts_with("nova-compute on node2 reported 3"), "{refused}");
    assert!(
        refused.ends_with(": stop it and switch the host off first, or say --force to destroy what runs there"),
        "{refused}"
    );
    silent_for(&db, 90).await;
    let done = lab.run("host evacuate node2").await;
    assert_eq!(done.code, Ok(0));
    assert_eq!(done.out, "250 instances boot on other hosts, 0 stay stopped, 0 end.\n");
    assert!(
        done.note.contains("what was on their disks is lost to them, unless --instances_path is shared"),
        "{}",
        done.note
    );
    let services = lab.ok("service list").await;
    assert!(services.contains("nova-compute disabled"), "{services}");
    lab.ok("check").await;
    assert_eq!(lab.ok("host evacuate node2").await, "0 instances boot on other hosts, 0 stay stopped, 0 end.\n");
    silent_for(&db, 0).await;
    lab.refused("host evacuate node2").await;
    lab.ok("host evacuate node2 --force").await;
}
