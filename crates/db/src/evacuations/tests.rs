//! Taking instances from a host, on every engine.

use nova_types::instance::StateReason;
use nova_types::state::Event;
use nova_types::{HostName, InstanceId, ProjectId};

use super::{done, of_host};
use crate::dev::{self, fixtures};
use crate::error::DbError;
use crate::instances::{self, Evacuated, Guard};
use crate::open::Db;
use crate::{check, compute_nodes, fixed_ips, quotas, services, transaction};
use nova_types::quota::{Quotas, Resource};

struct World<'a> {
    db: &'a Db,
    host: HostName,
    ids: Vec<InstanceId>,
}

impl<'a> World<'a> {
    /// A host with instances of `acme` on it that have addresses.
    async fn new(db: &'a Db, count: u32) -> Self {
        let (host, project): (HostName, ProjectId) = (fixtures::name("h1"), fixtures::name("acme"));
        fixtures::node(db, &host, 100).await;
        let network = fixtures::flat_network(db, 24).await;
        let new = fixtures::new_instances(&project, count);
        let amounts = [(Resource::Instances, count), (Resource::Cores, count)];
        let limits = Quotas { instances: 100, cores: 100, ..Quotas::default() };
        let ids = transaction!(db, |tx| {
            quotas::reserve(tx, &project, &amounts, &limits).await?;
            let ids = instances::insert_batch(tx, &new).await?;
            instances::place(tx, &ids, &host).await?;
            assert!(compute_nodes::claim(tx, &host, fixtures::DEMAND.times(count)).await?);
            fixed_ips::take(tx, network, &ids).await?;
            Ok(ids)
        });
        Self { db, host, ids: ids.unwrap() }
    }

    async fn happens(&self, id: InstanceId, events: &[Event]) {
        for event in events {
            let moved = transaction!(self.db, |tx| {
                let guard = Guard::of(&instances::get(tx, id).await?);
                instances::apply(tx, id, *event, &guard, None).await
            });
            moved.unwrap();
        }
    }

    async fn evacuate(&self, limit: u32) -> Evacuated {
        let reason = StateReason::new("Server.HostEvacuated", "gone");
        transaction!(self.db, |tx| { instances::evacuate(tx, &self.host, limit, &reason).await }).unwrap()
    }

    async fn state(&self, id: InstanceId) -> String {
        let row = instances::get(&mut self.db.read().await.unwrap(), id).await.unwrap();
        let task = row.state.task.map(|task| format!("/{}", task.as_str())).unwrap_or_default();
        let host = row.host.map(|host| format!(" on {host}")).unwrap_or_default();
        format!("{}{task}{host}", row.state.vm.as_str())
    }

    async fn clean(&self) {
        let findings = check::run(&mut self.db.read().await.unwrap(), 3600).await.unwrap();
        assert_eq!(findings, []);
    }
}

#[tokio::test]
async fn instances_leave_their_host_with_their_addresses_and_without_its_capacity() {
    dev::each(async |db: &Db| {
        let world = World::new(db, 6).await;
        let [building, running, stopped, stopping, ending, failed] = world.ids[..] else { panic!("six") };
        world.happens(running, &[Event::Booted]).await;
        world.happens(stopped, &[Event::Booted, Event::Stop, Event::Halted]).await;
        world.happens(stopping, &[Event::Booted, Event::Stop]).await;
        world.happens(ending, &[Event::Booted, Event::Terminate]).await;
        world.happens(failed, &[Event::Failed]).await;
        let before = instances::get(&mut db.read().await.unwrap(), running).await.unwrap();
        let address = fixed_ips::of_instance(&mut db.read().await.unwrap(), running).await.unwrap();

        let first = world.evacuate(2).await;
        assert_eq!(first.anew, [building, running]);
        let rest = world.evacuate(100).await;
        assert_eq!((rest.stopped, rest.ending), (vec![stopped, stopping], vec![ending, failed]));
        assert_eq!(world.evacuate(100).await, Evacuated::default());

        assert_eq!(world.state(running).await, "pending/scheduling");
        assert_eq!(world.state(stopping).await, "stopped");
        assert_eq!(world.state(ending).await, "shutting-down/terminating");
        assert_eq!(world.state(failed).await, "error");
        let mut conn = db.read().await.unwrap();
        assert_eq!(fixed_ips::of_instance(&mut conn, running).await.unwrap(), address);
        assert_eq!(fixed_ips::of_instance(&mut conn, failed).await.unwrap(), None);
        let now = instances::get(&mut conn, running).await.unwrap();
        assert_eq!((now.epoch, now.reason.unwrap().code), (before.epoch + 1, "Server.HostEvacuated".to_owned()));
        let node = compute_nodes::list(&mut conn, 60).await.unwrap().remove(0);
        assert_eq!((node.memory_mb_used, node.vcpus_used), (0, 0));
        drop(conn);
        world.clean().await;

        // What the old host still wants to write is refused.
        let late =
            transaction!(db, |tx| { instances::apply(tx, running, Event::Halted, &Guard::of(&before), None).await });
        assert!(matches!(late, Err(DbError::Stale(_))), "{late:?}");
        // Ended without a host, its address is kept back: its guest may still run.
        let end = instances::get(&mut db.read().await.unwrap(), ending).await.unwrap();
        transaction!(db, |tx| { instances::finish_terminate(tx, ending, end.epoch, 0).await }).unwrap();
        let addresses = fixed_ips::list(&mut db.read().await.unwrap(), None).await.unwrap();
        let kept = addresses.iter().filter(|address| address.free_after.is_some() && address.holder.is_none()).count();
        assert_eq!(kept, 2);
        world.clean().await;
    })
    .await;
}

