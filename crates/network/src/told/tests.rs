//! What servers are told, turn by turn, over a real database.

use std::sync::Arc;

use nova_db::dev::{TestDb, fixtures};
use nova_db::{networks, transaction};
use nova_link::dnsmasq::FakeDhcpServers;
use nova_types::network::NetworkPlan;

use super::*;
use crate::plan::plan;

/// Whose entries a change wrote, and whose it took away.
type SetAndGone = (Vec<InstanceId>, Vec<InstanceId>);

struct Lab {
    db: TestDb,
    servers: Arc<FakeDhcpServers>,
    told: Told,
}

impl Lab {
    async fn new() -> Self {
        Self { db: nova_db::dev::sqlite().await, servers: Arc::default(), told: Told::default() }
    }

    /// One turn; says how many entries changed.
    async fn turn(&mut self) -> usize {
        let rows = networks::list(&mut self.db.read().await.unwrap()).await.unwrap();
        let plan = plan(&rows, &crate::plan::tests::settings());
        self.told.read(&self.db, &plan).await.unwrap();
        let mut changed = 0;
        for served in plan.served.values() {
            changed += self.told.tell(&self.db, &*self.servers, served).await.unwrap();
        }
        changed
    }

    async fn launch(&self, network: NetworkId, count: u32) -> Vec<InstanceId> {
        let ids = fixtures::launch(&self.db, &fixtures::name("acme"), count).await;
        transaction!(self.db, |tx| { fixed_ips::take(tx, network, &ids).await }).unwrap();
        ids
    }

    async fn release(&self, instance: InstanceId) {
        transaction!(self.db, |tx| { fixed_ips::release(tx, instance, 0).await }).unwrap();
    }

    async fn execute(&self, sql: &'static str) {
        self.db.write().await.unwrap().execute(sql, &[]).await.unwrap();
    }

    fn told(&self, bridge: &str) -> (usize, Vec<SetAndGone>) {
        let (whole, changes) = self.servers.server(bridge).unwrap().told;
        let ids = |change: DhcpChange| (change.set.iter().map(|host| host.instance).collect(), change.gone);
        (whole, changes.into_iter().map(ids).collect())
    }

    /// Whether a server knows exactly what the rows say.
    async fn is_right(&self, network: NetworkId, bridge: &str) -> bool {
        let by_id = |mut hosts: Vec<DhcpHost>| {
            hosts.sort_by_key(|host| host.instance);
            hosts
        };
        let wanted = fixed_ips::dhcp_hosts(&mut self.db.read().await.unwrap(), network).await.unwrap();
        by_id(self.servers.server(bridge).unwrap().hosts) == by_id(wanted)
    }
}

#[tokio::test]
async fn who_comes_and_goes_is_all_that_is_told_with_ten_guests_and_with_a_thousand() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 20).await;
    for guests in [10, 1000] {
        lab.launch(network, guests).await;
        lab.turn().await;
        let before = lab.told("br100");
        let new = lab.launch(network, 1).await[0];
        assert_eq!(lab.turn().await, 1);
        lab.release(new).await;
        assert_eq!(lab.turn().await, 1);
        assert_eq!(lab.turn().await, 0);
        let (whole, changes) = lab.told("br100");
        assert_eq!(whole, 1, "all of them only in the first turn");
        assert_eq!(changes[before.1.len()..], [(vec![new], vec![]), (vec![], vec![new])]);
        assert!(lab.is_right(network, "br100").await);
    }
}

#[tokio::test]
async fn a_lease_is_passed_on_and_is_no_change() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 24).await;
    lab.launch(network, 2).await;
    lab.turn().await;
    lab.execute("update fixed_ips set leased = true, updated_at = {now} where address = '10.0.0.3'").await;
    assert_eq!(lab.turn().await, 0);
    assert!(lab.is_right(network, "br100").await);
}

#[tokio::test]
async fn an_address_that_passes_from_one_to_another_in_between_is_theirs() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 30).await;
    let old = lab.launch(network, 1).await[0];
    lab.turn().await;
    lab.release(old).await;
    let new = lab.launch(network, 1).await[0];
    assert_eq!(lab.turn().await, 2);
    assert_eq!(lab.told("br100").1, [(vec![new], vec![old])]);
    assert!(lab.is_right(network, "br100").await);
}

