//! Instances through the whole API: what is accepted, shown and refused. Nobody places or boots them here.

use nova_bus::{Bus as _, Subscription};
use nova_db::dev::fixtures;
use nova_db::dev::proxy::{Commit, Proxy};
use nova_db::{Db, Engine, Options, fixed_ips, images, instances, services, transaction};
use nova_types::image::{DiskFormat, NewImage};
use nova_types::{ImageId, ImageKind};
use nova_wire::Topic;

use crate::testing::TestCloud;

/// A cloud with one zone, and a public image with kernel and ramdisk.
async fn cloud() -> (TestCloud, String) {
    furnished(TestCloud::start().await).await
}

async fn furnished(cloud: TestCloud) -> (TestCloud, String) {
    let mut conn = cloud.db.write().await.unwrap();
    let host = "h1".parse().unwrap();
    services::heartbeat(&mut conn, &host, "nova-compute", "nova", true).await.unwrap();
    drop(conn);
    let kernel = image(&cloud, ImageKind::Kernel, None).await;
    let machine = image(&cloud, ImageKind::Machine, Some(kernel)).await;
    (cloud, machine.to_string())
}

async fn image(cloud: &TestCloud, kind: ImageKind, kernel: Option<ImageId>) -> ImageId {
    let new = NewImage {
        kind,
        owner: "admin".parse().unwrap(),
        name: kind.as_str().into(),
        description: String::new(),
        location: kind.as_str().into(),
        is_public: true,
        architecture: "x86_64".into(),
        format: DiskFormat::Raw,
        kernel,
        ramdisk: None,
    };
    let mut conn = cloud.db.write().await.unwrap();
    let id = images::register(&mut conn, &new).await.unwrap();
    let stored = images::Stored { sha256: &"0".repeat(64), size_bytes: 1, virtual_size_bytes: 1 };
    images::available(&mut conn, id, stored).await.unwrap();
    id
}

#[tokio::test]
async fn a_launch_is_accepted_shown_and_counted() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    let run = joe.call(&format!("RunInstances ImageId={image} MinCount=2 MaxCount=3 InstanceType=m1.tiny")).await;
    assert_eq!(run.outcome(), "200", "{}", run.body);
    assert_eq!(run.texts("instanceId"), ["i-00000001", "i-00000002", "i-00000003"]);
    assert_eq!(run.texts("amiLaunchIndex"), ["0", "1", "2"]);
    let shown = joe.call("DescribeInstances").await;
    assert_eq!(shown.texts("name"), ["pending", "pending", "pending"]);
    // What the launch answers from memory is what is stored.
    for name in ["reservationId", "launchTime", "groupId", "groupName", "instanceType", "imageId", "privateDnsName"] {
        assert_eq!(shown.texts(name), run.texts(name), "{name}");
    }
    let page = joe.call("DescribeInstances Filter.1.Name=launch-index Filter.1.Value.1=1").await;
    assert_eq!(page.texts("instanceId"), ["i-00000002"]);
}

#[tokio::test]
async fn a_launch_whose_commit_nobody_answered_is_there_once() {
    for engine in [Engine::MySql, Engine::Postgres] {
        for (what, token) in [
            (Commit::Lost, ""),
            (Commit::Unanswered, ""),
            (Commit::Lost, " ClientToken=once"),
            (Commit::Unanswered, " ClientToken=once"),
        ] {
            let Some((db, url)) = nova_db::dev::on(engine).await else { continue };
            let (proxy, through) = Proxy::before(&url).await;
            let far = Db::open(&through, &Options::default()).await.unwrap();
            // Room for one launch: a second run must not take the first one's quota for another's.
            let cloud = TestCloud::start_on(db, far, &["--quota_instances=2"]).await;
            let (cloud, image) = furnished(cloud).await;
            let joe = cloud.joe();
            // The group `default` is made by the first launch; that is another commit.
            assert_eq!(joe.call("DescribeSecurityGroups").await.outcome(), "200");
            proxy.next_commit(what);
            let run = joe.call(&format!("RunInstances ImageId={image} MinCount=2 MaxCount=2{token}")).await;
            assert_eq!(run.outcome(), "200", "{engine:?} {what:?}{token}: {}", run.body);
            assert!(proxy.is_done());
            let shown = joe.call("DescribeInstances").await;
            assert_eq!(shown.texts("reservationId"), run.texts("reservationId"), "{engine:?} {what:?}{token}");
            assert_eq!((shown.texts("instanceId").len(), run.texts("instanceId")), (2, shown.texts("instanceId")));
        }
    }
}

