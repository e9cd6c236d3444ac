//! The rules of a group: written and taken back as one, and never there twice.

use std::collections::{BTreeMap, BTreeSet};

use nova_types::rule::{Rule, Source, Traffic};
use nova_types::{HostName, ProjectId, SecurityGroupId};

use super::firewall::hosts_of;
use super::{GroupError, GroupRef};
use crate::{Conn, DbError, Row, Value};

/// Adds rules to a group, all or none, inside the caller's transaction. Returns the hosts to be told
/// (`refresh_security_group_rules`).
///
/// # Errors
/// [`GroupError::NotFound`], [`GroupError::DuplicateRules`], [`GroupError::NoSuchSource`], [`GroupError::RuleLimit`]
/// where the group would have more than `limit`.
pub async fn add_rules(
    tx: &mut Conn,
    project: &ProjectId,
    group: SecurityGroupId,
    rules: &[Rule],
    limit: u32,
) -> Result<Vec<HostName>, GroupError> {
    const ADD: &str = "insert into security_group_rules
        (parent_group_id, protocol, from_port, to_port, cidr, group_id, signature)";
    let sources: BTreeSet<SecurityGroupId> = rules.iter().filter_map(source_group).collect();
    lock(tx, project, group, &sources).await?;
    let mut there = signatures(tx, group).await?;
    let held = there.len();
    let double: Vec<Rule> = rules.iter().filter(|rule| there.insert(signature(rule), 0).is_some()).copied().collect();
    if !double.is_empty() {
        return Err(GroupError::DuplicateRules(double));
    }
    if held + rules.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(GroupError::RuleLimit { limit });
    }
    let rows: Vec<Vec<Value>> = rules.iter().map(|rule| columns(group, rule)).collect();
    tx.insert_many(ADD, &rows).await?;
    changed(tx, group).await
}

/// Takes rules out of a group, all or none, inside the caller's transaction. Returns the hosts to be told
/// (`refresh_security_group_rules`).
///
/// # Errors
/// [`GroupError::NotFound`], [`GroupError::MissingRules`].
pub async fn remove_rules(
    tx: &mut Conn,
    project: &ProjectId,
    group: SecurityGroupId,
    rules: &[Rule],
) -> Result<Vec<HostName>, GroupError> {
    const REMOVE: &str =
        "update security_group_rules set deleted = true, deleted_at = {now} where id in (?..) and deleted = false";
    lock(tx, project, group, &BTreeSet::new()).await?;
    let mut there = signatures(tx, group).await?;
    let (mut gone, mut missing) = (Vec::new(), Vec::new());
    for rule in rules {
        match there.remove(&signature(rule)) {
            Some(id) => gone.push(id),
            None => missing.push(*rule),
        }
    }
    if !missing.is_empty() {
        return Err(GroupError::MissingRules(missing));
    }
    tx.execute(REMOVE, &[gone.into()]).await?;
    changed(tx, group).await
}

/// Reads a rule as Bexar and we store it: a grant to a group without a protocol is one of everything.
pub(super) fn read(row: &Row) -> Result<Rule, DbError> {
    let protocol: Option<String> = row.get("protocol")?;
    let (from, to): (Option<i64>, Option<i64>) = (row.get("from_port")?, row.get("to_port")?);
    let traffic = match protocol.filter(|word| !word.is_empty()) {
        None => Traffic::All,
        Some(word) => {
            Traffic::parse(&word, from, to).map_err(|_| DbError::Corrupt { column: "protocol", value: word })?
        }
    };
    let source = match row.get::<Option<i32>>("group_id")? {
        Some(key) => Source::Group(SecurityGroupId::from_row(key)),
        None => {
            let cidr: String = row.get("cidr")?;
            Source::range(&cidr).map_err(|_| DbError::Corrupt { column: "cidr", value: cidr })?
        }
    };
    Ok(Rule { traffic, source })
}

const fn source_group(rule: &Rule) -> Option<SecurityGroupId> {
    match rule.source {
        Source::Group(id) => Some(id),
        Source::Range(_) => None,
    }
}

/// The whole rule as one text: two rules are the same exactly where these are.
fn signature(rule: &Rule) -> String {
    let source = match rule.source {
        Source::Range(range) => range.to_string(),
        Source::Group(id) => id.to_string(),
    };
    match rule.traffic.numbers() {
        None => format!("{} {source}", rule.traffic.protocol()),
        Some((from, to)) => format!("{} {from} {to} {source}", rule.traffic.protocol()),
    }
}

fn columns(group: SecurityGroupId, rule: &Rule) -> Vec<Value> {
    let (protocol, numbers) = match (rule.traffic, rule.source) {
        (Traffic::All, Source::Group(_)) => (None, None),
        (Traffic::All, Source::Range(_)) => (Some(Traffic::All.protocol()), Some((-1, -1))),
        (traffic, _) => (Some(traffic.protocol()), traffic.numbers()),
    };
    let cidr = match rule.source {
        Source::Range(range) => Some(range.to_string()),
        Source::Group(_) => None,
    };
    vec![
        group.into(),
        protocol.into(),
        numbers.map(|(from, _)| from).into(),
        numbers.map(|(_, to)| to).into(),
        cidr.into(),
        source_group(rule).into(),
        signature(rule).into(),
    ]
}

/// Locks the group and the sources of its rules to come, lowest id first, so that two who do this never block each
/// other for good, and none of them is deleted meanwhile.
async fn lock(
    tx: &mut Conn,
    project: &ProjectId,
    group: SecurityGroupId,
    sources: &BTreeSet<SecurityGroupId>,
) -> Result<(), GroupError> {
    const LOCK: &str =
        "select id, project_id from security_groups where id in (?..) and deleted = false order by id {for_update}";
    let wanted: BTreeSet<SecurityGroupId> = sources.iter().copied().chain([group]).collect();
    let keys: Vec<i32> = wanted.iter().map(|id| id.row()).collect();
    let mut found = BTreeMap::new();
    for row in tx.all(LOCK, &[keys.into()]).await? {
        found.insert(SecurityGroupId::from_row(row.get("id")?), row.parse::<ProjectId>("project_id")?);
    }
    if found.get(&group) != Some(project) {
        return Err(GroupError::NotFound(GroupRef::Id(group)));
    }
    match sources.iter().find(|id| !found.contains_key(id)) {
        Some(absent) => Err(GroupError::NoSuchSource(*absent)),
        None => Ok(()),
    }
}

/// The rules of a group by signature, with their rows. Computed from the columns: rows that others wrote have none.
async fn signatures(tx: &mut Conn, group: SecurityGroupId) -> Result<BTreeMap<String, i32>, DbError> {
    const RULES: &str = "
        select id, protocol, from_port, to_port, cidr, group_id from security_group_rules
         where parent_group_id = ? and deleted = false";
    let mut all = BTreeMap::new();
    for row in tx.all(RULES, &[group.into()]).await? {
        all.insert(signature(&read(&row)?), row.get("id")?);
    }
    Ok(all)
}

/// Counts the change, and finds who must hear of it.
async fn changed(tx: &mut Conn, group: SecurityGroupId) -> Result<Vec<HostName>, GroupError> {
    const BUMP: &str = "update security_groups set version = version + 1, updated_at = {now} where id = ?";
    tx.execute(BUMP, &[group.into()]).await?;
    Ok(hosts_of(tx, &[group]).await?)
}
