//! Floating addresses, turn after turn.

use std::collections::BTreeSet;

use nova_db::floating_ips::{self, FloatingError, Wish};
use nova_types::quota::Quotas;

use super::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

/// A network host with an uplink, on which somebody has put addresses, a guest, and a floating address of its project.
async fn lab() -> (Lab, NetworkId, InstanceId) {
    let mut lab = Lab::new().await;
    let foreign = [FOREIGN.into(), "192.0.2.2/24".parse().unwrap()];
    lab.links.plug("eth0", foreign.to_vec());
    let network = lab.create_network().await;
    let (id, ..) = lab.launch(network, 1).await;
    let pool = [PUBLIC, Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];
    transaction!(lab.db, |tx| -> FloatingError {
        floating_ips::create(tx, &"node1".parse().unwrap(), &pool).await?;
        floating_ips::allocate(tx, &"acme".parse().unwrap(), &Quotas::default()).await?;
        Ok(())
    })
    .unwrap();
    lab.host.turn().await.unwrap();
    (lab, network, id)
}

impl Lab {
    async fn bind(&self, id: InstanceId) {
        let bound = transaction!(self.db, |tx| -> FloatingError {
            floating_ips::associate(tx, None, PUBLIC, Wish::Instance(id), true).await
        });
        bound.unwrap();
    }

    async fn on(&self, interface: &str) -> BTreeSet<String> {
        let all = self.links.list().await.unwrap().into_iter().filter(|link| link.name == interface);
        all.flat_map(|link| link.addresses).map(|net| net.to_string()).collect()
    }

    fn translated(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        self.firewall.applied().unwrap().floating.into_iter().collect()
    }
}

fn foreign_and(more: &[&str]) -> BTreeSet<String> {
    ["192.0.2.200/32", "192.0.2.2/24"].iter().chain(more).map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn an_address_is_bound_while_it_is_associated_and_foreign_ones_are_left() {
    let (mut lab, network, first) = lab().await;
    assert_eq!((lab.on("eth0").await, lab.translated()), (foreign_and(&[]), vec![]));
    lab.bind(first).await;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.on("eth0").await, foreign_and(&["192.0.2.1/32"]));
    assert_eq!(lab.translated(), [(PUBLIC, Ipv4Addr::new(192, 168, 0, 2))]);
    let (second, ..) = lab.launch(network, 2).await;
    lab.bind(second).await;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.translated(), [(PUBLIC, Ipv4Addr::new(192, 168, 0, 3))]);
    transaction!(lab.db, |tx| { fixed_ips::release(tx, second, 60).await }).unwrap();
    lab.host.turn().await.unwrap();
    assert_eq!((lab.on("eth0").await, lab.translated()), (foreign_and(&[]), vec![]));
}

#[tokio::test]
async fn what_changed_while_we_were_away_is_mended_by_the_first_turn() {
    for released in [false, true] {
        let (mut lab, _, id) = lab().await;
        lab.bind(id).await;
        lab.host.turn().await.unwrap();
        if released {
            transaction!(lab.db, |tx| -> FloatingError {
                floating_ips::release(tx, None, PUBLIC).await?;
                floating_ips::delete(tx, &[PUBLIC]).await
            })
            .unwrap();
        } else {
            // As after a reboot.
            lab.links.remove_address("eth0", PUBLIC).await.unwrap();
        }
        lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
        lab.host.turn().await.unwrap();
        let wanted: &[&str] = if released { &[] } else { &["192.0.2.1/32"] };
        assert_eq!(lab.on("eth0").await, foreign_and(wanted), "released: {released}");
    }
}

#[tokio::test]
async fn an_address_that_moved_to_another_host_is_taken_away() {
    let (mut lab, _, id) = lab().await;
    lab.bind(id).await;
    lab.host.turn().await.unwrap();
    let other = "node2".parse().unwrap();
    transaction!(lab.db, |tx| -> nova_db::DbError {
        networks::release(tx, &"node1".parse().unwrap()).await?;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let free: Vec<NetworkId> = networks::abandoned(tx, &other).await?.iter().map(|row| row.id).collect();
        networks::take_over(tx, &other, &free, 30).await
    })
    .unwrap();
    lab.host.turn().await.unwrap();
    assert_eq!(lab.on("eth0").await, foreign_and(&[]));
    let (links, firewall, dhcp) = <(Arc<FakeLinks>, Arc<FakeNetworkFirewall>, Arc<FakeDhcpServers>)>::default();
    links.plug("eth0", Vec::new());
    let mut next = host_on(&lab.db, lab.folder.path(), "node2", &links, &firewall, &dhcp);
    next.turn().await.unwrap();
    assert_eq!(firewall.applied().unwrap().floating.len(), 1);
    assert!(links.list().await.unwrap().iter().any(|link| link.name == "eth0" && link.addresses == [PUBLIC.into()]));
}
