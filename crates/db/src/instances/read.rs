//! Finding instances, alone or with all that is kept about them elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nova_types::instance::{Instance, InstanceView, StateReason};
use nova_types::state::{State, Task, VmState};
use nova_types::{
    GroupName, HostName, ImageId, InstanceId, NetworkId, Prefix64, ProjectId, ReservationId, SecurityGroupId,
};

use crate::conn::Conn;
use crate::error::DbError;
use crate::row::Row;
use crate::value::Value;

/// One instance. A terminated one is found for an hour.
///
/// # Errors
/// [`DbError::NotFound`] when there is none.
pub async fn get(conn: &mut Conn, id: InstanceId) -> Result<Instance, DbError> {
    let row = conn.optional(GET, &[id.into()]).await?;
    row.map_or(Err(DbError::NotFound("instance")), |row| instance(&row))
}

/// Instances with their addresses, groups and zone, by id. An empty `ids` means all of them, no `project` every project.
///
/// Ids that are not there, or are another project's, are left out: compare the number.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn describe(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    ids: &[InstanceId],
) -> Result<Vec<InstanceView>, DbError> {
    let mut scope = "i.deleted = false".to_owned();
    let mut args: Vec<Value> = Vec::new();
    if let Some(project) = project {
        scope += " and i.project_id = ?";
        args.push(project.into());
    }
    if ids.is_empty() {
        return views(conn, &scope, &args, None).await;
    }
    scope += " and i.id in (?..)";
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut all = Vec::with_capacity(sorted.len());
    for chunk in sorted.chunks(5_000) {
        let mut args = args.clone();
        args.push(chunk.into());
        all.append(&mut views(conn, &scope, &args, None).await?);
    }
    Ok(all)
}

/// The instances of one launch of `project`, as [`describe`] shows them.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn of_reservation(
    conn: &mut Conn,
    project: &ProjectId,
    reservation: &ReservationId,
) -> Result<Vec<InstanceView>, DbError> {
    let scope = "i.project_id = ? and i.reservation_id = ? and i.deleted = false";
    views(conn, scope, &[project.into(), reservation.into()], None).await
}

/// The next `limit` instances after `after`, for answers in pages or in a stream. No `after` is the beginning.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn page(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    after: Option<InstanceId>,
    limit: u32,
) -> Result<Vec<InstanceView>, DbError> {
    let after = after.map_or(0, InstanceId::row);
    match project {
        Some(project) => {
            let args = [project.into(), after.into()];
            views(conn, "i.deleted = false and i.project_id = ? and i.id > ?", &args, Some(limit)).await
        }
        None => views(conn, "i.deleted = false and i.id > ?", &[after.into()], Some(limit)).await,
    }
}

/// Every instance of `host` that is not over: what must be running there, or be undone there.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn on_host(conn: &mut Conn, host: &HostName) -> Result<Vec<InstanceView>, DbError> {
    views(conn, concat!(crate::instances::holding!(), " and i.host = ?"), &[host.into()], None).await
}

/// Those of `ids` that are not over, wherever they are.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn living(conn: &mut Conn, ids: &[InstanceId]) -> Result<BTreeSet<InstanceId>, DbError> {
    let mut living = BTreeSet::new();
    for some in ids.chunks(500) {
        for row in conn.all(LIVING, &[some.into()]).await? {
            living.insert(InstanceId::from_row(row.get("id")?));
        }
    }
    Ok(living)
}

/// The images, kernels and ramdisks of all instances that are not over, on whatever host.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn images_in_use(conn: &mut Conn) -> Result<BTreeSet<ImageId>, DbError> {
    let mut used = BTreeSet::new();
    for row in conn.all(IMAGES_IN_USE, &[]).await? {
        for column in ["image_id", "kernel_id", "ramdisk_id"] {
            used.extend(row.parse_some::<ImageId>(column)?);
        }
    }
    Ok(used)
}

/// Instances whose task `host` must do, by id; without their groups, which a host reads for its firewall.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn due_on_host(conn: &mut Conn, host: &HostName, limit: u32) -> Result<Vec<InstanceView>, DbError> {
    let rows = conn.all(DUE_ON_HOST, &[host.into(), limit.into()]).await?;
    rows.iter().map(|row| view(row, Vec::new())).collect()
}

/// An instance that waits for the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The instance.
    pub instance: Instance,
    /// Whether it has an address already, which it keeps: it was on another host before, or is a VPN.
    pub has_address: bool,
}

