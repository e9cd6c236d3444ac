//! Each answer of the doctor, from facts that are as they should be but for one.

mod routers;
mod well;
mod wires;

use expect_test::{Expect, expect};
use nova_types::SecurityGroupId;
use nova_types::instance::StateReason;
use nova_types::rule::{Icmp, Ports, Source, Traffic};
use nova_types::state::{State, Task, VmState};

use super::facts::{Guest, Keys, Machine, Wire};
use super::finding::{Finding, Verdict};
use super::{guest, host};
use well::{a_guest, anywhere, granted, machine};

/// What is not well, a line for each and one for what mends it.
fn complaints(findings: Vec<Finding>) -> String {
    let line = |f: Finding| {
        let mend = f.mend.map_or(String::new(), |mend| format!("\n  {mend}"));
        format!("{} [{}] {}{mend}", f.step, f.verdict.as_str(), f.what)
    };
    findings.into_iter().filter(|f| f.verdict != Verdict::Ok).map(line).collect::<Vec<_>>().join("\n")
}

/// What is said of a guest when one thing is different.
#[track_caller]
fn told(change: impl Fn(&mut Machine, &mut Guest), wanted: Expect) {
    let (mut machine, mut guest) = (machine(), a_guest());
    change(&mut machine, &mut guest);
    wanted.assert_eq(&complaints(guest::judge(&machine, &guest)));
}

/// What is said of a host when one thing is different.
#[track_caller]
fn told_of_host(change: impl Fn(&mut Machine), wanted: Expect) {
    let mut machine = machine();
    change(&mut machine);
    wanted.assert_eq(&complaints(host::judge(&machine)));
}

fn state(vm: VmState, task: Option<Task>) -> impl Fn(&mut Machine, &mut Guest) {
    move |_, guest| guest.view.instance.state = State { vm, task }
}

fn links(machine: &mut Machine) -> &mut Vec<Wire> {
    machine.links.as_mut().unwrap()
}

#[test]
fn all_well_is_told_step_by_step() {
    told(|_, _| {}, expect![""]);
    told_of_host(|_| {}, expect![""]);
    let steps: Vec<&str> = guest::judge(&machine(), &a_guest()).iter().map(|f| f.step).collect();
    expect!["instance, compute, ping, ssh, address, network host, lease, bridge, gateway, dnsmasq, dhcp entry, tap, rules, br_netfilter, firewall, forwarding, nat, metadata rule, other firewalls, default route, metadata, API key"].assert_eq(&steps.join(", "));
}

