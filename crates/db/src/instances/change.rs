//! From one state to the next. Which follows what is decided by `nova_types::state` alone.

use nova_types::instance::{Instance, StateReason};
use nova_types::state::{Event, State, Task, VmState};
use nova_types::{HostName, InstanceId, ProjectId};

use super::Guard;
use super::read::{GET_LOCKED, instance};
use crate::conn::Conn;
use crate::error::DbError;
use crate::value::{Value, pieces};

/// Moves an instance on, if it still is where `guard` says. Returns where it is now.
///
/// `reason` is kept for the user to read; without one an instance that comes up loses its old reason.
///
/// # Errors
/// [`DbError::Stale`] when the row has moved on, or the event is not allowed where it is.
pub async fn apply(
    conn: &mut Conn,
    id: InstanceId,
    event: Event,
    guard: &Guard,
    reason: Option<&StateReason>,
) -> Result<State, DbError> {
    advance(conn, &[id], event, guard, reason).await
}

/// Moves several instances on that are all where `guard` says, or none of them.
///
/// Call it inside a transaction: one that is refused has moved some of them.
///
/// # Errors
/// [`DbError::Stale`] when one of them has moved on, or the event is not allowed where they are.
pub async fn apply_all(conn: &mut Conn, ids: &[InstanceId], event: Event, guard: &Guard) -> Result<State, DbError> {
    advance(conn, ids, event, guard, None).await
}

async fn advance(
    conn: &mut Conn,
    ids: &[InstanceId],
    event: Event,
    guard: &Guard,
    reason: Option<&StateReason>,
) -> Result<State, DbError> {
    let next = guard.state.after(event).ok_or(DbError::Stale("instance"))?;
    let stamp = match event {
        Event::Booted => ", launched_at = coalesce(launched_at, {now})",
        Event::Terminate => ", terminated_at = coalesce(terminated_at, {now})",
        _ => "",
    };
    let mut args: Vec<Value> = vec![
        next.vm.as_str().into(),
        next.task.map(Task::as_str).into(),
        next.vm.bexar_power_state().into(),
        next.bexar_description().into(),
    ];
    let told = match reason {
        Some(reason) => {
            args.extend([reason.code.as_str().into(), reason.message.as_str().into()]);
            ", state_reason_code = ?, state_reason = ?"
        }
        None if matches!(next.vm, VmState::Running | VmState::Pending) => {
            ", state_reason_code = null, state_reason = null"
        }
        None => "",
    };
    let these = match ids {
        [only] => {
            args.push((*only).into());
            "id = ?"
        }
        several => {
            args.push(several.into());
            "id in (?..)"
        }
    };
    args.extend([guard.state.vm.as_str().into(), guard.epoch.into()]);
    let task = match guard.state.task {
        Some(task) => {
            args.push(task.as_str().into());
            "task_state = ?"
        }
        None => "task_state is null",
    };
    let sql = format!(
        "update instances set vm_state = ?, task_state = ?, state = ?, state_description = ?, updated_at = {{now}}\
         {stamp}{told} where {these} and vm_state = ? and epoch = ? and deleted = false and {task}"
    );
    match conn.execute_text(&sql, &args).await? {
        moved if moved == ids.len() as u64 => Ok(next),
        _ => Err(DbError::Stale("instance")),
    }
}

/// Does what a user asks of an instance: returns the state before, and the instance as it is now.
///
/// `project` is whose instance it must be; `None` for administrators. Call it inside a transaction.
///
/// # Errors
/// [`DbError::NotFound`] for no instance or another project's, [`DbError::Stale`] when that cannot be asked of it now.
pub async fn request(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    id: InstanceId,
    event: Event,
    reason: Option<&StateReason>,
) -> Result<(State, Instance), DbError> {
    let row = conn.optional(GET_LOCKED, &[id.into()]).await?.ok_or(DbError::NotFound("instance"))?;
    let mut found = instance(&row)?;
    if project.is_some_and(|project| *project != found.project) {
        return Err(DbError::NotFound("instance"));
    }
    let before = found.state;
    // Its host was taken from it while it was stopped: it needs another.
    let event = if event == Event::Start && before == State::new(VmState::Stopped, None) && found.host.is_none() {
        Event::StartAnew
    } else {
        event
    };
    // Asking twice changes nothing; above all it does not restart the time the task is under way.
    if before.after(event) != Some(before) {
        found.state = apply(conn, id, event, &Guard::of(&found), reason).await?;
        found.reason = reason.cloned().or(found.reason);
    }
    Ok((before, found))
}

