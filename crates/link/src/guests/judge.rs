//! Which open connections are still let in when rules became fewer. It says of a connection what the tables say of a packet
//! that opens one.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use nova_types::rule::{Icmp, Ports, Rule, Source, Traffic};
use nova_types::security_group::GuestPort;

use super::family::{icmp4, icmp6};
use super::rules::Rules;
use super::tables::{DHCP_CLIENT, DHCP_SERVER, addresses};
use crate::conntrack::{Carries, Connection, Fate, Flow, Seen};

/// The rules in force, and what they were cut down by.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    guests: HashMap<IpAddr, GuestPort>,
    project_traffic: bool,
    narrowed: BTreeSet<Flow>,
    over: bool,
}

impl Judge {
    /// `over` says that what was cut may end now.
    pub(super) fn new(rules: Rules, project_traffic: bool, narrowed: BTreeSet<Flow>, over: bool) -> Self {
        let guests = rules.guests.values();
        let guests = guests.flat_map(|guest| addresses(guest).map(move |address| (address, guest.clone()))).collect();
        Self { rules, guests, project_traffic, narrowed, over }
    }

    /// Decides about a connection: that to a guest goes on if it could be opened now, that to a guest which is gone ends,
    /// and any other stays, for what guests send out is not judged.
    ///
    /// One that is not let in any more is cut first and ends later: an answer of the guest to the last packet that came
    /// through would else be taken for a connection of the guest's own.
    pub(super) fn fate(&self, seen: &Seen) -> Fate {
        let Some(connection) = seen.connection.filter(|_| seen.named || seen.cut) else { return Fate::Stays };
        match self.guests.get(&connection.to) {
            Some(guest) if self.lets_in(guest, &connection) => Fate::GoesOn,
            Some(_) if seen.cut && self.over => Fate::Ends,
            Some(_) => Fate::IsCut,
            None if seen.cut || self.narrowed.contains(&Flow::To(connection.to)) => Fate::Ends,
            None => Fate::Stays,
        }
    }

    fn lets_in(&self, guest: &GuestPort, connection: &Connection) -> bool {
        let dhcp = connection.carries == Carries::Udp(DHCP_SERVER, DHCP_CLIENT);
        let neighbours = self.rules.projects.get(&guest.project).filter(|_| self.project_traffic);
        (dhcp && connection.from == IpAddr::V4(guest.dhcp_server))
            || neighbours.is_some_and(|addresses| addresses.contains(&connection.from))
            || guest
                .groups
                .iter()
                .filter_map(|group| self.rules.groups.get(group))
                .flatten()
                .any(|rule| self.may_send(rule, connection.from) && is_about(rule, connection.carries))
    }

    fn may_send(&self, rule: &Rule, from: IpAddr) -> bool {
        match rule.source {
            Source::Range(range) => range.contains(&IpNet::from(from)),
            Source::Group(group) => self.rules.members.get(&group).is_some_and(|members| members.contains(&from)),
        }
    }
}

fn is_about(rule: &Rule, carried: Carries) -> bool {
    let within = |ports: Ports, port: u16| (ports.from..=ports.to).contains(&port);
    let by_group = matches!(rule.source, Source::Group(_));
    match (rule.traffic, carried) {
        (Traffic::All, _) => true,
        (Traffic::Tcp(ports), Carries::Tcp(port)) | (Traffic::Udp(ports), Carries::Udp(_, port)) => within(ports, port),
        (traffic, Carries::Icmp(kind, code)) => icmp4(traffic).is_some_and(|icmp| asks(icmp, kind, code)),
        (traffic, Carries::Icmp6(kind, code)) => icmp6(traffic, by_group).is_some_and(|icmp| asks(icmp, kind, code)),
        (Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Icmp(_) | Traffic::Icmp6(_), _) => false,
    }
}

