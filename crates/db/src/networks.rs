//! Networks: who uses them, which host serves them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use nova_types::network::{Network, NetworkPlan};
use nova_types::{HostName, NetworkId, ProjectId, Tag};

use crate::conn::Conn;
use crate::error::{DbError, Unique};
use crate::row::Row;
use crate::value::Value;

mod modify;
mod take_over;
#[cfg(test)]
mod tests;

pub use modify::{Vpn, set_host, set_project, set_vpn, vpns};
pub use take_over::{abandoned, take_over};

/// Stores networks and all their addresses. Call it inside a transaction: all or none.
///
/// # Errors
/// [`DbError::Duplicate`] of a range, of IPv4 or IPv6, a VLAN or, where ranges overlap, of an address.
pub async fn create(conn: &mut Conn, plans: &[NetworkPlan]) -> Result<Vec<NetworkId>, DbError> {
    let mut ids = Vec::with_capacity(plans.len());
    for plan in plans {
        let id = conn.insert(INSERT, &values(plan)).await?;
        let addresses: Vec<Vec<Value>> =
            plan.addresses().map(|(address, reserved)| vec![address.into(), id.into(), reserved.into()]).collect();
        conn.insert_many("insert into fixed_ips (address, network_id, reserved)", &addresses).await?;
        ids.push(NetworkId::from_row(id));
    }
    Ok(ids)
}

fn values(plan: &NetworkPlan) -> [Value; 14] {
    [
        plan.cidr.into(),
        plan.prefix6.map(|prefix| prefix.to_string()).into(),
        plan.cidr.netmask().into(),
        plan.cidr.broadcast().into(),
        plan.label.as_ref().into(),
        plan.bridge.as_str().into(),
        plan.gateway.into(),
        plan.dhcp_start.into(),
        plan.dns.into(),
        plan.vlan.into(),
        plan.vpn_private_address.into(),
        plan.vpn_public_port.into(),
        false.into(),
        plan.multi_host.into(),
    ]
}

/// All networks, by id.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn list(conn: &mut Conn) -> Result<Vec<Network>, DbError> {
    many(conn, "", &[]).await
}

/// One network.
///
/// # Errors
/// [`DbError::NotFound`] when there is none.
pub async fn get(conn: &mut Conn, id: NetworkId) -> Result<Network, DbError> {
    many(conn, " and id = ?", &[id.into()]).await?.pop().ok_or(DbError::NotFound("network"))
}

/// The network of exactly that range.
///
/// # Errors
/// [`DbError::NotFound`] when there is none.
pub async fn by_cidr(conn: &mut Conn, cidr: Ipv4Net) -> Result<Network, DbError> {
    many(conn, " and cidr = ?", &[cidr.into()]).await?.pop().ok_or(DbError::NotFound("network"))
}

/// The network a project's instances get: its own, else the shared one, else with `claim` an unused one that is to be
/// a project's, which is then its own.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn for_project(conn: &mut Conn, project: &ProjectId, claim: bool) -> Result<Option<Network>, DbError> {
    let mut usable =
        many(conn, " and (project_id = ? or (project_id is null and vlan is null))", &[project.into()]).await?;
    if let Some(own) = usable.iter().position(|network| network.project.is_some()) {
        return Ok(Some(usable.swap_remove(own)));
    }
    if let Some(shared) = usable.into_iter().next() {
        return Ok(Some(shared));
    }
    if !claim {
        return Ok(None);
    }
    let Some(unused) = conn.optional(UNUSED, &[]).await? else { return Ok(None) };
    let id: i32 = unused.get("id")?;
    match conn.execute(ASSOCIATE, &[project.into(), id.into()]).await {
        Ok(0) => Err(DbError::Stale("network")),
        // Another launch of the same project claimed one just now.
        Err(DbError::Duplicate(Unique::NetworkProject)) => Err(DbError::Stale("network")),
        Ok(_) => get(conn, NetworkId::from_row(id)).await.map(Some),
        Err(error) => Err(error),
    }
}

