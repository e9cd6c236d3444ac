//! Making a part of the plan true: one transaction for each host.

use std::collections::BTreeMap;

use nova_db::{Conn, Db, DbError, compute_nodes, fixed_ips, instances, networks, transaction};
use nova_types::instance::Instance;
use nova_types::network::Network;
use nova_types::service::Demand;
use nova_types::{HostName, InstanceId, ProjectId};

/// Instances that are on their way to a host.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Those that still waited for a host when it came to it.
    pub(crate) instances: Vec<InstanceId>,
    /// The networks their addresses are from.
    pub(crate) networks: Vec<Network>,
}

/// Why some instances did not get to a host. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Others were faster: the host has no room any more.
    #[error("the host has no room left")]
    Full,
    /// There is no network for the project.
    #[error("there is no network for project {0}")]
    NoNetwork(ProjectId),
    /// The rows cannot be had, or the network has too few addresses.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What an instance takes of a host.
pub(crate) const fn demand(instance: &Instance) -> Demand {
    Demand { memory_mb: instance.memory_mb, vcpus: instance.vcpus, local_gb: instance.local_gb }
}

/// Gives `batch` to `host`: rows, capacity and addresses, all or nothing. Instances that do not wait any more are
/// left out.
pub(crate) async fn place(db: &Db, host: &HostName, batch: &[&Instance]) -> Result<Placed, PlaceError> {
    let ids: Vec<InstanceId> = batch.iter().map(|instance| instance.id).collect();
    transaction!(db, |tx| -> PlaceError {
        let moved = instances::place(tx, &ids, host).await?;
        let moved: Vec<&Instance> = batch.iter().copied().filter(|instance| moved.contains(&instance.id)).collect();
        if moved.is_empty() {
            return Ok(Placed::default());
        }
        if !compute_nodes::claim(tx, host, sum(&moved)).await? {
            return Err(PlaceError::Full);
        }
        let networks = addresses(tx, &moved).await?;
        Ok(Placed { instances: moved.iter().map(|instance| instance.id).collect(), networks })
    })
}

fn sum(batch: &[&Instance]) -> Demand {
    batch.iter().map(|instance| demand(instance)).fold(Demand::default(), |sum, one| Demand {
        memory_mb: sum.memory_mb.saturating_add(one.memory_mb),
        vcpus: sum.vcpus.saturating_add(one.vcpus),
        local_gb: sum.local_gb.saturating_add(one.local_gb),
    })
}

/// Takes an address from its project's network for each instance that has none, and returns those networks.
async fn addresses(conn: &mut Conn, batch: &[&Instance]) -> Result<Vec<Network>, PlaceError> {
    // In the order of projects, so that two who take from several networks do not wait for each other in a circle.
    let mut projects: BTreeMap<&ProjectId, Vec<InstanceId>> = BTreeMap::new();
    for instance in batch {
        // One that was on another host keeps its address.
        if instance.epoch > 0 && fixed_ips::of_instance(conn, instance.id).await?.is_some() {
            continue;
        }
        projects.entry(&instance.project).or_default().push(instance.id);
    }
    let mut used: Vec<Network> = Vec::new();
    for (project, ids) in projects {
        let network = networks::for_project(conn, project, true).await?;
        let network = network.ok_or_else(|| PlaceError::NoNetwork(project.clone()))?;
        fixed_ips::take(conn, network.id, &ids).await?;
        if used.iter().all(|seen| seen.id != network.id) {
            used.push(network);
        }
    }
    Ok(used)
}
