//! How the bridges of guests' networks come to be on a host, and what carries their frames to other hosts. It is the same
//! for the network's host and for those of its guests, but for the address.

mod unused;

use std::net::IpAddr;
use std::sync::Arc;

use nova_types::network::ManagerKind;
use nova_types::{Tag, Vlan};

pub use unused::{Idle, idle, remove_unused};

use crate::links::{Bridge, LinkError, LinkKind, Links, Segment};
use crate::tunnels::{Mesh, MeshError, Tunnels};

/// What a manager makes of a network on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing: bridges are set up by hand, under `FlatManager`.
    ByHand,
    /// A bridge, with an interface of the host on it where there are several hosts: `FlatDHCPManager`.
    Port(Option<String>),
    /// A bridge and a VLAN on that interface: `VlanManager`.
    Vlans(String),
    /// A bridge and a VXLAN to all other hosts: `VxlanManager`.
    Vxlans(Mesh),
}

/// The flags that say what leads from a host to others.
#[derive(Clone, Copy, Debug)]
pub struct Wiring<'a> {
    /// Flag `network_manager`.
    pub manager: ManagerKind,
    /// Flag `flat_interface`.
    pub flat_interface: Option<&'a str>,
    /// Flag `vlan_interface`.
    pub vlan_interface: &'a str,
    /// Flag `my_ip`.
    pub my_ip: IpAddr,
}

impl Carrier {
    /// What the flags ask for.
    ///
    /// # Errors
    /// [`MeshError::NotIpv4`] under `VxlanManager`.
    pub fn of(flags: Wiring<'_>, tunnels: Arc<dyn Tunnels>) -> Result<Self, MeshError> {
        Ok(match flags.manager {
            ManagerKind::Flat => Self::ByHand,
            ManagerKind::FlatDhcp => Self::Port(flags.flat_interface.map(str::to_owned)),
            ManagerKind::Vlan => Self::Vlans(flags.vlan_interface.to_owned()),
            ManagerKind::Vxlan => Self::Vxlans(Mesh::new(flags.my_ip, tunnels)?),
        })
    }

    /// What leads to other hosts if that is for us to say.
    pub const fn mesh(&self) -> Option<&Mesh> {
        match self {
            Self::Vxlans(mesh) => Some(mesh),
            Self::ByHand | Self::Port(_) | Self::Vlans(_) => None,
        }
    }

    /// The port by which a network's bridge reaches other hosts; none where it stays on its own.
    pub fn uplink(&self, tag: Option<Tag>) -> Option<String> {
        match (self, tag) {
            (Self::Port(port), _) => port.clone(),
            (Self::Vlans(on), Some(tag)) => {
                let tag = Vlan::try_from(tag).ok()?;
                Some(Segment::Vlan { on: on.clone(), tag }.name())
            }
            (Self::Vxlans(mesh), Some(vni)) => Some(Segment::Vxlan { local: mesh.local(), vni }.name()),
            (Self::ByHand, _) | (Self::Vlans(_) | Self::Vxlans(_), None) => None,
        }
    }

    /// Makes a network's bridge as described, with what leads to other hosts on it. Returns whether anything changed.
    ///
    /// What leads to other hosts comes before guests do: a bridge takes the MTU of its ports, and a tap that of the bridge.
    ///
    /// # Errors
    /// [`LinkError`]; what was done before stays, and the next call goes on from there.
    pub async fn ensure(&self, links: &dyn Links, bridge: &Bridge, tag: Option<Tag>) -> Result<bool, LinkError> {
        let name = &bridge.name;
        match (self, tag) {
            (Self::ByHand, _) => is_there(links, name).await.map(|()| false),
            (Self::Port(Some(port)), _) => {
                let changed = links.ensure_bridge(bridge).await?;
                links.attach(port, name).await?;
                Ok(changed)
            }
            (Self::Vlans(on), Some(tag)) => {
                let vlan = Segment::Vlan { on: on.clone(), tag: Vlan::try_from(tag)? };
                // Before the bridge: without what leads to other hosts it would look as if it worked.
                let changed = links.ensure_segment(&vlan).await?;
                let changed = links.ensure_bridge(bridge).await? || changed;
                links.attach(&vlan.name(), name).await?;
                Ok(changed)
            }
            (Self::Vxlans(mesh), Some(vni)) => {
                let vxlan = Segment::Vxlan { local: mesh.local(), vni };
                let changed = mesh.ensure(links, &vxlan).await?;
                let changed = links.ensure_bridge(bridge).await? || changed;
                links.attach(&vxlan.name(), name).await?;
                Ok(changed)
            }
            // A flat network that was made before the manager was changed has no tag, and stays on its host.
            (Self::Port(None), _) | (Self::Vlans(_) | Self::Vxlans(_), None) => links.ensure_bridge(bridge).await,
        }
    }
}

