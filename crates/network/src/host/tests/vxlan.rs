//! Networks of projects that VXLANs carry.

use nova_db::services::{self, Claim, ClaimError};
use nova_link::tunnels::{Mesh, Tunnels};
use nova_types::{HostName, ProjectId};

use super::*;

impl Lab {
    /// A nova-compute comes.
    async fn enter(&self, host: &str, address: Ipv4Addr) {
        let claim = Claim {
            hosts: vec![host.parse().unwrap()],
            binary: "nova-compute",
            zone: "nova".into(),
            enable_new: true,
            address: Some(address),
            holder: host.into(),
            lease_seconds: 30,
        };
        services::introduce(&mut self.db.write().await.unwrap(), &claim).await.unwrap();
        let taken = transaction!(self.db, |tx| -> ClaimError { services::acquire(tx, &claim).await });
        taken.unwrap();
    }

    /// The next turn in which the hosts are looked at: each of them rests some milliseconds.
    async fn looks_again(&mut self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.host.turn().await.unwrap();
    }
}

/// A mesh of the host at .1 of 198.51.100.0/24.
fn vxlans(links: &Arc<FakeLinks>) -> Carrier {
    let my_ip = Ipv4Addr::new(198, 51, 100, 1).into();
    Carrier::Vxlans(Mesh::new(my_ip, Arc::<FakeLinks>::clone(links)).unwrap())
}

#[tokio::test]
async fn each_project_has_a_vxlan_to_all_hosts_and_its_guests_learn_what_fits_through() {
    let mut lab = Lab::new().await;
    lab.host.settings.carrier = vxlans(&lab.links);
    let at = |last| Ipv4Addr::new(198, 51, 100, last);
    lab.enter("node1", at(1)).await;
    lab.enter("node2", at(2)).await;
    lab.create(ManagerKind::Vxlan, 4).await;
    let project: ProjectId = "acme".parse().unwrap();
    transaction!(lab.db, |tx| { networks::for_project(tx, &project, true).await }).unwrap();
    lab.host.turn().await.unwrap();
    assert!(lab.shown().await.is_empty(), "no interface has the address of this host");
    lab.links.plug("eth0", vec!["198.51.100.1/24".parse().unwrap()]);
    lab.host.turn().await.unwrap();
    assert_eq!(lab.shown().await, ["br100 192.168.0.1/26", "eth0 198.51.100.1/24", "vxlan100 on br100"]);
    assert_eq!(lab.links.peers("vxlan100").await.unwrap(), [at(2)].into());
    assert_eq!(lab.links.guarded(), Some([at(2)].into()));
    assert_eq!(lab.dhcp.server("br100").unwrap().settings.unwrap().mtu, Some(1450));
    assert_eq!(lab.firewall.applied().unwrap().networks[0].vpn.unwrap().port, 1000);

    lab.enter("node3", at(3)).await;
    lab.looks_again().await;
    assert_eq!(lab.links.peers("vxlan100").await.unwrap(), [at(2), at(3)].into());
    let gone: HostName = "node2".parse().unwrap();
    services::delete(&mut lab.db.write().await.unwrap(), &gone, "nova-compute").await.unwrap();
    lab.looks_again().await;
    assert_eq!(lab.links.peers("vxlan100").await.unwrap(), [at(3)].into());

    transaction!(lab.db, |tx| { networks::disassociate(tx, &project).await }).unwrap();
    lab.looks_again().await;
    assert_eq!(lab.shown().await, ["eth0 198.51.100.1/24"]);
    assert!(lab.dhcp.list().await.unwrap().is_empty());
}
