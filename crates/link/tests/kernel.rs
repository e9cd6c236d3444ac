//! The contracts and the packets, against a real kernel: each test in a network namespace of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests are not told apart from production code"
)]

#[path = "kernel/bridges.rs"]
mod bridges;
#[path = "kernel/floating.rs"]
mod floating;
#[path = "kernel/groups.rs"]
mod groups;
#[path = "kernel/ipv6.rs"]
mod ipv6;
#[path = "kernel/many.rs"]
mod many;
#[path = "kernel/namespace.rs"]
mod namespace;
#[path = "kernel/neighbours.rs"]
mod neighbours;
#[path = "kernel/vxlan.rs"]
mod vxlan;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use namespace::{Guest, in_namespace, sh};
use nova_link::carrier::{Carrier, remove_unused};
use nova_link::dnsmasq::{DhcpNetwork, DhcpServers, Dnsmasq, Server, dhcp_servers_contract};
use nova_link::gateway::{
    Gateway, GuestNetwork, KernelNetworkFirewall, NetworkFirewall, Vpn, network_firewall_contract,
};
use nova_link::guests::{FirewallChange, GuestFirewall, KernelGuestFirewall, Policy, guest_firewall_contract};
use nova_link::links::{Bridge, KernelLinks, LinkError, Links, links_contract, segments_contract};
use nova_run::{Command, Host, Runner};
use nova_types::rule::{Icmp, Ports, Rule, Source, Traffic};
use nova_types::security_group::{GroupMembers, GroupRules, HostFirewall};
use nova_types::{InstanceId, SecurityGroupId, Tag};

const GATEWAY: &str = "10.9.0.1/24";
const TELNET: u16 = 23;
/// Asks for an address and takes no notice of it.
const ASK: &str = "busybox udhcpc -n -q -f -t 3 -T 1 -i eth0 -s /bin/true";

async fn bridge() {
    let bridge = Bridge { name: "br9".into(), address: Some(GATEWAY.parse().unwrap()), address6: None, mtu: None };
    KernelLinks.ensure_bridge(&bridge).await.unwrap();
    sh("ip link set lo up").await;
}

fn firewall(project_traffic: bool) -> KernelGuestFirewall {
    KernelGuestFirewall::new(Arc::new(Host), Policy { project_traffic, ipv6: false })
}

fn group(id: u32, rules: &[(Traffic, Source)]) -> GroupRules {
    let rules = rules.iter().map(|(traffic, source)| Rule { traffic: *traffic, source: *source }).collect();
    GroupRules { id: SecurityGroupId::new(id), rules }
}

fn tcp(port: u16) -> Traffic {
    Traffic::Tcp(Ports { from: port, to: port })
}

fn whole(guests: &[&Guest], groups: Vec<GroupRules>) -> HostFirewall {
    HostFirewall { guests: guests.iter().map(|guest| guest.port(&[1])).collect(), groups, ..HostFirewall::default() }
}

#[test]
fn links_keep_the_contract() {
    in_namespace("links_keep_the_contract", async || {
        sh("ip link add uplink type veth peer name other; ip addr add 10.8.0.5/24 dev uplink; ip link set uplink up")
            .await;
        links_contract(&KernelLinks).await;
    });
}

#[test]
fn segments_keep_the_contract() {
    in_namespace("segments_keep_the_contract", async || {
        sh("ip link add uplink type veth peer name other").await;
        match segments_contract(&KernelLinks).await {
            Err(missing @ LinkError::Unsupported { .. }) => println!("skipped segments_keep_the_contract: {missing}"),
            kept => kept.unwrap(),
        }
    });
}

