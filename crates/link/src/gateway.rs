//! The firewall of a network host: translation of guests' addresses, the metadata address, and what guests may ask of
//! the host itself.

mod floating;
mod ipv6;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::{Ipv4Net, Ipv4Subnets};
use nftables::expr::MetaKey;
use nftables::stmt::Statement;
use nftables::types::{NfChainType, NfFamily, NfHook};
use nova_failpoint::{Point, hit};
use nova_run::Runner;
use nova_types::Prefix64;
use tokio::sync::Mutex;
use tracing::warn;

use crate::conntrack;
use crate::nft::expr::{
    accept, concat, ct_original, ct_state, ct_status, dnat, drop, field, goto, is, meta, one_of, ports, prefix,
    redirect, snat, text,
};
use crate::nft::{Chain, Hook, Nft, Rule, Table, TableName, delete_table, diff};

pub use crate::nft::FirewallError;

/// Where guests ask for their metadata.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const NAT: TableName = TableName { family: NfFamily::IP, name: "nova_network" };
const FILTER: TableName = TableName { family: NfFamily::INet, name: "nova_network" };
const SOURCE_NAT: i32 = 100;
const DESTINATION_NAT: i32 = -100;
/// Where the VPN of a project listens.
const OPENVPN: u16 = 1194;

/// What `nova-network` asks of its host's firewall.
#[async_trait]
pub trait NetworkFirewall: Send + Sync + std::fmt::Debug {
    /// Makes the rules of this network host exactly these, in one transaction that holds only what differs. Returns
    /// how many commands that took.
    ///
    /// # Errors
    /// [`FirewallError`]; what was there then still holds.
    async fn ensure(&self, wanted: &Gateway) -> Result<usize, FirewallError>;

    /// Removes all rules of a network host, as where it is one no longer, and what went over its floating addresses. Returns
    /// whether there were any.
    ///
    /// # Errors
    /// [`FirewallError`]; what was there then still holds.
    async fn clear(&self) -> Result<bool, FirewallError>;
}

/// Everything that the firewall of a network host depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The networks that this host serves.
    pub networks: Vec<GuestNetwork>,
    /// The range of all guests of the cloud, flag `fixed_range`: no translation within it.
    pub fixed_range: Ipv4Net,
    /// The address that guests have outside, flag `routing_source_ip`.
    pub routing_source: Ipv4Addr,
    /// A range towards which guests keep their addresses, flag `dmz_cidr`.
    pub dmz: Ipv4Net,
    /// Where the metadata service listens; on a loopback address, this host at the gateway's address is meant.
    pub metadata: SocketAddrV4,
    /// Floating addresses, each with the guest's that it stands for; no two for one guest.
    pub floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// A network whose router is this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The bridge.
    pub bridge: String,
    /// The range.
    pub cidr: Ipv4Net,
    /// This host's address in it.
    pub gateway: Ipv4Addr,
    /// The first address that guests may have. What is below may be a host's.
    pub first_guest: Ipv4Addr,
    /// The prefix of IPv6, which is routed and not translated.
    pub prefix6: Option<Prefix64>,
    /// Its project's VPN, if that is reached at this host.
    pub vpn: Option<Vpn>,
}

/// How a project's VPN is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// The address of this host.
    pub public: Ipv4Addr,
    /// The port there, of UDP.
    pub port: u16,
    /// The guest that it leads to.
    pub private: Ipv4Addr,
}

/// The kernel's firewall, with nftables.
#[derive(Debug)]
pub struct KernelNetworkFirewall {
    nft: Nft,
    turn: Mutex<()>,
}

impl KernelNetworkFirewall {
    /// A firewall that is reached by running `nft`.
    pub fn new(runner: Arc<dyn Runner>) -> Self {
        Self { nft: Nft::new(runner), turn: Mutex::default() }
    }
}

#[async_trait]
impl NetworkFirewall for KernelNetworkFirewall {
    async fn ensure(&self, wanted: &Gateway) -> Result<usize, FirewallError> {
        let _turn = self.turn.lock().await;
        let (found, table) = (self.nft.list(NAT).await?, nat(wanted));
        // What moved is written down beside the rules: who comes after us forgets the connections if we do not.
        let moved = floating::moved(&found.clone().unwrap_or_default(), &table);
        let noted = floating::noting(table.clone(), &moved);
        let mut commands = diff(NAT, found.as_ref(), &noted);
        commands.extend(diff(FILTER, self.nft.list(FILTER).await?.as_ref(), &filter(wanted)));
        hit_if(&moved, Point::AddressTranslating);
        self.nft.apply(&commands).await?;
        hit_if(&moved, Point::AddressTranslated);
        if !moved.is_empty() {
            match conntrack::forget(floating::flows(&moved)).await {
                Ok(_) => {
                    hit(Point::AddressForgotten);
                    self.nft.apply(&diff(NAT, Some(&noted), &table)).await?;
                }
                Err(error) => warn!(error = %error, addresses = moved.len(),
                    "Connections over floating addresses that moved could not be forgotten; will try again."),
            }
        }
        Ok(commands.len())
    }

