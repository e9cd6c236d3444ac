//! What hosts are told of their guests' groups.

use expect_test::expect;
use nova_types::rule::Traffic;
use nova_types::{HostName, InstanceId, SecurityGroupId};

use super::{add, create, from_group, remove, tcp};
use crate::{Conn, Db, dev};

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// Makes instance `id` with an address (10.0.0.`id`) if it is on a host.
pub(super) async fn guest(
    conn: &mut Conn,
    id: i32,
    of: &str,
    on: Option<&str>,
    state: &str,
    groups: &[SecurityGroupId],
) {
    const INSTANCE: &str = "
        insert into instances (id, user_id, project_id, image_id, memory_mb, vcpus, local_gb, instance_type,
                               reservation_id, mac_address, vm_state, host)
        values (?, 'ann', ?, 'ami-00000001', 1, 1, 1, 'm1.tiny', 'r-00000001', ?, ?, ?)";
    let mac = format!("02:16:3e:00:00:{id:02x}");
    conn.execute(INSTANCE, &[id.into(), of.into(), mac.into(), state.into(), on.into()]).await.unwrap();
    for group in groups {
        let enter = "insert into security_group_instance_association (security_group_id, instance_id) values (?, ?)";
        conn.execute(enter, &[(*group).into(), id.into()]).await.unwrap();
    }
    if on.is_some() {
        let take = "insert into fixed_ips (address, network_id, instance_id, allocated) values (?, 1, ?, true)";
        conn.execute(take, &[format!("10.0.0.{id}").into(), id.into()]).await.unwrap();
    }
}

/// Project p: guests 10 (web) and 11 (web, db) on h1, 12 (db) on h2, 13 (db) still without a host, 14 over.
/// Project q: guest 20 (default) on h1. Group web lets db in; q's group lets nobody in.
async fn cloud(db: &Db) -> (SecurityGroupId, SecurityGroupId) {
    let web = create(db, "p", "web").await.unwrap();
    let data = create(db, "p", "db").await.unwrap();
    let theirs = create(db, "q", "default").await.unwrap();
    add(db, "p", web, &[tcp(80, "0.0.0.0/0"), from_group(Traffic::All, data)]).await.unwrap();
    let mut conn = db.write().await.unwrap();
    let network = "insert into networks (cidr, bridge, gateway) values ('10.0.0.0/24', 'br100', '10.0.0.1')";
    conn.execute(network, &[]).await.unwrap();
    guest(&mut conn, 10, "p", Some("h1"), "running", &[web]).await;
    guest(&mut conn, 11, "p", Some("h1"), "pending", &[web, data]).await;
    guest(&mut conn, 12, "p", Some("h2"), "running", &[data]).await;
    guest(&mut conn, 13, "p", None, "pending", &[data]).await;
    guest(&mut conn, 14, "p", None, "terminated", &[web]).await;
    guest(&mut conn, 20, "q", Some("h1"), "shutting-down", &[theirs]).await;
    (web, data)
}

