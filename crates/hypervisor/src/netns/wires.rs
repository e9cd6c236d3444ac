//! The namespace of a guest, and the pair of interfaces that leads out of it, made by iproute2's `ip`.

use std::path::Path;
use std::sync::Arc;

use nova_run::{Command, Process, RunError, Runner};

use crate::Nic;

/// Where `ip netns` keeps the names of namespaces.
const NAMES: &str = "/run/netns";
const INSIDE: &str = "eth0";
const USUAL_MTU: u32 = 1500;

#[derive(Debug)]
pub(crate) struct Wires {
    runner: Arc<dyn Runner>,
}

impl Wires {
    pub(crate) fn new(runner: Arc<dyn Runner>) -> Self {
        Self { runner }
    }

    /// Makes the namespace and puts the outer end of its interface on the bridge; neither may be there.
    pub(crate) async fn plug(&self, namespace: &str, nic: &Nic) -> Result<(), RunError> {
        let ip = || Command::new("ip");
        let mac = nic.mac.to_string();
        // As libvirt has it: higher than any other, or the bridge would take it for its own.
        let outer = format!("fe{}", mac.get(2..).unwrap_or_default());
        let mtu = mtu(&nic.bridge).to_string();
        self.runner.run(ip().args(["netns", "add"]).operand(namespace)?).await?;
        let pair = ip().args(["link", "add", "name"]).operand(&nic.tap)?;
        let pair = pair.args(["mtu", &mtu, "address", &outer, "type", "veth", "peer", "name", INSIDE]);
        let pair = pair.args(["mtu", &mtu, "address", &mac, "netns"]).operand(namespace)?;
        self.runner.run(pair).await?;
        let port = ip().args(["link", "set", "dev"]).operand(&nic.tap)?.arg("master").operand(&nic.bridge)?.arg("up");
        self.runner.run(port).await.map(drop)
    }

    /// Removes both, as far as they are there. No process may be in the namespace any more.
    pub(crate) async fn unplug(&self, namespace: &str) -> Result<(), RunError> {
        if !exists(namespace) {
            return Ok(());
        }
        let inner = Command::new("ip").arg("-n").operand(namespace)?.args(["link", "delete", "dev", INSIDE]);
        match self.runner.run(inner).await {
            Err(RunError::Failed { first_line, .. }) if first_line.contains("Cannot find device") => {}
            // A name without a namespace, as a kill between the two leaves it.
            Err(RunError::Failed { first_line, .. }) if first_line.contains("setting the network namespace") => {}
            done => drop(done?),
        }
        self.runner.run(Command::new("ip").args(["netns", "delete"]).operand(namespace)?).await.map(drop)
    }

    /// Lists the processes in the namespace.
    pub(crate) async fn processes(&self, namespace: &str) -> Result<Vec<Process>, RunError> {
        if !exists(namespace) {
            return Ok(Vec::new());
        }
        let pids = self.runner.run(Command::new("ip").args(["netns", "pids"]).operand(namespace)?).await;
        let pids = match pids {
            Err(RunError::Failed { .. }) => return Ok(Vec::new()),
            pids => pids?.text(),
        };
        Ok(pids.lines().filter_map(|pid| self.runner.look(pid.trim().parse().ok()?)).collect())
    }
}

fn exists(namespace: &str) -> bool {
    Path::new(NAMES).join(namespace).exists()
}

fn mtu(bridge: &str) -> u32 {
    let file = Path::new("/sys/class/net").join(bridge).join("mtu");
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_MTU)
}