/// Those of `hosts` that have a task to do, for a process that does the work of many.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn hosts_with_tasks(conn: &mut Conn, hosts: &[HostName]) -> Result<Vec<HostName>, DbError> {
    let names: Vec<String> = hosts.iter().map(HostName::to_string).collect();
    let rows = conn.all(HOSTS_WITH_TASKS, &[names.into()]).await?;
    rows.iter().map(|row| row.parse("host")).collect()
}

/// Instances without a host that wait for the scheduler: to be placed, or to be ended before they were.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn due_scheduler(conn: &mut Conn, limit: u32) -> Result<Vec<Due>, DbError> {
    conn.all(DUE_SCHEDULER, &[limit.into()]).await?.iter().map(due).collect()
}

/// The same of only some instances.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn due_of(conn: &mut Conn, ids: &[InstanceId]) -> Result<Vec<Due>, DbError> {
    conn.all(DUE_OF, &[ids.into()]).await?.iter().map(due).collect()
}

fn due(row: &Row) -> Result<Due, DbError> {
    Ok(Due { instance: instance(row)?, has_address: row.get::<i64>("addresses")? > 0 })
}

async fn views(conn: &mut Conn, scope: &str, args: &[Value], limit: Option<u32>) -> Result<Vec<InstanceView>, DbError> {
    let end = limit.map_or(String::new(), |limit| format!(" limit {limit}"));
    let rows = conn.all_text(&format!("{VIEW} where {scope} order by i.id{end}"), args).await?;
    let mut groups: HashMap<InstanceId, Vec<(SecurityGroupId, GroupName)>> = HashMap::new();
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let mut args = args.to_vec();
        args.extend([first.get::<i32>("id")?.into(), last.get::<i32>("id")?.into()]);
        let scope = format!("{scope} and i.id between ? and ?");
        for row in conn.all_text(&format!("{GROUPS} where {scope} order by a.id"), &args).await? {
            let member = InstanceId::from_row(row.get("instance_id")?);
            let group = SecurityGroupId::from_row(row.get("group_id")?);
            groups.entry(member).or_default().push((group, row.parse("name")?));
        }
    }
    let view = |row| view(row, groups.remove(&InstanceId::from_row(row.get("id")?)).unwrap_or_default());
    rows.iter().map(view).collect()
}

fn view(row: &Row, groups: Vec<(SecurityGroupId, GroupName)>) -> Result<InstanceView, DbError> {
    let fixed: Option<Ipv4Addr> = row.parse_some("fixed_address")?;
    let network: Option<i32> = row.get("fixed_network")?;
    let prefix: Option<Prefix64> = row.parse_some("fixed_prefix6")?;
    let instance = instance(row)?;
    Ok(InstanceView {
        fixed_ip: fixed.zip(network.map(NetworkId::from_row)),
        address6: prefix.map(|prefix| prefix.address_of(instance.mac)),
        floating_ip: row.parse_some("floating_address")?,
        groups,
        host_zone: row.get("host_zone")?,
        instance,
    })
}

/// Reads an instance from a row of [`columns!`].
pub(super) fn instance(row: &Row) -> Result<Instance, DbError> {
    let id = InstanceId::from_row(row.get("id")?);
    let key_name = row.parse_some("key_name")?;
    let key_data: Option<String> = row.get("key_data")?;
    let reason_code: Option<String> = row.get("state_reason_code")?;
    let reason: Option<String> = row.get("state_reason")?;
    let user_data: Option<String> = row.get("user_data")?;
    Ok(Instance {
        id,
        reservation: row.parse("reservation_id")?,
        launch_index: row.narrow("launch_index")?,
        user: row.parse("user_id")?,
        project: row.parse("project_id")?,
        state: state(row)?,
        reason: reason_code.map(|code| StateReason { code, message: reason.unwrap_or_default() }),
        epoch: row.get("epoch")?,
        image: row.parse("image_id")?,
        kernel: row.parse_some("kernel_id")?,
        ramdisk: row.parse_some("ramdisk_id")?,
        flavor: row.get("instance_type")?,
        memory_mb: row.narrow("memory_mb")?,
        vcpus: row.narrow("vcpus")?,
        local_gb: row.narrow("local_gb")?,
        key: key_name.map(|name| (name, key_data.unwrap_or_default())),
        user_data: user_data
            .map(|text| STANDARD.decode(&text).map_err(|_| DbError::Corrupt { column: "user_data", value: text }))
            .transpose()?,
        availability_zone: row.get("availability_zone")?,
        host: row.parse_some("host")?,
        mac: row.parse("mac_address")?,
        hostname: id.to_string(),
        display_name: row.get("display_name")?,
        display_description: row.get("display_description")?,
        client_token: row.get("client_token")?,
        created_at: row.get("created_at")?,
        launched_at: row.get("launched_at")?,
        terminated_at: row.get("terminated_at")?,
    })
}

