//! Security groups through the whole API.

use expect_test::expect;

use crate::testing::TestCloud;

#[tokio::test]
async fn a_project_begins_with_an_empty_default_group() {
    let cloud = TestCloud::start().await;
    expect![[r#"
        200
        <DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <securityGroupInfo>
            <item>
              <ownerId>acme</ownerId>
              <groupId>sg-00000001</groupId>
              <groupName>default</groupName>
              <groupDescription>default</groupDescription>
              <ipPermissions/>
              <ipPermissionsEgress/>
            </item>
          </securityGroupInfo>
        </DescribeSecurityGroupsResponse>
    "#]]
    .assert_eq(&cloud.joe().call("DescribeSecurityGroups").await.pretty());
}

#[tokio::test]
async fn rules_are_shown_by_kind_with_all_their_sources() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    for call in [
        "CreateSecurityGroup GroupName=web GroupDescription=for%20the%20web",
        "AuthorizeSecurityGroupIngress GroupName=web IpProtocol=tcp FromPort=80 ToPort=81 CidrIp=10.0.0.0%252F8",
        "AuthorizeSecurityGroupIngress GroupName=web IpProtocol=icmp FromPort=-1 ToPort=-1 CidrIp=0.0.0.0/0",
        "AuthorizeSecurityGroupIngress GroupName=web IpPermissions.1.IpProtocol=tcp IpPermissions.1.FromPort=80 \
         IpPermissions.1.ToPort=81 IpPermissions.1.Groups.1.GroupName=default",
    ] {
        assert_eq!(joe.call(call).await.outcome(), "200", "{call}");
    }
    let shown = joe.call("DescribeSecurityGroups GroupName.1=web").await;
    assert_eq!(shown.texts("ipProtocol"), ["tcp", "icmp"]);
    assert_eq!(shown.texts("fromPort"), ["80", "-1"]);
    assert_eq!(shown.texts("cidrIp"), ["10.0.0.0/8", "0.0.0.0/0"]);
    assert_eq!(shown.texts("userId"), ["acme"]);
}

#[tokio::test]
async fn a_client_of_2010_sees_only_what_its_parser_bears() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    let rule = "IpPermissions.1.IpProtocol=tcp IpPermissions.1.FromPort=80 IpPermissions.1.ToPort=80";
    let ranges = "IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0/8 IpPermissions.1.Ipv6Ranges.1.CidrIpv6=::/0";
    let call = format!("AuthorizeSecurityGroupIngress GroupName=default {rule} {ranges}");
    assert_eq!(joe.call(&call).await.outcome(), "200");
    let new = joe.call("DescribeSecurityGroups").await;
    assert_eq!((new.texts("cidrIp"), new.texts("cidrIpv6")), (vec!["10.0.0.0/8"], vec!["::/0"]));
    for version in ["2009-04-04", "2009-11-30", "2010-08-31"] {
        let old = cloud.joe().version(version).call("DescribeSecurityGroups").await;
        assert_eq!((old.texts("cidrIp"), old.texts("cidrIpv6")), (vec!["10.0.0.0/8", "::/0"], vec![]), "{version}");
        assert!(!old.body.contains("ipPermissionsEgress") && !old.body.contains("ipv6Ranges"), "{}", old.body);
    }
}

#[tokio::test]
async fn groups_are_found_by_the_ranges_of_their_rules() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    joe.call("CreateSecurityGroup GroupName=web GroupDescription=x").await;
    for (group, range) in [("default", "10.0.0.0/8"), ("web", "2001:db8::/32")] {
        let call = format!("AuthorizeSecurityGroupIngress GroupName={group} IpProtocol=-1 CidrIp={range}");
        assert_eq!(joe.call(&call).await.outcome(), "200", "{call}");
    }
    for (filter, value, wanted) in [
        ("ip-permission.cidr", "10.*", vec!["default"]),
        ("ip-permission.cidr", "2001:*", vec![]),
        ("ip-permission.ipv6-cidr", "2001:*", vec!["web"]),
    ] {
        let shown = joe.call(&format!("DescribeSecurityGroups Filter.1.Name={filter} Filter.1.Value.1={value}")).await;
        assert_eq!(shown.texts("groupName"), wanted, "{filter}={value}");
    }
}

