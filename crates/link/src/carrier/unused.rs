//! What carries networks between hosts, and nobody is on any more.

use std::collections::BTreeMap;

use crate::links::{Link, LinkError, LinkKind, Links};

/// Bridges and segments that we made and on which there is nothing else. Whether anybody needs them the rows say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Bridges without an address, with nothing on them but segments of ours, and whether there is such a segment.
    pub bridges: BTreeMap<String, bool>,
    /// Segments on no bridge.
    pub segments: Vec<String>,
}

/// Finds these on this machine. Who serves a network has an address on its bridge, and a guest its tap.
///
/// # Errors
/// [`LinkError`].
pub async fn idle(links: &dyn Links) -> Result<Idle, LinkError> {
    let links = links.list().await?;
    let ours = |kind| links.iter().filter(move |link| link.ours && link.kind == kind);
    let mut bridges = BTreeMap::new();
    for bridge in ours(LinkKind::Bridge).filter(|bridge| bridge.addresses.is_empty()) {
        let ports: Vec<&Link> = links.iter().filter(|link| link.bridge.as_ref() == Some(&bridge.name)).collect();
        if ports.iter().all(|port| is_segment(port)) {
            bridges.insert(bridge.name.clone(), !ports.is_empty());
        }
    }
    let loose = ours(LinkKind::Segment).filter(|link| link.bridge.is_none()).map(|link| link.name.clone());
    Ok(Idle { bridges, segments: loose.collect() })
}

fn is_segment(link: &Link) -> bool {
    link.ours && link.kind == LinkKind::Segment
}

/// Removes a bridge of ours and the segment on it, unless something else is on it. Returns whether it did.
///
/// # Errors
/// [`LinkError`]; asking again goes on from there.
pub async fn remove_unused(links: &dyn Links, bridge: &str) -> Result<bool, LinkError> {
    let ports = links.list().await?.into_iter().filter(|link| link.bridge.as_deref() == Some(bridge));
    let (segments, others): (Vec<_>, Vec<_>) = ports.partition(is_segment);
    if !others.is_empty() {
        return Ok(false);
    }
    // The segments first: what is left of a bridge without them is found again.
    for segment in segments {
        links.delete_segment(&segment.name).await?;
    }
    links.delete_bridge(bridge).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carrier;
    use crate::links::{Bridge, FakeLinks, Segment};

    #[tokio::test]
    async fn idle_is_what_is_ours_and_has_neither_address_nor_guest() {
        let links = FakeLinks::default();
        links.plug("eth1", Vec::new());
        links.plug_bridge("docker0");
        let carrier = Carrier::Vlans("eth1".into());
        for (number, address) in [(100, None), (101, None), (102, Some("10.0.2.1/24".parse().unwrap()))] {
            let bridge = Bridge { name: format!("br{number}"), address, address6: None, mtu: None };
            carrier.ensure(&links, &bridge, Some(nova_types::Tag::try_from(number).unwrap())).await.unwrap();
        }
        links.put_on("tap00000001", "br101");
        links.ensure_bridge(&Bridge { name: "br103".into(), address: None, address6: None, mtu: None }).await.unwrap();
        let tag = nova_types::Vlan::try_from(104).unwrap();
        links.ensure_segment(&Segment::Vlan { on: "eth1".into(), tag }).await.unwrap();
        let found = idle(&links).await.unwrap();
        assert_eq!(found.bridges, [("br100".to_owned(), true), ("br103".to_owned(), false)].into());
        assert_eq!(found.segments, ["vlan104"]);
        assert!(remove_unused(&links, "br100").await.unwrap() && remove_unused(&links, "br103").await.unwrap());
        assert!(links.delete_segment("vlan104").await.unwrap());
        assert_eq!(idle(&links).await.unwrap(), Idle::default());
        assert!(!remove_unused(&links, "br101").await.unwrap(), "a guest is on it");
    }
}
