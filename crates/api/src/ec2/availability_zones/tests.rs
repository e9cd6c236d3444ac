//! Zones as users see them, and hosts as administrators do.

use expect_test::expect;
use nova_db::services;

use crate::testing::TestCloud;

/// Reports a daemon; `silent_seconds` ago, if not just now.
async fn report(cloud: &TestCloud, host: &str, binary: &str, zone: &str, silent_seconds: i64) {
    let (mut conn, host) = (cloud.db.write().await.unwrap(), host.parse().unwrap());
    services::heartbeat(&mut conn, &host, binary, zone, true).await.unwrap();
    if silent_seconds > 0 {
        let args = [silent_seconds.into(), (&host).into(), binary.into()];
        conn.execute("update services set updated_at = {now-?} where host = ? and \"binary\" = ?", &args)
            .await
            .unwrap();
    }
}

async fn cloud_of_three_zones() -> TestCloud {
    let cloud = TestCloud::start().await;
    report(&cloud, "node1", "nova-compute", "nova", 0).await;
    report(&cloud, "node1", "nova-network", "nova", 0).await;
    report(&cloud, "node2", "nova-compute", "nova", 86_410).await; // a day and ten seconds: not ten seconds
    report(&cloud, "node3", "nova-compute", "attic", 86_410).await;
    report(&cloud, "node4", "nova-compute", "closed", 0).await;
    report(&cloud, "node5", "nova-scheduler", "elsewhere", 0).await;
    let mut conn = cloud.db.write().await.unwrap();
    services::set_disabled(&mut conn, &"node4".parse().unwrap(), "nova-compute", true).await.unwrap();
    drop(conn);
    cloud
}

#[tokio::test]
async fn a_zone_is_available_while_one_of_its_hosts_can_take_instances() {
    let cloud = cloud_of_three_zones().await;
    expect![[r#"
        200
        <DescribeAvailabilityZonesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <availabilityZoneInfo>
            <item>
              <zoneName>attic</zoneName>
              <zoneState>unavailable</zoneState>
              <zoneId>attic</zoneId>
              <regionName>nova</regionName>
            </item>
            <item>
              <zoneName>closed</zoneName>
              <zoneState>unavailable</zoneState>
              <zoneId>closed</zoneId>
              <regionName>nova</regionName>
            </item>
            <item>
              <zoneName>nova</zoneName>
              <zoneState>available</zoneState>
              <zoneId>nova</zoneId>
              <regionName>nova</regionName>
            </item>
          </availabilityZoneInfo>
        </DescribeAvailabilityZonesResponse>
    "#]]
    .assert_eq(&cloud.ann().call("DescribeAvailabilityZones").await.pretty());
}

#[tokio::test]
async fn zones_are_chosen_by_name_id_and_filter() {
    let cloud = cloud_of_three_zones().await;
    for (call, wanted) in [
        ("ZoneName.1=nova", vec!["nova"]),
        ("ZoneName=nova", vec!["nova"]),
        ("ZoneId.1=attic AllAvailabilityZones=true", vec!["attic"]),
        ("Filter.1.Name=state Filter.1.Value.1=available", vec!["nova"]),
        ("Filter.1.Name=zone-name Filter.1.Value.1=*o*", vec!["closed", "nova"]),
        ("Filter.1.Name=region-name Filter.1.Value.1=nova", vec!["attic", "closed", "nova"]),
    ] {
        let answer = cloud.ann().call(&format!("DescribeAvailabilityZones {call}")).await;
        assert_eq!(answer.texts("zoneName"), wanted, "{call}: {}", answer.body);
    }
    for call in ["ZoneName.1=moon", "ZoneId.1=moon", "Filter.1.Name=colour Filter.1.Value.1=red"] {
        let answer = cloud.ann().call(&format!("DescribeAvailabilityZones {call}")).await;
        assert_eq!(answer.outcome(), "400 InvalidParameterValue", "{call}");
    }
}

#[tokio::test]
async fn verbose_shows_every_daemon_and_whether_it_lives() {
    let cloud = cloud_of_three_zones().await;
    let answer = cloud.admin().call("DescribeAvailabilityZones ZoneName.1=verbose").await;
    let states = answer.texts("zoneState").into_iter().map(|state| state.split(" 20").next().unwrap_or_default());
    let lines: Vec<String> = answer
        .texts("zoneName")
        .iter()
        .zip(states)
        .map(|(name, state)| format!("{name:<20} {state}").trim_end().to_owned())
        .collect();
    expect![[r#"
        attic                unavailable
        closed               unavailable
        nova                 available
        |- node1
        | |- nova-compute    enabled :-)
        | |- nova-network    enabled :-)
        |- node2
        | |- nova-compute    enabled XXX
        |- node3
        | |- nova-compute    enabled XXX
        |- node4
        | |- nova-compute    disabled :-)
        |- node5
        | |- nova-scheduler  enabled :-)"#]]
    .assert_eq(&lines.join("\n"));
}

#[tokio::test]
async fn verbose_means_nothing_to_others() {
    let cloud = cloud_of_three_zones().await;
    let answer = cloud.joe().call("DescribeAvailabilityZones ZoneName.1=verbose").await;
    assert_eq!(answer.texts("zoneName"), ["attic", "closed", "nova"]);
}
