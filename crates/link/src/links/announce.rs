//! Tells neighbours who has an address now (gratuitous ARP), so that nobody sends to the old holder for minutes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

const ETHERNET: u16 = 1;
const EVERYBODY: [u8; 6] = [0xff; 6];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Says on `interface` that `address` is here: as a question and as an answer, for some believe only one of them.
/// Does nothing on an interface that is no Ethernet.
///
/// # Errors
/// What the kernel said.
pub(super) fn announce(interface: &str, address: Ipv4Addr) -> io::Result<()> {
    let Some((link, mac)) = find(interface)? else { return Ok(()) };
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    for operation in [REQUEST, REPLY] {
        sendto(socket.as_raw_fd(), &frame(operation, mac, address), &link, MsgFlags::empty())?;
    }
    Ok(())
}

fn find(interface: &str) -> io::Result<Option<(LinkAddr, [u8; 6])>> {
    for found in getifaddrs()?.filter(|found| found.interface_name == interface) {
        let link = found.address.as_ref().and_then(|address| address.as_link_addr()).copied();
        if let Some(link) = link.filter(|link| link.hatype() == ETHERNET) {
            return Ok(link.addr().map(|mac| (link, mac)));
        }
    }
    Ok(None)
}

/// An Ethernet frame with an ARP packet in which sender and target are the same address.
fn frame(operation: u8, mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(EVERYBODY);
    frame.extend(mac);
    // ARP, for IPv4 over Ethernet.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(EVERYBODY);
    frame.extend(address.octets());
    frame
}
