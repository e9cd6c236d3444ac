//! Where Nova meets the kernel's network: bridges and addresses ([`links`]) as each manager wants them ([`carrier`]),
//! VXLANs between hosts ([`tunnels`]), who else has an address ([`neighbours`]), the firewalls of compute hosts ([`guests`])
//! and of network hosts ([`gateway`]), and dnsmasq ([`dnsmasq`]).
//!
//! Each is a small trait with the real thing and, behind feature `fake`, one in memory that keeps the same contract.
//! Every call compares with what is there and changes only what differs, so a restart changes no packet's path.

pub mod carrier;
mod conntrack;
pub mod dnsmasq;
pub mod gateway;
pub mod guests;
mod icmp6;
pub mod links;
mod machine;
pub mod neighbours;
mod nft;
mod sysctl;
pub mod tunnels;

pub use machine::{MachineError, check_machine, may_change_network};
pub use sysctl::{SettingError, forward_ipv6_packets, forward_packets};
