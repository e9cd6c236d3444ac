//! What differs, and what is done about it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use nova_db::{instances, transaction};
use nova_hypervisor::simulated::{Call, Fault};
use nova_hypervisor::{Guest, GuestSpec, Hypervisor, Power, contract};
use nova_types::InstanceId;
use nova_types::instance::StateReason;
use nova_types::state::{Event, State, Task, VmState};

use super::{Comparison, compare, pass};
use crate::host::Host;
use crate::run_instance::run_instance;
use crate::testing::Bench;

fn id(number: u32) -> InstanceId {
    InstanceId::new(number)
}

fn stranger(number: u32) -> GuestSpec {
    contract::spec(number, std::path::Path::new("/nowhere"))
}

async fn running(bench: &Bench, host: &Arc<Host>, count: u32) -> Vec<InstanceId> {
    let ids = bench.placed(count).await;
    for id in &ids {
        let ticket = host.desk.take(*id, None).unwrap();
        run_instance(host, bench.view(*id).await, &ticket).await.unwrap();
    }
    // What was in hand a moment ago is not judged.
    tokio::time::sleep(Duration::from_millis(2)).await;
    ids
}

/// Compares `times` times, each after the grace time of strangers.
async fn passes(host: &Arc<Host>, times: u32) {
    let mut seen = HashMap::new();
    for _ in 0..times {
        pass(host, &mut seen).await.unwrap();
        tokio::time::sleep(host.settings.stranger_grace + Duration::from_millis(5)).await;
    }
}

#[test]
fn every_difference_is_found_and_nothing_else() {
    let at = State::new;
    let rows: BTreeMap<InstanceId, State> = [
        (1, at(VmState::Running, None)),
        (2, at(VmState::Running, None)),
        (3, at(VmState::Running, None)),
        (4, at(VmState::Stopped, None)),
        (5, at(VmState::Stopped, None)),
        (6, at(VmState::Stopped, None)),
        (7, at(VmState::Running, Some(Task::Rebooting))),
        (8, at(VmState::Pending, Some(Task::Building))),
        (9, at(VmState::Running, None)),
    ]
    .map(|(number, state)| (id(number), state))
    .into();
    let guests = [(1, Power::On), (2, Power::Off), (4, Power::On), (5, Power::Off), (7, Power::Off), (9, Power::Off)]
        .into_iter()
        .chain([(20, Power::Off), (21, Power::On)])
        .map(|(number, power)| Guest { id: id(number), power })
        .collect::<Vec<_>>();
    let folders = [1, 2, 22].map(id);
    let found = compare(&rows, &guests, &folders, &HashSet::from([id(9), id(21)]));
    expect![[r#"
        Off(InstanceId(2))
        Missing(InstanceId(3))
        Runs(InstanceId(4))
        Unknown(InstanceId(20))
        Unknown(InstanceId(22))"#]]
    .assert_eq(&found.iter().map(|finding| format!("{finding:?}")).collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_stopped_and_says_why() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 2).await;
    bench.guests.power_off_inside(id(1));
    passes(&host, 1).await;
    expect![[r#"
        row i-00000001 stopped (Client.InstanceInitiatedShutdown: Instance initiated shutdown)
        row i-00000002 running
        guest i-00000001 off
        guest i-00000002 on
        folder i-00000001 disk
        folder i-00000002 disk
        rules i-00000001
        rules i-00000002"#]]
    .assert_eq(&bench.picture().await);
}

#[tokio::test]
async fn after_a_restart_of_the_host_its_guests_run_again() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 2).await;
    passes(&host, 1).await;
    std::fs::write(bench.instances_path().join(format!(".boot-id-{}", host.name)), "before").unwrap();
    bench.guests.restart_host();
    bench.guests.fail_next(Call::EnsureRunning, Fault::Unreachable, 1);
    passes(&host, 1).await;
    assert!(bench.world().await.contains("guest i-00000001 off"), "the first could not be started yet");
    tokio::time::sleep(Duration::from_secs(1)).await;
    passes(&host, 2).await;
    for number in [1, 2] {
        assert_eq!(bench.state(id(number)).await, "running");
    }
    assert!(!bench.world().await.contains("off"));
    assert!(!host.real.as_ref().unwrap().boot.host_was_restarted());
}

#[tokio::test]
async fn a_guest_that_vanished_is_made_again_of_its_disk_or_stopped_never_deleted() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 2).await;
    bench.guests.vanish(id(1));
    bench.guests.vanish(id(2));
    std::fs::remove_file(bench.instances_path().join("instance-00000002/disk")).unwrap();
    passes(&host, 1).await;
    assert!(!bench.world().await.contains("guest"), "seen only once");
    passes(&host, 2).await;
    expect![[r#"
        row i-00000001 running
        row i-00000002 stopped (Server.InternalError: The disk of the instance is gone.)
        guest i-00000001 on
        folder i-00000001 disk
        folder i-00000002 
        rules i-00000001
        rules i-00000002"#]]
    .assert_eq(&bench.picture().await);
}

#[tokio::test]
async fn a_stopped_guest_that_runs_is_stopped_again() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 1).await;
    bench.moved(id(1), Event::Halted).await;
    passes(&host, 2).await;
    assert!(bench.world().await.contains("guest i-00000001 off"));
    assert_eq!(bench.state(id(1)).await, "stopped");
}

