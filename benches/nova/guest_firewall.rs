//! Security groups in a real kernel: what a change costs with ten guests and with a thousand on a host, and what a guest's
//! packets cost. In a network namespace, so it needs root.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nova_link::guests::{GuestFirewall as _, KernelGuestFirewall, Policy};
use nova_run::{Host, Runner as _};
use nova_types::rule::{Ports, Rule, Source, Traffic};
use nova_types::security_group::{GroupMembers, GroupRules, GuestPort, HostFirewall};
use nova_types::{InstanceId, Mac, SecurityGroupId};

use crate::group_rows;
use crate::measure::Sample;
use crate::process::outside;

/// The argument that makes this program measure, in a namespace already.
pub(crate) const ROLE: &str = "--as-firewalled-host";
/// The argument that makes this program a guest, in a namespace of its own.
pub(crate) const GUEST: &str = "--as-guest";

const FIRST: u32 = 3;
const FEW: u32 = 10;
const MANY: u32 = 1_000;
const RULES: u16 = 100;
/// The group's rules are for this port and those above.
const PORT: u16 = 1_000;
/// The port of the last rule: a packet to it is judged by all of them.
const LAST: u16 = PORT + RULES - 1;
const CHANGES: usize = 30;
const CONNECTIONS: usize = 1_500;
const PATIENCE: Duration = Duration::from_secs(2);
const BOUND: Duration = Duration::from_millis(50);

pub(crate) async fn bench() -> anyhow::Result<()> {
    group_rows::bench([FEW, MANY]).await?;
    let this = std::env::current_exe()?;
    let flags = ["-n", "-p", "-f", "--mount-proc", "--kill-child"];
    if !outside("unshare").args(flags).arg("true").kill_on_drop(true).status().await?.success() {
        println!("  skipped: no right to make namespaces");
        return Ok(());
    }
    let inside = outside("unshare").args(flags).arg(this).arg(ROLE).kill_on_drop(true).status().await?;
    ensure!(inside.success(), "it ended with {inside}");
    Ok(())
}

/// Answers whoever connects, for ever.
pub(crate) fn be_guest() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, LAST))?;
    loop {
        drop(listener.accept()?);
    }
}

