//! `nova-manage user …`

use anyhow::bail;
use clap::Subcommand;
use nova_db::accounts::{self, AccountError, UserChange};
use nova_db::transaction;
use nova_identity::{AccessKey, Secret, generate_secret_key, parse_secret_key};
use nova_types::UserId;
use nova_types::account::User;

use crate::context::{Context, given, parse};
use crate::credentials;
use crate::output::{List, Output, shown, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create an administrator and print its keys
    Admin(New),
    /// Create a user and print its keys
    Create(New),
    /// Delete a user with its key pairs, memberships and roles
    Delete {
        /// The user
        name: String,
    },
    /// Print a user's keys as lines to source
    Exports {
        /// The user
        name: String,
    },
    /// List all users
    List(Output),
    /// Revoke a user's certificates, in one project or in all, and write the authority's list anew
    Revoke {
        /// The user
        user_id: String,
        /// The project
        project_id: Option<String>,
    },
    /// Change a user; an empty text leaves that part as it is
    Modify {
        /// The user
        name: String,
        /// New access key, or ''
        access: String,
        /// New secret key, or ''
        secret: String,
        /// T makes an administrator, F an ordinary user, '' changes nothing
        admin: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The user's name
    name: String,
    /// Access key; made if not given
    access: Option<String>,
    /// Secret key; made if not given
    secret: Option<String>,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Admin(new) => create(cx, &new, true).await,
            Self::Create(new) => create(cx, &new, false).await,
            Self::Delete { name } => delete(cx, &name).await,
            Self::Exports { name } => exports(cx, &name).await,
            Self::List(output) => list(cx, output).await,
            Self::Revoke { user_id, project_id } => {
                let project = given(project_id.as_ref()).map(parse).transpose()?;
                credentials::revoke(cx, &parse(&user_id)?, project.as_ref()).await
            }
            Self::Modify { name, access, secret, admin } => modify(cx, &name, [&access, &secret, &admin]).await,
        }
    }
}

/// Reads a user, or says that there is none.
pub(crate) async fn existing(cx: &Context<'_, '_>, id: &UserId) -> anyhow::Result<User> {
    match accounts::user(&mut cx.db.read().await?, id).await? {
        Some(user) => Ok(user),
        None => bail!("no user {id}; nova-manage user list shows all"),
    }
}

async fn create(cx: &mut Context<'_, '_>, new: &New, is_admin: bool) -> anyhow::Result<()> {
    let id: UserId = parse(&new.name)?;
    let access = match given(new.access.as_ref()) {
        Some(text) => text.parse()?,
        None => AccessKey::generate()?,
    };
    let secret = match given(new.secret.as_ref()) {
        Some(text) => parse_secret_key(text)?,
        None => generate_secret_key()?,
    };
    let sealed_secret = cx.secrets()?.seal(id.as_str(), &secret)?;
    let user = User { id, access_key: access.to_string(), sealed_secret, is_admin };
    accounts::create_user(&mut cx.db.write().await?, &user).await?;
    say_exports(cx, access.as_str(), &secret)
}

async fn delete(cx: &mut Context<'_, '_>, name: &str) -> anyhow::Result<()> {
    let id: UserId = parse(name)?;
    transaction!(cx.db, |tx| -> AccountError { accounts::delete_user(tx, &id).await })?;
    Ok(())
}

async fn exports(cx: &mut Context<'_, '_>, name: &str) -> anyhow::Result<()> {
    let user = existing(cx, &parse(name)?).await?;
    let secret = cx.secrets()?.open(user.id.as_str(), &user.sealed_secret)?;
    say_exports(cx, &user.access_key, &secret)
}

fn say_exports(cx: &mut Context<'_, '_>, access: &str, secret: &Secret) -> anyhow::Result<()> {
    cx.say(format_args!("export EC2_ACCESS_KEY={access}"))?;
    cx.say(format_args!("export EC2_SECRET_KEY={}", secret.expose()))?;
    Ok(())
}

async fn list(cx: &mut Context<'_, '_>, output: Output) -> anyhow::Result<()> {
    let users = accounts::users(&mut cx.db.read().await?).await?;
    let row = |u: User| [shown(Some(u.id)), shown(Some(u.access_key)), u.is_admin.into()];
    let list = List { columns: ["name", "access_key", "is_admin"], rows: users.into_iter().map(row).collect() };
    Ok(output.write(cx, list, None, |[name, ..]| text(name))?)
}

async fn modify(cx: &mut Context<'_, '_>, name: &str, [access, secret, admin]: [&str; 3]) -> anyhow::Result<()> {
    let id: UserId = parse(name)?;
    let asked = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
    let access_key = asked(access).map(|a| a.parse::<AccessKey>()).transpose()?.map(|a| a.to_string());
    let sealed_secret = match asked(secret) {
        Some(text) => Some(cx.secrets()?.seal(id.as_str(), &parse_secret_key(&text)?)?),
        None => None,
    };
    let is_admin = asked(admin).map(|a| a.to_uppercase().starts_with('T'));
    let change = UserChange { access_key, sealed_secret, is_admin };
    accounts::modify_user(&mut cx.db.write().await?, &id, change).await?;
    Ok(())
}