#[tokio::test]
async fn an_old_client_sees_no_item_inside_an_instance() {
    let (cloud, image) = cloud().await;
    cloud.joe().call(&format!("RunInstances ImageId={image} DisplayName=web")).await;
    let old = cloud.joe().version("2009-11-30").call("DescribeInstances").await;
    let (_, instances) = old.body.split_once("<instancesSet>").unwrap();
    assert_eq!(instances.matches("<item>").count(), 1, "{}", old.body);
    assert_eq!(old.texts("groupId"), ["default"]);
    let new = cloud.joe().call("DescribeInstances").await;
    assert_eq!(new.texts("groupId"), ["sg-00000001", "sg-00000001"]);
    assert_eq!(new.texts("value"), ["web"]);
}

#[tokio::test]
async fn what_an_instance_shows_it_is_found_by() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    joe.call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny DisplayName=web")).await;
    let found = async |filter: &str, value: &str| {
        let call = format!("DescribeInstances Filter.1.Name={filter} Filter.1.Value.1={value}");
        let answer = joe.call(&call).await;
        assert_eq!(answer.outcome(), "200", "{call}: {}", answer.body);
        answer.texts("instanceId").len()
    };
    for (filter, value) in [
        ("architecture", "x86_64"),
        ("hypervisor", "xen"),
        ("monitoring-state", "disabled"),
        ("root-device-name", "/dev/vda"),
        ("root-device-type", "instance-store"),
        ("source-dest-check", "true"),
        ("tag:Name", "w?b"),
        ("tenancy", "default"),
        ("virtualization-type", "hvm"),
    ] {
        assert_eq!(found(filter, value).await, 1, "{filter}={value}");
        assert_eq!(found(filter, "nonsense").await, 0, "{filter}");
    }
    for filter in ["platform", "product-code"] {
        assert_eq!(found(filter, "*").await, 0, "{filter}");
    }
}

#[tokio::test]
async fn a_status_is_found_by_what_it_says() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    joe.call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny")).await;
    for (filter, value, wanted) in [
        ("instance-state-name", "pending", 1),
        ("instance-status.status", "initializing", 1),
        ("instance-status.status", "ok", 0),
        ("system-status.status", "init*", 1),
        ("instance-status.reachability", "initializing", 1),
        ("system-status.reachability", "passed", 0),
    ] {
        let filter = format!("Filter.1.Name={filter} Filter.1.Value.1={value}");
        let answer = joe.call(&format!("DescribeInstanceStatus IncludeAllInstances=true {filter}")).await;
        assert_eq!((answer.outcome().as_str(), answer.texts("instanceId").len()), ("200", wanted), "{filter}");
    }
    let other = joe.call("DescribeInstanceStatus Filter.1.Name=image-id Filter.1.Value.1=x").await;
    assert_eq!(other.outcome(), "400 InvalidParameterValue", "a status has no image");
}

#[tokio::test]
async fn a_page_of_statuses_is_full_whatever_does_not_run() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    joe.call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny MinCount=7 MaxCount=7")).await;
    let first = joe.call("DescribeInstanceStatus MaxResults=5").await;
    assert_eq!((first.texts("instanceId").len(), first.text("nextToken")), (0, None), "none of them runs");
    let all = joe.call("DescribeInstanceStatus MaxResults=5 IncludeAllInstances=true").await;
    assert_eq!((all.texts("instanceId").len(), all.text("nextToken").is_some()), (5, true));
}

#[tokio::test]
async fn quota_is_a_limit_whatever_the_counts() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    let run = |counts: &str| format!("RunInstances ImageId={image} InstanceType=m1.tiny {counts}");
    assert_eq!(joe.call(&run("MinCount=11 MaxCount=11")).await.outcome(), "400 InstanceLimitExceeded");
    assert_eq!(joe.call(&run("MinCount=1 MaxCount=50")).await.texts("instanceId").len(), 10);
    assert_eq!(joe.call(&run("MinCount=1 MaxCount=1")).await.outcome(), "400 InstanceLimitExceeded");
}

#[tokio::test]
async fn a_client_token_is_one_launch_however_often_it_is_sent() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    let run = format!("RunInstances ImageId={image} InstanceType=m1.tiny ClientToken=once");
    let first = joe.call(&run).await;
    let second = joe.call(&run).await;
    assert_eq!(first.text("reservationId"), second.text("reservationId"));
    assert_eq!(joe.call(&format!("{run} MaxCount=2 MinCount=1")).await.outcome(), "400 IdempotentParameterMismatch");
    assert_eq!(joe.call("DescribeInstances").await.texts("instanceId").len(), 1);
}

