//! Reading what a host's firewall needs, before a change of a group is applied: whether anything changed, and all of it.

use nova_db::dev::fixtures;
use nova_db::security_groups::GroupError;
use nova_db::{Db, Options, fixed_ips, instances, security_groups, transaction};
use nova_types::rule::{Ports, Rule, Source, Traffic};
use nova_types::{HostName, ProjectId};

use crate::measure::Sample;

const ROUNDS: usize = 50;
const RULES: u16 = 100;

/// Measures on SQLite, for each number of guests on one host, all in one group with a hundred rules.
pub(crate) async fn bench(sizes: [u32; 2]) -> anyhow::Result<()> {
    for guests in sizes {
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite:///{}", folder.path().join("nova.sqlite").display());
        let db = Db::open(&url, &Options::default()).await?;
        db.migrate().await?;
        let host: HostName = fixtures::name("host-1");
        fill(&db, &host, guests).await?;
        let (mut changed, mut all) = (Sample::default(), Sample::default());
        let mut conn = db.read().await?;
        for _ in 0..ROUNDS {
            changed.time(security_groups::changed(&mut conn, &host)).await?;
            let read = all.time(security_groups::for_host(&mut conn, &host, false)).await?;
            let found = (read.guests.len(), read.groups[0].rules.len(), read.members[0].addresses.len());
            let wanted = (usize::try_from(guests)?, usize::from(RULES), usize::try_from(guests)?);
            anyhow::ensure!(found == wanted, "not all was read: {found:?}");
        }
        drop(conn);
        println!("  {:<34} {changed}", format!("{guests} guests: did rows change"));
        println!("  {:<34} {all}", format!("{guests} guests: all rows"));
        db.close().await;
    }
    Ok(())
}

async fn fill(db: &Db, host: &HostName, guests: u32) -> anyhow::Result<()> {
    let project: ProjectId = fixtures::name("acme");
    let network = fixtures::flat_network(db, 20).await;
    let group = security_groups::ensure_default(&mut db.write().await?, &project, &fixtures::name("joe")).await?;
    let mut new = fixtures::new_instances(&project, guests);
    new.groups = vec![group];
    transaction!(db, |tx| {
        let ids = instances::insert_batch(tx, &new).await?;
        let placed: Vec<_> = ids.iter().map(|id| (*id, host)).collect();
        instances::place_all(tx, &placed).await?;
        fixed_ips::take(tx, network, &ids).await
    })?;
    let range = Source::range("192.0.2.0/24")?;
    let source = |port: u16| if port.is_multiple_of(2) { Source::Group(group) } else { range };
    let traffic = |port| Traffic::Tcp(Ports { from: port, to: port });
    let rules: Vec<Rule> = (1..=RULES).map(|port| Rule { traffic: traffic(port), source: source(port) }).collect();
    transaction!(db, |tx| -> GroupError {
        security_groups::add_rules(tx, &project, group, &rules, RULES.into()).await
    })?;
    Ok(())
}
