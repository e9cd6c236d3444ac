//! One turn of the network host after another, on fakes.

mod floating;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use nova_db::dev::TestDb;
use nova_db::instances;
use nova_link::dnsmasq::FakeDhcpServers;
use nova_link::gateway::FakeNetworkFirewall;
use nova_link::links::{FakeLinks, Links};
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
        lab.host.turn().await.unwrap();
        lab
    }

    async fn create_network(&self) -> NetworkId {
        let request = nova_types::plan::Request {
            manager: ManagerKind::FlatDhcp,
            range: "192.168.0.0/24".parse().unwrap(),
            count: 1,
            size: 255,
            flat_bridge: "br100".into(),
            flat_dns: None,
            vlan_start: 100,
            vpn_start: 1000,
            vpn_clients: 0,
            label: None,
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
        if !away {
            assert!(lab.firewall.applied().unwrap().networks.is_empty());
        }
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
async fn vlan_manager_is_refused_in_one_line() {
    use nova_config::{Config, NetworkConfig, Surroundings};
    let load = |args: &[&str]| {
        let args = args.iter().map(Into::into);
        NetworkConfig::load_in(args, &Surroundings::bare()).unwrap().config
    };
    let refused = Settings::of(&load(&["nova-network"]), None).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "--network_manager=nova.network.manager.VlanManager is not in this version; FlatDHCPManager and FlatManager are"
    );
    let config =
        load(&["nova-network", "--network_manager=nova.network.manager.FlatDHCPManager", "--ec2_dmz_host=10.0.0.9"]);
    let settings = Settings::of(&config, Some("/etc/nova/nova.conf".into())).await.unwrap();
    assert_eq!(settings.metadata, "10.0.0.9:8773".parse().unwrap());
    assert_eq!(settings.flag_file.as_deref(), Some(Path::new("/etc/nova/nova.conf")));
}