/// Ends an instance as its host would.
async fn end(cloud: &TestCloud, id: &str) {
    assert_eq!(cloud.joe().call(&format!("TerminateInstances InstanceId.1={id}")).await.outcome(), "200");
    let id = id.parse().unwrap();
    let mut conn = cloud.db.write().await.unwrap();
    let epoch = instances::describe(&mut conn, None, &[id]).await.unwrap()[0].instance.epoch;
    instances::finish_terminate(&mut conn, id, epoch, 0).await.unwrap();
}

#[tokio::test]
async fn a_client_token_outlives_its_instances() {
    let (cloud, image) = cloud().await;
    let run = format!("RunInstances ImageId={image} InstanceType=m1.tiny ClientToken=once");
    cloud.joe().call(&run).await;
    end(&cloud, "i-00000001").await;
    assert_eq!(cloud.joe().call(&run).await.texts("name"), ["terminated"]);
    // What is over a while is no longer shown.
    instances::expire(&mut cloud.db.write().await.unwrap(), -60).await.unwrap();
    assert_eq!(cloud.joe().call(&run).await.outcome(), "400 IdempotentInstanceTerminated");
}

#[tokio::test]
async fn a_reservation_keeps_its_groups_when_its_first_instance_is_over() {
    let (cloud, image) = cloud().await;
    cloud.joe().call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny MinCount=2 MaxCount=2")).await;
    end(&cloud, "i-00000001").await;
    let old = cloud.joe().version("2009-11-30").call("DescribeInstances").await;
    assert_eq!((old.texts("name"), old.texts("groupId")), (vec!["terminated", "pending"], vec!["default"]));
}

#[tokio::test]
async fn what_cannot_be_launched_has_a_code_and_leaves_nothing() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    for (parameters, wanted) in [
        ("ImageId=ami-0000ffff".to_owned(), "400 InvalidAMIID.NotFound"),
        ("ImageId=tiny".to_owned(), "400 InvalidAMIID.Malformed"),
        ("ImageId=aki-00000001".to_owned(), "400 InvalidParameterValue"),
        (format!("ImageId={image} InstanceType=m9.huge"), "400 InvalidParameterValue"),
        (format!("ImageId={image} KeyName=nope"), "400 InvalidKeyPair.NotFound"),
        (format!("ImageId={image} SecurityGroup.1=nope"), "400 InvalidGroup.NotFound"),
        (format!("ImageId={image} Placement.AvailabilityZone=mars"), "400 InvalidParameterValue"),
        (format!("ImageId={image} Placement.AvailabilityZone=nova:h1"), "401 UnauthorizedOperation"),
        (format!("ImageId={image} DryRun=true"), "412 DryRunOperation"),
    ] {
        assert_eq!(joe.call(&format!("RunInstances {parameters}")).await.outcome(), wanted, "{parameters}");
    }
    assert!(joe.call("DescribeInstances").await.texts("instanceId").is_empty());
}

#[tokio::test]
async fn an_instance_without_a_host_can_be_terminated_but_not_started() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    joe.call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny")).await;
    for (call, wanted) in [
        ("StartInstances", "400 IncorrectInstanceState"),
        ("StopInstances", "400 IncorrectInstanceState"),
        ("RebootInstances", "400 IncorrectInstanceState"),
        ("GetConsoleOutput", "200"),
        ("TerminateInstances", "200"),
        ("TerminateInstances", "200"),
    ] {
        assert_eq!(joe.call(&format!("{call} InstanceId.1=i-00000001")).await.outcome(), wanted, "{call}");
    }
    let status = joe.call("DescribeInstanceStatus IncludeAllInstances=true").await;
    assert_eq!(status.texts("name"), ["shutting-down"]);
    assert!(joe.call("DescribeInstanceStatus").await.texts("name").is_empty());
}

#[tokio::test]
async fn either_all_of_a_list_are_terminated_or_none() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    joe.call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny")).await;
    let both = joe.call("TerminateInstances InstanceId.1=i-00000001 InstanceId.2=i-0000ffff").await;
    assert_eq!(both.outcome(), "400 InvalidInstanceID.NotFound");
    assert_eq!(joe.call("DescribeInstances").await.texts("name"), ["pending"]);
}

#[tokio::test]
async fn another_projects_instance_is_as_absent_as_one_that_never_was() {
    let (cloud, image) = cloud().await;
    cloud.joe().call(&format!("RunInstances ImageId={image} InstanceType=m1.tiny")).await;
    for call in ["DescribeInstances", "TerminateInstances", "RebootInstances", "GetConsoleOutput", "StopInstances"] {
        let eve = cloud.eve();
        let foreign = eve.call(&format!("{call} InstanceId.1=i-00000001")).await;
        let absent = eve.call(&format!("{call} InstanceId.1=i-0000ffff")).await;
        assert_eq!(foreign.outcome(), "400 InvalidInstanceID.NotFound", "{call}");
        assert_eq!(foreign.pretty().replace("i-00000001", "i-0000ffff"), absent.pretty());
    }
}