async fn is_there(links: &dyn Links, name: &str) -> Result<(), LinkError> {
    match links.list().await?.into_iter().find(|link| link.name == name) {
        None => Err(LinkError::NoInterface(name.to_owned())),
        Some(found) if found.kind != LinkKind::Bridge => Err(LinkError::NotABridge(name.to_owned())),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::FakeLinks;

    fn bridge(name: &str) -> Bridge {
        Bridge { name: name.to_owned(), address: None, address6: None, mtu: None }
    }

    fn tag(number: i64) -> Option<Tag> {
        Some(Tag::try_from(number).unwrap())
    }

    async fn shown(links: &FakeLinks) -> Vec<String> {
        let on = |bridge: Option<String>| bridge.map_or_else(String::new, |bridge| format!(" on {bridge}"));
        links.list().await.unwrap().into_iter().map(|link| format!("{}{}", link.name, on(link.bridge))).collect()
    }

    #[tokio::test]
    async fn a_bridge_by_hand_is_looked_for_and_never_made() {
        let links = FakeLinks::default();
        let missing = Carrier::ByHand.ensure(&links, &bridge("br100"), None).await;
        assert!(matches!(missing, Err(LinkError::NoInterface(_))), "{missing:?}");
        links.plug("br100", Vec::new());
        let other = Carrier::ByHand.ensure(&links, &bridge("br100"), None).await;
        assert!(matches!(other, Err(LinkError::NotABridge(_))), "{other:?}");
        links.plug_bridge("br100");
        assert!(!Carrier::ByHand.ensure(&links, &bridge("br100"), None).await.unwrap());
        assert!(!remove_unused(&links, "br100").await.unwrap(), "it is not ours");
        assert_eq!(shown(&links).await, ["br100"]);
    }

    #[tokio::test]
    async fn each_vlan_has_a_bridge_of_its_own_and_both_go_together() {
        let links = FakeLinks::default();
        let carrier = Carrier::Vlans("eth1".into());
        let missing = carrier.ensure(&links, &bridge("br100"), tag(100)).await;
        assert!(matches!(missing, Err(LinkError::NoInterface(_))), "{missing:?}");
        assert!(shown(&links).await.is_empty(), "no bridge that leads nowhere");
        links.plug("eth1", Vec::new());
        for number in [100, 101] {
            let bridge = bridge(&format!("br{number}"));
            assert!(carrier.ensure(&links, &bridge, tag(number)).await.unwrap());
            assert!(!carrier.ensure(&links, &bridge, tag(number)).await.unwrap());
        }
        assert_eq!(shown(&links).await, ["br100", "br101", "eth1", "vlan100 on br100", "vlan101 on br101"]);
        links.put_on("tap00000001", "br100");
        assert!(!remove_unused(&links, "br100").await.unwrap(), "a guest is on it");
        assert!(remove_unused(&links, "br101").await.unwrap());
        assert!(!remove_unused(&links, "br101").await.unwrap());
        assert_eq!(shown(&links).await, ["br100", "eth1", "tap00000001 on br100", "vlan100 on br100"]);
    }

    #[tokio::test]
    async fn each_vxlan_has_a_bridge_of_its_own_and_leads_to_all_other_hosts() {
        let links = Arc::new(FakeLinks::default());
        let at = |last| std::net::Ipv4Addr::new(198, 51, 100, last);
        let wiring =
            |my_ip| Wiring { manager: ManagerKind::Vxlan, flat_interface: None, vlan_interface: "eth0", my_ip };
        assert!(Carrier::of(wiring("::1".parse().unwrap()), Arc::<FakeLinks>::clone(&links)).is_err());
        let carrier = Carrier::of(wiring(at(1).into()), Arc::<FakeLinks>::clone(&links)).unwrap();
        let mesh = carrier.mesh().unwrap();
        let (bridge, vni) = (bridge("br70000"), tag(70_000));
        let early = carrier.ensure(&*links, &bridge, vni).await;
        assert!(matches!(early, Err(LinkError::NoPeers)), "{early:?}");
        mesh.learn(&*links, &[at(1), at(2)].into()).await.unwrap();
        let missing = carrier.ensure(&*links, &bridge, vni).await;
        assert!(matches!(missing, Err(LinkError::NoAddress(_))), "{missing:?}");
        assert!(shown(&links).await.is_empty(), "no bridge that leads nowhere");
        links.plug("eth0", vec!["198.51.100.1/24".parse().unwrap()]);
        assert!(carrier.ensure(&*links, &bridge, vni).await.unwrap());
        assert!(!carrier.ensure(&*links, &bridge, vni).await.unwrap());
        assert_eq!(shown(&links).await, ["br70000", "eth0", "vxlan70000 on br70000"]);
        assert_eq!(links.peers("vxlan70000").await.unwrap(), [at(2)].into(), "not to this one");
        mesh.learn(&*links, &[at(3), at(2), at(1)].into()).await.unwrap();
        assert_eq!(links.peers("vxlan70000").await.unwrap(), [at(2), at(3)].into());
        mesh.learn(&*links, &[at(3)].into()).await.unwrap();
        assert_eq!(links.peers("vxlan70000").await.unwrap(), [at(3)].into());
        assert_eq!(links.guarded(), Some([at(3)].into()));
        assert!(remove_unused(&*links, "br70000").await.unwrap());
        assert_eq!(shown(&links).await, ["eth0"]);
    }

    #[tokio::test]
    async fn a_network_without_a_tag_stays_on_its_host() {
        let links = FakeLinks::default();
        assert!(Carrier::Vlans("eth1".into()).ensure(&links, &bridge("br100"), None).await.unwrap());
        assert_eq!(shown(&links).await, ["br100"]);
    }
}
