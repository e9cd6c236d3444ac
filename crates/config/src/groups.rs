//! The flags, in groups. The comment of a field is its flag's help.

mod api;
mod common;
mod compute;
mod endpoint;
mod identity;
mod network;
mod objectstore;

pub use api::ApiFlags;
pub use common::{BusFlags, CommonFlags, DatabaseFlags};
pub use compute::{ComputeFlags, ImageFlags, SchedulerFlags};
pub use endpoint::EndpointFlags;
pub use identity::IdentityFlags;
pub use network::{DhcpbridgeFlags, NetworkFlags};
pub use objectstore::ObjectstoreFlags;

use crate::known::Flag;

/// Makes a group: a struct with one field per flag, the list of the flags, and how to read them.
macro_rules! flags {
    (
        $heading:literal
        $(#[doc = $group_doc:literal])+
        $group:ident {
            $( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal $([$($alias:literal),+])?, )+
        }
    ) => {
        $(#[doc = $group_doc])+
        #[derive(Clone, Debug)]
        pub struct $group {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        impl $group {
            pub(crate) const FLAGS: &'static [crate::known::Flag] = &[ $(
                crate::known::Flag {
                    name: stringify!($name),
                    aliases: &[$($($alias),+)?],
                    kind: <$type as crate::value::FromFlag>::KIND,
                    default: $default,
                    help: concat!($($doc),+),
                    heading: $heading,
                },
            )+ ];

            pub(crate) fn read(reader: &crate::settings::Reader<'_>) -> Result<Self, crate::ConfigError> {
                Ok(Self { $($name: reader.value(stringify!($name))?),+ })
            }
        }
    };
}
use flags;

/// The groups of all programs.
pub(crate) fn all() -> [&'static [Flag]; 13] {
    [
        // First, so that a program's own group replaces its part of the same flags.
        DhcpbridgeFlags::FLAGS,
        CommonFlags::FLAGS,
        DatabaseFlags::FLAGS,
        BusFlags::FLAGS,
        EndpointFlags::FLAGS,
        endpoint::FORMER,
        ApiFlags::FLAGS,
        IdentityFlags::FLAGS,
        ImageFlags::FLAGS,
        ObjectstoreFlags::FLAGS,
        SchedulerFlags::FLAGS,
        NetworkFlags::FLAGS,
        ComputeFlags::FLAGS,
    ]
}
