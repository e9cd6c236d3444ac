//! What the plans depend on, from flags: every address resolved, every path absolute.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use nova_config::NetworkConfig;
use nova_link::carrier::{Carrier, Wiring};
use nova_link::tunnels::Tunnels;
use nova_types::HostName;

use crate::NetworkError;

/// After how many renewals that did not come a network may be another's.
const MISSED: u64 = 3;

/// Flags, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) host: HostName,
    /// Whether guests have IPv6.
    pub(crate) ipv6: bool,
    /// How bridges are made. By hand, under `FlatManager`, nothing is set up, and guests get their addresses from a disk.
    pub(crate) carrier: Carrier,
    /// Where the VPNs of projects are reached.
    pub(crate) vpn: Option<Ipv4Addr>,
    pub(crate) script: PathBuf,
    pub(crate) flag_file: Option<PathBuf>,
    pub(crate) folder: PathBuf,
    pub(crate) domain: String,
    pub(crate) lease: Duration,
    /// How often the lease of this host's networks is renewed, and how long they stay its own when it falls silent.
    pub(crate) renew: Duration,
    pub(crate) lease_seconds: i32,
    pub(crate) name_server: Option<Ipv4Addr>,
    pub(crate) fixed_range: Ipv4Net,
    pub(crate) routing_source: Ipv4Addr,
    pub(crate) dmz: Ipv4Net,
    pub(crate) metadata: SocketAddrV4,
    /// Where floating addresses are bound; with none it is the interface of the default route.
    pub(crate) public_interface: Option<String>,
}

impl Settings {
    pub(crate) async fn of(
        config: &NetworkConfig,
        flag_file: Option<PathBuf>,
        tunnels: Arc<dyn Tunnels>,
    ) -> Result<Self, NetworkError> {
        let flags = &config.network;
        let routing_source = match flags.routing_source_ip {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => {
                return Err(NetworkError::Address { flag: "routing_source_ip", value: address.to_string() });
            }
        };
        let wiring = Wiring {
            manager: flags.network_manager,
            flat_interface: flags.flat_interface.as_deref(),
            vlan_interface: &flags.vlan_interface,
            my_ip: config.common.my_ip,
        };
        Ok(Self {
            host: config.common.host.clone(),
            ipv6: config.common.use_ipv6,
            carrier: Carrier::of(wiring, tunnels)?,
            vpn: match flags.vpn_ip {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            },
            script: script(&flags.dhcpbridge),
            flag_file: flags.dhcpbridge_flagfile.clone().or(flag_file),
            folder: flags.networks_path.clone(),
            domain: flags.dhcp_domain.clone(),
            lease: flags.dhcp_lease_time,
            renew: config.common.report_interval,
            lease_seconds: i32::try_from(config.common.report_interval.as_secs().saturating_mul(MISSED))
                .unwrap_or(i32::MAX),
            name_server: flags.dns_server,
            fixed_range: flags.fixed_range,
            routing_source,
            dmz: flags.dmz_cidr,
            public_interface: flags.public_interface.clone(),
            metadata: resolve(&config.endpoint.ec2_dmz_host, config.endpoint.ec2_port).await?,
        })
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddrV4, NetworkError> {
    let unknown = || NetworkError::Address { flag: "ec2_dmz_host", value: host.to_owned() };
    let found = tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?;
    let mut ipv4 = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    ipv4.next().ok_or_else(unknown)
}

/// The helper where the flag says; where nothing is installed there, the one beside this program.
fn script(flag: &Path) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("nova-dhcpbridge"));
    match beside {
        Some(beside) if !flag.exists() && beside.exists() => beside,
        _ => flag.to_owned(),
    }
}
