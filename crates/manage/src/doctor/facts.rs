//! What the doctor knows when it judges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use nova_types::instance::InstanceView;
use nova_types::network::{ManagerKind, Network};
use nova_types::security_group::SecurityGroup;
use nova_types::service::Service;
use nova_types::{HostName, Mac};

/// An answer, or why nobody could be asked. From the second nothing is concluded.
pub(crate) type Asked<T> = Result<T, String>;

/// This host, and what the rows say of the cloud.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) host: HostName,
    pub(crate) manager: ManagerKind,
    /// Whether guests here are only remembered, and this machine's network is left alone.
    pub(crate) simulated: bool,
    /// Every daemon of the cloud.
    pub(crate) daemons: Vec<Service>,
    /// After how many silent seconds one counts as down.
    pub(crate) down_after: i64,
    /// As they are seen from here: of one with a router on each host, the gateway is this host's.
    pub(crate) networks: Vec<Network>,
    /// Networks that this host might take over, and who answers for their gateways.
    pub(crate) abandoned: Vec<(Network, Asked<Option<Mac>>)>,
    /// Flag `flat_interface`.
    pub(crate) flat_interface: Option<String>,
    /// Flag `vlan_interface`.
    pub(crate) vlan_interface: String,
    /// Flag `my_ip`.
    pub(crate) my_ip: IpAddr,
    /// The addresses of the hosts that VXLANs are to lead to.
    pub(crate) hosts: BTreeSet<Ipv4Addr>,
    /// Those that each VXLAN of this host leads to.
    pub(crate) peers: BTreeMap<String, Asked<BTreeSet<Ipv4Addr>>>,
    pub(crate) links: Asked<Vec<Wire>>,
    /// How many dnsmasq run for each bridge that is served here.
    pub(crate) dnsmasq: BTreeMap<String, Asked<usize>>,
    pub(crate) forwarding: Asked<bool>,
    /// Whether packets between guests of one bridge pass the groups' rules.
    pub(crate) bridge_filter: Asked<bool>,
    /// Family and name of every nftables table.
    pub(crate) tables: Asked<BTreeSet<String>>,
    /// Whether the metadata address is translated.
    pub(crate) metadata_rule: Asked<bool>,
    /// Chains of others that drop what is forwarded unless one of their rules accepts it.
    pub(crate) foreign: Asked<Vec<String>>,
    pub(crate) default_route: Asked<bool>,
    /// Where the metadata service is, and why it does not answer if it does not.
    pub(crate) metadata: (String, Asked<Option<String>>),
    pub(crate) keys: Keys,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) bridge: Option<String>,
    pub(crate) up: bool,
    pub(crate) addresses: Vec<Ipv4Net>,
}

/// The API key of the shell that the doctor was called from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// There is none.
    Unset,
    /// It is no user's.
    NoUser(String),
    /// The user's secret is another.
    WrongSecret(String),
    /// It is right, as far as could be seen.
    Fit(String),
    /// It could not be compared.
    Unread(String),
}

/// An instance, and what this host knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) view: InstanceView,
    pub(crate) groups: Vec<SecurityGroup>,
    /// Whether its host only pretends.
    pub(crate) simulated: bool,
    pub(crate) leased: bool,
    /// Whether dnsmasq was told of it; asked where its network is served here.
    pub(crate) told: Asked<bool>,
    /// Whether the firewall knows its tap; asked on its own host.
    pub(crate) guarded: Asked<bool>,
}

impl Machine {
    /// A daemon of a host, if it ever was there.
    pub(crate) fn daemon(&self, binary: &str, host: &HostName) -> Option<&Service> {
        self.daemons.iter().find(|daemon| daemon.binary == binary && daemon.host == *host)
    }

    pub(crate) fn is_up(&self, daemon: &Service) -> bool {
        !daemon.gave_up && daemon.is_up(self.down_after)
    }

    /// The networks that this host serves. Of the VLANs that were made, those without a project wait.
    pub(crate) fn served(&self) -> impl Iterator<Item = &Network> {
        let in_use = |network: &&Network| network.vlan.is_none() || network.project.is_some();
        self.networks.iter().filter(|network| network.host.as_ref() == Some(&self.host)).filter(in_use)
    }

    /// The network that has a network's bridge, and is served instead: a bridge carries one.
    pub(crate) fn crowded_out_by(&self, network: &Network) -> Option<&Network> {
        self.served().find(|other| other.bridge == network.bridge && other.id < network.id)
    }

    /// Whether guests can be here.
    pub(crate) fn computes(&self) -> bool {
        self.daemon("nova-compute", &self.host).is_some()
    }

    /// Whether addresses are handed out by DHCP.
    pub(crate) fn dhcp(&self) -> bool {
        self.manager != ManagerKind::Flat
    }
}

impl Wire {
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}
