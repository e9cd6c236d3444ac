//! `nova-manage db …`

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make the tables, or bring them up to date
    Sync {
        /// Accepted if it is the version of this program
        version: Option<i32>,
    },
    /// Print the version of the tables; 0 if there are none
    Version,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        let found = cx.version().await?;
        match self {
            Self::Version => cx.say(found)?,
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
