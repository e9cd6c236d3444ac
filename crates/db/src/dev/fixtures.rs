//! Rows that many tests need.

use std::sync::atomic::{AtomicU32, Ordering};

use nova_types::instance::NewInstances;
use nova_types::network::NetworkPlan;
use nova_types::service::{ComputeNode, Demand};
use nova_types::{HostName, ImageId, ImageKind, InstanceId, Mac, NetworkId, ProjectId, ReservationId};

use crate::error::DbError;
use crate::open::Db;
use crate::{compute_nodes, instances, networks, services, transaction};

/// What one instance of [`new_instances`] takes of its host.
pub const DEMAND: Demand = Demand { memory_mb: 512, vcpus: 1, local_gb: 0 };

/// A name of any kind.
///
/// # Panics
/// When it is none.
pub fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no such name"))
}

/// A launch of `count` instances by user `joe`; no two in a process share a hardware address.
#[must_use]
pub fn new_instances(project: &ProjectId, count: u32) -> NewInstances {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = NEXT.fetch_add(count.max(1), Ordering::SeqCst);
    let [_, a, b, c] = first.to_be_bytes();
    NewInstances {
        reservation: ReservationId::from_random([a / 36 % 36, a % 36, b / 36 % 36, b % 36, c / 36 % 36, c % 36, 0, 0]),
        user: name("joe"),
        project: project.clone(),
        image: ImageId::new(ImageKind::Machine, 1),
        kernel: None,
        ramdisk: None,
        flavor: "m1.tiny",
        memory_mb: DEMAND.memory_mb,
        vcpus: DEMAND.vcpus,
        local_gb: DEMAND.local_gb,
        key: None,
        user_data: None,
        availability_zone: None,
        display_name: None,
        display_description: None,
        groups: Vec::new(),
        client_token: None,
        macs: (first..first + count)
            .map(|n| {
                let [_, a, b, c] = n.to_be_bytes();
                Mac::of_guest([a, b, c])
            })
            .collect(),
    }
}

/// Launches `count` instances, without quota.
///
/// # Panics
/// When the database refuses.
pub async fn launch(db: &Db, project: &ProjectId, count: u32) -> Vec<InstanceId> {
    let new = new_instances(project, count);
    let stored = transaction!(db, |tx| { instances::insert_batch(tx, &new).await });
    stored.unwrap_or_else(|error| panic!("launching: {error:?}"))
}

/// A flat network `10.0.0.0/prefix` on bridge `br100`.
///
/// # Panics
/// When the database refuses.
pub async fn flat_network(db: &Db, prefix: u8) -> NetworkId {
    let plan = NetworkPlan {
        cidr: name(&format!("10.0.0.0/{prefix}")),
        prefix6: None,
        label: None,
        bridge: "br100".to_owned(),
        gateway: name("10.0.0.1"),
        dhcp_start: name("10.0.0.2"),
        dns: None,
        vlan: None,
        vpn_private_address: None,
        vpn_public_port: None,
        multi_host: false,
        reserved_bottom: 2,
        reserved_top: 1,
    };
    network(db, plan).await
}

/// Stores a network.
///
/// # Panics
/// When the database refuses.
pub async fn network(db: &Db, plan: NetworkPlan) -> NetworkId {
    let plans = [plan];
    let stored: Result<_, DbError> = transaction!(db, |tx| { networks::create(tx, &plans).await });
    stored.unwrap_or_else(|error| panic!("storing a network: {error:?}"))[0]
}

/// A compute host that reports, with room for `instances` of [`new_instances`].
///
/// # Panics
/// When the database refuses.
pub async fn node(db: &Db, host: &HostName, instances: u32) {
    let node = ComputeNode {
        host: host.clone(),
        availability_zone: "nova".to_owned(),
        memory_mb: DEMAND.memory_mb * instances,
        memory_mb_used: 0,
        vcpus: DEMAND.vcpus * instances,
        vcpus_used: 0,
        local_gb: 100,
        local_gb_used: 0,
        hypervisor_type: "simulated".to_owned(),
        eligible: true,
    };
    let stored: Result<(), DbError> = transaction!(db, |tx| {
        services::heartbeat(tx, &node.host, "nova-compute", "nova", true).await?;
        compute_nodes::upsert(tx, &node).await
    });
    stored.unwrap_or_else(|error| panic!("storing a compute node: {error:?}"));
}
