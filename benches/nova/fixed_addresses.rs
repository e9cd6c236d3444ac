//! Taking fixed addresses and giving them back, each in a transaction, on each database: of a network that is empty, and of
//! three whose first, thousandth and four thousandth address is the next.
//!
//! The servers of `nova_db::dev` sync nothing and live in memory, so their peer is a SQLite file that does, too; the
//! SQLite that syncs to a disk, as a cloud's does, is told beside it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nova_db::dev::{self, fixtures};
use nova_db::{Db, DbError, Engine, Options, fixed_ips, transaction};
use nova_types::network::NetworkPlan;

use crate::measure::Sample;

const MEMORY: &str = "/dev/shm";
const ROUNDS: usize = 150;
const BATCHES: [usize; 2] = [1, 16];
/// How many addresses of a /20 are held when the next is taken, or rest because their guests ended a moment ago.
const HELD: [(u32, bool); 4] = [(0, false), (999, false), (3_999, false), (999, true)];
const REST_SECONDS: i32 = 3_600;
/// The first rounds fill caches and prepare statements.
const WARM_UP: usize = 10;
/// A database that is so slow is measured in fewer rounds.
const MOST: Duration = Duration::from_secs(15);

/// Taking and releasing a batch.
#[derive(Default)]
struct Cost {
    take: Sample,
    release: Sample,
}

pub(crate) async fn bench() -> anyhow::Result<()> {
    let memory = Path::new(MEMORY);
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let url = format!("sqlite:///{}", folder.path().join("nova.sqlite").display());
    let in_memory = Db::open(&url, &Options::default()).await?;
    in_memory.migrate().await?;
    let mut told = vec![("SQLite in memory", measure(&in_memory).await?, measure_full(&in_memory).await?)];
    let others = Mutex::new(Vec::new());
    dev::each(async |db: &Db| {
        let name = match db.engine() {
            Engine::Sqlite => "SQLite on disk",
            Engine::MySql => "MariaDB",
            Engine::Postgres => "PostgreSQL",
        };
        let costs = (measure(db).await, measure_full(db).await);
        others.lock().unwrap_or_else(PoisonError::into_inner).push((name, costs));
    })
    .await;
    for (name, (costs, full)) in others.into_inner()? {
        told.push((name, costs?, full?));
    }
    let (_, peer, _) = &told[0];
    for (name, costs, full) in &told {
        for ((batch, cost), peer) in BATCHES.iter().zip(costs).zip(peer) {
            let (take, release) = (cost.take.ratio(peer.take.median()), cost.release.ratio(peer.release.median()));
            println!("  {:<34} {}  = {take:.1} × SQLite in memory", format!("{name}, take {batch}"), cost.take);
            println!("  {:<34} {}  = {release:.1} × the same", format!("{name}, release {batch}"), cost.release);
        }
        for ((held, rest), took) in HELD.iter().zip(full) {
            let ratio = took.ratio(full[0].median());
            let behind = if *rest { ", all others resting" } else { "" };
            println!("  {:<34} {took}  = {ratio:.2} × the first", format!("{name}, address {}{behind}", held + 1));
        }
    }
    Ok(())
}

/// Measures the batches in turn.
async fn measure(db: &Db) -> Result<[Cost; 2], DbError> {
    let network = fixtures::flat_network(db, 24).await;
    let ids = fixtures::launch(db, &fixtures::name("acme"), 16).await;
    let (mut costs, began): ([Cost; 2], _) = (Default::default(), Instant::now());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            costs = Default::default();
        }
        if round > WARM_UP && began.elapsed() > MOST {
            break;
        }
        for (batch, cost) in BATCHES.iter().zip(&mut costs) {
            let some = &ids[..*batch];
            cost.take.time(async { transaction!(db, |tx| { fixed_ips::take(tx, network, some).await }) }).await?;
            let release = async {
                transaction!(db, |tx| {
                    for id in some {
                        fixed_ips::release(tx, *id, 0).await?;
                    }
                    Ok(())
                })
            };
            cost.release.time(release).await?;
        }
    }
    Ok(costs)
}

/// Takes the next address of networks that are as full as [`HELD`] says, in turn, and gives it back.
async fn measure_full(db: &Db) -> Result<[Sample; 4], DbError> {
    let project = fixtures::name("acme");
    let mut networks = Vec::new();
    for (number, (held, rest)) in (1..).zip(HELD) {
        let network = fixtures::network(db, plan(number)).await;
        let mut left = held;
        while left > 0 {
            let ids = fixtures::launch(db, &project, left.min(500)).await;
            transaction!(db, |tx| { fixed_ips::take(tx, network, &ids).await })?;
            left -= left.min(500);
            if rest {
                transaction!(db, |tx| {
                    for id in &ids {
                        fixed_ips::release(tx, *id, REST_SECONDS).await?;
                    }
                    Ok(())
                })?;
            }
        }
        networks.push((network, fixtures::launch(db, &project, 1).await));
    }
    let (mut samples, began): ([Sample; 4], _) = (Default::default(), Instant::now());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            samples = Default::default();
        }
        if round > WARM_UP && began.elapsed() > MOST {
            break;
        }
        for ((network, ids), sample) in networks.iter().zip(&mut samples) {
            let taken = async { transaction!(db, |tx| { fixed_ips::take(tx, *network, ids).await }) };
            sample.time(taken).await?;
            transaction!(db, |tx| { fixed_ips::release(tx, ids[0], 0).await })?;
        }
    }
    Ok(samples)
}

/// A /20 of its own.
fn plan(number: u8) -> NetworkPlan {
    let at = |rest: &str| format!("10.{number}.{rest}");
    NetworkPlan {
        cidr: fixtures::name(&at("0.0/20")),
        prefix6: None,
        label: None,
        bridge: format!("br{number}"),
        gateway: fixtures::name(&at("0.1")),
        dhcp_start: fixtures::name(&at("0.2")),
        dns: None,
        vlan: None,
        vpn_private_address: None,
        vpn_public_port: None,
        multi_host: false,
        reserved_bottom: 2,
        reserved_top: 1,
    }
}
