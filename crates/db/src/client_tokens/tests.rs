//! The queries of `client_tokens`, on every engine.

use nova_types::{ProjectId, ReservationId};

use super::{ClientToken, expire, find, remember};
use crate::dev::{self, fixtures};
use crate::error::{DbError, Unique};
use crate::open::Db;

#[tokio::test]
async fn a_token_is_accepted_once_for_each_project() {
    dev::each(async |db: &Db| {
        let (acme, other): (ProjectId, ProjectId) = (fixtures::name("acme"), fixtures::name("other"));
        let reservation: ReservationId = fixtures::name("r-abcd0123");
        let mut conn = db.write().await.unwrap();
        remember(&mut conn, &acme, "T", "digest", &reservation).await.unwrap();
        remember(&mut conn, &acme, "t", "digest", &reservation).await.unwrap();
        remember(&mut conn, &other, "T", "digest", &reservation).await.unwrap();
        let again = remember(&mut conn, &acme, "T", "else", &reservation).await;
        assert!(matches!(again, Err(DbError::Duplicate(Unique::ClientToken))), "{again:?}");
        let wanted = ClientToken { digest: "digest".to_owned(), reservation };
        assert_eq!(find(&mut conn, &acme, "T").await.unwrap(), Some(wanted));
        assert_eq!(find(&mut conn, &acme, "x").await.unwrap(), None);
        assert_eq!(expire(&mut conn, 3600).await.unwrap(), 0);
        assert_eq!(expire(&mut conn, -1).await.unwrap(), 3);
    })
    .await;
}
