//! Who may be a network's gateway.

use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// Another host of the same cloud, and those that it hears on its links.
struct Other {
    host: NetworkHost,
    links: Arc<FakeLinks>,
    dhcp: Arc<FakeDhcpServers>,
    neighbours: Arc<FakeNeighbours>,
}

impl Other {
    fn new(lab: &Lab) -> Self {
        let (links, firewall, dhcp) = Default::default();
        let mut host = host_on(&lab.db, lab.folder.path(), "node2", &links, &firewall, &dhcp);
        let neighbours = Arc::new(FakeNeighbours::default());
        host.machine.neighbours = Arc::<FakeNeighbours>::clone(&neighbours);
        host.began = began_long_ago();
        Self { host, links, dhcp, neighbours }
    }

    async fn addresses(&self) -> Vec<String> {
        let links = self.links.list().await.unwrap();
        links.iter().flat_map(|link| link.addresses.iter().map(ToString::to_string)).collect()
    }
}

/// Lets the leases of `node1` end a moment after each of its turns.
async fn fell_silent(carrier: Carrier) -> (Lab, NetworkId) {
    let mut lab = Lab::with(carrier).await;
    lab.host.settings.lease_seconds = 0;
    let network = lab.create_network().await;
    lab.host.turn().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    (lab, network)
}

fn began_long_ago() -> Instant {
    Instant::now().checked_sub(Duration::from_secs(3600)).unwrap()
}

async fn host_of(lab: &Lab, network: NetworkId) -> Option<String> {
    let row = networks::get(&mut lab.db.read().await.unwrap(), network).await.unwrap();
    row.host.map(|host| host.to_string())
}

fn mac(last: u8) -> Mac {
    Mac::from([6, 0x6e, 0, 0, 0, last])
}

#[tokio::test]
async fn a_silent_host_keeps_its_network_while_somebody_answers_for_the_gateway() {
    let (mut lab, network) = fell_silent(Carrier::Port(None)).await;
    let mut other = Other::new(&lab);
    other.neighbours.answer(GATEWAY, Some(mac(1)));
    for _ in 0..2 {
        other.host.turn().await.unwrap();
        assert_eq!(host_of(&lab, network).await.as_deref(), Some("node1"));
        assert!(other.dhcp.server("br100").is_none() && other.addresses().await.is_empty());
        assert_eq!(other.neighbours.asked(), [("br100".to_owned(), GATEWAY)], "it asks again each time");
    }
    assert!(other.neighbours.announced().is_empty());

    // It was cut off, and is back: nothing has changed for anybody.
    lab.host.settings.lease_seconds = 30;
    lab.host.claimed = None;
    lab.host.turn().await.unwrap();
    other.host.turn().await.unwrap();
    assert!(other.neighbours.asked().is_empty(), "there is nothing to be taken over");
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node1"));
}