/// Locks those of some instances that wait for the scheduler, and that no other scheduler has in hand just now.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn waiting(conn: &mut Conn, ids: &[InstanceId]) -> Result<Vec<InstanceId>, DbError> {
    let rows = conn.all(WAITING, &[ids.into()]).await?;
    rows.iter().map(|row| row.get("id").map(InstanceId::from_row)).collect()
}

/// Gives instances that [`waiting`] locked each to a host, under a new epoch.
///
/// # Errors
/// [`DbError::Stale`] when one of them did not wait.
pub async fn place_all(conn: &mut Conn, placed: &[(InstanceId, &HostName)]) -> Result<(), DbError> {
    for some in pieces(placed, 256) {
        let mut args: Vec<Value> = some.iter().flat_map(|(id, host)| [(*id).into(), (*host).into()]).collect();
        args.extend(placed_state()?);
        args.push(some.iter().map(|(id, _)| id.row()).collect::<Vec<i32>>().into());
        let cases = " when ? then ?".repeat(some.len());
        if conn.execute_text(&format!("update instances set host = case id{cases} end{PLACED}"), &args).await?
            < some.len() as u64
        {
            return Err(DbError::Stale("instance"));
        }
    }
    Ok(())
}

/// Gives instances that wait for the scheduler to `host`, under a new epoch. Returns those that really waited, and that
/// no other scheduler has in hand just now.
///
/// Call it inside the transaction that claims the capacity and takes the addresses for what it returns.
///
/// # Errors
/// [`DbError::Conflict`] when another scheduler was faster; the transaction is tried again.
pub async fn place(conn: &mut Conn, ids: &[InstanceId], host: &HostName) -> Result<Vec<InstanceId>, DbError> {
    // Of several, some may have moved on, and an update does not say which; of one it does.
    let moved: Vec<i32> = match ids {
        [only] => vec![only.row()],
        _ => waiting(conn, ids).await?.into_iter().map(InstanceId::row).collect(),
    };
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let mut args: Vec<Value> = vec![host.into()];
    args.extend(placed_state()?);
    args.push(moved.as_slice().into());
    let placed = conn.execute_text(&format!("update instances set host = ?{PLACED}"), &args).await?;
    if placed < moved.len() as u64 {
        return Ok(Vec::new());
    }
    Ok(moved.into_iter().map(InstanceId::from_row).collect())
}

const WAITING: &str = "select id from instances where id in (?..) and vm_state = 'pending' and task_state = 'scheduling' \
     and host is null and deleted = false order by id {skip_locked}";

/// The arguments of [`PLACED`] but for the ids.
fn placed_state() -> Result<[Value; 4], DbError> {
    let next = State::FIRST.after(Event::Placed).ok_or(DbError::Stale("instance"))?;
    Ok([
        next.vm.as_str().into(),
        next.task.map(Task::as_str).into(),
        next.vm.bexar_power_state().into(),
        next.bexar_description().into(),
    ])
}

/// How placing an instance ends, whatever its host.
const PLACED: &str = ", vm_state = ?, task_state = ?, state = ?, state_description = ?, \
     hostname = 'i-' || {hex:id}, scheduled_at = {now}, updated_at = {now}, epoch = epoch + 1 where id in (?..) \
     and vm_state = 'pending' and task_state = 'scheduling' and host is null and deleted = false";
