//! What `nova-manage network create` makes of its arguments. Pure: nothing is stored here.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::Prefix64;
use crate::net::{Tag, TagRange, Vlan, VlanRange, nth};
use crate::network::{ManagerKind, NetworkPlan};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The manager in charge.
    pub manager: ManagerKind,
    /// The range that the networks are cut from.
    pub range: Ipv4Net,
    /// The range of IPv6 that each network gets a /64 of; none without `--use_ipv6`.
    pub range6: Option<Ipv6Net>,
    /// How many networks.
    pub count: u32,
    /// How many addresses each is to have, among them the network's own, the gateway's and the broadcast address.
    pub size: u32,
    /// The bridge of flat networks.
    pub flat_bridge: String,
    /// The name server of flat networks.
    pub flat_dns: Option<Ipv4Addr>,
    /// The tag of the first VLAN, or the number of the first VXLAN.
    pub vlan_start: u32,
    /// The first VPN port.
    pub vpn_start: u16,
    /// How many addresses at the end of a project's network are kept for VPN clients.
    pub vpn_clients: u32,
    /// A name for the networks.
    pub label: Option<String>,
    /// Whether each host serves its own guests.
    pub multi_host: bool,
}

/// Why no network can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// None were asked for.
    #[error("the number of networks must be at least 1")]
    NoNetworks,
    /// A network of that size has no address for a guest.
    #[error("a network of {size} addresses is too small: {needed} are needed for one guest")]
    TooSmall {
        /// The size asked for.
        size: u32,
        /// The least number of addresses.
        needed: u32,
    },
    /// The range has not that many addresses.
    #[error("{range} has room for {room} networks of {size} addresses, not for {count}")]
    RangeTooSmall {
        /// The range.
        range: Ipv4Net,
        /// How many fit.
        room: u64,
        /// The size of each, rounded up to a power of two.
        size: u32,
        /// How many were asked for.
        count: u32,
    },
    /// The range of IPv6 has not that many /64.
    #[error("{range} has no room for {count} /64 of IPv6")]
    Range6TooSmall {
        /// The range.
        range: Ipv6Net,
        /// How many were asked for.
        count: u32,
    },
    /// A flat bridge carries one network.
    #[error("a flat bridge carries one network, not {0}")]
    OneFlatNetwork(u32),
    /// Nobody has an address of its own in a network that is routed by others.
    #[error("under FlatManager no host serves a network, so none can serve its own guests (--multi_host)")]
    MultiHostByHand,
    /// The tags do not reach.
    #[error(transparent)]
    Vlan(#[from] VlanRange),
    /// The numbers do not reach.
    #[error(transparent)]
    Vxlan(#[from] TagRange),
    /// The ports do not reach.
    #[error("there are not {0} VPN ports left above the first")]
    VpnPorts(u32),
}

/// Plans the networks, all of them or none.
///
/// A size that is no power of two is rounded **up**, so that the guide's `192.168.0.0/24 1 255` is the /24 it means
/// (old Nova halved it: nova-core §0.1); where the range itself is smaller, it is refused. The last address is always
/// reserved (old Nova gave the broadcast address to guests: nova-core §4.2).
///
/// # Errors
/// [`PlanError`] says what does not fit.
pub fn plan(request: &Request) -> Result<Vec<NetworkPlan>, PlanError> {
    let own = request.manager.is_per_project();
    let bottom = if own { 3 } else { 2 };
    let top = if own { 1 + request.vpn_clients } else { 1 };
    if request.count == 0 {
        return Err(PlanError::NoNetworks);
    }
    if request.multi_host && request.manager == ManagerKind::Flat {
        return Err(PlanError::MultiHostByHand);
    }
    if !own && request.count > 1 {
        return Err(PlanError::OneFlatNetwork(request.count));
    }
    let too_small = PlanError::TooSmall { size: request.size, needed: bottom + top + 1 };
    let size = request.size.checked_next_power_of_two().ok_or_else(|| too_small.clone())?;
    if request.size < bottom + top + 1 {
        return Err(too_small);
    }
    let prefix = 32 - u8::try_from(size.trailing_zeros()).unwrap_or(32);
    let room = (1_u64 << (32 - request.range.prefix_len())) / u64::from(size);
    if room < u64::from(request.count) {
        return Err(PlanError::RangeTooSmall { range: request.range, room, size, count: request.count });
    }
    (0..request.count).map(|index| one(request, index, size, prefix, (bottom, top))).collect()
}

fn one(request: &Request, index: u32, size: u32, prefix: u8, reserved: (u32, u32)) -> Result<NetworkPlan, PlanError> {
    let own = request.manager.is_per_project();
    let start = nth(request.range, index * size).unwrap_or(request.range.network());
    let cidr = Ipv4Net::new_assert(start, prefix);
    let at = |place: u32| nth(cidr, place).unwrap_or(start);
    let tag = tag(request, index)?;
    let port = u16::try_from(u32::from(request.vpn_start) + index).ok();
    // There are more VXLANs than ports. Whoever needs the VPN of one that has none gives it one.
    if port.is_none() && request.manager != ManagerKind::Vxlan {
        return Err(PlanError::VpnPorts(request.count));
    }
    let no_room = |range| PlanError::Range6TooSmall { range, count: request.count };
    let prefix6 = request.range6.map(|range| Prefix64::nth(range, index).ok_or_else(|| no_room(range))).transpose()?;
    Ok(NetworkPlan {
        cidr,
        prefix6,
        label: request.label.clone(),
        bridge: tag.map_or_else(|| request.flat_bridge.clone(), |tag| format!("br{}", tag.number())),
        gateway: at(1),
        dhcp_start: at(if own { 3 } else { 2 }),
        dns: if own { None } else { request.flat_dns },
        vlan: tag,
        vpn_private_address: own.then(|| at(2)),
        vpn_public_port: port.filter(|_| own),
        multi_host: request.multi_host,
        reserved_bottom: reserved.0,
        reserved_top: reserved.1,
    })
}

fn tag(request: &Request, index: u32) -> Result<Option<Tag>, PlanError> {
    let number = i64::from(request.vlan_start) + i64::from(index);
    Ok(match request.manager {
        ManagerKind::Flat | ManagerKind::FlatDhcp => None,
        ManagerKind::Vlan => Some(Vlan::try_from(number)?.into()),
        ManagerKind::Vxlan => Some(Tag::try_from(number)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(manager: ManagerKind, range: &str, count: u32, size: u32) -> Request {
        Request {
            manager,
            range: range.parse().unwrap(),
            range6: None,
            count,
            size,
            flat_bridge: "br100".into(),
            flat_dns: None,
            vlan_start: 100,
            vpn_start: 1000,
            vpn_clients: 0,
            label: None,
            multi_host: false,
        }
    }

    #[test]
    fn the_guides_example_is_the_network_it_means() {
        let networks = plan(&request(ManagerKind::FlatDhcp, "192.168.0.0/24", 1, 255)).unwrap();
        let network = &networks[0];
        assert_eq!(network.cidr.to_string(), "192.168.0.0/24");
        assert_eq!(network.gateway.to_string(), "192.168.0.1");
        assert_eq!(network.dhcp_start.to_string(), "192.168.0.2");
        let free: Vec<Ipv4Addr> = network.addresses().filter(|(_, reserved)| !reserved).map(|(a, _)| a).collect();
        assert_eq!(
            (free.len(), free[0].to_string(), free[252].to_string()),
            (253, "192.168.0.2".into(), "192.168.0.254".into())
        );
    }

    #[test]
    fn vlans_are_numbered_and_cut_from_the_range() {
        let networks = plan(&request(ManagerKind::Vlan, "10.0.0.0/8", 3, 32)).unwrap();
        let shown: Vec<String> = networks
            .iter()
            .map(|n| format!("{} {} {:?} {:?}", n.cidr, n.bridge, n.vpn_private_address, n.vpn_public_port))
            .collect();
        assert_eq!(
            shown,
            [
                "10.0.0.0/27 br100 Some(10.0.0.2) Some(1000)",
                "10.0.0.32/27 br101 Some(10.0.0.34) Some(1001)",
                "10.0.0.64/27 br102 Some(10.0.0.66) Some(1002)",
            ]
        );
    }

    #[test]
    fn each_network_gets_the_next_prefix_of_ipv6() {
        let asked = |range: &str, count| Request {
            range6: Some(range.parse().unwrap()),
            ..request(ManagerKind::Vlan, "10.0.0.0/8", count, 32)
        };
        let networks = plan(&asked("fd00::/48", 3)).unwrap();
        let shown: Vec<String> = networks.iter().filter_map(|n| n.prefix6).map(|prefix| prefix.to_string()).collect();
        assert_eq!(shown, ["fd00::/64", "fd00:0:0:1::/64", "fd00:0:0:2::/64"]);
        let refused = plan(&asked("fd00:0:0:8::/63", 3)).unwrap_err().to_string();
        assert_eq!(refused, "fd00:0:0:8::/63 has no room for 3 /64 of IPv6");
    }

    #[test]
    fn vxlans_are_like_vlans_and_go_on_where_those_end() {
        let networks = plan(&request(ManagerKind::Vxlan, "10.0.0.0/8", 70_000, 32)).unwrap();
        let shown = |n: &NetworkPlan| format!("{} {} {:?} {:?}", n.cidr, n.bridge, n.dhcp_start, n.vpn_public_port);
        assert_eq!(shown(&networks[0]), "10.0.0.0/27 br100 10.0.0.3 Some(1000)");
        assert_eq!(shown(&networks[5000]), "10.2.113.0/27 br5100 10.2.113.3 Some(6000)");
        assert_eq!(shown(&networks[69_999]), "10.34.45.224/27 br70099 10.34.45.227 None");
        let last = Request { vlan_start: 16_777_215, ..request(ManagerKind::Vxlan, "10.0.0.0/8", 1, 32) };
        assert_eq!(plan(&last).unwrap()[0].bridge, "br16777215");
        let beyond = plan(&Request { count: 2, ..last }).unwrap_err();
        assert_eq!(beyond.to_string(), "the number of a VXLAN is 1 to 16777215, not 16777216");
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        for (manager, range, count, size, wanted) in [
            (ManagerKind::FlatDhcp, "10.0.0.0/24", 0, 256, "the number of networks must be at least 1"),
            (ManagerKind::FlatDhcp, "10.0.0.0/24", 2, 16, "a flat bridge carries one network, not 2"),
            (
                ManagerKind::FlatDhcp,
                "10.0.0.0/24",
                1,
                3,
                "a network of 3 addresses is too small: 4 are needed for one guest",
            ),
            (
                ManagerKind::FlatDhcp,
                "10.0.0.0/24",
                1,
                257,
                "10.0.0.0/24 has room for 0 networks of 512 addresses, not for 1",
            ),
            (ManagerKind::Vlan, "10.0.0.0/24", 9, 32, "10.0.0.0/24 has room for 8 networks of 32 addresses, not for 9"),
            (ManagerKind::Vlan, "10.0.0.0/8", 4000, 8, "a VLAN tag is a number from 1 to 4094, not 4095"),
            (
                ManagerKind::FlatDhcp,
                "0.0.0.0/0",
                1,
                u32::MAX,
                "a network of 4294967295 addresses is too small: 4 are needed for one guest",
            ),
        ] {
            assert_eq!(plan(&request(manager, range, count, size)).unwrap_err().to_string(), wanted);
        }
    }
}
