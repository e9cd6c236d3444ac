//! What carries one network between hosts, on this machine.

use nova_failpoint::{Point, hit};
use rtnetlink::packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkVlan};
use tracing::info;

use super::kernel::{EXISTS, Netlink, code, kernel, kind, link_infos, ours};
use super::{LinkError, LinkKind, Segment};
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
            netlink.get(&name).await?
        }
    };
    if ours(&found) {
        changed |= netlink.ensure_marked(&found).await?;
        // Frames pass it; it has nothing to say itself.
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
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

/// A segment on the interface that it needs, found on this machine.
struct Wanted {
    under: LinkMessage,
    tag: u16,
}

impl Wanted {
    async fn of(netlink: &Netlink, segment: &Segment) -> Result<Self, LinkError> {
        let Segment::Vlan { on, tag } = segment;
        super::check_name(on)?;
        Ok(Self { under: netlink.get(on).await?, tag: tag.number() })
    }

    fn is(&self, link: &LinkMessage) -> bool {
        let tagged = |info: &LinkInfo| match info {
            LinkInfo::Data(InfoData::Vlan(info)) => info.contains(&InfoVlan::Id(self.tag)),
            _ => false,
        };
        link.attributes.contains(&LinkAttribute::Link(self.under.header.index)) && link_infos(link).any(tagged)
    }

    /// Makes it, down and marked as ours. It has the MTU of the interface under it. Another of our daemons may do the same
    /// at this moment.
    async fn create(&self, netlink: &Netlink, name: &str) -> Result<(), LinkError> {
        let vlan = LinkMessageBuilder::<LinkVlan>::new(name).id(self.tag).link(self.under.header.index);
        match netlink.add(vlan.build()).await {
            Err(error) if code(&error) == Some(EXISTS) => return Ok(()),
            Err(error) if code(&error) == Some(NOT_SUPPORTED) => {
                return Err(LinkError::Unsupported { kind: "VLANs (802.1Q)", source: Box::new(error) });
            }
            created => created.map_err(kernel(format!("creating {name}")))?,
        }
        hit(Point::LinkSegmentMade);
        netlink.mark(name).await
    }
}
