//! Taking instances from a host that is gone, so that they can live elsewhere.

use std::collections::BTreeMap;

use nova_types::instance::{Instance, StateReason};
use nova_types::service::Demand;
use nova_types::state::{Event, State, Task};
use nova_types::{HostName, InstanceId};

use super::finish::{give_back, holds_nothing};
use super::read::{ON_HOST_LOCKED, instance};
use crate::conn::Conn;
use crate::error::DbError;
use crate::value::Value;
use crate::{compute_nodes, evacuations};

/// What became of instances that were taken from their host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evacuated {
    /// They wait for the scheduler, and boot from their image on another host.
    pub anew: Vec<InstanceId>,
    /// They are stopped, and do the same when they are started.
    pub stopped: Vec<InstanceId>,
    /// They were being ended, and are now ended without the host.
    pub ending: Vec<InstanceId>,
}

/// Takes the next `limit` instances from `host`, under new epochs: whatever the host still does to them is refused. They
/// keep their addresses and give back its capacity. Nothing taken means that nothing is left.
///
/// Call it inside a transaction, for a host that is gone: if its guests still run, there will be two of each.
///
/// # Errors
/// [`DbError::Stale`] for a row that is in no state to be taken.
pub async fn evacuate(
    conn: &mut Conn,
    host: &HostName,
    limit: u32,
    reason: &StateReason,
) -> Result<Evacuated, DbError> {
    let rows = conn.all(ON_HOST_LOCKED, &[host.into(), limit.into()]).await?;
    let found: Vec<Instance> = rows.iter().map(instance).collect::<Result<_, _>>()?;
    let (mut by_next, mut demand) = (BTreeMap::<State, Vec<&Instance>>::new(), Demand::default());
    for instance in &found {
        let next = instance.state.after(Event::Evacuated).ok_or(DbError::Stale("instance"))?;
        by_next.entry(next).or_default().push(instance);
        demand.memory_mb = demand.memory_mb.saturating_add(instance.memory_mb);
        demand.vcpus = demand.vcpus.saturating_add(instance.vcpus);
        demand.local_gb = demand.local_gb.saturating_add(instance.local_gb);
    }
    if found.is_empty() {
        return Ok(Evacuated::default());
    }
    compute_nodes::release(conn, host, demand).await?;
    let taken: Vec<_> = found.iter().map(|instance| (instance.id, instance.epoch + 1)).collect();
    evacuations::add(conn, host, &taken).await?;
    let mut evacuated = Evacuated::default();
    for (next, instances) in by_next {
        let ids: Vec<InstanceId> = instances.iter().map(|instance| instance.id).collect();
        take(conn, host, next, &ids, reason).await?;
        if holds_nothing(next) {
            for instance in instances {
                // Its capacity went with that of the others.
                give_back(conn, &Instance { host: None, ..instance.clone() }, 0).await?;
            }
        }
        match next.task {
            Some(Task::Scheduling) => evacuated.anew.extend(ids),
            None if !holds_nothing(next) => evacuated.stopped.extend(ids),
            _ => evacuated.ending.extend(ids),
        }
    }
    Ok(evacuated)
}

async fn take(
    conn: &mut Conn,
    host: &HostName,
    next: State,
    ids: &[InstanceId],
    reason: &StateReason,
) -> Result<(), DbError> {
    let args: [Value; 8] = [
        next.vm.as_str().into(),
        next.task.map(Task::as_str).into(),
        next.vm.bexar_power_state().into(),
        next.bexar_description().into(),
        reason.code.as_str().into(),
        reason.message.as_str().into(),
        ids.into(),
        host.into(),
    ];
    if conn.execute(TAKE, &args).await? == ids.len() as u64 { Ok(()) } else { Err(DbError::Stale("instance")) }
}

const TAKE: &str = "update instances set host = null, epoch = epoch + 1, vm_state = ?, task_state = ?, state = ?, \
     state_description = ?, state_reason_code = ?, state_reason = ?, updated_at = {now} \
     where id in (?..) and host = ? and deleted = false";
