//! `DescribeInstances` over TCP, against reading the same rows alone and rendering the same answer alone.

use anyhow::ensure;
use nova_db::instances;

use crate::client::Client;
use crate::cloud::Cloud;
use crate::log;
use crate::measure::Sample;
use crate::xml::{Reservations, render};

const COUNTS: [usize; 2] = [10, 1_000];
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
const COUNTED: u32 = 10;

pub(crate) async fn bench() -> anyhow::Result<()> {
    let cloud = Cloud::start_api().await?;
    let mut before = 0;
    for count in COUNTS {
        let views = cloud.tenant.run(&cloud.db, count - before).await?;
        before = count;
        ensure!(views.len() == count, "{} rows instead of {count}", views.len());
        measure(&cloud, &Reservations::of(&views), count).await?;
    }
    cloud.stop().await
}

async fn measure(cloud: &Cloud, answer: &Reservations, count: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(cloud.address).await?;
    let request = client.request("DescribeInstances", &[]);
    let (body, like) = (client.send(&request).await?, render(answer)?);
    // What is rendered alone must be what the API renders.
    ensure!(body.len().abs_diff(like.len()) * 100 < body.len(), "{} bytes, not {}", like.len(), body.len());

    let [mut whole, mut rows, mut xml]: [Sample; 3] = Default::default();
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            [whole, rows, xml] = Default::default();
        }
        whole.time(client.send(&request)).await?;
        rows.time(read(cloud)).await?;
        xml.time_many(1, || render(answer));
    }
    let parts = rows.median() + xml.median();
    println!("  {:<34} {whole}  = {:.2} × rows and XML alone", format!("{count} rows over TCP"), whole.ratio(parts));
    println!("  {:<34} {rows}", format!("{count} rows alone"));
    println!("  {:<34} {xml}", format!("{count} rendered alone, {} bytes", body.len()));

    log::count_statements();
    for _ in 0..COUNTED {
        client.send(&request).await?;
    }
    let statements: u32 = log::counted_statements().values().sum();
    println!("  {:<34} {:.1}", "SQL statements", f64::from(statements) / f64::from(COUNTED));
    Ok(())
}

async fn read(cloud: &Cloud) -> anyhow::Result<usize> {
    let mut conn = cloud.db.read().await?;
    Ok(instances::describe(&mut conn, Some(&cloud.tenant.project), &[]).await?.len())
}
