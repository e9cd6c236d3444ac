//! Security groups: their rules, who is in them, and what the firewall of a host makes of it.

mod delete;
mod firewall;
mod rules;

use nova_types::rule::Rule;
use nova_types::security_group::{GrantedRule, SecurityGroup};
use nova_types::{GroupName, ProjectId, SecurityGroupId, UserId};

use crate::{Conn, DbError, Row, Unique, accounts};

pub use delete::delete;
pub use firewall::{FirewallStamp, changed, for_host, hosts_of, hosts_referring_to, touch_members_of};
pub use rules::{add_rules, remove_rules};

/// Why a change of security groups is refused.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The database failed, or lost the transaction.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The project has a group of that name.
    #[error("security group {0} exists already")]
    Exists(GroupName),
    /// The project has no such group.
    #[error("there is no security group {0}")]
    NotFound(GroupRef),
    /// The group `default` stays.
    #[error("the security group default cannot be deleted")]
    DefaultGroup,
    /// Instances are in the group, or rules of other groups name it.
    #[error("security group {group} is in use by {instances} instances and {} groups", referenced_by.len())]
    InUse {
        /// The group.
        group: SecurityGroupId,
        /// How many live instances are in it.
        instances: i64,
        /// Which other groups let it in.
        referenced_by: Vec<(ProjectId, GroupName)>,
    },
    /// The group has these rules already, or one is asked for twice.
    #[error("{} of the rules exist already", .0.len())]
    DuplicateRules(Vec<Rule>),
    /// The group does not have these rules.
    #[error("{} of the rules do not exist", .0.len())]
    MissingRules(Vec<Rule>),
    /// The group would have too many rules.
    #[error("a security group may have {limit} rules")]
    RuleLimit {
        /// How many it may have.
        limit: u32,
    },
    /// The project has as many groups as it may have.
    #[error("a project may have {limit} security groups")]
    GroupLimit {
        /// How many it may have.
        limit: u32,
    },
    /// A rule names a source group that does not exist.
    #[error("there is no security group {0}")]
    NoSuchSource(SecurityGroupId),
}

/// How a user names a group of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRef {
    /// By its id.
    Id(SecurityGroupId),
    /// By its name.
    Name(GroupName),
}

impl std::fmt::Display for GroupRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A group that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewGroup<'a> {
    /// Whose it is to be.
    pub project: &'a ProjectId,
    /// Who makes it.
    pub user: &'a UserId,
    /// Its name.
    pub name: &'a GroupName,
    /// What it is for.
    pub description: &'a str,
}

/// Finds the group `default` of a project, and makes it first where there is none. It has no rules.
///
/// # Errors
/// Only where the database fails.
pub async fn ensure_default(
    conn: &mut Conn,
    project: &ProjectId,
    user: &UserId,
) -> Result<SecurityGroupId, GroupError> {
    // Two that come at once both insert, and the second finds the first one's row.
    const ENSURE: &str = "
        insert into security_groups (name, description, user_id, project_id) values ('default', 'default', ?, ?)
        {upsert:project_id, name, live:description}";
    let name = GroupRef::Name(GroupName::default_group());
    if let Some(id) = find_any(conn, project, &name).await? {
        return Ok(id);
    }
    conn.execute(ENSURE, &[user.into(), project.into()]).await?;
    find_any(conn, project, &name).await?.ok_or(GroupError::NotFound(name))
}

