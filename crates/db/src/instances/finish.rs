//! The end of an instance: in one transaction it is over and all it held is given back.

use std::net::Ipv4Addr;

use nova_types::instance::{Instance, StateReason};
use nova_types::quota::Resource;
use nova_types::service::Demand;
use nova_types::state::{Event, State};
use nova_types::{InstanceId, NetworkId};

use super::read::{GET_LOCKED, instance};
use super::{Guard, apply};
use crate::conn::Conn;
use crate::error::DbError;
use crate::{compute_nodes, fixed_ips, quotas};

/// An instance that was taken from its host may still run there: its address is kept from others at least as long as the
/// default of `--fixed_ip_disassociate_timeout`.
const EVACUATED_QUARANTINE_SECONDS: i32 = 600;

/// What an instance gave back, for those who must forget it in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Its fixed address, now in quarantine.
    pub fixed_ip: Option<(Ipv4Addr, NetworkId)>,
}

/// Ends an instance whose guest is gone from its host: terminated, nothing held. Doing it again does nothing.
///
/// Call it inside a transaction, after the guest, its files and its firewall rules are gone.
///
/// # Errors
/// [`DbError::Stale`] when it is not being terminated, or another host has taken over.
pub async fn finish_terminate(
    conn: &mut Conn,
    id: InstanceId,
    epoch: i32,
    quarantine_seconds: i32,
) -> Result<Released, DbError> {
    finish(conn, id, epoch, Event::Gone, quarantine_seconds).await
}

/// The remains of a failed launch are gone: still `error`, nothing held. Doing it again does nothing.
///
/// # Errors
/// [`DbError::Stale`] when it is not being cleaned, or another host has taken over.
pub async fn cleaned(
    conn: &mut Conn,
    id: InstanceId,
    epoch: i32,
    quarantine_seconds: i32,
) -> Result<Released, DbError> {
    finish(conn, id, epoch, Event::Cleaned, quarantine_seconds).await
}

/// Says that what was under way did not work ([`Event::NotPlaced`], [`Event::Failed`]). Gives back what an instance in
/// the state that follows does not hold: all of it for one that was never placed, nothing for one that must be cleaned.
///
/// An instance that ran, and for which no other host is found, is not ended: it waits on, with the reason.
///
/// # Errors
/// [`DbError::Stale`] when the row has moved on, or waits for that reason already.
pub async fn fail(
    conn: &mut Conn,
    id: InstanceId,
    guard: &Guard,
    event: Event,
    reason: &StateReason,
    quarantine_seconds: i32,
) -> Result<State, DbError> {
    let found = locked(conn, id).await?.ok_or(DbError::Stale("instance"))?;
    if Guard::of(&found) != *guard {
        return Err(DbError::Stale("instance"));
    }
    if event == Event::NotPlaced && found.launched_at.is_some() {
        if found.reason.as_ref() == Some(reason) {
            return Err(DbError::Stale("instance"));
        }
        let args = [reason.code.as_str().into(), reason.message.as_str().into(), id.into()];
        conn.execute(WAIT_ON, &args).await?;
        return Ok(found.state);
    }
    let next = apply(conn, id, event, guard, Some(reason)).await?;
    if holds_nothing(next) {
        give_back(conn, &found, quarantine_seconds).await?;
    }
    Ok(next)
}

/// Hides instances that have been over for `older_than_seconds`. Returns how many.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn expire(conn: &mut Conn, older_than_seconds: i32) -> Result<u64, DbError> {
    conn.execute(EXPIRE, &[older_than_seconds.into()]).await
}

async fn finish(
    conn: &mut Conn,
    id: InstanceId,
    epoch: i32,
    event: Event,
    quarantine_seconds: i32,
) -> Result<Released, DbError> {
    let Some(found) = locked(conn, id).await? else { return Ok(Released::default()) };
    if holds_nothing(found.state) {
        return Ok(Released::default());
    }
    if found.epoch != epoch {
        return Err(DbError::Stale("instance"));
    }
    let next = apply(conn, id, event, &Guard::of(&found), None).await?;
    if holds_nothing(next) { give_back(conn, &found, quarantine_seconds).await } else { Ok(Released::default()) }
}

async fn locked(conn: &mut Conn, id: InstanceId) -> Result<Option<Instance>, DbError> {
    conn.optional(GET_LOCKED, &[id.into()]).await?.map(|row| instance(&row)).transpose()
}

/// Everyone takes rows in this order, so that two who finish at once rarely wait for each other in a circle.
pub(super) async fn give_back(conn: &mut Conn, ended: &Instance, quarantine_seconds: i32) -> Result<Released, DbError> {
    let evacuated = ended.host.is_none() && ended.epoch > 0;
    let quarantine_seconds = quarantine_seconds.max(if evacuated { EVACUATED_QUARANTINE_SECONDS } else { 0 });
    if let Some(host) = &ended.host {
        let held = Demand { memory_mb: ended.memory_mb, vcpus: ended.vcpus, local_gb: ended.local_gb };
        compute_nodes::release(conn, host, held).await?;
    }
    let fixed_ip = fixed_ips::release(conn, ended.id, quarantine_seconds).await?;
    conn.execute(LEAVE_GROUPS, &[ended.id.into()]).await?;
    quotas::release(conn, &ended.project, &[(Resource::Instances, 1), (Resource::Cores, ended.vcpus)]).await?;
    Ok(Released { fixed_ip })
}

/// Over and done with; `holding!` says the opposite in SQL.
pub(super) fn holds_nothing(state: State) -> bool {
    state.vm.is_over() && state.task.is_none()
}

pub(super) const EXPIRE: &str = "update instances set deleted = true, deleted_at = {now} where deleted = false \
     and vm_state in ('terminated', 'error') and task_state is null and updated_at < {now-?}";

const WAIT_ON: &str =
    "update instances set state_reason_code = ?, state_reason = ?, updated_at = {now} where id = ? and deleted = false";

const LEAVE_GROUPS: &str = "update security_group_instance_association set deleted = true, deleted_at = {now} \
     where instance_id = ? and deleted = false";
