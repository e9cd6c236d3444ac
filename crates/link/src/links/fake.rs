//! Interfaces in memory, and what every implementation must do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ipnet::{Ipv4Net, Ipv6Net};
use nova_types::net6::{link_local, router_mac};

use super::{Bridge, Link, LinkError, LinkKind, Links, Segment, check_name};

/// A machine without interfaces, until some are added.
#[derive(Debug, Default)]
pub struct FakeLinks {
    links: Mutex<BTreeMap<String, Link>>,
    segments: Mutex<BTreeMap<String, Segment>>,
    /// Where VXLANs lead to, and who may speak to them.
    pub(crate) flooded: Mutex<BTreeMap<String, BTreeSet<Ipv4Addr>>>,
    pub(crate) guarded: Mutex<Option<BTreeSet<Ipv4Addr>>>,
    stuck: AtomicBool,
}

impl FakeLinks {
    /// Adds an interface that somebody else made.
    pub fn plug(&self, name: &str, addresses: Vec<Ipv4Net>) {
        self.add(Link { ours: false, addresses, ..link(name, LinkKind::Other) });
    }

    /// Adds a bridge that somebody else made.
    pub fn plug_bridge(&self, name: &str) {
        self.add(Link { ours: false, ..link(name, LinkKind::Bridge) });
    }

    /// Puts an interface that is there on a bridge, as a hypervisor does with taps.
    pub fn put_on(&self, name: &str, bridge: &str) {
        self.add(Link { ours: false, bridge: Some(bridge.to_owned()), ..link(name, LinkKind::Other) });
    }

    /// Lets no address be taken away, or lets it again.
    pub fn stick(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Returns the segments that are there.
    pub fn segments(&self) -> Vec<Segment> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn add(&self, link: Link) {
        self.links().insert(link.name.clone(), link);
    }

    /// Whether an interface has an address.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.links().values().any(|link| link.addresses.iter().any(|found| found.addr() == address))
    }

    /// Whether there is an interface.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.links().contains_key(name)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that we made, up and without addresses.
fn link(name: &str, kind: LinkKind) -> Link {
    Link {
        name: name.to_owned(),
        kind,
        bridge: None,
        ours: true,
        up: true,
        addresses: Vec::new(),
        addresses6: Vec::new(),
    }
}

#[async_trait]
impl Links for FakeLinks {
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<bool, LinkError> {
        check_name(&bridge.name)?;
        let mut links = self.links();
        let before = links.get(&bridge.name).cloned();
        let link = links.entry(bridge.name.clone()).or_insert_with(|| link(&bridge.name, LinkKind::Bridge));
        if link.kind != LinkKind::Bridge {
            return Err(LinkError::NotABridge(bridge.name.clone()));
        }
        link.up = true;
        if let Some(address) = bridge.address.filter(|address| !link.addresses.contains(address)) {
            link.addresses.push(address);
        }
        if let Some(address) = bridge.address6.filter(|address| !link.addresses6.contains(address)) {
            // The bridge has one on the link too, by its hardware address, which is the gateway's.
            let router = bridge.address.map(|gateway| link_local(router_mac(gateway.addr())));
            link.addresses6.extend(router.and_then(|router| Ipv6Net::new(router, 64).ok()));
            link.addresses6.push(address);
        }
        if bridge.address.is_some() && bridge.address6.is_none() {
            link.addresses6.clear();
        }
        Ok(before.as_ref() != Some(link))
    }

    async fn attach(&self, interface: &str, bridge: &str) -> Result<(), LinkError> {
        check_name(interface)?;
        let mut links = self.links();
        if !links.contains_key(bridge) {
            return Err(LinkError::NoInterface(bridge.to_owned()));
        }
        let link = links.get_mut(interface).ok_or_else(|| LinkError::NoInterface(interface.to_owned()))?;
        link.bridge = Some(bridge.to_owned());
        let addresses = std::mem::take(&mut link.addresses);
        if let Some(bridge) = links.get_mut(bridge) {
            bridge.addresses.extend(addresses);
        }
        Ok(())
    }

