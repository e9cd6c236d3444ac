//! Floating addresses through the whole API. Nobody binds them here.

use expect_test::expect;
use nova_bus::{Bus as _, Subscription};
use nova_db::dev::fixtures;
use nova_db::{fixed_ips, floating_ips, networks, transaction};
use nova_types::{HostName, InstanceId};
use nova_wire::Topic;

use crate::testing::{TestCloud, project};

/// A cloud with three floating addresses, two instances of `acme` with fixed ones, one of `evil`, and one without.
async fn cloud(flags: &[&str]) -> (TestCloud, Vec<InstanceId>) {
    let cloud = TestCloud::start_with(flags).await;
    let network = fixtures::flat_network(&cloud.db, 28).await;
    let mut ids = fixtures::launch(&cloud.db, &project("acme"), 2).await;
    ids.extend(fixtures::launch(&cloud.db, &project("evil"), 1).await);
    let host: HostName = "net1".parse().unwrap();
    transaction!(cloud.db, |tx| -> floating_ips::FloatingError {
        networks::claim(tx, &host, 30).await?;
        fixed_ips::take(tx, network, &ids).await?;
        let pool = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        floating_ips::create(tx, &host, &pool).await
    })
    .unwrap();
    ids.extend(fixtures::launch(&cloud.db, &project("acme"), 1).await);
    (cloud, ids)
}