#[tokio::test]
async fn a_guest_whose_address_became_another_has_that_and_only_that() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 24).await;
    let one = lab.launch(network, 1).await[0];
    lab.turn().await;
    // The new address is a higher row, then a lower one.
    let rows = [["10.0.0.2", "10.0.0.9"], ["10.0.0.9", "10.0.0.2"]];
    for [old, new] in rows {
        transaction!(lab.db, |tx| {
            let clear =
                "update fixed_ips set instance_id = null, allocated = false, updated_at = {now} where address = ?";
            tx.execute(clear, &[old.into()]).await?;
            let hold = "update fixed_ips set instance_id = ?, allocated = true, updated_at = {now} where address = ?";
            tx.execute(hold, &[one.into(), new.into()]).await
        })
        .unwrap();
        assert_eq!(lab.turn().await, 1);
        assert!(lab.is_right(network, "br100").await, "{new}");
    }
}

#[tokio::test]
async fn what_was_missed_is_mended_by_the_next_comparison() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 24).await;
    lab.launch(network, 3).await;
    lab.turn().await;
    // A transaction that was stamped long before it ended.
    let gone = "update fixed_ips set instance_id = null, allocated = false, updated_at = {now-?} where address = ?";
    lab.db.write().await.unwrap().execute(gone, &[3600.into(), "10.0.0.3".into()]).await.unwrap();
    lab.turn().await;
    assert!(!lab.is_right(network, "br100").await, "the row does not look changed");
    lab.told.age();
    assert_eq!(lab.turn().await, 1);
    assert!(lab.is_right(network, "br100").await);
}

#[tokio::test]
async fn after_an_error_all_is_told_again() {
    let mut lab = Lab::new().await;
    let network = fixtures::flat_network(&lab.db, 24).await;
    lab.launch(network, 1).await;
    lab.turn().await;
    nova_link::dnsmasq::DhcpServers::stop(&*lab.servers, "br100").await.unwrap();
    let rows = networks::list(&mut lab.db.read().await.unwrap()).await.unwrap();
    let plan = plan(&rows, &crate::plan::tests::settings());
    lab.told.read(&lab.db, &plan).await.unwrap();
    lab.told.tell(&lab.db, &*lab.servers, &plan.served["br100"]).await.unwrap_err();
    assert_eq!(lab.turn().await, 1);
    assert!(lab.is_right(network, "br100").await);
}

#[tokio::test]
async fn of_many_networks_one_is_compared_in_a_turn_and_each_has_its_turn() {
    let mut lab = Lab::new().await;
    let mut all = Vec::new();
    for number in 1..=3 {
        let plan = NetworkPlan {
            cidr: fixtures::name(&format!("10.{number}.0.0/29")),
            prefix6: None,
            label: None,
            bridge: format!("br{number}"),
            gateway: fixtures::name(&format!("10.{number}.0.1")),
            dhcp_start: fixtures::name(&format!("10.{number}.0.2")),
            dns: None,
            vlan: None,
            vpn_private_address: None,
            vpn_public_port: None,
            multi_host: false,
            reserved_bottom: 2,
            reserved_top: 1,
        };
        all.push(fixtures::network(&lab.db, plan).await);
    }
    let compared = |lab: &Lab| ["br1", "br2", "br3"].map(|bridge| lab.told(bridge).0);
    lab.turn().await;
    assert_eq!(compared(&lab), [1, 1, 1], "at first, each");
    lab.turn().await;
    assert_eq!(compared(&lab), [1, 1, 1]);
    lab.told.age();
    for round in 1..=3 {
        lab.turn().await;
        assert_eq!(compared(&lab).iter().sum::<usize>(), 3 + round);
    }
    assert_eq!(compared(&lab), [2, 2, 2]);
    // Changes of the others are told meanwhile.
    lab.told.age();
    for network in &all {
        lab.launch(*network, 1).await;
    }
    assert_eq!(lab.turn().await, 3);
}
