//! Deleting a group that nobody uses.

use nova_types::{GroupName, ProjectId, SecurityGroupId};

use super::{GroupError, GroupRef};
use crate::{Conn, DbError, accounts};

/// Deletes a group with its rules, inside the caller's transaction.
///
/// # Errors
/// [`GroupError::NotFound`]; [`GroupError::DefaultGroup`]; [`GroupError::InUse`] while a live instance is in it, or a
/// rule of another group lets it in.
pub async fn delete(tx: &mut Conn, project: &ProjectId, id: SecurityGroupId) -> Result<(), GroupError> {
    const LOCK: &str =
        "select name from security_groups where id = ? and project_id = ? and deleted = false {for_update}";
    const INSTANCES: &str = "
        select count(*) as instances
          from security_group_instance_association a join instances i on i.id = a.instance_id
         where a.security_group_id = ? and a.deleted = false and i.deleted = false
           and i.vm_state not in ('terminated', 'error')";
    const GONE: [&str; 3] = [
        "update security_group_rules set deleted = true, deleted_at = {now}
          where parent_group_id = ? and deleted = false",
        "update security_group_instance_association set deleted = true, deleted_at = {now}
          where security_group_id = ? and deleted = false",
        "update security_groups set deleted = true, deleted_at = {now} where id = ? and deleted = false",
    ];
    // A launch reserves its quota before it looks its groups up: whoever comes second sees what the other did.
    accounts::lock_project(tx, project).await?;
    let Some(row) = tx.optional(LOCK, &[id.into(), project.into()]).await? else {
        return Err(GroupError::NotFound(GroupRef::Id(id)));
    };
    if row.parse::<GroupName>("name")? == GroupName::default_group() {
        return Err(GroupError::DefaultGroup);
    }
    let instances: i64 = tx.one(INSTANCES, &[id.into()]).await?.get("instances")?;
    let referenced_by = referring(tx, id).await?;
    if instances > 0 || !referenced_by.is_empty() {
        return Err(GroupError::InUse { group: id, instances, referenced_by });
    }
    for statement in GONE {
        tx.execute(statement, &[id.into()]).await?;
    }
    Ok(())
}

/// The other groups with a rule that lets this one in.
async fn referring(tx: &mut Conn, id: SecurityGroupId) -> Result<Vec<(ProjectId, GroupName)>, DbError> {
    const REFERRING: &str = "
        select g.project_id, g.name
          from security_groups g
         where g.deleted = false and g.id <> ? and g.id in (
               select parent_group_id from security_group_rules where group_id = ? and deleted = false)
         order by g.project_id, g.name";
    let rows = tx.all(REFERRING, &[id.into(), id.into()]).await?;
    rows.iter().map(|row| Ok((row.parse("project_id")?, row.parse("name")?))).collect()
}
