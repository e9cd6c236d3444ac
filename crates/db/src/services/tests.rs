//! The queries of `services`, on every engine.

use std::net::Ipv4Addr;

use nova_types::HostName;

use super::{
    Addresses, Claim, ClaimError, acquire, delete, heartbeat, introduce, list, release, renew, set_disabled, zones,
};
use crate::dev::{self, fixtures};
use crate::error::DbError;
use crate::open::Db;
use crate::transaction;

#[tokio::test]
async fn a_daemon_reports_and_is_listed() {
    dev::each(async |db: &Db| {
        let host: HostName = fixtures::name("h1");
        let mut conn = db.write().await.unwrap();
        let first = heartbeat(&mut conn, &host, "nova-compute", "west", true).await.unwrap();
        assert_eq!((first.topic.as_str(), first.report_count, first.disabled), ("compute", 0, false));
        let second = heartbeat(&mut conn, &host, "nova-compute", "west", true).await.unwrap();
        assert_eq!((second.id, second.report_count), (first.id, 1));
        assert!(second.silent_seconds <= 5 && second.is_up(60), "{second:?}");
        let third = heartbeat(&mut conn, &host, "nova-network", "east", false).await.unwrap();
        assert!(third.disabled);
        assert_eq!(list(&mut conn).await.unwrap().len(), 2);
        assert_eq!(zones(&mut conn, 60).await.unwrap(), [("west".to_owned(), true)]);
        set_disabled(&mut conn, &host, "nova-compute", true).await.unwrap();
        assert_eq!(zones(&mut conn, 60).await.unwrap(), [("west".to_owned(), false)]);
        conn.execute("update services set updated_at = {now-?}", &[90.into()]).await.unwrap();
        let silent = list(&mut conn).await.unwrap().remove(0).silent_seconds;
        assert!((89..=95).contains(&silent), "{silent}");
        delete(&mut conn, &host, "nova-compute").await.unwrap();
        let gone = set_disabled(&mut conn, &host, "nova-compute", false).await;
        assert!(matches!(gone, Err(DbError::NotFound("service"))), "{gone:?}");
        heartbeat(&mut conn, &host, "nova-compute", "west", true).await.unwrap();
    })
    .await;
}

fn claim(holder: &str, hosts: &[&str]) -> Claim {
    Claim {
        hosts: hosts.iter().map(|host| fixtures::name(host)).collect(),
        binary: "nova-compute",
        zone: "west".to_owned(),
        enable_new: true,
        address: None,
        holder: holder.to_owned(),
        lease_seconds: 30,
    }
}

async fn enter(db: &Db, claim: &Claim) -> Result<(), String> {
    introduce(&mut db.write().await.unwrap(), claim).await.unwrap();
    transaction!(db, |tx| -> ClaimError { acquire(tx, claim).await }).map_err(|refused| refused.to_string())
}

#[tokio::test]
async fn a_name_belongs_to_one_installation_until_its_lease_is_over() {
    dev::each(async |db: &Db| {
        let (one, other) = (claim("a", &["h1"]), claim("b", &["h1"]));
        enter(db, &one).await.unwrap();
        enter(db, &one).await.expect("after a crash the same installation goes on at once");
        let refused = enter(db, &other).await.unwrap_err();
        let seconds =
            refused.strip_prefix("another nova-compute works as host h1; if it is gone, its name is free in ");
        let seconds: u32 = seconds.and_then(|rest| rest.strip_suffix(" s")).expect(&refused).parse().unwrap();
        assert!((25..=30).contains(&seconds), "{refused}");
        let mut conn = db.write().await.unwrap();
        assert!(renew(&mut conn, &one).await.unwrap());
        assert!(!renew(&mut conn, &other).await.unwrap());
        release(&mut conn, &other).await.unwrap();
        assert!(renew(&mut conn, &one).await.unwrap(), "only the holder gives a name up");
        conn.execute("update services set lease_until = {now-?}", &[1.into()]).await.unwrap();
        drop(conn);
        enter(db, &other).await.expect("silence ends a lease");
        assert!(!renew(&mut db.write().await.unwrap(), &one).await.unwrap());
        assert!(!list(&mut db.read().await.unwrap()).await.unwrap()[0].gave_up);
        release(&mut db.write().await.unwrap(), &other).await.unwrap();
        assert!(list(&mut db.read().await.unwrap()).await.unwrap()[0].gave_up);
        enter(db, &one).await.expect("a name that was given up is free at once");
    })
    .await;
}

