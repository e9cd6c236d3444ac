//! What compute hosts offer, and what of it is taken.

use nova_types::HostName;
use nova_types::service::{ComputeNode, Demand};
use time::OffsetDateTime;

use crate::conn::Conn;
use crate::error::DbError;
use crate::row::Row;
use crate::value::Value;

#[cfg(test)]
mod tests;

/// Says what a host offers. What is taken stays as it is.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn upsert(conn: &mut Conn, node: &ComputeNode) -> Result<(), DbError> {
    upsert_all(conn, std::slice::from_ref(node)).await
}

/// The same for many hosts at once.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn upsert_all(conn: &mut Conn, nodes: &[ComputeNode]) -> Result<(), DbError> {
    for some in nodes.chunks(500) {
        let mut args: Vec<Value> = Vec::with_capacity(some.len() * 5);
        for node in some {
            args.extend([(&node.host).into(), node.memory_mb.into(), node.vcpus.into(), node.local_gb.into()]);
            args.push(node.hypervisor_type.as_str().into());
        }
        let rows = vec!["(?, ?, ?, ?, ?, {now})"; some.len()].join(", ");
        conn.execute_text(&format!("{UPSERT_HEAD} values {rows} {UPSERT_TAIL}"), &args).await?;
    }
    Ok(())
}

/// All compute hosts by name. Eligible are those enabled that reported within `down_after_seconds`.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn list(conn: &mut Conn, down_after_seconds: i64) -> Result<Vec<ComputeNode>, DbError> {
    let rows = conn.all(LIST, &[]).await?;
    rows.iter().map(|row| node(row, down_after_seconds)).collect()
}

/// What a scheduler must know of a host's `nova-compute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It never reported.
    Unknown,
    /// An administrator keeps new work away from it.
    Disabled,
    /// It may get work while it lives. It last reported so many seconds ago, by the database's clock.
    Enabled {
        /// The seconds.
        silent_seconds: i64,
    },
}

/// Compute hosts, and when they were like that by the database's clock; no time where there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When they were read.
    pub at: Option<OffsetDateTime>,
    /// The hosts.
    pub nodes: Vec<(ComputeNode, Daemon)>,
}

/// The compute hosts of which something changed since `since`: what they offer, what is taken, whether they get work, or
/// that they reported. Goes through indexes; ask for a little more than was missed, for a transaction becomes visible
/// only when it ends.
///
/// A host that falls silent does not change: whoever keeps hosts must count the seconds on.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn changed_since(
    conn: &mut Conn,
    since: OffsetDateTime,
    down_after_seconds: i64,
) -> Result<Snapshot, DbError> {
    snapshot(&conn.all(CHANGED, &[since.into(), since.into(), since.into()]).await?, down_after_seconds)
}

/// All compute hosts.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn all(conn: &mut Conn, down_after_seconds: i64) -> Result<Snapshot, DbError> {
    snapshot(&conn.all(LIST, &[]).await?, down_after_seconds)
}

/// The compute hosts of these names. One that is missing is gone.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn named(conn: &mut Conn, hosts: &[HostName], down_after_seconds: i64) -> Result<Snapshot, DbError> {
    let names: Vec<String> = hosts.iter().map(HostName::to_string).collect();
    snapshot(&conn.all(NAMED, &[names.into()]).await?, down_after_seconds)
}

/// Lets schedulers look at a host again: something about its daemon changed.
pub(crate) async fn touch(conn: &mut Conn, host: &HostName) -> Result<(), DbError> {
    conn.execute(TOUCH, &[host.into()]).await.map(|_| ())
}

/// Takes `demand` of a host, if it still fits and the host was not disabled meanwhile. False otherwise: look at it again.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn claim(conn: &mut Conn, host: &HostName, demand: Demand) -> Result<bool, DbError> {
    let (memory, vcpus, disk) =
        (Value::from(demand.memory_mb), Value::from(demand.vcpus), Value::from(demand.local_gb));
    let args = [
        memory.clone(),
        vcpus.clone(),
        disk.clone(),
        host.into(),
        memory.clone(),
        memory,
        vcpus.clone(),
        vcpus,
        disk.clone(),
        disk,
    ];
    conn.execute(CLAIM, &args).await.map(|rows| rows > 0)
}

