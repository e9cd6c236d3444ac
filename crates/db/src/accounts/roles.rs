//! Roles: held everywhere, and held in one project.

use nova_types::account::Role;
use nova_types::{ProjectId, UserId};

use super::{AccountError, is_member, require_project, require_user};
use crate::{Conn, DbError};

/// Gives a user a role, everywhere or in one project, inside the caller's transaction. Succeeds if it is held already.
///
/// # Errors
/// [`AccountError::NoSuchUser`], [`AccountError::NoSuchProject`], [`AccountError::NotAMember`],
/// [`AccountError::GlobalOnly`].
pub async fn add_role(tx: &mut Conn, user: &UserId, role: Role, on: Option<&ProjectId>) -> Result<(), AccountError> {
    const GLOBAL: &str = "insert into user_role_association (user_id, role) values (?, ?) {upsert:user_id, role:role}";
    const PROJECT: &str = "
        insert into user_project_role_association (user_id, role, project_id) values (?, ?, ?)
        {upsert:user_id, project_id, role:role}";
    require_user(tx, user).await?;
    match on {
        None => tx.execute(GLOBAL, &[user.into(), role.as_str().into()]).await?,
        Some(_) if role.is_global_only() => return Err(AccountError::GlobalOnly(role)),
        Some(project) => {
            require_project(tx, project).await?;
            if !is_member(tx, user, project).await? {
                return Err(AccountError::NotAMember { user: user.clone(), project: project.clone() });
            }
            tx.execute(PROJECT, &[user.into(), role.as_str().into(), project.into()]).await?
        }
    };
    Ok(())
}

/// Takes a role away, inside the caller's transaction. Succeeds if it is not held.
///
/// # Errors
/// [`AccountError::NoSuchUser`], [`AccountError::NoSuchProject`], [`AccountError::GlobalOnly`].
pub async fn remove_role(tx: &mut Conn, user: &UserId, role: Role, on: Option<&ProjectId>) -> Result<(), AccountError> {
    const GLOBAL: &str = "delete from user_role_association where user_id = ? and role = ?";
    const PROJECT: &str = "delete from user_project_role_association where user_id = ? and role = ? and project_id = ?";
    require_user(tx, user).await?;
    match on {
        None => tx.execute(GLOBAL, &[user.into(), role.as_str().into()]).await?,
        Some(_) if role.is_global_only() => return Err(AccountError::GlobalOnly(role)),
        Some(project) => {
            require_project(tx, project).await?;
            tx.execute(PROJECT, &[user.into(), role.as_str().into(), project.into()]).await?
        }
    };
    Ok(())
}

/// Tells whether exactly that role is held, everywhere or in that project. What a user may do is another question,
/// which [`nova_types::account::Identity::has_role`] answers.
///
/// # Errors
/// Only where the database fails.
pub async fn has_role(conn: &mut Conn, user: &UserId, role: Role, on: Option<&ProjectId>) -> Result<bool, DbError> {
    Ok(roles(conn, user, on).await?.contains(&role))
}

/// Lists the roles that a user holds everywhere, or in one project. A word that is no role is passed over.
///
/// # Errors
/// Only where the database fails.
pub async fn roles(conn: &mut Conn, user: &UserId, on: Option<&ProjectId>) -> Result<Vec<Role>, DbError> {
    const GLOBAL: &str = "select role from user_role_association where user_id = ?";
    const PROJECT: &str = "select role from user_project_role_association where user_id = ? and project_id = ?";
    let rows = match on {
        None => conn.all(GLOBAL, &[user.into()]).await?,
        Some(project) => conn.all(PROJECT, &[user.into(), project.into()]).await?,
    };
    let mut held = Vec::new();
    for row in rows {
        held.extend(Role::from_word(&row.get::<String>("role")?));
    }
    held.sort_unstable();
    Ok(held)
}
