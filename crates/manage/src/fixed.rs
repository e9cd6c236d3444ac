//! `nova-manage fixed …`

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nova_db::fixed_ips::{self, FixedIp};
use nova_db::networks;
use nova_types::network::Network;
use nova_types::{HostName, NetworkId};
use serde_json::Value;

use crate::context::{Context, given};
use crate::output::{List, Output, python, shown};

/// Cactus's columns, then ours.
const COLUMNS: [&str; 9] =
    ["network", "IP address", "MAC address", "hostname", "host", "project", "reserved", "leased", "free after"];

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List all addresses and who has them
    List {
        /// Only those of instances on this host
        host: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Keep an address from being given to an instance
    Reserve {
        /// The address
        address: String,
    },
    /// Let an address be given to instances again
    Unreserve {
        /// The address
        address: String,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::List { host, output } => list(cx, given(host.as_ref()), output).await,
            Self::Reserve { address } => reserve(cx, &address, true).await,
            Self::Unreserve { address } => reserve(cx, &address, false).await,
        }
    }
}

async fn list(cx: &mut Context<'_, '_>, host: Option<&str>, output: Output) -> anyhow::Result<()> {
    let mut conn = cx.db.read().await?;
    let mut addresses = fixed_ips::list(&mut conn, None).await?;
    let networks: BTreeMap<NetworkId, Network> =
        networks::list(&mut conn).await?.into_iter().map(|network| (network.id, network)).collect();
    drop(conn);
    let is_on = |ip: &FixedIp, host: &str| place(ip).is_some_and(|of| of.as_str() == host);
    addresses.retain(|ip| host.is_none_or(|host| is_on(ip, host)));
    let row = |ip: FixedIp| -> [Value; 9] {
        let (address, network) = (shown(Some(ip.address)), shown(networks.get(&ip.network).map(|n| n.cidr)));
        let free_after = crate::output::moment(ip.free_after);
        let holder = ip.holder.as_ref();
        let hostname = shown(holder.map(|h| h.instance));
        let (mac, project) = (shown(holder.map(|h| h.mac)), shown(holder.map(|h| &h.project)));
        let host = shown(place(&ip));
        [network, address, mac, hostname, host, project, ip.reserved.into(), ip.leased.into(), free_after]
    };
    let list = List { columns: COLUMNS, rows: addresses.into_iter().map(row).collect() };
    let heading = line(COLUMNS.map(str::to_owned));
    Ok(output.write(cx, list, Some(heading), |row| line(row.each_ref().map(python)))?)
}

/// Where an address is: at the guest that has it, or at the host that has it itself.
fn place(ip: &FixedIp) -> Option<&HostName> {
    ip.holder.as_ref().and_then(|holder| holder.host.as_ref()).or(ip.router.as_ref())
}

/// Cactus's line, which ends with the host.
fn line(c: [String; 9]) -> String {
    format!("{:<18}\t{:<15}\t{:<17}\t{:<15}\t{}", c[0], c[1], c[2], c[3], c[4])
}

async fn reserve(cx: &mut Context<'_, '_>, text: &str, reserved: bool) -> anyhow::Result<()> {
    let address: Ipv4Addr = text.parse().with_context(|| format!("{text:?} is not an address like 192.168.0.9"))?;
    let mut conn = cx.db.read().await?;
    let networks = networks::list(&mut conn).await?;
    let Some(network) = networks.into_iter().find(|network| network.cidr.contains(&address)) else {
        bail!("{address} is of no network; nova-manage network list shows all");
    };
    if let (false, Some(whose)) = (reserved, kept(&network, address)) {
        bail!("{address} is {whose} of {} and stays reserved", network.cidr);
    }
    let holder = fixed_ips::by_address(&mut conn, address).await?;
    drop(conn);
    fixed_ips::reserve(&mut cx.db.write().await?, address, reserved).await?;
    if let (true, Some((instance, _))) = (reserved, holder) {
        cx.note(format_args!("{instance} has {address} now and keeps it; nobody gets it after that."));
    }
    Ok(())
}

/// What an address is that no guest may ever have.
fn kept(network: &Network, address: Ipv4Addr) -> Option<&'static str> {
    match address {
        a if a == network.cidr.network() => Some("the network's own address"),
        a if a == network.cidr.broadcast() => Some("the broadcast address"),
        a if a == network.gateway => Some("the gateway"),
        a if Some(a) == network.vpn_private_address => Some("the VPN's address"),
        _ => None,
    }
}
