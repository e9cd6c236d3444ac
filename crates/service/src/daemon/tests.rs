//! Daemons of a few parts, in this process.

use super::*;
use std::io;

fn daemon(folder: &tempfile::TempDir) -> Daemon {
    Daemon {
        binary: "nova-test",
        began: Instant::now(),
        stop: Stop::new(),
        ready: Ready::default(),
        health: Health::default(),
        expected: Vec::new(),
        parts: JoinSet::new(),
        drain_timeout: Duration::from_secs(5),
        _lock: lock::take(folder.path(), folder.path(), &["nova-test"]).unwrap(),
    }
}

async fn until(stop: Stop, outcome: io::Result<()>) -> io::Result<()> {
    stop.cancelled().await;
    outcome
}

/// Runs a daemon with a part that waits for the stop, and what `add` adds; tells how it ended.
async fn ends(add: impl FnOnce(&mut Daemon)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&folder);
    daemon.spawn("waiting", until(daemon.stop(), Ok(())));
    add(&mut daemon);
    match daemon.run().await {
        Ok(()) => "in order".to_owned(),
        Err(error) => chain(&error).to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_ends_when_told_or_when_a_part_does() {
    assert_eq!(ends(|daemon| daemon.stop().cancel()).await, "in order");
    assert_eq!(ends(|daemon| daemon.spawn("api", async { Ok::<(), io::Error>(()) })).await, "api ended unasked");
    assert_eq!(
        ends(|daemon| daemon.spawn("api", async { Err::<(), _>(io::Error::other("port taken")) })).await,
        "api failed: port taken"
    );
    let panics = async { Err::<(), _>(io::Error::other(if true { panic!("at the {}", "disco") } else { "" })) };
    assert_eq!(ends(|daemon| daemon.spawn("api", panics)).await, "api panicked: at the disco");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_one_that_is_told() {
    let told = ends(|daemon| {
        let stop = daemon.stop();
        daemon.spawn("late", until(stop, Err(io::Error::other("late"))));
        daemon.spawn("first", async { Err::<(), _>(io::Error::other("first")) });
    });
    assert_eq!(told.await, "first failed: first");
    let told = ends(|daemon| {
        let stop = daemon.stop();
        daemon.spawn("late", until(stop.clone(), Err(io::Error::other("while stopping"))));
        stop.cancel();
    });
    assert_eq!(told.await, "late failed: while stopping");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_does_not_finish_is_left_behind_after_the_drain_time() {
    let began = tokio::time::Instant::now();
    let told = ends(|daemon| {
        daemon.spawn("stuck", std::future::pending::<io::Result<()>>());
        daemon.stop().cancel();
    });
    assert_eq!(told.await, "in order");
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_is_ready_when_every_part_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&folder);
    let (one, two, all, stop) = (daemon.expect(), daemon.expect(), daemon.ready.clone(), daemon.stop());
    let running = tokio::spawn(daemon.run());
    one.set();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!all.is_set());
    two.set();
    all.wait().await;
    stop.cancel();
    running.await.unwrap().unwrap();
}
