//! Networks whose host fell silent: another may take them over, once it made sure that the old one serves them no more.

use nova_types::network::Network;
use nova_types::{HostName, NetworkId};

use super::{many, on_host};
use crate::conn::Conn;
use crate::error::DbError;

/// The networks that were another's than `host`'s, and are free to be taken over: their lease is over, or they were taken
/// from their host.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn abandoned(conn: &mut Conn, host: &HostName) -> Result<Vec<Network>, DbError> {
    many(conn, ABANDONED, &[host.into()]).await
}

/// Makes `host` the one that serves those of `networks` that are still abandoned. Returns all that it serves now.
///
/// # Errors
/// [`DbError::Unavailable`].
pub async fn take_over(
    conn: &mut Conn,
    host: &HostName,
    networks: &[NetworkId],
    lease_seconds: i32,
) -> Result<Vec<Network>, DbError> {
    let ids: Vec<i32> = networks.iter().map(|id| id.row()).collect();
    conn.execute(TAKE_OVER, &[host.into(), lease_seconds.into(), ids.into()]).await?;
    on_host(conn, host).await
}

const ABANDONED: &str = " and multi_host = false and ((host is null and epoch > 0) \
     or (host <> ? and (lease_until is null or lease_until < {now})))";
const TAKE_OVER: &str = "update networks set epoch = epoch + 1, host = ?, lease_until = {now+?}, updated_at = {now} \
     where id in (?..) and deleted = false and multi_host = false \
     and (host is null or lease_until is null or lease_until < {now})";