/// Takes of each host what is said with it, where it still fits. Returns the hosts that had room, by name; they stay locked
/// until the transaction ends. The hosts must all be different.
///
/// Call it inside a transaction.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn claim_all(conn: &mut Conn, wanted: &[(&HostName, Demand)]) -> Result<Vec<HostName>, DbError> {
    let names: Vec<String> = wanted.iter().map(|(host, _)| host.to_string()).collect();
    let rows = conn.all(LOCK, &[names.into()]).await?;
    let mut alike: Vec<(Demand, Vec<HostName>)> = Vec::new();
    for row in &rows {
        let host: HostName = row.parse("host")?;
        let Some((_, demand)) = wanted.iter().find(|(wanted, _)| **wanted == host) else { continue };
        if !has_room(row, *demand)? {
            continue;
        }
        match alike.iter_mut().find(|(known, _)| known == demand) {
            Some((_, hosts)) => hosts.push(host),
            None => alike.push((*demand, vec![host])),
        }
    }
    let mut claimed = Vec::with_capacity(rows.len());
    for (demand, mut hosts) in alike {
        let names: Vec<String> = hosts.iter().map(HostName::to_string).collect();
        let args = [demand.memory_mb.into(), demand.vcpus.into(), demand.local_gb.into(), names.into()];
        conn.execute(TAKE, &args).await?;
        claimed.append(&mut hosts);
    }
    claimed.sort_unstable();
    Ok(claimed)
}

fn has_room(row: &Row, demand: Demand) -> Result<bool, DbError> {
    let mut fits = true;
    for (offered, used, wanted) in [
        ("memory_mb", "memory_mb_used", demand.memory_mb),
        ("vcpus", "vcpus_used", demand.vcpus),
        ("local_gb", "local_gb_used", demand.local_gb),
    ] {
        let (offered, used): (i64, i64) = (row.narrow(offered)?, row.narrow(used)?);
        fits &= wanted == 0 || used + i64::from(wanted) <= offered;
    }
    Ok(fits)
}

/// Gives back what [`claim`] took.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn release(conn: &mut Conn, host: &HostName, demand: Demand) -> Result<(), DbError> {
    let args: [Value; 7] = [
        demand.memory_mb.into(),
        demand.memory_mb.into(),
        demand.vcpus.into(),
        demand.vcpus.into(),
        demand.local_gb.into(),
        demand.local_gb.into(),
        host.into(),
    ];
    conn.execute(RELEASE, &args).await.map(|_| ())
}

/// Counts anew what the instances of a host take, and corrects the counters.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn recount(conn: &mut Conn, host: &HostName) -> Result<(), DbError> {
    conn.execute(RECOUNT, &[host.into(), host.into(), host.into(), host.into()]).await.map(|_| ())
}

fn node(row: &Row, down_after_seconds: i64) -> Result<ComputeNode, DbError> {
    let disabled: Option<bool> = row.get("disabled")?;
    let silent: Option<i64> = row.get("silent")?;
    Ok(ComputeNode {
        host: row.parse("host")?,
        availability_zone: row.get::<Option<String>>("availability_zone")?.unwrap_or_else(|| "nova".to_owned()),
        memory_mb: row.narrow("memory_mb")?,
        memory_mb_used: row.narrow("memory_mb_used")?,
        vcpus: row.narrow("vcpus")?,
        vcpus_used: row.narrow("vcpus_used")?,
        local_gb: row.narrow("local_gb")?,
        local_gb_used: row.narrow("local_gb_used")?,
        hypervisor_type: row.get::<Option<String>>("hypervisor_type")?.unwrap_or_default(),
        eligible: disabled == Some(false) && silent.is_some_and(|seconds| seconds <= down_after_seconds),
    })
}

fn snapshot(rows: &[Row], down_after_seconds: i64) -> Result<Snapshot, DbError> {
    let mut found = Snapshot::default();
    for row in rows {
        let daemon = match (row.get("disabled")?, row.get("silent")?) {
            (Some(true), _) => Daemon::Disabled,
            (Some(false), Some(silent_seconds)) => Daemon::Enabled { silent_seconds },
            _ => Daemon::Unknown,
        };
        found.nodes.push((node(row, down_after_seconds)?, daemon));
        found.at = Some(row.get("at")?);
    }
    Ok(found)
}

