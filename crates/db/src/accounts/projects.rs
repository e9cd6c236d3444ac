//! Projects and their members.

use nova_types::account::Project;
use nova_types::{ProjectId, UserId};

use super::{AccountError, held, read_project, require_project, require_user};
use crate::{Conn, DbError, Value};

const FIND: &str = "select id, description, project_manager from projects where id = ? and deleted = false";
const ENTER: &str =
    "insert into user_project_association (user_id, project_id) values (?, ?) {upsert:user_id, project_id:user_id}";

/// What is to change about a project; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct ProjectChange {
    /// Another manager, who becomes a member.
    pub manager: Option<UserId>,
    /// Another description.
    pub description: Option<String>,
}

/// Stores a project with its members, the manager among them, inside the caller's transaction.
///
/// # Errors
/// [`AccountError::ProjectExists`]; [`AccountError::NoSuchUser`] for the manager or a member.
pub async fn create_project(tx: &mut Conn, new: &Project, members: &[UserId]) -> Result<(), AccountError> {
    const CREATE: &str = "insert into projects (id, name, description, project_manager) values (?, ?, ?, ?)";
    let (id, manager) = (&new.id, &new.manager);
    require_user(tx, manager).await?;
    for member in members {
        require_user(tx, member).await?;
    }
    match tx.execute(CREATE, &[id.into(), id.into(), (&new.description).into(), manager.into()]).await {
        Ok(_) => {}
        Err(DbError::Duplicate(_)) => return Err(AccountError::ProjectExists(id.clone())),
        Err(error) => return Err(error.into()),
    }
    for member in std::iter::once(manager).chain(members) {
        tx.execute(ENTER, &[member.into(), id.into()]).await?;
    }
    Ok(())
}

/// Finds a project.
///
/// # Errors
/// Only where the database fails.
pub async fn project(conn: &mut Conn, id: &ProjectId) -> Result<Option<Project>, DbError> {
    conn.optional(FIND, &[id.into()]).await?.as_ref().map(read_project).transpose()
}

/// Lists all projects by name, or those that a user is a member of.
///
/// # Errors
/// Only where the database fails.
pub async fn projects(conn: &mut Conn, of_user: Option<&UserId>) -> Result<Vec<Project>, DbError> {
    const ALL: &str = "select id, description, project_manager from projects where deleted = false order by id";
    const OF_USER: &str = "
        select p.id, p.description, p.project_manager
          from user_project_association m join projects p on p.id = m.project_id
         where m.user_id = ? and p.deleted = false order by p.id";
    let rows = match of_user {
        None => conn.all(ALL, &[]).await?,
        Some(user) => conn.all(OF_USER, &[user.into()]).await?,
    };
    rows.iter().map(read_project).collect()
}

/// Changes a project, inside the caller's transaction. A new manager becomes a member; the old one stays one.
///
/// # Errors
/// [`AccountError::NoSuchProject`], [`AccountError::NoSuchUser`].
pub async fn modify_project(tx: &mut Conn, id: &ProjectId, change: ProjectChange) -> Result<(), AccountError> {
    const MODIFY: &str = "
        update projects set project_manager = coalesce(?, project_manager), description = coalesce(?, description),
               updated_at = {now}
         where id = ? and deleted = false";
    require_project(tx, id).await?;
    if let Some(manager) = &change.manager {
        require_user(tx, manager).await?;
        tx.execute(ENTER, &[manager.into(), id.into()]).await?;
    }
    tx.execute(MODIFY, &[change.manager.as_ref().into(), change.description.into(), id.into()]).await?;
    Ok(())
}

