//! Launching through the API, until the guests run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nova_db::{Db, DbError, transaction};
use nova_types::ImageId;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::measure::Sample;

const PATIENCE: Duration = Duration::from_secs(60);
/// The finest time that Tokio sleeps.
const GLANCE: Duration = Duration::from_millis(1);
/// While many launches are under way, looking often would slow them down.
const FEW_GLANCES: Duration = Duration::from_millis(10);

/// A cloud to launch on.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) db: &'a Db,
    pub(crate) address: SocketAddr,
    pub(crate) image: ImageId,
}

/// How many launch how often how many.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) calls: u32,
    pub(crate) batch: u32,
}

impl Load {
    pub(crate) const fn instances(self) -> u32 {
        self.clients * self.calls * self.batch
    }
}

/// What launches took.
pub(crate) struct Took {
    pub(crate) calls: Sample,
    /// Until the last of them ran.
    pub(crate) all: Duration,
    /// How often the bench looked whether they run.
    pub(crate) glances: u32,
}

/// One launch at a time: what the calls took, and each until the instance ran.
pub(crate) async fn alone(target: Target<'_>, times: u32) -> anyhow::Result<(Sample, Sample)> {
    let mut client = Client::connect(target.address).await?;
    let (mut call, mut running): (Sample, Sample) = Default::default();
    for _ in 0..times {
        let request = request(target.image, &client, 1);
        let began = Instant::now();
        let body = call.time(client.send(&request)).await?;
        until_running(target.db, first_instance(&body)?, 1, GLANCE).await?;
        running.push(began.elapsed());
    }
    Ok((call, running))
}

/// Launches by several clients at once.
pub(crate) async fn launches(target: Target<'_>, load: Load) -> anyhow::Result<Took> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..load.clients {
        let mut client = Client::connect(target.address).await?;
        let requests: Vec<String> = (0..load.calls).map(|_| request(target.image, &client, load.batch)).collect();
        tasks.spawn(async move {
            let (mut call, mut first) = (Sample::default(), u32::MAX);
            for request in requests {
                let body = call.time(client.send(&request)).await?;
                first = first.min(first_instance(&body)?);
            }
            anyhow::Ok((call, first))
        });
    }
    let (mut calls, mut lowest) = (Sample::default(), u32::MAX);
    while let Some(done) = tasks.join_next().await {
        let (call, first) = done??;
        calls.merge(call);
        lowest = lowest.min(first);
    }
    let glance = if load.instances() > 1 { FEW_GLANCES } else { GLANCE };
    let glances = until_running(target.db, lowest, load.instances(), glance).await?;
    Ok(Took { calls, all: began.elapsed(), glances })
}

/// What a commit costs on this database.
pub(crate) async fn bare_commits(db: &Db, times: u32) -> Result<Sample, DbError> {
    let mut commit = Sample::default();
    for _ in 0..times {
        let one_row = async {
            transaction!(db, |tx| { tx.execute("update instances set updated_at = {now} where id = 1", &[]).await })
        };
        commit.time(one_row).await?;
    }
    Ok(commit)
}

fn request(image: ImageId, client: &Client, count: u32) -> String {
    let parameters = [
        ("ImageId", image.to_string()),
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

/// Waits until `count` instances from number `first` on run, and returns how often it looked.
async fn until_running(db: &Db, first: u32, count: u32, glance: Duration) -> anyhow::Result<u32> {
    const RUNNING: &str =
        "select /* bench */ count(*) as running from instances where id >= ? and vm_state = 'running'";
    let (mut conn, began) = (db.read().await?, Instant::now());
    for glances in 1.. {
        let running: i64 = conn.one(RUNNING, &[i64::from(first).into()]).await?.get("running")?;
        if running >= i64::from(count) {
            return Ok(glances);
        }
        ensure!(began.elapsed() < PATIENCE, "{running} of {count} instances run after {PATIENCE:?}");
        tokio::time::sleep(glance).await;
    }
    anyhow::bail!("looked too often")
}
