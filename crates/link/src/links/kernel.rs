//! This machine's interfaces, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nova_failpoint::{Point, hit};
use nova_types::net6::router_mac;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec};
use tracing::{info, warn};

use super::{Bridge, Link, LinkError, LinkKind, Links, Segment, check_name, migrate, segments};
use crate::neighbours::announce;
use crate::sysctl;

/// What marks an interface as made by us: its alias, as `ip link` shows it.
const MARK: &str = "nova";
/// The same from the moment it is there: the kernel takes an alias only afterwards, and a group at once. It spells `nova`.
const GROUP: u32 = u32::from_be_bytes(*b"nova");
const NO_DEVICE: i32 = -19;
pub(super) const EXISTS: i32 = -17;
const NO_ADDRESS: i32 = -99;

/// Asks the kernel of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelLinks;

#[async_trait]
impl Links for KernelLinks {
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<bool, LinkError> {
        check_name(&bridge.name)?;
        let netlink = Netlink::open()?;
        let mut changed = false;
        let found = match netlink.find(&bridge.name).await? {
            Some(found) => found,
            None => {
                netlink.create_bridge(&bridge.name).await?;
                changed = true;
                netlink.get(&bridge.name).await?
            }
        };
        if !is_bridge(&found) {
            return Err(LinkError::NotABridge(bridge.name.clone()));
        }
        if ours(&found) {
            changed |= netlink.settle(&found, bridge).await?;
        } else if bridge.address6.is_some() {
            sysctl::set(&format!("net/ipv6/conf/{}/disable_ipv6", bridge.name), "0")?;
        }
        if let Some(address) = bridge.address {
            changed |= netlink.ensure_address(found.header.index, &bridge.name, address).await?;
        }
        if let Some(address) = bridge.address6 {
            changed |= netlink.ensure_address(found.header.index, &bridge.name, address).await?;
        }
        changed |= netlink.ensure_up(&found).await?;
        if changed {
            info!(bridge = %bridge.name, "Bridge {} is as it should be.", bridge.name);
        }
        Ok(changed)
    }

    async fn attach(&self, interface: &str, bridge: &str) -> Result<(), LinkError> {
        check_name(interface)?;
        check_name(bridge)?;
        let netlink = Netlink::open()?;
        let (link, bridge) = (netlink.get(interface).await?, netlink.get(bridge).await?);
        migrate::attach(&netlink, &link, &bridge).await
    }

    async fn ensure_segment(&self, segment: &Segment) -> Result<bool, LinkError> {
        check_name(&segment.name())?;
        segments::ensure(&Netlink::open()?, segment).await
    }

    async fn delete_segment(&self, name: &str) -> Result<bool, LinkError> {
        check_name(name)?;
        segments::delete(&Netlink::open()?, name).await
    }

    async fn remove_address(&self, interface: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        check_name(interface)?;
        let netlink = Netlink::open()?;
        let Some(link) = netlink.find(interface).await? else { return Ok(()) };
        // By the address it is known that there is something to be taken away: it goes last.
        netlink.forget_gateway(&link, address).await?;
        for message in netlink.address_messages(Some(link.header.index)).await? {
            if ipv4(&message).is_some_and(|found| found.addr() == address) {
                netlink.delete_address(interface, message).await?;
            }
        }
        Ok(())
    }

    async fn bind(&self, interface: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        check_name(interface)?;
        let netlink = Netlink::open()?;
        let link = netlink.get(interface).await?;
        if netlink.has_address(link.header.index, Ipv4Net::from(address).into()).await? {
            return Ok(false);
        }
        // First, for after it nobody would know whether it was said. What comes meanwhile is translated, not looked at.
        let name = interface.to_owned();
        let told = tokio::task::spawn_blocking(move || announce(&name, address)).await;
        if let Ok(Err(error)) = told {
            warn!(interface, %address, %error, "Neighbours were not told of {address}; they find out within minutes.");
        }
        hit(Point::AddressAnnounced);
        let added = netlink.ensure_address(link.header.index, interface, Ipv4Net::from(address)).await?;
        info!(interface, %address, "Bound {address} to {interface}.");
        Ok(added)
    }