#[test]
fn what_is_not_authorized_has_the_guides_command() {
    told(
        |_, guest| guest.groups[0].rules.clear(),
        expect![[r#"
        ping [broken] not authorized: no rule of its groups (default) lets ping in
          euca-authorize -P icmp -t -1:-1 default
        ssh [broken] not authorized: no rule of its groups (default) lets ssh in
          euca-authorize -P tcp -p 22 default"#]],
    );
    told(
        |_, guest| drop(guest.groups[0].rules.remove(1)),
        expect![[r#"
        ssh [broken] not authorized: no rule of its groups (default) lets ssh in
          euca-authorize -P tcp -p 22 default"#]],
    );
    let pong = Traffic::Icmp(Icmp::Type(0));
    told(
        |_, guest| guest.groups[0].rules[0] = granted(pong, anywhere()),
        expect![[r#"
        ping [broken] not authorized: no rule of its groups (default) lets ping in
          euca-authorize -P icmp -t -1:-1 default"#]],
    );
    let web = Traffic::Tcp(Ports { from: 80, to: 443 });
    told(
        |_, guest| guest.groups[0].rules[1] = granted(web, anywhere()),
        expect![[r#"
        ssh [broken] not authorized: no rule of its groups (default) lets ssh in
          euca-authorize -P tcp -p 22 default"#]],
    );
    let members = Source::Group(SecurityGroupId::new(2));
    told(
        |_, guest| guest.groups[0].rules = vec![granted(Traffic::All, members)],
        expect![[r#"
        ping [broken] not authorized: ping is let in from members of groups only
          euca-authorize -P icmp -t -1:-1 default
        ssh [broken] not authorized: ssh is let in from members of groups only
          euca-authorize -P tcp -p 22 default"#]],
    );
}

#[test]
fn one_rule_for_everything_and_one_for_a_range_are_enough() {
    told(|_, guest| guest.groups[0].rules = vec![granted(Traffic::All, anywhere())], expect![""]);
    let mut guest = a_guest();
    let near = Source::Range("10.0.0.0/8".parse().unwrap());
    guest.groups[0].rules = vec![granted(Traffic::All, near)];
    let findings = guest::judge(&machine(), &guest);
    let ping = findings.iter().find(|f| f.step == "ping").unwrap();
    assert_eq!((ping.verdict, ping.what.as_str()), (Verdict::Ok, "groups let ping in, but only from 10.0.0.0/8"));
    let v6 = Source::Range("::/0".parse().unwrap());
    guest.groups[0].rules = vec![granted(Traffic::All, v6)];
    let broken = guest::judge(&machine(), &guest).iter().filter(|f| f.verdict == Verdict::Broken).count();
    assert_eq!(broken, 2, "guests have no IPv6");
}

#[test]
fn an_instance_that_does_not_run_ends_the_walk() {
    told(
        state(VmState::Stopped, None),
        expect![[r#"
        instance [broken] i-0000000a is switched off
          euca-start-instances i-0000000a"#]],
    );
    told(
        state(VmState::Pending, Some(Task::Building)),
        expect![[r#"
        instance [broken] i-0000000a does not run yet
          wait (building); euca-describe-instances i-0000000a"#]],
    );
    told(
        state(VmState::Running, Some(Task::Rebooting)),
        expect![[r#"
        instance [broken] i-0000000a is being rebooted
          wait a moment"#]],
    );
    told(
        state(VmState::ShuttingDown, Some(Task::Terminating)),
        expect![[r#"
        instance [broken] i-0000000a is being destroyed
          euca-run-instances ami-00000001"#]],
    );
    let failed = |_: &mut Machine, guest: &mut Guest| {
        guest.view.instance.state.vm = VmState::Error;
        guest.view.instance.reason = Some(StateReason::new("Server.InternalError", "No disk."));
    };
    told(
        failed,
        expect![[r#"
        instance [broken] i-0000000a is over: No disk.
          euca-run-instances ami-00000001"#]],
    );
    let unplaced = |machine: &mut Machine, guest: &mut Guest| {
        guest.view.instance.state = State { vm: VmState::Pending, task: Some(Task::Scheduling) };
        guest.view.instance.host = None;
        machine.daemons[1].silent_seconds = 100;
    };
    told(
        unplaced,
        expect![[r#"
        instance [broken] i-0000000a does not run yet
          no nova-scheduler reports: service nova-scheduler start"#]],
    );
}

#[test]
fn daemons_that_are_away_are_named() {
    told(
        |machine, _| machine.daemons[3].silent_seconds = 100,
        expect![[r#"
        compute [broken] nova-compute on node1 does not report: nothing that is asked of i-0000000a happens
          on node1: service nova-compute start; if the host is lost: nova-manage host evacuate node1"#]],
    );
    told(
        |machine, _| machine.daemons[2].gave_up = true,
        expect![[r#"
        network host [broken] nova-network on node1 serves 192.168.0.0/24 and does not report
          on node1: service nova-network restart"#]],
    );
    told_of_host(
        |machine| machine.daemons[0].silent_seconds = 100,
        expect![[r#"
        daemons [broken] nova-api has not reported for 100 s
          service nova-api restart (nova-combined where one process is all)"#]],
    );
    told_of_host(
        |machine| machine.daemons[0].gave_up = true,
        expect![[r#"
            daemons [broken] nova-api was stopped
              service nova-api restart (nova-combined where one process is all)"#]],
    );
    told_of_host(
        |machine| machine.daemons[3].disabled = true,
        expect![[r#"
        daemons [not checked] nova-compute runs and is disabled: it gets no new work
          nova-manage service enable node1 nova-compute"#]],
    );
    told_of_host(
        |machine| machine.host = "node2".parse().unwrap(),
        expect![[r#"
        daemons [broken] no daemon ever reported from node2
          start one (service nova-compute start), or give the --host it has"#]],
    );
}

#[test]
fn an_address_is_missing_or_nobodys_network() {
    told(
        |_, guest| guest.view.fixed_ip = None,
        expect![[r#"
        address [broken] i-0000000a has no fixed address
          nova-manage fixed list shows whether any is free; then euca-terminate-instances i-0000000a, launch again"#]],
    );
    let no_network = |machine: &mut Machine, guest: &mut Guest| {
        machine.networks.clear();
        guest.view.fixed_ip = None;
    };
    told(
        no_network,
        expect![[r#"
        address [broken] i-0000000a has no fixed address
          nova-manage network create RANGE 1 256, then launch again"#]],
    );
    told(
        |machine, _| machine.networks.clear(),
        expect![[r#"
        address [broken] the network of 192.168.0.2 is gone
          euca-terminate-instances i-0000000a"#]],
    );
    told(
        |machine, _| machine.networks[0].host = None,
        expect![[r#"
        network host [broken] no host serves 192.168.0.0/24
          service nova-network start"#]],
    );
    told_of_host(
        |machine| machine.networks.clear(),
        expect![[r#"
        network [broken] there is no network for instances
          nova-manage network create RANGE 1 256"#]],
    );
    told_of_host(
        |machine| machine.networks[0].host = None,
        expect![[r#"
        network [broken] no host serves 192.168.0.0/24
          service nova-network start"#]],
    );
}

#[test]
fn dhcp_fails_for_want_of_a_lease_an_entry_or_a_process() {
    told(
        |_, guest| guest.leased = false,
        expect![[r#"
        lease [broken] the guest has no lease of 192.168.0.2: it did not ask, or its question or the answer was lost
          euca-get-console-output i-0000000a shows whether it asks; if it does, the steps below say where it is lost"#]],
    );
    told(
        |_, guest| guest.told = Ok(false),
        expect![[r#"
        dhcp entry [broken] dnsmasq was not told of i-0000000a
          service nova-network restart"#]],
    );
    told(
        |machine, _| drop(machine.dnsmasq.insert("br100".to_owned(), Ok(1))),
        expect![[r#"
        dnsmasq [broken] dnsmasq processes for br100: 1, and there must be TWO
          killall dnsmasq; service nova-network restart"#]],
    );
    told(
        |machine, _| drop(machine.dnsmasq.insert("br100".to_owned(), Ok(0))),
        expect![[r#"
        dnsmasq [broken] dnsmasq processes for br100: 0, and there must be TWO
          killall dnsmasq; service nova-network restart"#]],
    );
    told_of_host(
        |machine| drop(machine.dnsmasq.insert("br100".to_owned(), Ok(4))),
        expect![[r#"
        dnsmasq [broken] dnsmasq processes for br100: 4, and there must be TWO
          killall dnsmasq; service nova-network restart"#]],
    );
}

#[test]
fn trouble_with_the_api_key_is_the_guides_third_answer() {
    told(
        |machine, _| machine.keys = Keys::Unset,
        expect![[r#"
        API key [not checked] this shell has no EC2_ACCESS_KEY, which euca2ools need
          . /root/creds/novarc"#]],
    );
    told(
        |machine, _| machine.keys = Keys::NoUser("abc".to_owned()),
        expect![[r#"
        API key [broken] EC2_ACCESS_KEY is abc, which is nobody's
          . /root/creds/novarc; else nova-manage project zipfile PROJECT USER writes the keys anew; unzip it, then: . /root/creds/novarc"#]],
    );
    told(
        |machine, _| machine.keys = Keys::WrongSecret("anne".to_owned()),
        expect![[r#"
        API key [broken] EC2_SECRET_KEY is not that of anne
          . /root/creds/novarc; else nova-manage project zipfile PROJECT USER writes the keys anew; unzip it, then: . /root/creds/novarc"#]],
    );
    told(|machine, _| machine.keys = Keys::Unread("no right".to_owned()), expect!["API key [not checked] no right"]);
}

#[test]
fn what_belongs_to_another_host_is_asked_there() {
    told(
        |_, guest| guest.view.instance.host = Some("node2".parse().unwrap()),
        expect![[r#"
        compute [broken] nova-compute on node2 does not report: nothing that is asked of i-0000000a happens
          on node2: service nova-compute start; if the host is lost: nova-manage host evacuate node2
        guest [elsewhere] the guest, its tap and its rules are on another host
          run this on node2: nova-manage doctor instance i-0000000a"#]],
    );
    let two = |machine: &mut Machine, _: &mut Guest| {
        machine.networks[0].host = Some("node2".parse().unwrap());
        machine.daemons[2].host = "node2".parse().unwrap();
    };
    told(
        two,
        expect![[r#"
        dnsmasq [elsewhere] dnsmasq and the gateway are on another host
          run this on node2: nova-manage doctor instance i-0000000a
        routing [elsewhere] forwarding, translation and routes are on another host
          run this on node2: nova-manage doctor instance i-0000000a"#]],
    );
}

#[test]
fn a_simulated_guest_answers_nobody_and_its_host_is_left_alone() {
    let simulated = |machine: &mut Machine, guest: &mut Guest| {
        machine.simulated = true;
        guest.simulated = true;
        guest.leased = false;
    };
    told(
        simulated,
        expect![[r#"
        guest [broken] i-0000000a is simulated: there is no guest that could answer
          nova-compute with --hypervisor=libvirt runs real ones
        machine [not checked] guests of this host are simulated, and its network is left alone"#]],
    );
    told_of_host(
        |machine| machine.simulated = true,
        expect!["machine [not checked] guests of this host are simulated, and its network is left alone"],
    );
}

#[test]
fn what_cannot_be_asked_is_told_and_breaks_nothing() {
    let blind = |machine: &mut Machine| {
        machine.links = Err("interfaces cannot be listed".to_owned());
        machine.dnsmasq.insert("br100".to_owned(), Err("processes cannot be counted".to_owned()));
        machine.forwarding = Err("no forwarding".to_owned());
        machine.bridge_filter = Err("no bridge filter".to_owned());
        machine.tables = Err("no nft".to_owned());
        machine.metadata_rule = Err("no nft".to_owned());
        machine.foreign = Err("no nft".to_owned());
        machine.default_route = Err("no routes".to_owned());
        machine.metadata.1 = Err("no sockets".to_owned());
        machine.keys = Keys::Unread("no right".to_owned());
    };
    let (mut machine, mut guest) = (machine(), a_guest());
    blind(&mut machine);
    (guest.told, guest.guarded) = (Err("no file".to_owned()), Err("no nft".to_owned()));
    guest.view.floating_ip = Some("4.4.4.4".parse().unwrap());
    let findings = guest::judge(&machine, &guest);
    assert!(findings.iter().all(|f| f.verdict != Verdict::Broken), "{}", complaints(findings));
    let findings = host::judge(&machine);
    assert!(findings.iter().all(|f| f.verdict != Verdict::Broken), "{}", complaints(findings));
    assert_eq!(findings.iter().filter(|f| f.verdict == Verdict::Unknown).count(), 11);
}
