//! What an administrator changes of a network: whose it is, who serves it, where its VPN is reached.

use std::net::Ipv4Addr;

use nova_types::{HostName, NetworkId, ProjectId};

use crate::conn::Conn;
use crate::error::DbError;

/// Gives a network to a project, or with `None` to nobody: then, with a VLAN, to the next project that needs one, and
/// without, to all. Call it inside a transaction.
///
/// # Errors
/// [`DbError::InUse`] while an instance of another project holds an address there, [`DbError::Duplicate`] where the
/// project has a network, [`DbError::NotFound`] when there is none.
pub async fn set_project(conn: &mut Conn, id: NetworkId, project: Option<&ProjectId>) -> Result<(), DbError> {
    conn.optional(LOCK, &[id.into()]).await?.ok_or(DbError::NotFound("network"))?;
    let used = match project {
        Some(project) => conn.one(USED_BY_OTHERS, &[id.into(), project.into()]).await?,
        None => conn.one(USED, &[id.into()]).await?,
    };
    if used.get::<i64>("n")? > 0 {
        return Err(DbError::InUse("network"));
    }
    conn.execute(SET_PROJECT, &[project.into(), id.into()]).await?;
    Ok(())
}

/// Gives a network to the host that is to serve it, which has `lease_seconds` to begin, or with `None` to the first
/// that claims it. The host that served it stops when it next claims.
///
/// # Errors
/// [`DbError::NotFound`] when there is none.
pub async fn set_host(
    conn: &mut Conn,
    id: NetworkId,
    host: Option<&HostName>,
    lease_seconds: i32,
) -> Result<(), DbError> {
    let changed = match host {
        Some(host) => {
            let args = [host.into(), host.into(), lease_seconds.into(), id.into()];
            conn.execute(SET_HOST, &args).await?
        }
        None => conn.execute(NO_HOST, &[id.into()]).await?,
    };
    if changed == 0 { Err(DbError::NotFound("network")) } else { Ok(()) }
}

/// Where the VPN of a project is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// The project.
    pub project: ProjectId,
    /// The public address, once one was set.
    pub address: Option<Ipv4Addr>,
    /// The public port.
    pub port: Option<u16>,
    /// The address kept for it in the project's network.
    pub private_address: Option<Ipv4Addr>,
}

/// The VPNs of all projects that have a network of their own.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn vpns(conn: &mut Conn) -> Result<Vec<Vpn>, DbError> {
    let rows = conn.all(VPNS, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Vpn {
                project: row.parse("project_id")?,
                address: row.parse_some("vpn_public_address")?,
                port: row.narrow_some("vpn_public_port")?,
                private_address: row.parse_some("vpn_private_address")?,
            })
        })
        .collect()
}

/// Sets where a project's VPN is reached.
///
/// # Errors
/// [`DbError::NotFound`] when the project has no network of its own, [`DbError::Duplicate`] where another VPN is there.
pub async fn set_vpn(conn: &mut Conn, project: &ProjectId, address: Ipv4Addr, port: u16) -> Result<(), DbError> {
    let args = [address.into(), i32::from(port).into(), project.into()];
    if conn.execute(SET_VPN, &args).await? == 0 { Err(DbError::NotFound("network")) } else { Ok(()) }
}

const LOCK: &str = "select id from networks where id = ? and deleted = false {for_update}";
const USED: &str =
    "select count(*) as n from fixed_ips where network_id = ? and instance_id is not null and deleted = false";
const USED_BY_OTHERS: &str = "select count(*) as n from fixed_ips f join instances i on i.id = f.instance_id \
     where f.network_id = ? and f.deleted = false and i.project_id <> ?";
const SET_PROJECT: &str = "update networks set project_id = ?, updated_at = {now} where id = ?";
// MySQL assigns from left to right: the epoch is compared with the host that was.
const SET_HOST: &str = "update networks set epoch = case when host = ? then epoch else epoch + 1 end, host = ?, \
     lease_until = {now+?}, updated_at = {now} where id = ? and deleted = false";
const NO_HOST: &str =
    "update networks set host = null, lease_until = null, updated_at = {now} where id = ? and deleted = false";
const VPNS: &str = "select project_id, vpn_public_address, vpn_public_port, vpn_private_address from networks \
     where project_id is not null and deleted = false order by project_id";
const SET_VPN: &str = "update networks set vpn_public_address = ?, vpn_public_port = ?, vpn_host = null, updated_at = {now} \
     where project_id = ? and deleted = false";
