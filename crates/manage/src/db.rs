//! `nova-manage db …`

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nova_config::DatabaseUrl;
use nova_db::{Db, Options, export, services};

use crate::context::Context;

/// How often it is looked whether a daemon still reports.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make the tables, or bring them up to date
    Sync {
        /// Accepted if it is the version of this program
        version: Option<i32>,
    },
    /// Print the version of the tables; 0 if there are none
    Version,
    /// Copy everything from the SQLite database to an empty one on a server; stop the daemons first
    Export {
        /// The server's, as for --sql_connection: mysql://USER:PASSWORD@HOST/NAME or postgresql://…
        #[arg(long, value_name = "URL")]
        to: DatabaseUrl,
    },
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        let found = cx.version().await?;
        match self {
            Self::Version => cx.say(found)?,
            Self::Export { .. } if found != nova_db::SCHEMA_VERSION => {
                bail!("the tables are at version {found}; run nova-manage db sync first")
            }
            Self::Export { to } => export(cx, &to).await?,
            Self::Sync { version: Some(wanted) } if wanted != nova_db::SCHEMA_VERSION => {
                bail!("this program has tables of version {}, not {wanted}", nova_db::SCHEMA_VERSION)
            }
            Self::Sync { .. } => {
                cx.db.migrate().await.context("changing the tables")?;
                let latest = nova_db::SCHEMA_VERSION;
                if found == latest {
                    cx.note(format_args!("The tables are at version {latest} already."));
                } else {
                    cx.note(format_args!("The tables went from version {found} to {latest}."));
                }
            }
        }
        Ok(())
    }
}

async fn export(cx: &mut Context<'_, '_>, to: &DatabaseUrl) -> anyhow::Result<()> {
    if cx.config.database.sql_connection.sqlite_file().is_none() || to.sqlite_file().is_some() {
        bail!("an export goes from a sqlite:// --sql_connection to a mysql:// or postgresql:// URL");
    }
    wait_for_silence(cx).await?;
    let target = Db::open(to.expose(), &Options { max_connections: 2, ..Options::default() }).await;
    let target = target.with_context(|| format!("opening {to}"))?;
    let copied = export::copy(&cx.db, &target).await;
    target.close().await;
    let copied = copied.with_context(|| format!("exporting to {to}"))?;
    for table in copied.iter().filter(|table| table.rows > 0) {
        cx.say(format_args!("{:>9} {}", table.rows, table.table))?;
    }
    cx.note(format_args!("All rows are in {to}. Set --sql_connection to it before you start a daemon again."));
    Ok(())
}

/// Waits until no daemon has reported for twice the time between two reports.
async fn wait_for_silence(cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
    let quiet = i64::try_from(2 * cx.config.common.report_interval.as_secs().max(1)).unwrap_or(i64::MAX);
    let first = services::list(&mut cx.db.read().await?).await?;
    let mut told = false;
    loop {
        let all = services::list(&mut cx.db.read().await?).await?;
        let silent = |now: &nova_types::service::Service| {
            first.iter().any(|before| before.id == now.id && before.report_count == now.report_count)
        };
        if let Some(alive) = all.iter().find(|service| !silent(service)) {
            bail!("{} on {} is running and would go on writing here; stop all daemons first", alive.binary, alive.host);
        }
        let Some(fresh) = all.iter().find(|service| service.silent_seconds < quiet) else { return Ok(()) };
        if !std::mem::replace(&mut told, true) {
            let (binary, host) = (&fresh.binary, &fresh.host);
            cx.note(format_args!(
                "{binary} on {host} reported a moment ago; looking for {quiet} s whether it still does."
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}
