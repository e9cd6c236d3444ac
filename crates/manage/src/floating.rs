//! `nova-manage floating …`

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use ipnet::Ipv4Net;
use nova_db::floating_ips::{self, FloatingError, FloatingIp};
use nova_db::{networks, transaction};
use nova_types::HostName;

use crate::context::{Context, given, parse};
use crate::output::{List, Output, python, shown};

/// The largest range that is made or removed at once: 65,536 addresses.
const SHORTEST_PREFIX: u8 = 16;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Put all addresses of a range, the first and the last too, in the pool of a network host
    Create {
        /// The network host
        host: String,
        /// The range, as 192.0.2.0/28, or one address
        ip_range: String,
    },
    /// Remove all addresses of a range from their pools; none while a project has one of them
    Delete {
        /// The range, as 192.0.2.0/28, or one address
        ip_range: String,
    },
    /// List the addresses of all pools, and which instances have them
    List {
        /// Only the pool of this network host
        host: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Create { host, ip_range } => create(cx, &parse(&host)?, range(&ip_range)?).await,
            Self::Delete { ip_range } => delete(cx, range(&ip_range)?).await,
            Self::List { host, output } => list(cx, given(host.as_ref()).map(parse).transpose()?, output).await,
        }
    }
}

/// Reads a range that begins where it says and whose addresses a machine can have.
fn range(text: &str) -> anyhow::Result<Ipv4Net> {
    let range = match text.parse::<Ipv4Addr>() {
        Ok(address) => Ipv4Net::from(address),
        Err(_) => text.parse().with_context(|| format!("{text:?} is not a range like 192.0.2.0/28"))?,
    };
    if range != range.trunc() {
        bail!("{range} begins inside its range, which is {}", range.trunc());
    }
    if range.prefix_len() < SHORTEST_PREFIX {
        bail!("{range} has more than 65536 addresses; give it in parts");
    }
    let first = range.network();
    if first.is_multicast() || first.is_loopback() || first.is_link_local() || matches!(first.octets()[0], 0 | 240..) {
        bail!("no machine can have the addresses of {range}");
    }
    Ok(range)
}

/// All addresses of a range, the first and the last too: each is a /32 of its own.
fn addresses(range: Ipv4Net) -> Vec<Ipv4Addr> {
    (u32::from(range.network())..=u32::from(range.broadcast())).map(Ipv4Addr::from).collect()
}

async fn create(cx: &mut Context<'_, '_>, host: &HostName, range: Ipv4Net) -> anyhow::Result<()> {
    let there = networks::list(&mut cx.db.read().await?).await?;
    if let Some(clash) = there.iter().find(|n| n.cidr.contains(&range) || range.contains(&n.cidr)) {
        bail!("{range} overlaps the network {}, whose addresses are the guests' own", clash.cidr);
    }
    let all = addresses(range);
    let made = transaction!(cx.db, |tx| -> FloatingError { floating_ips::create(tx, host, &all).await });
    match made {
        Err(FloatingError::Exists(address)) => bail!("{address} is in a pool already; nothing was made"),
        other => other?,
    }
    cx.note(format_args!("Put {} addresses in the pool of {host}: {range}.", all.len()));
    Ok(())
}

async fn delete(cx: &mut Context<'_, '_>, range: Ipv4Net) -> anyhow::Result<()> {
    let all = addresses(range);
    let gone = transaction!(cx.db, |tx| -> FloatingError { floating_ips::delete(tx, &all).await });
    match gone {
        Err(FloatingError::NotFound(address)) => {
            bail!("{address} is in no pool; nothing was removed (nova-manage floating list shows all)")
        }
        Err(FloatingError::Allocated { address, project }) => {
            bail!("{address} is the project {project}'s, which must release it first; nothing was removed")
        }
        other => Ok(other?),
    }
}

async fn list(cx: &mut Context<'_, '_>, host: Option<HostName>, output: Output) -> anyhow::Result<()> {
    let all = floating_ips::list(&mut cx.db.read().await?, host.as_ref()).await?;
    let row = |one: FloatingIp| {
        let instance = one.bound.as_ref().and_then(|bound| bound.instance);
        let fixed = one.bound.map(|bound| bound.fixed);
        [shown(one.host), shown(Some(one.address)), shown(instance), shown(one.project), shown(fixed)]
    };
    let columns = ["host", "address", "instance", "project", "fixed_address"];
    let list = List { columns, rows: all.into_iter().map(row).collect() };
    Ok(output.write(cx, list, None, |[host, address, instance, ..]| {
        format!("{}\t{}\t{}", python(host), python(address), python(instance))
    })?)
}
