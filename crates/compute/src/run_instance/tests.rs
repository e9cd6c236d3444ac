//! Building, cleaning and ending, step by step.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use expect_test::expect;
use nova_hypervisor::simulated::{Call, Fault};
use nova_link::carrier::{Carrier, Wiring};
use nova_link::links::{FakeLinks, Links};
use nova_types::network::ManagerKind;
use nova_types::state::Event;
use nova_types::{ImageKind, InstanceId};

use super::{STEPS, run_instance, tear_down};
use crate::host::Host;
use crate::launch::Launch;
use crate::problem::Problem;
use crate::steps::{self, Step};
use crate::terminate::{clean, terminate};
use crate::testing::Bench;

async fn launch(bench: &Bench, host: &Arc<Host>, id: InstanceId) -> Launch {
    let view = bench.view(id).await;
    let ticket = host.desk.take(id, None).unwrap();
    Launch::new(Arc::clone(host), view, ticket)
}

/// A step that cannot be done.
struct Breaks;

#[async_trait]
impl Step<Launch> for Breaks {
    fn name(&self) -> &'static str {
        "breaks"
    }

    fn points(&self) -> [nova_failpoint::Point; 4] {
        crate::run_instance::LetNobodyIn.points()
    }

    async fn act(&self, _: &mut Launch) -> Result<(), Problem> {
        Err(Problem::never("No.", "on purpose"))
    }

    async fn undo(&self, _: &mut Launch) -> Result<(), Problem> {
        Ok(())
    }
}

