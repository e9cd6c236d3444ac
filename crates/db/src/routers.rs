//! Networks with a router on each host (`--multi_host`): the address that each host has there, as the gateway of its own
//! guests. It is the host's in the rows before it is on its bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use nova_types::network::Network;
use nova_types::{HostName, NetworkId};

use crate::conn::Conn;
use crate::error::{DbError, Unique};
use crate::fixed_ips;

#[cfg(test)]
mod tests;

/// A host's own address in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// The network.
    pub network: NetworkId,
    /// The host.
    pub host: HostName,
    /// Its address there.
    pub address: Ipv4Addr,
}

/// The addresses of all hosts, in the order of networks and addresses.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn list(conn: &mut Conn) -> Result<Vec<Router>, DbError> {
    let rows = conn.all(LIST, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Router {
                network: NetworkId::from_row(row.get("network_id")?),
                host: row.parse("host")?,
                address: row.parse("address")?,
            })
        })
        .collect()
}

/// The address of `host` in each network where it has one.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn of_host(conn: &mut Conn, host: &HostName) -> Result<BTreeMap<NetworkId, Ipv4Addr>, DbError> {
    let rows = conn.all(OF_HOST, &[host.into()]).await?;
    rows.iter().map(|row| Ok((NetworkId::from_row(row.get("network_id")?), row.parse("address")?))).collect()
}

/// The networks with a router on each host that have guests on `host`.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn wanted(conn: &mut Conn, host: &HostName) -> Result<BTreeSet<NetworkId>, DbError> {
    let rows = conn.all(WANTED, &[host.into()]).await?;
    rows.iter().map(|row| Ok(NetworkId::from_row(row.get("network_id")?))).collect()
}

/// Gives `host` an address in a network, the one that it has if it has one. Call it inside a transaction.
///
/// # Errors
/// [`DbError::NoMoreAddresses`] when none is free, [`DbError::Stale`] when the same host takes one at this moment.
pub async fn take(conn: &mut Conn, network: NetworkId, host: &HostName) -> Result<Ipv4Addr, DbError> {
    if let Some(row) = conn.optional(ONE, &[network.into(), host.into()]).await? {
        return row.parse("address");
    }
    let args = [network.into(), 1.into()];
    let mut free = conn.optional(fixed_ips::FREE, &args).await?;
    if free.is_none() {
        // What others have locked may come free again; wait for them before saying that there is none.
        free = conn.optional(fixed_ips::FREE_WAITING, &args).await?;
    }
    let none = DbError::NoMoreAddresses { network: network.row(), wanted: 1, free: 0 };
    let free = free.ok_or(none)?;
    match conn.execute(TAKE, &[host.into(), free.get::<i32>("id")?.into()]).await {
        Ok(0) | Err(DbError::Duplicate(Unique::FixedHost)) => Err(DbError::Stale("fixed address")),
        Ok(_) => free.parse("address"),
        Err(error) => Err(error),
    }
}

/// Which of `addresses` are ones that guests and hosts get, of networks with a router on each host.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn among(conn: &mut Conn, addresses: &[Ipv4Addr]) -> Result<BTreeSet<Ipv4Addr>, DbError> {
    let mut found = BTreeSet::new();
    for some in addresses.chunks(1_000) {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        for row in conn.all(AMONG, &[texts.into()]).await? {
            found.insert(row.parse("address")?);
        }
    }
    Ok(found)
}

/// Takes all its addresses from a host that is gone; nobody gets them for `quarantine_seconds`. Returns how many it had.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn release(conn: &mut Conn, host: &HostName, quarantine_seconds: i32) -> Result<u64, DbError> {
    conn.execute(RELEASE, &[quarantine_seconds.into(), host.into()]).await
}

/// Shows networks as they are on `host`: one that has guests there is served there, and its gateway is the host's own
/// address. Those that the host takes no part in stay as they are, with the host that serves them or none.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn seen_from(conn: &mut Conn, host: &HostName, networks: &mut [Network]) -> Result<(), DbError> {
    if networks.iter().all(|network| !network.multi_host) {
        return Ok(());
    }
    let (wanted, own) = (wanted(conn, host).await?, of_host(conn, host).await?);
    for network in networks.iter_mut().filter(|network| network.multi_host && wanted.contains(&network.id)) {
        if let Some(address) = own.get(&network.id) {
            (network.gateway, network.host) = (*address, Some(host.clone()));
        }
    }
    Ok(())
}

const LIST: &str = "select network_id, host, address from fixed_ips where host is not null and deleted = false \
     order by network_id, id";
const OF_HOST: &str = "select network_id, address from fixed_ips where host = ? and deleted = false";
const ONE: &str = "select address from fixed_ips where network_id = ? and host = ? and deleted = false";
const WANTED: &str = "select distinct f.network_id from instances i join fixed_ips f on f.instance_id = i.id \
     join networks n on n.id = f.network_id where i.host = ? and i.deleted = false and f.deleted = false \
     and n.multi_host = true and n.deleted = false";
const AMONG: &str = "select f.address from fixed_ips f join networks n on n.id = f.network_id \
     where f.address in (?..) and n.multi_host = true and f.reserved = false and f.deleted = false";
const TAKE: &str = "update fixed_ips set host = ?, leased = false, free_after = null, updated_at = {now} where id = ? \
     and instance_id is null and host is null and deleted = false";
const RELEASE: &str = "update fixed_ips set host = null, free_after = {now+?}, updated_at = {now} \
     where host = ? and deleted = false";
