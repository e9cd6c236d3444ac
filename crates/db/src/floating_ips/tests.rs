//! The queries of `floating_ips`, on every engine.

use nova_types::quota::Quotas;

use super::*;
use crate::dev::{self, fixtures};
use crate::open::Db;
use crate::{check, fixed_ips, instances, transaction};

fn at(text: &str) -> Ipv4Addr {
    fixtures::name(text)
}

fn acme() -> ProjectId {
    fixtures::name("acme")
}

/// A pool of three addresses on `net1`, and two instances of `acme` with addresses in a network that `net1` serves.
async fn lab(db: &Db) -> (NetworkId, Vec<InstanceId>) {
    let network = fixtures::flat_network(db, 28).await;
    let ids = fixtures::launch(db, &acme(), 2).await;
    let host: HostName = fixtures::name("net1");
    transaction!(db, |tx| -> FloatingError {
        crate::networks::claim(tx, &host, 30).await?;
        fixed_ips::take(tx, network, &ids).await?;
        create(tx, &host, &[at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")]).await?;
        crate::quotas::recount(tx, &acme()).await?;
        Ok(())
    })
    .unwrap();
    (network, ids)
}

async fn take_one(db: &Db, project: &ProjectId) -> Result<Ipv4Addr, FloatingError> {
    let quotas = Quotas { floating_ips: 2, ..Quotas::default() };
    transaction!(db, |tx| -> FloatingError { allocate(tx, project, &quotas).await })
}

async fn bind(db: &Db, address: Ipv4Addr, wish: Wish, moved: bool) -> Result<Vec<Affected>, FloatingError> {
    transaction!(db, |tx| -> FloatingError { associate(tx, Some(&acme()), address, wish, moved).await })
}

async fn forwards(db: &Db) -> Vec<String> {
    let all = on_host(&mut db.read().await.unwrap(), &fixtures::name("net1")).await.unwrap();
    all.iter().map(|forward| format!("{} {}", forward.public, forward.fixed)).collect()
}

async fn is_clean(db: &Db) {
    let found = check::run(&mut db.read().await.unwrap(), 60).await.unwrap();
    assert_eq!(found.iter().filter(|f| ["I6", "I7", "W9"].contains(&f.invariant)).collect::<Vec<_>>(), [] as [&_; 0]);
}

#[tokio::test]
async fn addresses_go_out_in_order_within_the_quota_and_come_back() {
    dev::each(async |db: &Db| {
        lab(db).await;
        assert_eq!(take_one(db, &acme()).await.unwrap(), at("192.0.2.1"));
        assert_eq!(take_one(db, &acme()).await.unwrap(), at("192.0.2.2"));
        let over = take_one(db, &acme()).await;
        assert!(matches!(over, Err(FloatingError::Db(DbError::OverQuota(_)))), "{over:?}");
        let other: ProjectId = fixtures::name("other");
        assert_eq!(take_one(db, &other).await.unwrap(), at("192.0.2.3"));
        let none = take_one(db, &other).await;
        assert!(matches!(none, Err(FloatingError::NoneFree)), "{none:?}");
        let release = async |project: &ProjectId| {
            transaction!(db, |tx| -> FloatingError { release(tx, Some(project), at("192.0.2.1")).await })
        };
        assert!(matches!(release(&other).await, Err(FloatingError::NotFound(_))), "not theirs");
        release(&acme()).await.unwrap();
        assert!(matches!(release(&acme()).await, Err(FloatingError::NotFound(_))), "only once");
        assert_eq!(take_one(db, &acme()).await.unwrap(), at("192.0.2.1"));
        is_clean(db).await;
    })
    .await;
}

#[tokio::test]
async fn two_who_take_at_once_get_different_addresses() {
    dev::each(async |db: &Db| {
        lab(db).await;
        let projects: [ProjectId; 3] = ["one", "two", "three"].map(fixtures::name);
        let [one, two, three] = &projects;
        let (a, b, c) = tokio::join!(take_one(db, one), take_one(db, two), take_one(db, three));
        let mut got = [a.unwrap(), b.unwrap(), c.unwrap()];
        got.sort_unstable();
        assert_eq!(got, [at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")]);
        is_clean(db).await;
    })
    .await;
}

#[tokio::test]
async fn an_address_is_bound_moved_and_unbound() {
    dev::each(async |db: &Db| {
        let (network, ids) = lab(db).await;
        let (first, second) = (take_one(db, &acme()).await.unwrap(), take_one(db, &acme()).await.unwrap());
        let there = [Affected { network, host: Some(fixtures::name("net1")) }];
        assert_eq!(bind(db, first, Wish::Instance(ids[0]), false).await.unwrap(), there);
        assert_eq!(bind(db, first, Wish::Instance(ids[0]), false).await.unwrap(), there, "again changes nothing");
        let kept = bind(db, first, Wish::Instance(ids[1]), false).await;
        assert!(matches!(kept, Err(FloatingError::AlreadyAssociated(_))), "{kept:?}");
        assert_eq!(forwards(db).await, ["192.0.2.1 10.0.0.2"]);
        bind(db, first, Wish::Fixed(at("10.0.0.3")), true).await.unwrap();
        assert_eq!(forwards(db).await, ["192.0.2.1 10.0.0.3"]);
        bind(db, second, Wish::Instance(ids[1]), false).await.unwrap();
        assert_eq!(forwards(db).await, ["192.0.2.2 10.0.0.3"], "an instance has one");
        let unbound = transaction!(db, |tx| -> FloatingError { disassociate(tx, Some(&acme()), second).await });
        assert_eq!(unbound.unwrap().as_slice(), there);
        assert!(forwards(db).await.is_empty());
        assert_eq!(allocated(&mut db.read().await.unwrap(), Some(&acme())).await.unwrap().len(), 2);
        is_clean(db).await;
    })
    .await;
}

#[tokio::test]
async fn an_association_is_ended_once_and_only_if_it_still_is_and_is_the_projects() {
    dev::each(async |db: &Db| {
        let (network, ids) = lab(db).await;
        let address = take_one(db, &acme()).await.unwrap();
        let association = async |instance| {
            let wish = Wish::Instance(instance);
            bind(db, address, wish, true).await.unwrap();
            let one = find_address(&mut db.read().await.unwrap(), None, address).await.unwrap().unwrap();
            one.association().unwrap()
        };
        let end = async |project, id| transaction!(db, |tx| { end_association(tx, Some(&project), id).await }).unwrap();
        let (former, current) = (association(ids[0]).await, association(ids[1]).await);
        assert_eq!(end(acme(), former).await, None, "it went to another instance");
        assert_eq!(end(fixtures::name("other"), current).await, None);
        assert_eq!(forwards(db).await, ["192.0.2.1 10.0.0.3"]);
        assert_eq!(end(acme(), current).await, Some(Affected { network, host: Some(fixtures::name("net1")) }));
        assert_eq!(end(acme(), current).await, None);
        assert!(forwards(db).await.is_empty());
        is_clean(db).await;
    })
    .await;
}

#[tokio::test]
async fn only_a_projects_own_are_bound_to_its_own() {
    dev::each(async |db: &Db| {
        let (network, _) = lab(db).await;
        let other: ProjectId = fixtures::name("other");
        let foreign = fixtures::launch(db, &other, 2).await;
        transaction!(db, |tx| { fixed_ips::take(tx, network, &foreign[..1]).await }).unwrap();
        let (ours, theirs) = (take_one(db, &acme()).await.unwrap(), take_one(db, &other).await.unwrap());
        for wish in [Wish::Instance(foreign[0]), Wish::Fixed(at("10.0.0.4")), Wish::Fixed(at("10.0.0.9"))] {
            let refused = bind(db, ours, wish, true).await;
            assert!(matches!(refused, Err(FloatingError::NoInstance)), "{refused:?}");
        }
        for address in [theirs, at("192.0.2.3"), at("192.0.2.99")] {
            let refused = bind(db, address, Wish::Fixed(at("10.0.0.2")), true).await;
            assert!(matches!(refused, Err(FloatingError::NotFound(_))), "{refused:?}");
            let refused = transaction!(db, |tx| -> FloatingError { disassociate(tx, Some(&acme()), address).await });
            assert!(matches!(refused, Err(FloatingError::NotFound(_))), "{refused:?}");
        }
        let bare = transaction!(db, |tx| -> FloatingError {
            associate(tx, None, theirs, Wish::Instance(foreign[1]), true).await
        });
        assert!(matches!(bare, Err(FloatingError::NoFixedAddress)), "{bare:?}");
        assert!(forwards(db).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_end_of_an_instance_unbinds_and_the_project_keeps_the_address() {
    dev::each(async |db: &Db| {
        let (_, ids) = lab(db).await;
        let address = take_one(db, &acme()).await.unwrap();
        bind(db, address, Wish::Instance(ids[0]), true).await.unwrap();
        transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 60).await }).unwrap();
        let left = allocated(&mut db.read().await.unwrap(), None).await.unwrap();
        assert_eq!(left.iter().map(|one| (one.address, one.bound.clone())).collect::<Vec<_>>(), [(address, None)]);
        let bare = bind(db, address, Wish::Instance(ids[0]), true).await;
        assert!(matches!(bare, Err(FloatingError::NoFixedAddress)), "{bare:?}");
    })
    .await;
}

#[tokio::test]
async fn an_address_is_never_bound_to_what_ends_at_the_same_moment() {
    dev::each(async |db: &Db| {
        let (_, ids) = lab(db).await;
        let address = take_one(db, &acme()).await.unwrap();
        let binding = async {
            let mut tx = db.begin().await.unwrap();
            associate(&mut tx, Some(&acme()), address, Wish::Instance(ids[0]), true).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            tx.commit().await.unwrap();
        };
        let ending = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 60).await }).unwrap();
        };
        tokio::join!(binding, ending);
        assert!(forwards(db).await.is_empty());
        let left = allocated(&mut db.read().await.unwrap(), None).await.unwrap();
        assert_eq!(left[0].bound, None);
    })
    .await;
}

#[tokio::test]
async fn pools_are_made_and_removed_whole() {
    dev::each(async |db: &Db| {
        let (_, ids) = lab(db).await;
        let make = async |addresses: &[Ipv4Addr]| {
            let host: HostName = fixtures::name("net2");
            transaction!(db, |tx| -> FloatingError { create(tx, &host, addresses).await })
        };
        let remove =
            async |addresses: &[Ipv4Addr]| transaction!(db, |tx| -> FloatingError { delete(tx, addresses).await });
        let twice = make(&[at("192.0.2.4"), at("192.0.2.3")]).await;
        assert!(matches!(twice, Err(FloatingError::Exists(address)) if address == at("192.0.2.3")), "{twice:?}");
        make(&[at("192.0.2.4")]).await.unwrap();
        assert_eq!(list(&mut db.read().await.unwrap(), Some(&fixtures::name("net2"))).await.unwrap().len(), 1);
        let address = take_one(db, &acme()).await.unwrap();
        bind(db, address, Wish::Instance(ids[0]), true).await.unwrap();
        let used = remove(&[at("192.0.2.4"), address]).await;
        assert!(matches!(used, Err(FloatingError::Allocated { address: a, .. }) if a == address), "{used:?}");
        let absent = remove(&[at("192.0.2.4"), at("192.0.2.5")]).await;
        assert!(matches!(absent, Err(FloatingError::NotFound(a)) if a == at("192.0.2.5")), "{absent:?}");
        assert_eq!(list(&mut db.read().await.unwrap(), None).await.unwrap().len(), 4);
        remove(&[at("192.0.2.4")]).await.unwrap();
        let asked = [at("192.0.2.1"), at("192.0.2.4"), at("192.0.2.5")];
        let among = among(&mut db.read().await.unwrap(), &asked).await.unwrap();
        assert_eq!(among.len(), 2, "what was removed today may still be on an interface: {among:?}");
        make(&[at("192.0.2.4")]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_a_client_sees_of_an_instance_has_its_floating_address() {
    dev::each(async |db: &Db| {
        let (_, ids) = lab(db).await;
        let address = take_one(db, &acme()).await.unwrap();
        bind(db, address, Wish::Instance(ids[1]), true).await.unwrap();
        let views = instances::describe(&mut db.read().await.unwrap(), None, &ids).await.unwrap();
        assert_eq!(views.iter().map(|view| view.floating_ip).collect::<Vec<_>>(), [None, Some(address)]);
    })
    .await;
}