#[tokio::test]
async fn only_managers_and_sysadmins_change_instances() {
    let (cloud, image) = cloud().await;
    for call in [format!("RunInstances ImageId={image}"), "TerminateInstances InstanceId.1=i-00000001".to_owned()] {
        assert_eq!(cloud.ann().call(&call).await.outcome(), "401 UnauthorizedOperation", "{call}");
    }
    assert_eq!(cloud.ann().call("DescribeInstances").await.outcome(), "200");
}

#[tokio::test]
async fn images_are_shown_to_those_who_may_launch_them() {
    let (cloud, image) = cloud().await;
    let joe = cloud.joe();
    assert_eq!(joe.call("DescribeImages").await.texts("imageType"), ["machine", "kernel"]);
    assert_eq!(joe.call(&format!("DescribeImages ImageId.1={image}")).await.texts("imageId"), [image.as_str()]);
    assert!(joe.call("DescribeImages Owner.1=self").await.texts("imageId").is_empty());
    assert_eq!(joe.call("DescribeImages ImageId.1=ami-0000ffff").await.outcome(), "400 InvalidAMIID.NotFound");
    for (filter, value, wanted) in [
        ("root-device-name", "/dev/vda", vec!["machine"]),
        ("creation-date", "20*", vec!["machine", "kernel"]),
        ("state-reason-code", "*", vec![]),
    ] {
        let shown = joe.call(&format!("DescribeImages Filter.1.Name={filter} Filter.1.Value.1={value}")).await;
        assert_eq!(shown.texts("imageType"), wanted, "{filter}");
    }
}

#[tokio::test]
async fn a_launch_is_stored_before_the_scheduler_is_told() {
    let (cloud, image) = cloud().await;
    let wanted = Subscription { topic: Topic::Scheduler, host: "h1".to_owned(), prefetch: 1 };
    let mut scheduler = cloud.bus.consume(&wanted).await.unwrap();
    let joe = cloud.joe();
    let call = format!("RunInstances ImageId={image} MinCount=2 MaxCount=2 InstanceType=m1.tiny");
    let (run, told) = tokio::join!(joe.call(&call), async {
        let told = scheduler.next().await.unwrap();
        let stored = cloud.joe().call("DescribeInstances").await;
        assert_eq!(stored.texts("instanceId"), ["i-00000001", "i-00000002"]);
        String::from_utf8(told.body().to_vec()).unwrap()
    });
    assert_eq!(run.outcome(), "200");
    assert!(told.contains("run_instance") && told.contains("[1,2]"), "{told}");
}

#[tokio::test]
async fn an_address_of_ipv6_is_shown_where_guests_have_it() {
    for (flags, address) in [(&["--use_ipv6"][..], Some("fd00::16:3eff:fe00:1")), (&[], None)] {
        let (cloud, image) = furnished(TestCloud::start_with(flags).await).await;
        let network = fixtures::flat_network(&cloud.db, 28).await;
        let run = format!("RunInstances ImageId={image} InstanceType=m1.tiny ClientToken=once");
        let ids = [cloud.joe().call(&run).await.text("instanceId").unwrap().parse().unwrap()];
        transaction!(cloud.db, |tx| { fixed_ips::take(tx, network, &ids).await }).unwrap();
        let mut conn = cloud.db.write().await.unwrap();
        conn.execute("update networks set cidr_v6 = 'fd00::/64'", &[]).await.unwrap();
        conn.execute("update instances set mac_address = '02:16:3e:00:00:01'", &[]).await.unwrap();
        drop(conn);
        let old = cloud.joe().version("2009-11-30").call("DescribeInstancesV6").await;
        assert_eq!((old.text("dnsNameV6"), old.text("ipv6Address")), (address, None), "{}", old.body);
        assert_eq!(old.text("privateDnsName"), Some("10.0.0.2"));
        let new = cloud.joe().call("DescribeInstances").await;
        assert_eq!((new.text("dnsNameV6"), new.text("ipv6Address")), (None, address), "{}", new.body);
        let found = cloud.joe().call("DescribeInstances Filter.1.Name=ipv6-address Filter.1.Value.1=fd00:*").await;
        assert_eq!(found.texts("instanceId").len(), usize::from(address.is_some()));
        let again = cloud.joe().call(&run).await;
        assert_eq!(again.text("ipv6Address"), address, "{}", again.body);
    }
}
