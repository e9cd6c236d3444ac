//! One turn of the network host after another, on fakes.

mod entry;
mod floating;
mod routers;
mod vxlan;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use nova_db::dev::TestDb;
use nova_db::instances;
use nova_link::carrier::Carrier;
use nova_link::dnsmasq::{DhcpServers, FakeDhcpServers};
use nova_link::gateway::FakeNetworkFirewall;
use nova_link::links::{FakeLinks, Links};
use nova_link::neighbours::FakeNeighbours;
use nova_types::instance::NewInstances;
use nova_types::network::ManagerKind;
use nova_types::{ImageId, ImageKind, InstanceId, Mac, NetworkId, ReservationId};

use super::*;
use crate::spool::LeaseEvent;

/// A host in memory over a real database.
struct Lab {
    db: TestDb,
    folder: tempfile::TempDir,
    links: Arc<FakeLinks>,
    firewall: Arc<FakeNetworkFirewall>,
    dhcp: Arc<FakeDhcpServers>,
    host: NetworkHost,
}

impl Lab {
    async fn new() -> Self {
        Self::with(Carrier::Port(None)).await
    }

    async fn with(carrier: Carrier) -> Self {
        let db = nova_db::dev::sqlite().await;
        let folder = tempfile::tempdir().unwrap();
        let (links, firewall, dhcp) = Default::default();
        let mut lab = Self {
            host: host_on(&db, folder.path(), "node1", &links, &firewall, &dhcp),
            db,
            folder,
            links,
            firewall,
            dhcp,
        };
        lab.host.settings.carrier = carrier;
        lab.host.turn().await.unwrap();
        lab
    }

    /// Whether the firewall is one without networks, or, after a restart, none at all.
    fn translates_nothing(&self, away: bool) -> bool {
        self.firewall.applied().map_or(away, |gateway| !away && gateway.networks.is_empty())
    }

    async fn create_network(&self) -> NetworkId {
        self.create(ManagerKind::FlatDhcp, 1).await
    }

    /// Cuts a /24 into so many networks.
    async fn create(&self, manager: ManagerKind, count: u32) -> NetworkId {
        let request = nova_types::plan::Request {
            manager,
            range: "192.168.0.0/24".parse().unwrap(),
            range6: self.host.settings.ipv6.then(|| "fd00::/48".parse().unwrap()),
            count,
            size: 256 / count,
            flat_bridge: "br100".into(),
            flat_dns: None,
            vlan_start: 100,
            vpn_start: 1000,
            vpn_clients: 0,
            label: None,
            multi_host: false,
        };
        let plans = nova_types::plan::plan(&request).unwrap();
        let ids = transaction!(self.db, |tx| { networks::create(tx, &plans).await }).unwrap();
        ids[0]
    }

    /// Makes an instance that holds the network's next address.
    async fn launch(&self, network: NetworkId, number: u8) -> (InstanceId, Ipv4Addr, Mac) {
        let mac = Mac::of_guest([0, 0, number]);
        let new = NewInstances {
            reservation: ReservationId::from_random([number; 8]),
            user: "ann".parse().unwrap(),
            project: "acme".parse().unwrap(),
            image: ImageId::new(ImageKind::Machine, 1),
            kernel: None,
            ramdisk: None,
            flavor: "m1.tiny",
            memory_mb: 512,
            vcpus: 1,
            local_gb: 0,
            key: None,
            user_data: None,
            availability_zone: None,
            display_name: None,
            display_description: None,
            groups: Vec::new(),
            client_token: None,
            macs: vec![mac],
        };
        let (id, address) = transaction!(self.db, |tx| {
            let ids = instances::insert_batch(tx, &new).await?;
            let taken = fixed_ips::take(tx, network, &ids).await?;
            Ok(taken[0])
        })
        .unwrap();
        (id, address, mac)
    }

    fn hosts(&self) -> Vec<String> {
        let server = self.dhcp.server("br100").unwrap_or_default();
        server.hosts.iter().map(|host| format!("{} {} leased: {}", host.mac, host.address, host.leased)).collect()
    }

    async fn shown(&self) -> Vec<String> {
        let link = |link: nova_link::links::Link| {
            let addresses: String = link.addresses.iter().map(|address| format!(" {address}")).collect();
            let bridge = link.bridge.map_or_else(String::new, |bridge| format!(" on {bridge}"));
            format!("{}{addresses}{bridge}", link.name)
        };
        self.links.list().await.unwrap().into_iter().map(link).collect()
    }

    fn leave(&self, kind: LeaseKind, mac: Mac, address: Ipv4Addr) {
        spool::leave(self.folder.path(), &LeaseEvent { kind, mac, address }).unwrap();
    }
}

