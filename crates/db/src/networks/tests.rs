//! The queries of `networks`, on every engine.

use nova_types::network::NetworkPlan;
use nova_types::{HostName, ProjectId, Tag};

use super::{
    abandoned, by_cidr, claim, create, delete, disassociate, for_project, get, list, on_host, publish_vpns, release,
    set_host, set_project, set_vpn, take_over, vpns, with_guests_on,
};
use crate::dev::{self, fixtures};
use crate::error::{DbError, Unique};
use crate::open::Db;
use crate::{fixed_ips, instances, transaction};

fn vlan(tag: i64, cidr: &str) -> NetworkPlan {
    let range: ipnet::Ipv4Net = cidr.parse().unwrap();
    let at = |n| nova_types::net::nth(range, n).unwrap();
    NetworkPlan {
        cidr: range,
        prefix6: Some(format!("fd00:0:0:{tag}::/64").parse().unwrap()),
        label: Some("private".to_owned()),
        bridge: format!("br{tag}"),
        gateway: at(1),
        dhcp_start: at(3),
        dns: None,
        vlan: Some(Tag::try_from(tag).unwrap()),
        vpn_private_address: Some(at(2)),
        vpn_public_port: Some(1000),
        multi_host: false,
        reserved_bottom: 3,
        reserved_top: 1,
    }
}

#[tokio::test]
async fn a_network_is_read_back_and_removed() {
    dev::each(async |db: &Db| {
        let id = fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        let mut conn = db.read().await.unwrap();
        let found = get(&mut conn, id).await.unwrap();
        assert_eq!((found.vlan.map(Tag::number), found.vpn_public_port, found.dns), (Some(100), Some(1000), None));
        assert_eq!((found.label.as_deref(), found.bridge.as_str()), (Some("private"), "br100"));
        assert_eq!((found.prefix6, found.router6), (vlan(100, "10.0.0.0/28").prefix6, None));
        assert_eq!(by_cidr(&mut conn, "10.0.0.0/28".parse().unwrap()).await.unwrap(), found);
        assert_eq!(list(&mut conn).await.unwrap(), [found]);
        drop(conn);
        let ids = fixtures::launch(db, &fixtures::name("acme"), 1).await;
        transaction!(db, |tx| { fixed_ips::take(tx, id, &ids).await }).unwrap();
        let used = transaction!(db, |tx| { delete(tx, id).await });
        assert!(matches!(used, Err(DbError::InUse("network"))), "{used:?}");
        transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 0).await }).unwrap();
        transaction!(db, |tx| { delete(tx, id).await }).unwrap();
        let gone = transaction!(db, |tx| { delete(tx, id).await });
        assert!(matches!(gone, Err(DbError::NotFound("network"))), "{gone:?}");
        fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
    })
    .await;
}

