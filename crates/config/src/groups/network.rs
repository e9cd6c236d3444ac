//! Flags of the network daemon and its helper.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use nova_types::Tag;
use nova_types::network::ManagerKind;

use super::flags;

flags! {
    "Network"
    /// How instances are connected.
    NetworkFlags {
        /// FlatManager, FlatDHCPManager, VlanManager or VxlanManager; the same on all hosts.
        network_manager: ManagerKind = "nova.network.manager.VlanManager",
        /// Leave this machine's network alone, for simulated guests: bridges, firewall and DHCP are only remembered.
        fake_network: bool = "false",
        /// Networks that are made from now on have a router on each host, for its own guests: each host runs nova-network.
        multi_host: bool = "false",
        /// Bridge of the flat managers.
        flat_network_bridge: String = "br100",
        /// Interface that FlatDHCPManager puts into that bridge; none on a single host.
        flat_interface: Option<String> = "",
        /// Name server that guests are told by the flat managers.
        flat_network_dns: Ipv4Addr = "8.8.4.4",
        /// First address for guests of the flat managers.
        flat_network_dhcp_start: Option<Ipv4Addr> = "",
        /// Range that all networks are taken from, and whose traffic is translated to --routing_source_ip.
        fixed_range: Ipv4Net = "10.0.0.0/8",
        /// Range of IPv6 of which each network gets a /64, with --use_ipv6.
        fixed_range_v6: Ipv6Net = "fd00::/48",
        /// Addresses in each network.
        network_size: u32 = "256",
        /// Networks made by one network create.
        num_networks: u32 = "1000",
        /// Range of public addresses.
        floating_range: Ipv4Net = "4.4.4.0/24",
        /// Interface of public addresses [default: that of the default route].
        public_interface: Option<String> = "",
        /// Address that guests speak to the world from.
        routing_source_ip: IpAddr = "$my_ip",
        /// Range that guests reach without translation.
        dmz_cidr: Ipv4Net = "10.128.0.0/24",
        /// Program that dnsmasq tells of leases.
        dhcpbridge: PathBuf = "/usr/bin/nova-dhcpbridge",
        /// Flag file of that program [default: those of nova-network].
        dhcpbridge_flagfile: Option<PathBuf> = "",
        /// Folder of dnsmasq's files.
        networks_path: PathBuf = "$state_path/networks",
        /// How long a lease lasts.
        dhcp_lease_time: Duration = "120",
        /// Domain of guests' names.
        dhcp_domain: String = "novalocal",
        /// Name server that dnsmasq asks [default: those of this host].
        dns_server: Option<Ipv4Addr> = "",
        /// First VLAN of VlanManager, or first VNI of VxlanManager.
        vlan_start: Tag = "100",
        /// Interface that carries the VLANs.
        vlan_interface: String = "eth0",
        /// Address under which the VPNs of projects are reached.
        vpn_ip: IpAddr = "$my_ip",
        /// First port of these VPNs.
        vpn_start: u16 = "1000",
        /// Addresses at the end of each network that are kept for VPN clients.
        cnt_vpn_clients: u32 = "0",
        /// Script that sets a VPN's instance up [default: one of our own].
        boot_script_template: Option<PathBuf> = "",
        /// Range that clients of a VPN also reach through it; empty for none.
        dmz_net: Option<Ipv4Addr> = "10.0.0.0",
        /// Netmask of that range.
        dmz_mask: Ipv4Addr = "255.255.255.0",
        /// Accepted for old flag files: an address is kept back for --dhcp_lease_time when its instance is gone.
        fixed_ip_disassociate_timeout: Duration = "600",
    }
}

flags! {
    "DHCP"
    /// What the helper of dnsmasq must know.
    DhcpbridgeFlags {
        /// Folder of dnsmasq's files.
        networks_path: PathBuf = "$state_path/networks",
    }
}