/// Makes a group without rules, unless the project has `limit` groups already; inside the caller's transaction.
///
/// # Errors
/// [`GroupError::Exists`], [`GroupError::GroupLimit`].
pub async fn create(tx: &mut Conn, new: &NewGroup<'_>, limit: u32) -> Result<SecurityGroupId, GroupError> {
    const COUNT: &str = "select count(*) as held from security_groups where project_id = ? and deleted = false";
    const CREATE: &str = "insert into security_groups (name, description, user_id, project_id) values (?, ?, ?, ?)";
    accounts::lock_project(tx, new.project).await?;
    if tx.one(COUNT, &[new.project.into()]).await?.get::<i64>("held")? >= i64::from(limit) {
        return Err(GroupError::GroupLimit { limit });
    }
    let args = [new.name.into(), new.description.into(), new.user.into(), new.project.into()];
    match tx.insert(CREATE, &args).await {
        Ok(key) => Ok(SecurityGroupId::from_row(key)),
        Err(DbError::Duplicate(Unique::SecurityGroup)) => Err(GroupError::Exists(new.name.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Lists the groups of a project, or all, by id, with their rules and the names of source groups: two queries.
///
/// # Errors
/// Only where the database fails.
pub async fn list(conn: &mut Conn, project: Option<&ProjectId>) -> Result<Vec<SecurityGroup>, DbError> {
    const ALL: &str = "
        select id, name, description, user_id, project_id from security_groups where deleted = false order by id";
    const OF_PROJECT: &str = "
        select id, name, description, user_id, project_id from security_groups
         where project_id = ? and deleted = false order by id";
    const RULES: &str = "
        select r.*, s.project_id as source_project, s.name as source_name
          from security_group_rules r
          join security_groups g on g.id = r.parent_group_id
          left join security_groups s on s.id = r.group_id
         where r.deleted = false and g.deleted = false order by r.id";
    const RULES_OF_PROJECT: &str = "
        select r.*, s.project_id as source_project, s.name as source_name
          from security_groups g
          join security_group_rules r on r.parent_group_id = g.id
          left join security_groups s on s.id = r.group_id
         where r.deleted = false and g.deleted = false and g.project_id = ? order by r.id";
    let (groups, rules) = match project {
        None => (conn.all(ALL, &[]).await?, conn.all(RULES, &[]).await?),
        Some(id) => (conn.all(OF_PROJECT, &[id.into()]).await?, conn.all(RULES_OF_PROJECT, &[id.into()]).await?),
    };
    assemble(&groups, &rules)
}

/// Finds a group of a project, with its rules.
///
/// # Errors
/// Only where the database fails.
pub async fn get(conn: &mut Conn, project: &ProjectId, group: &GroupRef) -> Result<Option<SecurityGroup>, DbError> {
    const GROUP: &str = "
        select id, name, description, user_id, project_id from security_groups where id = ? and deleted = false";
    const RULES: &str = "
        select r.*, s.project_id as source_project, s.name as source_name
          from security_group_rules r left join security_groups s on s.id = r.group_id
         where r.parent_group_id = ? and r.deleted = false order by r.id";
    let Some(id) = find_any(conn, project, group).await? else { return Ok(None) };
    let groups = conn.all(GROUP, &[id.into()]).await?;
    let rules = conn.all(RULES, &[id.into()]).await?;
    Ok(assemble(&groups, &rules)?.pop())
}

/// Finds the ids and names of groups of one project, in the order asked for; one query.
///
/// In a launch, call it after the quota was reserved in the same transaction: a deletion of a group then either is seen
/// here or sees the new instances.
///
/// # Errors
/// [`GroupError::NotFound`] names the first that there is not.
pub async fn resolve(
    conn: &mut Conn,
    project: &ProjectId,
    groups: &[GroupRef],
) -> Result<Vec<(SecurityGroupId, GroupName)>, GroupError> {
    const FIND: &str = "
        select id, name from security_groups
         where project_id = ? and deleted = false and (id in (?..) or name in (?..))";
    let (mut ids, mut names) = (Vec::new(), Vec::new());
    for group in groups {
        match group {
            GroupRef::Id(id) => ids.push(id.row()),
            GroupRef::Name(name) => names.push(name.to_string()),
        }
    }
    let rows = conn.all(FIND, &[project.into(), ids.into(), names.into()]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push((SecurityGroupId::from_row(row.get("id")?), row.parse::<GroupName>("name")?));
    }
    let one = |wanted: &GroupRef| {
        let matches = |(id, name): &&(SecurityGroupId, GroupName)| match wanted {
            GroupRef::Id(wanted) => id == wanted,
            GroupRef::Name(wanted) => name == wanted,
        };
        found.iter().find(matches).cloned().ok_or_else(|| GroupError::NotFound(wanted.clone()))
    };
    groups.iter().map(one).collect()
}

/// Finds the id of a group of any project, which is how rules name their sources.
///
/// # Errors
/// Only where the database fails.
pub async fn find_any(
    conn: &mut Conn,
    project: &ProjectId,
    group: &GroupRef,
) -> Result<Option<SecurityGroupId>, DbError> {
    const BY_ID: &str = "select id from security_groups where project_id = ? and id = ? and deleted = false";
    const BY_NAME: &str = "select id from security_groups where project_id = ? and name = ? and deleted = false";
    let row = match group {
        GroupRef::Id(id) => conn.optional(BY_ID, &[project.into(), (*id).into()]).await?,
        GroupRef::Name(name) => conn.optional(BY_NAME, &[project.into(), name.into()]).await?,
    };
    row.map(|row| row.get("id").map(SecurityGroupId::from_row)).transpose()
}

fn assemble(groups: &[Row], rules: &[Row]) -> Result<Vec<SecurityGroup>, DbError> {
    let mut all = Vec::with_capacity(groups.len());
    for row in groups {
        all.push(SecurityGroup {
            id: SecurityGroupId::from_row(row.get("id")?),
            project: row.parse("project_id")?,
            user: row.parse("user_id")?,
            name: row.parse("name")?,
            description: row.get::<Option<String>>("description")?.unwrap_or_default(),
            rules: Vec::new(),
        });
    }
    for row in rules {
        let parent = SecurityGroupId::from_row(row.get("parent_group_id")?);
        // Absent when the group was made between the two queries.
        if let Ok(at) = all.binary_search_by_key(&parent, |group| group.id) {
            let source_group = match row.parse_some("source_project")? {
                None => None,
                Some(project) => Some((project, row.parse("source_name")?)),
            };
            all[at].rules.push(GrantedRule { rule: rules::read(row)?, source_group });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
