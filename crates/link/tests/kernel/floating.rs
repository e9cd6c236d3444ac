//! Floating addresses, against packets: from outside, from the host, and from guest to guest.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nova_link::gateway::{Gateway, GuestNetwork, KernelNetworkFirewall, NetworkFirewall};
use nova_link::links::{KernelLinks, Links};
use nova_run::{Child, Command, Host, Runner as _};

use super::bridge;
use super::namespace::{Guest, host_connects, in_namespace, sh};

const TELNET: u16 = 23;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 100);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 50);

fn wanted(floating: &[(Ipv4Addr, &Guest)]) -> Gateway {
    Gateway {
        networks: vec![GuestNetwork {
            vpn: None,
            bridge: "br9".into(),
            cidr: "10.9.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 9, 0, 1),
            first_guest: Ipv4Addr::new(10, 9, 0, 2),
            prefix6: None,
        }],
        fixed_range: "10.0.0.0/8".parse().unwrap(),
        routing_source: Ipv4Addr::new(172, 16, 0, 9),
        dmz: "10.128.0.0/24".parse().unwrap(),
        metadata: "172.16.0.9:8773".parse().unwrap(),
        floating: floating.iter().map(|(public, guest)| (*public, guest.address)).collect::<BTreeMap<_, _>>(),
    }
}

/// A machine beyond the public interface `up0`, whose address here is 172.16.0.9.
struct Outside(Child);

impl Outside {
    async fn start() -> Self {
        let process = Host.spawn(Command::new("unshare").args(["-n", "cat"])).await.unwrap();
        let pid = process.process.pid;
        sh(&format!(
            r#"while [ "$(readlink /proc/{pid}/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
               ip link add up0 type veth peer name eth0 netns {pid}; ip addr add 172.16.0.9/24 dev up0
               ip link set up0 up; ip route add default via {OUTSIDE}; echo 1 > /proc/sys/net/ipv4/ip_forward"#
        ))
        .await;
        let outside = Self(process);
        assert!(
            outside.run(&format!("ip link set lo up; ip link set eth0 up; ip addr add {OUTSIDE}/24 dev eth0")).await
        );
        outside
    }

