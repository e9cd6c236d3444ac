//! Making a plan true: one transaction for all of it.

use std::collections::{BTreeMap, BTreeSet};

use nova_db::instances::Due;
use nova_db::{Conn, Db, DbError, compute_nodes, fixed_ips, instances, networks, transaction};
use nova_failpoint::{Point, hit};
use nova_types::instance::Instance;
use nova_types::network::Network;
use nova_types::service::Demand;
use nova_types::{HostName, InstanceId, ProjectId};

/// Instances that are on their way to a host.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Those that still waited for a host when it came to it.
    pub(crate) instances: Vec<(HostName, Vec<InstanceId>)>,
    /// Hosts whose share was left out, because others were faster.
    pub(crate) full: Vec<HostName>,
    /// The networks their addresses are from.
    pub(crate) networks: Vec<Network>,
}

impl Placed {
    /// Nothing, for no host had room.
    pub(crate) fn full(shares: &[Share<'_>]) -> Self {
        Self { full: shares.iter().map(|(host, _)| (*host).clone()).collect(), ..Self::default() }
    }
}

/// A host, and what it is to get.
pub(crate) type Share<'a> = (&'a HostName, Vec<&'a Due>);

/// Why some instances did not get to a host. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Others were faster: the only host has no room any more.
    #[error("the host has no room left")]
    Full,
    /// There are not addresses enough; the others could have theirs.
    #[error("{} instances get no address", without.len())]
    NoAddress {
        /// Those that must go without.
        without: Vec<InstanceId>,
        /// Why.
        #[source]
        lack: Lack,
    },
    /// The rows cannot be had.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why there is no address for an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lack {
    /// There is no network for the project.
    #[error("there is no network for project {0}: an administrator can make one with nova-manage network create.")]
    Network(ProjectId),
    /// All are taken.
    #[error("The network has no free address.")]
    Address,
}

/// What an instance takes of a host.
pub(crate) const fn demand(instance: &Instance) -> Demand {
    Demand { memory_mb: instance.memory_mb, vcpus: instance.vcpus, local_gb: instance.local_gb }
}

/// Gives each host its share: rows, capacity and addresses, in one transaction, all or nothing. Instances that do not wait
/// any more, or that another scheduler is placing, are left out; so are hosts that have no room left.
pub(crate) async fn place(db: &Db, shares: &[Share<'_>]) -> Result<Placed, PlaceError> {
    transaction!(db, |tx| -> PlaceError {
        let placed = match shares {
            [only] => place_on_one(tx, only).await?,
            _ => place_on_several(tx, shares).await?,
        };
        hit(Point::LaunchPlacing);
        Ok(placed)
    })
}

/// The usual case, in few statements.
async fn place_on_one(tx: &mut Conn, (host, batch): &Share<'_>) -> Result<Placed, PlaceError> {
    let ids: Vec<InstanceId> = batch.iter().map(|due| due.instance.id).collect();
    let moved: BTreeSet<InstanceId> = instances::place(tx, &ids, host).await?.into_iter().collect();
    let moved = these(batch, &moved);
    if moved.is_empty() {
        return Ok(Placed::default());
    }
    if !compute_nodes::claim(tx, host, sum(&moved)).await? {
        return Err(PlaceError::Full);
    }
    let networks = addresses(tx, &moved).await?;
    let ids = moved.iter().map(|due| due.instance.id).collect();
    Ok(Placed { instances: vec![((*host).clone(), ids)], full: Vec::new(), networks })
}

async fn place_on_several(tx: &mut Conn, shares: &[Share<'_>]) -> Result<Placed, PlaceError> {
    let ids: Vec<InstanceId> = shares.iter().flat_map(|(_, batch)| batch).map(|due| due.instance.id).collect();
    let waiting: BTreeSet<InstanceId> = instances::waiting(tx, &ids).await?.into_iter().collect();
    let shares: Vec<(&HostName, Vec<&Due>)> =
        shares.iter().map(|(host, batch)| (*host, these(batch, &waiting))).collect();
    let shares: Vec<_> = shares.into_iter().filter(|(_, batch)| !batch.is_empty()).collect();
    if shares.is_empty() {
        return Ok(Placed::default());
    }
    let wanted: Vec<(&HostName, Demand)> = shares.iter().map(|(host, batch)| (*host, sum(batch))).collect();
    let claimed: BTreeSet<HostName> = compute_nodes::claim_all(tx, &wanted).await?.into_iter().collect();
    let (given, full): (Vec<_>, Vec<_>) = shares.into_iter().partition(|(host, _)| claimed.contains(*host));
    let rows: Vec<(InstanceId, &HostName)> =
        given.iter().flat_map(|(host, batch)| batch.iter().map(|due| (due.instance.id, *host))).collect();
    instances::place_all(tx, &rows).await?;
    let mut all: Vec<&Due> = given.iter().flat_map(|(_, batch)| batch.iter().copied()).collect();
    // Where addresses are short, several schedulers that look at the same instances must not each refuse others.
    all.sort_unstable_by_key(|due| due.instance.id);
    let networks = addresses(tx, &all).await?;
    let ids = |batch: Vec<&Due>| batch.into_iter().map(|due| due.instance.id).collect();
    Ok(Placed {
        instances: given.into_iter().map(|(host, batch)| (host.clone(), ids(batch))).collect(),
        full: full.into_iter().map(|(host, _)| host.clone()).collect(),
        networks,
    })
}

fn these<'a>(batch: &[&'a Due], ids: &BTreeSet<InstanceId>) -> Vec<&'a Due> {
    batch.iter().copied().filter(|due| ids.contains(&due.instance.id)).collect()
}

fn sum(batch: &[&Due]) -> Demand {
    batch.iter().map(|due| demand(&due.instance)).fold(Demand::default(), |sum, one| Demand {
        memory_mb: sum.memory_mb.saturating_add(one.memory_mb),
        vcpus: sum.vcpus.saturating_add(one.vcpus),
        local_gb: sum.local_gb.saturating_add(one.local_gb),
    })
}

/// Takes an address from its project's network for each instance that has none, and returns those networks. One that
/// was on another host before keeps its own, and a VPN has the one that its network keeps for it.
async fn addresses(conn: &mut Conn, batch: &[&Due]) -> Result<Vec<Network>, PlaceError> {
    // In the order of projects, so that two who take from several networks do not wait for each other in a circle.
    let mut projects: BTreeMap<&ProjectId, Vec<InstanceId>> = BTreeMap::new();
    for Due { instance, .. } in batch.iter().filter(|due| !due.has_address) {
        projects.entry(&instance.project).or_default().push(instance.id);
    }
    let mut used: Vec<Network> = Vec::new();
    for (project, ids) in projects {
        let Some(network) = networks::for_project(conn, project, true).await? else {
            return Err(PlaceError::NoAddress { without: ids, lack: Lack::Network(project.clone()) });
        };
        match fixed_ips::take(conn, network.id, &ids).await {
            Err(DbError::NoMoreAddresses { free, .. }) => {
                let without = ids.get(free..).unwrap_or_default().to_vec();
                return Err(PlaceError::NoAddress { without, lack: Lack::Address });
            }
            taken => taken?,
        };
        if used.iter().all(|seen| seen.id != network.id) {
            used.push(network);
        }
    }
    Ok(used)
}
