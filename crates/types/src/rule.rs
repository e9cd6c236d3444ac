//! What a security group lets in.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

use crate::SecurityGroupId;

/// Which packets a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Every packet of every protocol; EC2 writes `-1`.
    All,
    /// TCP to a range of ports.
    Tcp(Ports),
    /// UDP to a range of ports.
    Udp(Ports),
    /// ICMP of one type and code, of one type, or any; of IPv6 where the source is.
    Icmp(Icmp),
    /// ICMPv6 likewise, and nothing of IPv4.
    Icmp6(Icmp),
}

/// Ports `from` to `to`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The lowest port.
    pub from: u16,
    /// The highest port.
    pub to: u16,
}

/// Which ICMP messages. A code is only ever given with a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Icmp {
    /// Every message: `-1/-1`.
    Any,
    /// Every message of a type: `8/-1`.
    Type(u8),
    /// The messages of a type and a code: `3/4`.
    TypeAndCode(u8, u8),
}

/// Who may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Every address in a range.
    Range(IpNet),
    /// The members of a group, of any project.
    Group(SecurityGroupId),
}

/// One thing that a group lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What is let in.
    pub traffic: Traffic,
    /// From whom.
    pub source: Source,
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The protocol is none that groups know.
    #[error("the protocol {0:?} is not tcp, udp, icmp, icmpv6 or -1")]
    Protocol(String),
    /// Ports were needed and not given.
    #[error("{0} needs FromPort and ToPort")]
    PortsMissing(&'static str),
    /// A port is not a port.
    #[error("{from} to {to} is not a range of ports within 0 to 65535")]
    Ports {
        /// The lowest port as given.
        from: i64,
        /// The highest port as given.
        to: i64,
    },
    /// An ICMP type or code is out of range.
    #[error("{kind}/{code} is not an ICMP type and code (each -1 to 255)")]
    Icmp {
        /// The type as given.
        kind: i64,
        /// The code as given.
        code: i64,
    },
    /// A rule of ICMPv6 has a range of IPv4.
    #[error("icmpv6 does not come from {0}, which is a range of IPv4")]
    Family(IpNet),
    /// The range is not one, or has bits set beyond its prefix.
    #[error("{0:?} is not a range of addresses (expected 10.0.0.0/8 with no host bits set)")]
    Range(String),
}

impl Traffic {
    /// Reads the protocol and the two numbers that EC2 sends with it.
    ///
    /// The protocol may be a word of any case or the IP protocol's number, `-1` for all. For ICMP the numbers are type
    /// and code. `-1` to `-1` and `0` to `65535` both mean every port.
    ///
    /// # Errors
    /// [`RuleError`] says which of the three is wrong.
    pub fn parse(protocol: &str, from: Option<i64>, to: Option<i64>) -> Result<Self, RuleError> {
        match protocol.to_ascii_lowercase().as_str() {
            "-1" | "all" => Ok(Self::All),
            "tcp" | "6" => Ports::parse("tcp", from, to).map(Self::Tcp),
            "udp" | "17" => Ports::parse("udp", from, to).map(Self::Udp),
            "icmp" | "1" => Icmp::parse(from.unwrap_or(-1), to.unwrap_or(-1)).map(Self::Icmp),
            "icmpv6" | "58" => Icmp::parse(from.unwrap_or(-1), to.unwrap_or(-1)).map(Self::Icmp6),
            _ => Err(RuleError::Protocol(protocol.to_owned())),
        }
    }

    /// Returns the protocol as the database and EC2 spell it.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::All => "-1",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Icmp(_) => "icmp",
            Self::Icmp6(_) => "icmpv6",
        }
    }

    /// Returns `FromPort` and `ToPort` as EC2 shows them; none when every protocol is meant.
    #[must_use]
    pub fn numbers(self) -> Option<(i32, i32)> {
        match self {
            Self::All => None,
            Self::Tcp(ports) | Self::Udp(ports) => Some((ports.from.into(), ports.to.into())),
            Self::Icmp(Icmp::Any) | Self::Icmp6(Icmp::Any) => Some((-1, -1)),
            Self::Icmp(Icmp::Type(kind)) | Self::Icmp6(Icmp::Type(kind)) => Some((kind.into(), -1)),
            Self::Icmp(Icmp::TypeAndCode(kind, code)) | Self::Icmp6(Icmp::TypeAndCode(kind, code)) => {
                Some((kind.into(), code.into()))
            }
        }
    }
}