#[test]
fn a_network_reaches_other_hosts_by_its_vlan_and_no_other() {
    in_namespace("a_network_reaches_other_hosts_by_its_vlan_and_no_other", async || {
        sh("mount -t tmpfs none /run; mkdir -p /run/netns; ip netns add far; ip link add trunk mtu 1400 type veth peer \
            name trunk mtu 1400 netns far; ip link set lo up; ip -n far link set trunk up")
        .await;
        let carrier = Carrier::Vlans("trunk".into());
        for number in [100_u8, 101] {
            let address = format!("10.{number}.0.1/24").parse().unwrap();
            let bridge = Bridge { name: format!("br{number}"), address: Some(address), address6: None, mtu: None };
            let tag = Some(Tag::try_from(i64::from(number)).unwrap());
            match carrier.ensure(&KernelLinks, &bridge, tag).await {
                Err(missing @ LinkError::Unsupported { .. }) => {
                    println!("skipped a_network_reaches_other_hosts_by_its_vlan_and_no_other: {missing}");
                    return;
                }
                made => assert!(made.unwrap()),
            }
            assert!(!carrier.ensure(&KernelLinks, &bridge, tag).await.unwrap());
            sh(&format!(
                "ip -n far link add tag{number} link trunk type vlan id {number}; ip -n far link set tag{number} up
                 ip -n far addr add 10.{number}.0.2/24 dev tag{number}"
            ))
            .await;
        }
        let far = |number| Ipv4Addr::new(10, number, 0, 2);
        assert!(namespace::host_pings(far(100)).await && namespace::host_pings(far(101)).await);
        assert!(sh("ip link show br100").await.contains("mtu 1400"), "the MTU of the trunk");
        sh("ip -n far link del tag101; ip -n far addr add 10.101.0.2/24 dev tag100").await;
        assert!(!namespace::host_pings(far(101)).await, "by the VLAN of another network");
        assert!(remove_unused(&KernelLinks, "br101").await.unwrap());
        let left = sh("ip -br link").await;
        assert!(left.contains("vlan100@trunk") && !left.contains("vlan101") && !left.contains("br101"), "{left}");
        assert!(namespace::host_pings(far(100)).await, "the other stays");
    });
}

