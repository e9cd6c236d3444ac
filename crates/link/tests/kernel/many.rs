//! A group with many members on one host: what a change costs does not grow with them.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use nova_link::guests::{GuestFirewall, KernelGuestFirewall, Policy};
use nova_run::{Child, Command, Host, Output, Process, RunError, Runner, Signal};
use nova_types::rule::{Rule, Source};
use nova_types::security_group::{GroupMembers, GroupRules, GuestIpv6, GuestPort, HostFirewall};
use nova_types::{InstanceId, Mac, Prefix64, SecurityGroupId};

use super::namespace::{Guest, host_connects, in_namespace};
use super::{TELNET, bridge, tcp};

/// By both families, for that is most of it.
const POLICY: Policy = Policy { project_traffic: false, ipv6: true };

/// This machine, with what was asked of it.
#[derive(Debug, Default)]
struct Watched(Mutex<Vec<String>>);

impl Watched {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[async_trait]
impl Runner for Watched {
    async fn run(&self, command: Command) -> Result<Output, RunError> {
        self.0.lock().unwrap().push(command.to_string());
        Host.run(command).await
    }

    async fn spawn(&self, command: Command) -> Result<Child, RunError> {
        Host.spawn(command).await
    }

    async fn detach(&self, command: Command) -> Result<Process, RunError> {
        Host.detach(command).await
    }

    fn look(&self, pid: u32) -> Option<Process> {
        Host.look(pid)
    }

    fn signal(&self, process: &Process, signal: Signal) -> Result<bool, RunError> {
        Host.signal(process, signal)
    }
}

fn guest(number: u32) -> GuestPort {
    let [_, a, b, c] = number.to_be_bytes();
    let mac = Mac::of_guest([a, b, c]);
    let prefix: Prefix64 = "fd00:9::/64".parse().unwrap();
    GuestPort {
        instance: InstanceId::new(number),
        mac,
        ipv6: Some(GuestIpv6 { address: prefix.address_of(mac), router: None }),
        address: Ipv4Addr::from(0x0a09_0000 + number),
        ..Guest::named(3).port(&[1])
    }
}

/// Guests from number 3 on in one group, which lets in itself and many ranges.
fn host(guests: u32) -> HostFirewall {
    let id = SecurityGroupId::new(1);
    let source = |port: u16| {
        if port.is_multiple_of(2) { Source::Group(id) } else { Source::range("192.0.2.0/24").unwrap() }
    };
    let rules = (1000..1100).map(|port| Rule { traffic: tcp(port), source: source(port) }).collect();
    let guests: Vec<GuestPort> = (3..3 + guests).map(guest).collect();
    let addresses = guests.iter().map(|guest| guest.address.into()).collect();
    HostFirewall {
        guests,
        groups: vec![GroupRules { id, rules }],
        members: vec![GroupMembers { id, addresses }],
        ..HostFirewall::default()
    }
}

#[test]
fn a_change_of_a_group_is_one_transaction_of_the_same_size_for_ten_guests_and_a_thousand() {
    let name = "many::a_change_of_a_group_is_one_transaction_of_the_same_size_for_ten_guests_and_a_thousand";
    in_namespace(name, async || {
        bridge().await;
        let real = Guest::start(3).await;
        real.listen(TELNET).await;
        let machine = Arc::new(Watched::default());
        let firewall = KernelGuestFirewall::new(Arc::<Watched>::clone(&machine), POLICY);
        let mut sizes = Vec::new();
        for guests in [10, 1000] {
            let mut wanted = host(guests);
            firewall.ensure(&wanted).await.unwrap();
            assert!(!host_connects(real.address, TELNET).await, "no rule lets it in");
            machine.asked();
            let mut size = Vec::new();
            let mut advance = async |wanted: &HostFirewall| {
                size.push(firewall.advance(wanted).await.unwrap().commands);
                assert_eq!(machine.asked(), ["nft -j -f -"], "one transaction, and nothing is read");
            };
            wanted.groups[0].rules.push(Rule { traffic: tcp(TELNET), source: Source::EVERYONE });
            advance(&wanted).await;
            assert!(host_connects(real.address, TELNET).await, "the new rule lets it in");
            wanted.members[0].addresses.push(Ipv4Addr::new(10, 9, 99, 1).into());
            advance(&wanted).await;
            wanted.guests.push(guest(2000));
            advance(&wanted).await;
            wanted.guests.pop();
            wanted.members[0].addresses.pop();
            advance(&wanted).await;
            assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0, "what differed was all");
            sizes.push(size);
        }
        assert_eq!(sizes[0], sizes[1]);
        assert_eq!(sizes[0][1], 1, "a member elsewhere is one element");
    });
}
