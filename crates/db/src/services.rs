//! Daemons: who reports, who may call himself what.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nova_types::HostName;
use nova_types::service::Service;

use crate::compute_nodes;
use crate::conn::Conn;
use crate::error::{DbError, Unique};
use crate::row::Row;
use crate::value::Value;

mod addresses;
#[cfg(test)]
mod tests;

pub use addresses::{Addresses, addresses};

/// Reports that a `binary` lives of which there may be several on `host`, and makes its row when there is none: in `zone`, disabled unless `enable_new`.
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

/// A program that wants to be the only one of its kind under some host names.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The names: one, or those of all simulated hosts of a process.
    pub hosts: Vec<HostName>,
    /// The program, as `nova-compute`.
    pub binary: &'static str,
    /// The zone that the rows are in from now on.
    pub zone: String,
    /// Whether a new row takes part at once.
    pub enable_new: bool,
    /// Where other hosts reach this one, if the program carries frames between guests.
    pub address: Option<Ipv4Addr>,
    /// The installation that asks. It may have a name again at once, for it runs one such program at a time; others
    /// wait until the lease is over.
    pub holder: String,
    /// How long the names are kept from others, from each report.
    pub lease_seconds: i32,
}

/// Why a name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another installation has it.
    #[error("another {binary} works as host {host}; if it is gone, its name is free in {seconds} s")]
    Held {
        /// The name.
        host: HostName,
        /// The program.
        binary: &'static str,
        /// How long its lease lasts if it is not renewed.
        seconds: i64,
    },
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes the rows that are not there yet, which [`acquire`] needs.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn introduce(conn: &mut Conn, claim: &Claim) -> Result<(), DbError> {
    let topic = claim.binary.strip_prefix("nova-").unwrap_or(claim.binary);
    let there = conn.all(THERE, &[claim.binary.into(), names(claim)]).await?;
    let there: BTreeSet<String> = there.iter().map(|row| row.get("host")).collect::<Result<_, _>>()?;
    let missing = claim.hosts.iter().filter(|host| !there.contains(host.as_str()));
    let row = |host: &HostName| -> Vec<Value> {
        let (zone, disabled) = (claim.zone.as_str(), !claim.enable_new);
        vec![host.into(), claim.binary.into(), topic.into(), zone.into(), disabled.into()]
    };
    let missing: Vec<Vec<Value>> = missing.map(row).collect();
    match conn.insert_many(INSERT_MANY, &missing).await {
        Err(DbError::Duplicate(Unique::Service)) => {}
        inserted => return inserted.map(|_| ()),
    }
    // Another makes some of them at this moment: then it is one by one.
    for row in missing {
        match conn.insert_many(INSERT_MANY, &[row]).await {
            Ok(_) | Err(DbError::Duplicate(Unique::Service)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes all names of the claim, under new epochs, and reports; or none of them. Call it inside a transaction.
///
/// # Errors
/// [`ClaimError::Held`] while another installation has one of them; [`DbError::Stale`] when a row is not there.
pub async fn acquire(conn: &mut Conn, claim: &Claim) -> Result<(), ClaimError> {
    let args = [
        claim.holder.as_str().into(),
        claim.lease_seconds.into(),
        claim.zone.as_str().into(),
        claim.address.into(),
        claim.binary.into(),
        names(claim),
        claim.holder.as_str().into(),
    ];
    if conn.execute(ACQUIRE, &args).await? == claim.hosts.len() as u64 {
        return Ok(());
    }
    let held = conn.optional(HELD, &[claim.binary.into(), names(claim), claim.holder.as_str().into()]).await?;
    let held = held.ok_or(DbError::Stale("service"))?;
    let seconds = held.get::<i64>("past")?.saturating_neg().max(1);
    Err(ClaimError::Held { host: held.parse("host")?, binary: claim.binary, seconds })
}

/// Reports, and prolongs the leases. False when a row is gone or another's: ask [`acquire`] which of the two.
///
/// # Errors
/// [`DbError::Unavailable`]: then the caller may go on until its lease is over.
pub async fn renew(conn: &mut Conn, claim: &Claim) -> Result<bool, DbError> {
    let args = [claim.lease_seconds.into(), claim.binary.into(), names(claim), claim.holder.as_str().into()];
    conn.execute(RENEW, &args).await.map(|rows| rows == claim.hosts.len() as u64)
}

/// Gives the names up, so that another may have them at once.
///
/// # Errors
/// [`DbError::Unavailable`]: then they come free when the lease is over.
pub async fn release(conn: &mut Conn, claim: &Claim) -> Result<(), DbError> {
    conn.execute(GIVE_UP, &[claim.binary.into(), names(claim), claim.holder.as_str().into()]).await.map(|_| ())
}

fn names(claim: &Claim) -> Value {
    Value::Texts(claim.hosts.iter().map(|host| host.as_str().to_owned()).collect())
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
        gave_up: row.get::<i32>("epoch")? > 0 && row.get::<Option<String>>("holder")?.is_none(),
    })
}

macro_rules! select {
    () => {
        "select id, host, \"binary\", topic, report_count, disabled, availability_zone, updated_at, epoch, holder, \
         {age:coalesce(updated_at, created_at)} as silent from services where deleted = false"
    };
}

const REPORT: &str = "update services set report_count = report_count + 1, updated_at = {now} \
     where host = ? and \"binary\" = ? and deleted = false";
const INSERT: &str = "insert into services (host, \"binary\", topic, availability_zone, disabled, updated_at) \
     values (?, ?, ?, ?, ?, {now})";
const ONE: &str = concat!(select!(), " and host = ? and \"binary\" = ?");
const LIST: &str = concat!(select!(), " order by host, \"binary\"");
const THERE: &str = "select host from services where \"binary\" = ? and host in (?..) and deleted = false";
const INSERT_MANY: &str = "insert into services (host, \"binary\", topic, availability_zone, disabled)";
const ACQUIRE: &str = "update services set holder = ?, epoch = epoch + 1, lease_until = {now+?}, availability_zone = ?, \
     address = ?, report_count = report_count + 1, updated_at = {now} where \"binary\" = ? and host in (?..) and deleted = false \
     and (lease_until is null or lease_until <= {now} or holder = ?)";
const HELD: &str = "select host, {age:lease_until} as past from services where \"binary\" = ? and host in (?..) \
     and deleted = false and holder <> ? and lease_until > {now} order by host limit 1";
const RENEW: &str = "update services set report_count = report_count + 1, updated_at = {now}, lease_until = {now+?} \
     where \"binary\" = ? and host in (?..) and holder = ? and deleted = false";
const GIVE_UP: &str = "update services set holder = null, lease_until = null \
     where \"binary\" = ? and host in (?..) and holder = ? and deleted = false";
const DISABLE: &str = "update services set disabled = ? where host = ? and \"binary\" = ? and deleted = false";
const DELETE: &str =
    "update services set deleted = true, deleted_at = {now} where host = ? and \"binary\" = ? and deleted = false";