    async fn clear(&self) -> Result<bool, FirewallError> {
        let _turn = self.turn.lock().await;
        let mut commands = Vec::new();
        for table in [NAT, FILTER] {
            if let Some(found) = self.nft.list(table).await? {
                // What is noted there is gone with it.
                let moved = floating::moved(&found, &Table::default());
                conntrack::forget(floating::flows(&moved)).await.map_err(FirewallError::Conntrack)?;
                commands.push(delete_table(table));
            }
        }
        self.nft.apply(&commands).await?;
        Ok(!commands.is_empty())
    }
}

fn hit_if(moved: &BTreeSet<Ipv4Addr>, point: Point) {
    if !moved.is_empty() {
        hit(point);
    }
}

/// A firewall in memory.
#[cfg(feature = "fake")]
#[derive(Debug, Default)]
pub struct FakeNetworkFirewall {
    applied: std::sync::Mutex<Option<Gateway>>,
}

#[cfg(feature = "fake")]
impl FakeNetworkFirewall {
    /// Returns what was last asked for.
    pub fn applied(&self) -> Option<Gateway> {
        self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

#[cfg(feature = "fake")]
#[async_trait]
impl NetworkFirewall for FakeNetworkFirewall {
    async fn ensure(&self, wanted: &Gateway) -> Result<usize, FirewallError> {
        let mut applied = self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = applied.replace(wanted.clone());
        let count = |name, found: Option<Table>, wanted| diff(name, found.as_ref(), &wanted).len();
        Ok(count(NAT, old.as_ref().map(nat), nat(wanted)) + count(FILTER, old.as_ref().map(filter), filter(wanted)))
    }

    async fn clear(&self) -> Result<bool, FirewallError> {
        Ok(self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().is_some())
    }
}

/// Runs against the fake here, and against the kernel in a network namespace.
///
/// # Panics
/// When the firewall does not keep what the trait promises.
#[cfg(feature = "fake")]
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn network_firewall_contract(firewall: &dyn NetworkFirewall) {
    let mut wanted = example();
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0, "what holds is not touched");
    wanted.networks.push(GuestNetwork {
        bridge: "br101".to_owned(),
        cidr: "10.1.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 1, 0, 1),
        first_guest: Ipv4Addr::new(10, 1, 0, 2),
        prefix6: Some("fd00:0:0:1::/64".parse().unwrap()),
        vpn: Some(Vpn { public: Ipv4Addr::new(172, 16, 0, 9), port: 1001, private: Ipv4Addr::new(10, 1, 0, 2) }),
    });
    wanted.metadata = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8773);
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
    let floating = |last| (Ipv4Addr::new(172, 16, 1, last), Ipv4Addr::new(192, 168, 0, last));
    wanted.floating.extend([floating(3), floating(4)]);
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
    wanted.floating.insert(floating(3).0, floating(5).1);
    wanted.floating.remove(&floating(4).0);
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
    wanted.networks.clear();
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
    assert!(firewall.clear().await.unwrap(), "what translates nothing is still there");
    assert!(!firewall.clear().await.unwrap());
    assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
}

/// One network, as the guide makes it.
#[cfg(feature = "fake")]
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
fn example() -> Gateway {
    Gateway {
        networks: vec![GuestNetwork {
            bridge: "br100".to_owned(),
            cidr: "192.168.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(192, 168, 0, 1),
            first_guest: Ipv4Addr::new(192, 168, 0, 2),
            prefix6: None,
            vpn: None,
        }],
        fixed_range: "192.160.0.0/12".parse().unwrap(),
        routing_source: Ipv4Addr::new(172, 16, 0, 9),
        dmz: "10.128.0.0/24".parse().unwrap(),
        metadata: SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 9), 8773),
        floating: BTreeMap::new(),
    }
}

