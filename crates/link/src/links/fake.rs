//! Interfaces in memory, and what every implementation must do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::{Bridge, Link, LinkError, Links, check_name};

/// A machine without interfaces, until some are added.
#[derive(Debug, Default)]
pub struct FakeLinks {
    links: Mutex<BTreeMap<String, Link>>,
}

impl FakeLinks {
    /// Adds an interface that somebody else made.
    pub fn plug(&self, name: &str, addresses: Vec<Ipv4Net>) {
        let link = Link { name: name.to_owned(), bridge: None, ours: false, up: true, addresses };
        self.links().insert(name.to_owned(), link);
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Links for FakeLinks {
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<bool, LinkError> {
        check_name(&bridge.name)?;
        let mut links = self.links();
        let before = links.get(&bridge.name).cloned();
        let fresh = Link { name: bridge.name.clone(), bridge: None, ours: true, up: true, addresses: Vec::new() };
        let link = links.entry(bridge.name.clone()).or_insert(fresh);
        link.up = true;
        if let Some(address) = bridge.address.filter(|address| !link.addresses.contains(address)) {
            link.addresses.push(address);
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

    async fn remove_address(&self, interface: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        check_name(interface)?;
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
    let mut bridge = Bridge { name: "br9".to_owned(), address: None, mtu: None };
    assert!(links.ensure_bridge(&bridge).await.unwrap());
    assert!(!links.ensure_bridge(&bridge).await.unwrap(), "a bridge that is right is not touched");
    bridge.address = Some("10.9.0.1/24".parse().unwrap());
    assert!(links.ensure_bridge(&bridge).await.unwrap(), "a bridge made without an address gets one");
    assert!(!links.ensure_bridge(&bridge).await.unwrap());
    let made = find("br9").await.unwrap();
    assert!(made.ours && made.up);
    assert_eq!(made.addresses, [bridge.address.unwrap()]);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let links = FakeLinks::default();
        links.plug("uplink", vec!["10.8.0.5/24".parse().unwrap()]);
        links_contract(&links).await;
    }
}
