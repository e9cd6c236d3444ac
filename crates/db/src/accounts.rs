//! Users, projects, who is in which, and the roles they hold. Rows go for good when deleted, as in Bexar.

mod identify;
mod projects;
mod roles;
mod users;

use nova_types::account::{Project, Role, User};
use nova_types::{ProjectId, UserId};

use crate::{Conn, DbError, Row};

pub use identify::identify;
pub use projects::{
    ProjectChange, add_member, create_project, delete_project, is_member, members, modify_project, project, projects,
    remove_member,
};
pub use roles::{add_role, has_role, remove_role, roles};
pub use users::{UserChange, create_user, delete_user, modify_user, user, user_by_access_key, users};

/// Why a change of accounts is refused.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The database failed, or lost the transaction.
    #[error(transparent)]
    Db(#[from] DbError),
    /// There is a user of that name.
    #[error("user {0} exists already")]
    UserExists(UserId),
    /// Another user has that access key.
    #[error("that access key belongs to another user")]
    AccessKeyTaken,
    /// There is a project of that name.
    #[error("project {0} exists already")]
    ProjectExists(ProjectId),
    /// There is no such user.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// There is no such project.
    #[error("there is no project {0}")]
    NoSuchProject(ProjectId),
    /// The user is a project's manager, and a project cannot be without.
    #[error("user {user} manages {}", listed(projects))]
    ManagesProjects {
        /// Who was to be deleted.
        user: UserId,
        /// What he or she manages.
        projects: Vec<ProjectId>,
    },
    /// Something that costs capacity is still the user's.
    #[error("user {user} still has {}", listed(what))]
    UserHasResources {
        /// Who was to be deleted.
        user: UserId,
        /// What is left.
        what: Vec<Held>,
    },
    /// Something is still the project's.
    #[error("project {project} still has {}", listed(what))]
    ProjectHasResources {
        /// What was to be deleted.
        project: ProjectId,
        /// What is left.
        what: Vec<Held>,
    },
    /// The role cannot be held in a single project.
    #[error("the role {} is global only", .0.as_str())]
    GlobalOnly(Role),
    /// Roles in a project are for its members.
    #[error("user {user} is not a member of project {project}")]
    NotAMember {
        /// Who was meant.
        user: UserId,
        /// Where.
        project: ProjectId,
    },
    /// The manager stays a member.
    #[error("user {user} manages project {project}")]
    IsManager {
        /// Who was to be removed.
        user: UserId,
        /// From where.
        project: ProjectId,
    },
}

/// How many of something an account still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// In the plural: `instances`.
    pub what: &'static str,
    /// How many.
    pub count: i64,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.count, self.what)
    }
}

fn listed<T: ToString>(what: &[T]) -> String {
    what.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads one row of counts, a column for each name; what is zero is left out.
fn held(row: &Row, columns: &[&'static str]) -> Result<Vec<Held>, DbError> {
    let mut all = Vec::new();
    for what in columns {
        let count: i64 = row.get(what)?;
        if count > 0 {
            all.push(Held { what, count });
        }
    }
    Ok(all)
}

fn read_user(row: &Row) -> Result<User, DbError> {
    Ok(User {
        id: row.parse("id")?,
        access_key: row.get("access_key")?,
        sealed_secret: row.get("secret_key")?,
        is_admin: row.get("is_admin")?,
    })
}

fn read_project(row: &Row) -> Result<Project, DbError> {
    Ok(Project {
        id: row.parse("id")?,
        description: row.get::<Option<String>>("description")?.unwrap_or_default(),
        manager: row.parse("project_manager")?,
    })
}

async fn require_user(conn: &mut Conn, id: &UserId) -> Result<(), AccountError> {
    const FIND: &str = "select id from users where id = ? and deleted = false";
    match conn.optional(FIND, &[id.into()]).await? {
        Some(_) => Ok(()),
        None => Err(AccountError::NoSuchUser(id.clone())),
    }
}

async fn require_project(conn: &mut Conn, id: &ProjectId) -> Result<Project, AccountError> {
    project(conn, id).await?.ok_or_else(|| AccountError::NoSuchProject(id.clone()))
}

/// Holds up launches and other changes of the same project until the transaction ends: all of them touch this row.
pub(crate) async fn lock_project(tx: &mut Conn, id: &ProjectId) -> Result<(), DbError> {
    const LOCK: &str = "insert into quota_usages (project_id) values (?) {upsert:project_id:project_id}";
    tx.execute(LOCK, &[id.into()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
