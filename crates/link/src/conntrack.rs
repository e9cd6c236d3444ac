//! Forgets connections that a rule no longer allows. Groups only judge a connection's first packet, so without this a
//! revoked rule would let open connections go on.
//!
//! Spoken to the kernel directly (ctnetlink): the program `conntrack` is not everywhere.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

impl Flow {
    const fn family(self) -> u8 {
        match self {
            Self::To(end) | Self::From(end) | Self::As(end) => match end {
                IpAddr::V4(_) => AF_INET,
                IpAddr::V6(_) => AF_INET6,
            },
        }
    }
}

/// Connections by one of their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Flow {
    /// Opened towards this address, or one that is translated to it.
    To(IpAddr),
    /// Opened by this address.
    From(IpAddr),
    /// Opened by one that the other end knows by this address.
    As(IpAddr),
}

const HEADER_BYTES: usize = 16;
const NFGEN_BYTES: usize = 4;
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;
const NOT_FOUND: i32 = 2;

/// Forgets every connection that one of `flows` names, and says how many there were.
///
/// # Errors
/// What the kernel said; some may then be forgotten and others not.
pub(crate) async fn forget(flows: BTreeSet<Flow>) -> io::Result<usize> {
    tokio::task::spawn_blocking(move || forget_blocking(&flows)).await.map_err(io::Error::other)?
}

fn forget_blocking(flows: &BTreeSet<Flow>) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut doomed = Vec::new();
    for family in flows.iter().map(|flow| flow.family()).collect::<BTreeSet<u8>>() {
        socket.send(&message(GET, REQUEST | DUMP, family, &[]), 0)?;
        'dump: loop {
            let (datagram, _) = socket.recv_from_full()?;
            for (kind, body) in messages(&datagram) {
                match kind {
                    DONE => break 'dump,
                    ERROR => check(body)?,
                    _ => {
                        let named = body.get(NFGEN_BYTES..).and_then(|attributes| named(attributes, flows));
                        doomed.extend(named.map(|named| (family, named)));
                    }
                }
            }
        }
    }
    let mut forgotten = 0;
    for (family, attributes) in doomed {
        socket.send(&message(DELETE, REQUEST | ACK, family, &attributes), 0)?;
        let (datagram, _) = socket.recv_from_full()?;
        for (_, body) in messages(&datagram).filter(|(kind, _)| *kind == ERROR) {
            match check(body) {
                Ok(()) => forgotten += 1,
                // It ended by itself meanwhile.
                Err(error) if error.raw_os_error() == Some(NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

/// Returns the attributes that name this connection to the kernel, if it is one of `flows`.
fn named(connection: &[u8], flows: &BTreeSet<Flow>) -> Option<Vec<u8>> {
    let mut ends = [None; 4];
    let mut kept = Vec::new();
    for (kind, whole, value) in attributes(connection) {
        match kind {
            ORIGINAL => (ends[0], ends[1]) = addresses(value),
            REPLY => (ends[2], ends[3]) = addresses(value),
            _ => {}
        }
        if [ORIGINAL, ID, ZONE].contains(&kind) {
            kept.extend_from_slice(whole);
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
    }
    let is = |end: Option<IpAddr>, flow: fn(IpAddr) -> Flow| end.is_some_and(|end| flows.contains(&flow(end)));
    let named = is(ends[0], Flow::From) || is(ends[1], Flow::To) || is(ends[2], Flow::To) || is(ends[3], Flow::As);
    named.then_some(kept)
}

/// Reads source and destination of a tuple: its attribute 1 holds addresses, there 1 is the source and 2 the destination,
/// and those of IPv6 are 3 and 4.
fn addresses(tuple: &[u8]) -> (Option<IpAddr>, Option<IpAddr>) {
    let mut ends = (None, None);
    for (_, _, ip) in attributes(tuple).filter(|(kind, ..)| *kind == 1) {
        for (kind, _, value) in attributes(ip) {
            let v4 = || <[u8; 4]>::try_from(value).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
            let v6 = || <[u8; 16]>::try_from(value).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
            match kind {
                1 => ends.0 = v4(),
                2 => ends.1 = v4(),
                3 => ends.0 = v6(),
                4 => ends.1 = v6(),
                _ => {}
            }
        }
    }
    ends
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + NFGEN_BYTES + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

/// Splits a datagram into the types and bodies of its messages; stops at one that does not fit.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Splits attributes into type, whole attribute and value; stops at one that does not fit.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let (whole, value) = (rest.get(..length)?, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, whole, value))
    })
}

/// Reads the code of an error message; 0 is an acknowledgement.
fn check(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
        attribute(kind, &attribute(1, &[attribute(1, &from), attribute(2, &to)].concat()))
    }

    #[test]
    fn a_connection_is_known_by_both_ends_and_by_where_it_was_translated_to() {
        let (client, public, guest) = ([9, 9, 9, 9], [172, 16, 0, 5], [10, 0, 0, 3]);
        let nested = 0x8000;
        let mut connection = tuple(ORIGINAL | nested, client, public);
        connection.extend(tuple(REPLY | nested, guest, client));
        connection.extend(attribute(7, &[1, 2, 3]));
        connection.extend(attribute(ID, &[0, 0, 0, 7]));
        let named = |flow| named(&connection, &BTreeSet::from([flow]));
        let kept = named(Flow::To(guest.into())).unwrap();
        assert_eq!(attributes(&kept).map(|(kind, ..)| kind).collect::<Vec<_>>(), [ORIGINAL, ID]);
        assert!(named(Flow::To(public.into())).is_some() && named(Flow::From(client.into())).is_some());
        assert!(named(Flow::As(client.into())).is_some());
        for flow in
            [Flow::From(guest.into()), Flow::As(public.into()), Flow::To(client.into()), Flow::To([10, 0, 0, 4].into())]
        {
            assert!(named(flow).is_none(), "{flow:?}");
        }
    }

    #[test]
    fn a_connection_of_ipv6_is_known_by_its_ends() {
        let (client, guest) = (Ipv6Addr::LOCALHOST, "fd00::16:3eff:fe00:3".parse::<Ipv6Addr>().unwrap());
        let ends = [attribute(3, &client.octets()), attribute(4, &guest.octets())].concat();
        let connection = attribute(ORIGINAL, &attribute(1, &ends));
        let named = |flow| named(&connection, &BTreeSet::from([flow])).is_some();
        assert!(named(Flow::To(guest.into())) && named(Flow::From(client.into())));
        assert!(!named(Flow::From(guest.into())) && !named(Flow::To(client.into())));
    }

    #[test]
    fn cut_short_messages_end_the_reading() {
        let whole = message(GET, REQUEST, AF_INET, &attribute(ID, &[0, 0, 0, 7]));
        assert_eq!(messages(&whole).count(), 1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0, "an attribute shorter than its own header");
    }
}