fn host_on(
    db: &Db,
    folder: &Path,
    name: &str,
    links: &Arc<FakeLinks>,
    firewall: &Arc<FakeNetworkFirewall>,
    dhcp: &Arc<FakeDhcpServers>,
) -> NetworkHost {
    let settings =
        Settings { host: name.parse().unwrap(), folder: folder.to_owned(), ..crate::plan::tests::settings() };
    let machine = Machine {
        links: Arc::<FakeLinks>::clone(links),
        neighbours: Arc::<FakeNeighbours>::default(),
        tunnels: Arc::<FakeLinks>::clone(links),
        firewall: Arc::<FakeNetworkFirewall>::clone(firewall),
        dhcp: Arc::<FakeDhcpServers>::clone(dhcp),
        forwards: false,
    };
    NetworkHost::new(settings, db.clone(), machine)
}

#[tokio::test]
async fn a_network_is_served_in_the_turn_after_it_was_made() {
    let mut lab = Lab::new().await;
    assert!(
        lab.firewall.applied().is_none() && lab.links.list().await.unwrap().is_empty(),
        "nothing without a network"
    );
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    let links = lab.links.list().await.unwrap();
    assert_eq!(links[0].addresses, ["192.168.0.1/24".parse().unwrap()]);
    assert_eq!(lab.firewall.applied().unwrap().networks[0].bridge, "br100");
    let settings = lab.dhcp.server("br100").unwrap().settings.unwrap();
    assert_eq!((settings.gateway, settings.first), (Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(192, 168, 0, 2)));
}

#[tokio::test]
async fn with_ipv6_the_bridge_is_a_router_of_the_prefix_and_its_row_says_which() {
    let mut lab = Lab::new().await;
    lab.host.settings.ipv6 = true;
    let network = lab.create_network().await;
    lab.host.turn().await.unwrap();
    let row = async |lab: &Lab| networks::get(&mut lab.db.read().await.unwrap(), network).await.unwrap();
    assert!(lab.links.list().await.unwrap()[0].addresses6.contains(&"fd00::1/64".parse().unwrap()));
    assert_eq!(row(&lab).await.router6, Some("fe80::46e:c0ff:fea8:1".parse().unwrap()));
    let settings = lab.dhcp.server("br100").unwrap().settings.unwrap();
    let guests = lab.firewall.applied().unwrap().networks[0].prefix6;
    assert_eq!((settings.prefix6, guests), (row(&lab).await.prefix6, row(&lab).await.prefix6));
    // Whoever served it before may have had another.
    let old = "update networks set ra_server = 'fe80::7'";
    lab.db.write().await.unwrap().execute(old, &[]).await.unwrap();
    lab.host.turn().await.unwrap();
    assert_eq!(row(&lab).await.router6, Some("fe80::46e:c0ff:fea8:1".parse().unwrap()));
    lab.host.settings.ipv6 = false;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.links.list().await.unwrap()[0].addresses6, []);
    assert_eq!(lab.dhcp.server("br100").unwrap().settings.unwrap().prefix6, None);
}

#[tokio::test]
async fn dhcp_knows_exactly_who_holds_an_address() {
    let mut lab = Lab::new().await;
    let network = lab.create_network().await;
    let (first, address, _) = lab.launch(network, 1).await;
    lab.launch(network, 2).await;
    lab.host.turn().await.unwrap();
    assert_eq!(
        lab.hosts(),
        ["02:16:3e:00:00:01 192.168.0.2 leased: false", "02:16:3e:00:00:02 192.168.0.3 leased: false"]
    );
    assert_eq!(address, Ipv4Addr::new(192, 168, 0, 2));
    transaction!(lab.db, |tx| { fixed_ips::release(tx, first, 120).await }).unwrap();
    lab.host.turn().await.unwrap();
    assert_eq!(lab.hosts(), ["02:16:3e:00:00:02 192.168.0.3 leased: false"]);
}

#[tokio::test]
async fn leases_are_written_down_and_strangers_are_not() {
    let mut lab = Lab::new().await;
    let network = lab.create_network().await;
    let (_, address, mac) = lab.launch(network, 1).await;
    lab.leave(LeaseKind::Held, mac, address);
    lab.leave(LeaseKind::Held, Mac::of_guest([0, 0, 9]), address);
    lab.host.turn().await.unwrap();
    assert_eq!(lab.hosts(), ["02:16:3e:00:00:01 192.168.0.2 leased: true"]);
    lab.leave(LeaseKind::Ended, Mac::of_guest([0, 0, 9]), address);
    lab.host.turn().await.unwrap();
    assert_eq!(lab.hosts(), ["02:16:3e:00:00:01 192.168.0.2 leased: true"], "another guest's lease ended");
    lab.leave(LeaseKind::Ended, mac, address);
    lab.host.turn().await.unwrap();
    assert_eq!(lab.hosts(), ["02:16:3e:00:00:01 192.168.0.2 leased: false"]);
    assert!(spool::take(lab.folder.path()).unwrap().is_empty());
}

