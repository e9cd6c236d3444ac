//! Limits of projects, and counters that are changed in the same transaction as what they count.

use nova_types::ProjectId;
use nova_types::quota::{Quotas, Resource};

use crate::conn::Conn;
use crate::error::{DbError, OverQuota};
use crate::row::Row;
use crate::value::Value;

#[cfg(test)]
mod tests;

/// The limits of a project: its own, and `defaults` where it has none.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn limits(conn: &mut Conn, project: &ProjectId, defaults: &Quotas) -> Result<Quotas, DbError> {
    let mut limits = *defaults;
    if let Some(row) = conn.optional(LIMITS, &[project.into()]).await? {
        for resource in Resource::ALL {
            if let Some(own) = row.narrow_some(resource.key())? {
                limits.set(resource, own);
            }
        }
    }
    Ok(limits)
}

/// Gives a project a limit of its own, or with `None` the default again. Call it inside a transaction.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn set_limit(
    conn: &mut Conn,
    project: &ProjectId,
    resource: Resource,
    limit: Option<u32>,
) -> Result<(), DbError> {
    if conn.optional(LIMITS, &[project.into()]).await?.is_none() {
        conn.insert("insert into quotas (project_id) values (?)", &[project.into()]).await?;
    }
    let sql = match resource {
        Resource::Instances => concat!("update quotas set instances = ?", of_project!()),
        Resource::Cores => concat!("update quotas set cores = ?", of_project!()),
        Resource::Volumes => concat!("update quotas set volumes = ?", of_project!()),
        Resource::Gigabytes => concat!("update quotas set gigabytes = ?", of_project!()),
        Resource::FloatingIps => concat!("update quotas set floating_ips = ?", of_project!()),
    };
    conn.execute(sql, &[limit.map(int).into(), project.into()]).await.map(|_| ())
}

/// How much a project has.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn usage(conn: &mut Conn, project: &ProjectId, resource: Resource) -> Result<u32, DbError> {
    conn.optional(USAGE, &[project.into()]).await?.map_or(Ok(0), |row| row.narrow(resource.key()))
}

/// Counts `amounts` as used, all or none. The counters are locked until the transaction ends.
///
/// # Errors
/// [`DbError::OverQuota`] names the first limit in the way.
pub async fn reserve(
    conn: &mut Conn,
    project: &ProjectId,
    amounts: &[(Resource, u32)],
    limits: &Quotas,
) -> Result<(), DbError> {
    reserve_some(conn, project, amounts, 1, 1, limits).await.map(|_| ())
}

/// Counts as many times `each` as used as there is room for, at least `min` and at most `max` times. Returns how many.
///
/// # Errors
/// [`DbError::OverQuota`] when there is no room for `min`.
pub async fn reserve_some(
    conn: &mut Conn,
    project: &ProjectId,
    each: &[(Resource, u32)],
    min: u32,
    max: u32,
    limits: &Quotas,
) -> Result<u32, DbError> {
    if min == max && add_within(conn, project, each, max, limits).await? {
        return Ok(max);
    }
    let row = lock(conn, project).await?;
    let mut granted = max;
    for (resource, amount) in each.iter().filter(|(_, amount)| *amount > 0) {
        let (used, limit): (u32, u32) = (row.narrow(resource.key())?, limits.limit(*resource));
        let room = limit.saturating_sub(used) / amount;
        if room < min {
            return Err(DbError::OverQuota(OverQuota { resource: *resource, limit, used }));
        }
        granted = granted.min(room);
    }
    let total: Vec<(Resource, u32)> = each.iter().map(|(r, amount)| (*r, amount.saturating_mul(granted))).collect();
    add(conn, project, &total, ADD).await?;
    Ok(granted)
}

/// The same with the project's own limits, and `defaults` where it has none: one statement where there is room for `max`.
///
/// # Errors
/// [`DbError::OverQuota`] when there is no room for `min`.
pub async fn reserve_own(
    conn: &mut Conn,
    project: &ProjectId,
    each: &[(Resource, u32)],
    min: u32,
    max: u32,
    defaults: &Quotas,
) -> Result<u32, DbError> {
    if conn.execute(ADD_WITHIN_OWN, &within(project, each, max, defaults)).await? > 0 {
        return Ok(max);
    }
    let limits = limits(conn, project, defaults).await?;
    reserve_some(conn, project, each, min, max, &limits).await
}

/// Counts `amounts` as no longer used; never below nothing.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn release(conn: &mut Conn, project: &ProjectId, amounts: &[(Resource, u32)]) -> Result<(), DbError> {
    add(conn, project, amounts, SUBTRACT).await
}

/// Locks a project's counters until the transaction ends: nobody else launches for it meanwhile.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn hold(conn: &mut Conn, project: &ProjectId) -> Result<(), DbError> {
    lock(conn, project).await.map(drop)
}

/// Counts anew what a project has, and corrects the counters. Call it inside a transaction.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn recount(conn: &mut Conn, project: &ProjectId) -> Result<(), DbError> {
    lock(conn, project).await?;
    let args: Vec<Value> = std::iter::repeat_with(|| project.into()).take(6).collect();
    conn.execute(RECOUNT, &args).await.map(|_| ())
}

