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
async fn there_are_more_vxlans_than_vlans() {
    let lab = Lab::new();
    let run = async |manager: &str, command: &str| {
        lab.run_with(&[&format!("--network_manager=nova.network.manager.{manager}Manager")], command).await.code
    };
    expect!["a VLAN tag is a number from 1 to 4094, not 4095"]
        .assert_eq(&run("Vlan", "network create 10.0.0.0/16 4000 8").await.expect_err("more than there are"));
    expect!["the number of a VXLAN is 1 to 16777215, not 16777216"]
        .assert_eq(&run("Vxlan", "network create 10.0.0.0/16 2 8 16777215").await.expect_err("more than there are"));
    assert_eq!(run("Vxlan", "network create 10.0.0.0/16 4000 8").await, Ok(0));
    assert_eq!(run("Vxlan", "network create 10.1.0.0/24 1 256 16777215 6000").await, Ok(0));
    let listed = lab.ok("network list --output json").await;
    assert!(listed.contains("\"br4099\"") && listed.contains("\"br16777215\""));
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

/// A cloud with a network of a VLAN, which `moon` uses, and another that nobody does.
async fn with_vlans(lab: &Lab) -> nova_db::Db {
    let vlan = ["--network_manager=nova.network.manager.VlanManager"];
    assert_eq!(lab.run_with(&vlan, "network create 10.0.0.0/27 2 16").await.code, Ok(0));
    lab.ok("user admin anne access secret").await;
    for project in ["moon", "mars"] {
        lab.ok(&format!("project create {project} anne")).await;
    }
    let url = lab.config(&[]).database.sql_connection;
    let db = nova_db::Db::open(url.expose(), &nova_db::Options::default()).await.unwrap();
    lab.ok("network modify 10.0.0.0/28 --project moon").await;
    let moon = nova_db::dev::fixtures::name("moon");
    let ids = nova_db::dev::fixtures::launch(&db, &moon, 1).await;
    let network = nova_types::NetworkId::new(1);
    nova_db::transaction!(db, |tx| { nova_db::fixed_ips::take(tx, network, &ids).await }).unwrap();
    db
}

#[tokio::test]
async fn a_network_changes_hands_only_where_that_harms_nobody() {
    let lab = Lab::new();
    let db = with_vlans(&lab).await;
    for (command, line) in [
        (
            "network modify 10.0.0.0/28",
            expect!["nothing to change: give --project, --host, --disassociate-project or --disassociate-host"],
        ),
        (
            "network modify 10.0.0.0/28 --disassociate-project",
            expect!["10.0.0.0/28 is used by instances; nova-manage fixed list shows which"],
        ),
        (
            "network modify 10.0.0.0/28 --project mars",
            expect!["10.0.0.0/28 is used by another project's instances; nova-manage fixed list shows which"],
        ),
        (
            "network modify 10.0.0.16/28 --project moon",
            expect!["the project moon has a network; take that from it first"],
        ),
        (
            "network modify 10.0.0.16/28 --project venus",
            expect!["no project venus; nova-manage project list shows all"],
        ),
        (
            "network modify 10.0.0.16/28 --host node7",
            expect!["there is no nova-network on node7; nova-manage service list shows all"],
        ),
        (
            "network modify 10.9.0.0/28 --dis-host",
            expect!["no network 10.9.0.0/28; nova-manage network list shows all"],
        ),
        (
            "network delete 10.0.0.0/28",
            expect!["10.0.0.0/28 is used by the project moon; run nova-manage project scrub moon first"],
        ),
    ] {
        line.assert_eq(&lab.refused(command).await);
    }
    let host = "node7".parse().unwrap();
    nova_db::services::heartbeat(&mut db.write().await.unwrap(), &host, "nova-network", "nova", true).await.unwrap();
    lab.ok("network modify 10.0.0.16/28 --project mars --host node7").await;
    let of = async |what: &str| lab.ok("network list --output json").await.matches(what).count();
    assert_eq!((of("\"project\": \"mars\"").await, of("\"host\": \"node7\"").await), (1, 1));
    lab.ok("network modify 10.0.0.16/28 --dis-project --dis-host").await;
    assert_eq!((of("\"project\": \"mars\"").await, of("\"host\": \"node7\"").await), (0, 0));
    lab.ok("network delete 10.0.0.16/28").await;
}

#[tokio::test]
async fn addresses_are_listed_as_cactus_did_and_kept_back() {
    let lab = Lab::new();
    let _db = with_vlans(&lab).await;
    let list = lab.ok("fixed list").await;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 33);
    assert_eq!(lines[0], "network           \tIP address     \tMAC address      \thostname       \thost");
    assert_eq!(lines[1], "10.0.0.0/28       \t10.0.0.0       \tNone             \tNone           \tNone");
    assert!(lines[4].starts_with("10.0.0.0/28       \t10.0.0.3       \t02:"), "{}", lines[4]);
    assert!(lines[4].ends_with("\ti-00000001     \tNone"), "{}", lines[4]);
    assert_eq!(lab.ok("fixed list node9").await.lines().count(), 1);
    let reserved = async || lab.ok("fixed list --output json").await.matches("\"reserved\": true").count();
    assert_eq!(reserved().await, 8);
    lab.ok("fixed reserve 10.0.0.9").await;
    assert_eq!(reserved().await, 9);
    lab.ok("fixed unreserve 10.0.0.9").await;
    assert_eq!(reserved().await, 8);
    let held = lab.run("fixed reserve 10.0.0.3").await;
    assert_eq!(held.note, "i-00000001 has 10.0.0.3 now and keeps it; nobody gets it after that.\n");
    for (command, line) in [
        ("fixed unreserve 10.0.0.1", expect!["10.0.0.1 is the gateway of 10.0.0.0/28 and stays reserved"]),
        (
            "fixed unreserve 10.0.0.0",
            expect!["10.0.0.0 is the network's own address of 10.0.0.0/28 and stays reserved"],
        ),
        ("fixed unreserve 10.0.0.15", expect!["10.0.0.15 is the broadcast address of 10.0.0.0/28 and stays reserved"]),
        ("fixed unreserve 10.0.0.2", expect!["10.0.0.2 is the VPN's address of 10.0.0.0/28 and stays reserved"]),
        ("fixed reserve 10.9.0.1", expect!["10.9.0.1 is of no network; nova-manage network list shows all"]),
        ("fixed reserve x", expect![[r#""x" is not an address like 192.168.0.9: invalid IPv4 address syntax"#]]),
    ] {
        line.assert_eq(&lab.refused(command).await);
    }
}

#[tokio::test]
async fn vpns_are_listed_as_bexar_did_and_moved() {
    let lab = Lab::new();
    let _db = with_vlans(&lab).await;
    expect![["project     \tip:port             \tprivate_ip          \tstate\tinstance\nmars        \tNone:None           \tNone\nmoon        \tNone:1000           \tNone\n"]]
        .assert_eq(&lab.ok("vpn list").await);
    lab.ok("vpn change moon 127.0.0.1 1").await;
    expect![["project     \tip:port             \tprivate_ip          \tstate\tinstance\nmoon        \t127.0.0.1:1         \t10.0.0.2            \tdown\tNone\n"]]
        .assert_eq(&lab.ok("vpn list moon").await);
    for (command, line) in [
        ("vpn change moon 127.0.0.1 0", expect![[r#"the port must be a number from 1 to 65535, not "0""#]]),
        (
            "vpn change mars 127.0.0.1 9",
            expect!["mars has no network of its own; nova-manage network modify RANGE --project mars gives it one"],
        ),
    ] {
        line.assert_eq(&lab.refused(command).await);
    }
}
