//! Who gets in, and what those read who do not.

use nova_db::accounts;

use crate::testing::{TestCloud, project, user};

const CALL: &str = "DescribeRegions";

#[tokio::test]
async fn members_use_their_projects_and_administrators_any() {
    let cloud = TestCloud::start().await;
    for access_key in
        ["joe-key:acme", "ann-key:acme", "eve-key:evil", "admin-key:admin", "admin-key:acme", "admin-key", "admin-key:"]
    {
        assert_eq!(cloud.client(access_key).call(CALL).await.outcome(), "200", "{access_key}");
    }
}

#[tokio::test]
async fn every_refusal_reads_the_same() {
    let cloud = TestCloud::start().await;
    let mut bodies = Vec::new();
    for (access_key, secret) in [
        ("joe-key:acme", "wrong"),
        ("joe-key:evil", "secret"),    // not a member
        ("joe-key:nowhere", "secret"), // no such project
        ("joe-key", "secret"),         // no project called joe
        ("admin-key:nowhere", "secret"),
        ("nobody:acme", "secret"),
        ("JOE-KEY:acme", "secret"),
        (":acme", "secret"),
        ("joe-key:acme:x", "secret"),
        ("joe-key:ac\u{0}me", "secret"),
        ("joé-key:acme", "secret"),
        ("joe-key:acme' or '1'='1", "secret"),
    ] {
        let answer = cloud
            .client(access_key)
            .secret(secret)
            .coming_from([10, 1, 1, bodies.len().try_into().unwrap()])
            .call(CALL)
            .await;
        assert_eq!(answer.outcome(), "403 AuthFailure", "{access_key}");
        bodies.push(answer.pretty());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:#?}");
}

#[tokio::test]
async fn five_wrong_signatures_lock_a_key_out_at_that_address_only() {
    let cloud = TestCloud::start().await;
    for _ in 0..5 {
        assert_eq!(cloud.joe().call(CALL).await.outcome(), "200", "not locked yet");
        let wrong = cloud.client("joe-key:acme").secret("wrong").call(CALL).await;
        assert_eq!(wrong.outcome(), "403 AuthFailure");
    }
    assert_eq!(cloud.joe().call(CALL).await.outcome(), "403 AuthFailure");
    assert_eq!(
        cloud.client("joe-key:other").call(CALL).await.outcome(),
        "403 AuthFailure",
        "another project, the same key"
    );
    assert_eq!(cloud.joe().coming_from([10, 0, 0, 10]).call(CALL).await.outcome(), "200");
    assert_eq!(cloud.ann().call(CALL).await.outcome(), "200");
}

#[tokio::test]
async fn a_mistaken_project_locks_nobody_out() {
    let cloud = TestCloud::start().await;
    for _ in 0..9 {
        assert_eq!(cloud.client("joe-key:evil").call(CALL).await.outcome(), "403 AuthFailure");
    }
    assert_eq!(cloud.joe().call(CALL).await.outcome(), "200");
}

#[tokio::test]
async fn a_removed_member_is_out_once_the_cache_is() {
    let cloud = TestCloud::start_with(&["--credential_cache=0"]).await;
    assert_eq!(cloud.ann().call(CALL).await.outcome(), "200");
    let mut conn = cloud.db.write().await.unwrap();
    accounts::remove_member(&mut conn, &user("ann"), &project("acme")).await.unwrap();
    drop(conn);
    assert_eq!(cloud.ann().call(CALL).await.outcome(), "403 AuthFailure");
}

#[tokio::test]
async fn a_burst_of_calls_asks_for_credentials_once() {
    let cloud = TestCloud::start().await;
    assert_eq!(cloud.ann().call(CALL).await.outcome(), "200");
    let mut conn = cloud.db.write().await.unwrap();
    accounts::remove_member(&mut conn, &user("ann"), &project("acme")).await.unwrap();
    drop(conn);
    assert_eq!(cloud.ann().call(CALL).await.outcome(), "200", "within five seconds the old answer holds");
}

#[tokio::test]
async fn an_unsigned_or_stale_request_is_told_what_is_wrong() {
    let cloud = TestCloud::start().await;
    for (query, wanted) in [
        ("", "400 MissingParameter"),
        ("Action=DescribeRegions&Version=2016-11-15", "400 MissingParameter"),
        ("Action=DescribeRegions&AWSAccessKeyId=a&Signature=b&SignatureVersion=3", "400 InvalidParameterValue"),
        ("Action=DescribeRegions&Action=DescribeKeyPairs", "400 InvalidQueryParameter"),
        ("Action=%zz", "400 MalformedQueryString"),
        (
            "Action=DescribeRegions&AWSAccessKeyId=joe-key&Signature=b&SignatureVersion=2&SignatureMethod=HmacSHA256\
             &Timestamp=2011-02-03T03:00:00Z",
            "400 RequestExpired",
        ),
    ] {
        let request =
            axum::http::Request::get(format!("/services/Cloud/?{query}")).body(axum::body::Body::empty()).unwrap();
        let answer = cloud.send(([10, 0, 0, 9], 1).into(), request).await;
        assert_eq!(answer.outcome(), wanted, "{query}");
    }
}
