//! `nova-manage service …`

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Subcommand;
use nova_db::{DbError, compute_nodes, instances, routers, services, transaction};
use nova_types::service::Service;
use nova_types::{HostName, ProjectId};
use serde_json::Value;

use crate::context::{Context, given, parse};
use crate::output::{List, Output, moment, python, shown, text};

/// What stands in the place of a project in the first two rows.
const TOTAL: &str = "(total)";
const USED: &str = "(used)";
const COMPUTE: &str = "nova-compute";
const NETWORK: &str = "nova-network";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List daemons, and whether they reported lately
    List {
        /// Only this host
        host: Option<String>,
        /// Only this program, as nova-compute
        service: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// What a compute host has, what of it is taken, and by which projects
    #[command(name = "describe_resource")]
    DescribeResource {
        /// The host
        host: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let new work go to a daemon
    Enable(Named),
    /// Keep new work away from a daemon
    Disable(Named),
    /// Forget a daemon that is gone for good: under VxlanManager other hosts then send nothing there any more, and the
    /// addresses that its host had as a router of guests come free
    Delete(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The host
    host: String,
    /// The program, as nova-compute
    service: String,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::List { host, service, output } => {
                list(cx, given(host.as_ref()), given(service.as_ref()), output).await
            }
            Self::DescribeResource { host, output } => describe_resource(cx, &parse(&host)?, output).await,
            Self::Enable(named) => set(cx, &named, false).await,
            Self::Disable(named) => set(cx, &named, true).await,
            Self::Delete(named) => delete(cx, &named).await,
        }
    }
}

async fn list(
    cx: &mut Context<'_, '_>,
    host: Option<&str>,
    binary: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    let down_after = i64::try_from(cx.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX);
    let mut all = services::list(&mut cx.db.read().await?).await?;
    all.retain(|s| host.is_none_or(|h| s.host.as_str() == h) && binary.is_none_or(|b| s.binary == b));
    let row = |s: Service| {
        let is_up = s.is_up(down_after);
        let state = if s.disabled { "disabled" } else { "enabled" };
        let (host, zone) = (shown(Some(s.host)), shown(Some(s.availability_zone)));
        [host, shown(Some(s.binary)), state.into(), is_up.into(), moment(s.updated_at), zone]
    };
    let columns = ["host", "binary", "state", "is_up", "updated_at", "zone"];
    let list = List { columns, rows: all.into_iter().map(row).collect() };
    Ok(output.write(cx, list, None, |[host, binary, state, is_up, updated, _]| {
        let face = if *is_up == Value::Bool(true) { ":-)" } else { "XXX" };
        format!("{:<10} {:<10} {:<8} {face} {}", python(host), python(binary), python(state), python(updated))
    })?)
}

/// As Cactus printed it: `HOST PROJECT cpu mem(mb) disk(gb)`.
async fn describe_resource(cx: &mut Context<'_, '_>, host: &HostName, output: Output) -> anyhow::Result<()> {
    let mut conn = cx.db.read().await?;
    let nodes = compute_nodes::list(&mut conn, i64::MAX).await?;
    let here = instances::on_host(&mut conn, host).await?;
    drop(conn);
    let Some(node) = nodes.into_iter().find(|node| node.host == *host) else {
        bail!("{host} is no compute host; nova-manage host list shows all");
    };
    let mut usage: BTreeMap<ProjectId, [u32; 3]> = BTreeMap::new();
    for instance in here.into_iter().map(|view| view.instance) {
        let [cpu, memory, disk] = usage.entry(instance.project).or_default();
        *cpu = cpu.saturating_add(instance.vcpus);
        *memory = memory.saturating_add(instance.memory_mb);
        *disk = disk.saturating_add(instance.local_gb);
    }
    let row = |project: &str, [cpu, memory, disk]: [u32; 3]| -> [Value; 5] {
        [shown(Some(host)), project.into(), cpu.into(), memory.into(), disk.into()]
    };
    let mut rows = vec![
        row(TOTAL, [node.vcpus, node.memory_mb, node.local_gb]),
        row(USED, [node.vcpus_used, node.memory_mb_used, node.local_gb_used]),
    ];
    rows.extend(usage.iter().map(|(project, taken)| row(project.as_str(), *taken)));
    let list = List { columns: ["host", "project", "cpu", "memory_mb", "disk_gb"], rows };
    let heading = "HOST\t\t\tPROJECT\t\tcpu\tmem(mb)\tdisk(gb)".to_owned();
    Ok(output.write(cx, list, Some(heading), |row| {
        let [host, project, cpu, memory, disk] = row.each_ref().map(text);
        match project.as_str() {
            TOTAL | USED => format!("{host}{project}\t\t\t{cpu}\t{memory}\t{disk}"),
            _ => format!("{host}\t\t{project}\t\t{cpu}\t{memory}\t{disk}"),
        }
    })?)
}

async fn set(cx: &mut Context<'_, '_>, named: &Named, disabled: bool) -> anyhow::Result<()> {
    let host = existing(cx, named).await?.host;
    services::set_disabled(&mut cx.db.write().await?, &host, &named.service, disabled).await?;
    Ok(())
}

/// One that lives would come back with its next report, and guests need the one that they are on.
async fn delete(cx: &mut Context<'_, '_>, named: &Named) -> anyhow::Result<()> {
    let (daemon, binary) = (existing(cx, named).await?, &named.service);
    let host = &daemon.host;
    let down_after = i64::try_from(cx.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX);
    if daemon.is_up(down_after) && !daemon.gave_up {
        bail!("{binary} on {host} reported {} s ago; stop it first", daemon.silent_seconds);
    }
    let quarantine = cx.config.network.fixed_ip_disassociate_timeout.as_secs();
    let quarantine = i32::try_from(quarantine).unwrap_or(i32::MAX);
    let freed = transaction!(cx.db, |tx| -> DbError {
        let guests = instances::on_host(tx, host).await?.len();
        let routes = binary == NETWORK && !routers::of_host(tx, host).await?.is_empty();
        if (binary == COMPUTE || routes) && guests > 0 {
            return Ok(Err(guests));
        }
        let freed = if routes { routers::release(tx, host, quarantine).await? } else { 0 };
        services::delete(tx, host, binary).await?;
        Ok(Ok(freed))
    })?;
    match freed {
        Err(guests) => bail!("{host} has {guests} instances; run nova-manage host evacuate {host} first"),
        Ok(0) => Ok(()),
        Ok(freed) => {
            cx.note(format_args!("{host} had {freed} addresses of its own; they are free in {quarantine} s."));
            Ok(())
        }
    }
}

async fn existing(cx: &Context<'_, '_>, named: &Named) -> anyhow::Result<Service> {
    let host: HostName = parse(&named.host)?;
    let all = services::list(&mut cx.db.read().await?).await?;
    match all.into_iter().find(|s| s.host == host && s.binary == named.service) {
        Some(found) => Ok(found),
        None => bail!("no {} on {host}; nova-manage service list shows all", named.service),
    }
}
