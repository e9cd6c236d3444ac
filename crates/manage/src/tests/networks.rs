//! Networks, services, instances.

use expect_test::expect;

use super::Lab;

#[tokio::test]
async fn the_guides_network_is_the_one_it_means() {
    let lab = Lab::new();
    let done = lab.run("network create 192.168.0.0/24 1 255").await;
    assert_eq!((done.code, done.out.as_str()), (Ok(0), ""));
    let made = done.note.lines().last().unwrap();
    expect!["Made network 192.168.0.0/24 on br100: gateway 192.168.0.1, guests from 192.168.0.2 to 192.168.0.254."]
        .assert_eq(made);
    let list = lab.ok("network list").await;
    let shown: Vec<&str> = list.lines().map(str::trim_end).collect();
    assert_eq!(
        shown,
        [
            "network           \tnetmask        \tstart address  \tDNS",
            "192.168.0.0/24    \t255.255.255.0  \t192.168.0.2    \t8.8.4.4",
        ]
    );
}

#[tokio::test]
async fn networks_are_made_all_or_none() {
    let lab = Lab::new();
    let vlan = ["--network_manager=nova.network.manager.VlanManager"];
    assert_eq!(lab.run_with(&vlan, "network create 10.0.0.0/24 2 32").await.code, Ok(0));
    for (command, line) in [
        (
            "network create 10.0.0.32/27 1 32 200 2000",
            expect!["10.0.0.32/27 overlaps the network 10.0.0.32/27, which is there"],
        ),
        (
            "network create 10.0.0.0/8 3 32 200 2000",
            expect!["10.0.0.0/27 overlaps the network 10.0.0.0/27, which is there"],
        ),
        ("network create 10.1.0.0/24 2 32", expect!["10.1.0.0/27 would be on br100, which carries 10.0.0.0/27"]),
        (
            "network create 10.1.0.0/24 2 32 200",
            expect!["10.1.0.0/27 would have the VPN port of 10.0.0.0/27; give another first port"],
        ),
        ("network create 10.1.0.0/27 2 32", expect!["10.1.0.0/27 has room for 1 networks of 32 addresses, not for 2"]),
        ("network create 10.1.0.0/24 none", expect![[r#"the number of networks must be a number, not "none""#]]),
        (
            "network create tomorrow",
            expect![[r#""tomorrow" is not a range like 192.168.0.0/24: invalid IP address syntax"#]],
        ),
        ("network delete 10.9.0.0/24", expect!["no network 10.9.0.0/24; nova-manage network list shows all"]),
    ] {
        line.assert_eq(&lab.run_with(&vlan, command).await.code.expect_err(command));
    }
    assert_eq!(lab.ok("network list").await.lines().count(), 3);
    assert_eq!(lab.run_with(&vlan, "network create 10.1.0.0/24 2 32 200 2000").await.code, Ok(0));
    lab.ok("network delete 10.1.0.32/27").await;
    assert_eq!(lab.ok("network list").await.lines().count(), 4);
    assert_eq!(
        lab.run_with(&vlan, "network create 10.1.0.32/27 1 32 201 2001").await.code,
        Ok(0),
        "its place is free again"
    );
}

#[tokio::test]
async fn a_range_with_host_bits_is_taken_with_a_word() {
    let lab = Lab::new();
    let done = lab.run("network create 192.168.5.7/24 '' 256").await;
    assert!(done.note.contains("192.168.5.7/24 begins inside its range; taking 192.168.5.0/24.\n"), "{}", done.note);
    assert_eq!(done.code, Ok(0));
}

#[tokio::test]
async fn daemons_are_listed_and_switched() {
    let lab = Lab::new();
    lab.ok("db sync").await;
    let db = nova_db::Db::open(lab.config(&[]).database.sql_connection.expose(), &nova_db::Options::default())
        .await
        .unwrap();
    let host = "node1".parse().unwrap();
    nova_db::services::heartbeat(&mut db.write().await.unwrap(), &host, "nova-compute", "nova", true).await.unwrap();
    let first = lab.ok("service list").await;
    assert!(first.starts_with("node1      nova-compute enabled  :-) 20"), "{first}");
    lab.ok("service disable node1 nova-compute").await;
    let second = lab.ok("service list node1 nova-compute").await;
    assert!(second.starts_with("node1      nova-compute disabled :-) 20"), "{second}");
    lab.ok("service enable node1 nova-compute").await;
    assert_eq!(lab.ok("service list node2").await, "");
}

#[tokio::test]
async fn an_empty_cloud_has_a_heading_and_no_instances() {
    let lab = Lab::new();
    let list = lab.ok("vm list").await;
    expect!["instance   node            type       state      launched            image        kernel       ramdisk       project    user       zone       index\n"].assert_eq(&list);
    assert_eq!(lab.ok("instance list --output json").await, "[]\n");
}
