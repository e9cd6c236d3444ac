//! A network namespace per test, and guests that are namespaces too.

use std::fmt::Display;
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_run::{Child, Command, Host, Runner};
use nova_types::network::DhcpHost;
use nova_types::security_group::GuestPort;
use nova_types::{InstanceId, Mac, SecurityGroupId};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};

/// A network of its own, and processes of its own that end with it, whatever they are and however it ends.
const UNSHARE: &[&str] = &["-n", "-p", "-f", "--mount-proc", "--kill-child"];
/// Tells the test that it is in its namespace already.
const INSIDE: &str = "NOVA_TEST_NAMESPACE";

/// Runs a test in a network namespace of its own, by starting this program again for that one test.
pub(crate) fn in_namespace<F: Future>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
        return;
    }
    if !program("unshare", &[UNSHARE, &["true"]].concat()).status().is_ok_and(|status| status.success()) {
        println!("skipped {name}: no right to make namespaces");
        return;
    }
    let this = std::env::current_exe().unwrap().display().to_string();
    let mut again = program("unshare", &[UNSHARE, &[&this, "--exact", name, "--nocapture"]].concat());
    let output = again.env(INSIDE, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    // Inside, a part may have found that the kernel lacks what it is about.
    text(&output.stdout).lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}

#[expect(clippy::disallowed_methods, reason = "the test harness starts itself, before there is a runtime")]
fn program(name: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(name);
    command.args(arguments);
    command
}

/// Runs shell text that must succeed, and returns what it printed.
pub(crate) async fn sh(text: &str) -> String {
    Host.run(Command::new("sh").args(["-ec", text])).await.unwrap().text()
}

/// A process that is none of Nova's.
pub(crate) fn sleeper() -> std::process::Child {
    program("sleep", &["60"]).spawn().unwrap()
}

/// A folder that also `nobody` may read.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A stand-in for nova-dhcpbridge that writes its arguments down.
pub(crate) fn script(folder: &Path) -> PathBuf {
    let script = folder.join("bridge-script");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$@\" >> {}/events\n", folder.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("events"), "").unwrap();
    std::fs::set_permissions(folder.join("events"), std::fs::Permissions::from_mode(0o666)).unwrap();
    // init prints to stdout what dnsmasq reads: nothing, as echo goes to the file.
    script
}

pub(crate) async fn host_connects(to: impl Display, port: u16) -> bool {
    Host.run(Command::new("sh").args(["-c", &connect(to, port)])).await.is_ok()
}

pub(crate) async fn host_pings(to: impl Display) -> bool {
    Host.run(Command::new("ping").args(["-c1", "-W1", &to.to_string()])).await.is_ok()
}

