//! VXLANs in memory, and what every implementation must do.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::PoisonError;

use async_trait::async_trait;

use super::Tunnels;
use super::guard::{TABLE, table};
use crate::links::{FakeLinks, LinkError, Links, Segment};
use crate::nft::{FirewallError, diff};

/// What is left of Ethernet's MTU.
const MTU: u32 = 1450;

impl FakeLinks {
    /// Returns who may speak to VXLANs; nothing where nobody said it.
    pub fn guarded(&self) -> Option<BTreeSet<Ipv4Addr>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Tunnels for FakeLinks {
    async fn mtu(&self, local: Ipv4Addr) -> Result<u32, LinkError> {
        if self.has(local) { Ok(MTU) } else { Err(LinkError::NoAddress(local)) }
    }

    async fn peers(&self, interface: &str) -> Result<BTreeSet<Ipv4Addr>, LinkError> {
        let flooded = self.flooded.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(flooded.get(interface).cloned().unwrap_or_default())
    }

    async fn set_peers(&self, interface: &str, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, LinkError> {
        if !self.is_there(interface) {
            return Err(LinkError::NoInterface(interface.to_owned()));
        }
        let mut flooded = self.flooded.lock().unwrap_or_else(PoisonError::into_inner);
        let before = flooded.insert(interface.to_owned(), peers.clone()).unwrap_or_default();
        Ok(before.symmetric_difference(peers).count())
    }

    async fn guard(&self, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, FirewallError> {
        let before = self.guarded.lock().unwrap_or_else(PoisonError::into_inner).replace(peers.clone());
        Ok(diff(TABLE, before.as_ref().map(table).as_ref(), &table(peers)).len())
    }
}

/// Runs against the fake here, and against the kernel in a network namespace. There must be an interface `uplink` with the
/// address 10.8.0.5/24 and Ethernet's MTU that somebody else made, on no bridge.
///
/// # Errors
/// [`LinkError::Unsupported`] when the kernel does not know VXLANs: then nothing was tried.
///
/// # Panics
/// When the implementation does not keep what the trait promises.
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn tunnels_contract(links: &dyn Links, tunnels: &dyn Tunnels) -> Result<(), LinkError> {
    let local = Ipv4Addr::new(10, 8, 0, 5);
    let host = |last| Ipv4Addr::new(10, 8, 0, last);
    let vxlan = |vni: i64, local| Segment::Vxlan { local, vni: nova_types::Tag::try_from(vni).unwrap() };
    let (low, high) = (vxlan(100, local), vxlan(16_777_215, local));
    assert!(links.ensure_segment(&low).await?);
    assert!(!links.ensure_segment(&low).await.unwrap(), "what is right is not touched");
    assert!(links.ensure_segment(&high).await.unwrap());
    let lost = links.ensure_segment(&vxlan(7, host(99))).await;
    assert!(matches!(lost, Err(LinkError::NoAddress(_))), "{lost:?}");
    assert!(matches!(tunnels.mtu(host(99)).await, Err(LinkError::NoAddress(_))));
    assert_eq!(tunnels.mtu(local).await.unwrap(), MTU);

    let peers = async |segment: &Segment| tunnels.peers(&segment.name()).await.unwrap();
    assert!(peers(&low).await.is_empty() && tunnels.peers("nothere").await.unwrap().is_empty());
    assert_eq!(tunnels.set_peers(&low.name(), &[host(6), host(7)].into()).await.unwrap(), 2);
    assert_eq!(tunnels.set_peers(&low.name(), &[host(6), host(7)].into()).await.unwrap(), 0);
    assert_eq!(tunnels.set_peers(&low.name(), &[host(7), host(8), host(9)].into()).await.unwrap(), 3);
    assert_eq!(peers(&low).await, [host(7), host(8), host(9)].into());
    assert!(!links.ensure_segment(&low).await.unwrap(), "leading somewhere changes nothing");
    assert!(peers(&high).await.is_empty(), "each has its own");
    assert_eq!(tunnels.set_peers(&low.name(), &BTreeSet::new()).await.unwrap(), 3);
    assert!(peers(&low).await.is_empty());
    assert!(matches!(tunnels.set_peers("nothere", &BTreeSet::new()).await, Err(LinkError::NoInterface(_))));

    for hosts in [[6, 7].as_slice(), &[7], &[]] {
        let hosts = hosts.iter().map(|last| host(*last)).collect();
        assert_ne!(tunnels.guard(&hosts).await.unwrap(), 0);
        assert_eq!(tunnels.guard(&hosts).await.unwrap(), 0, "what holds is not touched");
    }
    for segment in [low, high] {
        assert!(links.delete_segment(&segment.name()).await.unwrap());
        assert!(!links.delete_segment(&segment.name()).await.unwrap());
        assert!(tunnels.peers(&segment.name()).await.unwrap().is_empty());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let links = FakeLinks::default();
        links.plug("uplink", vec!["10.8.0.5/24".parse().unwrap()]);
        tunnels_contract(&links, &links).await.unwrap();
    }
}