#[tokio::test]
async fn what_overlaps_is_refused_whole() {
    dev::each(async |db: &Db| {
        fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        for (plan, what) in [
            (vlan(101, "10.0.0.0/28"), Unique::NetworkCidr),
            (NetworkPlan { prefix6: None, ..vlan(100, "10.0.1.0/28") }, Unique::NetworkVlan),
            (
                NetworkPlan { prefix6: vlan(100, "10.0.0.0/28").prefix6, ..vlan(101, "10.0.1.0/28") },
                Unique::NetworkCidrV6,
            ),
            (vlan(101, "10.0.0.8/29"), Unique::FixedAddress),
        ] {
            let plans = [vlan(200, "10.2.0.0/28"), plan];
            let refused = transaction!(db, |tx| { create(tx, &plans).await });
            assert!(matches!(&refused, Err(DbError::Duplicate(found)) if *found == what), "{what}: {refused:?}");
        }
        assert_eq!(list(&mut db.read().await.unwrap()).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_project_gets_one_network_of_its_own() {
    dev::each(async |db: &Db| {
        for n in 0..3 {
            fixtures::network(db, vlan(100 + n, &format!("10.0.{n}.0/28"))).await;
        }
        let acme: ProjectId = fixtures::name("acme");
        assert_eq!(for_project(&mut db.read().await.unwrap(), &acme, false).await.unwrap(), None);
        let claims = (0..4).map(|_| async { transaction!(db, |tx| { for_project(tx, &acme, true).await }) });
        let got: Vec<_> = dev::at_once(claims).await.into_iter().filter_map(Result::ok).flatten().collect();
        assert!(!got.is_empty() && got.iter().all(|network| network.id == got[0].id), "{got:?}");
        let owned = list(&mut db.read().await.unwrap()).await.unwrap();
        assert_eq!(owned.iter().filter(|network| network.project.is_some()).count(), 1);
        let mut conn = db.write().await.unwrap();
        assert_eq!(disassociate(&mut conn, &acme).await.unwrap(), 1);
        assert_eq!(for_project(&mut conn, &acme, false).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn projects_that_come_at_once_get_a_network_each_or_none() {
    dev::each(async |db: &Db| {
        for n in 0..3 {
            fixtures::network(db, vlan(100 + n, &format!("10.0.{n}.0/28"))).await;
        }
        let names: Vec<ProjectId> = (0..4).map(|n| fixtures::name(&format!("p{n}"))).collect();
        let claim = async |project: &ProjectId| {
            // A scheduler that lost looks again a moment later.
            for _ in 0..50 {
                match transaction!(db, |tx| { for_project(tx, project, true).await }) {
                    Err(DbError::Stale(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                    claimed => return claimed.unwrap(),
                }
            }
            None
        };
        let got = dev::at_once(names.iter().map(&claim)).await;
        let mut ids: Vec<_> = got.iter().flatten().map(|network| network.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), got.iter().flatten().count(), "two projects share a network: {got:?}");
        let owned = list(&mut db.read().await.unwrap()).await.unwrap();
        let owned = owned.iter().filter(|network| network.project.is_some()).count();
        assert_eq!(owned, ids.len(), "a network was taken for nobody");
        // Whoever passed over a row that another held finds what is left.
        for name in &names {
            claim(name).await;
        }
        let left = list(&mut db.read().await.unwrap()).await.unwrap();
        assert!(left.iter().all(|network| network.project.is_some()), "{left:?}");
    })
    .await;
}

#[tokio::test]
async fn a_vpn_is_published_once_its_network_is_served_and_stays_where_it_was_moved() {
    dev::each(async |db: &Db| {
        for n in 0..3 {
            let plan =
                NetworkPlan { vpn_public_port: Some(1000 + n), ..vlan(100 + i64::from(n), &format!("10.0.{n}.0/28")) };
            fixtures::network(db, plan).await;
        }
        let host: HostName = fixtures::name("one");
        let mut conn = db.write().await.unwrap();
        claim(&mut conn, &host, 30).await.unwrap();
        let published = async |conn: &mut crate::Conn, address: [u8; 4]| {
            let rows = publish_vpns(conn, &host, address.into(), None).await.unwrap();
            rows.into_iter()
                .filter_map(|row| Some((row.vpn_public_port?, row.vpn_public_address?.octets()[3])))
                .collect::<Vec<_>>()
        };
        assert_eq!(published(&mut conn, [192, 0, 2, 1]).await, [], "no project has one");
        for_project(&mut conn, &fixtures::name("acme"), true).await.unwrap();
        assert_eq!(published(&mut conn, [192, 0, 2, 1]).await, [(1000, 1)]);
        for_project(&mut conn, &fixtures::name("other"), true).await.unwrap();
        assert_eq!(published(&mut conn, [192, 0, 2, 2]).await, [(1000, 1), (1001, 2)]);
    })
    .await;
}

#[tokio::test]
async fn a_flat_network_is_everybodys() {
    dev::each(async |db: &Db| {
        let id = fixtures::flat_network(db, 28).await;
        for project in ["acme", "other"] {
            let found = for_project(&mut db.read().await.unwrap(), &fixtures::name(project), true).await.unwrap();
            assert_eq!(found.map(|network| (network.id, network.project)), Some((id, None)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_network_is_served_by_one_host_until_its_lease_is_over() {
    dev::each(async |db: &Db| {
        let id = fixtures::flat_network(db, 28).await;
        let (one, two): (HostName, HostName) = (fixtures::name("one"), fixtures::name("two"));
        let mut conn = db.write().await.unwrap();
        assert_eq!(abandoned(&mut conn, &one).await.unwrap(), [], "nobody had it");
        assert_eq!(claim(&mut conn, &one, 30).await.unwrap().len(), 1);
        assert_eq!(claim(&mut conn, &two, 30).await.unwrap(), []);
        assert_eq!(abandoned(&mut conn, &two).await.unwrap(), []);
        assert_eq!(take_over(&mut conn, &two, &[id], 30).await.unwrap(), [], "its lease is not over");
        assert_eq!(claim(&mut conn, &one, 0).await.unwrap().len(), 1);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(claim(&mut conn, &two, 30).await.unwrap(), [], "it must be asked for first");
        assert_eq!(abandoned(&mut conn, &one).await.unwrap(), [], "it is its own");
        assert_eq!(abandoned(&mut conn, &two).await.unwrap().len(), 1);
        assert_eq!(take_over(&mut conn, &two, &[], 30).await.unwrap(), []);
        assert_eq!(take_over(&mut conn, &two, &[id], 30).await.unwrap().len(), 1);
        assert_eq!(on_host(&mut conn, &one).await.unwrap(), []);
        release(&mut conn, &two).await.unwrap();
        assert_eq!(take_over(&mut conn, &one, &[id], 30).await.unwrap().len(), 1);
        let epoch = conn.one("select epoch from networks", &[]).await.unwrap().get::<i32>("epoch").unwrap();
        assert_eq!(epoch, 3);
    })
    .await;
}

#[tokio::test]
async fn a_network_is_given_to_a_project_and_taken_back_while_nobody_uses_it() {
    dev::each(async |db: &Db| {
        let id = fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        let other =
            fixtures::network(db, NetworkPlan { vpn_public_port: Some(1001), ..vlan(101, "10.0.1.0/28") }).await;
        let (acme, moon): (ProjectId, ProjectId) = (fixtures::name("acme"), fixtures::name("moon"));
        transaction!(db, |tx| { set_project(tx, id, Some(&acme)).await }).unwrap();
        let second = transaction!(db, |tx| { set_project(tx, other, Some(&acme)).await });
        assert!(matches!(second, Err(DbError::Duplicate(Unique::NetworkProject))), "{second:?}");
        let ids = fixtures::launch(db, &acme, 1).await;
        transaction!(db, |tx| { fixed_ips::take(tx, id, &ids).await }).unwrap();
        transaction!(db, |tx| { set_project(tx, id, Some(&acme)).await }).unwrap();
        for to in [Some(&moon), None] {
            let used = transaction!(db, |tx| { set_project(tx, id, to).await });
            assert!(matches!(used, Err(DbError::InUse("network"))), "{used:?}");
        }
        transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 0).await }).unwrap();
        transaction!(db, |tx| { set_project(tx, id, None).await }).unwrap();
        assert_eq!(get(&mut db.read().await.unwrap(), id).await.unwrap().project, None);
    })
    .await;
}

#[tokio::test]
async fn a_network_is_given_to_a_host_and_the_old_one_claims_it_no_more() {
    dev::each(async |db: &Db| {
        let id = fixtures::flat_network(db, 28).await;
        let (one, two): (HostName, HostName) = (fixtures::name("one"), fixtures::name("two"));
        let mut conn = db.write().await.unwrap();
        claim(&mut conn, &one, 30).await.unwrap();
        set_host(&mut conn, id, Some(&two), 30).await.unwrap();
        assert_eq!(claim(&mut conn, &one, 30).await.unwrap(), []);
        assert_eq!(claim(&mut conn, &two, 30).await.unwrap().len(), 1);
        set_host(&mut conn, id, None, 30).await.unwrap();
        assert_eq!(claim(&mut conn, &one, 30).await.unwrap(), [], "the old host may serve it still");
        assert_eq!(abandoned(&mut conn, &one).await.unwrap().len(), 1);
        assert_eq!(take_over(&mut conn, &one, &[id], 30).await.unwrap().len(), 1);
        let epoch = conn.one("select epoch from networks", &[]).await.unwrap().get::<i32>("epoch").unwrap();
        assert_eq!(epoch, 3, "each change of hands counts");
        let absent = set_host(&mut conn, nova_types::NetworkId::new(99), None, 30).await;
        assert!(matches!(absent, Err(DbError::NotFound("network"))), "{absent:?}");
    })
    .await;
}

#[tokio::test]
async fn the_vpn_of_a_project_is_where_it_was_put() {
    dev::each(async |db: &Db| {
        let id = fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        let acme: ProjectId = fixtures::name("acme");
        let mut conn = db.write().await.unwrap();
        assert_eq!(vpns(&mut conn).await.unwrap(), []);
        let absent = set_vpn(&mut conn, &acme, "172.16.0.9".parse().unwrap(), 1200).await;
        assert!(matches!(absent, Err(DbError::NotFound("network"))), "{absent:?}");
        set_project(&mut conn, id, Some(&acme)).await.unwrap();
        let before = vpns(&mut conn).await.unwrap();
        assert_eq!((before[0].address, before[0].port), (None, Some(1000)));
        set_vpn(&mut conn, &acme, "172.16.0.9".parse().unwrap(), 1200).await.unwrap();
        let after = vpns(&mut conn).await.unwrap();
        assert_eq!((after[0].address, after[0].port), (Some("172.16.0.9".parse().unwrap()), Some(1200)));
        assert_eq!(after[0].private_address, Some("10.0.0.2".parse().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn only_the_host_that_serves_a_network_says_who_its_router_is() {
    dev::each(async |db: &Db| {
        let id = fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        let (one, two): (HostName, HostName) = ("one".parse().unwrap(), "two".parse().unwrap());
        let router: std::net::Ipv6Addr = "fe80::46e:aff:fe00:1".parse().unwrap();
        transaction!(db, |tx| { claim(tx, &one, 30).await }).unwrap();
        transaction!(db, |tx| { crate::networks::publish_router(tx, id, &two, router).await }).unwrap();
        assert_eq!(get(&mut db.read().await.unwrap(), id).await.unwrap().router6, None);
        transaction!(db, |tx| { crate::networks::publish_router(tx, id, &one, router).await }).unwrap();
        assert_eq!(get(&mut db.read().await.unwrap(), id).await.unwrap().router6, Some(router));
    })
    .await;
}

#[tokio::test]
async fn the_networks_of_a_hosts_guests_are_those_where_they_have_addresses() {
    dev::each(async |db: &Db| {
        let (here, there): (HostName, HostName) = (fixtures::name("host-1"), fixtures::name("host-2"));
        let id = fixtures::network(db, vlan(100, "10.0.0.0/28")).await;
        fixtures::network(db, vlan(101, "10.0.1.0/28")).await;
        let ids = fixtures::launch(db, &fixtures::name("acme"), 1).await;
        let used = async |host| with_guests_on(&mut db.read().await.unwrap(), host).await.unwrap();
        transaction!(db, |tx| { fixed_ips::take(tx, id, &ids).await }).unwrap();
        assert!(used(&here).await.is_empty(), "it has no host");
        transaction!(db, |tx| { instances::place(tx, &ids, &here).await }).unwrap();
        assert_eq!(used(&here).await, [id].into());
        assert!(used(&there).await.is_empty());
        transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 60).await }).unwrap();
        assert!(used(&here).await.is_empty(), "a quarantined address is nobody's");
    })
    .await;
}

#[tokio::test]
async fn the_address_kept_for_a_vpn_goes_to_that_one_instance_and_comes_back() {
    dev::each(async |db: &Db| {
        let plan = vlan(100, "10.0.0.0/28");
        let kept = plan.vpn_private_address.unwrap();
        let id = fixtures::network(db, plan).await;
        let ids = fixtures::launch(db, &fixtures::name("acme"), 4).await;
        let take = async |instance| transaction!(db, |tx| { fixed_ips::take_kept(tx, id, kept, instance).await });
        let (one, other) = (ids[0], ids[1]);
        let (one, other) = tokio::join!(take(one), take(other));
        let got = (one.unwrap(), other.unwrap());
        assert!(got.0 != got.1, "one of two at once: {got:?}");
        let vpn = ids[usize::from(got.1)];
        let due = instances::due_of(&mut db.read().await.unwrap(), &ids).await.unwrap();
        let with: Vec<_> = due.iter().filter(|due| due.has_address).map(|due| due.instance.id).collect();
        assert_eq!(with, [vpn]);
        let others: Vec<_> = ids.iter().copied().filter(|instance| *instance != vpn).collect();
        let taken = transaction!(db, |tx| { fixed_ips::take(tx, id, &others).await }).unwrap();
        assert!(taken.iter().all(|(_, address)| *address != kept), "{taken:?}");
        let released = transaction!(db, |tx| { fixed_ips::release(tx, vpn, 120).await }).unwrap();
        assert_eq!(released, Some((kept, id)));
        let row = async || fixed_ips::list(&mut db.read().await.unwrap(), Some(id)).await.unwrap()[2].clone();
        assert!(row().await.reserved && row().await.holder.is_none());
        assert!(!take(vpn).await.unwrap(), "it rests");
        db.write().await.unwrap().execute("update fixed_ips set free_after = {now-?}", &[1.into()]).await.unwrap();
        assert!(take(vpn).await.unwrap());
        let free = "10.0.0.9".parse().unwrap();
        let taken = transaction!(db, |tx| { fixed_ips::take_kept(tx, id, free, vpn).await });
        assert!(!taken.unwrap(), "one that anybody may have is not kept for a VPN");
    })
    .await;
}