#[tokio::test]
async fn what_nobody_knows_is_removed_after_a_while_and_only_if_others_are_known() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 1).await;
    for number in 50..60 {
        bench.guests.ensure_running(&stranger(number)).await.unwrap();
    }
    std::fs::create_dir_all(bench.instances_path().join("instance-00000077")).unwrap();
    let mut seen = HashMap::new();
    pass(&host, &mut seen).await.unwrap();
    pass(&host, &mut seen).await.unwrap();
    assert_eq!(bench.guests.list().await.unwrap().len(), 11, "twice, but not for long enough");
    passes(&host, 2).await;
    expect![[r#"
        row i-00000001 running
        guest i-00000001 on
        folder i-00000001 disk
        rules i-00000001"#]]
    .assert_eq(&bench.picture().await);

    // The same with a database that knows none of them.
    let empty = Bench::new().await;
    for number in 50..60 {
        empty.guests.ensure_running(&stranger(number)).await.unwrap();
    }
    passes(&empty.host(), 3).await;
    assert_eq!(empty.guests.list().await.unwrap().len(), 10);
}

#[tokio::test]
async fn what_is_in_hand_or_cannot_be_asked_is_not_judged() {
    let bench = Bench::new().await;
    let host = bench.host();
    running(&bench, &host, 1).await;
    bench.guests.power_off_inside(id(1));
    let ticket = host.desk.take(id(1), None).unwrap();
    passes(&host, 2).await;
    assert_eq!(bench.state(id(1)).await, "running");
    drop(ticket);
    tokio::time::sleep(Duration::from_millis(2)).await;

    bench.guests.fail_next(Call::List, Fault::Unreachable, 1);
    let mut comparison = Comparison { host: Arc::clone(&host), seen: HashMap::new() };
    let refused = nova_service::Turn::turn(&mut comparison).await;
    assert!(refused.is_err());
    assert_eq!(bench.state(id(1)).await, "running");
    nova_service::Turn::turn(&mut comparison).await.unwrap();
    assert!(bench.state(id(1)).await.starts_with("stopped"));
}

#[tokio::test]
async fn what_was_evacuated_is_destroyed_at_once_and_its_files_stay_until_it_is_over() {
    let bench = Bench::new().await;
    let host = bench.host();
    // More than look suspicious, and none that is known: the database proves it all the same.
    let ids = running(&bench, &host, 5).await;
    let reason = StateReason::new("Server.HostEvacuated", "lost");
    let taken = transaction!(bench.db, |tx| { instances::evacuate(tx, &host.name, 100, &reason).await }).unwrap();
    assert_eq!(taken.anew.len(), 5);
    transaction!(bench.db, |tx| { instances::place(tx, &ids[..1], &"host-2".parse().unwrap()).await }).unwrap();
    transaction!(bench.db, |tx| { instances::place(tx, &ids[1..2], &host.name).await }).unwrap();
    bench.ask(id(3), Event::Terminate).await;
    let epoch = bench.view(id(3)).await.instance.epoch;
    transaction!(bench.db, |tx| { instances::finish_terminate(tx, id(3), epoch, 0).await }).unwrap();

    // One look is enough; what was placed here again is left as it is.
    let mut seen = HashMap::new();
    pass(&host, &mut seen).await.unwrap();
    let guests: Vec<InstanceId> = bench.guests.list().await.unwrap().iter().map(|guest| guest.id).collect();
    assert_eq!(guests, [id(2)]);
    passes(&host, 3).await;
    let picture = bench.picture().await;
    let folders: Vec<&str> = picture.lines().filter(|line| line.starts_with("folder")).collect();
    assert_eq!(folders.len(), 4, "{picture}");
    assert!(!picture.contains("folder i-00000003"), "it is over: {picture}");
    let left = nova_db::evacuations::of_host(&mut bench.db.read().await.unwrap(), &host.name).await.unwrap();
    assert_eq!(left.iter().map(|mark| mark.instance).collect::<Vec<_>>(), [id(1), id(4), id(5)]);
}
