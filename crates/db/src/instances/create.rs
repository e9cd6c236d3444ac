//! New rows.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nova_types::instance::{Instance, NewInstances};
use nova_types::state::State;
use nova_types::{InstanceId, Mac};

use crate::conn::Conn;
use crate::dialect::Engine;
use crate::error::DbError;
use crate::row::Row;
use crate::value::{Value, pieces};

/// Well below what any engine takes as arguments.
const ROWS_AT_ONCE: usize = 256;

/// Stores the instances of one call, `pending`/`scheduling`, with their groups. Returns them in launch order.
///
/// Call it inside the transaction that also takes the quota and remembers the client token.
///
/// # Errors
/// [`DbError::Duplicate`] of [`Mac`](crate::Unique::Mac): draw other addresses and try again.
pub async fn create(conn: &mut Conn, new: &NewInstances) -> Result<Vec<Instance>, DbError> {
    let rows: Vec<Vec<Value>> = (0_i32..).zip(&new.macs).map(|(index, mac)| row(new, index, (*mac).into())).collect();
    let mut stored: Vec<Instance> =
        insert(conn, new, &rows).await?.iter().map(|row| instance(new, row)).collect::<Result<_, _>>()?;
    stored.sort_unstable_by_key(|instance| instance.launch_index);
    let ids = stored.iter().map(|instance| instance.id);
    let members: Vec<Vec<Value>> =
        ids.flat_map(|id| new.groups.iter().map(move |group| vec![(*group).into(), id.into()])).collect();
    if !members.is_empty() {
        conn.insert_many(INSERT_MEMBERS, &members).await?;
    }
    Ok(stored)
}

/// The same for those who need only the ids.
///
/// # Errors
/// As [`create`].
pub async fn insert_batch(conn: &mut Conn, new: &NewInstances) -> Result<Vec<InstanceId>, DbError> {
    Ok(create(conn, new).await?.into_iter().map(|instance| instance.id).collect())
}

/// Returns what the database added to each row, in any order.
async fn insert(conn: &mut Conn, new: &NewInstances, rows: &[Vec<Value>]) -> Result<Vec<Row>, DbError> {
    // MariaDB tells of inserted rows and MySQL does not, which it says once.
    static SILENT: AtomicBool = AtomicBool::new(false);
    if conn.engine() == Engine::MySql && SILENT.load(Ordering::Relaxed) {
        return insert_and_ask(conn, new, rows).await;
    }
    let mut added = Vec::with_capacity(rows.len());
    for piece in pieces(rows, ROWS_AT_ONCE) {
        let group = format!("({})", vec!["?"; piece[0].len()].join(","));
        let values = vec![group.as_str(); piece.len()].join(",");
        let sql = format!("{INSERT} values {values} returning id, launch_index, created_at");
        match conn.all_text(&sql, &piece.concat()).await {
            Err(error) if added.is_empty() && error.is_syntax() => {
                SILENT.store(true, Ordering::Relaxed);
                return insert_and_ask(conn, new, rows).await;
            }
            told => added.extend(told?),
        }
    }
    Ok(added)
}

/// The same where the database tells nothing of inserted rows.
async fn insert_and_ask(conn: &mut Conn, new: &NewInstances, rows: &[Vec<Value>]) -> Result<Vec<Row>, DbError> {
    conn.insert_many(INSERT, rows).await?;
    conn.all(ADDED, &[(&new.reservation).into()]).await
}

/// The instance as it was stored.
fn instance(new: &NewInstances, added: &Row) -> Result<Instance, DbError> {
    let (id, index): (InstanceId, u32) = (InstanceId::from_row(added.get("id")?), added.narrow("launch_index")?);
    let mac = usize::try_from(index).ok().and_then(|index| new.macs.get(index));
    let out_of_order = || DbError::Corrupt { column: "launch_index", value: index.to_string() };
    Ok(Instance {
        id,
        reservation: new.reservation.clone(),
        launch_index: index,
        user: new.user.clone(),
        project: new.project.clone(),
        state: State::FIRST,
        reason: None,
        epoch: 0,
        image: new.image,
        kernel: new.kernel,
        ramdisk: new.ramdisk,
        flavor: new.flavor.to_owned(),
        memory_mb: new.memory_mb,
        vcpus: new.vcpus,
        local_gb: new.local_gb,
        key: new.key.clone(),
        user_data: new.user_data.clone(),
        availability_zone: new.availability_zone.clone(),
        host: None,
        mac: *mac.ok_or_else(out_of_order)?,
        hostname: id.to_string(),
        display_name: new.display_name.clone(),
        display_description: new.display_description.clone(),
        client_token: new.client_token.clone(),
        created_at: added.get("created_at")?,
        launched_at: None,
        terminated_at: None,
    })
}

fn row(new: &NewInstances, index: i32, mac: Value) -> Vec<Value> {
    let first = State::FIRST;
    vec![
        (&new.reservation).into(),
        index.into(),
        (&new.user).into(),
        (&new.project).into(),
        new.image.into(),
        new.kernel.into(),
        new.ramdisk.into(),
        new.flavor.into(),
        new.memory_mb.into(),
        new.vcpus.into(),
        new.local_gb.into(),
        new.key.as_ref().map(|(name, _)| name).into(),
        new.key.as_ref().map(|(_, data)| data).into(),
        new.user_data.as_ref().map(|data| STANDARD.encode(data)).into(),
        new.availability_zone.as_ref().into(),
        new.display_name.as_ref().into(),
        new.display_description.as_ref().into(),
        new.client_token.as_ref().into(),
        mac,
        first.vm.as_str().into(),
        first.task.map(nova_types::state::Task::as_str).into(),
        first.vm.bexar_power_state().into(),
        first.bexar_description().into(),
    ]
}

const INSERT: &str = "insert into instances (reservation_id, launch_index, user_id, project_id, image_id, kernel_id, \
    ramdisk_id, instance_type, memory_mb, vcpus, local_gb, key_name, key_data, user_data, availability_zone, \
    display_name, display_description, client_token, mac_address, vm_state, task_state, state, state_description)";

/// Which hardware addresses of these are in use.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn macs_in_use(conn: &mut Conn, macs: &[Mac]) -> Result<Vec<Mac>, DbError> {
    let texts: Vec<String> = macs.iter().map(Mac::to_string).collect();
    conn.all(TAKEN, &[texts.into()]).await?.iter().map(|row| row.parse("mac_address")).collect()
}

const TAKEN: &str = "select mac_address from instances where mac_address in (?..) and deleted = false";

const ADDED: &str = "select id, launch_index, created_at from instances where reservation_id = ? and deleted = false order by launch_index";

const INSERT_MEMBERS: &str = "insert into security_group_instance_association (security_group_id, instance_id)";
