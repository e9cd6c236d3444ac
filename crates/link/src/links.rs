//! Bridges and what is on them. Taps are made by the hypervisor; the firewall knows them by name before they exist.

#[cfg(feature = "fake")]
mod fake;
pub(crate) mod flood;
mod kernel;
mod migrate;
mod ports;
mod segments;

use std::net::{Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use ipnet::{Ipv4Net, Ipv6Net};
use nova_types::net::is_interface_name;
use nova_types::{Tag, Vlan, VlanRange};

#[cfg(feature = "fake")]
pub use fake::{FakeLinks, links_contract, segments_contract};
pub use kernel::KernelLinks;
pub(crate) use ports::leads_somewhere;

use crate::SettingError;

/// What the names of VXLANs begin with.
pub(crate) const VXLAN: &str = "vxlan";

/// What Nova asks of this machine's interfaces. Every call is idempotent.
#[async_trait]
pub trait Links: Send + Sync + std::fmt::Debug {
    /// Makes a bridge as described and up, or completes the one that is there. Returns whether anything changed.
    ///
    /// A bridge that we make has no spanning tree and no forward delay, speaks no IPv6 unless it has an address of it, and
    /// accepts no router's word, all before it is up. Of a bridge that somebody else made, only the addresses and being up
    /// are our business.
    ///
    /// # Errors
    /// [`LinkError`]; what was done before stays, and the next call goes on from there.
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<bool, LinkError>;

    /// Puts an interface on a bridge; one that carries addresses and routes hands them over to the bridge, all or none.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`] when either is missing; other [`LinkError`]s after everything was put back.
    async fn attach(&self, interface: &str, bridge: &str) -> Result<(), LinkError>;

    /// Makes an interface that carries one network between hosts, up, or finds it there. Returns whether anything changed.
    ///
    /// One that we made with other settings is made anew.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`] or [`LinkError::NoAddress`] when what it is to be on is missing, [`LinkError::Unsupported`] when the kernel does not
    /// know its kind, [`LinkError::Taken`] when something else has its name; other [`LinkError`]s.
    async fn ensure_segment(&self, segment: &Segment) -> Result<bool, LinkError>;

    /// Deletes such an interface if we made it. Returns whether it did.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn delete_segment(&self, name: &str) -> Result<bool, LinkError>;

    /// Takes an address away from an interface; nothing happens if either is not there.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn remove_address(&self, interface: &str, address: Ipv4Addr) -> Result<(), LinkError>;

    /// Gives an interface an address of its own, a /32, and tells all neighbours who has it now. Returns whether it was not
    /// there before.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`]; other [`LinkError`]s.
    async fn bind(&self, interface: &str, address: Ipv4Addr) -> Result<bool, LinkError>;

    /// Finds the interface of the default route: of several, the one that the kernel prefers.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn default_interface(&self) -> Result<Option<String>, LinkError>;

    /// Deletes a bridge that we made; one of somebody else's, or none, is left as it is. Returns whether it did.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn delete_bridge(&self, name: &str) -> Result<bool, LinkError>;

    /// Lists all interfaces.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn list(&self) -> Result<Vec<Link>, LinkError>;
}

/// A bridge as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name, at most 15 characters.
    pub name: String,
    /// The address of this machine on it, with the prefix of its network; none on a host that only carries guests.
    pub address: Option<Ipv4Net>,
    /// The same of IPv6. Where there is `address` and not this, the bridge speaks no IPv6.
    pub address6: Option<Ipv6Net>,
    /// Its MTU in bytes; the kernel's choice if none.
    pub mtu: Option<u32>,
}

/// An interface that carries one network between hosts: a port of its bridge on each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A VLAN (802.1Q) on an interface of this machine.
    Vlan {
        /// That interface.
        on: String,
        /// The tag of its frames.
        tag: Vlan,
    },
    /// A VXLAN over the addresses of hosts. What it floods to is said of it later: see [`crate::tunnels`].
    Vxlan {
        /// The address of this machine that its frames come from.
        local: Ipv4Addr,
        /// Its number: the VNI.
        vni: Tag,
    },
}

impl Segment {
    /// Its interface: `vlan<tag>`, as in old Nova, or `vxlan<vni>`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Vlan { tag, .. } => format!("vlan{}", tag.number()),
            Self::Vxlan { vni, .. } => format!("{VXLAN}{}", vni.number()),
        }
    }
}

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// Of the kinds of a [`Segment`].
    Segment,
    /// Anything else.
    Other,
}

/// An interface as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge it is on.
    pub bridge: Option<String>,
    /// Whether we made it.
    pub ours: bool,
    /// Whether it is up.
    pub up: bool,
    /// Its IPv4 addresses with their prefixes.
    pub addresses: Vec<Ipv4Net>,
    /// Its IPv6 addresses with their prefixes.
    pub addresses6: Vec<Ipv6Net>,
}

impl Link {
    /// The address by which neighbours know it as their router.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses6.iter().map(Ipv6Net::addr).find(Ipv6Addr::is_unicast_link_local)
    }
}

/// What went wrong with an interface.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// No interface has the address.
    #[error("no interface has the address {0}")]
    NoAddress(Ipv4Addr),
    /// The number is none of a VLAN.
    #[error(transparent)]
    NoVlan(#[from] VlanRange),
    /// It is not known which hosts a network would lead to.
    #[error("the other hosts are not known yet")]
    NoPeers,
    /// The name cannot be an interface's.
    #[error("{0:?} cannot be the name of an interface")]
    Name(String),
    /// Something else has the bridge's name.
    #[error("{0} is there and is not a bridge")]
    NotABridge(String),
    /// Something else has the name of a segment.
    #[error("{0} is there and is not what would be made")]
    Taken(String),
    /// The kernel does not know that kind of interface.
    #[error("the kernel has no {kind}")]
    Unsupported {
        /// The kind.
        kind: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// No conversation with the kernel.
    #[error("opening a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{doing}")]
    Kernel {
        /// What was asked.
        doing: String,
        /// What the kernel said.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// A setting of the interface.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Accepts what the kernel takes as a name and no path or option could be made of.
fn check_name(name: &str) -> Result<(), LinkError> {
    if is_interface_name(name) { Ok(()) } else { Err(LinkError::Name(name.to_owned())) }
}
