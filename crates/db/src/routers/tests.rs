//! The queries of `routers`, on every engine.

use nova_types::network::NetworkPlan;
use nova_types::{HostName, InstanceId};

use super::*;
use crate::dev::{self, fixtures};
use crate::floating_ips::{self, FloatingError, Wish};
use crate::open::Db;
use crate::{fixed_ips, instances, networks, security_groups, transaction};

fn at(text: &str) -> Ipv4Addr {
    fixtures::name(text)
}

fn hosts() -> [HostName; 2] {
    ["one", "two"].map(fixtures::name)
}

/// A network of six addresses for guests, with a router on each host, and a guest on each of two hosts.
async fn lab(db: &Db) -> (NetworkId, Vec<InstanceId>) {
    let plan = NetworkPlan {
        cidr: fixtures::name("10.0.0.0/28"),
        prefix6: None,
        label: None,
        bridge: "br100".to_owned(),
        gateway: at("10.0.0.1"),
        dhcp_start: at("10.0.0.2"),
        dns: None,
        vlan: None,
        vpn_private_address: None,
        vpn_public_port: None,
        multi_host: true,
        reserved_bottom: 2,
        reserved_top: 8,
    };
    let network = fixtures::network(db, plan).await;
    let ids = fixtures::launch(db, &fixtures::name("acme"), 2).await;
    transaction!(db, |tx| {
        fixed_ips::take(tx, network, &ids).await?;
        for (id, host) in ids.iter().zip(&hosts()) {
            instances::place(tx, &[*id], host).await?;
        }
        Ok(())
    })
    .unwrap();
    (network, ids)
}

