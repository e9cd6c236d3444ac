//! A launch through five processes on a database and a broker that sync to disk, with 1 to 1,000 simulated hosts; what
//! such a cloud costs while nobody launches; and what the processes weigh.

mod cloud;
mod counts;
mod roles;

use std::path::PathBuf;
use std::time::Duration;

use nova_bus::dev::{OwnRabbit, Special};
use nova_db::Engine;

use crate::launches::{Load, alone, bare_commits, launches};
use crate::measure::Sample;
use cloud::{Five, NAMES};
use counts::{Counts, Sql};

pub(crate) use roles::run as run_as;

const FEWEST: u16 = 1;
const SOME: u16 = 100;
const MOST: u16 = 1_000;
const COMMITS: u32 = 200;
const IDLE: Duration = Duration::from_secs(8);
/// A cloud that was just started is quiet when all its processes take less than this of a processor.
const QUIET: f64 = 0.1;
const GLANCE: Duration = Duration::from_secs(2);
const MOST_GLANCES: u32 = 15;
/// After this many, memory is measured again.
const LAUNCHES: u32 = 10_000;
const BATCH: u32 = 100;
const STARTS: usize = 7;
const MOST_TO_READY: Duration = Duration::from_millis(30);
/// Idle, and after [`LAUNCHES`].
const MOST_RESIDENT: [u64; 2] = [12 << 20, 25 << 20];

pub(crate) async fn bench() -> anyhow::Result<()> {
    let programs = programs();
    let which =
        programs.as_ref().map_or_else(|| "this program in its roles".into(), |folder| folder.display().to_string());
    println!("  measured: {which}");
    let disk = Special { on_disk: true, ..Special::default() };
    let Some(broker) = OwnRabbit::start("bench", disk) else { return Ok(()) };
    let quick = std::env::args().any(|arg| arg == "--quick");
    let all = [(Engine::MySql, FEWEST), (Engine::MySql, SOME), (Engine::MySql, MOST), (Engine::Postgres, SOME)];
    let clouds = if quick { &all[1..2] } else { &all[..] };
    for (place, (engine, hosts)) in clouds.iter().copied().enumerate() {
        let Some(mut five) = Five::start(programs.as_deref(), &broker, (engine, place, hosts)).await? else { continue };
        println!(" {engine:?}, {hosts} hosts");
        let measured = measure(&mut five, &broker, (engine, hosts)).await;
        // What a daemon logged says why, if it went wrong.
        five.stop().await?;
        measured?;
    }
    Ok(())
}

