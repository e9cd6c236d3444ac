//! Ends connections that a rule no longer allows. Groups only judge a connection's first packet, so without this a
//! revoked rule would let open connections go on.
//!
//! Spoken to the kernel directly (ctnetlink): the program `conntrack` is not everywhere.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

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

/// An open connection, as the host that receives it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Who opened it.
    pub(crate) from: IpAddr,
    /// Where it leads after translation.
    pub(crate) to: IpAddr,
    /// What it carries.
    pub(crate) carries: Carries,
}

/// The protocol of a connection, with what rules may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// To this port, after translation.
    Tcp(u16),
    /// From the first to the second port, after translation.
    Udp(u16, u16),
    /// A question of this type and code.
    Icmp(u8, u8),
    /// The same of IPv6.
    Icmp6(u8, u8),
    /// Anything else.
    Other,
}

/// A connection that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Who is connected; none where that is neither IPv4 nor IPv6.
    pub(crate) connection: Option<Connection>,
    /// Whether one of the flows names it.
    pub(crate) named: bool,
    /// Whether it is cut.
    pub(crate) cut: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// It bears the mark [`CUT`] from now on, by which rules drop what either end sends.
    IsCut,
    /// It bears the mark no longer.
    GoesOn,
    /// The kernel forgets it.
    Ends,
}

/// Decides about each connection.
pub(crate) type Judgement = Box<dyn Fn(&Seen) -> Fate + Send>;

/// How many connections there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// How many were cut or forgotten.
    pub(crate) ended: usize,
    /// How many bear the mark now.
    pub(crate) cut: usize,
}

/// The bit of a connection's mark that is ours.
pub(crate) const CUT: u32 = 0x0100_0000;

const HEADER_BYTES: usize = 16;
const NFGEN_BYTES: usize = 4;
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const CHANGE: u16 = SUBSYSTEM;
const DELETE: u16 = SUBSYSTEM | 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ANY: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;
const NOT_FOUND: i32 = 2;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// Forgets every connection that one of `flows` names.
///
/// # Errors
/// What the kernel said; some may then be forgotten and others not.
pub(crate) async fn forget(flows: BTreeSet<Flow>) -> io::Result<usize> {
    let judgement = Box::new(|seen: &Seen| if seen.named { Fate::Ends } else { Fate::Stays });
    Ok(sweep(flows, judgement).await?.ended)
}

/// Looks at all connections, and does with each as `judgement` says.
///
/// # Errors
/// What the kernel said; some may then be done with and others not.
pub(crate) async fn sweep(flows: BTreeSet<Flow>, judgement: Judgement) -> io::Result<Swept> {
    tokio::task::spawn_blocking(move || sweep_blocking(&flows, &judgement)).await.map_err(io::Error::other)?
}