#[tokio::test]
async fn each_host_has_one_address_which_no_guest_and_no_other_host_gets() {
    dev::each(async |db: &Db| {
        let (network, _) = lab(db).await;
        let [one, two] = hosts();
        let takes = [&one, &two, &one].map(|host| async move {
            for _ in 0..50 {
                match transaction!(db, |tx| { take(tx, network, host).await }) {
                    Err(DbError::Stale(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                    taken => return taken.unwrap(),
                }
            }
            panic!("{host} gets none");
        });
        let taken = dev::at_once(takes.into_iter()).await;
        assert_eq!((taken[0], taken[0] == taken[1]), (taken[2], false), "{taken:?}");
        let mut all = list(&mut db.read().await.unwrap()).await.unwrap();
        all.sort_by_key(|router| router.host.clone());
        assert_eq!(all.iter().map(|router| router.address).collect::<Vec<_>>(), taken[..2]);
        let shown = fixed_ips::list(&mut db.read().await.unwrap(), Some(network)).await.unwrap();
        let routers: Vec<_> = shown.iter().filter_map(|ip| ip.router.as_ref()).collect();
        assert_eq!(routers.len(), 2);

        let ids = fixtures::launch(db, &fixtures::name("acme"), 3).await;
        let taken = transaction!(db, |tx| { fixed_ips::take(tx, network, &ids[..2]).await }).unwrap();
        assert!(taken.iter().all(|(_, address)| all.iter().all(|router| router.address != *address)), "{taken:?}");
        let full = transaction!(db, |tx| { fixed_ips::take(tx, network, &ids[2..]).await });
        assert!(matches!(full, Err(DbError::NoMoreAddresses { .. })), "{full:?}");
        let none = transaction!(db, |tx| { take(tx, network, &fixtures::name("three")).await });
        assert!(matches!(none, Err(DbError::NoMoreAddresses { .. })), "{none:?}");

        assert_eq!(release(&mut db.write().await.unwrap(), &one, 120).await.unwrap(), 1);
        assert_eq!(of_host(&mut db.read().await.unwrap(), &one).await.unwrap(), BTreeMap::new());
        let early = transaction!(db, |tx| { take(tx, network, &one).await });
        assert!(matches!(early, Err(DbError::NoMoreAddresses { .. })), "{early:?}");
        assert_eq!(release(&mut db.write().await.unwrap(), &two, 0).await.unwrap(), 1);
        transaction!(db, |tx| { take(tx, network, &one).await }).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_host_serves_its_own_guests_and_no_host_claims_the_network() {
    dev::each(async |db: &Db| {
        let (network, ids) = lab(db).await;
        let [one, two] = hosts();
        let mut conn = db.write().await.unwrap();
        assert_eq!(networks::claim(&mut conn, &one, 30).await.unwrap(), []);
        assert_eq!(networks::abandoned(&mut conn, &one).await.unwrap(), []);
        let address = take(&mut conn, network, &one).await.unwrap();
        let seen = async |conn: &mut Conn, host: &HostName| {
            let mut all = networks::list(conn).await.unwrap();
            seen_from(conn, host, &mut all).await.unwrap();
            let network = all.remove(0);
            (network.host, network.gateway)
        };
        assert_eq!(seen(&mut conn, &one).await, (Some(one.clone()), address));
        assert_eq!(seen(&mut conn, &two).await, (None, at("10.0.0.1")), "it has no address yet");
        assert_eq!(wanted(&mut conn, &two).await.unwrap(), [network].into());
        for (id, host) in ids.iter().zip([&one, &two]) {
            let own = fixed_ips::dhcp_hosts_on(&mut conn, network, host).await.unwrap();
            assert_eq!(own.iter().map(|host| host.instance).collect::<Vec<_>>(), [*id]);
        }
        assert_eq!(fixed_ips::dhcp_hosts(&mut conn, network).await.unwrap().len(), 2);
        drop(conn);
        transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 0).await }).unwrap();
        let mut conn = db.read().await.unwrap();
        assert_eq!(seen(&mut conn, &one).await, (None, at("10.0.0.1")), "its last guest is gone");
        assert_eq!(of_host(&mut conn, &one).await.unwrap(), [(network, address)].into(), "the address stays its own");
    })
    .await;
}

#[tokio::test]
async fn guests_take_dhcp_from_their_own_host_and_it_is_seen_when_that_changes() {
    dev::each(async |db: &Db| {
        let (network, _) = lab(db).await;
        let [one, _] = hosts();
        let servers = async || {
            let mut conn = db.read().await.unwrap();
            let firewall = security_groups::for_host(&mut conn, &one, false).await.unwrap();
            firewall.guests.iter().map(|guest| guest.dhcp_server).collect::<Vec<_>>()
        };
        let stamp = async || security_groups::changed(&mut db.read().await.unwrap(), &one).await.unwrap();
        let before = stamp().await;
        assert_eq!(servers().await, [at("10.0.0.1")]);
        let address = transaction!(db, |tx| { take(tx, network, &one).await }).unwrap();
        assert_eq!(servers().await, [address]);
        assert_ne!(stamp().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_floating_address_is_where_its_guest_is() {
    dev::each(async |db: &Db| {
        let (network, ids) = lab(db).await;
        let (hosts, public) = (hosts(), at("192.0.2.1"));
        let acme = fixtures::name("acme");
        let bind = async |id: InstanceId| {
            transaction!(db, |tx| -> FloatingError {
                floating_ips::associate(tx, Some(&acme), public, Wish::Instance(id), true).await
            })
            .unwrap()
        };
        transaction!(db, |tx| -> FloatingError {
            floating_ips::create(tx, &hosts[0], &[public]).await?;
            floating_ips::allocate(tx, &acme, &nova_types::quota::Quotas::default()).await?;
            Ok(())
        })
        .unwrap();
        let on =
            async |host: &HostName| floating_ips::on_host(&mut db.read().await.unwrap(), host).await.unwrap().len();
        let told = bind(ids[0]).await;
        assert_eq!((told[0].network, told[0].host.as_ref(), told.len()), (network, Some(&hosts[0]), 1));
        assert_eq!((on(&hosts[0]).await, on(&hosts[1]).await), (1, 0));
        let told: Vec<_> = bind(ids[1]).await.into_iter().filter_map(|affected| affected.host).collect();
        assert_eq!(told, hosts, "both hear of it");
        assert_eq!((on(&hosts[0]).await, on(&hosts[1]).await), (0, 1));
    })
    .await;
}
