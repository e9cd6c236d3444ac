//! `nova-manage network modify`

use anyhow::{Context as _, bail};
use nova_db::{DbError, Unique, networks, services, transaction};
use nova_types::{HostName, ProjectId};

use crate::context::{Context, parse};
use crate::project;

/// How long the new host has to claim the network before any other may.
const LEASE_SECONDS: i32 = 30;
const DAEMON: &str = "nova-network";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Its range, as network list shows it
    fixed_range: String,
    /// Give it to this project
    #[arg(long)]
    project: Option<String>,
    /// Let this host serve it
    #[arg(long)]
    host: Option<String>,
    /// Take it from its project
    #[arg(long, alias = "dis-project", conflicts_with = "project")]
    disassociate_project: bool,
    /// Take it from its host; the first nova-network that looks serves it then
    #[arg(long, alias = "dis-host", conflicts_with = "host")]
    disassociate_host: bool,
}

impl Arguments {
    /// Changes project and host in one transaction: both or neither.
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        let project: Option<Option<ProjectId>> = match &self.project {
            Some(name) => Some(Some(project::existing(cx, &parse(name)?).await?.id)),
            None => self.disassociate_project.then_some(None),
        };
        let host: Option<Option<HostName>> = match &self.host {
            Some(name) => Some(Some(serving(cx, &parse(name)?).await?)),
            None => self.disassociate_host.then_some(None),
        };
        if project.is_none() && host.is_none() {
            bail!("nothing to change: give --project, --host, --disassociate-project or --disassociate-host");
        }
        let network = super::existing(cx, &self.fixed_range).await?;
        let done = transaction!(cx.db, |tx| -> DbError {
            if let Some(project) = &project {
                networks::set_project(tx, network.id, project.as_ref()).await?;
            }
            if let Some(host) = &host {
                networks::set_host(tx, network.id, host.as_ref(), LEASE_SECONDS).await?;
            }
            Ok(())
        });
        match done {
            Err(DbError::InUse(_)) => {
                let who = if project.as_ref().is_some_and(Option::is_some) {
                    "another project's instances"
                } else {
                    "instances"
                };
                bail!("{} is used by {who}; nova-manage fixed list shows which", network.cidr)
            }
            Err(DbError::Duplicate(Unique::NetworkProject)) => {
                bail!("the project {} has a network; take that from it first", self.project.unwrap_or_default())
            }
            other => other.with_context(|| format!("changing {}", network.cidr)),
        }
    }
}

/// A host that could serve, or the network would be nobody's until the lease is over.
async fn serving(cx: &Context<'_, '_>, host: &HostName) -> anyhow::Result<HostName> {
    let daemons = services::list(&mut cx.db.read().await?).await?;
    let down_after = i64::try_from(cx.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX);
    match daemons.iter().find(|daemon| daemon.binary == DAEMON && daemon.host == *host) {
        None => bail!("there is no {DAEMON} on {host}; nova-manage service list shows all"),
        Some(daemon) if !daemon.is_up(down_after) => bail!("{DAEMON} on {host} is down; start it first"),
        Some(_) => Ok(host.clone()),
    }
}
