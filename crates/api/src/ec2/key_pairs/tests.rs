//! Key pairs as their users see them.

use expect_test::expect;

use crate::testing::TestCloud;

const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f joe@example";

fn import(name: &str) -> String {
    format!("ImportKeyPair KeyName={name} PublicKeyMaterial={}", PUBLIC_KEY.replace(' ', "%20"))
}

#[tokio::test]
async fn a_made_key_pair_is_an_rsa_pem_by_default() {
    let cloud = TestCloud::start().await;
    let answer = cloud.joe().call("CreateKeyPair KeyName=my%20key").await;
    assert_eq!(answer.outcome(), "200");
    assert_eq!(answer.text("keyName"), Some("my key"));
    let material = answer.text("keyMaterial").unwrap();
    assert!(material.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "{material}");
    assert_eq!(answer.text("keyFingerprint").unwrap().len(), 47);
    let listed = cloud.joe().call("DescribeKeyPairs KeyName=my%20key").await;
    assert_eq!(listed.text("keyFingerprint"), answer.text("keyFingerprint"));
    assert_eq!(listed.text("keyPairId"), answer.text("keyPairId"));
    assert!(!listed.body.contains("PRIVATE"));
}

#[tokio::test]
async fn ed25519_is_made_on_request() {
    let cloud = TestCloud::start().await;
    let answer = cloud.joe().call("CreateKeyPair KeyName=a KeyType=ed25519 KeyFormat=pem").await;
    assert!(answer.text("keyMaterial").unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    assert_eq!(cloud.joe().call("DescribeKeyPairs").await.text("keyType"), Some("ed25519"));
}

#[tokio::test]
async fn an_imported_key_pair_is_listed_with_its_fingerprint() {
    let cloud = TestCloud::start().await;
    expect![[r#"
        200
        <ImportKeyPairResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <keyName>mine</keyName>
          <keyFingerprint>0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba</keyFingerprint>
          <keyPairId>key-00000001</keyPairId>
        </ImportKeyPairResponse>
    "#]]
    .assert_eq(&cloud.joe().call(&import("mine")).await.pretty());
    let listed = cloud.joe().call("DescribeKeyPairs IncludePublicKey=true").await.pretty();
    let (before, after) = listed.split_once("<createTime>").unwrap();
    let (_, after) = after.split_once("</createTime>").unwrap();
    expect![[r#"
        200
        <DescribeKeyPairsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <keySet>
            <item>
              <keyPairId>key-00000001</keyPairId>
              <keyName>mine</keyName>
              <keyFingerprint>0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba</keyFingerprint>
              <keyType>ed25519</keyType>
              <publicKey>ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f joe@example</publicKey>
              <createTime>…</createTime>
            </item>
          </keySet>
        </DescribeKeyPairsResponse>
    "#]].assert_eq(&format!("{before}<createTime>…</createTime>{after}"));
}

#[tokio::test]
async fn key_pairs_are_chosen_by_name_id_and_filter() {
    let cloud = TestCloud::start().await;
    for name in ["web-1", "web-2", "db"] {
        assert_eq!(cloud.joe().call(&import(name)).await.outcome(), "200");
    }
    let cases: &[(&str, &[&str])] = &[
        ("", &["web-1", "web-2", "db"]),
        ("KeyName.1=db KeyName.2=web-1", &["web-1", "db"]),
        ("KeyPairId.1=key-00000002", &["web-2"]),
        ("Filter.1.Name=key-name Filter.1.Value.1=web-*", &["web-1", "web-2"]),
        ("KeyName.1=db Filter.1.Name=key-name Filter.1.Value.1=web-*", &[]),
        ("Filter.1.Name=fingerprint Filter.1.Value.1=*:*", &["web-1", "web-2", "db"]),
        ("Filter.1.Name=key-pair-id Filter.1.Value.1=key-00000003", &["db"]),
    ];
    for (call, wanted) in cases {
        let answer = cloud.joe().call(&format!("DescribeKeyPairs {call}")).await;
        assert_eq!(answer.texts("keyName"), *wanted, "{call}: {}", answer.body);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_code_clients_look_for() {
    let cloud = TestCloud::start().await;
    assert_eq!(cloud.joe().call(&import("taken")).await.outcome(), "200");
    for (call, wanted) in [
        ("CreateKeyPair", "400 MissingParameter"),
        ("CreateKeyPair KeyName=", "400 MissingParameter"),
        ("CreateKeyPair KeyName=taken", "400 InvalidKeyPair.Duplicate"),
        ("CreateKeyPair KeyName=a%0Ab", "400 InvalidParameterValue"),
        ("CreateKeyPair KeyName=caf%C3%A9", "400 InvalidParameterValue"),
        ("CreateKeyPair KeyName=a KeyType=dsa", "400 InvalidParameterValue"),
        ("CreateKeyPair KeyName=a KeyFormat=ppk", "400 InvalidParameterValue"),
        ("CreateKeyPair KeyName=acme-vpn", "400 InvalidParameterValue"),
        ("ImportKeyPair KeyName=b", "400 MissingParameter"),
        ("ImportKeyPair KeyName=b PublicKeyMaterial=nonsense", "400 InvalidKeyPair.Format"),
        ("DescribeKeyPairs KeyName.1=taken KeyName.2=other", "400 InvalidKeyPair.NotFound"),
        ("DescribeKeyPairs KeyPairId.1=key-00000063", "400 InvalidKeyPair.NotFound"),
        ("DescribeKeyPairs KeyPairId.1=taken", "400 InvalidKeyPairId.Malformed"),
        ("DescribeKeyPairs Filter.1.Name=colour Filter.1.Value.1=red", "400 InvalidParameterValue"),
        ("DeleteKeyPair", "400 MissingParameter"),
    ] {
        assert_eq!(cloud.joe().call(call).await.outcome(), wanted, "{call}");
    }
    assert_eq!(cloud.joe().call(&import("taken")).await.outcome(), "400 InvalidKeyPair.Duplicate");
}

#[tokio::test]
async fn of_two_requests_for_one_name_one_wins() {
    let cloud = TestCloud::start().await;
    let (joe, call) = (cloud.joe(), import("same"));
    let (first, second) = tokio::join!(joe.call(&call), joe.call(&call));
    let mut outcomes = [first.outcome(), second.outcome()];
    outcomes.sort();
    assert_eq!(outcomes, ["200", "400 InvalidKeyPair.Duplicate"]);
}

#[tokio::test]
async fn a_key_pair_is_its_users_alone() {
    let cloud = TestCloud::start().await;
    assert_eq!(cloud.joe().call(&import("joes")).await.outcome(), "200");
    let foreign = cloud.ann().call("DescribeKeyPairs KeyName=joes").await.pretty();
    let absent = cloud.ann().call("DescribeKeyPairs KeyName=nope").await.pretty();
    assert_eq!(foreign, absent.replace("nope", "joes"));
    assert_eq!(cloud.ann().call("DeleteKeyPair KeyName=joes").await.outcome(), "200");
    assert_eq!(cloud.ann().call(&import("joes")).await.outcome(), "200", "a name is one user's");
    assert_eq!(cloud.joe().call("DescribeKeyPairs").await.texts("keyName"), ["joes"]);
}

#[tokio::test]
async fn a_deleted_key_pair_is_gone_and_deleting_it_again_is_no_error() {
    let cloud = TestCloud::start().await;
    for call in ["DeleteKeyPair KeyName=a", "DeleteKeyPair KeyPairId=key-00000001"] {
        assert_eq!(cloud.joe().call(&import("a")).await.outcome(), "200", "the name is free");
        for _ in 0..2 {
            assert_eq!(cloud.joe().call(call).await.text("return"), Some("true"), "{call}");
            if call.contains("KeyPairId") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_vpns_key_pairs_are_the_administrators() {
    let cloud = TestCloud::start().await;
    assert_eq!(cloud.admin().call(&import("acme-vpn")).await.outcome(), "200");
    assert_eq!(cloud.admin().call("DescribeKeyPairs").await.texts("keyName"), ["acme-vpn"]);
}
