//! The queries of `fixed_ips`, on every engine.

use std::collections::HashSet;

use nova_types::{Mac, ProjectId};

use super::{by_address, changed_since, dhcp_hosts, lease_ended, leased, list, of_instance, release, reserve, take};
use crate::dev::{self, fixtures};
use crate::error::DbError;
use crate::open::Db;
use crate::{instances, transaction};

fn project() -> ProjectId {
    fixtures::name("acme")
}

#[tokio::test]
async fn the_lowest_free_addresses_are_taken_and_the_reserved_never() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 29).await;
        let ids = fixtures::launch(db, &project(), 6).await;
        reserve(&mut db.write().await.unwrap(), "10.0.0.3".parse().unwrap(), true).await.unwrap();
        let taken = transaction!(db, |tx| { take(tx, network, &ids[..4]).await }).unwrap();
        let shown: Vec<String> = taken.iter().map(|(_, address)| address.to_string()).collect();
        assert_eq!(shown, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let none = transaction!(db, |tx| { take(tx, network, &ids[4..]).await });
        assert!(matches!(none, Err(DbError::NoMoreAddresses { wanted: 2, .. })), "{none:?}");
        let absent = reserve(&mut db.write().await.unwrap(), "10.9.9.9".parse().unwrap(), true).await;
        assert!(matches!(absent, Err(DbError::NotFound("fixed address"))), "{absent:?}");
        let all = list(&mut db.read().await.unwrap(), Some(network)).await.unwrap();
        let held: Vec<_> = all.iter().filter_map(|ip| ip.holder.as_ref().map(|h| (ip.address, h.instance))).collect();
        assert_eq!(held, taken.iter().map(|(id, address)| (*address, *id)).collect::<Vec<_>>());
        assert_eq!((all.len(), all.iter().filter(|ip| ip.reserved).count()), (8, 4));
        assert_eq!(list(&mut db.read().await.unwrap(), None).await.unwrap(), all);
    })
    .await;
}

#[tokio::test]
async fn an_address_given_back_rests_before_somebody_else_gets_it() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 30).await;
        let ids = fixtures::launch(db, &project(), 2).await;
        transaction!(db, |tx| { take(tx, network, &ids[..1]).await }).unwrap();
        let gone = transaction!(db, |tx| { release(tx, ids[0], 120).await }).unwrap();
        assert_eq!(gone, Some(("10.0.0.2".parse().unwrap(), network)));
        assert_eq!(transaction!(db, |tx| { release(tx, ids[0], 120).await }).unwrap(), None);
        let early = transaction!(db, |tx| { take(tx, network, &ids[1..]).await });
        assert!(matches!(early, Err(DbError::NoMoreAddresses { .. })), "{early:?}");
        let mut conn = db.write().await.unwrap();
        conn.execute("update fixed_ips set free_after = {now-?}", &[1.into()]).await.unwrap();
        drop(conn);
        transaction!(db, |tx| { take(tx, network, &ids[1..]).await }).unwrap();
        let holder = by_address(&mut db.read().await.unwrap(), "10.0.0.2".parse().unwrap()).await.unwrap();
        assert_eq!(holder, Some((ids[1], network)));
    })
    .await;
}

#[tokio::test]
async fn many_writers_never_get_the_same_address() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 24).await;
        let ids = fixtures::launch(db, &project(), 100).await;
        let writers =
            ids.chunks(5).map(|some| async move { transaction!(db, |tx| { take(tx, network, some).await }).unwrap() });
        let taken: Vec<_> = dev::at_once(writers).await.concat();
        let addresses: HashSet<_> = taken.iter().map(|(_, address)| *address).collect();
        assert_eq!((taken.len(), addresses.len()), (100, 100));
    })
    .await;
}

