//! Fixed addresses: free, held by an instance, or in quarantine until the lease of the last holder is over.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use nova_types::network::DhcpHost;
use nova_types::{HostName, InstanceId, Mac, NetworkId, ProjectId};
use time::OffsetDateTime;

use crate::conn::Conn;
use crate::error::DbError;
use crate::row::Row;
use crate::security_groups::touch_members_of;
use crate::value::{Value, pieces};

pub(crate) mod changes;
#[cfg(test)]
mod tests;

pub use changes::{ChangedAddresses, changed_since};

/// A fixed address, for `nova-manage fixed list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedIp {
    /// The address.
    pub address: Ipv4Addr,
    /// The network it is from.
    pub network: NetworkId,
    /// Whether it is never given out.
    pub reserved: bool,
    /// Whether DHCP has handed it out.
    pub leased: bool,
    /// Nobody gets it before.
    pub free_after: Option<OffsetDateTime>,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// The host that has it itself, as the router of its guests.
    pub router: Option<HostName>,
}

/// The instance that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The instance.
    pub instance: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Its hardware address.
    pub mac: Mac,
    /// Its host, once placed.
    pub host: Option<HostName>,
}

/// Takes an address for each instance, the lowest free ones first; all or none.
///
/// Call it inside a transaction. Writers pass each other by; nobody gets an address twice.
///
/// # Errors
/// [`DbError::NoMoreAddresses`] when the network has not that many.
pub async fn take(
    conn: &mut Conn,
    network: NetworkId,
    instances: &[InstanceId],
) -> Result<Vec<(InstanceId, Ipv4Addr)>, DbError> {
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = i32::try_from(instances.len()).unwrap_or(i32::MAX);
    let args = [network.into(), wanted.into()];
    let mut free = conn.all(FREE, &args).await?;
    if free.len() < instances.len() {
        // What others have locked may come free again; wait for them before saying that there is none.
        free = conn.all(FREE_WAITING, &args).await?;
    }
    if free.len() < instances.len() {
        let (wanted, free) = (instances.len(), free.len());
        return Err(DbError::NoMoreAddresses { network: network.row(), wanted, free });
    }
    for (some, rows) in pieces(instances, 256).zip(pieces(&free[..instances.len()], 256)) {
        hold(conn, some, rows).await?;
    }
    // Hosts whose rules let these instances' groups in must let the new addresses in.
    touch_members_of(conn, instances).await?;
    instances.iter().zip(&free).map(|(instance, row)| Ok((*instance, row.parse("address")?))).collect()
}

/// Takes the one address that a network keeps for its VPN, for the instance that is the VPN: false when another has it, or
/// had it until a moment ago. It stays reserved, so nobody else gets it afterwards either.
///
/// Call it inside the transaction that stores the instance: the scheduler then finds that it has an address.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn take_kept(
    conn: &mut Conn,
    network: NetworkId,
    address: Ipv4Addr,
    instance: InstanceId,
) -> Result<bool, DbError> {
    if conn.execute(TAKE_KEPT, &[instance.into(), network.into(), address.into()]).await? == 0 {
        return Ok(false);
    }
    touch_members_of(conn, &[instance]).await?;
    Ok(true)
}

async fn hold(conn: &mut Conn, instances: &[InstanceId], rows: &[Row]) -> Result<(), DbError> {
    let mut cases = String::new();
    let mut args: Vec<Value> = Vec::new();
    let mut ids: Vec<i32> = Vec::new();
    for (instance, row) in instances.iter().zip(rows) {
        let id: i32 = row.get("id")?;
        ids.push(id);
        let _ = write!(cases, " when ? then ?");
        args.extend([id.into(), (*instance).into()]);
    }
    args.push(ids.into());
    let sql = format!(
        "update fixed_ips set instance_id = case id{cases} end, allocated = true, leased = false, free_after = null, \
         updated_at = {{now}} where id in (?..) and instance_id is null and deleted = false"
    );
    let held = conn.execute_text(&sql, &args).await?;
    if held == instances.len() as u64 { Ok(()) } else { Err(DbError::Stale("fixed address")) }
}

