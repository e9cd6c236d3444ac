//! What serving a network takes, from its row and the flags. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use nova_link::carrier::Carrier;
use nova_link::dnsmasq::DhcpNetwork;
use nova_link::gateway::{Gateway, GuestNetwork, Vpn};
use nova_link::links::Bridge;
use nova_types::network::Network;
use nova_types::{HostName, NetworkId, Tag};

use crate::settings::Settings;

/// Everything that is set up for one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) id: NetworkId,
    pub(crate) bridge: Bridge,
    pub(crate) tag: Option<Tag>,
    /// What the row says of the router's address on the link.
    pub(crate) router6: Option<Ipv6Addr>,
    pub(crate) dhcp: DhcpNetwork,
    pub(crate) guests: GuestNetwork,
    /// The host whose guests are served, where those of others are theirs to serve.
    pub(crate) only_of: Option<HostName>,
}

/// What this host serves, by bridge, and the networks that it cannot because their bridge carries another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) served: BTreeMap<String, Served>,
    pub(crate) crowded_out: Vec<NetworkId>,
}

/// Plans the networks that are this host's. The first of several on one bridge is served.
pub(crate) fn plan(networks: &[Network], settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    if settings.carrier == Carrier::ByHand {
        return plan;
    }
    let mut networks: Vec<&Network> = networks.iter().filter(|network| in_use(network)).collect();
    networks.sort_by_key(|network| network.id);
    for network in networks {
        if plan.served.contains_key(&network.bridge) {
            plan.crowded_out.push(network.id);
        } else {
            plan.served.insert(network.bridge.clone(), serve(network, settings));
        }
    }
    plan
}

/// Whether anybody may have guests there. Of the VLANs and VXLANs that were made, most may wait for their project.
pub(crate) const fn in_use(network: &Network) -> bool {
    network.vlan.is_none() || network.project.is_some()
}

fn serve(network: &Network, settings: &Settings) -> Served {
    // Where each host is the router, all would have the same address on one link.
    let prefix6 = network.prefix6.filter(|_| settings.ipv6 && !network.multi_host);
    let Network { id, cidr, bridge, gateway, dhcp_start, vlan, .. } = network.clone();
    // One that an administrator moved elsewhere is forwarded there, not here.
    let here = network.vpn_public_address.filter(|address| settings.vpn == Some(*address));
    let vpn = here.zip(network.vpn_public_port).zip(network.vpn_private_address);
    Served {
        id,
        tag: vlan,
        only_of: network.multi_host.then(|| settings.host.clone()),
        bridge: Bridge {
            name: bridge.clone(),
            address: Ipv4Net::new(gateway, cidr.prefix_len()).ok(),
            address6: prefix6.and_then(|prefix| Ipv6Net::new(prefix.gateway(), prefix.range().prefix_len()).ok()),
            mtu: None,
        },
        router6: network.router6,
        dhcp: DhcpNetwork {
            bridge: bridge.clone(),
            for_guests: vlan.is_some(),
            gateway,
            cidr,
            prefix6,
            first: dhcp_start,
            domain: settings.domain.clone(),
            mtu: None,
            lease: settings.lease,
            name_server: settings.name_server,
            script: settings.script.clone(),
            flag_file: settings.flag_file.clone(),
        },
        guests: GuestNetwork {
            bridge,
            cidr,
            gateway,
            prefix6,
            // The VPN is a guest too.
            first_guest: network.vpn_private_address.map_or(dhcp_start, |vpn| vpn.min(dhcp_start)),
            vpn: vpn.map(|((public, port), private)| Vpn { public, port, private }),
        },
    }
}

