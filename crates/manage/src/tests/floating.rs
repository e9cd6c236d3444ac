//! Floating addresses.

use expect_test::expect;
use nova_db::dev::fixtures;
use nova_db::floating_ips::Wish;
use nova_db::{fixed_ips, floating_ips, networks, transaction};
use nova_types::ProjectId;
use nova_types::quota::Quotas;

use super::Lab;

#[tokio::test]
async fn a_range_becomes_one_address_after_the_other() {
    let lab = Lab::new();
    lab.ok("floating create node1 192.0.2.8/30").await;
    lab.ok("floating create node2 198.51.100.1").await;
    expect![[r"
        node1	192.0.2.8	None
        node1	192.0.2.9	None
        node1	192.0.2.10	None
        node1	192.0.2.11	None
        node2	198.51.100.1	None
    "]]
    .assert_eq(&lab.ok("floating list").await);
    assert_eq!(lab.ok("floating list node2").await, "node2\t198.51.100.1\tNone\n");
    assert_eq!(lab.ok("floating list node3").await, "");
    let json = lab.ok("floating list node2 --output json").await;
    assert!(json.contains(r#""address": "198.51.100.1""#) && json.contains(r#""project": null"#), "{json}");
    lab.ok("floating delete 192.0.2.8/31").await;
    assert_eq!(lab.ok("floating list node1").await.lines().count(), 2);
}

#[tokio::test]
async fn ranges_are_made_and_removed_whole_or_not_at_all() {
    let lab = Lab::new();
    lab.ok("network create 192.168.0.0/24 1 255").await;
    lab.ok("floating create node1 192.0.2.8/30").await;
    for (command, line) in [
        ("floating create node1 192.0.2.0/28", expect!["192.0.2.8 is in a pool already; nothing was made"]),
        ("floating create node2 192.0.2.9", expect!["192.0.2.9 is in a pool already; nothing was made"]),
        ("floating create node1 192.0.2.9/28", expect!["192.0.2.9/28 begins inside its range, which is 192.0.2.0/28"]),
        ("floating create node1 10.0.0.0/8", expect!["10.0.0.0/8 has more than 65536 addresses; give it in parts"]),
        ("floating create node1 224.0.0.0/28", expect!["no machine can have the addresses of 224.0.0.0/28"]),
        (
            "floating create node1 192.168.0.64/30",
            expect!["192.168.0.64/30 overlaps the network 192.168.0.0/24, whose addresses are the guests' own"],
        ),
        (
            "floating create node1 tomorrow",
            expect![[r#""tomorrow" is not a range like 192.0.2.0/28: invalid IP address syntax"#]],
        ),
        (
            "floating create node1 fd00::/64",
            expect![[r#""fd00::/64" is not a range like 192.0.2.0/28: invalid IP address syntax"#]],
        ),
        ("floating create node1 127.0.0.1", expect!["no machine can have the addresses of 127.0.0.1/32"]),
        ("floating create node1 255.255.255.255", expect!["no machine can have the addresses of 255.255.255.255/32"]),
        ("floating create a/b 198.51.100.1", expect!["a host name may not contain '/'"]),
        ("floating list a/b", expect!["a host name may not contain '/'"]),
        ("floating delete 0.0.0.0/0", expect!["0.0.0.0/0 has more than 65536 addresses; give it in parts"]),
        (
            "floating delete 192.0.2.8/29",
            expect!["192.0.2.12 is in no pool; nothing was removed (nova-manage floating list shows all)"],
        ),
    ] {
        line.assert_eq(&lab.refused(command).await);
    }
    assert_eq!(lab.ok("floating list").await.lines().count(), 4);
    lab.ok("floating delete 192.0.2.10/31").await;
    expect!["192.0.2.10 is in no pool; nothing was removed (nova-manage floating list shows all)"]
        .assert_eq(&lab.refused("floating delete 192.0.2.8/30").await);
    assert_eq!(lab.ok("floating list").await, "node1\t192.0.2.8\tNone\nnode1\t192.0.2.9\tNone\n");
}

#[tokio::test]
async fn what_a_project_has_stays() {
    let lab = Lab::new();
    lab.ok("floating create node1 192.0.2.8/31").await;
    let db = nova_db::Db::open(lab.config(&[]).database.sql_connection.expose(), &nova_db::Options::default())
        .await
        .unwrap();
    let acme = "acme".parse().unwrap();
    let taken = transaction!(db, |tx| -> floating_ips::FloatingError {
        floating_ips::allocate(tx, &acme, &Quotas::default()).await
    });
    assert_eq!(taken.unwrap().to_string(), "192.0.2.8");
    expect!["192.0.2.8 is the project acme's, which must release it first; nothing was removed"]
        .assert_eq(&lab.refused("floating delete 192.0.2.8/31").await);
    assert_eq!(lab.ok("floating list").await.lines().count(), 2);
}

#[tokio::test]
async fn a_project_is_scrubbed_of_its_addresses_once_no_instance_has_them() {
    let lab = Lab::new();
    lab.ok("user create joe").await;
    lab.ok("project create acme joe").await;
    lab.ok("project create other joe").await;
    lab.ok("network create 192.168.0.0/24 1 256").await;
    lab.ok("floating create node1 192.0.2.8/30").await;
    let db = nova_db::Db::open(lab.config(&[]).database.sql_connection.expose(), &nova_db::Options::default())
        .await
        .unwrap();
    let [acme, other] = ["acme", "other"].map(|name| name.parse::<ProjectId>().unwrap());
    let ids = fixtures::launch(&db, &acme, 1).await;
    let public = transaction!(db, |tx| -> floating_ips::FloatingError {
        let network = networks::list(tx).await?[0].id;
        fixed_ips::take(tx, network, &ids).await?;
        floating_ips::allocate(tx, &other, &Quotas::default()).await?;
        floating_ips::allocate(tx, &acme, &Quotas::default()).await?;
        let public = floating_ips::allocate(tx, &acme, &Quotas::default()).await?;
        floating_ips::associate(tx, Some(&acme), public, Wish::Instance(ids[0]), true).await?;
        Ok(public)
    })
    .unwrap();
    expect!["i-00000001 has the address 192.0.2.10; terminate it, or disassociate the address, first"]
        .assert_eq(&lab.refused("project scrub acme").await);
    expect!["project acme still has 1 instances, 2 floating_ips"].assert_eq(&lab.refused("project delete acme").await);
    transaction!(db, |tx| -> floating_ips::FloatingError { floating_ips::disassociate(tx, Some(&acme), public).await })
        .unwrap();
    let done = lab.run("project scrub acme").await;
    expect![[r#"
        Took 0 networks, 0 security groups and 2 public addresses from acme.
    "#]]
    .assert_eq(&done.note);
    let json = lab.ok("floating list --output json").await;
    assert_eq!((json.matches("\"acme\"").count(), json.matches("\"other\"").count()), (0, 1), "{json}");
    // They do not count any more.
    let used = transaction!(db, |tx| -> floating_ips::FloatingError {
        floating_ips::allocate(tx, &acme, &Quotas { floating_ips: 1, ..Quotas::default() }).await
    });
    assert!(used.is_ok(), "{used:?}");
}
