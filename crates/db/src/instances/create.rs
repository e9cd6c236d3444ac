//! New rows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nova_types::InstanceId;
use nova_types::instance::NewInstances;
use nova_types::state::State;

use crate::conn::Conn;
use crate::error::DbError;
use crate::value::Value;

/// Stores the instances of one call, `pending`/`scheduling`, with their groups. Returns their ids in launch order.
///
/// Call it inside the transaction that also takes the quota and remembers the client token.
///
/// # Errors
/// [`DbError::Duplicate`] of [`Mac`](crate::Unique::Mac): draw other addresses and try again.
pub async fn insert_batch(conn: &mut Conn, new: &NewInstances) -> Result<Vec<InstanceId>, DbError> {
    let rows: Vec<Vec<Value>> = (0_i32..).zip(&new.macs).map(|(index, mac)| row(new, index, (*mac).into())).collect();
    let ids = insert(conn, new, &rows).await?;
    let members: Vec<Vec<Value>> =
        ids.iter().flat_map(|id| new.groups.iter().map(|group| vec![(*group).into(), (*id).into()])).collect();
    if !members.is_empty() {
        conn.insert_many(INSERT_MEMBERS, &members).await?;
    }
    Ok(ids.into_iter().map(InstanceId::from_row).collect())
}

/// One row says its id itself; many are read back, for not every engine returns them in order.
async fn insert(conn: &mut Conn, new: &NewInstances, rows: &[Vec<Value>]) -> Result<Vec<i32>, DbError> {
    if let [only] = rows {
        let places = vec!["?"; only.len()].join(", ");
        return conn.insert_text(&format!("{INSERT} values ({places})"), only).await.map(|id| vec![id]);
    }
    conn.insert_many(INSERT, rows).await?;
    let found = conn.all(IDS, &[(&new.reservation).into()]).await?;
    found.iter().map(|row| row.get("id")).collect()
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

const IDS: &str = "select id from instances where reservation_id = ? and deleted = false order by launch_index";

const INSERT_MEMBERS: &str = "insert into security_group_instance_association (security_group_id, instance_id)";
