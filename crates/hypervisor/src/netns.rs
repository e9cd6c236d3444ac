//! Guests that are network namespaces: one small process each, which does on the network what a guest does.
//!
//! Such a guest takes its address by DHCP, asks the metadata service, answers ping and two TCP ports, and is up within a
//! fraction of a second. It has no disk and no memory of its own: it is there to try networks and firewalls by the dozen.
//!
//! The process is found by its command line, which bears the uuid of the guest; so guests outlive the daemon, and a kill
//! between any two steps leaves nothing that the next call does not find. That there is a guest at all, running or not, is
//! a file. The namespace bears the uuid too, and the guest's interface is removed from within it: what is another's is
//! never touched.

mod definitions;
mod processes;
mod wires;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_run::{Command, Process, Runner, Signal};
use nova_types::InstanceId;
use nova_types::instance::Instance;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::{Change, CloudId, Guest, GuestSpec, Hypervisor, HypervisorError, Power, console};
use definitions::Definitions;
use wires::Wires;

/// The program that every guest runs.
pub(crate) const HELPER: &str = "nova-netns-guest";
/// Its first argument; the guest's name and uuid follow.
pub(crate) const BOOT: &str = "boot";

const CHANGES_KEPT: usize = 1024;
/// Calls for one guest wait for each other; those for two seldom do.
const TURNS: usize = 64;
const WATCH_EVERY: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);
const STARTS_WITHIN: Duration = Duration::from_secs(10);
const DIES_WITHIN: Duration = Duration::from_secs(10);
const LAST_WORDS_BYTES: usize = 512;

/// How guests are made.
#[derive(Clone, Debug)]
pub struct NetnsOptions {
    /// The guest's program, `nova-netns-guest`.
    pub helper: PathBuf,
    /// Whose guests are ours.
    pub cloud: CloudId,
    /// Flag `--instances_path`: the folder with a folder for each guest, where the console's log is kept.
    pub instances_path: PathBuf,
}

/// Guests that are network namespaces.
#[derive(Debug)]
pub struct Netns {
    shared: Arc<Shared>,
    /// Ends with us.
    _watch: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    runner: Arc<dyn Runner>,
    options: NetnsOptions,
    definitions: Definitions,
    wires: Wires,
    changes: broadcast::Sender<Change>,
    told: Mutex<BTreeMap<InstanceId, Power>>,
    turns: Vec<tokio::sync::Mutex<()>>,
}

impl Netns {
    /// Finds the guests that an earlier process left, and begins to watch them. Must be called within a Tokio runtime.
    #[must_use]
    pub fn new(runner: Arc<dyn Runner>, options: NetnsOptions) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let shared = Arc::new(Shared {
            definitions: Definitions::new(&options.instances_path),
            wires: Wires::new(Arc::clone(&runner)),
            runner,
            options,
            changes,
            told: Mutex::default(),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
        });
        let mut watch = JoinSet::new();
        watch.spawn(Arc::clone(&shared).watch());
        Self { shared, _watch: watch }
    }

    /// Asks the guest to end, and waits for that as long as `grace`.
    async fn ask_guest_to_stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError> {
        let Some(guest) = self.shared.guest(id).await? else { return Ok(()) };
        if grace.is_zero() {
            return Ok(());
        }
        self.shared.signal(id, &guest, Signal::Terminate)?;
        // What does not end in time has its plug pulled.
        let _ = timeout(grace, self.shared.until_gone(&guest)).await;
        Ok(())
    }
}

