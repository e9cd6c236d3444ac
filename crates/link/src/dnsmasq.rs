//! dnsmasq: one server per network, with its files in one folder (flag `networks_path`).
//!
//! | file | what |
//! |---|---|
//! | `nova-<bridge>.pid` | written by dnsmasq |
//! | `nova-<bridge>.hosts/<instance>` | one guest's address; dnsmasq notices new files by itself |
//! | `nova-<bridge>.leases` | what `nova-dhcpbridge init` prints when a server starts; between starts up to ten seconds old |
//! | `nova-<bridge>.ra` | the pid of the process that advertises IPv6, where it is on |
//!
//! A server outlives us. After a restart of ours it is found again by pid, arguments and start time.

mod advertise;
#[cfg(feature = "fake")]
mod fake;
mod files;
mod leases;
mod server;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use nova_types::network::DhcpHost;
use nova_types::{InstanceId, Prefix64};

#[cfg(feature = "fake")]
pub use fake::{FakeDhcpServers, dhcp_servers_contract};
pub use files::{hosts_path, leases_path, pid_path};
pub use server::Dnsmasq;

/// What `nova-network` asks of DHCP servers. Every call is idempotent.
#[async_trait]
pub trait DhcpServers: Send + Sync + std::fmt::Debug {
    /// Makes one server run for a network, with these settings: starts it, restarts one with others, leaves it alone
    /// when it is right.
    ///
    /// # Errors
    /// [`DhcpError`]; when a server cannot start, what it said.
    async fn ensure(&self, network: &DhcpNetwork) -> Result<Server, DhcpError>;

    /// Makes a network's hosts exactly these. Returns how many entries changed.
    ///
    /// A new host is known to the server at once; one that is gone within a second of the next call.
    ///
    /// # Errors
    /// [`DhcpError::File`] or [`DhcpError::Run`].
    async fn set_hosts(&self, network: &DhcpNetwork, hosts: &[DhcpHost]) -> Result<usize, DhcpError>;

    /// Changes some hosts of a network and leaves the others as they are, unlooked at. Returns how many entries changed.
    ///
    /// A new host is known to the server at once, one that is different, or has the address of one that is gone, within a
    /// second of the next call, and that one is gone within ten; so call it again, if with no change.
    ///
    /// # Errors
    /// [`DhcpError::NotSet`] before the first [`set_hosts`](Self::set_hosts), and after anything failed; else as there.
    async fn change_hosts(&self, network: &DhcpNetwork, change: &DhcpChange) -> Result<usize, DhcpError>;

    /// Stops a network's server and removes its files; there may be none.
    ///
    /// # Errors
    /// [`DhcpError::StillRuns`] when it does not end; other [`DhcpError`]s.
    async fn stop(&self, bridge: &str) -> Result<(), DhcpError>;

    /// Lists the bridges that have a server or files of one.
    ///
    /// # Errors
    /// [`DhcpError::File`].
    async fn list(&self) -> Result<Vec<String>, DhcpError>;
}

/// A network that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpNetwork {
    /// The bridge it is on: names its files.
    pub bridge: String,
    /// Whether that bridge is for guests alone, so that the server may have all of it. Where a host serves several networks
    /// it must: of servers that are bound to addresses only, any hears what a client sends to one of them.
    pub for_guests: bool,
    /// The server's own address, and the guests' router and name server.
    pub gateway: Ipv4Addr,
    /// The range.
    pub cidr: Ipv4Net,
    /// The prefix of IPv6 that guests are told of, by a process of its own, so that DHCP goes on when it changes.
    pub prefix6: Option<Prefix64>,
    /// The first address that may be given.
    pub first: Ipv4Addr,
    /// The domain of guests' names.
    pub domain: String,
    /// The MTU that guests are told; none where Ethernet's is right.
    pub mtu: Option<u32>,
    /// How long an address is lent.
    pub lease: Duration,
    /// Where names are looked up, instead of at the servers in `/etc/resolv.conf`.
    pub name_server: Option<Ipv4Addr>,
    /// The program told of each lease: `nova-dhcpbridge`.
    pub script: PathBuf,
    /// The flag file that it reads.
    pub flag_file: Option<PathBuf>,
}

/// A change to some hosts of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhcpChange {
    /// What is new or different; each entry replaces the one of the same instance.
    pub set: Vec<DhcpHost>,
    /// The instances that no longer have an address there.
    pub gone: Vec<InstanceId>,
}

/// What was done about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// It ran, with these settings.
    Running,
    /// There was none.
    Started,
    /// One with other settings was replaced.
    Restarted,
}

/// What went wrong with a DHCP server.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// A file or folder.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A change came before all hosts of the network.
    #[error("the hosts of {0} were not yet told")]
    NotSet(String),
    /// dnsmasq could not be started or signalled.
    #[error("running dnsmasq for {bridge}")]
    Run {
        /// The network's bridge.
        bridge: String,
        /// What it said.
        #[source]
        source: nova_run::RunError,
    },
    /// It started and was gone at once.
    #[error("dnsmasq for {0} started and is not there")]
    Gone(String),
    /// It was told to end and did not.
    #[error("dnsmasq for {bridge} (process {pid}) does not end")]
    StillRuns {
        /// The network's bridge.
        bridge: String,
        /// The process.
        pid: u32,
    },
    /// A word that would change the meaning of dnsmasq's files or of a path.
    #[error("{0:?} cannot be written into dnsmasq's configuration")]
    Word(String),
}