/// Takes a project's networks away from it. Returns how many it had.
///
/// # Errors
/// [`DbError::InUse`] while an instance holds an address there: the next project would get its bridge.
pub async fn disassociate(conn: &mut Conn, project: &ProjectId) -> Result<u64, DbError> {
    let used = conn.one(USED_BY_PROJECT, &[project.into()]).await?.get::<i64>("n")?;
    if used > 0 {
        return Err(DbError::InUse("network"));
    }
    conn.execute(DISASSOCIATE, &[project.into()]).await
}

/// Makes `host` the one that serves every network that nobody ever served, and renews its own. Returns all that it serves
/// now. One that another served is [taken over](take_over()). A network that has a new server has a new epoch.
///
/// # Errors
/// [`DbError::Unavailable`]: then the host may go on until its lease is over.
pub async fn claim(conn: &mut Conn, host: &HostName, lease_seconds: i32) -> Result<Vec<Network>, DbError> {
    let args = [host.into(), host.into(), lease_seconds.into(), host.into()];
    conn.execute(CLAIM, &args).await?;
    on_host(conn, host).await
}

/// Says where the VPNs of the networks that `host` serves are reached, or only that of one, unless an administrator said it.
/// What another host said of itself is over. Returns all that it serves.
///
/// # Errors
/// [`DbError::Duplicate`] when another network has that address and port; [`DbError::Unavailable`].
pub async fn publish_vpns(
    conn: &mut Conn,
    host: &HostName,
    address: Ipv4Addr,
    only: Option<NetworkId>,
) -> Result<Vec<Network>, DbError> {
    conn.execute(PUBLISH_VPNS, &[address.into(), host.into(), host.into(), host.into(), only.into()]).await?;
    on_host(conn, host).await
}

/// Says which address the router of IPv6 has on the link of a network: that of the bridge of the host that serves it.
/// Nothing happens if that is another host by now.
///
/// # Errors
/// [`DbError::Unavailable`].
pub async fn publish_router(conn: &mut Conn, id: NetworkId, host: &HostName, router: Ipv6Addr) -> Result<(), DbError> {
    conn.execute(PUBLISH_ROUTER, &[router.to_string().into(), id.into(), host.into()]).await.map(drop)
}

/// The networks that `host` serves.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn on_host(conn: &mut Conn, host: &HostName) -> Result<Vec<Network>, DbError> {
    many(conn, " and host = ?", &[host.into()]).await
}

/// The networks in which instances of `host` have addresses, whatever state they are in.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn with_guests_on(conn: &mut Conn, host: &HostName) -> Result<BTreeSet<NetworkId>, DbError> {
    let rows = conn.all(WITH_GUESTS_ON, &[host.into()]).await?;
    rows.iter().map(|row| Ok(NetworkId::from_row(row.get("id")?))).collect()
}

/// Lets go of all networks, so that another host may serve them at once.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn release(conn: &mut Conn, host: &HostName) -> Result<u64, DbError> {
    conn.execute(LET_GO, &[host.into()]).await
}

/// Removes a network and its addresses. Call it inside a transaction.
///
/// # Errors
/// [`DbError::InUse`] while an instance holds an address, [`DbError::NotFound`] when there is none.
pub async fn delete(conn: &mut Conn, id: NetworkId) -> Result<(), DbError> {
    conn.optional(LOCK, &[id.into()]).await?.ok_or(DbError::NotFound("network"))?;
    conn.execute(DELETE_ADDRESSES, &[id.into()]).await?;
    let left = conn.one(LEFT, &[id.into()]).await?.get::<i64>("n")?;
    if left > 0 {
        return Err(DbError::InUse("network"));
    }
    conn.execute("update networks set deleted = true, deleted_at = {now} where id = ?", &[id.into()]).await?;
    Ok(())
}

