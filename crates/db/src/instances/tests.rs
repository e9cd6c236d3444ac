//! The queries of `instances`, on every engine.

use nova_types::instance::{Instance, NewInstances, StateReason};
use nova_types::quota::{Quotas, Resource};
use nova_types::state::{Event, State, Task, VmState};
use nova_types::{HostName, InstanceId, ProjectId};

use super::{
    Guard, apply, cleaned, describe, due_on_host, due_scheduler, expire, fail, finish, finish_terminate, get,
    images_in_use, insert_batch, living, macs_in_use, of_reservation, on_host, page, place, place_all, read, request,
    waiting,
};
use crate::dev::{self, fixtures};
use crate::error::{DbError, Unique};
use crate::open::Db;
use crate::{check, compute_nodes, fixed_ips, quotas, transaction};

const ROOM: i64 = 60;

fn project() -> ProjectId {
    fixtures::name("acme")
}

fn host() -> HostName {
    fixtures::name("host-1")
}

/// Quota, rows; then capacity, host and addresses: as API and scheduler do it.
async fn placed(db: &Db, count: u32) -> Vec<InstanceId> {
    fixtures::node(db, &host(), 10).await;
    let network = fixtures::flat_network(db, 24).await;
    let new = fixtures::new_instances(&project(), count);
    let amounts = [(Resource::Instances, count), (Resource::Cores, count)];
    let ids = transaction!(db, |tx| {
        quotas::reserve(tx, &new.project, &amounts, &Quotas::default()).await?;
        insert_batch(tx, &new).await
    })
    .unwrap();
    transaction!(db, |tx| {
        let moved = place(tx, &ids, &host()).await?;
        assert!(compute_nodes::claim(tx, &host(), fixtures::DEMAND.times(count)).await?);
        fixed_ips::take(tx, network, &moved).await?;
        Ok(moved)
    })
    .unwrap()
}

async fn stored(db: &Db, id: InstanceId) -> Instance {
    get(&mut db.read().await.unwrap(), id).await.unwrap()
}

async fn event(db: &Db, id: InstanceId, event: Event) -> State {
    let guard = Guard::of(&stored(db, id).await);
    transaction!(db, |tx| { apply(tx, id, event, &guard, None).await }).unwrap()
}

async fn findings(db: &Db) -> Vec<check::Finding> {
    check::run(&mut db.read().await.unwrap(), 600).await.unwrap()
}

async fn used(db: &Db) -> (u32, u32, u32) {
    let mut conn = db.read().await.unwrap();
    let node = compute_nodes::list(&mut conn, ROOM).await.unwrap().remove(0);
    let instances = quotas::usage(&mut conn, &project(), Resource::Instances).await.unwrap();
    (instances, node.memory_mb_used, node.vcpus_used)
}

