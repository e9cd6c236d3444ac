//! The queries of `quotas`, on every engine.

use nova_types::ProjectId;
use nova_types::quota::{Quotas, Resource};

use super::{limits, recount, release, reserve, reserve_own, reserve_some, set_limit, usage};
use crate::dev::{self, fixtures};
use crate::error::{DbError, OverQuota};
use crate::open::Db;
use crate::transaction;

fn acme() -> ProjectId {
    fixtures::name("acme")
}

#[tokio::test]
async fn a_project_has_the_defaults_until_it_has_its_own() {
    dev::each(async |db: &Db| {
        transaction!(db, |tx| {
            set_limit(tx, &acme(), Resource::Cores, Some(3)).await?;
            set_limit(tx, &acme(), Resource::FloatingIps, Some(0)).await?;
            set_limit(tx, &acme(), Resource::FloatingIps, None).await
        })
        .unwrap();
        let found = limits(&mut db.read().await.unwrap(), &acme(), &Quotas::default()).await.unwrap();
        assert_eq!(found, Quotas { cores: 3, ..Quotas::default() });
    })
    .await;
}

#[tokio::test]
async fn sixteen_at_once_get_ten() {
    dev::each(async |db: &Db| {
        let one = [(Resource::Instances, 1), (Resource::Cores, 1)];
        let all =
            (0..16).map(|_| async { transaction!(db, |tx| { reserve(tx, &acme(), &one, &Quotas::default()).await }) });
        let answers = dev::at_once(all).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            let wanted = OverQuota { resource: Resource::Instances, limit: 10, used: 10 };
            assert!(matches!(refused, DbError::OverQuota(found) if *found == wanted), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_launch_gets_what_there_is_room_for() {
    dev::each(async |db: &Db| {
        let limits = Quotas { instances: 10, cores: 7, ..Quotas::default() };
        let each = [(Resource::Instances, 1), (Resource::Cores, 2)];
        let granted = transaction!(db, |tx| { reserve_some(tx, &acme(), &each, 1, 5, &limits).await }).unwrap();
        assert_eq!(granted, 3);
        let refused = transaction!(db, |tx| { reserve_some(tx, &acme(), &each, 1, 5, &limits).await });
        assert!(
            matches!(refused, Err(DbError::OverQuota(OverQuota { resource: Resource::Cores, limit: 7, used: 6 }))),
            "{refused:?}"
        );
        let over = Quotas { cores: 1, ..limits };
        let one = [(Resource::Instances, 1)];
        transaction!(db, |tx| { reserve(tx, &acme(), &one, &over).await }).unwrap();
        let mut conn = db.write().await.unwrap();
        release(&mut conn, &acme(), &[(Resource::Instances, 99), (Resource::Cores, 1)]).await.unwrap();
        assert_eq!(usage(&mut conn, &acme(), Resource::Instances).await.unwrap(), 0);
        assert_eq!(usage(&mut conn, &acme(), Resource::Cores).await.unwrap(), 5);
    })
    .await;
}

#[tokio::test]
async fn a_projects_own_limit_counts_before_the_default_and_as_many_as_fit_are_granted() {
    dev::each(async |db: &Db| {
        let defaults = Quotas { instances: 4, cores: 100, ..Quotas::default() };
        let each = [(Resource::Instances, 1), (Resource::Cores, 2)];
        let take = async |min, max| {
            let taken = transaction!(db, |tx| { reserve_own(tx, &acme(), &each, min, max, &defaults).await });
            taken.map_err(|error| matches!(error, DbError::OverQuota(_)))
        };
        assert_eq!(take(3, 3).await, Ok(3));
        assert_eq!(take(2, 2).await, Err(true));
        assert_eq!(take(1, 9).await, Ok(1));
        transaction!(db, |tx| { set_limit(tx, &acme(), Resource::Instances, Some(6)).await }).unwrap();
        assert_eq!(take(1, 1).await, Ok(1));
        transaction!(db, |tx| { set_limit(tx, &acme(), Resource::Cores, Some(11)).await }).unwrap();
        assert_eq!(take(1, 1).await, Err(true));
        let used = usage(&mut db.read().await.unwrap(), &acme(), Resource::Cores).await.unwrap();
        assert_eq!(used, 10);
    })
    .await;
}

#[tokio::test]
async fn wrong_counters_are_corrected() {
    dev::each(async |db: &Db| {
        fixtures::launch(db, &acme(), 4).await;
        transaction!(db, |tx| { recount(tx, &acme()).await }).unwrap();
        let mut conn = db.read().await.unwrap();
        assert_eq!(usage(&mut conn, &acme(), Resource::Instances).await.unwrap(), 4);
        assert_eq!(usage(&mut conn, &acme(), Resource::Cores).await.unwrap(), 4);
        assert_eq!(usage(&mut conn, &fixtures::name("other"), Resource::Cores).await.unwrap(), 0);
    })
    .await;
}