/// The usual case in one statement: there is a row, and room. False says nothing about why not.
async fn add_within(
    conn: &mut Conn,
    project: &ProjectId,
    each: &[(Resource, u32)],
    times: u32,
    limits: &Quotas,
) -> Result<bool, DbError> {
    conn.execute(ADD_WITHIN, &within(project, each, times, limits)).await.map(|rows| rows > 0)
}

/// The arguments of [`ADD_WITHIN`] and [`ADD_WITHIN_OWN`].
fn within(project: &ProjectId, each: &[(Resource, u32)], times: u32, limits: &Quotas) -> Vec<Value> {
    let mut sums: Vec<Value> = Vec::new();
    let mut checks: Vec<Value> = Vec::new();
    for resource in Resource::ALL {
        let amount: u32 = each.iter().filter(|(r, _)| *r == resource).map(|(_, amount)| *amount).sum();
        let amount = Value::from(int(amount.saturating_mul(times)));
        sums.push(amount.clone());
        checks.extend([amount.clone(), amount, int(limits.limit(resource)).into()]);
    }
    sums.push(project.into());
    sums.append(&mut checks);
    sums
}

async fn lock(conn: &mut Conn, project: &ProjectId) -> Result<Row, DbError> {
    if let Some(row) = conn.optional(LOCK, &[project.into()]).await? {
        return Ok(row);
    }
    // Two first launches of a project at once: the upsert lets the second wait for the first.
    conn.execute(FIRST, &[project.into()]).await?;
    conn.one(LOCK, &[project.into()]).await
}

async fn add(
    conn: &mut Conn,
    project: &ProjectId,
    amounts: &[(Resource, u32)],
    sql: &'static str,
) -> Result<(), DbError> {
    let mut args: Vec<Value> = Vec::with_capacity(11);
    for resource in Resource::ALL {
        let amount: u32 = amounts.iter().filter(|(r, _)| *r == resource).map(|(_, amount)| *amount).sum();
        args.push(int(amount).into());
        if sql == SUBTRACT {
            args.push(int(amount).into());
        }
    }
    args.push(project.into());
    conn.execute(sql, &args).await.map(|_| ())
}

fn int(amount: u32) -> i32 {
    i32::try_from(amount).unwrap_or(i32::MAX)
}

macro_rules! of_project {
    () => {
        ", updated_at = {now} where project_id = ? and deleted = false"
    };
}
use of_project;

macro_rules! add {
    () => {
        "update quota_usages set instances = instances + ?, cores = cores + ?, volumes = volumes + ?, \
         gigabytes = gigabytes + ?, floating_ips = floating_ips + ?, updated_at = {now} where project_id = ?"
    };
}

macro_rules! less {
    ($column:literal) => {
        concat!($column, " = case when ", $column, " > ? then ", $column, " - ? else 0 end, ")
    };
}

const LIMITS: &str = "select instances, cores, volumes, gigabytes, floating_ips from quotas \
     where project_id = ? and deleted = false";
const USAGE: &str = "select instances, cores, volumes, gigabytes, floating_ips from quota_usages where project_id = ?";
const LOCK: &str = "select instances, cores, volumes, gigabytes, floating_ips from quota_usages \
     where project_id = ? {for_update}";
const FIRST: &str =
    "insert into quota_usages (project_id, updated_at) values (?, {now}) {upsert:project_id:updated_at}";
const ADD: &str = add!();
// What is not asked for does not count, even where the project is over that limit already.
const ADD_WITHIN: &str = concat!(
    add!(),
    " and (? = 0 or instances + ? <= ?) and (? = 0 or cores + ? <= ?) and (? = 0 or volumes + ? <= ?) \
     and (? = 0 or gigabytes + ? <= ?) and (? = 0 or floating_ips + ? <= ?)"
);
macro_rules! own_limit {
    ($column:literal) => {
        concat!(
            " and (? = 0 or ",
            $column,
            " + ? <= coalesce((select q.",
            $column,
            " from quotas q where q.project_id = quota_usages.project_id and q.deleted = false), ?))"
        )
    };
}
const ADD_WITHIN_OWN: &str = concat!(
    add!(),
    own_limit!("instances"),
    own_limit!("cores"),
    own_limit!("volumes"),
    own_limit!("gigabytes"),
    own_limit!("floating_ips")
);
const SUBTRACT: &str = concat!(
    "update quota_usages set ",
    less!("instances"),
    less!("cores"),
    less!("volumes"),
    less!("gigabytes"),
    less!("floating_ips"),
    "updated_at = {now} where project_id = ?"
);
const RECOUNT: &str = concat!(
    "update quota_usages set instances = (select count(*) from instances i where i.project_id = ? and ",
    crate::instances::holding!(),
    "), cores = (select cast(coalesce(sum(i.vcpus), 0) as {big}) from instances i where i.project_id = ? and ",
    crate::instances::holding!(),
    "), volumes = (select count(*) from volumes v where v.project_id = ? and v.deleted = false), \
     gigabytes = (select cast(coalesce(sum(v.size), 0) as {big}) from volumes v where v.project_id = ? \
     and v.deleted = false), \
     floating_ips = (select count(*) from floating_ips o where o.project_id = ? and o.deleted = false), \
     updated_at = {now} where project_id = ?"
);