#[tokio::test]
async fn leases_that_cannot_be_read_keep_nobody_from_being_served() {
    let mut lab = Lab::new().await;
    std::fs::create_dir_all(lab.folder.path().join("events/folder")).unwrap();
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    assert!(lab.dhcp.server("br100").is_some());
    assert!(lab.host.complaints["leases"].contains("reading"));
}

#[tokio::test]
async fn a_server_that_died_or_was_taken_apart_is_there_again_after_a_turn() {
    let mut lab = Lab::new().await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    lab.dhcp.dies("br100");
    lab.links.delete_bridge("br100").await.unwrap();
    lab.host.turn().await.unwrap();
    assert!(lab.dhcp.server("br100").unwrap().settings.is_some());
    assert_eq!(lab.links.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dhcp_server_that_dies_while_the_rows_cannot_be_read_runs_again_as_it_did() {
    let mut lab = Lab::new().await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    let before = lab.dhcp.server("br100").unwrap();
    lab.dhcp.dies("br100");
    lab.host.keep().await;
    let after = lab.dhcp.server("br100").unwrap();
    assert!(after.settings.is_some() && after.settings == before.settings);
    assert_eq!(after.hosts, before.hosts);
}

#[tokio::test]
async fn only_a_server_that_ran_is_started_while_the_rows_cannot_be_read_and_none_of_a_network_that_is_left() {
    let mut lab = Lab::with(Carrier::Port(Some("eth1".into()))).await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    lab.host.keep().await;
    assert!(lab.dhcp.server("br100").is_none(), "it was never told of any host");

    lab.links.plug("eth1", Vec::new());
    lab.host.turn().await.unwrap();
    lab.dhcp.dies("br100");
    lab.host.keep().await;
    assert!(lab.dhcp.server("br100").unwrap().settings.is_some());

    // Another host has it by now, and the rows are away again before everything of it is gone here.
    lab.links.stick(true);
    lab.host.leave(&Plan::default()).await;
    assert!(lab.host.served.contains_key("br100") && lab.dhcp.server("br100").is_none());
    lab.host.keep().await;
    assert!(lab.dhcp.server("br100").is_none());
}

#[tokio::test]
async fn a_network_that_is_gone_leaves_nothing_behind_even_if_we_were_away() {
    for away in [false, true] {
        let mut lab = Lab::new().await;
        let network = lab.create_network().await;
        lab.host.turn().await.unwrap();
        transaction!(lab.db, |tx| { networks::delete(tx, network).await }).unwrap();
        if away {
            lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
        }
        lab.host.turn().await.unwrap();
        assert!(lab.dhcp.server("br100").is_none(), "away: {away}");
        assert!(lab.links.list().await.unwrap().is_empty(), "away: {away}");
        assert!(lab.translates_nothing(away), "away: {away}");
    }
}

#[tokio::test]
async fn a_network_that_another_host_took_keeps_nothing_here_even_if_we_were_away_or_died_while_leaving_it() {
    for (away, stopped) in [(false, false), (true, false), (true, true)] {
        let why = format!("away: {away}, its server stopped and its address gone: {stopped}");
        let mut lab = Lab::new().await;
        let network = lab.create_network().await;
        lab.host.turn().await.unwrap();
        lab.links.put_on("tap00000001", "br100");
        let node2 = "node2".parse().unwrap();
        transaction!(lab.db, |tx| { networks::set_host(tx, network, Some(&node2), 30).await }).unwrap();
        if away {
            lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
        }
        if stopped {
            lab.dhcp.stop("br100").await.unwrap();
            lab.links.remove_address("br100", Ipv4Addr::new(192, 168, 0, 1)).await.unwrap();
        }
        lab.host.turn().await.unwrap();
        assert!(lab.dhcp.server("br100").is_none(), "{why}");
        assert_eq!(lab.shown().await, ["br100", "tap00000001 on br100"], "{why}");
        assert!(lab.translates_nothing(away), "{why}");
    }
}

#[tokio::test]
async fn a_network_has_one_host() {
    let mut lab = Lab::new().await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    let (links, firewall, dhcp) = Default::default();
    let mut other = host_on(&lab.db, lab.folder.path(), "node2", &links, &firewall, &dhcp);
    other.turn().await.unwrap();
    assert!(dhcp.server("br100").is_none() && links.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_manager_decides_how_bridges_are_made() {
    use nova_config::{Config, NetworkConfig, Surroundings};
    for (flags, carrier) in [
        (&[][..], Carrier::Vlans("eth0".into())),
        (&["--vlan_interface=eth7"], Carrier::Vlans("eth7".into())),
        (&["--network_manager=nova.network.manager.FlatDHCPManager"], Carrier::Port(None)),
        (&["--network_manager=nova.network.manager.FlatManager", "--flat_interface=eth1"], Carrier::ByHand),
    ] {
        let args = ["nova-network", "--ec2_dmz_host=10.0.0.9", "--vpn_ip=192.0.2.4"];
        let args = args.iter().chain(flags).map(Into::into);
        let config = NetworkConfig::load_in(args, &Surroundings::bare()).unwrap().config;
        let flag_file = Some("/etc/nova/nova.conf".into());
        let settings = Settings::of(&config, flag_file, Arc::new(FakeLinks::default())).await.unwrap();
        assert_eq!(settings.carrier, carrier, "{flags:?}");
        assert_eq!(settings.vpn, Some(Ipv4Addr::new(192, 0, 2, 4)));
        assert_eq!(settings.metadata, "10.0.0.9:8773".parse().unwrap());
        assert_eq!(settings.flag_file.as_deref(), Some(Path::new("/etc/nova/nova.conf")));
    }
}

#[tokio::test]
async fn under_flat_manager_the_rows_are_kept_and_nothing_is_made() {
    let mut lab = Lab::with(Carrier::ByHand).await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    let rows = networks::list(&mut lab.db.read().await.unwrap()).await.unwrap();
    assert_eq!(rows[0].host.as_ref().map(ToString::to_string).as_deref(), Some("node1"));
    assert!(lab.links.list().await.unwrap().is_empty() && lab.dhcp.list().await.unwrap().is_empty());
    assert!(lab.firewall.applied().is_none());
}

#[tokio::test]
async fn under_flat_manager_what_another_manager_translated_is_translated_no_more() {
    let mut lab = Lab::new().await;
    lab.create_network().await;
    lab.host.turn().await.unwrap();
    assert!(lab.firewall.applied().is_some());
    lab.host = host_on(&lab.db, lab.folder.path(), "node1", &lab.links, &lab.firewall, &lab.dhcp);
    lab.host.settings.carrier = Carrier::ByHand;
    lab.host.turn().await.unwrap();
    assert!(lab.firewall.applied().is_none(), "the table is gone");
    assert!(lab.dhcp.list().await.unwrap().is_empty(), "and so are the servers");
}

#[tokio::test]
async fn each_project_has_a_vlan_that_is_made_when_it_comes_and_unmade_when_it_goes() {
    let mut lab = Lab::with(Carrier::Vlans("eth1".into())).await;
    lab.links.plug("eth1", Vec::new());
    lab.create(ManagerKind::Vlan, 4).await;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.shown().await, ["eth1"], "nobody has one yet");
    let projects = ["acme", "other"].map(|name| name.parse::<nova_types::ProjectId>().unwrap());
    for project in &projects {
        transaction!(lab.db, |tx| { networks::for_project(tx, project, true).await }).unwrap();
    }
    lab.host.turn().await.unwrap();
    let made = ["br100 192.168.0.1/26", "br101 192.168.0.65/26", "eth1", "vlan100 on br100", "vlan101 on br101"];
    assert_eq!(lab.shown().await, made);
    assert_eq!(lab.dhcp.list().await.unwrap(), ["br100", "br101"]);
    assert_eq!(lab.dhcp.server("br101").unwrap().settings.unwrap().first, Ipv4Addr::new(192, 168, 0, 67));
    let vpns: Vec<_> = lab.firewall.applied().unwrap().networks.into_iter().filter_map(|network| network.vpn).collect();
    let shown: Vec<_> = vpns.iter().map(|vpn| format!("{}:{} {}", vpn.public, vpn.port, vpn.private)).collect();
    assert_eq!(shown, ["172.16.0.9:1000 192.168.0.2", "172.16.0.9:1001 192.168.0.66"]);
    let before = lab.shown().await;
    lab.host.turn().await.unwrap();
    assert_eq!(lab.shown().await, before);

    // The one has a guest left that nobody told of; the other goes.
    lab.links.put_on("tap00000001", "br100");
    for project in &projects {
        transaction!(lab.db, |tx| { networks::disassociate(tx, project).await }).unwrap();
    }
    lab.host.turn().await.unwrap();
    assert_eq!(lab.shown().await, ["br100", "eth1", "tap00000001 on br100", "vlan100 on br100"]);
    assert!(lab.dhcp.list().await.unwrap().is_empty());
}