macro_rules! taken {
    ($column:literal) => {
        concat!(
            "(select cast(coalesce(sum(i.",
            $column,
            "), 0) as {big}) from instances i where i.host = ? and ",
            crate::instances::holding!(),
            ")"
        )
    };
}

const UPSERT_HEAD: &str = "insert into compute_nodes (host, memory_mb, vcpus, local_gb, hypervisor_type, updated_at)";
const UPSERT_TAIL: &str = "{upsert:host, live:memory_mb, vcpus, local_gb, hypervisor_type, updated_at}";
macro_rules! read {
    () => {
        "select c.host, c.memory_mb, c.memory_mb_used, c.vcpus, c.vcpus_used, c.local_gb, c.local_gb_used, \
         c.hypervisor_type, s.availability_zone, s.disabled, {age:coalesce(s.updated_at, s.created_at)} as silent, \
         {now} as at from "
    };
}
macro_rules! daemon {
    () => {
        " left join services s on s.host = c.host and s.\"binary\" = 'nova-compute' and s.deleted = false \
         where c.deleted = false"
    };
}

const LIST: &str = concat!(read!(), "compute_nodes c", daemon!(), " order by c.host");
const NAMED: &str = concat!(read!(), "compute_nodes c", daemon!(), " and c.host in (?..) order by c.host");
// Those whose own row changed, and those whose daemon only reported.
const CHANGED: &str = concat!(
    read!(),
    "compute_nodes c",
    daemon!(),
    " and c.updated_at >= ? union all ",
    read!(),
    "services s join compute_nodes c on c.host = s.host and c.deleted = false where s.\"binary\" = 'nova-compute' \
     and s.updated_at >= ? and s.deleted = false and (c.updated_at is null or c.updated_at < ?)"
);
const TOUCH: &str = "update compute_nodes set updated_at = {now} where host = ? and deleted = false";
const CLAIM: &str = "update compute_nodes set memory_mb_used = memory_mb_used + ?, vcpus_used = vcpus_used + ?, \
     local_gb_used = local_gb_used + ?, updated_at = {now} where host = ? and deleted = false \
     and (? = 0 or memory_mb_used + ? <= memory_mb) and (? = 0 or vcpus_used + ? <= vcpus) \
     and (? = 0 or local_gb_used + ? <= local_gb) and not exists (select 1 from services s \
     where s.host = compute_nodes.host and s.\"binary\" = 'nova-compute' and s.disabled = true and s.deleted = false)";
// In the order of names, so that two who take of several hosts do not wait for each other in a circle.
const LOCK: &str = "select host, memory_mb, memory_mb_used, vcpus, vcpus_used, local_gb, local_gb_used from compute_nodes \
     where host in (?..) and deleted = false and not exists (select 1 from services s \
     where s.host = compute_nodes.host and s.\"binary\" = 'nova-compute' and s.disabled = true and s.deleted = false) \
     order by host {for_update}";
const TAKE: &str = "update compute_nodes set memory_mb_used = memory_mb_used + ?, vcpus_used = vcpus_used + ?, \
     local_gb_used = local_gb_used + ?, updated_at = {now} where host in (?..) and deleted = false";
// Never below nothing: a counter that was wrong must not make room that is not there.
const RELEASE: &str = "update compute_nodes set \
     memory_mb_used = case when memory_mb_used > ? then memory_mb_used - ? else 0 end, \
     vcpus_used = case when vcpus_used > ? then vcpus_used - ? else 0 end, \
     local_gb_used = case when local_gb_used > ? then local_gb_used - ? else 0 end, updated_at = {now} \
     where host = ? and deleted = false";
const RECOUNT: &str = concat!(
    "update compute_nodes set memory_mb_used = ",
    taken!("memory_mb"),
    ", vcpus_used = ",
    taken!("vcpus"),
    ", local_gb_used = ",
    taken!("local_gb"),
    ", updated_at = {now} where host = ? and deleted = false"
);
