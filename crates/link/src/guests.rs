//! The firewall of a compute host: who may pretend to be whom, and what security groups let in.
//!
//! Rules are keyed by names and addresses, never by interface numbers, so they hold before a guest's tap exists and
//! until they are taken away. Two tables carry them: `bridge nova_compute` lets each tap send only as the guest that it
//! belongs to, `inet nova_compute` gives each guest what its groups allow and nothing else. IPv6 is let through to
//! guests that have an address of it, and only where it is on.

#[cfg(feature = "fake")]
mod fake;
mod family;
mod judge;
mod kernel;
mod rules;
mod tables;

use async_trait::async_trait;
use nova_types::InstanceId;
use nova_types::security_group::HostFirewall;

#[cfg(feature = "fake")]
pub use fake::{FakeGuestFirewall, guest_firewall_contract};
pub use kernel::KernelGuestFirewall;

pub use crate::nft::FirewallError;

/// What a compute host asks of its firewall. Every call is one transaction: all of it holds, or nothing changed.
#[async_trait]
pub trait GuestFirewall: Send + Sync + std::fmt::Debug {
    /// Makes the rules of this host exactly these, whatever was there, by changing only what differs.
    ///
    /// # Errors
    /// [`FirewallError`]; what was there then still holds.
    async fn ensure(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError>;

    /// Makes the rules of this host exactly these by what differs from what was last applied, of which the kernel is not
    /// asked: one transaction whose cost does not grow with what stays. What others changed meanwhile stays, too, until
    /// the next [`ensure`](Self::ensure), unless the transaction does not fit it; then, and the first time, this is one.
    ///
    /// # Errors
    /// As of [`ensure`](Self::ensure).
    async fn advance(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError>;

    /// Sets the guests, groups and members that are named, and forgets those that are gone; the rest stays as it is.
    ///
    /// A group that a guest is in and that was never set lets nothing in.
    ///
    /// # Errors
    /// [`FirewallError::NotEnsured`] before the first [`ensure`](Self::ensure); else as there.
    async fn change(&self, change: &FirewallChange) -> Result<Changed, FirewallError>;
}

/// What holds for all guests of a cloud, by its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Guests of a project may always reach each other: `allow_project_net_traffic`.
    pub project_traffic: bool,
    /// IPv6 passes, under the same rules: `use_ipv6`. Else none of it does.
    pub ipv6: bool,
}

/// A change to some guests and groups of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallChange {
    /// What is new or different; each entry replaces the one of the same id.
    pub set: HostFirewall,
    /// The guests that are no longer here.
    pub gone: Vec<InstanceId>,
}

/// What a call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many nftables commands its transaction had; 0 when all was as it should be.
    pub commands: usize,
    /// How many connections were forgotten because a rule that had allowed them went away.
    pub forgotten: usize,
}
