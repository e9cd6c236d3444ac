//! The queries of `check`, on every engine.

use nova_types::{HostName, ProjectId};

use super::run;
use crate::dev::{self, fixtures};
use crate::open::Db;
use crate::{fixed_ips, instances, transaction};

/// A fault, and the invariant that must notice it. Unique keys forbid I1, I7, I8 and I9 while they stand.
const FAULTS: &[(&str, &str)] = &[
    ("I2", "update instances set vm_state = 'terminated', task_state = null where id = 1"),
    ("I2", "update instances set deleted = true where id = 1"),
    ("I3", "update fixed_ips set allocated = true where address = '10.0.0.9'"),
    ("I4", "update instances set vm_state = 'running' where id = 2"),
    ("I5", "update networks set project_id = 'other'"),
    (
        "I6",
        "insert into floating_ips (address, fixed_ip_id, project_id) select '192.0.2.1', id, 'other' from fixed_ips where instance_id = 1",
    ),
    ("I10", "update instances set updated_at = '2011-02-03 00:00:00.000000' where id = 1"),
    ("I11", "update instances set internal_id = 7"),
    ("W9", "insert into quota_usages (project_id, instances) values ('other', 1)"),
    ("W9", "update compute_nodes set vcpus_used = 2"),
];

#[tokio::test]
async fn every_planted_fault_is_found_and_a_clean_database_is_clean() {
    for (invariant, fault) in FAULTS {
        dev::each(async |db: &Db| {
            planted(db, invariant, fault).await;
        })
        .await;
    }
}

async fn planted(db: &Db, invariant: &str, fault: &'static str) {
    let (acme, host): (ProjectId, HostName) = (fixtures::name("acme"), fixtures::name("h1"));
    let network = fixtures::flat_network(db, 28).await;
    fixtures::node(db, &host, 4).await;
    let ids = fixtures::launch(db, &acme, 2).await;
    transaction!(db, |tx| {
        crate::quotas::recount(tx, &acme).await?;
        instances::place(tx, &ids[..1], &host).await?;
        crate::compute_nodes::recount(tx, &host).await?;
        fixed_ips::take(tx, network, &ids[..1]).await
    })
    .unwrap();
    let mut conn = db.write().await.unwrap();
    assert_eq!(run(&mut conn, 60).await.unwrap(), []);
    conn.execute(fault, &[]).await.unwrap();
    let found = run(&mut conn, 60).await.unwrap();
    assert!(found.iter().any(|finding| finding.invariant == invariant), "{fault}: {found:?}");
}