#[tokio::test]
async fn the_last_addresses_are_waited_for_when_others_may_give_them_back() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 30).await;
        let ids = fixtures::launch(db, &project(), 2).await;
        let first = async {
            let mut tx = db.begin().await.unwrap();
            take(&mut tx, network, &ids[..1]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            tx.rollback().await.unwrap();
        };
        let second = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            transaction!(db, |tx| { take(tx, network, &ids[1..]).await })
        };
        let ((), got) = tokio::join!(first, second);
        assert_eq!(got.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_only_its_holders() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 29).await;
        let ids = fixtures::launch(db, &project(), 1).await;
        transaction!(db, |tx| { take(tx, network, &ids).await }).unwrap();
        let mut conn = db.write().await.unwrap();
        let mac = instances::get(&mut conn, ids[0]).await.unwrap().mac;
        let (ours, stranger) = ("10.0.0.2".parse().unwrap(), Mac::of_guest([1, 2, 3]));
        assert!(!leased(&mut conn, ours, stranger).await.unwrap());
        assert!(leased(&mut conn, ours, mac).await.unwrap());
        let hosts = dhcp_hosts(&mut conn, network).await.unwrap();
        let shown: Vec<_> = hosts.iter().map(|h| (h.instance, h.mac, h.address, h.leased)).collect();
        assert_eq!(shown, [(ids[0], mac, ours, true)]);
        assert!(!lease_ended(&mut conn, ours, stranger).await.unwrap());
        assert!(lease_ended(&mut conn, ours, mac).await.unwrap());
        assert_eq!(of_instance(&mut conn, ids[0]).await.unwrap(), Some((ours, network)));
        assert_eq!(by_address(&mut conn, "10.0.0.3".parse().unwrap()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn changed_addresses_are_those_of_the_networks_asked_about_with_who_holds_them_now() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 29).await;
        let ids = fixtures::launch(db, &project(), 3).await;
        transaction!(db, |tx| { take(tx, network, &ids).await }).unwrap();
        let mut conn = db.write().await.unwrap();
        conn.execute("update fixed_ips set updated_at = {now-?} where updated_at is not null", &[60.into()])
            .await
            .unwrap();
        let since = conn.now().await.unwrap() - std::time::Duration::from_secs(30);
        assert_eq!(changed_since(&mut conn, &[network], since).await.unwrap(), super::ChangedAddresses::default());
        let mac = instances::get(&mut conn, ids[2]).await.unwrap().mac;
        assert!(leased(&mut conn, "10.0.0.4".parse().unwrap(), mac).await.unwrap());
        drop(conn);
        transaction!(db, |tx| { release(tx, ids[0], 120).await }).unwrap();
        let mut conn = db.read().await.unwrap();
        let changed = changed_since(&mut conn, &[network], since).await.unwrap();
        assert!(changed.at.unwrap() > since);
        let mut shown: Vec<_> =
            changed.addresses.iter().map(|(of, at, holder)| (*of, at.to_string(), holder.clone())).collect();
        shown.sort_by(|(_, one, _), (_, other, _)| one.cmp(other));
        let leased = dhcp_hosts(&mut conn, network).await.unwrap().pop();
        assert_eq!(leased.as_ref().map(|host| (host.instance, host.leased)), Some((ids[2], true)));
        assert_eq!(shown, [(network, "10.0.0.2".to_owned(), None), (network, "10.0.0.4".to_owned(), leased)]);
        let elsewhere = nova_types::NetworkId::new(network.number() + 1);
        assert!(changed_since(&mut conn, &[elsewhere], since).await.unwrap().addresses.is_empty());
    })
    .await;
}

/// Over TCP, a statement that is closed holds up the next for 40 ms (docs/performance.md).
#[tokio::test]
async fn no_statement_waits_for_a_late_acknowledgement() {
    dev::each(async |db: &Db| {
        let network = fixtures::flat_network(db, 24).await;
        let ids = fixtures::launch(db, &fixtures::name("acme"), 16).await;
        let mut quickest = std::time::Duration::MAX;
        for round in 0..24 {
            // Of many sizes, so that not every statement is an old acquaintance.
            let some = &ids[..=(round % ids.len())];
            let begun = std::time::Instant::now();
            transaction!(db, |tx| { take(tx, network, some).await }).unwrap();
            quickest = quickest.min(begun.elapsed());
            transaction!(db, |tx| {
                for id in some {
                    release(tx, *id, 0).await?;
                }
                Ok(())
            })
            .unwrap();
        }
        assert!(quickest < std::time::Duration::from_millis(40), "{quickest:?}");
    })
    .await;
}