/// Measures in the namespace where this runs.
pub(crate) async fn run() -> anyhow::Result<()> {
    sh("ip link set lo up; ip link add br9 type bridge forward_delay 0; ip addr add 10.9.0.1/16 dev br9; ip link set br9 up")
        .await?;
    let _guests = (start(FIRST).await?, start(FIRST + MANY - 1).await?);
    let mut bare = Sample::default();
    for _ in 0..CONNECTIONS {
        bare.push(connect(FIRST)?);
    }
    println!("  {:<34} {bare}", "connect, no rules (peer)");
    let mut nft = Sample::default();
    for _ in 0..CHANGES {
        let nothing = nova_run::Command::new("nft").args(["-j", "-f", "-"]).stdin(br#"{"nftables":[]}"#.to_vec());
        nft.time(Host.run(nothing)).await?;
    }
    println!("  {:<34} {nft}", "nft that does nothing (peer)");
    let firewall = KernelGuestFirewall::new(Arc::new(Host), Policy { project_traffic: false, ipv6: false });
    for guests in [FEW, MANY] {
        let mut wanted = host(guests)?;
        let began = Instant::now();
        firewall.ensure(&wanted).await?;
        println!(
            "  {:<34} once   {:>9.1} ms",
            format!("{guests} guests: all rules"),
            began.elapsed().as_secs_f64() * 1e3
        );
        changes(&firewall, &mut wanted, guests, nft.median()).await?;
        packets(guests, bare.median())?;
    }
    Ok(())
}

/// Applies one change after another, each there and back.
async fn changes(
    firewall: &KernelGuestFirewall,
    wanted: &mut HostFirewall,
    guests: u32,
    nft: Duration,
) -> anyhow::Result<()> {
    let [mut rule, mut member, mut guest, mut compare]: [Sample; 4] = Default::default();
    let mut commands = [0; 3];
    for _ in 0..CHANGES {
        wanted.groups[0].rules.push(Rule { traffic: tcp(1), source: Source::EVERYONE });
        commands[0] = rule.time(firewall.advance(wanted)).await?.commands;
        wanted.groups[0].rules.pop();
        firewall.advance(wanted).await?;
        wanted.members[0].addresses.push(Ipv4Addr::new(10, 9, 99, 1).into());
        commands[1] = member.time(firewall.advance(wanted)).await?.commands;
        wanted.members[0].addresses.pop();
        firewall.advance(wanted).await?;
        wanted.guests.push(port(FIRST + MANY + 1));
        commands[2] = guest.time(firewall.advance(wanted)).await?.commands;
        wanted.guests.pop();
        firewall.advance(wanted).await?;
        let found = compare.time(firewall.ensure(wanted)).await?;
        ensure!(found.commands == 0, "changes did not add up: {found:?}");
    }
    for (what, took, commands) in
        [("a rule", rule, commands[0]), ("a member", member, commands[1]), ("a guest", guest, commands[2])]
    {
        let what = format!("{guests} guests: {what} more");
        let bound = took.median().as_secs_f64() / BOUND.as_secs_f64();
        println!("  {what:<34} {took}  = {:.1} nft, {bound:.2} × the bound; {commands} commands", took.ratio(nft));
    }
    println!("  {:<34} {compare}  = {:.1} nft", format!("{guests} guests: all compared"), compare.ratio(nft));
    Ok(())
}

/// Connects to the first and the last guest in turn.
fn packets(guests: u32, bare: Duration) -> anyhow::Result<()> {
    let targets = [("1st", FIRST), ("last", FIRST + guests - 1)];
    let mut took: [Sample; 2] = Default::default();
    let there = if guests == MANY { &targets[..] } else { &targets[..1] };
    for _ in 0..CONNECTIONS {
        for ((_, number), took) in there.iter().zip(&mut took) {
            took.push(connect(*number)?);
        }
    }
    for ((name, _), took) in there.iter().zip(&took) {
        println!(
            "  {:<34} {took}  = {:.2} × no rules",
            format!("{guests} guests: connect to the {name}"),
            took.ratio(bare)
        );
    }
    Ok(())
}

/// Times a handshake: the kernels of both ends do it, and wait for nobody. The first packet is judged by every rule.
fn connect(number: u32) -> anyhow::Result<Duration> {
    let to = SocketAddr::from((address(number), LAST));
    let began = Instant::now();
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let took = began.elapsed();
    stream.set_read_timeout(Some(PATIENCE))?;
    let end = std::io::Read::read(&mut &stream, &mut [0])?;
    ensure!(end == 0, "the guest said something");
    Ok(took)
}

/// Starts a guest: a namespace with one interface, whose other end is its tap on the bridge.
async fn start(number: u32) -> anyhow::Result<tokio::process::Child> {
    let this = std::env::current_exe()?;
    let guest = outside("unshare").arg("-n").arg(this).arg(GUEST).kill_on_drop(true).spawn()?;
    let pid = guest.id().unwrap_or_default();
    let (tap, mac, address) = (format!("tap{number:08x}"), port(number).mac, address(number));
    sh(&format!(
        r#"while [ "$(readlink /proc/{pid}/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
        ip link add {tap} type veth peer name e{number}; ip link set {tap} master br9 up; ip link set e{number} netns {pid}
        nsenter -t {pid} -n sh -ec 'ip link set lo up; ip link set e{number} name eth0 address {mac}; ip link set eth0 up
            ip addr add {address}/16 dev eth0; until ss -tln | grep -q :{LAST}; do sleep 0.01; done'"#
    ))
    .await?;
    Ok(guest)
}

async fn sh(text: &str) -> anyhow::Result<()> {
    ensure!(outside("sh").args(["-ec", text]).status().await?.success(), "{text} failed");
    Ok(())
}

/// A host whose guests are in one group, which lets in itself and many ranges.
fn host(guests: u32) -> anyhow::Result<HostFirewall> {
    let id = SecurityGroupId::new(1);
    let range = Source::range("10.9.0.0/16")?;
    let source = |port: u16| if port.is_multiple_of(2) { Source::Group(id) } else { range };
    let rules = (PORT..=LAST).map(|port| Rule { traffic: tcp(port), source: source(port) }).collect();
    let numbers = FIRST..FIRST + guests;
    Ok(HostFirewall {
        guests: numbers.clone().map(port).collect(),
        groups: vec![GroupRules { id, rules }],
        members: vec![GroupMembers { id, addresses: numbers.map(|number| address(number).into()).collect() }],
        ..HostFirewall::default()
    })
}

const fn tcp(port: u16) -> Traffic {
    Traffic::Tcp(Ports { from: port, to: port })
}

fn port(number: u32) -> GuestPort {
    let [_, a, b, c] = number.to_be_bytes();
    GuestPort {
        instance: InstanceId::new(number),
        project: nova_db::dev::fixtures::name("acme"),
        mac: Mac::of_guest([a, b, c]),
        address: address(number),
        ipv6: None,
        bridge: "br9".to_owned(),
        dhcp_server: Ipv4Addr::new(10, 9, 0, 1),
        groups: vec![SecurityGroupId::new(1)],
    }
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 0)) + number)
}