    async fn default_interface(&self) -> Result<Option<String>, LinkError> {
        let netlink = Netlink::open()?;
        let Some(index) = migrate::default_route(&netlink).await? else { return Ok(None) };
        let mut links = std::pin::pin!(netlink.handle.link().get().match_index(index).execute());
        let link = links.try_next().await.map_err(kernel("looking for the interface of the default route"))?;
        Ok(link.as_ref().map(name))
    }

    async fn delete_bridge(&self, name: &str) -> Result<bool, LinkError> {
        check_name(name)?;
        let netlink = Netlink::open()?;
        let Some(link) = netlink.find(name).await?.filter(|link| ours(link) && is_bridge(link)) else {
            return Ok(false);
        };
        let deleted = netlink.handle.link().del(link.header.index).execute().await;
        deleted.map_err(kernel(format!("deleting bridge {name}")))?;
        info!(bridge = %name, "Deleted bridge {name}.");
        Ok(true)
    }

    async fn list(&self) -> Result<Vec<Link>, LinkError> {
        let netlink = Netlink::open()?;
        let messages: Vec<LinkMessage> =
            netlink.handle.link().get().execute().try_collect().await.map_err(kernel("listing interfaces"))?;
        let addresses = netlink.address_messages(None).await?;
        let bridge_of = |message: &LinkMessage| {
            let controller = controller(message)?;
            messages.iter().find(|other| other.header.index == controller).map(name)
        };
        let of = |link: &LinkMessage| {
            let index = link.header.index;
            addresses.iter().filter(move |address| address.header.index == index)
        };
        let link = |message: &LinkMessage| Link {
            name: name(message),
            kind: kind(message),
            bridge: bridge_of(message),
            ours: ours(message),
            up: message.header.flags.contains(LinkFlags::Up),
            addresses: of(message).filter_map(ipv4).collect(),
            addresses6: of(message).filter_map(ipv6).collect(),
        };
        Ok(messages.iter().map(link).collect())
    }
}

