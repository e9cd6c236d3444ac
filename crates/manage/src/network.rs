//! `nova-manage network …`

mod modify;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use ipnet::{Ipv4Net, Ipv6Net};
use nova_db::{DbError, networks, routers, transaction};
use nova_types::network::{Network, NetworkPlan};
use nova_types::plan::{self, Request};
use serde_json::Value;

use crate::context::{Context, given};
use crate::output::{List, Output, python, shown};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Cut networks from a range and store them with all their addresses; what is not given comes from the flags
    Create {
        /// The range, as 192.168.0.0/24 [default: --fixed_range]
        fixed_range: Option<String>,
        /// How many networks [default: --num_networks; 1 with a flat manager]
        num_networks: Option<String>,
        /// Addresses in each, rounded up to a power of two [default: --network_size]
        network_size: Option<String>,
        /// First VLAN, or VNI under VxlanManager [default: --vlan_start]
        vlan_start: Option<String>,
        /// First VPN port [default: --vpn_start]
        vpn_start: Option<String>,
        /// Range of IPv6 that each network gets a /64 of, with --use_ipv6 [default: --fixed_range_v6]
        fixed_range_v6: Option<String>,
        /// A name for the networks
        label: Option<String>,
        /// Each host serves its own guests, at an address of its own, and runs nova-network [default: --multi_host]
        #[arg(long = "multi_host", alias = "multi-host")]
        multi_host: bool,
    },
    /// List all networks
    List(Output),
    /// Give a network to a project or to a host, or take it from them
    Modify(modify::Arguments),
    /// Delete a network that no project and no instance uses
    Delete {
        /// Its range, as network list shows it
        cidr: String,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Create {
                fixed_range,
                num_networks,
                network_size,
                vlan_start,
                vpn_start,
                fixed_range_v6,
                label,
                multi_host,
            } => {
                let numbers = [given(num_networks.as_ref()), given(network_size.as_ref())];
                let firsts = [given(vlan_start.as_ref()), given(vpn_start.as_ref())];
                let mut request = request(cx, given(fixed_range.as_ref()), numbers, firsts, given(label.as_ref()))?;
                request.multi_host |= multi_host;
                request.range6 = range6(cx, given(fixed_range_v6.as_ref()), request.multi_host)?;
                create(cx, &request).await
            }
            Self::List(output) => list(cx, output).await,
            Self::Modify(arguments) => arguments.run(cx).await,
            Self::Delete { cidr } => delete(cx, &cidr).await,
        }
    }
}

fn request(
    cx: &mut Context<'_, '_>,
    range: Option<&str>,
    [count, size]: [Option<&str>; 2],
    [vlan_start, vpn_start]: [Option<&str>; 2],
    label: Option<&str>,
) -> anyhow::Result<Request> {
    let flags = &cx.config.network;
    let range = match range {
        Some(text) => {
            text.parse::<Ipv4Net>().with_context(|| format!("{text:?} is not a range like 192.168.0.0/24"))?
        }
        None => flags.fixed_range,
    };
    if range != range.trunc() {
        cx.note(format_args!("{range} begins inside its range; taking {}.", range.trunc()));
    }
    // The default of the flag suits networks of projects. A flat bridge carries one network.
    let usual = if flags.network_manager.is_per_project() { flags.num_networks } else { 1 };
    Ok(Request {
        manager: flags.network_manager,
        range: range.trunc(),
        range6: None,
        count: number("the number of networks", count)?.unwrap_or(usual),
        size: number("the network size", size)?.unwrap_or(flags.network_size),
        flat_bridge: flags.flat_network_bridge.clone(),
        flat_dns: Some(flags.flat_network_dns),
        vlan_start: number("the first VLAN", vlan_start)?.unwrap_or(flags.vlan_start.number()),
        vpn_start: number("the first VPN port", vpn_start)?.unwrap_or(flags.vpn_start),
        vpn_clients: flags.cnt_vpn_clients,
        label: label.map(str::to_owned),
        multi_host: flags.multi_host,
    })
}

/// The range of IPv6 that networks are to have a part of, if they are to have one. Where each host is a router there would
/// be as many of them on one link, and guests take only one for theirs: such networks have IPv4 only.
fn range6(cx: &mut Context<'_, '_>, range: Option<&str>, multi_host: bool) -> anyhow::Result<Option<Ipv6Net>> {
    if cx.config.common.use_ipv6 && multi_host {
        if range.is_some() {
            bail!("networks with a router on each host have no IPv6");
        }
        cx.note("Networks with a router on each host have no IPv6.");
        return Ok(None);
    }
    if !cx.config.common.use_ipv6 {
        if range.is_some() {
            cx.note("The range of IPv6 is not used: --use_ipv6 is off.");
        }
        return Ok(None);
    }
    let Some(text) = range else { return Ok(Some(cx.config.network.fixed_range_v6)) };
    let range = text.parse::<Ipv6Net>().with_context(|| format!("{text:?} is not a range like fd00::/48"))?;
    Ok(Some(range.trunc()))
}

fn number<T: std::str::FromStr>(what: &str, text: Option<&str>) -> anyhow::Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => bail!("{what} must be a number, not {text:?}"),
    }
}

