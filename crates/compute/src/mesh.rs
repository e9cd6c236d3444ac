//! Keeps this host's networks joined with those of all other hosts, under `VxlanManager`.

use async_trait::async_trait;
use nova_db::services::Addresses;
use nova_service::{Stop, Ticks, Turn};

use crate::host::Host;
use crate::problem::Problem;

/// Follows the hosts that there are until the daemon stops. What VXLANs lead to then stays.
pub(crate) async fn keep_joined(host: &Host, stop: Stop) {
    let joins = host.real.as_ref().is_some_and(|real| real.carrier.mesh().is_some());
    if !joins {
        return stop.cancelled().await;
    }
    Ticks::new("hosts", host.settings.tick).run(stop, Follow { host, addresses: Addresses::default() }).await;
}

struct Follow<'a> {
    host: &'a Host,
    addresses: Addresses,
}

#[async_trait]
impl Turn for Follow<'_> {
    type Error = Problem;

    async fn turn(&mut self) -> Result<(), Problem> {
        let Some(real) = &self.host.real else { return Ok(()) };
        let Some(mesh) = real.carrier.mesh() else { return Ok(()) };
        mesh.learn(&*real.links, self.addresses.follow(&self.host.db).await?).await.map_err(Problem::later)
    }
}
