//! libvirt, asked through the helper `nova-libvirt`.
//!
//! The helper links libvirt and may hang or die with it; here every question has a deadline, and a helper that ends
//! is started again. Whatever stands between us and libvirt is [`HypervisorError::Unreachable`].

mod helper;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_run::Runner;
use nova_types::InstanceId;
use nova_types::instance::Instance;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

use crate::protocol::{Domain, Outcome, Verb};
use crate::{Accel, Change, CloudId, Guest, GuestSpec, Hypervisor, HypervisorError, Power, console, domain};
use helper::Helper;

/// libvirt on a busy host needs seconds to start a guest, and much more where it has to learn about QEMU first.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// libvirt itself gives QEMU 15 s to end after SIGTERM, then 15 s more after SIGKILL.
const END_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_DEADLINE: Duration = Duration::from_secs(15);
const POWER_POLL: Duration = Duration::from_millis(250);
/// A guest that is still booting does not hear the power button, so it is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(5);
const CHANGES_KEPT: usize = 1024;

/// Where libvirt is, and how guests are made there.
#[derive(Clone, Debug)]
pub struct LibvirtOptions {
    /// The helper's file.
    pub helper: PathBuf,
    /// libvirt's address: `qemu:///system`.
    pub uri: String,
    /// How guests are executed.
    pub accel: Accel,
    /// Whose guests are ours.
    pub cloud: CloudId,
    /// Flag `--instances_path`: the folder with a folder for each guest, where the console's log is kept.
    pub instances_path: PathBuf,
}

/// Guests run by libvirt.
#[derive(Debug)]
pub struct Libvirt {
    helper: Helper,
    accel: Accel,
    cloud: CloudId,
    instances_path: PathBuf,
    changes: broadcast::Sender<Change>,
}

impl Libvirt {
    /// Starts the helper in the background; libvirt may be absent for now. The helper ends when this is dropped.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn new(runner: Arc<dyn Runner>, options: LibvirtOptions) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let (tell, cloud) = (changes.clone(), options.cloud);
        let helper = Helper::start(runner, &options.helper, &options.uri, move |domain| {
            if let Some(guest) = guest(cloud, &domain) {
                // Nobody listening is fine: these are hints.
                let _ = tell.send(Change { id: guest.id, power: guest.power });
            }
        });
        Self { helper, accel: options.accel, cloud: options.cloud, instances_path: options.instances_path, changes }
    }

    fn uuid(&self, id: InstanceId) -> String {
        self.cloud.domain_uuid(id)
    }

    fn folder(&self, id: InstanceId) -> PathBuf {
        self.instances_path.join(Instance::domain_name(id))
    }

    fn console_log(&self, id: InstanceId) -> PathBuf {
        self.folder(id).join("console.log")
    }

    async fn ask(
        &self,
        id: InstanceId,
        word: &'static str,
        verb: Verb,
        deadline: Duration,
    ) -> Result<Outcome, HypervisorError> {
        match self.helper.ask(verb, deadline).await {
            Outcome::CouldNotAsk { reason } => Err(HypervisorError::Unreachable { reason }),
            Outcome::Refused { reason } => Err(HypervisorError::Refused { verb: word, id, reason }),
            outcome @ (Outcome::Done | Outcome::Domains { .. } | Outcome::Power { .. }) => Ok(outcome),
        }
    }

    async fn is_on(&self, id: InstanceId) -> Result<bool, HypervisorError> {
        match self.ask(id, "look at", Verb::Look { uuid: self.uuid(id) }, LOOK_DEADLINE).await? {
            Outcome::Power { on } => Ok(on == Some(true)),
            other => Err(nonsense(&other)),
        }
    }

    /// Presses the button until the guest is off or `grace` is over; whether the guest cares is its own affair.
    async fn ask_guest_to_stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError> {
        let begun = Instant::now();
        let mut pressed: Option<Instant> = None;
        while begun.elapsed() < grace && self.is_on(id).await? {
            if pressed.is_none_or(|then| then.elapsed() >= PRESS_AGAIN) {
                pressed = Some(Instant::now());
                match self.ask(id, "stop", Verb::Press { uuid: self.uuid(id) }, LOOK_DEADLINE).await {
                    Ok(_) | Err(HypervisorError::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            sleep(POWER_POLL).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn ensure_running(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        let xml = domain::xml(spec, self.accel, self.cloud, &self.console_log(spec.id))?;
        // For people to read, where they always found it; nobody else does, so it may fail.
        let _ = tokio::fs::write(self.folder(spec.id).join("libvirt.xml"), &xml).await;
        let verb = Verb::Ensure { uuid: self.uuid(spec.id), xml };
        self.ask(spec.id, "boot", verb, BOOT_DEADLINE).await.map(drop)
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError> {
        self.ask_guest_to_stop(id, grace).await?;
        self.ask(id, "stop", Verb::Unplug { uuid: self.uuid(id) }, END_DEADLINE).await.map(drop)
    }

    async fn reboot(&self, spec: &GuestSpec, grace: Duration) -> Result<(), HypervisorError> {
        self.stop(spec.id, grace).await?;
        self.ensure_running(spec).await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.ask(id, "destroy", Verb::Remove { uuid: self.uuid(id) }, END_DEADLINE).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Guest>, HypervisorError> {
        match self.helper.ask(Verb::List, LOOK_DEADLINE).await {
            Outcome::Domains { domains } => Ok(domains.iter().filter_map(|each| guest(self.cloud, each)).collect()),
            Outcome::CouldNotAsk { reason } | Outcome::Refused { reason } => {
                Err(HypervisorError::Unreachable { reason })
            }
            other @ (Outcome::Done | Outcome::Power { .. }) => Err(nonsense(&other)),
        }
    }

    async fn console(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError> {
        let log = self.console_log(id);
        let read = tokio::task::spawn_blocking(move || console::tail(&log, max_bytes)).await;
        read.unwrap_or_else(|_| Err(HypervisorError::unreachable("the daemon is ending")))
    }

    fn events(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

fn guest(cloud: CloudId, domain: &Domain) -> Option<Guest> {
    let power = if domain.on { Power::On } else { Power::Off };
    cloud.recognise(&domain.name, &domain.uuid).map(|id| Guest { id, power })
}

fn nonsense(outcome: &Outcome) -> HypervisorError {
    HypervisorError::unreachable(format!("the helper answered another question ({outcome:?})"))
}

#[cfg(test)]
mod tests;