impl Shared {
    async fn turn(&self, id: InstanceId) -> tokio::sync::MutexGuard<'_, ()> {
        let turn = usize::try_from(id.number()).unwrap_or_default() % TURNS;
        self.turns[turn].lock().await
    }

    /// Tells of guests that ended by themselves, and sees to it that their kernel's half is off too.
    async fn watch(self: Arc<Self>) {
        loop {
            sleep(WATCH_EVERY).await;
            let Ok(guests) = self.guests().await else { continue };
            for Guest { id, power } in guests {
                match power {
                    Power::On => self.tell(id, power),
                    // Also what ended while no daemon watched.
                    Power::Off if !self.was_told_off(id) => self.bury(id).await,
                    Power::Off => {}
                }
            }
        }
    }

    fn was_told_off(&self, id: InstanceId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&id) == Some(&Power::Off)
    }

    /// The namespace of a guest that ended would go on answering ping.
    async fn bury(&self, id: InstanceId) {
        let _turn = self.turn(id).await;
        // It may have been started again, or destroyed, since it was looked at.
        if !matches!(self.guest(id).await, Ok(None)) || !self.definitions.has(id) {
            return;
        }
        match self.pull_plug(id, "stop").await {
            Ok(()) => self.tell(id, Power::Off),
            Err(error) => {
                warn!(instance.id = %id, error = %error, "A guest ended, and its namespace cannot be removed.")
            }
        }
    }

    fn tell(&self, id: InstanceId, power: Power) {
        let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, power);
        if before != Some(power) {
            // Nobody listening is fine: these are hints.
            let _ = self.changes.send(Change { id, power });
        }
    }

    fn forget(&self, id: InstanceId) {
        let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if before == Some(Power::On) {
            let _ = self.changes.send(Change { id, power: Power::Off });
        }
    }

    async fn running(&self) -> Result<BTreeMap<InstanceId, Process>, HypervisorError> {
        let (runner, cloud) = (Arc::clone(&self.runner), self.options.cloud);
        let found = tokio::task::spawn_blocking(move || processes::guests(&*runner, cloud)).await;
        found.map_err(|_| HypervisorError::unreachable("the daemon is ending"))?.map_err(unreachable)
    }

    async fn guest(&self, id: InstanceId) -> Result<Option<Process>, HypervisorError> {
        Ok(self.running().await?.remove(&id))
    }

    async fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        let mut all: BTreeMap<InstanceId, Power> =
            self.definitions.list().map_err(unreachable)?.into_iter().map(|id| (id, Power::Off)).collect();
        all.extend(self.running().await?.into_keys().map(|id| (id, Power::On)));
        Ok(all.into_iter().map(|(id, power)| Guest { id, power }).collect())
    }

    fn signal(&self, id: InstanceId, process: &Process, signal: Signal) -> Result<(), HypervisorError> {
        self.runner.signal(process, signal).map(drop).map_err(|error| refused("stop", id, &error))
    }

    async fn until_gone(&self, process: &Process) {
        while nova_run::alive(&*self.runner, process) {
            sleep(POLL).await;
        }
    }

    fn namespace(&self, id: InstanceId) -> String {
        format!("nova-{}", self.options.cloud.domain_uuid(id))
    }

    fn console_log(&self, id: InstanceId) -> PathBuf {
        self.options.instances_path.join(Instance::domain_name(id)).join("console.log")
    }

    async fn boot(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let (id, namespace) = (spec.id, self.namespace(spec.id));
        let file = |path: &Path, done: std::io::Result<()>| {
            done.map_err(|error| refused("boot", id, &format!("{}: {error}", path.display())))
        };
        file(&self.options.instances_path, self.definitions.add(id))?;
        let log = self.console_log(id);
        if let Some(folder) = log.parent() {
            file(folder, std::fs::create_dir_all(folder))?;
        }
        self.wires.plug(&namespace, &spec.nic).await.map_err(|error| refused("boot", id, &error))?;
        let program = Command::new("ip").args(["netns", "exec", &namespace]);
        let command = program
            .path(&self.options.helper)
            .map(|command| {
                command.args([BOOT.to_owned(), Instance::domain_name(id), self.options.cloud.domain_uuid(id)])
            })
            .and_then(|command| command.path(&log))
            .map_err(|error| refused("boot", id, &error))?;
        let process = self.runner.detach(command).await.map_err(|error| refused("boot", id, &error))?;
        self.until_started(id, process.pid).await
    }

    /// Waits until `ip` has become the guest's program.
    async fn until_started(&self, id: InstanceId, pid: u32) -> Result<(), HypervisorError> {
        let begun = Instant::now();
        while let Some(now) = self.runner.look(pid) {
            if now.argv.first().is_some_and(|program| Path::new(program) == self.options.helper) {
                return Ok(());
            }
            if begun.elapsed() > STARTS_WITHIN {
                return Err(refused("boot", id, &"its program does not start"));
            }
            sleep(POLL).await;
        }
        let log = console::tail(&self.console_log(id), LAST_WORDS_BYTES).unwrap_or_default();
        let last = String::from_utf8_lossy(&log).lines().last().unwrap_or_default().to_owned();
        Err(refused("boot", id, &format!("its program ended at once {last}")))
    }

    /// Ends all that is there of a guest but its definition and its files.
    async fn pull_plug(&self, id: InstanceId, verb: &'static str) -> Result<(), HypervisorError> {
        let namespace = self.namespace(id);
        // Also those that the guest left behind, as when it was killed.
        let within = self.wires.processes(&namespace).await.map_err(|error| refused(verb, id, &error))?;
        let all: Vec<Process> = within.into_iter().chain(self.guest(id).await?).collect();
        for process in &all {
            self.signal(id, process, Signal::Kill)?;
        }
        for process in &all {
            let gone = timeout(DIES_WITHIN, self.until_gone(process)).await;
            gone.map_err(|_| refused(verb, id, &format!("its process {} does not end", process.pid)))?;
        }
        self.wires.unplug(&namespace).await.map_err(|error| refused(verb, id, &error))
    }
}