#[tokio::test]
async fn a_host_is_told_its_guests_their_rules_and_who_is_let_in() {
    dev::each(async |db: &Db| {
        cloud(db).await;
        let mut conn = db.read().await.unwrap();
        let wanted = super::super::for_host(&mut conn, &host("h1"), false).await.unwrap();
        let mut text = String::new();
        for guest in &wanted.guests {
            let groups: Vec<String> = guest.groups.iter().map(SecurityGroupId::to_string).collect();
            text.push_str(&format!(
                "{} {} {} {} {} dhcp {} in {groups:?}\n",
                guest.instance, guest.project, guest.mac, guest.address, guest.bridge, guest.dhcp_server
            ));
        }
        for group in &wanted.groups {
            let rules: Vec<String> =
                group.rules.iter().map(|rule| format!("{} {:?}", rule.traffic, rule.source)).collect();
            text.push_str(&format!("{}: {rules:#?}\n", group.id));
        }
        for members in &wanted.members {
            text.push_str(&format!("members of {}: {:?}\n", members.id, members.addresses));
        }
        for (project, addresses) in &wanted.projects {
            text.push_str(&format!("guests of {project}: {addresses:?}\n"));
        }
        expect![[r#"
            i-0000000a p 02:16:3e:00:00:0a 10.0.0.10 br100 dhcp 10.0.0.1 in ["sg-00000001"]
            i-0000000b p 02:16:3e:00:00:0b 10.0.0.11 br100 dhcp 10.0.0.1 in ["sg-00000001", "sg-00000002"]
            i-00000014 q 02:16:3e:00:00:14 10.0.0.20 br100 dhcp 10.0.0.1 in ["sg-00000003"]
            sg-00000001: [
                "tcp 80 Range(0.0.0.0/0)",
                "all Group(SecurityGroupId(2))",
            ]
            sg-00000002: []
            sg-00000003: []
            members of sg-00000002: [10.0.0.11, 10.0.0.12]
            guests of p: [10.0.0.10, 10.0.0.11, 10.0.0.12]
            guests of q: [10.0.0.20]
        "#]]
        .assert_eq(&text);
        assert_eq!(super::super::for_host(&mut conn, &host("h3"), false).await.unwrap(), Default::default());
    })
    .await;
}

#[tokio::test]
async fn a_row_that_makes_no_sense_shuts_off_only_itself() {
    dev::each(async |db: &Db| {
        let (web, _) = cloud(db).await;
        let mut conn = db.write().await.unwrap();
        conn.execute("update instances set mac_address = 'x' where id = 10", &[]).await.unwrap();
        let nonsense = "insert into security_group_rules (parent_group_id, protocol, cidr, signature) values (?, 'TCP', '\n', 'x')";
        conn.execute(nonsense, &[web.into()]).await.unwrap();
        let wanted = super::super::for_host(&mut conn, &host("h1"), false).await.unwrap();
        let guests: Vec<u32> = wanted.guests.iter().map(|guest| guest.instance.number()).collect();
        assert_eq!((guests, wanted.groups[0].rules.len()), (vec![11, 20], 2));
    })
    .await;
}

#[tokio::test]
async fn the_hosts_to_tell_are_those_with_live_guests_concerned() {
    dev::each(async |db: &Db| {
        let (web, data) = cloud(db).await;
        let mut conn = db.read().await.unwrap();
        assert_eq!(super::super::hosts_of(&mut conn, &[web]).await.unwrap(), [host("h1")]);
        assert_eq!(super::super::hosts_of(&mut conn, &[data, web]).await.unwrap(), [host("h1"), host("h2")]);
        assert_eq!(super::super::hosts_referring_to(&mut conn, &[data]).await.unwrap(), [host("h1")]);
        assert_eq!(super::super::hosts_referring_to(&mut conn, &[web]).await.unwrap(), []);
        assert_eq!(super::super::hosts_of(&mut conn, &[]).await.unwrap(), []);
        drop(conn);
        assert_eq!(add(db, "p", data, &[tcp(1, "0.0.0.0/0")]).await.unwrap(), [host("h1"), host("h2")]);
        assert_eq!(remove(db, "p", data, &[tcp(1, "0.0.0.0/0")]).await.unwrap(), [host("h1"), host("h2")]);
    })
    .await;
}

#[tokio::test]
async fn the_stamp_of_a_host_moves_with_what_concerns_it_and_with_nothing_else() {
    dev::each(async |db: &Db| {
        let (web, data) = cloud(db).await;
        let alien = create(db, "q", "alien").await.unwrap();
        let stamp = async || {
            let mut conn = db.read().await.unwrap();
            super::super::changed(&mut conn, &host("h1")).await.unwrap()
        };
        let mut last = stamp().await;
        let run = async |sql: &'static str| db.write().await.unwrap().execute(sql, &[]).await.unwrap();
        let touch = async |id: u32| {
            let mut conn = db.write().await.unwrap();
            super::super::touch_members_of(&mut conn, &[InstanceId::new(id)]).await.unwrap()
        };
        assert_eq!(stamp().await, last, "nothing happened");
        add(db, "q", alien, &[tcp(22, "0.0.0.0/0")]).await.unwrap();
        assert_eq!(stamp().await, last, "a group that no guest here is in");
        assert_eq!(touch(10).await, [], "no rule lets web in");
        assert_eq!(stamp().await, last);

        let mut moved = async |what: &str| {
            let now = stamp().await;
            assert_ne!(now, last, "{what}");
            last = now;
        };
        add(db, "p", web, &[tcp(22, "0.0.0.0/0")]).await.unwrap();
        moved("a rule came").await;
        remove(db, "p", web, &[tcp(22, "0.0.0.0/0")]).await.unwrap();
        moved("a rule went").await;
        assert_eq!(touch(12).await, [data]);
        moved("a member of a source group elsewhere was counted").await;
        run("update fixed_ips set instance_id = null where instance_id = 12").await;
        moved("a neighbour's address was given back").await;
        run("update fixed_ips set instance_id = 13 where address = '10.0.0.12'").await;
        moved("another took it").await;
        run("update fixed_ips set instance_id = null where instance_id = 10").await;
        moved("a guest of ours is gone").await;
    })
    .await;
}

#[tokio::test]
async fn with_ipv6_each_guest_and_each_member_has_the_address_that_it_makes_itself() {
    dev::each(async |db: &Db| {
        cloud(db).await;
        let mut conn = db.write().await.unwrap();
        let before = super::super::changed(&mut conn, &host("h1")).await.unwrap();
        let without = super::super::for_host(&mut conn, &host("h1"), true).await.unwrap();
        assert!(without.guests.iter().all(|guest| guest.ipv6.is_none()), "the network has no prefix");
        let row = "update networks set cidr_v6 = 'fd00::/64', ra_server = 'fe80::46e:aff:fe00:1'";
        conn.execute(row, &[]).await.unwrap();
        assert_ne!(super::super::changed(&mut conn, &host("h1")).await.unwrap(), before, "it is seen");
        let wanted = super::super::for_host(&mut conn, &host("h1"), true).await.unwrap();
        let ipv6 = wanted.guests[0].ipv6.unwrap();
        assert_eq!(ipv6.address.to_string(), "fd00::16:3eff:fe00:a");
        assert_eq!(ipv6.router.map(|router| router.to_string()).as_deref(), Some("fe80::46e:aff:fe00:1"));
        expect!["[10.0.0.11, 10.0.0.12, fd00::16:3eff:fe00:b, fd00::16:3eff:fe00:c]"]
            .assert_eq(&format!("{:?}", wanted.members[0].addresses));
        expect!["[10.0.0.20, fd00::16:3eff:fe00:14]"].assert_eq(&format!("{:?}", wanted.projects[1].1));
        let off = super::super::for_host(&mut conn, &host("h1"), false).await.unwrap();
        assert!(off.guests.iter().all(|guest| guest.ipv6.is_none()) && off.members[0].addresses.len() == 2);
    })
    .await;
}