/// Takes an instance's address away; nobody gets it for `quarantine_seconds`. A floating address on it is unbound.
/// Does nothing when there is none.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn release(
    conn: &mut Conn,
    instance: InstanceId,
    quarantine_seconds: i32,
) -> Result<Option<(Ipv4Addr, NetworkId)>, DbError> {
    let Some(row) = conn.optional(OF_INSTANCE, &[instance.into()]).await? else { return Ok(None) };
    let id: i32 = row.get("id")?;
    touch_members_of(conn, &[instance]).await?;
    conn.execute(RELEASE, &[quarantine_seconds.into(), id.into(), instance.into()]).await?;
    // Afterwards, for whoever was binding one when we came has the row that we just waited for.
    conn.execute(UNBIND, &[id.into()]).await?;
    place(&row).map(Some)
}

/// The address an instance holds.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn of_instance(conn: &mut Conn, instance: InstanceId) -> Result<Option<(Ipv4Addr, NetworkId)>, DbError> {
    conn.optional(OF_INSTANCE, &[instance.into()]).await?.map(|row| place(&row)).transpose()
}

/// The instance that holds an address: whose metadata is asked for from there.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn by_address(conn: &mut Conn, address: Ipv4Addr) -> Result<Option<(InstanceId, NetworkId)>, DbError> {
    let row = conn.optional(BY_ADDRESS, &[address.into()]).await?;
    row.map(|row| Ok((InstanceId::from_row(row.get("instance_id")?), NetworkId::from_row(row.get("network_id")?))))
        .transpose()
}

/// What the DHCP server of a network hands out, by address row.
///
/// # Errors
/// [`DbError::Unavailable`]: then the server keeps what it has.
pub async fn dhcp_hosts(conn: &mut Conn, network: NetworkId) -> Result<Vec<DhcpHost>, DbError> {
    conn.all(DHCP_HOSTS, &[network.into()]).await?.iter().map(dhcp_host).collect()
}

fn dhcp_host(row: &Row) -> Result<DhcpHost, DbError> {
    let instance = InstanceId::from_row(row.get("instance_id")?);
    Ok(DhcpHost {
        instance,
        mac: row.parse("mac_address")?,
        address: row.parse("address")?,
        hostname: instance.to_string(),
        leased: row.get("leased")?,
        updated_at: row.get("at")?,
    })
}

/// Those of them that are on `host`: where each host serves its own guests, no other may answer them.
///
/// # Errors
/// [`DbError::Unavailable`]: then the server keeps what it has.
pub async fn dhcp_hosts_on(conn: &mut Conn, network: NetworkId, host: &HostName) -> Result<Vec<DhcpHost>, DbError> {
    conn.all(DHCP_HOSTS_ON, &[network.into(), host.into()]).await?.iter().map(dhcp_host).collect()
}

/// DHCP has handed out or renewed a lease. False when `mac` does not hold the address.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn leased(conn: &mut Conn, address: Ipv4Addr, mac: Mac) -> Result<bool, DbError> {
    conn.execute(LEASED, &[address.into(), mac.into()]).await.map(|rows| rows > 0)
}

/// A lease ran out or was given back. False when `mac` does not hold the address: an old guest's, and of no interest.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn lease_ended(conn: &mut Conn, address: Ipv4Addr, mac: Mac) -> Result<bool, DbError> {
    conn.execute(LEASE_ENDED, &[address.into(), mac.into()]).await.map(|rows| rows > 0)
}

/// Keeps an address from being given out, or no longer does.
///
/// # Errors
/// [`DbError::NotFound`] for no address of ours.
pub async fn reserve(conn: &mut Conn, address: Ipv4Addr, reserved: bool) -> Result<(), DbError> {
    match conn.execute(RESERVE, &[reserved.into(), address.into()]).await? {
        0 => Err(DbError::NotFound("fixed address")),
        _ => Ok(()),
    }
}

