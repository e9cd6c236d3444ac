//! What becomes of open connections when a rule goes, and what guests may ask of a host that only runs them.

use std::net::Ipv4Addr;
use std::time::Duration;

use nova_link::guests::{FirewallChange, GuestFirewall};
use nova_types::rule::{Ports, Source, Traffic};
use nova_types::security_group::HostFirewall;

use crate::namespace::{self, Guest, in_namespace, sh};
use crate::{bridge, firewall, group, tcp, whole};

/// A guest that talks all the time, whether anybody listens or not.
const TALKER: &str = "while :; do echo tick; sleep 0.1; done";

async fn talker(guest: &Guest, port: u16) -> nova_run::Child {
    guest.serve(&["busybox", "nc", "-ll", "-p", &port.to_string(), "-e", "sh", "-c", TALKER]).await
}

#[test]
fn a_revoked_rule_ends_open_connections() {
    in_namespace("groups::a_revoked_rule_ends_open_connections", async || {
        bridge().await;
        let (one, two) = (Guest::start(3).await, Guest::start(4).await);
        two.listen(23).await;
        let firewall = firewall(false);
        let wanted = whole(&[&one, &two], vec![group(1, &[(tcp(23), Source::EVERYONE)])]);
        firewall.ensure(&wanted).await.unwrap();
        let mut talk = one.talk(two.address, 23).await;
        assert!(talk.echoes("before").await);
        let set = HostFirewall { groups: vec![group(1, &[])], ..HostFirewall::default() };
        let changed = firewall.change(&FirewallChange { set, gone: Vec::new() }).await.unwrap();
        assert!(changed.forgotten >= 1, "{changed:?}");
        assert!(!talk.echoes("after").await, "the connection goes on although its rule is gone");
    });
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

/// Asks 200 times a second from one port, and prints each tenth answer.
const ASKER: &str = "
    use IO::Socket::INET; use IO::Select; $| = 1;
    $s = IO::Socket::INET->new(Proto => udp, PeerAddr => $ARGV[0], PeerPort => 53, LocalPort => 5353);
    $select = IO::Select->new($s);
    while (1) { $s->send(q(x)); if ($select->can_read(0.005)) { $s->recv($x, 9); print qq(tick\\n) unless $n++ % 10 } }";
/// Answers, and takes its time.
const ANSWERER: &str = "
    use IO::Socket::INET;
    $s = IO::Socket::INET->new(Proto => udp, LocalPort => 53);
    while ($s->recv($x, 9)) { select(undef, undef, undef, 0.003); $s->send($x) }";

#[test]
fn a_stream_of_questions_and_answers_ends_with_its_rule() {
    in_namespace("groups::a_stream_of_questions_and_answers_ends_with_its_rule", async || {
        bridge().await;
        let (stranger, two) = (Guest::start(9).await, Guest::start(4).await);
        let _answerer = two.serve(&["perl", "-e", ANSWERER]).await;
        let firewall = firewall(false);
        let dns = Traffic::Udp(Ports { from: 53, to: 53 });
        let with = |rules: &[_]| whole(&[&two], vec![group(1, rules)]);
        let open = with(&[(dns, Source::EVERYONE)]);
        firewall.ensure(&open).await.unwrap();
        let mut asker = stranger.talks(&["perl", "-e", ASKER, &two.address.to_string()]).await;
        for _ in 0..3 {
            firewall.ensure(&open).await.unwrap();
            assert!(asker.hears("tick").await, "with its rule back it goes on");
            assert_eq!(firewall.ensure(&with(&[])).await.unwrap().forgotten, 1);
            let silent = async { while asker.hears("tick").await {} };
            tokio::time::timeout(Duration::from_secs(10), silent).await.expect("it goes on although its rule is gone");
        }
        // It is not cut for ever: the kernel forgets it.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(firewall.ensure(&with(&[])).await.unwrap().forgotten, 1);
        assert!(!asker.hears("tick").await, "it goes on after it was forgotten");
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
        wanted.projects = vec![(one.port(&[]).project, vec![one.address.into()])];
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