fn sweep_blocking(flows: &BTreeSet<Flow>, judgement: &Judgement) -> io::Result<Swept> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let (mut swept, mut changes) = (Swept::default(), Vec::new());
    socket.send(&message(GET, REQUEST | DUMP, ANY, &[]), 0)?;
    'dump: loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                DONE => break 'dump,
                ERROR => check(body)?,
                _ => {}
            }
            let Some(entry) = body.get(NFGEN_BYTES..).filter(|_| kind != ERROR).map(|it| Entry::read(it, flows)) else {
                continue;
            };
            let fate = judgement(&entry.seen);
            swept.cut += usize::from(fate == Fate::IsCut || (fate == Fate::Stays && entry.seen.cut));
            swept.ended += usize::from(fate == Fate::Ends || (fate == Fate::IsCut && !entry.seen.cut));
            changes.extend(entry.change(fate));
        }
    }
    for change in changes {
        socket.send(&change, 0)?;
        let (datagram, _) = socket.recv_from_full()?;
        for (_, body) in messages(&datagram).filter(|(kind, _)| *kind == ERROR) {
            match check(body) {
                // It may have ended by itself meanwhile.
                Err(error) if error.raw_os_error() != Some(NOT_FOUND) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(swept)
}

/// A connection as the kernel lists it.
struct Entry {
    seen: Seen,
    family: u8,
    /// What names it to the kernel: as it began, its id, its zone.
    began: Vec<u8>,
    id: Vec<u8>,
    zone: Vec<u8>,
}

impl Entry {
    fn read(connection: &[u8], flows: &BTreeSet<Flow>) -> Self {
        let (mut asked, mut answered, mut mark) = (Tuple::default(), Tuple::default(), 0);
        let (mut began, mut id, mut zone) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, whole, value) in attributes(connection) {
            match kind {
                ORIGINAL => (asked, began) = (Tuple::read(value), padded(whole)),
                REPLY => answered = Tuple::read(value),
                MARK => mark = <[u8; 4]>::try_from(value).map_or(0, u32::from_be_bytes),
                ID => id = padded(whole),
                ZONE => zone = padded(whole),
                _ => {}
            }
        }
        let is = |end: Option<IpAddr>, flow: fn(IpAddr) -> Flow| end.is_some_and(|end| flows.contains(&flow(end)));
        let named = is(asked.source, Flow::From)
            || is(asked.destination, Flow::To)
            || is(answered.source, Flow::To)
            || is(answered.destination, Flow::As);
        let seen = Seen { connection: asked.answered_by(&answered), named, cut: mark & CUT != 0 };
        let family = if asked.source.is_some_and(|source| source.is_ipv6()) { AF_INET6 } else { AF_INET };
        Self { seen, family, began, id, zone }
    }

    /// The message that lets the kernel do as was decided, if it is to do anything.
    fn change(&self, fate: Fate) -> Option<Vec<u8>> {
        let marked = |mark: u32| {
            let mark = [attribute(MARK, &mark.to_be_bytes()), attribute(MARK_MASK, &CUT.to_be_bytes())].concat();
            message(CHANGE, REQUEST | ACK, self.family, &[&self.began[..], &self.zone, &mark].concat())
        };
        match fate {
            Fate::IsCut if !self.seen.cut => Some(marked(CUT)),
            Fate::GoesOn if self.seen.cut => Some(marked(0)),
            Fate::Ends => {
                let names = [&self.began[..], &self.id, &self.zone].concat();
                Some(message(DELETE, REQUEST | ACK, self.family, &names))
            }
            Fate::Stays | Fate::IsCut | Fate::GoesOn => None,
        }
    }
}

fn padded(attribute: &[u8]) -> Vec<u8> {
    let mut padded = attribute.to_vec();
    padded.resize(padded.len().next_multiple_of(4), 0);
    padded
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    padded(&[&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat())
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    ports: (u16, u16),
    icmp: (u8, u8),
}

impl Tuple {
    /// Reads a tuple: its attribute 1 holds addresses, there 1 is the source and 2 the destination, 3 and 4 those of IPv6;
    /// its attribute 2 the protocol, there 1 is its number, 2 and 3 are ports, 5 and 6 ICMP's type and code, 8 and 9 those
    /// of ICMPv6.
    fn read(tuple: &[u8]) -> Self {
        let mut read = Self::default();
        let nested = |wanted| attributes(tuple).filter(move |(kind, ..)| *kind == wanted);
        for (kind, _, value) in nested(1).flat_map(|(_, _, ip)| attributes(ip)) {
            let v4 = || <[u8; 4]>::try_from(value).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
            let v6 = || <[u8; 16]>::try_from(value).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
            match kind {
                1 => read.source = v4(),
                2 => read.destination = v4(),
                3 => read.source = v6(),
                4 => read.destination = v6(),
                _ => {}
            }
        }
        for (kind, _, value) in nested(2).flat_map(|(_, _, protocol)| attributes(protocol)) {
            let number = value.first().copied().unwrap_or_default();
            let port = <[u8; 2]>::try_from(value).map_or(0, u16::from_be_bytes);
            match kind {
                1 => read.protocol = number,
                2 => read.ports.0 = port,
                3 => read.ports.1 = port,
                5 | 8 => read.icmp.0 = number,
                6 | 9 => read.icmp.1 = number,
                _ => {}
            }
        }
        read
    }

    /// The connection that began with this and is answered by the other.
    fn answered_by(&self, answer: &Self) -> Option<Connection> {
        let carries = match self.protocol {
            ICMP => Carries::Icmp(self.icmp.0, self.icmp.1),
            ICMP6 => Carries::Icmp6(self.icmp.0, self.icmp.1),
            TCP => Carries::Tcp(answer.ports.0),
            UDP => Carries::Udp(answer.ports.1, answer.ports.0),
            _ => Carries::Other,
        };
        Some(Connection { from: self.source?, to: answer.source?, carries })
    }
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
        let read = |flow| Entry::read(&connection, &BTreeSet::from([flow]));
        let entry = read(Flow::To(guest.into()));
        let kinds = |change: Option<Vec<u8>>| {
            let change = change.unwrap();
            let (kind, body) = messages(&change).next().unwrap();
            (kind, attributes(&body[NFGEN_BYTES..]).map(|(kind, ..)| kind).collect::<Vec<_>>())
        };
        assert_eq!(kinds(entry.change(Fate::Ends)), (DELETE, vec![ORIGINAL, ID]));
        assert_eq!(kinds(entry.change(Fate::IsCut)), (CHANGE, vec![ORIGINAL, MARK, MARK_MASK]));
        assert_eq!((entry.change(Fate::Stays), entry.change(Fate::GoesOn)), (None, None), "it is not cut");
        for (flow, named) in [
            (Flow::To(guest.into()), true),
            (Flow::To(public.into()), true),
            (Flow::From(client.into()), true),
            (Flow::As(client.into()), true),
            (Flow::From(guest.into()), false),
            (Flow::As(public.into()), false),
            (Flow::To(client.into()), false),
            (Flow::To([10, 0, 0, 4].into()), false),
        ] {
            assert_eq!(read(flow).seen.named, named, "{flow:?}");
        }
    }

    #[test]
    fn what_a_connection_carries_and_its_mark_are_read() {
        let (client, public, guest) = ([9, 9, 9, 9], [172, 16, 0, 5], [10, 0, 0, 3]);
        let ports = |number: u8, from: u16, to: u16| {
            let parts = [attribute(1, &[number]), attribute(2, &from.to_be_bytes()), attribute(3, &to.to_be_bytes())];
            attribute(2, &parts.concat())
        };
        let icmp = [attribute(1, &[1]), attribute(4, &[0, 9]), attribute(5, &[8]), attribute(6, &[0])];
        let icmp = attribute(2, &icmp.concat());
        let other = attribute(2, &attribute(1, &[47]));
        let with = |kind, from, to, protocol: &[u8]| attribute(kind, &[&tuple(1, from, to)[4..], protocol].concat());
        for (mark, asked, answered, carries) in [
            (0, ports(6, 4000, 1000), ports(6, 22, 4000), Carries::Tcp(22)),
            (CUT | 5, ports(17, 67, 1000), ports(17, 68, 67), Carries::Udp(67, 68)),
            (!CUT, icmp.clone(), icmp, Carries::Icmp(8, 0)),
            (CUT, other.clone(), other, Carries::Other),
        ] {
            let mut bytes = with(ORIGINAL, client, public, &asked);
            bytes.extend(with(REPLY, guest, client, &answered));
            bytes.extend(attribute(MARK, &mark.to_be_bytes()));
            let connection = Some(Connection { from: IpAddr::from(client), to: IpAddr::from(guest), carries });
            let seen = Entry::read(&bytes, &BTreeSet::new()).seen;
            assert_eq!(seen, Seen { connection, named: false, cut: mark & CUT != 0 });
        }
    }

    #[test]
    fn a_connection_of_ipv6_is_known_by_its_ends_and_named_to_the_kernel_as_such() {
        let (client, guest) = (Ipv6Addr::LOCALHOST, "fd00::16:3eff:fe00:3".parse::<Ipv6Addr>().unwrap());
        let echo = attribute(2, &[attribute(1, &[ICMP6]), attribute(8, &[128]), attribute(9, &[0])].concat());
        let ends = |from: Ipv6Addr, to: Ipv6Addr| [attribute(3, &from.octets()), attribute(4, &to.octets())].concat();
        let tuple = |from, to| [attribute(1, &ends(from, to)), echo.clone()].concat();
        let mut connection = attribute(ORIGINAL, &tuple(client, guest));
        connection.extend(attribute(REPLY, &tuple(guest, client)));
        let read = |flow| Entry::read(&connection, &BTreeSet::from([flow]));
        let entry = read(Flow::To(guest.into()));
        let wanted = Connection { from: client.into(), to: guest.into(), carries: Carries::Icmp6(128, 0) };
        assert_eq!(entry.seen, Seen { connection: Some(wanted), named: true, cut: false });
        assert!(read(Flow::From(client.into())).seen.named && !read(Flow::From(guest.into())).seen.named);
        assert_eq!(entry.change(Fate::Ends).unwrap()[HEADER_BYTES], AF_INET6);
    }

    #[test]
    fn cut_short_messages_end_the_reading() {
        let whole = message(GET, REQUEST, ANY, &attribute(ID, &[0, 0, 0, 7]));
        assert_eq!(messages(&whole).count(), 1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0, "an attribute shorter than its own header");
    }
}
