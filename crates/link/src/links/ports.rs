//! Whether an interface leads to other machines.

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoPortData, LinkFlags, LinkInfo, LinkMessage, State,
};

use super::LinkError;
use super::kernel::{Netlink, controller, link_infos};

/// Whether what is sent on `interface` gets to others: by `uplink`, which must be its port and let frames through, or where
/// there is none to whoever is on it.
pub(crate) async fn leads_somewhere(interface: &str, uplink: Option<&str>) -> Result<bool, LinkError> {
    let netlink = Netlink::open()?;
    let Some(link) = netlink.find(interface).await? else { return Ok(false) };
    if !link.header.flags.contains(LinkFlags::Up) {
        return Ok(false);
    }
    let Some(uplink) = uplink else { return Ok(true) };
    let Some(port) = netlink.find(uplink).await? else { return Ok(false) };
    Ok(controller(&port) == Some(link.header.index) && is_plugged_in(&port) && forwards(&port))
}

/// The kernel may still say that an interface is up that has not told its bridge yet.
fn is_plugged_in(port: &LinkMessage) -> bool {
    use rtnetlink::packet_route::link::LinkAttribute::OperState;
    let up = port.attributes.iter().any(|a| matches!(a, OperState(State::Up | State::Unknown)));
    up && port.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
}

fn forwards(port: &LinkMessage) -> bool {
    link_infos(port).any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => {
            attributes.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
        }
        _ => false,
    })
}