    async fn run(&self, text: &str) -> bool {
        let pid = self.0.process.pid.to_string();
        Host.run(Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-ec", text])).await.is_ok()
    }

    async fn connects(&self, to: Ipv4Addr, port: u16) -> bool {
        self.run(&format!("echo x | timeout 1 busybox nc -w 1 {to} {port} | grep -q x")).await
    }

    async fn pings(&self, to: Ipv4Addr) -> bool {
        self.run(&format!("ping -c1 -W1 {to}")).await
    }

    async fn knows(&self, address: Ipv4Addr, mac: &str) -> bool {
        self.run(&format!("ip neigh show {address} | grep -q {mac}")).await
    }
}

async fn guest(number: u8) -> Guest {
    let guest = Guest::start(number).await;
    guest.sh("ip route add default via 10.9.0.1").await;
    guest.listen(TELNET).await;
    guest
}

#[test]
fn a_guest_is_reached_and_known_by_its_floating_address() {
    in_namespace("floating::a_guest_is_reached_and_known_by_its_floating_address", async || {
        bridge().await;
        let (outside, one, other) = (Outside::start().await, guest(3).await, guest(4).await);
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        firewall.ensure(&wanted(&[])).await.unwrap();
        assert_eq!(KernelLinks.default_interface().await.unwrap().as_deref(), Some("up0"));
        // It hears only of whom it may know by the floating address.
        assert!(
            outside
                .run(&format!(
                    "nft 'add table ip t; add chain ip t in {{ type filter hook input priority 0; }};
                     add rule ip t in tcp dport 99 ip saddr != {PUBLIC} drop';
                     busybox nc -ll -p 99 -e cat >/dev/null 2>&1 &"
                ))
                .await
        );
        assert!(!outside.connects(PUBLIC, TELNET).await && !one.connects(OUTSIDE, 99).await, "before it is bound");

        firewall.ensure(&wanted(&[(PUBLIC, &one)])).await.unwrap();
        assert!(KernelLinks.bind("up0", PUBLIC).await.unwrap());
        assert!(!KernelLinks.bind("up0", PUBLIC).await.unwrap(), "once");
        assert!(outside.connects(PUBLIC, TELNET).await && outside.pings(PUBLIC).await, "from outside");
        assert!(one.connects(OUTSIDE, 99).await, "its own address outside");
        assert!(!other.connects(OUTSIDE, 99).await && other.pings(OUTSIDE).await, "others keep that of the host");
        assert!(host_connects(PUBLIC, TELNET).await, "from the host itself");
    });
}

#[test]
fn guests_reach_each_other_and_themselves_by_floating_addresses() {
    in_namespace("floating::guests_reach_each_other_and_themselves_by_floating_addresses", async || {
        bridge().await;
        let (_outside, one, other) = (Outside::start().await, guest(3).await, guest(4).await);
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        for filtered in [false, true] {
            let value = u8::from(filtered);
            sh(&format!(
                "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ -e $f ] || modprobe br_netfilter || true; echo {value} > $f"
            ))
            .await;
            firewall.ensure(&wanted(&[])).await.unwrap();
            assert!(!other.connects(PUBLIC, TELNET).await, "before it is bound");
            firewall.ensure(&wanted(&[(PUBLIC, &one)])).await.unwrap();
            KernelLinks.bind("up0", PUBLIC).await.unwrap();
            assert!(other.connects(PUBLIC, TELNET).await, "another guest, bridged packets filtered: {filtered}");
            // With bridged packets filtered they are translated on the bridge, which sends none back where it came from.
            assert_eq!(one.connects(PUBLIC, TELNET).await, !filtered, "itself, bridged packets filtered: {filtered}");
            let both = wanted(&[(PUBLIC, &one), (Ipv4Addr::new(172, 16, 0, 51), &other)]);
            firewall.ensure(&both).await.unwrap();
            assert!(other.connects(PUBLIC, TELNET).await, "one that has an address too, filtered: {filtered}");
            KernelLinks.remove_address("up0", PUBLIC).await.unwrap();
        }
    });
}

#[test]
fn a_stream_outlives_a_restart_and_ends_with_the_association() {
    in_namespace("floating::a_stream_outlives_a_restart_and_ends_with_the_association", async || {
        bridge().await;
        let (outside, one, other) = (Outside::start().await, guest(3).await, guest(4).await);
        let second = Ipv4Addr::new(172, 16, 0, 51);
        let firewall = KernelNetworkFirewall::new(Arc::new(Host));
        firewall.ensure(&wanted(&[(PUBLIC, &one), (second, &other)])).await.unwrap();
        for address in [PUBLIC, second] {
            KernelLinks.bind("up0", address).await.unwrap();
        }
        // What goes in on one end each 100 ms comes back: the lines grow in number while the stream lives.
        let folder = tempfile::tempdir().unwrap();
        let logs = [PUBLIC, second].map(|to| folder.path().join(to.to_string()));
        for (to, log) in [PUBLIC, second].iter().zip(&logs) {
            let stream =
                format!("(while echo tick; do sleep 0.1; done) | busybox nc {to} {TELNET} > {}", log.display());
            assert!(outside.run(&format!("({stream}) >/dev/null 2>&1 &")).await);
        }
        let lines = async |index: usize| std::fs::read_to_string(&logs[index]).unwrap_or_default().lines().count();
        let grows = async |index: usize| {
            let before = lines(index).await;
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            lines(index).await > before
        };
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(grows(0).await && grows(1).await, "both streams live");

        let after = KernelNetworkFirewall::new(Arc::new(Host));
        assert_eq!(after.ensure(&wanted(&[(PUBLIC, &one), (second, &other)])).await.unwrap(), 0);
        assert!(grows(0).await, "a restart ended a stream");

        after.ensure(&wanted(&[(second, &other)])).await.unwrap();
        assert!(!grows(0).await, "it goes on after the address was taken away");
        assert!(grows(1).await, "the other must not end");
        assert!(!outside.connects(PUBLIC, TELNET).await && outside.connects(second, TELNET).await);
    });
}

#[test]
fn neighbours_are_told_who_has_an_address() {
    in_namespace("floating::neighbours_are_told_who_has_an_address", async || {
        let outside = Outside::start().await;
        let old = "02:00:00:00:00:09";
        assert!(outside.run(&format!("ip neigh add {PUBLIC} lladdr {old} dev eth0 nud stale")).await);
        assert!(outside.knows(PUBLIC, old).await);
        KernelLinks.bind("up0", PUBLIC).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let shown = sh("ip -o link show up0").await;
        let ours = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(outside.knows(PUBLIC, ours).await, "not told of {ours}");
    });
}