impl Ports {
    /// Every port.
    pub const ALL: Self = Self { from: 0, to: u16::MAX };

    fn parse(protocol: &'static str, from: Option<i64>, to: Option<i64>) -> Result<Self, RuleError> {
        let (Some(from), Some(to)) = (from, to) else { return Err(RuleError::PortsMissing(protocol)) };
        if (from, to) == (-1, -1) {
            return Ok(Self::ALL);
        }
        match (u16::try_from(from), u16::try_from(to)) {
            (Ok(low), Ok(high)) if low <= high => Ok(Self { from: low, to: high }),
            _ => Err(RuleError::Ports { from, to }),
        }
    }
}

impl Icmp {
    fn parse(kind: i64, code: i64) -> Result<Self, RuleError> {
        let refused = RuleError::Icmp { kind, code };
        match (kind, code) {
            (-1, -1) => Ok(Self::Any),
            (_, -1) => u8::try_from(kind).map(Self::Type).map_err(|_| refused),
            _ => match (u8::try_from(kind), u8::try_from(code)) {
                (Ok(kind), Ok(code)) => Ok(Self::TypeAndCode(kind, code)),
                _ => Err(refused),
            },
        }
    }
}

impl Source {
    /// Everyone: `0.0.0.0/0`.
    pub const EVERYONE: Self = Self::Range(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));

    /// Reads a range. A bare address is a range of one.
    ///
    /// # Errors
    /// [`RuleError::Range`] when the text is no range, or host bits are set.
    pub fn range(text: &str) -> Result<Self, RuleError> {
        let refused = || RuleError::Range(text.to_owned());
        let range = if text.contains('/') {
            IpNet::from_str(text).map_err(|_| refused())?
        } else {
            IpNet::from(text.parse::<std::net::IpAddr>().map_err(|_| refused())?)
        };
        if range.trunc() == range { Ok(Self::Range(range)) } else { Err(refused()) }
    }
}

impl Rule {
    /// Puts traffic and source together.
    ///
    /// # Errors
    /// [`RuleError::Family`] where there is no such traffic from there.
    pub fn new(traffic: Traffic, source: Source) -> Result<Self, RuleError> {
        match (traffic, source) {
            (Traffic::Icmp6(_), Source::Range(range @ IpNet::V4(_))) => Err(RuleError::Family(range)),
            _ => Ok(Self { traffic, source }),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.numbers() {
            None => f.write_str("all"),
            Some((from, to)) if from == to => write!(f, "{} {from}", self.protocol()),
            Some((from, to)) => write!(f, "{} {from}-{to}", self.protocol()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_read_as_clients_write_it() {
        for (protocol, from, to, wanted) in [
            ("tcp", Some(22), Some(22), "tcp 22"),
            ("TCP", Some(0), Some(65535), "tcp 0-65535"),
            ("17", Some(53), Some(53), "udp 53"),
            ("udp", Some(-1), Some(-1), "udp 0-65535"),
            ("icmp", Some(-1), Some(-1), "icmp -1"),
            ("icmp", Some(8), Some(-1), "icmp 8--1"),
            ("icmp", Some(0), Some(0), "icmp 0"),
            ("icmp", None, None, "icmp -1"),
            ("58", Some(128), Some(0), "icmpv6 128-0"),
            ("-1", None, None, "all"),
        ] {
            assert_eq!(Traffic::parse(protocol, from, to).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn traffic_that_makes_no_sense_is_refused() {
        for (protocol, from, to) in [
            ("gre", None, None),
            ("tcp", None, Some(22)),
            ("tcp", Some(23), Some(22)),
            ("tcp", Some(-1), Some(22)),
            ("tcp", Some(0), Some(65536)),
            ("icmp", Some(256), Some(0)),
            ("icmp", Some(-1), Some(0)),
        ] {
            assert!(Traffic::parse(protocol, from, to).is_err(), "{protocol} {from:?} {to:?}");
        }
    }

    #[test]
    fn a_range_has_no_host_bits() {
        assert_eq!(Source::range("0.0.0.0/0"), Ok(Source::EVERYONE));
        assert_eq!(Source::range("10.1.2.3"), Source::range("10.1.2.3/32"));
        assert!(Source::range("::/0").is_ok());
        for text in ["10.0.0.1/8", "10.0.0.0/33", "", "café", "10.0.0/8"] {
            assert!(Source::range(text).is_err(), "{text}");
        }
    }
}
