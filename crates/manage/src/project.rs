//! `nova-manage project …`, which old scripts also call `account`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use nova_db::accounts::{self, AccountError, ProjectChange};
use nova_db::floating_ips::{self, FloatingError, FloatingIp};
use nova_db::security_groups::{self, GroupError};
use nova_db::{networks, transaction};
use nova_types::account::Project;
use nova_types::{GroupName, ProjectId};

use crate::context::{Context, given, parse};
use crate::output::{List, Output, shown, text};
use crate::{credentials, quota};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create a project; its manager becomes a member
    Create {
        /// The project's name
        name: String,
        /// The user who manages it
        manager: String,
        /// What it is for [default: its name]
        description: Option<String>,
    },
    /// Add a member
    Add(Member),
    /// Remove a member with its roles in the project
    Remove(Member),
    /// Change manager or description; an empty text leaves that part as it is
    Modify {
        /// The project
        name: String,
        /// New manager, or ''
        manager: String,
        /// New description
        description: Option<String>,
    },
    /// Delete a project that has no instances, volumes or public addresses
    Delete {
        /// The project
        name: String,
    },
    /// List all projects
    List(Output),
    /// Write the file that a user sources, without its certificates
    Environment {
        #[command(flatten)]
        member: Member,
        /// The file to write
        #[arg(default_value = "novarc")]
        filename: PathBuf,
    },
    /// Write a zip with a user's keys, certificates and environment
    Zipfile {
        #[command(flatten)]
        member: Member,
        /// The file to write
        #[arg(default_value = "nova.zip")]
        filename: PathBuf,
    },
    /// Print a project's quotas, after setting one if a key and a value are given
    Quota {
        /// The project
        project_id: String,
        /// instances, cores, volumes, gigabytes or floating_ips
        key: Option<String>,
        /// The new limit; default for the one of the flags
        #[arg(allow_negative_numbers = true)]
        value: Option<String>,
    },
    /// Take a project's network, security groups and public addresses from it
    Scrub {
        /// The project
        project_id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Member {
    /// The project
    pub(crate) project_id: String,
    /// The user
    pub(crate) user_id: String,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Create { name, manager, description } => create(cx, &name, &manager, description.as_ref()).await,
            Self::Add(member) => {
                let (user, project) = (parse(&member.user_id)?, parse(&member.project_id)?);
                transaction!(cx.db, |tx| -> AccountError { accounts::add_member(tx, &user, &project).await })?;
                Ok(())
            }
            Self::Remove(member) => {
                let (user, project) = (parse(&member.user_id)?, parse(&member.project_id)?);
                transaction!(cx.db, |tx| -> AccountError { accounts::remove_member(tx, &user, &project).await })?;
                Ok(())
            }
            Self::Modify { name, manager, description } => modify(cx, &name, &manager, description.as_ref()).await,
            Self::Delete { name } => {
                let id: ProjectId = parse(&name)?;
                transaction!(cx.db, |tx| -> AccountError { accounts::delete_project(tx, &id).await })?;
                Ok(())
            }
            Self::List(output) => list(cx, output).await,
            Self::Environment { member, filename } => credentials::environment(cx, &member, &filename).await,
            Self::Zipfile { member, filename } => credentials::zipfile(cx, &member, &filename).await,
            Self::Quota { project_id, key, value } => {
                let project = existing(cx, &parse(&project_id)?).await?.id;
                quota::run(cx, &project, given(key.as_ref()), given(value.as_ref())).await
            }
            Self::Scrub { project_id } => scrub(cx, &project_id).await,
        }
    }
}

/// Reads a project, or says that there is none.
pub(crate) async fn existing(cx: &Context<'_, '_>, id: &ProjectId) -> anyhow::Result<Project> {
    match accounts::project(&mut cx.db.read().await?, id).await? {
        Some(project) => Ok(project),
        None => bail!("no project {id}; nova-manage project list shows all"),
    }
}

async fn create(
    cx: &mut Context<'_, '_>,
    name: &str,
    manager: &str,
    description: Option<&String>,
) -> anyhow::Result<()> {
    let description = given(description).unwrap_or(name).to_owned();
    let project = Project { id: parse(name)?, description, manager: parse(manager)? };
    transaction!(cx.db, |tx| -> AccountError { accounts::create_project(tx, &project, &[]).await })?;
    Ok(())
}

async fn modify(
    cx: &mut Context<'_, '_>,
    name: &str,
    manager: &str,
    description: Option<&String>,
) -> anyhow::Result<()> {
    let id: ProjectId = parse(name)?;
    let manager = if manager.is_empty() { None } else { Some(parse(manager)?) };
    let change = ProjectChange { manager, description: given(description).map(str::to_owned) };
    transaction!(cx.db, |tx| -> AccountError { accounts::modify_project(tx, &id, change.clone()).await })?;
    Ok(())
}

async fn list(cx: &mut Context<'_, '_>, output: Output) -> anyhow::Result<()> {
    let projects = accounts::projects(&mut cx.db.read().await?, None).await?;
    let row = |p: Project| [shown(Some(p.id)), shown(Some(p.manager)), shown(Some(p.description))];
    let list = List { columns: ["name", "manager", "description"], rows: projects.into_iter().map(row).collect() };
    Ok(output.write(cx, list, None, |[name, ..]| text(name))?)
}

/// Takes the network, the groups and the floating addresses back. The group `default` stays: every project has one.
async fn scrub(cx: &mut Context<'_, '_>, project_id: &str) -> anyhow::Result<()> {
    let project = existing(cx, &parse(project_id)?).await?.id;
    let default = GroupName::default_group();
    let public = floating_ips::allocated(&mut cx.db.read().await?, Some(&project)).await?;
    let bound = |one: &FloatingIp| Some((one.address, one.bound.as_ref()?.instance?));
    if let Some((address, instance)) = public.iter().find_map(bound) {
        bail!("{instance} has the address {address}; terminate it, or disassociate the address, first");
    }
    let (freed, deleted) = transaction!(cx.db, |tx| -> GroupError {
        let freed = networks::disassociate(tx, &project).await?;
        let groups = security_groups::list(tx, Some(&project)).await?;
        let mut deleted = 0;
        for group in groups.iter().filter(|g| g.name != default) {
            security_groups::delete(tx, &project, group.id).await?;
            deleted += 1;
        }
        Ok((freed, deleted))
    })?;
    // Each by itself: it may be somebody else's meanwhile, who released it.
    let mut released = 0;
    for one in &public {
        let done =
            transaction!(cx.db, |tx| -> FloatingError { floating_ips::release(tx, Some(&project), one.address).await });
        match done {
            Ok(_) => released += 1,
            Err(FloatingError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    cx.note(format_args!(
        "Took {freed} networks, {deleted} security groups and {released} public addresses from {project}."
    ));
    Ok(())
}
