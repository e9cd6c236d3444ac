//! The hosts that a VXLAN leads to: entries of its forwarding table, by rtnetlink.
//!
//! What goes to all, or to a hardware address not heard of yet, is sent to each host that an entry of address zero names.
//! From what comes back the kernel learns which host has which address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tracing::info;

use super::kernel::{EXISTS, Netlink, code, ipv4, kernel, name};
use super::{LinkError, check_name};

/// Where VXLANs are spoken: IANA's port for them, of UDP.
pub(crate) const PORT: u16 = 4789;
/// What a frame grows by: headers of IPv4, UDP, VXLAN and Ethernet.
const OVERHEAD: u32 = 20 + 8 + 8 + 14;
const ETHERNET: u32 = 1500;
const LOOPBACK: &str = "lo";
const TO_ALL: [u8; 6] = [0; 6];
const NO_ENTRY: i32 = -2;

/// Returns the MTU within a VXLAN from an address of this machine.
pub(crate) async fn mtu(local: Ipv4Addr) -> Result<u32, LinkError> {
    let netlink = Netlink::open()?;
    Ok(mtu_over(&carrying(&netlink, local).await?))
}

/// Finds the interface that has an address.
pub(super) async fn carrying(netlink: &Netlink, local: Ipv4Addr) -> Result<LinkMessage, LinkError> {
    let addresses = netlink.address_messages(None).await?;
    let found = addresses.iter().find(|message| ipv4(message).is_some_and(|address| address.addr() == local));
    let index = found.ok_or(LinkError::NoAddress(local))?.header.index;
    let mut links = std::pin::pin!(netlink.handle.link().get().match_index(index).execute());
    let link = links.try_next().await.map_err(kernel(format!("looking for the interface of {local}")))?;
    link.ok_or(LinkError::NoAddress(local))
}

/// An address of loopback is reached by other hosts over some other interface.
pub(super) fn mtu_over(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let mtu = mtu.filter(|_| name(link) != LOOPBACK).unwrap_or(ETHERNET);
    mtu.saturating_sub(OVERHEAD)
}

/// Lists the hosts that a VXLAN floods to; none where there is no such interface.
pub(crate) async fn peers(interface: &str) -> Result<BTreeSet<Ipv4Addr>, LinkError> {
    check_name(interface)?;
    let netlink = Netlink::open_strict()?;
    let Some(link) = netlink.find(interface).await? else { return Ok(BTreeSet::new()) };
    let entries = entries(&netlink, link.header.index, interface).await?;
    Ok(entries.into_iter().filter(|entry| entry.mac == TO_ALL).map(|entry| entry.host).collect())
}

/// Makes the hosts that a VXLAN leads to exactly these, by adding and removing what differs. Returns how many differed.
pub(crate) async fn set_peers(interface: &str, wanted: &BTreeSet<Ipv4Addr>) -> Result<usize, LinkError> {
    check_name(interface)?;
    let netlink = Netlink::open_strict()?;
    let index = netlink.get(interface).await?.header.index;
    let (mut found, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries(&netlink, index, interface).await? {
        if !wanted.contains(&entry.host) {
            // Also what was learned: whoever has that address next is to get no frame.
            change(&netlink, index, interface, &entry, false).await?;
            gone.insert(entry.host);
        } else if entry.mac == TO_ALL {
            found.insert(entry.host);
        }
    }
    let mut new = 0;
    for host in wanted.difference(&found) {
        change(&netlink, index, interface, &Entry { mac: TO_ALL, host: *host }, true).await?;
        new += 1;
    }
    if new + gone.len() > 0 {
        info!(
            interface,
            hosts = wanted.len(),
            new,
            gone = gone.len(),
            "Interface {interface} leads to {} hosts.",
            wanted.len()
        );
    }
    Ok(new + gone.len())
}

/// Where frames to a hardware address go.
struct Entry {
    mac: [u8; 6],
    host: Ipv4Addr,
}

async fn entries(netlink: &Netlink, index: u32, interface: &str) -> Result<Vec<Entry>, LinkError> {
    let mut ask = netlink.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
    // The kernel heeds it when it is asked strictly.
    ask.message_mut().header.ifindex = index;
    let all: Vec<NeighbourMessage> =
        ask.execute().try_collect().await.map_err(kernel(format!("listing the hosts of {interface}")))?;
    Ok(all.iter().filter(|message| message.header.ifindex == index).filter_map(entry).collect())
}

/// None of what the bridge above knows of its port.
fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let (mut mac, mut host) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => host = Some(*address),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                host = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    Some(Entry { mac: mac?, host: host? })
}

/// Adds an entry or deletes it. Another of our daemons may do the same at this moment.
async fn change(netlink: &Netlink, index: u32, interface: &str, entry: &Entry, add: bool) -> Result<(), LinkError> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(entry.host)),
    ];
    let (message, flags) = if add {
        // There are several of address zero.
        (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_APPEND)
    } else {
        (RouteNetlinkMessage::DelNeighbour(message), 0)
    };
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let doing = || format!("changing the hosts of {interface}");
    let mut answers = netlink.handle.clone().request(request).map_err(kernel(doing()))?;
    while let Some(answer) = answers.next().await {
        let NetlinkPayload::Error(error) = answer.payload else { continue };
        let error = rtnetlink::Error::NetlinkError(error);
        match code(&error) {
            None | Some(EXISTS | NO_ENTRY) => {}
            Some(_) => return Err(kernel(doing())(error)),
        }
    }
    Ok(())
}
