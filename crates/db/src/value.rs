//! The values that statements take.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nova_types::{
    GroupName, HostName, ImageId, InstanceId, KeyName, KeyPairId, Mac, NetworkId, ProjectId, ReservationId,
    SecurityGroupId, UserId, Vlan,
};
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// One argument of a statement. `None` is NULL of that type (PostgreSQL wants to know which).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// INTEGER.
    Int(Option<i32>),
    /// BIGINT.
    Big(Option<i64>),
    /// VARCHAR or TEXT.
    Text(Option<String>),
    /// BOOLEAN.
    Bool(Option<bool>),
    /// DATETIME, UTC, to the microsecond.
    Time(Option<OffsetDateTime>),
    /// As many INTEGERs as there are, for a placeholder written `?..` (`where id in (?..)`).
    Ints(Vec<i32>),
    /// As many texts as there are, for `?..`.
    Texts(Vec<String>),
}

impl Value {
    /// How many placeholders the value fills.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Ints(many) => many.len(),
            Self::Texts(many) => many.len(),
            Self::Int(_) | Self::Big(_) | Self::Text(_) | Self::Bool(_) | Self::Time(_) => 1,
        }
    }
}

/// An instant as a DATETIME column holds it.
pub(crate) fn to_datetime(at: OffsetDateTime) -> PrimitiveDateTime {
    let utc = at.to_offset(UtcOffset::UTC);
    let micro = utc.replace_nanosecond(utc.microsecond() * 1000).unwrap_or(utc);
    PrimitiveDateTime::new(micro.date(), micro.time())
}

macro_rules! from {
    ($($from:ty => $variant:ident, $convert:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(Some($convert(value)))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )*};
}

from! {
    i32            => Int,  |v| v;
    u8             => Int,  i32::from;
    u16            => Int,  i32::from;
    i64            => Big,  |v| v;
    u32            => Big,  i64::from;
    &str           => Text, str::to_owned;
    String         => Text, |v| v;
    &String        => Text, String::clone;
    Ipv4Addr       => Text, |v: Ipv4Addr| v.to_string();
    Ipv4Net        => Text, |v: Ipv4Net| v.to_string();
    Mac            => Text, |v: Mac| v.to_string();
    ImageId        => Text, |v: ImageId| v.to_string();
    &ReservationId => Text, |v: &ReservationId| v.as_str().to_owned();
    &ProjectId     => Text, |v: &ProjectId| v.as_str().to_owned();
    &UserId        => Text, |v: &UserId| v.as_str().to_owned();
    &HostName      => Text, |v: &HostName| v.as_str().to_owned();
    &KeyName       => Text, |v: &KeyName| v.as_str().to_owned();
    &GroupName     => Text, |v: &GroupName| v.as_str().to_owned();
    InstanceId     => Int,  InstanceId::row;
    NetworkId      => Int,  NetworkId::row;
    SecurityGroupId => Int, SecurityGroupId::row;
    KeyPairId      => Int,  KeyPairId::row;
    Vlan           => Int,  |v: Vlan| i32::from(v.number());
    bool           => Bool, |v| v;
    OffsetDateTime => Time, |v| v;
}

macro_rules! from_ids {
    ($($id:ty),*) => {$(
        impl From<&[$id]> for Value {
            fn from(many: &[$id]) -> Self {
                Self::Ints(many.iter().map(|id| id.row()).collect())
            }
        }
    )*};
}
from_ids!(InstanceId, NetworkId, SecurityGroupId);

impl From<Vec<i32>> for Value {
    fn from(many: Vec<i32>) -> Self {
        Self::Ints(many)
    }
}

impl From<&[i32]> for Value {
    fn from(many: &[i32]) -> Self {
        Self::Ints(many.to_vec())
    }
}

impl From<Vec<String>> for Value {
    fn from(many: Vec<String>) -> Self {
        Self::Texts(many)
    }
}

impl From<&[String]> for Value {
    fn from(many: &[String]) -> Self {
        Self::Texts(many.to_vec())
    }
}