#[tokio::test]
async fn a_stopped_instance_without_a_host_is_scheduled_when_it_is_started() {
    dev::each(async |db: &Db| {
        let world = World::new(db, 1).await;
        let id = world.ids[0];
        world.happens(id, &[Event::Booted, Event::Stop, Event::Halted]).await;
        world.evacuate(100).await;
        transaction!(db, |tx| { instances::request(tx, None, id, Event::Start, None).await }).unwrap();
        assert_eq!(world.state(id).await, "pending/scheduling");
        let other: HostName = fixtures::name("h2");
        transaction!(db, |tx| { instances::place(tx, &[id], &other).await }).unwrap();
        assert_eq!(world.state(id).await, "pending/building on h2");
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_ran_waits_on_where_no_host_has_room_for_it() {
    dev::each(async |db: &Db| {
        let world = World::new(db, 1).await;
        let id = world.ids[0];
        world.happens(id, &[Event::Booted]).await;
        world.evacuate(100).await;
        let reason = StateReason::new("Server.InsufficientInstanceCapacity", "full");
        let refuse = async || {
            let guard = Guard::of(&instances::get(&mut db.read().await.unwrap(), id).await.unwrap());
            transaction!(db, |tx| { instances::fail(tx, id, &guard, Event::NotPlaced, &reason, 0).await })
        };
        refuse().await.unwrap();
        assert_eq!(world.state(id).await, "pending/scheduling");
        assert!(matches!(refuse().await, Err(DbError::Stale(_))), "it is said once");
        let row = instances::get(&mut db.read().await.unwrap(), id).await.unwrap();
        assert_eq!(row.reason, Some(reason.clone()));
        world.clean().await;
    })
    .await;
}

#[tokio::test]
async fn a_host_that_comes_back_learns_what_was_taken_from_it_until_it_is_done() {
    dev::each(async |db: &Db| {
        let world = World::new(db, 2).await;
        let [one, other] = world.ids[..] else { panic!("two") };
        world.evacuate(100).await;
        let marks = async || of_host(&mut db.read().await.unwrap(), &world.host).await.unwrap();
        let first = marks().await;
        assert_eq!(
            first.iter().map(|mark| (mark.instance, mark.over)).collect::<Vec<_>>(),
            [(one, false), (other, false)]
        );

        // Placed there again and taken again: the mark is of a later epoch, and the earlier one clears nothing.
        transaction!(db, |tx| { instances::place(tx, &[one], &world.host).await }).unwrap();
        world.evacuate(100).await;
        done(&mut db.write().await.unwrap(), &world.host, &first[0]).await.unwrap();
        assert_eq!(marks().await.len(), 2);
        done(&mut db.write().await.unwrap(), &world.host, &marks().await[0]).await.unwrap();
        assert_eq!(marks().await, [first[1]]);

        transaction!(db, |tx| { instances::request(tx, None, other, Event::Terminate, None).await }).unwrap();
        let epoch = first[1].epoch;
        transaction!(db, |tx| { instances::finish_terminate(tx, other, epoch, 0).await }).unwrap();
        assert!(marks().await[0].over);
        services::delete(&mut db.write().await.unwrap(), &world.host, "nova-compute").await.unwrap();
    })
    .await;
}
