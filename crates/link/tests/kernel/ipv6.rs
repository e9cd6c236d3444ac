//! IPv6: what a network's router says, what guests may say, and what groups let in.

use std::sync::Arc;

use nova_link::dnsmasq::{DhcpNetwork, DhcpServers, Dnsmasq};
use nova_link::gateway::{Gateway, GuestNetwork, KernelNetworkFirewall, NetworkFirewall};
use nova_link::guests::{GuestFirewall, KernelGuestFirewall, Policy};
use nova_link::links::{Bridge, KernelLinks, Links};
use nova_run::Host;
use nova_types::rule::{Icmp, Source, Traffic};
use nova_types::security_group::{GroupMembers, GuestIpv6, GuestPort, HostFirewall};
use nova_types::{Prefix64, SecurityGroupId};

use super::namespace::{self, Guest, in_namespace, sh};
use super::{GATEWAY, TELNET, dhcp_network, group, tcp, whole};

const PREFIX: &str = "fd00:9::/64";
const ROUTER: &str = "fd00:9::1";
const ROUTER_ON_LINK: &str = "fe80::46e:aff:fe09:1";

fn prefix() -> Prefix64 {
    PREFIX.parse().unwrap()
}

/// A host that serves a network with IPv6: the bridge, and who tells guests of the prefix.
async fn serve(folder: &std::path::Path) -> (Dnsmasq, DhcpNetwork) {
    let address6 = Some(format!("{ROUTER}/64").parse().unwrap());
    let bridge = Bridge { name: "br9".into(), address: Some(GATEWAY.parse().unwrap()), address6, mtu: None };
    assert!(KernelLinks.ensure_bridge(&bridge).await.unwrap());
    assert!(!KernelLinks.ensure_bridge(&bridge).await.unwrap());
    sh("ip link set lo up").await;
    let network = DhcpNetwork { prefix6: Some(prefix()), ..dhcp_network(folder) };
    let servers = Dnsmasq::new(Arc::new(Host), folder);
    servers.ensure(&network).await.unwrap();
    (servers, network)
}

fn firewall(project_traffic: bool) -> KernelGuestFirewall {
    KernelGuestFirewall::new(Arc::new(Host), Policy { project_traffic, ipv6: true })
}

fn address(guest: &Guest) -> std::net::Ipv6Addr {
    prefix().address_of(guest.port(&[]).mac)
}

/// The guest's rules, with the router that it may hear.
fn port(guest: &Guest) -> GuestPort {
    let ipv6 = GuestIpv6 { address: address(guest), router: Some(ROUTER_ON_LINK.parse().unwrap()) };
    GuestPort { ipv6: Some(ipv6), ..guest.port(&[1]) }
}

fn rules(guests: &[&Guest], traffic: &[(Traffic, Source)]) -> HostFirewall {
    let guests = guests.iter().map(|guest| port(guest)).collect();
    HostFirewall { guests, ..whole(&[], vec![group(1, traffic)]) }
}

/// Waits until the guest has made its address, and it is known that nobody else has it.
async fn settled(guest: &Guest) {
    let shown = format!("ip -6 addr show dev eth0 to {} -tentative | grep -q inet6", address(guest));
    let waited = guest.run(&format!("for i in $(seq 100); do {shown} && exit 0; sleep 0.1; done; exit 1")).await;
    assert!(waited, "the guest has no address");
}

fn everyone() -> Source {
    Source::range("::/0").unwrap()
}