#[async_trait]
impl Hypervisor for Netns {
    async fn ensure_running(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let _turn = self.shared.turn(spec.id).await;
        if self.shared.guest(spec.id).await?.is_none() {
            self.shared.pull_plug(spec.id, "boot").await?;
            if let Err(error) = self.shared.boot(spec).await {
                // What is left is found by the next call too; a bridge should not have to wait for that.
                let _ = self.shared.pull_plug(spec.id, "boot").await;
                return Err(error);
            }
        }
        self.shared.tell(spec.id, Power::On);
        Ok(())
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError> {
        // Destroying must not wait for a guest that takes its time.
        self.ask_guest_to_stop(id, grace).await?;
        let _turn = self.shared.turn(id).await;
        self.shared.pull_plug(id, "stop").await?;
        if self.shared.definitions.has(id) {
            self.shared.tell(id, Power::Off);
        }
        Ok(())
    }

    async fn reboot(&self, spec: &GuestSpec, grace: Duration) -> Result<(), HypervisorError> {
        self.stop(spec.id, grace).await?;
        self.ensure_running(spec).await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let _turn = self.shared.turn(id).await;
        self.shared.pull_plug(id, "destroy").await?;
        self.shared.definitions.remove(id).map_err(|error| refused("destroy", id, &error))?;
        self.shared.forget(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Guest>, HypervisorError> {
        self.shared.guests().await
    }

    async fn console(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError> {
        let log = self.shared.console_log(id);
        let read = tokio::task::spawn_blocking(move || console::tail(&log, max_bytes)).await;
        read.unwrap_or_else(|_| Err(HypervisorError::unreachable("the daemon is ending")))
    }

    fn events(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }
}

/// Says what is missing for guests of this kind on this machine, if anything is.
pub(crate) async fn missing(runner: &dyn Runner) -> Option<String> {
    if let Err(error) = runner.run(Command::new("ip").args(["netns", "list"])).await {
        return Some(format!("it needs iproute2: {error}"));
    }
    match runner.run(Command::new("busybox").arg("--list")).await {
        Ok(listed) if ["udhcpc", "wget"].iter().all(|wanted| listed.text().lines().any(|line| line == *wanted)) => None,
        Ok(_) => Some("it needs busybox-static: this busybox has no udhcpc or no wget".to_owned()),
        Err(error) => Some(format!("it needs busybox-static: {error}")),
    }
}

fn refused(verb: &'static str, id: InstanceId, reason: &dyn Display) -> HypervisorError {
    HypervisorError::Refused { verb, id, reason: reason.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is called by map_err")]
fn unreachable(error: std::io::Error) -> HypervisorError {
    HypervisorError::unreachable(error.to_string())
}
