//! `nova-manage role …`

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nova_db::accounts::{self, AccountError};
use nova_db::transaction;
use nova_types::account::Role;
use nova_types::{ProjectId, UserId};

use crate::context::{Context, given, parse};
use crate::{project, user};

/// Not given and not taken: who manages a project has it there.
const PROJECT_MANAGER: &str = "projectmanager";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Give a role, everywhere or in a project; in a project it only counts if it is held everywhere, too
    Add(Holder),
    /// Print True if the user may act in the role, else False
    Has(Holder),
    /// Take a role
    Remove(Holder),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Holder {
    /// The user
    user: String,
    /// cloudadmin, itsec, sysadmin, netadmin or developer
    role: String,
    /// The project; everywhere if not given
    project: Option<String>,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Add(holder) => {
                let (user, role, project) = holder.check(cx).await?;
                transaction!(cx.db, |tx| -> AccountError {
                    accounts::add_role(tx, &user, role, project.as_ref()).await
                })?;
                Ok(())
            }
            Self::Remove(holder) => {
                let (user, role, project) = holder.check(cx).await?;
                transaction!(cx.db, |tx| -> AccountError {
                    accounts::remove_role(tx, &user, role, project.as_ref()).await
                })?;
                Ok(())
            }
            Self::Has(holder) => {
                let held = has(cx, &holder).await?;
                Ok(cx.say(if held { "True" } else { "False" })?)
            }
        }
    }
}

impl Holder {
    async fn check(&self, cx: &Context<'_, '_>) -> anyhow::Result<(UserId, Role, Option<ProjectId>)> {
        let role = Role::from_word(&self.role).with_context(|| format!("The {} role can not be found", self.role))?;
        let project = given(self.project.as_ref()).map(parse::<ProjectId>).transpose()?;
        if role.is_global_only() && project.is_some() {
            bail!("The {} role is global only", self.role);
        }
        let user = user::existing(cx, &parse(&self.user)?).await?.id;
        if let Some(project) = &project {
            project::existing(cx, project).await?;
        }
        Ok((user, role, project))
    }
}

async fn has(cx: &Context<'_, '_>, holder: &Holder) -> anyhow::Result<bool> {
    let id = user::existing(cx, &parse(&holder.user)?).await?.id;
    let in_project = given(holder.project.as_ref());
    if holder.role == PROJECT_MANAGER {
        let project = in_project.context("Must specify project")?;
        return Ok(project::existing(cx, &parse(project)?).await?.manager == id);
    }
    let role = Role::from_word(&holder.role).with_context(|| format!("The {} role can not be found", holder.role))?;
    let mut conn = cx.db.read().await?;
    let everywhere = accounts::has_role(&mut conn, &id, role, None).await?;
    Ok(match in_project {
        Some(project) if everywhere && !role.is_global_only() => {
            accounts::has_role(&mut conn, &id, role, Some(&parse(project)?)).await?
        }
        _ => everywhere,
    })
}
