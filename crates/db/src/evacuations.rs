//! What an administrator took from hosts that were gone. A host that comes back destroys what it has of it: the row proves
//! that the instance lives elsewhere, or nowhere.

use nova_types::{HostName, InstanceId};

use crate::conn::Conn;
use crate::error::DbError;
use crate::value::Value;

#[cfg(test)]
mod tests;

/// An instance that was taken from a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evacuation {
    /// The instance.
    pub instance: InstanceId,
    /// The epoch that it began with by it.
    pub epoch: i32,
    /// Whether the instance is over by now.
    pub over: bool,
}

/// Remembers that instances, with their new epochs, were taken from `host`.
pub(crate) async fn add(conn: &mut Conn, host: &HostName, taken: &[(InstanceId, i32)]) -> Result<(), DbError> {
    for some in taken.chunks(500) {
        let args: Vec<Value> =
            some.iter().flat_map(|(id, epoch)| [host.into(), (*id).into(), (*epoch).into()]).collect();
        let rows = vec!["(?, ?, ?)"; some.len()].join(", ");
        conn.execute_text(&format!("{ADD} values {rows} {{upsert:host, instance_id, live:epoch}}"), &args).await?;
    }
    Ok(())
}

/// What was taken from `host` and is not yet known to be gone from there, by instance.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn of_host(conn: &mut Conn, host: &HostName) -> Result<Vec<Evacuation>, DbError> {
    let rows = conn.all(OF_HOST, &[host.into()]).await?;
    rows.iter()
        .map(|row| {
            let instance = InstanceId::from_row(row.get("instance_id")?);
            Ok(Evacuation { instance, epoch: row.get("epoch")?, over: row.get::<Option<i32>>("living")?.is_none() })
        })
        .collect()
}

/// Forgets an evacuation: `host` has nothing of the instance any more. A later one, with another epoch, stays.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn done(conn: &mut Conn, host: &HostName, evacuation: &Evacuation) -> Result<(), DbError> {
    let args = [host.into(), evacuation.instance.into(), evacuation.epoch.into()];
    conn.execute(DONE, &args).await.map(|_| ())
}

const ADD: &str = "insert into evacuations (host, instance_id, epoch)";
const OF_HOST: &str = concat!(
    "select e.instance_id, e.epoch, i.id as living from evacuations e left join instances i on i.id = e.instance_id and ",
    crate::instances::holding!(),
    " where e.host = ? and e.deleted = false order by e.instance_id"
);
const DONE: &str = "update evacuations set deleted = true, deleted_at = {now} \
     where host = ? and instance_id = ? and epoch = ? and deleted = false";
