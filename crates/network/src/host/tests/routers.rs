//! Networks with a router on each host.

use nova_db::routers;

use super::*;

/// A network with a router on each host, and a host that has looked at it.
async fn lab() -> (Lab, NetworkId) {
    let mut lab = Lab::new().await;
    let network = lab.create_network().await;
    lab.db.write().await.unwrap().execute("update networks set multi_host = true", &[]).await.unwrap();
    lab.host.turn().await.unwrap();
    (lab, network)
}

async fn place(lab: &Lab, id: InstanceId, host: &str) {
    let host = host.parse().unwrap();
    transaction!(lab.db, |tx| { instances::place(tx, &[id], &host).await }).unwrap();
}

async fn own(lab: &Lab) -> Vec<String> {
    let all = routers::list(&mut lab.db.read().await.unwrap()).await.unwrap();
    all.iter().map(|router| format!("{} {}", router.host, router.address)).collect()
}

#[tokio::test]
async fn a_host_serves_its_own_guests_at_an_address_of_its_own() {
    let (mut lab, network) = lab().await;
    assert!(lab.links.list().await.unwrap().is_empty() && own(&lab).await.is_empty(), "nothing without a guest");
    let (first, ..) = lab.launch(network, 1).await;
    let (second, ..) = lab.launch(network, 2).await;
    place(&lab, second, "node2").await;
    lab.host.turn().await.unwrap();
    assert!(lab.links.list().await.unwrap().is_empty() && own(&lab).await.is_empty(), "the guests are not here");

    place(&lab, first, "node1").await;
    lab.host.turn().await.unwrap();
    assert_eq!(own(&lab).await, ["node1 192.168.0.4"]);
    assert_eq!(lab.shown().await, ["br100 192.168.0.4/24"]);
    assert_eq!(lab.hosts(), ["02:16:3e:00:00:01 192.168.0.2 leased: false"], "nobody else's guests");
    let gateway = lab.firewall.applied().unwrap().networks[0].gateway;
    assert_eq!((gateway, lab.dhcp.server("br100").unwrap().settings.unwrap().gateway), (gateway, gateway));
    let before = lab.shown().await;
    lab.host.turn().await.unwrap();
    assert_eq!((lab.shown().await, own(&lab).await.len()), (before, 1));

    // The other host has another, at the same time.
    let (links, firewall, dhcp) = Default::default();
    let mut other = host_on(&lab.db, lab.folder.path(), "node2", &links, &firewall, &dhcp);
    other.turn().await.unwrap();
    assert_eq!(own(&lab).await, ["node1 192.168.0.4", "node2 192.168.0.5"]);
    assert_eq!(dhcp.server("br100").unwrap().hosts.len(), 1);
    assert_eq!(links.list().await.unwrap()[0].addresses, ["192.168.0.5/24".parse().unwrap()]);
}

#[tokio::test]
async fn a_host_without_guests_serves_nothing_and_keeps_its_address() {
    for (away, stopped) in [(false, false), (true, false), (true, true)] {
        let why = format!("away: {away}, its server stopped: {stopped}");
        let (mut lab, network) = lab().await;
        let (id, ..) = lab.launch(network, 1).await;
        place(&lab, id, "node1").await;
        lab.host.turn().await.unwrap();
        transaction!(lab.db, |tx| { fixed_ips::release(tx, id, 0).await }).unwrap();
        if away {
            lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
        }
        if stopped {
            lab.dhcp.stop("br100").await.unwrap();
        }
        lab.host.turn().await.unwrap();
        assert!(lab.dhcp.server("br100").is_none(), "{why}");
        assert_eq!(lab.shown().await, ["br100"], "{why}");
        assert!(lab.translates_nothing(away), "{why}");
        assert_eq!(own(&lab).await, ["node1 192.168.0.3"]);
    }
}

#[tokio::test]
async fn an_address_that_was_taken_from_a_host_is_not_on_its_bridge_any_more() {
    let (mut lab, network) = lab().await;
    let (id, ..) = lab.launch(network, 1).await;
    place(&lab, id, "node1").await;
    lab.host.turn().await.unwrap();
    // While it was away, an administrator gave it up for lost; a guest got what was its own, and it gets another.
    transaction!(lab.db, |tx| { routers::release(tx, &"node1".parse().unwrap(), 0).await }).unwrap();
    let (_, address, _) = lab.launch(network, 2).await;
    assert_eq!(address, Ipv4Addr::new(192, 168, 0, 3), "the address is free again");
    // One that an administrator kept for this machine stays.
    let reserved = Ipv4Addr::new(192, 168, 0, 200);
    transaction!(lab.db, |tx| { fixed_ips::reserve(tx, reserved, true).await }).unwrap();
    lab.links.bind("br100", reserved).await.unwrap();
    lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
    lab.host.turn().await.unwrap();
    assert_eq!(own(&lab).await, ["node1 192.168.0.4"]);
    assert_eq!(lab.shown().await, ["br100 192.168.0.200/32 192.168.0.4/24"]);
}

#[tokio::test]
async fn a_network_without_a_free_address_keeps_nobody_else_waiting() {
    let (mut lab, network) = lab().await;
    let (id, ..) = lab.launch(network, 1).await;
    place(&lab, id, "node1").await;
    let all = "update fixed_ips set reserved = true where instance_id is null";
    lab.db.write().await.unwrap().execute(all, &[]).await.unwrap();
    lab.host.turn().await.unwrap();
    assert!(lab.host.complaints["an address of this host in 192.168.0.0/24"].contains("address"));
    let one = "update fixed_ips set reserved = false where address = '192.168.0.9'";
    lab.db.write().await.unwrap().execute(one, &[]).await.unwrap();
    lab.host.turn().await.unwrap();
    assert_eq!(own(&lab).await, ["node1 192.168.0.9"]);
    assert!(lab.host.complaints.is_empty());
}

#[tokio::test]
async fn a_host_whose_own_address_somebody_else_has_says_so_once() {
    let (mut lab, network) = lab().await;
    let (id, ..) = lab.launch(network, 1).await;
    place(&lab, id, "node1").await;
    let neighbours = Arc::new(FakeNeighbours::default());
    neighbours.answer(Ipv4Addr::new(192, 168, 0, 3), Some(Mac::from([6, 0x6e, 0, 0, 0, 2])));
    lab.host.machine.neighbours = neighbours;
    // It has been here long enough to take over what others had.
    lab.host.settings.lease_seconds = 0;
    lab.host.turn().await.unwrap();
    assert!(lab.host.entry.keeps_out("br100") && lab.dhcp.server("br100").is_none());
    let all = networks::list(&mut lab.db.read().await.unwrap()).await.unwrap();
    lab.host.take_over(&all, &mut Vec::new()).await.unwrap();
    assert!(lab.host.entry.keeps_out("br100"), "nothing is over");
}
