//! What carries one network between hosts, on this machine.

use nova_failpoint::{Point, hit};
use rtnetlink::packet_route::link::{InfoData, InfoVlan, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan};
use tracing::info;

use super::kernel::{EXISTS, Netlink, code, kernel, kind, link_infos, ours};
use super::{LinkError, LinkKind, Segment, flood};
use crate::sysctl;

/// The kernel has no such kind of interface: EOPNOTSUPP.
const NOT_SUPPORTED: i32 = -95;

pub(super) async fn ensure(netlink: &Netlink, segment: &Segment) -> Result<bool, LinkError> {
    let name = segment.name();
    let wanted = Wanted::of(netlink, segment).await?;
    let mut changed = netlink.ensure_up(&wanted.under).await?;
    let found = match netlink.find(&name).await? {
        Some(found) if wanted.is(&found) => found,
        Some(found) if !ours(&found) => return Err(LinkError::Taken(name)),
        stale => {
            if let Some(stale) = stale {
                remove(netlink, &name, &stale).await?;
            }
            wanted.create(netlink, &name).await?;
            changed = true;
            // Another interface that is the same network keeps ours from being made.
            netlink.find(&name).await?.ok_or_else(|| LinkError::Taken(name.clone()))?
        }
    };
    if ours(&found) {
        changed |= netlink.ensure_marked(&found).await?;
        // Frames pass it; it has nothing to say itself.
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        changed |= wanted.ensure_mtu(netlink, &name, &found).await?;
    }
    changed |= netlink.ensure_up(&found).await?;
    if changed {
        info!(interface = %name, "Interface {name} is as it should be.");
    }
    Ok(changed)
}

pub(super) async fn delete(netlink: &Netlink, name: &str) -> Result<bool, LinkError> {
    let found = netlink.find(name).await?.filter(|link| ours(link) && kind(link) == LinkKind::Segment);
    let Some(found) = found else { return Ok(false) };
    remove(netlink, name, &found).await?;
    info!(interface = %name, "Deleted interface {name}.");
    Ok(true)
}

async fn remove(netlink: &Netlink, name: &str, link: &LinkMessage) -> Result<(), LinkError> {
    netlink.handle.link().del(link.header.index).execute().await.map_err(kernel(format!("deleting {name}")))
}

/// A segment, and the interface of this machine that it needs.
struct Wanted<'a> {
    segment: &'a Segment,
    under: LinkMessage,
}

impl<'a> Wanted<'a> {
    async fn of(netlink: &Netlink, segment: &'a Segment) -> Result<Self, LinkError> {
        let under = match segment {
            Segment::Vlan { on, .. } => {
                super::check_name(on)?;
                netlink.get(on).await?
            }
            Segment::Vxlan { local, .. } => flood::carrying(netlink, *local).await?,
        };
        Ok(Self { segment, under })
    }

    fn is(&self, link: &LinkMessage) -> bool {
        link_infos(link).any(|info| match (self.segment, info) {
            (Segment::Vlan { tag, .. }, LinkInfo::Data(InfoData::Vlan(info))) => {
                link.attributes.contains(&LinkAttribute::Link(self.under.header.index))
                    && info.contains(&InfoVlan::Id(tag.number()))
            }
            (Segment::Vxlan { local, vni }, LinkInfo::Data(InfoData::Vxlan(info))) => {
                let wanted = [
                    InfoVxlan::Id(vni.number()),
                    InfoVxlan::Local(*local),
                    InfoVxlan::Port(flood::PORT),
                    InfoVxlan::Learning(true),
                ];
                wanted.iter().all(|wanted| info.contains(wanted))
            }
            _ => false,
        })
    }

    /// Makes it, down and marked as ours. Another of our daemons may do the same at this moment.
    async fn create(&self, netlink: &Netlink, name: &str) -> Result<(), LinkError> {
        let (kind, message) = match self.segment {
            Segment::Vlan { tag, .. } => {
                let vlan = LinkMessageBuilder::<LinkVlan>::new(name).id(tag.number());
                ("VLANs (802.1Q)", vlan.link(self.under.header.index).build())
            }
            Segment::Vxlan { local, vni } => {
                // On no interface: what leads to a host is for the routes to say.
                let vxlan = LinkVxlan::new(name, vni.number()).local(*local).port(flood::PORT).learning(true);
                ("VXLANs", vxlan.build())
            }
        };
        match netlink.add(message).await {
            Err(error) if code(&error) == Some(EXISTS) => return Ok(()),
            Err(error) if code(&error) == Some(NOT_SUPPORTED) => {
                return Err(LinkError::Unsupported { kind, source: Box::new(error) });
            }
            created => created.map_err(kernel(format!("creating {name}")))?,
        }
        hit(Point::LinkSegmentMade);
        netlink.mark(name).await
    }

    /// A VLAN has the MTU of the interface under it by itself.
    async fn ensure_mtu(&self, netlink: &Netlink, name: &str, found: &LinkMessage) -> Result<bool, LinkError> {
        let mtu = match self.segment {
            Segment::Vlan { .. } => return Ok(false),
            Segment::Vxlan { .. } => flood::mtu_over(&self.under),
        };
        if found.attributes.contains(&LinkAttribute::Mtu(mtu)) {
            return Ok(false);
        }
        let set = LinkUnspec::new_with_index(found.header.index).mtu(mtu).build();
        netlink.set(format!("setting the MTU of {name}"), set).await.map(|()| true)
    }
}
