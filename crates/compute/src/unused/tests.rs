//! What is removed and what stays, and that no launch loses its bridge.

use std::sync::Arc;
use std::time::Duration;

use nova_link::carrier::Carrier;
use nova_link::links::{Bridge, FakeLinks, Links, Segment};
use nova_types::state::Event;
use nova_types::{InstanceId, Vlan};

use super::*;
use crate::testing::Bench;

/// A host of guests on the VLAN 100 of their project.
struct Lab {
    bench: Bench,
    links: Arc<FakeLinks>,
    host: Arc<Host>,
}

impl Lab {
    async fn new() -> Self {
        let bench = Bench::new().await;
        std::fs::create_dir_all(bench.instances_path()).unwrap();
        let links = Arc::new(FakeLinks::default());
        links.plug("eth1", Vec::new());
        let mut parts = bench.parts();
        if let Some(real) = &mut parts.real {
            (real.links, real.carrier) = (Arc::<FakeLinks>::clone(&links), Carrier::Vlans("eth1".to_owned()));
        }
        let lab = Self { host: Arc::new(Host::new(parts)), bench, links };
        lab.sql("update networks set vlan = 100, project_id = 'acme'").await;
        lab
    }

    fn removal(&self) -> Removal<'_> {
        Removal { host: &self.host, real: self.host.real.as_ref().unwrap(), seen: BTreeMap::new() }
    }

    async fn sql(&self, statement: &'static str) {
        self.bench.db.write().await.unwrap().execute(statement, &[]).await.unwrap();
    }

    /// Places one and builds it.
    async fn launch(&self) -> InstanceId {
        let id = self.bench.placed(1).await[0];
        let ticket = self.host.desk.take(id, None).unwrap();
        crate::run_instance::run_instance(&self.host, self.bench.view(id).await, &ticket).await.unwrap();
        assert_eq!(self.bench.state(id).await, "running");
        id
    }

    async fn terminate(&self, id: InstanceId) {
        self.bench.ask(id, Event::Terminate).await;
        let ticket = self.host.desk.take(id, None).unwrap();
        crate::terminate::terminate(&self.host, self.bench.view(id).await, &ticket).await.unwrap();
    }

    /// All interfaces but the one that was there before.
    async fn made(&self) -> Vec<String> {
        self.links.list().await.unwrap().into_iter().map(|link| link.name).filter(|name| name != "eth1").collect()
    }
}

#[tokio::test]
async fn a_bridge_goes_with_its_vlan_once_its_last_guest_is_gone_and_not_before() {
    let lab = Lab::new().await;
    let (one, two) = (lab.launch().await, lab.launch().await);
    let mut removal = lab.removal();
    for id in [one, two] {
        for _ in 0..3 {
            removal.turn().await.unwrap();
            assert_eq!(lab.made().await, ["br100", "vlan100"]);
        }
        lab.terminate(id).await;
    }
    removal.turn().await.unwrap();
    assert_eq!(lab.made().await, ["br100", "vlan100"], "seen once");
    removal.turn().await.unwrap();
    assert!(lab.made().await.is_empty());
    lab.launch().await;
    assert_eq!(lab.made().await, ["br100", "vlan100"], "and comes again");
}

#[tokio::test]
async fn nothing_is_removed_while_the_rows_cannot_be_read_or_somebody_is_on_it() {
    let lab = Lab::new().await;
    let id = lab.launch().await;
    lab.terminate(id).await;
    let mut removal = lab.removal();
    removal.turn().await.unwrap();
    lab.sql("alter table networks rename to hidden").await;
    for _ in 0..3 {
        assert!(removal.turn().await.is_err());
    }
    assert_eq!(lab.made().await, ["br100", "vlan100"], "could not ask");
    lab.sql("alter table hidden rename to networks").await;
    // One that an administrator put there, or the guest of an instance that was evacuated.
    lab.links.put_on("tap0000000a", "br100");
    for _ in 0..3 {
        removal.turn().await.unwrap();
    }
    assert_eq!(lab.made().await, ["br100", "tap0000000a", "vlan100"]);
}

#[tokio::test]
async fn what_is_loose_goes_at_once_and_what_no_network_has_after_a_while() {
    let lab = Lab::new().await;
    let vlan = |number| Segment::Vlan { on: "eth1".into(), tag: Vlan::try_from(number).unwrap() };
    lab.links.ensure_segment(&vlan(100)).await.unwrap();
    lab.links.ensure_segment(&vlan(200)).await.unwrap();
    for name in ["br200", "br7"] {
        lab.links.ensure_bridge(&Bridge { name: name.into(), address: None, address6: None, mtu: None }).await.unwrap();
    }
    lab.links.attach("vlan200", "br200").await.unwrap();
    let mut removal = lab.removal();
    for _ in 0..2 {
        removal.turn().await.unwrap();
    }
    assert_eq!(lab.made().await, ["br200", "br7", "vlan200"]);
    tokio::time::sleep(lab.host.settings.stranger_grace + Duration::from_millis(50)).await;
    removal.turn().await.unwrap();
    assert_eq!(lab.made().await, ["br7"], "that may be anybody's");
}

#[tokio::test]
async fn the_bridge_of_a_flat_network_and_of_one_that_is_served_here_stay() {
    let lab = Lab::new().await;
    let id = lab.launch().await;
    lab.terminate(id).await;
    let mut removal = lab.removal();
    for statement in ["update networks set vlan = null", "update networks set vlan = 100, host = 'host-1'"] {
        lab.sql(statement).await;
        for _ in 0..3 {
            removal.turn().await.unwrap();
        }
        assert_eq!(lab.made().await, ["br100", "vlan100"], "{statement}");
    }
    lab.sql("update networks set host = 'host-2'").await;
    for _ in 0..2 {
        removal.turn().await.unwrap();
    }
    assert!(lab.made().await.is_empty());
}

#[tokio::test]
async fn no_bridge_is_made_while_one_is_removed() {
    let lab = Lab::new().await;
    let removing = lab.host.real.as_ref().unwrap().bridges.write().await;
    let mut launch = std::pin::pin!(lab.launch());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut launch).await;
    assert!(early.is_err() && lab.made().await.is_empty(), "it did not wait");
    drop(removing);
    launch.await;
    assert_eq!(lab.made().await, ["br100", "vlan100"]);
}

#[tokio::test]
async fn who_makes_a_bridge_while_it_is_about_to_be_removed_keeps_it() {
    let lab = Lab::new().await;
    let id = lab.launch().await;
    lab.terminate(id).await;
    let mut removal = lab.removal();
    removal.turn().await.unwrap();
    // A launch is about to make it: its row is there.
    let making = lab.host.real.as_ref().unwrap().bridges.read().await;
    let mut turn = std::pin::pin!(removal.turn());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut turn).await.is_err(), "it did not wait");
    lab.bench.placed(1).await;
    drop(making);
    turn.await.unwrap();
    assert_eq!(lab.made().await, ["br100", "vlan100"]);
}
