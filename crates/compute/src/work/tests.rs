//! The whole daemon on a bench: messages, ticks, races and crashes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::expect;
use nova_bus::Bus;
use nova_db::{security_groups, transaction};
use nova_hypervisor::Simulated;
use nova_hypervisor::simulated::{Call, Delays, Fault, Options};
use nova_service::Stop;
use nova_types::InstanceId;
use nova_types::rule::{Rule, Source, Traffic};
use nova_types::state::Event;
use nova_wire::{ComputeCall, ConsoleOutput};
use tokio::task::JoinHandle;

use crate::testing::{Bench, host_name, open, project};
use crate::{ComputeError, Parts, run};

/// A daemon that runs; it is told to stop when the test ends.
struct Daemon {
    stop: Stop,
    running: JoinHandle<Result<(), ComputeError>>,
}

impl Daemon {
    async fn start(parts: Parts) -> Self {
        let (stop, ready) = (Stop::new(), parts.ready.clone());
        let running = tokio::spawn(run(parts, stop.clone()));
        ready.wait().await;
        Self { stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

async fn cast(bench: &Bench, call: ComputeCall) {
    let bus: Arc<dyn Bus> = Arc::<nova_bus::InProcess>::clone(&bench.bus);
    bus.cast_compute(host_name().as_str(), call).await.unwrap();
}

fn numbers(ids: &[InstanceId]) -> Vec<u32> {
    ids.iter().map(|id| id.number()).collect()
}

/// Ticks that are of no help: only messages are left.
fn deaf(mut parts: Parts) -> Parts {
    parts.settings.tick = Duration::from_secs(1000);
    parts.settings.converge = Duration::from_secs(1000);
    parts
}

#[tokio::test]
async fn an_instance_lives_its_life_by_messages_alone() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(deaf(bench.parts())).await;
    let ids = bench.placed(3).await;
    let instance_ids = numbers(&ids);
    cast(&bench, ComputeCall::RunInstance { instance_ids: instance_ids.clone() }).await;
    for id in &ids {
        bench.until_state(*id, "running").await;
    }
    for (event, call, state) in [
        (Event::Reboot, ComputeCall::RebootInstance { instance_ids: instance_ids.clone() }, "running"),
        (Event::Stop, ComputeCall::StopInstance { instance_ids: instance_ids.clone() }, "stopped"),
        (Event::Start, ComputeCall::StartInstance { instance_ids: instance_ids.clone() }, "running"),
    ] {
        bench.ask(ids[0], event).await;
        cast(&bench, call).await;
        bench.until_state(ids[0], state).await;
    }
    let bus: Arc<dyn Bus> = Arc::<nova_bus::InProcess>::clone(&bench.bus);
    let console: ConsoleOutput = bus
        .call_compute(
            host_name().as_str(),
            ComputeCall::GetConsoleOutput { instance_id: ids[0].number() },
            Duration::from_secs(5),
        )
        .await
        .unwrap();
    assert!(String::from_utf8(console.output).unwrap().ends_with("i-00000001 login: "));
    assert_eq!(console.timestamp.unix_timestamp(), 1_300_000_000);
    for id in &ids[..2] {
        bench.ask(*id, Event::Terminate).await;
    }
    cast(&bench, ComputeCall::TerminateInstance { instance_ids }).await;
    for id in &ids[..2] {
        bench.until_state(*id, "terminated").await;
    }
    expect![[r#"
        row i-00000001 terminated
        row i-00000002 terminated
        row i-00000003 running
        guest i-00000003 on
        folder i-00000003 disk
        rules i-00000003"#]]
    .assert_eq(&bench.picture().await);
    assert_eq!(bench.books().await, (Vec::new(), 1, 512));
    daemon.stop().await;
}

#[tokio::test]
async fn a_lost_message_costs_nothing_but_a_tick() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(bench.parts()).await;
    let ids = bench.placed(30).await;
    for id in &ids {
        bench.until_state(*id, "running").await;
        bench.ask(*id, Event::Terminate).await;
    }
    for id in &ids {
        bench.until_state(*id, "terminated").await;
    }
    bench.until("the rules are gone", async || bench.world().await.is_empty()).await;
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_is_terminated_while_he_boots_does_not_wait_for_it() {
    let delays = Delays { boot: Duration::from_secs(30), ..Delays::NONE };
    let guests = Simulated::open(Options { delays, ..Options::default() }).unwrap();
    let bench = Bench::with(guests).await;
    let daemon = Daemon::start(bench.parts()).await;
    // More than there are places for: some wait for one.
    let ids = bench.placed(10).await;
    bench.until("four are booting", async || bench.world().await.matches("folder").count() == 4).await;
    let begun = Instant::now();
    for id in &ids {
        bench.ask(*id, Event::Terminate).await;
    }
    cast(&bench, ComputeCall::TerminateInstance { instance_ids: numbers(&ids) }).await;
    for id in &ids {
        bench.until_state(*id, "terminated").await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    bench.until("nothing is left", async || bench.world().await.is_empty()).await;
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
    daemon.stop().await;
}

#[tokio::test]
async fn a_hypervisor_that_comes_and_goes_is_waited_for() {
    let bench = Bench::new().await;
    for call in [Call::EnsureRunning, Call::Destroy, Call::List, Call::Stop] {
        bench.guests.fail_often(call, Fault::Unreachable, 300);
    }
    let daemon = Daemon::start(bench.parts()).await;
    let ids = bench.placed(10).await;
    for id in &ids {
        bench.until_state(*id, "running").await;
    }
    for id in &ids {
        bench.ask(*id, Event::Terminate).await;
    }
    for id in &ids {
        bench.until_state(*id, "terminated").await;
    }
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
    daemon.stop().await;
}

#[tokio::test]
async fn a_changed_rule_is_in_force_within_a_second_with_a_message_and_without() {
    let bench = Bench::new().await;
    let id = bench.placed(1).await[0];
    let ssh = Traffic::parse("tcp", Some(22), Some(22)).unwrap();
    let from = "192.0.2.7".parse().unwrap();
    let rules = [Rule { traffic: ssh, source: Source::EVERYONE }];
    for heard in [true, false] {
        let daemon = Daemon::start(if heard { deaf(bench.parts()) } else { bench.parts() }).await;
        cast(&bench, ComputeCall::RunInstance { instance_ids: vec![id.number()] }).await;
        bench.until_state(id, "running").await;
        assert!(!bench.firewall.lets_in(id, ssh, from));
        for granted in [true, false] {
            let begun = Instant::now();
            let group = bench.group;
            let changed = transaction!(bench.db, |tx| -> security_groups::GroupError {
                if granted {
                    security_groups::add_rules(tx, &project(), group, &rules, 100).await
                } else {
                    security_groups::remove_rules(tx, &project(), group, &rules).await
                }
            });
            assert_eq!(changed.unwrap(), [host_name()]);
            if heard {
                let security_group_ids = vec![group.number()];
                cast(&bench, ComputeCall::RefreshSecurityGroupRules { security_group_ids }).await;
            }
            let in_force = async || bench.firewall.lets_in(id, ssh, from) == granted;
            bench.until("the rule is in force", in_force).await;
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_guest_that_goes_off_by_itself_is_noticed_at_once() {
    let bench = Bench::new().await;
    let mut parts = bench.parts();
    parts.settings.converge = Duration::from_secs(1000);
    let daemon = Daemon::start(parts).await;
    let id = bench.placed(1).await[0];
    bench.until_state(id, "running").await;
    // What goes off right after it was in hand is taken for an echo of our own doing, until the next comparison.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let begun = Instant::now();
    bench.guests.power_off_inside(id);
    bench.until_state(id, "stopped (Client.InstanceInitiatedShutdown: Instance initiated shutdown)").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    daemon.stop().await;
}

/// Runs a daemon as a process of its own, as far as rows and guests go, and kills it.
fn killed_after(bench: &Bench, lives: Duration) {
    let folder = bench.folder.path().to_owned();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let parts = bench.parts_of(open(&folder).await, Arc::new(simulated(&folder)));
                let _ = tokio::time::timeout(lives, run(parts, Stop::new())).await;
            });
            runtime.shutdown_background();
        });
    });
}

fn simulated(folder: &std::path::Path) -> Simulated {
    let boot = Duration::from_millis(10);
    let delays = Delays { boot, stop: boot, destroy: boot };
    Simulated::open(Options { delays, state_file: Some(folder.join("guests")), seed: 0 }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_it_goes_on_where_it_was() {
    let bench = Bench::new().await;
    let ids = bench.placed(12).await;
    for lives_ms in [5, 15, 30, 45, 60, 20, 40] {
        killed_after(&bench, Duration::from_millis(lives_ms));
    }
    for id in &ids[..6] {
        bench.ask(*id, Event::Terminate).await;
    }
    for lives_ms in [10, 25, 40, 60, 30] {
        killed_after(&bench, Duration::from_millis(lives_ms));
    }
    let guests = Arc::new(simulated(bench.folder.path()));
    let daemon = Daemon::start(bench.parts_of(bench.db.clone(), Arc::clone(&guests))).await;
    for (at, id) in ids.iter().enumerate() {
        bench.until_state(*id, if at < 6 { "terminated" } else { "running" }).await;
    }
    bench.until("only six have rules", async || bench.firewall.guests().len() == 6).await;
    let alive = nova_hypervisor::Hypervisor::list(guests.as_ref()).await.unwrap();
    assert_eq!(alive.iter().map(|guest| guest.id).collect::<Vec<_>>(), ids[6..]);
    assert_eq!(bench.world().await.matches("folder").count(), 6);
    assert_eq!(bench.books().await, (Vec::new(), 6, 6 * 512));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_guests_come_and_go_by_the_thousand() {
    let bench = Bench::new().await;
    let mut parts = bench.parts();
    parts.real = None;
    (parts.settings.builds, parts.settings.quiet) = (4096, 4096);
    let daemon = Daemon::start(parts).await;
    let ids = bench.placed(900).await;
    let all = async |wanted: &str| {
        let rows = nova_db::instances::describe(&mut bench.db.read().await.unwrap(), None, &[]).await.unwrap();
        rows.iter().all(|view| view.instance.state.vm.as_str() == wanted)
    };
    let begun = Instant::now();
    cast(&bench, ComputeCall::RunInstance { instance_ids: numbers(&ids) }).await;
    bench.until("all run", async || all("running").await).await;
    let launched = begun.elapsed();
    let ended = transaction!(bench.db, |tx| {
        for id in &ids {
            nova_db::instances::request(tx, None, *id, Event::Terminate, None).await?;
        }
        Ok(())
    });
    ended.unwrap();
    let begun = Instant::now();
    cast(&bench, ComputeCall::TerminateInstance { instance_ids: numbers(&ids) }).await;
    bench.until("all are gone", async || all("terminated").await).await;
    eprintln!("900 launched in {launched:?}, ended in {:?}", begun.elapsed());
    assert_eq!(bench.books().await, (Vec::new(), 0, 0));
    daemon.stop().await;
}