#[tokio::test]
async fn whichever_step_fails_undoing_leaves_the_world_as_it_was() {
    let bench = Bench::new().await;
    let host = bench.host();
    let id = bench.placed(1).await[0];
    for at in 0..=STEPS.len() {
        let mut broken: Vec<&dyn Step<Launch>> = STEPS[..at].to_vec();
        broken.push(&Breaks);
        let mut launch = launch(&bench, &host, id).await;
        assert!(matches!(steps::act(&broken, &mut launch).await, Err(Problem::Never { .. })), "{at}");
        if at == STEPS.len() {
            expect![[r#"
                guest i-00000001 on
                folder i-00000001 disk
                rules i-00000001"#]]
            .assert_eq(&bench.world().await);
        }
        for _ in 0..2 {
            tear_down(&mut launch).await.unwrap();
            assert_eq!(bench.world().await, "", "{at}");
        }
    }
}

#[tokio::test]
async fn every_step_can_be_done_twice() {
    let bench = Bench::new().await;
    let host = bench.host();
    let id = bench.placed(1).await[0];
    let twice: Vec<&dyn Step<Launch>> = STEPS.iter().flat_map(|step| [*step, *step]).collect();
    let mut launch = launch(&bench, &host, id).await;
    steps::act(STEPS, &mut launch).await.unwrap();
    let once = bench.world().await;
    let spec = launch.spec().unwrap();
    steps::act(&twice, &mut launch).await.unwrap();
    assert_eq!((bench.world().await, launch.spec().unwrap()), (once, spec));
}

#[tokio::test]
async fn a_guest_is_made_of_what_its_row_says() {
    let bench = Bench::new().await;
    let host = bench.host();
    let kernel = bench.register(ImageKind::Kernel, &[1; 10]).await;
    let ramdisk = bench.register(ImageKind::Ramdisk, &[2; 10]).await;
    let change = |new: &mut nova_types::instance::NewInstances| {
        (new.kernel, new.ramdisk) = (Some(kernel), Some(ramdisk));
        (new.flavor, new.local_gb) = ("m1.small", 20);
        new.macs = vec!["02:16:3e:00:00:09".parse().unwrap()];
    };
    let id = bench.placed_as(1, change).await[0];
    let mut launch = launch(&bench, &host, id).await;
    steps::act(STEPS, &mut launch).await.unwrap();
    let spec = launch.spec().unwrap();
    let shown = format!("{spec:#?}").replace(&bench.folder.path().display().to_string(), "DIR");
    expect_test::expect_file!["spec.txt"].assert_eq(&shown);
    let read = |name: &str| std::fs::metadata(bench.instances_path().join("instance-00000001").join(name)).unwrap();
    assert_eq!(read("disk.local").len(), 20 << 30);
    let boot = spec.boot.unwrap();
    assert_eq!(std::fs::read(boot.kernel).unwrap(), [1; 10]);
    assert_eq!(std::fs::read(boot.ramdisk.unwrap()).unwrap(), [2; 10]);
}

#[tokio::test]
async fn a_seed_disk_is_made_where_it_is_asked_for() {
    let bench = Bench::new().await;
    let mut parts = bench.parts();
    parts.settings.seed_network = true;
    let host = Arc::new(Host::new(parts));
    let id = bench
        .placed_as(1, |new| {
            new.user_data = Some(b"#!/bin/sh\n".to_vec());
            new.key = Some(("k".parse().unwrap(), "ssh-ed25519 AAAA joe\n".to_owned()));
        })
        .await[0];
    let mut launch = launch(&bench, &host, id).await;
    steps::act(STEPS, &mut launch).await.unwrap();
    let content = launch.seed().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    expect![[r#"
        {"instance-id":"i-00000001","local-hostname":"i-00000001","public-keys":["ssh-ed25519 AAAA joe"]}
    "#]]
    .assert_eq(&text(content.meta_data));
    let network = text(content.network_config.unwrap());
    assert!(network.contains(r#""address":"10.0.0.2/20""#) && network.contains(r#""gateway":"10.0.0.1""#), "{network}");
    let seed = launch.spec().unwrap().seed.unwrap();
    let disk = std::fs::read(seed).unwrap();
    assert!(disk.windows(10).any(|part| part == b"#!/bin/sh\n"));
}

#[tokio::test]
async fn what_cannot_be_built_says_why_and_is_cleaned_up() {
    let bench = Bench::new().await;
    let host = bench.host();
    let ids = bench.placed(2).await;
    std::fs::remove_dir_all(bench.folder.path().join("images").join(bench.image.to_string())).unwrap();
    for (id, why) in [
        (ids[0], "error/cleaning (Server.InternalError: The image ami-00000001 could not be read.)"),
        (ids[1], "error/cleaning (Server.InternalError: The host could not run the instance.)"),
    ] {
        let ticket = host.desk.take(id, None).unwrap();
        run_instance(&host, bench.view(id).await, &ticket).await.unwrap();
        assert_eq!(bench.state(id).await, why);
        // The second finds its image, and a hypervisor that refuses.
        let images = nova_images::ImageStore::new(bench.folder.path().join("images"));
        images.put(bench.image, nova_types::image::DiskFormat::Raw, &mut &[7; 4096][..]).unwrap();
        bench.guests.fail_next(Call::EnsureRunning, Fault::Refused, 1);
        clean(&host, bench.view(id).await, &ticket).await.unwrap();
    }
    assert_eq!(bench.world().await, "");
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
}

#[tokio::test]
async fn a_hypervisor_that_cannot_be_asked_fails_nothing() {
    let bench = Bench::new().await;
    let host = bench.host();
    let id = bench.placed(1).await[0];
    let ticket = host.desk.take(id, None).unwrap();
    for call in [Call::EnsureRunning, Call::Destroy] {
        bench.guests.fail_next(call, Fault::Unreachable, 1);
    }
    let refused = run_instance(&host, bench.view(id).await, &ticket).await;
    assert!(matches!(refused, Err(Problem::Later(_))), "{refused:?}");
    assert_eq!(bench.state(id).await, "pending/building");
    run_instance(&host, bench.view(id).await, &ticket).await.unwrap();
    assert_eq!(bench.state(id).await, "running");

    bench.ask(id, Event::Terminate).await;
    let refused = terminate(&host, bench.view(id).await, &ticket).await;
    assert!(matches!(refused, Err(Problem::Later(_))), "{refused:?}");
    assert_eq!(bench.state(id).await, "shutting-down/terminating");
    assert!(bench.world().await.contains("folder"), "nothing is taken away before the guest is gone");
    terminate(&host, bench.view(id).await, &ticket).await.unwrap();
    assert_eq!(bench.state(id).await, "terminated");
    assert_eq!(bench.world().await, "");
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
}

#[tokio::test]
async fn the_outcome_of_a_row_that_has_moved_on_is_not_written() {
    let bench = Bench::new().await;
    let host = bench.host();
    let id = bench.placed(1).await[0];
    let ticket = host.desk.take(id, None).unwrap();
    let view = bench.view(id).await;
    bench.ask(id, Event::Terminate).await;
    let late = run_instance(&host, view, &ticket).await;
    assert!(matches!(late, Err(Problem::MovedOn)), "{late:?}");
    assert_eq!(bench.state(id).await, "shutting-down/terminating");
}

#[tokio::test]
async fn where_no_network_daemon_is_the_bridge_is_made_without_an_address_and_with_what_leads_to_other_hosts() {
    let bench = Bench::new().await;
    std::fs::create_dir_all(bench.instances_path()).unwrap();
    let links = Arc::new(FakeLinks::default());
    links.plug("eth1", vec!["192.0.2.7/24".parse().unwrap()]);
    let mut parts = bench.parts();
    if let Some(real) = &mut parts.real {
        (real.links, real.carrier) = (Arc::<FakeLinks>::clone(&links), Carrier::Port(Some("eth1".to_owned())));
    }
    let host = Arc::new(Host::new(parts));
    let ids = bench.placed(2).await;
    for id in ids {
        let ticket = host.desk.take(id, None).unwrap();
        run_instance(&host, bench.view(id).await, &ticket).await.unwrap();
        assert_eq!(bench.state(id).await, "running");
    }
    let found = links.list().await.unwrap();
    let shown: Vec<_> = found.iter().map(|link| (&*link.name, link.bridge.as_deref(), &*link.addresses)).collect();
    // What this machine itself is reached by is now on the bridge; the gateway's address is not.
    let own = ["192.0.2.7/24".parse().unwrap()];
    assert_eq!(shown, [("br100", None, &own[..]), ("eth1", Some("br100"), &[])]);
}

#[tokio::test]
async fn what_the_host_lacks_for_its_network_fails_the_launch_with_that_reason() {
    for (manager, why) in [
        (ManagerKind::Flat, "The host has no bridge br100: under FlatManager it is set up by hand."),
        (ManagerKind::Vlan, "The host has no interface eth1 to carry VLANs (--vlan_interface)."),
        (ManagerKind::Vxlan, "No interface of the host has the address 192.0.2.7 (--my_ip)."),
    ] {
        let bench = Bench::new().await;
        std::fs::create_dir_all(bench.instances_path()).unwrap();
        let network = nova_db::networks::list(&mut bench.db.read().await.unwrap()).await.unwrap().remove(0);
        let tag = manager.is_per_project().then_some(100);
        let statement = "update networks set vlan = ? where id = ?";
        bench.db.write().await.unwrap().execute(statement, &[tag.into(), network.id.into()]).await.unwrap();
        let links = Arc::new(FakeLinks::default());
        let my_ip = "192.0.2.7".parse().unwrap();
        let wiring = Wiring { manager, flat_interface: None, vlan_interface: "eth1", my_ip };
        let carrier = Carrier::of(wiring, Arc::<FakeLinks>::clone(&links)).unwrap();
        if let Some(mesh) = carrier.mesh() {
            mesh.learn(&*links, &BTreeSet::new()).await.unwrap();
        }
        let mut parts = bench.parts();
        if let Some(real) = &mut parts.real {
            (real.links, real.carrier) = (Arc::<FakeLinks>::clone(&links), carrier);
        }
        let host = Arc::new(Host::new(parts));
        let ids = bench.placed(2).await;
        let ticket = host.desk.take(ids[0], None).unwrap();
        run_instance(&host, bench.view(ids[0]).await, &ticket).await.unwrap();
        assert_eq!(bench.state(ids[0]).await, format!("error/cleaning (Server.InternalError: {why})"));
        assert!(links.list().await.unwrap().is_empty(), "nothing is made");
        links.plug_bridge("br100");
        links.plug("eth1", vec!["192.0.2.7/24".parse().unwrap()]);
        let ticket = host.desk.take(ids[1], None).unwrap();
        run_instance(&host, bench.view(ids[1]).await, &ticket).await.unwrap();
        assert_eq!(bench.state(ids[1]).await, "running");
    }
}

#[tokio::test]
async fn where_each_host_serves_its_guests_a_launch_waits_for_the_host_or_says_that_it_cannot() {
    let bench = Bench::new().await;
    std::fs::create_dir_all(bench.instances_path()).unwrap();
    let network = nova_db::networks::list(&mut bench.db.read().await.unwrap()).await.unwrap().remove(0).id;
    bench.db.write().await.unwrap().execute("update networks set multi_host = true", &[]).await.unwrap();
    let host = bench.host();
    let ids = bench.placed(2).await;
    let run = async |id| run_instance(&host, bench.view(id).await, &host.desk.take(id, None).unwrap()).await;

    run(ids[0]).await.unwrap();
    let why = "The host host-1 runs no nova-network, and each host serves its own guests of the network.";
    assert_eq!(bench.state(ids[0]).await, format!("error/cleaning (Server.InternalError: {why})"));

    let mut conn = bench.db.write().await.unwrap();
    nova_db::services::heartbeat(&mut conn, &host.name, "nova-network", "nova", true).await.unwrap();
    drop(conn);
    let waits = run(ids[1]).await.unwrap_err();
    let told = nova_service::chain(&waits).to_string();
    assert!(told.ends_with("this host has no address of its own in 10.0.0.0/20 yet"), "{told}");
    nova_db::routers::take(&mut bench.db.write().await.unwrap(), network, &host.name).await.unwrap();
    run(ids[1]).await.unwrap();
    assert_eq!(bench.state(ids[1]).await, "running");
}
