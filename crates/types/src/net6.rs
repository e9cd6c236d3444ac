//! IPv6 as guests have it: a /64 for each network, and addresses that follow from hardware addresses (RFC 4291, RFC 4862).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::Ipv6Net;
use thiserror::Error;

use crate::Mac;

/// The length of a prefix to which hosts add an interface's identifier themselves.
const LENGTH: u8 = 64;
const INTERFACE_BITS: u32 = 64;
/// Flips the meaning of a hardware address's bit "administered here" (RFC 4291, appendix A).
const UNIVERSAL: u8 = 0x02;

/// The /64 of a network, from which each guest makes its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix64(Ipv6Net);

/// A text that is not a /64 of addresses for one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a /64 of IPv6 (expected fd00:0:0:1::/64)")]
pub struct ParsePrefixError(String);

impl Prefix64 {
    /// The prefix of every link by itself.
    pub const LINK_LOCAL: Self = Self(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), LENGTH));

    /// Returns the /64 that is `index` places after the start of `range`; none past its end, and none in a range that is
    /// longer than a /64 or not for single receivers.
    #[must_use]
    pub fn nth(range: Ipv6Net, index: u32) -> Option<Self> {
        let room = LENGTH.checked_sub(range.prefix_len())?;
        if u64::from(index).checked_shr(room.into()).unwrap_or(0) != 0 {
            return None;
        }
        let first = u128::from(range.network()) + (u128::from(index) << INTERFACE_BITS);
        Self::try_from(Ipv6Net::new_assert(Ipv6Addr::from(first), LENGTH)).ok()
    }

    /// Returns the address that an interface gives itself from this prefix.
    #[must_use]
    pub fn address_of(self, mac: Mac) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.0.network()) | u128::from(interface_id(mac)))
    }

    /// Returns the address of the network's host: the first.
    #[must_use]
    pub fn gateway(self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.0.network()) | 1)
    }

    /// Returns the range that holds the addresses of all guests, whose hardware addresses [`Mac::of_guest`] made, and no
    /// other's.
    #[must_use]
    pub fn guests(self) -> Ipv6Net {
        const RANDOM_BITS: u8 = 23;
        Ipv6Net::new_assert(self.address_of(Mac::of_guest([0; 3])), 128 - RANDOM_BITS)
    }

    /// Returns the prefix as a range.
    #[must_use]
    pub const fn range(self) -> Ipv6Net {
        self.0
    }
}

impl TryFrom<Ipv6Net> for Prefix64 {
    type Error = ParsePrefixError;

    fn try_from(range: Ipv6Net) -> Result<Self, ParsePrefixError> {
        let first = range.network();
        let usable = !first.is_multicast() && !first.is_unspecified() && !first.is_unicast_link_local();
        if range.prefix_len() == LENGTH && range.addr() == first && usable {
            Ok(Self(range))
        } else {
            Err(ParsePrefixError(range.to_string()))
        }
    }
}

impl FromStr for Prefix64 {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        text.parse::<Ipv6Net>().map_err(|_| ParsePrefixError(text.to_owned())).and_then(Self::try_from)
    }
}

impl fmt::Display for Prefix64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the address that an interface has on its own link.
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    Prefix64::LINK_LOCAL.address_of(mac)
}

/// Returns the hardware address from which an address was made, if it was.
#[must_use]
pub fn mac_of(address: Ipv6Addr) -> Option<Mac> {
    match address.octets() {
        [.., a, b, c, 0xff, 0xfe, d, e, f] => Some(Mac::from([a ^ UNIVERSAL, b, c, d, e, f])),
        _ => None,
    }
}

/// The hardware address of a bridge of ours that has a network's gateway. It follows from that address, so that it is the
/// same on whichever host serves the network.
#[must_use]
pub fn router_mac(gateway: Ipv4Addr) -> Mac {
    let [a, b, c, d] = gateway.octets();
    Mac::from([0x06, 0x6e, a, b, c, d])
}

/// Modified EUI-64: `ff:fe` in the middle, and one bit flipped.
fn interface_id(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.bytes();
    u64::from_be_bytes([a ^ UNIVERSAL, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix64 {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_made_of_a_prefix_and_a_hardware_address() {
        // RFC 4291, appendix A, writes the identifier of 34-56-78-9a-bc-de with the bit flipped as 36-56-78-ff-fe-9a-bc-de;
        // RFC 2464, section 4, that of the second.
        for (mac, expected) in [
            ("34:56:78:9a:bc:de", "fd00:0:0:1:3656:78ff:fe9a:bcde"),
            ("00:0d:60:11:22:33", "fd00:0:0:1:20d:60ff:fe11:2233"),
            ("02:16:3e:33:44:55", "fd00:0:0:1:16:3eff:fe33:4455"),
        ] {
            let mac: Mac = mac.parse().unwrap();
            let address = prefix("fd00:0:0:1::/64").address_of(mac);
            assert_eq!(address, expected.parse::<Ipv6Addr>().unwrap());
            assert_eq!((mac_of(address), mac_of(link_local(mac))), (Some(mac), Some(mac)));
        }
        assert_eq!(link_local("02:16:3e:33:44:55".parse().unwrap()).to_string(), "fe80::16:3eff:fe33:4455");
        assert_eq!(mac_of("fd00::1".parse().unwrap()), None);
    }

    #[test]
    fn every_guest_and_no_router_is_in_the_range_of_guests() {
        let prefix = prefix("fd00:0:0:1::/64");
        for random in [[0; 3], [0x7f, 0xff, 0xff], [0xff; 3]] {
            assert!(prefix.guests().contains(&prefix.address_of(Mac::of_guest(random))));
        }
        assert_eq!(prefix.guests().to_string(), "fd00::1:16:3eff:fe00:0/105");
        for other in [prefix.gateway(), prefix.address_of(router_mac(Ipv4Addr::new(10, 0, 0, 1)))] {
            assert!(!prefix.guests().contains(&other), "{other}");
        }
    }

    #[test]
    fn networks_are_cut_from_a_range_until_it_ends() {
        let nth = |range: &str, index| Prefix64::nth(range.parse().unwrap(), index).map(|prefix| prefix.to_string());
        assert_eq!(nth("fd00::/48", 0).as_deref(), Some("fd00::/64"));
        assert_eq!(nth("fd00::/48", 65_535).as_deref(), Some("fd00:0:0:ffff::/64"));
        assert_eq!(nth("fd00::/48", 65_536), None);
        assert_eq!(nth("2001:db8::1/64", 0).as_deref(), Some("2001:db8::/64"));
        assert_eq!(nth("2001:db8::/64", 1), None);
        assert_eq!(nth("::/0", u32::MAX).as_deref(), Some("0:0:ffff:ffff::/64"));
        for range in ["fd00::/65", "fe80::/10", "ff00::/8", "::/64"] {
            assert_eq!(nth(range, 0), None, "{range}");
        }
    }

    #[test]
    fn what_is_not_a_64_is_refused() {
        assert_eq!(prefix("fd00::/64").gateway().to_string(), "fd00::1");
        for text in ["", "fd00::", "fd00::/48", "fd00::1/64", "fe80::/64", "ff02::/64", "10.0.0.0/24", "::/64"] {
            assert!(text.parse::<Prefix64>().is_err(), "{text}");
        }
    }
}
