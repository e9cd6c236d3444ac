//! `nova-manage check`: asks database and host for what must not be, and names what mends it.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_db::{DbError, accounts, check, compute_nodes, quotas, transaction};
use nova_types::account::Project;
use nova_types::service::ComputeNode;

use crate::context::Context;
use crate::host_check;
use crate::output::{List, Output, text};

/// What is on its way looks like a leak for a moment. Only what is seen twice, this long apart, is told.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
const FOUND: u8 = 1;
const CLEAN: u8 = 0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds after which work that is under way counts as stuck
    #[arg(long, default_value_t = 60)]
    older_than: i32,
    /// Read every image again and compare its hash
    #[arg(long)]
    deep: bool,
    /// Look at the database only, not at this host
    #[arg(long)]
    rows: bool,
    /// First count anew what projects and hosts have; mends W9
    #[arg(long)]
    recount: bool,
    #[command(flatten)]
    output: Output,
}

/// Something that should not be, and how to end it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leak {
    /// The invariant of the design that does not hold: I1 to I11 for rows, W1 to W9 for the host.
    pub(crate) invariant: String,
    pub(crate) what: String,
    pub(crate) mend: String,
}

impl Arguments {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<u8> {
        if self.recount {
            recount(cx).await?;
        }
        let mut leaks = self.look(cx).await?;
        if !leaks.is_empty() {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let again = self.look(cx).await?;
            leaks.retain(|leak| again.contains(leak));
        }
        if leaks.is_empty() {
            let host = if self.rows { String::new() } else { format!(" and this host ({})", cx.config.common.host) };
            cx.note(format_args!("Checked the database{host}: nothing found."));
        }
        let code = if leaks.is_empty() { CLEAN } else { FOUND };
        let row = |l: Leak| [l.invariant.into(), l.what.into(), l.mend.into()];
        let list = List { columns: ["invariant", "what", "mend"], rows: leaks.into_iter().map(row).collect() };
        self.output.write(cx, list, None, |[invariant, what, mend]| {
            format!("{}: {}\n    to mend: {}", text(invariant), text(what), text(mend))
        })?;
        Ok(code)
    }

    async fn look(&self, cx: &mut Context<'_, '_>) -> anyhow::Result<BTreeSet<Leak>> {
        let found = check::run(&mut cx.db.read().await?, self.older_than).await?;
        let of_rows = found.into_iter().map(|f| Leak {
            mend: mend_of(f.invariant).to_owned(),
            invariant: f.invariant.to_owned(),
            what: format!("{}: {}", f.meaning, f.what),
        });
        let mut leaks: BTreeSet<Leak> = of_rows.collect();
        if !self.rows {
            leaks.extend(host_check::look(cx, self.older_than, self.deep).await?);
        }
        Ok(leaks)
    }
}

async fn recount(cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
    let projects = accounts::projects(&mut cx.db.read().await?, None).await?;
    for Project { id, .. } in &projects {
        transaction!(cx.db, |tx| -> DbError { quotas::recount(tx, id).await })?;
    }
    let nodes = compute_nodes::list(&mut cx.db.read().await?, i64::MAX).await?;
    for ComputeNode { host, .. } in &nodes {
        transaction!(cx.db, |tx| -> DbError { compute_nodes::recount(tx, host).await })?;
    }
    cx.note(format_args!("Counted anew what {} projects and {} hosts have.", projects.len(), nodes.len()));
    Ok(())
}

/// Most is mended by the daemon that owns the row, once it runs.
fn mend_of(invariant: &str) -> &'static str {
    match invariant {
        "I2" | "I3" | "I4" | "I6" | "I10" => {
            "start the daemons of the host (nova-manage service list shows who is down); their reconcilers mend it"
        }
        "I5" => "terminate the instance: it has an address of another project's network",
        "W9" => "nova-manage check --recount",
        _ => "no command mends this: the tables' keys forbid it; restore them with nova-manage db sync, then report it",
    }
}
