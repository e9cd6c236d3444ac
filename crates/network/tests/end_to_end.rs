//! The daemon on a real kernel: a guest asks a real dnsmasq, which calls the real `nova-dhcpbridge`, and the row says so.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are not told apart from production code"
)]

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use nova_bus::InProcess;
use nova_config::{Config, NetworkConfig, Surroundings};
use nova_db::floating_ips::{self, FloatingError, Wish};
use nova_db::{Db, fixed_ips, instances, networks, transaction};
use nova_link::links::{KernelLinks, Links};
use nova_network::{Machine, Parts};
use nova_run::{Child, Command, Host, Runner};
use nova_service::{Ready, Stop};
use nova_types::instance::NewInstances;
use nova_types::network::ManagerKind;
use nova_types::quota::Quotas;
use nova_types::{ImageId, ImageKind, Mac, NetworkId, ProjectId, ReservationId};

/// A network of its own, and processes of its own that end with it, whatever they are and however it ends.
const UNSHARE: &[&str] = &["-n", "-p", "-f", "--mount-proc", "--kill-child"];
const INSIDE: &str = "NOVA_TEST_NAMESPACE";
const ASK: &str = "busybox udhcpc -n -q -f -t 5 -T 1 -i eth0 -s /bin/true";
/// Asks for an address, and gives it back when it is told to end.
const RELEASE: &str = "busybox udhcpc -R -f -t 5 -T 1 -i eth0 -s /bin/true & sleep 1; kill $!; wait $!";

#[test]
fn a_guest_gets_its_address_and_the_row_says_so() {
    in_namespace("a_guest_gets_its_address_and_the_row_says_so", async || {
        let lab = Lab::new().await;
        let daemon = lab.start().await;
        // Ready is who takes part; the first turn may take a moment more.
        lab.wait_for("the bridge", async || KernelLinks.list().await.unwrap().iter().any(|link| link.name == "br100"))
            .await;
        let mac = lab.launch().await;
        lab.wait_for("the bridge", async || run_here("ip link show br100").await).await;
        let guest = guest(mac).await;
        assert!(run(&guest, ASK).await, "no answer from dnsmasq");
        lab.wait_for("the lease", async || lab.leased().await).await;

        // A message reaches the metadata service, which here is anything that listens on 8773.
        sh("busybox nc -ll -p 8773 -e cat >/dev/null 2>&1 & ip addr add 172.16.0.9/32 dev lo; sleep 0.2").await;
        sh_in(&guest, "ip addr add 192.168.0.2/24 dev eth0; ip route add default via 192.168.0.1").await;
        assert!(run(&guest, "echo x | timeout 2 busybox nc -w 1 169.254.169.254 80 | grep -q x").await, "metadata");

        // Our restart does not touch the server, and what happens meanwhile is not lost.
        let pid = lab.dnsmasq();
        daemon.stop().await;
        assert!(run(&guest, RELEASE).await, "no answer from dnsmasq while the daemon is away");
        let daemon = lab.start().await;
        lab.wait_for("the end of the lease", async || !lab.leased().await).await;
        assert_eq!(lab.dnsmasq(), pid, "the server was restarted");

        // A server that dies is there again within five seconds.
        sh(&format!("kill -9 {pid}")).await;
        lab.wait_for("a new dnsmasq", async || lab.dnsmasq() != pid).await;
        assert!(run(&guest, ASK).await);
        transaction!(lab.db, |tx| {
            let instance = fixed_ips::list(tx, None).await?.into_iter().find_map(|row| row.holder).unwrap().instance;
            fixed_ips::release(tx, instance, 0).await?;
            networks::delete(tx, lab.network).await
        })
        .unwrap();
        lab.wait_for("the end of dnsmasq", async || lab.dnsmasq().is_empty()).await;
        daemon.stop().await;
    });
}

/// Makes `far`, the namespace of another host, with the VLANs of both projects on a trunk to this one.
const FAR: &str = "
    mount -t tmpfs none /run; mkdir -p /run/netns; ip netns add far
    ip link add trunk type veth peer name trunk netns far; ip link set trunk up; ip -n far link set trunk up
    for tag in 100 101; do ip -n far link add eth$tag link trunk type vlan id $tag; ip -n far link set eth$tag up; done
    ip -n far link set eth100 address";

