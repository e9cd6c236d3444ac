//! `RunInstances` until the guests run, with all daemons in this process, SQLite synced to disk, the bus in memory and a
//! hypervisor that takes no time: what is left is ours.

use std::time::{Duration, Instant};

use crate::cloud::Cloud;
use crate::launches::{Load, alone, bare_commits, launches};
use crate::log;

const ALONE: u32 = 100;
const CLIENTS: u32 = 8;
const OF_EACH_CLIENT: u32 = 50;
const BATCH: u32 = 50;
const BATCHES: u32 = 20;
const COMMITS: u32 = 100;
/// How long statements are counted that nobody asked for.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) async fn bench() -> anyhow::Result<()> {
    let cloud = Cloud::start().await?;
    let target = cloud.target();
    for _ in 0..10 {
        launches(target, Load { clients: 1, calls: 1, batch: 1 }).await?;
    }
    let commit = bare_commits(&cloud.db, COMMITS).await?;
    println!("  {:<34} {commit}", "a commit of one row");
    let (call, running) = alone(target, ALONE).await?;
    println!("  {:<34} {call}  = {:.1} commits", "alone: the call", call.ratio(commit.median()));
    println!("  {:<34} {running}  = {:.1} commits", "alone: to running", running.ratio(commit.median()));

    for (name, load) in [
        (format!("{CLIENTS} clients, one per call"), Load { clients: CLIENTS, calls: OF_EACH_CLIENT, batch: 1 }),
        (format!("1 client, {BATCH} per call"), Load { clients: 1, calls: BATCHES, batch: BATCH }),
    ] {
        let took = launches(target, load).await?;
        let per_second = f64::from(load.instances()) / took.all.as_secs_f64();
        println!("  {:<34} {}", format!("{name}: the call"), took.calls);
        println!("  {:<34} {per_second:.0} launches/s", format!("{name}: to running"));
    }
    statements(&cloud, 1, 40).await?;
    statements(&cloud, BATCH, 4).await?;
    cloud.stop().await
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
        launches(cloud.target(), Load { clients: 1, calls: 1, batch }).await?;
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
