//! Several schedulers, several engines, and hosts that are lost.

use super::*;

#[tokio::test]
async fn several_schedulers_on_every_database_never_give_a_host_too_much() {
    dev::each(async |db: &Db| {
        let mut world = World::new(db);
        for host in ["h1", "h2", "h3"] {
            fixtures::node(db, &fixtures::name(host), 10).await;
        }
        fixtures::flat_network(db, 25).await;
        for _ in 0..3 {
            world.start(QUICK).await;
        }
        let mut ids = Vec::new();
        for count in [1, 7, 12, 3, 9, 8] {
            ids.extend(world.launch(count, |_| {}).await);
        }
        world.settled().await;
        let shown = world.shown(&ids).await;
        assert_eq!((ids.len(), shown.matches("building").count()), (40, 30), "{shown}");
        for node in compute_nodes::list(&mut db.read().await.unwrap(), 60).await.unwrap() {
            assert_eq!((node.vcpus_used, node.memory_mb_used), (10, 5120), "{node:?}");
        }
        assert_eq!(world.findings().await, []);
        world.stop().await;
    })
    .await;
}

/// 64 launches at once for the last 10 places, then for the last 10 addresses, with 4 schedulers.
#[tokio::test]
async fn of_64_launches_at_once_exactly_10_get_the_last_10_places_or_addresses() {
    dev::each(async |db: &Db| {
        for (places, prefix, code) in
            [(5, 25, "Server.InsufficientInstanceCapacity"), (100, 28, "Server.InsufficientFreeAddressesInSubnet")]
        {
            let mut world = World::new(db);
            let network = fixtures::flat_network(db, prefix).await;
            let hosts = [fixtures::name(&format!("a{prefix}")), fixtures::name(&format!("b{prefix}"))];
            for host in &hosts {
                fixtures::node(db, host, places).await;
            }
            if prefix == 28 {
                // 13 addresses, of which 3 are kept back.
                let keep = "update fixed_ips set reserved = true where network_id = ? and address in (?..)";
                let few = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(str::to_owned);
                db.write().await.unwrap().execute(keep, &[network.into(), few.to_vec().into()]).await.unwrap();
            }
            for _ in 0..4 {
                world.start(&["--tick_interval=0.2", "--host_grace=0"]).await;
            }
            let began = std::time::Instant::now();
            let launches = (0..64).map(|_| async {
                let ids = world.launch(1, |_| {}).await;
                let instance_ids = ids.iter().map(|id| id.number()).collect();
                let hint = Request::cast(SchedulerCall::RunInstance { instance_ids }, Context::service());
                world
                    .bus
                    .publish(&nova_wire::Address::Any(Topic::Scheduler), hint.encode().unwrap().into())
                    .await
                    .unwrap();
                ids[0]
            });
            let ids = dev::at_once(launches).await;
            world.settled().await;
            println!("all 64 ended or placed after {:?}", began.elapsed());
            let shown = world.shown(&ids).await;
            let (placed, refused) = (shown.matches("building").count(), shown.matches(code).count());
            assert_eq!((placed, refused), (10, 54), "{shown}");
            assert_eq!(world.findings().await, []);
            world.stop().await;
            // The next case finds the cloud empty.
            for id in ids {
                let found = instances::get(&mut db.read().await.unwrap(), id).await.unwrap();
                if found.host.is_some() {
                    transaction!(db, |tx| {
                        let (_, now) = instances::request(tx, None, id, Event::Terminate, None).await?;
                        instances::finish_terminate(tx, id, Guard::of(&now).epoch, 0).await
                    })
                    .unwrap();
                }
            }
            transaction!(db, |tx| { nova_db::networks::delete(tx, network).await }).unwrap();
            for host in &hosts {
                let gone = "update compute_nodes set deleted = true where host = ?";
                db.write().await.unwrap().execute(gone, &[host.into()]).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_evacuated_instance_keeps_its_address_on_its_new_host_and_waits_for_room() {
    dev::each(async |db: &Db| {
        let (lost, other): (nova_types::HostName, _) = (fixtures::name("h1"), fixtures::name("h2"));
        fixtures::node(db, &lost, 10).await;
        fixtures::flat_network(db, 24).await;
        let mut world = World::new(db);
        world.start(QUICK).await;
        let ids = world.launch(3, |_| {}).await;
        world.settled().await;
        let address = async |id| fixed_ips::of_instance(&mut db.read().await.unwrap(), id).await.unwrap();
        let before = [address(ids[0]).await, address(ids[1]).await, address(ids[2]).await];
        for id in &ids {
            let booted = transaction!(db, |tx| {
                let guard = instances::Guard::of(&instances::get(tx, *id).await?);
                instances::apply(tx, *id, Event::Booted, &guard, None).await
            });
            booted.unwrap();
        }

        nova_db::services::set_disabled(&mut db.write().await.unwrap(), &lost, "nova-compute", true).await.unwrap();
        let reason = nova_types::instance::StateReason::new("Server.HostEvacuated", "lost");
        transaction!(db, |tx| { instances::evacuate(tx, &lost, 100, &reason).await }).unwrap();
        // Nobody has room: they are told so, and wait.
        let code = async |id| instances::get(&mut db.read().await.unwrap(), id).await.unwrap().reason.unwrap().code;
        for _ in 0..500 {
            if code(ids[2]).await == "Server.InsufficientInstanceCapacity" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(code(ids[0]).await, "Server.InsufficientInstanceCapacity");
        fixtures::node(db, &other, 10).await;
        world.settled().await;
        let mut conn = db.read().await.unwrap();
        for id in &ids {
            let placed = instances::get(&mut conn, *id).await.unwrap();
            assert_eq!((placed.host.as_ref(), placed.state.task), (Some(&other), Some(Task::Building)));
        }
        drop(conn);
        assert_eq!([address(ids[0]).await, address(ids[1]).await, address(ids[2]).await], before);
        assert_eq!(world.findings().await, []);
        world.stop().await;
    })
    .await;
}