#[tokio::test]
async fn what_lives_and_what_it_is_made_of_is_told_wherever_it_is() {
    dev::each(async |db: &Db| {
        let ids = placed(db, 2).await;
        let other = "aki-00000007".parse().unwrap();
        let waiting = NewInstances { kernel: Some(other), ..fixtures::new_instances(&project(), 1) };
        let waiting = transaction!(db, |tx| { insert_batch(tx, &waiting).await }).unwrap();
        let image = stored(db, ids[0]).await.image;
        event(db, ids[1], Event::Terminate).await;
        let epoch = stored(db, ids[1]).await.epoch;
        transaction!(db, |tx| { finish_terminate(tx, ids[1], epoch, 0).await }).unwrap();
        let mut conn = db.read().await.unwrap();
        let asked = [ids[0], ids[1], waiting[0], InstanceId::new(999)];
        assert_eq!(living(&mut conn, &asked).await.unwrap(), [ids[0], waiting[0]].into());
        assert_eq!(living(&mut conn, &[]).await.unwrap(), [].into());
        assert_eq!(images_in_use(&mut conn).await.unwrap(), [image, other].into());
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_is_read_back() {
    dev::each(async |db: &Db| {
        let mut new = fixtures::new_instances(&project(), 2);
        new.kernel = Some("aki-00000007".parse().unwrap());
        new.key = Some(("my key".parse().unwrap(), "ssh-rsa AAAA joe".to_owned()));
        new.user_data = Some(vec![0, 255, b'x']);
        new.display_name = Some("wéb 🚀".to_owned());
        new.client_token = Some("token".to_owned());
        let ids = transaction!(db, |tx| { insert_batch(tx, &new).await }).unwrap();
        let second = stored(db, ids[1]).await;
        assert_eq!((second.launch_index, second.state, second.epoch), (1, State::FIRST, 0));
        assert_eq!((second.mac, &second.reservation), (new.macs[1], &new.reservation));
        assert_eq!((second.kernel, second.ramdisk, &second.key), (new.kernel, None, &new.key));
        assert_eq!((&second.user_data, &second.display_name), (&new.user_data, &new.display_name));
        assert_eq!((second.host, second.reason, second.launched_at), (None, None, None));
        let now = db.read().await.unwrap().now().await.unwrap();
        assert!((now - second.created_at).abs() < time::Duration::seconds(60), "{now} {}", second.created_at);
        let again = transaction!(db, |tx| { insert_batch(tx, &new).await });
        assert!(matches!(again, Err(DbError::Duplicate(Unique::Mac))), "{again:?}");
        let free = nova_types::Mac::of_guest([255, 255, 255]);
        let used = macs_in_use(&mut db.read().await.unwrap(), &[new.macs[0], free]).await.unwrap();
        assert_eq!(used, [new.macs[0]]);
    })
    .await;
}

#[tokio::test]
async fn an_instance_lives_and_leaves_nothing() {
    dev::each(async |db: &Db| {
        let ids = placed(db, 3).await;
        assert_eq!(used(db).await, (3, 3 * 512, 3));
        for id in &ids {
            assert_eq!(event(db, *id, Event::Booted).await, State::new(VmState::Running, None));
        }
        assert_eq!(findings(db).await, []);
        let first = stored(db, ids[0]).await;
        assert!(first.launched_at.is_some() && first.epoch == 1);
        for round in 0..2 {
            let asked = transaction!(db, |tx| { request(tx, Some(&project()), ids[0], Event::Terminate, None).await });
            let (before, now) = asked.unwrap();
            assert_eq!(before.vm, if round == 0 { VmState::Running } else { VmState::ShuttingDown });
            assert_eq!(now.state, State::new(VmState::ShuttingDown, Some(Task::Terminating)));
        }
        assert_eq!(used(db).await.0, 3, "an instance that is not gone yet still counts");
        let released = transaction!(db, |tx| { finish_terminate(tx, ids[0], 1, 120).await }).unwrap();
        assert_eq!(released.fixed_ip.unwrap().0.to_string(), "10.0.0.2");
        let again = transaction!(db, |tx| { finish_terminate(tx, ids[0], 1, 120).await }).unwrap();
        assert_eq!(again.fixed_ip, None);
        assert_eq!(used(db).await, (2, 2 * 512, 2));
        assert_eq!(stored(db, ids[0]).await.state, State::new(VmState::Terminated, None));
        assert_eq!(findings(db).await, []);
    })
    .await;
}

#[tokio::test]
async fn who_is_late_changes_nothing() {
    dev::each(async |db: &Db| {
        let id = placed(db, 1).await[0];
        let known = Guard::of(&stored(db, id).await);
        event(db, id, Event::Booted).await;
        for (guard, what) in [
            (known, Event::Booted),
            (Guard { state: State::new(VmState::Running, None), epoch: 0 }, Event::Reboot),
            (Guard { state: State::new(VmState::Running, None), epoch: 1 }, Event::Placed),
        ] {
            let late = transaction!(db, |tx| { apply(tx, id, what, &guard, None).await });
            assert!(matches!(late, Err(DbError::Stale("instance"))), "{guard:?} {what:?}: {late:?}");
        }
        let early = transaction!(db, |tx| { finish_terminate(tx, id, 1, 0).await });
        assert!(matches!(early, Err(DbError::Stale("instance"))), "{early:?}");
        assert_eq!(stored(db, id).await.state, State::new(VmState::Running, None));
        let foreign =
            transaction!(db, |tx| { request(tx, Some(&fixtures::name("other")), id, Event::Terminate, None).await });
        assert!(matches!(foreign, Err(DbError::NotFound("instance"))), "{foreign:?}");
    })
    .await;
}

#[tokio::test]
async fn a_failed_launch_gives_everything_back_once_it_is_cleaned() {
    dev::each(async |db: &Db| {
        let id = placed(db, 1).await[0];
        let why = StateReason::new("Server.InternalError", "no image");
        let guard = Guard::of(&stored(db, id).await);
        let failed = transaction!(db, |tx| { fail(tx, id, &guard, Event::Failed, &why, 0).await }).unwrap();
        assert_eq!(failed, State::new(VmState::Error, Some(Task::Cleaning)));
        assert_eq!(used(db).await, (1, 512, 1));
        assert_eq!(due_on_host(&mut db.read().await.unwrap(), &host(), 10).await.unwrap().len(), 1);
        transaction!(db, |tx| { cleaned(tx, id, 1, 0).await }).unwrap();
        assert_eq!(used(db).await, (0, 0, 0));
        assert_eq!(stored(db, id).await.reason, Some(why));
        assert_eq!(findings(db).await, []);
        transaction!(db, |tx| { request(tx, None, id, Event::Terminate, None).await }).unwrap();
        assert_eq!(findings(db).await, []);
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_finds_no_host_gives_its_quota_back() {
    dev::each(async |db: &Db| {
        let new = fixtures::new_instances(&project(), 1);
        let ids = transaction!(db, |tx| {
            quotas::reserve(tx, &project(), &[(Resource::Instances, 1), (Resource::Cores, 1)], &Quotas::default())
                .await?;
            insert_batch(tx, &new).await
        })
        .unwrap();
        let mut conn = db.read().await.unwrap();
        assert_eq!(due_scheduler(&mut conn, 10).await.unwrap().len(), 1);
        drop(conn);
        let guard = Guard::of(&stored(db, ids[0]).await);
        let why = StateReason::new("Server.InsufficientInstanceCapacity", "no host has room");
        transaction!(db, |tx| { fail(tx, ids[0], &guard, Event::NotPlaced, &why, 0).await }).unwrap();
        let mut conn = db.read().await.unwrap();
        assert_eq!(due_scheduler(&mut conn, 10).await.unwrap(), []);
        assert_eq!(quotas::usage(&mut conn, &project(), Resource::Cores).await.unwrap(), 0);
        assert_eq!(findings(db).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_description_joins_addresses_groups_and_zone() {
    dev::each(async |db: &Db| {
        let mut conn = db.write().await.unwrap();
        let mut groups = Vec::new();
        for name in ["web", "default"] {
            let sql = "insert into security_groups (project_id, user_id, name) values ('acme', 'joe', ?)";
            groups.push(nova_types::SecurityGroupId::from_row(conn.insert(sql, &[name.into()]).await.unwrap()));
        }
        drop(conn);
        let ids = placed(db, 2).await;
        let mut new = fixtures::new_instances(&project(), 1);
        new.groups = groups;
        let third = transaction!(db, |tx| { insert_batch(tx, &new).await }).unwrap()[0];
        let mut conn = db.write().await.unwrap();
        let bind = "insert into floating_ips (address, project_id, fixed_ip_id) \
                    select '192.0.2.1', 'acme', id from fixed_ips where address = '10.0.0.3'";
        conn.execute(bind, &[]).await.unwrap();
        let all = describe(&mut conn, Some(&project()), &[]).await.unwrap();
        let shown: Vec<String> = all
            .iter()
            .map(|v| {
                let groups: Vec<&str> = v.groups.iter().map(|(_, name)| name.as_str()).collect();
                format!("{:?} {:?} {:?} {groups:?}", v.fixed_ip.map(|f| f.0), v.floating_ip, v.host_zone)
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"Some(10.0.0.2) None Some("nova") []"#,
                r#"Some(10.0.0.3) Some(192.0.2.1) Some("nova") []"#,
                r#"None None None ["web", "default"]"#,
            ]
        );
        let some = describe(&mut conn, Some(&project()), &[third, ids[0], third]).await.unwrap();
        assert_eq!(some.iter().map(|v| v.instance.id).collect::<Vec<_>>(), [ids[0], third]);
        let other: ProjectId = fixtures::name("other");
        assert!(describe(&mut conn, Some(&other), &ids).await.unwrap().is_empty());
        assert_eq!(describe(&mut conn, None, &[]).await.unwrap().len(), 3);
        assert_eq!(on_host(&mut conn, &host()).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    dev::each(async |db: &Db| {
        let ids = fixtures::launch(db, &project(), 5).await;
        fixtures::launch(db, &fixtures::name("other"), 2).await;
        let mut conn = db.read().await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let views = page(&mut conn, Some(&project()), after, 2).await.unwrap();
            let Some(last) = views.last() else { break };
            after = Some(last.instance.id);
            seen.extend(views.iter().map(|view| view.instance.id));
        }
        assert_eq!(seen, ids);
        assert_eq!(page(&mut conn, None, None, 100).await.unwrap().len(), 7);
        let reservation = get(&mut conn, ids[0]).await.unwrap().reservation;
        let launched = of_reservation(&mut conn, &project(), &reservation).await.unwrap();
        assert_eq!(launched.iter().map(|view| view.instance.id).collect::<Vec<_>>(), ids);
    })
    .await;
}

/// What is asked often must not read whole tables. The plans of SQLite stand for all: the indexes are the same.
#[tokio::test]
async fn hot_queries_go_through_indexes() {
    let db = dev::sqlite().await;
    let mut conn = db.read().await.unwrap();
    // A connection that was open during the migration learns of it when it reads, not when it explains.
    conn.all("select count(*) as n from fixed_ips", &[]).await.unwrap();
    for statement in [
        read::DUE_SCHEDULER.to_owned(),
        read::DUE_OF.to_owned(),
        read::DUE_ON_HOST.to_owned(),
        format!("{} where i.deleted = false and i.project_id = ? order by i.id", read::VIEW),
        format!("{} where i.deleted = false and i.id in (1, 2) order by i.id", read::VIEW),
        format!("{} where i.deleted = false and i.project_id = ? and i.id between ? and ?", read::GROUPS),
        finish::EXPIRE.to_owned(),
        fixed_ips::FREE.to_owned(),
        fixed_ips::BY_ADDRESS.to_owned(),
        fixed_ips::OF_INSTANCE.to_owned(),
        fixed_ips::DHCP_HOSTS.to_owned(),
        fixed_ips::changes::CHANGED.replace("?..", "?"),
    ] {
        let args: Vec<crate::Value> = statement.matches('?').map(|_| 1.into()).collect();
        let plan = conn.all_text(&format!("explain query plan {statement}"), &args).await.unwrap();
        for step in plan {
            let detail: String = step.get("detail").unwrap();
            assert!(!detail.starts_with("SCAN"), "{statement}: {detail}");
            // Not the index of all addresses of a network.
            let is_changed = statement.contains("f.updated_at >= ?") && detail.starts_with("SEARCH f ");
            assert!(!is_changed || detail.contains("ix_fixed_ips_changed"), "{statement}: {detail}");
        }
    }
}

#[tokio::test]
async fn what_is_over_is_hidden_after_its_hour_and_its_hardware_address_is_free() {
    dev::each(async |db: &Db| {
        let new = fixtures::new_instances(&project(), 1);
        let id = transaction!(db, |tx| { insert_batch(tx, &new).await }).unwrap()[0];
        transaction!(db, |tx| { request(tx, None, id, Event::Terminate, None).await }).unwrap();
        transaction!(db, |tx| { finish_terminate(tx, id, 0, 0).await }).unwrap();
        let mut conn = db.write().await.unwrap();
        assert_eq!(expire(&mut conn, 3600).await.unwrap(), 0);
        assert_eq!(expire(&mut conn, -1).await.unwrap(), 1);
        assert!(matches!(get(&mut conn, id).await, Err(DbError::NotFound("instance"))));
        drop(conn);
        transaction!(db, |tx| { insert_batch(tx, &new).await }).unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_that_wait_are_placed_at_once_each_on_its_host() {
    dev::each(async |db: &Db| {
        let hosts: [HostName; 3] = ["h1", "h2", "h3"].map(fixtures::name);
        let ids = fixtures::launch(db, &project(), 7).await;
        let rows: Vec<(InstanceId, &HostName)> = ids.iter().copied().zip(hosts.iter().cycle()).collect();
        let waited = transaction!(db, |tx| {
            let waited = waiting(tx, &ids).await?;
            place_all(tx, &rows).await?;
            Ok(waited)
        });
        assert_eq!(waited.unwrap(), ids);
        let mut conn = db.read().await.unwrap();
        for (id, host) in &rows {
            let found = get(&mut conn, *id).await.unwrap();
            assert_eq!((found.host.as_ref(), found.epoch), (Some(*host), 1));
            assert_eq!(found.state, State::new(VmState::Pending, Some(Task::Building)));
        }
        drop(conn);
        let again = transaction!(db, |tx| {
            assert_eq!(waiting(tx, &ids).await?, []);
            place_all(tx, &rows[..2]).await
        });
        assert!(matches!(again, Err(DbError::Stale(_))), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn two_schedulers_never_place_the_same_instance() {
    dev::each(async |db: &Db| {
        let ids = fixtures::launch(db, &project(), 20).await;
        let hosts: Vec<HostName> = (0..4).map(|n| fixtures::name(&format!("h{n}"))).collect();
        let all = hosts.iter().map(|host| {
            let ids = ids.clone();
            async move { transaction!(db, |tx| { place(tx, &ids, host).await }).unwrap().len() }
        });
        let moved: usize = dev::at_once(all).await.into_iter().sum();
        assert_eq!(moved, 20);
        let again = transaction!(db, |tx| { place(tx, &ids[..1], &hosts[0]).await }).unwrap();
        assert_eq!(again, []);
    })
    .await;
}
