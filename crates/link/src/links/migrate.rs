//! Puts an interface that carries this machine's addresses on a bridge without cutting the machine off.
//!
//! Old Nova did it in the wrong order and lost all routes but the default one (nova-core §4.7). Here the addresses are
//! on the bridge before they leave the interface, every route follows, and a failure puts everything back.

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nova_failpoint::{Point, hit};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use tracing::{info, warn};

use super::LinkError;
use super::kernel::{Netlink, controller, ipv4, kernel, name};

/// An interface by index and name.
struct Port {
    index: u32,
    name: String,
}

pub(super) async fn attach(netlink: &Netlink, link: &LinkMessage, bridge: &LinkMessage) -> Result<(), LinkError> {
    let from = Port { index: link.header.index, name: name(link) };
    let to = Port { index: bridge.header.index, name: name(bridge) };
    let was_on = controller(link);
    if was_on != Some(to.index) {
        let set = LinkUnspec::new_with_index(from.index).controller(to.index).build();
        netlink.set(format!("putting {} on {}", from.name, to.name), set).await?;
        hit(Point::AttachJoined);
    }
    if !link.header.flags.contains(LinkFlags::Up) {
        let up = LinkUnspec::new_with_index(from.index).up().build();
        netlink.set(format!("setting {} up", from.name), up).await?;
    }
    let addresses = netlink.address_messages(Some(from.index)).await?;
    if was_on != Some(to.index) && addresses.iter().any(is_global_ipv6) {
        warn!(interface = %from.name, bridge = %to.name,
            "{} has IPv6 addresses, which stay there: this host is not reached by them while it is on {}.", from.name, to.name);
    }
    let addresses: Vec<Ipv4Net> = addresses.iter().filter_map(ipv4).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let routes = routes(netlink, from.index).await?;
    if let Err(error) = hand_over(netlink, &from, &to, &addresses, &routes).await {
        warn!(interface = %from.name, bridge = %to.name, "Handing addresses over failed; putting them back.");
        if let Err(undoing) = hand_over(netlink, &to, &from, &addresses, &routes).await {
            warn!(interface = %from.name, error = %undoing, "Addresses of {} could not be put back.", from.name);
        }
        if was_on.is_none() {
            let set = LinkUnspec::new_with_index(from.index).nocontroller().build();
            netlink.set(format!("taking {} from {}", from.name, to.name), set).await?;
        }
        return Err(error);
    }
    info!(interface = %from.name, bridge = %to.name, addresses = addresses.len(), routes = routes.len(),
        "Moved the addresses of {} to {}.", from.name, to.name);
    Ok(())
}

fn is_global_ipv6(address: &AddressMessage) -> bool {
    address.header.family == AddressFamily::Inet6 && address.header.scope == AddressScope::Universe
}

/// Moves addresses and routes. Those are moved while both have the addresses: whoever dies in between has lost none, and
/// goes on from there.
async fn hand_over(
    netlink: &Netlink,
    from: &Port,
    to: &Port,
    addresses: &[Ipv4Net],
    routes: &[RouteMessage],
) -> Result<(), LinkError> {
    for address in addresses {
        netlink.ensure_address(to.index, &to.name, *address).await?;
    }
    hit(Point::AttachAddressed);
    for route in routes {
        let mut route = route.clone();
        for attribute in &mut route.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                *index = to.index;
            }
        }
        let moved = netlink.handle.route().add(route).replace().execute().await;
        moved.map_err(kernel(format!("moving a route to {}", to.name)))?;
    }
    hit(Point::AttachRouted);
    for message in netlink.address_messages(Some(from.index)).await? {
        if ipv4(&message).is_some_and(|found| addresses.contains(&found)) {
            netlink.delete_address(&from.name, message).await?;
            hit(Point::AttachLeaving);
        }
    }
    hit(Point::AttachLeft);
    Ok(())
}

/// Finds the interface of the default route with the lowest metric.
pub(super) async fn default_route(netlink: &Netlink) -> Result<Option<u32>, LinkError> {
    let all = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let found = netlink.handle.route().get(all).execute().try_collect::<Vec<RouteMessage>>().await;
    let routes = found.map_err(kernel("listing routes"))?;
    let metric = |route: &RouteMessage| {
        let metric = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        metric.unwrap_or_default()
    };
    let interface = |route: &RouteMessage| {
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    };
    let is_default = |route: &&RouteMessage| {
        route.header.destination_prefix_length == 0
            && route.header.table == RouteHeader::RT_TABLE_MAIN
            && route.header.kind == RouteType::Unicast
    };
    Ok(routes.iter().filter(is_default).min_by_key(|route| metric(route)).and_then(interface))
}

/// Lists the routes over an interface that somebody set; the kernel makes its own from addresses.
///
/// Routes to a network come before routes through a gateway in it, for the kernel checks that it can be reached.
async fn routes(netlink: &Netlink, index: u32) -> Result<Vec<RouteMessage>, LinkError> {
    let all = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let found = netlink.handle.route().get(all).execute().try_collect::<Vec<RouteMessage>>().await;
    let mut routes = found.map_err(kernel("listing routes"))?;
    routes.retain(|route| {
        route.attributes.contains(&RouteAttribute::Oif(index)) && route.header.protocol != RouteProtocol::Kernel
    });
    routes.sort_by_key(|route| route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_))));
    Ok(routes)
}
