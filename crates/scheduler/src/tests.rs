//! The whole daemon, on a real database and the in-process bus.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use nova_bus::InProcess;
use nova_config::Surroundings;
use nova_db::dev::{self, fixtures};
use nova_db::instances::Guard;
use nova_db::{check, compute_nodes, fixed_ips, instances, quotas, services, transaction};
use nova_types::instance::NewInstances;
use nova_types::quota::{Quotas, Resource};
use nova_types::state::{Event, Task};
use nova_types::{InstanceId, ProjectId};
use nova_wire::{Request, SchedulerCall};
use tokio::task::JoinHandle;

use super::*;

mod many;

struct World {
    db: Db,
    bus: InProcess,
    stop: Stop,
    running: Vec<JoinHandle<Result<(), SchedulerError>>>,
}

const QUICK: &[&str] = &["--tick_interval=0.02", "--host_grace=0"];

fn config(flags: &[&str]) -> SchedulerConfig {
    let args = [SchedulerConfig::BINARY, "--host=controller"].iter().chain(flags).map(Into::into);
    SchedulerConfig::load_in(args, &Surroundings::bare()).unwrap().config
}

fn project() -> ProjectId {
    fixtures::name("acme")
}

impl World {
    fn new(db: &Db) -> Self {
        Self { db: db.clone(), bus: InProcess::new(), stop: Stop::new(), running: Vec::new() }
    }

    /// Starts a scheduler and waits until it serves.
    async fn start(&mut self, flags: &[&str]) {
        let ready = Ready::default();
        let mut config = config(flags);
        // Each has a name of its own: two of one name would be one too many.
        config.common.host = fixtures::name(&format!("controller-{}", self.running.len()));
        let parts = Parts { db: self.db.clone(), bus: Arc::new(self.bus.clone()), config, ready: ready.clone() };
        self.running.push(tokio::spawn(run(parts, self.stop.clone())));
        ready.wait().await;
    }

    async fn stop(self) {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap().unwrap();
        }
    }

    /// Stores a launch as the API does: quota and rows, no message.
    async fn launch(&self, count: u32, change: impl Fn(&mut NewInstances)) -> Vec<InstanceId> {
        let mut new = fixtures::new_instances(&project(), count);
        change(&mut new);
        let amounts = [(Resource::Instances, count), (Resource::Cores, count * new.vcpus)];
        let limits = Quotas { instances: 10_000, cores: 10_000, ..Quotas::default() };
        let db = &self.db;
        transaction!(db, |tx| {
            quotas::reserve(tx, &new.project, &amounts, &limits).await?;
            instances::insert_batch(tx, &new).await
        })
        .unwrap()
    }

    /// Waits until nobody waits for the scheduler.
    async fn settled(&self) {
        for _ in 0..1000 {
            if instances::due_scheduler(&mut self.db.read().await.unwrap(), 1).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the scheduler does not come to an end");
    }

    /// Each instance with its place, address and reason.
    async fn shown(&self, ids: &[InstanceId]) -> String {
        let mut text = String::new();
        for id in ids {
            let mut conn = self.db.read().await.unwrap();
            let i = instances::get(&mut conn, *id).await.unwrap();
            let address = fixed_ips::of_instance(&mut conn, *id).await.unwrap();
            let host = i.host.map_or("-".to_owned(), |host| host.to_string());
            let address = address.map_or("-".to_owned(), |(address, _)| address.to_string());
            let reason = i.reason.map_or(String::new(), |reason| format!(" {}: {}", reason.code, reason.message));
            let task = i.state.task.map_or("-", Task::as_str);
            let _ = writeln!(text, "{} {task} {host} {address}{reason}", i.state.vm.as_str());
        }
        text
    }

    /// What the daemons of `host` were told.
    async fn told(&self, topic: Topic, host: &str) -> Vec<String> {
        let wanted = Subscription { topic, host: host.to_owned(), prefetch: 10 };
        let mut consumer = self.bus.consume(&wanted).await.unwrap();
        let mut told = Vec::new();
        while let Ok(delivery) = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await {
            let delivery = delivery.unwrap();
            let value: Value = serde_json::from_slice(delivery.body()).unwrap();
            told.push(format!("{} {}", value["method"], value["args"]));
            delivery.ack().await.unwrap();
        }
        told
    }

    async fn findings(&self) -> Vec<check::Finding> {
        check::run(&mut self.db.read().await.unwrap(), 600).await.unwrap()
    }
}

