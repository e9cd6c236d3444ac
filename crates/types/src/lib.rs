//! The words Nova is written in: ids, states and their transitions, flavors, addresses, rules, quotas, names.
//!
//! A value of one of these types is valid: it was parsed once, at the edge. Nothing here does I/O, knows a wire format
//! or a database, or reads a clock. Every other crate leans on this one, and this one on none of them.

pub mod account;
pub mod clock;
pub mod flavor;
pub mod ids;
pub mod image;
pub mod instance;
pub mod key_pair;
pub mod names;
pub mod net;
pub mod net6;
pub mod network;
pub mod plan;
pub mod quota;
pub mod rule;
pub mod security_group;
pub mod service;
pub mod state;

pub use clock::Clock;
pub use ids::{
    AllocationId, AssociationId, ImageId, ImageKind, InstanceId, KeyPairId, NetworkId, ParseIdError, ReservationId,
    SecurityGroupId, VolumeId,
};
pub use names::{GroupName, HostName, KeyName, NameError, ProjectId, UserId};
pub use net::{Mac, Tag, Vlan, VlanRange};
pub use net6::Prefix64;
