//! What becomes of open connections when a rule goes, and what guests may ask of a host that only runs them.

use std::net::Ipv4Addr;
use std::time::Duration;

use nova_link::guests::{FirewallChange, GuestFirewall};
use nova_types::rule::Source;
use nova_types::security_group::HostFirewall;

use crate::namespace::{self, Guest, in_namespace, sh};
use crate::{bridge, firewall, group, tcp, whole};

/// A guest that talks all the time, whether anybody listens or not.
const TALKER: &str = "while :; do echo tick; sleep 0.1; done";

async fn talker(guest: &Guest, port: u16) -> nova_run::Child {
    guest.serve(&["busybox", "nc", "-ll", "-p", &port.to_string(), "-e", "sh", "-c", TALKER]).await
}

#[test]
fn a_revoked_rule_ends_what_the_guest_goes_on_to_send() {
    in_namespace("groups::a_revoked_rule_ends_what_the_guest_goes_on_to_send", async || {
        bridge().await;
        // Nothing judges what is sent to one who is not ours.
        let (stranger, two) = (Guest::start(9).await, Guest::start(4).await);
        let (_doomed, _kept) = (talker(&two, 23).await, talker(&two, 80).await);
        let firewall = firewall(false);
        let rules = [(tcp(23), Source::EVERYONE), (tcp(80), Source::EVERYONE)];
        firewall.ensure(&whole(&[&two], vec![group(1, &rules)])).await.unwrap();
        let (mut doomed, mut kept) = (stranger.talk(two.address, 23).await, stranger.talk(two.address, 80).await);
        assert!(doomed.hears("tick").await && kept.hears("tick").await);
        let set = HostFirewall { groups: vec![group(1, &rules[1..])], ..HostFirewall::default() };
        let changed = firewall.change(&FirewallChange { set, gone: Vec::new() }).await.unwrap();
        assert_eq!(changed.forgotten, 1, "the other is still allowed");
        let silent = async { while doomed.hears("tick").await {} };
        tokio::time::timeout(Duration::from_secs(10), silent).await.expect("it goes on although its rule is gone");
        for _ in 0..20 {
            assert!(kept.hears("tick").await, "a connection that is still allowed was cut");
        }
    });
}

#[test]
fn what_a_guest_opened_outlives_the_rules_about_it() {
    in_namespace("groups::what_a_guest_opened_outlives_the_rules_about_it", async || {
        bridge().await;
        let (one, stranger) = (Guest::start(3).await, Guest::start(9).await);
        stranger.listen(23).await;
        let _talker = talker(&stranger, 80).await;
        let firewall = firewall(true);
        let mut wanted = whole(&[&one], vec![group(1, &[(tcp(22), Source::EVERYONE)])]);
        wanted.projects = vec![(one.port(&[]).project, vec![one.address])];
        firewall.ensure(&wanted).await.unwrap();
        let (mut asked, mut told) = (one.talk(stranger.address, 23).await, one.talk(stranger.address, 80).await);
        assert!(asked.echoes("before").await && told.hears("tick").await);
        // Neither its group nor the addresses of its project let it be reached any more.
        wanted.groups = vec![group(1, &[])];
        wanted.projects = vec![(one.port(&[]).project, Vec::new())];
        assert_eq!(firewall.ensure(&wanted).await.unwrap().forgotten, 0);
        assert!(asked.echoes("after").await && told.hears("tick").await);
    });
}

#[test]
fn guests_do_not_reach_a_host_that_only_runs_them() {
    in_namespace("groups::guests_do_not_reach_a_host_that_only_runs_them", async || {
        bridge().await;
        sh("ip link add lan type veth peer name other; ip addr add 10.8.0.5/24 dev lan; ip link set lan up").await;
        let (one, router) = (Guest::start(3).await, Guest::start(9).await);
        let _ssh = namespace::host_listens(22).await;
        let (on_the_bridge, elsewhere) = (Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 8, 0, 5));
        for guest in [&one, &router] {
            guest.sh("ip route add default via 10.9.0.1").await;
            for address in [on_the_bridge, elsewhere] {
                assert!(guest.connects(address, 22).await, "without any rules");
            }
        }
        firewall(true).ensure(&whole(&[&one], vec![group(1, &[(tcp(22), Source::EVERYONE)])])).await.unwrap();
        for address in [on_the_bridge, elsewhere] {
            assert!(!one.connects(address, 22).await, "a guest reaches its host at {address}");
            assert!(router.connects(address, 22).await, "who is no guest still does");
        }
        assert!(one.pings(on_the_bridge).await);
        one.listen(22).await;
        assert!(namespace::host_connects(one.address, 22).await, "answers to the host are let through");
    });
}