/// Two hosts with room for three small instances each, one network with 13 addresses; launches, and shows the end.
async fn check(count: u32, change: impl Fn(&mut NewInstances), expected: Expect) {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 3).await;
    fixtures::node(&db, &fixtures::name("h2"), 3).await;
    fixtures::flat_network(&db, 28).await;
    world.start(QUICK).await;
    let ids = world.launch(count, change).await;
    world.settled().await;
    expected.assert_eq(&world.shown(&ids).await);
    assert_eq!(world.findings().await, []);
    world.stop().await;
}

#[tokio::test]
async fn instances_are_spread_over_hosts_and_get_addresses() {
    check(
        3,
        |_| {},
        expect![[r#"
        pending building h1 10.0.0.2
        pending building h2 10.0.0.3
        pending building h1 10.0.0.4
    "#]],
    )
    .await;
}

#[tokio::test]
async fn who_finds_no_room_is_told_so_and_holds_nothing() {
    check(7, |_| {}, expect![[r#"
        pending building h1 10.0.0.2
        pending building h2 10.0.0.3
        pending building h1 10.0.0.4
        pending building h2 10.0.0.5
        pending building h1 10.0.0.6
        pending building h2 10.0.0.7
        error - - - Server.InsufficientInstanceCapacity: No host has room for m1.tiny: 512 MiB of memory, 1 vcpus, 0 GiB of disk.
    "#]]).await;
}

#[tokio::test]
async fn a_vpn_keeps_the_reserved_address_it_was_launched_with_and_gives_it_back() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    let network = fixtures::flat_network(&db, 28).await;
    let kept = "10.0.0.2".parse().unwrap();
    fixed_ips::reserve(&mut db.write().await.unwrap(), kept, true).await.unwrap();
    let ids = world.launch(3, |_| {}).await;
    for (instance, address) in [(ids[1], kept), (ids[2], "10.0.0.1".parse().unwrap())] {
        let took = transaction!(db, |tx| { fixed_ips::take_kept(tx, network, address, instance).await });
        assert!(took.unwrap(), "{address}");
    }
    fixtures::node(&db, &fixtures::name("h1"), 2).await;
    world.start(QUICK).await;
    world.settled().await;
    expect![[r#"
        pending building h1 10.0.0.3
        pending building h1 10.0.0.2
        error - - - Server.InsufficientInstanceCapacity: No host has room for m1.tiny: 512 MiB of memory, 1 vcpus, 0 GiB of disk.
    "#]]
    .assert_eq(&world.shown(&ids).await);
    assert_eq!(world.findings().await, []);
    let all = fixed_ips::list(&mut db.read().await.unwrap(), Some(network)).await.unwrap();
    assert!(all[1].reserved && all[1].holder.is_none(), "what was never placed gave it back: {:?}", all[1]);
    world.stop().await;
}

#[tokio::test]
async fn a_zone_or_host_that_was_asked_for_is_kept() {
    check(
        1,
        |new| new.availability_zone = Some("nova:h2".to_owned()),
        expect![[r#"
        pending building h2 10.0.0.2
    "#]],
    )
    .await;
    check(1, |new| new.availability_zone = Some("mars".to_owned()), expect![[r#"
        error - - - Server.InsufficientInstanceCapacity: No host in zone mars has room for m1.tiny: 512 MiB of memory, 1 vcpus, 0 GiB of disk.
    "#]]).await;
    check(
        1,
        |new| new.availability_zone = Some("nova:h3".to_owned()),
        expect![[r#"
        error - - - Server.InsufficientInstanceCapacity: There is no compute host h3.
    "#]],
    )
    .await;
}

#[tokio::test]
async fn an_administrator_who_names_a_host_is_told_what_is_wrong_with_it() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::flat_network(&db, 28).await;
    for (host, room) in [("off", 3), ("mute", 3), ("full", 1), ("good", 3)] {
        fixtures::node(&db, &fixtures::name(host), room).await;
    }
    let mut conn = db.write().await.unwrap();
    services::set_disabled(&mut conn, &fixtures::name("off"), "nova-compute", true).await.unwrap();
    let long_ago = "update services set updated_at = {now-?} where host = 'mute'";
    conn.execute(long_ago, &[1000.into()]).await.unwrap();
    drop(conn);
    world.start(QUICK).await;
    let mut ids = Vec::new();
    for host in ["full", "full", "off", "mute"] {
        ids.extend(world.launch(1, |new| new.availability_zone = Some(format!("nova:{host}"))).await);
        world.settled().await;
    }
    expect![[r#"
        pending building full 10.0.0.2
        error - - - Server.InsufficientInstanceCapacity: Host full has no room for m1.tiny: 512 MiB of memory, 1 vcpus, 0 GiB of disk.
        error - - - Server.InsufficientInstanceCapacity: Host off is disabled.
        error - - - Server.InsufficientInstanceCapacity: Host mute has not reported for 60 s.
    "#]]
    .assert_eq(&world.shown(&ids).await);
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_lost_its_host_keeps_its_address_and_gives_it_back_to_quarantine() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 3).await;
    fixtures::flat_network(&db, 29).await;
    world.start(QUICK).await;
    let ids = world.launch(3, |_| {}).await;
    world.settled().await;
    // The other host is there before anybody needs it: the scheduler looks at its rows all the time.
    fixtures::node(&db, &fixtures::name("h2"), 1).await;
    let mut conn = db.write().await.unwrap();
    services::set_disabled(&mut conn, &fixtures::name("h1"), "nova-compute", true).await.unwrap();
    // What `nova-manage host evacuate` does to rows.
    let evacuate = "update instances set host = null, task_state = 'scheduling', epoch = epoch + 1 where id in (1, 2)";
    conn.execute(evacuate, &[]).await.unwrap();
    compute_nodes::recount(&mut conn, &fixtures::name("h1")).await.unwrap();
    drop(conn);
    world.settled().await;
    let shown = world.shown(&ids).await;
    assert!(shown.starts_with("pending building h2 10.0.0.2\nerror - - -"), "{shown}");
    let all = fixed_ips::list(&mut db.read().await.unwrap(), None).await.unwrap();
    let given_back = all.iter().find(|fixed| fixed.address.to_string() == "10.0.0.3").unwrap();
    assert!(given_back.holder.is_none() && given_back.free_after.is_some(), "{given_back:?}");
    assert_eq!(world.findings().await, []);
    world.stop().await;
}

#[tokio::test]
async fn each_driver_keeps_its_word() {
    for (flags, expected) in [
        (&["--scheduler_placement=fill"][..], ["h1 h1 h1"].as_slice()),
        (&["--scheduler_driver=nova.scheduler.simple.SimpleScheduler"], &["h1 h2 h1"]),
        (&["--scheduler_driver=nova.scheduler.chance.ChanceScheduler"], &[]),
        (&["--scheduler_driver=nova.scheduler.zone.ZoneScheduler"], &[]),
    ] {
        let db = dev::sqlite().await;
        let mut world = World::new(&db);
        fixtures::node(&db, &fixtures::name("h1"), 3).await;
        fixtures::node(&db, &fixtures::name("h2"), 3).await;
        fixtures::flat_network(&db, 28).await;
        let flags: Vec<&str> = QUICK.iter().chain(flags).copied().collect();
        world.start(&flags).await;
        let ids = world.launch(3, |_| {}).await;
        world.settled().await;
        let mut hosts = Vec::new();
        for id in ids {
            let placed = instances::get(&mut db.read().await.unwrap(), id).await.unwrap();
            hosts.push(placed.host.unwrap().to_string());
        }
        let hosts = hosts.join(" ");
        assert!(expected.is_empty() || expected == [hosts.as_str()], "{flags:?}: {hosts}");
        assert_eq!(world.findings().await, []);
        world.stop().await;
    }
}

#[tokio::test]
async fn where_addresses_are_short_as_many_get_one_as_there_are() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 10).await;
    fixtures::flat_network(&db, 29).await;
    world.start(QUICK).await;
    let ids = world.launch(7, |_| {}).await;
    world.settled().await;
    expect![[r#"
        pending building h1 10.0.0.2
        pending building h1 10.0.0.3
        pending building h1 10.0.0.4
        pending building h1 10.0.0.5
        pending building h1 10.0.0.6
        error - - - Server.InsufficientFreeAddressesInSubnet: The network has no free address.
        error - - - Server.InsufficientFreeAddressesInSubnet: The network has no free address.
    "#]]
    .assert_eq(&world.shown(&ids).await);
    let node = compute_nodes::list(&mut db.read().await.unwrap(), 60).await.unwrap().remove(0);
    assert_eq!(node.vcpus_used, 5);
    assert_eq!(world.findings().await, []);
    world.stop().await;
}

#[tokio::test]
async fn without_a_network_the_reason_says_what_to_do() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 10).await;
    world.start(QUICK).await;
    let ids = world.launch(2, |_| {}).await;
    world.settled().await;
    let reason = "Server.InsufficientFreeAddressesInSubnet: there is no network for project acme: an administrator can \
                  make one with nova-manage network create.";
    assert_eq!(world.shown(&ids).await, format!("error - - - {reason}\nerror - - - {reason}\n"));
    assert_eq!(world.findings().await, []);
    world.stop().await;
}

#[tokio::test]
async fn those_who_act_next_are_told_once_for_each_host_and_request() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 10).await;
    fixtures::flat_network(&db, 28).await;
    nova_db::networks::claim(&mut db.write().await.unwrap(), &fixtures::name("n1"), 60).await.unwrap();
    // They listen before anything is sent.
    world.told(Topic::Compute, "h1").await;
    world.told(Topic::Network, "n1").await;
    world.start(&["--tick_interval=1000"]).await;
    // The first turn, at once, finds nothing; only the message brings the next.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ids = world.launch(2, |_| {}).await;
    let instance_ids: Vec<u32> = ids.iter().map(|id| id.number()).collect();
    let hint = Request::cast(SchedulerCall::RunInstance { instance_ids }, Context::service()).encode().unwrap();
    world.bus.publish(&nova_wire::Address::Any(Topic::Scheduler), hint.into()).await.unwrap();
    world.settled().await;
    assert_eq!(world.told(Topic::Compute, "h1").await, [r#""run_instance" {"instance_ids":[1,2]}"#]);
    assert_eq!(world.told(Topic::Network, "n1").await, [r#""refresh_network" {"network_ids":[1]}"#]);
    world.stop().await;
}

#[tokio::test]
async fn where_each_host_serves_its_guests_it_is_told_itself() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::node(&db, &fixtures::name("h1"), 10).await;
    fixtures::flat_network(&db, 28).await;
    db.write().await.unwrap().execute("update networks set multi_host = true", &[]).await.unwrap();
    world.told(Topic::Network, "h1").await;
    world.start(&[]).await;
    world.launch(2, |_| {}).await;
    world.settled().await;
    assert_eq!(world.told(Topic::Network, "h1").await, [r#""refresh_network" {"network_ids":[1]}"#]);
    world.stop().await;
}

#[tokio::test]
async fn what_was_terminated_before_it_had_a_host_is_finished() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    let ids = world.launch(2, |_| {}).await;
    for id in &ids {
        transaction!(db, |tx| { instances::request(tx, Some(&project()), *id, Event::Terminate, None).await }).unwrap();
    }
    world.start(QUICK).await;
    world.settled().await;
    assert_eq!(world.shown(&ids).await, "terminated - - -\n".repeat(2));
    let used = quotas::usage(&mut db.read().await.unwrap(), &project(), Resource::Instances).await.unwrap();
    assert_eq!(used, 0);
    assert_eq!(world.findings().await, []);
    world.stop().await;
}

#[tokio::test]
async fn soon_after_the_start_the_absence_of_hosts_is_not_believed() {
    let db = dev::sqlite().await;
    let mut world = World::new(&db);
    fixtures::flat_network(&db, 28).await;
    let ids = world.launch(1, |_| {}).await;
    world.start(&["--tick_interval=0.02"]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.shown(&ids).await, "pending scheduling - -\n");
    fixtures::node(&db, &fixtures::name("h1"), 1).await;
    world.settled().await;
    assert_eq!(world.shown(&ids).await, "pending building h1 10.0.0.2\n");
    world.stop().await;
}