#[tokio::test]
async fn an_address_is_allocated_associated_shown_and_released() {
    let (cloud, ids) = cloud(&[]).await;
    let joe = cloud.joe();
    expect![[r#"
        200
        <AllocateAddressResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <publicIp>192.0.2.1</publicIp>
          <domain>standard</domain>
          <allocationId>eipalloc-00000001</allocationId>
        </AllocateAddressResponse>
    "#]]
    .assert_eq(&joe.call("AllocateAddress").await.pretty());
    joe.call("AllocateAddress Domain=standard").await;
    let done = joe.call(&format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={}", ids[0])).await;
    assert_eq!((done.outcome().as_str(), done.text("return")), ("200", Some("true")), "{}", done.body);
    expect![[r#"
        200
        <DescribeAddressesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <addressesSet>
            <item>
              <publicIp>192.0.2.1</publicIp>
              <allocationId>eipalloc-00000001</allocationId>
              <domain>standard</domain>
              <instanceId>i-00000001</instanceId>
              <associationId>eipassoc-0000000100000001</associationId>
              <privateIpAddress>10.0.0.2</privateIpAddress>
            </item>
            <item>
              <publicIp>192.0.2.2</publicIp>
              <allocationId>eipalloc-00000002</allocationId>
              <domain>standard</domain>
              <instanceId/>
            </item>
          </addressesSet>
        </DescribeAddressesResponse>
    "#]]
    .assert_eq(&joe.call("DescribeAddresses").await.pretty());
    let shown = joe.call(&format!("DescribeInstances InstanceId={}", ids[0])).await;
    assert_eq!((shown.text("ipAddress"), shown.text("dnsName")), (Some("192.0.2.1"), Some("192.0.2.1")));
    let done = joe.call("DisassociateAddress PublicIp=192.0.2.1").await;
    assert_eq!(done.outcome(), "200");
    assert_eq!(joe.call("DisassociateAddress PublicIp=192.0.2.1").await.outcome(), "200", "again is no error");
    assert_eq!(joe.call("DescribeInstances").await.text("ipAddress"), None);
    joe.call(&format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={}", ids[0])).await;
    assert_eq!(joe.call("ReleaseAddress PublicIp=192.0.2.1").await.outcome(), "200", "also of one that is associated");
    assert_eq!(joe.call("DescribeAddresses").await.texts("publicIp"), ["192.0.2.2"]);
    assert_eq!(joe.call("DescribeInstances").await.text("ipAddress"), None);
}

#[tokio::test]
async fn an_address_moves_unless_the_caller_says_no() {
    let (cloud, ids) = cloud(&[]).await;
    let joe = cloud.joe();
    joe.call("AllocateAddress").await;
    let to = |id: InstanceId, more: &str| format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={id}{more}");
    assert_eq!(joe.call(&to(ids[0], "")).await.outcome(), "200");
    let kept = joe.call(&to(ids[1], " AllowReassociation=false")).await;
    assert_eq!(kept.outcome(), "400 Resource.AlreadyAssociated");
    assert_eq!(joe.call("DescribeAddresses").await.text("privateIpAddress"), Some("10.0.0.2"));
    assert_eq!(joe.call(&to(ids[0], " AllowReassociation=false")).await.outcome(), "200", "it is there");
    assert_eq!(joe.call(&to(ids[1], " AllowReassociation=true")).await.outcome(), "200");
    assert_eq!(joe.call("DescribeAddresses").await.text("privateIpAddress"), Some("10.0.0.3"));
    let by_address = "AssociateAddress PublicIp=192.0.2.1 PrivateIpAddress=10.0.0.2";
    assert_eq!(joe.call(by_address).await.outcome(), "200");
    assert_eq!(joe.call("DescribeAddresses").await.text("instanceId"), Some("i-00000001"));
    assert_eq!(joe.call(&to(ids[1], " PrivateIpAddress=10.0.0.3")).await.outcome(), "200");
    assert_eq!(joe.call(&to(ids[1], " PrivateIpAddress=10.0.0.2")).await.outcome(), "400 InvalidParameterValue");
}

#[tokio::test]
async fn addresses_are_chosen_by_themselves_and_by_filter() {
    let (cloud, ids) = cloud(&[]).await;
    let joe = cloud.joe();
    for _ in 0..3 {
        joe.call("AllocateAddress").await;
    }
    joe.call(&format!("AssociateAddress PublicIp=192.0.2.2 InstanceId={}", ids[0])).await;
    let cases: &[(&str, &[&str])] = &[
        ("", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("PublicIp.1=192.0.2.3 PublicIp.2=192.0.2.1", &["192.0.2.1", "192.0.2.3"]),
        ("Filter.1.Name=public-ip Filter.1.Value.1=192.0.2.3", &["192.0.2.3"]),
        ("Filter.1.Name=instance-id Filter.1.Value.1=i-00000001", &["192.0.2.2"]),
        ("Filter.1.Name=private-ip-address Filter.1.Value.1=10.0.0.*", &["192.0.2.2"]),
        ("Filter.1.Name=domain Filter.1.Value.1=standard", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("Filter.1.Name=domain Filter.1.Value.1=vpc", &[]),
        ("Filter.1.Name=allocation-id Filter.1.Value.1=eipalloc-00000003", &["192.0.2.3"]),
        ("AllocationId.1=eipalloc-00000003", &["192.0.2.3"]),
        ("AllocationId.1=eipalloc-00000003 PublicIp.1=192.0.2.1", &["192.0.2.1", "192.0.2.3"]),
        ("Filter.1.Name=association-id Filter.1.Value.1=eipassoc-0000000200000001", &["192.0.2.2"]),
        ("PublicIp.1=192.0.2.1 Filter.1.Name=instance-id Filter.1.Value.1=*", &[]),
    ];
    for (call, wanted) in cases {
        let answer = joe.call(&format!("DescribeAddresses {call}")).await;
        assert_eq!(answer.texts("publicIp"), *wanted, "{call}: {}", answer.body);
    }
}

#[tokio::test]
async fn clients_of_today_name_addresses_by_allocation_and_association() {
    let (cloud, ids) = cloud(&[]).await;
    let joe = cloud.joe();
    joe.call("AllocateAddress").await;
    expect![[r#"
        200
        <AllocateAddressResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <publicIp>192.0.2.2</publicIp>
          <domain>vpc</domain>
          <allocationId>eipalloc-00000002</allocationId>
        </AllocateAddressResponse>
    "#]]
    .assert_eq(&joe.call("AllocateAddress Domain=vpc").await.pretty());
    let to = |id: InstanceId| format!("AssociateAddress AllocationId=eipalloc-00000002 InstanceId={id}");
    expect![[r#"
        200
        <AssociateAddressResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <return>true</return>
          <associationId>eipassoc-0000000200000001</associationId>
        </AssociateAddressResponse>
    "#]]
    .assert_eq(&joe.call(&to(ids[0])).await.pretty());
    let shown = "DescribeAddresses AllocationId.1=eipalloc-00000002";
    expect![[r#"
        200
        <DescribeAddressesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <addressesSet>
            <item>
              <publicIp>192.0.2.2</publicIp>
              <allocationId>eipalloc-00000002</allocationId>
              <domain>vpc</domain>
              <instanceId>i-00000001</instanceId>
              <associationId>eipassoc-0000000200000001</associationId>
              <privateIpAddress>10.0.0.2</privateIpAddress>
            </item>
          </addressesSet>
        </DescribeAddressesResponse>
    "#]]
    .assert_eq(&joe.call(shown).await.pretty());
    let attribute = "DescribeAddressesAttribute AllocationId.1=eipalloc-00000002 Attribute=domain-name";
    expect![[r#"
        200
        <DescribeAddressesAttributeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <addressSet>
            <item>
              <publicIp>192.0.2.2</publicIp>
              <allocationId>eipalloc-00000002</allocationId>
            </item>
          </addressSet>
        </DescribeAddressesAttributeResponse>
    "#]]
    .assert_eq(&joe.call(attribute).await.pretty());
    let old = cloud.joe().version("2010-08-31").call("DescribeAddresses").await;
    assert!(!old.body.contains("allocationId") && !old.body.contains("associationId"), "{}", old.body);

    // It moves, and the old association is none any more.
    joe.call(&to(ids[1])).await;
    let end = |association: &str| format!("DisassociateAddress AssociationId={association}");
    let gone = joe.call(&end("eipassoc-0000000200000001")).await;
    assert_eq!(gone.outcome(), "400 InvalidAssociationID.NotFound");
    assert_eq!(cloud.eve().call(&end("eipassoc-0000000200000002")).await.outcome(), gone.outcome());
    assert_eq!(joe.call(&end("eipassoc-0000000200000002")).await.outcome(), "200");
    assert_eq!(joe.call(shown).await.text("associationId"), None);
    for call in ["ReleaseAddress AllocationId=eipalloc-00000002", "DescribeAddresses AllocationId.1=eipalloc-00000002"]
    {
        assert_eq!(cloud.eve().call(call).await.outcome(), "400 InvalidAllocationID.NotFound", "{call}");
    }
    assert_eq!(joe.call("ReleaseAddress AllocationId=eipalloc-00000002").await.outcome(), "200");
    let again = joe.call("ReleaseAddress AllocationId=eipalloc-00000002").await;
    assert_eq!(again.outcome(), "400 InvalidAllocationID.NotFound");
    // Whoever has it next is not told what the last one asked for.
    assert_eq!(joe.call("AllocateAddress").await.text("domain"), Some("standard"));
}

#[tokio::test]
async fn a_foreign_address_is_an_absent_one() {
    let (cloud, ids) = cloud(&[]).await;
    cloud.joe().call("AllocateAddress").await;
    cloud.joe().call(&format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={}", ids[0])).await;
    let eve = cloud.eve();
    for action in
        ["DescribeAddresses", "DisassociateAddress", "ReleaseAddress", "AssociateAddress InstanceId=i-00000003"]
    {
        let said = async |address: &str| {
            let answer = eve.call(&format!("{action} PublicIp={address}")).await;
            assert_eq!(answer.outcome(), "400 InvalidAddress.NotFound", "{action} {address}");
            answer.pretty().replace(address, "ADDRESS")
        };
        // One of another project, one of the pool, one of nobody.
        let foreign = said("192.0.2.1").await;
        assert_eq!((said("192.0.2.2").await, said("192.0.2.77").await), (foreign.clone(), foreign));
    }
    assert_eq!(eve.call("DescribeAddresses").await.texts("publicIp"), [""; 0]);
    eve.call("AllocateAddress").await;
    let theirs = eve.call(&format!("AssociateAddress PublicIp=192.0.2.2 InstanceId={}", ids[0])).await;
    assert_eq!(theirs.outcome(), "400 InvalidInstanceID.NotFound");
    let theirs = eve.call("AssociateAddress PublicIp=192.0.2.2 PrivateIpAddress=10.0.0.2").await;
    assert_eq!(theirs.outcome(), "400 InvalidParameterValue");
    assert_eq!(cloud.admin().call("DescribeAddresses").await.texts("publicIp"), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(cloud.admin().call("ReleaseAddress PublicIp=192.0.2.1").await.outcome(), "200", "superusers may");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_code_clients_look_for() {
    let (cloud, ids) = cloud(&["--quota_floating_ips=2"]).await;
    let joe = cloud.joe();
    joe.call("AllocateAddress").await;
    joe.call("AllocateAddress").await;
    let waiting = ids[3];
    for (call, wanted) in [
        ("AllocateAddress", "400 AddressLimitExceeded"),
        ("AllocateAddress Domain=moon", "400 InvalidParameterValue"),
        ("AssociateAddress InstanceId=i-00000001", "400 MissingParameter"),
        ("AssociateAddress PublicIp=192.0.2.1", "400 MissingParameter"),
        ("AssociateAddress PublicIp=192.0.2.1 InstanceId=i-000000ff", "400 InvalidInstanceID.NotFound"),
        ("AssociateAddress PublicIp=192.0.2.1 InstanceId=web", "400 InvalidInstanceID.Malformed"),
        ("AssociateAddress AllocationId=eipalloc-1 InstanceId=i-00000001", "400 InvalidAllocationID.NotFound"),
        ("AssociateAddress PublicIp=nowhere InstanceId=i-00000001", "400 InvalidParameterValue"),
        ("DisassociateAddress", "400 MissingParameter"),
        ("DisassociateAddress AssociationId=eipassoc-1", "400 InvalidAssociationID.NotFound"),
        ("ReleaseAddress AllocationId=eipalloc-1", "400 InvalidAllocationID.NotFound"),
        ("ReleaseAddress PublicIp=192.0.2.3", "400 InvalidAddress.NotFound"),
        ("DescribeAddresses AllocationId.1=eipalloc-1", "400 InvalidAllocationID.NotFound"),
        ("DescribeAddressesAttribute AllocationId.1=eipalloc-1", "400 InvalidAllocationID.NotFound"),
        ("DescribeAddressesAttribute Attribute=colour", "400 InvalidParameterValue"),
        ("DescribeAddresses PublicIp.1=192.0.2.3", "400 InvalidAddress.NotFound"),
        ("DescribeAddresses Filter.1.Name=colour Filter.1.Value.1=red", "400 InvalidParameterValue"),
    ] {
        assert_eq!(joe.call(call).await.outcome(), wanted, "{call}");
    }
    let bare = joe.call(&format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={waiting}")).await;
    assert_eq!(bare.outcome(), "400 IncorrectInstanceState");
    assert_eq!(cloud.eve().call("AllocateAddress").await.text("publicIp"), Some("192.0.2.3"));
    assert_eq!(cloud.eve().call("AllocateAddress").await.outcome(), "400 InsufficientAddressCapacity");
}

#[tokio::test]
async fn the_network_host_is_told() {
    let (cloud, ids) = cloud(&[]).await;
    let joe = cloud.joe();
    let wanted = Subscription { topic: Topic::Network, host: "net1".to_owned(), prefetch: 1 };
    let mut network_host = cloud.bus.consume(&wanted).await.unwrap();
    joe.call("AllocateAddress").await;
    for call in [
        &format!("AssociateAddress PublicIp=192.0.2.1 InstanceId={}", ids[0]),
        "DisassociateAddress PublicIp=192.0.2.1",
    ] {
        let (done, told) = tokio::join!(joe.call(call), network_host.next());
        assert_eq!(done.outcome(), "200");
        let told = told.unwrap();
        let text = String::from_utf8(told.body().to_vec()).unwrap();
        assert!(text.contains("refresh_network") && text.contains("[1]"), "{text}");
        told.ack().await.unwrap();
    }
}