#[test]
fn a_guest_makes_its_address_of_what_the_router_says_and_groups_judge_it() {
    in_namespace("ipv6::a_guest_makes_its_address_of_what_the_router_says_and_groups_judge_it", async || {
        let folder = namespace::folder();
        let (servers, network) = serve(folder.path()).await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        let firewall = firewall(false);
        firewall.ensure(&rules(&[&one, &two], &[(tcp(TELNET), everyone())])).await.unwrap();
        two.listen(TELNET).await;
        two.listen(80).await;
        settled(&one).await;
        settled(&two).await;
        let to = address(&two);
        assert!(one.connects(to, TELNET).await, "the port that is let in");
        assert!(!one.connects(to, 80).await && !one.pings(to).await, "and nothing else");
        assert!(!one.connects(two.address, TELNET).await, "nor by IPv4");
        assert!(namespace::host_connects(to, TELNET).await && !namespace::host_connects(to, 80).await);
        let link_local = nova_types::net6::link_local(two.port(&[]).mac);
        assert!(!one.connects(format!("{link_local}%eth0"), 80).await, "its other address is judged as well");
        assert!(one.connects(format!("{link_local}%eth0"), TELNET).await);

        let members = SecurityGroupId::new(9);
        let ping = Traffic::Icmp(Icmp::Any);
        let mut wanted = rules(&[&one, &two], &[(ping, Source::Group(members))]);
        wanted.members = vec![GroupMembers { id: members, addresses: vec![one.address.into(), address(&one).into()] }];
        let mut talk = one.talk(to, TELNET).await;
        assert!(talk.echoes("before").await);
        assert_ne!(firewall.ensure(&wanted).await.unwrap().forgotten, 0);
        assert!(!talk.echoes("after").await, "a revoked rule ends what is open");
        assert!(one.finds(to).await && one.finds(two.address).await, "a member of the group, by either");
        assert!(!namespace::host_pings(to).await, "not a member");
        servers.stop(&network.bridge).await.unwrap();
        // This program is who should reap what ended.
        assert_eq!(sh("ps -eo stat=,comm= | grep dnsmasq | grep -vc ^Z || true").await.trim(), "0");
    });
}

#[test]
fn ipv6_is_not_let_through_where_it_is_off() {
    in_namespace("ipv6::ipv6_is_not_let_through_where_it_is_off", async || {
        let folder = namespace::folder();
        serve(folder.path()).await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        settled(&one).await;
        settled(&two).await;
        assert!(one.finds(address(&two)).await && one.finds(ROUTER).await, "the control");
        let wanted = rules(&[&one, &two], &[(Traffic::All, everyone()), (Traffic::All, Source::EVERYONE)]);
        super::firewall(false).ensure(&wanted).await.unwrap();
        assert!(!one.pings(address(&two)).await && !one.pings(ROUTER).await);
        assert!(one.finds(two.address).await);
        firewall(false).ensure(&wanted).await.unwrap();
        assert!(one.finds(address(&two)).await && one.finds(ROUTER).await, "and it is where it is on");
    });
}

#[test]
fn a_guest_is_no_other_and_no_router_by_ipv6() {
    in_namespace("ipv6::a_guest_is_no_other_and_no_router_by_ipv6", async || {
        let folder = namespace::folder();
        serve(folder.path()).await;
        let (liar, victim) = (Guest::start(3).await, Guest::start(4).await);
        settled(&liar).await;
        settled(&victim).await;
        let taken = address(&victim);
        // An address of the prefix that nobody has, the victim's, and that of the router.
        let addresses = ["fd00:9::66".to_owned(), taken.to_string(), ROUTER_ON_LINK.to_owned()];
        liar.sh("ip -6 addr add fd00:9::66/128 dev eth0 nodad").await;
        assert!(liar.finds(format!("-I fd00:9::66 {ROUTER}")).await, "the control: without rules it may be anybody");
        let advertise = format!(
            "timeout 4 dnsmasq -k --conf-file= --port=0 --interface=eth0 --enable-ra --dhcp-range=fd66::,ra-only,64 \
             --dhcp-leasefile=/dev/null --pid-file= --ra-param=eth0,high,4,1800 --log-facility={}/log",
            folder.path().display()
        );
        let heard = "ip -6 addr show dev eth0 | grep -q fd66";
        liar.sh("ip -6 addr add fd66::1/64 dev eth0 nodad").await;
        assert!(!victim.run(heard).await);
        liar.run(&advertise).await;
        assert!(victim.run(heard).await, "the control: without rules it may be a router");
        liar.sh("ip -6 addr del fd00:9::66/128 dev eth0").await;
        victim.sh("ip -6 addr flush dev eth0 to fd66::/64; ip -6 route flush root fd66::/64").await;

        let wanted = rules(&[&liar, &victim], &[(Traffic::All, everyone())]);
        firewall(false).ensure(&wanted).await.unwrap();
        assert!(liar.finds(taken).await && liar.finds(ROUTER).await, "the control: as itself it reaches others");
        liar.run(&advertise).await;
        assert!(!victim.run(heard).await, "a router that is a guest is not heard");
        let own = |address: &String| *address == taken.to_string();
        for address in addresses {
            liar.run(&format!("ip -6 addr add {address}/128 dev eth0 nodad")).await;
            sh("ip -6 neigh flush dev br9").await;
            assert!(!liar.pings(format!("-I {address} {ROUTER}")).await, "as {address}");
            // Whoever answers for that address is the victim or nobody, and never the liar.
            sh(&format!("ip -6 neigh flush dev br9; ping -I br9 -c1 -w5 {address} || true")).await;
            let known = sh(&format!("ip -6 neigh show dev br9 to {address}; echo")).await;
            let mac = victim.port(&[]).mac.to_string();
            assert_eq!((known.contains("02:16:3e"), known.contains(&mac)), (own(&address), own(&address)), "{known}");
        }
    });
}