/// All addresses, or those of one network, in the order they were made.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn list(conn: &mut Conn, network: Option<NetworkId>) -> Result<Vec<FixedIp>, DbError> {
    let rows = match network {
        Some(network) => conn.all(LIST_OF, &[network.into()]).await?,
        None => conn.all(LIST, &[]).await?,
    };
    rows.iter().map(fixed_ip).collect()
}

fn fixed_ip(row: &Row) -> Result<FixedIp, DbError> {
    let holder = match row.get::<Option<i32>>("instance_id")? {
        None => None,
        Some(id) => Some(Holder {
            instance: InstanceId::from_row(id),
            project: row.parse("project_id")?,
            mac: row.parse("mac_address")?,
            host: row.parse_some("host")?,
        }),
    };
    Ok(FixedIp {
        address: row.parse("address")?,
        network: NetworkId::from_row(row.get("network_id")?),
        reserved: row.get("reserved")?,
        leased: row.get("leased")?,
        free_after: row.get("free_after")?,
        holder,
        router: row.parse_some("router")?,
    })
}

fn place(row: &Row) -> Result<(Ipv4Addr, NetworkId), DbError> {
    Ok((row.parse("address")?, NetworkId::from_row(row.get("network_id")?)))
}

macro_rules! free {
    () => {
        "select id, address from fixed_ips where network_id = ? and instance_id is null and reserved = false \
         and host is null and deleted = false and (free_after is null or free_after <= {now}) order by id limit ? "
    };
}
macro_rules! list {
    () => {
        "select f.address, f.network_id, f.reserved, f.leased, f.free_after, f.instance_id, i.project_id, \
         i.mac_address, i.host, f.host as router from fixed_ips f left join instances i on i.id = f.instance_id where f.deleted = false"
    };
}

const LIST: &str = concat!(list!(), " order by f.id");
const LIST_OF: &str = concat!(list!(), " and f.network_id = ? order by f.id");
pub(crate) const FREE: &str = concat!(free!(), "{skip_locked}");
pub(crate) const FREE_WAITING: &str = concat!(free!(), "{for_update}");
const TAKE_KEPT: &str = "update fixed_ips set instance_id = ?, allocated = true, leased = false, free_after = null, \
     updated_at = {now} where network_id = ? and address = ? and reserved = true and instance_id is null \
     and host is null and deleted = false and (free_after is null or free_after <= {now})";
pub(crate) const OF_INSTANCE: &str =
    "select id, address, network_id from fixed_ips where instance_id = ? and deleted = false";
pub(crate) const BY_ADDRESS: &str = "select f.instance_id, f.network_id from fixed_ips f join instances i on i.id = f.instance_id \
     where f.address = ? and f.allocated = true and f.deleted = false and i.deleted = false";
const UNBIND: &str =
    "update floating_ips set fixed_ip_id = null, updated_at = {now} where fixed_ip_id = ? and deleted = false";
const RELEASE: &str = "update fixed_ips set instance_id = null, allocated = false, leased = false, \
     free_after = {now+?}, updated_at = {now} where id = ? and instance_id = ?";
macro_rules! dhcp_hosts {
    ($scope:literal) => {
        concat!(
            "select f.instance_id, i.mac_address, f.address, f.leased, coalesce(f.updated_at, f.created_at) as at \
             from fixed_ips f join instances i on i.id = f.instance_id \
             where f.network_id = ? and f.allocated = true and f.deleted = false",
            $scope,
            " order by f.id"
        )
    };
}
pub(crate) const DHCP_HOSTS: &str = dhcp_hosts!("");
const DHCP_HOSTS_ON: &str = dhcp_hosts!(" and i.host = ?");
const LEASED: &str = "update fixed_ips set leased = true, updated_at = {now} where address = ? and deleted = false \
     and instance_id = (select i.id from instances i where i.mac_address = ? and i.deleted = false)";
const LEASE_ENDED: &str = "update fixed_ips set leased = false, updated_at = {now} where address = ? and deleted = false \
     and instance_id = (select i.id from instances i where i.mac_address = ? and i.deleted = false)";
const RESERVE: &str = "update fixed_ips set reserved = ?, updated_at = {now} where address = ? and deleted = false";
