//! Identifiers. Each kind is its own type, and its EC2 spelling is written once.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A text that does not spell an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not {article} {kind} id (expected {example})")]
pub struct ParseIdError {
    text: String,
    article: &'static str,
    kind: &'static str,
    example: &'static str,
}

/// Eight hexadecimal digits, as rows are numbered: above zero, and within what the database can hold.
fn parse_number(digits: &str) -> Option<u32> {
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok().filter(|number| i32::try_from(*number).is_ok())
}

macro_rules! ec2_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $article:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Wraps the number of a row.
            #[must_use]
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// Returns the number of the row.
            #[must_use]
            pub const fn number(self) -> u32 {
                self.0
            }

            /// Wraps the key of a row as databases hold it.
            #[must_use]
            pub const fn from_row(key: i32) -> Self {
                Self(key.unsigned_abs())
            }

            /// Returns the key of the row as databases hold it.
            #[must_use]
            pub const fn row(self) -> i32 {
                // Parsing refuses what does not fit, and rows are numbered by the database itself.
                self.0.cast_signed()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{:08x}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($prefix, "-")).and_then(parse_number).map(Self).ok_or_else(|| ParseIdError {
                    text: text.to_owned(),
                    article: $article,
                    kind: $kind,
                    example: concat!($prefix, "-0000000a"),
                })
            }
        }
    };
}

ec2_id!(
    /// A virtual machine.
    InstanceId, "i", "an", "instance"
);
ec2_id!(
    /// A block device that outlives instances.
    VolumeId, "vol", "a", "volume"
);
ec2_id!(
    /// A security group.
    SecurityGroupId, "sg", "a", "security group"
);
ec2_id!(
    /// A key pair.
    KeyPairId, "key", "a", "key pair"
);
ec2_id!(
    /// A network of fixed addresses; EC2 would call it a subnet.
    NetworkId, "subnet", "a", "network"
);

ec2_id!(
    /// A floating address that a project has.
    AllocationId, "eipalloc", "an", "allocation"
);

/// A floating address that an instance has: `eipassoc-`, the number of the address and that of the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId {
    /// The address.
    pub address: AllocationId,
    /// The instance.
    pub instance: InstanceId,
}

impl fmt::Display for AssociationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eipassoc-{:08x}{:08x}", self.address.number(), self.instance.number())
    }
}

impl FromStr for AssociationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let read = || {
            let (address, instance) = text.strip_prefix("eipassoc-")?.split_at_checked(8)?;
            Some(Self { address: AllocationId(parse_number(address)?), instance: InstanceId(parse_number(instance)?) })
        };
        read().ok_or_else(|| ParseIdError {
            text: text.to_owned(),
            article: "an",
            kind: "association",
            example: "eipassoc-0000000a0000000b",
        })
    }
}

/// What an image is for. It decides the first letters of the image's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKind {
    /// A root disk: `ami`.
    Machine,
    /// A kernel: `aki`.
    Kernel,
    /// An initial ramdisk: `ari`.
    Ramdisk,
}

impl ImageKind {
    /// Returns the prefix of ids of this kind.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Machine => "ami",
            Self::Kernel => "aki",
            Self::Ramdisk => "ari",
        }
    }

    /// Returns EC2's word for the kind, as in `imageType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
        }
    }

    /// Reads EC2's word for a kind.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Machine, Self::Kernel, Self::Ramdisk].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// An image. Spelled `ami-`, `aki-` or `ari-` and eight hexadecimal digits, as in Cactus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId {
    kind: ImageKind,
    number: u32,
}

impl ImageId {
    /// Names row `number`, an image of `kind`.
    #[must_use]
    pub const fn new(kind: ImageKind, number: u32) -> Self {
        Self { kind, number }
    }

    /// Names the row with key `key`, an image of `kind`.
    #[must_use]
    pub const fn from_row(kind: ImageKind, key: i32) -> Self {
        Self { kind, number: key.unsigned_abs() }
    }

    /// Returns what the image is for.
    #[must_use]
    pub const fn kind(self) -> ImageKind {
        self.kind
    }

    /// Returns the number of the row.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Returns the key of the row as databases hold it.
    #[must_use]
    pub const fn row(self) -> i32 {
        self.number.cast_signed()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.kind.prefix(), self.number)
    }
}

impl FromStr for ImageId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        [ImageKind::Machine, ImageKind::Kernel, ImageKind::Ramdisk]
            .into_iter()
            .find_map(|kind| {
                let number = text.strip_prefix(kind.prefix())?.strip_prefix('-').and_then(parse_number)?;
                Some(Self { kind, number })
            })
            .ok_or_else(|| ParseIdError {
                text: text.to_owned(),
                article: "an",
                kind: "image",
                example: "ami-0000000a",
            })
    }
}

/// The instances of one `RunInstances` call: `r-` and eight characters of `0-9a-z`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(String);

impl ReservationId {
    /// Spells an id from `random` bytes.
    #[must_use]
    pub fn from_random(random: [u8; 8]) -> Self {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let letters = random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        Self(std::iter::once('r').chain(['-']).chain(letters).collect())
    }

    /// Returns the id as EC2 spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReservationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let letters = text.strip_prefix("r-").unwrap_or_default();
        if letters.len() == 8 && letters.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseIdError { text: text.to_owned(), article: "a", kind: "reservation", example: "r-0a1b2c3d" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_spelled_and_read_back() {
        assert_eq!(InstanceId::new(10).to_string(), "i-0000000a");
        assert_eq!("i-0000000a".parse(), Ok(InstanceId::new(10)));
        assert_eq!("ari-000000ff".parse(), Ok(ImageId::new(ImageKind::Ramdisk, 255)));
        assert_eq!(ImageId::new(ImageKind::Kernel, 1).to_string(), "aki-00000001");
        assert_eq!(ReservationId::from_random([0, 1, 9, 10, 35, 36, 71, 255]).as_str(), "r-019az0z3");
    }

    #[test]
    fn an_association_names_the_address_and_the_instance() {
        let id = AssociationId { address: AllocationId::new(10), instance: InstanceId::new(11) };
        assert_eq!(id.to_string(), "eipassoc-0000000a0000000b");
        assert_eq!("eipassoc-0000000a0000000b".parse(), Ok(id));
        for text in [
            "",
            "eipassoc-0000000a",
            "eipassoc-0000000a0000000",
            "eipassoc-0000000a0000000bc",
            "eipassoc-00000éa0000000b",
        ] {
            assert!(text.parse::<AssociationId>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_id_of_the_kind_is_refused() {
        for text in
            ["", "i-", "i-a", "i-0000000g", "vol-0000000a", "i-00000000a", "0000000a", "i-ffffffff", "i-+000000a"]
        {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
        for text in ["ami-", "emi-0000000a", "i-0000000a", "ami-tiny"] {
            assert!(text.parse::<ImageId>().is_err(), "{text}");
        }
        assert!("r-UPPERCAS".parse::<ReservationId>().is_err());
    }

    #[test]
    fn a_refusal_says_what_was_expected() {
        let refused = "x".parse::<InstanceId>().unwrap_err();
        assert_eq!(refused.to_string(), "\"x\" is not an instance id (expected i-0000000a)");
    }
}
