//! What one guest more costs `nova-network`, with ten on a network and with four thousand: asking which addresses changed,
//! and the file for dnsmasq. Reading and comparing all of them, as happens once a minute, is told beside it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use nova_db::dev::fixtures;
use nova_db::{Db, Options, fixed_ips, transaction};
use nova_link::dnsmasq::{DhcpChange, DhcpNetwork, DhcpServers as _, Dnsmasq};
use nova_run::Host;
use nova_types::NetworkId;

use crate::measure::Sample;

const FEW: u32 = 10;
const MANY: u32 = 4_000;
const ROUNDS: usize = 100;
const MINUTE: i32 = 60;

/// What was measured with one number of hosts.
#[derive(Default)]
struct Cost {
    ask: Sample,
    ask_all: Sample,
    write: Sample,
    compare_all: Sample,
}

pub(crate) async fn bench() -> anyhow::Result<()> {
    let costs = [measure(FEW).await?, measure(MANY).await?];
    for (hosts, cost) in [FEW, MANY].iter().zip(&costs) {
        for (what, took, peer) in [
            ("which changed", &cost.ask, &costs[0].ask),
            ("a file for one", &cost.write, &costs[0].write),
            ("all rows (peer)", &cost.ask_all, &costs[0].ask_all),
            ("all files (peer)", &cost.compare_all, &costs[0].compare_all),
        ] {
            let ratio = took.ratio(peer.median());
            println!("  {:<34} {took}  = {ratio:.2} × with {FEW}", format!("{hosts} hosts: {what}"));
        }
    }
    Ok(())
}

async fn measure(hosts: u32) -> anyhow::Result<Cost> {
    let folder = tempfile::tempdir()?;
    let db =
        Db::open(&format!("sqlite:///{}", folder.path().join("nova.sqlite").display()), &Options::default()).await?;
    db.migrate().await?;
    let id = fixtures::flat_network(&db, 20).await;
    hold(&db, id, hosts).await?;
    let network = network(folder.path());
    let servers = Dnsmasq::new(Arc::new(Host), folder.path().join("networks"));
    let mut cost = Cost::default();
    for _ in 0..ROUNDS {
        // One comes, and is all that changed for a while.
        age(&db).await?;
        let before = fixed_ips::dhcp_hosts(&mut db.read().await?, id).await?;
        servers.set_hosts(&network, &before).await?;
        let since = db.read().await?.now().await? - Duration::from_secs(10);
        let new = fixtures::launch(&db, &fixtures::name("acme"), 1).await;
        transaction!(db, |tx| { fixed_ips::take(tx, id, &new).await })?;
        let mut conn = db.read().await?;
        let changed = cost.ask.time(fixed_ips::changed_since(&mut conn, &[id], since)).await?;
        let all = cost.ask_all.time(fixed_ips::dhcp_hosts(&mut conn, id)).await?;
        drop(conn);
        let set = changed.addresses.into_iter().filter_map(|(_, _, holder)| holder).collect();
        let change = DhcpChange { set, gone: Vec::new() };
        anyhow::ensure!(cost.write.time(servers.change_hosts(&network, &change)).await? == 1, "not one file changed");
        anyhow::ensure!(cost.compare_all.time(servers.set_hosts(&network, &all)).await? == 0, "it was not all");
        transaction!(db, |tx| { fixed_ips::release(tx, new[0], 0).await })?;
    }
    db.close().await;
    Ok(cost)
}

async fn hold(db: &Db, network: NetworkId, hosts: u32) -> anyhow::Result<()> {
    let mut left = hosts;
    while left > 0 {
        let ids = fixtures::launch(db, &fixtures::name("acme"), left.min(500)).await;
        transaction!(db, |tx| { fixed_ips::take(tx, network, &ids).await })?;
        left -= left.min(500);
    }
    Ok(())
}

/// Lets a minute pass for the addresses that changed. (Were all of them written, the database would read all of them anew.)
async fn age(db: &Db) -> anyhow::Result<()> {
    let sql = "update fixed_ips set updated_at = {now-?} where updated_at > {now-?}";
    db.write().await?.execute(sql, &[MINUTE.into(), (MINUTE / 2).into()]).await?;
    Ok(())
}

fn network(folder: &std::path::Path) -> DhcpNetwork {
    DhcpNetwork {
        bridge: "br100".to_owned(),
        for_guests: false,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        cidr: fixtures::name("10.0.0.0/20"),
        prefix6: None,
        first: Ipv4Addr::new(10, 0, 0, 2),
        domain: "novalocal".to_owned(),
        lease: Duration::from_secs(120),
        name_server: None,
        mtu: None,
        script: folder.join("nova-dhcpbridge"),
        flag_file: None,
    }
}