fn state(row: &Row) -> Result<State, DbError> {
    let vm: String = row.get("vm_state")?;
    let task: Option<String> = row.get("task_state")?;
    let corrupt = |column, value: &str| DbError::Corrupt { column, value: value.to_owned() };
    Ok(State {
        vm: VmState::from_word(&vm).ok_or_else(|| corrupt("vm_state", &vm))?,
        task: task.map(|task| Task::from_word(&task).ok_or_else(|| corrupt("task_state", &task))).transpose()?,
    })
}

/// The columns an [`Instance`] is read from; `i` is the table.
macro_rules! columns {
    () => {
        "i.id, i.reservation_id, i.launch_index, i.user_id, i.project_id, i.vm_state, i.task_state, \
         i.state_reason_code, i.state_reason, i.epoch, i.image_id, i.kernel_id, i.ramdisk_id, i.instance_type, \
         i.memory_mb, i.vcpus, i.local_gb, i.key_name, i.key_data, i.user_data, i.availability_zone, i.host, \
         i.mac_address, i.display_name, i.display_description, i.client_token, i.created_at, i.launched_at, \
         i.terminated_at"
    };
}

const GET: &str = concat!("select ", columns!(), " from instances i where i.id = ? and i.deleted = false");

/// The same, and nobody else changes the row before the transaction ends.
pub(super) const GET_LOCKED: &str =
    concat!("select ", columns!(), " from instances i where i.id = ? and i.deleted = false {for_update}");

/// What a host holds; nobody else changes the rows before the transaction ends.
pub(super) const ON_HOST_LOCKED: &str = concat!(
    "select ",
    columns!(),
    " from instances i where i.host = ? and ",
    crate::instances::holding!(),
    " order by i.id limit ? {for_update}"
);

const LIVING: &str = concat!("select i.id from instances i where i.id in (?..) and ", crate::instances::holding!());

const IMAGES_IN_USE: &str = concat!(
    "select distinct i.image_id, i.kernel_id, i.ramdisk_id from instances i where ",
    crate::instances::holding!()
);

pub(super) const HOSTS_WITH_TASKS: &str = "select distinct host from instances \
     where host in (?..) and task_state is not null and deleted = false";

macro_rules! due {
    () => {
        concat!(
            "select ",
            columns!(),
            ", (select count(*) from fixed_ips f where f.instance_id = i.id and f.deleted = false) as addresses \
             from instances i where i.host is null and i.task_state in ('scheduling', 'terminating') \
             and i.deleted = false"
        )
    };
}

pub(super) const DUE_SCHEDULER: &str = concat!(due!(), " order by i.id limit ?");
pub(super) const DUE_OF: &str = concat!(due!(), " and i.id in (?..) order by i.id");

macro_rules! view {
    () => {
        concat!(
            "select ",
            columns!(),
            ", f.address as fixed_address, f.network_id as fixed_network, n.cidr_v6 as fixed_prefix6, o.address as floating_address, \
             s.availability_zone as host_zone from instances i \
             left join fixed_ips f on f.instance_id = i.id and f.deleted = false \
             left join networks n on n.id = f.network_id \
             left join floating_ips o on o.fixed_ip_id = f.id and o.deleted = false \
             left join services s on s.host = i.host and s.\"binary\" = 'nova-compute' and s.deleted = false"
        )
    };
}

pub(super) const VIEW: &str = view!();
pub(super) const DUE_ON_HOST: &str =
    concat!(view!(), " where i.host = ? and i.task_state is not null and i.deleted = false order by i.id limit ?");

pub(super) const GROUPS: &str = "select a.instance_id, g.id as group_id, g.name from instances i \
     join security_group_instance_association a on a.instance_id = i.id and a.deleted = false \
     join security_groups g on g.id = a.security_group_id and g.deleted = false";