pub(crate) async fn host_listens(port: u16) -> Child {
    let child = Host.spawn(Command::new("busybox").args(listen(port))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    child
}

fn listen(port: u16) -> Vec<String> {
    ["nc", "-ll", "-p", &port.to_string(), "-e", "cat"].map(str::to_owned).to_vec()
}

fn connect(to: impl Display, port: u16) -> String {
    format!("echo x | timeout 1 busybox nc -w 1 {to} {port} | grep -q x")
}

/// A guest: a namespace with one interface, whose other end is a tap on the bridge `br9`.
pub(crate) struct Guest {
    number: u8,
    pub(crate) address: Ipv4Addr,
    process: Option<Child>,
    servers: tokio::sync::Mutex<Vec<Child>>,
}

impl Guest {
    /// A guest that is only a name.
    pub(crate) fn named(number: u8) -> Self {
        Self { number, address: Ipv4Addr::new(10, 9, 0, number), process: None, servers: Default::default() }
    }

    /// A guest that is there, with its address.
    pub(crate) async fn start(number: u8) -> Self {
        let mut guest = Self::named(number);
        let process = Host.spawn(Command::new("unshare").args(["-n", "cat"])).await.unwrap();
        let pid = process.process.pid;
        guest.process = Some(process);
        let (tap, mac) = (format!("tap{number:08x}"), guest.mac());
        let different = format!(r#"[ "$(readlink /proc/{pid}/ns/net)" != "$(readlink /proc/self/ns/net)" ]"#);
        sh(&format!("while ! {different}; do sleep 0.01; done")).await;
        sh(&format!(
            "ip link add {tap} type veth peer name e{number}; ip link set {tap} master br9 up;
             ip link set e{number} netns {pid}"
        ))
        .await;
        let address = guest.address;
        guest
            .sh(&format!(
                "ip link set e{number} name eth0 address {mac}; ip link set lo up;
                 ip link set eth0 up; ip addr add {address}/24 dev eth0"
            ))
            .await;
        guest
    }

    fn mac(&self) -> Mac {
        Mac::of_guest([0, 0, self.number])
    }

    fn inside(&self) -> Command {
        let pid = self.process.as_ref().expect("the guest is there").process.pid;
        Command::new("nsenter").args(["-t", &pid.to_string(), "-n"])
    }

    pub(crate) async fn sh(&self, text: &str) {
        Host.run(self.inside().args(["sh", "-ec", text])).await.unwrap();
    }

    pub(crate) async fn run(&self, text: &str) -> bool {
        Host.run(self.inside().args(["sh", "-c", text])).await.is_ok()
    }

    pub(crate) async fn pings(&self, to: impl Display) -> bool {
        self.run(&format!("ping -c1 -W1 {to}")).await
    }

    /// The same for one that may be a moment away: neighbours are still asked for, or a group is just listened to.
    pub(crate) async fn finds(&self, to: impl Display) -> bool {
        self.run(&format!("ping -c1 -w10 {to}")).await
    }

    pub(crate) async fn connects(&self, to: impl Display, port: u16) -> bool {
        self.run(&connect(to, port)).await
    }

    /// Answers each line on a port with the same line.
    pub(crate) async fn listen(&self, port: u16) {
        let arguments = [vec!["busybox".to_owned()], listen(port)].concat();
        let server = self.serve(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        self.servers.lock().await.push(server);
    }

    /// Starts a program that runs until what this returns is dropped.
    pub(crate) async fn serve(&self, arguments: &[&str]) -> Child {
        let server = Host.spawn(self.inside().args(arguments.iter().copied())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server
    }

    pub(crate) async fn talk(&self, to: impl Display, port: u16) -> Talk {
        self.talks(&["busybox", "nc", &to.to_string(), &port.to_string()]).await
    }

    /// Starts a program that says something.
    pub(crate) async fn talks(&self, arguments: &[&str]) -> Talk {
        let mut child = Host.spawn(self.inside().args(arguments.iter().copied())).await.unwrap();
        let stdout = std::mem::replace(&mut child.stdout, Box::new(tokio::io::empty()));
        Talk { child, answers: BufReader::new(stdout) }
    }

    pub(crate) fn port(&self, groups: &[u32]) -> GuestPort {
        GuestPort {
            instance: InstanceId::new(self.number.into()),
            project: "p".parse().unwrap(),
            mac: self.mac(),
            address: self.address,
            ipv6: None,
            bridge: "br9".into(),
            dhcp_server: Ipv4Addr::new(10, 9, 0, 1),
            groups: groups.iter().map(|id| SecurityGroupId::new(*id)).collect(),
        }
    }

    pub(crate) fn dhcp_host(&self) -> DhcpHost {
        DhcpHost {
            instance: InstanceId::new(self.number.into()),
            mac: self.mac(),
            address: self.address,
            hostname: InstanceId::new(self.number.into()).to_string(),
            leased: false,
            updated_at: std::time::SystemTime::UNIX_EPOCH.into(),
        }
    }
}

/// An open connection to something that echoes.
pub(crate) struct Talk {
    child: Child,
    answers: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Talk {
    /// Whether the next line comes soon, and is this.
    pub(crate) async fn hears(&mut self, line: &str) -> bool {
        let mut heard = String::new();
        let read = tokio::time::timeout(Duration::from_secs(2), self.answers.read_line(&mut heard)).await;
        matches!(read, Ok(Ok(_))) && heard.trim() == line
    }

    pub(crate) async fn echoes(&mut self, line: &str) -> bool {
        self.child.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.child.stdin.flush().await.unwrap();
        self.hears(line).await
    }
}