#[test]
fn an_interface_hands_its_addresses_and_routes_to_the_bridge() {
    in_namespace("an_interface_hands_its_addresses_and_routes_to_the_bridge", async || {
        bridge().await;
        sh("ip link add uplink type veth peer name other; ip addr add 10.8.0.5/24 dev uplink; ip link set uplink up;
            ip link set other up; ip route add default via 10.8.0.1; ip route add 10.7.0.0/16 via 10.8.0.2")
        .await;
        KernelLinks.attach("uplink", "br9").await.unwrap();
        let routes = sh("ip route show").await;
        for route in ["default via 10.8.0.1 dev br9", "10.7.0.0/16 via 10.8.0.2 dev br9", "10.8.0.0/24 dev br9"] {
            assert!(routes.contains(route), "{route} in {routes}");
        }
    });
}

#[test]
fn handing_over_goes_on_where_it_was_cut_off() {
    in_namespace("handing_over_goes_on_where_it_was_cut_off", async || {
        bridge().await;
        sh("ip link add uplink type veth peer name other; ip addr add 10.8.0.5/24 dev uplink; ip link set uplink up;
            ip link set other up; ip link set uplink master br9; ip addr add 10.8.0.5/24 dev br9;
            ip route add default via 10.8.0.1 dev br9; ip route add 10.7.0.0/16 via 10.8.0.2 dev uplink")
        .await;
        KernelLinks.attach("uplink", "br9").await.unwrap();
        let routes = sh("ip route show; ip -4 addr show uplink").await;
        for route in ["default via 10.8.0.1 dev br9", "10.7.0.0/16 via 10.8.0.2 dev br9", "10.8.0.0/24 dev br9"] {
            assert!(routes.contains(route), "{route} in {routes}");
        }
        assert!(!routes.contains("uplink proto") && !routes.contains("inet "), "{routes}");
    });
}

#[test]
fn a_bridge_takes_the_mtu_of_what_leads_to_other_hosts() {
    in_namespace("a_bridge_takes_the_mtu_of_what_leads_to_other_hosts", async || {
        sh("ip link add uplink mtu 1400 type veth peer name other mtu 1400").await;
        let bridge = Bridge { name: "br9".into(), address: None, address6: None, mtu: None };
        KernelLinks.ensure_bridge(&bridge).await.unwrap();
        KernelLinks.attach("uplink", "br9").await.unwrap();
        let shown = sh("ip link show br9; ip -4 addr show br9").await;
        assert!(shown.contains("mtu 1400") && !shown.contains("inet "), "{shown}");
        // Asking again changes neither.
        assert!(!KernelLinks.ensure_bridge(&bridge).await.unwrap());
        KernelLinks.attach("uplink", "br9").await.unwrap();
        assert!(sh("ip link show br9").await.contains("mtu 1400"));
    });
}

#[test]
fn the_guest_firewall_keeps_the_contract() {
    in_namespace("the_guest_firewall_keeps_the_contract", async || {
        guest_firewall_contract(&firewall(true)).await;
        guest_firewall_contract(&firewall(false)).await;
        let with_ipv6 = Policy { project_traffic: true, ipv6: true };
        guest_firewall_contract(&KernelGuestFirewall::new(Arc::new(Host), with_ipv6)).await;
    });
}

#[test]
fn the_network_firewall_keeps_the_contract() {
    in_namespace("the_network_firewall_keeps_the_contract", async || {
        network_firewall_contract(&KernelNetworkFirewall::new(Arc::new(Host))).await;
    });
}

#[test]
fn what_somebody_changed_in_our_tables_is_mended_and_other_tables_are_left() {
    in_namespace("what_somebody_changed_in_our_tables_is_mended_and_other_tables_are_left", async || {
        bridge().await;
        let guest = Guest::named(3);
        let wanted = whole(&[&guest], vec![group(1, &[(tcp(TELNET), Source::EVERYONE)])]);
        let firewall = firewall(false);
        firewall.ensure(&wanted).await.unwrap();
        sh("nft add table inet theirs; nft flush chain inet nova_compute inst-00000003;
            nft add rule inet nova_compute sg-00000001 accept;
            nft delete element bridge nova_compute taps '{ \"tap00000003\" }'")
        .await;
        // A change elsewhere in the table still goes through.
        let change = FirewallChange { set: whole(&[&Guest::named(4)], Vec::new()), gone: Vec::new() };
        assert!(firewall.change(&change).await.unwrap().commands < 15);
        // This one does not fit any more; then everything is compared.
        let change = FirewallChange { gone: vec![InstanceId::new(3), InstanceId::new(4)], ..FirewallChange::default() };
        firewall.change(&change).await.unwrap();
        assert_ne!(firewall.ensure(&wanted).await.unwrap().commands, 0);
        assert_eq!(firewall.ensure(&wanted).await.unwrap().commands, 0);
        let tables = sh("nft list ruleset").await;
        assert!(tables.contains("table inet theirs") && !tables.contains("\t\taccept\n"), "{tables}");
    });
}

#[test]
fn a_group_lets_in_what_it_names_and_nothing_else() {
    in_namespace("a_group_lets_in_what_it_names_and_nothing_else", async || {
        bridge().await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        two.listen(TELNET).await;
        two.listen(80).await;
        assert!(one.connects(two.address, TELNET).await && one.connects(two.address, 80).await, "without any rules");
        let open = group(1, &[(tcp(TELNET), Source::EVERYONE)]);
        let mut wanted = whole(&[&one, &two], vec![open.clone()]);
        let firewall = firewall(false);
        firewall.ensure(&wanted).await.unwrap();
        assert!(one.connects(two.address, TELNET).await, "the port that is let in");
        assert!(!one.connects(two.address, 80).await, "another port");
        assert!(!one.pings(two.address).await, "another protocol");
        assert!(!namespace::host_connects(two.address, 80).await, "this host is no exception");
        assert!(namespace::host_connects(two.address, TELNET).await);

        // A source group: its members may enter, others may not.
        let members = SecurityGroupId::new(9);
        wanted.groups = vec![group(1, &[(Traffic::Icmp(Icmp::Type(8)), Source::Group(members))])];
        wanted.members = vec![GroupMembers { id: members, addresses: vec![one.address.into()] }];
        firewall.ensure(&wanted).await.unwrap();
        assert!(one.pings(two.address).await, "a member of the source group");
        assert!(!namespace::host_pings(two.address).await, "not a member");
        assert!(!one.connects(two.address, TELNET).await, "the old rule is gone");
    });
}

#[test]
fn guests_of_a_project_reach_each_other_only_under_the_flag() {
    in_namespace("guests_of_a_project_reach_each_other_only_under_the_flag", async || {
        bridge().await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        let mut wanted = whole(&[&one, &two], Vec::new());
        wanted.projects = vec![(one.port(&[]).project, vec![one.address.into()])];
        firewall(false).ensure(&wanted).await.unwrap();
        assert!(!one.pings(two.address).await);
        firewall(true).ensure(&wanted).await.unwrap();
        assert!(one.pings(two.address).await, "the same project");
        assert!(!namespace::host_pings(two.address).await, "not the whole range, as in old Nova");
    });
}

#[test]
fn a_guest_cannot_pretend_to_be_another() {
    in_namespace("a_guest_cannot_pretend_to_be_another", async || {
        bridge().await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        let gateway = Ipv4Addr::new(10, 9, 0, 1);
        one.sh("ip addr add fd00::3/64 dev eth0 nodad").await;
        two.sh("ip addr add fd00::4/64 dev eth0 nodad").await;
        assert!(one.finds("fd00::4").await, "IPv6 without any rules");
        let everything = group(1, &[(Traffic::All, Source::EVERYONE)]);
        firewall(false).ensure(&whole(&[&one, &two], vec![everything])).await.unwrap();
        assert!(!one.run("ping -6 -c1 -W1 fd00::4").await, "IPv6");
        assert!(one.pings(gateway).await, "as itself");
        one.sh("ip addr add 10.9.0.77/24 dev eth0").await;
        assert!(!one.run("ping -c1 -W1 -I 10.9.0.77 10.9.0.1").await, "with another's address");
        one.sh("ip addr del 10.9.0.77/24 dev eth0; ip link set eth0 address 02:16:3e:00:00:77").await;
        assert!(!one.pings(gateway).await, "with another's hardware address");
        one.sh("ip link set eth0 address 02:16:3e:00:00:03; ip addr replace 10.9.0.3/24 dev eth0").await;
        assert!(one.pings(gateway).await, "as itself again");
    });
}

#[test]
fn a_guest_cannot_play_dhcp_server() {
    in_namespace("a_guest_cannot_play_dhcp_server", async || {
        bridge().await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        let _rogue = one
            .serve(&[
                "dnsmasq",
                "-k",
                "-C",
                "/dev/null",
                "-i",
                "eth0",
                "--bind-interfaces",
                "--port=0",
                "-u",
                "root",
                "--pid-file=",
                "--leasefile-ro",
                "--no-ping",
                "--dhcp-range=10.9.0.50,10.9.0.60",
            ])
            .await;
        assert!(two.run(ASK).await, "without any rules");
        let everything = group(1, &[(Traffic::All, Source::EVERYONE)]);
        firewall(true).ensure(&whole(&[&one, &two], vec![everything])).await.unwrap();
        assert!(one.pings(two.address).await);
        assert!(!two.run(ASK).await, "a guest handed out an address");
    });
}

#[test]
fn guests_may_ask_their_host_only_for_what_they_need() {
    in_namespace("guests_may_ask_their_host_only_for_what_they_need", async || {
        bridge().await;
        let one = Guest::start(3).await;
        let _api = namespace::host_listens(8773).await;
        let _other = namespace::host_listens(3306).await;
        let gateway = Ipv4Addr::new(10, 9, 0, 1);
        assert!(one.connects(gateway, 3306).await, "without any rules");
        one.sh("ip route add default via 10.9.0.1").await;
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        for metadata in ["10.9.0.1:8773", "127.0.0.1:8773"] {
            let network = GuestNetwork {
                bridge: "br9".into(),
                cidr: "10.9.0.0/24".parse().unwrap(),
                gateway,
                first_guest: Ipv4Addr::new(10, 9, 0, 2),
                prefix6: None,
                vpn: None,
            };
            let wanted = Gateway {
                networks: vec![network],
                fixed_range: "10.0.0.0/8".parse().unwrap(),
                routing_source: Ipv4Addr::new(10, 8, 0, 1),
                dmz: "10.128.0.0/24".parse().unwrap(),
                metadata: metadata.parse().unwrap(),
                floating: std::collections::BTreeMap::new(),
            };
            firewall.ensure(&wanted).await.unwrap();
            assert!(one.connects(Ipv4Addr::new(169, 254, 169, 254), 80).await, "metadata at {metadata}");
            assert!(one.pings(gateway).await);
            assert!(!one.connects(gateway, 3306).await, "the database");
            assert!(!one.connects(gateway, 8773).await, "the API, past the metadata address");
        }
    });
}

/// Two networks behind this host, whose `world` is the namespace beyond `port-w`.
const TWO_NETWORKS: &str = "
    ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward
    host() {
        ip netns add $1; ip link add $2 type veth peer name eth0 netns $1
        ip -n $1 link set lo up; ip -n $1 link set eth0 up; ip -n $1 addr add $3/24 dev eth0
        ip link set $2 up; ip -n $1 route add default via $4
    }
    mount -t tmpfs none /run; mkdir -p /run/netns
    for n in 0 1; do ip link add br10$n type bridge forward_delay 0; ip link set br10$n up; ip addr add 10.$n.0.1/24 dev br10$n; done
    host a port-a 10.0.0.2 10.0.0.1; ip link set port-a master br100
    host b port-b 10.1.0.2 10.1.0.1; ip link set port-b master br101
    host c port-c 10.1.0.3 10.1.0.1; ip link set port-c master br101
    host world port-w 172.16.0.7 172.16.0.9; ip addr add 172.16.0.9/24 dev port-w
    for each in a b c world; do timeout 60 ip netns exec $each busybox nc -ll -p 80 -e cat >/dev/null 2>&1 & done
    timeout 60 ip netns exec b perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Proto => udp, LocalPort => 1194);
        while ($s->recv($x, 99)) { $s->send($x) }' &
    sleep 0.4";

async fn reaches(from: &str, to: &str) -> bool {
    let ask = format!("echo x | ip netns exec {from} timeout 1 busybox nc -w 1 {to} 80 | grep -q x");
    Host.run(Command::new("sh").args(["-c", &ask])).await.is_ok()
}

#[test]
fn networks_are_apart_and_a_vpn_is_let_in() {
    in_namespace("networks_are_apart_and_a_vpn_is_let_in", async || {
        sh(TWO_NETWORKS).await;
        assert!(reaches("a", "10.1.0.2").await && reaches("b", "10.0.0.2").await, "without any rules");
        let network = |n: u8, vpn| GuestNetwork {
            bridge: format!("br10{n}"),
            cidr: format!("10.{n}.0.0/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, n, 0, 1),
            first_guest: Ipv4Addr::new(10, n, 0, 2),
            prefix6: None,
            vpn,
        };
        let public = Ipv4Addr::new(172, 16, 0, 9);
        let vpn = Vpn { public, port: 1001, private: Ipv4Addr::new(10, 1, 0, 2) };
        let wanted = Gateway {
            networks: vec![network(0, None), network(1, Some(vpn))],
            fixed_range: "10.0.0.0/8".parse().unwrap(),
            routing_source: public,
            dmz: "10.128.0.0/24".parse().unwrap(),
            metadata: "172.16.0.9:8773".parse().unwrap(),
            floating: std::collections::BTreeMap::new(),
        };
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        firewall.ensure(&wanted).await.unwrap();
        assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
        assert!(!reaches("a", "10.1.0.2").await && !reaches("b", "10.0.0.2").await, "networks reach each other");
        assert!(reaches("b", "10.1.0.3").await && reaches("c", "10.1.0.2").await, "guests of one network");
        assert!(reaches("a", "172.16.0.7").await && reaches("b", "172.16.0.7").await, "the world");
        let ask = "exec 3<>/dev/udp/172.16.0.9/1001; echo x >&3; read -t 2 answer <&3; test $answer = x";
        sh(&format!("ip netns exec world bash -c '{ask}'")).await;
    });
}

#[test]
fn dnsmasq_keeps_the_contract_and_outlives_us() {
    in_namespace("dnsmasq_keeps_the_contract_and_outlives_us", async || {
        bridge().await;
        let folder = namespace::folder();
        let network = dhcp_network(folder.path());
        let servers = || Dnsmasq::new(Arc::new(Host), folder.path().join("networks"));
        dhcp_servers_contract(&servers(), network.clone()).await;

        assert_eq!(servers().ensure(&network).await.unwrap(), Server::Started);
        let pid_file = folder.path().join("networks/nova-br9.pid");
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        assert_eq!(servers().ensure(&network).await.unwrap(), Server::Running, "a new daemon finds the old server");
        // A lost or stale pid file: ours is found, and whoever has that pid is left alone.
        let mut sleeper = namespace::sleeper();
        for text in ["", "garbage", &sleeper.id().to_string()] {
            std::fs::write(&pid_file, text).unwrap();
            assert_eq!(servers().ensure(&network).await.unwrap(), Server::Running, "pid file {text:?}");
        }
        std::fs::write(&pid_file, &pid).unwrap();
        sh(&format!("kill -9 {pid}")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(servers().ensure(&network).await.unwrap(), Server::Started, "a dead one is replaced");
        servers().stop("br9").await.unwrap();
        assert!(sleeper.try_wait().unwrap().is_none(), "a foreign process was ended");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    });
}

#[test]
fn a_guest_gets_its_address_by_dhcp_through_both_firewalls() {
    in_namespace("a_guest_gets_its_address_by_dhcp_through_both_firewalls", async || {
        bridge().await;
        let folder = namespace::folder();
        let network = dhcp_network(folder.path());
        let servers = Dnsmasq::new(Arc::new(Host), folder.path().join("networks"));
        servers.set_hosts(&network, &[]).await.unwrap();
        servers.ensure(&network).await.unwrap();
        let guest = Guest::start(3).await;
        guest.sh("ip addr flush dev eth0").await;
        firewall(false).ensure(&whole(&[&guest], Vec::new())).await.unwrap();
        assert!(!guest.run(ASK).await, "an unknown guest gets no answer");
        // The running server learns of a new guest from its file alone.
        servers.set_hosts(&network, &[guest.dhcp_host()]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(guest.run(ASK).await, "a known guest gets its address");
        let events = std::fs::read_to_string(folder.path().join("events")).unwrap();
        servers.set_hosts(&network, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!guest.run(ASK).await, "a guest that is gone got an answer");
        assert!(events.contains("add 02:16:3e:00:00:03 10.9.0.3 i-00000003"), "{events}");
        servers.stop("br9").await.unwrap();
    });
}

fn dhcp_network(folder: &Path) -> DhcpNetwork {
    DhcpNetwork {
        bridge: "br9".into(),
        for_guests: false,
        gateway: Ipv4Addr::new(10, 9, 0, 1),
        cidr: "10.9.0.0/24".parse().unwrap(),
        prefix6: None,
        first: Ipv4Addr::new(10, 9, 0, 2),
        domain: "novalocal".into(),
        lease: Duration::from_secs(120),
        mtu: None,
        name_server: None,
        script: namespace::script(folder),
        flag_file: None,
    }
}
