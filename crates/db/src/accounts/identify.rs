//! Who a request comes from, in one query.

use nova_types::account::{Identity, Project, Role};

use super::read_user;
use crate::{Conn, DbError, Row, Value};

// At most five global roles times three of the project: fifteen rows.
const IDENTIFY: &str = "
    select u.id, u.access_key, u.secret_key, u.is_admin, p.id as project, p.description, p.project_manager,
           m.user_id as member, g.role as global_role, r.role as project_role
      from users u
      left join projects p on p.id = coalesce(?, u.id) and p.deleted = false
      left join user_project_association m on m.user_id = u.id and m.project_id = p.id
      left join user_role_association g on g.user_id = u.id
      left join user_project_role_association r on r.user_id = u.id and r.project_id = p.id
     where u.access_key = ? and u.deleted = false";

/// Finds the user with `access_key`, the project asked for, and what the one may do in the other.
///
/// Without a project, or with an empty name, the one named like the user is meant. `None` means that nobody has that
/// key; a project that does not exist leaves [`Identity::project`] empty, and the caller must say the same for both.
///
/// # Errors
/// Only where the database fails.
pub async fn identify(conn: &mut Conn, access_key: &str, project: Option<&str>) -> Result<Option<Identity>, DbError> {
    let project = Value::from(project.filter(|name| !name.is_empty()));
    let rows = conn.all(IDENTIFY, &[project, access_key.into()]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    Ok(Some(Identity {
        user: read_user(first)?,
        project: match first.parse_some("project")? {
            None => None,
            Some(id) => Some(Project {
                id,
                description: first.get::<Option<String>>("description")?.unwrap_or_default(),
                manager: first.parse("project_manager")?,
            }),
        },
        is_member: first.get::<Option<String>>("member")?.is_some(),
        global_roles: collect(&rows, "global_role")?,
        project_roles: collect(&rows, "project_role")?,
    }))
}

/// The roles of a column, each once. A word that is no role grants nothing.
fn collect(rows: &[Row], column: &str) -> Result<Vec<Role>, DbError> {
    let mut roles = Vec::new();
    for row in rows {
        let word: Option<String> = row.get(column)?;
        roles.extend(word.as_deref().and_then(Role::from_word));
    }
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}
