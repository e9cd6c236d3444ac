//! What is said of networks that lost their host, and of those with a router on each.

use expect_test::expect;
use nova_types::Mac;

use super::{guest, host, machine, told, told_of_host};
use crate::doctor::tests::well::a_guest;

#[test]
fn a_silent_host_is_told_with_who_answers_for_the_gateway() {
    let answered = |mac: Option<[u8; 6]>| {
        let mut machine = machine();
        let mut network = machine.networks.remove(0);
        network.host = Some("node9".parse().unwrap());
        machine.networks.push(network.clone());
        machine.abandoned = vec![(network, Ok(mac.map(Mac::from)))];
        let found = host::judge(&machine).into_iter().find(|finding| finding.step == "fail-over").unwrap();
        format!("[{}] {}\n{}", found.verdict.as_str(), found.what, found.mend.unwrap_or_default())
    };
    expect![[r"
        [broken] node9 no longer renews its lease of 192.168.0.0/24, and 06:6e:c0:a8:00:01 answers for 192.168.0.1: no host takes it over
        on node9: service nova-network restart; or switch node9 off, and another takes over"]]
    .assert_eq(&answered(Some([6, 0x6e, 192, 168, 0, 1])));
    expect![[r"
        [ok] node9 has let go of 192.168.0.0/24 and nobody answers for 192.168.0.1: a moment, and it has a host
    "]]
    .assert_eq(&answered(None));
    told_of_host(
        |machine| {
            let network = machine.networks[0].clone();
            machine.abandoned = vec![(network, Err("nobody can be asked: eth1 leads nowhere".to_owned()))];
        },
        expect![
            "fail-over [not checked] node1 no longer renews its lease of 192.168.0.0/24, and nobody can be asked: eth1 leads nowhere"
        ],
    );
}

#[test]
fn a_router_of_ones_own_is_well_when_the_host_has_its_address() {
    told(|machine, _| machine.networks[0].multi_host = true, expect![""]);
    let mut machine = machine();
    (machine.networks[0].multi_host, machine.networks[0].host) = (true, None);
    let shown: Vec<String> = guest::judge(&machine, &a_guest())
        .into_iter()
        .filter(|finding| finding.step == "network host" || finding.step == "gateway")
        .map(|finding| format!("[{}] {}", finding.verdict.as_str(), finding.what))
        .collect();
    expect!["[broken] node1 has no address of its own in 192.168.0.0/24 yet"].assert_eq(&shown.join("\n"));
}