/// All networks or none, in one transaction; so is the look at what they could collide with.
async fn create(cx: &mut Context<'_, '_>, request: &Request) -> anyhow::Result<()> {
    let plans = plan::plan(request)?;
    let clash = transaction!(cx.db, |tx| -> DbError {
        let there = networks::list(tx).await?;
        if let Some(clash) = collision(&plans, &there) {
            return Ok(Some(clash));
        }
        networks::create(tx, &plans).await?;
        Ok(None)
    })?;
    if let Some(clash) = clash {
        bail!("{clash}");
    }
    for plan in plans.iter().take(10) {
        let free: Vec<_> = plan.addresses().filter(|(_, reserved)| !reserved).map(|(address, _)| address).collect();
        let (first, last) = (shown(free.first()), shown(free.last()));
        let ipv6 = plan.prefix6.map_or_else(String::new, |prefix| format!(", {prefix}"));
        cx.note(format_args!(
            "Made network {} on {}: gateway {}, guests from {} to {}{ipv6}.",
            plan.cidr,
            plan.bridge,
            plan.gateway,
            first.as_str().unwrap_or_default(),
            last.as_str().unwrap_or_default()
        ));
    }
    if plans.len() > 10 {
        cx.note(format_args!("… and {} more.", plans.len() - 10));
    }
    Ok(())
}

/// Says which of the planned networks gets in the way of one that is there.
fn collision(plans: &[NetworkPlan], there: &[Network]) -> Option<String> {
    let meet = |a: Ipv4Net, b: Ipv4Net| a.contains(&b) || b.contains(&a);
    for plan in plans {
        if let Some(old) = there.iter().find(|old| meet(old.cidr, plan.cidr)) {
            return Some(format!("{} overlaps the network {}, which is there", plan.cidr, old.cidr));
        }
        if let Some(old) = there.iter().find(|old| old.bridge == plan.bridge) {
            return Some(format!("{} would be on {}, which carries {}", plan.cidr, plan.bridge, old.cidr));
        }
        if let Some(old) = there.iter().find(|old| plan.vlan.is_some() && old.vlan == plan.vlan) {
            let what = "the VLAN or VNI";
            return Some(format!("{} would have {what} of {}; give another first one", plan.cidr, old.cidr));
        }
        if let Some(old) = there.iter().find(|old| plan.prefix6.is_some() && old.prefix6 == plan.prefix6) {
            return Some(format!(
                "{} would have the prefix of IPv6 of {}; give another range of IPv6",
                plan.cidr, old.cidr
            ));
        }
        let port = plan.vpn_public_port;
        if let Some(old) = there.iter().find(|old| port.is_some() && old.vpn_public_port == port) {
            return Some(format!("{} would have the VPN port of {}; give another first port", plan.cidr, old.cidr));
        }
    }
    None
}

async fn list(cx: &mut Context<'_, '_>, output: Output) -> anyhow::Result<()> {
    let mut conn = cx.db.read().await?;
    let (networks, own) = (networks::list(&mut conn).await?, routers::list(&mut conn).await?);
    drop(conn);
    let serving = |n: &Network| match n.multi_host {
        false => shown(n.host.as_ref()),
        true => {
            let here = own.iter().filter(|router| router.network == n.id);
            let hosts: Vec<String> = here.map(|router| format!("{} ({})", router.host, router.address)).collect();
            if hosts.is_empty() { Value::Null } else { hosts.join(", ").into() }
        }
    };
    let row = |n: Network| {
        let netmask = shown(Some(n.cidr.netmask()));
        let (cidr, start, dns) = (shown(Some(n.cidr)), shown(Some(n.dhcp_start)), shown(n.dns));
        let more = (shown(Some(&n.bridge)), shown(n.project.as_ref()), serving(&n), shown(n.prefix6));
        [cidr, netmask, start, dns, more.0, more.1, more.2, more.3, n.multi_host.into()]
    };
    let columns = ["network", "netmask", "start address", "DNS", "bridge", "project", "host", "IPv6", "multi_host"];
    let list = List { columns, rows: networks.into_iter().map(row).collect() };
    let line = |cells: [&str; 4]| format!("{:<18}\t{:<15}\t{:<15}\t{:<15}", cells[0], cells[1], cells[2], cells[3]);
    let heading = line(["network", "netmask", "start address", "DNS"]);
    Ok(output.write(cx, list, Some(heading), |[cidr, netmask, start, dns, ..]| {
        line([&python(cidr), &python(netmask), &python(start), &python(dns)])
    })?)
}

/// Reads a network, or says that there is none.
async fn existing(cx: &Context<'_, '_>, cidr: &str) -> anyhow::Result<Network> {
    let cidr: Ipv4Net = cidr.parse().with_context(|| format!("{cidr:?} is not a range like 192.168.0.0/24"))?;
    match networks::by_cidr(&mut cx.db.read().await?, cidr).await {
        Err(DbError::NotFound(_)) => bail!("no network {cidr}; nova-manage network list shows all"),
        other => Ok(other?),
    }
}

async fn delete(cx: &mut Context<'_, '_>, cidr: &str) -> anyhow::Result<()> {
    let network = existing(cx, cidr).await?;
    let cidr = network.cidr;
    if let Some(project) = network.project {
        bail!("{cidr} is used by the project {project}; run nova-manage project scrub {project} first");
    }
    transaction!(cx.db, |tx| -> DbError { networks::delete(tx, network.id).await })
        .with_context(|| format!("deleting {cidr}; nova-manage instance list shows what may still use it"))
}