#[tokio::test]
async fn many_names_are_taken_together_or_not_at_all() {
    dev::each(async |db: &Db| {
        enter(db, &claim("b", &["h7"])).await.unwrap();
        let hosts: Vec<String> = (1..=1000).map(|n| format!("h{n}")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let refused = enter(db, &claim("a", &hosts)).await.unwrap_err();
        assert!(refused.contains("works as host h7;"), "{refused}");
        let alone = claim("c", &["h1"]);
        enter(db, &alone).await.expect("the refused claim holds nothing");
        release(&mut db.write().await.unwrap(), &alone).await.unwrap();
        release(&mut db.write().await.unwrap(), &claim("b", &["h7"])).await.unwrap();
        enter(db, &claim("a", &hosts)).await.unwrap();
        let mut conn = db.write().await.unwrap();
        assert!(renew(&mut conn, &claim("a", &hosts)).await.unwrap());
        let rows = list(&mut conn).await.unwrap();
        assert_eq!(rows.len(), 1000);
        assert!(rows.iter().all(|row| row.availability_zone == "west" && row.is_up(5) && !row.disabled));
        delete(&mut conn, &fixtures::name("h9"), "nova-compute").await.unwrap();
        assert!(!renew(&mut conn, &claim("a", &hosts)).await.unwrap(), "a row that was deleted is missed");
        drop(conn);
        enter(db, &claim("a", &hosts)).await.expect("and made again");
    })
    .await;
}

#[tokio::test]
async fn of_several_that_want_a_name_at_once_one_gets_it() {
    dev::each(async |db: &Db| {
        let claims: Vec<Claim> = (0..8).map(|n| claim(&format!("holder {n}"), &["h1", "h2"])).collect();
        let entered = dev::at_once(claims.iter().map(|claim| enter(db, claim))).await;
        assert_eq!(entered.iter().filter(|entered| entered.is_ok()).count(), 1, "{entered:?}");
    })
    .await;
}

#[tokio::test]
async fn a_host_has_its_address_until_its_rows_are_deleted() {
    dev::each(async |db: &Db| {
        let at = |last| Ipv4Addr::new(198, 51, 100, last);
        let of = |host: &str, address| Claim { address, ..claim("a", &[host]) };
        let mut addresses = Addresses::default();
        // What is deleted or changed may be seen some milliseconds late.
        let mut shown = async |db: &Db| {
            tokio::time::sleep(std::time::Duration::from_millis(40)).await;
            addresses.follow(db).await.unwrap().iter().map(|address| address.octets()[3]).collect::<Vec<u8>>()
        };
        assert!(shown(db).await.is_empty());
        enter(db, &of("h1", Some(at(1)))).await.unwrap();
        enter(db, &of("h2", None)).await.unwrap();
        assert_eq!(shown(db).await, [1]);
        enter(db, &of("h3", Some(at(3)))).await.unwrap();
        enter(db, &Claim { binary: "nova-network", ..of("h3", Some(at(3))) }).await.unwrap();
        assert_eq!(shown(db).await, [1, 3], "a host of two daemons is one");
        enter(db, &of("h1", Some(at(7)))).await.unwrap();
        assert_eq!(shown(db).await, [3, 7], "it moved");
        release(&mut db.write().await.unwrap(), &of("h1", None)).await.unwrap();
        db.write().await.unwrap().execute("update services set updated_at = {now-?}", &[9000.into()]).await.unwrap();
        assert_eq!(shown(db).await, [3, 7], "a silent host is one too");
        delete(&mut db.write().await.unwrap(), &fixtures::name("h1"), "nova-compute").await.unwrap();
        delete(&mut db.write().await.unwrap(), &fixtures::name("h3"), "nova-compute").await.unwrap();
        assert_eq!(shown(db).await, [3]);
        enter(db, &of("h1", Some(at(1)))).await.unwrap();
        assert_eq!(shown(db).await, [1, 3], "a deleted one that comes back");
    })
    .await;
}
