//! ARP packets, sent and read as they are on the wire.

use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, sendto};
use nova_types::Mac;
use socket2::{Domain, Protocol, Socket, Type};

const ETHERNET: u16 = 1;
/// The protocol number of ARP in an Ethernet frame.
const ARP: u16 = 0x0806;
const EVERYBODY: [u8; 6] = [0xff; 6];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// How often a question is asked and how long each waits for an answer. RFC 5227 has three as well, a second apart, for
/// networks of any kind; ours are one wire, and guests without a router wait for us.
const QUESTIONS: u32 = 3;
const WAIT: Duration = Duration::from_millis(350);

/// Says on `interface` that `address` is here: as a question and as an answer, for some believe only one of them.
/// Does nothing on an interface that is no Ethernet.
///
/// # Errors
/// What the kernel said.
pub(crate) fn announce(interface: &str, address: Ipv4Addr) -> io::Result<()> {
    let Some((link, mac)) = find(interface)? else { return Ok(()) };
    let socket = open(&link)?;
    for operation in [REQUEST, REPLY] {
        send(socket.as_raw_fd(), &link, &frame(operation, mac, address, EVERYBODY, address))?;
    }
    Ok(())
}

/// Asks who has `address`; returns the first that answers.
pub(super) fn who_has(interface: &str, address: Ipv4Addr) -> io::Result<Option<Mac>> {
    let (link, mac) = find(interface)?.ok_or(io::ErrorKind::NotFound)?;
    let mut socket = open(&link)?;
    let question = frame(REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], address);
    for _ in 0..QUESTIONS {
        send(socket.as_raw_fd(), &link, &question)?;
        let asked = Instant::now();
        while let Some(left) = WAIT.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; 60];
            match socket.read(&mut buffer) {
                Ok(length) => {
                    if let Some(holder) = buffer.get(..length).and_then(|packet| holder(packet, address)) {
                        return Ok(Some(holder));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// A socket for ARP on one interface, that hears what others send there.
fn open(link: &LinkAddr) -> io::Result<Socket> {
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ARP.to_be()))))?;
    bind(socket.as_raw_fd(), link)?;
    // Until it was bound it heard what is said on other interfaces, too.
    socket.set_nonblocking(true)?;
    while socket.read(&mut [0; 60]).is_ok() {}
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn send(socket: RawFd, link: &LinkAddr, frame: &[u8]) -> io::Result<()> {
    sendto(socket, frame, link, MsgFlags::empty())?;
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

/// An Ethernet frame to everybody with an ARP packet.
fn frame(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target_mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(EVERYBODY);
    frame.extend(mac);
    frame.extend(ARP.to_be_bytes());
    // For IPv4 over Ethernet.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

/// Who says in a frame that he has `address`, whether he asks or answers.
fn holder(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(12..).filter(|rest| rest.starts_with(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]))?;
    let sender: [u8; 4] = arp.get(16..20)?.try_into().ok()?;
    let mac: [u8; 6] = arp.get(10..16)?.try_into().ok()?;
    (Ipv4Addr::from(sender) == address).then_some(Mac::from(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_an_address_says_so_and_whoever_asks_for_it_does_not() {
        let (gateway, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 7));
        let mac = [2, 0x16, 0x3e, 0, 0, 1];
        for operation in [REQUEST, REPLY] {
            assert_eq!(holder(&frame(operation, mac, gateway, EVERYBODY, gateway), gateway), Some(Mac::from(mac)));
        }
        assert_eq!(
            holder(&frame(REPLY, mac, gateway, mac, other), gateway),
            Some(Mac::from(mac)),
            "the answer to another"
        );
        assert_eq!(holder(&frame(REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], gateway), gateway), None);
        assert_eq!(holder(&frame(REQUEST, mac, other, [0; 6], gateway), gateway), None);
        for length in 0..31 {
            assert_eq!(holder(&frame(REPLY, mac, gateway, mac, gateway)[..length], gateway), None, "cut at {length}");
        }
    }
}