#[tokio::test]
async fn a_rule_is_there_once_and_goes_once() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    let rule = "GroupName=default IpProtocol=tcp FromPort=22 ToPort=22 CidrIp=0.0.0.0/0";
    for (verb, wanted) in [
        ("Authorize", "200"),
        ("Authorize", "400 InvalidPermission.Duplicate"),
        ("Revoke", "200"),
        ("Revoke", "400 InvalidPermission.NotFound"),
    ] {
        assert_eq!(joe.call(&format!("{verb}SecurityGroupIngress {rule}")).await.outcome(), wanted, "{verb}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_with_a_group_has_a_code() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    joe.call("CreateSecurityGroup GroupName=web GroupDescription=x").await;
    for (call, wanted) in [
        ("CreateSecurityGroup GroupName=web GroupDescription=x", "400 InvalidGroup.Duplicate"),
        ("CreateSecurityGroup GroupName=default GroupDescription=x", "400 InvalidGroup.Duplicate"),
        ("CreateSecurityGroup GroupName=caf%C3%A9 GroupDescription=x", "400 InvalidParameterValue"),
        ("CreateSecurityGroup GroupDescription=x", "400 MissingParameter"),
        ("DeleteSecurityGroup GroupName=default", "400 CannotDelete"),
        ("DeleteSecurityGroup GroupName=nope", "400 InvalidGroup.NotFound"),
        ("DeleteSecurityGroup GroupId=sg-0000ffff", "400 InvalidGroup.NotFound"),
        ("DeleteSecurityGroup GroupId=web", "400 InvalidGroupId.Malformed"),
        ("DescribeSecurityGroups GroupName.1=nope", "400 InvalidGroup.NotFound"),
        ("DescribeSecurityGroups Filter.1.Name=colour Filter.1.Value.1=red", "400 InvalidParameterValue"),
        ("AuthorizeSecurityGroupIngress GroupName=web SourceSecurityGroupName=nope", "400 InvalidGroup.NotFound"),
        ("DeleteSecurityGroup GroupName=web", "200"),
        ("DeleteSecurityGroup GroupName=web", "400 InvalidGroup.NotFound"),
    ] {
        assert_eq!(joe.call(call).await.outcome(), wanted, "{call}");
    }
}

#[tokio::test]
async fn another_projects_group_is_as_absent_as_one_that_never_was() {
    let cloud = TestCloud::start().await;
    let id = cloud.joe().call("CreateSecurityGroup GroupName=web GroupDescription=x").await;
    let foreign = id.text("groupId").unwrap().to_owned();
    for call in ["DescribeSecurityGroups GroupId.1=", "DeleteSecurityGroup GroupId="] {
        let eve = cloud.eve();
        let answer = eve.call(&format!("{call}{foreign}")).await;
        let absent = eve.call(&format!("{call}sg-0000ffff")).await;
        assert_eq!(answer.outcome(), "400 InvalidGroup.NotFound");
        assert_eq!(answer.pretty().replace(&foreign, "sg-0000ffff"), absent.pretty());
    }
}

#[tokio::test]
async fn only_a_netadmin_changes_groups() {
    let cloud = TestCloud::start().await;
    for call in [
        "CreateSecurityGroup GroupName=web GroupDescription=x",
        "DeleteSecurityGroup GroupName=web",
        "AuthorizeSecurityGroupIngress GroupName=default IpProtocol=icmp FromPort=-1 ToPort=-1",
        "RevokeSecurityGroupIngress GroupName=default IpProtocol=icmp FromPort=-1 ToPort=-1",
    ] {
        assert_eq!(cloud.ann().call(call).await.outcome(), "401 UnauthorizedOperation", "{call}");
    }
    assert_eq!(cloud.ann().call("DescribeSecurityGroups").await.outcome(), "200");
}

#[tokio::test]
async fn rules_of_ipv6_are_granted_shown_and_revoked_in_the_words_of_every_year() {
    let cloud = TestCloud::start().await;
    let (old, new) = (cloud.joe().version("2009-11-30"), cloud.joe());
    let flat = "SecurityGroupIngress GroupName=default IpProtocol=tcp FromPort=22 ToPort=22 CidrIp=::%2F0";
    assert_eq!(old.call(&format!("Authorize{flat}")).await.outcome(), "200");
    let ping = "IpPermissions.1.IpProtocol=58 IpPermissions.1.FromPort=-1 IpPermissions.1.ToPort=-1 \
                IpPermissions.1.Ipv6Ranges.1.CidrIpv6=2001:db8::/32";
    let nested = format!("SecurityGroupIngress GroupName=default {ping}");
    assert_eq!(new.call(&format!("Authorize{nested}")).await.outcome(), "200");
    let again = new.call(&format!("Authorize{nested}")).await;
    assert_eq!(again.outcome(), "400 InvalidPermission.Duplicate");
    let shown = new.call("DescribeSecurityGroups").await;
    assert_eq!(shown.texts("cidrIpv6"), ["::/0", "2001:db8::/32"]);
    assert_eq!(shown.texts("ipProtocol"), ["tcp", "icmpv6"]);
    assert_eq!(old.call("DescribeSecurityGroups").await.texts("cidrIp"), ["::/0", "2001:db8::/32"]);
    assert_eq!(new.call(&format!("Revoke{nested}")).await.outcome(), "200");
    assert_eq!(old.call(&format!("Revoke{flat}")).await.outcome(), "200");
    assert!(new.call("DescribeSecurityGroups").await.texts("ipProtocol").is_empty());
    let of_ipv4 =
        "AuthorizeSecurityGroupIngress GroupName=default IpProtocol=icmpv6 FromPort=-1 ToPort=-1 CidrIp=0.0.0.0/0";
    assert_eq!(new.call(of_ipv4).await.outcome(), "400 InvalidParameterValue");
}