/// Guests' addresses become this host's on their way out, and the metadata address becomes the API's.
fn nat(wanted: &Gateway) -> Table {
    let mut fixed: Vec<Ipv4Net> = wanted.networks.iter().map(|network| network.cidr).collect();
    fixed.push(wanted.fixed_range.trunc());
    let fixed = Ipv4Net::aggregate(&fixed);
    let mut untranslated = fixed.clone();
    // Bridged packets pass here too, and the groups among them must not be touched.
    let groups = [(Ipv4Addr::new(224, 0, 0, 0), 4), (Ipv4Addr::BROADCAST, 32)];
    untranslated.extend(groups.map(|(address, prefix)| Ipv4Net::new_assert(address, prefix)));
    untranslated.push(wanted.dmz.trunc());
    let among = |nets: Vec<Ipv4Net>| one_of(nets.into_iter().map(prefix).collect());
    let from_guests = is(field("ip", "saddr"), among(fixed));
    let inside = is(field("ip", "daddr"), among(Ipv4Net::aggregate(&untranslated)));
    let outward = vec![
        floating::between_guests(from_guests.clone()),
        vec![from_guests.clone(), inside, accept()],
        floating::outward(),
        vec![from_guests, snat(wanted.routing_source)],
    ];
    let mut inward = Vec::new();
    if !wanted.networks.is_empty() {
        let bridges = wanted.networks.iter().map(|network| text(network.bridge.clone())).collect();
        let to = if wanted.metadata.ip().is_loopback() {
            redirect(wanted.metadata.port())
        } else {
            dnat(wanted.metadata.ip(), wanted.metadata.port())
        };
        inward.push(vec![
            is(meta(MetaKey::Iifname), one_of(bridges)),
            is(field("ip", "daddr"), text(METADATA.to_string())),
            is(field("tcp", "dport"), ports(80, 80)),
            to,
        ]);
    }
    for vpn in wanted.networks.iter().filter_map(|network| network.vpn) {
        inward.push(vec![
            is(field("ip", "daddr"), text(vpn.public.to_string())),
            is(field("udp", "dport"), ports(vpn.port, vpn.port)),
            dnat(vpn.private, OPENVPN),
        ]);
    }
    inward.push(floating::inward());
    let mut table = Table::default();
    floating::add(&mut table, wanted);
    let base = |hook, priority| Some(Hook { kind: NfChainType::NAT, hook, priority });
    let rules = |rules: Vec<_>| rules.into_iter().map(Rule::new).collect();
    let chain = Chain { hook: base(NfHook::Postrouting, SOURCE_NAT), rules: rules(outward) };
    table.chains.insert("postrouting".to_owned(), chain);
    let chain = Chain { hook: base(NfHook::Prerouting, DESTINATION_NAT), rules: rules(inward) };
    table.chains.insert("prerouting".to_owned(), chain);
    // This host's own packets pass no other hook for it.
    let chain = Chain { hook: base(NfHook::Output, DESTINATION_NAT), rules: rules(vec![floating::inward()]) };
    table.chains.insert("output".to_owned(), chain);
    table
}

/// Guests may ask this host for addresses, names, metadata and an echo, and for nothing else.
///
/// Only the addresses of guests are judged: under `FlatManager`'s wiring other hosts may be on the same bridge.
fn filter(wanted: &Gateway) -> Table {
    let mut table = Table::default();
    let mut input = Vec::new();
    for network in &wanted.networks {
        let chain = format!("from-{}", network.bridge);
        let last = u32::from(network.cidr.broadcast()).saturating_sub(1);
        let guests = Ipv4Subnets::new(network.first_guest, Ipv4Addr::from(last), 0).map(prefix).collect();
        input.push(vec![
            is(meta(MetaKey::Iifname), text(network.bridge.clone())),
            is(field("ip", "saddr"), one_of(guests)),
            goto(chain.clone()),
        ]);
        let to_gateway = || is(field("ip", "daddr"), text(network.gateway.to_string()));
        let rules = vec![
            vec![ct_state(&["established", "related"]), accept()],
            vec![is(field("udp", "dport"), ports(67, 67)), accept()],
            vec![to_gateway(), is(field("udp", "dport"), ports(53, 53)), accept()],
            vec![to_gateway(), is(field("tcp", "dport"), ports(53, 53)), accept()],
            vec![to_gateway(), is(field("icmp", "type"), ports(8, 8)), accept()],
            vec![is(ct_original("ip daddr"), text(METADATA.to_string())), accept()],
            vec![drop()],
        ];
        let rules = rules.into_iter().map(Rule::new).collect();
        table.chains.insert(chain, Chain { hook: None, rules });
        if let Some(prefix) = network.prefix6 {
            input.push(ipv6::judged(network, prefix));
            table.chains.insert(ipv6::chain(network), ipv6::from_guests(prefix));
        }
    }
    let hook = Some(Hook { kind: NfChainType::Filter, hook: NfHook::Input, priority: 0 });
    let rules = input.into_iter().map(Rule::new).collect();
    table.chains.insert("input".to_owned(), Chain { hook, rules });
    if wanted.networks.len() > 1 {
        let hook = Some(Hook { kind: NfChainType::Filter, hook: NfHook::Forward, priority: 0 });
        let rules = apart(wanted).into_iter().map(Rule::new).collect();
        table.chains.insert("forward".to_owned(), Chain { hook, rules });
    }
    table
}

/// Guests of one network do not reach those of another through this host, but at an address that is translated to theirs.
fn apart(wanted: &Gateway) -> Vec<Vec<Statement<'static>>> {
    let bridge = |network: &GuestNetwork| text(network.bridge.clone());
    let bridges = || one_of(wanted.networks.iter().map(bridge).collect());
    // Bridged packets pass here too, from a bridge to itself.
    let itself = |network: &GuestNetwork| concat(vec![bridge(network), bridge(network)]);
    let itself = one_of(wanted.networks.iter().map(itself).collect());
    vec![
        vec![ct_state(&["established", "related"]), accept()],
        vec![ct_status("dnat"), accept()],
        vec![is(concat(vec![meta(MetaKey::Iifname), meta(MetaKey::Oifname)]), itself), accept()],
        vec![is(meta(MetaKey::Iifname), bridges()), is(meta(MetaKey::Oifname), bridges()), drop()],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        network_firewall_contract(&FakeNetworkFirewall::default()).await;
    }
}