    async fn ensure_segment(&self, segment: &Segment) -> Result<bool, LinkError> {
        let name = segment.name();
        match segment {
            Segment::Vlan { on, .. } => {
                check_name(on)?;
                if !self.is_there(on) {
                    return Err(LinkError::NoInterface(on.clone()));
                }
            }
            Segment::Vxlan { local, .. } if !self.has(*local) => return Err(LinkError::NoAddress(*local)),
            Segment::Vxlan { .. } => {}
        }
        let mut links = self.links();
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if links.contains_key(&name) && segments.get(&name) == Some(segment) {
            return Ok(false);
        }
        if links.get(&name).is_some_and(|found| !found.ours) {
            return Err(LinkError::Taken(name));
        }
        links.insert(name.clone(), link(&name, LinkKind::Segment));
        segments.insert(name, segment.clone());
        Ok(true)
    }

    async fn delete_segment(&self, name: &str) -> Result<bool, LinkError> {
        check_name(name)?;
        let mut links = self.links();
        let deleted = links.get(name).is_some_and(|link| link.ours && link.kind == LinkKind::Segment);
        if deleted {
            links.remove(name);
            self.segments.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            self.flooded.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
        Ok(deleted)
    }

    async fn remove_address(&self, interface: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        check_name(interface)?;
        if self.stuck.load(Ordering::Relaxed) {
            return Err(LinkError::NoAddress(address));
        }
        if let Some(link) = self.links().get_mut(interface) {
            link.addresses.retain(|found| found.addr() != address);
        }
        Ok(())
    }

    async fn bind(&self, interface: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        check_name(interface)?;
        let mut links = self.links();
        let link = links.get_mut(interface).ok_or_else(|| LinkError::NoInterface(interface.to_owned()))?;
        let added = !link.addresses.contains(&address.into());
        if added {
            link.addresses.push(address.into());
        }
        Ok(added)
    }

    async fn default_interface(&self) -> Result<Option<String>, LinkError> {
        Ok(self.links().values().find(|link| !link.ours).map(|link| link.name.clone()))
    }

    async fn delete_bridge(&self, name: &str) -> Result<bool, LinkError> {
        check_name(name)?;
        let mut links = self.links();
        let deleted = links.get(name).is_some_and(|link| link.ours);
        if deleted {
            links.remove(name);
            for port in links.values_mut().filter(|port| port.bridge.as_deref() == Some(name)) {
                port.bridge = None;
            }
        }
        Ok(deleted)
    }

    async fn list(&self) -> Result<Vec<Link>, LinkError> {
        Ok(self.links().values().cloned().collect())
    }
}

/// Runs against the fake here, and against the kernel in a network namespace. There must be an interface
/// `uplink` with the address 10.8.0.5/24 that somebody else made.
///
/// # Panics
/// When the implementation does not keep what the trait promises.
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn links_contract(links: &dyn Links) {
    let find = async |name: &str| links.list().await.unwrap().into_iter().find(|link| link.name == name);
    let mut bridge = Bridge { name: "br9".to_owned(), address: None, address6: None, mtu: None };
    assert!(links.ensure_bridge(&bridge).await.unwrap());
    assert!(!links.ensure_bridge(&bridge).await.unwrap(), "a bridge that is right is not touched");
    bridge.address = Some("10.9.0.1/24".parse().unwrap());
    assert!(links.ensure_bridge(&bridge).await.unwrap(), "a bridge made without an address gets one");
    assert!(!links.ensure_bridge(&bridge).await.unwrap());
    let made = find("br9").await.unwrap();
    assert!(made.ours && made.up);
    assert_eq!(made.addresses, [bridge.address.unwrap()]);
    assert_eq!(made.addresses6, [], "without an address of IPv6 it does not speak it");
    bridge.address6 = Some("fd00:9::1/64".parse().unwrap());
    assert!(links.ensure_bridge(&bridge).await.unwrap());
    assert!(!links.ensure_bridge(&bridge).await.unwrap());
    assert!(find("br9").await.unwrap().addresses6.contains(&bridge.address6.unwrap()));
    let carrying = Bridge { address: None, address6: None, ..bridge.clone() };
    assert!(
        !links.ensure_bridge(&carrying).await.unwrap(),
        "who only carries guests takes nothing from who serves them"
    );
    assert!(find("br9").await.unwrap().addresses6.contains(&bridge.address6.unwrap()));

    links.attach("uplink", "br9").await.unwrap();
    links.attach("uplink", "br9").await.unwrap();
    let (uplink, made) = (find("uplink").await.unwrap(), find("br9").await.unwrap());
    assert_eq!((uplink.bridge.as_deref(), uplink.addresses.len()), (Some("br9"), 0));
    assert!(made.addresses.contains(&"10.8.0.5/24".parse().unwrap()), "the bridge carries what the interface carried");
    assert!(matches!(links.attach("nothere", "br9").await, Err(LinkError::NoInterface(_))));
    assert!(matches!(links.attach("uplink", "nothere").await, Err(LinkError::NoInterface(_))));

    links.remove_address("br9", Ipv4Addr::new(10, 9, 0, 1)).await.unwrap();
    links.remove_address("br9", Ipv4Addr::new(10, 9, 0, 1)).await.unwrap();
    assert!(!find("br9").await.unwrap().addresses.contains(&bridge.address.unwrap()));
    assert!(!links.delete_bridge("uplink").await.unwrap(), "what somebody else made is not deleted");
    assert!(links.delete_bridge("br9").await.unwrap());
    assert!(!links.delete_bridge("br9").await.unwrap());
    assert!(find("br9").await.is_none());
}

/// Runs against the fake here, and against a kernel that has VLANs. There must be interfaces `uplink` and `other` that
/// somebody else made, both on no bridge.
///
/// # Errors
/// [`LinkError::Unsupported`] when the kernel does not know that kind of segment: then nothing was tried.
///
/// # Panics
/// When the implementation does not keep what the trait promises.
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn segments_contract(links: &dyn Links) -> Result<(), LinkError> {
    let find = async |name: &str| links.list().await.unwrap().into_iter().find(|link| link.name == name);
    let on = |on: &str, tag: i64| Segment::Vlan { on: on.to_owned(), tag: nova_types::Vlan::try_from(tag).unwrap() };
    assert!(links.ensure_segment(&on("uplink", 4094)).await?);
    assert!(!links.ensure_segment(&on("uplink", 4094)).await.unwrap(), "what is right is not touched");
    let made = find("vlan4094").await.unwrap();
    assert!(made.ours && made.up && made.kind == LinkKind::Segment, "{made:?}");
    assert!(links.ensure_segment(&on("uplink", 101)).await.unwrap(), "several share an interface");

    links.ensure_bridge(&Bridge { name: "br4094".to_owned(), address: None, address6: None, mtu: None }).await.unwrap();
    links.attach("vlan4094", "br4094").await.unwrap();
    assert_eq!(find("vlan4094").await.unwrap().bridge.as_deref(), Some("br4094"));
    assert!(!links.ensure_segment(&on("uplink", 4094)).await.unwrap(), "being on a bridge changes nothing");

    assert!(links.ensure_segment(&on("other", 101)).await.unwrap(), "one of ours moves to another interface");
    assert!(!links.ensure_segment(&on("other", 101)).await.unwrap());
    assert!(matches!(links.ensure_segment(&on("nothere", 7)).await, Err(LinkError::NoInterface(_))));
    assert!(!links.delete_segment("uplink").await.unwrap(), "what somebody else made is not deleted");
    assert!(!links.delete_segment("br4094").await.unwrap(), "a bridge is no segment");
    for name in ["vlan4094", "vlan101"] {
        assert!(links.delete_segment(name).await.unwrap());
        assert!(!links.delete_segment(name).await.unwrap());
        assert!(find(name).await.is_none());
    }
    assert!(links.delete_bridge("br4094").await.unwrap());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let links = FakeLinks::default();
        links.plug("uplink", vec!["10.8.0.5/24".parse().unwrap()]);
        links_contract(&links).await;
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract_of_segments() {
        let links = FakeLinks::default();
        links.plug("uplink", Vec::new());
        links.plug("other", Vec::new());
        segments_contract(&links).await.unwrap();
    }
}
