//! `nova-manage host …`

use anyhow::bail;
use clap::Subcommand;
use nova_db::{DbError, compute_nodes, instances, services, transaction};
use nova_types::HostName;
use nova_types::instance::StateReason;
use nova_types::service::{ComputeNode, Service};

use crate::context::{Context, parse};
use crate::output::{List, Output, shown, text};

const COMPUTE: &str = "nova-compute";
/// Instances in one transaction: enough to be quick, and so few that nobody waits for their rows.
const BATCH: u32 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List compute hosts: whether they live, what they have and what of it is taken
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Give a lost host's instances to other hosts, where they boot from their images
    Evacuate {
        /// The host
        host: String,
        /// Even though its nova-compute reports that it lives: what runs there is then destroyed
        #[arg(long)]
        force: bool,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::List { output } => list(cx, output).await,
            Self::Evacuate { host, force } => evacuate(cx, &parse(&host)?, force).await,
        }
    }
}

async fn list(cx: &mut Context<'_, '_>, output: Output) -> anyhow::Result<()> {
    let down_after = down_after(cx);
    let mut conn = cx.db.read().await?;
    let (nodes, daemons) = (compute_nodes::list(&mut conn, down_after).await?, services::list(&mut conn).await?);
    drop(conn);
    let row = |node: ComputeNode| {
        let daemon = daemons.iter().find(|s| s.host == node.host && s.binary == COMPUTE);
        let state = if daemon.is_some_and(|s| s.disabled) { "disabled" } else { "enabled" };
        let is_up = daemon.is_some_and(|s| s.is_up(down_after));
        [
            shown(Some(&node.host)),
            node.availability_zone.into(),
            state.into(),
            is_up.into(),
            node.vcpus.into(),
            node.vcpus_used.into(),
            node.memory_mb.into(),
            node.memory_mb_used.into(),
            node.local_gb.into(),
            node.local_gb_used.into(),
            node.hypervisor_type.into(),
        ]
    };
    let columns = [
        "host",
        "zone",
        "state",
        "is_up",
        "vcpus",
        "vcpus_used",
        "memory_mb",
        "memory_mb_used",
        "local_gb",
        "local_gb_used",
        "hypervisor",
    ];
    let list = List { columns, rows: nodes.into_iter().map(row).collect() };
    Ok(output.or_table().write(cx, list, None, |row| row.each_ref().map(text).join(" "))?)
}

fn down_after(cx: &Context<'_, '_>) -> i64 {
    i64::try_from(cx.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX)
}

async fn evacuate(cx: &mut Context<'_, '_>, host: &HostName, force: bool) -> anyhow::Result<()> {
    let daemons = services::list(&mut cx.db.read().await?).await?;
    let Some(daemon) = daemons.into_iter().find(|s| s.host == *host && s.binary == COMPUTE) else {
        bail!("there is no {COMPUTE} on {host}; nova-manage host list shows all hosts");
    };
    if let (Some(why), false) = (alive(&daemon, down_after(cx)), force) {
        bail!(
            "{COMPUTE} on {host} {why}: stop it and switch the host off first, or say --force to destroy what runs there"
        );
    }
    // Or the scheduler would give them back to it, now or when it returns half well.
    services::set_disabled(&mut cx.db.write().await?, host, COMPUTE, true).await?;
    let (mut anew, mut stopped, mut ending) = (0, 0, 0);
    loop {
        let reason = StateReason::new("Server.HostEvacuated", format!("Its host {host} was lost."));
        let db = &cx.db;
        let taken = transaction!(db, |tx| -> DbError { instances::evacuate(tx, host, BATCH, &reason).await })?;
        if taken == instances::Evacuated::default() {
            break;
        }
        anew += taken.anew.len();
        stopped += taken.stopped.len();
        ending += taken.ending.len();
    }
    cx.say(format_args!("{anew} instances boot on other hosts, {stopped} stay stopped, {ending} end."))?;
    cx.note(format_args!(
        "They keep their addresses and boot from their images: what was on their disks is lost to them, unless \
         --instances_path is shared. Make sure that {host} is off until it can reach the database: when its {COMPUTE} \
         starts, it destroys the guests that were taken from it, and until then each of them is there twice."
    ));
    cx.note(format_args!("{host} gets no instances until nova-manage service enable {host} {COMPUTE}."));
    Ok(())
}

/// Why the host must be taken for alive; nothing if it was silent for long enough, or gave its name up as it stopped.
fn alive(daemon: &Service, down_after: i64) -> Option<String> {
    let silent = daemon.silent_seconds.max(0);
    if daemon.gave_up || !daemon.is_up(down_after) {
        return None;
    }
    Some(format!("reported {silent} s ago"))
}
