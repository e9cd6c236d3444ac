//! The oracle: what must be true of the rows at any time. `nova-manage check` and every fault test ask it.

use crate::conn::Conn;
use crate::error::DbError;
use crate::instances::holding;
use crate::value::Value;

#[cfg(test)]
mod tests;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant: `I1` to `I11`, or `W9`.
    pub invariant: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// The row it does not hold for.
    pub what: String,
}

/// Asks for everything that is not as it must be; nothing is a clean database. A task may take `in_flight_seconds`.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing is known.
pub async fn run(conn: &mut Conn, in_flight_seconds: i32) -> Result<Vec<Finding>, DbError> {
    let mut findings = Vec::new();
    for (invariant, meaning, sql) in INVARIANTS {
        let args: &[Value] = if sql.contains('?') { &[in_flight_seconds.into()] } else { &[] };
        for row in conn.all(sql, args).await? {
            findings.push(Finding { invariant, meaning, what: row.get("what")? });
        }
    }
    Ok(findings)
}

/// Texts are joined with `||`, which MySQL does in the mode we set.
const INVARIANTS: &[(&str, &str, &str)] = &[
    (
        "I1",
        "an address is there twice",
        "select address as what from fixed_ips where deleted = false group by address having count(*) > 1",
    ),
    (
        "I2",
        "a fixed address is held by an instance that is over or absent",
        "select f.address as what from fixed_ips f left join instances i on i.id = f.instance_id \
         where f.deleted = false and f.instance_id is not null and (i.id is null or i.deleted = true \
         or i.vm_state = 'terminated' or (i.vm_state = 'error' and i.task_state is null))",
    ),
    (
        "I3",
        "a fixed address is allocated to nobody",
        "select address as what from fixed_ips where deleted = false and allocated = true and instance_id is null",
    ),
    (
        "I4",
        "a running instance has not exactly one fixed address",
        "select 'i-' || {hex:i.id} as what from instances i left join fixed_ips f on f.instance_id = i.id \
         and f.allocated = true and f.deleted = false where i.deleted = false and i.vm_state = 'running' \
         group by i.id having count(f.id) <> 1",
    ),
    (
        "I5",
        "a fixed address is from another project's network",
        "select f.address as what from fixed_ips f join instances i on i.id = f.instance_id and i.deleted = false \
         join networks n on n.id = f.network_id where f.allocated = true and f.deleted = false \
         and n.project_id is not null and n.project_id <> i.project_id",
    ),
    (
        "I6",
        "a floating address is bound, but not its owner's instance",
        "select o.address as what from floating_ips o join fixed_ips f on f.id = o.fixed_ip_id \
         left join instances i on i.id = f.instance_id where o.deleted = false and (o.project_id is null \
         or i.id is null or i.deleted = true or o.project_id <> i.project_id)",
    ),
    (
        "I7",
        "two floating addresses are on one fixed address",
        "select f.address as what from floating_ips o join fixed_ips f on f.id = o.fixed_ip_id \
         where o.deleted = false group by f.address having count(*) > 1",
    ),
    (
        "I8",
        "a hardware address is there twice",
        "select mac_address as what from instances where deleted = false group by mac_address having count(*) > 1",
    ),
    (
        "I9",
        "a VLAN carries two networks",
        "select min(cidr) as what from networks where deleted = false and vlan is not null \
         group by vlan having count(*) > 1",
    ),
    (
        "I10",
        "a task takes too long",
        "select 'i-' || {hex:id} || ' ' || task_state as what from instances where deleted = false \
         and task_state is not null and coalesce(updated_at, created_at) < {now-?}",
    ),
    (
        "I11",
        "an internal id is there twice",
        "select min(mac_address) as what from instances where internal_id is not null \
         group by internal_id having count(*) > 1",
    ),
    ("W9", "a project's counters are not what it has", WRONG_QUOTAS),
    ("W9", "a host's counters are not what its instances take", WRONG_NODES),
];

const WRONG_QUOTAS: &str = concat!(
    "select p.project_id as what from (select distinct project_id from instances union \
     select project_id from quota_usages union select project_id from floating_ips where project_id is not null) p \
     left join quota_usages u on u.project_id = p.project_id where \
     coalesce(u.instances, 0) <> (select count(*) from instances i where i.project_id = p.project_id and ",
    holding!(),
    ") or coalesce(u.cores, 0) <> (select coalesce(sum(i.vcpus), 0) from instances i \
     where i.project_id = p.project_id and ",
    holding!(),
    ") or coalesce(u.floating_ips, 0) <> (select count(*) from floating_ips o \
     where o.project_id = p.project_id and o.deleted = false)"
);

const WRONG_NODES: &str = concat!(
    "select c.host as what from compute_nodes c where c.deleted = false and (\
     c.memory_mb_used <> (select coalesce(sum(i.memory_mb), 0) from instances i where i.host = c.host and ",
    holding!(),
    ") or c.vcpus_used <> (select coalesce(sum(i.vcpus), 0) from instances i where i.host = c.host and ",
    holding!(),
    ") or c.local_gb_used <> (select coalesce(sum(i.local_gb), 0) from instances i where i.host = c.host and ",
    holding!(),
    "))"
);
