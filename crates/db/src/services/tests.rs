//! The queries of `services`, on every engine.

use nova_types::HostName;

use super::{acquire, delete, heartbeat, list, renew, set_disabled, zones};
use crate::dev::{self, fixtures};
use crate::error::DbError;
use crate::open::Db;

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

#[tokio::test]
async fn a_name_belongs_to_one_daemon_until_its_lease_is_over() {
    dev::each(async |db: &Db| {
        let host: HostName = fixtures::name("h1");
        let mut conn = db.write().await.unwrap();
        heartbeat(&mut conn, &host, "nova-compute", "nova", true).await.unwrap();
        let epoch = acquire(&mut conn, &host, "nova-compute", 30).await.unwrap().unwrap();
        assert_eq!(acquire(&mut conn, &host, "nova-compute", 30).await.unwrap(), None);
        assert!(renew(&mut conn, &host, "nova-compute", epoch, 0).await.unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let next = acquire(&mut conn, &host, "nova-compute", 30).await.unwrap().unwrap();
        assert_eq!(next, epoch + 1);
        assert!(!renew(&mut conn, &host, "nova-compute", epoch, 30).await.unwrap());
    })
    .await;
}
