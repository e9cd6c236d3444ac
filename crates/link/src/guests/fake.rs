//! A firewall that only remembers, and what every firewall must do.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ipnet::IpNet;
use nova_types::InstanceId;
use nova_types::rule::{Rule, Source, Traffic};
use nova_types::security_group::{GroupMembers, GroupRules, GuestIpv6, GuestPort, HostFirewall};

use super::rules::Rules;
use super::tables::{BRIDGE, INET, bridge, inet};
use super::{Changed, FirewallChange, FirewallError, GuestFirewall, Policy};
use crate::nft::diff;

const POLICY: Policy = Policy { project_traffic: true, ipv6: true };

/// A firewall in memory: it answers whether it would let something in.
#[derive(Debug, Default)]
pub struct FakeGuestFirewall {
    applied: Mutex<Option<Rules>>,
    compared: AtomicUsize,
}

impl FakeGuestFirewall {
    /// Lists the guests that have rules.
    pub fn guests(&self) -> BTreeSet<InstanceId> {
        self.applied().as_ref().map(|rules| rules.guests.keys().copied().collect()).unwrap_or_default()
    }

    /// How often all rules were compared with what was in force.
    pub fn compared(&self) -> usize {
        self.compared.load(Ordering::SeqCst)
    }

    /// Tells whether `guest` may be sent `traffic`, spelled as in a rule of one of its groups, by `from`.
    pub fn lets_in(&self, guest: InstanceId, traffic: Traffic, from: IpAddr) -> bool {
        let applied = self.applied();
        let Some(rules) = applied.as_ref() else { return false };
        let Some(port) = rules.guests.get(&guest) else { return false };
        let may_send = |source: Source| match source {
            Source::Range(range) => range.contains(&IpNet::from(from)),
            Source::Group(group) => rules.members.get(&group).is_some_and(|members| members.contains(&from)),
        };
        let mut granted = port.groups.iter().filter_map(|group| rules.groups.get(group)).flatten();
        granted.any(|rule: &Rule| rule.traffic == traffic && may_send(rule.source))
    }

    fn applied(&self) -> MutexGuard<'_, Option<Rules>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(applied: &mut Option<Rules>, wanted: Rules) -> Changed {
        let old = applied.take();
        let count = |name, found, wanted| diff(name, found, &wanted).len();
        let commands =
            count(BRIDGE, old.as_ref().map(|old| bridge(old, POLICY.ipv6)).as_ref(), bridge(&wanted, POLICY.ipv6))
                + count(INET, old.as_ref().map(|old| inet(old, POLICY)).as_ref(), inet(&wanted, POLICY));
        *applied = Some(wanted);
        Changed { commands, forgotten: 0 }
    }
}

#[async_trait]
impl GuestFirewall for FakeGuestFirewall {
    async fn ensure(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError> {
        self.compared.fetch_add(1, Ordering::SeqCst);
        Ok(Self::replace(&mut self.applied(), Rules::of(wanted)))
    }

    async fn advance(&self, wanted: &HostFirewall) -> Result<Changed, FirewallError> {
        if self.applied().is_none() {
            return self.ensure(wanted).await;
        }
        Ok(Self::replace(&mut self.applied(), Rules::of(wanted)))
    }

    async fn change(&self, change: &FirewallChange) -> Result<Changed, FirewallError> {
        let mut applied = self.applied();
        let wanted = applied.as_ref().ok_or(FirewallError::NotEnsured)?.after(change);
        Ok(Self::replace(&mut applied, wanted))
    }
}

/// Runs against the fake here, and against the kernel in a network namespace.
///
/// # Panics
/// When the firewall does not keep what the trait promises.
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn guest_firewall_contract(firewall: &dyn GuestFirewall) {
    let guest = |number: u32, groups: &[u32]| GuestPort {
        instance: InstanceId::new(number),
        project: "p".parse().unwrap(),
        mac: nova_types::Mac::of_guest([0, 0, u8::try_from(number).unwrap()]),
        address: Ipv4Addr::from(0x0a09_0000 + number),
        // One has none, and one does not know its router.
        ipv6: (number != 3).then(|| GuestIpv6 {
            address: format!("fd00:9::16:3eff:fe00:{number:x}").parse().unwrap(),
            router: (number != 4).then(|| "fe80::46e:aff:fe09:1".parse().unwrap()),
        }),
        bridge: "br9".to_owned(),
        dhcp_server: Ipv4Addr::new(10, 9, 0, 1),
        groups: groups.iter().map(|id| nova_types::SecurityGroupId::new(*id)).collect(),
    };
    let group = nova_types::SecurityGroupId::new(1);
    let rule = |traffic: &str, source| Rule { traffic: Traffic::parse(traffic, Some(22), Some(25)).unwrap(), source };
    let everyone6 = Source::range("::/0").unwrap();
    let rules = vec![rule("tcp", Source::EVERYONE), rule("udp", Source::Group(group)), rule("icmpv6", everyone6)];
    let member = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 4));
    let mut wanted = HostFirewall {
        guests: vec![guest(3, &[1]), guest(4, &[1, 2])],
        groups: vec![GroupRules { id: group, rules }],
        members: vec![GroupMembers { id: group, addresses: vec![member, "fd00:9::16:3eff:fe00:4".parse().unwrap()] }],
        projects: vec![("p".parse().unwrap(), vec![Ipv4Addr::new(10, 9, 0, 3).into()])],
    };
    let early = firewall.change(&FirewallChange::default()).await;
    assert!(matches!(early, Err(FirewallError::NotEnsured)), "a change before the first full set is refused");
    assert_ne!(firewall.ensure(&wanted).await.unwrap().commands, 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0, "what holds is not touched");

    // The tap of this guest does not exist, nor has its group ever been set.
    let newcomer = HostFirewall { guests: vec![guest(5, &[7])], ..HostFirewall::default() };
    let change = FirewallChange { set: newcomer, gone: Vec::new() };
    assert_ne!(firewall.change(&change).await.unwrap().commands, 0);
    assert_eq!(firewall.change(&change).await.unwrap().commands, 0, "the same change again does nothing");
    wanted.guests.push(guest(5, &[7]));
    assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0, "changes add up to the whole");

    // One rule less, one member more, one guest gone.
    wanted.groups[0].rules.truncate(1);
    let set = HostFirewall { groups: wanted.groups.clone(), ..HostFirewall::default() };
    let change = FirewallChange { set, gone: vec![InstanceId::new(5)] };
    assert_ne!(firewall.change(&change).await.unwrap().commands, 0);
    wanted.guests.pop();
    assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0);

    // The whole, by what differs: one rule more and a newcomer.
    wanted.groups[0].rules.push(rule("tcp", Source::Group(group)));
    wanted.guests.push(guest(6, &[1]));
    assert_ne!(firewall.advance(&wanted).await.unwrap().commands, 0);
    assert_eq!(firewall.advance(&wanted).await.unwrap().commands, 0);
    assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0, "what differs was all");
    assert_ne!(firewall.ensure(&HostFirewall::default()).await.unwrap().commands, 0);
    assert_eq!(firewall.ensure(&HostFirewall::default()).await.unwrap().commands, 0);
}