async fn many(conn: &mut Conn, scope: &str, args: &[Value]) -> Result<Vec<Network>, DbError> {
    let rows = conn.all_text(&format!("{SELECT}{scope} order by id"), args).await?;
    rows.iter().map(network).collect()
}

fn network(row: &Row) -> Result<Network, DbError> {
    let vlan = row.get::<Option<i64>>("vlan")?;
    let corrupt = |value: i64| DbError::Corrupt { column: "vlan", value: value.to_string() };
    Ok(Network {
        id: NetworkId::from_row(row.get("id")?),
        label: row.get("label")?,
        cidr: row.parse("cidr")?,
        prefix6: row.parse_some("cidr_v6")?,
        router6: row.parse_some("ra_server")?,
        bridge: row.get("bridge")?,
        gateway: row.parse("gateway")?,
        dhcp_start: row.parse("dhcp_start")?,
        dns: row.parse_some::<Ipv4Addr>("dns")?,
        vlan: vlan.map(|tag| Tag::try_from(tag).map_err(|_| corrupt(tag))).transpose()?,
        vpn_private_address: row.parse_some("vpn_private_address")?,
        vpn_public_address: row.parse_some("vpn_public_address")?,
        vpn_public_port: row.narrow_some("vpn_public_port")?,
        project: row.parse_some("project_id")?,
        host: row.parse_some("host")?,
        epoch: row.get("epoch")?,
        multi_host: row.get("multi_host")?,
        vpn_host: row.parse_some("vpn_host")?,
    })
}

const INSERT: &str = "insert into networks (cidr, cidr_v6, netmask, broadcast, label, bridge, gateway, dhcp_start, dns, vlan, \
     vpn_private_address, vpn_public_port, injected, multi_host) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const SELECT: &str = "select id, label, cidr, cidr_v6, ra_server, bridge, gateway, dhcp_start, dns, vlan, vpn_private_address, \
     vpn_public_address, vpn_public_port, project_id, host, epoch, multi_host, vpn_host from networks where deleted = false";
const UNUSED: &str = "select id from networks where project_id is null and vlan is not null and deleted = false \
     order by id limit 1 {skip_locked}";
const ASSOCIATE: &str = "update networks set project_id = ?, updated_at = {now} where id = ? and project_id is null";
const USED_BY_PROJECT: &str = "select count(*) as n from fixed_ips f join networks n on n.id = f.network_id \
     where n.project_id = ? and n.deleted = false and f.instance_id is not null and f.deleted = false";
const DISASSOCIATE: &str =
    "update networks set project_id = null, updated_at = {now} where project_id = ? and deleted = false";
// MySQL assigns from left to right: the epoch is compared with the host that was.
const CLAIM: &str = "update networks set epoch = case when host = ? then epoch else epoch + 1 end, host = ?, \
     lease_until = {now+?}, updated_at = {now} where deleted = false and multi_host = false \
     and (host = ? or (host is null and epoch = 0))";
const PUBLISH_VPNS: &str = "update networks set vpn_public_address = ?, vpn_host = ?, updated_at = {now} where host = ? \
     and vpn_private_address is not null and (vpn_public_address is null or vpn_host <> ?) \
     and project_id is not null and id = coalesce(?, id) and deleted = false";
const PUBLISH_ROUTER: &str =
    "update networks set ra_server = ?, updated_at = {now} where id = ? and host = ? and deleted = false";
const WITH_GUESTS_ON: &str = "select distinct f.network_id as id from fixed_ips f \
     join instances i on i.id = f.instance_id where i.host = ? and i.deleted = false and f.deleted = false";
const LET_GO: &str = "update networks set lease_until = null, updated_at = {now} where host = ? and deleted = false";
const LOCK: &str = "select id from networks where id = ? and deleted = false {for_update}";
const DELETE_ADDRESSES: &str = "update fixed_ips set deleted = true, deleted_at = {now} \
     where network_id = ? and instance_id is null and deleted = false";
const LEFT: &str = "select count(*) as n from fixed_ips where network_id = ? and deleted = false";
