//! Networks and their addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use time::OffsetDateTime;

use crate::{HostName, InstanceId, Mac, NetworkId, Prefix64, ProjectId, Tag};

/// Which of old Nova's network managers is in charge: flag `--network_manager`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagerKind {
    /// A bridge set up by hand; guests learn their address from a seed disk.
    Flat,
    /// One bridge for all projects, with DHCP.
    FlatDhcp,
    /// A VLAN and a bridge for each project, with DHCP.
    Vlan,
    /// The same with a VXLAN for each project, where no switch passes VLANs.
    Vxlan,
}

impl ManagerKind {
    /// Whether each project has a network of its own.
    #[must_use]
    pub const fn is_per_project(self) -> bool {
        match self {
            Self::Vlan | Self::Vxlan => true,
            Self::Flat | Self::FlatDhcp => false,
        }
    }
}

/// A network of fixed addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// The name it was given, if any.
    pub label: Option<String>,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Its prefix of IPv6, from which guests make their addresses where `--use_ipv6` is on.
    pub prefix6: Option<Prefix64>,
    /// The address on its own link of the router of IPv6, once its host has published it: column `ra_server`.
    pub router6: Option<Ipv6Addr>,
    /// The bridge its guests are on.
    pub bridge: String,
    /// The address of the network host on the bridge: the guests' router, DHCP and name server.
    pub gateway: Ipv4Addr,
    /// The first address that guests may get.
    pub dhcp_start: Ipv4Addr,
    /// The name server handed to guests, where it is not the gateway.
    pub dns: Option<Ipv4Addr>,
    /// Its tag, under `VlanManager`; its VNI under `VxlanManager`.
    pub vlan: Option<Tag>,
    /// The address kept for the project's VPN, where each project has a network.
    pub vpn_private_address: Option<Ipv4Addr>,
    /// The address whose [`Network::vpn_public_port`] is forwarded to it; none until the network is served.
    pub vpn_public_address: Option<Ipv4Addr>,
    /// The port forwarded to that address.
    pub vpn_public_port: Option<u16>,
    /// The one project that uses it; `None` for all, or for none yet where each has its own.
    pub project: Option<ProjectId>,
    /// The host that serves it; with `multi_host`, none.
    pub host: Option<HostName>,
    /// How often it came to another host; 0 where none has served it yet.
    pub epoch: i32,
    /// Whether each host serves its own guests, at an address of its own.
    pub multi_host: bool,
    /// The host that wrote its own as [`Network::vpn_public_address`]; none if an administrator wrote it.
    pub vpn_host: Option<HostName>,
}

/// A network that is to be stored, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Its range.
    pub cidr: Ipv4Net,
    /// See [`Network::prefix6`].
    pub prefix6: Option<Prefix64>,
    /// The name it is given, if any.
    pub label: Option<String>,
    /// Its bridge.
    pub bridge: String,
    /// See [`Network::gateway`].
    pub gateway: Ipv4Addr,
    /// See [`Network::dhcp_start`].
    pub dhcp_start: Ipv4Addr,
    /// See [`Network::dns`].
    pub dns: Option<Ipv4Addr>,
    /// See [`Network::vlan`].
    pub vlan: Option<Tag>,
    /// See [`Network::vpn_private_address`].
    pub vpn_private_address: Option<Ipv4Addr>,
    /// See [`Network::vpn_public_port`].
    pub vpn_public_port: Option<u16>,
    /// See [`Network::multi_host`].
    pub multi_host: bool,
    /// How many addresses at the start are never given out.
    pub reserved_bottom: u32,
    /// How many addresses at the end are never given out; the broadcast address is one.
    pub reserved_top: u32,
}

impl NetworkPlan {
    /// Lists every address of the range, in order, and whether it is reserved.
    pub fn addresses(&self) -> impl Iterator<Item = (Ipv4Addr, bool)> + '_ {
        let first = u32::from(self.cidr.network());
        let last = u32::from(self.cidr.broadcast());
        (first..=last).map(move |address| {
            let reserved = address - first < self.reserved_bottom || last - address < self.reserved_top;
            (Ipv4Addr::from(address), reserved)
        })
    }
}

/// An address that DHCP hands to one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpHost {
    /// The guest.
    pub instance: InstanceId,
    /// Its hardware address.
    pub mac: Mac,
    /// The address it gets.
    pub address: Ipv4Addr,
    /// The name it gets, without a domain.
    pub hostname: String,
    /// Whether it has asked for the address.
    pub leased: bool,
    /// When the row last changed: the lease runs from here.
    pub updated_at: OffsetDateTime,
}