#[test]
fn a_guest_on_another_host_is_served_through_the_vlan_of_its_project() {
    in_namespace("a_guest_on_another_host_is_served_through_the_vlan_of_its_project", async || {
        sh("ip link add probe type dummy 2>/dev/null || ip link add probe type bridge").await;
        let tagged = Command::new("ip").args("link add probe.7 link probe type vlan id 7".split(' '));
        if let Err(missing) = Host.run(tagged).await {
            println!("skipped a_guest_on_another_host_is_served_through_the_vlan_of_its_project: {missing}");
            return;
        }
        let lab = Lab::with(ManagerKind::Vlan).await;
        let mac = lab.launch().await;
        sh(&format!("{FAR} {mac}; ip addr add 172.16.0.9/32 dev lo")).await;
        let daemon = lab.start().await;
        lab.wait_for("dnsmasq", async || !lab.dnsmasq().is_empty()).await;
        let ask = |tag: u8| format!("ip netns exec far busybox udhcpc -n -q -f -t 8 -T 1 -i eth{tag} -s /bin/true");
        sh(&ask(100)).await;
        lab.wait_for("the lease", async || lab.leased().await).await;
        assert!(Host.run(Command::new("sh").args(["-ec", &ask(101)])).await.is_err(), "in the VLAN of nobody");

        sh("busybox nc -ll -p 8773 -e cat >/dev/null 2>&1 &
            ip -n far link set lo up; ip -n far addr add 192.168.0.3/25 dev eth100
            ip -n far route add default via 192.168.0.1")
        .await;
        let ask = "echo x | ip netns exec far timeout 5 busybox nc -w 3 169.254.169.254 80 | grep -q x";
        lab.wait_for("metadata", async || Host.run(Command::new("sh").args(["-ec", ask])).await.is_ok()).await;
        transaction!(lab.db, |tx| {
            let instance = fixed_ips::list(tx, None).await?.into_iter().find_map(|row| row.holder).unwrap().instance;
            fixed_ips::release(tx, instance, 0).await?;
            networks::disassociate(tx, &"acme".parse().unwrap()).await
        })
        .unwrap();
        lab.wait_for("the end of the VLAN", async || {
            let left = Host.run(Command::new("ip").args(["-br", "link"])).await.unwrap().text();
            lab.dnsmasq().is_empty() && !left.contains("br100") && !left.contains("vlan100")
        })
        .await;
        daemon.stop().await;
    });
}

#[test]
fn a_floating_address_leads_to_its_guest_through_restarts_and_no_longer() {
    in_namespace("a_floating_address_leads_to_its_guest_through_restarts_and_no_longer", async || {
        let lab = Lab::new().await;
        let public = Ipv4Addr::new(203, 0, 113, 5);
        sh("ip link add up0 type veth peer name out0; ip addr add 203.0.113.1/24 dev up0; ip link set up0 up
            ip route add default via 203.0.113.9")
        .await;
        let outside = Host.spawn(Command::new("unshare").args(["-n", "cat"])).await.unwrap();
        let pid = outside.process.pid;
        sh(&format!(
            r#"while [ "$(readlink /proc/{pid}/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
               ip link set out0 netns {pid}"#
        ))
        .await;
        sh_in(&outside, "ip link set lo up; ip link set out0 up; ip addr add 203.0.113.9/24 dev out0").await;
        let daemon = lab.start().await;
        let mac = lab.launch().await;
        lab.wait_for("the bridge", async || run_here("ip link show br100").await).await;
        let guest = guest(mac).await;
        sh_in(&guest, "ip addr add 192.168.0.2/24 dev eth0; ip route add default via 192.168.0.1").await;
        sh_in(&guest, "busybox nc -ll -p 23 -e cat >/dev/null 2>&1 &").await;
        let reached =
            async || run(&outside, &format!("echo x | timeout 1 busybox nc -w 1 {public} 23 | grep -q x")).await;

        let acme: ProjectId = "acme".parse().unwrap();
        transaction!(lab.db, |tx| -> FloatingError {
            floating_ips::create(tx, &"node1".parse().unwrap(), &[public]).await?;
            floating_ips::allocate(tx, &acme, &Quotas::default()).await
        })
        .unwrap();
        assert!(!reached().await, "before it is associated");
        let wish = Wish::Fixed(Ipv4Addr::new(192, 168, 0, 2));
        transaction!(lab.db, |tx| -> FloatingError {
            floating_ips::associate(tx, Some(&acme), public, wish, true).await
        })
        .unwrap();
        lab.wait_for("the way from outside", reached).await;

        // A stream that says something each tenth of a second, and its answers in a file.
        let log = lab.folder.path().join("stream");
        let stream = format!("(while echo tick; do sleep 0.1; done) | busybox nc {public} 23 > {}", log.display());
        sh_in(&outside, &format!("({stream}) >/dev/null 2>&1 &")).await;
        let grows = async || {
            let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
            let before = lines();
            tokio::time::sleep(Duration::from_millis(700)).await;
            lines() > before
        };
        assert!(grows().await, "the stream does not begin");
        daemon.stop().await;
        assert!(grows().await && reached().await, "while the daemon is away");
        let daemon = lab.start().await;
        assert!(grows().await, "a restart broke the stream");

        // As after a reboot.
        sh(&format!("ip addr del {public}/32 dev up0")).await;
        daemon.stop().await;
        let daemon = lab.start().await;
        lab.wait_for("the address after a reboot", reached).await;
        assert!(grows().await);

        transaction!(lab.db, |tx| -> FloatingError { floating_ips::release(tx, Some(&acme), public).await }).unwrap();
        lab.wait_for("the end of the way", async || !reached().await).await;
        assert!(!grows().await, "the stream outlives the association");
        assert!(!run_here(&format!("ip addr show up0 | grep -q {public}")).await);
        daemon.stop().await;
    });
}

struct Lab {
    db: nova_db::dev::TestDb,
    folder: tempfile::TempDir,
    manager: ManagerKind,
    network: NetworkId,
}

struct Running {
    stop: Stop,
    task: tokio::task::JoinHandle<Result<(), nova_network::NetworkError>>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Lab {
    async fn new() -> Self {
        Self::with(ManagerKind::FlatDhcp).await
    }

    /// With one flat network, or two VLANs.
    async fn with(manager: ManagerKind) -> Self {
        let vlans = manager == ManagerKind::Vlan;
        let db = nova_db::dev::sqlite().await;
        let folder = tempfile::tempdir().unwrap();
        sh(&format!("chmod 755 {}; ip link set lo up", folder.path().display())).await;
        let plans = nova_types::plan::plan(&nova_types::plan::Request {
            manager,
            range: "192.168.0.0/24".parse().unwrap(),
            count: if vlans { 2 } else { 1 },
            size: if vlans { 128 } else { 255 },
            flat_bridge: "br100".into(),
            flat_dns: None,
            vlan_start: 100,
            vpn_start: 1000,
            vpn_clients: 0,
            range6: None,
            label: None,
            multi_host: false,
        })
        .unwrap();
        let network = transaction!(db, |tx| { networks::create(tx, &plans).await }).unwrap()[0];
        Self { db, folder, manager, network }
    }

    async fn start(&self) -> Running {
        let state = format!("--state_path={}", self.folder.path().display());
        let helper = format!("--dhcpbridge={}", env!("CARGO_BIN_EXE_nova-dhcpbridge"));
        let manager = match self.manager {
            ManagerKind::Vlan => "--network_manager=nova.network.manager.VlanManager",
            _ => "--network_manager=nova.network.manager.FlatDHCPManager",
        };
        let args = [
            "nova-network",
            manager,
            "--vlan_interface=trunk",
            "--host=node1",
            "--my_ip=172.16.0.9",
            "--tick_interval=0.2",
            &state,
            &helper,
        ];
        let config = NetworkConfig::load_in(args.map(Into::into), &Surroundings::bare()).unwrap().config;
        let (stop, ready) = (Stop::new(), Ready::default());
        let parts = Parts {
            machine: Machine::real(Arc::new(Host), &config),
            config,
            flag_file: None,
            db: Db::clone(&self.db),
            bus: Arc::new(InProcess::new()),
            ready: ready.clone(),
        };
        let task = tokio::spawn(nova_network::run(parts, stop.clone()));
        tokio::time::timeout(Duration::from_secs(30), ready.wait()).await.unwrap();
        Running { stop, task }
    }

    async fn launch(&self) -> Mac {
        let mac = Mac::of_guest([0, 0, 3]);
        let new = NewInstances {
            reservation: ReservationId::from_random([3; 8]),
            user: "ann".parse().unwrap(),
            project: "acme".parse().unwrap(),
            image: ImageId::new(ImageKind::Machine, 1),
            kernel: None,
            ramdisk: None,
            flavor: "m1.tiny",
            memory_mb: 512,
            vcpus: 1,
            local_gb: 0,
            key: None,
            user_data: None,
            availability_zone: None,
            display_name: None,
            display_description: None,
            groups: Vec::new(),
            client_token: None,
            macs: vec![mac],
        };
        let taken = transaction!(self.db, |tx| {
            let ids = instances::insert_batch(tx, &new).await?;
            let network = networks::for_project(tx, &new.project, true).await?.unwrap();
            assert_eq!(network.id, self.network);
            fixed_ips::take(tx, network.id, &ids).await
        });
        // Of a VLAN the second address is its VPN's.
        let first = if self.manager == ManagerKind::Vlan { 3 } else { 2 };
        assert_eq!(taken.unwrap()[0].1, Ipv4Addr::new(192, 168, 0, first));
        mac
    }

    async fn leased(&self) -> bool {
        let hosts = fixed_ips::dhcp_hosts(&mut self.db.read().await.unwrap(), self.network).await.unwrap();
        hosts.iter().any(|host| host.leased)
    }

    /// The pid of the server, or nothing.
    fn dnsmasq(&self) -> String {
        let pid = std::fs::read_to_string(self.folder.path().join("networks/nova-br100.pid")).unwrap_or_default();
        let pid = pid.trim().to_owned();
        let alive = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        if alive { pid } else { String::new() }
    }

    async fn wait_for(&self, what: &str, happened: impl AsyncFn() -> bool) {
        // A machine that has VLANs may be an emulated one, where all takes ten times as long.
        let patience = Duration::from_secs(if self.manager == ManagerKind::Vlan { 60 } else { 5 });
        let deadline = tokio::time::Instant::now() + patience;
        while !happened().await {
            assert!(tokio::time::Instant::now() < deadline, "waited {patience:?} for {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn guest(mac: Mac) -> Child {
    let guest = Host.spawn(Command::new("unshare").args(["-n", "cat"])).await.unwrap();
    let pid = guest.process.pid;
    sh(&format!(
        r#"while [ "$(readlink /proc/{pid}/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
           ip link add tap00000003 type veth peer name eth0 netns {pid}; ip link set tap00000003 master br100 up"#
    ))
    .await;
    sh_in(&guest, &format!("ip link set lo up; ip link set eth0 address {mac} up")).await;
    guest
}

async fn sh(text: &str) {
    Host.run(Command::new("sh").args(["-ec", text])).await.unwrap();
}

async fn run_here(text: &str) -> bool {
    Host.run(Command::new("sh").args(["-ec", text])).await.is_ok()
}

async fn sh_in(guest: &Child, text: &str) {
    assert!(run(guest, text).await, "{text}");
}

async fn run(guest: &Child, text: &str) -> bool {
    let pid = guest.process.pid.to_string();
    Host.run(Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-ec", text])).await.is_ok()
}

/// Runs a test in a network namespace of its own, by starting this program again for that one test.
#[expect(clippy::disallowed_methods, reason = "the test harness starts itself, before there is a runtime")]
fn in_namespace<F: Future>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
        return;
    }
    let mut may = std::process::Command::new("unshare");
    if !may.args(UNSHARE).arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped {name}: no right to make namespaces");
        return;
    }
    let mut again = std::process::Command::new("unshare");
    again.args(UNSHARE).arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let output = again.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}
