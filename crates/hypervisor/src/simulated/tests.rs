//! The simulated hypervisor keeps the contract, its guests, and its promises to fail.

use std::path::Path;
use std::time::Duration;

use nova_types::InstanceId;

use super::{Call, Delays, Fault, Options, Simulated};
use crate::contract::{contract, spec};
use crate::{Guest, Hypervisor, HypervisorError, Power};

fn guest(number: u32) -> crate::GuestSpec {
    spec(number, Path::new("/nowhere"))
}

#[tokio::test]
async fn the_contract_is_kept_in_memory() {
    contract(&Simulated::in_memory(), guest).await;
}

#[tokio::test(start_paused = true)]
async fn the_contract_is_kept_with_a_file_and_delays() {
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("a/guests"));
    let simulated = Simulated::open(Options { delays: Delays::REALISTIC, state_file, seed: 0 }).unwrap();
    contract(&simulated, guest).await;
}

#[tokio::test]
async fn guests_outlive_the_process_even_if_its_last_line_was_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guests");
    let options = Options { state_file: Some(path.clone()), ..Options::default() };
    let first = Simulated::open(options.clone()).unwrap();
    for number in 1..=3 {
        first.ensure_running(&guest(number)).await.unwrap();
    }
    first.stop(InstanceId::new(2), Duration::ZERO).await.unwrap();
    first.destroy(InstanceId::new(3)).await.unwrap();
    let wanted = first.list().await.unwrap();
    drop(first);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("i-00000001 go");
    std::fs::write(&path, text).unwrap();

    let second = Simulated::open(options).unwrap();
    assert_eq!(second.list().await.unwrap(), wanted);
    assert_eq!(
        wanted,
        [Guest { id: InstanceId::new(1), power: Power::On }, Guest { id: InstanceId::new(2), power: Power::Off }]
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "i-00000001 on\ni-00000002 off\n");
}

#[tokio::test]
async fn calls_fail_as_ordered_and_change_nothing() {
    let simulated = Simulated::in_memory();
    simulated.fail_next(Call::EnsureRunning, Fault::Unreachable, 1);
    simulated.fail_next(Call::EnsureRunning, Fault::Refused, 1);
    let first = simulated.ensure_running(&guest(1)).await.unwrap_err();
    assert!(first.is_transient(), "{first}");
    let second = simulated.ensure_running(&guest(1)).await.unwrap_err();
    assert!(matches!(second, HypervisorError::Refused { verb: "boot", .. }), "{second}");
    assert_eq!(simulated.list().await.unwrap(), []);
    simulated.ensure_running(&guest(1)).await.unwrap();
}

#[tokio::test]
async fn what_happens_to_guests_without_us_is_seen_and_heard() {
    let simulated = Simulated::in_memory();
    let mut events = simulated.events();
    for number in 1..=2 {
        simulated.ensure_running(&guest(number)).await.unwrap();
    }
    simulated.power_off_inside(InstanceId::new(1));
    simulated.restart_host();
    simulated.vanish(InstanceId::new(2));
    let mut heard = Vec::new();
    while let Ok(change) = events.try_recv() {
        heard.push((change.id.number(), change.power));
    }
    assert_eq!(heard, [(1, Power::On), (2, Power::On), (1, Power::Off), (2, Power::Off), (2, Power::Off)]);
    assert_eq!(simulated.list().await.unwrap(), [Guest { id: InstanceId::new(1), power: Power::Off }]);
}

#[tokio::test]
async fn thousands_of_guests_are_cheap() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { state_file: Some(folder.path().join("guests")), ..Options::default() };
    let simulated = Simulated::open(options.clone()).unwrap();
    let begun = std::time::Instant::now();
    for number in 1..=5000 {
        simulated.ensure_running(&guest(number)).await.unwrap();
    }
    assert_eq!(Simulated::open(options).unwrap().list().await.unwrap().len(), 5000);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
