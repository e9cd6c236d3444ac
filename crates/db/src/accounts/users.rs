//! Users.

use nova_types::UserId;
use nova_types::account::User;

use super::{AccountError, held, read_user};
use crate::{Conn, DbError, Unique};

/// What is to change about a user; `None` leaves it.
#[derive(Clone, Default)]
pub struct UserChange {
    /// A new access key.
    pub access_key: Option<String>,
    /// A new secret, sealed.
    pub sealed_secret: Option<String>,
    /// Whether the user may do everything.
    pub is_admin: Option<bool>,
}

impl std::fmt::Debug for UserChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserChange").field("is_admin", &self.is_admin).finish_non_exhaustive()
    }
}

/// Stores a user.
///
/// # Errors
/// [`AccountError::UserExists`], [`AccountError::AccessKeyTaken`].
pub async fn create_user(conn: &mut Conn, user: &User) -> Result<(), AccountError> {
    const CREATE: &str = "insert into users (id, name, access_key, secret_key, is_admin) values (?, ?, ?, ?, ?)";
    let id = &user.id;
    // Where both the name and the key are taken, engines differ in which they complain about.
    if self::user(conn, id).await?.is_some() {
        return Err(AccountError::UserExists(id.clone()));
    }
    let args = [id.into(), id.into(), (&user.access_key).into(), (&user.sealed_secret).into(), user.is_admin.into()];
    match conn.execute(CREATE, &args).await {
        Ok(_) => Ok(()),
        Err(DbError::Duplicate(Unique::AccessKey)) => Err(AccountError::AccessKeyTaken),
        Err(DbError::Duplicate(_)) => Err(AccountError::UserExists(id.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Finds a user by name.
///
/// # Errors
/// Only where the database fails.
pub async fn user(conn: &mut Conn, id: &UserId) -> Result<Option<User>, DbError> {
    const FIND: &str = "select id, access_key, secret_key, is_admin from users where id = ? and deleted = false";
    conn.optional(FIND, &[id.into()]).await?.as_ref().map(read_user).transpose()
}

/// Finds a user by access key.
///
/// # Errors
/// Only where the database fails.
pub async fn user_by_access_key(conn: &mut Conn, access_key: &str) -> Result<Option<User>, DbError> {
    const FIND: &str =
        "select id, access_key, secret_key, is_admin from users where access_key = ? and deleted = false";
    conn.optional(FIND, &[access_key.into()]).await?.as_ref().map(read_user).transpose()
}

/// Lists all users by name.
///
/// # Errors
/// Only where the database fails.
pub async fn users(conn: &mut Conn) -> Result<Vec<User>, DbError> {
    const LIST: &str = "select id, access_key, secret_key, is_admin from users where deleted = false order by id";
    conn.all(LIST, &[]).await?.iter().map(read_user).collect()
}

/// Changes a user.
///
/// # Errors
/// [`AccountError::NoSuchUser`], [`AccountError::AccessKeyTaken`].
pub async fn modify_user(conn: &mut Conn, id: &UserId, change: UserChange) -> Result<(), AccountError> {
    const MODIFY: &str = "
        update users set access_key = coalesce(?, access_key), secret_key = coalesce(?, secret_key),
               is_admin = coalesce(?, is_admin), updated_at = {now}
         where id = ? and deleted = false";
    let args = [change.access_key.into(), change.sealed_secret.into(), change.is_admin.into(), id.into()];
    match conn.execute(MODIFY, &args).await {
        Ok(0) => Err(AccountError::NoSuchUser(id.clone())),
        Ok(_) => Ok(()),
        Err(DbError::Duplicate(_)) => Err(AccountError::AccessKeyTaken),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a user with roles, memberships, key pairs and certificates, inside the caller's transaction.
///
/// # Errors
/// [`AccountError::NoSuchUser`]; [`AccountError::ManagesProjects`] and [`AccountError::UserHasResources`] say what is
/// in the way.
pub async fn delete_user(tx: &mut Conn, id: &UserId) -> Result<(), AccountError> {
    const LOCK: &str = "select id from users where id = ? and deleted = false {for_update}";
    const MANAGED: &str = "select id from projects where project_manager = ? and deleted = false order by id";
    const HELD: &str = "
        select (select count(*) from instances where user_id = ? and deleted = false
                   and vm_state not in ('terminated', 'error')) as instances,
               (select count(*) from volumes where user_id = ? and deleted = false) as volumes";
    const GONE: [&str; 6] = [
        "delete from user_project_role_association where user_id = ?",
        "delete from user_role_association where user_id = ?",
        "delete from user_project_association where user_id = ?",
        "update key_pairs set deleted = true, deleted_at = {now} where user_id = ? and deleted = false",
        "update certificates set deleted = true, deleted_at = {now} where user_id = ? and deleted = false",
        "delete from users where id = ?",
    ];
    let Some(_) = tx.optional(LOCK, &[id.into()]).await? else { return Err(AccountError::NoSuchUser(id.clone())) };
    let managed = tx.all(MANAGED, &[id.into()]).await?;
    let projects = managed.iter().map(|row| row.parse("id")).collect::<Result<Vec<_>, _>>()?;
    if !projects.is_empty() {
        return Err(AccountError::ManagesProjects { user: id.clone(), projects });
    }
    let what = held(&tx.one(HELD, &[id.into(), id.into()]).await?, &["instances", "volumes"])?;
    if !what.is_empty() {
        return Err(AccountError::UserHasResources { user: id.clone(), what });
    }
    for statement in GONE {
        tx.execute(statement, &[id.into()]).await?;
    }
    Ok(())
}