/// The firewall of this host; under `FlatManager` it translates nothing, for guests are routed by others.
pub(crate) fn gateway(plan: &Plan, settings: &Settings, floating: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Gateway {
    Gateway {
        networks: plan.served.values().map(|served| served.guests.clone()).collect(),
        fixed_range: settings.fixed_range,
        routing_source: settings.routing_source,
        dmz: settings.dmz,
        metadata: settings.metadata,
        floating: floating.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn settings() -> Settings {
        Settings {
            host: "node1".parse().unwrap(),
            ipv6: false,
            carrier: Carrier::Port(None),
            vpn: Some(Ipv4Addr::new(172, 16, 0, 9)),
            script: "/usr/bin/nova-dhcpbridge".into(),
            flag_file: None,
            folder: "/nowhere".into(),
            domain: "novalocal".into(),
            lease: Duration::from_secs(120),
            renew: Duration::from_secs(10),
            lease_seconds: 30,
            name_server: None,
            fixed_range: "192.160.0.0/12".parse().unwrap(),
            routing_source: Ipv4Addr::new(172, 16, 0, 9),
            dmz: "10.128.0.0/24".parse().unwrap(),
            metadata: "172.16.0.9:8773".parse().unwrap(),
            public_interface: None,
        }
    }

    fn network(id: u32, cidr: &str, bridge: &str) -> Network {
        let cidr: Ipv4Net = cidr.parse().unwrap();
        let at = |index| nova_types::net::nth(cidr, index).unwrap();
        Network {
            id: NetworkId::new(id),
            prefix6: None,
            router6: None,
            label: None,
            cidr,
            bridge: bridge.into(),
            gateway: at(1),
            dhcp_start: at(2),
            dns: None,
            vlan: None,
            vpn_private_address: None,
            vpn_public_address: None,
            vpn_public_port: None,
            project: None,
            host: None,
            multi_host: false,
            vpn_host: None,
            epoch: 0,
        }
    }

    #[test]
    fn a_network_becomes_a_bridge_a_server_and_a_place_in_the_firewall() {
        let plan = plan(&[network(1, "192.168.0.0/24", "br100")], &settings());
        let served = &plan.served["br100"];
        assert_eq!(served.bridge.address.unwrap().to_string(), "192.168.0.1/24");
        assert_eq!((served.dhcp.first, served.dhcp.gateway), ("192.168.0.2".parse().unwrap(), served.guests.gateway));
        assert_eq!(gateway(&plan, &settings(), &BTreeMap::new()).networks, std::slice::from_ref(&served.guests));
    }

    #[test]
    fn a_bridge_carries_the_first_of_its_networks() {
        let networks = [network(3, "10.0.1.0/24", "br100"), network(2, "10.0.0.0/24", "br100")];
        let plan = plan(&networks, &settings());
        assert_eq!(plan.served["br100"].id, NetworkId::new(2));
        assert_eq!(plan.crowded_out, [NetworkId::new(3)]);
    }

    #[test]
    fn under_flat_manager_nothing_is_set_up() {
        let settings = Settings { carrier: Carrier::ByHand, ..settings() };
        assert_eq!(plan(&[network(1, "10.0.0.0/24", "br100")], &settings), Plan::default());
    }

    #[test]
    fn a_vlan_is_served_once_a_project_has_it_and_its_vpn_is_forwarded_where_the_row_says() {
        let vlan = |project: Option<&str>, vpn: &str| Network {
            vlan: Some(Tag::try_from(100).unwrap()),
            project: project.map(|name| name.parse().unwrap()),
            vpn_private_address: Some(Ipv4Addr::new(10, 0, 0, 2)),
            vpn_public_address: Some(vpn.parse().unwrap()),
            vpn_public_port: Some(1000),
            dhcp_start: Ipv4Addr::new(10, 0, 0, 3),
            ..network(1, "10.0.0.0/24", "br100")
        };
        assert_eq!(plan(&[vlan(None, "172.16.0.9")], &settings()), Plan::default());
        for (address, port) in [("172.16.0.9", Some(1000)), ("172.16.0.7", None)] {
            let plan = plan(&[vlan(Some("acme"), address)], &settings());
            let served = &plan.served["br100"];
            assert_eq!(served.tag.map(Tag::number), Some(100));
            assert_eq!(served.guests.vpn.map(|vpn| vpn.port), port, "{address}");
            assert_eq!(served.guests.first_guest, Ipv4Addr::new(10, 0, 0, 2));
        }
    }
}