fn asks(icmp: Icmp, kind: u8, code: u8) -> bool {
    match icmp {
        Icmp::Any => true,
        Icmp::Type(wanted) => wanted == kind,
        Icmp::TypeAndCode(wanted, and) => (wanted, and) == (kind, code),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use nova_types::security_group::{GroupMembers, GroupRules, GuestIpv6, HostFirewall};
    use nova_types::{InstanceId, Mac, SecurityGroupId};

    use super::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn judge(rules: &[(&str, i64, i64, Source)], project_traffic: bool) -> Judge {
        let group = SecurityGroupId::new(1);
        let guest = GuestPort {
            instance: InstanceId::new(3),
            project: "p".parse().unwrap(),
            mac: Mac::of_guest([0, 0, 3]),
            address: address(3),
            ipv6: Some(GuestIpv6 { address: "fd00::3".parse().unwrap(), router: None }),
            bridge: "br100".into(),
            dhcp_server: address(1),
            groups: vec![group],
        };
        let rule = |(protocol, from, to, source): &(&str, i64, i64, Source)| Rule {
            traffic: Traffic::parse(protocol, Some(*from), Some(*to)).unwrap(),
            source: *source,
        };
        let wanted = HostFirewall {
            projects: vec![(guest.project.clone(), vec![address(4).into()])],
            guests: vec![guest],
            groups: vec![GroupRules { id: group, rules: rules.iter().map(rule).collect() }],
            members: vec![GroupMembers {
                id: SecurityGroupId::new(7),
                addresses: vec![address(7).into(), "fd00::7".parse().unwrap()],
            }],
        };
        Judge::new(Rules::of(&wanted), project_traffic, BTreeSet::from([Flow::To(address(9).into())]), false)
    }

    fn fate(judge: &Judge, from: u8, to: u8, carries: Carries, cut: bool) -> Fate {
        let connection = Some(Connection { from: address(from).into(), to: address(to).into(), carries });
        judge.fate(&Seen { connection, named: true, cut })
    }

    fn allows(judge: &Judge, from: u8, carries: Carries) -> bool {
        fate(judge, from, 3, carries, false) == Fate::GoesOn
    }

    #[test]
    fn a_connection_goes_on_where_a_rule_would_still_let_it_in() {
        let members = Source::Group(SecurityGroupId::new(7));
        let some = Source::range("10.0.0.8/29").unwrap();
        let judge = judge(
            &[("tcp", 22, 25, some), ("udp", 53, 53, members), ("icmp", 8, 0, some), ("icmp", 13, -1, some)],
            false,
        );
        for (from, carries, wanted) in [
            (8, Carries::Tcp(22), true),
            (8, Carries::Tcp(25), true),
            (8, Carries::Tcp(26), false),
            (7, Carries::Tcp(22), false),
            (7, Carries::Udp(4000, 53), true),
            (8, Carries::Udp(4000, 53), false),
            (8, Carries::Udp(53, 22), false),
            (8, Carries::Icmp(8, 0), true),
            (8, Carries::Icmp(8, 1), false),
            (8, Carries::Icmp(13, 9), true),
            (8, Carries::Other, false),
            (1, Carries::Udp(67, 68), true),
            (4, Carries::Udp(67, 68), false),
        ] {
            assert_eq!(allows(&judge, from, carries), wanted, "{from} {carries:?}");
        }
    }

    #[test]
    fn a_connection_of_ipv6_is_judged_by_the_rules_of_its_family() {
        let members = Source::Group(SecurityGroupId::new(7));
        let some = Source::range("fd00::8/125").unwrap();
        let judge = judge(
            &[("tcp", 22, 22, some), ("icmp", 8, -1, members), ("icmp", 128, -1, some), ("icmpv6", 1, 4, some)],
            false,
        );
        for (from, carries, wanted) in [
            (8, Carries::Tcp(22), true),
            (8, Carries::Tcp(23), false),
            (7, Carries::Tcp(22), false),
            (7, Carries::Icmp6(128, 0), true),
            (7, Carries::Icmp6(8, 0), false),
            (8, Carries::Icmp6(128, 0), true),
            (8, Carries::Icmp6(1, 4), true),
            (8, Carries::Icmp6(1, 5), false),
        ] {
            let from: IpAddr = format!("fd00::{from}").parse().unwrap();
            let connection = Some(Connection { from, to: "fd00::3".parse().unwrap(), carries });
            let fate = judge.fate(&Seen { connection, named: true, cut: false });
            assert_eq!(fate == Fate::GoesOn, wanted, "{from} {carries:?}");
        }
        assert!(!allows(&judge, 8, Carries::Tcp(22)), "and those of IPv4 by theirs");
    }

    #[test]
    fn a_neighbour_goes_on_under_the_flag_and_all_of_everything_by_one_rule() {
        assert!(allows(&judge(&[], true), 4, Carries::Tcp(80)));
        assert!(!allows(&judge(&[], false), 4, Carries::Tcp(80)));
        assert!(!allows(&judge(&[], true), 5, Carries::Tcp(80)));
        for carries in [Carries::Tcp(1), Carries::Udp(1, 1), Carries::Icmp(0, 0), Carries::Other] {
            assert!(allows(&judge(&[("-1", 0, 0, Source::EVERYONE)], false), 5, carries));
        }
    }

    #[test]
    fn what_a_guest_opened_goes_on_and_what_led_to_one_that_is_gone_ends() {
        let judge = judge(&[], false);
        assert_eq!(fate(&judge, 3, 200, Carries::Tcp(443), false), Fate::Stays);
        assert_eq!(fate(&judge, 200, 9, Carries::Tcp(22), false), Fate::Ends);
        assert_eq!(judge.fate(&Seen { connection: None, named: true, cut: true }), Fate::Stays, "of neither family");
    }

    #[test]
    fn a_connection_is_cut_before_it_ends_and_goes_on_when_its_rule_comes_back() {
        let mut judge = judge(&[("tcp", 22, 22, Source::EVERYONE)], false);
        assert_eq!(fate(&judge, 8, 3, Carries::Tcp(23), false), Fate::IsCut);
        assert_eq!(fate(&judge, 8, 3, Carries::Tcp(23), true), Fate::IsCut);
        assert_eq!(fate(&judge, 8, 3, Carries::Tcp(22), true), Fate::GoesOn);
        assert_eq!(fate(&judge, 8, 200, Carries::Tcp(22), true), Fate::Ends, "its guest is gone");
        let connection = Some(Connection { from: address(8).into(), to: address(3).into(), carries: Carries::Tcp(23) });
        assert_eq!(judge.fate(&Seen { connection, named: false, cut: false }), Fate::Stays, "nobody asked about it");
        judge.over = true;
        assert_eq!(fate(&judge, 8, 3, Carries::Tcp(23), false), Fate::IsCut);
        assert_eq!(fate(&judge, 8, 3, Carries::Tcp(23), true), Fate::Ends);
    }
}
