//! Guests that are only pretended: power states, console text, delays and failures, but no process.
//!
//! They outlive the daemon as libvirt's do: every change is a line in a small file, read again at the next start, so
//! that killing a daemon proves as much here as with real guests. A guest costs some hundred bytes.

mod faults;
mod journal;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_types::InstanceId;
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::{Change, Guest, GuestSpec, Hypervisor, HypervisorError, Power};
use faults::Faults;
pub use faults::{Call, Fault};
use journal::Journal;

const CHANGES_KEPT: usize = 1024;

/// How long calls take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// To define and boot a guest.
    pub boot: Duration,
    /// To power a guest off after it was asked, or its plug pulled.
    pub stop: Duration,
    /// To destroy a guest.
    pub destroy: Duration,
}

impl Delays {
    /// What libvirt and QEMU were measured to take for a small guest.
    pub const REALISTIC: Self = Self {
        boot: Duration::from_millis(450),
        stop: Duration::from_millis(1000),
        destroy: Duration::from_millis(1450),
    };
    /// No delay at all.
    pub const NONE: Self = Self { boot: Duration::ZERO, stop: Duration::ZERO, destroy: Duration::ZERO };
}

/// How guests are simulated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long calls take.
    pub delays: Delays,
    /// The file that guests are kept in; without one they end with the process.
    pub state_file: Option<PathBuf>,
    /// Makes random failures repeatable.
    pub seed: u64,
}

/// Simulated guests.
#[derive(Debug)]
pub struct Simulated {
    delays: Delays,
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug)]
struct State {
    guests: BTreeMap<InstanceId, Power>,
    journal: Journal,
    faults: Faults,
}

impl Simulated {
    /// Reads the guests that an earlier process left.
    ///
    /// # Errors
    /// Those of the state file: it cannot be read, or cannot be made.
    pub fn open(options: Options) -> io::Result<Self> {
        let (journal, guests) = match &options.state_file {
            Some(path) => Journal::open(path)?,
            None => (Journal::none(), BTreeMap::new()),
        };
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let state = State { guests, journal, faults: Faults::new(options.seed) };
        Ok(Self { delays: options.delays, state: Mutex::new(state), changes })
    }

    /// Starts without guests, without delays and without a file.
    #[must_use]
    pub fn in_memory() -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let state = State { guests: BTreeMap::new(), journal: Journal::none(), faults: Faults::new(0) };
        Self { delays: Delays::NONE, state: Mutex::new(state), changes }
    }

    /// Tells whether there are any guests.
    #[must_use]
    pub fn has_guests(&self) -> bool {
        !self.state().guests.is_empty()
    }

    /// Lets the next `times` calls of one kind fail.
    pub fn fail_next(&self, call: Call, fault: Fault, times: u32) {
        self.state().faults.next(call, fault, times);
    }

    /// Lets about `per_mille` of a thousand calls of one kind fail, from now on.
    pub fn fail_often(&self, call: Call, fault: Fault, per_mille: u32) {
        self.state().faults.often(call, fault, per_mille);
    }

    /// Lets a guest power itself off, as a user inside it can.
    pub fn power_off_inside(&self, id: InstanceId) {
        self.switch(id, Some(Power::Off));
    }

    /// Lets the host restart: every guest is off, none is forgotten.
    pub fn restart_host(&self) {
        let ids: Vec<InstanceId> = self.state().guests.keys().copied().collect();
        ids.into_iter().for_each(|id| self.switch(id, Some(Power::Off)));
    }

    /// Lets a guest vanish behind our back, definition and all.
    pub fn vanish(&self, id: InstanceId) {
        self.switch(id, None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where it should, before anything is done.
    fn check(&self, call: Call, id: InstanceId) -> Result<(), HypervisorError> {
        self.state().faults.draw(call).map_or(Ok(()), |fault| Err(fault.error(call, id)))
    }

    fn power(&self, id: InstanceId) -> Option<Power> {
        self.state().guests.get(&id).copied()
    }

    fn switch(&self, id: InstanceId, power: Option<Power>) {
        let mut state = self.state();
        let before = match power {
            Some(power) => state.guests.insert(id, power),
            None => state.guests.remove(&id),
        };
        if before != power {
            state.journal.write(id, power);
            let _ = self.changes.send(Change { id, power: power.unwrap_or(Power::Off) });
        }
    }
}

#[async_trait]
impl Hypervisor for Simulated {
    async fn ensure_running(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
        self.check(Call::EnsureRunning, spec.id)?;
        if self.power(spec.id) != Some(Power::On) {
            pause(self.delays.boot).await;
            self.switch(spec.id, Some(Power::On));
        }
        Ok(())
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError> {
        self.check(Call::Stop, id)?;
        if self.power(id) == Some(Power::On) {
            pause(self.delays.stop.min(grace)).await;
            // It may have been destroyed meanwhile.
            if self.power(id).is_some() {
                self.switch(id, Some(Power::Off));
            }
        }
        Ok(())
    }

    async fn reboot(&self, spec: &GuestSpec, grace: Duration) -> Result<(), HypervisorError> {
        self.check(Call::Reboot, spec.id)?;
        self.stop(spec.id, grace).await?;
        self.ensure_running(spec).await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.check(Call::Destroy, id)?;
        if self.power(id).is_some() {
            pause(self.delays.destroy).await;
            self.switch(id, None);
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Guest>, HypervisorError> {
        self.check(Call::List, InstanceId::new(0))?;
        Ok(self.state().guests.iter().map(|(id, power)| Guest { id: *id, power: *power }).collect())
    }

    async fn console(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError> {
        self.check(Call::Console, id)?;
        if self.power(id).is_none() {
            return Ok(Vec::new());
        }
        let text = format!(
            "[    0.000000] Linux version 2.6.32-simulated\r\n[    0.310000] eth0: link up\r\n\
             cloud-init: instance-id {id}\r\n\r\nSimulated 10.04 {id} ttyS0\r\n\r\n{id} login: "
        );
        Ok(text.as_bytes()[text.len().saturating_sub(max_bytes)..].to_vec())
    }

    fn events(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

/// A pause of zero must not cost a turn of the timer.
async fn pause(length: Duration) {
    if !length.is_zero() {
        sleep(length).await;
    }
}

#[cfg(test)]
mod tests;
