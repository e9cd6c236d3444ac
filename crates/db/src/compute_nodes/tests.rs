//! The queries of `compute_nodes`, on every engine.

use nova_types::service::{ComputeNode, Demand};
use nova_types::{HostName, ProjectId};

use super::{claim, claim_all, list, recount, release, upsert};
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
async fn of_several_hosts_each_gives_what_is_asked_or_nothing_and_none_twice() {
    dev::each(async |db: &Db| {
        let hosts: Vec<HostName> = (0..8).map(|n| fixtures::name(&format!("h{n}"))).collect();
        for (room, host) in (0..).zip(&hosts) {
            fixtures::node(db, host, room).await;
        }
        // Half want one of each host, the others two, and they name them the other way round.
        let claims = (0..16).map(|n| {
            let demand = fixtures::DEMAND.times(1 + n % 2);
            let mut wanted: Vec<(&HostName, Demand)> = hosts.iter().map(|host| (host, demand)).collect();
            if n % 2 == 1 {
                wanted.reverse();
            }
            async move {
                let claimed = transaction!(db, |tx| { claim_all(tx, &wanted).await }).unwrap();
                (claimed, 1 + n % 2)
            }
        });
        let done = dev::at_once(claims).await;
        for (node, room) in list(&mut db.read().await.unwrap(), 60).await.unwrap().into_iter().zip(0..) {
            let given: u32 =
                done.iter().filter(|(claimed, _)| claimed.contains(&node.host)).map(|(_, each)| each).sum();
            assert_eq!((node.vcpus_used, node.memory_mb_used), (given, given * 512), "{node:?}");
            assert!(given == room || given + 1 == room, "{given} of {room}");
        }
        let gone = fixtures::name("gone");
        let nobody = transaction!(db, |tx| { claim_all(tx, &[(&gone, fixtures::DEMAND)]).await }).unwrap();
        assert_eq!(nobody, []);
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