#[tokio::test]
async fn a_network_without_a_bridge_of_its_own_stays_with_the_one_that_has_it() {
    let mut lab = Lab::new().await;
    lab.host.settings.lease_seconds = 0;
    lab.create(ManagerKind::Vlan, 4).await;
    lab.db.write().await.unwrap().execute("update networks set vlan = null, bridge = 'br100'", &[]).await.unwrap();
    lab.host.turn().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut other = Other::new(&lab);
    for (answers, servers) in [(Some(mac(1)), ["node1"; 4]), (None, ["node2"; 4])] {
        other.neighbours.answer(GATEWAY, answers);
        other.host.turn().await.unwrap();
        let rows = networks::list(&mut lab.db.read().await.unwrap()).await.unwrap();
        let hosts: Vec<String> = rows.into_iter().filter_map(|row| Some(row.host?.to_string())).collect();
        assert_eq!(hosts, servers);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_taken_for_silence() {
    let (lab, network) = fell_silent(Carrier::Port(None)).await;
    let mut other = Other::new(&lab);
    other.neighbours.unplug(true);
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node1"));
    other.neighbours.unplug(false);
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node2"));

    // Nor where there is no way to ask.
    let (lab, network) = fell_silent(Carrier::Port(None)).await;
    let mut other = Other::new(&lab);
    other.host.settings.carrier = Carrier::Port(Some("eth1".into()));
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node1"));
    assert!(other.neighbours.asked().is_empty());
}

#[tokio::test]
async fn a_network_is_taken_over_whole_and_the_old_host_drops_it_when_it_comes_back() {
    let (mut lab, network) = fell_silent(Carrier::Port(None)).await;
    lab.launch(network, 1).await;
    lab.host.turn().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut other = Other::new(&lab);
    other.neighbours.mute(true);
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node2"));
    assert_eq!(other.addresses().await, ["192.168.0.1/24"]);
    assert_eq!(other.dhcp.server("br100").unwrap().hosts.len(), 1, "with the addresses of the database");
    // What could not be said is said in the next turn.
    other.neighbours.mute(false);
    other.host.turn().await.unwrap();
    assert_eq!(other.neighbours.announced(), [("br100".to_owned(), GATEWAY)]);
    other.host.turn().await.unwrap();
    assert!(other.neighbours.announced().is_empty() && other.neighbours.asked().len() == 1, "once");

    let neighbours = Arc::new(FakeNeighbours::default());
    lab.host.machine.neighbours = Arc::<FakeNeighbours>::clone(&neighbours);
    lab.host.turn().await.unwrap();
    assert!(lab.dhcp.server("br100").is_none());
    assert_eq!(neighbours.asked(), [("br100".to_owned(), GATEWAY)], "where the gateway is now");
    assert_eq!(lab.shown().await, ["br100"]);
    assert!(lab.firewall.applied().unwrap().networks.is_empty());
}

#[tokio::test]
async fn a_host_whose_wire_is_cut_serves_its_own_network() {
    let mut lab = Lab::new().await;
    let neighbours = Arc::new(FakeNeighbours::default());
    neighbours.unplug(true);
    lab.host.machine.neighbours = Arc::<FakeNeighbours>::clone(&neighbours);
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.shown().await, ["br100 192.168.0.1/24"]);
}

#[tokio::test]
async fn a_host_that_has_just_come_up_takes_nothing_over() {
    let (lab, network) = fell_silent(Carrier::Port(None)).await;
    let mut other = Other::new(&lab);
    other.host.began = Instant::now();
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node1"));
    assert!(other.neighbours.asked().is_empty());
    other.host.began = began_long_ago();
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node2"));
}

#[tokio::test]
async fn a_network_without_a_host_that_somebody_serves_costs_no_claim_in_each_turn() {
    let mut lab = Lab::new().await;
    let network = lab.create_network().await;
    lab.host.turn().await.unwrap();
    let mut other = Other::new(&lab);
    other.host.settings.renew = Duration::from_secs(60);
    other.neighbours.answer(GATEWAY, Some(mac(1)));
    transaction!(lab.db, |tx| { networks::set_host(tx, network, None, 30).await }).unwrap();
    other.host.turn().await.unwrap();
    let claimed = other.host.claimed;
    other.host.turn().await.unwrap();
    assert!(claimed.is_some() && other.host.claimed == claimed, "it only asks");
    assert_eq!(other.neighbours.asked().len(), 2);
    other.neighbours.answer(GATEWAY, None);
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node2"));
}

#[tokio::test]
async fn a_network_that_is_given_to_a_host_waits_until_the_old_one_has_stopped() {
    let mut lab = Lab::new().await;
    let network = lab.create_network().await;
    lab.host.turn().await.unwrap();
    let mut other = Other::new(&lab);
    other.neighbours.answer(GATEWAY, Some(mac(1)));
    let node2 = "node2".parse().unwrap();
    transaction!(lab.db, |tx| { networks::set_host(tx, network, Some(&node2), 30).await }).unwrap();
    other.host.turn().await.unwrap();
    assert!(other.dhcp.server("br100").is_none() && other.addresses().await.is_empty());
    other.neighbours.answer(GATEWAY, None);
    other.host.turn().await.unwrap();
    assert_eq!(other.addresses().await, ["192.168.0.1/24"]);

    // A restart asks nobody: the address is there.
    other.neighbours.answer(GATEWAY, Some(mac(2)));
    let links = Arc::<FakeLinks>::clone(&other.links);
    other.host = host_on(&lab.db, lab.folder.path(), "node2", &links, &Arc::default(), &other.dhcp);
    other.host.machine.neighbours = Arc::<FakeNeighbours>::clone(&other.neighbours);
    drop((other.neighbours.asked(), other.neighbours.announced()));
    other.host.turn().await.unwrap();
    assert!(other.neighbours.asked().is_empty());
    assert_eq!(other.neighbours.announced(), [("br100".to_owned(), GATEWAY)], "it may have died before it said so");
    assert!(other.dhcp.server("br100").is_some());
    assert_eq!(other.addresses().await, ["192.168.0.1/24"]);
}

#[tokio::test]
async fn under_flat_manager_a_network_is_taken_over_without_a_question() {
    let (lab, network) = fell_silent(Carrier::ByHand).await;
    let mut other = Other::new(&lab);
    other.host.settings.carrier = Carrier::ByHand;
    other.host.turn().await.unwrap();
    assert_eq!(host_of(&lab, network).await.as_deref(), Some("node2"));
    assert!(other.neighbours.asked().is_empty() && other.links.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_vpn_is_forwarded_where_its_network_went_unless_an_administrator_said_where() {
    let mut lab = Lab::with(Carrier::Vlans("eth1".into())).await;
    lab.links.plug("eth1", Vec::new());
    lab.host.settings.lease_seconds = 0;
    let network = lab.create(ManagerKind::Vlan, 4).await;
    let acme = "acme".parse().unwrap();
    transaction!(lab.db, |tx| { networks::for_project(tx, &acme, true).await }).unwrap();
    lab.host.turn().await.unwrap();
    let vpn = async || networks::get(&mut lab.db.read().await.unwrap(), network).await.unwrap().vpn_public_address;
    assert_eq!(vpn().await, lab.host.settings.vpn);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut other = Other::new(&lab);
    other.links.plug("eth1", Vec::new());
    other.host.settings.carrier = Carrier::Vlans("eth1".into());
    other.host.settings.vpn = Some(Ipv4Addr::new(172, 16, 0, 10));
    other.host.turn().await.unwrap();
    other.host.turn().await.unwrap();
    assert_eq!(vpn().await, other.host.settings.vpn);

    let said = Ipv4Addr::new(192, 0, 2, 7);
    transaction!(lab.db, |tx| { networks::set_vpn(tx, &acme, said, 1000).await }).unwrap();
    other.host.turn().await.unwrap();
    assert_eq!(vpn().await, Some(said));
}

#[tokio::test]
async fn a_vpn_whose_place_is_anothers_keeps_no_network_from_being_served() {
    let mut lab = Lab::with(Carrier::Vlans("eth1".into())).await;
    lab.links.plug("eth1", Vec::new());
    lab.create(ManagerKind::Vlan, 4).await;
    let here = lab.host.settings.vpn.unwrap();
    let projects = ["acme", "moon", "sun"].map(|project| project.parse().unwrap());
    transaction!(lab.db, |tx| { networks::for_project(tx, &projects[0], true).await }).unwrap();
    // The port that belongs to the next network.
    transaction!(lab.db, |tx| { networks::set_vpn(tx, &projects[0], here, 1001).await }).unwrap();
    for project in &projects[1..] {
        transaction!(lab.db, |tx| { networks::for_project(tx, project, true).await }).unwrap();
    }
    lab.host.turn().await.unwrap();
    let rows = networks::list(&mut lab.db.read().await.unwrap()).await.unwrap();
    let places: Vec<_> = rows.iter().map(|row| (row.vpn_public_address, row.vpn_public_port)).collect();
    let expected = [(Some(here), 1001), (None, 1001), (Some(here), 1002), (None, 1003)];
    assert_eq!(places, expected.map(|(address, port)| (address, Some(port))));
    assert_eq!(lab.host.complaints.len(), 1, "{:?}", lab.host.complaints);
    assert_eq!(lab.dhcp.list().await.unwrap().len(), 3, "all are served");
    // Nor does it need a restart once the place is free.
    transaction!(lab.db, |tx| { networks::set_vpn(tx, &projects[0], here, 1000).await }).unwrap();
    lab.host.turn().await.unwrap();
    let row = &networks::list(&mut lab.db.read().await.unwrap()).await.unwrap()[1];
    assert!(row.vpn_public_address == Some(here) && lab.host.complaints.is_empty());
}