#[test]
fn a_guest_asks_its_host_for_an_echo_and_nothing_else_by_ipv6() {
    in_namespace("ipv6::a_guest_asks_its_host_for_an_echo_and_nothing_else_by_ipv6", async || {
        let folder = namespace::folder();
        serve(folder.path()).await;
        sh("ip link add outside type veth peer name beyond; ip link set outside up; ip link set beyond up; ip -6 addr add fd77::1/64 dev outside nodad").await;
        let guest = Guest::start(3).await;
        settled(&guest).await;
        let _server = namespace::host_listens(TELNET).await;
        let on_link = format!("{ROUTER_ON_LINK}%eth0");
        assert!(guest.connects(ROUTER, TELNET).await && guest.connects("fd77::1", TELNET).await, "the control");
        let wanted = Gateway {
            networks: vec![GuestNetwork {
                bridge: "br9".into(),
                cidr: "10.9.0.0/24".parse().unwrap(),
                gateway: "10.9.0.1".parse().unwrap(),
                first_guest: "10.9.0.2".parse().unwrap(),
                prefix6: Some(prefix()),
                vpn: None,
            }],
            fixed_range: "10.0.0.0/8".parse().unwrap(),
            routing_source: "10.9.0.1".parse().unwrap(),
            dmz: "10.128.0.0/24".parse().unwrap(),
            metadata: "127.0.0.1:8773".parse().unwrap(),
            floating: Default::default(),
        };
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        assert_ne!(firewall.ensure(&wanted).await.unwrap(), 0);
        assert_eq!(firewall.ensure(&wanted).await.unwrap(), 0);
        sh("ip -6 neigh flush dev br9").await;
        for to in [ROUTER, "fd77::1", &on_link] {
            assert!(!guest.connects(to, TELNET).await, "{to}");
        }
        assert!(guest.finds(ROUTER).await && guest.finds(&on_link).await && !guest.pings("fd77::1").await);
    });
}

#[test]
fn who_forwards_ipv6_still_learns_the_way_from_its_own_router() {
    in_namespace("ipv6::who_forwards_ipv6_still_learns_the_way_from_its_own_router", async || {
        sh("ip link add uplink type veth peer name deaf; ip link set uplink up; ip link set deaf up
            mount -t proc proc /proc; echo 0 >/proc/sys/net/ipv6/conf/deaf/accept_ra")
        .await;
        let settings = "cd /proc/sys/net/ipv6/conf; cat uplink/accept_ra deaf/accept_ra all/forwarding";
        assert_eq!(sh(settings).await.split_whitespace().collect::<Vec<_>>(), ["1", "0", "0"]);
        nova_link::forward_ipv6_packets().unwrap();
        assert_eq!(sh(settings).await.split_whitespace().collect::<Vec<_>>(), ["2", "0", "1"]);
    });
}
