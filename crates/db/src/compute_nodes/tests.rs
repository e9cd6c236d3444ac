//! The queries of `compute_nodes`, on every engine.

use nova_types::service::{ComputeNode, Demand};
use nova_types::{HostName, ProjectId};

use super::{claim, list, recount, release, upsert};
use crate::dev::{self, fixtures};
use crate::open::Db;
use crate::{instances, services, transaction};

fn host() -> HostName {
    fixtures::name("host-1")
}

async fn only(db: &Db) -> ComputeNode {
    list(&mut db.read().await.unwrap(), 60).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_host_is_never_overbooked() {
    dev::each(async |db: &Db| {
        fixtures::node(db, &host(), 10).await;
        let claims =
            (0..16).map(|_| async { transaction!(db, |tx| { claim(tx, &host(), fixtures::DEMAND).await }).unwrap() });
        let won = dev::at_once(claims).await.into_iter().filter(|won| *won).count();
        assert_eq!((won, only(db).await.memory_mb_used), (10, 5120));
        let mut conn = db.write().await.unwrap();
        release(&mut conn, &host(), fixtures::DEMAND.times(11)).await.unwrap();
        drop(conn);
        let node = only(db).await;
        assert_eq!((node.memory_mb_used, node.vcpus_used, node.local_gb_used), (0, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn reporting_again_keeps_what_is_taken() {
    dev::each(async |db: &Db| {
        fixtures::node(db, &host(), 10).await;
        let mut conn = db.write().await.unwrap();
        assert!(claim(&mut conn, &host(), fixtures::DEMAND).await.unwrap());
        drop(conn);
        fixtures::node(db, &host(), 20).await;
        let node = only(db).await;
        assert_eq!((node.memory_mb, node.memory_mb_used, node.eligible), (20 * 512, 512, true));
        let mut conn = db.write().await.unwrap();
        services::set_disabled(&mut conn, &host(), "nova-compute", true).await.unwrap();
        drop(conn);
        assert!(!only(db).await.eligible);
        let late = claim(&mut db.write().await.unwrap(), &host(), fixtures::DEMAND).await.unwrap();
        assert!(!late, "a scheduler that does not know yet that the host is disabled took of it");
        let lone = ComputeNode { host: fixtures::name("lone"), ..only(db).await };
        upsert(&mut db.write().await.unwrap(), &lone).await.unwrap();
        let all = list(&mut db.read().await.unwrap(), 60).await.unwrap();
        assert!(!all[1].eligible, "a host without a daemon gets no work");
    })
    .await;
}

#[tokio::test]
async fn wrong_counters_are_corrected() {
    dev::each(async |db: &Db| {
        fixtures::node(db, &host(), 10).await;
        let acme: ProjectId = fixtures::name("acme");
        let ids = fixtures::launch(db, &acme, 3).await;
        transaction!(db, |tx| { instances::place(tx, &ids, &host()).await }).unwrap();
        let mut conn = db.write().await.unwrap();
        assert!(claim(&mut conn, &host(), Demand { memory_mb: 1, vcpus: 7, local_gb: 9 }).await.unwrap());
        recount(&mut conn, &host()).await.unwrap();
        drop(conn);
        let node = only(db).await;
        assert_eq!((node.memory_mb_used, node.vcpus_used, node.local_gb_used), (3 * 512, 3, 0));
    })
    .await;
}
