//! The contract on namespaces as guests, in a network, mounts and processes of its own.
//!
//! Needs root, iproute2 and busybox; says so and passes without them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "this whole file is a test, and says why it was skipped")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_hypervisor::contract::{contract, spec};
use nova_hypervisor::{Change, CloudId, GuestSpec, Hypervisor, Netns, NetnsOptions, Power};
use nova_run::{Command, Host, Runner, Signal};

/// Processes of its own end with it, whatever they are and however it ends.
const UNSHARE: &[&str] = &["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];
/// Tells the test that it is in its namespaces already.
const INSIDE: &str = "NOVA_TEST_NAMESPACE";
const SOON: Duration = Duration::from_secs(10);

/// Runs a test in namespaces of its own, by starting this program again for that one test.
fn in_namespaces<F: Future>(name: &str, test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if std::env::var_os(INSIDE).is_some() {
        runtime.block_on(test());
        return;
    }
    for needed in [&["unshare", "--net", "--mount", "true"][..], &["busybox", "udhcpc", "--help"], &["ip", "-V"]] {
        if runtime.block_on(Host.run(Command::new(needed[0]).args(needed[1..].iter().copied()))).is_err() {
            println!("skipped {name}: no {} here, or no right to it", needed.join(" "));
            return;
        }
    }
    let this = std::env::current_exe().unwrap().display().to_string();
    let again = Command::new("unshare").args(UNSHARE.iter().copied()).args([&this, "--exact", name, "--nocapture"]);
    runtime.block_on(Host.run(again.env(INSIDE, "1").deadline(Duration::from_secs(120)))).unwrap();
}

async fn run(line: &str) -> String {
    let mut words = line.split(' ');
    Host.run(Command::new(words.next().unwrap()).args(words)).await.unwrap().text()
}

/// A bridge for guests, and a folder of our own for the names of namespaces.
async fn host() -> tempfile::TempDir {
    std::fs::create_dir_all("/run/netns").unwrap();
    for line in [
        "mount --make-rprivate /",
        "mount -t tmpfs tmpfs /run/netns",
        "ip link set lo up",
        "ip link add br100 type bridge",
        "ip addr add 10.9.0.1/24 dev br100",
        "ip link set br100 up",
    ] {
        run(line).await;
    }
    tempfile::tempdir().unwrap()
}

fn driver(folder: &Path, cloud: &str) -> Netns {
    let options = NetnsOptions {
        helper: env!("CARGO_BIN_EXE_nova-netns-guest").into(),
        cloud: CloudId::new(cloud),
        instances_path: folder.to_owned(),
    };
    Netns::new(Arc::new(Host), options)
}

async fn taps() -> usize {
    run("ip -o link show type veth").await.lines().count()
}

#[test]
fn the_contract_is_kept_and_nothing_is_left() {
    in_namespaces("the_contract_is_kept_and_nothing_is_left", async || {
        let folder = host().await;
        let netns = driver(folder.path(), "a");
        contract(&netns, |number| spec(number, folder.path())).await;
        assert_eq!(taps().await, 0);
        assert_eq!(run("ip netns list").await, "");
    });
}

#[test]
fn guests_outlive_their_driver_and_a_death_is_seen_and_heard() {
    in_namespaces("guests_outlive_their_driver_and_a_death_is_seen_and_heard", async || {
        let folder = host().await;
        let guest: GuestSpec = spec(3, folder.path());
        let first = driver(folder.path(), "a");
        let begun = Instant::now();
        first.ensure_running(&guest).await.unwrap();
        println!("booted in {:?}", begun.elapsed());
        let before = first.list().await.unwrap();
        drop(first);

        let second = driver(folder.path(), "a");
        assert_eq!(second.list().await.unwrap(), before);
        second.ensure_running(&guest).await.unwrap();
        assert_eq!(taps().await, 1, "it was made again");
        a_stranger_leaves_it_alone(&folder, &guest).await;

        // A guest that is killed is off and heard of, and what it leaves keeps nobody from booting it again.
        let mut events = second.events();
        let process = processes().await.into_iter().find(|process| process.argv.contains(&"boot".to_owned())).unwrap();
        Host.signal(&process, Signal::Kill).unwrap();
        let heard = tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap();
        assert_eq!(heard, Change { id: guest.id, power: Power::Off });
        assert_eq!(second.list().await.unwrap()[0].power, Power::Off);
        assert_eq!(taps().await, 0, "its namespace would go on answering ping");
        second.ensure_running(&guest).await.unwrap();

        // Until a guest hears its power button, that takes its plug out.
        let said = async || String::from_utf8(second.console(guest.id, 4096).await.unwrap()).unwrap();
        let begun = Instant::now();
        while said().await.matches("power up\n").count() < 2 {
            assert!(begun.elapsed() < SOON, "it does not boot again: {}", said().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let begun = Instant::now();
        second.stop(guest.id, Duration::from_secs(30)).await.unwrap();
        assert!(begun.elapsed() < SOON, "it does not hear its power button");
        assert!(said().await.ends_with("power down\n"));
        second.destroy(guest.id).await.unwrap();
        assert_eq!((taps().await, run("ip netns list").await.as_str()), (0, ""));
    });
}

async fn a_stranger_leaves_it_alone(folder: &tempfile::TempDir, guest: &GuestSpec) {
    let elsewhere = folder.path().join("elsewhere");
    let stranger = driver(&elsewhere, "b");
    assert_eq!(stranger.list().await.unwrap(), []);
    stranger.destroy(guest.id).await.unwrap();
    let error = stranger.ensure_running(guest).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("File exists"), "{error}");
    stranger.destroy(guest.id).await.unwrap();
    assert_eq!(taps().await, 1, "it took the guest's tap");
}

/// The processes of the only guest.
async fn processes() -> Vec<nova_run::Process> {
    let listed = run("ip netns list").await;
    let namespace = listed.split_whitespace().next().unwrap();
    let pids = run(&format!("ip netns pids {namespace}")).await;
    pids.lines().filter_map(|pid| Host.look(pid.parse().unwrap())).collect()
}
