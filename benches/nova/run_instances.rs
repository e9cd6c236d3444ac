//! `RunInstances` until the guests run, with all daemons in this process, SQLite synced to disk, the bus in memory and a
//! hypervisor that takes no time: what is left is ours.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nova_db::{Db, DbError, transaction};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::cloud::Cloud;
use crate::log;
use crate::measure::Sample;

const ALONE: u32 = 100;
const CLIENTS: u32 = 8;
const OF_EACH_CLIENT: u32 = 50;
const BATCH: u32 = 50;
const BATCHES: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// The finest time that Tokio sleeps.
const GLANCE: Duration = Duration::from_millis(1);
/// How long statements are counted that nobody asked for.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) async fn bench() -> anyhow::Result<()> {
    let cloud = Cloud::start().await?;
    for _ in 0..10 {
        launches(&cloud, 1, 1, 1).await?;
    }
    let commit = bare_commits(&cloud.db).await?;
    println!("  {:<34} {commit}", "a commit of one row");
    alone(&cloud, &commit).await?;

    for (name, clients, calls, batch) in [
        (format!("{CLIENTS} clients, one per call"), CLIENTS, OF_EACH_CLIENT, 1),
        (format!("1 client, {BATCH} per call"), 1, BATCHES, BATCH),
    ] {
        let (calls_took, took) = launches(&cloud, clients, calls, batch).await?;
        let per_second = f64::from(clients * calls * batch) / took.as_secs_f64();
        println!("  {:<34} {calls_took}", format!("{name}: the call"));
        println!("  {:<34} {per_second:.0} launches/s", format!("{name}: to running"));
    }
    statements(&cloud, 1, 40).await?;
    statements(&cloud, BATCH, 4).await?;
    cloud.stop().await
}

/// One launch at a time on an idle cloud.
async fn alone(cloud: &Cloud, commit: &Sample) -> anyhow::Result<()> {
    let mut client = Client::connect(cloud.address).await?;
    let (mut call, mut running): (Sample, Sample) = Default::default();
    for _ in 0..ALONE {
        let request = request(cloud, &client, 1);
        let began = Instant::now();
        let body = call.time(client.send(&request)).await?;
        until_running(&cloud.db, first_instance(&body)?, 1).await?;
        running.push(began.elapsed());
    }
    println!("  {:<34} {call}  = {:.1} commits", "alone: the call", call.ratio(commit.median()));
    println!("  {:<34} {running}  = {:.1} commits", "alone: to running", running.ratio(commit.median()));
    Ok(())
}

/// Launches `calls * batch` instances by each of `clients`, and returns how long the calls took, and all of it until the
/// last one runs.
async fn launches(cloud: &Cloud, clients: u32, calls: u32, batch: u32) -> anyhow::Result<(Sample, Duration)> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..clients {
        let mut client = Client::connect(cloud.address).await?;
        let requests: Vec<String> = (0..calls).map(|_| request(cloud, &client, batch)).collect();
        tasks.spawn(async move {
            let (mut call, mut first) = (Sample::default(), u32::MAX);
            for request in requests {
                let body = call.time(client.send(&request)).await?;
                first = first.min(first_instance(&body)?);
            }
            anyhow::Ok((call, first))
        });
    }
    let (mut all, mut lowest) = (Sample::default(), u32::MAX);
    while let Some(done) = tasks.join_next().await {
        let (call, first) = done??;
        all.merge(call);
        lowest = lowest.min(first);
    }
    until_running(&cloud.db, lowest, clients * calls * batch).await?;
    Ok((all, began.elapsed()))
}

/// Counts what launches cost the database, less what an idle cloud costs it in the same time.
async fn statements(cloud: &Cloud, batch: u32, calls: u32) -> anyhow::Result<()> {
    log::count_statements();
    let idle_commits = cloud.commits()?;
    tokio::time::sleep(IDLE).await;
    let idle_commits = f64::from(cloud.commits()? - idle_commits) / IDLE.as_secs_f64();
    let idle: u32 = log::counted_statements().values().sum();
    let idle = f64::from(idle) / IDLE.as_secs_f64();

    let commits = cloud.commits()?;
    log::count_statements();
    let began = Instant::now();
    for _ in 0..calls {
        launches(cloud, 1, 1, batch).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let counted = log::counted_statements();
    let commits = f64::from(cloud.commits()? - commits) - idle_commits * seconds;
    let all = f64::from(counted.values().sum::<u32>()) - idle * seconds;
    let instances = f64::from(calls * batch);
    println!(
        "  {:<34} {:.1} statements, {:.2} commits each",
        format!("{batch} per call, one call at a time"),
        all / instances,
        commits / instances
    );
    if std::env::args().any(|arg| arg == "--statements") {
        for (statement, times) in counted {
            println!("    {:>6.2} × {statement}", f64::from(times) / instances);
        }
    }
    Ok(())
}

async fn bare_commits(db: &Db) -> Result<Sample, DbError> {
    let mut commit = Sample::default();
    for _ in 0..100 {
        let one_row = async {
            transaction!(db, |tx| { tx.execute("update instances set updated_at = {now} where id = 1", &[]).await })
        };
        commit.time(one_row).await?;
    }
    Ok(commit)
}

fn request(cloud: &Cloud, client: &Client, count: u32) -> String {
    let parameters = [
        ("ImageId", cloud.tenant.image.to_string()),
        ("InstanceType", "m1.tiny".to_owned()),
        ("MinCount", count.to_string()),
        ("MaxCount", count.to_string()),
    ];
    client.request("RunInstances", &parameters)
}

/// The number of the first instance in an answer.
fn first_instance(body: &str) -> anyhow::Result<u32> {
    let (_, after) = body.split_once("<instanceId>i-").context("no instance in the answer")?;
    Ok(u32::from_str_radix(after.get(..8).unwrap_or_default(), 16)?)
}

/// Waits until `count` instances from number `first` on run.
async fn until_running(db: &Db, first: u32, count: u32) -> anyhow::Result<()> {
    const RUNNING: &str =
        "select /* bench */ count(*) as running from instances where id >= ? and vm_state = 'running'";
    let (mut conn, began) = (db.read().await?, Instant::now());
    loop {
        let running: i64 = conn.one(RUNNING, &[i64::from(first).into()]).await?.get("running")?;
        if running >= i64::from(count) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{running} of {count} instances run after {PATIENCE:?}");
        tokio::time::sleep(GLANCE).await;
    }
}
