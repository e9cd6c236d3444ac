//! Hardware addresses, VLAN tags and address ranges.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use thiserror::Error;

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// A text that is not six colon-separated pairs of hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a hardware address (expected 02:16:3e:00:00:01)")]
pub struct ParseMacError(String);

impl Mac {
    /// Makes the address of a guest: old Nova's prefix `02:16:3e` and 23 `random` bits (nova-core §1.3).
    #[must_use]
    pub const fn of_guest(random: [u8; 3]) -> Self {
        Self([0x02, 0x16, 0x3e, random[0] & 0x7f, random[1], random[2]])
    }

    /// Returns the six bytes, first on the wire first.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let refused = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(refused)?;
        }
        if parts.next().is_some() { Err(refused()) } else { Ok(Self(bytes)) }
    }
}

/// An 802.1Q tag, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan(u16);

/// A number that is no VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a VLAN tag is a number from 1 to 4094, not {0}")]
pub struct VlanRange(pub i64);

impl Vlan {
    /// Returns the tag's number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Vlan {
    type Error = VlanRange;

    fn try_from(tag: i64) -> Result<Self, VlanRange> {
        match u16::try_from(tag) {
            Ok(number @ 1..=4094) => Ok(Self(number)),
            _ => Err(VlanRange(tag)),
        }
    }
}

/// What tells the frames of one network from those of others between hosts: the tag of a VLAN, or the number of a VXLAN
/// (its VNI), 1 to 2^24 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u32);

/// A number that tells no network from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the number of a VXLAN is 1 to 16777215, not {0}")]
pub struct TagRange(pub i64);

impl Tag {
    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Tag {
    type Error = TagRange;

    fn try_from(number: i64) -> Result<Self, TagRange> {
        match u32::try_from(number) {
            Ok(number @ 1..=0xff_ffff) => Ok(Self(number)),
            _ => Err(TagRange(number)),
        }
    }
}

impl From<Vlan> for Tag {
    fn from(vlan: Vlan) -> Self {
        Self(vlan.number().into())
    }
}

/// A VLAN has room for fewer than a VXLAN.
impl TryFrom<Tag> for Vlan {
    type Error = VlanRange;

    fn try_from(tag: Tag) -> Result<Self, VlanRange> {
        Self::try_from(i64::from(tag.number()))
    }
}

/// An address range as the guide writes them: host bits are dropped, as `192.168.0.0/12` means `192.160.0.0/12`.
///
/// # Errors
/// [`ParseRangeError`] when the text is not an IPv4 network, or is one without room for guests.
pub fn parse_range(text: &str) -> Result<Ipv4Net, ParseRangeError> {
    let range: Ipv4Net = text.trim().parse().map_err(|_| ParseRangeError(text.to_owned()))?;
    Ok(range.trunc())
}

/// A text that is not an IPv4 range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not an IPv4 range (expected 10.0.0.0/24)")]
pub struct ParseRangeError(String);

/// Whether the kernel takes `name` for an interface, and no path or option could be made of it.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

/// Returns the address `index` places after the start of `range`, or `None` past its end.
#[must_use]
pub fn nth(range: Ipv4Net, index: u32) -> Option<Ipv4Addr> {
    let address = u32::from(range.network()).checked_add(index)?;
    (address <= u32::from(range.broadcast())).then(|| Ipv4Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_and_written() {
        let mac = Mac::of_guest([0xff, 0x01, 0xaa]);
        assert_eq!(mac.to_string(), "02:16:3e:7f:01:aa");
        assert_eq!("02:16:3E:7f:01:AA".parse(), Ok(mac));
        for text in
            ["", "02:16:3e:7f:01", "02:16:3e:7f:01:aa:bb", "02-16-3e-7f-01-aa", "2:16:3e:7f:1:aa", "zz:16:3e:7f:01:aa"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_vlan_is_between_1_and_4094() {
        assert_eq!(Vlan::try_from(4094).map(Vlan::number), Ok(4094));
        for tag in [-1, 0, 4095, 70_000] {
            assert_eq!(Vlan::try_from(tag), Err(VlanRange(tag)));
        }
    }

    #[test]
    fn a_vxlan_has_24_bits_and_only_the_first_are_vlans_too() {
        for (number, vlan) in [(1, true), (4094, true), (4095, false), (16_777_215, false)] {
            let tag = Tag::try_from(number).unwrap();
            assert_eq!(i64::from(tag.number()), number);
            assert_eq!(Vlan::try_from(tag).map(Tag::from), if vlan { Ok(tag) } else { Err(VlanRange(number)) });
        }
        for number in [-1, 0, 16_777_216, i64::MAX] {
            assert_eq!(Tag::try_from(number), Err(TagRange(number)));
        }
    }

    #[test]
    fn a_name_of_an_interface_is_never_a_path_or_an_option() {
        for name in ["br100", "vlan7", "eth0.5", "tap0000001f"] {
            assert!(is_interface_name(name), "{name}");
        }
        for name in ["", "../x", "a/b", "-rf", ".", "..", "sixteen-letters-", "a b", "br\n"] {
            assert!(!is_interface_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_range_drops_host_bits() {
        assert_eq!(parse_range("192.168.0.0/12").unwrap().to_string(), "192.160.0.0/12");
        assert!(parse_range("10.0.0.0").is_err());
        assert_eq!(nth(parse_range("10.0.0.0/30").unwrap(), 3), Some(Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!(nth(parse_range("10.0.0.0/30").unwrap(), 4), None);
    }
}
