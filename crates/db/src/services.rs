//! Daemons: who reports, who may call himself what.

use nova_types::HostName;
use nova_types::service::Service;

use crate::compute_nodes;
use crate::conn::Conn;
use crate::error::{DbError, Unique};
use crate::row::Row;

#[cfg(test)]
mod tests;

/// Reports that `binary` on `host` lives, and makes its row when there is none: in `zone`, disabled unless `enable_new`.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn heartbeat(
    conn: &mut Conn,
    host: &HostName,
    binary: &str,
    zone: &str,
    enable_new: bool,
) -> Result<Service, DbError> {
    if conn.execute(REPORT, &[host.into(), binary.into()]).await? == 0 {
        let topic = binary.strip_prefix("nova-").unwrap_or(binary);
        let args = [host.into(), binary.into(), topic.into(), zone.into(), (!enable_new).into()];
        match conn.insert(INSERT, &args).await {
            Ok(_) | Err(DbError::Duplicate(Unique::Service)) => {}
            Err(error) => return Err(error),
        }
    }
    let row = conn.optional(ONE, &[host.into(), binary.into()]).await?.ok_or(DbError::NotFound("service"))?;
    service(&row)
}

/// Makes the caller the only `binary` on `host` for `lease_seconds`, under a new epoch. The row must be there
/// ([`heartbeat`]). None while another's lease runs: a second daemon of that name must not work.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn acquire(
    conn: &mut Conn,
    host: &HostName,
    binary: &str,
    lease_seconds: i32,
) -> Result<Option<i32>, DbError> {
    if conn.execute(ACQUIRE, &[lease_seconds.into(), host.into(), binary.into()]).await? == 0 {
        return Ok(None);
    }
    conn.one(EPOCH, &[host.into(), binary.into()]).await?.get("epoch").map(Some)
}

/// Prolongs the lease got from [`acquire`]; with 0 seconds gives it up. False when another has taken over: stop.
///
/// # Errors
/// [`DbError::Unavailable`]: then the caller may go on until its lease is over.
pub async fn renew(
    conn: &mut Conn,
    host: &HostName,
    binary: &str,
    epoch: i32,
    lease_seconds: i32,
) -> Result<bool, DbError> {
    let args = [lease_seconds.into(), host.into(), binary.into(), epoch.into()];
    conn.execute(RENEW, &args).await.map(|rows| rows > 0)
}

/// All daemons, enabled or not, by host and binary.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn list(conn: &mut Conn) -> Result<Vec<Service>, DbError> {
    let rows = conn.all(LIST, &[]).await?;
    rows.iter().map(service).collect()
}

/// Lets a daemon get new work, or no longer.
///
/// # Errors
/// [`DbError::NotFound`] when there is no such daemon.
pub async fn set_disabled(conn: &mut Conn, host: &HostName, binary: &str, disabled: bool) -> Result<(), DbError> {
    match conn.execute(DISABLE, &[disabled.into(), host.into(), binary.into()]).await? {
        0 => Err(DbError::NotFound("service")),
        _ => compute_nodes::touch(conn, host).await,
    }
}

/// Forgets a daemon.
///
/// # Errors
/// [`DbError::NotFound`] when there is no such daemon.
pub async fn delete(conn: &mut Conn, host: &HostName, binary: &str) -> Result<(), DbError> {
    match conn.execute(DELETE, &[host.into(), binary.into()]).await? {
        0 => Err(DbError::NotFound("service")),
        _ => compute_nodes::touch(conn, host).await,
    }
}

/// The availability zones by name, and whether one enabled compute host in each reported within `down_after_seconds`.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn zones(conn: &mut Conn, down_after_seconds: i64) -> Result<Vec<(String, bool)>, DbError> {
    let mut zones = std::collections::BTreeMap::new();
    for found in list(conn).await?.into_iter().filter(|found| found.topic == "compute") {
        let up = !found.disabled && found.is_up(down_after_seconds);
        *zones.entry(found.availability_zone).or_insert(false) |= up;
    }
    Ok(zones.into_iter().collect())
}

fn service(row: &Row) -> Result<Service, DbError> {
    Ok(Service {
        id: row.get("id")?,
        host: row.parse("host")?,
        binary: row.get("binary")?,
        topic: row.get("topic")?,
        report_count: row.get("report_count")?,
        disabled: row.get("disabled")?,
        availability_zone: row.get("availability_zone")?,
        updated_at: row.get("updated_at")?,
        silent_seconds: row.get("silent")?,
    })
}

macro_rules! select {
    () => {
        "select id, host, \"binary\", topic, report_count, disabled, availability_zone, updated_at, \
         {age:coalesce(updated_at, created_at)} as silent from services where deleted = false"
    };
}

const REPORT: &str = "update services set report_count = report_count + 1, updated_at = {now} \
     where host = ? and \"binary\" = ? and deleted = false";
const INSERT: &str = "insert into services (host, \"binary\", topic, availability_zone, disabled, updated_at) \
     values (?, ?, ?, ?, ?, {now})";
const ONE: &str = concat!(select!(), " and host = ? and \"binary\" = ?");
const LIST: &str = concat!(select!(), " order by host, \"binary\"");
const EPOCH: &str = "select epoch from services where host = ? and \"binary\" = ? and deleted = false";
const ACQUIRE: &str = "update services set epoch = epoch + 1, lease_until = {now+?} \
     where host = ? and \"binary\" = ? and deleted = false and (lease_until is null or lease_until <= {now})";
const RENEW: &str = "update services set lease_until = {now+?} \
     where host = ? and \"binary\" = ? and epoch = ? and deleted = false";
const DISABLE: &str = "update services set disabled = ? where host = ? and \"binary\" = ? and deleted = false";
const DELETE: &str =
    "update services set deleted = true, deleted_at = {now} where host = ? and \"binary\" = ? and deleted = false";
