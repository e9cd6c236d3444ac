//! What changed of the addresses of networks: read by their host in each turn, whether they have ten guests or thousands.

use std::net::Ipv4Addr;

use nova_types::network::DhcpHost;
use nova_types::{InstanceId, NetworkId};
use time::OffsetDateTime;

use crate::conn::Conn;
use crate::error::DbError;
use crate::row::Row;

/// Addresses whose rows changed, and when they were like that by the database's clock; no time where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedAddresses {
    /// When they were read.
    pub at: Option<OffsetDateTime>,
    /// Each with who holds it now.
    pub addresses: Vec<(NetworkId, Ipv4Addr, Option<DhcpHost>)>,
}

/// The addresses of `networks` that were taken, given back, leased or given up since `since`. Goes through an index; ask
/// for a little more than was missed, for a transaction becomes visible only when it ends.
///
/// Whoever changes a thing that [`dhcp_hosts`](super::dhcp_hosts) tells of must set `updated_at` of the address.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn changed_since(
    conn: &mut Conn,
    networks: &[NetworkId],
    since: OffsetDateTime,
) -> Result<ChangedAddresses, DbError> {
    let ids: Vec<i32> = networks.iter().map(|network| network.row()).collect();
    let rows = conn.all(CHANGED, &[since.into(), ids.into()]).await?;
    let at = rows.first().map(|row| row.get("read_at")).transpose()?;
    Ok(ChangedAddresses { at, addresses: rows.iter().map(changed).collect::<Result<_, _>>()? })
}

fn changed(row: &Row) -> Result<(NetworkId, Ipv4Addr, Option<DhcpHost>), DbError> {
    let network = NetworkId::from_row(row.get("network_id")?);
    let address = row.parse("address")?;
    let Some(id) = row.get::<Option<i32>>("instance_id")? else { return Ok((network, address, None)) };
    let instance = InstanceId::from_row(id);
    let host = DhcpHost {
        instance,
        mac: row.parse("mac_address")?,
        address,
        hostname: instance.to_string(),
        leased: row.get("leased")?,
        updated_at: row.get("at")?,
    };
    Ok((network, address, Some(host)))
}

// The sign and the order keep SQLite, which has no statistics, from the index of all addresses of a network.
pub(crate) const CHANGED: &str = "select f.network_id, f.address, f.leased, f.updated_at as at, {now} as read_at, \
     i.id as instance_id, i.mac_address from fixed_ips f \
     left join instances i on i.id = f.instance_id and f.allocated = true and f.deleted = false \
     where f.updated_at >= ? and +f.network_id in (?..) order by f.updated_at";
