//! A cloud in which all is well.

use std::collections::{BTreeMap, BTreeSet};

use nova_types::instance::{Instance, InstanceView};
use nova_types::network::{ManagerKind, Network};
use nova_types::rule::{Icmp, Ports, Rule, Source, Traffic};
use nova_types::security_group::{GrantedRule, SecurityGroup};
use nova_types::service::Service;
use nova_types::state::{State, VmState};
use nova_types::{ImageId, ImageKind, InstanceId, Mac, NetworkId, ReservationId, SecurityGroupId};
use time::OffsetDateTime;

use crate::doctor::facts::{Guest, Keys, Machine, Wire};

fn service(binary: &str) -> Service {
    Service {
        id: 1,
        host: "node1".parse().unwrap(),
        binary: binary.to_owned(),
        topic: binary.trim_start_matches("nova-").to_owned(),
        report_count: 1,
        disabled: false,
        availability_zone: "nova".to_owned(),
        updated_at: None,
        silent_seconds: 1,
        gave_up: false,
    }
}

fn network() -> Network {
    Network {
        id: NetworkId::new(1),
        prefix6: None,
        router6: None,
        label: None,
        cidr: "192.168.0.0/24".parse().unwrap(),
        bridge: "br100".to_owned(),
        gateway: "192.168.0.1".parse().unwrap(),
        dhcp_start: "192.168.0.2".parse().unwrap(),
        dns: None,
        vlan: None,
        vpn_private_address: None,
        vpn_public_address: None,
        vpn_public_port: None,
        multi_host: false,
        vpn_host: None,
        epoch: 0,
        project: None,
        host: Some("node1".parse().unwrap()),
    }
}

pub(super) fn wire(name: &str, bridge: Option<&str>) -> Wire {
    Wire { name: name.to_owned(), bridge: bridge.map(str::to_owned), up: true, addresses: vec![] }
}

pub(super) fn machine() -> Machine {
    let mut bridge = wire("br100", None);
    bridge.addresses = vec!["192.168.0.1/24".parse().unwrap()];
    let tables = ["bridge nova_compute", "inet nova_compute", "ip nova_network", "inet nova_network"];
    Machine {
        host: "node1".parse().unwrap(),
        manager: ManagerKind::FlatDhcp,
        simulated: false,
        daemons: ["nova-api", "nova-scheduler", "nova-network", "nova-compute"].map(service).into(),
        down_after: 60,
        abandoned: vec![],
        networks: vec![network()],
        flat_interface: None,
        vlan_interface: "eth0".to_owned(),
        my_ip: "172.16.0.9".parse().unwrap(),
        hosts: BTreeSet::new(),
        peers: BTreeMap::new(),
        links: Ok(vec![bridge, wire("tap0000000a", Some("br100"))]),
        dnsmasq: [("br100".to_owned(), Ok(2))].into(),
        forwarding: Ok(true),
        bridge_filter: Ok(true),
        tables: Ok(tables.map(str::to_owned).into()),
        metadata_rule: Ok(true),
        foreign: Ok(vec![]),
        default_route: Ok(true),
        metadata: ("172.16.0.9:8773".to_owned(), Ok(None)),
        keys: Keys::Fit("anne".to_owned()),
    }
}

pub(super) fn granted(traffic: Traffic, source: Source) -> GrantedRule {
    GrantedRule { rule: Rule { traffic, source }, source_group: None }
}

pub(super) fn anywhere() -> Source {
    Source::Range("0.0.0.0/0".parse().unwrap())
}

pub(super) fn a_guest() -> Guest {
    let ssh = Traffic::Tcp(Ports { from: 22, to: 22 });
    let group = SecurityGroup {
        id: SecurityGroupId::new(1),
        project: "moon".parse().unwrap(),
        user: "anne".parse().unwrap(),
        name: "default".parse().unwrap(),
        description: String::new(),
        rules: vec![granted(Traffic::Icmp(Icmp::Any), anywhere()), granted(ssh, anywhere())],
    };
    let view = InstanceView {
        instance: instance(),
        fixed_ip: Some(("192.168.0.2".parse().unwrap(), NetworkId::new(1))),
        address6: None,
        floating_ip: None,
        groups: vec![(group.id, group.name.clone())],
        host_zone: None,
    };
    Guest { view, groups: vec![group], simulated: false, leased: true, told: Ok(true), guarded: Ok(true) }
}

fn instance() -> Instance {
    Instance {
        id: InstanceId::new(10),
        reservation: ReservationId::from_random([0; 8]),
        launch_index: 0,
        user: "anne".parse().unwrap(),
        project: "moon".parse().unwrap(),
        state: State { vm: VmState::Running, task: None },
        reason: None,
        epoch: 0,
        image: ImageId::new(ImageKind::Machine, 1),
        kernel: None,
        ramdisk: None,
        flavor: "m1.tiny".to_owned(),
        memory_mb: 512,
        vcpus: 1,
        local_gb: 0,
        key: None,
        user_data: None,
        availability_zone: None,
        host: Some("node1".parse().unwrap()),
        mac: Mac::of_guest([0, 0, 1]),
        hostname: "i-0000000a".to_owned(),
        display_name: None,
        display_description: None,
        client_token: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        launched_at: None,
        terminated_at: None,
    }
}