/// The folder of programs that `NOVA_BINS` names.
fn programs() -> Option<PathBuf> {
    std::env::var_os("NOVA_BINS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

async fn measure(five: &mut Five, broker: &OwnRabbit, (engine, hosts): (Engine, u16)) -> anyhow::Result<()> {
    let launched = launch(five, broker).await?;
    match (engine, hosts) {
        (Engine::MySql, FEWEST) => starts(five).await,
        (Engine::MySql, MOST) => grow(five, launched).await,
        _ => Ok(()),
    }
}

/// Launches in several ways, and returns how many instances there are then.
async fn launch(five: &Five, broker: &OwnRabbit) -> anyhow::Result<u32> {
    resident(five, "idle", MOST_RESIDENT[0])?;
    let idle = idle(five, broker).await?;
    let target = five.target();
    let warm_up = Load { clients: 1, calls: 10, batch: 1 };
    launches(target, warm_up).await?;
    let commit = bare_commits(target.db, COMMITS).await?;
    println!("  {:<34} {commit}", "a commit of one row");
    let times = 200;
    let (call, running) = alone(target, times).await?;
    println!("  {:<34} {call}  = {:.1} commits", "alone: the call", call.ratio(commit.median()));
    println!("  {:<34} {running}  = {:.1} commits", "alone: to running", running.ratio(commit.median()));
    let mut launched = warm_up.instances() + times;
    for load in [
        Load { clients: 8, calls: 100, batch: 1 },
        Load { clients: 32, calls: 25, batch: 1 },
        Load { clients: 1, calls: 12, batch: BATCH },
        Load { clients: 4, calls: 4, batch: BATCH },
    ] {
        many(five, load, &commit).await?;
        launched += load.instances();
    }
    for (calls, batch) in [(50, 1), (4, BATCH)] {
        launched += counted(five, broker, &idle, (calls, batch)).await?;
    }
    Ok(launched)
}

/// Many launches at once: how many a second, and who is busy with them.
async fn many(five: &Five, load: Load, commit: &Sample) -> anyhow::Result<()> {
    let before = Counts::now(five, None).await?;
    let took = launches(five.target(), load).await?;
    let counts = Counts::now(five, None).await?.since(&before);
    let (instances, per_second) = (f64::from(load.instances()), f64::from(load.instances()) / took.all.as_secs_f64());
    let Load { clients, batch, .. } = load;
    println!("  {:<34} {}", format!("{clients} clients, {batch} per call: the call"), took.calls);
    let in_a_commit = per_second * commit.median().as_secs_f64();
    println!("  {:<34} {per_second:.0} launches/s  = {in_a_commit:.2} in the time of a commit", "  to running");
    if let Some(sql) = counts.sql {
        let statements = (sql.statements - f64::from(took.glances)) / instances;
        println!("  {:<34} {statements:.1} statements, {:.2} commits each", "", sql.commits / instances);
    }
    println!("  {:<34} {}", "", counts.told_busy());
    Ok(())
}

/// What launches cost the database and the broker, less what an idle cloud costs them in the same time.
async fn counted(five: &Five, broker: &OwnRabbit, idle: &Counts, (calls, batch): (u32, u32)) -> anyhow::Result<u32> {
    let before = Counts::now(five, Some(broker)).await?;
    let mut glances = 0;
    for _ in 0..calls {
        glances += launches(five.target(), Load { clients: 1, calls: 1, batch }).await?.glances;
    }
    let counts = Counts::now(five, Some(broker)).await?.since(&before).without(idle);
    let instances = f64::from(calls * batch);
    let name = format!("{batch} per call, one call at a time");
    println!("  {name:<34} {:.2} messages each", counts.messages / instances);
    if let Some(Sql { statements, begins, commits }) = counts.sql {
        let (statements, begins) = ((statements - f64::from(glances)) / instances, begins / instances);
        println!("  {:<34} {statements:.1} statements, {begins:.2} begin, {:.2} commits each", "", commits / instances);
    }
    Ok(calls * batch)
}

/// What a cloud costs that nobody uses.
async fn idle(five: &Five, broker: &OwnRabbit) -> anyhow::Result<Counts> {
    settle(five).await?;
    let before = Counts::now(five, Some(broker)).await?;
    let at_first = Counts::now(five, None).await?;
    tokio::time::sleep(IDLE).await;
    let busy = Counts::now(five, None).await?.since(&at_first);
    let idle = Counts::now(five, Some(broker)).await?.since(&before);
    println!("  {:<34} {:.2} messages a second", "idle", idle.messages / idle.seconds);
    if let Some(sql) = idle.sql {
        let (statements, commits) = (sql.statements / idle.seconds, sql.commits / idle.seconds);
        println!("  {:<34} {statements:.1} statements, {commits:.2} commits a second", "");
    }
    println!("  {:<34} daemons {:.1} % of a core: {}", "", busy.daemons() * 100.0, busy.told_busy());
    Ok(idle)
}

/// Waits until a cloud that was just started has nothing more to do: a thousand hosts have three thousand queues to make.
async fn settle(five: &Five) -> anyhow::Result<()> {
    for _ in 0..MOST_GLANCES {
        let before = Counts::now(five, None).await?;
        tokio::time::sleep(GLANCE).await;
        if Counts::now(five, None).await?.since(&before).all() < QUIET {
            break;
        }
    }
    Ok(())
}

/// Launches until there are [`LAUNCHES`], and weighs the daemons again.
async fn grow(five: &Five, mut launched: u32) -> anyhow::Result<()> {
    let load = Load { clients: 2, calls: 4, batch: BATCH };
    while launched < LAUNCHES {
        launches(five.target(), load).await?;
        launched += load.instances();
    }
    resident(five, &format!("{launched} launches later"), MOST_RESIDENT[1])
}

#[expect(clippy::cast_precision_loss, reason = "three digits are told")]
fn resident(five: &Five, when: &str, most: u64) -> anyhow::Result<()> {
    let mut told = Vec::new();
    for (name, process) in &five.processes {
        told.push(format!(
            "{} {:.1}",
            name.trim_start_matches("nova-"),
            process.resident()? as f64 / f64::from(1 << 20)
        ));
    }
    println!("  {:<34} {} MiB  (bound {})", format!("resident, {when}"), told.join(", "), most >> 20);
    Ok(())
}

/// How long each daemon takes from its exec until it answers, with its servers and the other daemons there.
async fn starts(five: &mut Five) -> anyhow::Result<()> {
    for name in NAMES {
        let mut ready = Sample::default();
        for _ in 0..STARTS {
            five.end(name).await?;
            ready.push(five.begin(name).await?);
        }
        println!("  {:<34} {ready}  = {:.2} × the bound", format!("{name}: exec to ready"), ready.ratio(MOST_TO_READY));
    }
    Ok(())
}