/// Deletes a project with its memberships, roles, security groups, quotas and certificates, inside the caller's
/// transaction. A network that was its own is anybody's again; rules elsewhere that let its groups in go.
///
/// # Errors
/// [`AccountError::NoSuchProject`]; [`AccountError::ProjectHasResources`] says what is in the way.
pub async fn delete_project(tx: &mut Conn, id: &ProjectId) -> Result<(), AccountError> {
    const WHAT: [&str; 4] = ["instances", "volumes", "floating_ips", "images"];
    const HELD: &str = "
        select (select count(*) from instances where project_id = ? and deleted = false
                   and vm_state not in ('terminated', 'error')) as instances,
               (select count(*) from volumes where project_id = ? and deleted = false) as volumes,
               (select count(*) from floating_ips where project_id = ? and deleted = false) as floating_ips,
               (select count(*) from images where owner_id = ? and deleted = false) as images";
    const GONE: [&str; 12] = [
        "update security_groups set version = version + 1, updated_at = {now} where id in (
           select parent_group_id from security_group_rules where deleted = false and group_id in (
             select g.id from (select id, project_id from security_groups) g where g.project_id = ?))",
        "update security_group_rules set deleted = true, deleted_at = {now}
          where deleted = false and group_id in (select id from security_groups where project_id = ?)",
        "update security_group_rules set deleted = true, deleted_at = {now}
          where deleted = false and parent_group_id in (select id from security_groups where project_id = ?)",
        "update security_group_instance_association set deleted = true, deleted_at = {now}
          where deleted = false and security_group_id in (select id from security_groups where project_id = ?)",
        "update security_groups set deleted = true, deleted_at = {now} where project_id = ? and deleted = false",
        "update certificates set deleted = true, deleted_at = {now} where project_id = ? and deleted = false",
        "update networks set project_id = null, updated_at = {now} where project_id = ? and deleted = false",
        "delete from client_tokens where project_id = ?",
        "delete from quotas where project_id = ?",
        "delete from quota_usages where project_id = ?",
        "delete from user_project_role_association where project_id = ?",
        "delete from user_project_association where project_id = ?",
    ];
    const LAST: &str = "delete from projects where id = ?";
    require_project(tx, id).await?;
    // A launch reserves its quota first: whoever comes second waits here, and sees what the other did.
    super::lock_project(tx, id).await?;
    let args: [Value; 4] = std::array::from_fn(|_| id.into());
    let what = held(&tx.one(HELD, &args).await?, &WHAT)?;
    if !what.is_empty() {
        return Err(AccountError::ProjectHasResources { project: id.clone(), what });
    }
    for statement in GONE {
        tx.execute(statement, &[id.into()]).await?;
    }
    tx.execute(LAST, &[id.into()]).await?;
    Ok(())
}

/// Makes a user a member of a project, inside the caller's transaction. Succeeds if that is so already.
///
/// # Errors
/// [`AccountError::NoSuchUser`], [`AccountError::NoSuchProject`].
pub async fn add_member(tx: &mut Conn, user: &UserId, project: &ProjectId) -> Result<(), AccountError> {
    require_user(tx, user).await?;
    require_project(tx, project).await?;
    tx.execute(ENTER, &[user.into(), project.into()]).await?;
    Ok(())
}

/// Ends a membership and the roles that went with it, inside the caller's transaction.
///
/// # Errors
/// [`AccountError::NoSuchProject`], [`AccountError::NotAMember`], [`AccountError::IsManager`].
pub async fn remove_member(tx: &mut Conn, user: &UserId, project: &ProjectId) -> Result<(), AccountError> {
    const ROLES: &str = "delete from user_project_role_association where user_id = ? and project_id = ?";
    const LEAVE: &str = "delete from user_project_association where user_id = ? and project_id = ?";
    if require_project(tx, project).await?.manager == *user {
        return Err(AccountError::IsManager { user: user.clone(), project: project.clone() });
    }
    tx.execute(ROLES, &[user.into(), project.into()]).await?;
    match tx.execute(LEAVE, &[user.into(), project.into()]).await? {
        0 => Err(AccountError::NotAMember { user: user.clone(), project: project.clone() }),
        _ => Ok(()),
    }
}

/// Lists the members of a project by name.
///
/// # Errors
/// Only where the database fails.
pub async fn members(conn: &mut Conn, project: &ProjectId) -> Result<Vec<UserId>, DbError> {
    const LIST: &str = "select user_id from user_project_association where project_id = ? order by user_id";
    conn.all(LIST, &[project.into()]).await?.iter().map(|row| row.parse("user_id")).collect()
}

/// Tells whether a user is a member of a project.
///
/// # Errors
/// Only where the database fails.
pub async fn is_member(conn: &mut Conn, user: &UserId, project: &ProjectId) -> Result<bool, DbError> {
    const IS: &str = "select user_id from user_project_association where user_id = ? and project_id = ?";
    Ok(conn.optional(IS, &[user.into(), project.into()]).await?.is_some())
}