/// One conversation with the kernel. The socket closes when this is dropped.
pub(super) struct Netlink {
    pub(super) handle: Handle,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// One in which the kernel lists no more than was asked for.
    pub(super) fn open_strict() -> Result<Self, LinkError> {
        let opened = rtnetlink::new_connection_with_strict_check();
        let (connection, handle, _) = opened.map_err(LinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match links.try_next().await {
            Ok(found) => Ok(found),
            Err(error) if code(&error) == Some(NO_DEVICE) => Ok(None),
            Err(error) => Err(kernel(format!("looking for {name}"))(error)),
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<LinkMessage, LinkError> {
        self.find(name).await?.ok_or_else(|| LinkError::NoInterface(name.to_owned()))
    }

    pub(super) async fn set(&self, doing: String, message: LinkMessage) -> Result<(), LinkError> {
        self.handle.link().set(message).execute().await.map_err(kernel(doing))
    }

    /// Makes a bridge that is down and marked as ours. Another of our daemons may do the same at this moment.
    async fn create_bridge(&self, name: &str) -> Result<(), LinkError> {
        let bridge = LinkMessageBuilder::<LinkBridge>::new(name).stp_state(BridgeStpState::Disabled).forward_delay(0);
        match self.add(bridge.build()).await {
            Err(error) if code(&error) == Some(EXISTS) => return Ok(()),
            created => created.map_err(kernel(format!("creating bridge {name}")))?,
        }
        hit(Point::LinkBridgeMade);
        self.mark(name).await
    }

    /// Makes an interface that is known as ours from its first moment.
    pub(super) async fn add(&self, mut link: LinkMessage) -> Result<(), rtnetlink::Error> {
        link.attributes.push(LinkAttribute::Group(GROUP));
        self.handle.link().add(link).execute().await
    }

    /// Says for all to read that an interface was made by us.
    pub(super) async fn mark(&self, name: &str) -> Result<(), LinkError> {
        self.set(format!("marking {name}"), LinkUnspec::new_with_name(name).alias(MARK).build()).await
    }

    /// The same where a former process did not come to it. Returns whether it was so.
    pub(super) async fn ensure_marked(&self, link: &LinkMessage) -> Result<bool, LinkError> {
        if link.attributes.contains(&alias()) {
            return Ok(false);
        }
        self.mark(&name(link)).await.map(|()| true)
    }

    /// Sets an interface up if it is not. Returns whether it was down.
    pub(super) async fn ensure_up(&self, link: &LinkMessage) -> Result<bool, LinkError> {
        if link.header.flags.contains(LinkFlags::Up) {
            return Ok(false);
        }
        let up = LinkUnspec::new_with_index(link.header.index).up().build();
        self.set(format!("setting {} up", name(link)), up).await?;
        Ok(true)
    }

    /// Makes every attribute of a bridge of ours what it should be.
    async fn settle(&self, found: &LinkMessage, wanted: &Bridge) -> Result<bool, LinkError> {
        let name = &wanted.name;
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
        let mut changed = self.ensure_marked(found).await?;
        let unlike = |info: &InfoBridge| match info {
            InfoBridge::StpState(state) => *state != BridgeStpState::Disabled,
            InfoBridge::ForwardDelay(delay) => *delay != 0,
            _ => false,
        };
        if bridge_info(found).iter().any(unlike) {
            let bridge = LinkMessageBuilder::<LinkBridge>::new(name);
            let bridge = bridge.stp_state(BridgeStpState::Disabled).forward_delay(0).build();
            let asked = self.handle.link().change(bridge).execute().await;
            asked.map_err(kernel(format!("turning off the spanning tree of {name}")))?;
            changed = true;
        }
        let set = LinkUnspec::new_with_index(found.header.index);
        if let Some(mtu) = wanted.mtu.filter(|mtu| !found.attributes.contains(&LinkAttribute::Mtu(*mtu))) {
            self.set(format!("setting the MTU of {name}"), set.mtu(mtu).build()).await?;
            changed = true;
        }
        // Without one of its own a bridge borrows the hardware address of a port and changes it as guests come and go,
        // and guests keep the old one of their router for minutes. From the gateway it is the same on any network host.
        if let Some(gateway) = wanted.address {
            let address = LinkAttribute::Address(router_mac(gateway.addr()).bytes().to_vec());
            if let LinkAttribute::Address(bytes) = &address
                && !found.attributes.contains(&address)
            {
                let set = LinkUnspec::new_with_index(found.header.index).address(bytes.clone()).build();
                self.set(format!("setting the hardware address of {name}"), set).await?;
                changed = true;
            }
        }
        settle_ipv6(found, wanted)?;
        Ok(changed)
    }

    /// Gives a bridge that was a gateway's a hardware address of its own: the gateway's goes with it to another host, and
    /// what is sent there from this one would stay here.
    async fn forget_gateway(&self, link: &LinkMessage, gateway: Ipv4Addr) -> Result<(), LinkError> {
        if !ours(link) || !link.attributes.contains(&LinkAttribute::Address(router_mac(gateway).bytes().to_vec())) {
            return Ok(());
        }
        // The router's addresses of IPv6 go with it, and the one on the link follows from the hardware address.
        sysctl::set_if_there(&format!("net/ipv6/conf/{}/disable_ipv6", name(link)), "1")?;
        let [a, b, c, d] = rand::random();
        let set = LinkUnspec::new_with_index(link.header.index).address(vec![0x06, 0x6f, a, b, c, d]).build();
        self.set(format!("setting the hardware address of {}", name(link)), set).await
    }

    async fn has_address(&self, index: u32, wanted: IpNet) -> Result<bool, LinkError> {
        Ok(self.address_messages(Some(index)).await?.iter().any(|message| ip(message) == Some(wanted)))
    }

    pub(super) async fn ensure_address(
        &self,
        index: u32,
        name: &str,
        wanted: impl Into<IpNet>,
    ) -> Result<bool, LinkError> {
        let wanted = wanted.into();
        if self.has_address(index, wanted).await? {
            return Ok(false);
        }
        let mut add = self.handle.address().add(index, wanted.addr(), wanted.prefix_len());
        if let IpNet::V6(_) = wanted {
            // It is to be there at once, also on a bridge without a port, where nobody could be asked whether it is free.
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        match add.execute().await {
            Err(error) if code(&error) == Some(EXISTS) => Ok(false),
            added => added.map(|()| true).map_err(kernel(format!("adding {wanted} to {name}"))),
        }
    }

    pub(super) async fn delete_address(&self, name: &str, message: AddressMessage) -> Result<(), LinkError> {
        match self.handle.address().del(message).execute().await {
            Err(error) if code(&error) == Some(NO_ADDRESS) => Ok(()),
            deleted => deleted.map_err(kernel(format!("taking an address from {name}"))),
        }
    }

    pub(super) async fn address_messages(&self, index: Option<u32>) -> Result<Vec<AddressMessage>, LinkError> {
        let Some(index) = index else {
            return self.handle.address().get().execute().try_collect().await.map_err(kernel("listing addresses"));
        };
        // The kernel would list those of all interfaces, and each network is looked at in each turn.
        let strict = Self::open_strict()?;
        let mut get = strict.handle.address().get();
        get.message_mut().header.index = index;
        let mut all: Vec<AddressMessage> = get.execute().try_collect().await.map_err(kernel("listing addresses"))?;
        all.retain(|message| message.header.index == index);
        Ok(all)
    }
}

/// Lets a bridge of ours speak IPv6 or not. The address on its link follows from its hardware address, which it must have.
fn settle_ipv6(found: &LinkMessage, wanted: &Bridge) -> Result<(), LinkError> {
    let setting = |name: &str| format!("net/ipv6/conf/{}/{name}", wanted.name);
    let new = !found.header.flags.contains(LinkFlags::Up);
    match (wanted.address, wanted.address6) {
        (_, Some(_)) => {
            // Whoever serves the network has its address; nobody is to be asked for it.
            sysctl::set(&setting("accept_dad"), "0")?;
            sysctl::set(&setting("disable_ipv6"), "0")?;
        }
        // A host that only carries guests may serve the network too, by another daemon, which knows more.
        (None, None) if !new => {}
        _ => sysctl::set_if_there(&setting("disable_ipv6"), "1")?,
    }
    Ok(())
}

pub(super) fn kernel(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let doing = doing.into();
    move |source| LinkError::Kernel { doing, source: Box::new(source) }
}

/// The kernel's error number, negative.
pub(super) fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(std::num::NonZero::get),
        _ => None,
    }
}

pub(super) fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

pub(super) fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

pub(super) fn ipv4(message: &AddressMessage) -> Option<Ipv4Net> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    Ipv4Net::new(local?, message.header.prefix_len).ok()
}

fn ip(message: &AddressMessage) -> Option<IpNet> {
    ipv4(message).map(IpNet::V4).or_else(|| ipv6(message).map(IpNet::V6))
}

/// The kernel calls the own address `address` where there is no peer, as there never is with IPv6.
fn ipv6(message: &AddressMessage) -> Option<Ipv6Net> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
        _ => None,
    });
    Ipv6Net::new(address?, message.header.prefix_len).ok()
}

pub(super) fn ours(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::Group(GROUP)) || link.attributes.contains(&alias())
}

fn alias() -> LinkAttribute {
    LinkAttribute::IfAlias(MARK.to_owned())
}

pub(super) fn link_infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    })
}

fn is_bridge(link: &LinkMessage) -> bool {
    kind(link) == LinkKind::Bridge
}

pub(super) fn kind(link: &LinkMessage) -> LinkKind {
    let kind = link_infos(link).find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Bridge) => Some(LinkKind::Bridge),
        LinkInfo::Kind(InfoKind::Vlan | InfoKind::Vxlan) => Some(LinkKind::Segment),
        _ => None,
    });
    kind.unwrap_or(LinkKind::Other)
}

fn bridge_info(link: &LinkMessage) -> &[InfoBridge] {
    let info = link_infos(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Bridge(info)) => Some(info.as_slice()),
        _ => None,
    });
    info.unwrap_or_default()
}
